"""The command line where content is judged: put, sync and inspect, in both frameworks."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Site
from werkzeug.exceptions import ServiceUnavailable

from flask_hashfs import RejectedError, file_rejected

pytestmark = pytest.mark.decided_once

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "root")
    pytest.importorskip("obstore")
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture(params=FRAMEWORKS)
def site(request: pytest.FixtureRequest, root: str, tmp_path: Path) -> Site:
    config = {
        "HASHFS_ROOT_FOLDER": root,
        "HASHFS_PICTURES_ROOT_FOLDER": str(tmp_path / "pictures"),
        "HASHFS_PICTURES_ACCEPT": "image/*",
    }
    return Site(request.param, config, ["pictures"])


def run(site: Site, *arguments: str) -> Any:
    return site.app.test_cli_runner().invoke(args=["hashfs", *arguments])


def test_put_tells_the_extension_by_the_bytes(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(PNG)
    done = run(site, "put", "--auto-extension", "--json", str(file))
    assert done.exit_code == 0, done.output
    line = done.stdout.splitlines()[
        0
    ]  # the first line alone, since Click 8.1 adds the standard error
    assert json.loads(line)["relpath"].endswith(".png")
    assert run(site, "put", "--auto-extension", "--extension", "a", str(file)).exit_code == 2


def test_put_reports_what_is_not_accepted_and_stores_the_rest(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.png").write_bytes(PNG)
    (folder / "b.png").write_bytes(b"<html>")
    done = run(site, "--store", "pictures", "put", str(folder))
    assert done.exit_code == 1
    assert "text/html" in done.output
    assert len(list(site.app.extensions["hashfs_pictures"]["client"].files())) == 1


def test_sync_reports_what_the_target_refuses(site: Site) -> None:
    for content in (PNG, b"<html>", PNG + b"infected"):
        site.put(content)

    @site.stores["pictures"].inspector
    def scan(file: Any, address: Any) -> None:
        if b"infected" in file.read():
            raise RejectedError("a virus was found")

    done = run(site, "sync", "default", "pictures")
    assert done.exit_code == 1
    assert "a virus was found" in done.output
    assert "text/html" in done.output
    assert "1 copied" in done.output


def test_put_is_inspected(site: Site, tmp_path: Path) -> None:
    seen = []
    file = tmp_path / "a"
    file.write_bytes(b"infected")

    @site.fs.inspector
    def scan(file: Any, address: Any) -> None:
        raise RejectedError("a virus was found")

    def note(sender: Any, **what: Any) -> None:
        seen.append((sender, what["extension"], what["error"].reason))

    with file_rejected.connected_to(note):
        done = run(site, "put", str(file))
    assert done.exit_code == 1
    assert "a virus was found" in done.output
    assert seen == [(site.app, site.fs, "a virus was found")]
    assert list(site.client.files()) == []


def test_inspect_looks_at_each_content_once_and_ends_with_1(site: Site) -> None:
    bad = site.put(b"infected", "a")
    site.put(b"infected", "b")
    site.put(b"fine", "c")
    seen = []

    @site.fs.inspector
    def scan(file: Any, address: Any) -> None:
        seen.append((address.id, file.read()))
        if seen[-1][1] == b"infected":
            raise RejectedError("a virus was found")

    done = run(site, "inspect", "--json")
    assert done.exit_code == 1
    lines = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    assert {line["id"] for line in lines} == {bad.id}
    assert len(lines) == 2
    assert sorted(content for _, content in seen) == [b"fine", b"infected"]
    assert len(list(site.client.files())) == 3


def test_inspect_moves_what_is_refused_aside(site: Site) -> None:
    for extension in ("a", "b"):
        site.put(b"infected", extension)
    kept = site.put(b"fine", "c")

    @site.fs.inspector
    def scan(file: Any, address: Any) -> None:
        if file.read() == b"infected":
            raise RejectedError("a virus was found")

    done = run(site, "inspect", "--quarantine")
    assert done.exit_code == 1
    assert "3 files looked at, 2 refused" in done.output
    assert list(site.client.files()) == [kept.abspath]
    assert site.client.stats().quarantined == 2
    assert run(site, "inspect").exit_code == 0


def test_a_scanner_that_is_down_refuses_nothing(site: Site) -> None:
    site.put(b"fine")

    @site.fs.inspector
    def scan(file: Any, address: Any) -> None:
        raise ServiceUnavailable("the scanner is down")

    done = run(site, "inspect", "--quarantine")
    assert done.exit_code == 3
    assert "the scanner is down" in done.output
    assert site.client.stats().quarantined == 0
    with pytest.raises(ServiceUnavailable):
        site.put(b"new")


def test_a_scanner_whose_socket_is_missing_has_not_looked(site: Site) -> None:
    site.put(b"fine")

    @site.fs.inspector
    def scan(file: Any, address: Any) -> None:
        raise FileNotFoundError("no socket of the scanner")

    done = run(site, "inspect", "--quarantine")
    assert done.exit_code not in (0, 1)
    assert "looked at" not in done.output
    assert site.client.stats().quarantined == 0


def test_inspect_needs_an_inspector(site: Site) -> None:
    done = run(site, "inspect")
    assert done.exit_code == 2
    assert "@fs.inspector" in done.output


def test_a_coroutine_inspects_under_quart(root: str) -> None:
    site = Site("quart", {"HASHFS_ROOT_FOLDER": root})
    site.put(b"infected")

    @site.fs.inspector
    async def scan(file: Any, address: Any) -> None:
        if await file.read() == b"infected":
            raise RejectedError("a virus was found")

    assert run(site, "inspect").exit_code == 1
