"""A real cluster whose daemons are killed under four writers.

Only where ``HASHFS_TEST_CEPH`` names the folder of a cluster that ``tests/support/ceph/cluster.py``
started, and alone: other tests would notice.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ceph.cluster import Cluster
from object_stores import empty, new_url, options

from flask_hashfs import StoreUnavailableError
from flask_hashfs._store.object_store import ObjectStore

FOLDER = os.environ.get("HASHFS_TEST_CEPH")

pytestmark = pytest.mark.skipif(not FOLDER, reason="HASHFS_TEST_CEPH names no cluster's folder")

WRITERS = 4


class Writers:
    """Threads that put contents of their own until they are stopped."""

    def __init__(self, store: ObjectStore) -> None:
        self.put: list[str] = []
        self.failed: list[StoreUnavailableError] = []
        self._store = store
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(WRITERS)
        self._jobs = [self._pool.submit(self._run) for _ in range(WRITERS)]

    def stop(self) -> None:
        """Stop them, and raise whatever is no StoreUnavailableError."""
        self._stopped.set()
        for job in self._jobs:
            job.result()
        self._pool.shutdown()

    def wait_for(self, more: int) -> None:
        """Wait until so many more contents are stored."""
        wanted, deadline = len(self.put) + more, time.monotonic() + 120
        while len(self.put) < wanted:
            assert time.monotonic() < deadline, "no put comes through any more"
            time.sleep(0.05)

    def check(self) -> None:
        """Read everything that was put, and whatever else is there."""
        for id in self.put:
            with self._store.open(id) as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == id
        assert list(self._store.verify()) == []

    def _run(self) -> None:
        while not self._stopped.is_set():
            data = os.urandom(200_000)
            try:
                self.put.append(self._store.put(data).id)
            except StoreUnavailableError as error:
                self.failed.append(error)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(Path(FOLDER or ""))
    yield cluster
    cluster.start()


@pytest.fixture
def store(cluster: Cluster) -> Iterator[ObjectStore]:
    store = ObjectStore(new_url(), options=options())
    yield store
    cluster.start()
    empty(store)


@pytest.fixture
def writers(store: ObjectStore) -> Iterator[Writers]:
    writers = Writers(store)
    yield writers
    writers.stop()


def test_no_put_fails_when_an_osd_is_killed(cluster: Cluster, writers: Writers) -> None:
    writers.wait_for(20)
    cluster.kill("osd.1")
    writers.wait_for(100)
    cluster.start_daemon("osd.1")
    writers.wait_for(20)
    writers.stop()
    assert writers.failed == []
    writers.check()


def test_puts_raise_while_the_gateway_is_down(cluster: Cluster, writers: Writers) -> None:
    writers.wait_for(20)
    cluster.kill("client.rgw")
    time.sleep(5)
    cluster.start_daemon("client.rgw")
    writers.wait_for(20)
    writers.stop()
    assert writers.failed
    writers.check()


def test_every_put_survives_that_all_daemons_are_killed(cluster: Cluster, writers: Writers) -> None:
    writers.wait_for(50)
    for name in cluster.daemons:
        cluster.kill(name)
    cluster.start()
    writers.wait_for(20)
    writers.stop()
    writers.check()
