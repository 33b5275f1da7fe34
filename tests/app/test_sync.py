"""Copying between stores, and the command that does it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo
from object_stores import KINDS, needs_s3, new_url, object_store, options
from runners import make_runner

from flask_hashfs import ConfigError, FlaskHashFS, HashFS
from flask_hashfs._app.cli import hashfs as command
from flask_hashfs._app.transfer import Outcome, sync
from flask_hashfs._store.object_store import ObjectStore

PAIRS = [(one, other) for one in ("folder", "memory") for other in ("folder", "memory")]
LARGE = bytes(range(256)) * 40_000


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[HashFS]]:
    with ExitStack() as stack:
        found: list[HashFS] = []
        for kind in request.param:
            if kind == "folder":
                found.append(HashFS(tmp_path / str(len(found)), depth=len(found) + 1))
            else:
                found.append(stack.enter_context(object_store(kind)))
        yield found


def fill(store: HashFS) -> set[str]:
    """Put something of everything, and return the ids with their extensions."""
    names = set()
    for data, extension in ((b"a", ".txt"), (b"a", ".log"), (b"", ""), (LARGE, ".tar.gz")):
        names.add(store.put(data, extension).id + extension)
    return names


def names_in(store: HashFS) -> set[str]:
    return {entry.relpath.replace("/", "") for entry in store.entries()}


def outcomes(source: HashFS, target: HashFS) -> list[Outcome]:
    return sorted((step.outcome for step in sync(source, target)), key=lambda each: each.name)


@pytest.mark.slow
@pytest.mark.parametrize("stores", PAIRS, indirect=True)
def test_a_tree_is_copied_once(stores: list[HashFS]) -> None:
    check_copy(*stores)


@needs_s3
@pytest.mark.parametrize(
    "stores", [("folder", "s3"), ("s3", "folder"), ("s3", "s3")], indirect=True
)
def test_a_tree_is_copied_to_s3_and_back(stores: list[HashFS]) -> None:
    check_copy(*stores)


def check_copy(source: HashFS, target: HashFS) -> None:
    wanted = fill(source)
    assert outcomes(source, target) == [Outcome.COPIED] * 4
    assert names_in(target) == wanted
    assert list(target.verify()) == []
    assert outcomes(source, target) == [Outcome.THERE] * 4
    added = source.put(b"new")
    assert outcomes(source, target) == [Outcome.COPIED] + [Outcome.THERE] * 4
    assert added.id in target


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_was_stopped_goes_on(kind: str, tmp_path: Path) -> None:
    source = HashFS(tmp_path / "source", fsync=False)
    for n in range(60):
        source.put(str(n).encode())
    with object_store(kind) as target:
        steps = sync(source, target, threads=2)
        assert next(steps).outcome is Outcome.COPIED
        steps.close()
        assert 0 < target.count() < 60
        result = outcomes(source, target)
        assert set(result) == {Outcome.COPIED, Outcome.THERE}
        assert names_in(target) == names_in(source)


@pytest.mark.slow
def test_damage_does_not_travel(tmp_path: Path) -> None:
    source, target = HashFS(tmp_path / "source"), ObjectStore("memory://")
    good, bad = source.put(b"good"), source.put(b"bad!")
    Path(bad.abspath).write_bytes(b"evil")
    (tmp_path / "source" / "stray").write_bytes(b"no content")
    assert outcomes(source, target) == [Outcome.COPIED, Outcome.DAMAGED, Outcome.STRAY]
    assert names_in(target) == {good.id}


def test_what_is_cut_short_in_the_target_is_copied_again(tmp_path: Path) -> None:
    source, target = HashFS(tmp_path / "source"), HashFS(tmp_path / "target")
    source.put(b"whole")
    Path(target.put(b"whole").abspath).write_bytes(b"wh")
    assert outcomes(source, target) == [Outcome.COPIED]
    assert outcomes(source, target) == [Outcome.THERE]


def test_a_file_that_is_gone_meanwhile_is_passed_over(tmp_path: Path) -> None:
    source, target = HashFS(tmp_path / "source"), HashFS(tmp_path / "target")
    address = source.put(b"short-lived")
    entries = list(source.entries())
    source.delete(address)
    source.entries = lambda: iter(entries)  # type: ignore[method-assign]
    assert outcomes(source, target) == [Outcome.GONE]
    assert list(target.files()) == []


def test_names_that_no_put_takes_are_said_to_be_left(tmp_path: Path) -> None:
    source, target = HashFS(tmp_path / "source"), HashFS(tmp_path / "target")
    address = source.put(b"odd")
    Path(address.abspath).rename(address.abspath + ".ä")
    assert outcomes(source, target) == [Outcome.REFUSED]


def test_stores_of_other_algorithms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="md5"):
        next(sync(HashFS(tmp_path, algorithm="md5"), HashFS(tmp_path)))


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask(__name__)
    app.config["HASHFS_ROOT_FOLDER"] = tmp_path / "root"
    app.config["HASHFS_SPARE_ROOT_FOLDER"] = tmp_path / "spare"
    FlaskHashFS(app)
    FlaskHashFS(app, name="spare")
    return app


def run(app: Flask, *arguments: Any) -> Result:
    info = ScriptInfo(create_app=lambda *_: app)
    words = ["sync", *map(str, arguments)]
    return make_runner().invoke(command, words, obj=info, catch_exceptions=False)


def client(app: Flask, key: str = "hashfs") -> HashFS:
    found: HashFS = app.extensions[key]["client"]
    return found


def test_the_command_copies_between_stores_and_folders(app: Flask, tmp_path: Path) -> None:
    wanted = fill(client(app))
    for target in ("spare", tmp_path / "folder"):
        result = run(app, "default", target)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "4 copied\n"
    assert names_in(client(app, "hashfs_spare")) == wanted
    assert names_in(HashFS(tmp_path / "folder")) == wanted
    result = run(app, tmp_path / "folder", "default", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["id"] + line["relpath"].partition(".")[1] for line in lines}
    assert [line["outcome"] for line in lines] == ["there"] * 4


def test_the_command_tells_damage_by_its_end(app: Flask) -> None:
    address = client(app).put(io.BytesIO(b"good"))
    Path(address.abspath).write_bytes(b"evil")
    result = run(app, "default", "spare")
    assert result.exit_code == 1
    assert hashlib.sha256(b"evil").hexdigest() in result.stderr
    assert result.stderr.endswith("1 damaged\n")


def test_the_command_refuses_what_it_does_not_know(app: Flask) -> None:
    result = run(app, "default", "unknown")
    assert result.exit_code == 2
    assert "neither a store of the app, nor a folder, nor a URL" in result.stderr


@needs_s3
def test_the_command_takes_urls(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", options()["endpoint"])
    url = new_url()
    wanted = fill(client(app))
    try:
        assert run(app, "default", url).exit_code == 0
        assert run(app, url, tmp_path / "back").exit_code == 0
    finally:
        store = ObjectStore(url, options=options())
        for path in store.files():
            store.delete(path)
    assert names_in(HashFS(tmp_path / "back")) == wanted
