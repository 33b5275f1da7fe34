"""Files read without waiting: what is, what is not, and that answers are the same either way."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from quart import Quart

from flask_hashfs import HashFS, QuartHashFS, _cached
from flask_hashfs._cached import read_cached
from flask_hashfs._tree import SMALL

pytestmark = pytest.mark.anyio


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Make a file that is in memory, on a system that can tell."""
    path = tmp_path / "small"
    path.write_bytes(b"in memory")
    if read_cached(str(path), SMALL) is None:
        pytest.skip("this system, or its file system, does not tell what is in memory")
    return path


def test_a_file_in_memory_is_read(small: Path) -> None:
    assert read_cached(str(small), 9) == b"in memory"
    small.write_bytes(b"")
    assert read_cached(str(small), 9) == b""


def test_a_file_that_is_too_large_is_not(small: Path) -> None:
    assert read_cached(str(small), 8) is None


def test_a_file_whose_content_is_not_in_memory_is_not_read(small: Path) -> None:
    fd = os.open(small, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    assert read_cached(str(small), SMALL) is None
    assert small.read_bytes() == b"in memory"
    assert read_cached(str(small), SMALL) == b"in memory"


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
    assert read_cached(str(path), SMALL) is None


@pytest.mark.parametrize("name", ["small\0", "small/", "\ud800", "x" * 300, "small/below", ""])
def test_no_name_of_a_file_is_not_read(small: Path, name: str) -> None:
    assert read_cached(os.path.join(small.parent, name), SMALL) is None


def test_no_link_is_followed_on_the_way(small: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(tmp_path)
    assert (tmp_path / "way" / "small").exists()
    assert read_cached(str(tmp_path / "way" / "small"), SMALL) is None


def test_a_system_that_does_not_know_the_call_is_asked_once(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(*arguments: object) -> int:
        asked.append(arguments)
        ctypes.set_errno(errno.ENOSYS)
        return -1

    monkeypatch.setattr(_cached, "_syscall", refuse)
    for _ in range(3):
        assert read_cached(str(small), SMALL) is None
    assert len(asked) == 1


def test_only_the_machines_own_disks_are_local() -> None:
    assert not _cached.is_local(os.stat("/proc").st_dev)


class TestInAStore:
    @pytest.fixture
    def store(self, tmp_path: Path, small: Path) -> HashFS:
        if not _cached.is_local(small.stat().st_dev):
            pytest.skip("this file system is not one that is known never to wait")
        store = HashFS(tmp_path / "store", fsync=False)
        with store.open(store.put(b"first")):  # which tells where it lies
            return store

    def test_nothing_is_before_a_file_of_a_local_device_has_been_opened(
        self, store: HashFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address = store.put(b"content")
        again = HashFS(store.root)
        assert again.open_cached(address) is None
        with monkeypatch.context() as patch:
            patch.setattr(_cached, "is_local", lambda device: False)
            again.open(address).close()
            assert again.open_cached(address) is None
        again.open(address).close()
        assert again.open_cached(address) is not None

    def test_it_is_found_by_id_by_path_and_by_address(self, store: HashFS) -> None:
        address = store.put(b"content")
        for name in (address, address.id, address.relpath):
            content = store.open_cached(name)
            assert content is not None
            assert content.file is not None
            assert (content.address, content.size) == (store.get(address), 7)
            assert content.file.read() == b"content"

    def test_what_only_a_search_finds_is_left_to_one(self, store: HashFS) -> None:
        address = store.put(b"content", ".txt")
        for name in (address.id, address.abspath, "./" + address.relpath):
            assert store.get(name) is not None
            assert store.open_cached(name) is None
        assert store.open_cached(address) is not None

    def test_nothing_else_in_the_root_is_read(self, store: HashFS) -> None:
        address = store.put(b"content")
        Path(store.root, "stray").write_bytes(b"stray")
        for name in ("stray", address.relpath + "\0", address.relpath + ".x/../../stray", "", "."):
            assert store.open_cached(name) is None

    def test_a_deleted_file_is_gone(self, store: HashFS) -> None:
        address = store.put(b"content")
        assert store.open_cached(address) is not None
        store.delete(address)
        assert store.open_cached(address) is None


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


async def test_it_is_served_while_all_threads_are_busy(app: Quart, small: Path) -> None:
    fs = QuartHashFS(app)
    async with app.app_context():
        address = await fs.put(b"content")
        async with fs.open(address):
            if app.extensions["hashfs"]["client"].open_cached(address) is None:
                pytest.skip("this file system is not one that is known never to wait")
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(30)

    busy = asyncio.create_task(app.extensions["hashfs"]["hops"].run(work))
    await asyncio.to_thread(begun.wait)
    try:
        response = await app.test_client().get(f"/files/{address.relpath}")
        assert await response.get_data() == b"content"
    finally:
        go_on.set()
        await busy


async def test_the_answer_is_the_same_either_way(
    app: Quart, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, client = QuartHashFS(app), app.test_client()
    async with app.app_context():
        addresses = [await fs.put(bytes(range(size)) * 9, ".txt") for size in (0, 1, 200)]

    async def answers() -> list[Any]:
        found = []
        for address in addresses:
            for headers in (
                {},
                {"Range": "bytes=2-5"},
                {"Range": "bytes=900-"},
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
    monkeypatch.setattr(_cached, "_syscall", None)
    assert await answers() == cached
    assert {status for status, _, _ in cached} == {200, 206, 304, 404, 412, 416}
