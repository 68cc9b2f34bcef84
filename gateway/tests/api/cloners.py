"""Servers that clone voices as the real ones do, as far as their documentation tells, for tests.

They check what they get: every recording by its bytes, every voice once, every parameter.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from synapse_gateway.testing import answers, scripts
from synapse_gateway.testing.scripts import Send
from tests.api.audio_support import Received, sound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_gateway.testing.faulty_upstream import FaultyUpstream, Request
    from synapse_gateway.testing.scripts import Step


def error(status: int, message: str, code: str | None = None) -> bytes:
    body = {"error": {**answers.error(message)["error"], "code": code}}
    return scripts.sized(status, json.dumps(body).encode())


class OpenVoice:
    """`backends/openvoice`, by the table in `backends/README.md`.

    Attributes:
        voices: Recordings of each cached voice, by its id.
        uploads: How often each voice was sent.
    """

    def __init__(self, upstream: FaultyUpstream) -> None:
        self.voices: dict[str, list[bytes]] = {}
        self.uploads: dict[str, int] = {}
        upstream.script = self.answer

    def answer(self, request: Request) -> Iterable[Step]:
        if request.method == "PUT":
            yield Send(self._put(request))
            return
        body = request.json()
        wanted = (
            [each["voice"] for each in body["voices"]]
            if request.path == "/interpolate"
            else [body["voice"]]
        )
        text = body.get("input", body.get("text"))
        if any(voice != "default" and voice not in self.voices for voice in wanted):
            yield Send(error(404, "voice: is not cached", "voice_not_found"))
            return
        yield Send(scripts.sized(200, sound(len(text)), {"content-type": "audio/wav"}))

    def _put(self, request: Request) -> bytes:
        voice = request.path.removeprefix("/voices/")
        files = [data for name, data in Received(request).files if name == "files"]
        digests = sorted(hashlib.sha256(data).digest() for data in files)
        assert hashlib.sha256(b"".join(digests)).hexdigest() == voice
        self.voices[voice] = files
        self.uploads[voice] = self.uploads.get(voice, 0) + 1
        return scripts.sized(200, json.dumps({"voice": voice}).encode())


class Chatterbox:
    """Chatterbox TTS Server, by its `server.py` (/upload_reference, /tts).

    Attributes:
        references: Uploaded recordings by name.
        uploads: How often each was sent.
    """

    def __init__(self, upstream: FaultyUpstream) -> None:
        self.references: dict[str, bytes] = {}
        self.uploads: dict[str, int] = {}
        upstream.script = self.answer

    def answer(self, request: Request) -> Iterable[Step]:
        if request.path == "/upload_reference":
            yield Send(self._upload(request))
            return
        assert request.path == "/tts"
        body = request.json()
        assert body["output_format"] in ("wav", "opus", "mp3")
        name = body.get("reference_audio_filename")
        if body["voice_mode"] == "clone" and name not in self.references:
            detail = {"detail": f"Reference audio file '{name}' not found."}
            yield Send(scripts.sized(404, json.dumps(detail).encode()))
            return
        kind = {"content-type": f"audio/{body['output_format']}"}
        yield Send(scripts.sized(200, sound(len(body["text"])), kind))

    def _upload(self, request: Request) -> bytes:
        [(field, data)] = Received(request).files
        assert field == "files"
        name = request.body.partition(b'filename="')[2].partition(b'"')[0].decode()
        self.uploads[name] = self.uploads.get(name, 0) + 1
        seconds = (len(data) - 44) / 2 / int.from_bytes(data[24:28], "little")
        if seconds > 30:
            problem = f"Reference audio duration ({seconds:.2f}s) exceeds maximum allowed (30s)."
            errors = [{"filename": name, "error": problem}]
            return scripts.sized(
                400, json.dumps({"message": "Processed", "errors": errors}).encode()
            )
        self.references[name] = data
        answer = {"message": "Processed 1 file(s).", "uploaded_files": [name], "errors": []}
        return scripts.sized(200, json.dumps(answer).encode())
