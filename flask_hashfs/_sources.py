"""What ``put`` takes, and how its bytes get into a writer."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ._writer import Bytes, Writer

_CHUNK = 256 * 1024
_LARGE = 4 * 1024 * 1024  # from here on a second thread pays for itself
_LARGE_CHUNK = 1024 * 1024


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
    if isinstance(source, (str, os.PathLike)):
        with _open(source) as file:
            _copy_raw(file, writer)
    elif hasattr(source, "read"):
        with _from_start(source):
            _copy_file(source, writer)
    elif (data := _as_bytes(source)) is not None:
        with data:
            _copy_pieces(_slices(data), writer, len(data))
    elif isinstance(source, Iterable):
        for piece in source:
            writer.write(_piece(piece))
    else:
        raise TypeError(
            "put takes a path, bytes, a readable object or an iterable of bytes, "
            f"not {type(source).__name__}"
        )


def _open(path: str | os.PathLike[str]) -> io.FileIO:
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        is_file = False
    except (NotADirectoryError, ValueError):  # a path through a file; one with a NUL
        is_file = False
    if not is_file:
        raise ValueError(f"Object must be a valid file path or a readable object: {path!r}")
    return io.FileIO(os.fspath(path))


def _as_bytes(source: object) -> memoryview | None:
    try:
        view = memoryview(source)  # type: ignore[arg-type]
    except TypeError:
        return None
    return (view if view.c_contiguous else memoryview(view.tobytes())).cast("B")


@contextmanager
def _from_start(file: Any) -> Iterator[None]:
    """Read a seekable file from its start, as hashfs does, and restore its position."""
    try:
        seekable = file.seekable() if hasattr(file, "seekable") else hasattr(file, "seek")
        position = file.tell() if seekable else None
    except (OSError, AttributeError):  # says it can, but cannot
        position = None
    if position is None:
        yield
        return
    file.seek(0)
    try:
        yield
    finally:
        if not getattr(file, "closed", False):
            file.seek(position)


def _copy_file(file: Any, writer: Writer) -> None:
    if type(file) is io.BytesIO:
        with file.getbuffer() as data:
            _copy_pieces(_slices(data), writer, len(data))
    elif isinstance(file, (io.RawIOBase, io.BufferedIOBase)) and hasattr(file, "readinto"):
        _copy_raw(file, writer)
    else:
        while piece := file.read(_CHUNK):
            # text is encoded as hashfs does
            writer.write(piece.encode() if isinstance(piece, str) else _piece(piece))


def _copy_raw(file: Any, writer: Writer) -> None:
    """Copy through one buffer that is used again: fresh ones cost more than the hash."""
    with memoryview(bytearray(_CHUNK)) as buffer:
        while count := _read_into(file, buffer):
            writer.write(buffer[:count])
            if writer.size >= _LARGE:
                break
        else:
            return
    with memoryview(bytearray(_LARGE_CHUNK)) as buffer, _second_thread() as beside:
        while count := _read_into(file, buffer):
            writer.write(buffer[:count], beside)


def _read_into(file: Any, buffer: memoryview) -> int:
    count: int | None = file.readinto(buffer)
    if count is None:
        raise BlockingIOError("the object to store is in non-blocking mode and has no bytes yet")
    return count


def _copy_pieces(pieces: Iterable[memoryview], writer: Writer, size: int) -> None:
    if size < _LARGE:
        for piece in pieces:
            writer.write(piece)
    else:
        with _second_thread() as beside:
            for piece in pieces:
                writer.write(piece, beside)


def _slices(data: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(data), _LARGE_CHUNK):
        yield data[start : start + _LARGE_CHUNK]


def _second_thread() -> Executor:
    return ThreadPoolExecutor(1, thread_name_prefix="hashfs-write")


def _piece(piece: object) -> Bytes:
    if isinstance(piece, (bytes, bytearray)):
        return piece
    data = _as_bytes(piece)
    if data is None:
        raise TypeError(f"the object to store yields {type(piece).__name__}, but must yield bytes")
    return data
