"""Requests of a shared connection: none waits for another, and what is unread goes to disk."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import servers
from asgi import Exchange
from quart import Quart, request

from flask_hashfs import QuartHashFS
from flask_hashfs._quart.body import HIGH_WATER
from flask_hashfs._quart.multiplexed import SPILL

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at /proc"),
]

PIECE = 16 * 1024
LARGE = os.urandom(HIGH_WATER + 3 * SPILL + 77)


class Upload:
    """An app with one view that does not read before `go_on`."""

    def __init__(self, root: Path, read: Callable[[QuartHashFS], Awaitable[Any]]) -> None:
        self.app = Quart(__name__)
        self.app.config.update(
            HASHFS_ROOT_FOLDER=str(root), HASHFS_FSYNC=False, MAX_CONTENT_LENGTH=None
        )
        fs = QuartHashFS(self.app)
        self.go_on = asyncio.Event()

        @self.app.post("/")
        async def view() -> Any:
            await self.go_on.wait()
            return await read(fs)

    def exchange(self, version: str = "2") -> Exchange:
        return Exchange(self.app, http_version=version)


async def store(fs: QuartHashFS) -> str:
    return (await fs.put(request.body)).id


async def settled(exchange: Exchange, count: int) -> None:
    """Wait until the app has received `count` messages, worker threads and all."""
    async with asyncio.timeout(30):
        while exchange.received < count:
            await asyncio.sleep(0.005)


async def read_when_all_is_here(upload: Upload) -> Exchange:
    """Send all of `LARGE` to a view that reads only then, and return what it answered."""
    pieces = pieces_of(LARGE)
    async with upload.exchange() as exchange:
        await exchange.send(*pieces)
        await exchange.finish()
        await settled(exchange, len(pieces) + 1)
        upload.go_on.set()
    return exchange


async def spooled_files() -> list[str]:
    """Return what the open temporary files of this process lead to."""

    def find() -> list[str]:
        found = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
            except OSError:
                continue
        folder = os.path.realpath(tempfile.gettempdir())
        return [path for path in found if path.startswith(folder) and "(deleted)" in path]

    return await asyncio.to_thread(find)


def pieces_of(content: bytes) -> list[bytes]:
    return [content[at : at + PIECE] for at in range(0, len(content), PIECE)]


@pytest.mark.parametrize("size", [0, 1, HIGH_WATER, HIGH_WATER + SPILL + 1, len(LARGE)])
async def test_everything_is_received_though_the_view_does_not_read(
    tmp_path: Path, size: int
) -> None:
    upload, before = Upload(tmp_path, store), await spooled_files()
    pieces = pieces_of(LARGE[:size])
    async with upload.exchange() as exchange:
        await exchange.send(*pieces)
        await exchange.finish()
        await settled(exchange, len(pieces) + 1)
        assert len(await spooled_files()) - len(before) == (size > HIGH_WATER + SPILL)
        upload.go_on.set()
    assert exchange.body.decode() == hashlib.sha256(LARGE[:size]).hexdigest()
    assert await spooled_files() == before


async def test_bytes_that_come_while_others_are_read_back_keep_their_order(tmp_path: Path) -> None:
    async def read_slowly(fs: QuartHashFS) -> str:
        digest = hashlib.sha256()
        async for data in request.body:
            digest.update(data)
            await asyncio.sleep(0.001)
        return digest.hexdigest()

    upload = Upload(tmp_path, read_slowly)
    pieces = pieces_of(LARGE)
    half = len(pieces) // 2
    async with upload.exchange() as exchange:
        await exchange.send(*pieces[:half])
        await settled(exchange, half)
        upload.go_on.set()
        for piece in pieces[half:]:
            await exchange.send(piece)
            await asyncio.sleep(0)
        await exchange.finish()
    assert exchange.body.decode() == hashlib.sha256(LARGE).hexdigest()


async def test_a_connection_of_its_own_waits_and_needs_no_disk(tmp_path: Path) -> None:
    upload, before = Upload(tmp_path, store), await spooled_files()
    async with upload.exchange("1.1") as exchange:
        await exchange.send(*pieces_of(LARGE))
        await exchange.finish()
        await settled(exchange, HIGH_WATER // PIECE)
        await exchange.settle()
        assert exchange.received == HIGH_WATER // PIECE
        assert await spooled_files() == before
        upload.go_on.set()
    assert exchange.body.decode() == hashlib.sha256(LARGE).hexdigest()


async def test_a_client_that_goes_leaves_no_file(tmp_path: Path) -> None:
    upload, before = Upload(tmp_path, store), await spooled_files()
    pieces = pieces_of(LARGE)
    async with upload.exchange() as exchange:
        await exchange.send(*pieces)
        await exchange.disconnect()
        await settled(exchange, len(pieces))
        upload.go_on.set()
    assert exchange.status == 400
    assert await spooled_files() == before


async def test_a_server_that_ends_the_connection_leaves_no_file(tmp_path: Path) -> None:
    upload, before = Upload(tmp_path, store), await spooled_files()
    pieces = pieces_of(LARGE)
    exchange = await upload.exchange().__aenter__()
    await exchange.send(*pieces)
    await settled(exchange, len(pieces))
    exchange.task.cancel()
    await asyncio.wait([exchange.task])
    assert await spooled_files() == before


async def test_what_is_over_the_limit_takes_no_place_on_the_disk(tmp_path: Path) -> None:
    upload, before = Upload(tmp_path, store), await spooled_files()
    upload.app.config["MAX_CONTENT_LENGTH"] = HIGH_WATER
    pieces = pieces_of(LARGE)
    async with upload.exchange() as exchange:
        await exchange.send(*pieces)
        await exchange.finish()
        await settled(exchange, len(pieces) + 1)
        assert await spooled_files() == before
        upload.go_on.set()
    assert exchange.status == 413


async def test_a_limit_that_is_raised_too_late_makes_no_file_of_a_part(tmp_path: Path) -> None:
    async def raise_the_limit(fs: QuartHashFS) -> str:
        request.max_content_length = 10 * len(LARGE)
        return await store(fs)

    upload = Upload(tmp_path, raise_the_limit)
    upload.app.config["MAX_CONTENT_LENGTH"] = HIGH_WATER
    exchange = await read_when_all_is_here(upload)
    assert exchange.status == 400
    assert b"larger than was allowed when it arrived" in exchange.body


async def test_a_full_disk_is_the_error_of_whoever_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: open("/dev/full", "w+b"))  # noqa: SIM115
    upload = Upload(tmp_path, store)
    exchange = await read_when_all_is_here(upload)
    assert exchange.status == 507


async def test_without_a_temporary_folder_whoever_reads_learns_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/full/none")
    upload = Upload(tmp_path, store)
    exchange = await read_when_all_is_here(upload)
    assert exchange.status == 503
    assert b"/dev/full" not in exchange.body


# On a real server, with a real client.


def held_app() -> Quart:
    """Make an app with a view that does not read before it is told to."""
    app = Quart(__name__)
    app.config.from_prefixed_env("FLASK")
    fs = QuartHashFS(app)
    told = asyncio.Event()

    @app.post("/held")
    async def held() -> str:
        await told.wait()
        return await store(fs)

    @app.get("/tell")
    async def tell() -> str:
        told.set()
        return ""

    @app.get("/ping")
    async def ping() -> str:
        return "pong"

    @app.get("/memory")
    async def memory() -> str:
        with open("/proc/self/status") as status:
            return next(line for line in status if line.startswith("VmHWM:")).split()[1]

    return app


UPLOAD = 32 * 1024 * 1024


@pytest.fixture(params=["hypercorn", "granian"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[servers.Server]:
    environment = {
        "FLASK_HASHFS_ROOT_FOLDER": str(tmp_path / "store"),
        "FLASK_MAX_CONTENT_LENGTH": "null",
    }
    folder = Path(__file__).parent
    app = "test_multiplexed:held_app()"
    with servers.serve(request.param, app, env=environment, cwd=folder, ready="/ping") as server:
        yield server


@pytest.mark.servers
async def test_no_stream_of_a_connection_waits_for_an_upload_that_nobody_reads(
    server: servers.Server,
) -> None:
    sent, block, digest = 0, os.urandom(1024 * 1024), hashlib.sha256()

    async def content() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < UPLOAD:
            digest.update(block)
            yield block
            sent += len(block)

    async with httpx.AsyncClient(
        base_url=server.url, http1=False, http2=True, timeout=200
    ) as client:
        before = int((await client.get("/memory")).text)
        upload = asyncio.create_task(client.post("/held", content=content()))
        while sent < UPLOAD:
            answer = await client.get("/ping")
            assert (answer.text, answer.http_version) == ("pong", "HTTP/2")
            assert not upload.done()
            await asyncio.sleep(0.01)
        grown = int((await client.get("/memory")).text) - before
        await client.get("/tell")
        assert (await upload).text == digest.hexdigest()
    assert grown < 16 * 1024  # KiB
