"""Fills: content on its way from the store into the cache, once for all who want it.

One process fills a content: it holds the lock of a file named by the id below ``filling``. A
thread of its own fetches and hashes it; whoever wants the content reads along in that file, in
this process told by the `Fill`, in another one by the file itself (`following.py`). When the hash
is right the file is sealed and becomes the kept one by a link. Dropping a content removes the
name below ``filling``, and a file without it cannot be linked any more.
"""

from __future__ import annotations

import contextlib
import enum
import os
import threading
from collections.abc import Callable
from typing import IO, Any, Protocol

from .._storage import posix
from .._storage.backend import Backend
from .._storage.predecessor import HashAddress
from ..exceptions import StoreUnavailableError
from . import threads
from .following import ALONG, HELD_BACK, BrokenOffError, Following, is_followed
from .kept import Kept, KeptFiles
from .telling import Telling

_FETCH_SIZE = 256 * 1024  # bytes that are fetched before others hear of them
_MOST = 64  # fills of one process at a time


class GoneError(BrokenOffError):
    """The store has the content no more."""


class FillReader(Protocol):
    """One reader of a fill, or of what a fill has kept; `MissedFile` reads by it."""

    fd: int

    def wait_begun(self) -> None:
        """Wait until the store has answered.

        Raises:
            FileNotFoundError: It is not stored any more.
            StoreUnavailableError: The store fails.
        """
        ...

    def wait(self, position: int) -> int:
        """Return how many bytes there are, more than `position` once they are there.

        Raises:
            BrokenOffError: There will be no more.
            StoreUnavailableError: The store fails, or has sent other bytes.
        """
        ...

    def wait_kept(self) -> None:
        """Wait until what is whole is kept, too, or cannot be."""
        ...

    def leave(self) -> None:
        """Read along no more."""
        ...


class _State(enum.Enum):
    ASKING = enum.auto()
    RUNNING = enum.auto()
    WHOLE = enum.auto()
    FAILED = enum.auto()


class Fill:
    """One fill of this process.

    Args:
        address: Of the content.
        size: Its bytes.
        fd: Of the locked file.
        name: Of the file, below ``filling``.
    """

    def __init__(self, address: HashAddress, size: int, fd: int, name: str) -> None:
        self.key = os.getpid(), address.id
        self.address = address
        self.size = size
        self.fd = fd
        self.name = name
        self.readers = 0
        self.goes_on = False
        """Whether it ends whole, whoever leaves."""
        self.error: Exception | None = None
        self.closed = threading.Event()
        """Set when it is kept, or will not be."""
        self._available = 0
        self._state = _State.ASKING
        self._told = threading.Condition()

    def wait_begun(self) -> None:
        """See `FillReader.wait_begun`."""
        with self._told:
            while self._state is _State.ASKING:
                self._told.wait()
        if isinstance(self.error, GoneError):
            raise FileNotFoundError(self.address.relpath)
        if isinstance(self.error, StoreUnavailableError):  # while an answer may still say so
            raise self.error

    def wait(self, position: int) -> int:
        """See `FillReader.wait`."""
        with self._told:
            while True:
                if self._state is _State.WHOLE:
                    return self.size
                if self.error is not None:
                    raise self.error
                if self._available - _held_back(self.size, self._available) > position:
                    return self._available - _held_back(self.size, self._available)
                self._told.wait()

    @property
    def is_half(self) -> bool:
        """Whether more than half is there."""
        return 2 * self._available > self.size

    def begin(self) -> None:
        """Say that the store has answered."""
        with self._told:
            self._state = _State.RUNNING
            self._told.notify_all()

    def advance(self, count: int) -> None:
        """Say that so many bytes more are there."""
        with self._told:
            self._available += count
            self._told.notify_all()

    def end(self, error: Exception | None) -> None:
        """Say that all is there and right, or why not."""
        with self._told:
            self._state = _State.WHOLE if error is None else _State.FAILED
            self.error = error
            self._told.notify_all()


def _held_back(size: int, available: int) -> int:
    return max(0, available - max(0, size - HELD_BACK))


class _Reading:
    """One reader of a fill of its own process."""

    def __init__(self, fill: Fill, leave: Callable[[Fill], None]) -> None:
        self.fd = os.dup(fill.fd)
        self.wait_begun = fill.wait_begun
        self.wait = fill.wait
        self._fill = fill
        self._leave = leave

    def wait_kept(self) -> None:
        self._fill.closed.wait()

    def leave(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
            self._leave(self._fill)


class _Whole:
    """A file that has been kept since it was missed."""

    def __init__(self, kept: Kept) -> None:
        self.fd = kept.fd
        self._size = kept.state.st_size

    def wait_begun(self) -> None:
        return

    def wait(self, position: int) -> int:
        return self._size

    def wait_kept(self) -> None:
        return

    def leave(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Fills:
    """The fills of one process.

    Args:
        store: Where content comes from.
        kept: The kept files.
        keep: Keeps a sealed file: its descriptor, its name below ``filling``, its path in the
            store.
        telling: Logs what fails.
        damaged: Called for content whose bytes are others; returns the error for it.
        filled: Called after each fill.
    """

    def __init__(
        self,
        store: Backend,
        kept: KeptFiles,
        keep: Callable[[int, str, str], None],
        telling: Telling,
        damaged: Callable[[HashAddress], StoreUnavailableError],
        filled: Callable[[], None],
    ) -> None:
        self._store = store
        self._kept = kept
        self._keep = keep
        self._telling = telling
        self._damaged = damaged
        self._filled = filled
        self._fills: dict[tuple[int, str], Fill] = {}
        self._turn = threading.RLock()  # a reader may be collected, and so leave, while it is held

    def join(self, address: HashAddress, size: int, *, goes_on: bool = False) -> FillReader | None:
        """Return where to read a content along that is not kept; begin its fill if need be.

        Args:
            address: Of the content.
            size: Its bytes, as the store says.
            goes_on: Whether it ends even if nobody reads along.

        Returns:
            None where there can be no fill now.
        """
        try:
            return self._join(address, size, goes_on)
        except OSError as error:
            self._telling.failing(error)
            return None

    def _join(self, address: HashAddress, size: int, goes_on: bool) -> FillReader | None:
        key = os.getpid(), address.id
        with self._turn:
            fill = self._fills.get(key)
            is_new = fill is None
            if fill is None:
                kept = self._kept.open(address.relpath)
                if kept is not None:
                    return _Whole(kept)
                begun = self._begin(address, size)
                if not isinstance(begun, Fill):
                    return begun
                fill = begun
                reading = self._register(fill)
            elif fill.size != size:
                return None
            else:
                reading = _Reading(fill, self._leave)
            fill.goes_on = fill.goes_on or goes_on
            fill.readers += 1
        if is_new:
            self._start(fill, reading)
        return reading

    def _register(self, fill: Fill) -> _Reading:
        """Let others find a fill that has been begun, and return its first reader."""
        try:
            reading = _Reading(fill, self._leave)
        except OSError:  # too many files are open
            self._close(fill)
            raise
        self._fills[fill.key] = fill
        return reading

    def _start(self, fill: Fill, reading: _Reading) -> None:
        """Start the thread of a fill, or end the fill.

        Raises:
            OSError: No thread can be started.
        """
        try:
            threads.begin("hashfs-fill", self._run, fill)
        except OSError as error:
            reading.leave()
            fill.end(BrokenOffError(str(error)))
            self._forget(fill)
            self._close(fill)
            raise

    def _begin(self, address: HashAddress, size: int) -> Fill | Following | None:
        """Lock the file of a fill; read it along if another process has it."""
        if len(self._fills) >= _MOST:
            return None
        path = os.path.join(self._kept.filling, address.id)
        while True:
            fd = posix.lock_file(path, self._kept.dmode, wait=False)
            if fd is None:
                following = Following.of(path, size)
                if following is not None:
                    return following
                continue
            if not os.fstat(fd).st_size:
                return Fill(address, size, fd, address.id)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # of a process that was killed: nobody may take it for this fill
            posix.unlock(fd)
            os.close(fd)

    def _leave(self, fill: Fill) -> None:
        with self._turn:
            fill.readers -= 1

    # -- in the thread of a fill -----------------------------------------------------------

    def _run(self, fill: Fill) -> None:
        try:
            try:
                self._fetch(fill)
                self._seal(fill)
            except (BrokenOffError, StoreUnavailableError) as error:
                fill.end(error)
                return
            except BaseException as error:
                fill.end(BrokenOffError(str(error)))
                raise
            self._filled()
            fill.end(None)
            try:
                self._keep(fill.fd, fill.name, fill.address.relpath)
            except OSError as failure:
                self._telling.failing(failure)
        finally:
            self._forget(fill)
            self._close(fill)

    def _forget(self, fill: Fill) -> None:
        with self._turn:
            if self._fills.get(fill.key) is fill:
                del self._fills[fill.key]

    def _fetch(self, fill: Fill) -> None:
        """Write the content into the file of the fill.

        Raises:
            StoreUnavailableError: It has another hash, or the store fails.
            BrokenOffError: It is not there any more, or nobody wants it, or a disk fails.
        """
        try:
            opened = self._store.open(fill.address.relpath, "rb")
        except OSError as error:
            raise BrokenOffError(str(error)) from error
        if opened is None:
            raise GoneError("it is not stored any more")
        fill.begin()
        state, size = self._store.layout.new_hash(), 0
        with opened as file, memoryview(bytearray(_FETCH_SIZE)) as buffer:
            while count := _read(file, buffer):
                state.update(buffer[:count])
                size += count
                if size > fill.size:
                    break
                self._write(fill, buffer[:count])
                self._check_wanted(fill)
        if size != fill.size or state.hexdigest() != fill.address.id:
            raise self._damaged(fill.address)

    def _write(self, fill: Fill, data: memoryview) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.write(fill.fd, data[written:])
        except OSError as error:
            self._telling.failing(error)
            raise BrokenOffError(str(error)) from error
        fill.advance(len(data))

    def _check_wanted(self, fill: Fill) -> None:
        if fill.readers or fill.goes_on or fill.is_half:
            return
        path = os.path.join(self._kept.filling, fill.name)
        with self._turn:
            if fill.readers or fill.goes_on or is_followed(path):
                return
            if self._fills.get(fill.key) is fill:  # whoever comes now begins another one
                del self._fills[fill.key]
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise BrokenOffError("nobody wants it")

    def _seal(self, fill: Fill) -> None:
        try:
            self._kept.seal(fill.fd)
        except OSError as error:
            self._telling.failing(error)
            raise BrokenOffError(str(error)) from error

    def _close(self, fill: Fill) -> None:
        """Let go of the file, which readers of this process have descriptors of."""
        path = os.path.join(self._kept.filling, fill.name)
        with contextlib.suppress(OSError):
            if posix.is_at(fill.fd, path):
                os.unlink(path)
                os.unlink(path + ALONG)
        fill.closed.set()
        posix.unlock(fill.fd)
        os.close(fill.fd)


def _read(file: IO[Any], buffer: memoryview) -> int:
    """Read what has arrived.

    Raises:
        BrokenOffError: The disk of the store fails; each reader asks the store itself then.
    """
    try:
        count: int = file.readinto1(buffer)  # type: ignore[attr-defined]
    except OSError as error:
        raise BrokenOffError(str(error)) from error
    return count
