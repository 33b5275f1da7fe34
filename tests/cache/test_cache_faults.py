"""A cache that many processes use and break at once: never a wrong byte, an error, or no room.

``HASHFS_TEST_CACHE_SECONDS`` says how long the crowd runs: 30 for a long look.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cache_crowd
import object_stores
import pytest
from cache_crowd import CONTENTS, LARGEST, content, id_of, open_store
from cached import KINDS, expire, opened_gate, wait_until
from ceph.cluster import Cluster

pytest.importorskip("obstore", reason="obstore is not installed: no object store has a cache")

SECONDS = float(os.environ.get("HASHFS_TEST_CACHE_SECONDS", "4"))
PROCESSES = 8
LIMIT = 2_000_000
CEPH = os.environ.get("HASHFS_TEST_CEPH")


@contextmanager
def shared(kind: str, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Return what a process needs to open a store that others have open, too."""
    given = {"folder": str(tmp_path / "cache"), "limit": LIMIT, "trust": 1, "seconds": SECONDS}
    given |= {"deletes": 0.1, "seed": 0}
    if kind == "folder":
        yield {**given, "root": str(tmp_path / "root"), "options": {}}
    elif kind == "s3":
        yield {**given, "root": object_stores.new_url(), "options": object_stores.options()}
    else:
        with opened_gate(kind) as (gate, settings):
            yield {**given, "root": settings["root"], "options": gate.options}


@pytest.fixture(params=["folder", *KINDS])
def given(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    with shared(request.param, tmp_path) as given:
        yield given


def begin(given: dict[str, Any], seed: int) -> subprocess.Popen[str]:
    words = [sys.executable, cache_crowd.__file__, json.dumps({**given, "seed": seed})]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def kept_bytes(folder: str) -> int:
    total = 0
    for path, _, names in os.walk(os.path.join(folder, "files")):
        for name in names:
            try:
                total += os.stat(os.path.join(path, name)).st_size
            except FileNotFoundError:
                continue
    return total


def opened(given: dict[str, Any]) -> Any:
    names = ("root", "options", "folder", "limit", "trust")
    return open_store(*(given[name] for name in names))


def test_no_byte_is_wrong_whatever_many_processes_do(given: dict[str, Any]) -> None:
    processes = [begin(given, seed) for seed in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        ends = [pool.submit(process.communicate) for process in processes]
        most = 0
        while not all(end.done() for end in ends):
            most = max(most, kept_bytes(given["folder"]))
            time.sleep(0.01)
    assert [end.result()[1] for end in ends] == [""] * PROCESSES
    assert [process.returncode for process in processes] == [0] * PROCESSES
    # A walk that takes its time counts what was deleted meanwhile, and what came in its place.
    assert most <= LIMIT + PROCESSES * cache_crowd.THREADS * LARGEST


def test_a_kill_at_any_moment_leaves_nothing_that_is_served_wrong(given: dict[str, Any]) -> None:
    given |= {"deletes": 0, "seconds": 60}
    store = opened(given)
    for number in range(CONTENTS):
        store.put(content(number))
    for seed in range(3):
        process = begin(given, seed)
        time.sleep(1 + random.Random(seed).random())
        process.send_signal(signal.SIGKILL)
        assert process.communicate()[1] == ""
        for number in range(CONTENTS):
            with store.open(id_of(number)) as file:
                assert file.read() == content(number)
    assert kept_bytes(given["folder"]) <= LIMIT


def test_a_fill_that_is_killed_is_gone_on_with_by_who_reads_along(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    with opened_gate("bucket") as (gate, settings):
        folder = str(tmp_path / "cache")
        given = {"root": settings["root"], "options": gate.options, "folder": folder}
        given |= {"limit": 10**9, "trust": 300}
        store = opened(given)
        address = store.put(data)
        os.unlink(f"{folder}/files/{address.relpath}")
        gate.held.clear()
        code = (
            "import json, sys; from cache_crowd import open_store\n"
            f"store = open_store(**json.loads(sys.argv[1])); store.open({address.id!r}).read()"
        )
        words = [sys.executable, "-c", code, json.dumps(given)]
        path = os.path.dirname(cache_crowd.__file__)
        process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path})
        filling = Path(folder, "filling", address.id)
        wait_until(lambda: filling.exists() and filling.stat().st_size > 1_000_000, "half is there")
        with store.open(address) as file:
            assert file.read(1_000_000) == data[:1_000_000]
            process.kill()
            process.wait()
            gate.held.set()
            assert file.read() == data[1_000_000:]
        with store.open(address) as file:
            assert file.read() == data


@pytest.mark.skipif(not CEPH, reason="HASHFS_TEST_CEPH names no cluster's folder")
def test_cache_faults_hits_go_on_while_the_gateway_is_killed(tmp_path: Path) -> None:
    cluster = Cluster(Path(CEPH or ""))
    with shared("s3", tmp_path) as given:
        store = opened({**given, "limit": 10**9})
        addresses = [store.put(content(number)) for number in range(CONTENTS)]
        cluster.kill("client.rgw")
        try:
            for _ in range(3):
                expire(tmp_path)
                for number, address in enumerate(addresses):
                    with store.open(address) as file:
                        assert file.read() == content(number)
        finally:
            cluster.start_daemon("client.rgw")
        wait_until(lambda: store.get(addresses[0]) is not None, "the gateway is back")
        object_stores.empty(store)
