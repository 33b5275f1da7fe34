"""A cache where files cannot be locked and not read at a position, as on Windows: one process."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
from cached import drop_all, wait_until

from flask_hashfs import HashFS
from flask_hashfs._cache.backend import CachedBackend
from flask_hashfs._storage import posix
from flask_hashfs._storage.backend import Backend
from flask_hashfs._store.object_store import ObjectStore

pytest.importorskip("obstore", reason="obstore is not installed: no object store has a cache")

LARGE = os.urandom(6_000_000)


@pytest.fixture(autouse=True)
def like_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what Windows has not."""
    monkeypatch.setattr(posix, "fcntl", None)
    for name in ("pread", "preadv", "pwrite"):
        monkeypatch.delattr(os, name)


def cached(tmp_path: Path, behind: Backend | None = None, limit: int = 10**9) -> HashFS:
    store = ObjectStore("memory://")
    folder = str(tmp_path / "cache")
    store.backend = CachedBackend(behind or store.backend, folder, limit, limit, 300)
    return store


def test_a_reader_far_behind_does_not_move_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cached(tmp_path)
    address = store.put(LARGE)
    drop_all(tmp_path)
    goes_on = threading.Event()

    def pieces(relpath: str, size: int) -> object:
        yield memoryview(LARGE)[:4_000_000]
        goes_on.wait(60)
        yield memoryview(LARGE)[4_000_000:]

    monkeypatch.setattr(store.backend.past_cache, "pieces", pieces)
    filling = tmp_path / "cache" / "filling" / address.id
    with store.open(address) as file:
        wait_until(
            lambda: filling.exists() and filling.stat().st_size == 4_000_000, "it is written"
        )
        assert file.read(100_000) == LARGE[:100_000]  # of the file: its memory has moved on
        goes_on.set()
        assert file.read() == LARGE[100_000:]
    kept = tmp_path / "cache" / "files" / address.relpath
    wait_until(kept.exists, "it is kept")
    assert kept.read_bytes() == LARGE


def test_threads_fill_put_and_evict_without_waiting_for_each_other_for_ever(tmp_path: Path) -> None:
    contents = [random.Random(number).randbytes(20_000) for number in range(20)]
    first = cached(tmp_path, limit=200_000)
    second = cached(tmp_path, first.backend.past_cache, limit=200_000)
    addresses = [first.put(content) for content in contents]
    ended: list[int] = []

    def work(seed: int, store: HashFS) -> None:
        chosen = random.Random(seed)
        for _ in range(40):
            number = chosen.randrange(len(contents))
            if chosen.random() < 0.2:
                assert store.put(contents[number]) == addresses[number]._replace(is_duplicate=True)
            with store.open(addresses[number]) as file:
                assert file.read() == contents[number]
        ended.append(seed)

    for seed in range(8):
        given = (seed, first if seed % 2 else second)
        threading.Thread(target=work, args=given, daemon=True).start()
    wait_until(lambda: len(ended) == 8, "all have ended")
    wait_until(lambda: not os.listdir(tmp_path / "cache" / "filling"), "so have the fills")


def test_a_lock_is_let_go_of_by_whoever_has_its_descriptor(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    first = posix.lock_file(path, 0o755, wait=False)
    assert first is not None
    assert posix.lock_file(path, 0o755, wait=False) is None
    threading.Thread(target=posix.unlock, args=[first]).start()
    second = posix.lock_file(path, 0o755, wait=True)
    assert second is not None
    posix.unlock(first)  # which has it no more
    assert posix.lock_file(path, 0o755, wait=False) is None
    posix.unlock(second)
    for fd in (first, second):
        os.close(fd)
