"""The spool: temporary files that take the bytes of a put until a path names them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..exceptions import StoreUnavailableError
from . import messages, posix
from .descriptors import with_room
from .full import is_full, lacks_descriptor

T = TypeVar("T")

TEMPORARY = os.path.join(posix.HIDDEN, "tmp")
"""Where temporary files lie that have to have a name."""

_UNNAMED = getattr(os, "O_TMPFILE", 0)
_HAS_FCHMOD = hasattr(os, "fchmod")
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EISDIR, errno.EINVAL, errno.ENOSYS}
_PRIVATE_ATTEMPTS = 20  # to find a folder that no other thread removes
_PRIVATE_MODE = 0o700
_COPIED = 1024 * 1024  # bytes at a time
_NO_MODES = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


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
        has_had_one = self._placed or self._linked or self.path is not None
        return has_had_one and self.stat().st_nlink == 0

    @property
    def folder(self) -> TemporaryFolder:
        """Where it was made."""
        return self._folder

    @property
    def can_be_kept(self) -> bool:
        """Whether it lies where a cache can keep it by a link."""
        return self._folder.files_can_be_kept

    def stat(self) -> os.stat_result:
        """Return what the file system knows of the file."""
        return os.fstat(self.fd)

    def write(self, data: memoryview | bytes | bytearray) -> None:
        """Append all of `data`; where the disk fails, move to the folder's next best, if any."""
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                written += self._write(view[written:])

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self.fd, data)
        except OSError as error:
            folder = self._folder.next_best(error)
            if folder is None:
                raise
            self._move(folder)
            return os.write(self.fd, data)

    def _move(self, folder: TemporaryFolder) -> None:
        """Become a new file of another folder, with the bytes written so far."""
        other = with_room(folder.create, _PRIVATE_MODE)
        try:
            position, size = 0, os.lseek(self.fd, 0, os.SEEK_CUR)
            while position < size:
                data = posix.read_at(self.fd, min(_COPIED, size - position), position)
                other.write(data)
                position += len(data)
        except BaseException:
            other.close()
            raise
        self.fd, other.fd = other.fd, self.fd
        self.path, other.path = other.path, self.path
        self._folder, other._folder = other._folder, self._folder
        self._mode, self._synced, self._linked = other._mode, other._synced, other._linked
        with contextlib.suppress(OSError):  # of the disk that fails
            other.close()

    def read_into(self, buffer: memoryview, position: int) -> int:
        """Read from byte `position` on, and return how many bytes were read."""
        count = posix.read_into(self.fd, buffer, position)
        if not hasattr(os, "pread"):  # the position has moved, and the next write is to append
            os.lseek(self.fd, 0, os.SEEK_END)
        return count

    def seal(self, mode: int | None, sync: bool) -> None:
        """Give the file its `mode`, and wait for the disk if asked to, before a name is linked."""
        if mode is not None and mode != self._mode:
            self._folder.set_mode(self.fd, self.path, mode)
            self._mode = mode
        if sync and not self._synced:
            posix.sync_file(self.fd)
            self._synced = True

    def publish(
        self, target: str, mode: int | None, dmode: int, sync: bool, over: bool = False
    ) -> None:
        """Name the file `target`, once it has its mode and, if asked to, is on the disk.

        Args:
            target: A path on the file's own device.
            mode: Exact, or None to leave the file private to its owner.
            dmode: Mode of the folder for a name in between.
            sync: Whether to wait for the disk.
            over: Whether it takes the place of whatever has that name now.

        Raises:
            FileExistsError: `target` exists, and this is not to replace it.
            FileNotFoundError: Its folder does not.
        """
        self.seal(mode, sync)
        if over:
            self.replace(target, dmode)
        else:
            self.link(target)

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
            if self.path is None or self._placed or not posix.refuses_links(error):
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
            if self.path is None or self._placed or not posix.refuses_links(error):
                raise
            self._rename(target)
        self._placed = True

    def reopen(self) -> int:
        """Open the file once more, to read, and return the descriptor."""
        return os.open(self.path or f"{posix.PROC}/{self.fd}", os.O_RDONLY | posix.BINARY)

    def close(self) -> None:
        """Close the file; without an address it is gone."""
        fd, self.fd = self.fd, -1
        path, self.path = self.path, None
        try:
            if fd >= 0:
                os.close(fd)
        finally:
            if path is not None:
                self._folder.remove(path)

    def close_at_once(self) -> bool:
        """Close the file where nothing has to be waited for; tell whether it is closed.

        To free a file that no name leads to, or to remove the name of one, may take the disk a
        while; to close one that an address keeps does not.
        """
        if self.path is not None or not self._placed or os.fstat(self.fd).st_nlink == 0:
            return False
        TemporaryFile.close(self)
        return True

    def _link(self, target: str) -> None:
        if self.path is not None:
            os.link(self.path, target)
        else:  # CPython follows the link below /proc only when src_dir_fd is given
            os.link(f"{posix.PROC}/{self.fd}", target, src_dir_fd=self.fd)
        self._linked = True

    def _rename(self, target: str) -> None:
        assert self.path is not None
        path = self.path
        if os.name == "nt":  # renames no open file
            fd, self.fd = self.fd, -1  # closed once, whatever comes of the rename
            os.close(fd)
            os.replace(path, target)
            self.fd = os.open(target, os.O_RDONLY | posix.BINARY)
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

    Its files are unnamed (``O_TMPFILE``) where the file system has that; elsewhere they have names
    under ``.hashfs/tmp``.

    Args:
        root: A folder; made with the first file.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.is_new = True
        """Whether the root may have been made by this process and not be on the disk yet."""
        self.unnamed = bool(_UNNAMED) and os.path.isdir(posix.PROC)
        """Whether files are made without names; what tests turn off where they want names."""
        self.files_can_be_kept = False
        """Whether a cache can keep them by a link."""
        self._tells_no_modes = False

    def create(self, dmode: int) -> TemporaryFile:
        """Create an empty file; a missing root is made with `dmode`.

        Returns:
            The file, open, and without a name where the file system allows that.

        Raises:
            OSError: The root cannot be made or written.
        """
        for _ in range(posix.ATTEMPTS):
            if not self.unnamed:
                break
            try:
                fd = os.open(self.root, _UNNAMED | os.O_RDWR | posix.BINARY, 0o600)
            except FileNotFoundError:
                self.is_new = True
                posix.make_folders(self.root, dmode)
            except OSError as error:
                if error.errno not in _NO_UNNAMED_FILES:
                    raise
                self.unnamed = False
            else:
                return TemporaryFile(fd, None, self)
        path, fd = self._with_name(
            lambda name: os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | posix.BINARY, 0o600),
            dmode,
        )
        return TemporaryFile(fd, path, self)

    def next_best(self, error: OSError) -> TemporaryFolder | None:
        """Return where a file goes on that cannot be written here because of `error`, or None."""
        return None

    @contextlib.contextmanager
    def named(self, error: OSError) -> Iterator[None]:
        """Make named files, since an unnamed one could not be linked; for good, if that helps.

        Returns:
            A context: files that are made within it have names.

        Raises:
            OSError: The `error`, if names would not help.
        """
        if not self.unnamed or error.errno == errno.EXDEV:
            raise error
        self.unnamed = False
        try:
            yield
        except BaseException:
            self.unnamed = True
            raise

    @contextlib.contextmanager
    def spare_name(self, make: Callable[[str], object], dmode: int) -> Iterator[str]:
        """Let `make` create a file under a name of its own, removed at the end if still there.

        Args:
            make: Creates a file at the path that it is given; it refuses one that is taken.
            dmode: Mode of the folder, where it has to be made.

        Returns:
            A context, which gives the path.
        """
        name, _ = self._with_name(make, dmode)
        try:
            yield name
        finally:
            self.remove(name)

    def new_name(self, make: Callable[[str], object], dmode: int) -> str:
        """Let `make` create a file under a name of its own; see `remove`.

        Args:
            make: Creates a file at the path that it is given; it refuses one that is taken.
            dmode: Mode of the folder, where it has to be made.

        Returns:
            The path.
        """
        name, _ = self._with_name(make, dmode)
        return name

    def set_mode(self, fd: int | None, path: str | None, mode: int) -> None:
        """Give a file of the root its mode, where the file system has modes.

        CIFS and others refuse it: their files have the mode of the mount.

        Args:
            fd: Of the file, if it is open.
            path: Of the file, if it has one.
            mode: Exact.
        """
        try:
            if fd is not None and _HAS_FCHMOD:
                os.fchmod(fd, mode)
            elif path is not None:
                os.chmod(path, mode)
        except OSError as error:
            if error.errno not in _NO_MODES:
                raise
            if not self._tells_no_modes:
                self._tells_no_modes = True
                messages.NO_MODES.log(self.root, root=self.root, error=error)

    def remove(self, path: str) -> None:
        """Remove the file at `path`, made here, and the folders it leaves empty."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        posix.remove_empty_folders(os.path.dirname(path), self.root)

    def _with_name(self, make: Callable[[str], T], dmode: int) -> tuple[str, T]:
        folder = os.path.join(self.root, TEMPORARY)
        try:
            for _ in range(posix.ATTEMPTS):
                name = os.path.join(folder, secrets.token_hex(16))
                try:
                    return name, make(name)
                except FileNotFoundError:  # not made yet, or another put has just left it empty
                    posix.make_folders(folder, dmode)
            raise FileNotFoundError(errno.ENOENT, "This folder does not stay", folder)
        except BaseException:
            posix.remove_empty_folders(folder, self.root)
            raise


@contextlib.contextmanager
def no_folder_is_told(folder: str | None = None) -> Iterator[None]:
    """Raise `StoreUnavailableError` where the temporary folder takes no file.

    A full disk, and a process without descriptors, have errors of their own: see `tell_full`.

    Args:
        folder: What the error and the log name, instead of that of the system.
    """
    try:
        yield
    except OSError as error:
        if is_full(error) or lacks_descriptor(error):
            raise
        folder = folder or _temporary_folder()
        messages.UNAVAILABLE.log(folder, root=folder, error=error)
        raise StoreUnavailableError(
            f"large content cannot wait in the temporary folder {folder}: {error.strerror}; "
            "set TMPDIR to a folder that can be written"
        ) from error


def _temporary_folder() -> str:
    """Return the system's temporary folder, or where it would be: small content needs none."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return os.environ.get("TMPDIR") or os.path.join(os.sep, "tmp")


class SystemSpool(TemporaryFolder):
    """The system's temporary folder, for a backend without a folder of its own.

    Files that have to have a name lie in a folder that nobody else can enter.
    """

    def __init__(self) -> None:
        super().__init__(_temporary_folder())
        self._private: str | None = None

    def create(self, dmode: int) -> TemporaryFile:
        """Create an empty file; `dmode` is of no use, since its folder is private.

        Returns:
            The file, open, and without a name where the file system allows that.

        Raises:
            StoreUnavailableError: The temporary folder is missing, or cannot be written.
            OSError: It is full, or the process is out of descriptors.
        """
        with no_folder_is_told(self.root):
            return self._create(dmode)

    def _create(self, dmode: int) -> TemporaryFile:
        if self.unnamed:  # that of `tempfile` could not be named later
            try:
                flags = _UNNAMED | os.O_RDWR | posix.BINARY
                return TemporaryFile(os.open(self.root, flags, 0o600), None, self)
            except OSError as error:
                if error.errno not in _NO_UNNAMED_FILES:
                    raise
                self.unnamed = False
        return super().create(dmode)

    def _with_name(self, make: Callable[[str], T], dmode: int) -> tuple[str, T]:
        for _ in range(_PRIVATE_ATTEMPTS):
            folder = self._private
            if folder is None:
                folder = self._private = tempfile.mkdtemp(prefix="hashfs-", dir=self.root)
            name = os.path.join(folder, secrets.token_hex(16))
            try:
                return name, make(name)
            except FileNotFoundError:  # another thread has just left the folder empty
                self._private = None
        raise FileNotFoundError(errno.ENOENT, "No folder stays there", self.root)
