"""Readers of a fill that ends before they were given anything join the next one, all together."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cache_crowd
import pytest
from cache_crowd import open_store
from cached import opened_gate, wait_until
from gate import Gate

from flask_hashfs import HashAddress, HashFS, StoreUnavailableError
from flask_hashfs._cache.backend import CachedBackend
from flask_hashfs._cache.fills import Fill, Fills
from flask_hashfs._storage.backend import Backend
from flask_hashfs._store.object_store import ObjectStore

pytest.importorskip("obstore", reason="obstore is not installed: no object store has a cache")

DATA = os.urandom(50_000)  # of so few bytes nobody is given any before all of them are there
THREADS = 4

READ = f"""
import json, sys
from concurrent.futures import ThreadPoolExecutor
from cache_crowd import open_store

store = open_store(**json.loads(sys.argv[1]))

def read(_):
    with store.open(sys.argv[2]) as file:
        return file.read().hex()

with ThreadPoolExecutor({THREADS}) as pool:
    print(*set(pool.map(read, range({THREADS}))))
"""


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[tuple[Gate, dict[str, Any], HashAddress]]:
    """Return a gate to a bucket, what opens its store with a cache, and what it has not kept."""
    with opened_gate("bucket") as (gate, settings):
        given = {"root": settings["root"], "options": gate.options, "limit": 10**9, "trust": 300}
        given["folder"] = str(tmp_path / "cache")
        address = open_store(**given).put(DATA)
        os.unlink(f"{given['folder']}/files/{address.relpath}")
        gate.asked.clear()
        yield gate, given, address


def begin(given: dict[str, Any], address: HashAddress) -> subprocess.Popen[str]:
    """Read a content in several threads of another process, which prints what it was given."""
    env = {**os.environ, "PYTHONPATH": os.path.dirname(cache_crowd.__file__)}
    words = [sys.executable, "-c", READ, json.dumps(given), address.id]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True)


def test_one_get_follows_a_fill_that_was_killed_however_many_processes_read_along(
    gated: tuple[Gate, dict[str, Any], HashAddress],
) -> None:
    gate, given, address = gated
    gate.held.clear()
    first = begin(given, address)
    wait_until(lambda: gate.count("GET") == 1, "it is being fetched")
    others = [begin(given, address) for _ in range(3)]
    wait_until(lambda: gate.count("HEAD") == 4 * THREADS, "all have asked")
    first.kill()
    first.communicate()
    gate.held.set()
    assert [each.communicate()[0] for each in others] == [DATA.hex() + "\n"] * 3
    assert gate.count("GET") == 2


@dataclass
class Ending:
    """A store with a cache whose first fill fails with `error`, once `goes_on` is set."""

    store: HashFS
    behind: Backend
    folder: Path
    address: HashAddress
    goes_on: threading.Event = field(default_factory=threading.Event)
    begun: list[str] = field(default_factory=list)
    error: Exception = field(default_factory=lambda: OSError(errno.EIO, "the disk fails"))

    def another(self) -> HashFS:
        """Return the store as another process has it."""
        store: HashFS = ObjectStore("memory://")
        store.backend = CachedBackend(self.behind, str(self.folder), 10**9, 10**9, 300)
        return store

    def read_by(self, count: int) -> list[bytes]:
        """Let so many readers read along the first fill, and return what each was given."""
        files = [self.store.open(self.address) for _ in range(count)]
        self.goes_on.set()
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(_read, files))


def _read(file: Any) -> bytes:
    with file:
        data: bytes = file.read()
        return data


@pytest.fixture
def ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ending:
    store: HashFS = ObjectStore("memory://")
    behind, folder = store.backend, tmp_path / "cache"
    store.backend = CachedBackend(behind, str(folder), 10**9, 10**9, 300)
    address = store.put(DATA)
    os.unlink(folder / "files" / address.relpath)
    it = Ending(store, behind, folder, address)
    right = behind.pieces

    def pieces(relpath: str, size: int) -> Iterator[memoryview] | None:
        it.begun.append(relpath)
        return failing() if len(it.begun) == 1 else right(relpath, size)

    def failing() -> Iterator[memoryview]:
        it.goes_on.wait(60)
        yield from ()
        raise it.error

    monkeypatch.setattr(behind, "pieces", pieces)
    return it


def test_one_fetch_follows_a_fill_that_has_failed_however_many_read_along(ending: Ending) -> None:
    assert ending.read_by(8) == [DATA] * 8
    assert len(ending.begun) == 2


def test_what_is_warmed_is_kept_though_its_fill_has_failed(ending: Ending) -> None:
    ending.goes_on.set()
    assert ending.store.backend.warm_cache(ending.address)
    assert (ending.folder / "files" / ending.address.relpath).read_bytes() == DATA
    assert len(ending.begun) == 2


def test_a_store_that_does_not_answer_is_not_asked_for_another_fill(ending: Ending) -> None:
    """So nobody waits for its time-out again and again."""
    ending.error = StoreUnavailableError("it hangs")
    first = ending.store.open(ending.address)
    follower = ending.another().open(ending.address)
    ending.goes_on.set()
    with first, pytest.raises(StoreUnavailableError, match="it hangs"):
        first.read()
    assert _read(follower) == DATA, "the store answers again"
    assert len(ending.begun) == 1


def test_what_a_full_disk_cannot_keep_is_not_fetched_for_it_again(
    ending: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending.begun.append("none fails")
    write = os.write

    def write_in_vain(fd: int, data: Any) -> int:
        if threading.current_thread().name == "hashfs-fill":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    monkeypatch.setattr(os, "write", write_in_vain)
    monkeypatch.setattr(os, "pwrite", write_in_vain)
    assert ending.read_by(1) == [DATA]
    assert len(ending.begun) == 2


def test_nobody_waits_for_a_fill_whose_file_cannot_be_closed(
    ending: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Fills._close

    def close_in_vain(fills: Fills, fill: Fill) -> None:
        monkeypatch.setattr(Fills, "_close", close)
        close(fills, fill)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(Fills, "_close", close_in_vain)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    assert ending.read_by(3) == [DATA] * 3
