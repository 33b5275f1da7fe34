"""A kept file is served in the way of a local store, and one process asks about it for all."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgi import Exchange
from both_apps import FRAMEWORKS, Site
from cached import IN_MEMORY, KINDS, PREFIX, expire, kept, opened_gate, site, wait_until
from werkzeug.test import create_environ, run_wsgi_app
from werkzeug.wsgi import FileWrapper

pytest.importorskip("obstore", reason="obstore is not installed: no object store has a cache")

SMALL, LARGE = os.urandom(1000), os.urandom(1_000_000)
LOCAL = {"SERVE_FILES": True, "PATH_PREFIX": PREFIX}


def path_of(tmp_path: Path, address: Any) -> str:
    return str(tmp_path / "cache" / "files" / address.relpath)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc shows the open files")
def test_a_wsgi_server_gets_the_kept_file_to_send_it_by_itself(tmp_path: Path) -> None:
    app = site("flask", tmp_path, IN_MEMORY)
    address = app.put(LARGE, ".bin")
    sent = []

    class Wrapper(FileWrapper):
        def __init__(self, file: Any, buffer_size: int = 8192) -> None:
            super().__init__(file, buffer_size)
            sent.append(os.readlink(f"/proc/self/fd/{file.fileno()}"))

    environ = {**create_environ(f"{PREFIX}/{address.relpath}"), "wsgi.file_wrapper": Wrapper}
    body, status, _ = run_wsgi_app(app.app, environ, buffered=True)
    assert (status, b"".join(body)) == ("200 OK", LARGE)
    assert sent == [path_of(tmp_path, address)]


def test_an_asgi_server_is_told_the_path_of_the_kept_file(tmp_path: Path) -> None:
    app = site("quart", tmp_path, IN_MEMORY)
    address = app.put(LARGE, ".bin")

    async def ask() -> Exchange:
        path = f"{PREFIX}/{address.relpath}"
        takes: dict[str, Any] = {"http.response.pathsend": {}}
        async with Exchange(app.app, path, method="GET", extensions=takes) as exchange:
            await exchange.finish()
        return exchange

    sent = asyncio.run(ask()).sent
    assert sent[-1] == {"type": "http.response.pathsend", "path": path_of(tmp_path, address)}


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_a_hit_takes_as_many_calls_of_a_worker_as_a_folder_of_the_same_disk(
    tmp_path: Path, data: bytes
) -> None:
    folder = Site(
        "quart",
        {f"HASHFS_{key}": value for key, value in LOCAL.items()}
        | {"HASHFS_ROOT_FOLDER": str(tmp_path / "folder")},
    )
    calls = [worker_calls(app, data) for app in (folder, site("quart", tmp_path, IN_MEMORY))]
    assert calls[0] == calls[1]


def worker_calls(app: Site, data: bytes) -> list[int]:
    """Return how many calls a request for a stored file hands to a worker: by its path, by its id.

    The least of several requests, since the system may have to look up a path in its own time.
    """
    workers = app.app.extensions["hashfs"]["reading"]
    run = workers.run
    calls: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[-1] += 1
        return run(*args, **kwargs)

    workers.run = counted
    address = app.put(data, ".bin")
    least = []
    for name in (address.relpath, address.id):
        calls.clear()
        for _ in range(10):
            calls.append(0)
            assert app.ask(f"{PREFIX}/{name}").body == data
        least.append(min(calls))
    return least


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_process_asks_about_a_file_whose_trust_is_over(
    framework: str, kind: str, tmp_path: Path
) -> None:
    with opened_gate(kind) as (gate, settings):
        apps = [site(framework, tmp_path, settings) for _ in range(4)]  # as that many processes
        address = apps[0].put(LARGE)
        expire(tmp_path)
        gate.asked.clear()
        gate.answers.clear()
        with ThreadPoolExecutor(8) as pool:
            opening = [pool.submit(app.client.open, address) for app in apps * 2]
            wait_until(lambda: gate.count("HEAD") == 1, "one of them has asked")
            gate.answers.set()
            for each in opening:
                with each.result() as file:
                    assert file.read() == LARGE
        assert [method for method, _ in gate.asked] == ["HEAD"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_prune_drops_what_is_kept(framework: str, tmp_path: Path) -> None:
    app = site(framework, tmp_path, {"root": str(tmp_path / "root")})
    used, unused = app.put(SMALL), app.put(SMALL[1:])
    for address in (used, unused):
        app.ask(f"{PREFIX}/{address.relpath}")
    both = sorted([used.relpath, unused.relpath])
    wait_until(lambda: kept(tmp_path) == both, "they are kept")
    prune = {"keep": [used.id], "older_than": timedelta(0)}
    assert app.call(app.fs.prune, dry_run=True, **prune) == [unused.id]
    assert kept(tmp_path) == both
    assert app.call(app.fs.prune, **prune) == [unused.id]
    assert kept(tmp_path) == [used.relpath]
    assert app.ask(f"{PREFIX}/{unused.relpath}").status == 404
