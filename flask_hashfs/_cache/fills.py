"""Fills: content on its way from the store into the cache, once for all who want it.

One process fills a content: it holds the lock of a file named by the id below ``filling``. A
thread of its own fetches and hashes it, hands it to whoever reads along in this process, and writes
it into that file, where those of other processes read along (`following.py`). When the hash is
right the file is sealed and becomes the kept one by a link. Dropping a content removes the
name below ``filling``, and a file without it cannot be linked any more.
"""

from __future__ import annotations

import contextlib
import enum
import os
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from .._storage import posix
from .._storage.backend import Backend
from .._storage.predecessor import HashAddress
from ..exceptions import StoreUnavailableError
from . import threads
from .arrived import Arrived
from .asking import Outage
from .following import ALONG, HELD_BACK, BrokenOffError, FinalError, Following, is_followed
from .kept import Kept, KeptFiles
from .telling import Telling

_PIECE = 256 * 1024  # bytes that are fetched before others hear of them, about
_LARGEST_PIECE = 2 * _PIECE
_MOST = 64  # fills of one process at a time


class GoneError(FinalError):
    """The store has the content no more."""


class FillReader(Protocol):
    """One reader of a fill, or of what a fill has kept; `MissedFile` reads by it."""

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

    def read(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position` on, of those that there are."""
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
        self.arrived = Arrived()
        self._available = 0
        self._is_right = False
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
            raise self.error.with_traceback(None)

    def wait(self, position: int) -> int:
        """See `FillReader.wait`."""
        with self._told:
            while True:
                if self._is_right:
                    return self.size
                if self.error is not None:
                    raise self.error.with_traceback(None)
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

    def advance(self, piece: memoryview, *, is_right: bool) -> None:
        """Hand on the bytes that follow.

        Args:
            piece: The bytes.
            is_right: Whether all are there now, and have the right hash.
        """
        self.arrived.add(self._available, piece)
        with self._told:
            self._available += len(piece)
            self._is_right = is_right
            self._told.notify_all()

    def fail(self, error: Exception) -> None:
        """Say why it ends here; a reader to which all bytes have been handed on reads them."""
        with self._told:
            self._state = _State.FAILED
            self.error = _without_frames(error)
            self._told.notify_all()


def _without_frames(error: Exception) -> Exception:
    """Return an error without tracebacks, whose frames hold what was fetched."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def _held_back(size: int, available: int) -> int:
    return max(0, available - max(0, size - HELD_BACK))


class _Reading:
    """One reader of a fill of its own process."""

    def __init__(self, fill: Fill, path: str, leave: Callable[[Fill], None]) -> None:
        self._fd = posix.open_again(fill.fd, path)
        self.wait_begun = fill.wait_begun
        self.wait = fill.wait
        self._fill = fill
        self._leave = leave

    def read(self, position: int, size: int) -> bytes:
        # The memory comes first: a piece leaves it only after it has been written to the file.
        return self._fill.arrived.read(position, size) or posix.read_at(self._fd, size, position)

    def wait_kept(self) -> None:
        self._fill.closed.wait()

    def leave(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            self._leave(self._fill)


class _Whole:
    """A file that has been kept since it was missed."""

    def __init__(self, kept: Kept) -> None:
        self._fd = kept.fd
        self._size = kept.state.st_size

    def wait_begun(self) -> None:
        return

    def wait(self, position: int) -> int:
        return self._size

    def read(self, position: int, size: int) -> bytes:
        return posix.read_at(self._fd, size, position)

    def wait_kept(self) -> None:
        return

    def leave(self) -> None:
        fd, self._fd = self._fd, -1
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
        filled: Called once all bytes of a fill are there, and right.
        outage: What is known of a store that does not answer.
    """

    def __init__(
        self,
        store: Backend,
        kept: KeptFiles,
        keep: Callable[[int, str, str], None],
        telling: Telling,
        damaged: Callable[[HashAddress], StoreUnavailableError],
        filled: Callable[[], None],
        outage: Outage,
    ) -> None:
        self._store = store
        self._kept = kept
        self._keep = keep
        self._telling = telling
        self._damaged = damaged
        self._filled = filled
        self._outage = outage
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

    def join_again(self, address: HashAddress, size: int) -> FillReader | None:
        """Join the fill after one that broke off; None while the store does not answer."""
        return None if self._outage.lasts() else self.join(address, size)

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
                kept = self._kept.open(address.relpath)
                if kept is not None:  # another process has ended its fill since it was missed
                    self._close(begun)
                    return _Whole(kept)
                fill = begun
                reading = self._register(fill)
            elif fill.size != size:
                return None
            else:
                reading = self._reading(fill)
            fill.goes_on = fill.goes_on or goes_on
            fill.readers += 1
        if is_new:
            self._start(fill, reading)
        return reading

    def _register(self, fill: Fill) -> _Reading:
        """Let others find a fill that has been begun, and return its first reader."""
        try:
            reading = self._reading(fill)
        except OSError:  # too many files are open
            self._close(fill)
            raise
        self._fills[fill.key] = fill
        return reading

    def _reading(self, fill: Fill) -> _Reading:
        return _Reading(fill, os.path.join(self._kept.filling, fill.name), self._leave)

    def _start(self, fill: Fill, reading: _Reading) -> None:
        """Start the thread of a fill, or end the fill.

        Raises:
            OSError: No thread can be started.
        """
        try:
            threads.begin("hashfs-fill", self._run, fill)
        except OSError as error:
            reading.leave()
            self._forget(fill)
            self._close(fill)
            fill.fail(BrokenOffError(str(error)))
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
            with posix.closed_on_error(fd):
                if not os.fstat(fd).st_size:
                    return Fill(address, size, fd, address.id)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # of a killed process: nobody may take it for this fill
            posix.unlock_and_close(fd)

    def _leave(self, fill: Fill) -> None:
        with self._turn:
            fill.readers -= 1
            self._forget_bytes(fill)

    def _forget_bytes(self, fill: Fill) -> None:
        """Free the memory of a fill that has ended once nobody reads it."""
        if not fill.readers and fill.closed.is_set():
            fill.arrived.clear()

    # -- in the thread of a fill -----------------------------------------------------------

    def _run(self, fill: Fill) -> None:
        failure: Exception | None = None
        try:
            self._fetch(fill)
            self._seal(fill)
            fill.arrived.clear()
            self._keep_filled(fill)
        except (BrokenOffError, StoreUnavailableError) as error:
            failure = error
        except BaseException as error:
            failure = BrokenOffError(str(error))
            raise
        finally:
            self._forget(fill)
            try:
                self._close(fill)
            finally:  # said last: who joins again now begins another one
                if failure is not None:
                    fill.fail(failure)

    def _keep_filled(self, fill: Fill) -> None:
        try:
            self._keep(fill.fd, fill.name, fill.address.relpath)
        except OSError as error:
            self._telling.failing(error)

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
        with self._asking():
            pieces = self._store.pieces(fill.address.relpath, _PIECE)
        if pieces is None:
            raise GoneError("it is not stored any more")
        fill.begin()
        state, size = self._store.layout.new_hash(), 0
        is_right = not fill.size and state.hexdigest() == fill.address.id
        if is_right:
            self._filled()
            fill.advance(memoryview(b""), is_right=True)
        with contextlib.closing(pieces):
            while piece := self._next(pieces):
                state.update(piece)
                size += len(piece)
                is_right = size == fill.size and state.hexdigest() == fill.address.id
                if size >= fill.size and not is_right:
                    break
                if is_right:
                    self._filled()
                self._take(fill, piece, is_right)
                self._check_wanted(fill)
        if not is_right:
            raise self._damaged(fill.address)

    def _next(self, pieces: Iterator[memoryview]) -> memoryview | None:
        """Return what has arrived, None at the end."""
        with self._asking():
            return next(pieces, None)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Tell of a store that fails while it is asked for something.

        Raises:
            StoreUnavailableError: It does not answer.
            BrokenOffError: Its disk fails; each reader asks the store itself then.
        """
        try:
            yield
        except StoreUnavailableError as error:
            self._outage.begin(error)
            raise
        except OSError as error:
            raise BrokenOffError(str(error)) from error

    def _take(self, fill: Fill, piece: memoryview, is_right: bool) -> None:
        """Hand a piece on, and write it."""
        for start in range(0, len(piece), _LARGEST_PIECE):
            part = piece[start : start + _LARGEST_PIECE]
            fill.advance(part, is_right=is_right and start + len(part) == len(piece))
            self._write(fill, part)
            fill.arrived.shrink()

    def _write(self, fill: Fill, data: memoryview) -> None:
        try:
            posix.write_all(fill.fd, data)
        except OSError as error:
            self._telling.failing(error)
            raise FinalError(str(error)) from error

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
            raise FinalError(str(error)) from error

    def _close(self, fill: Fill) -> None:
        """Let go of the file, which readers of this process have descriptors of."""
        path = os.path.join(self._kept.filling, fill.name)
        with contextlib.suppress(OSError):
            if posix.is_at(fill.fd, path):
                os.unlink(path)
                os.unlink(path + ALONG)
        with self._turn:
            fill.closed.set()
            self._forget_bytes(fill)
        posix.unlock_and_close(fill.fd)
