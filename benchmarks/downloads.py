"""Downloads over HTTP: whole files of three sizes, and ranges of a large one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
from servers import Generator, Server, serve, serve_nginx, serve_together, wait_idle
from uploads import ASGI, SINK, WSGI, quantile

from flask_hashfs import HashFS

METRICS = [
    Metric("rate", "throughput"),
    Metric("p50", "p50"),
    Metric("p99", "p99"),
    Metric("cpu", "CPU per request"),
    Metric("memory", "memory growth", "MiB", worst=True),
]
OURS, STOCK = "Flask-HashFS on Quart, uvicorn", "quart.send_file, uvicorn"
BARE = "a bare Quart route, uvicorn"
NGINX = "nginx"


@dataclass(frozen=True)
class Peer:
    """A row: an app on a server."""

    name: str
    server: str
    app: str
    variant: str
    quick: bool = True


BESIDE = "a bare route beside Flask-HashFS, uvicorn"
BARES = {BARE: "/bare", BESIDE: "/bare", "a bare Flask route, gunicorn": "/bare"}
PEERS = [
    Peer(OURS, "uvicorn", ASGI, "ours"),
    Peer(BARE, "uvicorn", ASGI, "bare"),
    Peer(BESIDE, "uvicorn", ASGI, "ours"),
    Peer(STOCK, "uvicorn", ASGI, "stock"),
    Peer("Starlette FileResponse, uvicorn", "uvicorn", ASGI, "starlette"),
    Peer("aiohttp FileResponse", "aiohttp", "apps_aiohttp", ""),
    Peer("Flask-HashFS on Quart, granian", "granian", ASGI, "ours"),
    Peer("quart.send_file, granian", "granian", ASGI, "stock", quick=False),
    Peer("Flask-HashFS on Quart, hypercorn", "hypercorn", ASGI, "ours", quick=False),
    Peer("Flask-HashFS on Flask, gunicorn", "gunicorn", WSGI, "ours"),
    Peer("a bare Flask route, gunicorn", "gunicorn", WSGI, "bare", quick=False),
    Peer("flask.send_file, gunicorn", "gunicorn", WSGI, "stock"),
    Peer("whitenoise, gunicorn", "gunicorn", WSGI, "whitenoise", quick=False),
    Peer(NGINX, "nginx", "", ""),
    Peer(SINK, "sink", "", ""),
]


@dataclass(frozen=True)
class Shape:
    """What is fetched: files of a size, or ranges of one file."""

    title: str
    size: int
    clients: int
    requests: int
    ranged: int = 0  # bytes of a range; 0: the whole file

    @property
    def answer(self) -> int:
        return self.ranged or self.size


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure downloads of every shape."""
    much = scale.pick(4, 1, 1)
    shapes = [
        Shape("1 KiB", 1024, 16, 100 * much),
        Shape("100 KiB", 100 * 1024, 16, 50 * much),
        Shape("10 MiB", 10 * MIB, 8, 4 * much),
        Shape("ranges of 1 MiB of 256 MiB", 256 * MIB, 8, 16 * much, MIB),
    ]
    if scale.name == "quick":
        shapes = [shapes[0], shapes[2]]
    if scale.name == "tiny":
        shapes = [Shape("1 KiB", 1024, 2, 3), Shape("ranges of 10 bytes", 4096, 2, 3, 10)]
    with Generator() as generator, workspace.cleaned():
        root = workspace.fresh("store")
        paths = fill(root, shapes)
        with serve_together(report, "downloads", contexts(workspace, scale, root)) as servers:
            for shape in shapes:
                measure(report, scale, generator, servers, shape, paths[shape.size])


def fill(root: Path, shapes: list[Shape]) -> dict[int, str]:
    """Store a file of each size; return their relative paths."""
    store = HashFS(root, fsync=False)
    block = os.urandom(MIB)

    def content(size: int) -> bytes:
        return b"".join([block] * (size // MIB)) + block[: size % MIB]

    paths = {}
    for size in {shape.size for shape in shapes}:
        address = store.put(content(size), ".bin")
        paths[size] = address.relpath
        hashlib.sha256(Path(address.abspath).read_bytes())  # it is in memory for everybody
    return paths


def contexts(
    workspace: Workspace, scale: Scale, root: Path
) -> dict[str, contextlib.AbstractContextManager[Server]]:
    """Return what runs each peer, by its name."""
    found: dict[str, contextlib.AbstractContextManager[Server]] = {}
    for peer in PEERS:
        if not scale.full and not peer.quick:
            continue
        folder = workspace.fresh("server")
        if peer.server == NGINX:
            (folder / "files").symlink_to(root)  # the same targets as everywhere
            found[peer.name] = serve_nginx(folder, folder)
        else:
            env = {"BENCH_ROOT": str(root), "BENCH_APP": peer.variant}
            found[peer.name] = serve(peer.server, peer.app, folder, env)
    return found


def measure(
    report: Report,
    scale: Scale,
    generator: Generator,
    servers: dict[str, Server],
    shape: Shape,
    path: str,
) -> None:
    """Measure one table."""
    ranges = []
    if shape.ranged:
        starts = range(0, shape.size - shape.ranged, max(shape.ranged, shape.size // 64))
        ranges = [f"{begin}-{begin + shape.ranged - 1}" for begin in starts]
    key = f"download-{shape.title}".replace(" ", "-")
    title = f"download, {shape.title}, {shape.clients} clients"
    table = Table(key, title, STOCK, METRICS, goals=_goals(shape))
    contenders: dict[str, Contender] = {}
    for name, server in servers.items():
        if name in BARES and shape.size != 1024:
            continue
        target = BARES.get(name, f"/files/{path}")
        if name == SINK:
            target = f"/{shape.answer}"
        rss = server.usage().rss
        contenders[name] = partial(
            _round, generator, server, shape, target, [] if name == SINK else ranges, rss
        )
    run_rounds(report, table, contenders, scale.rounds, idle=partial(wait_idle, *servers.values()))


def _round(
    generator: Generator,
    server: Server,
    shape: Shape,
    target: str,
    ranges: list[str],
    rss: float,
) -> Sample:
    server.reset_peak()
    before = server.usage()
    done = generator.ask(
        "downloads",
        port=server.port,
        clients=shape.clients,
        requests=shape.requests,
        targets=[target],
        ranges=ranges,
    )
    after = server.usage()
    number = shape.clients * shape.requests
    if done["received"] != number * shape.answer:
        raise AssertionError(f"{done['received']} bytes, not {number * shape.answer}")
    return {
        "rate": number / done["seconds"],
        "p50": statistics.median(done["latencies"]),
        "p99": quantile(done["latencies"], 0.99),
        "cpu": (after.cpu - before.cpu) / number,
        "memory": max(0.0, after.peak - rss),
        "generator": done["cpu"] / done["seconds"],
    }


def _goals(shape: Shape) -> list[Goal]:
    if shape.size == 1024:
        return [Goal("at least 0.6 x a bare Quart route", "rate", OURS, BARE, 0.6, False)]
    if shape.size == 10 * MIB:
        return [
            Goal("at least 15 x quart.send_file", "rate", OURS, STOCK, 15, False),
            Goal("at least 0.8 x nginx", "rate", OURS, NGINX, 0.8, False),
        ]
    return []
