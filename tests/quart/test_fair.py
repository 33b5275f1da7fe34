"""Uploads and downloads under Quart have threads of their own, and no request has two."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from quart import Quart, request

from flask_hashfs import QuartHashFS
from flask_hashfs._quart.workers import Workers

pytestmark = pytest.mark.anyio

THREADS = 2


@pytest.fixture(params=["folder", "bucket"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app(kind: str, tmp_path: Path) -> Quart:
    # What lies in a bucket is never in this process's memory: each answer needs a thread.
    root = tmp_path / "store" if kind == "folder" else "memory://bucket"
    app = Quart(__name__)
    app.config.update(
        TESTING=True,
        HASHFS_ROOT_FOLDER=str(root),
        HASHFS_WORKER_THREADS=THREADS,
        HASHFS_SERVE_FILES=True,
        HASHFS_PATH_PREFIX="/files",
    )
    return app


@pytest.fixture
def fs(app: Quart) -> QuartHashFS:
    return QuartHashFS(app)


@contextmanager
def pipes(count: int) -> Iterator[list[tuple[Any, Any]]]:
    """Give pipes, each as a file to read and one to write."""
    ends = [os.pipe() for _ in range(count)]
    with ExitStack() as stack:
        yield [
            (stack.enter_context(open(read, "rb")), stack.enter_context(open(write, "wb")))
            for read, write in ends
        ]


def finish(writer: Any, content: bytes) -> None:
    writer.write(content)
    writer.close()


async def until_all_are_taken(workers: Workers) -> None:
    while workers.limiter.available_tokens:
        await asyncio.sleep(0.01)


class Blocking(os.PathLike[str]):
    """What is looked up, and keeps its thread until it may go on."""

    def __init__(self, path: str, go_on: threading.Event) -> None:
        self.path, self.go_on = path, go_on

    def __fspath__(self) -> str:
        assert self.go_on.wait(30)
        return self.path


async def test_a_file_is_served_while_uploads_have_all_their_threads(
    app: Quart, fs: QuartHashFS
) -> None:
    async with app.app_context():
        stored = await fs.put(b"answered")
        with pipes(THREADS + 1) as files:
            puts = [asyncio.create_task(fs.put(reader)) for reader, _ in files]
            await until_all_are_taken(app.extensions["hashfs"]["workers"])
            assert await fs.exists(stored.id)
            assert await fs.get(stored.id) is not None
            async with fs.open(stored.id) as file:
                assert await file.read() == b"answered"
            response = await app.test_client().get(f"/files/{stored.id}")
            assert await response.get_data() == b"answered"
            assert not any(put.done() for put in puts)
            for number, (_, writer) in enumerate(files):
                await asyncio.to_thread(finish, writer, b"late %d" % number)
            assert len({address.id for address in await asyncio.gather(*puts)}) == THREADS + 1


async def test_an_upload_is_taken_while_look_ups_have_all_their_threads(
    app: Quart, fs: QuartHashFS
) -> None:
    go_on = threading.Event()

    @app.post("/")
    async def take() -> str:
        return (await fs.put(request.body)).id

    async with app.app_context():
        stored = await fs.put(b"sought")
        looks = [
            asyncio.create_task(fs.exists(Blocking(stored.id, go_on))) for _ in range(THREADS + 1)
        ]
        try:
            await until_all_are_taken(app.extensions["hashfs"]["reading"])
            response = await app.test_client().post("/", data=b"taken" * 100_000)
            assert response.status_code == 200
            assert not any(look.done() for look in looks)
        finally:
            go_on.set()
        assert await asyncio.gather(*looks) == [True] * (THREADS + 1)


async def test_a_request_has_one_thread_whatever_it_does_at_once(
    app: Quart, fs: QuartHashFS
) -> None:
    limiter = app.extensions["hashfs"]["workers"].limiter
    async with app.test_request_context("/"):
        with pipes(3) as files:
            puts = [asyncio.create_task(fs.put(reader)) for reader, _ in files]
            while not limiter.borrowed_tokens:
                await asyncio.sleep(0.01)
            for _ in range(20):
                await asyncio.sleep(0)
            assert limiter.borrowed_tokens == 1
            assert not limiter.statistics().tasks_waiting
            for _, writer in files:
                await asyncio.to_thread(finish, writer, b"same")
            assert len({address.id for address in await asyncio.gather(*puts)}) == 1


async def test_calls_are_made_in_the_order_in_which_they_were_asked_for() -> None:
    workers, go_on, order = Workers(1), threading.Event(), list[int]()
    held = asyncio.create_task(workers.run(go_on.wait, 30))
    await until_all_are_taken(workers)
    calls = []
    for number in range(20):
        calls.append(asyncio.create_task(workers.run(order.append, number)))
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(held, *calls)
    assert order == list(range(20))
