"""What an asynchronous ``put`` takes besides what the sync one does, in pieces worth a hop."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from ._quart_body import BATCH, Batch, UploadBody


def is_async(source: object) -> bool:
    """Tell whether `source` has to be awaited for its bytes."""
    return _reads(source) or isinstance(source, AsyncIterable)


async def batches(source: Any) -> AsyncIterator[tuple[Batch, bool]]:
    """Yield the bytes of `source`, `BATCH` or more at a time, and whether they are the last.

    Args:
        source: A request's body, an object with an async ``read``, or an async iterable of
            bytes. What can be sought is read from its start, and its position restored.

    Raises:
        TypeError: It yields something else than bytes.
    """
    if isinstance(source, UploadBody):
        with source.reading():
            while True:
                batch = await source.batch()
                yield batch, source.at_end
                if not batch:
                    return
    gathered = Batch()
    async for piece in _read(source) if _reads(source) else source:
        gathered.append(_bytes(piece))
        if len(gathered) >= BATCH:
            yield gathered, False
            gathered = Batch()
    yield gathered, True


def _reads(source: object) -> bool:
    return inspect.iscoroutinefunction(getattr(source, "read", None))


async def _read(file: Any) -> AsyncIterator[Any]:
    async with _from_start(file):
        if not _takes_size(file.read):
            yield await file.read()
            return
        while piece := await file.read(BATCH):
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
