"""Object stores that answer wrongly: no reader gets wrong bytes, and no call waits for ever."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from flask import Flask
from object_stores import objects_of
from odd_s3 import CREDENTIALS, OddS3, odd_endpoint, odd_store, page

from flask_hashfs import FlaskHashFS, StoreFullError, StoreUnavailableError
from flask_hashfs._bucket import backend, client
from flask_hashfs._storage.layout import Layout

DATA = bytes(range(256)) * 4000
HELLO = hashlib.sha256(b"hello").hexdigest()
KEY = Layout(4, 1, "sha256").path_of(HELLO)


class SendsMore(OddS3):
    """Sends 500 bytes more than it was asked for, after those."""

    content = DATA

    def send_range(self, first: int, last: int) -> None:
        content_range = f"bytes {first}-{last}/{len(DATA)}"
        self._send(206, DATA[first : last + 1] + b"X" * 500, content_range=content_range)


class SendsAll(OddS3):
    """Knows no ranges."""

    content = DATA

    def send_range(self, first: int, last: int) -> None:
        self._send(200, DATA)


class SendsAnother(OddS3):
    """Sends as many bytes as were asked for, but others."""

    content = DATA

    def send_range(self, first: int, last: int) -> None:
        content_range = f"bytes 0-{last - first}/{len(DATA)}"
        self._send(206, DATA[: last - first + 1], content_range=content_range)


def test_bytes_that_were_not_asked_for_are_not_read() -> None:
    with odd_store(SendsMore) as store:
        content = store.backend.open_content("a/b")
        assert content is not None
        assert content.file is not None
        ranges = [(0, 100), (100, 200), (5000, 6000)]
        content.file.expect(ranges)  # type: ignore[attr-defined]
        for start, stop in ranges:
            content.file.seek(start)
            assert content.file.read(stop - start + 50)[: stop - start] == DATA[start:stop]
        with store.open("a/b") as file:
            for start in (1000, 1_000_000, 5, len(DATA) - 7):
                file.seek(start)
                assert file.read(100_000) == DATA[start : start + 100_000]
            file.seek(3)
            assert file.read() == DATA[3:]


def test_they_spoil_no_part_of_an_answer() -> None:
    with odd_endpoint(SendsMore) as endpoint:
        app = Flask(__name__)
        options = {**CREDENTIALS, "endpoint": endpoint}
        app.config.update(HASHFS_ROOT_FOLDER="s3://bucket", HASHFS_STORE_OPTIONS=options)
        fs = FlaskHashFS(app)
        app.get("/")(lambda: fs.send_file(KEY))
        ranges = [(0, 99), (5000, 5999), (900_000, 900_099)]
        header = "bytes=" + ",".join(f"{first}-{last}" for first, last in ranges)
        answer = app.test_client().get("/", headers={"Range": header})
        assert answer.status_code == 206
        assert int(answer.headers["Content-Length"]) == len(answer.data)
        for first, last in ranges:
            assert b"\r\n\r\n" + DATA[first : last + 1] + b"\r\n--" in answer.data


@pytest.mark.parametrize("handler", [SendsAll, SendsAnother])
def test_another_range_than_asked_for_is_an_error(handler: type[OddS3]) -> None:
    with odd_store(handler) as store, store.open("a/b") as file:
        file.seek(1000)
        with pytest.raises(StoreUnavailableError):
            file.read(100)


NEVER_ENDS: dict[str, Callable[[int], list[str]]] = {
    "empty pages": lambda n: [],
    "the same page": lambda n: [KEY, KEY + ".txt", KEY + ".zip"],
    "the same name": lambda n: [KEY],
    "one name more": lambda n: [f"{KEY}.{n:09}"],
    "one folder more": lambda n: [f"{KEY}.{n:09}/readme"],
}


@pytest.mark.parametrize("keys", NEVER_ENDS.values(), ids=NEVER_ENDS)
def test_a_listing_that_never_ends_holds_no_put(
    keys: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_READ_WITHIN", 0.5)
    monkeypatch.setattr(backend, "_KEYS_WITHIN", 1.0)
    asked = threading.Event()
    number = itertools.count()

    class Endless(OddS3):
        def listing(self, query: dict[str, list[str]]) -> bytes:
            asked.set()
            return page(keys(next(number)), "again")

    with odd_store(Endless) as store:
        for call in (lambda: store.put(b"hello"), lambda: store.delete(HELLO)):
            with pytest.raises(StoreUnavailableError, match="listing"):
                call()
        for _ in range(20):  # a last request may be under way
            asked.clear()
            if not asked.wait(0.5):
                return
        pytest.fail("what was given up goes on asking")


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], [f"k{n:04}" for n in range(150)]])
def test_a_listing_that_goes_in_a_circle_ends_in_an_error(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_KEYS_IN_STEP", 50)
    first = iter([page(["0", "1"], "circle")])

    class Circle(OddS3):
        def listing(self, query: dict[str, list[str]]) -> bytes:
            return next(first, page(names, "circle"))

    with odd_store(Circle) as store, pytest.raises(StoreUnavailableError, match="comes back"):
        list(store.files())


ENDS_AFTER_A_LISTING = """
import asyncio, json, sys, time
from flask_hashfs._store.object_store import ObjectStore

real = asyncio.SelectorEventLoop.call_soon_threadsafe

def slow(self, *args, **options):
    handle = real(self, *args, **options)
    time.sleep(0.3)
    return handle

asyncio.SelectorEventLoop.call_soon_threadsafe = slow

class EndsSlowly:
    def __del__(self, sleep=time.sleep):
        sleep(1)

late = EndsSlowly()
print(*ObjectStore("s3://bucket", options=json.loads(sys.argv[1])).files())
"""


def test_a_process_may_end_right_after_a_listing() -> None:
    with odd_store(OddS3) as store:
        options = json.dumps({**CREDENTIALS, "endpoint": objects_of(store).options["endpoint"]})
        words = [sys.executable, "-c", ENDS_AFTER_A_LISTING, options]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "\n", "")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, b"<Error><Code>QuotaExceeded</Code></Error>"),
        (507, b"<Error><Code>XMinioStorageFull</Code></Error>"),
        (507, b""),
    ],
)
def test_a_store_that_says_it_is_full_is_full(status: int, body: bytes) -> None:
    class Full(OddS3):
        written = status, body

    with odd_store(Full) as store:
        for data in (b"hello", bytes(client.ONE_REQUEST_SIZE + 1)):
            with pytest.raises(StoreFullError) as caught:
                store.put(data)
            assert caught.value.errno == errno.EDQUOT
            assert caught.value.code == 507
