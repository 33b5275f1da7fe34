"""The temporary files that all uploads of a process have open: how many there may be.

Where one more is needed, the one that has been idle longest is closed, of whatever upload. It gets
a name in the folder of temporary files, by which it is opened again when its upload goes on. Files
with a name are touched from time to time, so that no clean-up takes them for left-overs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from . import descriptors, posix
from .descriptors import with_room
from .spool import TemporaryFile

TOUCHED_EVERY = 300.0
"""Seconds between two touches of a file that has a name: half of what is promised."""

_PATIENCE = 1.0  # seconds that a spill waits for one of the files in use; then there is one more
_DMODE = 0o755  # of the folder of temporary files, where it has to be made


def default_limit() -> int:
    """Return a quarter of the limit of open files."""
    try:
        import resource
    except ImportError:  # Windows, whose C library has 512
        return 128
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else max(1, soft // 4)


class UploadFiles:
    """The open files of uploads.

    Args:
        limit: How many there may be.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: OrderedDict[UploadFile, None] = OrderedDict()  # idle longest first
        self._named: set[UploadFile] = set()
        self._named_since = 0.0  # when the first of them was added, by the monotonic clock
        self._rooms_held = 0  # for files that are being opened: others may not take their places
        self._waiting = 0
        self._changes = 0  # so that none is missed between a look and the wait for the next
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # slower to enter, for who waits

    @property
    def open_count(self) -> int:
        """How many files are open."""
        return len(self._open)

    @property
    def waiting(self) -> int:
        """How many contents wait until they can have a file."""
        return self._waiting

    def create(self, make: Callable[[], TemporaryFile]) -> UploadFile:
        """Return a new file, counted until it is closed.

        Args:
            make: Creates it.

        Raises:
            OSError: It cannot be created, or the process is out of descriptors.
        """
        with _Room(self):
            file = UploadFile(with_room(make), self)
            self.opened(file)
        return file

    def hold_room(self) -> None:
        """Wait until there is room for one more file, and hold it until `leave_room`."""
        if self._takes_room(anyway=False):
            return
        end = time.monotonic() + _PATIENCE
        changes = self._changes
        while not self._takes_room(anyway=time.monotonic() >= end):
            if not self._park_one():
                self._wait_for_change(changes, end - time.monotonic())
            changes = self._changes

    def leave_room(self) -> None:
        """Let go of the room held for a file, which is counted as open by now or was not opened."""
        with self._lock:
            self._rooms_held -= 1
            self._notify()

    def _takes_room(self, *, anyway: bool) -> bool:
        with self._lock:
            has_room = anyway or len(self._open) + self._rooms_held < self.limit
            self._rooms_held += has_room
            return has_room

    def _wait_for_change(self, known: int, seconds: float) -> None:
        """Wait until a file is closed or idle, unless one is since there were `known` changes."""
        with self._lock:
            if self._changes == known:
                self._waiting += 1
                try:
                    self._changed.wait(seconds)
                finally:
                    self._waiting -= 1

    def _notify(self) -> None:
        self._changes += 1
        if self._waiting:
            self._changed.notify()

    def opened(self, file: UploadFile) -> None:
        """Count a file as open."""
        with self._lock:
            self._open[file] = None
            self._note_name(file)

    def used(self, file: UploadFile) -> None:
        """Note that a file was in use until now."""
        with self._lock:
            if file in self._open:
                self._open.move_to_end(file)
                self._note_name(file)  # one that moved to another folder may have a name by now
            self._notify()

    def closed(self, file: UploadFile) -> None:
        """Count a file no more."""
        with self._lock:
            self._open.pop(file, None)
            self._named.discard(file)
            if not self._named and self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._notify()

    def parked(self, file: UploadFile) -> None:
        """Count a file as closed that will be opened again by its name."""
        with self._lock:
            self._open.pop(file, None)
            self._note_name(file)
            self._touch_later()
            self._notify()

    def _note_name(self, file: UploadFile) -> None:
        """Let the name of a file be touched if it has one, and does not live for a moment only."""
        if file.path is None:
            return
        now = time.monotonic()
        if not self._named:
            self._named_since = now
        self._named.add(file)
        if now - self._named_since > TOUCHED_EVERY / 10:
            self._touch_later()

    def forget_threads(self) -> None:
        """Go on in the child of a fork, where no other thread is; the files are the parent's."""
        self._open.clear()
        self._named.clear()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._timer = None

    def _park_one(self) -> bool:
        """Close the file that has been idle longest, of those that can be found again."""
        with self._lock:
            idle_longest_first = list(self._open)
        # The disk may take a while, and the event loop, too, counts files: it waits for no lock
        # within which a file is linked.
        return any(file.park() for file in idle_longest_first)

    def _touch_later(self) -> None:
        if self._timer is None:
            timer = threading.Timer(TOUCHED_EVERY, self._touch)
            timer.daemon = True
            with contextlib.suppress(RuntimeError):  # no thread can be started now
                timer.start()
                self._timer = timer

    def _touch(self) -> None:
        with self._lock:
            self._timer = None
            named = list(self._named)
            if named:
                self._touch_later()
        for file in named:
            file.touch_name()


class _Room:
    """Room for one more file, held for what is opened within."""

    __slots__ = ("_files",)

    def __init__(self, files: UploadFiles) -> None:
        self._files = files

    def __enter__(self) -> None:
        self._files.hold_room()

    def __exit__(self, *_: object) -> None:
        self._files.leave_room()


class UploadFile(TemporaryFile):
    """A temporary file that may be closed between two uses: contexts that leave it open."""

    __slots__ = ("_files", "_identity", "_is_parked", "_loss", "_turn", "_uses")

    def __init__(self, file: TemporaryFile, files: UploadFiles) -> None:
        super().__init__(file.fd, file.path, file.folder)
        self._files = files
        self._identity: tuple[int, int] | None = None
        self._is_parked = False
        self._loss: OSError | None = None  # of bytes, when it was closed
        self._turn = threading.RLock()
        self._uses = 0  # of the thread whose turn it is

    def __enter__(self) -> None:
        """Have the file open, opened again where it has been closed, until the use of it ends."""
        self._turn.acquire()
        try:
            if self._loss is not None:
                raise self._loss
            if self._is_parked:
                with _Room(self._files):
                    self.fd = self._unpark()
                    self._is_parked = False
                    self._files.opened(self)
            self._uses += 1
        except BaseException:
            self._turn.release()
            raise

    def __exit__(self, *_: object) -> None:
        """Let the file be closed, when others need its descriptor more."""
        try:
            self._uses -= 1
            self._files.used(self)
        finally:
            self._turn.release()

    def _unpark(self) -> int:
        assert self.path is not None
        try:
            fd, state = posix.open_measured(self.path, os.O_RDWR | posix.BINARY)
        except PermissionError:  # it is published with a mode that lets nobody write
            fd, state = posix.open_measured(self.path, os.O_RDONLY | posix.BINARY)
        if (state.st_dev, state.st_ino) != self._identity:
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "Another file stands there", self.path)
        os.lseek(fd, 0, os.SEEK_END)
        return fd

    def park(self) -> bool:
        """Close the file, if it is idle and can have a name; tell whether it is closed."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            # This thread may need a descriptor in the middle of a use of this very file.
            return self.fd >= 0 and not self._uses and self._park()
        except OSError:  # it cannot be linked, or its disk fails, which its own upload will learn
            return False
        finally:
            self._turn.release()

    def _park(self) -> bool:
        state = os.fstat(self.fd)
        if self.path is None and (self._placed or self._linked) and not state.st_nlink:
            return False  # its address was deleted, and it cannot be linked again
        if self.path is not None and not posix.is_at(self.fd, self.path):
            return False  # its name was deleted, and its descriptor is all that leads to it
        super().touch()  # from now on a clean-up goes by its date
        self._identity = state.st_dev, state.st_ino
        if self.path is None:
            self.path = self.folder.new_name(self._link, _DMODE)
        fd, self.fd, self._is_parked = self.fd, -1, True
        self._files.parked(self)
        try:
            os.close(fd)
        except OSError as error:  # network file systems may say only now that the disk is full
            self._loss = error
        return True

    def touch_name(self) -> None:
        """Date the file now by its name, if it has one."""
        path = self.path
        if path is not None:
            with contextlib.suppress(OSError):
                os.utime(path)

    # What a temporary file does, within one turn.

    def stat(self) -> os.stat_result:
        """Return what the file system knows of the file."""
        with self:
            return super().stat()

    def write(self, data: memoryview | bytes | bytearray) -> None:
        """Append all of `data`."""
        with self:
            super().write(data)

    def read_into(self, buffer: memoryview, position: int) -> int:
        """Read from byte `position` on, and return how many bytes were read."""
        with self:
            return super().read_into(buffer, position)

    def seal(self, mode: int | None, sync: bool) -> None:
        """Give the file its `mode`, and wait for the disk if asked to."""
        with self:
            super().seal(mode, sync)

    def touch(self) -> None:
        """Date the file now."""
        with self:
            super().touch()

    def link(self, target: str) -> None:
        """Name the file `target`; see `TemporaryFile.link`."""
        with self:
            super().link(target)

    def replace(self, target: str, dmode: int) -> None:
        """Name the file `target`, in the place of whatever has that name now."""
        with self:
            super().replace(target, dmode)

    def reopen(self) -> int:
        """Open the file once more, to read, and return the descriptor."""
        with self, _Room(self._files):
            return with_room(super().reopen)

    def close(self) -> None:
        """Close the file; without an address it is gone."""
        with self._turn:
            self._files.closed(self)
            if self._is_parked:
                self._is_parked = False
                assert self.path is not None
                self.folder.remove(self.path)
            else:
                super().close()

    def close_at_once(self) -> bool:
        """Close the file where neither the disk nor another thread has to be waited for."""
        if not self._turn.acquire(blocking=False):
            return False  # another thread may be linking it
        try:
            if self._is_parked or not super().close_at_once():
                return False
            self._files.closed(self)
            return True
        finally:
            self._turn.release()


FILES = UploadFiles(default_limit())
"""The files of this process."""

descriptors.close_idle.append(FILES._park_one)


def _after_fork() -> None:
    FILES.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
