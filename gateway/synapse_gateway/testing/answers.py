"""Right answers of an OpenAI-shaped server, as bytes: whole JSON, and server-sent events.

The shapes are those of OpenAI's reference for chat completions, completions, embeddings, responses,
speech and transcription, of Anthropic's for messages, of Cohere's for rerank, and of our own audio
servers. The text of an answer is a list of words; a stream sends one word an event.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

DONE = b"data: [DONE]\n\n"
WORDS = ("alpha", "beta", "gamma")
CREATED = 1_700_000_000


def event(payload: dict[str, Any], name: str = "") -> bytes:
    """Return one server-sent event."""
    prefix = f"event: {name}\n" if name else ""
    return f"{prefix}data: {compact(payload)}\n\n".encode()


def compact(value: Any) -> str:
    """Encode JSON without blanks, other scripts than ASCII as they are."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def error(message: str = "the engine failed", kind: str = "server_error") -> dict[str, Any]:
    """Return OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Return OpenAI's usage object."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def whole(path: str, model: str, words: Sequence[str] = WORDS) -> tuple[str, bytes]:
    """Return content type and body of a complete answer that is not streamed."""
    if path in _SOUND:
        return "audio/wav", wav(len(words))
    maker = _WHOLE.get(path, _chat)
    return "application/json", compact(maker(model, " ".join(words), len(words))).encode()


def wav(tenths: int = 3) -> bytes:
    """Return a WAV file of silence, in tenths of a second (16 kHz, 16 bit, mono)."""
    samples = bytes(3200 * tenths)
    size = len(samples)
    return (
        b"RIFF"
        + (36 + size).to_bytes(4, "little")
        + b"WAVEfmt "
        + _PCM_16_KHZ
        + b"data"
        + size.to_bytes(4, "little")
        + samples
    )


_PCM_16_KHZ = struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)


def _chat(model: str, text: str, count: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-faulty",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage(7, count),
    }


def _completion(model: str, text: str, count: int) -> dict[str, Any]:
    return {
        "id": "cmpl-faulty",
        "object": "text_completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage(7, count),
    }


def _embedding(model: str, text: str, count: int) -> dict[str, Any]:
    del text
    vector = {"object": "embedding", "index": 0, "embedding": [0.5, -0.25, 0.125]}
    tokens = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": [vector], "model": model, "usage": tokens}


def _response(model: str, text: str, count: int) -> dict[str, Any]:
    content = {"type": "output_text", "text": text, "annotations": []}
    message = {
        "id": "msg_faulty",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [content],
    }
    return {
        "id": "resp_faulty",
        "object": "response",
        "created_at": CREATED,
        "model": model,
        "status": "completed",
        "output": [message],
        "usage": {"input_tokens": 7, "output_tokens": count, "total_tokens": 7 + count},
    }


def _message(model: str, text: str, count: int) -> dict[str, Any]:
    return {
        "id": "msg_faulty",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": count},
    }


def _rerank(model: str, text: str, count: int) -> dict[str, Any]:
    del text
    results = [{"index": index, "relevance_score": 1 / (index + 1)} for index in range(count)]
    return {"id": "rerank-faulty", "model": model, "results": results}


def _count(model: str, text: str, count: int) -> dict[str, Any]:
    del model, text
    return {"input_tokens": count}


def _transcription(model: str, text: str, count: int) -> dict[str, Any]:
    """Return what both /transcribe and `verbose_json` have."""
    del model
    segments = [
        {"id": number, "text": word, "start": float(number), "end": number + 1.0}
        for number, word in enumerate(text.split(" "))
    ]
    return {
        "task": "transcribe",
        "text": text,
        "language": "en",
        "language_probability": 1.0,
        "duration": float(count),
        "segments": segments,
    }


def _detection(model: str, text: str, count: int) -> dict[str, Any]:
    del model, text, count
    known = [{"code": "en", "name": "English"}]
    return {"detected_language": "en", "probability": 0.99, "all_languages": known}


def _diarization(model: str, text: str, count: int) -> dict[str, Any]:
    del model, text
    segments = [
        {"speaker": f"SPEAKER_{number:02}", "start": float(number), "end": number + 1.0}
        for number in range(count)
    ]
    return {"num_speakers": count, "duration": float(count), "segments": segments}


def _verification(model: str, text: str, count: int) -> dict[str, Any]:
    del model, text, count
    return {"is_same_speaker": True, "similarity_score": 0.9, "threshold": 0.75}


_SOUND = frozenset({"/v1/audio/speech", "/tts", "/interpolate", "/denoise", "/convert"})
"""Paths that answer with a WAV file."""
_WHOLE = {
    "/v1/audio/transcriptions": _transcription,
    "/v1/audio/translations": _transcription,
    "/transcribe": _transcription,
    "/detect-language": _detection,
    "/diarize": _diarization,
    "/verify": _verification,
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embedding,
    "/v1/responses": _response,
    "/v1/messages": _message,
    "/v1/messages/count_tokens": _count,
    "/v1/rerank": _rerank,
}


class Stream:
    """The events of a streamed answer, in the parts that faults are put between.

    Attributes:
        opening: Events before the first word (a chat's role; nothing for completions).
        words: One event a word.
        finish: The events that say why it ended.
        usage: The event with the token counts, where the API has one of its own.
        done: What closes the stream.
    """

    def __init__(self, path: str, model: str, words: Sequence[str] = WORDS) -> None:
        self.opening: list[bytes] = []
        self.words: list[bytes] = []
        self.finish: list[bytes] = []
        self.usage = b""
        self.done = DONE
        if path == "/v1/responses":
            self._responses(model, words)
        elif path == "/stream":
            self._segments(words)
        elif path == "/v1/audio/transcriptions":
            self._transcript(words)
        elif path == "/v1/messages":
            self._messages(model, words)
        elif path == "/v1/completions":
            self._completions(model, words)
        else:
            self._chat(model, words)

    def events(self, *, with_usage: bool = False) -> list[bytes]:
        """Return all events in order."""
        tail = [self.usage] if with_usage and self.usage else []
        return [
            *self.opening,
            *self.words,
            *self.finish,
            *tail,
            *([self.done] if self.done else []),
        ]

    def _chat(self, model: str, words: Sequence[str]) -> None:
        def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return event(_chunk("chat.completion.chunk", model, [choice]))

        self.opening = [chunk({"role": "assistant", "content": ""})]
        self.words = [chunk({"content": text}) for text in _spaced(words)]
        self.finish = [chunk({}, "stop")]
        counts = usage(7, len(words))
        self.usage = event({**_chunk("chat.completion.chunk", model, []), "usage": counts})

    def _completions(self, model: str, words: Sequence[str]) -> None:
        def chunk(text: str, reason: str | None = None) -> bytes:
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
            return event(_chunk("text_completion", model, [choice]))

        self.words = [chunk(text) for text in _spaced(words)]
        self.finish = [chunk("", "stop")]
        counts = usage(7, len(words))
        self.usage = event({**_chunk("text_completion", model, []), "usage": counts})

    def _responses(self, model: str, words: Sequence[str]) -> None:
        final = _response(model, " ".join(words), len(words))
        begun = {**final, "status": "in_progress", "output": [], "usage": None}
        self.opening = [_named({"type": "response.created", "response": begun})]
        self.words = [
            _named({"type": "response.output_text.delta", "item_id": "msg_faulty", "delta": text})
            for text in _spaced(words)
        ]
        self.finish = [_named({"type": "response.completed", "response": final})]
        self.done = b""

    def _segments(self, words: Sequence[str]) -> None:
        self.words = [
            event({"id": number, "text": word, "start": float(number), "end": number + 1.0})
            for number, word in enumerate(words)
        ]
        summary = {"segments": len(words), "language": "en", "duration": float(len(words))}
        self.finish = [event(summary, "done")]
        self.done = b""

    def _transcript(self, words: Sequence[str]) -> None:
        self.words = [
            event({"type": "transcript.text.delta", "delta": text}) for text in _spaced(words)
        ]
        self.finish = [event({"type": "transcript.text.done", "text": " ".join(words)})]
        self.done = b""

    def _messages(self, model: str, words: Sequence[str]) -> None:
        begun = {**_message(model, "", 0), "content": [], "stop_reason": None}
        block = {"type": "text", "text": ""}
        self.opening = [
            _named({"type": "message_start", "message": begun}),
            _named({"type": "content_block_start", "index": 0, "content_block": block}),
        ]
        self.words = [
            _named(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": text},
                }
            )
            for text in _spaced(words)
        ]
        ending = {"stop_reason": "end_turn", "stop_sequence": None}
        self.finish = [
            _named({"type": "content_block_stop", "index": 0}),
            _named(
                {"type": "message_delta", "delta": ending, "usage": {"output_tokens": len(words)}}
            ),
            _named({"type": "message_stop"}),
        ]
        self.done = b""


def _chunk(kind: str, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-faulty",
        "object": kind,
        "created": CREATED,
        "model": model,
        "choices": choices,
    }


def _named(payload: dict[str, Any]) -> bytes:
    return event(payload, payload["type"])


def _spaced(words: Sequence[str]) -> list[str]:
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)]
