"""Files read without waiting: what is, what is not, and that answers are the same either way."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from quart import Quart

from flask_hashfs import HashFS, QuartHashFS
from flask_hashfs._http.plan import Plan
from flask_hashfs._http.ranges import ByteRange
from flask_hashfs._quart import sender
from flask_hashfs._quart.sender import StoredBody, _InTurn
from flask_hashfs._storage import page_cache
from flask_hashfs._storage.page_cache import MOST

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


ATTEMPTS = range(50)
"""A disk may be so quick that what a read would have had to fetch is there before it is refused."""


def write_past_memory(path: Path, content: bytes, cached: int = 0) -> None:
    """Write a file of whole pages of which only the first `cached` bytes come into memory."""
    path.unlink(missing_ok=True)
    path.write_bytes(content[:cached])
    rest = mmap.mmap(-1, len(content) - cached)  # aligned, as O_DIRECT wants it
    rest.write(content[cached:])
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        assert os.pwrite(fd, rest, cached) == len(rest)
    except OSError as error:
        pytest.skip(f"this file system has no O_DIRECT: {error}")
    finally:
        os.close(fd)
        rest.close()


def test_a_file_whose_content_is_not_in_memory_is_not_read(small: Path) -> None:
    content = os.urandom(MOST)
    found = []
    for _ in ATTEMPTS:
        write_past_memory(small, content)
        found.append(read_cached(str(small)))
        if found[-1] is None:
            break
    assert found.pop() is None
    assert all(each == content for each in found)
    assert small.read_bytes() == content
    assert read_cached(str(small)) == content


def test_a_read_leaves_the_date_of_access_alone(small: Path) -> None:
    os.utime(small, (1, 2))  # older than the last change, so that any other read would renew it
    assert read_cached(str(small)) == b"in memory"
    with small.open("rb", buffering=0) as file:
        assert page_cache.reads_cached(file.fileno(), os.fstat(file.fileno()).st_dev)
        assert page_cache.read_cached(file.fileno(), 0, 9) == b"in memory"
        assert file.read() == b"in memory"
    assert small.stat().st_atime == 1


AS_NOBODY = """
import os, sys
from flask_hashfs._storage import page_cache
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
for _ in range(2):
    fd, state = page_cache.open_cached(sys.argv[1])
    assert page_cache.reads_cached(fd, state.st_dev)
    assert page_cache.read_cached(fd, 0, state.st_size) == b"in memory"
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_of_somebody_else_is_read_too(small: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # `tmp_path` may be entered by its owner only
        os.chmod(folder, 0o755)
        path = Path(folder, "small")
        path.write_bytes(b"in memory")
        os.chmod(path, 0o644)
        subprocess.run([sys.executable, "-c", AS_NOBODY, path], check=True, timeout=60)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("small"),
    ],
)
def test_a_file_that_is_not_a_regular_one_is_not_read(
    small: Path, make: Callable[[Path], object]
) -> None:
    path = small.with_name("other")
    make(path)
    assert read_cached(str(path)) is None


@pytest.mark.parametrize("name", ["small\0", "small/", "\ud800", "x" * 300, "small/below", ""])
def test_a_name_that_no_file_can_have_is_not_read(small: Path, name: str) -> None:
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
    with open("/proc/self/status", "rb") as file:
        assert not page_cache.reads_cached(file.fileno(), os.fstat(file.fileno()).st_dev)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=60, capture_output=True)


class Mount:
    """A file system of its own for a test, as large as an image in a file allows."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.path, self.image = folder / "mount", folder / "image"
        self.path.mkdir()
        if kind not in ("tmpfs", "overlay"):
            self.image.touch()
            os.truncate(self.image, 320 * 1024 * 1024)
            run(f"mkfs.{kind}", "-q", self.image)

    def __enter__(self) -> Mount:
        if self.kind == "tmpfs":
            run("mount", "-t", "tmpfs", "none", self.path)
        elif self.kind == "overlay":
            layers = [self.folder / name for name in ("lowerdir", "upperdir", "workdir")]
            for layer in layers:
                layer.mkdir()
            options = ",".join(f"{layer.name}={layer}" for layer in layers)
            run("mount", "-t", "overlay", "none", "-o", options, self.path)
        else:
            run("mount", "-o", "loop,relatime", self.image, self.path)
        return self

    def __exit__(self, *_: object) -> None:
        run("umount", self.path)


@pytest.fixture(autouse=True)
def fresh_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget other tests' file systems: the kernel gives their device numbers to the next ones."""
    monkeypatch.setattr(page_cache, "_devices", {})


def mounted(kind: str, folder: Path) -> Mount:
    try:
        with Mount(kind, folder) as mount:
            return mount
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"{kind} cannot be made or mounted here: {error}")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_file_system_that_is_taken_keeps_the_promise(kind: str, tmp_path: Path) -> None:
    mount, content = mounted(kind, tmp_path), os.urandom(MOST)
    path = mount.path / "folder" / "file"
    with mount:
        path.parent.mkdir()
        path.write_bytes(content)
        assert read_cached(str(path)) == content
        os.utime(path, (1, 2))
    first: bytes | None = content
    for _ in ATTEMPTS:
        with mount:  # nothing is in memory now
            assert page_cache.open_cached(str(path)) is None
            os.stat(path)  # now the name is
            opened = page_cache.open_cached(str(path))
            assert opened is not None
            fd, state = opened
            assert page_cache.reads_cached(fd, state.st_dev)
            first = page_cache.read_cached(fd, 0, MOST)
            assert os.pread(fd, MOST, 0) == content
            assert page_cache.read_cached(fd, 0, MOST) == content
            os.close(fd)
            assert path.stat().st_atime == 1
        if first is None:
            break
    assert first is None


@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_a_file_system_that_cannot_be_asked_is_not_taken(kind: str, tmp_path: Path) -> None:
    mounted(kind, tmp_path)
    (tmp_path / "again").mkdir()
    with Mount(kind, tmp_path / "again") as mount:
        path = mount.path / "file"
        path.write_bytes(b"in memory")
        assert read_cached(str(path)) is None
        with path.open("rb") as file:
            assert not page_cache.reads_cached(file.fileno(), path.stat().st_dev)


class TestInAStore:
    @pytest.fixture
    def store(self, tmp_path: Path, small: Path) -> HashFS:
        with small.open("rb") as file:
            if not page_cache.reads_cached(file.fileno(), small.stat().st_dev):
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
            patch.setattr(page_cache, "reads_cached", lambda fd, device: False)
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

    busy = asyncio.create_task(app.extensions["hashfs"]["reading"].run(work))
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
async def test_what_is_not_in_memory_is_read_in_a_thread_and_so_is_all_after_it(
    small: Path, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = os.urandom(250 * 4096)
    answers: list[bytes | None] = []

    def note(fd: int, start: int, size: int) -> bytes | None:
        answers.append(page_cache.read_cached(fd, start, size))
        return answers[-1]

    monkeypatch.setattr(sender, "read_cached", note)
    for _ in ATTEMPTS:
        answers.clear()
        await asyncio.to_thread(write_past_memory, small, pages, 100 * 4096)
        async with body_of(small, start, len(pages)) as body:
            assert b"".join([piece async for piece in body]) == pages[start:]
        if None in answers:
            break
    assert answers.pop() is None  # it was not asked again
    assert answers
    assert None not in answers


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


@pytest.mark.slow
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
                        response = await client.open(  # type: ignore[call-arg]
                            f"/files/{name}", method=method, headers=headers
                        )
                        body = await response.get_data()
                        found.append((response.status_code, sorted(response.headers), body))
        return found

    cached = await answers()
    store.backend.reads_cached = False
    monkeypatch.setattr(page_cache, "reads_cached", lambda fd, device: False)
    assert await answers() == cached
    assert not store.backend.reads_cached
    assert {status for status, _, _ in cached} == {200, 206, 304, 404, 412, 416}
