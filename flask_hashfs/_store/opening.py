"""The store that a configuration, a folder or a URL names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from .._bucket.connect import SCHEMES, is_url
from .store import HashFS

__all__ = ["SCHEMES", "CacheSettings", "is_url", "open_like", "open_store"]


class CacheSettings(NamedTuple):
    """A cache before a store; see `CachedBackend`."""

    folder: str
    size: int
    file_size: int
    trust: float


def open_store(
    root: str,
    *,
    depth: int,
    width: int,
    algorithm: str,
    max_size: int | None,
    fmode: int | None,
    dmode: int,
    fsync: bool,
    options: Mapping[str, Any],
    max_age: int | None,
    inline_types: Collection[str],
    cache: CacheSettings | None = None,
) -> HashFS:
    """Return the store at `root`; nothing is made or sent before it is used.

    Args:
        root: A folder, or the URL of an object store.
        depth: Number of nested folders a file lies in.
        width: Characters of each folder's name.
        algorithm: A name that ``hashlib.new`` takes.
        max_size: Bytes that one file may have, or None.
        fmode: Of a folder's files; see `HashFS`.
        dmode: Of a folder's folders.
        fsync: Whether a folder's files survive a power cut.
        options: Of an object store; see `ObjectStore`.
        max_age: Of an object store.
        inline_types: Of an object store.
        cache: The folder of this machine before it, or None.

    Raises:
        ConfigError: The object store cannot be opened.
        ValueError: An unknown algorithm.
    """
    store: HashFS
    if is_url(root):
        from .object_store import ObjectStore  # most apps keep their files in a folder

        store = ObjectStore(
            root,
            depth,
            width,
            algorithm,
            max_size=max_size,
            options=options,
            max_age=max_age,
            inline_types=inline_types,
        )
    else:
        store = HashFS(root, depth, width, algorithm, fmode, dmode, fsync=fsync, max_size=max_size)
    if cache is not None:
        store.backend.fmode, store.backend.dmode = fmode, dmode  # a bucket has none of its own
        from .._cache.backend import CachedBackend  # few stores have one

        store.backend = CachedBackend(store.backend, *cache)
    return store


def open_like(store: HashFS, root: str, options: Mapping[str, Any]) -> HashFS:
    """Return the store at `root` with the layout and the modes of `store`, and no limit.

    Args:
        store: Another one.
        root: A folder, or the URL of an object store.
        options: Of the object store.
    """
    layout = (store.depth, store.width, store.algorithm)
    if is_url(root):
        from .object_store import ObjectStore

        return ObjectStore(root, *layout, options=options)
    return HashFS(root, *layout, store.fmode, store.dmode, fsync=store.fsync)
