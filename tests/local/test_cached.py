"""Files read without waiting: what is, what is not, and that answers are the same either way."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from quart import Quart

from flask_hashfs import HashFS, QuartHashFS
from flask_hashfs._http.plan import ByteRange, Plan
from flask_hashfs._local import page_cache
from flask_hashfs._local.page_cache import MOST
from flask_hashfs._quart.sender import StoredBody, _InTurn

pytestmark = pytest.mark.anyio


def read_cached(path: str) -> bytes | None:
    """Open and read a small file, if that takes no waiting."""
    opened = page_cache.open_cached(path)
    if opened is None:
        return None
    fd, state = opened
    try:
        return page_cache.read_cached(fd, 0, state.st_size)
    finally:
        os.close(fd)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Make a file that is in memory, on a system that can tell."""
    path = tmp_path / "small"
    path.write_bytes(b"in memory")
    if read_cached(str(path)) is None:
        pytest.skip("this system, or its file system, does not tell what is in memory")
    return path


def test_a_file_in_memory_is_read(small: Path) -> None:
    assert read_cached(str(small)) == b"in memory"
    small.write_bytes(b"")
    assert read_cached(str(small)) == b""


def test_pieces_are_read_from_anywhere_and_never_short(small: Path) -> None:
    content = os.urandom(MOST + 5000)
    small.write_bytes(content)
    with small.open("rb") as file:
        for start, size in ((0, MOST), (4999, MOST), (MOST + 4999, 1), (5, 0)):
            piece = page_cache.read_cached(file.fileno(), start, size)
            assert piece == content[start : start + size]
        assert page_cache.read_cached(file.fileno(), MOST + 4999, 2) is None


def test_a_file_whose_content_is_not_in_memory_is_not_read(small: Path) -> None:
    fd = os.open(small, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    assert read_cached(str(small)) is None
    assert small.read_bytes() == b"in memory"
    assert read_cached(str(small)) == b"in memory"


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("small"),
    ],
)
def test_what_is_no_regular_file_is_not_read(small: Path, make: Callable[[Path], object]) -> None:
    path = small.with_name("other")
    make(path)
    assert read_cached(str(path)) is None


@pytest.mark.parametrize("name", ["small\0", "small/", "\ud800", "x" * 300, "small/below", ""])
def test_no_name_of_a_file_is_not_read(small: Path, name: str) -> None:
    assert read_cached(os.path.join(small.parent, name)) is None


def test_no_link_is_followed_on_the_way(small: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(tmp_path)
    assert (tmp_path / "way" / "small").exists()
    assert read_cached(str(tmp_path / "way" / "small")) is None


def test_a_system_that_does_not_know_the_call_is_asked_once(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(*arguments: object) -> int:
        asked.append(arguments)
        ctypes.set_errno(errno.ENOSYS)
        return -1

    monkeypatch.setattr(page_cache, "_syscall", refuse)
    for _ in range(3):
        assert read_cached(str(small)) is None
    assert len(asked) == 1


def test_only_the_machines_own_disks_are_local() -> None:
    assert not page_cache.is_local(os.stat("/proc").st_dev)


class TestInAStore:
    @pytest.fixture
    def store(self, tmp_path: Path, small: Path) -> HashFS:
        if not page_cache.is_local(small.stat().st_dev):
            pytest.skip("this file system is not one that is known never to wait")
        store = HashFS(tmp_path / "store", fsync=False)
        with store.open(store.put(b"first")):  # which tells where it lies
            return store

    def test_nothing_is_before_a_file_of_a_local_device_has_been_opened(
        self, store: HashFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address = store.put(b"content")
        again = HashFS(store.root)
        assert again.backend.open_cached(address) is None
        with monkeypatch.context() as patch:
            patch.setattr(page_cache, "is_local", lambda device: False)
            again.open(address).close()
            assert again.backend.open_cached(address) is None
        again.open(address).close()
        assert again.backend.open_cached(address) is not None

    def test_it_is_found_by_id_by_path_and_by_address(self, store: HashFS) -> None:
        address = store.put(b"content")
        for name in (address, address.id, address.relpath):
            content = store.backend.open_cached(name)
            assert content is not None
            assert content.file is not None
            assert (content.address, content.size) == (store.get(address), 7)
            assert content.file.read() == b"content"

    def test_what_only_a_search_finds_is_left_to_one(self, store: HashFS) -> None:
        address = store.put(b"content", ".txt")
        for name in (address.id, address.abspath, "./" + address.relpath):
            assert store.get(name) is not None
            assert store.backend.open_cached(name) is None
        assert store.backend.open_cached(address) is not None

    def test_nothing_else_in_the_root_is_read(self, store: HashFS) -> None:
        address = store.put(b"content")
        Path(store.root, "stray").write_bytes(b"stray")
        for name in ("stray", address.relpath + "\0", address.relpath + ".x/../../stray", "", "."):
            assert store.backend.open_cached(name) is None

    def test_a_deleted_file_is_gone(self, store: HashFS) -> None:
        address = store.put(b"content")
        assert store.backend.open_cached(address) is not None
        store.delete(address)
        assert store.backend.open_cached(address) is None


@pytest.fixture
def app(tmp_path: Path) -> Quart:
    app = Quart(__name__)
    app.config.update(
        HASHFS_ROOT_FOLDER=str(tmp_path / "store"),
        HASHFS_FSYNC=False,
        HASHFS_SERVE_FILES=True,
        HASHFS_PATH_PREFIX="/files",
        HASHFS_WORKER_THREADS=1,
    )
    return app


LARGE = os.urandom(1_000_000)


@pytest.mark.parametrize("content", [b"content", LARGE], ids=["small", "large"])
async def test_it_is_served_while_all_threads_are_busy(
    app: Quart, small: Path, content: bytes
) -> None:
    fs = QuartHashFS(app)
    async with app.app_context():
        address = await fs.put(content)
        async with fs.open(address):
            if not app.extensions["hashfs"]["client"].backend.reads_cached:
                pytest.skip("this file system is not one that is known never to wait")
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(30)

    busy = asyncio.create_task(app.extensions["hashfs"]["workers"].run(work))
    await asyncio.to_thread(begun.wait)
    try:
        response = await app.test_client().get(f"/files/{address.relpath}")
        assert await response.get_data() == content
    finally:
        go_on.set()
        await busy


@pytest.fixture
def large(small: Path) -> Path:
    small.write_bytes(LARGE)
    return small


@pytest.fixture
def partly_cached(large: Path) -> Path:
    """Make a file of which only the beginning is in memory."""
    with large.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 400_000, 0, os.POSIX_FADV_DONTNEED)
        if page_cache.read_cached(file.fileno(), 700_000, 4096) is not None:
            pytest.skip("this file system gives no memory back")
    return large


def body_of(path: Path, start: int = 0, stop: int = len(LARGE)) -> StoredBody:
    plan = Plan(200, [], (ByteRange(start, stop),))
    executor = ThreadPoolExecutor(1)
    return StoredBody(plan, path.open("rb", buffering=0), b"", executor, None, True)


async def test_others_have_their_turn_while_a_large_file_is_read(large: Path) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    async with body_of(large) as body:
        pieces = [piece async for piece in body]
    task.cancel()
    assert b"".join(pieces) == LARGE
    assert turns >= len(pieces) - 1 > 5


@pytest.mark.parametrize("start", [0, 123_456])
async def test_what_is_not_in_memory_is_read_in_a_thread(partly_cached: Path, start: int) -> None:
    async with body_of(partly_cached, start) as body:
        assert b"".join([piece async for piece in body]) == LARGE[start:]


def test_what_a_close_may_wait_for_is_left_to_a_thread(small: Path) -> None:
    file = _InTurn(small.open("rb", buffering=0), True)
    with file._turn:  # as while another thread reads
        assert not file.close_at_once()
    small.unlink()
    assert not file.close_at_once()
    assert not file.closed
    file.close()


async def test_a_file_that_is_shorter_than_it_was_is_an_error(large: Path) -> None:
    async with body_of(large, stop=len(LARGE) + 1) as body:
        with pytest.raises(OSError, match="shorter"):
            async for _ in body:
                pass


async def test_the_answer_is_the_same_either_way(
    app: Quart, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "boundary")
    fs, client = QuartHashFS(app), app.test_client()
    async with app.app_context():
        addresses = [await fs.put(bytes(range(size)) * 9, ".txt") for size in (0, 1, 200)]
        addresses += [await fs.put(LARGE[:size]) for size in (MOST, MOST + 1, len(LARGE))]
        async with fs.open(addresses[-1]):
            store = app.extensions["hashfs"]["client"]
            if not store.backend.reads_cached:
                pytest.skip("this file system is not one that is known never to wait")

    async def answers() -> list[Any]:
        found = []
        for address in addresses:
            for headers in (
                {},
                {"Range": "bytes=2-5"},
                {"Range": "bytes=900-"},
                {"Range": "bytes=5-300000,400000-400009,-7"},
                {"If-None-Match": f'"{address.id}"'},
                {"If-Match": '"other"'},
            ):
                for name in (address.relpath, address.id, address.relpath + "x"):
                    for method in ("GET", "HEAD"):
                        response = await client.open(
                            f"/files/{name}", method=method, headers=headers
                        )
                        body = await response.get_data()
                        found.append((response.status_code, sorted(response.headers), body))
        return found

    cached = await answers()
    store.backend.reads_cached = False
    monkeypatch.setattr(page_cache, "is_local", lambda device: False)
    assert await answers() == cached
    assert not store.backend.reads_cached
    assert {status for status, _, _ in cached} == {200, 206, 304, 404, 412, 416}
