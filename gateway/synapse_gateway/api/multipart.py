"""Reads multipart form data (RFC 7578) as it arrives, and makes it anew for a backend.

Fields are kept in memory, files in the upload's spool: nothing is held twice.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from synapse_gateway.errors import InvalidRequest, TooLarge, UnsupportedMedia
from synapse_gateway.proxy.body import Joined, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from python_multipart.multipart import MultipartCallbacks

    from synapse_gateway.proxy.body import Part
    from synapse_gateway.proxy.spool import Spool

MAX_FIELD_BYTES = 64 * 1024
"""A field that is no file; a longer one is refused."""
MAX_PARTS = 100
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
HEAD_BYTES = 64
"""Bytes of a file by which its format is told."""


class Field(msgspec.Struct, frozen=True):
    """A part that is no file."""

    name: str
    value: str


class File(msgspec.Struct, frozen=True):
    """A part that is a file."""

    name: str
    """Of the field."""
    filename: str
    """As the caller calls it; may be anything, and is never a path of ours."""
    content_type: str
    data: Span
    head: bytes
    """Its first bytes, `HEAD_BYTES` at most."""

    @property
    def pieces(self) -> tuple[Part, ...]:
        """What it is read from; none of them empty."""
        return (self.data,) if self.data.size else ()


class Attachment(msgspec.Struct, frozen=True):
    """A file of our own making."""

    name: str
    filename: str
    content_type: str
    pieces: tuple[Part, ...]


class Form:
    """The parts of a body, in the order in which they came."""

    def __init__(self, parts: tuple[Field | File, ...]) -> None:
        self.parts = parts
        self.fields = {part.name: part.value for part in parts if isinstance(part, Field)}
        """Of several of one name, which only lists have, the last."""

    def files(self, name: str) -> tuple[File, ...]:
        """Return the files of a field."""
        return tuple(p for p in self.parts if isinstance(p, File) and p.name == name)

    def with_field(self, name: str, value: str) -> Form:
        """Return the form with a field set, in its old place if it had one."""
        kept = tuple(
            Field(name, value) if isinstance(part, Field) and part.name == name else part
            for part in self.parts
        )
        return Form(kept if name in self.fields else (Field(name, value), *kept))


def new_boundary() -> bytes:
    """Return a boundary that stands in nobody's file: no caller can know it."""
    return b"synapse-" + secrets.token_hex(16).encode()


def encode(parts: Iterable[Field | File | Attachment], boundary: bytes) -> Joined:
    """Return parts as multipart form data."""
    pieces: list[Part] = []
    for part in parts:
        if isinstance(part, Field):
            pieces.append(
                b'--%b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n'
                % (boundary, _quoted(part.name), part.value.encode())
            )
            continue
        pieces.append(
            b'--%b\r\ncontent-disposition: form-data; name="%b"; filename="%b"\r\n'
            b"content-type: %b\r\n\r\n"
            % (
                boundary,
                _quoted(part.name),
                _quoted(part.filename),
                part.content_type.encode("latin-1"),
            )
        )
        pieces.extend(part.pieces)
        pieces.append(b"\r\n")
    pieces.append(b"--%b--\r\n" % boundary)
    return Joined(pieces)


def _quoted(text: str) -> bytes:
    """Escape a name as browsers do (HTML standard, multipart form data)."""
    return (
        text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").encode(errors="replace")
    )


class FormReader:
    """Takes a body piece by piece.

    Args:
        content_type: Value of the Content-Type header.
        spool: Where files go.
        check: Looks at a file's field and first bytes as soon as they are there (at its end, if it
            is shorter), and raises what speaks against it.
        max_file_bytes: Largest file; None leaves that to the limit of the whole body.

    Raises:
        UnsupportedMedia: It is declared to be something else.
        InvalidRequest: It has no boundary.
    """

    def __init__(
        self,
        content_type: bytes,
        spool: Spool,
        check: Callable[[str, bytes], None],
        max_file_bytes: int | None = None,
    ) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            raise UnsupportedMedia("Content-Type: must be multipart/form-data.")
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidRequest(
                "Content-Type: has no boundary; let the HTTP client set it.", code="invalid_form"
            )
        self._spool = spool
        self._check = check
        self._max_file_bytes = max_file_bytes
        self._parts: list[Field | File] = []
        self._ended = False
        self._header = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._filename: str | None = None
        self._data = bytearray()
        self._start = 0
        self._checked = False
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError as error:
            raise InvalidRequest(f"Content-Type: {error}", code="invalid_form") from None

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            RequestError: They cannot be, a file may not be, or there is no room.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequest(
                f"The form data cannot be read: {error}", code="invalid_form"
            ) from None

    def finish(self) -> Form:
        """Return the form.

        Raises:
            InvalidRequest: It is not whole.
        """
        if not self._ended:
            raise InvalidRequest("The form data breaks off.", code="invalid_form")
        return Form(tuple(self._parts))

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        if len(self._parts) >= MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.", code="invalid_form")
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if name is None:
            raise InvalidRequest("A part of the form has no name.", code="invalid_form")
        self._name = name.decode("utf-8", "replace")
        filename = options.get(b"filename")
        self._filename = None if filename is None else filename.decode("utf-8", "replace")
        self._data = bytearray()
        self._start = self._spool.size
        self._checked = False

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._filename is None:
            self._data += data[start:end]
            if len(self._data) > MAX_FIELD_BYTES:
                raise InvalidRequest(
                    f"{self._name}: is longer than {MAX_FIELD_BYTES} bytes.", param=self._name
                )
            return
        if not self._checked:
            self._data += data[start : min(end, start + HEAD_BYTES - len(self._data))]
            if len(self._data) == HEAD_BYTES:
                self._check_file()
        self._spool.append(data[start:end])
        most = self._max_file_bytes
        if most is not None and self._spool.size - self._start > most:
            raise TooLarge(f"{self._name}: a file is larger than {most} bytes.", param=self._name)

    def _check_file(self) -> None:
        self._checked = True
        self._check(self._name, bytes(self._data))

    def _on_part_end(self) -> None:
        if self._filename is None:
            try:
                value = self._data.decode()
            except UnicodeDecodeError:
                raise InvalidRequest(f"{self._name}: is not UTF-8.", param=self._name) from None
            if not self._name.endswith("[]") and any(
                isinstance(part, Field) and part.name == self._name for part in self._parts
            ):
                # which of them a backend would take cannot be known
                raise InvalidRequest(f"{self._name}: is given twice", param=self._name)
            self._parts.append(Field(self._name, value))
            return
        if not self._checked:
            self._check_file()
        self._parts.append(
            File(
                self._name,
                self._filename,
                self._content_type(),
                Span(self._spool, self._start, self._spool.size - self._start),
                bytes(self._data),
            )
        )

    def _content_type(self) -> str:
        given = self._headers.get(b"content-type", b"application/octet-stream")
        # a line end within it would begin a header of the caller's own making at the backend
        return _CONTROL.sub(b" ", given).decode("latin-1")

    def _on_end(self) -> None:
        self._ended = True
