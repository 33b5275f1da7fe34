"""Many files at once: each as durable as by a put of its own, for two syncs of the disk a group."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from .._storage import posix, sources
from .._storage.backend import Backend, Commit
from .._storage.descriptors import with_room
from .._storage.full import full_is_told
from .._storage.names import Extension
from .._storage.predecessor import HashAddress
from .._storage.writer import Writer

_FILES = 128  # of one group: each may hold a descriptor
_BYTES = 256 * 1024 * 1024


@dataclass(slots=True)
class _Item:
    source: Any
    extension: Extension
    writer: Writer
    result: HashAddress | Exception | None = None


def put_files(
    store: Backend,
    files: Iterable[tuple[Any, Extension]],
    begin: Callable[[], Writer],
    commit: Commit,
) -> Generator[tuple[Any, HashAddress | Exception]]:
    """Store all `files`, and yield each with its address, or its error, once it is durable.

    Args:
        store: Where they go.
        files: Sources, as ``put`` takes them, with their extensions.
        begin: Returns a writer for one of them.
        commit: Checks and publishes what a writer took.
    """
    store.makepath(store.root)
    with _syncing(store.root) as sync, ExitStack() as writers:
        group: list[_Item] = []
        for source, extension in files:
            item = _Item(source, extension, writers.enter_context(begin()))
            _attempt(item, _read)
            group.append(item)
            size = sum(item.writer.size for item in group)
            if not store.fsync or len(group) >= _FILES or size >= _BYTES:
                yield from _publish(store, group, commit, sync)
                group = []
                writers.close()
        yield from _publish(store, group, commit, sync)


def _publish(
    store: Backend, group: list[_Item], commit: Commit, sync: Callable[[list[str]], bool]
) -> Iterator[tuple[Any, HashAddress | Exception]]:
    """Give the group its addresses: the data is on the disk first, and the names are after."""

    def spill(item: _Item) -> None:
        if not store.has(item.writer.finish()):
            item.writer.file()

    def publish(item: _Item) -> None:
        item.result = commit(item.writer, item.extension, sync=not is_synced)

    is_synced = False
    if store.fsync and group:
        for item in group:
            _attempt(item, spill)
        is_synced = sync([])
    for item in group:
        _attempt(item, publish)
    if store.fsync and group:
        sync([item.result.abspath for item in group if isinstance(item.result, HashAddress)])
    for item in group:
        assert item.result is not None
        yield item.source, item.result


def _read(item: _Item) -> None:
    sources.copy(item.source, item.writer)
    item.writer.finish()


def _attempt(item: _Item, step: Callable[[_Item], None]) -> None:
    if item.result is not None:
        return
    try:
        step(item)
    except Exception as error:
        item.result = error
        item.writer.close()


@contextmanager
def _syncing(root: str) -> Iterator[Callable[[list[str]], bool]]:
    """Give a call that waits until all that was written below `root` is on the disk.

    Where the file system cannot be synced as a whole, or fails to be, the paths given to it are,
    and it returns False: the kernel tells of what it could not write once only.
    """

    @full_is_told
    def sync(paths: list[str]) -> bool:
        if syncfs is not None and syncfs(fd) == 0:
            return True
        for path in paths:
            posix.sync_path(path)
            posix.sync_folders(os.path.dirname(path), root)
        return False

    syncfs = _syncfs()
    with full_is_told:
        fd = -1 if syncfs is None else with_room(os.open, root, os.O_RDONLY | posix.BINARY)
    try:
        yield sync
    finally:
        if fd >= 0:
            os.close(fd)


def _syncfs() -> Callable[[int], int] | None:
    """Return the C library's ``syncfs``, which Python lacks and Linux alone has."""
    try:
        call: Callable[[int], int] = ctypes.CDLL(None).syncfs
        return call
    except (AttributeError, OSError, TypeError):
        return None
