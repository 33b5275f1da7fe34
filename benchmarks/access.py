"""What types by content cost an upload, and what a signature costs a download."""

from __future__ import annotations

import contextlib
import io
import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from downloads import Shape as Download
from downloads import fill
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
    run_sessions,
)
from PIL import Image
from servers import Generator, Server, serve, serve_together
from uploads import ASGI, WSGI

FRAMEWORKS = {"Flask, gunicorn": ("gunicorn", WSGI), "Quart, uvicorn": ("uvicorn", ASGI)}
METRICS = [
    Metric("p50", "p50"),
    Metric("cpu", "CPU per request"),
    Metric("rate", "throughput"),
]
OFF, ON = "HASHFS_ACCEPT off", "HASHFS_ACCEPT on"
OPEN, SIGNED = "not signed", "signed"
VARIANTS = {OFF: "ours", ON: "accept", OPEN: OPEN, SIGNED: SIGNED}
# glibc gives a request's memory back to the system, and fetches it anew, until an app has freed
# something large, as the detector's rules are. So that only the look at the bytes is measured, both
# servers keep what they have.
KEEPS_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(32 * MIB), "MALLOC_MMAP_THRESHOLD_": str(16 * MIB)}


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure uploads with and without a list of types, and downloads with and without a token."""
    with Generator() as generator:
        for framework in FRAMEWORKS:
            for kind in KINDS:
                for encoding in ("multipart", "raw"):
                    upload(report, workspace, scale, generator, framework, encoding, kind)
            download(report, workspace, scale, generator, framework)


def picture() -> bytes:
    """Return the first KiB of a PNG."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    return file.getvalue()[:1024]


def unknown() -> bytes:
    """Return bytes that are of no type, the same ones in each run."""
    return b"\xfe" + random.Random(15).randbytes(1023)


# How a content of a kind begins, and the most that it may cost as a ratio to no list of types.
KINDS: dict[str, tuple[Callable[[], bytes], float]] = {
    "a picture": (picture, 1.03),
    "unknown bytes": (unknown, 1.1),
}


def upload(
    report: Report,
    workspace: Workspace,
    scale: Scale,
    generator: Generator,
    framework: str,
    encoding: str,
    kind: str,
) -> None:
    """Measure uploads of 1 MiB one by one."""
    number = scale.pick(20, 20, 2)
    head, limit = KINDS[kind]
    table = Table(
        f"access-upload-{framework.partition(',')[0]}-{encoding}-{kind.split()[-1]}".lower(),
        f"{framework}, {encoding} upload of {kind}, 1 MiB one by one",
        OFF,
        METRICS,
        goals=[
            Goal(f"at most {limit} x the time without", "p50", ON, OFF, limit, True),
            Goal(f"at most {limit} x the CPU without", "cpu", ON, OFF, limit, True),
        ],
    )

    def contender(name: str, server: Server) -> Contender:
        return partial(_uploaded, generator, server, encoding, number, head().hex())

    session = partial(
        _session, report, workspace, table.title, framework, (OFF, ON), contender, None
    )
    run_sessions(report, table, session, *_extent(scale))


def _extent(scale: Scale) -> tuple[int, int]:
    """Return how often the servers are started, and for how many rounds."""
    return scale.pick(5, 2, 1), scale.pick(4, 10, 1) * scale.rounds


@contextlib.contextmanager
def _session(
    report: Report,
    workspace: Workspace,
    title: str,
    framework: str,
    names: tuple[str, str],
    contender: Callable[[str, Server], Contender],
    root: Path | None,
) -> Iterator[Mapping[str, Contender]]:
    """Start both servers, side by side, with a store of their own or with the one at `root`."""
    with workspace.cleaned():
        kind, app = FRAMEWORKS[framework]
        contexts = {}
        for name in names:
            store = str(root or workspace.fresh("store"))
            env = {"BENCH_ROOT": store, "BENCH_APP": VARIANTS[name], **KEEPS_MEMORY}
            contexts[name] = serve(kind, app, workspace.fresh("server"), env)
        workspace.warm(256 * MIB)
        with serve_together(report, title, contexts) as servers:
            yield {name: contender(name, server) for name, server in servers.items()}


def _uploaded(
    generator: Generator,
    server: Server,
    encoding: str,
    number: int,
    begin: str,
) -> Sample:
    before = server.usage().cpu
    order = {"clients": 1, "size": MIB, "requests": number, "encoding": encoding, "begin": begin}
    done = generator.ask("uploads", port=server.port, **order)
    sample = _sample(done, number, server.usage().cpu - before)
    server.drop_content()
    return sample


def download(
    report: Report, workspace: Workspace, scale: Scale, generator: Generator, framework: str
) -> None:
    """Measure downloads of 1 KiB one by one."""
    shape = Download("1 KiB", 1024, 1, scale.pick(200, 200, 3))
    table = Table(
        f"access-download-{framework.partition(',')[0]}".lower(),
        f"{framework}, download of 1 KiB one by one",
        OPEN,
        METRICS,
        goals=[
            Goal("at least 0.9 x one that is not", "rate", SIGNED, OPEN, 0.9, False),
            Goal("at most 1.11 x the CPU of one that is not", "cpu", SIGNED, OPEN, 1 / 0.9, True),
        ],
    )
    root = workspace.fresh("store")
    path = fill(root, [shape])[shape.size]

    def contender(name: str, server: Server) -> Contender:
        target = f"/files/{path}" if name == OPEN else server.get(f"/link/{path}").decode()
        return partial(_downloaded, generator, server, shape, target)

    session = partial(
        _session, report, workspace, table.title, framework, (OPEN, SIGNED), contender, root
    )
    run_sessions(report, table, session, *_extent(scale))


def _downloaded(generator: Generator, server: Server, shape: Download, target: str) -> Sample:
    before = server.usage().cpu
    done = generator.ask(
        "downloads",
        port=server.port,
        clients=shape.clients,
        requests=shape.requests,
        targets=[target],
        ranges=[],
    )
    return _sample(done, shape.requests, server.usage().cpu - before)


def _sample(done: dict[str, object], number: int, cpu: float) -> Sample:
    latencies, seconds = done["latencies"], done["seconds"]
    assert isinstance(latencies, list)
    assert isinstance(seconds, float)
    return {"p50": statistics.median(latencies), "cpu": cpu / number, "rate": number / seconds}
