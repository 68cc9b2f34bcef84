from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.api.multipart import (
    HEAD_BYTES,
    MAX_FIELD_BYTES,
    MAX_PARTS,
    Field,
    Form,
    FormReader,
    encode,
    new_boundary,
)
from synapse_gateway.config import settings
from synapse_gateway.errors import InvalidRequest, UnsupportedMedia
from synapse_gateway.proxy.spool import SpoolRoom
from tests.proxy.test_body import whole
from tests.proxy.test_events import CUTS, pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from synapse_gateway.proxy.spool import Spool

KIND = b'multipart/form-data; boundary="xXx"'
FILE = b'content-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav'
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)
SOUNDS = st.binary(max_size=200).filter(lambda data: b"--xXx" not in data)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpoolRoom]:
    room = SpoolRoom(tmp_path_factory.mktemp("spool"))
    yield room
    room.close()


@pytest.fixture
async def spool(room: SpoolRoom) -> Spool:
    return room.open(0, settings.Spool())


def field(name: str) -> bytes:
    return b'Content-Disposition: form-data; name="%b"' % name.encode()


def form(*parts: tuple[bytes, bytes], preamble: bytes = b"") -> bytes:
    joined = b"".join(b"--xXx\r\n%b\r\n\r\n%b\r\n" % part for part in parts)
    return preamble + joined + b"--xXx--\r\n"


def allow(name: str, head: bytes) -> None:
    del name, head


def read(
    spool: Spool,
    body: bytes,
    kind: bytes = KIND,
    cuts: Sequence[int] = (),
    check: Callable[[str, bytes], None] = allow,
) -> Form:
    reader = FormReader(kind, spool, check)
    for piece in pieces(body, cuts):
        reader.feed(piece)
    return reader.finish()


async def content(found: Form, name: str = "file") -> bytes:
    [file] = found.files(name)
    return await file.data.read(0) if file.data.size else b""


@given(value=WORDS, sound=SOUNDS, cuts=CUTS)
async def test_fields_and_files_are_read_however_they_arrive(
    room: SpoolRoom, value: str, sound: bytes, cuts: list[int]
) -> None:
    spool = room.open(0, settings.Spool())
    heads: list[tuple[str, bytes]] = []
    body = form((field("language"), value.encode()), (FILE, sound), (field("model"), b"m"))
    found = read(spool, body, cuts=cuts, check=lambda *head: heads.append(head))
    assert found.fields == {"language": value, "model": "m"}
    [file] = found.files("file")
    assert (file.filename, file.content_type, file.head) == (
        "a.wav",
        "audio/wav",
        sound[:HEAD_BYTES],
    )
    assert heads == [("file", sound[:HEAD_BYTES])]
    assert await content(found) == sound
    spool.close()


@given(value=WORDS, sound=SOUNDS, name=WORDS)
async def test_what_is_made_anew_reads_the_same(
    room: SpoolRoom, value: str, sound: bytes, name: str
) -> None:
    spool = room.open(0, settings.Spool())
    before = read(spool, form((FILE, sound), (field("model"), b"old"), (field("n"), b"1")))
    changed = before.with_field("model", value).with_field(f"more{name}", "x")
    boundary = new_boundary()
    body = await whole(encode(changed.parts, boundary))
    again = read(spool, body, b"multipart/form-data; boundary=" + boundary)
    assert again.fields.pop("model") == value
    assert sorted(again.fields.values()) == ["1", "x"]
    assert await content(again) == sound
    assert again.files("file")[0].content_type == "audio/wav"
    spool.close()


async def test_a_field_keeps_its_place(spool: Spool) -> None:
    before = read(spool, form((field("a[]"), b"1"), (FILE, b"RIFF"), (field("a[]"), b"2")))
    assert before.fields == {"a[]": "2"}
    kinds = [type(part).__name__ for part in before.with_field("a[]", "3").parts]
    assert kinds == ["Field", "File", "Field"]
    assert before.with_field("b", "").parts[0] == Field("b", "")


async def test_names_cannot_break_out_of_their_header(spool: Spool) -> None:
    nasty = FILE.replace(b"a.wav", b'a\\"b.wav').replace(b"audio/wav", b"audio/wav\nx-evil: 1")
    found = read(spool, form((nasty, b"RIFF")))
    body = await whole(encode([Field('a"\r\nb', "1"), *found.parts], b"B"))
    assert b'name="a%22%0D%0Ab"' in body
    assert b"content-type: audio/wav x-evil: 1\r\n" in body
    assert b"\nx-evil" not in body


@pytest.mark.parametrize("size", [0, 5, HEAD_BYTES, HEAD_BYTES + 1])
async def test_a_file_may_be_refused_by_its_first_bytes(spool: Spool, size: int) -> None:
    def refuse(name: str, head: bytes) -> None:
        raise UnsupportedMedia(f"{name} {len(head)}")

    with pytest.raises(UnsupportedMedia, match=f"file {min(size, HEAD_BYTES)}"):
        read(spool, form((FILE, b"x" * size)), check=refuse)


@pytest.mark.parametrize("kind", [b"", b"application/json", b"multipart/mixed; boundary=xXx"])
async def test_something_else_is_not_taken(spool: Spool, kind: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        read(spool, form(), kind)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        pytest.param(form(), b"multipart/form-data", "has no boundary", id="no-boundary"),
        pytest.param(
            form(), b"multipart/form-data; boundary=" + b"x" * 999, "Content-Type", id="boundary"
        ),
        pytest.param(b"--xXx\r\n" + FILE + b"\r\n\r\nRI", KIND, "breaks off", id="half"),
        pytest.param(b"hello", KIND, "cannot be read", id="no-form"),
        pytest.param(b"", KIND, "breaks off", id="nothing"),
        pytest.param(form((b"x: y", b"")), KIND, "has no name", id="no-name"),
        pytest.param(
            form((field("model"), b"x" * (MAX_FIELD_BYTES + 1))),
            KIND,
            "model: is longer",
            id="long",
        ),
        pytest.param(
            form((field("n"), b"1"), (field("n"), b"1")), KIND, "n: is given twice", id="twice"
        ),
        pytest.param(form((field("model"), b"\xff")), KIND, "model: is not UTF-8", id="bytes"),
        pytest.param(
            form(*[(field("n[]"), b"1")] * (MAX_PARTS + 1)), KIND, "more than 100 parts", id="many"
        ),
    ],
)
async def test_what_cannot_be_read_is_said(
    spool: Spool, body: bytes, kind: bytes, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read(spool, body, kind)


@given(body=st.binary(max_size=200), cuts=CUTS)
async def test_any_bytes_are_read_or_refused(room: SpoolRoom, body: bytes, cuts: list[int]) -> None:
    spool = room.open(0, settings.Spool())
    for data in (body, b"--xXx\r\n" + body, form((FILE, body))):
        try:
            found = read(spool, data, cuts=cuts)
        except InvalidRequest:
            continue
        found.with_field("model", "m")
    spool.close()
