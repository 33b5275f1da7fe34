"""The kept files of a cache: where they lie, whether they are whole, how long they are trusted.

A kept file bears its own marks, so nothing else has to be read for a hit, and a cache that is
copied or deleted takes them along:

- its date of change is when the store was last known to have it, in tenths of a second; the digits
  behind are a hash of its size. Whoever writes to the file or cuts it sets another date, and what a
  power cut has shortened has another size; both show (but for one case in a million, and an empty
  file always), so such a file is never served;
- its date of access is when it was last used (`uses.py`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .._storage import posix
from .._storage.descriptors import with_room
from .._storage.layout import Layout
from .count import Count
from .telling import Telling

_SECOND = 1_000_000_000  # nanoseconds
_TENTH = _SECOND // 10
_STEP = 100  # nanoseconds: what NTFS tells dates by, and all others more exactly
_NOT_THERE = (FileNotFoundError, NotADirectoryError)


class Kept(NamedTuple):
    """A kept file, open."""

    relpath: str
    path: str
    fd: int
    state: os.stat_result


class KeptFiles:
    """The files of a cache.

    Args:
        folder: Of the cache.
        layout: That of the store.
        fmode: Mode of the files.
        dmode: Mode of the folders, less the umask.
        telling: Logs what fails.
    """

    def __init__(
        self, folder: str, layout: Layout, fmode: int, dmode: int, telling: Telling
    ) -> None:
        self.root = os.path.join(folder, "files")
        self.filling = os.path.join(folder, "filling")
        """Where the files lie that are not whole yet, each locked by whoever writes it."""
        self._ids = os.path.join(folder, "ids")
        self._layout = layout
        self._fmode = fmode
        self.dmode = dmode
        self._telling = telling
        self.count = Count(os.path.join(folder, "count"), self._walk, dmode)

    def path_of(self, relpath: str) -> str:
        """Return where the file with this path in the store is kept."""
        return f"{self.root}{os.sep}{relpath}"

    def open(self, relpath: str) -> Kept | None:
        """Open a kept file; one that is not whole is dropped."""
        path = self.path_of(relpath)
        try:
            fd, state = posix.open_measured(path, os.O_RDONLY | posix.BINARY)
        except _NOT_THERE:
            return None
        except OSError as error:
            self._telling.failing(error)
            return None
        if is_whole(state):
            return Kept(relpath, path, fd, state)
        os.close(fd)
        self._drop(relpath)
        return None

    # -- which path an id leads to ---------------------------------------------------------

    def relpath_of(self, id: str) -> str:
        """Return the path that the store has a content under when it is asked by its id."""
        path = self._layout.path_of(id)
        with contextlib.suppress(OSError):
            return path + os.readlink(os.path.join(self._ids, path))
        return path

    def remember(self, id: str, relpath: str) -> None:
        """Remember the path that an id leads to, where it has an extension."""
        plain = self._layout.path_of(id)
        suffix, link = relpath[len(plain) :], os.path.join(self._ids, plain)
        if not suffix or self.relpath_of(id) == relpath:
            return
        try:
            self.forget_path(id)
            self.made(lambda: os.symlink(suffix, link), link)
        except FileExistsError:
            return
        except OSError as error:
            self._telling.failing(error)

    def forget_path(self, id: str) -> None:
        """Forget the path that an id led to."""
        self._remove(os.path.join(self._ids, self._layout.path_of(id)))

    # -- keeping ---------------------------------------------------------------------------

    def seal(self, fd: int) -> None:
        """Mark an open file as whole and as stored now."""
        if hasattr(os, "fchmod"):
            os.fchmod(fd, self._fmode)
        size = os.fstat(fd).st_size
        os.utime(fd, ns=(time.time_ns(), _mark(size)))

    def publish(
        self, fd: int, name: str, relpath: str, limit: int, *, has_others: bool = False
    ) -> bool:
        """Keep a sealed file, unless it has been dropped while it was written.

        Args:
            fd: Of the file.
            name: Its name below `filling`.
            relpath: Its path in the store.
            limit: Bytes that the cache may hold.
            has_others: Whether it may have names elsewhere, by which it stays when that one is
                gone. No other file has ever that name then.

        Returns:
            False where there is no room for it.

        Raises:
            OSError: The disk fails, or the count cannot be opened.
        """
        path = self.path_of(relpath)
        is_counted = False
        try:
            with self.count.adding(os.fstat(fd).st_size, limit) as has_room:
                is_counted = True
                if not has_room:
                    return False
                self._name(fd, name, path, has_others)
        except (FileExistsError, FileNotFoundError):  # kept already, or dropped
            if not is_counted:
                raise
        return True

    def renew(self, kept: Kept) -> None:
        """Mark a kept file as stored now."""
        try:
            os.utime(kept.path, ns=(time.time_ns(), _mark(kept.state.st_size)))
        except _NOT_THERE:
            return
        except OSError as error:
            self._telling.failing(error)

    def _name(self, fd: int, name: str, path: str, has_others: bool) -> None:
        filled = os.path.join(self.filling, name)

        def link() -> None:
            if not has_others and os.path.isdir(posix.PROC):
                try:
                    os.link(f"{posix.PROC}/{fd}", path, src_dir_fd=fd)
                    return
                except OSError as error:
                    if not posix.refuses_links(error):
                        raise
            posix.link_or_rename(filled, path)

        self.made(link, path, lambda: not posix.is_at(fd, filled))

    def made(
        self, make: Callable[[], object], path: str, is_gone: Callable[[], bool] = lambda: False
    ) -> None:
        """Call `make`, which makes `path`; make its folder as often as others delete it.

        Args:
            make: Makes it.
            path: The new path.
            is_gone: Tells whether the file that gets this name is gone.

        Raises:
            FileNotFoundError: It is gone.
        """
        for _ in range(posix.ATTEMPTS):
            try:
                make()
                return
            except FileNotFoundError:
                if not posix.make_folders(os.path.dirname(path), self.dmode) and is_gone():
                    raise
        raise FileNotFoundError(f"{path} does not stay")

    # -- dropping --------------------------------------------------------------------------

    def drop(self, relpath: str) -> None:
        """Drop a kept file, if it is there, and any that is on its way."""
        id = self._layout.id_of(relpath)
        if id is not None:
            self._drop_filling(id)
        self._drop(relpath)

    def drop_id(self, id: str) -> None:
        """Drop a content under all its paths."""
        self._drop_filling(id)
        plain = self._layout.path_of(id)
        folder, leaf = os.path.split(plain)
        try:
            names = with_room(os.listdir, self.path_of(folder))
        except OSError:
            names = []
        for name in names:
            if name == leaf or name.startswith(leaf + "."):
                self._drop(os.path.join(folder, name))

    def _drop(self, relpath: str) -> None:
        try:
            self.unlink(relpath)
        except OSError as error:
            self._telling.failing(error)

    def unlink(self, relpath: str, *, counted: bool = True) -> bool:
        """Delete a kept file; tell whether it was there.

        Args:
            relpath: Of the file.
            counted: Whether to uncount it at once.
        """
        path = self.path_of(relpath)
        id = self._layout.id_of(relpath)
        if id is not None:
            self.forget_path(id)
        if posix.lstat(path) is None:  # the count is not looked at for nothing
            return False
        try:
            if counted:
                self.count.removing(lambda: _delete(path))
            else:
                _delete(path)
        except _NOT_THERE:
            return False
        posix.remove_empty_folders(os.path.dirname(path), self.root)
        return True

    def _drop_filling(self, id: str) -> None:
        for name in self.filling_names():
            if name.startswith(id):
                self._remove(os.path.join(self.filling, name))

    def _remove(self, path: str) -> None:
        """Remove a name; that the disk fails is nothing to who has asked the store already."""
        try:
            os.unlink(path)
        except _NOT_THERE:
            return
        except OSError as error:
            self._telling.failing(error)

    def filling_names(self) -> list[str]:
        """Return the names of the files that are being written, or were when a process died."""
        try:
            return with_room(os.listdir, self.filling)
        except OSError:
            return []

    def clear_unfinished(self) -> None:
        """Delete what killed processes have left unfinished."""
        for name in self.filling_names():
            path = os.path.join(self.filling, name)
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDWR | posix.BINARY)
                try:
                    if posix.lock(fd, wait=False):
                        try:
                            os.unlink(path)
                        finally:
                            posix.unlock(fd)
                finally:
                    os.close(fd)

    # -- all of them -----------------------------------------------------------------------

    def walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Iterate over the relative paths of all kept files, and their states."""
        todo = [self.root]
        while todo:
            try:
                entries = os.scandir(todo.pop())
            except OSError:
                continue
            with entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                        continue
                    with contextlib.suppress(OSError):
                        state = entry.stat(follow_symlinks=False)
                        yield entry.path[len(self.root) + 1 :], state

    def is_any(self) -> bool:
        """Tell whether any file is kept."""
        try:
            return bool(os.listdir(self.root))
        except OSError:
            return False

    def _walk(self) -> tuple[int, int]:
        bytes = files = 0
        for _, state in self.walk():
            bytes += state.st_size
            files += 1
        return bytes, files


def _delete(path: str) -> int:
    """Delete a file, and return its bytes."""
    size = os.lstat(path).st_size
    os.unlink(path)
    return size


def is_whole(state: os.stat_result) -> bool:
    """Tell whether a file is as it was sealed."""
    return state.st_mtime_ns % _TENTH == _digits(state.st_size)


def is_trusted(state: os.stat_result, seconds: float) -> bool:
    """Tell whether a kept file was stored `seconds` ago or later."""
    return 0 <= time.time_ns() - _tenth(state.st_mtime_ns) < seconds * _SECOND


def _mark(size: int) -> int:
    return _tenth(time.time_ns()) + _digits(size)


def _tenth(date: int) -> int:
    return date // _TENTH * _TENTH


@functools.lru_cache(4096)
def _digits(size: int) -> int:
    """Return what is never 0, which dates of whole seconds end with, and for size 0 alone the last.

    Hashed, since sizes are often multiples of each other.
    """
    last = _TENTH // _STEP - 1
    return (zlib.crc32(b"%d" % size) % (last - 1) + 1 if size else last) * _STEP
