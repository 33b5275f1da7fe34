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
from functools import partial
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
            on_lost_result: Called with the result of a call whose task was cancelled meanwhile.
        """
        async with self._turn():
            line = self._line()
            asked = None if line.has_thread else await line.enter()
            try:
                if late_argument is not None:
                    args = (*args, late_argument())
                job = _Job(call, args)
                try:
                    return await (line.make_now(job) if asked is None else line.make_next(job))
                except asyncio.CancelledError:
                    await job.let_go(on_lost_result)
                    raise
                finally:
                    if asked is not None and job.begun is not None and self.on_wait is not None:
                        self.on_wait(job.begun - asked)
            finally:
                if asked is not None:
                    await line.leave()

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


class _Line:
    """The threads of one event loop, and the calls that wait for one.

    A call that finds a thread free has it made for this call alone. Where calls wait, a thread goes
    on from one to the next without asking the event loop, which has much to do in a crowd; for
    that, those that are next, as many as there are threads, have their arguments already.
    """

    def __init__(self, threads: int) -> None:
        self.limiter = CapacityLimiter(threads)
        self._threads = threads
        self._inside = 0  # calls that are next, and those that such threads make
        self._places: deque[asyncio.Future[None]] = deque()
        self._next: queue.SimpleQueue[_NextJob[Any] | None] = queue.SimpleQueue()
        self._made: deque[_NextJob[Any]] = deque()
        self._is_told = False  # that calls have been made
        self._going_on: set[asyncio.Task[None]] = set()
        self._last_one: asyncio.Event | None = None  # waits until all threads are back

    @property
    def has_thread(self) -> bool:
        """Whether a thread is free, and nobody waits for one."""
        return bool(self.limiter.available_tokens) and not self._places and self._next.empty()

    @property
    def waiting(self) -> int:
        """How many calls wait for a thread."""
        in_line = sum(not place.done() for place in self._places)
        return in_line + self._next.qsize()

    async def make_now(self, job: _Job[T]) -> T:
        """Return what `job` returns, made in a thread that is free."""
        # The limiter is held by hand: `to_thread.run_sync` would let go of it when the task is
        # cancelled, though the thread still works.
        place = object()
        self.limiter.acquire_on_behalf_of_nowait(place)
        try:
            return await to_thread.run_sync(job, limiter=_HELD)
        finally:
            self._free(place)

    async def enter(self) -> float:
        """Wait until a call is one of the next; return since when it waits, in seconds."""
        asked = time.perf_counter()
        self._let_last_one_go()
        if self._inside < 2 * self._threads:
            self._inside += 1
            return asked
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._places.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._let_in()
            raise
        return asked

    async def make_next(self, job: _Job[T]) -> T:
        """Return what `job` returns, made in its turn, after `enter` and before `leave`."""
        next_job = _NextJob(job, asyncio.get_running_loop().create_future())
        self._next.put(next_job)
        self._go_on()
        try:
            result: T = await next_job.answer
            return result
        finally:
            del next_job  # it has the error, which has this frame

    async def leave(self) -> None:
        """Let another call in; whoever is last waits until the threads are back.

        The event loop may be closed next, and a thread that had not come back would be left.
        """
        self._let_in()
        if not self._inside and self._going_on:
            for _ in self._going_on:
                self._next.put(None)
            self._last_one = self._last_one or asyncio.Event()
            # A result is on its way, which a cancellation must not lose.
            await undisturbed(self._last_one.wait())

    def _let_last_one_go(self) -> None:
        if self._last_one is not None:
            self._last_one.set()
            self._last_one = None

    def _let_in(self) -> None:
        while self._places:
            place = self._places.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._inside -= 1

    def _free(self, place: object) -> None:
        self.limiter.release_on_behalf_of(place)
        self._go_on()

    def _go_on(self) -> None:
        """Start a thread for the next calls, if one is free and those at work are too few."""
        if (
            len(self._going_on) < self._inside
            and self.limiter.available_tokens
            and not self._next.empty()
        ):
            place = object()
            self.limiter.acquire_on_behalf_of_nowait(place)
            loop = asyncio.get_running_loop()
            task = loop.create_task(
                to_thread.run_sync(self._make_all, loop, limiter=_HELD),
                context=contextvars.Context(),
            )
            self._going_on.add(task)
            task.add_done_callback(partial(self._come_back, place))

    def _come_back(self, place: object, task: asyncio.Task[None]) -> None:
        self._going_on.discard(task)
        error = None if task.cancelled() else task.exception()
        if not self._going_on:
            self._let_last_one_go()
            if error is not None:  # there is no thread to be had
                self._fail(error)
        self._free(place)

    def _fail(self, error: BaseException) -> None:
        while not self._next.empty():
            job = self._next.get()
            if job is not None:
                job.fail(error)
                job.tell()

    def _make_all(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make the next calls, until nobody waits for one; in a worker thread."""
        while (job := self._next_job()) is not None:
            job.make()
            self._made.append(job)
            del job
            if not self._is_told:
                self._is_told = True
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._tell)

    def _next_job(self) -> _NextJob[Any] | None:
        try:
            return self._next.get(timeout=_IDLE)
        except queue.Empty:
            return None

    def _tell(self) -> None:
        self._is_told = False
        while self._made:
            self._made.popleft().tell()


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
    """

    __slots__ = ("_args", "_call", "_given_up", "_results", "_running", "begun")

    def __init__(self, call: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._call = call
        self._args = args
        self._given_up = False
        self._results: list[T] = []
        self._running = threading.Lock()
        self.begun: float | None = None

    def __call__(self) -> T:
        with self._running:
            if self._given_up:
                raise asyncio.CancelledError  # nobody waits for it
            self.begun = time.perf_counter()
            result = self._call(*self._args)
            self._results.append(result)
            return result

    async def let_go(self, on_lost_result: Callable[[T], None] | None) -> None:
        """Wait until the call has ended, or see to it that it never begins."""
        self._given_up = True
        try:
            await finished(to_thread.run_sync(self._wait, limiter=_HELD))
        finally:
            if on_lost_result is not None:
                for result in self._results:
                    on_lost_result(result)

    def _wait(self) -> None:
        with self._running:
            pass


class _NextJob(Generic[T]):
    """A call that waits for a thread, in the context of its task."""

    __slots__ = ("_context", "_error", "_job", "_result", "answer")

    def __init__(self, job: _Job[T], answer: asyncio.Future[T]) -> None:
        self._job: _Job[T] | None = job
        self._context = contextvars.copy_context()
        self._result: list[T] = []
        self._error: BaseException | None = None
        self.answer = answer

    def make(self) -> None:
        """Make the call; in a worker thread, which keeps nothing of it."""
        job, self._job = self._job, None
        assert job is not None
        try:
            self._result.append(self._context.run(job))
        except BaseException as error:
            self._error = error
        del job

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        self._error = error

    def tell(self) -> None:
        """Give the task its answer."""
        error, self._error = self._error, None  # which has the frame of `make`, and that has this
        if self.answer.done():
            return
        if isinstance(error, StopIteration):  # which no future takes
            raised = RuntimeError("the call raised StopIteration")
            raised.__cause__ = error
            error = raised
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(self._result[0])


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
