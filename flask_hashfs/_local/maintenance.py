"""What a store's keeper does: verify, prune, statistics, and the sweep of left-overs."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import chain, count
from typing import Generic, NamedTuple, Protocol, TypeVar

from hashfs import HashAddress

from .._storage import posix
from .._storage.pending import PendingUploads
from ..exceptions import ConfigError
from .set_aside import Box, Tree, boxes, kept
from .walk import folders_below

logger = logging.getLogger("flask_hashfs")

T = TypeVar("T")

LEFT_OVER = timedelta(hours=1)
"""How old a temporary file must be to be nobody's."""

_QUARANTINE = os.path.join(posix.HIDDEN, "quarantine")
_BATCH = 32  # names that one thread takes at a time, if they have not
_BATCH_SIZE = 4 * 1024 * 1024  # bytes before
_CHUNK = 256 * 1024
_HEARTBEAT = 0.1  # seconds that nobody waits longer for news of a verify


class Store(Tree, Protocol):
    """What maintenance has to know of a store."""

    algorithm: str
    pending: PendingUploads

    def id_of(self, relpath: str) -> str | None:
        """Return the id if `relpath` is where some content with some extension lies."""

    def id_named(self, name: str) -> str | None:
        """Return the id that a look-up of `name` would find, or None if it is no address."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored file: a name of a content."""

    id: str | None
    """The id that the path claims; None for a file that is no content."""
    relpath: str
    size: int
    """In bytes."""
    mtime: float
    """When the content was last put, in seconds since the epoch."""


@dataclass(slots=True)
class Stats:
    """A store in numbers; sizes are in bytes."""

    files: int = 0
    contents: int = 0
    bytes: int = 0
    """On the disk: a file of several names counts once."""
    bytes_saved: int = 0
    """By further names that cost nothing; equal puts under one name leave no trace."""
    largest: Entry | None = None
    oldest: Entry | None = None
    strangers: int = 0
    """Files that are no content."""
    left_overs: int = 0
    quarantined: int = 0


# -- what is there -----------------------------------------------------------------------------


def _contents(store: Store) -> Iterator[tuple[str, str]]:
    """Yield the id and the path of every name of every content."""
    start = len(os.path.join(store.root, ""))
    for folder in folders_below(store.root, store.root):
        for entry in folder.files:
            id = store.id_of(entry.path[start:])
            if id is not None:
                yield id, entry.path


def entries(store: Store) -> Iterator[Entry]:
    """Yield every file below the root, hidden ones left out."""
    start = len(os.path.join(store.root, ""))
    for folder in folders_below(store.root, store.root):
        for file in folder.files:
            state = posix.lstat(file.path)
            if state is not None:
                relpath = file.path[start:]
                yield Entry(store.id_of(relpath), relpath, state.st_size, state.st_mtime)


def stats(store: Store) -> Stats:
    """Count what the store holds."""
    result = Stats()
    start = len(os.path.join(store.root, ""))
    for folder in folders_below(store.root, store.root):
        ids: set[str] = set()
        inodes: set[tuple[int, int]] = set()  # all names of a content lie in one folder
        for file in folder.files:
            state = posix.lstat(file.path)
            if state is None:
                continue
            id = store.id_of(file.path[start:])
            if id is None:
                result.strangers += 1
                continue
            result.files += 1
            ids.add(id)
            inode = (state.st_dev, state.st_ino)
            if inode in inodes:
                result.bytes_saved += state.st_size
            else:
                result.bytes += state.st_size
            inodes.add(inode)
            entry = Entry(id, file.path[start:], state.st_size, state.st_mtime)
            if result.largest is None or entry.size > result.largest.size:
                result.largest = entry
            if result.oldest is None or entry.mtime < result.oldest.mtime:
                result.oldest = entry
        result.contents += len(ids)
    result.left_overs = sum(1 for _ in _files_below(store, posix.TEMPORARY))
    result.quarantined = sum(1 for _ in _files_below(store, _QUARANTINE))
    return result


def _files_below(store: Store, relpath: str) -> Iterator[str]:
    for folder in folders_below(store.root, os.path.join(store.root, relpath)):
        for file in folder.files:
            yield file.path


# -- left-overs --------------------------------------------------------------------------------


def sweep(store: Store) -> None:
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


class NothingLiveError(ValueError):
    """A prune would delete everything."""


class NoAddressError(ValueError):
    """What is said to be in use is no address of a content."""


class NoAddressTypeError(NoAddressError, TypeError):
    """What is said to be in use is not even of a type that an address has."""


class Live:
    """The ids of what is in use, kept as bytes: about 130 bytes of memory each.

    Args:
        store: The store they belong to.
        items: See `add`.
    """

    def __init__(self, store: Store, items: Iterable[object] = ()) -> None:
        self.since = time.time_ns()
        """When the collection began: what is put from then on is younger than all of it."""
        self._store = store
        self._digests: set[bytes] = set()
        self.update(items)

    def update(self, items: Iterable[object], told_by: Callable[[], object] | None = None) -> None:
        """Add all of `items`; see `add`.

        Args:
            items: What is in use.
            told_by: The callable that they come from, to be named by an error.
        """
        whose = "what is in use" if told_by is None else f"what {_name(told_by)} tells to be in use"
        if isinstance(items, (str, bytes, HashAddress)) or not isinstance(items, Iterable):
            raise NoAddressTypeError(
                f"{whose} must be an iterable of addresses, not {items!r:.200}"
            )
        for item in items:
            try:
                self.add(item)
            except NoAddressError as error:
                if told_by is None:
                    raise
                raise type(error)(f"{_name(told_by)}: {error}") from None

    def add(self, item: object) -> None:
        """Add what a look-up takes: an id, a path or an address. It need not be stored.

        None, as a database has it where there is no file, is passed over.

        Raises:
            NoAddressError: Not the address of a content; it is a TypeError, too, if it is
                nothing that names a file.
        """
        if item is None:
            return
        name = item.id if isinstance(item, HashAddress) else item
        if isinstance(name, os.PathLike):
            name = os.fspath(name)
        if not isinstance(name, str):
            raise NoAddressTypeError(
                f"a live item is an id, a path, a HashAddress or None, not {item!r:.200}"
            )
        id = self._store.id_named(name) or self._id_elsewhere(name)
        if id is None:
            raise NoAddressError(
                f"a live item must be the address of a content, but this is: {item!r:.200}"
            )
        self._digests.add(bytes.fromhex(id))

    def _id_elsewhere(self, name: str) -> str | None:
        """Return the id in a path relative to the root that was kept under another layout."""
        stem, _, extension = name.replace(os.sep, "/").partition(os.extsep)
        flat = stem.replace("/", "")
        return self._store.id_named(flat) if flat.isalnum() and "/" not in extension else None

    def __iter__(self) -> Iterator[str]:
        return (digest.hex() for digest in self._digests)

    def __contains__(self, id: str) -> bool:
        return bytes.fromhex(id) in self._digests

    def __len__(self) -> int:
        return len(self._digests)


def _name(function: Callable[[], object]) -> str:
    while isinstance(function, partial):
        function = function.func
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return repr(function) if name is None else f"{module}.{name}"


def prune(
    store: Store,
    keep: Iterable[object],
    *,
    older_than: timedelta,
    dry_run: bool,
    allow_empty: bool,
) -> list[str]:
    """Delete what is neither live nor young; see `HashFS.prune`."""
    if not isinstance(older_than, timedelta):  # a number could be seconds or hours
        raise TypeError(f"older_than must be a timedelta, not {older_than!r}")
    if older_than < timedelta(0):
        raise ValueError(f"older_than must not be negative: {older_than!r}")
    live = keep if isinstance(keep, Live) else Live(store, keep)
    youngest = live.since - older_than // timedelta(microseconds=1) * 1000
    if not live and not allow_empty:
        raise NothingLiveError(
            "nothing is live, so everything would be deleted: "
            "pass allow_empty=True if that is what you want"
        )
    if dry_run:
        return [id for id, _ in _dead(store, live, youngest, tidy=False)]
    sweep(store)
    dead = _dead(store, live, youngest, tidy=True)
    first = next(dead, None)
    if first is None:
        return []
    with kept(store):
        return [id for id, paths in chain([first], dead) if _delete(store, id, paths, youngest)]


def _dead(store: Store, live: Live, youngest: int, tidy: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield each content, with its names, that is not live and was not put lately."""
    start = len(os.path.join(store.root, ""))
    for folder in folders_below(store.root, store.root):
        if tidy and folder.is_empty and _is_shard(store, folder.path[start:]):
            posix.remove_empty_folders(folder.path, store.root)  # of a put that was killed
        found: dict[str, list[str]] = {}
        for entry in folder.files:
            id = store.id_of(entry.path[start:])
            if id is not None and id not in live:
                found.setdefault(id, []).append(entry.path)
        for id, paths in found.items():
            states = [state for path in paths if (state := posix.lstat(path)) is not None]
            if states and all(state.st_mtime_ns < youngest for state in states):
                yield id, paths


def _delete(store: Store, id: str, paths: list[str], youngest: int) -> bool:
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


def _is_shard(store: Store, relpath: str) -> bool:
    """Tell whether `relpath` could be the folder of a content."""
    flat = relpath.replace(os.sep, "")
    digits = hashlib.new(store.algorithm, usedforsecurity=False).digest_size * 2
    if not flat or len(flat) >= digits or flat.strip("0123456789abcdef"):
        return False
    address = store.idpath(flat.ljust(digits, "0"))[len(os.path.join(store.root, "")) :]
    return address.startswith(relpath + os.sep)


# -- verify ------------------------------------------------------------------------------------


class FirstLook(Generic[T]):
    """Holds back what is damaged until it is clear that the store's settings are right.

    Where not even one of the first `FIRST` files is whole, it is not the disk that is at fault:
    with another ``HASHFS_ALGORITHM`` every file of a store seems to be damaged.

    Args:
        algorithm: The one that the files were hashed with, for the message.
        is_trusted: Whether to hold nothing back.
    """

    FIRST = 20

    def __init__(self, algorithm: str, is_trusted: bool) -> None:
        self._algorithm = algorithm
        self._is_trusted = is_trusted
        self._is_refused = False
        self._held: list[T] = []
        self._lock = threading.Lock()

    def damaged(self, item: T) -> list[T]:
        """Take something damaged, and return what can be moved now.

        Raises:
            ConfigError: Nothing that was looked at is whole.
        """
        with self._lock:
            if self._is_trusted:
                return [item]
            self._held.append(item)
            if len(self._held) < self.FIRST or self._is_refused:
                return []
            self._is_refused = True
        raise ConfigError(
            f"none of the first {self.FIRST} files has the {self._algorithm} hash that its name "
            "claims, so HASHFS_ALGORITHM is probably not the one that they were stored with; "
            "nothing was moved: go on with force=True, or --force, if they really are damaged"
        )

    def whole(self) -> list[T]:
        """Learn that something is whole, and return what can be moved now."""
        return [] if self._is_trusted else self.rest()

    def rest(self) -> list[T]:
        """Return all that was held back and can be moved, since something is whole or it is all."""
        with self._lock:
            if self._is_refused:
                return []
            self._is_trusted = True
            held, self._held = self._held, []
            return held

    def dropped(self) -> list[T]:
        """Return all that was held back and is not to be moved any more."""
        with self._lock:
            self._is_refused = True
            held, self._held = self._held, []
            return held


def verify(store: Store, quarantine: bool, force: bool) -> Generator[HashAddress | int]:
    """Yield the address of everything whose bytes have another hash; see `HashFS.verify`.

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


class _Damaged(NamedTuple):
    id: str
    path: str
    fd: int


class _Check:
    """Threads that take names from one walk through the tree and hash what lies there."""

    def __init__(self, store: Store, quarantine: bool, force: bool) -> None:
        self._store = store
        self._quarantine = quarantine
        self._look: FirstLook[_Damaged] = FirstLook(store.algorithm, force or not quarantine)
        self._names = _contents(store)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._found: queue.Queue[HashAddress | BaseException | int | None] = queue.Queue(1000)
        self._running = _cpu_count()
        for _ in range(self._running):
            threading.Thread(target=self._run, name="hashfs-verify", daemon=True).start()

    def results(self) -> Iterator[HashAddress | BaseException | int]:
        """Yield damaged addresses, errors, and numbers of names looked at."""
        while self._running:
            try:
                found = self._found.get(timeout=_HEARTBEAT)
            except queue.Empty:
                yield 0
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

    def rest(self) -> Iterator[HashAddress]:
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
                    self._look.damaged(_Damaged(id, path, os.dup(fd)))
                    if is_damaged
                    else self._look.whole()
                )
            finally:
                os.close(fd)
            for address in self._settle(settled):
                self._found.put(address)
        self._found.put(len(batch))

    def _settle(self, damaged: list[_Damaged]) -> Iterator[HashAddress]:
        """Move damaged files aside, if that is wished, and yield the addresses that they have."""
        try:
            while damaged:
                id, path, fd = damaged[0]
                if self._quarantine:
                    _isolate(self._store, id, path, fd)
                os.close(damaged.pop(0).fd)
                yield HashAddress(id, path[len(os.path.join(self._store.root, "")) :], path)
        finally:
            for each in damaged:
                os.close(each.fd)

    def _is_damaged(self, fd: int, id: str, path: str, buffer: memoryview) -> bool:
        hash = hashlib.new(self._store.algorithm, usedforsecurity=False)
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


def _isolate(store: Store, id: str, path: str, fd: int) -> None:
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


def _keep_aside(store: Store, file: str, path: str) -> None:
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
