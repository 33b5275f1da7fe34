"""A full disk: an error of its own, 507, and nothing left behind; on a file system that is full."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import pickle
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from file_systems import small_disk
from flask import Flask, request
from local_stores import open_files, spool_of
from pending_contract import append, end
from quart import Quart
from quart import request as quart_request
from werkzeug.exceptions import HTTPException

from flask_hashfs import FlaskHashFS, HashFS, QuartHashFS, StoreFullError
from flask_hashfs._storage.pending import Record, new_id

SIZE = 4 * 1024 * 1024  # bytes of the file system
BLOCK = 4096  # bytes
LARGE = b"x" * (SIZE + 1)
SMALL = b"small" * 1000


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    with small_disk(folder, f"size={SIZE}"):
        yield folder


@pytest.fixture(params=["unnamed", "named"])
def store(disk: Path, request: pytest.FixtureRequest) -> Iterator[HashFS]:
    store = HashFS(disk / "root")
    store.put(b"there already")
    spool_of(store).unnamed = request.param == "unnamed"
    before = everything(disk)
    yield store
    assert everything(disk) == before
    assert not [path for path in open_files() if path.startswith(str(disk))]
    subprocess.run(["rm", "-rf", store.root], check=True)


def everything(disk: Path) -> list[str]:
    return sorted(str(path) for path in disk.rglob("*") if path.name != "filler")


@pytest.fixture
def full(disk: Path, store: HashFS) -> Iterator[None]:
    """Leave not one byte free."""
    with filled(disk):
        yield


@contextlib.contextmanager
def filled(disk: Path, free: int = 0) -> Iterator[None]:
    """Leave so many bytes free, which are whole blocks of the disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(b"0" * BLOCK):
                pass
        file.truncate(file.tell() - free)
    try:
        assert os.statvfs(disk).f_bavail * BLOCK == free
        yield
    finally:
        filler.unlink()


def test_content_that_is_larger_than_the_disk(store: HashFS) -> None:
    for source in (LARGE, io.BytesIO(LARGE), iter([LARGE[:99], LARGE])):
        with pytest.raises(StoreFullError) as caught:
            store.put(source)
        assert caught.value.errno == errno.ENOSPC


@pytest.mark.usefixtures("full")
def test_small_content_on_a_disk_without_a_byte(store: HashFS) -> None:
    for extension in (None, "txt"):
        with pytest.raises(StoreFullError, match="No space left"):
            store.put(SMALL, extension)
    assert store.put(b"there already").is_duplicate
    assert not store.exists(HashFS("x").computehash(io.BytesIO(SMALL)))


@pytest.mark.usefixtures("full")
def test_many_files_at_once(store: HashFS) -> None:
    results = dict(store.put_files([(SMALL, None), (LARGE, None), (b"there already", None)]))
    assert isinstance(results[SMALL], StoreFullError)
    assert isinstance(results[LARGE], StoreFullError)
    assert not isinstance(results[b"there already"], Exception)


def test_the_state_of_an_upload_stays_as_it_was_where_it_can_be_written_in_part_only(
    disk: Path, store: HashFS
) -> None:
    pending, content = store.backend.pending, b"x" * 100
    record = Record(metadata={"filename": "n" * 2 * BLOCK}, length=len(content))
    taken = pending.create(new_id(), record)
    taken.begin(len(content), True, marked=False, brings=10)
    taken.write(content[:10])
    with filled(disk, free=BLOCK):
        with pytest.raises(OSError, match="No space left"):
            taken.begin(len(content), True, marked=True, brings=5)  # its state names a mark
        taken.close()
        assert pending.find(taken.id).offset == 10
    taken = pending.take(taken.id)
    append(taken, content[10:], len(content))
    end(store, taken)
    assert store.exists(HashFS("x").computehash(io.BytesIO(content)))
    subprocess.run(["rm", "-rf", store.root], check=True)
    store.put(b"there already")


def test_a_root_that_cannot_be_made(disk: Path, store: HashFS) -> None:
    folder = disk / "few"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "nr_inodes=2", "tmpfs", str(folder)]
    subprocess.run(words, check=True)
    try:
        (folder / "last").touch()
        for file in (SMALL, LARGE):
            with pytest.raises(StoreFullError):
                HashFS(folder / "root").put(file)
        with pytest.raises(StoreFullError):
            list(HashFS(folder / "root").put_files([(SMALL, None)]))
        assert os.listdir(folder) == ["last"]
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


@pytest.mark.usefixtures("full")
def test_the_spool_of_an_object_store(
    disk: Path, store: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed: no spool is filled")
    from flask_hashfs._store.object_store import ObjectStore

    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    bucket = ObjectStore("memory://")
    with pytest.raises(StoreFullError):
        bucket.put(b"x" * (9 * 1024 * 1024))
    assert list(bucket.files()) == []


def flask_app(root: str) -> Any:
    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=root, PROPAGATE_EXCEPTIONS=False)
    fs = FlaskHashFS(app)

    @app.post("/form")
    def form() -> str:
        return fs.put(request.files["file"]).id

    @app.post("/raw")
    def raw() -> str:
        return fs.put(request.stream).id

    return app


def quart_app(root: str) -> Any:
    app = Quart(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=root, PROPAGATE_EXCEPTIONS=False)
    fs = QuartHashFS(app)

    @app.post("/form")
    async def form() -> str:
        return (await fs.put((await quart_request.files)["file"])).id

    @app.post("/raw")
    async def raw() -> str:
        return (await fs.put(quart_request.body)).id

    return app


def post(app: Any, path: str, data: bytes) -> tuple[int, str]:
    """Return the status and the text of the answer to an upload."""
    headers = {}
    if path == "/form":
        headers["Content-Type"] = "multipart/form-data; boundary=b"
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
        data = head + data + b"\r\n--b--\r\n"
    if isinstance(app, Flask):
        response = app.test_client().post(path, data=data, headers=headers)
        return response.status_code, response.text

    async def run() -> tuple[int, str]:
        response = await app.test_client().post(path, data=data, headers=headers)
        return response.status_code, await response.get_data(as_text=True)

    return asyncio.run(run())


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("path", ["/form", "/raw"])
@pytest.mark.parametrize("make", [flask_app, quart_app])
def test_an_upload_is_answered_with_507(
    store: HashFS,
    make: Callable[[str], Any],
    path: str,
    data: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    status, text = post(make(store.root), path, data)
    assert status == 507
    assert "storage is full" in text
    assert store.root not in text
    assert "The store is full: [Errno 28] No space left on device" in caplog.text


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("handled", [StoreFullError, OSError, HTTPException])
@pytest.mark.parametrize("make", [flask_app, quart_app])
def test_an_app_may_answer_for_itself(
    store: HashFS, make: Callable[[str], Any], handled: Any
) -> None:
    app = make(store.root)
    app.register_error_handler(handled, lambda error: ("come back tomorrow", 503))
    assert post(app, "/form", LARGE) == (503, "come back tomorrow")


def test_the_error_can_be_pickled_and_is_an_os_error() -> None:
    error = StoreFullError(errno.EDQUOT, "Disk quota exceeded", "/root/x")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, OSError)
    assert isinstance(again, StoreFullError)
    assert str(again) == str(error) == f"[Errno {errno.EDQUOT}] Disk quota exceeded: '/root/x'"
    assert (again.errno, again.filename, again.code) == (errno.EDQUOT, "/root/x", 507)


def test_a_quota_that_is_exhausted_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(fd: int, data: Any) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StoreFullError, match="quota"):
        HashFS(tmp_path / "root").put(SMALL)
