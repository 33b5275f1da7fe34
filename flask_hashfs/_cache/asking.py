"""Asking the store whether it still has what is kept: once for all who wait, and never for long."""

from __future__ import annotations

import contextlib
import enum
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

from .._storage import posix
from .._storage.backend import Backend
from ..exceptions import HashFSError, StoreUnavailableError
from . import threads
from .kept import Kept, KeptFiles, is_trusted
from .telling import Telling

WITHIN = 2.0
"""Seconds that anyone waits for the answer about a file that is kept."""

OUTAGE = 10.0
"""Seconds for which nobody waits for a store that has not answered."""


class Told(enum.Enum):
    """What is known of a kept file."""

    STORED = enum.auto()
    GONE = enum.auto()
    UNANSWERED = enum.auto()


class Outage:
    """What is known of a store that does not answer, by all processes.

    Args:
        path: Of the file whose date is that of the last answer that did not come.
        telling: Logs it.
    """

    def __init__(self, path: str, telling: Telling) -> None:
        self._path = path
        self._telling = telling
        self._until = 0.0
        self._down_until = 0.0  # it has failed, and was not only slow

    def lasts(self) -> bool:
        """Tell whether nobody is to wait for the store."""
        if time.monotonic() < self._until:
            return True
        with contextlib.suppress(OSError):
            return 0 <= time.time() - os.stat(self._path).st_mtime < OUTAGE
        return False

    def begin(self, error: BaseException | str) -> None:
        """Note that the store has not answered: by its error, or by what it was too slow for.

        A store that refuses one file has answered, and is asked for the others.
        """
        if isinstance(error, StoreUnavailableError) and error.has_answered:
            return
        self._until = time.monotonic() + OUTAGE
        if isinstance(error, BaseException):
            self._down_until = self._until
        self._telling.unanswered(error)
        with contextlib.suppress(OSError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | posix.BINARY, 0o600))
            os.utime(self._path)

    def check(self) -> None:
        """Refuse to wait for a store that has failed; for a slow one there is no other way.

        Raises:
            StoreUnavailableError: It has failed within the last ten seconds.
        """
        if time.monotonic() < self._down_until:
            raise StoreUnavailableError("the store did not answer a moment ago")


class Asking:
    """Asks a store about kept files.

    Args:
        store: The store.
        kept: The kept files.
        trust: Seconds for which a kept file is served without asking.
        outage: What is known of the store.
        telling: Logs what fails.
    """

    def __init__(
        self, store: Backend, kept: KeptFiles, trust: float, outage: Outage, telling: Telling
    ) -> None:
        self._store = store
        self._kept = kept
        self._trust = trust
        self._outage = outage
        self._telling = telling
        self._asked: dict[tuple[int, str], Future[Told]] = {}
        self._turn = threading.Lock()

    def about(self, kept: Kept) -> Told:
        """Return what the store says of a kept file; mark the file if it is stored."""
        if self._outage.lasts():
            return Told.UNANSWERED
        key = os.getpid(), kept.relpath  # a forked child asks for itself
        with self._turn:
            future = self._asked.get(key)
            is_new = future is None
            if future is None:
                self._asked[key] = future = Future()
        if is_new:
            self._start(key, future, kept)
        try:
            return future.result(WITHIN)
        except TimeoutError:
            self._outage.begin(f"no answer within {WITHIN} s")
            return Told.UNANSWERED

    def _start(self, key: tuple[int, str], future: Future[Told], kept: Kept) -> None:
        try:
            threads.begin("hashfs-asking", self._run, key, future, kept)
        except OSError as error:
            self._telling.failing(error)
            with self._turn:
                del self._asked[key]
            future.set_result(Told.UNANSWERED)

    def _run(self, key: tuple[int, str], future: Future[Told], kept: Kept) -> None:
        try:
            with self._one_process(kept.relpath):
                told = self._told(kept)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(told)
        finally:
            with self._turn:
                del self._asked[key]

    def _told(self, kept: Kept) -> Told:
        state = posix.lstat(kept.path)
        if state is not None and is_trusted(state, self._trust):  # another process has asked
            return Told.STORED
        try:
            found = self._store.find(kept.relpath)
        except (HashFSError, OSError) as error:
            self._outage.begin(error)
            return Told.UNANSWERED
        if found is None:
            return Told.GONE
        self._kept.renew(kept)
        return Told.STORED

    @contextlib.contextmanager
    def _one_process(self, relpath: str) -> Iterator[None]:
        """Hold a lock that only one process has for this file; none if there cannot be one."""
        name = relpath.replace(os.sep, "").replace("/", "") + ".ask"
        path = os.path.join(self._kept.filling, name)
        fd = None
        with contextlib.suppress(OSError):
            fd = posix.lock_file(path, self._kept.dmode, wait=True)
        try:
            yield
        finally:
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                posix.unlock_and_close(fd)
