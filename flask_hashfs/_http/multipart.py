"""Form bytes in, fields and finished writers out; no I/O of its own on the socket.

The decoder walks a body (RFC 2046, section 5.1.1; RFC 7578) through these states::

    PREAMBLE   before the first delimiter: all is dropped
    HEADERS    behind a delimiter, up to the blank line
    CONTENT    behind the blank line, up to the next delimiter, which ends the part
    EPILOGUE   behind the final delimiter: all is dropped

    PREAMBLE -> HEADERS -> CONTENT -> HEADERS ...
    PREAMBLE or CONTENT -> EPILOGUE

A delimiter is the line ``--boundary``, perhaps padded with spaces, and the line break before it
belongs to it. The blank line behind the headers may be that line break (RFC 2046 allows it,
Werkzeug's test client writes it); so in CONTENT the search begins two bytes early, and `_skip`
tells how many bytes at the front are not content.

**The time a body takes grows with its length, whatever is in it.** In each state what is there is
searched in one step of C, once: for a delimiter by ``bytes.find``; where that has found what only
begins like one (``--boundaryx``), by a regular expression that goes on over all further such
places. (It is compiled only when needed: that takes as long as parsing a small form.)
A step is repeated only for another part, which `Limits` and the header limits bound, or
when more has been fed. What cannot be decided yet stays in the buffer: less than a delimiter with
its padding, or the headers of one part.

The headers of a part, once whole, are parsed by python-multipart, which checks their form. What
nearly all clients send is as plain as `_PLAIN_HEADERS`, and read without it: to make a parser and
to call it takes longer than the rest of a small form.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NoReturn, Protocol, TypeVar

from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from .. import _units
from ..exceptions import FileTooLargeError, IncompleteUploadError
from .parameters import parse_parameters

MAX_BOUNDARY_LENGTH = 256
#: nginx and tomcat take 8 KiB; a path of 4,096 bytes, percent-encoded as a file name, has 12.
MAX_PART_HEADER_BYTES = 16 * 1024
MAX_PART_HEADER_COUNT = 64
MAX_DELIMITER_PADDING = 256
#: Smaller pieces are gathered up to the second number before a writer sees them.
SMALL_PIECE = 16 * 1024
BATCH_SIZE = 64 * 1024

#: The charsets Werkzeug accepts for a text part, all others being read as UTF-8.
TEXT_CHARSETS = frozenset({"ascii", "us-ascii", "utf-8", "iso-8859-1"})

_UNQUOTED_BOUNDARY = re.compile(r";[ \t]*boundary=([^\s\";][^\s;]*)", re.ASCII | re.IGNORECASE)
_GOES_ON = rb"(?:--|[ \t]|\r\n|-?\Z|\r\Z)"  # a delimiter, as far as it has been fed
_DELIMITER_REST = re.compile(_GOES_ON)
_PLAIN_HEADERS = re.compile(rb"(?:[A-Za-z-]++: [^\x00-\x20\x7f][^\x00-\x1f\x7f]*+\r\n){1,8}+\r\n")
_MOST_PLAIN = 2 * 1024  # bytes up to which the expression is the faster way
_PLAIN_DISPOSITION = re.compile(r'form-data; name="([^"\\%]*+)"(?:; filename="([^"\\%]*+)")?+')
_PADDED_END = re.compile(rb"[ \t]*+(\r\n|\r?\Z)?")


class Sink(Protocol):
    """What takes the content of one file part; a store's writer is one."""

    @property
    def max_size(self) -> int | None:
        """Bytes it takes, or None."""

    @property
    def awaits_head(self) -> bool:
        """Whether the first bytes will decide if the content is taken."""
        ...

    def write(self, data: memoryview | bytes | bytearray, beside: Executor | None = None) -> None:
        """Take the next bytes."""

    def end_head(self) -> None:
        """Decide now: there are no more bytes."""

    def finish(self) -> object:
        """End the content."""

    def close(self) -> None:
        """Give the content up, if it has not been stored."""


SinkT = TypeVar("SinkT", bound=Sink)


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
class FilePart(Generic[SinkT]):
    """A file part that has arrived whole, with its finished writer, which the holder closes."""

    name: str
    filename: str
    headers: Headers
    writer: SinkT


class State(enum.IntEnum):
    """Where in its body a decoder is; see the top of this module."""

    PREAMBLE = 0
    HEADERS = 1
    CONTENT = 2
    EPILOGUE = 3


class MultipartDecoder(Generic[SinkT]):
    """Decode one ``multipart/form-data`` body, handing its files to sinks as they arrive.

    Args:
        boundary: The boundary parameter of the body's Content-Type.
        new_writer: Makes the sink of one file part.
        limits: What the form may ask for.
        beside: Writes large pieces to the disk while the feeding thread hashes them.

    Raises:
        BadRequest: The boundary is missing or cannot be one.
    """

    def __init__(
        self,
        boundary: str | bytes,
        new_writer: Callable[[], SinkT],
        limits: Limits | None = None,
        beside: Executor | None = None,
    ) -> None:
        self._delimiter = delimiter = b"--" + _check_boundary(boundary)
        self._line = b"\r\n" + delimiter
        self._opening = delimiter + b"\r\n"
        self._new_writer = new_writer
        self._limits = Limits() if limits is None else limits
        self._beside = beside
        self._fields: list[tuple[str, str]] = []
        self._files: list[FilePart[SinkT]] = []
        self._parts = 0
        self._part: _TextPart | _StreamedPart[SinkT] | _SkippedPart | None = None
        self._state = State.PREAMBLE
        self._buffer = b""
        self._at = 0  # what is before has been dealt with
        self._skip = 0
        self._closed = False

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
        self._buffer = self._buffer + data if self._buffer else data
        try:
            while self._STEPS[self._state](self):
                pass
        except BaseException:
            self.close()
            raise
        self._buffer = self._buffer[self._at :]
        self._at = 0

    def finish(self) -> tuple[list[tuple[str, str]], list[FilePart[SinkT]]]:
        """Return the fields and the files, in their order; the caller now owns the files' writers.

        Where it raises, the writers stay open until `close`, which may have to wait for the disk.

        Raises:
            IncompleteUploadError: The body ended before its final boundary.
        """
        if not self.is_complete:
            raise IncompleteUploadError("The multipart body ends before its final boundary.")
        files, self._files = self._files, []
        self.close()
        return self._fields, files

    @property
    def awaits_head(self) -> bool:
        """Whether the next bytes decide about a file: it is better to feed few than to wait."""
        return not (isinstance(self._part, _StreamedPart) and not self._part.awaits_head)

    @property
    def is_complete(self) -> bool:
        """Whether the final delimiter has been fed, so that all further bytes are dropped."""
        return self._state is State.EPILOGUE

    def close(self) -> None:
        """Drop every writer that ``finish`` has not handed over."""
        self._closed = True
        self._buffer = b""
        part, self._part = self._part, None
        if part is not None:
            part.close()
        while self._files:
            self._files.pop().writer.close()

    # The steps: each deals with what the buffer has for one state, and returns whether another
    # state goes on with the rest, rather than that more has to be fed.

    def _skip_preamble(self) -> bool:
        data = self._buffer
        if data.startswith(self._opening):
            self._at = len(self._opening)
            self._state = State.HEADERS
            return True
        match = self._first.search(data)
        if match is None:
            self._at = max(0, len(data) - len(self._opening) + 3)
            return False
        final, whole, broken, _ = match.groups()
        if broken is not None:
            _refuse("The lines of the multipart body do not end with CR LF.")
        if final is None and whole is None:
            self._at = match.start()
            return False
        self._at = match.end()
        self._state = State.HEADERS if whole else State.EPILOGUE
        return True

    def _read_headers(self) -> bool:
        data, start = self._buffer, self._at
        if data.startswith(b"\r\n", start):
            end = start + 2
        elif (blank := data.find(b"\r\n\r\n", start, start + MAX_PART_HEADER_BYTES)) >= 0:
            end = blank + 4
        elif len(data) - start >= MAX_PART_HEADER_BYTES:
            _refuse(f"A part has more than {MAX_PART_HEADER_BYTES} bytes of headers.")
        else:
            return False
        self._begin_part(data[start:end])
        self._at, self._skip = end - 2, 2
        self._state = State.CONTENT
        return True

    def _read_content(self) -> bool:
        data = self._buffer
        content = self._at + self._skip
        at = self._find_delimiter()
        if at > content:
            assert self._part is not None
            self._part.write(data, content, at)
        self._at, self._skip = at, max(0, content - at)
        end = at + len(self._line)
        if data.startswith(b"--", end):
            self._end_part()
            self._at = end + 2
            self._state = State.EPILOGUE
            return True
        match = _PADDED_END.match(data, min(end, len(data)))
        assert match is not None
        padding = match.end() - end
        if match[1] == b"\r\n":
            self._end_part()
            self._at = match.end()
            self._state = State.HEADERS
            return True
        if padding > 0 and (match[1] is None or padding > MAX_DELIMITER_PADDING):
            _refuse("A line of the multipart body begins like a delimiter, and then goes on.")
        return False

    def _find_delimiter(self) -> int:
        """Return where a delimiter begins, or may begin when more has been fed, or the end."""
        data, line = self._buffer, self._line
        at = data.find(line, self._at)
        if at >= 0:
            if _DELIMITER_REST.match(data, at + len(line)):
                return at
            match = self._next.search(data, at)
            if match is not None:
                return match.start()
        # The line break that it begins with is nowhere else in it: one place has to be looked at.
        last = data.rfind(b"\r", max(self._at, len(data) - len(line) + 1))
        return last if last >= 0 and line.startswith(data[last:]) else len(data)

    @cached_property
    def _first(self) -> re.Pattern[bytes]:
        """What finds the first delimiter, where the body does not begin with it."""
        return re.compile(
            re.escape(self._delimiter)
            + rb"(?:(--)|[ \t]{0,%d}+(?:(\r\n)|(\n|\r(?!\Z))|(-?\Z|\r\Z)))" % MAX_DELIMITER_PADDING
        )

    @cached_property
    def _next(self) -> re.Pattern[bytes]:
        """What finds the next delimiter, where much only begins like one."""
        return re.compile(re.escape(self._line) + _GOES_ON)

    def _skip_epilogue(self) -> bool:
        self._at = len(self._buffer)
        return False

    _STEPS = (_skip_preamble, _read_headers, _read_content, _skip_epilogue)
    """In the order of the states."""

    # One part

    def _begin_part(self, block: bytes) -> None:
        self._parts += 1
        limit = self._limits.max_form_parts
        if limit is not None and self._parts > limit:
            raise RequestEntityTooLarge(f"The form has more than the {limit} parts allowed.")
        headers = _parse_headers(block)
        value = headers.get("content-disposition")
        if value is None:
            _refuse("A part has no Content-Disposition header.")
        name, filename = disposition(value)
        if name is None:
            self._part = _SkippedPart()
        elif filename is None:
            self._part = _TextPart(name, headers, self._limits.max_form_memory_size)
        else:
            file = FilePart(name, filename, headers, self._new_writer())
            self._part = _StreamedPart(file, self._limits.max_file_size, self._beside)

    def _end_part(self) -> None:
        part, self._part = self._part, None
        if isinstance(part, _TextPart):
            self._fields.append((part.name, part.text()))
        elif isinstance(part, _StreamedPart):
            self._files.append(part.finish())


class _SkippedPart:
    """A part without a name, which no form can show: Werkzeug passes over it too."""

    def write(self, data: bytes, start: int, end: int) -> None:
        pass

    def close(self) -> None:
        pass


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
        parameters = parse_parameters(self._headers.get("content-type", ""))
        charset = parameters.get("charset", "").lower()
        return self._data.decode(charset if charset in TEXT_CHARSETS else "utf-8", "replace")

    def close(self) -> None:
        self._data.clear()


class _StreamedPart(Generic[SinkT]):
    """A file part on its way into its writer."""

    def __init__(
        self, file: FilePart[SinkT], max_size: int | None, beside: Executor | None
    ) -> None:
        self._file = file
        self._max_size = file.writer.max_size
        if max_size is not None and (self._max_size is None or max_size < self._max_size):
            self._max_size = max_size
        self._beside = beside
        self._size = 0
        self._batch = bytearray()

    def write(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._max_size is not None and self._size > self._max_size:
            raise FileTooLargeError(self._max_size)
        if end - start < SMALL_PIECE and not self.awaits_head:
            self._batch += memoryview(data)[start:end]
            if len(self._batch) >= BATCH_SIZE:
                self._flush()
        else:
            self._flush()
            self._file.writer.write(memoryview(data)[start:end], self._beside)

    @property
    def awaits_head(self) -> bool:
        return self._file.writer.awaits_head

    def _flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, bytearray()
            self._file.writer.write(batch)

    def finish(self) -> FilePart[SinkT]:
        self._flush()
        if self._file.filename or self._size:  # else no file was chosen: no type to check
            self._file.writer.end_head()
        self._file.writer.finish()
        return self._file

    def close(self) -> None:
        self._file.writer.close()


def with_boundary(parameters: dict[str, str], content_type: str) -> dict[str, str]:
    """Return the parameters of a Content-Type, with the whole of a boundary that is not quoted.

    Some clients leave out the quotes that a boundary with ``/``, ``:`` or ``=`` should have. It
    still ends where the next parameter begins; Werkzeug ends it at the first such character.
    """
    match = _UNQUOTED_BOUNDARY.search(content_type)
    return parameters if match is None else {**parameters, "boundary": match[1]}


def _check_boundary(boundary: str | bytes) -> bytes:
    try:
        raw = boundary.encode("ascii") if isinstance(boundary, str) else bytes(boundary)
    except UnicodeEncodeError:
        _refuse("The multipart boundary has characters that are not ASCII.")
    if not raw:
        _refuse("The multipart Content-Type has no boundary.")
    if len(raw) > MAX_BOUNDARY_LENGTH:
        _refuse(f"The multipart boundary is longer than {MAX_BOUNDARY_LENGTH} bytes.")
    if not (raw.isascii() and raw.decode("ascii").isprintable()):
        _refuse("The multipart boundary has characters that cannot be printed.")
    return raw


def _parse_headers(block: bytes) -> Headers:
    """Parse the headers of one part, with the blank line behind them."""
    headers = Headers()
    for name, value in plain_headers(block) or checked_headers(block):
        try:
            headers.add(name.decode(), value.strip(b" \t").decode())
        except ValueError as error:
            raise BadRequest(f"A part has a malformed header: {error}") from error
    return headers


def plain_headers(block: bytes) -> list[list[bytes]] | None:
    """Return name and value of each header line, or None where it is not for sure plain."""
    if len(block) > _MOST_PLAIN or not _PLAIN_HEADERS.fullmatch(block):
        return None
    return [line.split(b": ", 1) for line in block[:-4].split(b"\r\n")]


def checked_headers(block: bytes) -> list[list[bytes]]:
    """Return name and value of each header line, where python-multipart finds no fault.

    Raises:
        BadRequest: It finds one.
    """
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser

    lines: list[list[bytes]] = []

    def add_name(data: bytes, start: int, end: int) -> None:
        lines.append([data[start:end], b""])

    def add_value(data: bytes, start: int, end: int) -> None:  # it is not called for an empty one
        lines[-1][1] = data[start:end]

    parser = MultipartParser(
        b"-",
        {"on_header_field": add_name, "on_header_value": add_value},
        max_header_count=MAX_PART_HEADER_COUNT,
        max_header_size=MAX_PART_HEADER_BYTES,
    )
    try:
        parser.write(b"---\r\n")
        parser.write(block.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" "))
    except MultipartParseError as error:
        raise BadRequest(f"The multipart body is malformed: {error}") from error
    return lines


def disposition(value: str) -> tuple[str | None, str | None]:
    """Return the name of a part, if it has one, and, when it is a file, its filename."""
    if plain := _PLAIN_DISPOSITION.fullmatch(value):
        return plain[1], plain[2]
    parameters = parse_parameters(value)
    return parameters.get("name"), parameters.get("filename")


def _refuse(why: str) -> NoReturn:
    raise BadRequest(why)
