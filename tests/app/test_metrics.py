"""Metrics and traces: what OpenTelemetry is told, by its own SDK, and that it is not needed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import secrets
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from asgi import Exchange
from both_apps import FRAMEWORKS, Site
from multipart_cases import BOUNDARY, body_of
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from quart import Quart
from werkzeug.test import EnvironBuilder

from flask_hashfs import QuartHashFS
from flask_hashfs._app.metrics import Metrics
from flask_hashfs._storage import messages
from flask_hashfs._storage.upload_memory import MEMORY
from flask_hashfs.exceptions import (
    DigestMismatchError,
    FileTooLargeError,
    IncompleteUploadError,
    InvalidExtensionError,
    RejectedError,
)

READER = InMemoryMetricReader()
SPANS = InMemorySpanExporter()
TUS = {"Tus-Resumable": "1.0.0"}

ABSENT = """
import sys
sys.modules["opentelemetry"] = %s
from flask import Flask
from flask_hashfs import FlaskHashFS
app = Flask("x")
app.config["HASHFS_ROOT_FOLDER"] = sys.argv[1]
fs = FlaskHashFS(app)
with app.app_context():
    assert fs.get(fs.put(b"content").id)
assert app.extensions["hashfs"]["metrics"] is None
print([name for name in sys.modules if name.startswith("opentelemetry.")])
"""


@pytest.fixture(scope="session", autouse=True)
def sdk() -> None:
    """Install the SDK, as whoever starts an app does: once, and for all of the process."""
    metrics.set_meter_provider(MeterProvider([READER]))
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(SPANS))
    trace.set_tracer_provider(tracers)


def measured(site: Measured) -> dict[str, list[Any]]:
    """Every point of a store that no other test uses, by the name of its instrument."""
    data = READER.get_metrics_data()
    assert data is not None
    found: dict[str, list[Any]] = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            assert scope.scope.name == "flask_hashfs"
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    if dict(point.attributes or {}).get("store") == site.name:
                        found.setdefault(metric.name, []).append(point)
    return found


class Measured(Site):
    """A site whose store has a name of its own."""

    def __init__(self, framework: str, root: Path, **config: Any) -> None:
        super().__init__(framework, {"HASHFS_ROOT_FOLDER": str(root / "other")})
        self.framework = framework
        self.name = f"s{secrets.token_hex(8)}"
        prefix = f"HASHFS_{self.name.upper()}_"
        config = {"ROOT_FOLDER": str(root / "root"), **config}
        self.app.config.update({prefix + key: value for key, value in config.items()})
        self.fs = type(self.fs)(self.app, name=self.name)


def counts(points: list[Any], key: str) -> dict[Any, int | None]:
    return {point.attributes[key]: getattr(point, "value", None) for point in points}


def value_of(point: object) -> Any:
    """Return the number of a counter's or a gauge's point."""
    assert isinstance(point, NumberDataPoint)
    return point.value


def of_process() -> dict[str, int]:
    """What is observed of the uploads of the whole process."""
    data = READER.get_metrics_data()
    assert data is not None
    return {
        metric.name.removeprefix("hashfs.upload."): value_of(point)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name.startswith("hashfs.upload.")
    }


def test_the_uploads_of_the_process_are_observed(tmp_path: Path) -> None:
    Measured("quart", tmp_path)
    gc.collect()  # other tests' uploads are forgotten now, and not between the two looks
    before = of_process()
    share = MEMORY.enter(lambda: None)
    share.hold(100_000)
    found = of_process()
    assert found["active"] - before["active"] == 1
    assert found["buffered"] - before["buffered"] == 100_000
    share.leave()


def wsgi_environ(method: str, path: str, headers: dict[str, str], body: object) -> dict[str, Any]:
    environ = EnvironBuilder(path, method=method, headers=list(headers.items())).get_environ()
    return {**environ, "CONTENT_LENGTH": headers["Content-Length"], "wsgi.input": body}


def send(site: Measured, path: str, body: bytes, promised: int, **headers: str) -> None:
    """Send the beginning of a body to an app, and go."""
    headers = {"Content-Length": str(promised), **headers}
    if site.framework == "flask":
        environ = wsgi_environ("POST", path, headers, io.BytesIO(body))
        with contextlib.suppress(IncompleteUploadError):
            b"".join(site.app(environ, lambda *_: None))
        return

    async def run() -> None:
        async with Exchange(site.app, path, headers=headers) as exchange:
            if body:
                await exchange.send(body)
            await exchange.settle()
            await exchange.disconnect()

    asyncio.run(run())


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("sent", [0, 10, 300_000])
def test_an_upload_that_breaks_off_is_counted(framework: str, sent: int, tmp_path: Path) -> None:
    site = Measured(framework, tmp_path)
    site.route_put("/raw")
    before = of_process()["aborted"]
    send(site, "/raw", bytes(sent), 400_000)
    assert of_process()["aborted"] == before + 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_form_that_breaks_off_is_counted_once(framework: str, tmp_path: Path) -> None:
    site = Measured(framework, tmp_path)
    site.route_put("/raw")
    before = of_process()["aborted"]
    part = b'Content-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + bytes(300_000)
    body = body_of(part)
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    send(site, "/raw/form", body[:200_000], len(body), **kind)
    assert of_process()["aborted"] == before + 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_whole_upload_and_a_refused_one_have_not_broken_off(
    framework: str, tmp_path: Path
) -> None:
    site = Measured(framework, tmp_path)
    site.app.config["MAX_CONTENT_LENGTH"] = 1000
    site.route_put("/raw")
    before = of_process()["aborted"]
    assert site.ask("/raw", "POST", data=b"whole").status == 200
    assert site.ask("/raw", "POST", data=bytes(2000)).status == 413
    assert site.ask("/raw").status == 405
    assert of_process()["aborted"] == before


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_upload_that_another_request_takes_over_has_not_broken_off(
    framework: str, tmp_path: Path
) -> None:
    site = Measured(framework, tmp_path, UPLOADS_PATH="/up")
    path, patch = begin_upload(site)
    before = of_process()["aborted"]
    if framework == "flask":
        mine, theirs = socket.socketpair()
        body = theirs.makefile("rb", buffering=0)
        with mine, theirs, body, ThreadPoolExecutor(1) as threads:
            environ = {**wsgi_environ("PATCH", path, patch, body), "gunicorn.socket": theirs}
            mine.sendall(b"half of it")
            statuses: list[str] = []
            held = threads.submit(
                lambda: b"".join(site.app(environ, lambda status, *_: statuses.append(status)))
            )
            while not resumable_active(site):
                assert not held.done()
            assert site.ask(path, "HEAD", headers=TUS).status == 200
            held.result()
        assert statuses == ["409 CONFLICT"]
    else:

        async def run() -> None:
            async with Exchange(site.app, path, method="PATCH", headers=patch) as exchange:
                await exchange.send(b"half of it")
                while not resumable_active(site):
                    await asyncio.sleep(0)
                async with Exchange(site.app, path, method="HEAD", headers=TUS) as other:
                    await other.finish()
                assert other.status == 200
                await exchange.disconnect()
            assert exchange.status == 409

        asyncio.run(run())
    assert of_process()["aborted"] == before


def begin_upload(site: Measured) -> tuple[str, dict[str, str]]:
    """Begin a resumable upload of 20 bytes; return its path and the headers that send them."""
    new = {**TUS, "Upload-Length": "20", "Content-Length": "0"}
    location = site.ask("/up", "POST", headers=new).headers["Location"]
    patch = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    return urlsplit(location).path, {**patch, "Content-Length": "20"}


def resumable_active(site: Measured) -> int:
    [point] = measured(site)["hashfs.resumable.active"]
    assert point.attributes["framework"] == site.framework
    return int(point.value)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_resumable_uploads_are_active_while_they_send(framework: str, tmp_path: Path) -> None:
    site = Measured(framework, tmp_path, UPLOADS_PATH="/up")
    seen = []
    path, patch = begin_upload(site)
    assert resumable_active(site) == 0  # nobody sends
    if framework == "flask":

        class Body(io.RawIOBase):
            def read(self, size: int = -1) -> bytes:
                seen.append(resumable_active(site))
                return b"half of it"

        environ = wsgi_environ("PATCH", path, patch, Body())
        b"".join(site.app(environ, lambda *_: None))
        assert seen == [1, 1]
    else:

        async def run() -> None:
            async with Exchange(site.app, path, method="PATCH", headers=patch) as exchange:
                await exchange.send(b"half of it")
                while not resumable_active(site):
                    await asyncio.sleep(0)
                seen.append(resumable_active(site))
                await exchange.disconnect()

        asyncio.run(run())
        assert seen == [1]
    assert resumable_active(site) == 0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_puts_are_counted_by_outcome_and_measured(framework: str, tmp_path: Path) -> None:
    site = Measured(framework, tmp_path, MAX_FILE_SIZE=100)

    @site.fs.inspector
    def refuse(file: Any, address: Any) -> None:
        if address.relpath.endswith(".bad"):
            raise RejectedError("no")

    site.put(b"content")
    site.put(b"content")
    site.put(b"other")
    for error, args, kwargs in (
        (FileTooLargeError, (bytes(101),), {}),
        (InvalidExtensionError, (b"x", "a/b"), {}),
        (DigestMismatchError, (b"x",), {"expected": "0" * 64}),
        (RejectedError, (b"bad", "bad"), {}),
        (TypeError, (7,), {}),
    ):
        with pytest.raises(error):
            site.put(*args, **kwargs)
    found = measured(site)
    assert counts(found["hashfs.put.count"], "outcome") == {
        "new": 2,
        "duplicate": 1,
        "too_large": 1,
        "extension": 1,
        "digest": 1,
        "rejected": 1,
        "error": 1,
    }
    assert sum(point.sum for point in found["hashfs.put.size"]) == 7 + 7 + 5
    assert sum(point.count for point in found["hashfs.put.duration"]) == 8
    assert all(point.sum > 0 for point in found["hashfs.put.duration"])
    for points in found.values():
        for point in points:
            assert set(point.attributes) <= {"store", "framework", "outcome"}
            assert point.attributes["framework"] == framework


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_answers_are_counted_by_their_status_and_measured(framework: str, tmp_path: Path) -> None:
    site = Measured(framework, tmp_path, SERVE_FILES=True, PATH_PREFIX="/f")
    id = site.put(b"content").id
    assert site.ask(f"/f/{id}").status == 200
    assert site.ask(f"/f/{id}", headers={"Range": "bytes=0-2"}).status == 206
    assert site.ask(f"/f/{id}", headers={"If-None-Match": f'"{id}"'}).status == 304
    assert site.ask(f"/f/{id}", "HEAD").status == 200
    assert site.ask(f"/f/{'0' * 64}").status == 404
    found = measured(site)
    points = found["hashfs.serve.count"]
    assert counts(points, "status") == {"2xx": 3, "3xx": 1, "4xx": 1}
    assert {point.attributes["source"] for point in points} == {"store"}
    assert sum(point.sum for point in found["hashfs.serve.size"]) == 7 + 3
    assert sum(point.count for point in found["hashfs.serve.duration"]) == 5


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_cache_is_observed_and_is_the_source_of_its_answers(
    framework: str, tmp_path: Path
) -> None:
    cache = {"CACHE_FOLDER": str(tmp_path / "cache"), "ROOT_FOLDER": "memory://"}
    pytest.importorskip("obstore", reason="obstore is not installed: no object store has a cache")
    site = Measured(framework, tmp_path, SERVE_FILES=True, PATH_PREFIX="/f", **cache)
    id = site.put(b"content").id
    assert site.ask(f"/f/{id}").status == 200
    found = measured(site)
    assert [point.attributes["source"] for point in found["hashfs.serve.count"]] == ["cache"]
    values = {name.removeprefix("hashfs.cache."): points for name, points in found.items()}
    wanted = {"hits": 1, "misses": 0, "fills": 0, "bytes": 7, "files": 1, "evicted": 0}
    assert {name: values[name][0].value for name in wanted} == wanted


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_put_and_an_answer_have_spans_below_that_of_the_request(
    framework: str, tmp_path: Path
) -> None:
    site = Measured(framework, tmp_path, SERVE_FILES=True, PATH_PREFIX="/f", MAX_FILE_SIZE=9)
    SPANS.clear()
    with trace.get_tracer("app").start_as_current_span("request") as request:
        id = site.put(b"content").id
        site.ask(f"/f/{id}")
        with pytest.raises(FileTooLargeError):
            site.put(bytes(10))
    spans = [span for span in SPANS.get_finished_spans() if span.name.startswith("hashfs.")]
    assert [span.name for span in spans] == ["hashfs.put", "hashfs.serve", "hashfs.put"]
    for span in spans:
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
        assert id not in str(span.attributes)
        assert span.status.is_unset  # what a client sent is no error of ours
    assert dict(spans[0].attributes or {})["hashfs.outcome"] == "new"
    assert dict(spans[1].attributes or {})["hashfs.status"] == "2xx"


def test_what_goes_wrong_with_a_store_is_counted_also_where_its_line_is_left_out() -> None:
    Metrics("any", "flask")

    def count() -> int:
        data = READER.get_metrics_data()
        assert data is not None
        return sum(
            value_of(point)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "hashfs.store.errors"
            for point in metric.data.data_points
            if point.attributes == {"kind": "damaged"}
        )

    messages.DAMAGED.log("before", path="x")
    before = count()
    for _ in range(3):
        messages.DAMAGED.log("a store", path="x")
    assert count() == before + 3


def test_who_waits_for_a_worker_is_measured(tmp_path: Path) -> None:
    app = Quart("app")
    name = f"w{secrets.token_hex(8)}"
    prefix = f"HASHFS_{name.upper()}_"
    app.config.update({f"{prefix}ROOT_FOLDER": str(tmp_path), f"{prefix}WORKER_THREADS": 1})
    QuartHashFS(app, name=name)
    state = app.extensions[f"hashfs_{name}"]
    workers, waiting = state["workers"], []
    go_on = threading.Event()

    async def run() -> None:
        held = [asyncio.create_task(workers.run(go_on.wait, 30)) for _ in range(3)]
        while workers.count_waiting() < 2:
            await asyncio.sleep(0)
        waiting.extend(points("hashfs.worker.waiting"))
        go_on.set()
        await asyncio.gather(*held)

    def points(instrument: str) -> list[Any]:
        data = READER.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == instrument
            for point in metric.data.data_points
            if (point.attributes or {}).get("store") == name
        ]

    asyncio.run(run())
    assert [point.value for point in waiting] == [2]
    [waited] = points("hashfs.worker.wait")
    assert waited.count == 2


@pytest.mark.slow
@pytest.mark.parametrize("stub", ["None", "type(sys)('opentelemetry')"])
def test_nothing_is_imported_or_measured_where_it_is_not_installed(
    stub: str, tmp_path: Path
) -> None:
    code = ABSENT % stub  # a module that is None is as one that is not installed
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_importing_the_package_does_not_import_it() -> None:
    code = "import sys, flask_hashfs; print('opentelemetry' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
