"""Voices as ZIP archives: one is written as it is sent, and read without trust.

An archive holds `voice.json` (name, and for each recording its file, original name and SHA-256) and
`references/01.wav` ...; nothing is packed, for sound hardly packs.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from synapse_gateway.errors import Unprocessable
from synapse_gateway.voices.library import MAX_REFERENCE_BYTES, MAX_REFERENCES, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synapse_gateway.voices.library import Voice

ABOUT = "voice.json"
MAX_ABOUT_BYTES = 64 * 1024
PIECE_BYTES = 256 * 1024
_REFERENCE = re.compile(r"references/(0[1-9]|10)\.wav")
_ENCRYPTED = 0x1
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Date of every entry: two archives of the same voice are the same."""


class _Entry(msgspec.Struct):
    file: str
    filename: str
    sha256: str = ""


class _About(msgspec.Struct):
    name: str
    references: list[_Entry]
    created_at: str = ""


class _Tape:
    """A file that can only be written; what was is taken off."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken, self._written = bytes(self._written), bytearray()
        return taken


def export(voice: Voice) -> Iterator[bytes]:
    """Iterate over an archive of a voice; memory is bounded by a piece.

    Raises:
        OSError: A recording is gone or cannot be read: the archive then breaks off.
    """
    tape = _Tape()
    about = _About(
        voice.name,
        [_Entry(f"references/{ref.id}.wav", ref.filename, ref.sha256) for ref in voice.references],
        voice.created_at,
    )
    with zipfile.ZipFile(cast("BinaryIO", tape), "w") as archive:
        archive.writestr(zipfile.ZipInfo(ABOUT, _EARLIEST), msgspec.json.encode(about))
        for reference in voice.references:
            entry = zipfile.ZipInfo(f"references/{reference.id}.wav", _EARLIEST)
            entry.file_size = reference.looked.bytes
            with voice.path(reference).open("rb") as file, archive.open(entry, "w") as target:
                while piece := file.read(PIECE_BYTES):
                    target.write(piece)
                    yield tape.take()
    yield tape.take()


def read(file: BinaryIO, directory: Path) -> tuple[str, list[Source]]:
    """Return the name and the recordings of an archived voice.

    Args:
        file: The archive, as somebody sent it.
        directory: Where a recording is unpacked to, as a file without a name, when it is opened.

    Raises:
        Unprocessable: It is not such an archive, or holds anything else.
    """
    try:
        archive = zipfile.ZipFile(file)
        entries = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError) as error:
        raise _wrong(f"it is no ZIP archive that can be read ({error})") from None
    _check(archive, entries)
    about = _about(archive, entries)
    sources = []
    for name in sorted(entries.keys() - {ABOUT}):
        known = next((entry for entry in about.references if entry.file == name), None)
        filename = known.filename if known is not None else name.rpartition("/")[2]
        opener = partial(_unpacked, archive, entries[name], directory)
        sources.append(Source(filename, opener))
    return about.name, sources


def _check(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> None:
    """Refuse whatever an export does not write, before any of it is unpacked."""
    if len(entries) != len(archive.infolist()):
        raise _wrong("it holds a name twice")
    for name, info in entries.items():
        if name != ABOUT and _REFERENCE.fullmatch(name) is None:
            raise _wrong(f"it holds {name[:100]!r}")
        most = MAX_ABOUT_BYTES if name == ABOUT else MAX_REFERENCE_BYTES
        if info.file_size > most:
            raise _wrong(f"{name} is larger than {most} bytes")
        if info.flag_bits & _ENCRYPTED:
            raise _wrong(f"{name} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _wrong(f"{name} is packed in a way that is not taken")
    if ABOUT not in entries:
        raise _wrong(f"it has no {ABOUT}")
    if not 1 <= len(entries) - 1 <= MAX_REFERENCES:
        raise _wrong(f"it must hold 1 to {MAX_REFERENCES} recordings")


def _about(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> _About:
    data = b"".join(_unpack(archive, entries[ABOUT]))
    try:
        return msgspec.json.decode(data, type=_About)
    except msgspec.DecodeError as error:
        raise _wrong(f"its {ABOUT} cannot be read ({error})") from None


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, directory: Path) -> BinaryIO:
    """Unpack an entry into a file without a name, which can be searched."""
    made = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - for who asked
    try:
        for piece in _unpack(archive, info):
            made.write(piece)
    except BaseException:
        made.close()
        raise
    made.seek(0)
    return cast("BinaryIO", made)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Iterate over an entry, never more of it than the size that it declares.

    Raises:
        Unprocessable: It is broken, or not of that size.
    """
    try:
        with archive.open(info) as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise _wrong(f"{info.filename} is broken ({error})") from None


def _wrong(why: str) -> Unprocessable:
    return Unprocessable(
        f"file: is not an exported voice: {why}.", param="file", code="broken_file"
    )
