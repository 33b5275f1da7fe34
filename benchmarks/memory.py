"""Memory: many slow clients as a picture, and one large upload in its worst cases."""

from __future__ import annotations

import selectors
import time
from functools import partial

from harness import (
    MIB,
    Contender,
    Goal,
    Metric,
    Report,
    Sample,
    Scale,
    Series,
    Table,
    Workspace,
    run_rounds,
)
from servers import Generator, Server, wait_idle
from uploads import ASGI, WSGI, Peer, start

OURS, STOCK = "Flask-HashFS", "stock"
CASES = {
    "raw": ("raw", "/raw"),
    "multipart": ("multipart", "/multipart"),
    "slower than the network": ("raw", "/slow"),
    "never read": ("raw", "/unread"),
}


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure what uploads do to a server's memory."""
    with Generator() as generator:
        large(report, workspace, scale, generator)
        for encoding in ("raw",) if scale.name == "quick" else ("raw", "multipart"):
            with workspace.cleaned():
                slow(report, workspace, scale, generator, encoding)


# --- one large upload ----------------------------------------------------------------------------


def large(report: Report, workspace: Workspace, scale: Scale, generator: Generator) -> None:
    size = scale.pick(512, 128, 4) * MIB
    servers = ("uvicorn", "granian", "hypercorn") if scale.full else ("uvicorn",)
    rows = {
        f"{label}, {kind}": Peer(label, kind, ASGI, variant)
        for kind in servers
        for label, variant in ((OURS, "ours"), (STOCK, "stock"))
    }
    rows |= {
        f"{label} on Flask, gunicorn": Peer(label, "gunicorn", WSGI, variant)
        for label, variant in ((OURS, "ours"), (STOCK, "stock"))
    }
    table = Table(
        "memory-large",
        f"memory growth of a server during one upload of {size // MIB} MiB",
        "",
        [Metric(case, case, "MiB", worst=True) for case in CASES],
        goals=[
            Goal(f"at most 8 MiB, {case}, {row.rpartition(' ')[2]}", case, row, "", 8, True)
            for row in rows
            if row.startswith(OURS)
            for case in CASES
            if "Flask, " not in row or case in ("raw", "multipart")
        ],
    )
    contenders: dict[str, Contender] = {
        row: partial(_large, workspace, generator, peer, size) for row, peer in rows.items()
    }
    run_rounds(report, table, contenders, 1, prime=False)


def _large(workspace: Workspace, generator: Generator, peer: Peer, size: int) -> Sample:
    sample: Sample = {}
    for case, (encoding, path) in CASES.items():
        if peer.server == "gunicorn" and case not in ("raw", "multipart"):
            continue
        with workspace.cleaned(), start(peer, workspace) as server:
            what = {"port": server.port, "clients": 1, "encoding": encoding, "path": path}
            if case != "never read":
                generator.ask("uploads", size=MIB, requests=2, **what)  # imports, threads, buffers
            wait_idle(server)
            server.reset_peak()
            before = server.usage().rss
            generator.ask("uploads", size=size, requests=1, **what)
            sample[case] = max(0.0, server.usage().peak - before)
    return sample


# --- many slow ones ------------------------------------------------------------------------------


def slow(
    report: Report, workspace: Workspace, scale: Scale, generator: Generator, encoding: str
) -> None:
    """Draw the memory of servers while many clients send slowly."""
    clients, size = scale.pick(200, 100, 3), scale.pick(4, 2, 1) * MIB
    seconds = scale.pick(20, 5, 1)
    title = f"{clients} clients send {size // MIB} MiB each over {seconds} s, {encoding}"
    series = Series(f"memory-slow-{encoding}", title)
    table = Table(
        f"memory-slow-{encoding}",
        f"memory growth of a server while {title}",
        "",
        [Metric("memory", "growth", "MiB", worst=True), Metric("client", "per client", "KiB")],
    )
    peers = {
        f"{OURS} on Quart, uvicorn": Peer(OURS, "uvicorn", ASGI, "ours"),
        "Quart + hashfs, uvicorn": Peer(STOCK, "uvicorn", ASGI, "stock"),
        "Starlette + hashfs, uvicorn": Peer(STOCK, "uvicorn", ASGI, "starlette"),
    }

    def measure(name: str) -> Sample:
        with start(peers[name], workspace) as server:
            generator.ask(
                "uploads", port=server.port, clients=1, size=MIB, requests=2, encoding=encoding
            )
            wait_idle(server)
            before = server.usage().rss
            generator.send(
                "slow_uploads",
                port=server.port,
                clients=clients,
                size=size,
                encoding=encoding,
                seconds=seconds,
            )
            line = series.lines[name] = _watch(server, before, generator)
        growth = max(mib for _, mib in line)
        return {"memory": growth, "client": growth * 1024 / clients}

    contenders = {name: partial(measure, name) for name in peers}
    run_rounds(report, table, contenders, 1, prime=False)
    report.series.append(series)


def _watch(server: Server, before: float, generator: Generator) -> list[tuple[float, float]]:
    """Return (seconds, MiB above `before`) until the generator has its result."""
    begin = time.monotonic()
    line = [(0.0, 0.0)]
    with selectors.DefaultSelector() as selector:
        assert generator.process.stdout is not None
        selector.register(generator.process.stdout, selectors.EVENT_READ)
        while not selector.select(0.1):
            passed = time.monotonic() - begin
            line.append((round(passed, 2), round(max(0.0, server.usage().rss - before), 2)))
    generator.answer()
    return line
