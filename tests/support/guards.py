"""Guards against blocking calls on the event loop that several threads may hold at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from blockbuster import BlockBuster


class LoopGuard:
    """blockbuster, active while anybody is inside.

    Each activation replaces functions of the standard library and puts back what it found. Two
    that overlap in threads would put back each other's replacements, and never be rid of them.

    Args:
        scanned: Module whose calls count; None for all.
    """

    def __init__(self, scanned: str | None = None) -> None:
        self._scanned = scanned
        self._lock = threading.Lock()
        self._inside = 0
        self._guard: BlockBuster | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._guard = BlockBuster(self._scanned)
                self._guard.activate()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside and self._guard is not None:
                    self._guard.deactivate()
