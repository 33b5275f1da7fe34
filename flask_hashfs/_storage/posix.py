"""What the store asks of a file system: links, folders, locks, and their fsync."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

from .descriptors import with_room
from .full import full_is_told

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


T = TypeVar("T")

HIDDEN = ".hashfs"
"""The one folder of a root that holds anything but content."""

ATTEMPTS = 1000
"""How often a step is tried again that other processes can undo."""

SETTLED = 3_000_000_000
"""Nanoseconds; changes that lie further apart have different dates on every file system."""

BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags for every open."""

_MOST_KNOWN = 10_000
_SMALL = 64 * 1024
PROC = "/proc/self/fd"
"""Where Linux shows the open files of a process."""

_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}  # of a folder
_ERRNOS_NOT_REGULAR = {errno.ELOOP, errno.ENXIO, errno.ENODEV}  # link, socket, absent device
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class _LocksHere:
    """What stands for ``flock`` where the system has none: it holds within this process only.

    A lock belongs to a descriptor, not to a thread: who begins a work may leave its end to another.
    """

    def __init__(self) -> None:
        self._holders: dict[tuple[int, int], int] = {}
        self._told = threading.Condition()

    def take(self, fd: int, wait: bool) -> bool:
        """See `lock`."""
        file = self._file(fd)
        with self._told:
            while self._holders.setdefault(file, fd) != fd:
                if not wait:
                    return False
                self._told.wait()
            return True

    def let_go(self, fd: int) -> None:
        """See `unlock`; it must come before the descriptor is closed."""
        file = self._file(fd)
        with self._told:
            if self._holders.get(file) == fd:
                del self._holders[file]
                self._told.notify_all()

    @staticmethod
    def _file(fd: int) -> tuple[int, int]:
        state = os.fstat(fd)
        return state.st_dev, state.st_ino


_NO_FLOCK = _LocksHere()


def refuses_links(error: OSError) -> bool:
    """Tell whether `error` says that the file system does not link these two names."""
    return error.errno in _NO_LINKS


def lstat(path: str) -> os.stat_result | None:
    """Return what stands at `path`, no link followed, or None."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_at(fd: int, path: str) -> bool:
    """Tell whether `path` is still that of an open file."""
    state = lstat(path)
    return state is not None and os.path.samestat(state, os.fstat(fd))


def open_regular(path: str, flags: int, *, follow: bool = False) -> int:
    """Open a file that is one: no link is followed, and a FIFO does not make anyone wait.

    Args:
        path: Of the file.
        flags: Of ``os.open``.
        follow: Whether to follow a link all the same.
    """
    return open_measured(path, flags, follow)[0]


def open_measured(path: str, flags: int, follow: bool = False) -> tuple[int, os.stat_result]:
    """Open a file as `open_regular` does, and return the descriptor with the file's state."""
    for name in ("O_NONBLOCK", "O_NOCTTY") if follow else ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY"):
        flags |= getattr(os, name, 0)
    try:
        if not follow and not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        fd = with_room(os.open, path, flags)
    except OSError as error:
        if error.errno not in _ERRNOS_NOT_REGULAR:
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    try:
        state = os.fstat(fd)
        if stat.S_ISREG(state.st_mode):
            return fd, state
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    except BaseException:
        os.close(fd)
        raise


def path_of(fd: int) -> str | None:
    """Return the real path of an open file, or None where the system does not tell."""
    try:
        return os.readlink(f"{PROC}/{fd}")
    except OSError:
        return None


def link_or_rename(source: str, target: str) -> None:
    """Give the file `source` a second name, or where links are refused its only one.

    Raises:
        FileExistsError: `target` exists.
        FileNotFoundError: Its folder does not, or `source` does not.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if not refuses_links(error):
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.rename(source, target)


@full_is_told
def make_folders(path: str, mode: int) -> bool:
    """Create the folder `path` and its missing parents, whoever else does so or removes them.

    Args:
        path: An absolute path.
        mode: Of every folder created, less the process's umask.

    Returns:
        Whether `path` itself was created by this call.

    Raises:
        NotADirectoryError: Something else stands in the way.
        FileNotFoundError: Nothing can be created there: in /proc, on a drive that is none.
    """
    missing = [path]  # those that are wanted, the outermost last
    tries: Counter[str] = Counter()
    while True:
        folder = missing[-1]
        tries[folder] += 1
        if tries[folder] > ATTEMPTS:
            raise FileNotFoundError(errno.ENOENT, "No folder can be created here", folder)
        try:
            is_new = _make_folder(folder, mode)
        except FileNotFoundError:
            parent = os.path.dirname(folder)
            if parent == folder:
                raise
            missing.append(parent)
            continue
        if is_new is None:  # removed since
            continue
        missing.pop()
        if not missing:
            return is_new


def _make_folder(path: str, mode: int) -> bool | None:
    """Create one folder; False if it is there already, None if it was there a moment ago."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        state = lstat(path)
        if state is None:
            return None
        if stat.S_ISDIR(state.st_mode) or os.path.isdir(path):
            return False
        raise NotADirectoryError(
            errno.ENOTDIR, "A folder is needed here, but this is none", path
        ) from None
    return True


def remove_empty_folders(folder: str, root: str) -> None:
    """Remove `folder` and its parents below `root`, as far up as they are empty."""
    while len(folder) > len(root):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = os.path.dirname(folder)


@contextlib.contextmanager
def locked(fd: int) -> Iterator[None]:
    """Hold the lock of an open file: against other processes, and other openings in this one.

    Where the system has no such lock, it holds within this process only.
    """
    lock(fd)
    try:
        yield
    finally:
        unlock(fd)


def lock(fd: int, wait: bool = True) -> bool:
    """Take the lock of an open file; False where another one has it and this is not to wait."""
    if fcntl is None:
        return _NO_FLOCK.take(fd, wait)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_shared(fd: int) -> None:
    """Take the lock of an open file together with others who share it, where there are locks."""
    if fcntl is not None:
        fcntl.flock(fd, fcntl.LOCK_SH)


def unlock(fd: int) -> None:
    """Let go of the lock of an open file."""
    if fcntl is None:
        _NO_FLOCK.let_go(fd)
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)


@contextlib.contextmanager
def closed_on_error(fd: int) -> Iterator[None]:
    """Close an open file, locked or not, if what is done within fails: nobody else would."""
    try:
        yield
    except BaseException:
        if fcntl is None:
            with contextlib.suppress(OSError):
                _NO_FLOCK.let_go(fd)
        os.close(fd)
        raise


def unlock_and_close(fd: int) -> None:
    """Let go of the lock of an open file, and close it, even if the one fails."""
    try:
        unlock(fd)
    finally:
        os.close(fd)


def lock_file(path: str, dmode: int, *, wait: bool) -> int | None:
    """Create a file if it is missing, lock it, and return its descriptor.

    Args:
        path: Of the file, which has this path still when it is locked.
        dmode: Mode of its folder, if that is missing.
        wait: Whether to wait for another process.

    Returns:
        The descriptor, or None where another one has the lock.
    """
    for _ in range(ATTEMPTS):
        try:
            fd = with_room(os.open, path, os.O_RDWR | os.O_CREAT | BINARY, 0o600)
        except FileNotFoundError:
            make_folders(os.path.dirname(path), dmode)
            continue
        with closed_on_error(fd):
            has_lock = lock(fd, wait)
            if has_lock and is_at(fd, path):
                return fd
        if not has_lock:
            os.close(fd)
            return None
        unlock_and_close(fd)
    raise FileNotFoundError(f"{path} does not stay")


def write_at(fd: int, data: memoryview | bytes, position: int) -> int:
    """Write to a file from byte `position` on, and return how much of `data` was written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, position)
    os.lseek(fd, position, os.SEEK_SET)
    return os.write(fd, data)


def write_all(fd: int, data: memoryview | bytes | bytearray, position: int | None = None) -> None:
    """Write all of `data` to a file: one call may write less, as on a disk that is nearly full.

    Args:
        fd: Of the file.
        data: The bytes.
        position: Of the first byte in the file; None for where the file stands.

    Raises:
        OSError: Some of it cannot be written.
    """
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            rest = view[written:]
            if position is None:
                written += os.write(fd, rest)
            else:
                written += write_at(fd, rest, position + written)


def read_at(fd: int, size: int, position: int) -> bytes:
    """Return up to `size` bytes of a file from byte `position` on."""
    if hasattr(os, "pread"):
        return os.pread(fd, size, position)
    os.lseek(fd, position, os.SEEK_SET)
    return os.read(fd, size)


def open_again(fd: int, path: str) -> int:
    """Return another descriptor of an open file, for `read_at` while somebody writes to it.

    Args:
        fd: Of the file.
        path: Of the file; opened where reading at a position would move the one of the writer.
    """
    if hasattr(os, "pread"):
        return with_room(os.dup, fd)
    return with_room(os.open, path, os.O_RDONLY | BINARY)


def read_into(fd: int, buffer: memoryview, position: int) -> int:
    """Read bytes of a file from byte `position` on into a buffer, and return how many."""
    if hasattr(os, "preadv"):
        return os.preadv(fd, [buffer], position)
    data = read_at(fd, len(buffer), position)
    buffer[: len(data)] = data
    return len(data)


def read_file(path: str) -> bytes:
    """Return what is in a small file."""
    fd = with_room(os.open, path, os.O_RDONLY | BINARY)
    try:
        pieces = []
        while piece := os.read(fd, _SMALL):
            pieces.append(piece)
            if len(piece) < _SMALL:
                break
        return b"".join(pieces)
    finally:
        os.close(fd)


def replace_file(path: str, data: bytes, *, sync: bool) -> None:
    """Put a small file where another may be: whoever reads it finds the old or the new one."""
    new = f"{path}.{secrets.token_hex(8)}"
    fd = with_room(os.open, new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
    try:
        try:
            write_all(fd, data)
            if sync:
                sync_file(fd)
        finally:
            os.close(fd)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise
    if sync and os.name != "nt":
        _sync_folder(os.path.dirname(path))


def sync_file(fd: int) -> None:
    """Wait until the bytes behind the descriptor `fd` are on the disk."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
        return
    with contextlib.suppress(ImportError, AttributeError, OSError):  # macOS: past the drive's cache
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined,unused-ignore]
        return
    os.fsync(fd)


def sync_path(path: str) -> None:
    """Wait until the bytes of the file `path` are on the disk."""
    fd = with_room(os.open, path, os.O_RDONLY | BINARY)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def sync_folders(folder: str, root: str) -> None:
    """Wait until the entries of `folder`, and of its parents up to `root`, are on the disk."""
    if os.name == "nt":  # has no descriptor of a folder
        return
    while True:
        _sync_folder(folder)
        if len(folder) <= len(root):
            return
        folder = os.path.dirname(folder)


def sync_above(root: str) -> None:
    """Wait until the entry of `root` is on the disk, and those of the folders it lies in.

    Those that the process may not read are not its own making, and left out.
    """
    if os.name == "nt":
        return
    folder, above = root, os.path.dirname(root)
    while above != folder:
        folder, above = above, os.path.dirname(above)
        with contextlib.suppress(PermissionError):
            _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    with _open_folder(folder) as fd:
        _sync_entries(fd)


def _sync_entries(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


@contextlib.contextmanager
def _open_folder(folder: str) -> Iterator[int]:
    fd = with_room(os.open, folder, os.O_RDONLY | os.O_DIRECTORY | BINARY)
    try:
        yield fd
    finally:
        os.close(fd)


class SyncedFolders:
    """Folders whose entries are on the disk, for as long as they do not change.

    All but the last folder on the way to a new file mostly are as they were, but a sync of one
    that has nothing to write still waits for the disk.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, ...]] = {}

    def sync(self, path: str, root: str) -> None:
        """Wait until all entries that lead from the folder `root` to `path` are on the disk."""
        if os.name == "nt":
            return
        now = os.lstat(path).st_ctime_ns  # by the file system's clock: it has just been touched
        folder = os.path.dirname(path)
        self._sync(folder, now)
        while len(folder) > len(root):
            folder = os.path.dirname(folder)
            self._sync(folder, now)

    def _sync(self, folder: str, now: int) -> None:
        with _open_folder(folder) as fd:
            state = os.fstat(fd)
            mark = (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
            if self._known.get(folder) == mark:
                return
            _sync_entries(fd)
        if now - state.st_ctime_ns > SETTLED:  # another change will have another date
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[folder] = mark
