"""The walk through a tree that every listing takes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from .._storage import messages, posix
from .._storage.descriptors import with_room

_LEFT_OUT = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


class Folder(NamedTuple):
    """A folder that the walk has come to."""

    path: str
    files: list[os.DirEntry[str]]
    """The regular files that lie right in it."""
    folders: list[str]
    """The paths of the folders that lie right in it."""
    is_empty: bool
    """Whether nothing at all lies in it."""


def folders_below(root: str, start: str) -> Iterator[Folder]:
    """Yield `start` and every folder below it, however deep; no symbolic link is followed.

    A folder that may not be entered, such as ``lost+found``, is left out with a warning.

    Args:
        root: The store's; its hidden folder is passed over.
        start: The folder to begin with: `root`, or one below it.

    Raises:
        PermissionError: `root` itself may not be entered, so nothing can be listed.
    """
    waiting = [start]
    while waiting:
        path = waiting.pop()
        try:
            folder = _read(path)
        except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile
            continue
        except OSError as error:
            if error.errno not in _LEFT_OUT or path == root:
                raise
            messages.LEFT_OUT.log(root, path=path, error=error.strerror)
            continue
        yield folder
        inner = folder.folders
        if path == root:
            inner = [each for each in inner if not _is_hidden(each)]
        waiting.extend(reversed(inner))


def _read(path: str) -> Folder:
    files, folders, others = [], [], False
    with with_room(os.scandir, path) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                files.append(entry)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                others = True
    if files or folders:
        os.stat(os.path.join(path, os.curdir))  # it may be one that can be read, but not entered
    return Folder(path, files, folders, not (files or folders or others))


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).casefold() == posix.HIDDEN  # as a file system may fold it
