"""Blocking calls in worker threads: bounded, and never left behind by a cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar, cast

from anyio import CapacityLimiter, WouldBlock, to_thread
from quart import has_request_context, request

P = ParamSpec("P")
T = TypeVar("T")
_Limiters = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, CapacityLimiter]

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
        self._limiters: _Limiters = weakref.WeakKeyDictionary()
        self.on_wait: Callable[[float], None] | None = None
        """Called with the seconds that a call waited for a thread, if it had to."""
        self._turns: weakref.WeakKeyDictionary[object, asyncio.Lock] = weakref.WeakKeyDictionary()

    @property
    def limiter(self) -> CapacityLimiter:
        """The limiter of the running event loop; two loops would deadlock over one."""
        loop = asyncio.get_running_loop()
        limiter = self._limiters.get(loop)
        if limiter is None:
            limiter = self._limiters.setdefault(loop, CapacityLimiter(self.threads))
        return limiter

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
                free, so that data arriving while the task waited for one is included.
            on_lost_result: Called with the result of a call whose task was cancelled meanwhile.
        """
        async with self._turn():
            return await self._run(call, args, late_argument, on_lost_result)

    def _turn(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Return what only one task of the current request can be in."""
        if not has_request_context():
            return contextlib.nullcontext()
        asked: Any = request
        return self._turns.setdefault(asked._get_current_object(), asyncio.Lock())

    async def _run(
        self,
        call: Callable[..., T],
        args: tuple[Any, ...],
        late_argument: Callable[[], Any] | None,
        on_lost_result: Callable[[T], None] | None,
    ) -> T:
        # The limiter is held by hand: `to_thread.run_sync` would let go of it when the task is
        # cancelled, though the thread still works, and has no moment at which to ask for
        # `late_argument`.
        limiter, place = self.limiter, object()
        try:
            limiter.acquire_on_behalf_of_nowait(place)
        except WouldBlock:
            await self._wait_for(limiter, place)
        try:
            if late_argument is not None:
                args = (*args, late_argument())
            job = _Job(call, args)
            try:
                return await to_thread.run_sync(job, limiter=_HELD)
            except asyncio.CancelledError:
                await job.let_go(on_lost_result)
                raise
        finally:
            limiter.release_on_behalf_of(place)

    async def _wait_for(self, limiter: CapacityLimiter, place: object) -> None:
        began = time.perf_counter()
        await limiter.acquire_on_behalf_of(place)
        if self.on_wait is not None:
            self.on_wait(time.perf_counter() - began)

    def count_waiting(self) -> int:
        """Return how many calls wait for a thread, in all event loops."""
        limiters = list(self._limiters.values())
        return sum(limiter.statistics().tasks_waiting for limiter in limiters)


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
    """

    __slots__ = ("_args", "_call", "_given_up", "_results", "_running")

    def __init__(self, call: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._call = call
        self._args = args
        self._given_up = False
        self._results: list[T] = []
        self._running = threading.Lock()

    def __call__(self) -> T:
        with self._running:
            if self._given_up:
                raise asyncio.CancelledError  # nobody waits for it
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
