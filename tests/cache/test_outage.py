"""A store that does not answer: kept files are served all the same, and nobody waits for long."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Site
from cached import KINDS, PREFIX, expire, kept, opened_gate, site, wait_until
from gate import Gate

from flask_hashfs import StoreUnavailableError
from flask_hashfs._cache import asking

pytest.importorskip("obstore", reason="obstore is not installed: no object store has a cache")

pytestmark = pytest.mark.parametrize("framework", FRAMEWORKS)

DATA = os.urandom(400_000)
HEALTH = "/-/files"


@pytest.fixture(params=KINDS)
def gated(request: pytest.FixtureRequest) -> Iterator[tuple[Gate, dict[str, Any]]]:
    with opened_gate(request.param) as (gate, settings):
        once = {**gate.options, "retry_config": {"max_retries": 0}}
        yield gate, {**settings, "STORE_OPTIONS": once, "HEALTH_PATH": HEALTH}


def end_outage(app: Site, tmp_path: Path) -> None:
    """Let ten seconds pass since the store was last found silent."""
    outage = app.client.backend._outage
    outage._until = outage._down_until = 0.0
    past = time.time() - asking.OUTAGE - 1
    os.utime(tmp_path / "cache" / "unanswered", (past, past))


def test_kept_files_are_served_while_the_store_is_down(
    framework: str,
    tmp_path: Path,
    gated: tuple[Gate, dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate, settings = gated
    app = site(framework, tmp_path, settings)
    other = site(framework, tmp_path, settings)  # as in another process
    address = app.put(DATA, ".bin")
    gate.is_down = True
    expire(tmp_path)
    gate.asked.clear()
    with caplog.at_level(logging.WARNING, "flask_hashfs"):
        for each in (app, other) * 5:
            assert each.ask(f"{PREFIX}/{address.relpath}").body == DATA
    assert gate.count("HEAD") == 1
    kinds = [getattr(record, "hashfs_kind", "") for record in caplog.records]
    assert kinds.count("unanswered") == 1
    with pytest.raises(StoreUnavailableError):
        app.client.get(address)

    end_outage(app, tmp_path)
    gate.asked.clear()
    assert app.ask(f"{PREFIX}/{address.relpath}").body == DATA
    assert gate.count("HEAD") == 1

    gate.is_down = False
    end_outage(app, tmp_path)
    gate.asked.clear()
    for _ in range(2):
        assert app.ask(f"{PREFIX}/{address.relpath}").body == DATA
    assert gate.count("HEAD") == 1


def test_nobody_waits_for_a_store_that_hangs(
    framework: str,
    tmp_path: Path,
    gated: tuple[Gate, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, settings = gated
    monkeypatch.setattr(asking, "WITHIN", 0.05)
    app = site(framework, tmp_path, settings)
    address = app.put(DATA)
    gate.answers.clear()
    expire(tmp_path)
    for _ in range(3):
        assert app.ask(f"{PREFIX}/{address.relpath}").body == DATA
    gate.answers.set()
    wait_until(lambda: not app.client.backend._asking._asked, "the answer has come")
    wait_until(lambda: not expired(tmp_path), "it is trusted again")


def expired(tmp_path: Path) -> bool:
    (relpath,) = kept(tmp_path)
    return time.time() - (tmp_path / "cache" / "files" / relpath).stat().st_mtime > 300


def test_what_is_not_kept_is_unavailable_at_once(
    tmp_path: Path, gated_app: tuple[Gate, Site]
) -> None:
    gate, app = gated_app
    address = app.put(DATA)
    shutil.rmtree(tmp_path / "cache" / "files")
    gate.is_down = True
    gate.asked.clear()
    for _ in range(3):
        assert app.ask(f"{PREFIX}/{address.relpath}").status == 503
    assert len(gate.asked) == 1


def test_a_store_that_fails_after_it_was_asked_is_unavailable(
    tmp_path: Path, gated_app: tuple[Gate, Site]
) -> None:
    gate, app = gated_app
    address = app.put(DATA)
    shutil.rmtree(tmp_path / "cache" / "files")
    gate.sends_nothing = True
    assert app.ask(f"{PREFIX}/{address.relpath}").status == 503
    gate.asked.clear()
    for _ in range(3):  # nobody waits for it again
        assert app.ask(f"{PREFIX}/{address.relpath}").status == 503
        with pytest.raises(StoreUnavailableError):
            app.client.open(address)
    assert gate.asked == []
    end_outage(app, tmp_path)
    with pytest.raises(StoreUnavailableError):
        app.client.open(address)
    end_outage(app, tmp_path)
    gate.sends_nothing = False
    assert app.ask(f"{PREFIX}/{address.relpath}").body == DATA


@pytest.mark.parametrize("refusing", ["GET", "HEAD"])
def test_a_store_that_refuses_one_file_is_asked_for_the_others(
    tmp_path: Path, gated_app: tuple[Gate, Site], refusing: str
) -> None:
    gate, app = gated_app
    refused, other = app.put(DATA), app.put(DATA[1:])
    shutil.rmtree(tmp_path / "cache" / "files")
    origin = gate.origin

    def refuses(method: str, target: str, headers: Any, body: bytes) -> Any:
        if method == refusing and target.endswith(refused.relpath):
            return 403, {}, b"<Error><Code>InvalidObjectState</Code></Error>"
        return origin(method, target, headers, body)

    gate.origin = refuses
    assert app.ask(f"{PREFIX}/{refused.relpath}").status == 503
    with pytest.raises(StoreUnavailableError):
        app.client.open(refused)
    assert app.ask(f"{PREFIX}/{other.relpath}").body == DATA[1:]


def test_the_health_is_degraded_while_kept_files_are_served(gated_app: tuple[Gate, Site]) -> None:
    gate, app = gated_app

    def health() -> tuple[int, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("flask_hashfs._app.health.INTERVAL", 0.0)  # as if a second had passed
            reply = app.ask(HEALTH)
        return reply.status, json.loads(reply.body)

    assert health() == (200, {"status": "ok"})
    gate.is_down = True
    assert health() == (503, {"status": "failing", "checks": ["reach"]})
    gate.is_down = False
    app.put(DATA)
    gate.is_down = True
    assert health() == (200, {"status": "degraded"})
    assert app.call(app.fs.healthy) is True
    gate.is_down = False
    assert health() == (200, {"status": "ok"})
