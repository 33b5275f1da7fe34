"""A cache whose files vanish at any moment: others drop them, or delete the whole folder."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_hashfs import HashFS
from flask_hashfs._cache.backend import CachedBackend
from flask_hashfs._store.object_store import ObjectStore

pytest.importorskip("obstore", reason="obstore is not installed: no object store has a cache")

SIZE = 100_000
LIMIT = 3 * SIZE
RUNS = 25
CONTENTS = [b"small", *(bytes([each]) * SIZE for each in range(4))]


def delete_files(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            if not name.endswith((".ask", ".along")):
                (Path(parent) / name).unlink(missing_ok=True)


def delete_all(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def begin_anew(folder: Path) -> None:
    delete_all(folder)
    for name in ("filling", "files", "spool"):
        with contextlib.suppress(OSError):
            (folder / name).mkdir(parents=True, exist_ok=True)


VANISHING: list[Callable[[Path], None]] = [
    delete_all,
    begin_anew,
    lambda folder: delete_files(folder / "filling"),
    lambda folder: delete_files(folder / "files"),
]


class Others:
    """Deletes files of a folder before random calls that name a path in it, as others may do."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._chosen = random.Random()
        self._turn = threading.RLock()
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def at_work(self, folder: Path, seed: int) -> Iterator[None]:
        self._folder, self._chosen = folder, random.Random(seed)
        try:
            yield
        finally:
            self._folder = None

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        folder = self._folder
        if folder is None or not event.startswith(("open", "os.")):
            return
        if not any(isinstance(each, str) and each.startswith(str(folder)) for each in args):
            return
        with self._turn:
            if self._folder is not None and self._chosen.random() < 0.1:
                self._folder = None
                self._chosen.choice(VANISHING)(folder)
                self._folder = folder


OTHERS = Others()


def cached_store(folder: Path) -> HashFS:
    store: HashFS = ObjectStore("memory://")
    store.backend = CachedBackend(store.backend, str(folder), LIMIT, LIMIT, 300)
    return store


def put(store: HashFS, data: bytes, *, in_file: bool) -> Any:
    with store.writer() as writer:
        writer.memory_limit = 0 if in_file else len(data)
        writer.write(data)
        return store.commit(writer, "txt")


def read(store: HashFS, id: str, data: bytes) -> None:
    with store.open(id) as file:
        assert file.read() == data


def settle() -> None:
    for thread in threading.enumerate():
        if thread.name in ("hashfs-keeping", "hashfs-fill"):
            thread.join()


def leave_begun(path: Path) -> None:
    """Leave a file of a fill that was killed."""
    settle()
    with contextlib.suppress(FileNotFoundError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"begun")


def use(store: HashFS, folder: Path) -> None:
    """Put, read, fill, make room, and delete."""
    puts = list(enumerate(CONTENTS))
    addresses = [put(store, data, in_file=bool(number % 2)) for number, data in puts]
    for number, data in puts:
        read(store, addresses[number].id, data)
        leave_begun(folder / "filling" / addresses[number - 1].id)
    for address in addresses:
        store.delete(address.id)
        assert not store.exists(address.id)
    settle()


@pytest.mark.slow
@pytest.mark.parametrize("unnamed", [True, False])
def test_whatever_vanishes_is_no_fault_of_the_disk(
    unnamed: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for seed in range(RUNS):
        folder = tmp_path / str(seed)
        store = cached_store(folder)
        spool = store.backend.past_cache.spool
        assert spool is not None
        spool.unnamed &= unnamed
        with OTHERS.at_work(folder, seed):
            use(store, folder)
        assert not caplog.messages, seed
        read_after = put(store, b"afterwards", in_file=True)
        read(store, read_after.id, b"afterwards")
        shutil.rmtree(folder, ignore_errors=True)


def test_a_spooled_file_that_was_deleted_everywhere_is_not_linked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count_and_link(*given: Any, **more: Any) -> None:
        links.append(given[1])
        link(*given, **more)

    link, links = os.link, list[Any]()
    store = cached_store(tmp_path)
    with store.writer() as writer:
        writer.memory_limit = 0
        writer.write(CONTENTS[1])
        address = store.commit(writer)
        store.delete(address.id)
        monkeypatch.setattr(os, "link", count_and_link)
        store.commit(writer)
    assert len(links) < 5
    read(store, address.id, CONTENTS[1])
