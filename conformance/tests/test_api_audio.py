"""Speech and transcription by OpenAI's client; speakers and audio by the contract's routes."""

from __future__ import annotations

import io
import re
import wave
from typing import TYPE_CHECKING, Any

import openai
import pytest
from conformance.suite.gateway import SPEECH, TRANSCRIPTION
from conformance.suite.lines import NotSupported, line

if TYPE_CHECKING:
    import httpx
    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence

SENTENCE = "Hello, how can I help you today?"
WORDS = "hello how can i help you today"
STARTS = {"mp3": (b"ID3", b"\xff\xf3", b"\xff\xfb"), "flac": (b"fLaC",), "opus": (b"OggS",)}


@pytest.fixture(scope="module")
def recordings() -> dict[str, bytes]:
    """Recordings by the sentence: what a speaking model has said is heard by the others."""
    return {}


@pytest.fixture
def said(gateway: Gateway, recordings: dict[str, bytes]) -> bytes:
    """The sentence as a WAV file, spoken by the deployment itself."""
    if "wav" not in recordings:
        if not gateway.capable[TRANSCRIPTION]:
            gateway.model(TRANSCRIPTION)
        speaker = gateway.model(SPEECH)
        recordings["wav"] = gateway.openai.audio.speech.create(
            model=speaker, voice="alloy", input=SENTENCE, response_format="wav"
        ).content
    return recordings["wav"]


def sent(gateway: Gateway, path: str, said: bytes, *fields: str, **form: str) -> httpx.Response:
    """The answer to a recording.

    Args:
        gateway: The gateway.
        path: A route.
        said: A WAV file.
        fields: Those that hold it.
        form: Other fields.

    Raises:
        NotSupported: Nothing of the deployment does it.
    """
    gateway.need(path)
    files = dict.fromkeys(fields or ("file",), ("said.wav", said, "audio/wav"))
    answer = gateway.http.post(path, files=files, data=form)
    if answer.status_code == 501:
        raise NotSupported(f"{path}: {answer.json()['error']['message']}")
    assert answer.status_code == 200, answer.text
    return answer


def seconds_of(file: bytes) -> float:
    """How long a WAV file lasts, whatever its head says of that: a streamed one cannot know."""
    with wave.open(io.BytesIO(file)) as sound:
        width = sound.getsampwidth() * sound.getnchannels()
        return float((len(file) - 44) / width / sound.getframerate())


def words(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower()))


@line("api.speech", "Every speaking model says a sentence as a WAV file of some seconds")
def test_speech(gateway: Gateway, evidence: Evidence) -> None:
    gateway.model(SPEECH)
    for name in gateway.capable[SPEECH]:
        answer = gateway.openai.audio.speech.create(
            model=name, voice="alloy", input=SENTENCE, response_format="wav"
        )
        seconds = seconds_of(answer.content)
        assert 0.2 < seconds < 20
        evidence(name, f"{seconds:.1f} s of sound")


@line("api.speech.formats", "Speech comes in the format that is asked for")
def test_speech_formats(gateway: Gateway, evidence: Evidence) -> None:
    model = gateway.model(SPEECH)
    for name, starts in STARTS.items():
        kind: Any = name
        answer = gateway.openai.audio.speech.create(
            model=model, voice="alloy", input="Yes.", response_format=kind
        )
        assert answer.content.startswith(starts), f"{name} begins with {answer.content[:4]!r}"
    evidence("formats", ", ".join(["wav", *STARTS]))


@line("api.transcriptions", "Every hearing model writes down what was said")
def test_transcription(gateway: Gateway, said: bytes, evidence: Evidence) -> None:
    for name in gateway.capable[TRANSCRIPTION]:
        answer = gateway.openai.audio.transcriptions.create(
            model=name, file=("said.wav", said, "audio/wav")
        )
        assert words(answer.text) == WORDS
        evidence(name, answer.text.strip())


@line("api.transcriptions.formats", "A transcription comes as text, subtitles, or with times")
def test_transcription_formats(gateway: Gateway, said: bytes) -> None:
    model = gateway.model(TRANSCRIPTION)

    def ask(kind: Any) -> Any:
        return gateway.openai.audio.transcriptions.create(
            model=model, file=("said.wav", said, "audio/wav"), response_format=kind
        )

    assert words(str(ask("text"))) == WORDS
    assert " --> " in str(ask("srt"))
    assert str(ask("vtt")).startswith("WEBVTT")
    told = ask("verbose_json")
    assert told.segments
    assert float(told.duration) > 0.2


@line("api.transcriptions.stream", "A streamed transcription ends with the whole")
def test_transcription_stream(gateway: Gateway, said: bytes) -> None:
    model = gateway.model(TRANSCRIPTION)
    with gateway.openai.audio.transcriptions.create(
        model=model, file=("said.wav", said, "audio/wav"), stream=True
    ) as stream:
        *_, last = stream
    assert last.type == "transcript.text.done"
    assert words(last.text) == WORDS


@line("api.translations", "A recording is translated into English")
def test_translation(gateway: Gateway, said: bytes) -> None:
    gateway.need("/v1/audio/translations")
    model = gateway.model(TRANSCRIPTION)
    try:
        answer = gateway.openai.audio.translations.create(
            model=model, file=("said.wav", said, "audio/wav")
        )
    except openai.APIStatusError as error:
        if error.status_code in (400, 501):
            raise NotSupported(f"{model}: {error.message}") from None
        raise
    assert words(answer.text) == WORDS


@line("api.transcriptions.errors", "What is no sound, or no file, is refused and named")
def test_bad_recordings(gateway: Gateway) -> None:
    model = gateway.model(TRANSCRIPTION)
    with pytest.raises(openai.APIStatusError) as caught:
        gateway.openai.audio.transcriptions.create(
            model=model, file=("said.wav", b"no sound", "audio/wav")
        )
    assert caught.value.status_code in (400, 415, 422)
    answer = gateway.http.post("/v1/audio/transcriptions", files={"model": (None, model)})
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["param"] == "file"


@line("api.speakers.diarize", "In a recording of one person one speaker is found, and when")
def test_diarization(gateway: Gateway, said: bytes, evidence: Evidence) -> None:
    answer = sent(gateway, "/speakers/diarize", said).json()
    assert answer["num_speakers"] == 1
    lasts = seconds_of(said) + 0.1
    assert all(0 <= part["start"] < part["end"] <= lasts for part in answer["segments"])
    evidence("segments", len(answer["segments"]))


@line("api.speakers.verify", "A recording is of the same speaker as itself")
def test_verification(gateway: Gateway, said: bytes, evidence: Evidence) -> None:
    answer = sent(gateway, "/speakers/verify", said, "file1", "file2").json()
    assert answer["is_same_speaker"] is True
    evidence("similarity", answer["similarity_score"])


@line("api.audio.denoise", "A recording comes back cleaned, and lasts as long")
def test_noise_removal(gateway: Gateway, said: bytes, evidence: Evidence) -> None:
    cleaned = sent(gateway, "/audio/denoise", said).content
    assert seconds_of(cleaned) == pytest.approx(seconds_of(said), abs=0.05)
    evidence("lasts", f"{seconds_of(cleaned):.2f} s of {seconds_of(said):.2f} s")


@line("api.audio.convert", "A recording comes back in the format that is asked for")
def test_conversion(gateway: Gateway, said: bytes, evidence: Evidence) -> None:
    starts = {"mp3": STARTS["mp3"], "flac": STARTS["flac"], "ogg": STARTS["opus"]}
    for name, start in starts.items():
        made = sent(gateway, "/audio/convert", said, output_format=name).content
        assert made.startswith(start), f"{name} begins with {made[:4]!r}"
    evidence("formats", ", ".join(starts))
