"""Whether a store works: asked as often as anyone likes, probed once a second at most.

A probe runs in a thread of its own, since a disk that hangs would take a pool's threads one after
the other. It is a daemon, which does not keep a process from ending. While it hangs, no other one
begins, and whoever asks is told so at once when its time is up.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeAlias

from .._storage import messages
from .._storage.probe import ProbeError

INTERVAL = 1.0
"""Seconds from the beginning of one probe to that of the next, at least."""

WITHIN = 1.5
"""Seconds that a probe may take; the rest of two is for the answer."""


class Condition(NamedTuple):
    """How a store is."""

    failed: tuple[str, ...] = ()
    """The names of the checks that fail."""
    is_served: bool = True
    """Whether its files are served all the same, as far as they are in a cache."""


Answer: TypeAlias = tuple[dict[str, Any], int, dict[str, str]]


class _Probe:
    """One probe: its result is the error, or None if the store works."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.process = os.getpid()  # a thread does not live on in a forked child
        self.future: Future[ProbeError | None] = Future()

    @property
    def is_over(self) -> bool:
        """Whether another one may begin."""
        if self.process != os.getpid():
            return True
        return self.future.done() and time.monotonic() - self.begun >= INTERVAL

    @property
    def remaining(self) -> float:
        """Seconds that it may still take."""
        return max(0.0, self.begun + WITHIN - time.monotonic())

    def error(self) -> ProbeError | None:
        """Return what is wrong, as far as is known now."""
        if self.future.done():
            return self.future.result()
        return ProbeError("timeout", f"no answer within {WITHIN} s")


class Health:
    """Tells whether a store works.

    Args:
        store: The key of its extension, which the log calls it by.
        probe: Returns if it works, and raises `ProbeError` if not. It may block.
        is_served: Tells whether some files would be served all the same; it does not block.
    """

    def __init__(
        self,
        store: str,
        probe: Callable[[], None],
        is_served: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._is_served = is_served
        self._probe = probe
        self._turn = threading.Lock()  # never held while anything is waited for
        self._latest: _Probe | None = None
        self._is_failing = False

    def condition(self) -> Condition:
        """Return how the store is."""
        probe = self._current()
        with contextlib.suppress(TimeoutError):
            probe.future.result(probe.remaining)
        return self._told(probe.error())

    async def condition_async(self) -> Condition:
        """Return what `condition` returns, without blocking the event loop."""
        import asyncio  # an app of Flask mostly does without

        probe = self._current()
        if not probe.future.done():
            # Unlike `wait_for` this leaves the probe alone when it gives up.
            await asyncio.wait([asyncio.wrap_future(probe.future)], timeout=probe.remaining)
        return self._told(probe.error())

    def _current(self) -> _Probe:
        """Return the latest probe, or begin one if it is over."""
        with self._turn:
            latest = self._latest
            if latest is not None and not latest.is_over:
                return latest
            self._latest = latest = _Probe()
        run = threading.Thread(target=self._run, args=[latest], name="hashfs-health", daemon=True)
        run.start()
        return latest

    def _run(self, probe: _Probe) -> None:
        failure = None
        try:
            self._probe()
        except ProbeError as error:
            failure = error
        except Exception as error:
            failure = ProbeError("store", error)
        probe.future.set_result(failure)

    def _told(self, error: ProbeError | None) -> Condition:
        """Log a change for the worse or the better; return how the store is."""
        if error is not None and not self._is_failing:
            messages.FAILING.log(self, store=self._store, error=error)
        elif error is None and self._is_failing:
            messages.WORKING.log(self, store=self._store)
        self._is_failing = error is not None
        return Condition() if error is None else Condition((error.check,), self._is_served())


def answer(condition: Condition) -> Answer:
    """Return what the health path answers: body, status and headers."""
    headers = {"Cache-Control": "no-store"}
    if not condition.is_served:
        return {"status": "failing", "checks": [*condition.failed]}, 503, headers
    return {"status": "degraded" if condition.failed else "ok"}, 200, headers
