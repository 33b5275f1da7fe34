"""An object store's client beside boto3: throughput, CPU and memory.

Needs an S3 as the tests do: start one with ``tests/ceph/cluster.py`` and take over the variables
it prints. Puts and gets 200 contents of 1 MiB, 32 at a time, in processes of their own, in turns;
the ratios are medians of the rounds. boto3 runs twice: with the steps that a content-addressed put
takes, written as an app without this package would, and sending bytes to a given key alone::

    tox run -e bench -- object_store
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from harness import Goal, Metric, Report, Sample, Scale, Table, Workspace, run_rounds
from servers import peak_memory

COUNT, SIZE, AT_ONCE = 200, 1024 * 1024, 32
LARGE = 256 * 1024 * 1024
OURS, SAME, SENT = "Flask-HashFS", "boto3, doing the same", "boto3, only sending"
ENDPOINTS = {  # of the same S3
    "plain HTTP": os.environ.get("HASHFS_TEST_S3", ""),
    "TLS": os.environ.get("HASHFS_TEST_S3_TLS", ""),
}
CERTIFICATE = os.environ.get("HASHFS_TEST_S3_CERTIFICATE")
BUCKET = os.environ.get("HASHFS_TEST_S3_BUCKET", "hashfs")


def contents() -> list[bytes]:
    return [os.urandom(SIZE) for _ in range(COUNT)]


def measured(calls: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds and the seconds of CPU that `calls` take in this process."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    calls()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - started, "cpu": cpu}


def each(call: Callable[[Any], Any], items: list[Any]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(call, items):
            pass


def new_store(way: str, prefix: str) -> Any:
    from flask_hashfs._store.object_store import ObjectStore

    options: dict[str, Any] = {"endpoint": ENDPOINTS[way]}
    if way == "TLS" and CERTIFICATE:
        options["client_options"] = {"root_certificate": Path(CERTIFICATE).read_bytes()}
    return ObjectStore(f"s3://{BUCKET}/{prefix}", options=options)


def new_client(way: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(max_pool_connections=AT_ONCE, s3={"addressing_style": "path"})
    if way == "TLS":  # this gateway does not take the checksums that boto3 would add there
        config = config.merge(Config(request_checksum_calculation="when_required"))
    return boto3.client("s3", endpoint_url=ENDPOINTS[way], config=config, verify=CERTIFICATE)


def run_hashfs(way: str, prefix: str) -> dict[str, Any]:
    store = new_store(way, prefix)
    store.put(b"warm")
    data = contents()
    ids: list[str] = []
    result = {"put": measured(lambda: each(lambda each: ids.append(store.put(each).id), data))}

    def get(id: str) -> None:
        with store.open(id) as file:
            assert len(file.read()) == SIZE

    result["get"] = measured(lambda: each(get, ids))
    each(store.delete, [*ids, *store.files()])
    return result


def run_boto3(way: str, prefix: str, *, only_sent: bool = False) -> dict[str, Any]:
    client = new_client(way)
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/warm", Body=b"warm")
    data = contents()
    keys: list[str] = []

    def send(content: bytes) -> None:
        key = f"{prefix}/{secrets.token_hex(32)}"
        client.put_object(Bucket=BUCKET, Key=key, Body=content)
        keys.append(key)

    def put(content: bytes) -> None:
        id = hashlib.sha256(content).hexdigest()
        key = f"{prefix}/{'/'.join(id[:4])}/{id[4:]}"
        names = client.list_objects_v2(Bucket=BUCKET, Prefix=key)  # with any extension
        if not names.get("Contents"):
            client.put_object(Bucket=BUCKET, Key=key, Body=content, IfNoneMatch="*")
        keys.append(key)

    def get(key: str) -> None:
        assert len(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()) == SIZE

    result = {"put": measured(lambda: each(send if only_sent else put, data))}
    result["get"] = measured(lambda: each(get, keys))
    each(lambda key: client.delete_object(Bucket=BUCKET, Key=key), [*keys, f"{prefix}/warm"])
    return result


def run_large_put(way: str, prefix: str) -> dict[str, Any]:
    """Put 256 MiB as an upload does: in pieces."""
    store = new_store(way, prefix)
    piece = os.urandom(SIZE)
    store.put(piece)
    before = peak_memory(os.getpid())
    address = store.put(n.to_bytes(8, "big") + piece[8:] for n in range(LARGE // SIZE))
    return {"id": address.id, "growth": peak_memory(os.getpid()) - before}


def run_large_get(way: str, prefix: str, id: str) -> dict[str, Any]:
    """Get 256 MiB as a download does: in pieces."""
    store = new_store(way, prefix)
    with store.open(store.put(b"warm")) as file:
        file.read()
    before = peak_memory(os.getpid())
    size = 0
    with store.open(id) as file:
        while read := file.read(SIZE):
            size += len(read)
    growth = peak_memory(os.getpid()) - before
    assert size == LARGE
    for path in list(store.files()):
        store.delete(path)
    return {"growth": growth}


def in_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure puts and gets, and what large ones do to the memory."""
    folder = f"benchmarks/{secrets.token_hex(4)}"
    for way, endpoint in ENDPOINTS.items():
        if endpoint:
            measure(report, workspace, scale, way, folder)
        else:
            report.leave_out(f"object_store over {way}: no endpoint is named (see its module)")
    if ENDPOINTS["plain HTTP"]:
        memory(report, "plain HTTP", folder)


def measure(report: Report, workspace: Workspace, scale: Scale, way: str, folder: str) -> None:
    """Measure one table: many puts and gets."""
    names = {OURS: "hashfs", SAME: "boto3", SENT: "boto3-sending"}
    table = Table(
        f"object-store-{way.split()[-1].lower()}",
        f"{COUNT} objects of 1 MiB, {AT_ONCE} at a time, over {way}",
        SAME,
        [
            Metric(f"{call}-{what}", f"{call}, {title}")
            for call in ("put", "get")
            for what, title in (("rate", "throughput"), ("cpu", "CPU"))
        ],
        goals=[
            goal
            for call in ("put", "get")
            for goal in (
                Goal(f"{call} at least as fast", f"{call}-rate", OURS, SAME, 1.0, False),
                Goal(f"{call} at most half the CPU", f"{call}-cpu", OURS, SAME, 0.5, True),
            )
        ],
    )

    def one(name: str) -> Sample:
        workspace.warm(4 * COUNT * SIZE)
        done = in_process(name, way, f"{folder}/{secrets.token_hex(4)}")
        sample = {f"{call}-cpu": done[call]["cpu"] for call in ("put", "get")}
        return sample | {f"{call}-rate": COUNT / done[call]["seconds"] for call in ("put", "get")}

    contenders = {row: partial(one, name) for row, name in names.items()}
    run_rounds(report, table, contenders, scale.rounds)


def memory(report: Report, way: str, folder: str) -> None:
    """Measure how far one large content lets the process grow."""
    table = Table(
        "object-store-memory",
        f"memory growth of one object of {LARGE // SIZE} MiB",
        "",
        [Metric("put", "put", "MiB", worst=True), Metric("get", "get", "MiB", worst=True)],
        goals=[
            Goal("put at most 96 MiB", "put", OURS, "", 96, True),
            Goal("get at most 24 MiB", "get", OURS, "", 24, True),
        ],
    )

    def grow() -> Sample:
        put = in_process("large-put", way, f"{folder}/large")
        get = in_process("large-get", way, f"{folder}/large", put["id"])
        return {"put": put["growth"], "get": get["growth"]}

    run_rounds(report, table, {OURS: grow}, 1, prime=False)


RUNS: dict[str, Callable[..., dict[str, Any]]] = {
    "hashfs": run_hashfs,
    "boto3": run_boto3,
    "boto3-sending": partial(run_boto3, only_sent=True),
    "large-put": run_large_put,
    "large-get": run_large_get,
}

if __name__ == "__main__":
    print(json.dumps(RUNS[sys.argv[1]](*sys.argv[2:])))
