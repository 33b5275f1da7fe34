"""How the bytes of what is put get into a writer, with the store left out."""

from __future__ import annotations

import array
import hashlib
import io
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flask_hashfs import FileTooLargeError
from flask_hashfs._storage.beside import LARGE, begin, second_thread
from flask_hashfs._storage.sources import ReadOnce, copy, pipelined_copy
from flask_hashfs._storage.spool import TemporaryFolder
from flask_hashfs._storage.writer import MEMORY_LIMIT, Writer

PIECE = 1024 * 1024  # bytes of a large file that are read at a time
CONTENT = random.Random(5).randbytes(LARGE + 2 * PIECE + 5)


@pytest.fixture
def new_writer(tmp_path: Path) -> Iterator[Callable[..., Writer]]:
    made: list[Writer] = []

    def new_writer(limit: int | None = None) -> Writer:
        made.append(Writer("sha256", TemporaryFolder(str(tmp_path / "root")), 0o755, limit))
        return made[-1]

    yield new_writer
    for writer in made:
        writer.close()
    assert "hashfs-write" not in {thread.name[:12] for thread in threading.enumerate()}


def taken(writer: Writer) -> bytes:
    writer.finish()
    data = writer.reader().read()
    assert writer.id == hashlib.sha256(data).hexdigest()
    return data


# -- copy: whatever can be put ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "data"),
    [
        (b"bytes", b"bytes"),
        (bytearray(b"more"), b"more"),
        (memoryview(b"abcd")[::2], b"ac"),
        (array.array("H", [1, 2]), array.array("H", [1, 2]).tobytes()),
        (io.BytesIO(b"file"), b"file"),
        (io.StringIO("täxt"), "täxt".encode()),
        ([b"one", bytearray(b"two"), memoryview(b"three"), b""], b"onetwothree"),
        ([], b""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_can_be_read_is_copied(new_writer: Any, source: Any, data: bytes) -> None:
    copy(source, writer := new_writer())
    assert taken(writer) == data


@pytest.mark.parametrize("source", [None, 5, {"a": b""}, ["text"], [5], object()])
def test_anything_else_is_a_type_error(new_writer: Any, source: Any) -> None:
    with pytest.raises(TypeError):
        copy(source, new_writer())


@pytest.mark.parametrize("path", ["", "missing", "/", "/dev/null", "x\0y", "\ud800", "x" * 300])
def test_a_path_to_no_regular_file_is_a_value_error(
    new_writer: Any, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="valid file path"):
        copy(path, new_writer())


@pytest.mark.parametrize("size", [0, 5, MEMORY_LIMIT, LARGE, len(CONTENT)])
@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_file_is_copied_from_its_start_and_keeps_its_position(
    new_writer: Any, size: int, buffering: int, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(CONTENT[:size])
    with open(tmp_path / "source", "rb", buffering) as file:
        file.seek(size // 2)
        copy(file, writer := new_writer())
        assert file.tell() == size // 2
    assert taken(writer) == CONTENT[:size]


@pytest.mark.parametrize("size", [0, LARGE, len(CONTENT)])
def test_what_cannot_be_sought_is_copied_from_where_it_is(
    new_writer: Any, size: int, tmp_path: Path
) -> None:
    reader, end = os.pipe()

    def fill() -> None:
        with open(end, "wb") as file:
            file.write(b"before" + CONTENT[:size])

    with ThreadPoolExecutor(1) as thread, open(reader, "rb", buffering=0) as file:
        filling = thread.submit(fill)
        assert file.read(6) == b"before"
        copy(file, writer := new_writer())
        filling.result()
    assert taken(writer) == CONTENT[:size]


class Rest(ReadOnce):
    """A stream whose bytes something else has read, or not."""

    def __init__(self, data: bytes, kept: bytes | None = None) -> None:
        self._stream = io.BytesIO(data)
        self._kept = kept

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)

    def unread(self) -> object:
        if self._kept is None and self._stream.tell():
            raise ValueError("read already")
        return self if self._kept is None else self._kept


def test_of_a_stream_that_was_read_what_was_kept_is_copied(new_writer: Any) -> None:
    copy(Rest(b"", kept=b"kept"), writer := new_writer())
    assert taken(writer) == b"kept"


def test_a_stream_that_was_read_and_not_kept_is_refused(new_writer: Any) -> None:
    stream = Rest(b"all")
    stream.read()
    with pytest.raises(ValueError, match="read already"):
        copy(stream, new_writer())


# -- the second thread -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, len(CONTENT)])
@pytest.mark.parametrize("begun", [0, 7])
def test_the_rest_of_a_file_is_copied_in_two_threads(
    new_writer: Any, size: int, begun: int, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(CONTENT[:size])
    writer = new_writer()
    writer.write(b"x" * begun)
    with open(tmp_path / "source", "rb") as file:
        pipelined_copy(file, writer)
    assert taken(writer) == b"x" * begun + CONTENT[:size]


def test_a_limit_ends_it_and_the_writer(new_writer: Any, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    writer = new_writer(2 * PIECE)
    with open(tmp_path / "source", "rb") as file, pytest.raises(FileTooLargeError):
        pipelined_copy(file, writer)
    assert writer.closed


class Breaks(io.RawIOBase):
    """A file of which the third piece cannot be read."""

    def __init__(self, broken: Exception | None) -> None:
        self._broken = broken
        self._pieces = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._pieces += 1
        if self._pieces < 3:
            return len(buffer)
        if self._broken is not None:
            raise self._broken
        return None


@pytest.mark.parametrize(
    ("broken", "error"), [(OSError("the disk is dead"), OSError), (None, BlockingIOError)]
)
def test_a_file_that_breaks_in_the_other_thread_is_told(
    new_writer: Any, broken: Exception | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        pipelined_copy(Breaks(broken), new_writer())


def test_a_call_is_made_in_the_thread_or_by_who_waits_once_no_thread_starts() -> None:
    with second_thread() as thread:
        assert begin(thread, threading.get_ident)() != threading.get_ident()
    assert begin(thread, threading.get_ident)() == threading.get_ident()


def test_the_error_of_a_call_is_raised_to_who_waits() -> None:
    with second_thread() as thread, pytest.raises(ZeroDivisionError):
        begin(thread, divmod, 1, 0)()
