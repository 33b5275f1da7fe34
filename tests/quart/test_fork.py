"""Reads in a process that was forked after the app had read already, as under ``--preload``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import servers

from flask_hashfs import HashFS

CONTENT = bytes(range(256)) * 4000

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def preloaded_app() -> object:
    """Make an app that has opened and read a file before the server forks."""
    import asyncio

    from quart import Quart

    from flask_hashfs import QuartHashFS

    app = Quart(__name__)
    app.config.from_prefixed_env("FLASK")
    fs = QuartHashFS(app)
    name = os.environ["CONTENT_ID"]

    async def read() -> bytes:
        async with app.app_context(), fs.open(name) as file:
            return bytes(await file.read())

    asyncio.run(read())
    loaded_in = os.getpid()

    @app.get("/")
    async def forked() -> dict[str, bool]:
        return {"forked": os.getpid() != loaded_in}

    @app.get("/read")
    async def view() -> bytes:
        return await read()

    return app


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    store = HashFS(tmp_path / "store", fsync=False)
    return {"FLASK_HASHFS_ROOT_FOLDER": store.root, "CONTENT_ID": store.put(CONTENT).id}


@pytest.mark.servers
def test_a_preloading_server_reads_what_the_app_has_read_before(
    environment: dict[str, str],
) -> None:
    options = ("--preload",)
    with (
        servers.serve(
            "gunicorn-asgi",
            "test_fork:preloaded_app()",
            env=environment,
            cwd=Path(__file__).parent,
            options=options,
        ) as server,
        server.connect() as client,
    ):
        assert b"true" in client.request("GET", "/").body
        assert client.request("GET", "/read").body == CONTENT


FORK = """
import asyncio, os, sys
from quart import Quart
from flask_hashfs import QuartHashFS

app = Quart("app")
app.config.from_prefixed_env("FLASK")
fs = QuartHashFS(app)

async def open_and_read():
    async with app.app_context(), fs.open(os.environ["CONTENT_ID"]) as file:
        return len(await file.read())

size = asyncio.run(open_and_read())
child = os.fork()
if child == 0:
    assert asyncio.run(open_and_read()) == size
    grandchild = os.fork()
    if grandchild == 0:
        assert asyncio.run(open_and_read()) == size
        os._exit(7)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
assert asyncio.run(open_and_read()) == size
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_a_forked_process_and_its_own_children_read(environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    assert result.returncode == 7
