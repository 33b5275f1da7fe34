"""What metrics and traces cost a put and an answer: without OpenTelemetry, with its API, its SDK.

Instruments belong to a process, so each way is a process of its own. A contender works in turns
with one that has no OpenTelemetry, some calls each, so that both meet the same neighbours.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flask import Flask
from harness import Contender, Goal, Metric, Report, Sample, Scale, Table, Workspace, run_rounds

ABSENT, API, SDK = "not installed", "API alone", "SDK attached"
BARE = "the SDK's part: a span, three values"
METRICS = [
    Metric("cpu", "CPU time"),
    Metric("more", "more CPU time for each", "µs"),
]
CALLS = {"put": "new puts of 4 KiB", "serve": "answers of 1 KiB"}
TURNS = 10  # of a round, in which a contender and the one beside it take turns


Ask = Callable[[str, int], float]
"""Has a process make so many calls of one kind, and returns their seconds of processor time."""


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure puts and answers in one thread, by processor time."""
    ways = {ABSENT: "absent", API: "api", SDK: "sdk", BARE: "bare"}
    calls = scale.pick(200, 100, 2)
    with workspace.cleaned(), contextlib.ExitStack() as stack:
        asks = {
            title: stack.enter_context(worker(workspace.fresh(way), way))
            for title, way in ways.items()
        }
        for call, what in CALLS.items():
            table = Table(
                f"metrics-{call}",
                f"Flask, {TURNS * calls} {what} without a server",
                ABSENT,
                METRICS,
                goals=[Goal("at most 25 µs more", "more", API, "", 25, True)],
            )
            contenders: dict[str, Contender] = {
                title: partial(_measured, ask, asks[ABSENT], call, calls)
                for title, ask in asks.items()
            }
            run_rounds(report, table, contenders, 3 * scale.rounds)


def _measured(asked: Ask, beside: Ask, call: str, calls: int) -> Sample:
    own = base = 0.0
    for _ in range(TURNS):
        base += beside(call, calls)
        own += asked(call, calls)
    return {"cpu": own, "more": (own - base) / (TURNS * calls) * 1e6}


@contextlib.contextmanager
def worker(root: Path, way: str) -> Iterator[Ask]:
    """Start a process that makes calls, and yield what has them made."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, root, way))
    process.start()
    there.close()

    def ask(call: str, calls: int) -> float:
        here.send((call, calls))
        seconds: float = here.recv()
        return seconds

    try:
        yield ask
    finally:
        here.close()
        process.join()


def work(asked: Connection, root: Path, way: str) -> None:
    """Make the calls that are asked for, until nobody asks any more."""
    if way in ("absent", "bare"):
        sys.modules["opentelemetry"] = None  # type: ignore[assignment]
    if way == "sdk":
        attach_sdk()
    from flask_hashfs import FlaskHashFS

    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=str(root), HASHFS_FSYNC=False)
    fs = FlaskHashFS(app)
    acts = {"put": put(fs), "serve": serve(app, fs)}
    if way == "bare":
        del sys.modules["opentelemetry"]
        attach_sdk()
        acts = {call: followed_by(act, record(call)) for call, act in acts.items()}
    with app.test_request_context("/"), contextlib.suppress(EOFError):
        while True:
            call, calls = asked.recv()
            act = acts[call]
            begun = time.process_time()
            for _ in range(calls):
                act()
            asked.send(time.process_time() - begun)


def attach_sdk() -> None:
    """Install an SDK that keeps every value in memory, and records every span."""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    trace.set_tracer_provider(TracerProvider())


def put(fs: Any) -> Callable[[], object]:
    """Return what puts a content that is not there yet."""
    begin, numbers = os.urandom(4096 - 8), itertools.count()

    def act() -> object:
        return fs.put(io.BytesIO(begin + next(numbers).to_bytes(8, "big")))

    return act


def serve(app: Flask, fs: Any) -> Callable[[], object]:
    """Return what answers with a stored content, up to its first byte."""
    with app.app_context():
        address = fs.put(os.urandom(1024))
    return lambda: fs.send_file(address).close()


def record(call: str) -> Callable[[], None]:
    """Return what tells the SDK as much as the package does of a call, without the package."""
    from opentelemetry import metrics, trace

    meter, tracer = metrics.get_meter("bare"), trace.get_tracer("bare")
    duration, size = meter.create_histogram("duration"), meter.create_histogram("size")
    count = meter.create_counter("count")
    last = {"outcome": "new"} if call == "put" else {"status": "2xx", "source": "store"}
    attributes = {"store": "default", "framework": "flask", **last}

    def act() -> None:
        span = tracer.start_span("bare")
        duration.record(0.001, attributes)
        count.add(1, attributes)
        size.record(4096, attributes)
        span.set_attributes({f"hashfs.{name}": value for name, value in attributes.items()})
        span.set_attribute("hashfs.size", 4096)
        span.end()

    return act


def followed_by(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], object]:
    """Return what does one after the other."""

    def act() -> None:
        first()
        second()

    return act
