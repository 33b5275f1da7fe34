"""Where content lies below a root: its paths, looking it up, deleting and listing it."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Generator
from typing import IO, Any, BinaryIO, NamedTuple, TypeVar, cast

from .._storage import messages, page_cache, posix
from .._storage.backend import Backend
from .._storage.descriptors import with_room
from .._storage.full import lacks_descriptor
from .._storage.layout import Layout, is_any_id
from .._storage.names import File, names_of
from .._storage.predecessor import HashAddress
from .._storage.records import Content
from .._storage.spool import TemporaryFolder
from . import set_aside
from .pending import LocalUploads
from .walk import folders_below

_UP = os.sep + os.pardir
# A path that ends so is a folder's.
_FOLDER_ENDINGS = (os.sep, os.sep + os.curdir, os.sep + os.pardir)
_NOT_THERE = {
    errno.EACCES,
    errno.EINVAL,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
}

T = TypeVar("T")


class _Opened(NamedTuple):
    path: str
    fd: int
    size: int
    reads_cached: bool


class Tree(Backend):
    """The content below a folder, each under its id and any extension.

    Args:
        root: The folder; made by the first put.
        layout: How a path follows from an id.
        fmode: Exact mode of new files; None leaves them private to their owner.
        dmode: Mode of new folders, less the umask.
        fsync: Whether what a put returned survives a power cut.
    """

    is_local = True

    temporary: TemporaryFolder
    """Where content waits, inside the root, until a path names it."""

    reads_cached: bool
    """Whether the system is known to tell what it has in memory of the file opened last."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        layout: Layout,
        fmode: int | None = 0o664,
        dmode: int = 0o755,
        fsync: bool = True,
    ) -> None:
        super().__init__(os.path.realpath(root), layout)
        self.prefix = os.path.join(self.root, "")  # the root itself may end with a separator
        self.fmode = fmode
        self.dmode = dmode
        self.fsync = fsync
        self.reads_cached = False  # until a file of a local device has been opened
        self.temporary = TemporaryFolder(self.root)
        self.pending = LocalUploads(self, self.temporary)
        self._aside = os.path.join(self.root, set_aside.ASIDE)
        self._home: os.stat_result | None = None

    # -- looking up ------------------------------------------------------------------------

    def find(self, file: File) -> HashAddress | None:
        """Return the address of a stored file, or None."""
        path = self._search(file, self._stored)
        return None if path is None else self._address(path)

    def has(self, file: File) -> bool:
        """Tell whether a file is stored; its address is not needed for that."""
        return self._search(file, self._stored) is not None

    def _address(self, path: str) -> HashAddress:
        return self.address_of(path[len(self.prefix) :])

    def _search(self, file: File, ask: Callable[[str], T | None]) -> T | None:
        """Return the first answer of `ask` about a path that `file` may stand for."""
        for name in names_of(file):
            for _ in range(posix.ATTEMPTS):
                found = self._find(name, ask)
                if found is not None:
                    return found
                restored = self._restore(self.id_named(name))
                found = self._find(name, ask)  # in any case: a prune may just have put it back
                if found is not None:
                    return found
                if not restored:
                    break
        return None

    def open(self, file: File, mode: str) -> IO[Any] | None:
        """Open a stored file to read, or return None."""
        opened = self._search(file, self._open)
        if opened is None:
            return None
        return open(opened.path, mode, opener=lambda path, flags: opened.fd)

    def open_content(self, file: File, read: bool = True) -> Content | None:
        """Look up a stored file, open it if it is to be read, and measure it, to serve it.

        Args:
            file: What `get` takes.
            read: Whether its bytes will be needed.
        """
        if not read:
            return self._search(file, self._measure)
        opened = self._search(file, self._open)
        if opened is None:
            return None
        raw = cast(BinaryIO, io.FileIO(opened.fd))
        address = self._address(opened.path)
        return Content(address, raw, opened.size, opened.reads_cached, opened.path)

    def open_cached(self, file: File) -> Content | None:
        """Look up a stored file and open it, if that takes no waiting, to serve it.

        Args:
            file: Its id, or its exact path relative to the root, or its address.

        Returns:
            Its content, a small one read already; None also where it may be stored all the same.
        """
        name = names_of(file)[0]
        if not self.reads_cached:
            return None
        if self.layout.is_id(name):
            path = self.path_of(name)
        elif self.layout.id_of(name) is not None and os.path.normpath(name) == name:
            path = self.prefix + name
        else:
            return None
        opened = page_cache.open_cached(path)
        if opened is None:
            return None
        fd, state = opened
        raw = cast(BinaryIO, io.FileIO(fd))
        if state.st_size > page_cache.MOST:
            is_local = page_cache.reads_cached(fd, state.st_dev)
            return Content(self._address(path), raw, state.st_size, is_local, path)
        with raw:
            data = page_cache.read_cached(fd, 0, state.st_size)
        return None if data is None else self._in_memory(path, data)

    def _in_memory(self, path: str, data: bytes) -> Content:
        return Content(self._address(path), io.BytesIO(data), len(data), path=path)

    def haspath(self, path: str) -> bool:
        """Tell whether a path lies inside the root, all symbolic links followed."""
        return os.path.join(os.path.realpath(path), "").startswith(self.prefix)

    def relpath(self, path: str) -> str:
        """Return the part of a path that is relative to the root."""
        if path.startswith(self.prefix):
            return path[len(self.prefix) :]
        return os.path.relpath(path, self.root)

    def relpath_of(self, name: str) -> str | None:
        """Return the normal form of a path, relative to the root, or None outside of it."""
        path = self._normal(name)
        return None if path is None else path[len(self.prefix) :]

    def _find(self, name: str, ask: Callable[[str], T | None]) -> T | None:
        """Return what `ask` says of the stored file that `name` stands for, or None."""
        try:
            if is_any_id(name):
                if (found := ask(self.path_of(name))) is not None:
                    return found
                for path in self._paths_of(name):
                    if (found := ask(path)) is not None:
                        return found
            normal = self._normal(name)
            return None if normal is None else ask(normal)
        except ValueError:  # a lone surrogate
            return None
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            where = os.path.join(error.filename, os.curdir)
            if error.errno == errno.EACCES and self._is_inside(where):
                raise  # it may be stored, but this process may not look
            return None

    # What a search asks of a normal path inside the root, where nothing may be.

    def _stored(self, path: str) -> str | None:
        return path if _is_regular(path) and self._is_inside(path) else None

    def _measure(self, path: str) -> Content | None:
        state = posix.lstat(path)
        if state is None or not stat.S_ISREG(state.st_mode) or not self._is_inside(path):
            return None
        return Content(self._address(path), None, state.st_size, path=path)

    def _open(self, path: str) -> _Opened | None:
        try:
            fd, state = posix.open_measured(path, os.O_RDONLY | posix.BINARY)
        except FileNotFoundError:
            return None
        try:
            if self._holds(fd, path):
                self.reads_cached = is_local = page_cache.reads_cached(fd, state.st_dev)
                return _Opened(path, fd, state.st_size, is_local)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _holds(self, fd: int, path: str) -> bool:
        """Tell whether an open file lies inside the root: one call, where the system tells."""
        real = posix.path_of(fd)
        if real is not None and real.startswith(self.prefix):
            return not self._hides(real)
        return self._is_inside(path)

    def _is_inside(self, path: str) -> bool:
        """Tell whether no symbolic link leads from here out of the root, or into hiding."""
        folder = os.path.dirname(path)
        while len(folder) > len(self.root):
            if os.path.islink(folder):
                real = os.path.realpath(path)
                return real.startswith(self.prefix) and not self._hides(real)
            folder = os.path.dirname(folder)
        return not self._hides(path)

    def _normal(self, name: str) -> str | None:
        """Return the normal form of a path if it lies inside the root."""
        if "\0" in name or name.endswith(_FOLDER_ENDINGS):
            return None
        path = os.path.normpath(os.path.join(self.root, name))
        if not path.startswith(self.prefix):
            if not os.path.isabs(name):
                return None  # it climbs out: nothing is asked of what lies there
            folder, leaf = os.path.split(path)  # the root may be known by another path
            try:
                path = os.path.join(os.path.realpath(folder), leaf)
            except (OSError, ValueError):
                return None
        return path if path.startswith(self.prefix) else None

    def _check_inside(self, folder: str) -> None:
        """Refuse to put into a folder that a symbolic link leads out of the root to.

        Raises:
            NotADirectoryError: It leads out.
            FileNotFoundError: It does not exist.
        """
        levels = folder.count(os.sep, len(self.prefix)) + 1 if folder != self.root else 0
        up, home = os.stat(folder + _UP * levels), self._home
        if home is not None and up.st_ino == home.st_ino and up.st_dev == home.st_dev:
            return  # as many steps up from there as down to it end in the root
        self._home = os.stat(self.root)
        if os.path.samestat(up, self._home):
            return
        if not os.path.realpath(folder).startswith(self.prefix):
            raise NotADirectoryError(
                errno.ENOTDIR, "A symbolic link leads out of the store here", folder
            )

    def _split(self, path: str) -> tuple[str, str]:
        """Return folder and name of a path of this tree; ``os.path`` looks for more cases."""
        folder, _, name = path.rpartition(os.sep)
        return folder if len(folder) > len(self.root) else self.root, name

    def _leads_elsewhere(self, state: os.stat_result) -> bool:
        """Tell whether a file is on another device than the root, as by a symbolic link."""
        return self._home is None or state.st_dev != self._home.st_dev

    def _hides(self, path: str) -> bool:
        first = path[len(self.prefix) :].partition(os.sep)[0]
        return first.casefold() == posix.HIDDEN  # as a file system may fold it

    def _paths_of(self, id: str) -> list[str]:
        """Return the absolute paths of a content, sorted: one for each extension."""
        return self._paths_in(*self._split(self.path_of(id)))

    def _paths_in(self, folder: str, leaf: str) -> list[str]:
        """Return what `_paths_of` does, of the content that is called `leaf` in `folder`."""
        try:
            found = [name for name in with_room(os.listdir, folder) if name.startswith(leaf)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return found and [
            path
            for name in sorted(found)
            if name == leaf or name.startswith(os.extsep, len(leaf))
            if _is_regular(path := os.path.join(folder, name))
        ]

    def _restore(self, id: str | None) -> bool:
        """Restore what a prune has set aside of a content; tell whether there was anything."""
        if id is None or not self._has_set_aside():
            return False
        try:
            restored = [aside.restore() for aside in set_aside.all_set_aside(self, id)]
        except OSError as error:  # nothing may be written here, or no more
            if lacks_descriptor(error):
                raise  # soon it can be restored: it is not missing
            messages.NOT_RESTORED.log(self.root, id=id, error=error)
            return False
        return any(restored)

    def _has_set_aside(self) -> bool:
        """Tell whether there may be content that was set aside; it is asked by nearly every put."""
        try:
            os.stat(self._aside)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # whoever looks into it says so
            pass
        return True

    # -- deleting --------------------------------------------------------------------------

    def delete(self, file: File) -> None:
        """Delete a stored file and the folders it leaves empty; a missing one is no error.

        Args:
            file: An id deletes the content under all its paths, anything else only the
                one path that it stands for.

        Raises:
            OSError: The file system refuses.
        """
        name = names_of(file)[0]
        for _ in range(posix.ATTEMPTS):
            path = self._search(name, self._stored)
            if path is None or self._delete(name, path):
                return

    def _delete(self, name: str, path: str) -> bool:
        """Delete a path, or all of an id; False if a prune at work may have kept one."""
        paths = (is_any_id(name) and self._paths_of(name)) or [path]
        done = True
        for each in paths:
            try:
                os.unlink(each)
            except FileNotFoundError:
                done = False
        posix.remove_empty_folders(os.path.dirname(path), self.root)
        id = self.id_named(path)
        if id is not None:
            suffix = None if self.layout.is_id(name) else path[len(self.path_of(id)) :]
            for aside in set_aside.all_set_aside(self, id):
                done = not aside.delete(suffix) and done
        return done

    def remove_empty(self, path: str) -> None:
        """Remove a folder and its parents inside the root, as far up as they are empty."""
        normal = self._normal(os.path.abspath(path))
        if normal is not None:
            posix.remove_empty_folders(normal, self.root)

    def makepath(self, path: str) -> None:
        """Create the folder `path` and its missing parents.

        Raises:
            NotADirectoryError: A file stands in the way.
        """
        self._make_folder(path)

    def _make_folder(self, path: str) -> bool:
        """Create a folder and its missing parents; return whether it was not there yet."""
        if not os.path.isdir(self.root):
            self.temporary.is_new = True
        return posix.make_folders(path, self.dmode)

    # -- listing ---------------------------------------------------------------------------

    def files(self) -> Generator[str]:
        """Iterate over the absolute paths of all regular files, hidden ones left out."""
        for folder in folders_below(self.root, self.root):
            for file in folder.files:
                yield file.path

    def folders(self) -> Generator[str]:
        """Iterate over the absolute paths of all folders that hold files."""
        for folder in folders_below(self.root, self.root):
            if folder.files:
                yield folder.path

    def size(self) -> int:
        """Return the total size in bytes of all files."""
        states = map(posix.lstat, self.files())
        return sum(state.st_size for state in states if state is not None)


def _is_regular(path: str) -> bool:
    state = posix.lstat(path)
    return state is not None and stat.S_ISREG(state.st_mode)
