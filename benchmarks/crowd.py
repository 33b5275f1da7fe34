"""Thousands of clients at once: what each costs that holds its upload, vanishes, or only reads.

And what they upload together at full speed, beside a few.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import time
import urllib.error
from collections.abc import Callable
from contextlib import AbstractContextManager
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
from resumable import install_tus, serve_tus
from servers import Generator, Server
from uploads import ASGI, Peer, quantile, start

HELD = MIB * 9 // 10
PATIENCE = 60.0  # seconds until a server has to be idle
CALM = 10  # tenths of a second in which it did nothing, until it is
CEILING = "a bare ASGI app"
OURS, FORM = "Flask-HashFS, raw", "Flask-HashFS, form"
RESUMABLE, TUS = "Flask-HashFS, resumable", "@tus/server, resumable"
SERVERS = ("uvicorn", "granian")
ROWS = {
    CEILING: ("drop", "raw"),
    OURS: ("ours", "raw"),
    FORM: ("ours", "multipart"),
}
PEERS = {
    "stock Quart": Peer("", "uvicorn", ASGI, "stock"),
    "Starlette": Peer("", "uvicorn", ASGI, "starlette"),
    "aiohttp": Peer("", "aiohttp", "apps_aiohttp", "aiohttp"),
}
YARDSTICK = "hash and write, nothing else"
FEW = 64

Serve = Callable[[], AbstractContextManager[Server]]


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure memory, stalls, small downloads and throughput in a crowd."""
    _allow_descriptors()
    with Generator() as generator:
        for server in SERVERS:
            for clients in (200, 1000, 5000) if scale.full else [scale.pick(0, 200, 3)]:
                with workspace.cleaned():
                    held(report, workspace, scale, generator, server, clients)
            with workspace.cleaned():
                throughput(report, workspace, scale, generator, server)
            with workspace.cleaned():
                vanishing(report, workspace, scale, generator, server)
        with workspace.cleaned():
            reading(report, workspace, scale, generator)


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20000)), hard))


def _peers(server: str) -> dict[str, tuple[Peer, str]]:
    return {row: (Peer(row, server, ASGI, app), kind) for row, (app, kind) in ROWS.items()}


def _holding(server: str) -> dict[str, tuple[Peer, str]]:
    return _peers(server) | {RESUMABLE: (Peer(RESUMABLE, server, ASGI, "ours"), "resumable")}


def settle(server: Server) -> None:
    """Wait until the server has worked off what it was sent."""
    deadline, before, calm = time.monotonic() + PATIENCE, server.usage().cpu, 0
    while time.monotonic() < deadline and calm < CALM:
        time.sleep(0.1)
        now = server.usage().cpu
        calm = calm + 1 if now - before < 0.01 else 0
        before = now


# --- held uploads --------------------------------------------------------------------------------


def held(
    report: Report,
    workspace: Workspace,
    scale: Scale,
    generator: Generator,
    server: str,
    clients: int,
) -> None:
    """Measure the memory of each upload that is held, and let all of them finish."""
    serves: dict[str, tuple[Serve, str]] = {
        row: (partial(start, peer, workspace), kind)
        for row, (peer, kind) in _holding(server).items()
    }
    peers: dict[str, tuple[Serve, str]] = {}
    if server == "uvicorn" and scale.name != "quick":
        for name, peer in PEERS.items():
            for ending, kind in (("raw", "raw"), ("form", "multipart")):
                peers[f"{name}, {ending}"] = partial(start, peer, workspace), kind
        try:
            peers[TUS] = partial(serve_tus, install_tus(workspace), workspace), "resumable"
        except FileNotFoundError as error:
            report.leave_out(f"{clients} held uploads: {TUS} ({error})")
    table = Table(
        f"crowd-held-{clients}-{server}",
        f"{clients} clients hold an upload of 1 MiB, nine tenths sent, then finish, {server}",
        CEILING,
        [
            Metric("memory", "memory each", "KiB"),
            Metric("trimmed", "without the allocator's reserve", "KiB"),
            Metric("hold", "time to send nine tenths"),
            Metric("finish", "time to finish"),
        ],
        goals=[
            Goal(f"to finish no later than {peer}", "finish", ours, peer, 1, True)
            for ours in (OURS, FORM, RESUMABLE)
            for peer, (_, kind) in peers.items()
            if kind == serves[ours][1]
        ],
    )
    contenders: dict[str, Contender] = {
        row: partial(_held, workspace, generator, serve, kind, clients)
        for row, (serve, kind) in (serves | peers).items()
    }
    run_rounds(report, table, contenders, min(scale.rounds, 3), prime=False)


def _held(
    workspace: Workspace, generator: Generator, serve: Serve, encoding: str, clients: int
) -> Sample:
    with workspace.cleaned(), serve() as server:
        generator.ask(
            "uploads", port=server.port, clients=2, size=MIB, requests=2, encoding=encoding
        )
        settle(server)
        _trim(server)
        before = server.usage().rss
        sample = {"hold": _hold(generator, server, encoding, clients)}
        sample["memory"] = (server.usage().rss - before) * 1024 / clients
        if _trim(server):
            sample["trimmed"] = (server.usage().rss - before) * 1024 / clients
        sample["finish"] = generator.ask("finish")["seconds"]
    return sample


def _trim(server: Server) -> bool:
    """Let the allocator give back what it keeps, and return whether this server can."""
    try:
        server.get("/trim")
    except urllib.error.HTTPError:
        return False
    return True


def _hold(generator: Generator, server: Server, encoding: str, clients: int) -> float:
    done = generator.ask(
        "hold", port=server.port, clients=clients, size=MIB, encoding=encoding, sent=HELD
    )
    settle(server)
    return float(done["seconds"])


# --- uploads at full speed ------------------------------------------------------------------------


def throughput(
    report: Report, workspace: Workspace, scale: Scale, generator: Generator, server: str
) -> None:
    """Measure the throughput of many clients, beside that of a few."""
    many = scale.pick(1000, 100, 3)
    rows = _peers(server) | {YARDSTICK: (Peer(YARDSTICK, server, ASGI, "write"), "raw")}
    table = Table(
        f"crowd-throughput-{server}",
        f"{FEW} and {many} clients upload files of 1 MiB at full speed, {server}",
        f"{YARDSTICK}, {FEW} clients",
        [Metric("rate", "throughput"), Metric("cpu", "CPU per GB")],
        goals=[
            Goal(
                f"0.8 of the throughput with {FEW} clients, {row}",
                "rate",
                f"{row}, {many} clients",
                f"{row}, {FEW} clients",
                0.8,
                False,
            )
            for row in (OURS, FORM)
        ],
    )
    with contextlib.ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for row, (peer, encoding) in rows.items():
            running = stack.enter_context(start(peer, workspace))
            for clients in (FEW, many):
                each = max(1, scale.pick(2000, 200, 6) // clients)
                contenders[f"{row}, {clients} clients"] = partial(
                    _upload, generator, running, encoding, clients, each
                )
        run_rounds(report, table, contenders, min(scale.rounds, 5), prime=False)


def _upload(
    generator: Generator, server: Server, encoding: str, clients: int, requests: int
) -> Sample:
    before = server.usage().cpu
    done = generator.ask(
        "uploads",
        port=server.port,
        clients=clients,
        size=MIB,
        requests=requests,
        encoding=encoding,
    )
    settle(server)
    server.drop_content()
    size = clients * requests * MIB
    return {
        "rate": size / done["seconds"],
        "cpu": (server.usage().cpu - before) / size * 1e9,
    }


# --- clients that vanish -------------------------------------------------------------------------


def vanishing(
    report: Report, workspace: Workspace, scale: Scale, generator: Generator, server: str
) -> None:
    """Measure how long the loop stalls when all clients vanish in mid-upload."""
    clients = scale.pick(5000, 300, 3)
    table = Table(
        f"crowd-vanish-{server}",
        f"{clients} clients vanish at once in mid-upload, {server}",
        "",
        [Metric("stall", "median of the worst stalls", "ms"), Metric("cpu", "CPU each", "ms")],
    )
    with contextlib.ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for row, (peer, kind) in _holding(server).items():
            running = stack.enter_context(start(peer, workspace))
            contenders[row] = partial(_vanish, generator, running, kind, clients)
        run_rounds(report, table, contenders, scale.rounds, prime=False)


def _vanish(generator: Generator, server: Server, encoding: str, clients: int) -> Sample:
    _hold(generator, server, encoding, clients)
    server.get("/stalls/start")
    before = server.usage().cpu
    generator.ask("vanish")
    settle(server)
    stall = float(server.get("/stalls/stop"))
    return {"stall": stall, "cpu": (server.usage().cpu - before) / clients * 1000}


# --- small downloads beside uploads --------------------------------------------------------------


def reading(report: Report, workspace: Workspace, scale: Scale, generator: Generator) -> None:
    """Measure a GET of 1 KiB that is not in memory, alone and beside uploads at full speed."""
    clients, count = scale.pick(1000, 64, 2), scale.pick(100, 20, 3)
    title = f"a GET of 1 KiB that is not in memory, beside {clients} uploads"
    table = Table(
        "crowd-reading",
        title,
        "",
        [
            Metric("alone", "p99 alone", "ms"),
            Metric("p99", "p99 beside uploads", "ms"),
            Metric("p50", "p50 beside uploads", "ms"),
            Metric("bare", "p50 of a request without a thread", "ms"),
        ],
        goals=[
            Goal(f"at most 150 ms at p99, {server}", "p99", f"{OURS}, {server}", "", 150, True)
            for server in SERVERS
        ],
    )
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(Generator())
        contenders: dict[str, Contender] = {}
        for server in SERVERS:
            running = stack.enter_context(start(Peer(OURS, server, ASGI, "ours"), workspace))
            contenders[f"{OURS}, {server}"] = partial(
                _read, generator, other, running, clients, count
            )
        run_rounds(report, table, contenders, min(scale.rounds, 3), prime=False)


def _read(
    uploader: Generator, reader: Generator, server: Server, clients: int, count: int
) -> Sample:
    targets = _cold(reader, server, 2 * count)
    alone = _get(reader, server, targets[:count])
    seconds = 3.0 * clients / 1000  # until all of them run
    uploader.send(
        "uploads", port=server.port, clients=clients, size=MIB, requests=8, encoding="raw"
    )
    time.sleep(seconds)
    beside = _get(reader, server, targets[count:])
    bare = _get(reader, server, ["/bare"] * count)
    uploader.answer()
    server.drop_content()
    return {
        "alone": quantile(alone, 0.99) * 1000,
        "p99": quantile(beside, 0.99) * 1000,
        "p50": statistics.median(beside) * 1000,
        "bare": statistics.median(bare) * 1000,
    }


def _get(reader: Generator, server: Server, targets: list[str]) -> list[float]:
    done = reader.ask(
        "downloads",
        port=server.port,
        clients=1,
        requests=len(targets),
        targets=targets,
        ranges=[],
    )
    latencies: list[float] = done["latencies"]
    return latencies


def _cold(reader: Generator, server: Server, count: int) -> list[str]:
    """Upload files of 1 KiB, and return the URLs under which they have to be read from the disk."""
    known = set(_files(server))
    reader.ask("uploads", port=server.port, clients=1, size=1024, requests=count, encoding="raw")
    fresh = sorted(set(_files(server)) - known)
    for path in fresh:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return [f"/files/{path.relative_to(server.root)}" for path in fresh]


def _files(server: Server) -> list[Path]:
    return [path for path in server.root.rglob("*") if path.is_file()]
