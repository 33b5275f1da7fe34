"""Form bytes in, fields and finished writers out; no I/O of its own on the socket.

The delimiters are found by python-multipart's streaming parser. What stands around it here is what
that parser leaves to its users or does otherwise than Werkzeug: the preamble, parts without a body,
limits, the meaning of the headers, and batching, so that a ``Writer`` sees few large writes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, MultipartState
from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.http import parse_options_header

from .. import _units
from ..exceptions import FileTooLargeError, IncompleteUploadError

if TYPE_CHECKING:
    from .._storage.writer import Writer

MAX_BOUNDARY_LENGTH = 256
MAX_PART_HEADER_BYTES = 64 * 1024
MAX_PART_HEADER_COUNT = 64
MAX_DELIMITER_PADDING = 256
#: Smaller pieces are gathered up to the second number before a writer sees them.
SMALL_PIECE = 16 * 1024
BATCH_SIZE = 64 * 1024

#: The charsets Werkzeug accepts for a text part, all others being read as UTF-8.
TEXT_CHARSETS = frozenset({"ascii", "us-ascii", "utf-8", "iso-8859-1"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one form may ask for; None is no limit.

    Args:
        max_file_size: Bytes of one file part.
        max_form_memory_size: Bytes of one text field.
        max_form_parts: Number of parts, fields and files together.
    """

    max_file_size: int | None = None
    max_form_memory_size: int | None = None
    max_form_parts: int | None = None


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file part that has arrived whole, with its finished writer, which the holder closes."""

    name: str
    filename: str
    headers: Headers
    writer: Writer


class MultipartDecoder:
    """Decode one ``multipart/form-data`` body, hashing and spooling its files as they arrive.

    Args:
        boundary: The boundary parameter of the body's Content-Type.
        new_writer: Makes the writer of one file part.
        limits: What the form may ask for.
        beside: Writes large pieces to the disk while the feeding thread hashes them.

    Raises:
        BadRequest: The boundary is missing or cannot be one.
    """

    def __init__(
        self,
        boundary: str | bytes,
        new_writer: Callable[[], Writer],
        limits: Limits | None = None,
        beside: Executor | None = None,
    ) -> None:
        self._delimiter = b"--" + _check_boundary(boundary)
        self._line = b"\r\n" + self._delimiter
        self._bodyless = b"\r\n" + self._line
        self._opening = self._delimiter + b"\r\n"
        self._closing = self._line + b"--\r\n"
        self._new_writer = new_writer
        self._limits = Limits() if limits is None else limits
        self._beside = beside
        self._fields: list[tuple[str, str]] = []
        self._files: list[FilePart] = []
        self._parts = 0
        self._part: _TextPart | _StreamedPart | None = None
        self._headers = _HeaderLines()
        self._in_preamble = True
        self._in_headers = False
        self._in_content = False  # of a part, and the parser keeps nothing of it back
        self._ended = False
        self._closed = False
        self._carry = b""
        self._parser = MultipartParser(
            self._delimiter[2:],
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=MAX_PART_HEADER_COUNT,
            max_header_size=MAX_PART_HEADER_BYTES,
        )

    def feed(self, data: bytes) -> None:
        """Parse, hash and write one batch of the body.

        Raises:
            BadRequest: The body is not well-formed.
            RequestEntityTooLarge: A field, or the number of parts, is over its limit.
            FileTooLargeError: A file part is over its limit.
            OSError: A writer could not keep its bytes.
        """
        if self._closed:
            raise ValueError("The decoder is closed.")
        try:
            self._feed(data)
        except MultipartParseError as error:
            self.close()
            raise BadRequest(f"The multipart body is malformed: {error}") from error
        except BaseException:
            self.close()
            raise

    def finish(self) -> tuple[list[tuple[str, str]], list[FilePart]]:
        """Return the fields and the files, in their order; the caller now owns the files' writers.

        Raises:
            IncompleteUploadError: The body ended before its final boundary.
        """
        if not self._ended:
            self.close()
            raise IncompleteUploadError("The multipart body ends before its final boundary.")
        files, self._files = self._files, []
        self.close()
        return self._fields, files

    def close(self) -> None:
        """Drop every writer that ``finish`` has not handed over."""
        self._closed = True
        part, self._part = self._part, None
        if part is not None:
            part.close()
        while self._files:
            self._files.pop().writer.close()

    # The body as a whole

    def _feed(self, data: bytes) -> None:
        if self._ended:
            return
        if self._carry:
            data, self._carry = self._carry + data, b""
        if self._in_preamble:
            data = self._skip_preamble(data)
        position = 0
        while position < len(data) and not self._ended:
            if self._in_content:
                position = self._pass_on(data, position)
            else:
                position = self._parse_headers(data, position)

    def _pass_on(self, data: bytes, start: int) -> int:
        """Write what comes before the next delimiter to its file or field; return where that is.

        The parser would look at every carriage return in it.
        """
        assert self._part is not None
        at = data.find(self._line, start)
        if at < 0:
            tail = _overlap(data[max(start, len(data) - len(self._line)) :], self._line)
            self._carry = data[len(data) - tail :]
            self._part.write(data, start, len(data) - tail)
            return len(data)
        if at > start:
            self._part.write(data, start, at)
        self._in_content = False
        return at

    def _parse_headers(self, data: bytes, start: int) -> int:
        """Parse up to the content of the next part, and return where that begins."""
        blank = data.find(b"\r\n\r\n", start)
        follows = data[blank : blank + len(self._bodyless)]
        if blank >= 0 and not self._bodyless.startswith(follows):
            self._parser.write(data[start : blank + 4])
            start = blank + 4
            if self._parser.state == MultipartState.PART_DATA_START:
                self._in_content = True
                return start
        # No headers end here; perhaps it was no delimiter either, but content that begins like one.
        end = data[-len(self._line) - 2 :]
        self._parse(data[start:] if start else data)
        self._in_content = self._part is not None and _is_plain(end, len(self._line) + 2)
        return len(data)

    def _skip_preamble(self, data: bytes) -> bytes:
        """Return what begins with the first delimiter; nothing while it has not been seen."""
        if data.startswith(self._opening):
            self._in_preamble = False
            return data
        at = data.find(self._delimiter)
        while at >= 0:
            end = at + len(self._delimiter)
            padded = data[end : end + MAX_DELIMITER_PADDING]
            line = padded.lstrip(b" \t")
            if padded.startswith(b"--"):
                self._ended = True
                return b""
            if line.startswith(b"\r\n"):
                self._in_preamble = False
                self._parser.write(self._opening)
                return data[end + len(padded) - len(line) + 2 :]
            if padded == b"-" or (line in (b"", b"\r") and len(padded) < MAX_DELIMITER_PADDING):
                self._carry = data[at:]
                return b""
            if line.startswith((b"\r", b"\n")):
                _refuse("The lines of the multipart body do not end with CR LF.")
            at = data.find(self._delimiter, at + 1)
        self._carry = data[-(len(self._delimiter) - 1) :]
        return b""

    def _parse(self, data: bytes) -> None:
        """Give the parser its data, with a body for the parts that have none.

        Behind headers, the blank line may at once be the line break that starts the next delimiter
        (RFC 2046 allows it, Werkzeug's test client writes it). The parser would take that
        delimiter for content.
        """
        write = self._parser.write
        start = 0
        while (at := data.find(self._bodyless, start)) >= 0:
            end = at + len(self._bodyless)
            follows = data[end : end + 2]
            if len(follows) < 2 and follows not in (b" ", b"\t"):
                write(data[start:at])
                self._carry = data[at:]
                return
            write(data[start : at + 2])
            start = at + 2
            if self._in_headers and _ends_delimiter(follows):
                write(b"\r\n")
        if start:
            data = data[start:]
        if data.endswith(self._closing):
            write(data)
        elif tail := _overlap(data, self._bodyless):
            before, data = data[:-tail], data[-tail:]
            write(before)
            if self._in_headers and not before.endswith(b"\r\n"):
                self._carry = data
            else:  # content, or the blank line itself
                write(data)
        else:
            write(data)

    def _on_end(self) -> None:
        self._ended = True

    # One part

    def _on_part_begin(self) -> None:
        self._in_headers = True
        self._headers = _HeaderLines()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._headers.add_name(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._headers.add_value(data[start:end])

    def _on_header_end(self) -> None:
        self._headers.end_line()

    def _on_headers_finished(self) -> None:
        self._in_headers = False
        self._parts += 1
        limit = self._limits.max_form_parts
        if limit is not None and self._parts > limit:
            raise RequestEntityTooLarge(f"The form has more than the {limit} parts allowed.")
        headers = self._headers.parsed()
        name, filename = _disposition(headers)
        if filename is None:
            self._part = _TextPart(name, headers, self._limits.max_form_memory_size)
        else:
            file = FilePart(name, filename, headers, self._new_writer())
            self._part = _StreamedPart(file, self._limits.max_file_size, self._beside)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.write(data, start, end)

    def _on_part_end(self) -> None:
        part = self._part
        if isinstance(part, _TextPart):
            self._fields.append((part.name, part.text()))
        elif part is not None:
            self._files.append(part.finish())
        self._part = None


class _HeaderLines:
    """The header lines of one part as they arrive in pieces, bounded in total."""

    def __init__(self) -> None:
        self._name = b""
        self._value = b""
        self._size = 0
        self._lines: list[tuple[bytes, bytes]] = []

    def add_name(self, piece: bytes) -> None:
        self._grow(piece)
        self._name += piece

    def add_value(self, piece: bytes) -> None:
        self._grow(piece)
        self._value += piece

    def end_line(self) -> None:
        self._lines.append((self._name, self._value))
        self._name = self._value = b""

    def _grow(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MAX_PART_HEADER_BYTES:
            _refuse(f"A part has more than {MAX_PART_HEADER_BYTES} bytes of headers.")

    def parsed(self) -> Headers:
        headers = Headers()
        for name, value in self._lines:
            try:
                headers.add(name.decode(), value.strip(b" \t").decode())
            except ValueError as error:
                raise BadRequest(f"A part has a malformed header: {error}") from error
        return headers


class _TextPart:
    """A text field on its way in."""

    def __init__(self, name: str, headers: Headers, max_size: int | None) -> None:
        self.name = name
        self._headers = headers
        self._max_size = max_size
        self._data = bytearray()

    def write(self, data: bytes, start: int, end: int) -> None:
        if self._max_size is not None and len(self._data) + end - start > self._max_size:
            limit = _units.size(self._max_size)
            raise RequestEntityTooLarge(f"A form field is larger than the {limit} allowed.")
        self._data += memoryview(data)[start:end]

    def text(self) -> str:
        parameters = parse_options_header(self._headers.get("content-type"))[1]
        charset = parameters.get("charset", "").lower()
        return self._data.decode(charset if charset in TEXT_CHARSETS else "utf-8", "replace")

    def close(self) -> None:
        self._data.clear()


class _StreamedPart:
    """A file part on its way into its writer."""

    def __init__(self, file: FilePart, max_size: int | None, beside: Executor | None) -> None:
        limits = [limit for limit in (max_size, file.writer.max_size) if limit is not None]
        self._file = file
        self._max_size = min(limits, default=None)
        self._beside = beside
        self._size = 0
        self._batch = bytearray()

    def write(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._max_size is not None and self._size > self._max_size:
            raise FileTooLargeError(self._max_size)
        if end - start < SMALL_PIECE:
            self._batch += memoryview(data)[start:end]
            if len(self._batch) >= BATCH_SIZE:
                self._flush()
        else:
            self._flush()
            self._file.writer.write(memoryview(data)[start:end], self._beside)

    def _flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, bytearray()
            self._file.writer.write(batch)

    def finish(self) -> FilePart:
        self._flush()
        self._file.writer.finish()
        return self._file

    def close(self) -> None:
        self._file.writer.close()


def _check_boundary(boundary: str | bytes) -> bytes:
    try:
        raw = boundary.encode("ascii") if isinstance(boundary, str) else bytes(boundary)
    except UnicodeEncodeError:
        _refuse("The multipart boundary has characters that are not ASCII.")
    if not raw:
        _refuse("The multipart Content-Type has no boundary.")
    if len(raw) > MAX_BOUNDARY_LENGTH:
        _refuse(f"The multipart boundary is longer than {MAX_BOUNDARY_LENGTH} bytes.")
    if not all(0x20 <= byte < 0x7F for byte in raw):
        _refuse("The multipart boundary has characters that cannot be printed.")
    return raw


def _disposition(headers: Headers) -> tuple[str, str | None]:
    """Return the name of a part and, when it is a file, its filename."""
    value = headers.get("content-disposition")
    if value is None:
        _refuse("A part has no Content-Disposition header.")
    parameters = parse_options_header(value)[1]
    name = parameters.get("name")
    if name is None:
        _refuse("A part has no name.")
    return name, parameters.get("filename")


def _ends_delimiter(follows: bytes) -> bool:
    return follows in (b"\r\n", b"--") or follows[:1] in (b" ", b"\t")


def _is_plain(end: bytes, size: int) -> bool:
    """Tell whether content that ends so cannot have begun a delimiter, nor its padding."""
    return len(end) == size and b"\r" not in end and not end.endswith((b" ", b"\t"))


def _overlap(data: bytes, needle: bytes) -> int:
    """Return how many bytes at the end of ``data`` could be the beginning of ``needle``."""
    at = data.find(needle[:1], max(0, len(data) - len(needle) + 1))
    while at >= 0:
        if needle.startswith(data[at:]):
            return len(data) - at
        at = data.find(needle[:1], at + 1)
    return 0


def _refuse(why: str) -> NoReturn:
    raise BadRequest(why)
