"""The library of voices: /voices, and the languages that can be spoken."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from synapse_gateway.api.access import CallerOf
from synapse_gateway.api.audio_schemas import LANGUAGE, VOICE
from synapse_gateway.api.multipart import File, Form
from synapse_gateway.api.prepare import Resolver
from synapse_gateway.api.uploads import read_stream
from synapse_gateway.audio_api.sniff import WAV, audio_format, describe
from synapse_gateway.backends.base import Capability
from synapse_gateway.errors import Forbidden, InvalidRequest, Unprocessable, UnsupportedMedia
from synapse_gateway.voices import archive
from synapse_gateway.voices.library import (
    MAX_NAME_CHARS,
    MAX_REFERENCE_BYTES,
    MAX_REFERENCES,
    Source,
    check_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.api.gateway import Gateway
    from synapse_gateway.proxy.spool import Spool
    from synapse_gateway.voices.library import Reference, Voice

_ZIP = b"PK\x03\x04"
"""Signature of a ZIP archive's first entry (APPNOTE.TXT, 4.3.7)."""


def add_voices(app: FastAPI, gateway: Gateway) -> None:
    """Add the routes of the library."""
    router = APIRouter(tags=["voices"], dependencies=[Depends(_permitted)])

    @router.get(
        "/voices",
        summary="List the voices of the library.",
        responses=_answer({"type": "array", "items": VOICE}),
    )
    async def voices() -> list[dict[str, Any]]:
        return [
            _described(voice) for voice in await gateway.voices.run(gateway.voices.library.voices)
        ]

    @router.post(
        "/voices",
        summary="Keep a voice: a name and one to ten recordings.",
        status_code=201,
        responses=_answer(VOICE, 201),
        openapi_extra=_form_of({"name": NAME, "files": FILES}),
    )
    async def create(request: Request) -> dict[str, Any]:
        async with _Uploaded(gateway, request) as uploaded:
            name = check_name(uploaded.form.fields.get("name", ""))
            return await uploaded.keep(gateway.voices.library.create, name)

    @router.post(
        "/voices/import",
        summary="Keep a voice that was exported.",
        status_code=201,
        responses=_answer(VOICE, 201),
        openapi_extra=_form_of({"file": {"type": "string", "format": "binary"}}),
    )
    async def import_voice(request: Request) -> dict[str, Any]:
        async with _Uploaded(gateway, request, archived=True) as uploaded:
            return await uploaded.unpack()

    @router.post(
        "/voices/{voice_id}/references",
        summary="Add recordings to a voice.",
        status_code=201,
        responses=_answer(VOICE, 201),
        openapi_extra=_form_of({"files": FILES}),
    )
    async def extend(voice_id: str, request: Request) -> dict[str, Any]:
        await gateway.voices.run(gateway.voices.library.get, voice_id)
        async with _Uploaded(gateway, request) as uploaded:
            return await uploaded.keep(gateway.voices.library.extend, voice_id)

    @router.get("/voices/{voice_id}", summary="Describe a voice.", responses=_answer(VOICE))
    async def voice(voice_id: str) -> dict[str, Any]:
        return _described(await gateway.voices.run(gateway.voices.library.get, voice_id))

    @router.delete("/voices/{voice_id}", summary="Remove a voice with its recordings.")
    async def delete(voice_id: str) -> dict[str, Any]:
        await gateway.voices.run(gateway.voices.library.delete, voice_id)
        gateway.voices.forget()
        return {"voice_id": voice_id, "deleted": True}

    @router.get(
        "/voices/{voice_id}/export",
        summary="Give a voice as a ZIP archive.",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/zip": {}}}},
    )
    async def export(voice_id: str) -> Response:
        found = await gateway.voices.run(gateway.voices.library.get, voice_id)
        headers = {"content-disposition": f'attachment; filename="voice-{found.id}.zip"'}
        return StreamingResponse(archive.export(found), headers=headers, media_type=ZIP_TYPE)

    app.include_router(router)
    app.include_router(_languages(gateway))


def _permitted(request: Request, caller: CallerOf) -> None:
    """Keep a key that is limited to models out, unless this path is among them.

    Raises:
        Forbidden: It is not.
    """
    if not caller.allows(request.url.path):
        raise Forbidden(f"This key may not use {request.url.path}.")


def _languages(gateway: Gateway) -> APIRouter:
    router = APIRouter(tags=["tts"])

    @router.get(
        "/tts/languages",
        summary="List the languages that can be spoken.",
        responses=_answer({"type": "array", "items": LANGUAGE}),
    )
    async def languages(request: Request, caller: CallerOf) -> list[dict[str, str]]:
        resolver = Resolver(gateway.state.table, caller, request.state.record)
        route = resolver.service("/tts/languages", Capability.SPEECH)
        known = {code: name for state in route.states for code, name in state.backend.languages}
        return [{"code": code, "name": known[code]} for code in sorted(known)]

    return router


ZIP_TYPE = "application/zip"
NAME = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS}
FILES = {
    "type": "array",
    "items": {"type": "string", "format": "binary"},
    "minItems": 1,
    "maxItems": MAX_REFERENCES,
}


def _answer(schema: dict[str, Any], status: int = 200) -> dict[int | str, dict[str, Any]]:
    return {status: {"content": {"application/json": {"schema": schema}}}}


def _form_of(properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": list(properties), "properties": properties}
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def _described(voice: Voice) -> dict[str, Any]:
    return {
        "voice_id": voice.id,
        "name": voice.name,
        "created_at": voice.created_at,
        "references_count": len(voice.references),
        "references": [_reference(each) for each in voice.references],
    }


def _reference(reference: Reference) -> dict[str, Any]:
    looked = reference.looked
    return {
        "id": reference.id,
        "filename": reference.filename,
        "sha256": reference.sha256,
        "bytes": looked.bytes,
        "seconds": looked.seconds,
        "sample_rate": looked.sample_rate,
        "channels": looked.channels,
        "loudness_dbfs": looked.loudness,
    }


class _Uploaded:
    """The form of a request, while its spool is open."""

    def __init__(self, gateway: Gateway, request: Request, *, archived: bool = False) -> None:
        self._gateway = gateway
        self._request = request
        self._archived = archived
        self._files = 0
        self._spool: Spool
        self.form: Form

    async def __aenter__(self) -> Self:
        gateway = self._gateway
        limits = gateway.state.table.settings.limits
        most = limits.max_upload_bytes if self._archived else MAX_REFERENCE_BYTES
        self.form, self._spool = await read_stream(
            self._request, gateway.spool, limits, self._check, most
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._spool.close()

    async def keep(self, work: Callable[[str, list[Source]], Voice], name: str) -> dict[str, Any]:
        """Keep the recordings, and return the voice that they belong to."""
        sources = [Source(file.filename, self._opener(file)) for file in self.form.files("files")]
        voice = await self._spool.run(work, name, sources)
        self._gateway.voices.forget()
        return _described(voice)

    async def unpack(self) -> dict[str, Any]:
        """Keep an archived voice, and return it."""
        files = self.form.files("file")
        if len(files) != 1:
            raise Unprocessable("file: is required, as a file", param="file", code="missing_field")
        library = self._gateway.voices.library
        directory = self._gateway.spool.directory

        def work() -> Voice:
            with self._opener(files[0])() as opened:
                return library.create(*archive.read(opened, directory))

        voice = await self._spool.run(work)
        self._gateway.voices.forget()
        return _described(voice)

    def _opener(self, file: File) -> partial[Any]:
        return partial(self._spool.view, file.data.start, file.data.size)

    def _check(self, name: str, head: bytes) -> None:
        """Refuse a file by its first bytes."""
        self._files += 1
        if self._files > MAX_REFERENCES:
            raise Unprocessable(
                f"{name}: at most {MAX_REFERENCES} files", param=name, code="too_many_files"
            )
        if not head:
            raise InvalidRequest(f"{name}: a file is empty.", param=name, code="empty_file")
        wanted = "a ZIP archive" if self._archived else "a WAV file"
        right = head.startswith(_ZIP) if self._archived else audio_format(head) == WAV
        if not right:
            seems = audio_format(head) or describe(head)
            raise UnsupportedMedia(f"{name}: must be {wanted}; this is {seems}.", param=name)
