"""Worker threads: bounded in every event loop, and waited for when a task is cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from flask_hashfs._quart.workers import Workers, undisturbed

number = contextvars.ContextVar[int]("number")


class Work:
    """A blocking call that the test lets go on."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.calls, self.ended = threading.Event(), threading.Event(), 0, 0

    def __call__(self) -> None:
        self.calls += 1
        self.begun.set()
        assert self.go_on.wait(10)
        self.ended += 1


@pytest.mark.anyio
@pytest.mark.parametrize("waits", [False, True])
async def test_a_call_that_has_begun_is_awaited_however_often_its_task_is_cancelled(
    waits: bool,
) -> None:
    workers, first, work = Workers(1), Work(), Work()
    running = asyncio.create_task(workers.run(first))
    await asyncio.to_thread(first.begun.wait)
    if not waits:
        first.go_on.set()
        await running
    task = asyncio.create_task(workers.run(work))
    await asyncio.sleep(0.01)
    first.go_on.set()
    await asyncio.to_thread(work.begun.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    work.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended == 1
    await running


@pytest.mark.anyio
async def test_a_cancellation_can_be_left_to_what_comes_next() -> None:
    workers, work, came = Workers(1), Work(), []

    async def tidy_up() -> None:
        await undisturbed(workers.run(work))
        came.append("end")
        await asyncio.sleep(0)
        came.append("next")

    task = asyncio.create_task(tidy_up())
    await asyncio.to_thread(work.begun.wait)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    work.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert came == ["end"]


@pytest.mark.anyio
async def test_a_call_that_still_waits_for_a_thread_is_not_made() -> None:
    workers, first, second = Workers(1), Work(), Work()
    running = asyncio.create_task(workers.run(first))
    await asyncio.to_thread(first.begun.wait)
    waiting = asyncio.create_task(workers.run(second))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    first.go_on.set()
    await running
    assert second.calls == 0


def test_two_event_loops_share_no_limiter() -> None:
    workers, both_in = Workers(1), threading.Barrier(2)

    def serve() -> None:
        asyncio.run(workers.run(both_in.wait, 10))  # one limiter for both would never let both in

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not both_in.broken


@pytest.mark.anyio
async def test_an_error_of_the_call_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        await Workers(2).run(lambda: 1 / 0)


@pytest.mark.anyio
async def test_cancelled_calls_leave_no_threads_behind() -> None:
    workers, before = Workers(4), threading.active_count()
    for turns in range(6):
        for _ in range(30):
            task = asyncio.create_task(workers.run(int))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
    assert threading.active_count() <= before + 2 * workers.threads


async def until_idle(workers: Workers) -> None:
    """Wait until all threads are back."""
    async with asyncio.timeout(10):
        while workers.limiter.borrowed_tokens:
            await asyncio.sleep(0.001)


async def in_line(workers: Workers, *calls: Callable[[], Any]) -> list[Any]:
    """Make the calls while all threads are taken, so that they wait; return what comes of each."""
    held = [Work() for _ in range(workers.threads)]
    taken = [asyncio.create_task(workers.run(work)) for work in held]
    for work in held:
        await asyncio.to_thread(work.begun.wait)
    waiting = [asyncio.create_task(workers.run(call)) for call in calls]
    while workers.count_waiting() < len(calls):
        await asyncio.sleep(0)
    for work in held:
        work.go_on.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.gather(*taken)
    return results


@pytest.mark.anyio
async def test_calls_that_wait_are_answered_each_with_its_own() -> None:
    workers = Workers(2)
    calls = [lambda square=each: square**2 for each in range(100)]
    assert await in_line(workers, *calls) == [each**2 for each in range(100)]
    assert workers.count_waiting() == 0
    await until_idle(workers)


async def noting_when_near(
    workers: Workers, count: int, told: list[int]
) -> list[asyncio.Task[int]]:
    """Let so many calls wait, each of which notes when it is near."""
    tasks = [
        asyncio.create_task(workers.run(int, when_near=partial(told.append, number)))
        for number in range(count)
    ]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


@pytest.mark.anyio
@pytest.mark.parametrize("cancelled", [(), (3,), (2, 3), (2, 3, 4, 5), (6, 7)])
async def test_calls_that_wait_are_told_in_turn_when_only_few_come_first(
    cancelled: tuple[int, ...],
) -> None:
    workers, first, told = Workers(1), Work(), list[int]()
    running = asyncio.create_task(workers.run(first, when_near=lambda: told.append(-1)))
    await asyncio.to_thread(first.begun.wait)
    tasks = await noting_when_near(workers, 8, told)
    assert told == [2]  # the first two are inside already
    for number in cancelled:
        tasks[number].cancel()
    await asyncio.sleep(0)
    assert told == [2]
    first.go_on.set()
    await asyncio.wait([running, *tasks])
    assert told == [2, *(number for number in range(3, 8) if number not in cancelled)]


class Upload:
    """Something large that a call is about."""

    def gather(self) -> None: ...

    def take(self) -> None: ...


async def put(workers: Workers, upload: Upload) -> None:
    await workers.run(id, late_argument=upload.take, when_near=upload.gather)


@pytest.mark.anyio
async def test_a_call_that_is_given_up_in_the_line_keeps_nothing() -> None:
    workers, first = Workers(1), Work()
    running = asyncio.create_task(workers.run(first))
    await asyncio.to_thread(first.begun.wait)
    uploads = [Upload() for _ in range(8)]
    tasks = [asyncio.create_task(put(workers, upload)) for upload in uploads]
    for _ in range(5):
        await asyncio.sleep(0)
    assert all(task.cancel() for task in tasks[2:])  # and not those that are next
    await asyncio.wait(tasks[2:])
    kept = [weakref.ref(upload) for upload in uploads[2:]]
    del tasks[2:], uploads
    gc.collect()
    assert not any(each() for each in kept)
    first.go_on.set()
    await asyncio.wait([running, *tasks])


@pytest.mark.anyio
async def test_an_error_of_a_call_that_waits_is_its_callers_alone() -> None:
    workers = Workers(1)
    first, second, third = await in_line(workers, lambda: 1 / 0, int, lambda: next(iter(())))
    assert isinstance(first, ZeroDivisionError)
    assert second == 0
    assert isinstance(third, RuntimeError)  # a coroutine cannot raise StopIteration
    assert isinstance(third.__cause__, StopIteration)


@pytest.mark.anyio
async def test_a_call_that_waits_is_made_in_the_context_of_its_task() -> None:
    workers = Workers(1)

    async def ask(value: int) -> int:
        number.set(value)
        return await workers.run(number.get)

    work = Work()
    held = asyncio.create_task(workers.run(work))
    await asyncio.to_thread(work.begun.wait)
    asked = [asyncio.create_task(ask(value)) for value in range(5)]
    await asyncio.sleep(0.01)
    work.go_on.set()
    assert await asyncio.gather(*asked) == list(range(5))
    await held


@pytest.mark.anyio
@pytest.mark.parametrize("turns", range(8))
async def test_calls_that_wait_can_be_cancelled_at_any_moment(turns: int) -> None:
    workers, begun, lost = Workers(2), list[int](), list[int]()

    def call(value: int) -> int:
        begun.append(value)
        return value

    for _ in range(20):
        tasks = [
            asyncio.create_task(workers.run(call, value, on_lost_result=lost.append))
            for value in range(12)
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        returned = [each for each in results if isinstance(each, int)]
        assert sorted(returned + lost) == sorted(begun)
        assert set(range(1, 12, 2)) <= set(returned)
        begun.clear()
        lost.clear()
    assert workers.count_waiting() == 0
    await until_idle(workers)


@pytest.mark.anyio
async def test_a_thread_is_not_free_while_it_makes_a_call_whose_task_is_cancelled() -> None:
    workers, first, second = Workers(1), Work(), Work()
    running = asyncio.create_task(workers.run(first))
    await asyncio.to_thread(first.begun.wait)
    running.cancel()
    waiting = asyncio.create_task(workers.run(second))
    await asyncio.sleep(0.05)
    assert second.calls == 0
    first.go_on.set()
    second.go_on.set()
    await waiting
    with pytest.raises(asyncio.CancelledError):
        await running


class Content:
    """An argument that the test can see die."""


@pytest.mark.anyio
async def test_nothing_is_kept_of_a_call_that_was_cancelled_while_it_waited() -> None:
    workers, work, content = Workers(1), Work(), Content()
    kept = weakref.ref(content)
    held = asyncio.create_task(workers.run(work))
    await asyncio.to_thread(work.begun.wait)
    waiting = asyncio.create_task(workers.run(id, content))
    del content
    await asyncio.sleep(0.01)
    assert workers.count_waiting() == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    del waiting
    gc.collect()
    assert kept() is None
    assert workers.count_waiting() == 0
    work.go_on.set()
    await held


@pytest.mark.anyio
async def test_calls_fail_and_do_not_hang_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers, work = Workers(1), Work()
    held = asyncio.create_task(workers.run(work))
    await asyncio.to_thread(work.begun.wait)
    waiting = [asyncio.create_task(workers.run(int)) for _ in range(5)]
    await asyncio.sleep(0.01)

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        work.go_on.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(each) for each in results] == ["can't start new thread"] * 5
    await held
    assert await in_line(workers, lambda: "again") == ["again"]
    await until_idle(workers)


def test_an_event_loop_that_is_gone_is_not_kept() -> None:
    workers, loops = Workers(2), list[weakref.ref[asyncio.AbstractEventLoop]]()

    async def crowd() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(workers.run(int) for _ in range(20)))

    asyncio.run(crowd())
    for _ in range(1000):  # until the threads have seen that nothing is left to do
        gc.collect()
        if loops[0]() is None:
            return
        time.sleep(0.01)
    raise AssertionError("the loop is kept")


CLOSING = """
import asyncio
from flask_hashfs._quart.workers import Workers

workers = Workers(2)

async def request(number):
    try:
        await asyncio.sleep(100)
    finally:
        assert await asyncio.shield(asyncio.ensure_future(workers.run(lambda: number))) == number

async def main():
    requests = [asyncio.create_task(request(number)) for number in range(20)]
    await asyncio.sleep(0.01)

asyncio.run(main())  # which cancels them
loop = asyncio.new_event_loop()
for _ in range(5):
    loop.run_until_complete(asyncio.wait([loop.create_task(workers.run(int)) for _ in range(20)]))
loop.close()
print("closed")
"""


def test_a_process_ends_whose_event_loop_is_closed_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", CLOSING],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("closed\n", "")
