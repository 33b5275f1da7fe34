"""Quart's request body, made to push back.

Stock Quart takes from the server whatever the client sends, read or not. Here the connection asks
for more only while there is `room`: when its share of the memory of all uploads is used up
(`_storage/upload_memory.py`) it stops, the client's own TCP window fills up, and the memory of a
request is bounded whatever the view does. What a reader has taken counts until it comes back for
more, since it is on its way to the disk until then.

Two sides use a body. The connection calls `append`, `set_complete`, `set_broken`, `abandon`; the
view reads, in one of four ways: ``async for``, ``await`` (for which the mark is lifted, as
the whole body is wanted in memory), `batch` (pieces worth a call in a worker thread) and
`prompt_batch` (pieces that do not wait for company).

What becomes of the bytes is one of five states, and nothing else but these events moves it::

    state        append    abandon        lose     set_complete    set_broken
    KEPT         KEPT      UNWANTED [3]   LOST     ENDED [1]       BROKEN
    UNWANTED     LOST [2]  UNWANTED [3]   LOST     ENDED [1]       BROKEN
    LOST         LOST      LOST           LOST     LOST            LOST
    ENDED        -         ENDED [3]      ENDED    ENDED           ENDED
    BROKEN       -         BROKEN [3]     BROKEN   BROKEN          BROKEN

    [1] BROKEN, if fewer bytes came than Content-Length promises.
    [2] UNWANTED, if there is nothing in it.
    [3] LOST, if it holds more than 64 KiB, and nobody has begun to read it.

A body is judged when somebody reads it, and not when its bytes arrive, so that a limit that the
view sets counts for what has arrived before. A view that is reading when the body breaks off gets
`IncompleteUploadError`, instead of being cancelled as in stock Quart: the client may still be
connected and waiting for its 400, for perhaps only its chunked encoding was invalid.

Once the response no longer depends on the body (UNWANTED), the rest is received and dropped, since
many clients read a response only when they have sent everything. What lies unread by then is
dropped as well, as the response, or the client, may take long.
"""

from __future__ import annotations

import asyncio
import enum
import math
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Protocol

from quart.wrappers import Body
from werkzeug.exceptions import HTTPException, RequestTimeout

from .._http.body_rules import BodyRules, BodyState, read_already
from .._http.sniffing import HEAD_SIZE
from .._storage.upload_memory import BASE, MEMORY, SMALL_UPLOAD, Share
from ..exceptions import IncompleteUploadError
from .batch import BATCH, Batch

_ONE_BATCH = SMALL_UPLOAD + BASE  # a form with such a file: it makes one batch, not two

COMPANY = 0.1
"""Seconds that a prompt batch waits for more bytes after its first."""

_NOT_READ = "The request's body was not read before the response was sent."


class Arrival(enum.Enum):
    """What becomes of the bytes that arrive."""

    KEPT = "they are kept for a reader"
    UNWANTED = "the response does not depend on them, and they would be dropped"
    LOST = "some have been dropped"
    ENDED = "the server has announced the end"
    BROKEN = "the client is gone, or its encoding cannot be read"


class Owner(Protocol):
    """What a body asks of its request."""

    @property
    def max_content_length(self) -> int | None:
        """Bytes allowed now, or None."""

    def patience(self, *, always: bool) -> float | None:
        """Return the seconds of silence that a reader of the body has to bear now."""


class UploadBody(Body):
    """A request body that keeps little unread and never passes a broken one off as whole."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(None, None)
        self._state = Arrival.KEPT
        self._expected = expected_content_length
        self._default_limit = max_content_length
        self._is_unlimited = False
        self._owner: weakref.ref[Owner] | None = None
        # What has arrived.
        self._received = 0
        self._unread = Batch()
        self._unread_since = 0.0
        self._last_arrival = 0.0
        self._loss: Exception | None = None
        self._told: weakref.ref[HTTPException] | None = None
        self._taken = 0  # bytes that a reader works on
        self._taken_since = 0.0  # when the first of those taken last had arrived
        self._share: Share | None = None
        self._is_near = False  # whether a worker is about to take what has arrived
        self._room = asyncio.Event()
        # Who reads.
        self._readers = 0
        self._readers_of_all = 0
        self._is_begun = False
        self._is_read_through = False  # whether the view has seen its end
        self._is_cached = False  # whether the view has had it as a whole, and may ask again
        self._is_taken = False  # whether bytes of it went into a content or a form
        self._is_being_taken = False
        self._count_awaited = math.inf  # the least that a reader waits for, or less
        self._limit_awaited = math.inf
        self._ready = asyncio.Event()

    def bind(self, owner: Owner) -> None:
        """Take the limit and the timeout from `owner` (weakly: it owns this body)."""
        self._owner = weakref.ref(owner)

    # What the view does.

    def __aiter__(self) -> UploadBody:
        return self

    async def __anext__(self) -> bytes:
        await self._arrival(lambda: 1, self._patience())
        if not self._unread.size:
            self._is_read_through = True
            raise StopAsyncIteration
        block = self._unread.take_block()  # all of it, joined, would be held twice for a moment
        self._is_begun = True
        self._count()
        self._leave_at_end()
        self._room.set()
        return block

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._whole().__await__()

    async def next_batch(self, promptly: bool) -> int:
        """Do as `batch`, or as `prompt_batch` where the beginning of a content is enough."""
        return await (self.prompt_batch(HEAD_SIZE) if promptly else self.batch())

    async def batch(self) -> int:
        """Wait until there is enough to `take`, and return how much: nothing at the end.

        Raises:
            IncompleteUploadError: The body ended before it was complete.
            RequestEntityTooLarge: It is, or will be, larger than the limit.
            RequestTimeout: The client was silent for longer than the request's ``body_timeout``.
        """
        await self._arrival(self._even_batch, self._patience(always=True))
        return self._unread.size

    async def prompt_batch(self, size: int) -> int:
        """Wait until `size` bytes are there, or the first of them for 0.1 s; return how many.

        A body that breaks off gives what has arrived, and raises its error when that is taken.

        Args:
            size: Bytes that are worth a call. Where the body may keep less, it waits for less.

        Raises:
            IncompleteUploadError: As `batch`, and the others too.
        """
        await self._arrival(lambda: 1, self._patience(always=True), spares_rest=True)
        if self._unread.size and not self._complete.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._unread_since + COMPANY - time.monotonic()):
                    await self._arrival(lambda: size, None, spares_rest=True)
        return self._unread.size

    def take(self) -> Batch:
        """Return what has arrived, which makes room for more."""
        batch = self._unread
        self._taken += batch.size
        self._taken_since = self._unread_since
        self._is_taken = self._is_taken or bool(batch.size)
        self.clear()
        return batch

    def gather(self) -> None:
        """Let a large batch come until `take`, as a worker is about to have it."""
        self._is_near = True
        self._room.set()

    def give_back(self, batch: Batch) -> None:
        """Take back what `take` has returned, as nobody has read it: it comes first again."""
        self._taken -= batch.size
        self._unread_since = self._taken_since
        batch.extend(self._unread)
        self._unread = batch
        self._count()

    def clear(self) -> None:
        self._is_begun = self._is_begun or bool(self._unread.size)
        self._is_read_through = self._complete.is_set()
        self._unread = Batch()
        self._is_near = False
        self._count()
        self._leave_at_end()
        self._room.set()

    def lift_limit(self) -> None:
        """Take as many bytes as come, whatever ``MAX_CONTENT_LENGTH`` says."""
        self._is_unlimited = True

    def interrupt(self, error: Exception) -> None:
        """Make whoever waits for the body, now or later, raise `error`."""
        self._must_raise = error
        self._ready.set()

    async def check_unread(self) -> None:
        """Raise an error where the view has read everything already.

        Raises:
            IncompleteUploadError: There were bytes, and none is left.
        """
        if self._is_begun and not await self.prompt_batch(1):
            raise self._tells(read_already())

    def is_untouched(self) -> bool:
        """Tell whether a form can be read from it, rather than that the view has read all of it.

        Raises:
            IncompleteUploadError: The view has begun to read it, and not come to its end.
        """
        if self._is_begun and not self._is_read_through:
            raise self._tells(read_already())
        return not self._is_begun

    def taking(self) -> AbstractContextManager[None]:
        """Say that this body is read for one content, or one form, and for no other.

        Raises:
            IncompleteUploadError: Another takes it, or has taken bytes of it.
        """
        return _Within(self._begin_taking, self._end_taking)

    def _begin_taking(self) -> None:
        if self._is_taken or self._is_being_taken:
            try:
                self._check(spares_rest=False)  # what is wrong with the body itself comes first
                raise read_already()
            except HTTPException as error:
                self._tells(error)
                raise
        self._is_being_taken = True
        self._begin_reading()

    def _end_taking(self) -> None:
        self._is_being_taken = False
        self._end_reading()

    @property
    def ended(self) -> bool:
        """Whether everything has arrived, if not been taken."""
        return self._state is Arrival.ENDED

    def reading(self) -> AbstractContextManager[None]:
        """Say that this body will be read on, though perhaps not at this very moment."""
        return _Within(self._begin_reading, self._end_reading)

    def _begin_reading(self) -> None:
        self._readers += 1
        self._room.set()

    def _end_reading(self) -> None:
        self._readers -= 1
        if not self._readers:
            self._is_near = False
            if self._taken:
                self._free_taken()
        self._leave_at_end()

    def _free_taken(self) -> None:
        """Note that whoever took bytes has done with them."""
        self._taken = 0
        self._count()
        self._room.set()

    # What it keeps, counted among all uploads.

    def _count(self) -> None:
        if self._share is not None:
            self._share.hold(self._unread.size + self._taken)

    def _enter(self) -> Share:
        return MEMORY.enter(partial(_write_sooner, _running_loop(), weakref.ref(self)))

    def _leave_at_end(self) -> None:
        if not (self._unread.size or self._readers) and self._complete.is_set():
            self.leave()

    def leave(self) -> None:
        """Count this body no more among those of uploads: its request is over."""
        if self._share is not None:
            self._share.leave()

    # What the connection does.

    def append(self, data: bytes) -> None:
        self._received += len(data)
        self._last_arrival = time.monotonic()
        if self._state is Arrival.KEPT:
            if data and not self._unread.size:
                self._unread_since = self._last_arrival
            self._unread.append(data)
            if data and self._share is None:
                self._share = self._enter()
            self._count()
        elif data and self._state is not Arrival.LOST:
            self._drop(IncompleteUploadError(_NOT_READ))
        # Readers are woken when there is something to do, and not for every packet.
        is_more_than_said = self._expected is not None and self._received > self._expected
        is_enough = self._unread.size >= self._count_awaited
        if is_enough or is_more_than_said or self._received > self._limit_awaited:
            self._count_awaited = math.inf
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
        short = BodyRules(self._expected).state(self._received, ended=True) is BodyState.INCOMPLETE
        self._end(Arrival.BROKEN if short else Arrival.ENDED)

    def set_broken(self) -> bool:
        """Note that no more bytes will come; return whether more had to."""
        return self._end(Arrival.BROKEN)

    def _end(self, state: Arrival) -> bool:
        if self._complete.is_set():
            return False
        if (self._state, state, self._must_raise) == (Arrival.KEPT, Arrival.BROKEN, None):
            MEMORY.count_aborted()
        if self._state is not Arrival.LOST:
            self._state = state
        super().set_complete()
        self._ready.set()
        self._room.set()
        self._leave_at_end()
        return True

    def abandon(self) -> bool:
        """Drop what is yet to come, as the answer does not depend on it; return whether any is.

        What waits unread is dropped, too, unless it is little, or somebody has begun to read.
        """
        is_of_use = self._is_begun or self._is_cached or self._readers > 0
        if self._unread.size > BASE and not is_of_use:
            self._drop(IncompleteUploadError(_NOT_READ))
            self._leave_at_end()
        if self._complete.is_set():
            return False
        if self._state is Arrival.KEPT:
            self._state = Arrival.UNWANTED
        self._room.set()
        return True

    def lose(self, error: Exception, size: int = 0) -> None:
        """Note that bytes were dropped, so that nobody takes the rest for the whole body.

        Args:
            error: What whoever reads gets from now on.
            size: Bytes that arrived, and were dropped before they came here.
        """
        if self._complete.is_set():
            return
        self._received += size
        self._drop(error)

    def _drop(self, error: Exception) -> None:
        self._state = Arrival.LOST
        self._loss = self._loss or error
        self._unread = Batch()  # nobody gets it any more
        self._count()
        self._ready.set()
        self._room.set()

    async def drain(self, silence: float) -> None:
        """Wait until all that is dropped has arrived, or `silence` seconds brought none of it."""
        self._limit_awaited = math.inf
        begun = time.monotonic()
        with suppress(RequestTimeout):
            while not self._complete.is_set():
                await self._end_or(math.inf, self._time_left(silence, begun))

    @property
    def full(self) -> bool:
        """Whether the connection has to wait before it receives more."""
        if self._share is None or self._received == self._expected:
            return False
        if self._state is not Arrival.KEPT or self._readers_of_all:
            return False
        held = self._unread.size + self._taken
        if self._is_near and held < BASE + MEMORY.batch:
            return False
        if held >= MEMORY.limit:
            return True
        return MEMORY.is_used_up and (held >= BASE or not (self._readers or self._is_small))

    @property
    def _is_small(self) -> bool:
        return self._expected is not None and self._expected <= BASE

    async def room(self) -> None:
        """Wait until there is room for another message."""
        while self.full:
            self._room.clear()
            self._ready.set()  # a reader that waits for more than that has to take it
            await self._room.wait()

    @property
    def broken(self) -> bool:
        """Whether the body ended before it was complete, or bytes of it were dropped."""
        return self._state in (Arrival.BROKEN, Arrival.LOST)

    @property
    def error(self) -> HTTPException | None:
        """What the last reader that failed was told, if anybody still has it."""
        return None if self._told is None else self._told()

    @property
    def is_read(self) -> bool:
        """Whether somebody is reading, and so will be told how the body ended."""
        return self._readers > 0

    def is_too_large_with(self, size: int) -> bool:
        """Tell whether `size` bytes more than have been received are more than is allowed now."""
        rules = BodyRules(limit=self._limit())
        return rules.state(self._received + size) is BodyState.TOO_LARGE

    def _limit(self) -> int | None:
        if self._is_unlimited:
            return None
        owner = self._owner and self._owner()
        limit = owner.max_content_length if owner else None
        return self._default_limit if limit is None else limit

    # How a reader waits.

    async def _whole(self) -> bytes:
        self._readers_of_all += 1
        self._room.set()
        try:
            await self._arrival(lambda: math.inf, self._patience())
        finally:
            self._readers_of_all -= 1
        self._is_cached = True
        return bytes(self._unread)

    def _even_batch(self) -> float:
        """Return how many bytes make a batch: all that is left, or an even share of it."""
        limit = MEMORY.limit
        most = max(limit // 2, min(limit, _ONE_BATCH))  # the other half arrives meanwhile
        if self._expected is None or self._received > self._expected:
            return min(BATCH, most)
        left = self._expected - self._received + self._unread.size
        return math.ceil(left / math.ceil(left / most)) if left > most else math.inf

    async def _arrival(
        self, count: Callable[[], float], patience: float | None, *, spares_rest: bool = False
    ) -> None:
        """Wait until so many bytes are here, or all that will ever be.

        Args:
            count: Asked again each time, as what is worth waiting for depends on what has come.
            patience: Seconds of silence after which the client is given up, or None.
            spares_rest: Whether to return, rather than to raise, while a broken body has bytes.
        """
        begun = time.monotonic()
        try:
            with self.reading():
                if self._taken:
                    self._free_taken()
                self._check(spares_rest)
                while self._unread.size < (wanted := count()) and self._waits:
                    self._room.set()  # others may have given back what this body was short of
                    await self._end_or(wanted, self._time_left(patience, begun))
                    self._check(spares_rest)
        except HTTPException as error:
            self._tells(error)
            raise

    def _tells(self, error: HTTPException) -> HTTPException:
        """Return an error, and remember that a reader has got it."""
        self._told = weakref.ref(error)
        return error

    @property
    def _waits(self) -> bool:
        """Whether more will come before something is taken."""
        return not (self._complete.is_set() or (self._unread.size and self.full))

    def _time_left(self, patience: float | None, begun: float) -> float | None:
        """Return for how many more seconds the client may be silent."""
        if patience is None:
            return None
        left = max(begun, self._last_arrival) + patience - time.monotonic()
        if left <= 0:
            raise RequestTimeout
        return left

    async def _end_or(self, count: float, timeout: float | None) -> None:
        """Wait until `count` bytes are here, the end, or more than the limit; or return early."""
        self._count_awaited = min(self._count_awaited, count)
        self._ready.clear()
        if timeout is None:
            await self._ready.wait()
            return
        timer = asyncio.get_running_loop().call_later(timeout, self._ready.set)
        try:
            await self._ready.wait()
        finally:
            timer.cancel()

    def _check(self, spares_rest: bool) -> None:
        if self._must_raise is not None:
            raise self._must_raise
        is_broken = self._state is Arrival.BROKEN and not (spares_rest and self._unread.size)
        limit = self._limit()
        self._limit_awaited = math.inf if limit is None else limit
        rules = BodyRules(self._expected, limit)
        rules.check(self._received, broken=is_broken)
        if self._loss is not None:
            raise self._loss

    def _patience(self, *, always: bool = False) -> float | None:
        owner = self._owner and self._owner()
        return owner.patience(always=always) if owner else None


class _Within:
    """A block of code between two calls; a generator would take longer."""

    __slots__ = ("_begin", "_end")

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end

    def __enter__(self) -> None:
        self._begin()

    def __exit__(self, *_: object) -> None:
        self._end()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # a body that is made whole, outside a request
        return None


def _write_sooner(loop: asyncio.AbstractEventLoop | None, body: weakref.ref[UploadBody]) -> None:
    """Wake who waits for more of a body than it may keep now; in any thread."""
    uploaded = body()
    if uploaded is not None and loop is not None:
        with suppress(RuntimeError):  # the loop is closed, and the request with it
            loop.call_soon_threadsafe(uploaded._ready.set)
