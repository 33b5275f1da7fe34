"""An object store's client beside boto3: throughput, CPU and memory.

Needs an S3 as the tests do: start one with ``tests/ceph/cluster.py`` and take over the variables
it prints. Puts and gets 200 contents of 1 MiB, 32 at a time, in processes of their own, in turns;
the ratios are medians of the rounds::

    tox run -e bench -- object_store
"""

from __future__ import annotations

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
from typing import Any

from harness import Goal, Metric, Report, Sample, Scale, Table, Workspace, run_rounds

COUNT, SIZE, AT_ONCE = 200, 1024 * 1024, 32
LARGE = 256 * 1024 * 1024
OURS = "Flask-HashFS"
ENDPOINT = os.environ.get("HASHFS_TEST_S3", "")
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


def new_store(prefix: str) -> Any:
    from flask_hashfs._object_store import ObjectStore

    return ObjectStore(f"s3://{BUCKET}/{prefix}", options={"endpoint": ENDPOINT})


def run_hashfs(prefix: str) -> dict[str, Any]:
    store = new_store(prefix)
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


def run_boto3(prefix: str) -> dict[str, Any]:
    import boto3
    from botocore.config import Config

    config = Config(max_pool_connections=AT_ONCE, s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=ENDPOINT, config=config)
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/warm", Body=b"warm")
    data = contents()
    names = [f"{prefix}/{number}" for number in range(COUNT)]

    def put(item: tuple[str, bytes]) -> None:
        client.put_object(Bucket=BUCKET, Key=item[0], Body=item[1])

    def get(name: str) -> None:
        assert len(client.get_object(Bucket=BUCKET, Key=name)["Body"].read()) == SIZE

    result = {"put": measured(lambda: each(put, list(zip(names, data, strict=True))))}
    result["get"] = measured(lambda: each(get, names))
    each(lambda name: client.delete_object(Bucket=BUCKET, Key=name), [*names, f"{prefix}/warm"])
    return result


def peak() -> float:
    """Return the most memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_large_put(prefix: str) -> dict[str, Any]:
    """Put 256 MiB as an upload does: in pieces."""
    store = new_store(prefix)
    piece = os.urandom(SIZE)
    store.put(piece)
    before = peak()
    address = store.put(n.to_bytes(8, "big") + piece[8:] for n in range(LARGE // SIZE))
    return {"id": address.id, "growth": peak() - before}


def run_large_get(prefix: str, id: str) -> dict[str, Any]:
    """Get 256 MiB as a download does: in pieces."""
    store = new_store(prefix)
    with store.open(store.put(b"warm")) as file:
        file.read()
    before = peak()
    size = 0
    with store.open(id) as file:
        while read := file.read(SIZE):
            size += len(read)
    growth = peak() - before
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
    if not ENDPOINT:
        report.leave_out("object_store: HASHFS_TEST_S3 names no endpoint, see the module's head")
        return
    folder = f"benchmarks/{secrets.token_hex(4)}"
    names = {OURS: "hashfs", "boto3": "boto3"}
    table = Table(
        "object-store",
        f"{COUNT} objects of 1 MiB, {AT_ONCE} at a time",
        "boto3",
        [
            Metric(f"{call}-{what}", f"{call}, {title}")
            for call in ("put", "get")
            for what, title in (("rate", "throughput"), ("cpu", "CPU"))
        ],
        goals=[
            goal
            for call in ("put", "get")
            for goal in (
                Goal(f"{call} at least as fast", f"{call}-rate", OURS, "boto3", 1.0, False),
                Goal(f"{call} at most half the CPU", f"{call}-cpu", OURS, "boto3", 0.5, True),
            )
        ],
    )

    def measure(name: str) -> Sample:
        done = in_process(name, f"{folder}/{secrets.token_hex(4)}")
        sample = {f"{call}-cpu": done[call]["cpu"] for call in ("put", "get")}
        return sample | {f"{call}-rate": COUNT / done[call]["seconds"] for call in ("put", "get")}

    contenders = {row: partial(measure, name) for row, name in names.items()}
    run_rounds(report, table, contenders, scale.rounds)
    memory = Table(
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
        put = in_process("large-put", f"{folder}/large")
        get = in_process("large-get", f"{folder}/large", put["id"])
        return {"put": put["growth"], "get": get["growth"]}

    run_rounds(report, memory, {OURS: grow}, 1, prime=False)


RUNS: dict[str, Callable[..., dict[str, Any]]] = {
    "hashfs": run_hashfs,
    "boto3": run_boto3,
    "large-put": run_large_put,
    "large-get": run_large_get,
}

if __name__ == "__main__":
    print(json.dumps(RUNS[sys.argv[1]](*sys.argv[2:])))
