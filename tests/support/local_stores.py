"""Local stores to test with, on a file system that can do everything or less."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flask_hashfs import HashFS
from flask_hashfs._local.backend import LocalBackend
from flask_hashfs._storage.spool import TemporaryFolder

WAYS = ["unnamed", "named", "renamed"]
"""How content gets its address: from an unnamed file, a named one, or where no links are."""


@contextmanager
def local_stores(
    way: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., HashFS]]:
    """Give a function that makes empty stores in `folder`, and check in the end that they are tidy.

    Descriptors are counted too.
    """
    stores: list[HashFS] = []
    if way == "renamed":
        refuse_links(monkeypatch)

    def new_store(**options: Any) -> HashFS:
        store = HashFS(folder / str(len(stores)), **{"fsync": False, **options})
        if way != "unnamed":
            spool_of(store).unnamed = False
        stores.append(store)
        return store

    before = open_files()
    yield new_store
    assert open_files() == before
    for store in stores:
        assert_tidy(store)


def backend_of(store: HashFS) -> LocalBackend:
    """Return the folder that the content of `store` lies in."""
    backend = store.backend.past_cache
    assert isinstance(backend, LocalBackend)
    return backend


def spool_of(store: HashFS) -> TemporaryFolder:
    """Return where content waits for its address; its `unnamed` is for tests to turn off."""
    return backend_of(store).temporary


def has_unnamed_files(folder: Path) -> bool:
    """Tell whether the file system of `folder` has them: network file systems mostly have not."""
    spool = spool_of(HashFS(folder / "trial"))
    spool.create(0o755).close()
    return spool.unnamed


def refuse_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file system do without hard links, as FAT and many network ones."""

    def link(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


def write_few_bytes(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let each call write `most` bytes at most; return what lists how many each has written."""
    counts: list[int] = []

    def limited(call: Callable[..., int]) -> Callable[..., int]:
        def write(fd: int, data: Any, *position: int) -> int:
            counts.append(call(fd, bytes(data)[:most], *position))
            return counts[-1]

        return write

    for name in ("write", "pwrite"):
        if hasattr(os, name):
            monkeypatch.setattr(os, name, limited(getattr(os, name)))
    return counts


def open_files() -> list[str]:
    """Return what the descriptors of this process lead to."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # that of the listing itself
            pass
    return sorted(found)


def inventory(root: Path) -> list[Path]:
    """Return everything below a store's root, hidden or not."""
    return sorted(path for path in root.rglob("*") if not path.is_dir() or path.name == ".hashfs")


def assert_tidy(store: HashFS) -> None:
    """Check that nothing hidden and no empty folder is below the root."""
    for folder, folders, files in os.walk(store.root):
        assert ".hashfs" not in folders
        assert folders or files or folder == store.root, f"{folder} is empty"
