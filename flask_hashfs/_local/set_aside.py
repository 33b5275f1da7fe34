"""Where names lie while a sweep decides about them, so that no put and no look-up loses one.

A sweep never deletes a name where it stands: between its look at the age and the unlink, a put
could renew the content and return. It moves the names of a content into a box of their own,
``.hashfs/aside/<id>~<token>``, looks again, and deletes them there or puts them back. A put or a
look-up that misses puts back every box of the id. No two boxes share a path, so an unlink in
one can only ever meet the file that it was meant for, whoever else is at work or was killed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
from collections.abc import Iterator

from .._storage import posix
from .._storage.backend import Backend

logger = logging.getLogger("flask_hashfs")

_ASIDE = os.path.join(posix.HIDDEN, "aside")
_LEAF = "content"  # in a box, in the place of the address; the extension follows
_MARK = "~"


class Box:
    """The names of one content that one sweep has moved out of sight."""

    def __init__(self, backend: Backend, id: str, path: str) -> None:
        self.id = id
        self.path = path
        self._backend = backend
        self._address = backend.path_of(id)

    @classmethod
    def make(cls, backend: Backend, id: str) -> Box:
        """Make an empty box."""
        aside = os.path.join(backend.root, _ASIDE)
        box = cls(backend, id, os.path.join(aside, id + _MARK + secrets.token_hex(8)))
        backend.makepath(box.path)
        return box

    def take(self, path: str) -> bool:
        """Move the name `path` of the content into the box; tell whether it was there still."""
        suffix = path[len(self._address) :]
        while True:
            try:
                os.rename(path, os.path.join(self.path, _LEAF + suffix))
            except FileNotFoundError:
                if posix.lstat(path) is None:
                    return False
                self._backend.makepath(self.path)  # a look-up took the empty box away
            else:
                return True

    def files(self) -> list[str]:
        """Return the paths of what is in the box."""
        try:
            with os.scandir(self.path) as entries:
                return [entry.path for entry in entries if entry.name.startswith(_LEAF)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self, suffix: str | None = None) -> bool:
        """Delete what is in the box, or only one extension; tell whether anything was."""
        name = None if suffix is None else _LEAF + suffix
        gone = [path for path in self.files() if name in (None, os.path.basename(path))]
        for path in gone:
            _unlink(path)
        return bool(gone)

    def put_back(self) -> bool:
        """Give everything in the box its address again; tell whether anything has one now."""
        placed = [self._put_back(path) for path in self.files()]
        self.close()
        return any(placed)

    def close(self) -> None:
        """Remove the box if it is empty, and what it leaves empty."""
        posix.remove_empty_folders(self.path, self._backend.root)

    def _put_back(self, path: str) -> bool:
        """Give one file its address again; False if something else stands there."""
        target = self._address + os.path.basename(path)[len(_LEAF) :]
        while True:
            there = posix.lstat(target)
            if there is not None and not stat.S_ISREG(there.st_mode):
                logger.warning("%s stays there, since no file stands at %s", path, target)
                return False
            try:
                os.link(path, target)
            except FileExistsError:  # put anew meanwhile
                if not _as_young(path, target):
                    continue
            except FileNotFoundError:
                if posix.lstat(path) is None:
                    return True  # another one has put it back, or it is gone for good
                self._backend.makepath(os.path.dirname(target))
                continue
            except OSError as error:
                if not posix.refuses_links(error):
                    raise
                if _replace(path, target):
                    return True
                continue
            self._sync(target)
            _unlink(path)
            return True

    def _sync(self, target: str) -> None:
        if self._backend.fsync:
            try:
                posix.sync_folders(os.path.dirname(target), self._backend.root)
            except FileNotFoundError:  # deleted meanwhile
                pass


@contextlib.contextmanager
def kept(backend: Backend) -> Iterator[None]:
    """Keep the folder of the boxes, which would go and come again with each of many."""
    box = Box.make(backend, "none")  # left by a killed sweep, it goes as other boxes do
    try:
        yield
    finally:
        box.close()


def boxes(backend: Backend, id: str | None = None) -> Iterator[Box]:
    """Yield all boxes, or those of one content."""
    try:
        with os.scandir(os.path.join(backend.root, _ASIDE)) as entries:
            found = [entry.name for entry in entries if id is None or entry.name.startswith(id)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in found:
        owner, mark, _ = name.partition(_MARK)
        if mark and owner.isalnum() and id in (None, owner):
            yield Box(backend, owner, os.path.join(backend.root, _ASIDE, name))


def _as_young(path: str, target: str) -> bool:
    """Make the file at `target` no older than that at `path`; False if one of them is gone."""
    state, there = posix.lstat(path), posix.lstat(target)
    if state is None or there is None:
        return state is None
    if state.st_mtime_ns > there.st_mtime_ns:
        try:
            os.utime(target)
        except FileNotFoundError:
            return False
        except OSError as error:
            logger.warning("The age of %s cannot be renewed: %s", target, error)
    return posix.lstat(target) is not None


def _replace(path: str, target: str) -> bool:
    """Rename, where links are refused; False if it has to be tried again."""
    try:
        os.utime(path)  # what it may overwrite can have been put a moment ago
    except FileNotFoundError:
        return True
    except OSError as error:
        logger.warning("The age of %s cannot be renewed: %s", path, error)
    try:
        os.replace(path, target)
    except FileNotFoundError:
        return posix.lstat(path) is None
    return True


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
