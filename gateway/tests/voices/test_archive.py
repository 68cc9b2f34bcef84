from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.errors import Unprocessable
from synapse_gateway.voices import archive as module
from synapse_gateway.voices.library import MAX_REFERENCE_BYTES, Library
from tests.voices.support import sources, tone

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = tone(0.1, seed=1), tone(0.2, seed=2)
ABOUT = {
    "name": "Anna",
    "references": [{"file": "references/01.wav", "filename": "a.wav", "sha256": ""}],
}


def archive(
    entries: dict[str, bytes] | list[tuple[str, bytes]], packing: int = zipfile.ZIP_STORED
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as written:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            written.writestr(name, data)
    return file.getvalue()


def good(**entries: bytes) -> dict[str, bytes]:
    return {"voice.json": json.dumps(ABOUT).encode(), "references/01.wav": ONE, **entries}


def read(data: bytes, directory: Path) -> tuple[str, list[tuple[str, bytes]]]:
    name, found = module.read(io.BytesIO(data), directory)
    contents = []
    for source in found:
        with source.open() as file:
            contents.append((source.filename, file.read()))
    return name, contents


def test_a_voice_comes_back_as_it_was(tmp_path: Path) -> None:
    library = Library(tmp_path / "voices")
    voice = library.create("Anna", sources(ONE, TWO))
    exported = b"".join(module.export(voice))
    assert exported == b"".join(module.export(voice)), "two exports are the same"
    with zipfile.ZipFile(io.BytesIO(exported)) as file:
        assert file.testzip() is None
        assert file.namelist() == ["voice.json", "references/01.wav", "references/02.wav"]
    name, found = module.read(io.BytesIO(exported), tmp_path)
    again = library.create(name, found)
    assert again.id != voice.id
    assert (again.name, again.digest) == (voice.name, voice.digest)
    assert [each.filename for each in again.references] == ["0.wav", "1.wav"]


def test_an_export_is_given_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    voice = Library(tmp_path).create("Anna", sources(TWO))
    pieces = list(module.export(voice))
    assert len(pieces) > 6
    assert max(map(len, pieces)) < 2000


def test_an_export_of_what_is_gone_breaks_off(tmp_path: Path) -> None:
    library = Library(tmp_path)
    voice = library.create("Anna", sources(ONE))
    library.delete(voice.id)
    with pytest.raises(OSError, match="No such file"):
        list(module.export(voice))


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_that_others_made_is_read(tmp_path: Path, packing: int) -> None:
    entries = good(**{"references/02.wav": TWO})
    assert read(archive(entries, packing), tmp_path) == ("Anna", [("a.wav", ONE), ("02.wav", TWO)])
    assert list(tmp_path.iterdir()) == []


BOMB = bytes(MAX_REFERENCE_BYTES + 1)
CASES: dict[str, tuple[Any, str]] = {
    "no-zip": (b"PK\x03\x04 nothing", "no ZIP archive"),
    "empty": (archive({}), "no voice.json"),
    "no-about": (archive({"references/01.wav": ONE}), "no voice.json"),
    "no-recording": (archive({"voice.json": b"{}"}), "1 to 10 recordings"),
    "up-and-away": (archive(good(**{"../evil.wav": ONE})), "it holds '../evil.wav'"),
    "absolute": (archive(good(**{"/etc/evil.wav": ONE})), "it holds '/etc/evil.wav'"),
    "eleventh": (archive(good(**{"references/11.wav": ONE})), "it holds"),
    "another-file": (archive(good(**{"readme.txt": b"hi"})), "it holds 'readme.txt'"),
    "directory": (archive(good(**{"references/": b""})), "it holds 'references/'"),
    "bomb": (archive(good(**{"references/02.wav": BOMB}), zipfile.ZIP_DEFLATED), "larger than"),
    "large-about": (archive({**good(), "voice.json": bytes(70_000)}), "larger than"),
    "lzma": (archive(good(), zipfile.ZIP_LZMA), "packed in a way"),
    "about-no-json": (archive({**good(), "voice.json": b"{"}), "cannot be read"),
    "about-other": (archive({**good(), "voice.json": b'{"name": 5}'}), "cannot be read"),
}


@pytest.mark.parametrize(("data", "words"), CASES.values(), ids=CASES)
def test_what_is_no_exported_voice_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(Unprocessable, match=words):
        read(data, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        data = archive([*good().items(), ("references/01.wav", TWO)])
    with pytest.raises(Unprocessable, match="twice"):
        read(data, tmp_path)


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    data = bytearray(archive(good()))
    start = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    data[start + 8] |= 1
    with pytest.raises(Unprocessable, match="encrypted"):
        read(bytes(data), tmp_path)


def test_a_size_that_lies_is_found_out(tmp_path: Path) -> None:
    data = bytearray(archive(good(**{"references/02.wav": BOMB}), zipfile.ZIP_DEFLATED))
    start = data.rindex(b"PK\x01\x02")
    data[start + 24 : start + 28] = (100).to_bytes(4, "little")
    with pytest.raises(Unprocessable, match=r"references/02\.wav is broken"):
        read(bytes(data), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_contents_are_found_out(tmp_path: Path) -> None:
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = bytearray(archive(good(), packing))
        data[data.index(b"PK\x03\x04", 10) + 80] ^= 0xFF
        with pytest.raises(Unprocessable, match="is broken"):
            read(bytes(data), tmp_path)
    assert list(tmp_path.iterdir()) == []


@given(data=st.binary(max_size=300), place=st.integers(0, 400))
def test_any_damage_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, place: int
) -> None:
    whole = archive(good())
    damaged = whole[: place % len(whole)] + data + whole[place % len(whole) + len(data) :]
    for each in (data, damaged):
        try:
            read(each, tmp_path_factory.getbasetemp())
        except Unprocessable:
            continue
