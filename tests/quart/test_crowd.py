"""Turns to gather a batch, which some of a crowd of uploads have at a time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asgi import Exchange
from quart import Quart, request

from flask_hashfs._quart import body as body_module
from flask_hashfs._quart import crowd as crowd_module
from flask_hashfs._quart.body import UploadBody
from flask_hashfs._quart.connection import connection_class
from flask_hashfs._quart.crowd import Crowd
from flask_hashfs._quart.request import upload_request_class
from flask_hashfs._quart.workers import Workers
from flask_hashfs._storage.upload_memory import BASE, TURNS, UploadMemory

pytestmark = pytest.mark.anyio

FOR_EVER = 24 * 3600.0
MIB = 1024 * 1024
PIECE = bytes(16 * 1024)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> UploadMemory:
    """Make the memory of this process small: 8 turns of 256 KiB."""
    small = UploadMemory(2 * MIB)
    monkeypatch.setattr(body_module, "MEMORY", small)
    return small


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd_module, "LOOK", FOR_EVER)
    monkeypatch.setattr(crowd_module, "LONGEST", FOR_EVER)
    monkeypatch.setattr(crowd_module, "PATIENCE", FOR_EVER)


class Upload:
    """A member of a crowd that notes what it is told."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self._is_silent = is_silent
        self._received = 0
        self.told: list[str] = []
        self.is_told = asyncio.Event()

    @property
    def received(self) -> int:
        self._received += not self._is_silent
        return self._received

    def begin_turn(self) -> None:
        self._tell("begin")

    def end_turn(self) -> None:
        self._tell("end")

    def hurry(self) -> None:
        self._tell("hurry")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self.is_told.set()


def joined(crowd: Crowd, count: int, *, is_silent: bool = False) -> list[Upload]:
    uploads = [Upload(is_silent=is_silent) for _ in range(count)]
    for upload in uploads:
        crowd.join(upload)
    return uploads


async def test_a_few_have_a_turn_and_the_others_follow_in_order() -> None:
    crowd = Crowd()
    uploads = joined(crowd, TURNS + 4)
    a, b, c, d = uploads[TURNS:]
    assert [upload.told for upload in uploads] == [["begin"]] * TURNS + [[]] * 4
    crowd.join(b)  # which changes nothing
    crowd.leave(a)
    crowd.leave(uploads[3])
    assert [upload.told for upload in (a, b, c, d)] == [[], ["begin"], [], []]
    crowd.leave(uploads[3])
    crowd.leave(uploads[5])
    assert [upload.told for upload in (a, b, c, d)] == [[], ["begin"], ["begin"], []]
    crowd.leave(d)


async def test_whoever_is_silent_has_to_write_where_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowd_module, "LOOK", 0.001)
    crowd = Crowd()
    [silent], busy = joined(crowd, 1, is_silent=True), joined(crowd, TURNS - 1)
    [waiting] = joined(crowd, 1)
    while "hurry" not in silent.told:
        await asyncio.sleep(0.001)
    assert all(upload.told == ["begin"] for upload in busy)
    assert not waiting.told
    crowd.leave(silent)  # it has written what it had
    assert waiting.told == ["begin"]


async def test_nobody_looks_where_none_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd_module, "LOOK", 0.001)
    crowd = Crowd()
    silent = joined(crowd, TURNS, is_silent=True)
    await asyncio.sleep(0.05)
    assert all(upload.told == ["begin"] for upload in silent)


async def test_whoever_has_a_turn_for_too_long_loses_it_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowd_module, "LOOK", 0.001)
    monkeypatch.setattr(crowd_module, "LONGEST", 0.001)
    crowd = Crowd()
    uploads = joined(crowd, TURNS + 1)
    while "begin" not in uploads[TURNS].told:
        await asyncio.sleep(0.001)
    assert uploads[0].told[:2] == ["begin", "end"]
    for upload in uploads:
        crowd.leave(upload)


async def test_whoever_waits_for_long_is_hurried_again_and_again_and_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd = Crowd()
    first = joined(crowd, TURNS)
    monkeypatch.setattr(crowd_module, "LOOK", 0.001)
    monkeypatch.setattr(crowd_module, "PATIENCE", 0.001)
    second, third = joined(crowd, 2)
    while len(third.told) < 3:
        await asyncio.sleep(0.001)
    assert set(second.told) == set(third.told) == {"hurry"}
    crowd.leave(first[0])
    assert second.told[-1] == "begin"
    assert set(third.told) == {"hurry"}
    crowd.leave(third)


# Bodies in a crowd.


class Crowded:
    """An app whose view reads in batches, and uploads of 512 KiB into it."""

    size = 32 * len(PIECE)

    def __init__(self) -> None:
        self.app = Quart(__name__)
        self.app.config["MAX_CONTENT_LENGTH"] = None
        self.app.request_class = upload_request_class(self.app.request_class, Workers(2))
        self.app.asgi_http_class = connection_class(self.app.asgi_http_class)
        self.gate = asyncio.Event()
        self.app.post("/")(self._view)

    async def _view(self) -> dict[str, Any]:
        body: Any = request.body
        assert isinstance(body, UploadBody)
        sizes = []
        with body.reading():
            while await body.batch():
                sizes.append(body.take().size)
                if "waits" in request.args:
                    await self.gate.wait()
                await asyncio.sleep(0)
        return {"sizes": sizes}

    async def begin(self, count: int, sent: int, **options: Any) -> list[Exchange]:
        """Begin so many uploads, and send so many pieces of each."""
        headers = {"Content-Length": str(self.size)}
        exchanges = [Exchange(self.app, headers=headers, **options) for _ in range(count)]
        for exchange in exchanges:
            await exchange.__aenter__()
            await exchange.send(*[PIECE] * sent)
        return exchanges

    async def finish(self, exchanges: list[Exchange], sent: int) -> list[list[int]]:
        """Send the rest of these uploads, and return the batches in which they were read."""
        for exchange in exchanges:
            await exchange.send(*[PIECE] * (32 - sent))
            await exchange.finish()
        return [await _sizes_of(exchange) for exchange in exchanges]


async def _sizes_of(exchange: Exchange) -> list[int]:
    await exchange.task
    assert exchange.status == 200
    sizes: list[int] = json.loads(exchange.body)["sizes"]
    assert sum(sizes) == Crowded.size
    return sizes


async def test_in_a_crowd_a_batch_is_as_large_as_a_turn(memory: UploadMemory) -> None:
    app, count, most = Crowded(), 100, 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, memory.buffered)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    batches = await app.finish(await app.begin(count, sent=1), sent=1)
    watching.cancel()
    assert all(len(sizes) <= 3 for sizes in batches)
    assert most <= memory.size + count * (BASE + len(PIECE))
    assert (memory.buffered, memory.uploads) == (0, 0)


@pytest.mark.parametrize("sent", [1, 6, 12])
async def test_nobody_waits_for_uploads_that_have_stalled(
    monkeypatch: pytest.MonkeyPatch, memory: UploadMemory, sent: int
) -> None:
    monkeypatch.setattr(crowd_module, "LOOK", 0.001)
    app = Crowded()
    stalled = await app.begin(40, sent)
    await app.finish(await app.begin(40, 1), 1)
    await app.finish(stalled, sent)
    assert (memory.buffered, memory.uploads) == (0, 0)


async def test_nobody_waits_for_views_that_read_no_more(
    monkeypatch: pytest.MonkeyPatch, memory: UploadMemory
) -> None:
    monkeypatch.setattr(crowd_module, "LOOK", 0.001)
    monkeypatch.setattr(crowd_module, "LONGEST", 0.001)
    app = Crowded()
    waiting = await app.begin(40, 32, path="/?waits")
    await app.finish(await app.begin(40, 1), 1)
    app.gate.set()
    await app.finish(waiting, 32)
    assert (memory.buffered, memory.uploads) == (0, 0)


async def test_clients_that_go_while_they_wait_leave_no_turn_taken(memory: UploadMemory) -> None:
    app = Crowded()
    gone = await app.begin(40, 12)
    for exchange in gone:
        await exchange.disconnect()
    for exchange in gone:
        await exchange.task
        assert exchange.status == 400
    await app.finish(await app.begin(40, 1), 1)
    assert (memory.buffered, memory.uploads) == (0, 0)


async def test_streams_that_share_a_connection_do_not_wait_for_turns(memory: UploadMemory) -> None:
    app = Crowded()
    stalled = await app.begin(40, 6)  # nobody ends their turns
    await app.finish(await app.begin(40, 1, http_version="2"), 1)
    await app.finish(stalled, 6)
    assert (memory.buffered, memory.uploads) == (0, 0)
