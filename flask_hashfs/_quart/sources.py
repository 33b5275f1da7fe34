"""What an asynchronous ``put`` takes besides what the sync one does, in large pieces."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, closing
from typing import Any

from .._http.sniffing import HEAD_SIZE
from .._storage.upload_memory import MEMORY
from .._storage.writer import UploadStream
from .batch import BATCH, Batch
from .body import UploadBody
from .forms import UploadedFile


def is_async(source: object) -> bool:
    """Tell whether `source` has to be awaited for its bytes."""
    if isinstance(source, UploadBody):
        return True
    if type(source) is UploadedFile and type(source.stream) is UploadStream:
        return False  # as most are, and the questions below take long
    return _reads(source) or isinstance(source, AsyncIterable)


@asynccontextmanager
async def opened(source: Any) -> AsyncIterator[Gathered]:
    """Give the bytes of `source` in batches.

    Args:
        source: An object with an async ``read``, or an async iterable; no `UploadBody`, which
            gives batches itself. What can be sought is read from its start, and its position
            restored.
    """
    if _reads(source):
        async with aclosing(_read(source)) as pieces:
            with closing(Gathered(pieces)) as gathered:
                yield gathered
    else:
        with closing(Gathered(aiter(source))) as gathered:
            yield gathered


class Gathered:
    """Pieces of any size, gathered, and counted among what all uploads hold in memory."""

    def __init__(self, pieces: AsyncIterator[Any]) -> None:
        self._pieces = pieces
        self._unread = Batch()
        self._share = MEMORY.enter_beside()
        self.ended = False

    async def next_batch(self, promptly: bool) -> int:
        """Wait until there is enough to `take`, and return how much: nothing at the end.

        Args:
            promptly: Whether the beginning of a content is enough.

        Raises:
            TypeError: The pieces are not bytes.
        """
        least = HEAD_SIZE if promptly else BATCH
        self._share.hold(self._unread.size)  # what was taken is written
        while not self.ended and self._unread.size < min(least, MEMORY.limit_beside):
            try:
                self._unread.append(_bytes(await anext(self._pieces)))
            except StopAsyncIteration:
                self.ended = True
            self._share.hold(self._unread.size)
        return self._unread.size

    def take(self) -> Batch:
        """Return what has come, which counts until more is asked for."""
        batch, self._unread = self._unread, Batch()
        return batch

    def close(self) -> None:
        """Count what it holds no more."""
        self._share.leave()


def _reads(source: object) -> bool:
    return inspect.iscoroutinefunction(getattr(source, "read", None))


async def _read(file: Any) -> AsyncGenerator[Any, None]:
    async with _from_start(file):
        if not _takes_size(file.read):
            yield await file.read()
            return
        while piece := await file.read(min(BATCH, MEMORY.limit_beside)):
            yield piece


def _takes_size(read: Callable[..., Any]) -> bool:
    """Tell whether `read` reads in pieces; the response of an HTTP client may not."""
    try:
        inspect.signature(read).bind(BATCH)
    except TypeError:
        return False
    except ValueError:  # written in C, and silent on it
        pass
    return True


@asynccontextmanager
async def _from_start(file: Any) -> AsyncIterator[None]:
    """Read a seekable file from its start, as the sync half does, and restore its position."""
    try:
        seekable = hasattr(file, "seekable") and await _awaited(file.seekable())
        position = await _awaited(file.tell()) if seekable else None
    except (OSError, AttributeError):  # says it can, but cannot
        position = None
    if position is None:
        yield
        return
    await _awaited(file.seek(0))
    try:
        yield
    finally:
        await _awaited(file.seek(position))


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _bytes(piece: object) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode()  # as hashfs does with a text file
    try:
        return bytes(memoryview(piece))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"the object to store yields {type(piece).__name__}, but must yield bytes"
        ) from None
