"""What the store asks of a file system: unnamed files, atomic names, folders, and their fsync."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from .full import full_is_told

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("flask_hashfs")

T = TypeVar("T")

HIDDEN = ".hashfs"
"""The one folder of a root that holds anything but content."""

ATTEMPTS = 1000
"""How often a step is tried again that other processes can undo."""

SETTLED = 3_000_000_000
"""Nanoseconds; changes that lie further apart have different dates on every file system."""

TEMPORARY = os.path.join(HIDDEN, "tmp")
"""Where temporary files lie that have to have a name."""

BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags for every open."""

_NO_FLOCK = threading.RLock()
_MOST_KNOWN = 10_000
_UNNAMED = getattr(os, "O_TMPFILE", 0)
_PROC = "/proc/self/fd"
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EISDIR, errno.EINVAL, errno.ENOSYS}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}  # of a folder
_NO_FILE = {errno.ELOOP, errno.ENXIO, errno.ENODEV}  # a link, a socket, a device that is not there
_NO_MODES = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def refuses_links(error: OSError) -> bool:
    """Tell whether `error` says that the file system does not link these two names."""
    return error.errno in _NO_LINKS


def lstat(path: str) -> os.stat_result | None:
    """Return what stands at `path`, no link followed, or None."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_regular(path: str, flags: int) -> int:
    """Open a file that is one: no link is followed, and a FIFO does not make anyone wait."""
    return open_measured(path, flags)[0]


def open_measured(path: str, flags: int) -> tuple[int, os.stat_result]:
    """Open a file as `open_regular` does, and return the descriptor with the file's state."""
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY"):
        flags |= getattr(os, name, 0)
    try:
        if not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return fd, state


def path_of(fd: int) -> str | None:
    """Return the real path of an open file, or None where the system does not tell."""
    try:
        return os.readlink(f"{_PROC}/{fd}")
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
        return _NO_FLOCK.acquire(blocking=wait)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Let go of the lock of an open file."""
    if fcntl is None:
        _NO_FLOCK.release()
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)


def write_at(fd: int, data: memoryview | bytes, position: int) -> int:
    """Write to a file from byte `position` on, and return how much of `data` was written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, position)
    os.lseek(fd, position, os.SEEK_SET)
    return os.write(fd, data)


def read_at(fd: int, size: int, position: int) -> bytes:
    """Return up to `size` bytes of a file from byte `position` on."""
    if hasattr(os, "pread"):
        return os.pread(fd, size, position)
    os.lseek(fd, position, os.SEEK_SET)
    return os.read(fd, size)


def replace_file(path: str, data: bytes, *, sync: bool) -> None:
    """Put a small file where another may be: whoever reads it finds the old or the new one."""
    new = f"{path}.{secrets.token_hex(8)}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
    try:
        try:
            os.write(fd, data)
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
    fd = os.open(path, os.O_RDONLY | BINARY)
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
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | BINARY)
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


class TemporaryFile:
    """An open file inside a root that no address names yet."""

    __slots__ = ("_folder", "_linked", "_mode", "_placed", "_synced", "fd", "path")

    def __init__(self, fd: int, path: str | None, folder: TemporaryFolder) -> None:
        self.fd = fd
        self.path = path
        self._folder = folder
        self._mode: int | None = None
        self._synced = False
        self._placed = False
        self._linked = False  # to any name, if only to a spare one

    @property
    def placed(self) -> bool:
        """Whether an address has ever named this file."""
        return self._placed

    @property
    def orphaned(self) -> bool:
        """Whether the names that this file has had are gone: the kernel links it no more."""
        return (self._placed or self._linked) and os.fstat(self.fd).st_nlink == 0

    def write(self, data: memoryview | bytes | bytearray) -> None:
        """Append all of `data`."""
        written = os.write(self.fd, data)
        if written == len(data):
            return
        with memoryview(data) as view:
            while written < len(view):
                written += os.write(self.fd, view[written:])

    def seal(self, mode: int | None, sync: bool) -> None:
        """Give the file its `mode`, and wait for the disk if asked to, before a name is linked."""
        if mode is not None and mode != self._mode:
            self._folder.set_mode(self.fd, self.path, mode)
            self._mode = mode
        if sync and not self._synced:
            sync_file(self.fd)
            self._synced = True

    def touch(self) -> None:
        """Date the file now."""
        if os.utime in os.supports_fd:
            os.utime(self.fd)
        elif self.path is not None:
            os.utime(self.path)

    def link(self, target: str) -> None:
        """Name the file `target`; only a rename, where links are refused, may overwrite.

        Raises:
            FileExistsError: `target` exists.
            FileNotFoundError: Its folder does not.
        """
        try:
            self._link(target)
        except OSError as error:
            if self.path is None or self._placed or not refuses_links(error):
                raise
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
            self._rename(target)
        self._placed = True

    def replace(self, target: str, dmode: int) -> None:
        """Name the file `target`, in the place of whatever has that name now.

        Args:
            target: A path on the file's own device.
            dmode: Mode of the folder for a name in between.
        """
        try:
            with self._folder.spare_name(self._link, dmode) as name:
                os.replace(name, target)
        except OSError as error:
            if self.path is None or self._placed or not refuses_links(error):
                raise
            self._rename(target)
        self._placed = True

    def reopen(self) -> int:
        """Open the file once more, to read, and return the descriptor."""
        return os.open(self.path or f"{_PROC}/{self.fd}", os.O_RDONLY | BINARY)

    def close(self) -> None:
        """Close the file; without an address it is gone."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        try:
            os.close(fd)
        finally:
            if self.path is not None:
                self._folder.remove(self.path)

    def _link(self, target: str) -> None:
        if self.path is not None:
            os.link(self.path, target)
        else:  # CPython follows the link below /proc only when src_dir_fd is given
            os.link(f"{_PROC}/{self.fd}", target, src_dir_fd=self.fd)
        self._linked = True

    def _rename(self, target: str) -> None:
        assert self.path is not None
        path = self.path
        if os.name == "nt":  # renames no open file
            os.close(self.fd)
            os.replace(path, target)
            self.fd = os.open(target, os.O_RDONLY | BINARY)
        else:
            os.replace(path, target)
        self.path = None
        self._folder.remove(path)


class LentFile(TemporaryFile):
    """A file that lies under a name of its own, which it keeps whatever becomes of it here."""

    __slots__ = ()

    def __init__(self, fd: int, path: str, folder: TemporaryFolder) -> None:
        super().__init__(fd, path, folder)
        self._placed = True  # its name must stay, so where links are refused it is copied

    def close(self) -> None:
        """Close the file, and leave its name alone."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class TemporaryFolder:
    """Where content that arrives waits for its address, inside the root `root`.

    Unnamed files (``O_TMPFILE``) where the file system has them; named ones under
    ``.hashfs/tmp`` where it does not.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.is_new = True
        """Whether the root may have been made by this process and not be on the disk yet."""
        self._unnamed = bool(_UNNAMED) and os.path.isdir(_PROC)
        self._tells_no_modes = False

    def create(self, dmode: int) -> TemporaryFile:
        """Create an empty file; a missing root is made with `dmode`.

        Raises:
            OSError: The root cannot be made or written.
        """
        for _ in range(ATTEMPTS):
            if not self._unnamed:
                break
            try:
                fd = os.open(self.root, _UNNAMED | os.O_RDWR | BINARY, 0o600)
            except FileNotFoundError:
                self.is_new = True
                make_folders(self.root, dmode)
            except OSError as error:
                if error.errno not in _NO_UNNAMED_FILES:
                    raise
                self._unnamed = False
            else:
                return TemporaryFile(fd, None, self)
        path, fd = self._with_name(
            lambda name: os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o600), dmode
        )
        return TemporaryFile(fd, path, self)

    @contextlib.contextmanager
    def named(self, error: OSError) -> Iterator[None]:
        """Make named files, since an unnamed one could not be linked; for good, if that helps.

        Raises:
            OSError: The `error`, if names would not help.
        """
        if not self._unnamed or error.errno == errno.EXDEV:
            raise error
        self._unnamed = False
        try:
            yield
        except BaseException:
            self._unnamed = True
            raise

    @contextlib.contextmanager
    def spare_name(self, make: Callable[[str], object], dmode: int) -> Iterator[str]:
        """Let `make` create a file under a name of its own, removed at the end if still there."""
        name, _ = self._with_name(make, dmode)
        try:
            yield name
        finally:
            self.remove(name)

    def set_mode(self, fd: int | None, path: str | None, mode: int) -> None:
        """Give a file of the root its mode, where the file system has modes.

        CIFS and others refuse it: their files have the mode of the mount.

        Args:
            fd: Of the file, if it is open.
            path: Of the file, if it has one.
            mode: Exact.
        """
        try:
            if fd is not None and hasattr(os, "fchmod"):
                os.fchmod(fd, mode)
            elif path is not None:
                os.chmod(path, mode)
        except OSError as error:
            if error.errno not in _NO_MODES:
                raise
            if not self._tells_no_modes:
                self._tells_no_modes = True
                logger.warning("Files below %s cannot be given modes: %s", self.root, error)

    def remove(self, path: str) -> None:
        """Remove a name made here, and the folders it leaves empty."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        remove_empty_folders(os.path.dirname(path), self.root)

    def _with_name(self, make: Callable[[str], T], dmode: int) -> tuple[str, T]:
        folder = os.path.join(self.root, TEMPORARY)
        try:
            for _ in range(ATTEMPTS):
                name = os.path.join(folder, secrets.token_hex(16))
                try:
                    return name, make(name)
                except FileNotFoundError:  # not made yet, or another put has just left it empty
                    make_folders(folder, dmode)
            raise FileNotFoundError(errno.ENOENT, "This folder does not stay", folder)
        except BaseException:
            remove_empty_folders(folder, self.root)
            raise
