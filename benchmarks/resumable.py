"""Resumable uploads beside a plain put, and beside @tus/server on Node.js."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

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
    which,
)
from servers import Generator, Server, serve_node, serve_together, wait_idle
from uploads import ASGI, WSGI, Peer, start

QUART = Peer("resumable, Quart, uvicorn", "uvicorn", ASGI, "ours")
FLASK = Peer("resumable, Flask, gunicorn", "gunicorn", WSGI, "ours")
PUT, FLASK_PUT = "a plain put, Quart, uvicorn", "a plain put, Flask, gunicorn"
TUS = "@tus/server, Node.js"
HERE = Path(__file__).parent
RATE = [
    Metric("rate", "throughput"),
    Metric("cpu", "CPU per GB"),
    Metric("memory", "memory growth", "MiB", worst=True),
]
Ask = Callable[[Server], dict[str, Any]]


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure whole uploads, resumed ones, and questions how far one is."""
    with Generator() as generator:
        throughput(report, workspace, scale, generator)
        resumed_at_half(report, workspace, scale, generator)
        resumed_at_once(report, workspace, scale, generator)
        heads(report, workspace, scale, generator)


# --- whole uploads -------------------------------------------------------------------------------


def throughput(report: Report, workspace: Workspace, scale: Scale, generator: Generator) -> None:
    clients, size = scale.pick(64, 16, 2), scale.pick(16, 16, 2) * MIB
    piece, title = size // 4, f"{clients} uploads of {size // MIB} MiB at once"
    what = {"clients": clients, "size": size}
    put = partial(_ask, generator, "uploads", requests=1, encoding="raw", **what)
    resumable = partial(_ask, generator, "resumable", piece=piece, **what)
    asks: dict[str, Ask] = {
        PUT: put,
        QUART.name: resumable,
        FLASK_PUT: put,
        FLASK.name: resumable,
        TUS: resumable,
    }
    table = Table(
        "resumable",
        f"{title}, in pieces of {piece // MIB or 1} MiB where they are resumable",
        PUT,
        RATE,
        goals=[
            Goal("at least 0.9 x a plain put", "rate", QUART.name, PUT, 0.9, False),
            Goal("at least 0.9 x a plain put", "rate", FLASK.name, FLASK_PUT, 0.9, False),
            Goal("at least 1.5 x @tus/server", "rate", QUART.name, TUS, 1.5, False),
        ],
    )
    with workspace.cleaned(), contextlib.ExitStack() as stack:
        contexts = {
            PUT: start(QUART, workspace),
            QUART.name: start(QUART, workspace),
            FLASK_PUT: start(FLASK, workspace),
            FLASK.name: start(FLASK, workspace),
            TUS: tus_server(workspace),
        }
        servers = stack.enter_context(serve_together(report, title, contexts))
        contenders: dict[str, Contender] = {
            name: partial(_round, workspace, server, asks[name], clients * size)
            for name, server in servers.items()
        }
        idle = partial(wait_idle, *servers.values())
        run_rounds(report, table, contenders, scale.rounds, idle=idle)


@contextlib.contextmanager
def tus_server(workspace: Workspace) -> Iterator[Server]:
    """Install @tus/server in a folder of its own, and run it."""
    with serve_tus(install_tus(workspace), workspace) as server:
        yield server


def install_tus(workspace: Workspace) -> Path:
    """Install @tus/server, and return its folder.

    Raises:
        FileNotFoundError: Node.js or npm is absent.
    """
    if which("node") is None or which("npm") is None:
        raise FileNotFoundError("node or npm is absent (Debian: apt-get install nodejs npm)")
    folder = workspace.fresh("node")
    shutil.copytree(HERE / "tus_server", folder, dirs_exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    return folder


def serve_tus(folder: Path, workspace: Workspace) -> AbstractContextManager[Server]:
    """Run an installed @tus/server on a store of its own."""
    return serve_node(folder / "server.mjs", folder, workspace.fresh("store"))


def _ask(generator: Generator, order: str, server: Server, **what: Any) -> dict[str, Any]:
    return generator.ask(order, port=server.port, **what)


def _round(workspace: Workspace, server: Server, ask: Ask, size: int) -> Sample:
    workspace.warm(2 * size)
    server.reset_peak()
    before = server.usage()
    done = ask(server)
    after = server.usage()
    server.drop_content()
    return {
        "rate": size / done["seconds"],
        "time": done["seconds"],
        "cpu": (after.cpu - before.cpu) / size * 1e9,
        "memory": max(0.0, after.peak - before.rss),
    }


# --- broken off and resumed ----------------------------------------------------------------------

TIME = [Metric("time", "time"), *RATE[1:]]


def resumed_at_half(
    report: Report, workspace: Workspace, scale: Scale, generator: Generator
) -> None:
    """Measure the second half: by the process that had the first one, and by another."""
    size = scale.pick(1024, 128, 4) * MIB
    half = size // 2
    rows = {"a put of one half": None, "the rest, in the same process": 1, "in another one": 2}
    name = f"{size // MIB} MiB" if size < 1024 * MIB else "1 GiB"
    table = Table(
        "resumed-at-half",
        f"the second half of an upload of {name}, Quart on uvicorn",
        "a put of one half",
        TIME,
    )

    def measure(processes: int | None) -> Sample:
        with workspace.cleaned(), contextlib.ExitStack() as stack:
            first = stack.enter_context(start(QUART, workspace))
            env = {"BENCH_ROOT": str(first.root)}
            if processes is None:
                what = {"clients": 1, "size": half, "requests": 1, "encoding": "raw"}
                return _round(workspace, first, partial(_ask, generator, "uploads", **what), half)
            begun = _ask(generator, "begin", first, clients=1, size=size, sent=half)
            server = first
            if processes > 1:
                server = stack.enter_context(start(QUART, workspace, env))
            wait_idle(first, server)
            ask = partial(_ask, generator, "resume", paths=begun["paths"], size=size)
            return _round(workspace, server, ask, half)

    contenders: dict[str, Contender] = {row: partial(measure, count) for row, count in rows.items()}
    run_rounds(report, table, contenders, max(1, scale.rounds - 2), prime=False)


def resumed_at_once(
    report: Report, workspace: Workspace, scale: Scale, generator: Generator
) -> None:
    clients, size = scale.pick(256, 64, 4), MIB
    half, title = size // 2, "broken off at half of 1 MiB and resumed at once"
    what = {"clients": clients, "size": half, "requests": 1, "encoding": "raw"}
    for put, peer in ((PUT, QUART), (FLASK_PUT, FLASK)):
        table = Table(
            f"resumed-at-once-{peer.server}", f"{clients} uploads {title}, {peer.name}", put, TIME
        )
        with workspace.cleaned(), start(peer, workspace) as server:

            def resume(server: Server = server) -> Sample:
                begun = _ask(generator, "begin", server, clients=clients, size=size, sent=half)
                wait_idle(server)
                ask = partial(_ask, generator, "resume", paths=begun["paths"], size=size)
                return _round(workspace, server, ask, clients * half)

            ask = partial(_ask, generator, "uploads", **what)
            contenders: dict[str, Contender] = {
                put: partial(_round, workspace, server, ask, clients * half),
                "resumed": resume,
            }
            run_rounds(report, table, contenders, scale.rounds, idle=partial(wait_idle, server))


# --- how far is it? ------------------------------------------------------------------------------


def heads(report: Report, workspace: Workspace, scale: Scale, generator: Generator) -> None:
    """Ask how far uploads are whose data is a hole of its size."""
    sizes = {"10 KiB": 10 * 1024, "10 GiB": 10 * 1024**3}
    table = Table(
        "heads",
        "HEAD of an unfinished upload, Quart on uvicorn",
        "10 KiB",
        [Metric("rate", "requests per second")],
        goals=[Goal("as fast as of 10 KiB", "rate", "10 GiB", "10 KiB", 0.9, False)],
    )
    count = scale.pick(500, 200, 5)
    with workspace.cleaned(), start(QUART, workspace) as server:
        contenders: dict[str, Contender] = {}
        for name, size in sizes.items():
            begun = _ask(generator, "begin", server, clients=1, size=20 * 1024**3, sent=16)
            wait_idle(server)
            (path,) = begun["paths"]
            os.truncate(server.root / ".hashfs" / path.lstrip("/") / "data", size)
            contenders[name] = partial(_heads, generator, server, begun["paths"], count)
        run_rounds(report, table, contenders, scale.rounds, idle=partial(wait_idle, server))


def _heads(generator: Generator, server: Server, paths: list[str], count: int) -> Sample:
    done = _ask(generator, "heads", server, paths=paths, requests=count)
    return {"rate": count / done["seconds"]}
