"""Stored files read under asyncio: an open one for the app, and the body of a response."""

from __future__ import annotations

import os
import threading
from asyncio import sleep
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import Executor
from contextlib import suppress
from io import TextIOBase
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from aiofiles.threadpool.binary import AsyncBufferedReader, AsyncFileIO
from aiofiles.threadpool.text import AsyncTextIOWrapper
from quart.wrappers.response import ResponseBody

from .._local.page_cache import read_cached
from .workers import Hops, finished

if TYPE_CHECKING:
    from .._http.plan import Plan

CHUNK = 512 * 1024  # of larger ones the allocator gives the memory back, and faults it in again
_CACHED_CHUNK = 120 * 1024  # from 128 KiB on glibc would map each anew, and faults cost more

SelfT = TypeVar("SelfT", bound="_Closing")


class _Closing:
    """Makes an aiofiles file an async context manager of its own."""

    async def __aenter__(self: SelfT) -> SelfT:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await cast(Any, self).close()


class BinaryReader(_Closing, AsyncBufferedReader):
    """A stored file, open to read bytes."""


class TextReader(_Closing, AsyncTextIOWrapper):
    """A stored file, open to read text."""


class Opening:
    """A stored file about to be opened: await it, or enter it with ``async with``."""

    def __init__(self, hops: Hops, opens: Callable[[], IO[Any]]) -> None:
        self._hops = hops
        self._opens = opens
        self._file: BinaryReader | TextReader | None = None

    def __await__(self) -> Generator[Any, None, BinaryReader | TextReader]:
        return self._open().__await__()

    async def __aenter__(self) -> BinaryReader | TextReader:
        self._file = await self
        return self._file

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            await self._file.close()

    async def _open(self) -> BinaryReader | TextReader:
        file = await self._hops.run(self._opens, undo=close)
        kind = TextReader if isinstance(file, TextIOBase) else BinaryReader
        return kind(cast(Any, file), None, self._hops.executor)


class _InTurn:
    """A file whose close waits for the read that another thread is in.

    So a cancelled task need not wait for its read: it is the close that is waited for.
    """

    def __init__(self, file: BinaryIO, reads_cached: bool) -> None:
        self._file = file
        self._reads_cached = reads_cached
        self._turn = threading.Lock()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def seek(self, position: int) -> int:
        with self._turn:
            return self._file.seek(position)

    def read(self, size: int) -> bytes:
        with self._turn:
            return self._file.read(size)

    def read_cached(self, start: int, size: int) -> bytes | None:
        """Return bytes that are in memory, or None rather than wait."""
        if not self._reads_cached or not self._turn.acquire(blocking=False):
            return None
        try:
            return read_cached(self._file.fileno(), start, size)
        finally:
            self._turn.release()

    def close_at_once(self) -> bool:
        """Close the file if that takes no waiting; tell whether it did."""
        if not self._reads_cached or not self._turn.acquire(blocking=False):
            return False
        try:
            if os.fstat(self._file.fileno()).st_nlink == 0:  # the close frees the disk
                return False
            self._file.close()
            return True
        finally:
            self._turn.release()

    def close(self) -> None:
        with self._turn:
            self._file.close()

    def drop(self) -> None:
        """Close the file, unless it is being read: then the last to hold it does."""
        if self._turn.acquire(blocking=False):
            try:
                close(self._file)
            finally:
                self._turn.release()


class StoredBody(ResponseBody):
    """The bytes of a plan, read from an open file; what has been read of it goes first.

    Args:
        plan: What to send.
        file: Unbuffered; closed with the body.
        first: The beginning of the plan's first range, and all the file has been read of.
        executor: Where it is read.
        path: Of the whole file, where the body is that and nothing else.
        reads_cached: Whether what is in memory can be read at once, without `executor`.
    """

    def __init__(
        self,
        plan: Plan,
        file: BinaryIO,
        first: bytes,
        executor: Executor,
        path: str | None,
        reads_cached: bool,
    ) -> None:
        self.path = path
        self._parts = plan.body
        self._first = first
        self._file = _InTurn(file, reads_cached)
        self._reader: Any = AsyncFileIO(cast(Any, self._file), None, executor)

    async def __aenter__(self) -> StoredBody:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._file.closed and not self._file.close_at_once():
            await finished(self._reader.close())

    def __del__(self) -> None:
        self._file.drop()  # of a response that was never sent

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reader = self._reader
        first, self._first = self._first, b""
        position = -1
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
                continue
            start = part.start
            if first:
                yield first
                position = start = start + len(first)
                first = b""
            while start < part.stop:
                left = part.stop - start
                piece = self._file.read_cached(start, min(left, _CACHED_CHUNK))
                if piece is not None:
                    await sleep(0)  # others have their turn, even if sending never waits
                else:
                    if start != position:
                        self._file.seek(start)
                    piece = await reader.read(min(left, CHUNK))
                    position = start + len(piece)
                if not piece:
                    raise OSError("a stored file is shorter than when it was opened")
                yield piece
                start += len(piece)


def close(file: IO[Any]) -> None:
    """Close a file that nobody waits for."""
    with suppress(OSError):
        file.close()
