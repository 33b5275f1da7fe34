"""What metrics and traces cost a put and an answer: without OpenTelemetry, with its API, its SDK.

What OpenTelemetry has installed belongs to a process, so each way is a process of its own. In each
one, calls of an app that is measured take turns with those of one that is not.
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

from flask import Flask
from harness import Contender, Goal, Metric, Report, Sample, Scale, Table, Workspace, run_rounds

ABSENT, API, SDK = "not installed", "API alone", "SDK attached"
BARE = "the SDK's part: a span, three values"
BESIDE = "SDK attached, beside the SDK's part"
METRICS = [
    Metric("ratio", "CPU time, as a ratio to that of an app without"),
    Metric("more", "more CPU time for each", "µs"),
]
CALLS = {"put": "new puts of 4 KiB", "serve": "answers of 1 KiB"}
TURN = 20  # calls of one app, before it is the other's turn

Act = Callable[[], object]
Ask = Callable[[str, int], Sample]
"""Has a process make so many calls of one kind, in each of its two apps."""


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure puts and answers in one thread, by processor time."""
    ways = {ABSENT: "absent", API: "api", SDK: "sdk", BARE: "bare", BESIDE: "beside"}
    calls = scale.pick(2000, 500, 20)
    with workspace.cleaned(), contextlib.ExitStack() as stack:
        asks = {
            title: stack.enter_context(worker(workspace.fresh(way), way))
            for title, way in ways.items()
        }
        for call, what in CALLS.items():
            table = Table(
                f"metrics-{call}",
                f"Flask, {calls} {what} without a server",
                "",
                METRICS,
                goals=[
                    Goal("at most 25 µs more", "more", API, "", 25, True),
                    Goal("at most 10 µs more than the SDK's part", "more", BESIDE, "", 10, True),
                ],
            )
            contenders: dict[str, Contender] = {
                title: partial(ask, call, calls) for title, ask in asks.items()
            }
            run_rounds(report, table, contenders, 3 * scale.rounds)


@contextlib.contextmanager
def worker(root: Path, way: str) -> Iterator[Ask]:
    """Start a process that makes calls, and yield what has them made."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, root, way))
    process.start()
    there.close()

    def ask(call: str, calls: int) -> Sample:
        here.send((call, calls))
        sample: Sample = here.recv()
        return sample

    try:
        yield ask
    finally:
        here.close()
        process.join()


def work(asked: Connection, root: Path, way: str) -> None:
    """Make the calls that are asked for, until nobody asks any more."""
    sys.modules["opentelemetry"] = None  # type: ignore[assignment]
    plain = actions(root / "plain")
    if way == "absent":
        measured = actions(root / "measured")
    elif way == "bare":
        measured = actions(root / "measured")
        del sys.modules["opentelemetry"]
        attach_sdk()
        measured = {call: followed_by(act, record(call)) for call, act in measured.items()}
    else:
        del sys.modules["opentelemetry"]
        if way != "api":
            attach_sdk()
        measured = actions(root / "measured")
        if way == "beside":  # in one process, which two processes are too unlike to show
            plain = {call: followed_by(act, record(call)) for call, act in plain.items()}
    with contextlib.suppress(EOFError):
        while True:
            call, calls = asked.recv()
            asked.send(compared(measured[call], plain[call], calls))


def compared(act: Act, other: Act, calls: int) -> Sample:
    """Let two acts take turns, and return what the first one takes beside the second."""
    own = base = 0.0
    for _ in range(calls // TURN):
        base += seconds(other)
        own += seconds(act)
    return {"ratio": own / base, "more": (own - base) / calls * 1e6}


def seconds(act: Act) -> float:
    """Return the processor time of one turn."""
    begun = time.process_time()
    for _ in range(TURN):
        act()
    return time.process_time() - begun


def actions(root: Path) -> dict[str, Act]:
    """Return the calls of an app with a store of its own, in the context of a request."""
    from flask_hashfs import FlaskHashFS

    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=str(root), HASHFS_FSYNC=False)
    fs = FlaskHashFS(app)
    begin, numbers = os.urandom(4096 - 8), itertools.count()
    with app.app_context():
        address = fs.put(os.urandom(1024))

    def put() -> object:
        return fs.put(io.BytesIO(begin + next(numbers).to_bytes(8, "big")))

    def serve() -> object:
        return fs.send_file(address).close()

    def within(act: Act) -> Act:
        context = app.test_request_context("/")

        def acts() -> None:
            with context:
                act()

        return acts

    return {"put": within(put), "serve": within(serve)}


def attach_sdk() -> None:
    """Install an SDK that keeps every value in memory, and records every span."""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    trace.set_tracer_provider(TracerProvider())


def record(call: str) -> Act:
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


def followed_by(first: Act, second: Act) -> Act:
    """Return what does one after the other."""

    def act() -> None:
        first()
        second()

    return act
