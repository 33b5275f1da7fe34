"""What lies below a root: every file, and the store in numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .._storage import posix
from .._storage.backend import Backend
from .._storage.records import Entry, Stats
from .._storage.spool import TEMPORARY
from .walk import folders_below

QUARANTINE = os.path.join(posix.HIDDEN, "quarantine")
"""Where a verify moves damaged files to."""


def contents(store: Backend) -> Iterator[tuple[str, str]]:
    """Yield the id and the path of every name of every content."""
    for folder in folders_below(store.root, store.root):
        for entry in folder.files:
            id = store.layout.id_of(store.relpath(entry.path))
            if id is not None:
                yield id, entry.path


def entries(store: Backend) -> Iterator[Entry]:
    """Yield every file below the root, hidden ones left out."""
    for folder in folders_below(store.root, store.root):
        for file in folder.files:
            state = posix.lstat(file.path)
            if state is not None:
                relpath = store.relpath(file.path)
                yield Entry(store.layout.id_of(relpath), relpath, state.st_size, state.st_mtime)


def stats(store: Backend) -> Stats:
    """Count what the store holds."""
    result = Stats()
    for folder in folders_below(store.root, store.root):
        ids: set[str] = set()
        inodes: set[tuple[int, int]] = set()  # all paths of a content lie in one folder
        for file in folder.files:
            state = posix.lstat(file.path)
            if state is None:
                continue
            relpath = store.relpath(file.path)
            id, inode = store.layout.id_of(relpath), (state.st_dev, state.st_ino)
            entry = Entry(id, relpath, state.st_size, state.st_mtime)
            result.add(entry, is_link=inode in inodes)
            if id is not None:
                ids.add(id)
                inodes.add(inode)
        result.contents += len(ids)
    result.left_overs = sum(1 for _ in files_below(store, TEMPORARY))
    result.quarantined = sum(1 for _ in files_below(store, QUARANTINE))
    return result


def files_below(store: Backend, relpath: str) -> Iterator[str]:
    """Yield the paths of all files below one folder of the root."""
    for folder in folders_below(store.root, os.path.join(store.root, relpath)):
        for file in folder.files:
            yield file.path
