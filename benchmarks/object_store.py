"""An object store's client beside boto3: throughput, CPU and memory.

Needs an S3 as the tests do: start one with ``tests/ceph/cluster.py`` and take over the variables
it prints. Puts and gets 200 contents of 1 MiB, 32 at a time, in processes of their own, in turns;
the ratios are medians of the rounds::

    tox run -e bench -- benchmarks/object_store.py
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

COUNT, SIZE, AT_ONCE = 200, 1024 * 1024, 32
LARGE = 256 * 1024 * 1024
ROUNDS = 5
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


def main() -> None:
    """Measure, print, and end with 1 where a bound is not held."""
    if not ENDPOINT:
        sys.exit("HASHFS_TEST_S3 names no endpoint: see the head of this file")
    folder = f"benchmarks/{secrets.token_hex(4)}"
    rounds: dict[str, list[dict[str, Any]]] = {"hashfs": [], "boto3": []}
    for number in range(ROUNDS):
        for name in ("hashfs", "boto3") if number % 2 else ("boto3", "hashfs"):
            rounds[name].append(in_process(name, f"{folder}/{name}{number}"))
    held = True
    for call in ("put", "get"):
        pairs = list(zip(rounds["hashfs"], rounds["boto3"], strict=True))
        speed = statistics.median(b[call]["seconds"] / h[call]["seconds"] for h, b in pairs)
        cpu = statistics.median(h[call]["cpu"] / b[call]["cpu"] for h, b in pairs)
        for name, results in rounds.items():
            seconds = statistics.median(each[call]["seconds"] for each in results)
            busy = statistics.median(each[call]["cpu"] for each in results)
            print(f"{call} {name:7} {COUNT / seconds:6.1f} MiB/s, {busy:5.2f} s of CPU")
        print(f"{call}: throughput {speed:.2f} x boto3 (>= 1.0), CPU {cpu:.2f} x (<= 0.5)")
        held = held and speed >= 1.0 and cpu <= 0.5
    put = in_process("large-put", f"{folder}/large")
    get = in_process("large-get", f"{folder}/large", put["id"])
    print(f"memory growth of a 256 MiB put: {put['growth']:.0f} MiB (<= 96)")
    print(f"memory growth of a 256 MiB get: {get['growth']:.0f} MiB (<= 24)")
    held = held and put["growth"] <= 96 and get["growth"] <= 24
    sys.exit(0 if held else 1)


RUNS: dict[str, Callable[..., dict[str, Any]]] = {
    "hashfs": run_hashfs,
    "boto3": run_boto3,
    "large-put": run_large_put,
    "large-get": run_large_get,
}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(RUNS[sys.argv[1]](*sys.argv[2:])))
    else:
        main()
