"""What an app tells of the uploads of its process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgi import Exchange
from both_apps import FRAMEWORKS, Site
from multipart_cases import BOUNDARY, body_of
from quart import request

from flask_hashfs import ConfigError, UploadStats
from flask_hashfs._storage.upload_memory import DEFAULT_SIZE, MEMORY

MIB = 1024 * 1024
NOTHING = UploadStats(active=0, buffered=0, files=0, waiting=0)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Give the process its default budget again."""
    yield
    MEMORY.size = DEFAULT_SIZE


def config_of(root: Path, **keys: Any) -> dict[str, Any]:
    return {"HASHFS_ROOT_FOLDER": str(root), "HASHFS_AVATARS_ROOT_FOLDER": str(root / "a"), **keys}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_is_not_awaited_and_needs_no_app(framework: str, tmp_path: Path) -> None:
    site = Site(framework, config_of(tmp_path))
    assert not inspect.iscoroutinefunction(site.fs.upload_stats)
    assert isinstance(site.fs.upload_stats(), UploadStats)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_default_stores_key_counts_else_that_of_the_first_store(
    framework: str, tmp_path: Path
) -> None:
    config = config_of(tmp_path, HASHFS_UPLOAD_MEMORY=2 * MIB, HASHFS_AVATARS_UPLOAD_MEMORY=3 * MIB)
    site = Site(framework, config, ["avatars"])
    assert MEMORY.size == 2 * MIB
    app, make = type(site.app)("other"), type(site.fs)
    app.config.update(config, HASHFS_MORE_ROOT_FOLDER=str(tmp_path / "m"))
    make(app, name="avatars")
    make(app, name="more")
    assert MEMORY.size == 3 * MIB
    make(app)
    assert MEMORY.size == 2 * MIB


@pytest.mark.parametrize("value", [-1, "much", 1.5, True])
def test_a_budget_that_is_no_number_of_bytes_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HASHFS_UPLOAD_MEMORY"):
        Site("flask", config_of(tmp_path, HASHFS_UPLOAD_MEMORY=value))


@pytest.mark.anyio
async def test_an_upload_under_quart_counts_from_its_first_byte_until_it_is_stored(
    tmp_path: Path,
) -> None:
    site, go_on = Site("quart", config_of(tmp_path)), asyncio.Event()

    @site.app.post("/")
    async def view() -> str:
        await go_on.wait()
        id: str = (await site.fs.put(request.body)).id
        return id

    async with Exchange(site.app) as exchange:
        await exchange.settle()
        assert site.fs.upload_stats() == NOTHING
        await exchange.send(bytes(10_000), bytes(300_000))
        await exchange.settle()
        assert site.fs.upload_stats() == UploadStats(1, 310_000, 0, 0)
        go_on.set()
        await exchange.finish()
    assert exchange.status == 200
    assert site.fs.upload_stats() == NOTHING


@pytest.mark.anyio
async def test_what_a_generator_of_the_app_makes_of_a_body_counts_as_the_body_would(
    tmp_path: Path,
) -> None:
    site = Site("quart", config_of(tmp_path))

    @site.app.post("/")
    async def view() -> str:
        async def passed_on() -> AsyncIterator[bytes]:
            async for piece in request.body:
                yield piece

        id: str = (await site.fs.put(passed_on())).id
        return id

    async with Exchange(site.app) as exchange:
        await exchange.send(bytes(100_000), bytes(200_000))
        await exchange.settle()
        assert site.fs.upload_stats() == UploadStats(1, 300_000, 0, 0)
        await exchange.send(bytes(300_000))
        async with asyncio.timeout(10):
            while site.fs.upload_stats() != UploadStats(1, 0, 1, 0):  # it is written to a file
                await asyncio.sleep(0.001)
        await exchange.finish()
    assert exchange.status == 200
    assert site.fs.upload_stats() == NOTHING


@pytest.mark.anyio
async def test_what_a_generator_yields_is_written_sooner_where_the_budget_is_used_up(
    tmp_path: Path,
) -> None:
    site, go_on, others = Site("quart", config_of(tmp_path)), asyncio.Event(), 2 * DEFAULT_SIZE

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        assert not MEMORY.is_used_up
        share.hold(others)
        yield bytes(100)
        yield bytes(200)  # asked for when the first two are written
        assert MEMORY.buffered == others + 200
        go_on.set()

    share = MEMORY.enter(lambda: None)
    try:
        async with site.app.app_context():
            assert await site.fs.put(pieces())
    finally:
        share.leave()
    assert go_on.is_set()
    assert site.fs.upload_stats() == NOTHING


@pytest.mark.anyio
@pytest.mark.parametrize("goes", [False, True])
async def test_small_files_of_a_form_count_until_the_request_ends(
    goes: bool, tmp_path: Path
) -> None:
    site, go_on, parsed = Site("quart", config_of(tmp_path)), asyncio.Event(), asyncio.Event()

    @site.app.post("/")
    async def view() -> str:
        await request.files
        parsed.set()
        await go_on.wait()
        return ""

    part = b'Content-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\n' + bytes(50_000)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    async with Exchange(site.app, headers=headers) as exchange:
        await exchange.send(body_of(part, part))
        await exchange.finish()
        await parsed.wait()
        assert site.fs.upload_stats() == UploadStats(0, 100_000, 0, 0)
        if goes:
            await exchange.disconnect()
        else:
            go_on.set()
    assert site.fs.upload_stats() == NOTHING


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["unread", "read", "form"])
async def test_a_client_that_goes_counts_no_more(how: str, tmp_path: Path) -> None:
    site, begun = Site("quart", config_of(tmp_path)), asyncio.Event()

    @site.app.post("/")
    async def view() -> str:
        begun.set()
        match how:
            case "unread":
                await asyncio.Event().wait()
            case "read":
                await site.fs.put(request.body)
            case _:
                await request.files
        return ""

    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    async with Exchange(site.app, headers=headers) as exchange:
        part = b'Content-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + bytes(2 * MIB)
        await exchange.send(body_of(part)[:-100_000])
        await begun.wait()
        await exchange.settle()
        assert site.fs.upload_stats().active == 1
        await exchange.disconnect()
    assert site.fs.upload_stats() == NOTHING


@pytest.mark.anyio
async def test_nobody_is_refused_where_there_is_no_budget(tmp_path: Path) -> None:
    site = Site("quart", config_of(tmp_path, HASHFS_UPLOAD_MEMORY=0))

    @site.app.post("/")
    async def view() -> str:
        files = (await request.files).getlist("f")
        sizes = [str(len(await asyncio.to_thread(file.read))) for file in files]
        return ",".join(sizes)

    parts = [
        b'Content-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + bytes(size)
        for size in (1, 100_000, 3 * MIB)
    ]
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    body = body_of(*parts)
    async with Exchange(site.app, headers=headers) as exchange:
        await exchange.send(*[body[at : at + 60_000] for at in range(0, len(body), 60_000)])
        await exchange.finish()
    assert exchange.body == b"1,100000,%d" % (3 * MIB)
    assert site.fs.upload_stats() == NOTHING
