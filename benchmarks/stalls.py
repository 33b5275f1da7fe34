"""How long an event loop is kept from its work."""

from __future__ import annotations

import asyncio
import time

PERIOD = 0.002  # seconds


class Stalls:
    """Measures how long the event loop is kept from a task that wants to run every 2 ms."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self.worst = 0.0

    async def ask(self, path: str) -> bytes:
        if path.endswith("start"):
            self.worst = 0.0
            self._task = asyncio.create_task(self._tick())
        elif self._task is not None:
            self._task.cancel()
        return b"%f" % (self.worst * 1000)

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(PERIOD)
            now = time.perf_counter()
            self.worst = max(self.worst, now - last - PERIOD)
            last = now
