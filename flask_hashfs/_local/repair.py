"""Files that do not lie where their bytes belong, and how they get there."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from .._storage import messages, posix
from .._storage.predecessor import HashAddress
from .lookup import Tree
from .set_aside import SetAside


class Misplaced(NamedTuple):
    """A file that does not lie where its bytes belong."""

    path: str
    address: HashAddress
    """Where they belong."""
    state: os.stat_result


def misplaced(store: Tree, extensions: bool) -> Iterator[Misplaced]:
    """Hash every file, and yield those that lie in a wrong place; see `Backend.corrupted`."""
    for path in store.files():
        try:
            id, state = _hash(store, path)
        except FileNotFoundError:  # deleted meanwhile
            continue
        suffix = store.layout.suffix_of(store.relpath(path), id) if extensions else ""
        expected = store.layout.path_of(id, suffix)
        if store.prefix + expected != path:
            address = HashAddress(id, expected, store.prefix + expected)
            yield Misplaced(path, address, state)


def repair(store: Tree, extensions: bool) -> list[tuple[str, HashAddress]]:
    """Move every file to where its bytes belong; see `Backend.repair`."""
    wrong = {found.path: found for found in misplaced(store, extensions)}
    repaired = []
    for path in tuple(wrong):
        with contextlib.ExitStack() as stack:
            chain = []
            found = wrong.pop(path, None)
            while found is not None:  # what stands in its place goes first, as in a cycle
                chain.append((found, stack.enter_context(_held(store, found))))
                found = wrong.pop(found.address.abspath, None)
            for found, source in reversed(chain):
                if source is not None and _move(store, source, found.address):
                    repaired.append((found.path, found.address))
        for found, _ in chain:
            posix.remove_empty_folders(os.path.dirname(found.path), store.root)
    return repaired


@contextlib.contextmanager
def _held(store: Tree, found: Misplaced) -> Iterator[str | None]:
    """Yield where the file can be taken from, or None if it is not the one that was hashed.

    At an address a put could heal it at any moment, so from there it is taken aside first.
    """
    id = store.layout.id_of(store.relpath(found.path))
    if id is None:
        yield found.path if _is_same(found.path, found.state) else None
        return
    aside = SetAside.make(store, id)
    try:
        taken = aside.files() if aside.move_in(found.path) else []
        yield next((path for path in taken if _is_same(path, found.state)), None)
    finally:
        aside.restore()


def _is_same(path: str, state: os.stat_result) -> bool:
    there = posix.lstat(path)
    return (
        there is not None
        and os.path.samestat(there, state)
        and (there.st_size, there.st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    )


def _move(store: Tree, source: str, address: HashAddress) -> bool:
    target: str = address.abspath
    for _ in range(posix.ATTEMPTS):
        try:
            posix.link_or_rename(source, target)
        except FileNotFoundError:
            if posix.lstat(source) is None:  # deleted meanwhile, or put back by a look-up
                return False
            store.makepath(os.path.dirname(target))
            continue
        except FileExistsError:
            if not _holds(store, target, address.id):
                messages.TAKEN.log(store.root, path=source, target=target)
                return False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(source)
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            _settle(store, target)
        return True
    return False


def _settle(store: Tree, path: str) -> None:
    if store.fmode is not None:
        store.temporary.set_mode(None, path, store.fmode)
    if store.fsync:
        posix.sync_path(path)
        posix.sync_folders(os.path.dirname(path), store.root)


def _holds(store: Tree, path: str, id: str) -> bool:
    try:
        return _hash(store, path)[0] == id
    except FileNotFoundError:  # or no file at all
        return False


def _hash(store: Tree, path: str) -> tuple[str, os.stat_result]:
    with open(path, "rb", buffering=0, opener=posix.open_regular) as file:
        state = os.fstat(file.fileno())
        hash = hashlib.file_digest(file, store.layout.new_hash)
        return hash.hexdigest(), state
