"""Voices on a volume, safe with several replicas and without locks.

::

    <voice id>/voice.json                   name, time of making
    <voice id>/references/01/audio.wav      up to ten recordings, each in a slot of its own
    <voice id>/references/01/info.json      what it is like
    .new-<anything>, .gone-<anything>       what is being made or removed

Everything is made beside its place and moved there whole, by one `rename`: a voice when it is new,
a reference into the first free slot (a directory is never moved onto one that holds something, so
two replicas cannot take the same), a voice that is removed out of the way. Whoever reads sees a
thing whole or not at all, and what a crash leaves behind has a name that nobody looks at; it is
swept away when a library is opened.

Blocking: for use in threads.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec

from synapse_gateway.audio_api.wav import BadWav
from synapse_gateway.errors import Unavailable, Unprocessable, UnsupportedMedia, VoiceNotFound
from synapse_gateway.voices.reference import Looked, look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MAX_REFERENCES = 10
MAX_REFERENCE_BYTES = 50 * 1024 * 1024
MAX_NAME_CHARS = 100
LEFTOVER_SECONDS = 3600.0
"""Age at which what was being made or removed is taken for left behind."""
SETTLED_NS = 2_000_000_000
"""Age of a directory's last change after which what was read of it may be kept in mind."""
_SLOTS = tuple(f"{number:02}" for number in range(1, MAX_REFERENCES + 1))
_ID = re.compile(r"[0-9a-f]{32}")
_NEW, _GONE = ".new-", ".gone-"
_COPY_BYTES = 1024 * 1024


class Reference(msgspec.Struct, frozen=True):
    """A recording of a voice."""

    id: str
    """Of its slot."""
    filename: str
    """As it was uploaded."""
    sha256: str
    looked: Looked


class Voice(msgspec.Struct, frozen=True):
    """A voice with its recordings."""

    id: str
    name: str
    created_at: str
    """ISO 8601, UTC."""
    references: tuple[Reference, ...]
    directory: Path

    @property
    def digest(self) -> str:
        """SHA-256 over the recordings, in hex: what backends cache it under."""
        whole = hashlib.sha256()
        for digest in sorted(reference.sha256 for reference in self.references):
            whole.update(bytes.fromhex(digest))
        return whole.hexdigest()

    def path(self, reference: Reference) -> Path:
        """Return where a recording is."""
        return self.directory / "references" / reference.id / "audio.wav"


class Source(NamedTuple):
    """A recording that is to be kept."""

    filename: str
    open: Callable[[], BinaryIO]
    """Opens it from its beginning; it can be searched."""


class _About(msgspec.Struct):
    """Contents of voice.json."""

    name: str
    created_at: str


class _Info(msgspec.Struct):
    """Contents of info.json."""

    filename: str
    sha256: str
    looked: Looked


class Library:
    """The voices of one directory.

    Args:
        root: The directory; made when the first voice is.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, tuple[int, Voice]] = {}

    def sweep(self) -> None:
        """Remove what crashes have left behind."""
        oldest = time.time() - LEFTOVER_SECONDS
        with contextlib.suppress(OSError):
            for path in list(self._root.iterdir()):
                if path.name.startswith((_NEW, _GONE)) and path.stat().st_mtime < oldest:
                    shutil.rmtree(path, ignore_errors=True)

    def voices(self) -> list[Voice]:
        """Return all voices, the oldest first."""
        found = [voice for name in self._ids() if (voice := self._read(name)) is not None]
        return sorted(found, key=lambda voice: (voice.created_at, voice.id))

    def get(self, voice_id: str) -> Voice:
        """Return a voice.

        Raises:
            VoiceNotFound: There is none of this id.
        """
        voice = self.by_id(voice_id)
        if voice is None:
            raise VoiceNotFound(f"There is no voice {voice_id[:100]!r}; GET /voices lists them.")
        return voice

    def by_id(self, voice_id: str) -> Voice | None:
        """Return a voice; None if there is none of this id."""
        return self._read(voice_id) if _ID.fullmatch(voice_id) else None

    def create(self, name: str, sources: Sequence[Source]) -> Voice:
        """Keep a new voice.

        Raises:
            Unprocessable: The name or the number of recordings cannot be, or one is broken.
            UnsupportedMedia: One is no WAV file.
            Unavailable: It cannot be kept.
        """
        name = check_name(name)
        _check_count(len(sources), MAX_REFERENCES)
        voice_id = uuid.uuid4().hex
        about = _About(name, datetime.now(UTC).isoformat(timespec="microseconds"))
        with self._writing() as made:
            for slot, source in zip(_SLOTS, sources, strict=False):
                _keep(made / "references" / slot, source)
            _write(made / "voice.json", msgspec.json.encode(about))
            _sync_directory(made / "references")
            _sync_directory(made)
            made.rename(self._root / voice_id)
            _sync_directory(self._root)
        return self.get(voice_id)

    def extend(self, voice_id: str, sources: Sequence[Source]) -> Voice:
        """Keep more recordings of a voice, all of them or none.

        Raises:
            VoiceNotFound: There is none of this id.
            Unprocessable: There would be too many recordings, or one is broken.
            UnsupportedMedia: One is no WAV file.
            Unavailable: They cannot be kept.
        """
        voice = self.get(voice_id)
        _check_count(len(sources), MAX_REFERENCES - len(voice.references))
        references = voice.directory / "references"
        with self._writing() as made:
            ready = [made / str(number) for number in range(len(sources))]
            for path, source in zip(ready, sources, strict=True):
                _keep(path, source)
            placed: list[Path] = []
            for path in ready:
                slot = _place(path, references)
                if slot is None:
                    # another replica has taken what was free when it was counted
                    for each in placed:
                        shutil.rmtree(each, ignore_errors=True)
                    _check_count(len(sources), 0)
                else:
                    placed.append(slot)
            _sync_directory(references)
        return self.get(voice_id)

    def delete(self, voice_id: str) -> None:
        """Remove a voice with its recordings.

        Raises:
            VoiceNotFound: There is none of this id.
            Unavailable: It cannot be removed.
        """
        voice = self.get(voice_id)
        gone = self._root / f"{_GONE}{uuid.uuid4().hex}"
        try:
            voice.directory.rename(gone)
        except FileNotFoundError:
            raise VoiceNotFound(f"There is no voice {voice_id!r} any more.") from None
        except OSError as error:
            raise _cannot_write(error) from error
        self._known.pop(voice_id, None)
        shutil.rmtree(gone, ignore_errors=True)

    # inside

    def _ids(self) -> Iterator[str]:
        try:
            names = [path.name for path in self._root.iterdir()]
        except OSError:
            return iter(())
        return filter(_ID.fullmatch, names)

    def _read(self, voice_id: str) -> Voice | None:
        """Return a voice as it is on the volume; None if it is not there."""
        directory = self._root / voice_id
        try:
            changed = (directory / "references").stat().st_mtime_ns
            known = self._known.get(voice_id)
            if known is not None and known[0] == changed:
                return known[1]
            about = msgspec.json.decode((directory / "voice.json").read_bytes(), type=_About)
            slots = sorted(path.name for path in (directory / "references").iterdir())
            references = tuple(
                reference
                for slot in slots
                if (reference := _read_reference(directory / "references" / slot)) is not None
            )
        except (OSError, msgspec.DecodeError):
            self._known.pop(voice_id, None)
            return None
        voice = Voice(voice_id, about.name, about.created_at, references, directory)
        # of two changes within a tick of the file system's clock the second leaves no trace in it
        if time.time_ns() - changed > SETTLED_NS:
            self._known[voice_id] = (changed, voice)
        return voice

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Path]:
        """Give a directory to make something in, which is removed if it is still there.

        Raises:
            Unavailable: The volume takes no more.
        """
        made = self._root / f"{_NEW}{uuid.uuid4().hex}"
        try:
            made.mkdir(parents=True)
            yield made
        except OSError as error:
            raise _cannot_write(error) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)


def check_name(name: str) -> str:
    """Return a voice's name as it is kept.

    Raises:
        Unprocessable: It cannot be one.
    """
    kept = name.strip()
    if not kept or len(kept) > MAX_NAME_CHARS or not kept.isprintable():
        raise Unprocessable(
            f"name: must be 1 to {MAX_NAME_CHARS} characters that can be printed", param="name"
        )
    return kept


def _check_count(count: int, free: int) -> None:
    if count == 0:
        raise Unprocessable(
            "files: is required, as 1 to 10 files", param="files", code="missing_field"
        )
    if count > free:
        raise Unprocessable(
            f"files: a voice has at most {MAX_REFERENCES} references; there is room for {free} "
            f"more, not {count}",
            param="files",
            code="too_many_files",
        )


def _keep(directory: Path, source: Source) -> None:
    """Write a recording, and what it is like, into a new directory."""
    with source.open() as file:
        try:
            looked = look(file)
        except BadWav as error:
            raise _refusal(source.filename, error) from None
        file.seek(0)
        directory.mkdir(parents=True)
        digest = _copy(file, directory / "audio.wav")
    info = _Info(source.filename, digest, looked)
    _write(directory / "info.json", msgspec.json.encode(info))
    _sync_directory(directory)


def _refusal(filename: str, error: BadWav) -> Unprocessable | UnsupportedMedia:
    said = f"files: {filename[:100]!r} is no WAV file that can be used: {error}."
    if error.other_media:
        return UnsupportedMedia(said, param="files")
    return Unprocessable(said, param="files", code="broken_file")


def _place(made: Path, references: Path) -> Path | None:
    """Move a reference into the first free slot; None if there is none."""
    for slot in _SLOTS:
        try:
            made.rename(references / slot)
        except FileNotFoundError:
            raise VoiceNotFound("The voice has been removed meanwhile.") from None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return references / slot
    return None


def _read_reference(slot: Path) -> Reference | None:
    try:
        info = msgspec.json.decode((slot / "info.json").read_bytes(), type=_Info)
    except (OSError, msgspec.DecodeError):
        return None
    return Reference(slot.name, info.filename, info.sha256, info.looked)


def _copy(source: BinaryIO, target: Path) -> str:
    """Copy a file, have the disk keep it, and return its SHA-256."""
    digest = hashlib.sha256()
    with target.open("xb") as file:
        while piece := source.read(_COPY_BYTES):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know no such thing
            raise
    finally:
        os.close(number)


def _cannot_write(error: OSError) -> Unavailable:
    reason = os.strerror(error.errno) if error.errno else "it cannot be written"
    return Unavailable(
        f"The voice library cannot keep this: {reason}.", code="library_unavailable", retry_after=30
    )
