"""Health: what breaks a store for real is told, within its time, by one probe at a time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Site
from file_systems import small_disk
from odd_s3 import CREDENTIALS, OddS3, odd_store
from permissions import permissions_hold

from flask_hashfs import ConfigError, HashFS
from flask_hashfs._app import health
from flask_hashfs._app.health import Condition, Health
from flask_hashfs._storage.probe import ProbeError

PATH = "/-/files"

pytestmark = [pytest.mark.decided_once, pytest.mark.parametrize("framework", FRAMEWORKS)]


def site(framework: str, root: object, **config: Any) -> Site:
    return Site(framework, {"HASHFS_ROOT_FOLDER": str(root), "HASHFS_HEALTH_PATH": PATH, **config})


def ask(site: Site) -> tuple[int, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health, "INTERVAL", 0.0)  # as if a second had passed
        reply = site.ask(PATH)
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Cache-Control"] == "no-store"
    return reply.status, json.loads(reply.body)


def failing(*checks: str) -> tuple[int, Any]:
    return 503, {"status": "failing", "checks": list(checks)}


OK = (200, {"status": "ok"})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, "size=64k"):
        yield folder


def test_a_store_that_works_is_healthy_and_is_left_as_it_was(
    framework: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    app = site(framework, root)
    assert ask(app) == OK
    assert app.call(app.fs.healthy) is True
    assert os.listdir(root) == []


def test_head_answers_as_get_without_a_body(framework: str, tmp_path: Path) -> None:
    app = site(framework, tmp_path)
    reply = app.ask(PATH, "HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert app.ask(PATH, "POST").status == 405


def test_there_is_no_path_by_default(framework: str, tmp_path: Path) -> None:
    app = Site(framework, {"HASHFS_ROOT_FOLDER": str(tmp_path)})
    assert app.ask(PATH).status == 404
    assert app.call(app.fs.healthy) is True


def test_each_store_has_its_own(framework: str, tmp_path: Path) -> None:
    config = {
        "HASHFS_ROOT_FOLDER": str(tmp_path / "good"),
        "HASHFS_HEALTH_PATH": PATH,
        "HASHFS_BAD_ROOT_FOLDER": str(tmp_path / "file" / "root"),
        "HASHFS_BAD_HEALTH_PATH": "/-/bad",
    }
    (tmp_path / "file").touch()
    app = Site(framework, config, ["bad"])
    assert {"hashfs.health", "hashfs_bad.health"} <= {
        rule.endpoint for rule in app.app.url_map.iter_rules()
    }
    assert app.ask(PATH).status == 200
    assert app.ask("/-/bad").status == 503
    assert app.call(app.stores["bad"].healthy) is False


@pytest.mark.parametrize("path", ["files", "//files", "/<id>", "/a?b", "/a b", 7, ["/a"]])
def test_a_bad_path_is_refused(framework: str, tmp_path: Path, path: Any) -> None:
    with pytest.raises(ConfigError, match=r"HASHFS_HEALTH_PATH is .*, but must be a path such as"):
        site(framework, tmp_path, HASHFS_HEALTH_PATH=path)


# -- broken for real ---------------------------------------------------------------------------


def test_a_full_disk_is_failing_and_has_room_again(framework: str, disk: Path) -> None:
    app = site(framework, disk)
    assert ask(app) == OK
    filler = disk / "filler"
    filler.write_bytes(bytes(64 * 1024))
    assert ask(app) == failing("write")
    filler.unlink()
    assert ask(app) == OK


def test_a_read_only_disk_is_failing(framework: str, disk: Path) -> None:
    app = site(framework, disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert ask(app) == failing("write")
    assert app.call(app.fs.healthy) is False


def test_a_folder_that_may_not_be_written_is_failing(framework: str, tmp_path: Path) -> None:
    app = site(framework, tmp_path)
    tmp_path.chmod(0o500)
    try:
        with permissions_hold():
            assert ask(app) == failing("write")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_is_missing_and_cannot_be_made_is_failing(
    framework: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    app = site(framework, root)
    assert ask(app) == OK
    root.rmdir()
    root.write_bytes(b"in its place")
    assert ask(app) == failing("write")
    root.unlink()
    root.mkdir()
    caplog.set_level(logging.INFO)
    assert ask(app) == OK
    assert "works again" in caplog.text


def test_a_folder_that_has_gone_is_failing_until_there_is_one(
    framework: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    app = site(framework, root)
    app.put(b"content")
    assert ask(app) == OK
    os.rename(root, tmp_path / "elsewhere")
    assert ask(app) == failing("root")
    assert not root.exists()
    os.rename(tmp_path / "elsewhere", root)
    assert ask(app) == OK


def test_a_dead_endpoint_is_failing(framework: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        options = {"endpoint": f"http://127.0.0.1:{nobody.getsockname()[1]}", **CREDENTIALS}
        app = site(framework, "s3://bucket", HASHFS_STORE_OPTIONS=options)
        reply = app.ask(PATH)
    assert (reply.status, json.loads(reply.body)) == failing("reach")
    assert b"127.0.0.1" not in reply.body + str(reply.headers).encode()


@pytest.mark.slow
def test_an_object_store_is_asked_by_one_head(framework: str) -> None:
    asked: list[str] = []

    class Counting(OddS3):
        def parse_request(self) -> bool:
            parsed = super().parse_request()
            asked.append(f"{self.command} {self.path}")
            return parsed

    with odd_store(Counting) as store:
        app = site(framework, "memory://")
        app.app.extensions["hashfs"]["health"] = Health("x", store.backend.probe)
        assert app.ask(PATH).status == 200
    assert asked == ["HEAD /bucket/.hashfs/probe"]


@pytest.mark.slow
def test_a_bucket_that_refuses_is_failing(framework: str) -> None:
    class Refusing(OddS3):
        def do_HEAD(self) -> None:
            self._send(403, b"")

    with odd_store(Refusing) as store:
        app = site(framework, "memory://")
        app.app.extensions["hashfs"]["health"] = Health("x", store.backend.probe)
        assert ask_once(app) == failing("reach")


def ask_once(app: Site) -> tuple[int, Any]:
    reply = app.ask(PATH)
    return reply.status, json.loads(reply.body)


def test_a_memory_store_is_healthy(framework: str) -> None:
    assert ask(site(framework, "memory://")) == OK


# -- how often, and for how long ---------------------------------------------------------------


class Hanging:
    """A probe that the test lets go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = 0, threading.Event()

    def __call__(self) -> None:
        self.begun += 1
        assert self.go_on.wait(30)


@pytest.fixture
def hanging(framework: str, tmp_path: Path) -> Iterator[tuple[Site, Hanging]]:
    app, probe = site(framework, tmp_path), Hanging()
    app.app.extensions["hashfs"]["health"] = Health("x", probe)
    yield app, probe
    probe.go_on.set()


@pytest.mark.slow
def test_a_probe_that_hangs_is_not_joined_by_another(
    framework: str, hanging: tuple[Site, Hanging]
) -> None:
    app, probe = hanging
    with ThreadPoolExecutor(8) as threads:
        told = [future.result() for future in [threads.submit(ask_once, app) for _ in range(8)]]
    assert told == [failing("timeout")] * 8
    assert ask_once(app) == failing("timeout")  # at once: its time is up
    assert probe.begun == 1
    probe.go_on.set()
    deadline = time.monotonic() + 30
    while probe.begun < 2:  # until then, a request is answered by the first probe
        assert ask_once(app) in (OK, failing("timeout"))
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert probe.begun == 2
    assert ask_once(app) == OK


@pytest.mark.slow
def test_an_endpoint_that_never_answers_is_failing(framework: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = {"endpoint": f"http://127.0.0.1:{server.getsockname()[1]}", **CREDENTIALS}
        app = site(framework, "s3://bucket", HASHFS_STORE_OPTIONS=options)
        assert ask_once(app) == failing("timeout")
        assert ask_once(app) == failing("timeout")


def test_a_store_is_probed_once_however_often_it_is_asked(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "INTERVAL", 60.0)
    app, begun = site(framework, tmp_path), []
    app.app.extensions["hashfs"]["health"] = Health("x", lambda: begun.append(1))
    for _ in range(20):
        assert ask_once(app) == OK
    assert len(begun) == 1
    monkeypatch.setattr(health, "INTERVAL", 0.0)
    assert ask_once(app) == OK
    assert len(begun) == 2


def test_a_change_is_logged_once(
    framework: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(health, "INTERVAL", 0.0)
    caplog.set_level(logging.INFO, "flask_hashfs")
    app, broken = site(framework, tmp_path), [True]

    def probe() -> None:
        if broken:
            raise ProbeError("write", "/secret/path")

    app.app.extensions["hashfs"]["health"] = Health("x", probe)
    for _ in range(3):
        assert ask_once(app) == failing("write")
    broken.clear()
    for _ in range(3):
        assert ask_once(app) == OK
    assert [record.getMessage() for record in caplog.records] == [
        "The store x does not work: write: /secret/path",
        "The store x works again",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_its_parents_probe(framework: str, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    store = HashFS(tmp_path)
    parent = os.getpid()

    def probe() -> None:
        if os.getpid() == parent:
            begun.set()
            go_on.wait(30)
        store.backend.probe()

    told = Health("x", probe)
    threading.Thread(target=told.condition, daemon=True).start()
    assert begun.wait(30)
    child = os.fork()
    if child == 0:
        os._exit(0 if told.condition() == Condition() else 1)
    assert os.waitpid(child, 0)[1] == 0
    go_on.set()


def test_a_task_that_is_cancelled_leaves_the_probe_to_others(framework: str) -> None:
    probe = Hanging()
    told = Health("x", probe)

    async def run() -> Condition:
        task = asyncio.create_task(told.condition_async())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        probe.go_on.set()
        return await told.condition_async()

    assert asyncio.run(run()) == Condition()
    assert probe.begun == 1
