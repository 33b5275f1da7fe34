"""Turns of the event loop, shared out among those who would all act in the same one."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque

AT_ONCE = 8
"""How many act in one turn."""


class Turns:
    """A line at which a few are let in at each turn of the event loop.

    A thousand clients that vanish at once are noticed in one turn of the loop, and so all their
    requests would end in the next few, while nobody else is served.
    """

    def __init__(self) -> None:
        self._line: deque[asyncio.Future[None]] = deque()
        self._left = AT_ONCE

    async def turn(self) -> None:
        """Wait until it is this task's turn: not at all where few come at once."""
        loop = asyncio.get_running_loop()
        if self._left == AT_ONCE:
            loop.call_soon(self._let_in)
        if self._left:
            self._left -= 1
            return
        place: asyncio.Future[None] = loop.create_future()
        self._line.append(place)
        await place

    def _let_in(self) -> None:
        self._left = AT_ONCE
        while self._line and self._left:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                self._left -= 1
        if self._left < AT_ONCE:
            asyncio.get_running_loop().call_soon(self._let_in)


_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = weakref.WeakKeyDictionary()


async def turn() -> None:
    """Wait for a turn among all requests of the running event loop."""
    await _turns.setdefault(asyncio.get_running_loop(), Turns()).turn()
