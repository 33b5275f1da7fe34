"""A cache as it is set up and looked after: its keys, its commands, the server in front."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Site
from cached import IN_MEMORY, PREFIX, config, drop_all, kept, site, wait_until
from object_stores import objects_of

from flask_hashfs import ConfigError

pytest.importorskip("obstore", reason="obstore is not installed: no object store has a cache")

pytestmark = pytest.mark.parametrize("framework", FRAMEWORKS)

DATA = os.urandom(400_000)


@pytest.fixture
def app(framework: str, tmp_path: Path) -> Site:
    return site(framework, tmp_path, IN_MEMORY)


# -- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CACHE_FOLDER", 7),
        ("CACHE_FOLDER", "s3://bucket/cache"),
        ("CACHE_SIZE", 0),
        ("CACHE_FILE_SIZE", -1),
        ("CACHE_TRUST", "long"),
    ],
)
def test_a_bad_value_is_named(framework: str, tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"HASHFS_{key} is .*, but must be "):
        site(framework, tmp_path, IN_MEMORY, **{key: value})


def test_a_redirect_and_a_cache_exclude_each_other(framework: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"HASHFS_SERVE_REDIRECT .* HASHFS_CACHE_FOLDER"):
        site(framework, tmp_path, IN_MEMORY, SERVE_REDIRECT=True)


@pytest.mark.parametrize("second", ["cache", "cache/x", "."])
def test_two_stores_need_two_folders(framework: str, tmp_path: Path, second: str) -> None:
    settings = config("memory://", tmp_path / "cache")
    settings["HASHFS_B_ROOT_FOLDER"] = "memory://"
    settings["HASHFS_B_CACHE_FOLDER"] = tmp_path / second
    with pytest.raises(ConfigError, match=r"HASHFS_B_CACHE_FOLDER .* HASHFS_CACHE_FOLDER"):
        Site(framework, settings, ["b"])
    settings["HASHFS_B_CACHE_FOLDER"] = tmp_path / "b"
    Site(framework, settings, ["b"])


@pytest.mark.parametrize("folder", ["root", "root/cache", "."])
def test_the_cache_of_a_folder_lies_elsewhere(framework: str, tmp_path: Path, folder: str) -> None:
    with pytest.raises(ConfigError, match=r"HASHFS_CACHE_FOLDER .* HASHFS_ROOT_FOLDER"):
        Site(framework, config(str(tmp_path / "root"), tmp_path / folder))


def test_a_store_without_a_cache_has_no_numbers(framework: str, tmp_path: Path) -> None:
    app = Site(framework, {"HASHFS_ROOT_FOLDER": str(tmp_path)})
    with pytest.raises(ConfigError, match="HASHFS_CACHE_FOLDER"):
        app.call(app.fs.cache_stats)


def test_files_and_folders_have_the_modes_that_are_set(framework: str, tmp_path: Path) -> None:
    modes = {"FILE_MODE": 0o640, "DIR_MODE": 0o750}
    app = site(framework, tmp_path, IN_MEMORY, **modes)
    for size in (10, 9_000_000):
        app.put(bytes(size))
    files = tmp_path / "cache" / "files"
    assert {path.stat().st_mode & 0o777 for path in files.rglob("*") if path.is_file()} == {0o640}
    folders = [files, *(path for path in files.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o750}


# -- commands ----------------------------------------------------------------------------------


def run(app: Site, *words: str, input: str | None = None) -> Any:
    return app.app.test_cli_runner().invoke(args=["hashfs", *words], input=input)


def test_the_commands_count_drop_and_fetch(app: Site, tmp_path: Path) -> None:
    addresses = [app.put(bytes([number]) * 1000) for number in range(3)]
    result = run(app, "cache", "stats")
    assert (result.exit_code, result.output) == (0, "files: 3\nbytes: 3000 (2.9 KiB)\n")
    assert json.loads(run(app, "cache", "stats", "--json").output)["bytes"] == 3000

    result = run(app, "cache", "clear")
    assert (result.exit_code, result.output) == (0, "3 files dropped.\n")
    assert kept(tmp_path) == []
    assert app.call(app.fs.cache_stats).files == 0

    result = run(app, "cache", "warm", "--from", "-", input=f"{addresses[1].id}\n\n")
    assert (result.exit_code, result.output) == (0, "1 kept\n")
    assert kept(tmp_path) == [addresses[1].relpath]
    result = run(app, "cache", "warm")
    assert (result.exit_code, result.output) == (0, "3 kept\n")
    assert kept(tmp_path) == sorted(address.relpath for address in addresses)


def test_what_cannot_be_fetched_is_named(app: Site, tmp_path: Path) -> None:
    address = app.put(b"a")
    drop_all(tmp_path)
    names = f"{'0' * 64}\n{address.id}\n"
    result = run(app, "cache", "warm", "--from", "-", input=names)
    assert result.exit_code == 1
    assert result.output == f"{'0' * 64}: not stored\n1 kept, 1 failed\n"


def test_a_store_without_a_cache_has_no_commands_for_it(framework: str, tmp_path: Path) -> None:
    app = Site(framework, {"HASHFS_ROOT_FOLDER": str(tmp_path)})
    result = run(app, "cache", "clear")
    assert result.exit_code == 2
    assert "set HASHFS_CACHE_FOLDER" in result.output


# -- past the cache ----------------------------------------------------------------------------


def test_verify_sync_and_inspect_read_what_is_stored(app: Site, tmp_path: Path) -> None:
    address = app.put(DATA)
    seen = []

    @app.fs.inspector
    def look(file: Any, address: Any) -> None:
        seen.append(file.read())

    key = address.relpath
    objects_of(app.client).put(key, DATA[::-1], {}, create=False)
    assert app.ask(f"{PREFIX}/{key}").body == DATA
    result = run(app, "verify")
    assert result.exit_code == 1
    assert address.id in result.output
    target = str(tmp_path / "target")
    assert run(app, "sync", "default", target).exit_code == 1
    run(app, "inspect")
    assert seen == [DATA[::-1]]


# -- the server in front -----------------------------------------------------------------------


def test_a_kept_file_is_left_to_the_server_in_front(framework: str, tmp_path: Path) -> None:
    app = site(framework, tmp_path, IN_MEMORY, ACCEL_REDIRECT="/kept")
    address = app.put(DATA, ".bin")
    for name in (address.relpath, address.id):
        for _ in range(2):
            reply = app.ask(f"{PREFIX}/{name}")
            assert reply.headers["X-Accel-Redirect"] == f"/kept/{address.relpath}"
            assert reply.body == b""
    drop_all(tmp_path)
    reply = app.ask(f"{PREFIX}/{address.relpath}")
    assert "X-Accel-Redirect" not in reply.headers
    assert reply.body == DATA
    wait_until(lambda: kept(tmp_path) == [address.relpath], "the file is kept")
    assert "X-Accel-Redirect" in app.ask(f"{PREFIX}/{address.relpath}").headers
    numbers = app.call(app.fs.cache_stats)
    assert (numbers.hits, numbers.misses, numbers.fills) == (5, 1, 1)


@pytest.mark.parametrize("key", ["HASHFS_ACCEL_REDIRECT", "USE_X_SENDFILE"])
def test_what_is_not_kept_is_never_left_to_the_server_in_front(
    framework: str, tmp_path: Path, key: str
) -> None:
    settings = config(str(tmp_path / "root"), tmp_path / "cache")
    app = Site(framework, {**settings, key: "/kept"})
    app.app.add_url_rule("/own/<path:file>", "own", app.fs.send_file)
    address = app.put(DATA)
    drop_all(tmp_path)
    (tmp_path / "root" / "abcd").write_bytes(DATA)  # of which there is no id to keep it by
    for name in ("abcd", address.relpath):
        answers = [app.ask(f"/own/{name}", method) for method in ("HEAD", "GET")]
        assert [reply.body for reply in answers] == [b"", DATA]
        for reply in answers:
            assert not {"X-Accel-Redirect", "X-Sendfile"} & set(reply.headers.keys())
    # What this app sends by itself, it sends in parts, too.
    assert app.ask("/own/abcd", headers={"Range": "bytes=1-2"}).body == DATA[1:3]


def test_x_sendfile_names_the_kept_file(framework: str, tmp_path: Path) -> None:
    settings = config("memory://", tmp_path / "cache")
    app = Site(framework, {**settings, "USE_X_SENDFILE": True})
    address = app.put(DATA)
    path = tmp_path / "cache" / "files" / address.relpath
    assert app.ask(f"{PREFIX}/{address.relpath}").headers["X-Sendfile"] == str(path)
