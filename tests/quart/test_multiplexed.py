"""Requests of a shared connection: none waits for another, and what is unread goes to disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import servers
from asgi import Exchange
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from quart import Quart, request

from flask_hashfs import QuartHashFS
from flask_hashfs._quart import multiplexed
from flask_hashfs._quart.multiplexed import SPILL
from flask_hashfs._storage.spool import SystemSpool, TemporaryFile
from flask_hashfs._storage.upload_files import UploadFiles
from flask_hashfs._storage.upload_memory import MOST

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at /proc"),
]

PIECE = 16 * 1024
LARGE = os.urandom(MOST + 3 * SPILL + 77)


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


@pytest.mark.parametrize("size", [0, 1, MOST, MOST + SPILL + 1, len(LARGE)])
async def test_everything_is_received_though_the_view_does_not_read(
    tmp_path: Path, size: int
) -> None:
    upload, before = Upload(tmp_path, store), await spooled_files()
    pieces = pieces_of(LARGE[:size])
    async with upload.exchange() as exchange:
        await exchange.send(*pieces)
        await exchange.finish()
        await settled(exchange, len(pieces) + 1)
        assert len(await spooled_files()) - len(before) == (size > MOST + SPILL)
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


async def test_a_file_from_which_all_has_been_read_is_closed_while_more_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, first, files = hashlib.sha256(), hashlib.sha256(LARGE).digest(), UploadFiles(9)
    monkeypatch.setattr(multiplexed, "FILES", files)

    async def read(fs: QuartHashFS) -> str:
        async for data in request.body:
            digest.update(data)
        return digest.hexdigest()

    upload, pieces = Upload(tmp_path, read), pieces_of(LARGE)
    async with upload.exchange() as exchange:
        await exchange.send(*pieces)
        await settled(exchange, len(pieces))
        assert files.open_count == 1
        upload.go_on.set()
        async with asyncio.timeout(30):
            while digest.digest() != first:
                await asyncio.sleep(0.005)
        assert files.open_count == 0
        await exchange.send(*pieces)
        await exchange.finish()
    assert exchange.body.decode() == hashlib.sha256(LARGE * 2).hexdigest()
    assert files.open_count == 0


async def test_many_requests_have_no_more_files_open_than_there_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, pieces, files = Upload(tmp_path, store), pieces_of(LARGE), UploadFiles(2)
    monkeypatch.setattr(multiplexed, "FILES", files)
    async with AsyncExitStack() as stack:
        exchanges = []
        for _ in range(5):
            exchange = await stack.enter_async_context(upload.exchange())
            exchanges.append(exchange)
            await exchange.send(*pieces)
            await settled(exchange, len(pieces))
            assert 1 <= files.open_count <= 2
            await exchange.finish()
        upload.go_on.set()
    for exchange in exchanges:
        assert exchange.body.decode() == hashlib.sha256(LARGE).hexdigest()
    assert files.open_count == 0


async def test_a_connection_of_its_own_waits_and_needs_no_disk(tmp_path: Path) -> None:
    upload, before = Upload(tmp_path, store), await spooled_files()
    async with upload.exchange("1.1") as exchange:
        await exchange.send(*pieces_of(LARGE))
        await exchange.finish()
        await settled(exchange, MOST // PIECE)
        await exchange.settle()
        assert exchange.received == MOST // PIECE
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
    upload.app.config["MAX_CONTENT_LENGTH"] = MOST
    pieces = pieces_of(LARGE)
    async with upload.exchange() as exchange:
        await exchange.send(*pieces)
        await exchange.finish()
        await settled(exchange, len(pieces) + 1)
        assert await spooled_files() == before
        upload.go_on.set()
    assert exchange.status == 413


async def test_a_body_that_becomes_too_large_gives_back_its_place_on_the_disk(
    tmp_path: Path,
) -> None:
    upload, before = Upload(tmp_path, store), await spooled_files()
    upload.app.config["MAX_CONTENT_LENGTH"] = MOST + 2 * SPILL
    pieces = pieces_of(LARGE)
    async with upload.exchange() as exchange:
        first = (MOST + SPILL) // PIECE + 1
        await exchange.send(*pieces[:first])
        await settled(exchange, first)
        assert len(await spooled_files()) == len(before) + 1
        await exchange.send(*pieces[first:])
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
    upload.app.config["MAX_CONTENT_LENGTH"] = MOST
    exchange = await read_when_all_is_here(upload)
    assert exchange.status == 400
    assert b"larger than was allowed when it arrived" in exchange.body


async def test_a_full_disk_is_the_error_of_whoever_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(spool: SystemSpool, dmode: int) -> TemporaryFile:
        return TemporaryFile(os.open("/dev/full", os.O_RDWR), None, spool)

    monkeypatch.setattr(SystemSpool, "create", create)
    upload = Upload(tmp_path, store)
    exchange = await read_when_all_is_here(upload)
    assert exchange.status == 507


async def test_without_a_temporary_folder_whoever_reads_learns_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/full/none")
    monkeypatch.setattr(multiplexed, "_spool", SystemSpool)
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


def post_all(
    port: int, path: str, contents: list[bytes], when_sent: Callable[[], object]
) -> list[tuple[bytes, bytes]]:
    """Post so many contents over one connection at once; return the status and body of each."""
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    host = [(":scheme", "http"), (":authority", "localhost")]
    left: dict[int, bytes] = {}
    for content in contents:
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, [(":method", "POST"), (":path", path), *host])
        left[stream] = content
    statuses, bodies, ended = dict.fromkeys(left, b""), dict.fromkeys(left, b""), 0
    with socket.create_connection(("127.0.0.1", port), servers.ANSWER_TIMEOUT) as client:
        while ended < len(contents):
            for stream, content in list(left.items()):
                size = min(len(content), connection.local_flow_control_window(stream), PIECE)
                if size:
                    left[stream] = content[size:]
                    connection.send_data(stream, content[:size], end_stream=size == len(content))
            client.sendall(connection.data_to_send())
            if left and not any(left.values()):
                left.clear()
                when_sent()
            if any(connection.local_flow_control_window(each) for each in left if left[each]):
                continue
            data = client.recv(64 * 1024)
            assert data
            for event in connection.receive_data(data):
                if isinstance(event, ResponseReceived):
                    statuses[event.stream_id] = dict(event.headers)[b":status"]
                elif isinstance(event, DataReceived):
                    bodies[event.stream_id] += event.data
                    connection.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                elif isinstance(event, StreamEnded | StreamReset):
                    ended += 1
    return [(statuses[stream], bodies[stream]) for stream in statuses]


@pytest.mark.servers
def test_many_streams_need_no_descriptor_each(tmp_path: Path) -> None:
    environment = {
        "FLASK_HASHFS_ROOT_FOLDER": str(tmp_path / "store"),
        "FLASK_HASHFS_FSYNC": "false",
        "FLASK_HASHFS_UPLOAD_MEMORY": str(1024 * 1024),
        "FLASK_MAX_CONTENT_LENGTH": "null",
        "CROWD_DESCRIPTORS": "80",
    }
    contents = [b"%08d" % number + LARGE[: 600 * 1024] for number in range(90)]
    app = "crowd_app:quart_app()"
    with servers.serve("hypercorn", app, env=environment, ready="/stats") as server:

        def ask(path: str) -> bytes:
            with server.connect() as client:
                return client.request("GET", path).body

        answers = post_all(server.port, "/unread", contents, lambda: ask("/tell"))
        assert {status for status, _ in answers} == {b"200"}
        for content, (_, body) in zip(contents, answers, strict=True):
            assert json.loads(body) == {"ids": [hashlib.sha256(content).hexdigest()]}
        end = time.monotonic() + servers.ANSWER_TIMEOUT
        while any((stats := json.loads(ask("/stats")))[key] for key in ("active", "files")):
            assert time.monotonic() < end, stats
            time.sleep(0.05)
