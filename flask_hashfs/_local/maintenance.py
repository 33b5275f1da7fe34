"""What a store's keeper does: verify, prune, statistics, and the sweep of left-overs."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import threading
import time
from collections.abc import Generator, Iterator
from datetime import timedelta
from itertools import chain, count
from typing import NamedTuple

from .._storage import posix
from .._storage.backend import Backend
from .._storage.first_look import FirstLook
from .._storage.records import Damaged, Entry, InUse, Progress, Stats
from .set_aside import Box, boxes, kept
from .walk import folders_below

logger = logging.getLogger("flask_hashfs")

LEFT_OVER = timedelta(hours=1)
"""How old a temporary file must be to be nobody's."""

_QUARANTINE = os.path.join(posix.HIDDEN, "quarantine")
_BATCH = 32  # names that one thread takes at a time, if they have not
_BATCH_SIZE = 4 * 1024 * 1024  # bytes before
_CHUNK = 256 * 1024
_HEARTBEAT = 0.1  # seconds that nobody waits longer for news of a verify


# -- what is there -----------------------------------------------------------------------------


def _contents(store: Backend) -> Iterator[tuple[str, str]]:
    """Yield the id and the path of every name of every content."""
    for folder in folders_below(store.root, store.root):
        for entry in folder.files:
            id = store.layout.id_of(store.relpath(entry.path))
            if id is not None:
                yield id, entry.path


def entries(store: Backend) -> Iterator[Entry]:
    """Yield every file below the root, hidden ones left out."""
    for folder in folders_below(store.root, store.root):
        for file in folder.files:
            state = posix.lstat(file.path)
            if state is not None:
                relpath = store.relpath(file.path)
                yield Entry(store.layout.id_of(relpath), relpath, state.st_size, state.st_mtime)


def stats(store: Backend) -> Stats:
    """Count what the store holds."""
    result = Stats()
    for folder in folders_below(store.root, store.root):
        ids: set[str] = set()
        inodes: set[tuple[int, int]] = set()  # all names of a content lie in one folder
        for file in folder.files:
            state = posix.lstat(file.path)
            if state is None:
                continue
            relpath = store.relpath(file.path)
            id, inode = store.layout.id_of(relpath), (state.st_dev, state.st_ino)
            entry = Entry(id, relpath, state.st_size, state.st_mtime)
            result.add(entry, is_link=inode in inodes)
            if id is not None:
                ids.add(id)
                inodes.add(inode)
        result.contents += len(ids)
    result.left_overs = sum(1 for _ in _files_below(store, posix.TEMPORARY))
    result.quarantined = sum(1 for _ in _files_below(store, _QUARANTINE))
    return result


def _files_below(store: Backend, relpath: str) -> Iterator[str]:
    for folder in folders_below(store.root, os.path.join(store.root, relpath)):
        for file in folder.files:
            yield file.path


# -- left-overs --------------------------------------------------------------------------------


def sweep(store: Backend) -> None:
    """Put right what killed processes have left: boxes of sweeps, and old temporary files.

    Uploads that have expired go, too.
    """
    store.pending.sweep()
    for box in boxes(store):
        box.put_back()
    youngest = time.time() - LEFT_OVER.total_seconds()
    for path in _files_below(store, posix.TEMPORARY):
        state = posix.lstat(path)
        if state is not None and state.st_mtime < youngest:
            _remove(path)
    for folder in folders_below(store.root, os.path.join(store.root, posix.HIDDEN)):
        if folder.is_empty:
            posix.remove_empty_folders(folder.path, store.root)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


# -- prune -------------------------------------------------------------------------------------


def prune(store: Backend, in_use: InUse, older_than: timedelta, dry_run: bool) -> list[str]:
    """Delete what is neither in use nor young; see `Backend.prune`."""
    youngest = in_use.since - older_than // timedelta(microseconds=1) * 1000
    if dry_run:
        return [id for id, _ in _dead(store, in_use, youngest, tidy=False)]
    sweep(store)
    dead = _dead(store, in_use, youngest, tidy=True)
    first = next(dead, None)
    if first is None:
        return []
    with kept(store):
        return [id for id, paths in chain([first], dead) if _delete(store, id, paths, youngest)]


def _dead(
    store: Backend, in_use: InUse, youngest: int, tidy: bool
) -> Iterator[tuple[str, list[str]]]:
    """Yield each content, with its names, that is not in use and was not put lately."""
    for folder in folders_below(store.root, store.root):
        if tidy and folder.is_empty and _is_shard(store, store.relpath(folder.path)):
            posix.remove_empty_folders(folder.path, store.root)  # of a put that was killed
        found: dict[str, list[str]] = {}
        for entry in folder.files:
            id = store.layout.id_of(store.relpath(entry.path))
            if id is not None and id not in in_use:
                found.setdefault(id, []).append(entry.path)
        for id, paths in found.items():
            states = [state for path in paths if (state := posix.lstat(path)) is not None]
            if states and all(state.st_mtime_ns < youngest for state in states):
                yield id, paths


def _delete(store: Backend, id: str, paths: list[str], youngest: int) -> bool:
    box = Box.make(store, id)
    try:
        taken = [box.take(path) for path in paths]
        if not any(taken):
            return False
        states = [state for path in box.files() if (state := posix.lstat(path)) is not None]
        if all(state.st_mtime_ns < youngest for state in states) and box.delete():
            posix.remove_empty_folders(os.path.dirname(paths[0]), store.root)
            return True
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        logger.warning("%s is on another disk than its store and is left alone", paths[0])
    finally:
        box.put_back()
    return False


def _is_shard(store: Backend, relpath: str) -> bool:
    """Tell whether `relpath` could be the folder of a content."""
    flat = relpath.replace(os.sep, "")
    digits = store.layout.id_length
    if not flat or len(flat) >= digits or flat.strip("0123456789abcdef"):
        return False
    address = store.layout.path_of(flat.ljust(digits, "0"))
    return address.startswith(relpath + os.sep)


# -- verify ------------------------------------------------------------------------------------


def verify(store: Backend, quarantine: bool, force: bool) -> Generator[Progress | Damaged]:
    """Yield the address of everything whose bytes have another hash; see `Backend.verify`.

    Between them come the numbers of names looked at, so that whoever waits can show progress,
    or give up.
    """
    sweep(store)
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
    """Threads that take names from one walk through the tree and hash what lies there."""

    def __init__(self, store: Backend, quarantine: bool, force: bool) -> None:
        self._store = store
        self._quarantine = quarantine
        self._look: FirstLook[_Held] = FirstLook(store.layout.algorithm, force or not quarantine)
        self._names = _contents(store)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._found: queue.Queue[Progress | Damaged | BaseException | None] = queue.Queue(1000)
        self._running = _cpu_count()
        for _ in range(self._running):
            threading.Thread(target=self._run, name="hashfs-verify", daemon=True).start()

    def results(self) -> Iterator[Progress | Damaged | BaseException]:
        """Yield damaged addresses, errors, and numbers of names looked at."""
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
            with memoryview(bytearray(_CHUNK)) as buffer:
                while not self._stopped.is_set() and (batch := self._take()):
                    self._look_at(batch, buffer)
        except BaseException as error:
            self._found.put(error)
        finally:
            self._found.put(None)

    def _take(self) -> list[tuple[str, str]]:
        batch, size = [], 0
        with self._lock:
            for id, path in self._names:
                state = posix.lstat(path)
                if state is not None:
                    batch.append((id, path))
                    size += state.st_size
                    if len(batch) >= _BATCH or size >= _BATCH_SIZE:
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
                    _isolate(self._store, id, path, fd)
                os.close(damaged.pop(0).fd)
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
            logger.warning("%s cannot be read: %s", path, error)
            return True
        return hash.hexdigest() != id


def _read_into(fd: int, buffer: memoryview) -> int:
    if hasattr(os, "readv"):
        return os.readv(fd, [buffer])
    data = os.read(fd, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def _isolate(store: Backend, id: str, path: str, fd: int) -> None:
    """Move the damaged file that is open as `fd` out of the tree, under all that it is named.

    A put may heal the name at any moment, so what is moved is looked at again, where look-ups
    find it, and a look-up may put the damaged file back, so the name is looked at again too.
    """
    damaged = os.fstat(fd)
    while (there := posix.lstat(path)) is not None and os.path.samestat(there, damaged):
        box = Box.make(store, id)
        try:
            box.take(path)
            for file in box.files():
                state = posix.lstat(file)
                if state is not None and os.path.samestat(state, damaged):
                    _keep_aside(store, file, path)
        finally:
            box.put_back()
    posix.remove_empty_folders(os.path.dirname(path), store.root)


def _keep_aside(store: Backend, file: str, path: str) -> None:
    """Move `file` to the place in quarantine that belongs to `path`, numbered if it is taken."""
    place = os.path.join(store.root, _QUARANTINE, os.path.relpath(path, store.root))
    target = place
    for number in count(1):
        store.makepath(os.path.dirname(target))
        try:
            os.link(file, target)
        except FileExistsError:
            target = f"{place}.{number}"
            continue
        except FileNotFoundError:  # a look-up was first; or the folder is gone
            if posix.lstat(file) is None:
                return
            continue
        except OSError as error:
            if not posix.refuses_links(error):
                raise
            os.replace(file, target)
        else:
            _remove(file)
        return


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
