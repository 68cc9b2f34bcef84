"""The bytes that a caller gets are those that the backend sent.

Shown in two ways, over every real backend: a tap between gateway and backend keeps what the backend
sent for the very request, and the same request is sent to the backend directly. In the second way
only what differs between two direct answers (ids, times, timings) is masked.
"""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
SPEECH = "/v1/audio/speech"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
SENTENCE = "Hello, how can I help you today?"
GREEDY = {"temperature": 0, "seed": 1, "max_tokens": 6}
SAYS = {"model": "smollm2", "messages": [{"role": "user", "content": "Say hello."}], **GREEDY}
GOES_ON = {"model": "smollm2", "prompt": "The sky is", **GREEDY}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


class Tap:
    """Passes bytes between the gateway and a backend, and keeps what the backend sent.

    It takes one request after the other, as this file's tests send them.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                for one, other, keep in ((near, far, False), (far, near, True)):
                    kept = bytearray()
                    if keep:
                        self.sent.append(kept)
                    threading.Thread(
                        target=_pump, args=(one, other, kept if keep else None), daemon=True
                    ).start()

    def forget(self) -> None:
        """Drop what was kept: a request follows."""
        for kept in self.sent:
            kept.clear()

    def kept(self) -> bytes:
        """Return what the backend has sent since, on the one connection that was used."""
        [raw] = [bytes(kept) for kept in self.sent if kept]
        return raw

    def close(self) -> None:
        self._listener.close()


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            if kept is not None:
                kept += data
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


class Case(NamedTuple):
    """A request of which the answer is compared."""

    name: str
    backend: str
    path: str
    json: dict[str, Any] | None = None
    form: dict[str, str] | None = None
    stable: bool = True
    """Whether two direct answers are the same; the voice draws its own randomness."""


CASES = [
    Case("chat", "chat-a", CHAT, SAYS),
    Case("chat-stream-with-usage", "chat-a", CHAT, {**SAYS, **WITH_USAGE}),
    Case("completion", "chat-a", COMPLETIONS, GOES_ON),
    Case("completion-stream-with-usage", "chat-a", COMPLETIONS, {**GOES_ON, **WITH_USAGE}),
    Case("responses", "chat-a", "/v1/responses", {"model": "smollm2", "input": "Hi.",
         "max_output_tokens": 4, "temperature": 0}),
    Case("responses-stream", "chat-a", "/v1/responses", {"model": "smollm2", "input": "Hi.",
         "max_output_tokens": 4, "temperature": 0, "stream": True}),
    Case("messages-stream", "chat-a", "/v1/messages", {**SAYS, "stream": True}),
    Case("embeddings", "embeddings", EMBEDDINGS, {"model": "all-minilm-l6-v2", "input": "a river"}),
    Case("speech-wav", "piper", SPEECH, {"model": "piper", "input": SENTENCE, "voice": "alloy",
         "response_format": "wav"}, stable=False),
    Case("speech-mp3", "piper", SPEECH, {"model": "piper", "input": SENTENCE, "voice": "alloy"},
         stable=False),
    Case("speech-events", "piper", SPEECH, {"model": "piper", "input": SENTENCE, "voice": "alloy",
         "response_format": "pcm", "stream_format": "sse"}, stable=False),
    Case("transcription", "whisper", TRANSCRIPTIONS, form={"model": "whisper"}),
    Case("transcription-verbose", "whisper", TRANSCRIPTIONS,
         form={"model": "whisper", "response_format": "verbose_json"}),
    Case("transcription-stream", "whisper", TRANSCRIPTIONS,
         form={"model": "whisper", "stream": "true"}),
]  # fmt: skip
each = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


class Tapped(NamedTuple):
    """A gateway whose way to every backend is tapped."""

    url: str
    taps: dict[str, Tap]


@pytest.fixture(scope="module")
def tapped(stack: Stack) -> Iterator[Tapped]:
    settings = stack.settings()
    taps = {}
    for name in ("chat-a", "embeddings", "piper", "whisper"):
        taps[name] = Tap(stack.backends[name].port)
        # its probes would be among what the tap keeps
        settings["backends"][name] |= {"url": taps[name].url, "probe_interval": 3600.0}
    yield Tapped(stack.gateway(settings).url, taps)
    for tap in taps.values():
        tap.close()


@pytest.fixture(scope="module")
def recording(stack: Stack) -> bytes:
    body = {"model": "piper", "input": SENTENCE, "voice": "alloy", "response_format": "wav"}
    return httpx.post(stack.backends["piper"].url + SPEECH, json=body, timeout=60).content


def send(url: str, case: Case, recording: bytes) -> httpx.Response:
    headers = {"authorization": "Bearer sk-full"}
    if case.form is None:
        return httpx.post(url + case.path, json=case.json, headers=headers, timeout=60)
    files = {"file": ("said.wav", recording, "audio/wav")}
    return httpx.post(url + case.path, data=case.form, files=files, headers=headers, timeout=60)


def body_of(raw: bytes) -> bytes:
    """Return the body of a response as it was on the wire."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    parts = []
    while (size := int(body[: body.index(b"\r\n")], 16)) > 0:
        start = body.index(b"\r\n") + 2
        parts.append(body[start : start + size])
        body = body[start + size + 2 :]
    return b"".join(parts)


@each
def test_the_caller_gets_what_the_backend_sent(
    tapped: Tapped, case: Case, recording: bytes
) -> None:
    tap = tapped.taps[case.backend]
    tap.forget()

    answer = send(tapped.url, case, recording)

    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 20
    assert answer.content == body_of(tap.kept())


def test_only_the_usage_that_the_caller_did_not_ask_for_is_taken_out(
    tapped: Tapped, recording: bytes
) -> None:
    tap = tapped.taps["chat-a"]
    tap.forget()

    answer = send(tapped.url, Case("", "", CHAT, {**SAYS, "stream": True}), recording)

    sent = body_of(tap.kept()).split(b"\n\n")
    taken_out = [event for event in sent if b'"usage":{' in event]
    assert len(taken_out) == 1
    assert answer.content == b"\n\n".join(event for event in sent if event not in taken_out)


@pytest.mark.parametrize(
    "case", stable := [case for case in CASES if case.stable], ids=[case.name for case in stable]
)
def test_a_direct_answer_is_the_same(stack: Stack, case: Case, recording: bytes) -> None:
    direct = stack.backends[case.backend].url
    send(direct, case, recording)  # fills the engine's prompt cache, which its usage tells of
    one, other = (send(direct, case, recording) for _ in range(2))

    through = send(stack.url, case, recording)

    assert masked(one.content) == masked(other.content)
    assert masked(through.content) == masked(one.content)
    assert through.headers["content-type"] == one.headers["content-type"]


def test_a_direct_stream_without_usage_is_the_same(stack: Stack, recording: bytes) -> None:
    case = Case("", "", CHAT, {**SAYS, "stream": True})
    direct = stack.backends["chat-a"].url
    send(direct, case, recording)
    expected = send(direct, case, recording)

    through = send(stack.url, case, recording)

    assert b'"usage":{' not in expected.content
    # llama.cpp puts its timings into the usage chunk when there is one, and that is taken out
    without = re.sub(rb',"timings":\{[^}]*\}', b"", expected.content)
    assert without != expected.content
    assert masked(through.content) == masked(without)


CHANGING = (
    rb'"(?:id|item_id|call_id)":"[a-z]+[-_][A-Za-z0-9]+"',
    rb'"(?:created|created_at|completed_at)":\d+',
    rb'"timings":\{[^}]*\}',
)


def masked(body: bytes) -> bytes:
    """Hide ids, times and timings."""
    for pattern in CHANGING:
        body = re.sub(pattern, b"#", body)
    return body
