"""The one-pass hashing writer: bytes are hashed while they are on their way to the disk."""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import nullcontext
from types import TracebackType
from typing import NamedTuple, TypeAlias

from ..exceptions import FileTooLargeError, StoreUnavailableError
from .beside import begin
from .descriptors import with_room
from .full import full_is_told, tell_full
from .posix import refuses_links
from .raw_reader import RawReader
from .spool import TemporaryFile, TemporaryFolder
from .upload_files import FILES
from .upload_memory import MEMORY, SmallContent

Bytes: TypeAlias = bytes | bytearray | memoryview

MEMORY_LIMIT = 256 * 1024
"""Bytes of one content that are kept in memory before a file is opened for it."""

_FIRST = 64  # bytes that may tell a type alone
_BESIDE = 128 * 1024  # below this, handing a write to another thread costs more than it saves


class _Head(NamedTuple):
    """What is to be done with the beginning of a content."""

    size: int
    look: Callable[[bytes], None]
    told_by_first: Callable[[bytes], bool]


class Writer:
    """One content on its way into a store.

    Small content stays in memory; larger content goes to a file that no address names.
    Whatever happens, `close` leaves nothing behind but what a store has published.

    Args:
        algorithm: A name that ``hashlib.new`` takes.
        folder: Where the file is made, once one is needed.
        dmode: Mode of the folders made for it.
        max_size: Bytes allowed, or None.
        memory_limit: Bytes kept in memory before a file is opened.
        begun: What it begins with: a file, the bytes in it and their hash, instead of nothing.

    Attributes:
        head_type: For those who judge the content by its beginning: what they found.
    """

    __slots__ = (
        *("algorithm", "closed", "head_type", "max_size", "memory_limit", "size"),
        *("_dmode", "_file", "_folder", "_hash", "_head", "_id", "_memory", "_shared"),
    )

    def __init__(
        self,
        algorithm: str,
        folder: TemporaryFolder,
        dmode: int,
        max_size: int | None = None,
        *,
        memory_limit: int = MEMORY_LIMIT,
        begun: tuple[TemporaryFile, int, hashlib._Hash] | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.max_size = max_size
        self.size = 0
        self.closed = False
        self.head_type: str | None = None
        self._head: _Head | None = None
        self._folder = folder
        self.memory_limit = memory_limit
        self._dmode = dmode
        self._hash = _new_hash(algorithm).copy()
        self._memory: bytes | bytearray | None = b""  # None: it has outgrown memory
        self._file: TemporaryFile | None = None
        self._id: str | None = None
        self._shared: SmallContent | None = None
        if begun is not None:
            self._file, self.size, self._hash = begun
            self._memory = None

    def count_as_upload(self) -> None:
        """Hold in memory, and in open files, only what there is room for beside all uploads."""
        self._shared = SmallContent(MEMORY)

    def write(self, data: Bytes, beside: Executor | None = None) -> None:
        """Take the next bytes of the content.

        Args:
            data: May be reused by the caller afterwards.
            beside: Writes a large piece to the file while this thread hashes it.

        Raises:
            FileTooLargeError: The content has more than `max_size` bytes.
            StoreFullError: The disk is full.
            StoreUnavailableError: No file can be made where content waits for a bucket.
            OSError: The disk fails.
            ValueError: The writer is closed or finished.
        """
        if self.closed or self._id is not None:
            raise ValueError("write to a content that is closed or finished")
        try:
            size = self.size + len(data)
            if self.max_size is not None and size > self.max_size:
                raise FileTooLargeError(self.max_size)
            if self._head is not None:
                self._look_at(data, self._head)
            self.size = size
            if (
                self._memory is not None
                and size <= self.memory_limit
                and (self._shared is None or self._shared.grow(len(data)))
            ):
                self._hash.update(data)
                if not self._memory and type(data) is bytes:
                    self._memory = data  # the whole content, most of the time: not copied
                else:
                    self._remember(self._memory, data)
            else:
                self._write_through(data, beside)
        except BaseException as error:
            self.close()  # hash and file may differ now: never to be published
            tell_full(error)
            raise

    def look_at_head(
        self, size: int, look: Callable[[bytes], None], told_by_first: Callable[[bytes], bool]
    ) -> None:
        """Have the beginning of the content looked at, as soon as it is there.

        Args:
            size: Bytes that the beginning has, if the content is not shorter.
            look: Called with them before more is written; what it raises, `write` raises.
            told_by_first: Called with the first few bytes; returns whether they tell as much as
                all of it, so that `look` is not called. What it raises, `write` raises.
        """
        self._head = _Head(size, look, told_by_first)

    @property
    def awaits_head(self) -> bool:
        """Whether the beginning of the content is still to be looked at."""
        return self._head is not None

    def end_head(self) -> None:
        """Have the beginning looked at now, if it has not been: there is no more content.

        Raises:
            Exception: What the look raises; the writer is closed then.
        """
        if self._head is not None:
            try:
                self._show_head(b"")
            except BaseException:
                self.close()
                raise

    def _show_head(self, more: Bytes) -> None:
        assert self._head is not None
        size, look, _ = self._head
        self._head = None
        head = self.read_head(size)
        look(head + bytes(memoryview(more)[: size - len(head)]))

    def _look_at(self, data: Bytes, head: _Head) -> None:
        if self.size == 0 and head.told_by_first(bytes(data[:_FIRST])):
            self._head = None
            return
        if self.size + len(data) >= head.size:
            self._show_head(data)

    def read_head(self, size: int) -> bytes:
        """Return the first `size` bytes of the content, or all of a shorter one."""
        memory = self._memory
        if memory is not None:
            return bytes(memoryview(memory)[:size])
        buffer = bytearray(min(size, self.size))
        with memoryview(buffer) as view:
            position = 0
            while count := self.read_into(view[position:], position):
                position += count
        return bytes(buffer[:position])

    def _remember(self, memory: bytes | bytearray, data: Bytes) -> None:
        if not isinstance(memory, bytearray):
            memory = bytearray(memory)
        memory += data
        self._memory = memory

    def _write_through(self, data: Bytes, beside: Executor | None) -> None:
        if self._file is None:
            memory, self._memory = self._memory, None
            self._file = self._spilled(memory)
            if self._shared is not None:
                self._shared.release()
        if beside is None or len(data) < _BESIDE:
            self._hash.update(data)
            self._file.write(data)
            return
        written = begin(beside, self._file.write, data)
        try:
            self._hash.update(data)
        finally:
            written()

    def finish(self) -> str:
        """End the content; it may be called again.

        Returns:
            The hash id of the content.

        Raises:
            ValueError: The writer is closed.
        """
        if self._id is None:
            if self.closed:
                raise ValueError("this content was given up")
            self._id = self._hash.hexdigest()
        return self._id

    @property
    def id(self) -> str:
        """The hash id of the finished content."""
        if self._id is None:
            raise ValueError("this content is not finished")
        return self._id

    @property
    def folder(self) -> TemporaryFolder:
        """Where this content's file is, or would be, made."""
        return self._folder

    @full_is_told
    def file(self) -> TemporaryFile:
        """Return the file that holds the finished content, made now if it is in memory.

        Raises:
            ValueError: The writer is closed.
            OSError: The file cannot be made.
        """
        return self._ready_file()

    def _ready_file(self) -> TemporaryFile:
        if self.closed:
            raise ValueError("this content was given up")
        if self._file is None:
            self._file = self._spilled(self._memory)
        elif not self._file.placed:
            self._file.touch()  # it may have been written long ago, and ages from its put on
        return self._file

    def release(self) -> None:
        """Close the file of content that is in memory, too, and can be read from there."""
        if self._file is not None and self._memory is not None:
            self._drop_file()

    @property
    def spilled(self) -> TemporaryFile | None:
        """The file, if there is one: always once the content has outgrown memory."""
        return self._file

    def getvalue(self) -> bytes | bytearray | None:
        """Return the content, not to be changed, or None where it has outgrown memory."""
        return self._memory

    @full_is_told
    def read_into(self, buffer: memoryview, position: int) -> int:
        """Read content from byte `position` on into `buffer`.

        Returns:
            How many bytes were read; none at the end.

        Raises:
            ValueError: The writer is closed.
            StoreUnavailableError: Its file has to be opened again, and there is no descriptor.
        """
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if self._memory is not None:
            piece = memoryview(self._memory)[position : position + len(buffer)]
            buffer[: len(piece)] = piece
            return len(piece)
        assert self._file is not None
        return self._file.read_into(buffer, position)

    def open_descriptor(self) -> int:
        """Return a descriptor of the finished content, read-only and the caller's to close.

        The writer's own may be that of a published file, which nobody may write to.

        Raises:
            ValueError: The writer is closed.
            OSError: The file cannot be opened once more.
        """
        if self.closed:
            raise ValueError("I/O operation on closed file")
        try:
            return with_room(self.file().reopen)
        finally:
            self.release()

    def reader(self) -> ContentReader:
        """Open the finished content to read; closing the reader leaves the writer open."""
        return ContentReader(self)

    def close(self) -> None:
        """Give up whatever of the content no address names; it may be called again."""
        if self.closed and self._file is None:
            return
        self.closed = True
        self._memory = b""
        if self._shared is not None:
            self._shared.release()
        if self._file is not None:
            self._drop_file()

    def close_at_once(self) -> bool:
        """Tell whether the writer is closed now: it is left open where closing may take a while."""
        if self._file is not None:
            if not self._file.close_at_once():
                return False
            self._file = None
        self.close()
        return True

    def _drop_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _new_file(self) -> TemporaryFile:
        if self._shared is None or self._memory is not None:
            # Of content in memory it is open for one call only (see `release`), and not counted.
            return with_room(self._folder.create, self._dmode)
        return FILES.create(functools.partial(self._folder.create, self._dmode))

    def _spilled(self, memory: bytes | bytearray | None) -> TemporaryFile:
        """Return a new file with the bytes that were in memory so far."""
        file = self._new_file()
        try:
            if memory:
                file.write(memory)
        except BaseException:
            file.close()
            raise
        return file

    @full_is_told
    def publish(
        self, path: str, mode: int | None, *, sync: bool = True, over: bool = False
    ) -> None:
        """Name the finished content `path`: by a link to its file, or a copy where that is refused.

        Args:
            path: On the device of the folder that the file was made in.
            mode: Exact, or None to leave the file private to its owner.
            sync: Whether the bytes must be on the disk before they have that name.
            over: Whether they take the place of whatever has that name now.

        Raises:
            FileExistsError: `path` exists, and this is not to replace it.
            FileNotFoundError: Its folder does not.
        """
        file = self._ready_file()
        if file.orphaned:
            file = self._copied()
        try:
            file.publish(path, mode, self._dmode, sync, over)
        except OSError as error:
            if not refuses_links(error):
                raise
            named = nullcontext() if file.placed else self._folder.named(error)
            with named:
                self._copied().publish(path, mode, self._dmode, sync, over)

    def _copied(self) -> TemporaryFile:
        """Return a copy, made now, of the file that holds the finished content.

        It takes that file's place, which then keeps only the addresses that it has.
        """
        old, new = self.file(), self._new_file()
        try:
            with memoryview(bytearray(MEMORY_LIMIT)) as buffer:
                position = 0
                while count := self.read_into(buffer, position):
                    new.write(buffer[:count])
                    position += count
        except BaseException:
            new.close()
            raise
        self._file = new
        old.close()
        return new


class _Content(RawReader):
    """The unbuffered reader of a writer's content.

    It needs no descriptor until somebody asks for one. From then on both share one position, as
    with a file.
    """

    mode = "rb"

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer.size)
        self._writer = writer
        self._fd = -1

    def read_at(self, position: int, buffer: memoryview) -> int:
        return self._writer.read_into(buffer, position)

    def tell(self) -> int:
        if self._fd >= 0:
            self._position = os.lseek(self._fd, 0, os.SEEK_CUR)
        return super().tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.tell()
        position = super().seek(offset, whence)
        self._share_position()
        return position

    def readinto(self, buffer: object) -> int:
        self.tell()
        count = super().readinto(buffer)
        self._share_position()
        return count

    def _share_position(self) -> None:
        if self._fd >= 0:
            os.lseek(self._fd, self._position, os.SEEK_SET)

    def fileno(self) -> int:
        if self._fd < 0:
            try:
                self._fd = self._writer.open_descriptor()
            except (OSError, StoreUnavailableError) as error:
                raise io.UnsupportedOperation(f"fileno: {error}") from error
            self._share_position()
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        super().close()


class ContentReader(io.BufferedReader):
    """A read-only, seekable view of a writer's finished content."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(_Content(writer), 16 * 1024)


class UploadStream(ContentReader):
    """The stream of a file that arrived already hashed; a store's ``put`` of it is a link.

    It owns its `writer`: when the stream is closed, whatever was not put is gone.
    """

    def __init__(self, writer: Writer) -> None:
        writer.finish()
        self.writer = writer
        super().__init__(writer)

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, or all that is left."""
        if self.closed or self.writer.getvalue() is None:
            return super().read(size)
        # What is in memory makes nobody wait. ``BufferedReader.read`` is what tools that watch
        # an event loop take for blocking, if the stream can have a descriptor, as this one can.
        left = self.writer.size if size is None or size < 0 else size
        pieces = []
        while left > 0 and (piece := self.read1(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the stream and its writer."""
        try:
            super().close()
        finally:
            self.writer.close()


@functools.cache
def _new_hash(algorithm: str) -> hashlib._Hash:
    return hashlib.new(algorithm, usedforsecurity=False)
