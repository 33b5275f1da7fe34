"""When kept files were last used, written down once a second, so that a hit need not do so."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

from . import threads

_INTERVAL = 1.0  # seconds


class Uses:
    """What this process has used of a cache, in its order.

    A use is remembered in memory, and written down as the date of access by a thread that lives
    for as long as there is something to write. A process that is killed loses a second of them.

    Args:
        path_of: Returns where the file with a relative path is kept.
    """

    def __init__(self, path_of: Callable[[str], str]) -> None:
        self._path_of = path_of
        self._used: dict[str, int] = {}
        self._writer = 0  # the process whose thread is at work
        self._turn = threading.Lock()

    def note(self, relpath: str) -> None:
        """Remember that a kept file is used now."""
        self._used[relpath] = time.time_ns()
        if self._writer != os.getpid():
            self._begin()

    def write(self) -> None:
        """Write down what has been used."""
        used, self._used = self._used, {}
        for relpath, date in used.items():
            path = self._path_of(relpath)
            with contextlib.suppress(OSError):
                os.utime(path, ns=(date, os.stat(path).st_mtime_ns))

    def _begin(self) -> None:
        with self._turn:
            if self._writer == os.getpid():
                return
            self._writer = os.getpid()
        try:
            threads.begin("hashfs-cache-uses", self._run)
        except OSError:  # the next use tries again
            self._writer = 0

    def _run(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            if not self._used:
                self._writer = 0
                if not self._used:  # or one came just before
                    return
                self._writer = os.getpid()
            self.write()
