"""Speech and transcription by the official `openai` client, in front of real Piper and Whisper."""

from __future__ import annotations

import io
import re
import wave
from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    import httpx

pytestmark = [pytest.mark.real, pytest.mark.slow]

SENTENCE = "Hello, how can I help you today?"
WORDS = "hello how can i help you today"
TRANSCRIPTIONS = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def said(client: openai.OpenAI) -> bytes:
    """A WAV file that the gateway made."""
    answer = client.audio.speech.create(
        model="tts-1", voice="alloy", input=SENTENCE, response_format="wav"
    )
    return answer.content


def words(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower()))


def file(said: bytes) -> tuple[str, bytes, str]:
    return ("said.wav", said, "audio/wav")


def test_speech_is_a_wav_file_of_some_seconds(said: bytes) -> None:
    with wave.open(io.BytesIO(said)) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 22050)
    seconds = (len(said) - 44) / 2 / 22050
    assert 1 < seconds < 6


@pytest.mark.parametrize(
    ("name", "start"),
    [("mp3", (b"ID3", b"\xff\xf3", b"\xff\xfb")), ("flac", (b"fLaC",)), ("opus", (b"OggS",))],
)
def test_speech_comes_in_the_format_that_is_asked_for(
    client: openai.OpenAI, name: Any, start: tuple[bytes, ...]
) -> None:
    answer = client.audio.speech.create(
        model="piper", voice="alloy", input="Yes.", response_format=name
    )
    assert answer.content.startswith(start)


def test_speech_can_be_streamed_as_it_is_made(client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="piper", voice="alloy", input=f"{SENTENCE} {SENTENCE}", response_format="pcm"
    ) as answer:
        pieces = list(answer.iter_bytes())
        assert answer.headers["x-synapse-backend"] == "piper"
        assert "content-length" not in answer.headers
    assert sum(map(len, pieces)) > 2 * 22050


def test_speech_sent_back_comes_out_as_the_same_words(client: openai.OpenAI, said: bytes) -> None:
    answer = client.audio.transcriptions.create(model="whisper-1", file=file(said))
    assert words(answer.text) == WORDS


def test_a_transcription_as_plain_text(client: openai.OpenAI, said: bytes) -> None:
    text = client.audio.transcriptions.create(
        model="whisper", file=file(said), response_format="text"
    )
    assert words(str(text)) == WORDS


@pytest.mark.parametrize(
    ("name", "start", "arrow"),
    [("srt", "1\n00:00:00,", " --> 00:00:0"), ("vtt", "WEBVTT\n", " --> 00:0")],
)
def test_a_transcription_as_subtitles(
    client: openai.OpenAI, said: bytes, name: Any, start: str, arrow: str
) -> None:
    text = str(
        client.audio.transcriptions.create(model="whisper", file=file(said), response_format=name)
    )
    assert text.startswith(start)
    assert arrow in text
    assert WORDS in words(text)


def test_a_transcription_with_times(client: openai.OpenAI, said: bytes) -> None:
    answer = client.audio.transcriptions.create(
        model="whisper",
        file=file(said),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert words(answer.text) == WORDS
    assert [words(word.word) for word in answer.words or []] == WORDS.split()
    starts = [word.start for word in answer.words or []]
    assert starts == sorted(starts)
    assert answer.segments
    assert 1 < float(answer.duration) < 6


def test_a_streamed_transcription_ends_with_the_whole(client: openai.OpenAI, said: bytes) -> None:
    with client.audio.transcriptions.create(
        model="whisper", file=file(said), stream=True
    ) as stream:
        *deltas, last = stream
    assert last.type == "transcript.text.done"
    assert words(last.text) == WORDS
    assert words("".join(e.delta for e in deltas if e.type == "transcript.text.delta")) == WORDS


def test_a_file_that_is_no_sound_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.transcriptions.create(
            model="whisper", file=("x.wav", b"no sound", "audio/wav")
        )
    assert caught.value.status_code in (400, 415, 422)
    assert caught.value.param == "file"


def test_a_form_without_a_file_names_the_field(http: httpx.Client) -> None:
    answer = http.post(TRANSCRIPTIONS, files={"model": (None, "whisper")})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "file"


def test_a_language_that_the_model_does_not_know_is_refused_with_the_reason(
    http: httpx.Client, said: bytes
) -> None:
    ask = {"model": "whisper", "language": "de"}
    answer = http.post(TRANSCRIPTIONS, data=ask, files={"file": file(said)})
    assert answer.status_code == 501
    assert "knows English only" in answer.json()["error"]["message"]


@pytest.mark.parametrize("model", ["whisper", "whisper-1", "auto", None])
def test_a_translation_where_no_model_translates_is_a_501_with_the_reason(
    http: httpx.Client, said: bytes, model: str | None
) -> None:
    ask = {} if model is None else {"model": model}
    answer = http.post("/v1/audio/translations", data=ask, files={"file": file(said)})
    assert answer.status_code == 501
    assert "translates nothing" in answer.json()["error"]["message"]
