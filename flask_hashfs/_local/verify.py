"""Verify: every content is hashed again, in threads, to find what is damaged."""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Generator, Iterator
from typing import NamedTuple

from .._storage import messages, posix
from .._storage.backend import Backend
from .._storage.first_look import FirstLook
from .._storage.records import Damaged, Progress
from . import leftovers
from .listing import contents
from .quarantine import isolate

# A thread takes files from the walk until it has this many, or this many bytes of them.
_BATCH = 32
_BATCH_SIZE = 4 * 1024 * 1024
_READ_SIZE = 256 * 1024
_HEARTBEAT = 0.1  # seconds after which a waiting caller is told that the verify goes on


def verify(store: Backend, quarantine: bool, force: bool) -> Generator[Progress | Damaged]:
    """Yield the address of everything whose bytes have another hash; see `Backend.verify`.

    Between them come the numbers of files looked at, so that whoever waits can show progress,
    or give up.
    """
    leftovers.clear(store)
    check = _Check(store, quarantine, force)
    try:
        for found in check.results():
            if isinstance(found, BaseException):
                raise found
            yield found
        yield from check.rest()
    finally:
        check.stop()


class _Held(NamedTuple):
    id: str
    path: str
    fd: int


class _Check:
    """Threads that take files from one walk through the tree and hash what lies there."""

    def __init__(self, store: Backend, quarantine: bool, force: bool) -> None:
        self._store = store
        self._quarantine = quarantine
        self._look: FirstLook[_Held] = FirstLook(store.layout.algorithm, force or not quarantine)
        self._contents = contents(store)
        self._lock = threading.Lock()
        self._looking_first = threading.Lock()
        self._stopped = threading.Event()
        self._found: queue.Queue[Progress | Damaged | BaseException | None] = queue.Queue(1000)
        self._running = _cpu_count()
        for _ in range(self._running):
            threading.Thread(target=self._run, name="hashfs-verify", daemon=True).start()

    def results(self) -> Iterator[Progress | Damaged | BaseException]:
        """Yield damaged addresses, errors, and numbers of files looked at."""
        while self._running:
            try:
                found = self._found.get(timeout=_HEARTBEAT)
            except queue.Empty:
                yield Progress(0)
                continue
            if found is None:
                self._running -= 1
            else:
                yield found

    def stop(self) -> None:
        """Make the threads end, and wait until they have."""
        self._stopped.set()
        for _ in self.results():
            pass
        for damaged in self._look.dropped():
            os.close(damaged.fd)

    def rest(self) -> Iterator[Damaged]:
        """Yield, once the threads have ended, the few damaged ones of a small store."""
        yield from self._settle(self._look.rest())

    def _run(self) -> None:
        try:
            with memoryview(bytearray(_READ_SIZE)) as buffer:
                # Side by side, threads may find many damaged ones before the first whole one.
                with self._looking_first:
                    while not self._look.is_over and self._look_at_some(1, buffer):
                        pass
                while self._look_at_some(_BATCH, buffer):
                    pass
        except BaseException as error:
            self._found.put(error)
        finally:
            self._found.put(None)

    def _look_at_some(self, most: int, buffer: memoryview) -> bool:
        """Look at the next files; tell whether there were any, and more are to be looked at."""
        if self._stopped.is_set():
            return False
        batch = self._take(most)
        if batch:
            self._look_at(batch, buffer)
        return bool(batch)

    def _take(self, most: int) -> list[tuple[str, str]]:
        batch, size = [], 0
        with self._lock:
            for id, path in self._contents:
                state = posix.lstat(path)
                if state is not None:
                    batch.append((id, path))
                    size += state.st_size
                    if len(batch) >= most or size >= _BATCH_SIZE:
                        break
        return batch

    def _look_at(self, batch: list[tuple[str, str]], buffer: memoryview) -> None:
        for id, path in batch:
            if self._stopped.is_set():
                return
            try:
                fd = posix.open_regular(path, os.O_RDONLY | posix.BINARY)
            except FileNotFoundError:  # deleted meanwhile
                continue
            try:
                is_damaged = self._is_damaged(fd, id, path, buffer)
                if self._stopped.is_set():
                    return
                settled = (
                    self._look.damaged(_Held(id, path, os.dup(fd)))
                    if is_damaged
                    else self._look.whole()
                )
            finally:
                os.close(fd)
            for address in self._settle(settled):
                self._found.put(address)
        self._found.put(Progress(len(batch)))

    def _settle(self, damaged: list[_Held]) -> Iterator[Damaged]:
        """Move damaged files aside, if that is wished, and yield the addresses that they have."""
        try:
            while damaged:
                id, path, fd = damaged[0]
                if self._quarantine:
                    isolate(self._store, id, path, fd)
                os.close(damaged.pop(0).fd)
                messages.DAMAGED.log(self._store.root, path=path)
                yield Damaged(self._store.address_of(self._store.relpath(path)))
        finally:
            for each in damaged:
                os.close(each.fd)

    def _is_damaged(self, fd: int, id: str, path: str, buffer: memoryview) -> bool:
        hash = self._store.layout.new_hash()
        try:
            while count := _read_into(fd, buffer):
                hash.update(buffer[:count])
                if self._stopped.is_set():
                    return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            messages.UNREADABLE.log(self._store.root, path=path, error=error)
            return True
        return hash.hexdigest() != id


def _read_into(fd: int, buffer: memoryview) -> int:
    if hasattr(os, "readv"):
        return os.readv(fd, [buffer])
    data = os.read(fd, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
