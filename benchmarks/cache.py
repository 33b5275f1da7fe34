"""A cache before an object store: hits beside a local disk, misses and puts beside no cache.

Needs an S3 as the section object_store does. How many kept files there are is measured on a store
in memory: 1,000,000 of them with ``--million``, else 50,000::

    tox run -e bench -- cache
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from harness import (
    MIB,
    Goal,
    Metric,
    Report,
    Sample,
    Scale,
    Table,
    Workspace,
    run_rounds,
    run_sessions,
    stopwatch,
)
from object_store import BUCKET, ENDPOINTS
from servers import Generator, Server, serve
from uploads import ASGI

from flask_hashfs import HashFS
from flask_hashfs._cache.backend import CachedBackend
from flask_hashfs._store.object_store import ObjectStore

LOCAL, HIT, DIRECT = "a folder on the local disk", "a cache, hit", "no cache"
MISS, CACHED = "a cache, miss", "a cache"
LIMIT = 100 * 1024**3
CROWD = 64


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure hits, misses, puts, a crowd, and how many files are kept."""
    if ENDPOINTS["plain HTTP"]:
        with workspace.cleaned():
            serving(report, workspace, scale)
            puts(report, workspace, scale)
    else:
        report.leave_out("a cache before an object store: no endpoint is named")
    numbers(report, workspace, scale)


# -- served ------------------------------------------------------------------------------------


def serving(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure what one server sends."""
    url = f"s3://{BUCKET}/benchmarks/{secrets.token_hex(4)}"
    local, cache = workspace.fresh("store"), workspace.fresh("cache")
    with counting(ENDPOINTS["plain HTTP"]) as (endpoint, gets), Generator() as generator:
        options = {"endpoint": endpoint}
        store = ObjectStore(url, options=options)
        sizes = {"1 KiB": 1024, "10 MiB": 10 * MIB}
        paths = {}
        for size in sizes.values():
            data = os.urandom(size)
            paths[size] = store.put(data, ".bin").relpath
            HashFS(local, fsync=False).put(data, ".bin")

        def server(root: str, folder: str = "") -> AbstractContextManager[Server]:
            env = {"BENCH_ROOT": root, "BENCH_APP": "ours", "QUART_HASHFS_CACHE_FOLDER": folder}
            if root == url:
                env["QUART_HASHFS_STORE_OPTIONS"] = json.dumps(options)
            return serve("uvicorn", ASGI, workspace.fresh("server"), env)

        servers = {
            LOCAL: partial(server, str(local)),
            HIT: partial(server, url, str(cache)),
            DIRECT: partial(server, url),
        }
        ask = partial(fetch, generator)
        for title, size in sizes.items():
            hits(report, scale, ask, servers, title, paths[size])
        with servers[DIRECT]() as direct, servers[HIT]() as here:
            misses(report, scale, ask, {DIRECT: direct, MISS: here}, paths[10 * MIB], cache)
            crowd(report, scale, ask, here, paths[10 * MIB], cache, gets)
        for path in list(store.files()):
            store.delete(path)


def hits(
    report: Report,
    scale: Scale,
    ask: Callable[..., Sample],
    servers: dict[str, Callable[[], AbstractContextManager[Server]]],
    title: str,
    path: str,
) -> None:
    table = Table(
        f"cache-hit-{title}".replace(" ", "-"),
        f"{title} from a cache, 8 clients, Quart on uvicorn",
        LOCAL,
        [Metric("rate", "throughput"), Metric("cpu", "CPU")],
        goals=[Goal("as from a local disk", "rate", HIT, LOCAL, 0.95, False)],
    )
    much = scale.pick(60, 50, 2) if title == "1 KiB" else scale.pick(6, 4, 1)
    less = {DIRECT: max(1, much // 6)}  # it takes so much longer

    @contextmanager
    def session() -> Iterator[dict[str, Callable[[], Sample]]]:
        with ExitStack() as stack:
            running = {row: stack.enter_context(start()) for row, start in servers.items()}
            yield {
                row: partial(ask, each, path, 8, less.get(row, much))
                for row, each in running.items()
            }

    run_sessions(report, table, session, scale.pick(3, 1, 1), scale.rounds)


def fetch(generator: Generator, server: Server, path: str, clients: int, requests: int) -> Sample:
    before = server.usage()
    done = generator.ask(
        "downloads",
        port=server.port,
        clients=clients,
        requests=requests,
        targets=[f"/files/{path}"],
        ranges=[],
    )
    count = clients * requests
    cpu = (server.usage().cpu - before.cpu) / count
    return {"rate": count / done["seconds"], "time": done["seconds"] / count, "cpu": cpu}


def misses(
    report: Report,
    scale: Scale,
    ask: Callable[..., Sample],
    servers: dict[str, Server],
    path: str,
    cache: Path,
) -> None:
    table = Table(
        "cache-miss",
        "10 MiB that are not kept, one client, to the last byte",
        DIRECT,
        [Metric("time", "time"), Metric("cpu", "CPU")],
        goals=[Goal("a miss as without a cache", "time", MISS, DIRECT, 1.1, True)],
    )

    def one(server: Server) -> Sample:
        samples = []
        for _ in range(scale.pick(4, 5, 1)):
            shutil.rmtree(cache, ignore_errors=True)
            samples.append(ask(server, path, 1, 1))
        return {key: sum(each[key] for each in samples) for key in ("time", "cpu")}

    contenders = {row: partial(one, server) for row, server in servers.items()}
    run_rounds(report, table, contenders, scale.pick(3, 1, 1) * scale.rounds)  # short ones


def crowd(
    report: Report,
    scale: Scale,
    ask: Callable[..., Sample],
    server: Server,
    path: str,
    cache: Path,
    gets: list[int],
) -> None:
    table = Table(
        "cache-crowd",
        f"10 MiB that are not kept, {CROWD} clients at once",
        "",
        [Metric("gets", "GETs at the gateway", "requests", worst=True)],
        goals=[Goal("one GET for all", "gets", CACHED, "", 1, True)],
    )

    def one() -> Sample:
        shutil.rmtree(cache, ignore_errors=True)
        before = len(gets)
        ask(server, path, CROWD, 1)
        return {"gets": len(gets) - before}

    run_rounds(report, table, {CACHED: one}, scale.rounds)


@contextmanager
def counting(endpoint: str) -> Iterator[tuple[str, list[int]]]:
    """Pass connections on to an endpoint; list the GETs that come by them."""
    gateway = (urlsplit(endpoint).hostname, urlsplit(endpoint).port)
    gets: list[int] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def pump(source: socket.socket, target: socket.socket, counts: bool) -> None:
        with source, target:
            try:
                while data := source.recv(256 * 1024):
                    if counts and data.startswith(b"GET /"):
                        gets.append(1)
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(gateway)
            for pair in ((client, server.dup(), True), (server, client.dup(), False)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", gets
    finally:
        listener.close()


# -- put ---------------------------------------------------------------------------------------


def puts(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure puts of new content, one after the other."""
    url = f"s3://{BUCKET}/benchmarks/{secrets.token_hex(4)}"
    options = {"endpoint": ENDPOINTS["plain HTTP"]}
    stores = {DIRECT: ObjectStore(url, options=options), CACHED: ObjectStore(url, options=options)}
    folder = str(workspace.fresh("cache"))
    stores[CACHED].backend = CachedBackend(stores[CACHED].backend, folder, LIMIT, LIMIT, 300)
    for title, size, count in (("1 MiB", MIB, 4), ("32 MiB", 32 * MIB, 1)):
        table = Table(
            f"cache-put-{title}".replace(" ", "-"),
            f"put of new content of {title} into an object store",
            DIRECT,
            [Metric("time", "time")],
            goals=[Goal("a put as without a cache", "time", CACHED, DIRECT, 1.05, True)],
        )

        def one(store: ObjectStore, size: int = size, count: int = count) -> Sample:
            data = [os.urandom(size) for _ in range(scale.pick(count, count, 1))]
            sample: Sample = {}
            with stopwatch(sample):
                for each in data:
                    store.put(each)
            return sample

        contenders = {row: partial(one, store) for row, store in stores.items()}
        # Short ones: beside the disks of the gateway, whose pace changes all the time.
        run_rounds(report, table, contenders, scale.pick(2, 1, 1) * scale.rounds)
    for path in list(stores[DIRECT].files()):
        stores[DIRECT].delete(path)


# -- how many are kept -------------------------------------------------------------------------


def numbers(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure a hit and a put beside few and beside many kept files."""
    many = 1_000_000 if scale.million else scale.pick(50_000, 20_000, 2_000)
    few = 1_000
    stores = {f"{count:,} kept files": keeping(workspace, count) for count in (few, many)}
    first, last = stores
    table = Table(
        "cache-numbers",
        "a hit of 1 KiB, and a put, beside so many kept files",
        first,
        [Metric("hit", "hit"), Metric("put", "put"), Metric("hit_cpu", "CPU of a hit")],
        goals=[
            Goal("a hit costs the same", "hit", last, first, 1.1, True),
            Goal("a put costs the same", "put", last, first, 1.1, True),
            Goal("a hit takes the same CPU", "hit_cpu", last, first, 1.1, True),
        ],
    )

    def one(store: ObjectStore) -> Sample:
        address = store.put(os.urandom(1024))
        data = [os.urandom(1024) for _ in range(500)]
        sample: Sample = {}
        with stopwatch(sample, "put"):
            for each in data:
                store.put(each)
        before = time.process_time()
        with stopwatch(sample, "hit"):
            for _ in range(2000):
                content = store.backend.open_content(address.relpath)
                assert content is not None
                content.close()
        sample["hit_cpu"] = time.process_time() - before
        return sample

    contenders = {row: partial(one, store) for row, store in stores.items()}
    run_rounds(report, table, contenders, 5 * scale.rounds)  # short ones


def keeping(workspace: Workspace, count: int) -> ObjectStore:
    """Return a store whose cache keeps so many files already."""
    store = ObjectStore("memory://")
    folder = workspace.fresh("cache")
    store.backend = backend = CachedBackend(store.backend, str(folder), LIMIT, LIMIT, 300)
    for _ in range(count):
        path = folder / "files" / store.backend.layout.path_of(secrets.token_hex(32))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    backend.cache_stats()  # walks them once
    return store
