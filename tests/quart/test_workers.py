"""Worker threads: bounded in every event loop, and waited for when a task is cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from flask_hashfs._quart.workers import Workers, undisturbed


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
async def test_a_call_that_has_begun_is_awaited_however_often_its_task_is_cancelled() -> None:
    workers, work = Workers(1), Work()
    task = asyncio.create_task(workers.run(work))
    await asyncio.to_thread(work.begun.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    work.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended == 1


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
