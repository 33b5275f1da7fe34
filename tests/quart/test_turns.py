"""Turns to end, which a few requests have at a time."""

from __future__ import annotations

import asyncio

import pytest

from flask_hashfs._quart.turns import AT_ONCE, Turns

pytestmark = pytest.mark.anyio

FOR_EVER = 24 * 3600.0


async def test_few_do_not_wait() -> None:
    turns = Turns(FOR_EVER)
    for _ in range(3):
        places = [turns.join() for _ in range(AT_ONCE)]
        assert all(place.done() for place in places)
        for place in places:
            turns.leave(place)


async def test_many_act_in_their_order_each_when_another_one_has_ended() -> None:
    turns, order, acting, most = Turns(FOR_EVER), list[int](), 0, 0

    async def act(number: int) -> None:
        nonlocal acting, most
        place = turns.join()
        await place
        order.append(number)
        acting += 1
        most = max(most, acting)
        for _ in range(3):
            await asyncio.sleep(0)
        acting -= 1
        turns.leave(place)

    await asyncio.wait([asyncio.create_task(act(number)) for number in range(10 * AT_ONCE)])
    assert order == list(range(10 * AT_ONCE))
    assert most == AT_ONCE


async def test_whoever_is_cancelled_in_the_line_takes_no_turn_of_another() -> None:
    turns, acted = Turns(FOR_EVER), list[int]()

    async def act(number: int) -> None:
        place = turns.join()
        try:
            await place
            acted.append(number)
        finally:
            turns.leave(place)

    tasks = [asyncio.create_task(act(number)) for number in range(4 * AT_ONCE)]
    before = [turns.join() for _ in range(AT_ONCE)]
    await asyncio.sleep(0)
    for task in tasks[AT_ONCE : 2 * AT_ONCE]:
        task.cancel()
    for place in before:
        turns.leave(place)
    await asyncio.wait(tasks)
    assert acted == [*range(AT_ONCE), *range(2 * AT_ONCE, 4 * AT_ONCE)]


async def test_who_takes_its_time_keeps_nobody_waiting() -> None:
    turns = Turns(patience=0.0)
    stalled = [turns.join() for _ in range(3 * AT_ONCE)]
    await asyncio.wait(stalled)
    for place in stalled:  # which are not waited for any more, and free nobody's turn
        turns.leave(place)
    assert turns.join().done()


async def test_a_turn_is_free_again_once_it_is_left_however_often() -> None:
    turns = Turns(FOR_EVER)
    first, *_ = [turns.join() for _ in range(AT_ONCE)]
    second, third = turns.join(), turns.join()
    turns.leave(first)
    turns.leave(first)
    assert (second.done(), third.done()) == (True, False)
