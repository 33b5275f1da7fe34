"""A cache before a store: hits, misses, fills, what is verified and what is never served."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Site
from cached import (
    ALL_KINDS,
    IN_MEMORY,
    KINDS,
    PREFIX,
    cached_root,
    drop_all,
    expire,
    kept,
    opened_gate,
    site,
    wait_for_fills,
    wait_until,
)
from gate import Gate

from flask_hashfs import CacheStats, StoreUnavailableError, file_damaged

pytest.importorskip("obstore", reason="obstore is not installed: no object store has a cache")

LARGE = os.urandom(3_000_000)
SMALL = b"a small file"

pytestmark = pytest.mark.parametrize("framework", FRAMEWORKS)


@pytest.fixture(params=ALL_KINDS)
def app(request: pytest.FixtureRequest, framework: str, tmp_path: Path) -> Iterator[Site]:
    with cached_root(request.param, tmp_path) as settings:
        yield site(framework, tmp_path, settings)


@pytest.fixture(params=KINDS)
def gated(request: pytest.FixtureRequest) -> Iterator[tuple[Gate, dict[str, Any]]]:
    with opened_gate(request.param) as opened:
        yield opened


def stats(app: Site) -> CacheStats:
    found: CacheStats = app.call(app.fs.cache_stats)
    return found


def get(app: Site, relpath: str, **headers: str) -> bytes:
    reply = app.ask(f"{PREFIX}/{relpath}", headers=headers)
    assert reply.status in (200, 206), reply
    return reply.body


# -- hits and misses ---------------------------------------------------------------------------


@pytest.mark.parametrize("data", [SMALL, LARGE, b""])
def test_a_file_is_fetched_once_and_served_from_the_disk(
    app: Site, tmp_path: Path, data: bytes
) -> None:
    address = app.put(data, ".bin")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert get(app, address.relpath) == data
    if data:
        wait_until(lambda: kept(tmp_path) == [address.relpath], "the file is kept")
        assert (tmp_path / "cache" / "files" / address.relpath).read_bytes() == data
        assert get(app, address.relpath) == data
        assert get(app, address.id) == data
        numbers = stats(app)
        assert (numbers.misses, numbers.fills, numbers.damaged) == (1, 1, 0)
        assert (numbers.bytes, numbers.files) == (len(data), 1)


def test_an_opened_file_that_is_kept_is_a_real_one(app: Site, tmp_path: Path) -> None:
    address = app.put(LARGE)
    client = app.client
    with client.open(address) as file:
        assert file.read() == LARGE
    wait_until(lambda: kept(tmp_path) == [address.relpath], "the file is kept")
    with client.open(address) as file:
        assert os.fstat(file.fileno()).st_size == len(LARGE)
        file.seek(-10, os.SEEK_END)
        assert file.read() == LARGE[-10:]
    with client.open(
        address.id,
        "rt",
    ) as file:
        assert file.fileno() >= 0


def test_an_opened_file_that_is_not_kept_can_be_sought_in(app: Site, tmp_path: Path) -> None:
    address = app.put(LARGE)
    drop_all(tmp_path)
    with app.client.open(address) as file:
        assert file.read(10) == LARGE[:10]
        file.seek(2_500_000)
        assert file.read(10) == LARGE[2_500_000:2_500_010]
        file.seek(5)
        assert file.read() == LARGE[5:]


def test_no_request_leaves_the_machine_while_a_kept_file_is_trusted(
    gated_app: tuple[Gate, Site],
) -> None:
    gate, app = gated_app
    address = app.put(SMALL, ".txt")
    assert get(app, address.id) == SMALL
    gate.asked.clear()
    for name in (address.relpath, address.id):
        assert get(app, name) == SMALL
        assert app.ask(f"{PREFIX}/{name}", "HEAD").status == 200
        assert get(app, name, Range="bytes=2-3") == SMALL[2:4]
        reply = app.ask(f"{PREFIX}/{name}")
        assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert gate.asked == []


def test_a_file_is_asked_for_once_when_its_trust_is_over(
    tmp_path: Path, gated_app: tuple[Gate, Site]
) -> None:
    gate, app = gated_app
    address = app.put(LARGE)
    expire(tmp_path)
    gate.asked.clear()
    with ThreadPoolExecutor(16) as pool:
        opened = list(pool.map(lambda _: app.client.open(address), range(16)))
    for file in opened:
        with file:
            assert file.read() == LARGE
    assert (gate.count("HEAD"), gate.count("GET")) == (1, 0)
    assert get(app, address.relpath) == LARGE
    assert len(gate.asked) == 1


def test_one_fetch_serves_all_who_ask_at_once(
    framework: str, tmp_path: Path, gated: tuple[Gate, dict[str, Any]]
) -> None:
    gate, settings = gated
    app = site(framework, tmp_path, settings)
    others = [site(framework, tmp_path, settings) for _ in range(2)]  # as other processes
    address = app.put(LARGE)
    shutil.rmtree(tmp_path / "cache")
    gate.asked.clear()
    gate.held.clear()

    def read(client: Any) -> bytes:
        with client.open(address) as file:
            data: bytes = file.read()
            return data

    clients = [each.client for each in (app, *others)] * 8
    with ThreadPoolExecutor(24) as pool:
        reading = [pool.submit(read, client) for client in clients]
        wait_until(lambda: gate.count("HEAD") == 24, "all have asked")
        gate.held.set()
        assert all(each.result() == LARGE for each in reading)
    assert gate.count("GET") == 1


def test_a_range_comes_from_the_store_and_the_file_is_filled_beside(
    tmp_path: Path, gated_app: tuple[Gate, Site]
) -> None:
    gate, app = gated_app
    address = app.put(LARGE)
    drop_all(tmp_path)
    assert get(app, address.relpath, Range="bytes=2000000-2000009") == LARGE[2_000_000:2_000_010]
    wait_until(lambda: kept(tmp_path) == [address.relpath], "the file is kept")
    assert gate.count("GET") == 2


def test_what_has_no_body_fills_nothing(app: Site, tmp_path: Path) -> None:
    address = app.put(LARGE)
    drop_all(tmp_path)
    url = f"{PREFIX}/{address.relpath}"
    assert app.ask(url, "HEAD").status == 200
    assert app.ask(url, headers={"If-None-Match": f'"{address.id}"'}).status == 304
    assert app.ask(url, headers={"Range": "bytes=9000000-"}).status == 416
    assert stats(app).fills == 0
    assert not kept(tmp_path)


def test_a_file_that_is_too_large_is_never_kept(framework: str, tmp_path: Path) -> None:
    app = site(framework, tmp_path, IN_MEMORY, CACHE_FILE_SIZE=len(LARGE) - 1)
    address = app.put(LARGE)
    assert get(app, address.relpath) == LARGE
    assert stats(app) == CacheStats(0, 1, 0, 0, 0, 0, 0)
    app.put(LARGE[:-1])
    assert stats(app).files == 1


# -- what leaves early -------------------------------------------------------------------------


def test_a_reader_that_leaves_early_ends_the_fill_and_the_next_one_begins_it_again(
    tmp_path: Path, gated_app: tuple[Gate, Site]
) -> None:
    gate, app = gated_app
    address = app.put(LARGE)
    drop_all(tmp_path)
    gate.held.clear()
    file = app.client.open(address)
    assert file.read(10) == LARGE[:10]
    file.close()
    gate.held.set()
    wait_for_fills(app.client)
    with app.client.open(address) as file:
        assert file.read() == LARGE
    wait_until(lambda: kept(tmp_path) == [address.relpath], "the file is kept")


def test_a_reader_that_leaves_does_not_end_what_another_one_reads(
    framework: str, tmp_path: Path, gated: tuple[Gate, dict[str, Any]]
) -> None:
    gate, settings = gated
    app, other = (site(framework, tmp_path, settings) for _ in range(2))
    address = app.put(LARGE)
    drop_all(tmp_path)
    gate.asked.clear()
    gate.held.clear()
    first = app.client.open(address)
    assert first.read(10) == LARGE[:10]
    with other.client.open(address) as second:  # as in another process
        assert second.read(10) == LARGE[:10]
        first.close()
        gate.held.set()
        assert second.read() == LARGE[10:]
    assert gate.count("GET") == 1


# -- verified ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
@pytest.mark.parametrize("limit", [2**30, 5])
def test_other_bytes_than_were_put_never_make_a_whole_answer(
    framework: str, tmp_path: Path, gated: tuple[Gate, dict[str, Any]], size: int, limit: int
) -> None:
    gate, settings = gated
    app = site(framework, tmp_path, settings, CACHE_FILE_SIZE=limit)
    told = []

    def tell(sender: Any, **what: Any) -> None:
        told.append((sender, what))

    address = app.put(os.urandom(size))
    drop_all(tmp_path)
    gate.flips = True
    with file_damaged.connected_to(tell):
        try:
            reply = app.ask(f"{PREFIX}/{address.relpath}")
        except (StoreUnavailableError, AssertionError, ExceptionGroup):
            pass  # broken off: the clients raise it, Quart's since 0.23 in a group
        else:
            assert reply.status == 503
        with pytest.raises(StoreUnavailableError), app.client.open(address) as file:
            file.read()
    assert told[0] == (app.app, {"extension": app.fs, "address": address})
    assert stats(app).damaged == len(told) >= 2
    assert not kept(tmp_path)
    gate.flips = False
    assert hashlib.sha256(get(app, address.relpath)).hexdigest() == address.id


def test_a_truncated_object_is_damaged(framework: str, tmp_path: Path) -> None:
    with opened_gate("bucket") as (gate, settings):
        app = site(framework, tmp_path, settings)
        address = app.put(SMALL)
        drop_all(tmp_path)
        (key,) = gate.origin.objects
        for data in (b"", SMALL[:-1], SMALL + b"x"):
            gate.origin.objects[key] = data
            assert app.ask(f"{PREFIX}/{address.relpath}").status == 503
        assert not kept(tmp_path)


@pytest.mark.parametrize("change", ["cut", "empty", "longer", "other bytes"])
def test_a_kept_file_that_was_changed_is_fetched_again(
    app: Site, tmp_path: Path, change: str
) -> None:
    address = app.put(LARGE)
    get(app, address.relpath)
    wait_until(lambda: kept(tmp_path) == [address.relpath], "the file is kept")
    path = tmp_path / "cache" / "files" / address.relpath
    new = {"cut": LARGE[:-1], "empty": b"", "longer": LARGE + b"x", "other bytes": LARGE[::-1]}
    path.chmod(0o600)
    path.write_bytes(new[change])
    assert get(app, address.relpath) == LARGE
    wait_until(lambda: path.read_bytes() == LARGE if path.exists() else False, "kept again")


@pytest.mark.parametrize("size", [1_000_000, 4_000_000])
@pytest.mark.parametrize("left", [0, 1_000, 500_000, "a million less"])
def test_a_kept_file_that_a_power_cut_has_shortened_is_fetched_again(
    framework: str, tmp_path: Path, size: int, left: Any
) -> None:
    app = site(framework, tmp_path, IN_MEMORY)
    data = os.urandom(size)
    address = app.put(data)
    path = tmp_path / "cache" / "files" / address.relpath
    state = path.stat()
    os.truncate(path, size - 1_000_000 if left == "a million less" else left)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert get(app, address.relpath) == data


# -- putting and deleting ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 9_000_000])
def test_what_is_put_into_an_object_store_is_kept(
    framework: str, tmp_path: Path, gated: tuple[Gate, dict[str, Any]], size: int
) -> None:
    gate, settings = gated
    app = site(framework, tmp_path, settings)
    data = os.urandom(size)
    for is_duplicate in (False, True):
        address = app.put(data, ".bin")
        assert address.is_duplicate == is_duplicate
        assert kept(tmp_path) == [address.relpath]
        drop_all(tmp_path)
    app.put(data, ".bin")
    gate.asked.clear()
    assert get(app, address.relpath) == data
    assert gate.asked == []


def test_large_content_is_kept_by_a_link_and_not_written_again(
    framework: str, tmp_path: Path
) -> None:
    app = site(framework, tmp_path, IN_MEMORY)
    with app.client.writer() as writer:
        writer.write(bytes(9_000_000))
        writer.finish()
        inode = os.fstat(writer.spilled.fd).st_ino
        address = app.client.commit(writer)
        again = app.client.commit(writer, ".bin")
    path = tmp_path / "cache" / "files" / address.relpath
    assert path.stat().st_ino == inode
    assert path.stat().st_mode & 0o777 == 0o664
    assert get(app, address.relpath) == get(app, again.relpath) == bytes(9_000_000)


def test_a_large_upload_is_kept_by_a_link_too(framework: str, tmp_path: Path) -> None:
    app = site(framework, tmp_path, IN_MEMORY)
    with app.client.writer() as writer:
        writer.count_as_upload()
        writer.write(bytes(9_000_000))
        writer.finish()
        inode = writer.spilled.stat().st_ino
        address = app.client.commit(writer)
    assert (tmp_path / "cache" / "files" / address.relpath).stat().st_ino == inode
    assert get(app, address.relpath) == bytes(9_000_000)


def test_a_delete_and_a_prune_drop_what_is_kept(app: Site, tmp_path: Path) -> None:
    addresses = [app.put(bytes([number]) * 100, ".a") for number in range(3)]
    other = app.put(bytes([0]) * 100, ".b")
    for address in (*addresses, other):
        get(app, address.relpath)
    wait_until(lambda: len(kept(tmp_path)) >= 3, "they are kept")
    app.call(app.fs.delete, other.relpath)
    assert app.ask(f"{PREFIX}/{other.relpath}").status == 404
    assert get(app, addresses[0].relpath) == bytes(100)
    app.call(app.fs.delete, addresses[0].id)
    assert app.ask(f"{PREFIX}/{addresses[0].relpath}").status == 404
    assert app.ask(f"{PREFIX}/{addresses[0].id}").status == 404
    assert addresses[1].relpath in kept(tmp_path)
    app.client.backend.quarantine(addresses[1].relpath)
    assert app.ask(f"{PREFIX}/{addresses[1].relpath}").status == 404


def test_what_another_machine_deletes_is_gone_when_its_trust_is_over(
    app: Site, tmp_path: Path
) -> None:
    address = app.put(SMALL, ".txt")
    get(app, address.id)
    wait_until(lambda: kept(tmp_path) == [address.relpath], "the file is kept")
    app.client.backend.past_cache.delete(address.id)  # as another machine does
    assert get(app, address.id) == SMALL
    assert app.call(app.fs.get, address) is None
    expire(tmp_path)
    assert app.ask(f"{PREFIX}/{address.id}").status == 404
    assert kept(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        app.client.open(address)


def test_a_delete_while_a_file_is_filled_keeps_nothing(
    tmp_path: Path, gated_app: tuple[Gate, Site]
) -> None:
    gate, app = gated_app
    address = app.put(LARGE)
    drop_all(tmp_path)
    gate.held.clear()
    with app.client.open(address) as file:
        assert file.read(10) == LARGE[:10]
        app.call(app.fs.delete, address.id)
        gate.held.set()
        assert file.read() == LARGE[10:]
    wait_for_fills(app.client)
    assert kept(tmp_path) == []
    assert app.ask(f"{PREFIX}/{address.relpath}").status == 404
    assert os.listdir(tmp_path / "cache" / "filling") == []


def test_the_folder_may_be_deleted_at_any_time(app: Site, tmp_path: Path) -> None:
    address = app.put(LARGE)
    for _ in range(3):
        assert get(app, address.relpath) == LARGE
        with app.client.open(address) as file:
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
            assert file.read() == LARGE
    threading.Event().wait(0)
    assert app.put(LARGE).is_duplicate
    assert app.put(b"other").is_duplicate is False
