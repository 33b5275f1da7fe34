"""Uploads over HTTP, raw and multipart: ours, the stock frameworks, and others."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from harness import (
    MIB,
    Contender,
    Goal,
    Metric,
    Report,
    Sample,
    Scale,
    Table,
    Workspace,
    run_rounds,
)
from servers import Generator, Server, serve, serve_together, wait_idle

SINK = "the load generator's ceiling"
METRICS = [
    Metric("rate", "throughput"),
    Metric("p50", "p50"),
    Metric("p99", "p99"),
    Metric("cpu", "CPU per GB"),
    Metric("memory", "memory growth", "MiB", worst=True),
    Metric("written", "written per byte", "times"),
    Metric("stall", "worst stall", "ms", worst=True),
]


@dataclass(frozen=True)
class Peer:
    """A row: an app on a server."""

    name: str
    server: str
    app: str
    variant: str
    quick: bool = True
    fsync: bool = False

    @property
    def is_async(self) -> bool:
        return self.app in ("apps_asgi:app", "apps_aiohttp")


ASGI, WSGI = "apps_asgi:app", "apps_wsgi:app"
OURS = "Quart + Flask-HashFS, uvicorn"
STOCK = "Quart + hashfs, uvicorn"
STARLETTE = "Starlette + hashfs, uvicorn"
GRANIAN = "Quart + Flask-HashFS, granian"
FLASK, FLASK_STOCK = "Flask + Flask-HashFS, gunicorn", "Flask + hashfs, gunicorn"
YARDSTICK = "hash and write, nothing else, uvicorn"
YARDSTICK_GRANIAN = "hash and write, nothing else, granian"
QUART = [
    Peer(OURS, "uvicorn", ASGI, "ours"),
    Peer("the same, FSYNC on", "uvicorn", ASGI, "ours", quick=False, fsync=True),
    Peer(STOCK, "uvicorn", ASGI, "stock"),
    Peer("the same, put in a thread", "uvicorn", ASGI, "stock_threads", quick=False),
    Peer(STARLETTE, "uvicorn", ASGI, "starlette"),
    Peer("aiohttp + hashfs", "aiohttp", "apps_aiohttp", "aiohttp", quick=False),
    Peer("only hashed, uvicorn", "uvicorn", ASGI, "hash"),
    Peer(YARDSTICK, "uvicorn", ASGI, "write"),
    Peer(GRANIAN, "granian", ASGI, "ours"),
    Peer(YARDSTICK_GRANIAN, "granian", ASGI, "write"),
    Peer("Quart + hashfs, granian", "granian", ASGI, "stock", quick=False),
    Peer("Quart + Flask-HashFS, hypercorn", "hypercorn", ASGI, "ours", quick=False),
    Peer("Quart + hashfs, hypercorn", "hypercorn", ASGI, "stock", quick=False),
    Peer(SINK, "sink", "", ""),
]
SYNC = [
    Peer(FLASK, "gunicorn", WSGI, "ours"),
    Peer("the same, FSYNC on", "gunicorn", WSGI, "ours", quick=False, fsync=True),
    Peer(FLASK_STOCK, "gunicorn", WSGI, "stock"),
    Peer("only hashed, gunicorn", "gunicorn", WSGI, "hash"),
    Peer(SINK, "sink", "", ""),
]


@dataclass(frozen=True)
class Shape:
    """How many clients upload how many files of how many bytes."""

    clients: int
    size: int
    requests: int = 1

    @property
    def bytes(self) -> int:
        return self.clients * self.size * self.requests

    def __str__(self) -> str:
        size = f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size // 1024} KiB"
        if self.clients > 1:
            return f"{self.clients} clients x {size} at once"
        return f"{self.requests} x {size}, one by one" if self.requests > 1 else f"1 x {size}"


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure uploads of every shape, encoding and framework."""
    workspace.prime(scale.pick(2048, 512, 1) * MIB)
    shapes = [Shape(64, MIB)]
    flask_only = [Shape(1, 10 * MIB, 8)]
    if scale.full:
        shapes += [Shape(16, 16 * MIB), Shape(256, MIB), Shape(8, 64 * MIB)]
        flask_only += [Shape(1, 100 * 1024, 200), Shape(1, 200 * MIB)]
    if scale.name == "tiny":
        shapes, flask_only = [Shape(2, MIB)], [Shape(1, MIB, 2)]
    with Generator() as generator:
        for encoding in ("multipart", "raw"):
            for framework, peers in (("Quart", QUART), ("Flask", SYNC)):
                if scale.name == "quick" and (framework, encoding) == ("Flask", "raw"):
                    continue
                for shape in shapes:
                    measure(report, workspace, scale, generator, framework, peers, encoding, shape)
        for shape in flask_only:
            measure(report, workspace, scale, generator, "Flask", SYNC, "multipart", shape)


def measure(
    report: Report,
    workspace: Workspace,
    scale: Scale,
    generator: Generator,
    framework: str,
    peers: list[Peer],
    encoding: str,
    shape: Shape,
) -> None:
    """Measure one table: all peers alive at once, one at work."""
    title = f"{framework}, {encoding} upload, {shape}"
    stock = STOCK if framework == "Quart" else FLASK_STOCK
    metrics = [
        metric
        for metric in METRICS
        if metric.key != "stall" or (framework == "Quart" and shape.clients > 1)
    ]
    goals = _goals(framework, encoding, shape)
    key = f"upload-{framework}-{encoding}-{shape}".replace(" ", "-").lower()
    table = Table(key, title, stock, metrics, goals=goals)
    chosen = {peer.name: peer for peer in peers if scale.full or peer.quick}
    rounds = scale.rounds if shape.bytes < 300 * MIB else max(2, scale.rounds - 2)
    contenders: dict[str, Contender] = {}
    with workspace.cleaned(), contextlib.ExitStack() as stack:
        contexts = {name: start(peer, workspace) for name, peer in chosen.items()}
        servers = stack.enter_context(serve_together(report, title, contexts))
        for name, server in servers.items():
            peer, rss = chosen[name], server.usage().rss
            contenders[name] = partial(
                _round, workspace, generator, server, peer, encoding, shape, rss
            )
        run_rounds(report, table, contenders, rounds, idle=partial(wait_idle, *servers.values()))


def start(
    peer: Peer, workspace: Workspace, more: Mapping[str, str] = {}
) -> contextlib.AbstractContextManager[Server]:
    """Start a peer, on a fresh store if `more` variables do not name another."""
    folder = workspace.fresh("server")
    env = {
        "BENCH_ROOT": str(workspace.fresh("store")),
        "BENCH_APP": peer.variant,
        "BENCH_FSYNC": "1" if peer.fsync else "0",
        **more,
    }
    return serve(peer.server, peer.app, folder, env)


def _round(
    workspace: Workspace,
    generator: Generator,
    server: Server,
    peer: Peer,
    encoding: str,
    shape: Shape,
    rss: float,
) -> Sample:
    workspace.warm(3 * shape.bytes)  # what is sent, and up to two files of it
    server.reset_peak()
    if peer.is_async:
        server.get("/stalls/start")
    before = server.usage()
    done = generator.ask(
        "uploads",
        port=server.port,
        clients=shape.clients,
        size=shape.size,
        requests=shape.requests,
        encoding=encoding,
    )
    after = server.usage()
    sample = {
        "rate": shape.bytes / done["seconds"],
        "p50": statistics.median(done["latencies"]),
        "p99": quantile(done["latencies"], 0.99),
        "cpu": (after.cpu - before.cpu) / shape.bytes * 1e9,
        "memory": max(0.0, after.peak - rss),
        "written": (after.written - before.written) / shape.bytes,
        "generator": done["cpu"] / done["seconds"],
    }
    if peer.is_async:
        sample["stall"] = float(server.get("/stalls/stop"))
    if peer.variant:
        server.drop_content()
    return sample


def quantile(ordered: list[float], part: float) -> float:
    """Return the value that so large a part of an ordered list does not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def _goals(framework: str, encoding: str, shape: Shape) -> list[Goal]:
    goals = []
    if framework == "Quart" and shape in (Shape(64, MIB), Shape(16, 16 * MIB)):
        rate, cpu = (0.8, 1.8) if encoding == "multipart" else (1.0, 1.3)
        for row, yardstick in ((OURS, YARDSTICK), (GRANIAN, YARDSTICK_GRANIAN)):
            server = row.rpartition(" ")[2]
            text = f"at least {rate} x hash and write, {server}"
            goals.append(Goal(text, "rate", row, yardstick, rate, False))
            text = f"at most {cpu} x the CPU of hash and write, {server}"
            goals.append(Goal(text, "cpu", row, yardstick, cpu, True))
    if framework == "Quart" and shape == Shape(64, MIB):
        if encoding == "multipart":
            goals += [
                Goal("at least 4 x stock Quart + hashfs", "rate", OURS, STOCK, 4, False),
                Goal("at least 1.5 x Starlette's form", "rate", OURS, STARLETTE, 1.5, False),
            ]
        else:
            goals.append(Goal("at least 2.5 x the naive way", "rate", OURS, STOCK, 2.5, False))
        for row in (OURS, GRANIAN):
            server = row.rpartition(" ")[2]
            goals.append(Goal(f"no stall over 20 ms, {server}", "stall", row, "", 20, True))
    if framework == "Flask" and shape.clients == 1:
        limit = 0.5 if shape.size < MIB else 0.3
        text = f"at most {limit:.2f} of the time of stock + hashfs"
        goals.append(Goal(text, "p50", FLASK, FLASK_STOCK, limit, True))
        goals.append(Goal("each byte written once", "written", FLASK, "", 1.05, True))
    return goals
