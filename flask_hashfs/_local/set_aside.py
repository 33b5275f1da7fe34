"""Paths that a prune has set aside while it decides about them: no put or look-up loses one.

A prune never deletes a path where it stands: between its look at the age and the unlink, a put
could renew the content and return. It moves the paths of one content into a folder of its own,
``.hashfs/aside/<id>~<token>``, looks again, and deletes them there or restores them. A put or a
look-up that misses restores all that was set aside of the id. No two of these folders have the
same path, so an unlink in one can only ever meet the file that it was meant for, whoever else is
at work or was killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator

from .._storage import messages, posix
from .._storage.backend import Backend
from .._storage.descriptors import with_room

ASIDE = os.path.join(posix.HIDDEN, "aside")
"""Where the folders of what is set aside lie, below the root."""

_STEM = "content"  # of a file that is set aside; the extension follows
_MARK = "~"


class SetAside:
    """The paths of one content that one prune has moved out of sight."""

    def __init__(self, backend: Backend, id: str, path: str) -> None:
        self.id = id
        self.path = path
        self._backend = backend
        self._address = backend.path_of(id)

    @classmethod
    def make(cls, backend: Backend, id: str) -> SetAside:
        """Make an empty folder for the paths of the content `id`."""
        folder = os.path.join(backend.root, ASIDE)
        aside = cls(backend, id, os.path.join(folder, id + _MARK + secrets.token_hex(8)))
        backend.makepath(aside.path)
        return aside

    def move_in(self, path: str) -> bool:
        """Set one path of the content aside; tell whether anything was there still."""
        suffix = path[len(self._address) :]
        while True:
            try:
                os.rename(path, os.path.join(self.path, _STEM + suffix))
            except FileNotFoundError:
                if posix.lstat(path) is None:
                    return False
                self._backend.makepath(self.path)  # a look-up has removed the empty folder
            else:
                return True

    def files(self) -> list[str]:
        """Return where the files lie now."""
        try:
            with with_room(os.scandir, self.path) as entries:
                return [entry.path for entry in entries if entry.name.startswith(_STEM)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self, suffix: str | None = None) -> bool:
        """Delete the files, or only that of one extension; tell whether there was any."""
        name = None if suffix is None else _STEM + suffix
        gone = [path for path in self.files() if name in (None, os.path.basename(path))]
        for path in gone:
            _unlink(path)
        return bool(gone)

    def restore(self) -> bool:
        """Give every file its path again; tell whether any has one now."""
        placed = [self._restore(path) for path in self.files()]
        self.close()
        return any(placed)

    def close(self) -> None:
        """Remove the folder if it is empty, and what it leaves empty."""
        posix.remove_empty_folders(self.path, self._backend.root)

    def _restore(self, path: str) -> bool:
        """Give one file its path again; False if something else stands there."""
        target = self._address + os.path.basename(path)[len(_STEM) :]
        while True:
            there = posix.lstat(target)
            if there is not None and not stat.S_ISREG(there.st_mode):
                messages.BLOCKED.log(self._backend.root, path=path, target=target)
                return False
            try:
                os.link(path, target)
            except FileExistsError:  # put anew meanwhile
                if not _as_young(self._backend.root, path, target):
                    continue
            except FileNotFoundError:
                if posix.lstat(path) is None:
                    return True  # somebody else has restored it, or it is gone for good
                self._backend.makepath(os.path.dirname(target))
                continue
            except OSError as error:
                if not posix.refuses_links(error):
                    raise
                if _replace(self._backend.root, path, target):
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
def keep_folder(backend: Backend) -> Iterator[None]:
    """Keep ``.hashfs/aside``, which would else go and come again with each of many contents."""
    keeper = SetAside.make(backend, "keep")  # left by a killed prune, it is cleared as others are
    try:
        yield
    finally:
        keeper.close()


def all_set_aside(backend: Backend, id: str | None = None) -> Iterator[SetAside]:
    """Yield all that is set aside, or what is of one content."""
    try:
        with with_room(os.scandir, os.path.join(backend.root, ASIDE)) as entries:
            found = [entry.name for entry in entries if id is None or entry.name.startswith(id)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in found:
        owner, mark, _ = name.partition(_MARK)
        if mark and owner.isalnum() and id in (None, owner):
            yield SetAside(backend, owner, os.path.join(backend.root, ASIDE, name))


def _as_young(root: str, path: str, target: str) -> bool:
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
            messages.NOT_RENEWED.log(root, path=target, error=error)
    return posix.lstat(target) is not None


def _replace(root: str, path: str, target: str) -> bool:
    """Rename, where links are refused; False if it has to be tried again."""
    try:
        os.utime(path)  # what it may overwrite can have been put a moment ago
    except FileNotFoundError:
        return True
    except OSError as error:
        messages.NOT_RENEWED.log(root, path=path, error=error)
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
