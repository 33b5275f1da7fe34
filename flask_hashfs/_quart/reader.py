"""Stored files that an app opens and reads under asyncio."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from io import TextIOBase
from types import TracebackType
from typing import IO, Any, Generic, TypeVar, cast

from aiofiles.threadpool.binary import AsyncBufferedReader
from aiofiles.threadpool.text import AsyncTextIOWrapper

from .workers import Workers, finished

SelfT = TypeVar("SelfT", bound="_Closing")


class _Closing:
    """Makes an aiofiles file an async context manager, closed even by a cancelled task."""

    async def close(self) -> None:
        """Close the file; a cancellation meanwhile is raised when it is closed."""
        await finished(cast(Any, super()).close())

    async def __aenter__(self: SelfT) -> SelfT:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class BinaryReader(_Closing, AsyncBufferedReader):
    """A stored file, open to read bytes."""


class TextReader(_Closing, AsyncTextIOWrapper):
    """A stored file, open to read text."""


ReaderT = TypeVar("ReaderT", bound=BinaryReader | TextReader)


class Opening(Generic[ReaderT]):
    """A stored file about to be opened: await it, or enter it with ``async with``."""

    def __init__(self, workers: Workers, opens: Callable[[], IO[Any]]) -> None:
        self._workers = workers
        self._opens = opens
        self._file: ReaderT | None = None

    def __await__(self) -> Generator[Any, None, ReaderT]:
        return self._open().__await__()

    async def __aenter__(self) -> ReaderT:
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

    async def _open(self) -> ReaderT:
        file = await self._workers.run(self._opens, on_lost_result=close)
        kind = TextReader if isinstance(file, TextIOBase) else BinaryReader
        return cast(ReaderT, kind(cast(Any, file), None, self._workers.executor))


def close(file: IO[Any]) -> None:
    """Close a file that nobody waits for."""
    with suppress(OSError):
        file.close()
