"""What types by content cost an upload of a picture, and what a signature costs a download."""

from __future__ import annotations

import contextlib
import io
import statistics
from functools import partial

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
    run_rounds,
)
from PIL import Image
from servers import Generator, Server, serve, serve_together, wait_idle
from uploads import ASGI, WSGI

FRAMEWORKS = {"Flask, gunicorn": ("gunicorn", WSGI), "Quart, uvicorn": ("uvicorn", ASGI)}
METRICS = [
    Metric("p50", "p50"),
    Metric("cpu", "CPU per request"),
    Metric("rate", "throughput"),
]
OFF, ON = "HASHFS_ACCEPT off", "HASHFS_ACCEPT on"
OPEN, SIGNED = "not signed", "signed"
# glibc gives a request's memory back to the system, and fetches it anew, until an app has freed
# something large, as the detector's rules are. So that only the look at the bytes is measured, both
# servers keep what they have.
KEEPS_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(32 * MIB), "MALLOC_MMAP_THRESHOLD_": str(16 * MIB)}


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure uploads with and without a list of types, and downloads with and without a token."""
    with Generator() as generator:
        for framework in FRAMEWORKS:
            for encoding in ("multipart", "raw"):
                upload(report, workspace, scale, generator, framework, encoding)
            download(report, workspace, scale, generator, framework)


def picture() -> str:
    """Return the first KiB of a PNG, in hex."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    return file.getvalue()[:1024].hex()


def upload(
    report: Report,
    workspace: Workspace,
    scale: Scale,
    generator: Generator,
    framework: str,
    encoding: str,
) -> None:
    number = scale.pick(100, 40, 2)
    table = Table(
        f"access-upload-{framework.partition(',')[0]}-{encoding}".lower(),
        f"{framework}, {encoding} upload of a picture of 1 MiB, {number} one by one",
        OFF,
        METRICS,
        goals=[Goal("at most 1.03 x the time without", "p50", ON, OFF, 1.03, True)],
    )
    contexts = {OFF: _server(workspace, framework, "ours")}
    contexts[ON] = _server(workspace, framework, "accept")
    begin = picture()
    with workspace.cleaned(), contextlib.ExitStack() as stack:
        servers = stack.enter_context(serve_together(report, table.title, contexts))
        contenders: dict[str, Contender] = {
            name: partial(_uploaded, workspace, generator, server, encoding, number, begin)
            for name, server in servers.items()
        }
        idle = partial(wait_idle, *servers.values())
        run_rounds(report, table, contenders, 3 * scale.rounds, idle=idle)


def _server(
    workspace: Workspace, framework: str, variant: str, root: object = None
) -> contextlib.AbstractContextManager[Server]:
    kind, app = FRAMEWORKS[framework]
    store = str(root or workspace.fresh("store"))
    env = {"BENCH_ROOT": store, "BENCH_APP": variant, **KEEPS_MEMORY}
    return serve(kind, app, workspace.fresh("server"), env)


def _uploaded(
    workspace: Workspace,
    generator: Generator,
    server: Server,
    encoding: str,
    number: int,
    begin: str,
) -> Sample:
    workspace.warm(2 * number * MIB)
    before = server.usage().cpu
    order = {"clients": 1, "size": MIB, "requests": number, "encoding": encoding, "begin": begin}
    done = generator.ask("uploads", port=server.port, **order)
    sample = _sample(done, number, server.usage().cpu - before)
    server.drop_content()
    return sample


def download(
    report: Report, workspace: Workspace, scale: Scale, generator: Generator, framework: str
) -> None:
    shape = Download("1 KiB", 1024, 1, scale.pick(1000, 400, 3))
    table = Table(
        f"access-download-{framework.partition(',')[0]}".lower(),
        f"{framework}, download of 1 KiB, {shape.requests} one by one",
        OPEN,
        METRICS,
        goals=[Goal("at least 0.9 x one that is not", "rate", SIGNED, OPEN, 0.9, False)],
    )
    with workspace.cleaned(), contextlib.ExitStack() as stack:
        root = workspace.fresh("store")
        path = fill(root, [shape])[shape.size]
        contexts = {OPEN: _server(workspace, framework, OPEN, root)}
        contexts[SIGNED] = _server(workspace, framework, "signed", root)
        servers = stack.enter_context(serve_together(report, table.title, contexts))
        targets = {OPEN: f"/files/{path}", SIGNED: servers[SIGNED].get(f"/link/{path}").decode()}
        contenders: dict[str, Contender] = {
            name: partial(_downloaded, generator, server, shape, targets[name])
            for name, server in servers.items()
        }
        idle = partial(wait_idle, *servers.values())
        run_rounds(report, table, contenders, 3 * scale.rounds, idle=idle)


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
