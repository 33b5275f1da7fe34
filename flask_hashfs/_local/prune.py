"""Prune: content goes that is neither in use nor young, and no put at the same time loses any."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain

from .._storage import messages, posix
from .._storage.backend import Backend
from .._storage.records import InUse
from . import leftovers
from .set_aside import SetAside, keep_folder
from .walk import folders_below


def prune(store: Backend, in_use: InUse, older_than: timedelta, dry_run: bool) -> list[str]:
    """Delete what is neither in use nor young; see `Backend.prune`."""
    youngest = in_use.since - older_than // timedelta(microseconds=1) * 1000
    if dry_run:
        return [id for id, _ in _candidates(store, in_use, youngest, tidy=False)]
    leftovers.clear(store)
    candidates = _candidates(store, in_use, youngest, tidy=True)
    first = next(candidates, None)
    if first is None:
        return []
    with keep_folder(store):
        return [
            id for id, paths in chain([first], candidates) if _delete(store, id, paths, youngest)
        ]


def _candidates(
    store: Backend, in_use: InUse, youngest: int, tidy: bool
) -> Iterator[tuple[str, list[str]]]:
    """Yield each content, with its paths, that is not in use and was not put lately."""
    for folder in folders_below(store.root, store.root):
        if tidy and folder.is_empty and _is_shard(store, store.relpath(folder.path)):
            posix.remove_empty_folders(folder.path, store.root)  # of a put that was killed
        found: dict[str, list[str]] = {}
        for entry in folder.files:
            id = store.layout.id_of(store.relpath(entry.path))
            if id is not None and id not in in_use:
                found.setdefault(id, []).append(entry.path)
        for id, paths in found.items():
            states = [state for path in paths if (state := posix.lstat(path)) is not None]
            if states and all(state.st_mtime_ns < youngest for state in states):
                yield id, paths


def _delete(store: Backend, id: str, paths: list[str], youngest: int) -> bool:
    aside = SetAside.make(store, id)
    try:
        taken = [aside.move_in(path) for path in paths]
        if not any(taken):
            return False
        states = [state for path in aside.files() if (state := posix.lstat(path)) is not None]
        if all(state.st_mtime_ns < youngest for state in states) and aside.delete():
            posix.remove_empty_folders(os.path.dirname(paths[0]), store.root)
            return True
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        messages.OTHER_DISK.log(store.root, path=paths[0])
    finally:
        aside.restore()
    return False


def _is_shard(store: Backend, relpath: str) -> bool:
    """Tell whether `relpath` could be the folder of a content."""
    flat = relpath.replace(os.sep, "")
    digits = store.layout.id_length
    if not flat or len(flat) >= digits or flat.strip("0123456789abcdef"):
        return False
    address = store.layout.path_of(flat.ljust(digits, "0"))
    return address.startswith(relpath + os.sep)
