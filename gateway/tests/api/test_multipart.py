from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.api.multipart import MAX_FIELD_BYTES, MAX_PARTS, Form
from synapse_gateway.errors import InvalidRequest, UnsupportedMedia

BOUNDARY = b"xXx"
KIND = b'multipart/form-data; boundary="xXx"'
FILE = b'content-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav'


def field(name: str) -> bytes:
    return b'Content-Disposition: form-data; name="%b"' % name.encode()


def form(*parts: tuple[bytes, bytes], preamble: bytes = b"") -> bytes:
    joined = b"".join(b"--xXx\r\n%b\r\n\r\n%b\r\n" % part for part in parts)
    return preamble + joined + b"--xXx--\r\n"


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


@given(value=WORDS, sound=st.binary(max_size=100).filter(lambda data: b"--xXx" not in data))
def test_fields_are_read_and_files_are_named(value: str, sound: bytes) -> None:
    body = form((field("language"), value.encode()), (FILE, sound), (field("model"), b"m"))
    parsed = Form.parse(body, KIND)
    assert parsed.fields == {"language": value, "model": "m"}
    assert parsed.files == {"file"}


@given(value=WORDS, preamble=st.sampled_from([b"", b"preamble\r\n"]))
def test_a_field_is_replaced_and_all_else_stays(value: str, preamble: bytes) -> None:
    before = form((FILE, b"RIFF--"), (field("model"), b"old"), (field("n"), b"1"))
    changed = Form.parse(before, KIND).with_field("model", value)
    assert changed == form((FILE, b"RIFF--"), (field("model"), value.encode()), (field("n"), b"1"))


def test_a_field_that_is_missing_is_added_in_front() -> None:
    before = form((FILE, b"RIFF"))
    changed = Form.parse(before, KIND).with_field("model", "new")
    assert Form.parse(changed, KIND).fields == {"model": "new"}
    assert changed.endswith(before)


def test_an_empty_field_can_be_set() -> None:
    body = form((field("model"), b""), (FILE, b""))
    parsed = Form.parse(body, KIND)
    assert parsed.fields == {"model": ""}
    assert Form.parse(parsed.with_field("model", "m"), KIND).fields == {"model": "m"}


def test_of_two_fields_of_one_name_the_last_counts() -> None:
    body = form((field("model"), b"a"), (field("model"), b"b"))
    parsed = Form.parse(body, KIND)
    assert parsed.fields == {"model": "b"}
    assert Form.parse(parsed.with_field("model", "c"), KIND).fields == {"model": "c"}


@pytest.mark.parametrize("kind", [b"", b"application/json", b"multipart/mixed; boundary=xXx"])
def test_something_else_is_not_taken(kind: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        Form.parse(form(), kind)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        pytest.param(form(), b"multipart/form-data", "has no boundary", id="no-boundary"),
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
        pytest.param(form((field("model"), b"\xff")), KIND, "model: is not UTF-8", id="bytes"),
        pytest.param(
            form(*[(field("n"), b"1")] * (MAX_PARTS + 1)), KIND, "more than 100 parts", id="many"
        ),
    ],
)
def test_what_cannot_be_read_is_said(body: bytes, kind: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Form.parse(body, kind)


@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for data in (body, b"--xXx\r\n" + body, form((FILE, body))):
        try:
            parsed = Form.parse(data, KIND)
        except InvalidRequest:
            continue
        parsed.with_field("model", "m")
