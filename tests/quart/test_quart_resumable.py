"""Resumable uploads under Quart: what a client that goes away leaves behind, which is nothing."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgi import Exchange
from object_stores import objects_of
from resumable_faces import TUS, TUS_CONTENT, BucketQuartFace, QuartFace

from flask_hashfs import file_stored
from flask_hashfs._app import resumable
from flask_hashfs._bucket.pending import BucketTaken
from flask_hashfs._local.pending import LocalTaken, LocalUploads
from flask_hashfs._quart import resumable as driver
from flask_hashfs._quart.workers import Workers
from flask_hashfs.exceptions import StoreUnavailableError

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at /proc")


def open_below(folder: Path) -> list[str]:
    """Return the files below `folder` that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


class Held:
    """Stands for a method: it does what that does, and then waits until it is let go."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self._real = real
        self.began, self.go_on = threading.Event(), threading.Event()

    def method(self) -> Callable[..., Any]:
        def held(*args: Any, **more: Any) -> Any:
            try:
                return self._real(*args, **more)
            finally:
                self.began.set()
                self.go_on.wait(20)

        return held


async def leave(face: QuartFace, method: str, location: str, held: Held) -> None:
    """Send a request to an upload of four bytes, and go away while a thread is held."""
    path = "/uploads" if method == "POST" else location
    headers = {
        "POST": {**TUS, "Upload-Length": "4"},
        "PATCH": {**TUS_CONTENT, "Upload-Offset": "0", "Content-Length": "4"},
    }.get(method, TUS)
    async with Exchange(face.app, path, method=method, headers=headers) as exchange:
        if method == "PATCH":
            await exchange.send(b"four")
        await exchange.finish()
        await asyncio.to_thread(held.began.wait, 20)
        await exchange.disconnect()
        await exchange.settle()
        held.go_on.set()


@pytest.mark.parametrize(
    ("holder", "name", "method"),
    [
        (LocalUploads, "take", "HEAD"),
        (LocalUploads, "take", "PATCH"),
        (LocalUploads, "create", "POST"),
        (LocalTaken, "end", "PATCH"),
        (LocalTaken, "finish", "PATCH"),
        (LocalTaken, "delete", "DELETE"),
    ],
)
def test_a_client_that_goes_while_a_thread_works_leaves_no_descriptor(
    holder: type, name: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = QuartFace(tmp_path / "root")
    location = face.create(4)
    held = Held(getattr(holder, name))
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, held.method())
        asyncio.run(leave(face, method, location, held))
    assert open_below(face.root) == []
    offset = face.offset(location)  # the next request does not wait for the one that is gone
    if name == "delete":
        assert offset is None
        assert face.left() == []
        return
    assert offset is not None
    if name in ("end", "finish"):
        assert face.contents() == [b"four"]
    else:
        assert face.tus(location, offset, b"four"[offset:]).status == 204


@pytest.mark.parametrize("name", ["write", "finish"])
def test_a_disk_that_fails_after_the_client_has_gone_holds_up_nobody(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, "the disk fails")

    face = QuartFace(tmp_path / "root")
    location = face.create(4)
    held = Held(fails)
    with monkeypatch.context() as patch:
        patch.setattr(LocalTaken, name, held.method())
        asyncio.run(leave(face, "PATCH", location, held))
    assert open_below(face.root) == []
    offset = face.offset(location)
    assert offset == (0 if name == "write" else 4)
    if name == "write":
        assert face.tus(location, 0, b"four").status == 204
    assert face.contents() == [b"four"]


def test_an_object_store_that_fails_after_the_client_has_gone_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise StoreUnavailableError("the store is down")

    face = BucketQuartFace(tmp_path / "root")
    location = face.create(4)
    held = Held(fails)
    with monkeypatch.context() as patch:
        patch.setattr(BucketTaken, "finish", held.method())
        asyncio.run(leave(face, "PATCH", location, held))
    assert objects_of(face.client).head(f".hashfs{location}/ending") is None, "no lease is held"
    assert face.offset(location) == 4
    assert face.contents() == [b"four"]


def test_a_long_concatenation_gives_its_thread_back_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = QuartFace(tmp_path / "root", HASHFS_WORKER_THREADS=1)
    part, other = face.create(20, Upload_Concat="partial"), face.create(4)
    assert face.tus(part, 0, b"x" * 20).status == 204
    order: list[str] = []
    copy = resumable._copy
    began, others_wait = threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        began.set()
        others_wait.wait(20)
        time.sleep(0.06)
        order.append("copy")
        copy(*args)

    async def look() -> None:
        answer = await face.app.test_client().head(other, headers=TUS)
        order.append(str(answer.status_code))

    async def look_meanwhile() -> None:
        headers = {**TUS, "Upload-Concat": f"final;{part}"}
        post = asyncio.create_task(face.app.test_client().post("/uploads", headers=headers))
        await asyncio.to_thread(began.wait, 20)
        looking = asyncio.create_task(look())
        workers = face.app.extensions["hashfs"]["workers"]
        while not workers.count_waiting() and not looking.done():
            await asyncio.sleep(0)
        others_wait.set()
        await looking
        assert (await post).status_code == 201

    monkeypatch.setattr(resumable, "_copy", slow)
    monkeypatch.setattr(resumable, "_COPY", 1)
    asyncio.run(look_meanwhile())
    assert order.count("copy") == 20
    assert order.index("200") < 20, "before the last slice was copied"
    assert b"x" * 20 in face.contents()


async def patch(face: QuartFace, location: str, *pieces: bytes, offset: int = 0) -> int | None:
    """Append pieces that have all arrived when the request begins; return the status."""
    size = sum(map(len, pieces))
    headers = {**TUS_CONTENT, "Upload-Offset": str(offset), "Content-Length": str(size)}
    async with Exchange(face.app, location, method="PATCH", headers=headers) as exchange:
        for piece in pieces:
            await exchange.send(piece)
        await exchange.finish()
    return exchange.status


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the calls of a worker, as they come; each keeps its thread as long as it can."""
    calls: list[object] = []
    run = Workers.run

    async def note_and_run(self: Workers, call: Any, *args: Any, **more: Any) -> Any:
        calls.append(call)
        return await run(self, call, *args, **more)

    monkeypatch.setattr(Workers, "run", note_and_run)
    monkeypatch.setattr(driver, "_KEPT_FOR", 60.0)  # however slow the disk is
    monkeypatch.setattr(file_stored, "receivers", {})  # whatever other tests have connected
    return calls


def test_a_worker_takes_with_it_what_has_arrived(tmp_path: Path, calls: list[object]) -> None:
    face = QuartFace(tmp_path / "root")
    location = face.create(12)
    calls.clear()
    assert asyncio.run(patch(face, location, b"one ", b"call")) == 204
    assert len(calls) == 1, "the upload is taken, written and left by one call"
    assert face.offset(location) == 8


def test_the_last_bytes_and_the_end_are_one_call(tmp_path: Path, calls: list[object]) -> None:
    face = QuartFace(tmp_path / "root")
    location = face.create(8)
    calls.clear()
    assert asyncio.run(patch(face, location, b"one ", b"call")) == 204
    assert len(calls) == 1, "nobody is told, so the thread need not be left"
    assert b"one call" in face.contents()


@pytest.mark.parametrize("offset", [0, 4])
def test_what_arrives_while_a_hook_is_asked_comes_in_its_order(tmp_path: Path, offset: int) -> None:
    face = QuartFace(tmp_path / "root")
    asked: list[str] = []

    @face.fs.before_upload
    def plain(upload: Any) -> None:
        asked.append(upload.action)

    @face.fs.before_upload
    async def coroutine(upload: Any) -> None:
        await asyncio.sleep(0.01)

    location = face.create(12)
    pieces = (b"first, ", b"then ", b"")
    status = asyncio.run(patch(face, location, *pieces, offset=offset))
    assert asked[:2] == ["create", "append"]
    if offset:
        assert status == 409
        assert face.offset(location) == 0
    else:
        assert status == 204
        assert face.contents() == [b"first, then "]
