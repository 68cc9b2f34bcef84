from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.errors import Unavailable, Unprocessable, UnsupportedMedia, VoiceNotFound
from synapse_gateway.voices import library as module
from synapse_gateway.voices.library import Library, Source
from tests.voices.support import opening, sources, tone

if TYPE_CHECKING:
    from collections.abc import Callable

ONE, TWO, THREE = (tone(0.1 * number, seed=number) for number in (1, 2, 3))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "voices"


@pytest.fixture
def library(root: Path) -> Library:
    return Library(root)


def left(root: Path) -> list[str]:
    """Return what is in the directory and no voice."""
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


def test_a_voice_is_kept_whole(library: Library, root: Path) -> None:
    voice = library.create("  Anna ", sources(ONE, TWO))
    assert (voice.name, len(voice.references)) == ("Anna", 2)
    first, second = voice.references
    assert (first.id, first.filename, first.looked.seconds) == ("01", "0.wav", 0.1)
    assert first.sha256 == hashlib.sha256(ONE).hexdigest()
    assert [voice.path(each).read_bytes() for each in (first, second)] == [ONE, TWO]
    assert Library(root).voices() == [voice]
    assert library.get(voice.id) == voice
    assert left(root) == []


def test_voices_are_listed_the_oldest_first(library: Library) -> None:
    made = [library.create(name, sources(ONE)).id for name in ("b", "a", "b")]
    assert [voice.id for voice in library.voices()] == made
    assert library.by_id("b") is None


def test_an_empty_or_missing_directory_has_no_voices(library: Library, root: Path) -> None:
    assert library.voices() == []
    library.sweep()
    root.mkdir()
    (root / "lost+found").mkdir()
    assert library.voices() == []


def test_a_voice_is_extended(library: Library, root: Path) -> None:
    voice = library.create("a", sources(ONE))
    more = library.extend(voice.id, sources(TWO, THREE))
    assert [reference.id for reference in more.references] == ["01", "02", "03"]
    assert more.digest != voice.digest
    assert Library(root).get(voice.id) == more
    assert left(root) == []


def test_the_digest_is_that_of_the_recordings_in_any_order(library: Library) -> None:
    here = library.create("a", sources(ONE, TWO))
    there = library.create("b", sources(TWO, ONE))
    digests = sorted(hashlib.sha256(data).digest() for data in (ONE, TWO))
    assert here.digest == there.digest == hashlib.sha256(b"".join(digests)).hexdigest()


def test_a_voice_is_removed(library: Library, root: Path) -> None:
    voice = library.create("a", sources(ONE))
    library.delete(voice.id)
    assert list(root.iterdir()) == []
    for ask in (library.get, library.delete):
        with pytest.raises(VoiceNotFound):
            ask(voice.id)


@pytest.mark.parametrize(
    "voice_id", ["", "..", "../other", "/etc/passwd", "a" * 32 + "/..", ".new-1", "A" * 32, "é"]
)
def test_nothing_but_an_id_is_looked_up(library: Library, root: Path, voice_id: str) -> None:
    root.mkdir()
    (root.parent / "other").mkdir()
    asks: list[Callable[[str], Any]] = [
        library.get,
        library.delete,
        lambda each: library.extend(each, sources(ONE)),
    ]
    for ask in asks:
        with pytest.raises(VoiceNotFound):
            ask(voice_id)
    assert (root.parent / "other").is_dir()


# -- what cannot be


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "\0"])
def test_a_name_has_to_be_one(library: Library, name: str) -> None:
    with pytest.raises(Unprocessable, match="name: "):
        library.create(name, sources(ONE))


@pytest.mark.parametrize("count", [0, 11])
def test_a_voice_has_one_to_ten_recordings(library: Library, count: int) -> None:
    with pytest.raises(Unprocessable, match="files: "):
        library.create("a", sources(*[ONE] * count))


def test_no_more_fit_than_ten(library: Library, root: Path) -> None:
    voice = library.create("a", sources(*[ONE] * 8))
    with pytest.raises(Unprocessable, match="room for 2 more"):
        library.extend(voice.id, sources(ONE, TWO, THREE))
    assert len(library.extend(voice.id, sources(TWO, THREE)).references) == 10
    with pytest.raises(Unprocessable, match="room for 0 more"):
        library.extend(voice.id, sources(ONE))
    assert left(root) == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"ID3" + bytes(50), UnsupportedMedia),
        (ONE[:-3], Unprocessable),
        (ONE[:44], Unprocessable),
    ],
)
def test_a_recording_that_cannot_be_used_leaves_nothing(
    library: Library, root: Path, data: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"'1\.wav'"):
        library.create("a", sources(ONE, data))
    assert list(root.iterdir()) == []
    voice = library.create("a", sources(ONE))
    with pytest.raises(error, match=r"'1\.wav'"):
        library.extend(voice.id, sources(TWO, data))
    assert len(Library(root).get(voice.id).references) == 1
    assert left(root) == []


def test_a_volume_that_takes_no_more_is_said(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_copy", full)
    with pytest.raises(Unavailable, match="No space left"):
        library.create("a", sources(ONE))
    assert list(root.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="library"):
        Library(tmp_path / "file" / "voices").create("a", sources(ONE))


def test_a_voice_that_cannot_be_removed_stays(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = library.create("a", sources(ONE))

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(Unavailable):
        library.delete(voice.id)
    monkeypatch.undo()
    assert library.get(voice.id) == voice


# -- with others on the same volume


def test_a_change_of_another_replica_is_seen(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_NS", 0)
    other = Library(root)
    voice = library.create("a", sources(ONE))
    assert other.voices() == [voice]
    assert other.voices() == [voice]
    more = library.extend(voice.id, sources(TWO))
    assert other.get(voice.id) == more
    library.delete(voice.id)
    assert other.voices() == []


def test_replicas_never_take_the_same_place(root: Path) -> None:
    voice = Library(root).create("a", sources(ONE))
    results: list[str] = []

    def extend(number: int) -> None:
        mine = Library(root)
        for again in range(4):
            try:
                mine.extend(voice.id, sources(tone(0.1, seed=10 * number + again)))
            except Unprocessable:
                results.append("full")
            else:
                results.append("kept")

    threads = [threading.Thread(target=extend, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (results.count("kept"), results.count("full")) == (9, 7)
    found = Library(root).get(voice.id)
    assert [reference.id for reference in found.references] == list(module._SLOTS)
    assert len({reference.sha256 for reference in found.references}) == 10
    assert left(root) == []


def test_places_that_others_took_meanwhile_are_given_back(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = library.create("a", sources(*[ONE] * 8))
    keep = module._keep

    def slow(path: Path, source: Source) -> None:
        keep(path, source)
        monkeypatch.undo()
        Library(root).extend(voice.id, sources(TWO))

    monkeypatch.setattr(module, "_keep", slow)
    with pytest.raises(Unprocessable, match="room for 0 more"):
        library.extend(voice.id, sources(THREE, THREE))
    assert len(Library(root).get(voice.id).references) == 9
    assert left(root) == []


def test_a_voice_that_is_removed_meanwhile_takes_nothing(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = library.create("a", sources(ONE))
    keep = module._keep

    def slow(path: Path, source: Source) -> None:
        keep(path, source)
        Library(root).delete(voice.id)

    monkeypatch.setattr(module, "_keep", slow)
    with pytest.raises(VoiceNotFound):
        library.extend(voice.id, sources(TWO))
    assert list(root.iterdir()) == []


def test_of_two_who_remove_it_one_is_told(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = library.create("a", sources(ONE))
    found = library.get(voice.id)
    Library(root).delete(voice.id)
    monkeypatch.setattr(library, "get", lambda _: found)
    with pytest.raises(VoiceNotFound):
        library.delete(voice.id)


def test_what_a_crash_left_behind_is_swept_away(library: Library, root: Path) -> None:
    voice = library.create("a", sources(ONE))
    for name in (".new-old", ".gone-old", ".new-fresh"):
        (root / name / "references").mkdir(parents=True)
    for name in (".new-old", ".gone-old"):
        os.utime(root / name, (0, 0))
    Library(root).sweep()
    assert left(root) == [".new-fresh"]
    assert library.voices() == [voice]


def test_what_is_broken_on_the_volume_is_no_voice(library: Library, root: Path) -> None:
    voice = library.create("a", sources(ONE, TWO))
    (root / voice.id / "references" / "01" / "info.json").write_bytes(b"{")
    assert [reference.id for reference in Library(root).get(voice.id).references] == ["02"]
    (root / voice.id / "voice.json").write_bytes(b"{")
    assert Library(root).voices() == []


def test_a_file_system_without_directory_sync_will_do(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def picky(number: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{number}"):  # noqa: PTH112 - a descriptor, not a path
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(number)

    monkeypatch.setattr(os, "fsync", picky)
    assert library.create("a", sources(ONE)).name == "a"


def test_a_disk_that_fails_within_a_sync_is_said(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(Unavailable):
        library.create("a", sources(ONE))
    monkeypatch.undo()
    assert library.voices() == []


def test_a_disk_that_fails_as_a_directory_is_synced_is_said(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def failing(number: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{number}"):  # noqa: PTH112 - a descriptor, not a path
            raise OSError(errno.EIO, "Input/output error")
        sync(number)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(Unavailable):
        library.create("a", sources(ONE))


def test_a_place_that_cannot_be_taken_is_said(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = library.create("a", sources(ONE))

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(Unavailable, match="Read-only"):
        library.extend(voice.id, sources(TWO))


def test_an_upload_is_opened_for_reading_only_once_a_time(library: Library) -> None:
    opened: list[int] = []

    def open_it() -> Any:
        opened.append(1)
        return opening(ONE)()

    library.create("a", [Source("a.wav", open_it)])
    assert opened == [1]
