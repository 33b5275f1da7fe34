"""Quart's request body, made to push back.

Stock Quart takes from the server whatever the client sends, read or not. Here the connection stops
asking for more while `HIGH_WATER` bytes lie unread: the client's own TCP window fills up, and the
memory of a request is bounded whatever the view does.
"""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from quart.wrappers import Body
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from ..exceptions import IncompleteUploadError

HIGH_WATER = 576 * 1024  # a form with a file of 1 MiB makes two batches
BATCH = 512 * 1024  # the more in one hop, the less often its thread waits for the GIL

_TINY = 4 * 1024


class Batch:
    """Bytes on their way to another thread, as they have come: it is there that they are joined.

    Joined they are hashed and written by one call each, and after each call the thread has to get
    the GIL back from a busy event loop.
    """

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self._size = 0

    def append(self, data: bytes) -> None:
        """Add a piece."""
        self._size += len(data)
        last = self._pieces[-1] if self._pieces else b""
        if len(data) >= _TINY or len(last) >= _TINY or not last:
            self._pieces.append(data)
        elif isinstance(last, bytearray):  # many tiny pieces would need many times their memory
            last += data
        else:
            self._pieces[-1] = bytearray(last) + data

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        data = _join(self._pieces)
        self._pieces = [data]
        return data


class Owner(Protocol):
    """What a body asks of its request."""

    @property
    def max_content_length(self) -> int | None:
        """Bytes allowed now, or None."""

    def patience(self, *, always: bool) -> float | None:
        """Return the seconds of silence allowed to who waits for the body now."""


class UploadBody(Body):
    """A request body that keeps little unread and never passes a broken one off as whole.

    It is read like Quart's own, ``async for data in body`` or ``await body``; `batch` besides hands
    out pieces worth a thread hop. Limit and completeness are judged when somebody reads, so that a
    limit set by the view counts for what has arrived already.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(None, None)
        self._unread = Batch()
        self._ready = asyncio.Event()
        self._wanted: list[float] = []
        self._most = math.inf
        self._last = 0.0
        self._expected = expected_content_length
        self._default_limit = max_content_length
        self._owner: weakref.ref[Owner] | None = None
        self._received = 0
        self._begun = False
        self._broken: str | None = None
        self._room = asyncio.Event()
        self._readers = 0
        self._lifted = 0
        self._abandoned = False

    def bind(self, owner: Owner) -> None:
        """Take the limit and the timeout from `owner` (weakly: it owns this body)."""
        self._owner = weakref.ref(owner)

    # What the view does.

    def __aiter__(self) -> UploadBody:
        return self

    async def __anext__(self) -> bytes:
        await self._arrival(lambda: 1, self._patience())
        if not self._unread:
            raise StopAsyncIteration
        return bytes(self.take())

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._whole().__await__()

    async def batch(self) -> int:
        """Wait until there is enough to `take`, and return how much: nothing at the end.

        Raises:
            RequestTimeout: The client was silent for longer than the request's ``body_timeout``.
        """
        await self._arrival(self._worth_a_hop, self._patience(always=True))
        return len(self._unread)

    def _worth_a_hop(self) -> float:
        """Return how many bytes make a batch: all that is left, or an even share of it."""
        if self._expected is None or self._received > self._expected:
            return BATCH
        left = self._expected - self._received + len(self._unread)
        return math.ceil(left / math.ceil(left / HIGH_WATER)) if left > HIGH_WATER else math.inf

    def take(self) -> Batch:
        """Return what has arrived, which makes room for more."""
        batch = self._unread
        self.clear()
        return batch

    @property
    def is_begun(self) -> bool:
        """Whether somebody has taken some of it away."""
        return self._begun

    @property
    def ended(self) -> bool:
        """Whether everything has arrived, if not been taken."""
        return self._complete.is_set() and self._broken is None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say that this body will be read on, though perhaps not at this very moment."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    def clear(self) -> None:
        self._begun = self._begun or bool(self._unread)
        self._unread = Batch()
        self._room.set()

    # What the connection does.

    def append(self, data: bytes) -> None:
        self._received += len(data)
        self._last = time.monotonic()
        if data and self._abandoned:
            self._broken = "The request's body was not read before the response was sent."
        elif data:
            self._unread.append(data)
        # Readers are woken when there is something to do, and not for every packet.
        is_enough = len(self._unread) >= min(self._wanted, default=math.inf)
        is_more_than_said = self._expected is not None and self._received > self._expected
        if is_enough or is_more_than_said or self._received > self._most:
            self._ready.set()

    async def put(self, data: bytes) -> None:
        """Take what has arrived, as Quart calls it since 0.23."""
        self.append(data)

    def disconnect(self) -> None:
        """Take notice that the client is gone, as Quart calls it since 0.23."""
        self.set_broken()

    def set_result(self, data: bytes) -> None:
        self.append(data)
        self.set_complete()

    def set_complete(self) -> None:
        if self._expected is not None and self._received < self._expected:
            self.set_broken()
        self._end()

    def set_broken(self) -> bool:
        """Note that no more bytes will come; return whether more had to."""
        if self._complete.is_set():
            return False
        if self._broken is None:
            wanted = "" if self._expected is None else f" of {self._expected}"
            self._broken = f"The request's body ended after {self._received}{wanted} bytes."
        self._end()
        return True

    def _end(self) -> None:
        super().set_complete()
        self._ready.set()
        self._room.set()

    def abandon(self) -> bool:
        """Drop what is yet to come, as the answer does not depend on it; return whether any is."""
        if self._complete.is_set():
            return False
        self._abandoned = True
        self._room.set()
        return True

    async def drain(self, silence: float) -> None:
        """Wait until all that is dropped has arrived, or `silence` seconds brought none of it."""
        self._most = math.inf
        if not self._complete.is_set():
            with suppress(RequestTimeout):
                await self._end_or(math.inf, silence)

    @property
    def full(self) -> bool:
        """Whether the connection has to wait before it receives more."""
        if len(self._unread) < HIGH_WATER or self._received == self._expected:
            return False
        return not (self._lifted or self._abandoned or self._complete.is_set())

    async def room(self) -> None:
        """Wait until there is room for another message."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    @property
    def broken(self) -> bool:
        """Whether the body ended before it was complete."""
        return self._broken is not None

    @property
    def is_read(self) -> bool:
        """Whether somebody is reading, and so will be told how the body ended."""
        return self._readers > 0

    async def _whole(self) -> bytes:
        self._lifted += 1
        self._room.set()
        try:
            await self._arrival(lambda: math.inf, self._patience())
        finally:
            self._lifted -= 1
        return bytes(self._unread)

    async def _arrival(self, count: Callable[[], float], patience: float | None) -> None:
        """Wait until so many bytes are here, or all that will ever be."""
        with self.reading():
            self._check()
            while len(self._unread) < (wanted := count()) and not self._complete.is_set():
                limit = self._limit()
                self._most = math.inf if limit is None else limit
                await self._end_or(wanted, patience)
                self._check()

    async def _end_or(self, count: float, patience: float | None) -> None:
        """Wait until `count` bytes are here, or the end, or more than the limit."""
        begun = time.monotonic()
        self._wanted.append(count)
        self._ready.clear()
        try:
            if patience is None:
                await self._ready.wait()
                return
            while not await self._is_ready(until := max(begun, self._last) + patience):
                if max(begun, self._last) + patience <= until:
                    raise RequestTimeout
        finally:
            self._wanted.remove(count)

    async def _is_ready(self, until: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(until - time.monotonic()):
                return await self._ready.wait()
        return False

    def _check(self) -> None:
        if self._must_raise is not None:
            raise self._must_raise
        limit = self._limit()
        if limit is not None and max(self._received, self._expected or 0) > limit:
            raise RequestEntityTooLarge
        if self._broken is not None:
            raise IncompleteUploadError(self._broken)

    def _limit(self) -> int | None:
        owner = self._owner and self._owner()
        limit = owner.max_content_length if owner else None
        return self._default_limit if limit is None else limit

    def _patience(self, *, always: bool = False) -> float | None:
        owner = self._owner and self._owner()
        return owner.patience(always=always) if owner else None


def _join(pieces: list[bytes | bytearray]) -> bytes:
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
