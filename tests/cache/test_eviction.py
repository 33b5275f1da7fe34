"""The room that a cache takes: what goes first, what is counted, and a disk that fails."""

from __future__ import annotations

import errno
import gc
import logging
import os
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cached import drop_all, expire, fills_of, kept, wait_for_fills, wait_until
from file_systems import small_disk
from permissions import permissions_hold

from flask_hashfs import HashAddress, HashFS, StoreUnavailableError
from flask_hashfs._cache.backend import CachedBackend
from flask_hashfs._cache.fills import Fill, Fills
from flask_hashfs._storage import posix
from flask_hashfs._storage.backend import Backend
from flask_hashfs._store.object_store import ObjectStore

pytest.importorskip("obstore", reason="obstore is not installed: no object store has a cache")

SIZE = 10_000
LIMIT = 10 * SIZE


def cached(folder: Path, store: HashFS | None = None, limit: int = LIMIT) -> HashFS:
    """Return a store with a cache; another one over `store`, as another process has it."""
    new = ObjectStore("memory://")
    backend = new.backend if store is None else store.backend.past_cache
    new.backend = CachedBackend(backend, str(folder / "cache"), limit, limit, 300)
    return new


@pytest.fixture
def store(tmp_path: Path) -> HashFS:
    return cached(tmp_path)


def put(store: HashFS, count: int, size: int = SIZE) -> list[Any]:
    return [store.put(os.urandom(size)) for _ in range(count)]


def missed(tmp_path: Path) -> tuple[HashFS, HashAddress, bytes]:
    """Return a store with a cache, and a file that is not kept."""
    store = cached(tmp_path, limit=2**30)
    data = os.urandom(4_000_000)
    address = store.put(data)
    drop_all(tmp_path)
    return store, address, data


def is_kept(store: HashFS, address: Any) -> bool:
    return os.path.exists(f"{store.backend.folder}/files/{address.relpath}")  # type: ignore[attr-defined]


def settled(store: HashFS, tmp_path: Path, files: int) -> None:
    def is_settled() -> bool:
        numbers = store.cache_stats()
        return len(kept(tmp_path)) == numbers.files == files and numbers.bytes == files * SIZE

    wait_until(is_settled, f"{files} files are kept, and counted")


def test_what_was_used_longest_ago_goes_first(store: HashFS, tmp_path: Path) -> None:
    addresses = put(store, 10)
    settled(store, tmp_path, 10)
    for address in addresses[:3]:
        store.open(address).close()
    new = store.put(os.urandom(SIZE))
    wait_until(lambda: is_kept(store, new), "there is room for the new one")
    assert [is_kept(store, address) for address in addresses] == [True] * 3 + [False] + [True] * 6
    assert is_kept(store, new)
    assert store.cache_stats().evicted == 1


def test_other_processes_uses_count_as_well(store: HashFS, tmp_path: Path) -> None:
    other = cached(tmp_path, store)
    addresses = put(store, 10)
    other.open(addresses[0]).close()
    used = tmp_path / "cache" / "files" / addresses[0].relpath
    date = used.stat().st_atime_ns
    wait_until(lambda: used.stat().st_atime_ns > date, "the use is written down")
    (new,) = put(store, 1)
    wait_until(lambda: is_kept(store, new), "there is room for the new one")
    assert is_kept(store, addresses[0])
    assert not is_kept(store, addresses[1])


def test_nine_tenths_of_the_limit_are_left(tmp_path: Path) -> None:
    store = cached(tmp_path, limit=100 * SIZE)
    put(store, 100)
    settled(store, tmp_path, 100)
    put(store, 1)
    settled(store, tmp_path, 91)


def test_a_file_that_is_read_is_not_cut(store: HashFS) -> None:
    data = os.urandom(SIZE)
    address = store.put(data)
    with store.open(address) as file:
        put(store, 20)
        wait_until(lambda: not is_kept(store, address), "it is dropped")
        assert file.read() == data


def test_the_limit_holds_while_many_fill(tmp_path: Path) -> None:
    stores = [cached(tmp_path)]
    stores += [cached(tmp_path, stores[0]) for _ in range(3)]
    addresses = put(stores[0], 40)
    drop_all(tmp_path)
    seen = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.append(stores[0].cache_stats().bytes)  # never less than there is

    def read(number: int) -> None:
        with stores[number % 4].open(addresses[number % 40]) as file:
            assert len(file.read()) == SIZE

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(400)))
    ended.set()
    watcher.join()
    # A walk may count what is added meanwhile twice; what lies there is never more.
    assert max(seen) <= LIMIT + 8 * SIZE
    assert sum(_size(tmp_path / "cache" / "files" / name) for name in kept(tmp_path)) <= LIMIT


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_the_count_is_right_again_after_the_folder_was_deleted(
    store: HashFS, tmp_path: Path
) -> None:
    put(store, 5)
    shutil.rmtree(tmp_path / "cache")
    put(store, 2)
    settled(store, tmp_path, 2)


def test_what_a_deleted_count_does_not_tell_is_walked(store: HashFS, tmp_path: Path) -> None:
    put(store, 5)
    (tmp_path / "cache" / "count").unlink()
    put(store, 1)
    settled(store, tmp_path, 6)


def test_a_delete_of_what_is_not_kept_does_not_count_anything(
    store: HashFS, tmp_path: Path
) -> None:
    (address,) = put(store, 1)
    wait_until(lambda: is_kept(store, address), "it is kept")
    shutil.rmtree(tmp_path / "cache")
    store.delete(address)
    assert not (tmp_path / "cache" / "count").exists()


def test_a_count_that_is_too_large_is_set_right_by_an_eviction(
    store: HashFS, tmp_path: Path
) -> None:
    put(store, 10)
    drop_all(tmp_path)
    put(store, 1)
    settled(store, tmp_path, 1)


def test_an_eviction_does_not_miss_what_is_just_being_kept(
    store: HashFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evict_and_link(*given: Any, **more: Any) -> None:
        if str(given[1]).startswith(str(tmp_path)) and evicting.ident is None:
            evicting.start()
            evicting.join(0.5)  # it ends here, or waits until this file is kept
        link(*given, **more)
        if evicting.ident is not None:
            linked.set()

    link, linked = os.link, threading.Event()
    evicting = threading.Thread(target=store.backend._eviction.make_room, args=[LIMIT])  # type: ignore[attr-defined]
    (address,) = put(store, 1)
    wait_until(lambda: is_kept(store, address), "it is kept")
    store.backend._kept.drop(address.relpath)  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "link", evict_and_link)
    with store.open(address) as file:
        assert len(file.read()) == SIZE
    assert linked.wait(60)
    evicting.join()
    assert store.cache_stats().files == len(kept(tmp_path))


def test_what_a_killed_process_left_is_swept(store: HashFS, tmp_path: Path) -> None:
    addresses = put(store, 10)
    filling = tmp_path / "cache" / "filling"
    (filling / "0123.4567").write_bytes(bytes(100))
    (filling / addresses[0].id).write_bytes(bytes(100))
    drop_all(tmp_path)
    with store.open(addresses[0]) as file:
        assert len(file.read()) == SIZE
    wait_until(lambda: is_kept(store, addresses[0]), "it is kept")
    put(store, 12)
    wait_until(lambda: os.listdir(filling) == [], "the left-overs are gone")


def test_a_file_as_large_as_the_cache_is_kept_alone(store: HashFS, tmp_path: Path) -> None:
    put(store, 3)
    (large,) = put(store, 1, LIMIT)
    wait_until(lambda: kept(tmp_path) == [large.relpath], "it is kept alone")
    (larger,) = put(store, 1, LIMIT + 1)
    assert not is_kept(store, larger)


def test_few_puts_wait_for_room_at_a_time(store: HashFS, tmp_path: Path) -> None:
    addresses = put(store, 10)
    with open(tmp_path / "cache" / "evicting", "wb") as file:
        posix.lock(file.fileno())  # as an eviction of another process does, which takes its time
        files = len(os.listdir("/dev/fd"))
        threads = threading.active_count()
        addresses += put(store, 30)
        assert threading.active_count() <= threads + 4
        assert len(os.listdir("/dev/fd")) <= files + 8
        posix.unlock(file.fileno())
    for address in addresses:
        with store.open(address) as opened:
            assert len(opened.read()) == SIZE


@pytest.mark.parametrize("is_named", [False, True])
def test_what_is_deleted_while_it_is_put_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_named: bool
) -> None:
    store = cached(tmp_path, limit=2**30)
    object_store = store.backend.past_cache
    if is_named:  # as where the file system has no O_TMPFILE
        assert object_store.spool is not None
        object_store.spool.unnamed = False
    commit = object_store.commit

    def commit_and_delete(*given: Any, **more: Any) -> Any:
        address = commit(*given, **more)
        store.delete(address.id)  # as another thread does
        return address

    monkeypatch.setattr(object_store, "commit", commit_and_delete)
    for size in (SIZE, 9_000_000):
        store.put(os.urandom(size))
    assert kept(tmp_path) == []
    assert store.cache_stats().files == 0
    monkeypatch.undo()
    (address,) = put(store, 1, 9_000_000)
    assert kept(tmp_path) == [address.relpath]


# -- a disk that fails -------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "cache"
    folder.mkdir()
    with small_disk(folder, "size=1m"):
        yield tmp_path


@pytest.mark.parametrize("size", [500_000, 2_000_000, 12_000_000])
def test_a_full_disk_is_told_once_a_minute_and_nobody_else_notices(
    disk: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    store = cached(disk, limit=2**30)
    data = [os.urandom(size) for _ in range(3)]
    with caplog.at_level(logging.WARNING, "flask_hashfs"):
        addresses = [store.put(each) for each in data]
        for _ in range(2):
            for address, wanted in zip(addresses, data, strict=True):
                with store.open(address) as file:
                    assert file.read() == wanted
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.hashfs_kind for record in told] == ["cache-failing"]  # type: ignore[attr-defined]
    assert os.strerror(errno.ENOSPC) in told[0].getMessage()
    shutil.rmtree(disk / "cache" / "files", ignore_errors=True)


def test_what_a_full_disk_did_not_take_is_verified_with_the_rest(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cached(disk, limit=2**30)
    data, piece = os.urandom(3_000_000), 400_000
    address = store.put(data)
    drop_all(disk)
    wrong = bytearray(data)
    wrong[1_100_000] ^= 1  # behind what fits on the disk, and handed on before it is written
    pieces = [memoryview(wrong)[start : start + piece] for start in range(0, len(data), piece)]
    monkeypatch.setattr(store.backend.past_cache, "pieces", lambda *_: (each for each in pieces))
    is_read, write = threading.Event(), Fills._write

    def write_later(fills: Fills, fill: Fill, part: memoryview) -> None:
        if part.obj is wrong and part == pieces[2]:
            is_read.wait(30)
        write(fills, fill, part)

    monkeypatch.setattr(Fills, "_write", write_later)
    with store.open(address) as file:
        assert file.read(3 * piece) == wrong[: 3 * piece]
        is_read.set()
        with pytest.raises(StoreUnavailableError):  # though the store sends the right bytes now
            file.read()
    assert kept(disk) == []
    shutil.rmtree(disk / "cache" / "filling", ignore_errors=True)


def test_a_reader_far_behind_a_fill_reads_what_its_memory_has_no_more(tmp_path: Path) -> None:
    store, address, data = missed(tmp_path)
    with store.open(address) as first, store.open(address) as second:
        assert first.read(100) == data[:100]
        assert second.read() == data
        assert first.read() == data[100:]
    wait_until(lambda: is_kept(store, address), "the file is kept")
    with store.open(address) as file:
        assert file.read() == data


def test_a_folder_that_cannot_be_made_is_no_error_to_anyone(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file stands in the way")
    store = cached(tmp_path)
    for size in (10, 9_000_000):
        data = os.urandom(size)
        address = store.put(data)
        with store.open(address) as file:
            assert file.read() == data
        store.delete(address)
        assert store.get(address) is None
    assert store.cache_stats().files == 0


def test_a_count_that_cannot_be_opened_is_told(
    store: HashFS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "count").symlink_to(tmp_path / "missing" / "count")
    data = os.urandom(SIZE)
    address = store.put(data)
    for _ in range(2):
        with store.open(address) as file:
            assert file.read() == data
    wait_for_fills(store)
    wait_until(lambda: not _fill_threads(), "its thread, too")
    told = [getattr(record, "hashfs_kind", "") for record in caplog.records]
    assert told == ["cache-failing"]
    assert kept(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_no_error_to_anyone(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(0o500)
    store = cached(tmp_path)
    data = os.urandom(SIZE)
    with permissions_hold(), store.open(store.put(data)) as file:
        assert file.read() == data
    assert os.listdir(tmp_path / "cache") == []


def test_names_that_cannot_be_removed_are_no_error_to_anyone(
    store: HashFS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = os.urandom(SIZE)
    address = store.put(data)
    for name in (f"ids/{address.relpath}", f"filling/{address.id}.0"):
        (tmp_path / "cache" / name).mkdir(parents=True)  # which no unlink removes, root's neither
    assert store.put(data) == address._replace(is_duplicate=True)
    store.delete(address)
    store.delete(address.id)
    assert store.get(address) is None
    assert not is_kept(store, address)
    told = [getattr(record, "hashfs_kind", "") for record in caplog.records]
    assert told == ["cache-failing"]


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no file here fails to be read")
def test_a_fill_whose_store_cannot_be_read_breaks_off(
    store: HashFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(SIZE)
    address = store.put(data)
    drop_all(tmp_path)
    ended: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", ended.append)

    def failing(*_: object) -> Any:
        return open("/proc/self/mem", "rb")  # whose first byte is an error to read

    behind = store.backend.past_cache
    monkeypatch.setattr(behind, "open", failing)
    monkeypatch.setattr(behind, "pieces", partial(Backend.pieces, behind))  # as a folder has them
    with store.open(address) as file:
        assert file.read() == data
    wait_for_fills(store)
    wait_until(lambda: not _fill_threads(), "its thread, too")
    assert ended == []
    assert os.listdir(tmp_path / "cache" / "filling") == []


def break_off(
    store: HashFS, monkeypatch: pytest.MonkeyPatch, data: bytes, at: int
) -> threading.Event:
    """Let the store's disk fail at byte `at` of `data`, once the event is set."""
    goes_on = threading.Event()

    def pieces(*_: object) -> Iterator[memoryview]:
        yield memoryview(data)[:at]
        goes_on.wait(60)
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(store.backend.past_cache, "pieces", pieces)
    return goes_on


def test_a_fill_that_breaks_off_before_a_reader_that_has_moved_on_says_nothing_of_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, address, data = missed(tmp_path)
    goes_on = break_off(store, monkeypatch, data, 200_000)
    with store.open(address) as file:
        assert file.read(100) == data[:100]
        file.seek(700_000)
        goes_on.set()
        assert file.read() == data[700_000:]
        file.seek(0)
        assert file.read() == data
    assert store.cache_stats().damaged == 0


def test_a_fill_that_breaks_off_before_a_reader_that_has_moved_on_does_not_end_its_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, address, data = missed(tmp_path)
    goes_on = break_off(store, monkeypatch, b"wrong" + data[5:], 200_000)
    with store.open(address) as file:
        assert file.read(5) == b"wrong"
        file.seek(700_000)
        goes_on.set()
        with pytest.raises(StoreUnavailableError):
            file.read()
    assert store.cache_stats().damaged == 1


def test_a_fill_that_has_failed_keeps_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, address, data = missed(tmp_path)
    goes_on = break_off(store, monkeypatch, data, 200_000)
    gc.disable()
    try:
        with store.open(address) as file:
            assert file.read(100) == data[:100]
            (fill,) = fills_of(store).values()
            goes_on.set()
            wait_until(lambda: not _fill_threads(), "the fill has ended")
            assert fill.arrived.read(0, 100) == data[:100]
        assert fill.arrived.read(0, 100) == b""
        reference = weakref.ref(fill)
        del fill
        assert reference() is None
    finally:
        gc.enable()


def test_a_fill_of_no_bytes_is_counted(tmp_path: Path) -> None:
    store = cached(tmp_path)
    address = store.put(b"")
    drop_all(tmp_path)
    with store.open(address) as file:
        assert file.read() == b""
    wait_until(lambda: kept(tmp_path) == [address.relpath], "it is kept")
    assert store.cache_stats().fills == 1


def _fill_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "hashfs-fill"]


# -- a system that starts no more threads ------------------------------------------------------


@pytest.fixture
def no_threads() -> Iterator[None]:
    """Let no thread be started: there is no room for the stack of one."""
    before = threading.stack_size(2**60)
    yield
    threading.stack_size(before)


def test_what_no_thread_can_fetch_is_read_from_the_store(
    store: HashFS, tmp_path: Path, no_threads: None
) -> None:
    data = os.urandom(SIZE)
    address = store.put(data)
    drop_all(tmp_path)
    for _ in range(2):
        with store.open(address) as file:
            assert file.read() == data
    assert os.listdir(tmp_path / "cache" / "filling") == []


def test_what_no_thread_can_ask_about_is_served(
    store: HashFS, tmp_path: Path, no_threads: None
) -> None:
    data = os.urandom(SIZE)
    address = store.put(data)
    expire(tmp_path)
    for _ in range(2):
        with store.open(address) as file:
            assert file.read() == data


def test_what_no_thread_can_make_room_for_is_put(
    store: HashFS, tmp_path: Path, no_threads: None
) -> None:
    addresses = put(store, 11)
    assert not is_kept(store, addresses[-1])
    assert store.get(addresses[-1]) is not None
    assert os.listdir(tmp_path / "cache" / "filling") == []


def test_uses_are_written_down_once_a_thread_can_be_started_again(
    store: HashFS, tmp_path: Path
) -> None:
    (address,) = put(store, 1)
    path = tmp_path / "cache" / "files" / address.relpath
    os.utime(path, ns=(0, path.stat().st_mtime_ns))
    before = threading.stack_size(2**60)
    store.open(address).close()
    threading.stack_size(before)
    store.open(address).close()
    wait_until(lambda: path.stat().st_atime_ns > 0, "the use is written down")
