"""What ``put`` takes, and how its bytes get into a writer."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import AsyncIterable, Awaitable, Iterable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from . import posix
from .beside import LARGE, begin, second_thread
from .full import full_is_told
from .writer import Bytes, Writer

if TYPE_CHECKING:
    from werkzeug.datastructures import FileStorage


class Readable(Protocol):
    """A binary or text file object."""

    def read(self, size: int = ..., /) -> bytes | str: ...


class AsyncReadable(Protocol):
    """An asynchronous binary file object."""

    def read(self, size: int = ..., /) -> Awaitable[bytes]: ...


Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | FileStorage | Iterable[Bytes]"  # noqa: E501
"""What ``put`` takes."""

AsyncSource: TypeAlias = "AsyncIterable[bytes] | AsyncReadable"
"""What ``put`` of the Quart half takes beside."""

T = TypeVar("T")

_FIRST_READ_SIZE = 64 * 1024  # small content needs no buffer
_READ_SIZE = 256 * 1024
_LARGE_READ_SIZE = 1024 * 1024  # of content so large that a second thread writes it

_ERRNOS_NO_FILE = {  # of opening a path at which there is not a file that can be read
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENXIO,
    errno.ENODEV,
}


class ReadOnce(io.RawIOBase):
    """A stream that cannot be read again, and that something else may have read already."""

    def unread(self) -> object:
        """Return what is to be stored: this stream, or what was kept of its bytes.

        Raises:
            HashFSError: All of it has been read, and nothing was kept; or another put has taken
                some of it, so that the rest is no whole content.
        """
        raise NotImplementedError

    def mark_taken(self) -> None:
        """Note that the put which asked for what is `unread` has ended, with what it has read."""


def copy(source: object, writer: Writer) -> None:
    """Write the bytes of `source` to `writer`.

    Args:
        source: A path, bytes, a binary or text file object, or an iterable of bytes. What
            can be sought is read from its start, and its position restored.
        writer: What takes them.

    Raises:
        ValueError: A path that names no file.
        TypeError: Nothing of the kind.
    """
    whole, once = _whole(source), None
    if whole is None and isinstance(source, ReadOnce):
        once = source
        source = once.unread()
        writer.count_as_upload()
        whole = _whole(source)
    if whole is not None:
        size = len(whole)
        if size > writer.memory_limit and size <= LARGE:
            # It is in memory and stays there: nothing is written before it turns out to be new.
            writer.memory_limit = size
        if size <= writer.memory_limit:
            writer.write(whole)
            return
    pump = _Pump(writer)
    try:
        _copy(source, pump)
    finally:
        pump.close()
        if once is not None:
            once.mark_taken()
    if once is not None and not writer.size:
        once.unread()  # only now is it known that nothing was left


def _whole(source: object) -> bytes | None:
    """Return the content of what is in memory already: most of what a web app puts."""
    if type(source) is bytes:
        return source
    if type(source) is io.BytesIO:
        return source.getvalue()  # which shares its memory, and knows no position
    return None


def _copy(source: object, pump: _Pump) -> None:
    if isinstance(source, (str, os.PathLike)):
        with _open(source) as file:
            _copy_raw(file, pump)
    elif hasattr(source, "read"):
        _copy_seekable(source, pump)
    elif (data := _as_bytes(source)) is not None:
        try:
            _copy_bytes(data, pump)
        finally:
            if isinstance(data, memoryview):
                data.release()  # or the error of a failed put would keep the object locked
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        for piece in source:
            pump.write(_piece(piece))
    else:
        raise TypeError(
            "put takes a path, bytes, a readable object or an iterable of bytes, "
            f"not {type(source).__name__}"
        )


@full_is_told
def _open(path: str | os.PathLike[str]) -> io.FileIO:
    try:
        return io.FileIO(os.fspath(path), opener=partial(posix.open_regular, follow=True))
    except ValueError:  # a NUL, a lone surrogate
        pass
    except OSError as error:
        if error.errno not in _ERRNOS_NO_FILE:
            raise
    raise ValueError(f"Object must be a valid file path or a readable object: {path!r:.300}")


def _as_bytes(source: object) -> bytes | memoryview | None:
    if type(source) is bytes:
        return source
    try:
        view = memoryview(source)  # type: ignore[arg-type]
    except TypeError:
        return None
    try:
        return view.cast("B")
    except (
        TypeError,
        ValueError,
    ):  # not contiguous, empty, or of unusual items
        return view.tobytes()


def _copy_seekable(file: Any, pump: _Pump) -> None:
    """Copy a file from its start, as hashfs does, and restore its position; or from where it is."""
    position = _position(file)
    if position is None:
        _copy_file(file, pump)
        return
    file.seek(0)
    try:
        _copy_file(file, pump)
    finally:
        if not getattr(file, "closed", False):
            file.seek(position)


def _position(file: Any) -> Any:
    """Return the position of a file that can be sought, or None."""
    try:
        seekable = file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek")
        return file.tell() if seekable else None
    except (AttributeError, io.UnsupportedOperation, NotImplementedError):
        return None  # says it can, but cannot
    except OSError as error:
        if error.errno != errno.ESPIPE:  # a text file being iterated over: part of it is gone
            raise
        return None


def _copy_file(file: Any, pump: _Pump) -> None:
    if type(file) is io.BytesIO:
        _copy_bytes(file.getvalue(), pump)
    elif isinstance(file, (io.RawIOBase, io.BufferedIOBase)) and hasattr(file, "readinto"):
        _copy_raw(file, pump)
    else:
        while piece := _not_none(file.read(_READ_SIZE)):
            # text is encoded as hashfs does
            pump.write(piece.encode() if isinstance(piece, str) else _piece(piece))


def _copy_raw(file: Any, pump: _Pump) -> None:
    """Copy small content in few calls, the rest through one buffer: fresh ones cost a lot."""
    for _ in range(_READ_SIZE // _FIRST_READ_SIZE):
        piece = _not_none(file.read(_FIRST_READ_SIZE))
        if not piece:
            return
        pump.write(piece)
    with memoryview(bytearray(_READ_SIZE)) as buffer:
        while not pump.is_large:
            count = _not_none(file.readinto(buffer))
            if not count:
                return
            pump.write(buffer[:count])
    if _is_plain(file):
        pump.write_rest(file)
        return
    with memoryview(bytearray(_LARGE_READ_SIZE)) as buffer:
        while count := _not_none(file.readinto(buffer)):
            pump.write(buffer[:count])


def _is_plain(file: Any) -> bool:
    """Tell whether a file may be read by another thread than its owner's."""
    raw = file.raw if type(file) is io.BufferedReader else file
    return type(raw) is io.FileIO


def _copy_bytes(data: bytes | memoryview, pump: _Pump) -> None:
    if len(data) <= _LARGE_READ_SIZE:
        pump.write(data)
        return
    with memoryview(data) as view:
        for start in range(0, len(view), _LARGE_READ_SIZE):
            with view[start : start + _LARGE_READ_SIZE] as piece:
                pump.write(piece)


def _not_none(read: T | None) -> T:
    if read is None:
        raise BlockingIOError("the object to store is in non-blocking mode and has no bytes yet")
    return read


def _piece(piece: object) -> Bytes:
    if isinstance(piece, (bytes, bytearray)):
        return piece
    data = _as_bytes(piece)
    if data is None:
        raise TypeError(f"the object to store yields {type(piece).__name__}, but must yield bytes")
    return data


class _Pump:
    """Writes pieces; the later ones of a large content in a second thread, beside the hashing.

    `_copy_raw` leaves the rest of a large file to `pipelined_copy` instead.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._beside: Executor | None = None

    @property
    def is_large(self) -> bool:
        return self._writer.size >= LARGE

    def write(self, piece: Bytes) -> None:
        if self._beside is None and self.is_large:
            self._beside = second_thread()
        self._writer.write(piece, self._beside)

    def write_rest(self, file: Any) -> None:
        pipelined_copy(file, self._writer)

    def close(self) -> None:
        if self._beside is not None:
            self._beside.shutdown()


def pipelined_copy(file: Any, writer: Writer) -> None:
    """Write the rest of a plain file: this thread hashes, a second one writes and reads ahead.

    While this thread hashes one piece, the second one reads the next and writes this one.

    Args:
        file: Unbuffered or buffered, and read by nobody else meanwhile.
        writer: Of large content, so that every write goes to its file.
    """
    buffers = [memoryview(bytearray(_LARGE_READ_SIZE)) for _ in range(2)]
    thread = second_thread()
    try:
        count = _read_into(file, buffers[0])
        while count:
            read = begin(thread, _read_into, file, buffers[1])
            writer.write(buffers[0][:count], thread)
            count = read()
            buffers.reverse()
    finally:
        thread.shutdown()


def _read_into(file: Any, buffer: memoryview) -> int:
    count: int = _not_none(file.readinto(buffer))
    return count
