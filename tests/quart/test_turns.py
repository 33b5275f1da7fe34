"""Turns of the event loop, shared out."""

from __future__ import annotations

import asyncio

import pytest

from flask_hashfs._quart.turns import AT_ONCE, Turns

pytestmark = pytest.mark.anyio


async def test_few_do_not_wait() -> None:
    turns, now = Turns(), 0

    async def act() -> None:
        nonlocal now
        await turns.turn()
        now += 1

    for _ in range(3):
        for _ in range(AT_ONCE):
            coroutine = act()
            with pytest.raises(StopIteration):
                coroutine.send(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert now == 3 * AT_ONCE


async def test_many_act_in_their_order_a_few_at_each_turn() -> None:
    turns, order, most = Turns(), list[int](), 0

    async def act(number: int) -> None:
        await turns.turn()
        order.append(number)

    tasks = [asyncio.create_task(act(number)) for number in range(10 * AT_ONCE)]
    while not all(task.done() for task in tasks):
        before = len(order)
        await asyncio.sleep(0)
        most = max(most, len(order) - before)
    assert order == list(range(10 * AT_ONCE))
    assert most <= 2 * AT_ONCE


async def test_whoever_is_cancelled_in_the_line_takes_no_turn_of_another() -> None:
    turns, acted = Turns(), list[int]()

    async def act(number: int) -> None:
        await turns.turn()
        acted.append(number)

    tasks = [asyncio.create_task(act(number)) for number in range(4 * AT_ONCE)]
    await asyncio.sleep(0)
    for task in tasks[AT_ONCE : 2 * AT_ONCE]:
        task.cancel()
    await asyncio.wait(tasks)
    assert acted == [*range(AT_ONCE), *range(2 * AT_ONCE, 4 * AT_ONCE)]
