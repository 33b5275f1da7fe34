"""Blocking calls in worker threads: bounded, and never left behind by a cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar, cast

from anyio import CapacityLimiter, to_thread
from quart import has_request_context, request

P = ParamSpec("P")
T = TypeVar("T")

with contextlib.suppress(ImportError):  # else anyio would, on the event loop, in the first request
    importlib.import_module("anyio._backends._asyncio")


class _Held:
    """Stands for a limiter whose place is held already, where `to_thread` wants to take one."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


_HELD = cast(CapacityLimiter, _Held())


class Workers:
    """Run blocking calls in worker threads, at most `threads` at a time in each event loop.

    Calls are made in the order in which they were asked for, but a request has one thread at most:
    its next call joins the line when the one before has ended.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.executor: Executor = ThreadsOfProcess(threads)
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = (
            weakref.WeakKeyDictionary()
        )
        self.on_wait: Callable[[float], None] | None = None
        """Called with the seconds that a call waited for a thread, if it had to."""
        self._turns: weakref.WeakKeyDictionary[object, asyncio.Lock] = weakref.WeakKeyDictionary()

    @property
    def limiter(self) -> CapacityLimiter:
        """The limiter of the running event loop; two loops would deadlock over one."""
        return self._line().limiter

    def _line(self) -> _Line:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            line = self._lines.setdefault(loop, _Line(self.threads))
        return line

    async def run(
        self,
        call: Callable[..., T],
        *args: Any,
        late_argument: Callable[[], Any] | None = None,
        when_near: Callable[[], None] | None = None,
        on_lost_result: Callable[[T], None] | None = None,
    ) -> T:
        """Return ``call(*args)``, made in a worker thread.

        A cancelled task gives up waiting for a thread. A call that has begun is awaited to its
        end even then, since nobody may close what a thread still uses.

        Args:
            call: What blocks.
            args: Its arguments.
            late_argument: Called on the event loop for one more, last argument once a thread is
                free, or will be soon, so that data arriving while the task waited is included.
            when_near: Called on the event loop if the call has to wait, as soon as only a few come
                first, so that more data may be let in for the late argument.
            on_lost_result: Called with the result of a call whose task was cancelled meanwhile.
        """
        async with self._turn():
            line = self._line()
            if line.has_thread:
                return await line.make_now(_Job(call, args, late_argument, on_lost_result))
            has_to_wait, asked = not line.has_idle_thread, time.perf_counter()
            await line.enter(when_near)
            try:
                job = _Job(call, args, late_argument, on_lost_result)
                try:
                    return await line.make_next(job)
                finally:
                    if has_to_wait and job.begun is not None and self.on_wait is not None:
                        self.on_wait(job.begun - asked)
            finally:
                line.leave()

    def _turn(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Return what only one task of the current request can be in."""
        if not has_request_context():
            return contextlib.nullcontext()
        asked: Any = request
        return self._turns.setdefault(asked._get_current_object(), asyncio.Lock())

    def count_waiting(self) -> int:
        """Return how many calls wait for a thread, in all event loops."""
        return sum(line.waiting for line in list(self._lines.values()))


_IDLE = 1.0
"""Seconds for which a thread waits for the next call, if nobody tells it that there is none."""


class _Place:
    """Where a call waits to come inside.

    Attributes:
        is_free: Done when it may.
        when_near: See `Workers.run`; None where it has been called, or the call is given up.
    """

    __slots__ = ("is_free", "when_near")

    def __init__(self, when_near: Callable[[], None] | None) -> None:
        self.is_free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when_near = when_near

    def tell_near(self) -> None:
        """Say that only few others come first."""
        when_near, self.when_near = self.when_near, None
        if when_near is not None:
            when_near()


class _Line:
    """The threads of one event loop, and the calls that wait for one.

    A call that finds a thread free has it made for this call alone. Where calls wait, a thread goes
    on from one to the next without asking the event loop, which has much to do in a crowd. For
    that, twice as many calls as there are threads, at most, are inside: they have their arguments,
    and are made now or next. As many as there are threads are near: they come inside next.
    """

    def __init__(self, threads: int) -> None:
        self.limiter = CapacityLimiter(threads)
        self._threads = threads
        self._places: deque[_Place] = deque()  # of calls that are not inside yet
        self._outside = 0
        self._inside = 0
        self._next: deque[_NextJob[Any]] = deque()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()  # one for each, at least
        self._made: deque[_NextJob[Any]] = deque()
        self._tell_is_due = False
        self._at_work = 0  # threads that go on to the next call
        self._pool: ThreadPoolExecutor | None = None

    @property
    def has_thread(self) -> bool:
        """Whether a thread is free, and no call waits for one."""
        return bool(self.limiter.available_tokens) and not self.waiting

    @property
    def has_idle_thread(self) -> bool:
        """Whether a thread waits for the next call."""
        return self._inside < self._at_work

    @property
    def waiting(self) -> int:
        """How many calls wait for a thread."""
        return self._outside + len(self._next)

    async def make_now(self, job: _Job[T]) -> T:
        """Return what `job` returns, made in a thread that is free."""
        # The limiter is held by hand: `to_thread.run_sync` would let go of it when the task is
        # cancelled, though the thread still works.
        place = object()
        self.limiter.acquire_on_behalf_of_nowait(place)
        try:
            return await to_thread.run_sync(job, limiter=_HELD)
        except asyncio.CancelledError:
            await job.let_go()
            raise
        finally:
            self._free(place)

    async def enter(self, when_near: Callable[[], None] | None) -> None:
        """Wait until a call may come inside."""
        if self._inside < 2 * self._threads:
            self._inside += 1
            return
        place = _Place(when_near)
        self._places.append(place)
        self._outside += 1
        try:
            if len(self._places) <= self._threads:
                place.tell_near()
            await place.is_free
        except asyncio.CancelledError:
            if not place.is_free.cancelled():
                self.leave()
            raise
        finally:
            self._outside -= 1
            place.when_near = None  # it holds what is uploaded, and a place stays until its turn

    async def make_next(self, job: _Job[T]) -> T:
        """Return what `job` returns, made in its turn, after `enter` and before `leave`."""
        next_job = _NextJob(job, asyncio.get_running_loop().create_future())
        self._next.append(next_job)
        self._wakes.put(None)
        self._start_thread()
        try:
            result: T = await next_job.answer
            return result
        except asyncio.CancelledError:
            try:
                self._next.remove(next_job)
            except ValueError:  # a thread has it
                await job.let_go()
            raise
        finally:
            del next_job  # it has the error, which has this frame

    def leave(self) -> None:
        """Let another call come inside; after the last one the threads are told to end."""
        while self._places:
            place = self._places.popleft()
            is_taken = not place.is_free.done()
            if is_taken:
                place.is_free.set_result(None)
            if len(self._places) >= self._threads:
                self._places[self._threads - 1].tell_near()
            if is_taken:
                return
        self._inside -= 1
        if not self._inside:
            for _ in range(self._at_work):
                self._wakes.put(None)

    def _free(self, place: object) -> None:
        self.limiter.release_on_behalf_of(place)
        self._start_thread()

    def _start_thread(self) -> None:
        """Start a thread for the next calls, if one is free and those at work are too few."""
        if not (self._next and self.limiter.available_tokens and self._at_work < self._inside):
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "hashfs-work")
        place, is_started = object(), threading.Event()
        is_started.set()
        try:
            self._pool.submit(self._make_all, asyncio.get_running_loop(), place, is_started)
        except RuntimeError as error:  # no thread can be started, and the pool keeps the call
            is_started.clear()
            if not self._at_work:
                self._fail(error)
            return
        self.limiter.acquire_on_behalf_of_nowait(place)
        self._at_work += 1

    def _fail(self, error: RuntimeError) -> None:
        while self._next:
            self._next.popleft().tell(RuntimeError(*error.args))

    def _make_all(
        self, loop: asyncio.AbstractEventLoop, place: object, is_started: threading.Event
    ) -> None:
        """Make the next calls, until nobody is inside; in a worker thread."""
        if not is_started.is_set():
            return
        while self._is_woken():
            try:
                job = self._next.popleft()
            except IndexError:  # the call was given up, or there will be none
                continue
            job.make()
            self._made.append(job)
            del job
            if not self._tell_is_due:
                self._tell_is_due = True
                _call_soon(loop, self._tell)
        _call_soon(loop, self._come_back, place)

    def _is_woken(self) -> bool:
        try:
            self._wakes.get(timeout=_IDLE)
        except queue.Empty:
            return False
        return bool(self._inside)

    def _come_back(self, place: object) -> None:
        self._at_work -= 1
        self._free(place)

    def _tell(self) -> None:
        self._tell_is_due = False
        while self._made:
            self._made.popleft().tell()


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *args: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(call, *args)


class ThreadsOfProcess(Executor):
    """Threads for open files, in whichever process asks: a fork takes no thread along.

    A server that forks after loading the app (``gunicorn --preload``) may have read a file before.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``call(*args, **kwargs)`` in a thread of this process."""
        process = os.getpid()
        pool = self._pools.get(process)
        if pool is None:
            pool = self._pools.setdefault(process, ThreadPoolExecutor(self._threads, "hashfs-read"))
        return pool.submit(call, *args, **kwargs)


class _Job(Generic[T]):
    """A call for another thread that can be waited for when its task has been cancelled.

    `finished` could do that too, but the task it needs would make each call a third dearer.

    Attributes:
        begun: When it began, by ``time.perf_counter``, if it has.
        results: What it has returned, if it has.
    """

    __slots__ = ("_args", "_call", "_given_up", "_on_lost_result", "_running", "begun", "results")

    def __init__(
        self,
        call: Callable[..., T],
        args: tuple[Any, ...],
        late_argument: Callable[[], Any] | None,
        on_lost_result: Callable[[T], None] | None,
    ) -> None:
        self._call = call
        self._args = args if late_argument is None else (*args, late_argument())
        self._on_lost_result = on_lost_result
        self._given_up = False
        self._running = threading.Lock()
        self.begun: float | None = None
        self.results: list[T] = []

    def __call__(self) -> T:
        with self._running:
            if self._given_up:
                raise asyncio.CancelledError  # nobody waits for it
            self.begun = time.perf_counter()
            result = self._call(*self._args)
            self.results.append(result)
            return result

    async def let_go(self) -> None:
        """Wait until the call has ended, or see to it that it never begins."""
        self._given_up = True
        try:
            await finished(to_thread.run_sync(self._wait, limiter=_HELD))
        finally:
            if self._on_lost_result is not None:
                for result in self.results:
                    self._on_lost_result(result)

    def _wait(self) -> None:
        with self._running:
            pass


class _NextJob(Generic[T]):
    """A call that waits for a thread, and its answer; it is made in the context of its task."""

    __slots__ = ("_context", "_error", "_job", "answer")

    def __init__(self, job: _Job[T], answer: asyncio.Future[T]) -> None:
        self._job = job
        self._context = contextvars.copy_context()
        self._error: BaseException | None = None
        self.answer = answer

    def make(self) -> None:
        """Make the call; in a worker thread."""
        try:
            self._context.run(self._job)
        except BaseException as error:
            self._error = error

    def tell(self, error: BaseException | None = None) -> None:
        """Give the task its answer: what was returned, or raised, or else `error`."""
        raised, self._error = self._error or error, None
        if self.answer.done():
            return
        if isinstance(raised, StopIteration):  # which no future takes
            cause, raised = raised, RuntimeError("the call raised StopIteration")
            raised.__cause__ = cause
        if raised is not None:
            self.answer.set_exception(raised)
        else:
            self.answer.set_result(self._job.results[0])


async def finished(work: Awaitable[T], on_lost_result: Callable[[T], None] | None = None) -> T:
    """Await `work` to its end, and only then give way to a cancellation."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue  # one is on its way already
        # An error is retrieved in any case, or asyncio would log it.
        if not task.cancelled() and task.exception() is None and on_lost_result is not None:
            on_lost_result(task.result())
        raise


async def undisturbed(work: Awaitable[T]) -> T:
    """Await `work` to its end, and leave a cancellation to whatever is awaited next."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled and (current := asyncio.current_task()) is not None:
        current.uncancel()
        current.cancel()
    return task.result()
