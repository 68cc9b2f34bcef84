"""Reads and changes the small fields of multipart form data (RFC 7578)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from synapse_gateway.errors import InvalidRequest, UnsupportedMedia

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELD_BYTES = 64 * 1024
"""A field that is no file; a longer one is refused."""
MAX_PARTS = 100


class Form:
    """The parts of a body.

    Attributes:
        fields: Values of the parts that are no files; the last of several of one name.
        files: Names of the parts that are files.
    """

    def __init__(self, body: bytes, boundary: bytes) -> None:
        self._body = body
        self._boundary = boundary
        self._spans: dict[str, tuple[int, int]] = {}
        self.fields: dict[str, str] = {}
        self.files: set[str] = set()

    @classmethod
    def parse(cls, body: bytes, content_type: bytes) -> Form:
        """Read a body.

        Raises:
            UnsupportedMedia: It is declared to be something else.
            InvalidRequest: It is not what it is declared to be.
        """
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            raise UnsupportedMedia("Content-Type: must be multipart/form-data.")
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidRequest(
                "Content-Type: has no boundary; let the HTTP client set it.", code="invalid_form"
            )
        form = cls(body, boundary)
        form._read()
        return form

    def with_field(self, name: str, value: str) -> bytes:
        """Return the body with a field set, all else byte for byte."""
        span = self._spans.get(name)
        body = self._body
        if span is not None:
            return b"%b%b%b" % (body[: span[0]], value.encode(), body[span[1] :])
        part = b'--%b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (
            self._boundary,
            name.encode(),
            value.encode(),
        )
        # anything in front of the first boundary is a preamble, which nobody reads
        start = body.index(b"--" + self._boundary)
        return body[:start] + part + body[start:]

    def _read(self) -> None:
        reader = _Reader()
        try:
            parser = MultipartParser(self._boundary, reader.callbacks())
            # one call for the whole body: the spans that the callbacks get are positions in it
            parser.write(self._body)
            parser.finalize()
        except MultipartParseError as error:
            raise InvalidRequest(
                f"The form data cannot be read: {error}", code="invalid_form"
            ) from None
        if not reader.ended:
            raise InvalidRequest("The form data breaks off.", code="invalid_form")
        for name, start, end, is_file in reader.parts:
            if is_file:
                self.files.add(name)
                continue
            if end - start > MAX_FIELD_BYTES:
                raise InvalidRequest(f"{name}: is longer than {MAX_FIELD_BYTES} bytes.", param=name)
            try:
                self.fields[name] = self._body[start:end].decode()
            except UnicodeDecodeError:
                raise InvalidRequest(f"{name}: is not UTF-8.", param=name) from None
            self._spans[name] = (start, end)


class _Reader:
    """Collects the parts' names and where their data lies."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, int, int, bool]] = []
        self.ended = False
        self._field = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._head = -1
        self._start = -1
        self._end = -1

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._on_part_begin,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.", code="invalid_form")
        self._headers = {}
        self._head = self._start = self._end = -1

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        if self._head < 0:
            self._head = start
            # where a part's data begins is told by no callback when there is none
            end_of_head = data.find(b"\r\n\r\n", start)
            if end_of_head < 0:
                raise InvalidRequest("The form data breaks off.", code="invalid_form")
            self._start = self._end = end_of_head + 4
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _on_part_data(self, _data: bytes, _start: int, end: int) -> None:
        self._end = end

    def _on_part_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if name is None:
            raise InvalidRequest("A part of the form has no name.", code="invalid_form")
        is_file = b"filename" in options
        self.parts.append((name.decode("utf-8", "replace"), self._start, self._end, is_file))

    def _on_end(self) -> None:
        self.ended = True
