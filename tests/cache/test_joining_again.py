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
from pathlib import Path
from typing import Any

import cache_crowd
import pytest
from cache_crowd import open_store
from cached import opened_gate, wait_until
from gate import Gate

from flask_hashfs import HashAddress, HashFS
from flask_hashfs._cache.backend import CachedBackend
from flask_hashfs._cache.fills import Fill
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


@pytest.fixture
def ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[HashFS, HashAddress, threading.Event, list[object]]:
    """Return a store whose first fill fails at once, when the event is set; and a list of fills."""
    store: HashFS = ObjectStore("memory://")
    behind = store.backend
    store.backend = CachedBackend(behind, str(tmp_path / "cache"), 10**9, 10**9, 300)
    address = store.put(DATA)
    os.unlink(tmp_path / "cache" / "files" / address.relpath)
    goes_on = threading.Event()
    begun: list[object] = []
    right = behind.pieces

    def pieces(relpath: str, size: int) -> Iterator[memoryview] | None:
        begun.append(relpath)
        return failing() if len(begun) == 1 else right(relpath, size)

    def failing() -> Iterator[memoryview]:
        goes_on.wait(60)
        yield from ()
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(behind, "pieces", pieces)
    return store, address, goes_on, begun


def test_one_fetch_follows_a_fill_that_has_failed_however_many_read_along(
    ending: tuple[HashFS, HashAddress, threading.Event, list[object]],
) -> None:
    store, address, goes_on, begun = ending
    fills: dict[object, Fill] = store.backend._fills._fills  # type: ignore[attr-defined]

    def read(file: Any) -> bytes:
        with file:
            data: bytes = file.read()
            return data

    with ThreadPoolExecutor(8) as pool:
        reading = [pool.submit(read, store.open(address)) for _ in range(8)]
        (fill,) = fills.values()
        assert fill.readers == 8
        goes_on.set()
        assert all(each.result() == DATA for each in reading)
    assert len(begun) == 2


def test_what_is_warmed_is_kept_though_its_fill_has_failed(
    ending: tuple[HashFS, HashAddress, threading.Event, list[object]], tmp_path: Path
) -> None:
    store, address, goes_on, begun = ending
    goes_on.set()
    assert store.backend.warm_cache(address)
    assert (tmp_path / "cache" / "files" / address.relpath).read_bytes() == DATA
    assert len(begun) == 2
