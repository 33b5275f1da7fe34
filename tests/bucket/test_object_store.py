"""What is an object store's own, beside the contract it shares with the local store."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from flask import Flask
from object_stores import (
    KINDS,
    TLS_ENDPOINT,
    backend_of,
    empty,
    keys,
    needs_s3,
    needs_tls,
    new_url,
    object_store,
    objects_of,
    options,
    tls_options,
)

from flask_hashfs import (
    ConfigError,
    FileTooLargeError,
    FlaskHashFS,
    HashAddress,
    HashFS,
    NotStoredError,
    StoreUnavailableError,
)
from flask_hashfs._app.transfer import Outcome, sync
from flask_hashfs._bucket import connect
from flask_hashfs._bucket import prune as module
from flask_hashfs._bucket.client import ONE_REQUEST_SIZE
from flask_hashfs._store.object_store import ObjectStore

HELLO = hashlib.sha256(b"hello").hexdigest()
LARGE = os.urandom(1024) * (ONE_REQUEST_SIZE // 1024 + 3000)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    with object_store(request.param) as store:
        yield store


def aged(monkeypatch: pytest.MonkeyPatch, age: timedelta) -> None:
    """Let the clock of this side be ahead, so that everything stored now is old."""
    now = module.now
    monkeypatch.setattr(module, "now", lambda: now() + age)


# -- putting and finding ---------------------------------------------------------------------------


def test_a_small_and_a_large_content_come_back(store: ObjectStore) -> None:
    for data in (b"", b"hello", LARGE):
        address = store.put(io.BytesIO(data), "bin")
        assert address.id == hashlib.sha256(data).hexdigest()
        assert address.abspath == f"{store.root}/{address.relpath}"
        assert not address.is_duplicate
        assert store.put(data, ".bin") == address._replace(is_duplicate=True)
        with store.open(address) as file:
            assert file.read() == data
    assert store.count() == len(keys(store)) == 3
    assert store.size() == 5 + len(LARGE)


def test_a_duplicate_is_not_sent(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(LARGE)
    store.put(b"hello")
    monkeypatch.setattr(objects_of(store), "put", None)
    monkeypatch.setattr(objects_of(store), "upload", None)
    assert store.put(LARGE).is_duplicate
    assert store.put(b"hello").is_duplicate


def test_a_put_asks_what_the_last_one_could_have_done_with(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("head", "list", "put"):
        call = getattr(objects_of(store), name)
        monkeypatch.setattr(
            objects_of(store),
            name,
            lambda *given, _name=name, _call=call, **more: (
                asked.append(_name) or _call(*given, **more)
            ),
        )
    for data, expected in (
        (b"one", ["list", "put"]),  # new
        (b"two", ["list", "put"]),
        (b"one", ["list"]),  # there already
        (b"two", ["head"]),
        (b"one", ["head"]),
        (b"three", ["head", "list", "put"]),  # new again
        (b"four", ["list", "put"]),
    ):
        asked.clear()
        store.put(data)
        assert asked == expected


def test_an_address_is_found_in_every_form(store: ObjectStore) -> None:
    address = store.put(b"hello", "tar.gz")
    for name in (address, address.id, address.relpath, address.abspath):
        found = store.get(name)
        assert found == address
        assert store.exists(name)
        assert name in store
    assert store.realpath(HELLO) == address.abspath
    assert pickle.loads(pickle.dumps(found)) == address


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", ".", "..", "../x", "a/..", "/etc/passwd", "a\0b", "x" * 2000, "a//"),
        *(".hashfs/x", "s3://other/bucket/key", "\udcff", "a\nb", "*", "%2e%2e/x"),
        *(HELLO.upper(), HELLO[:-1]),
    ],
)
def test_what_is_no_name_is_not_stored(store: ObjectStore, name: str) -> None:
    store.put(b"hello")
    assert not store.exists(name)
    assert store.get(name) is None
    store.delete(name)
    with pytest.raises(NotStoredError):
        store.open(name)
    assert store.count() == 1


def test_a_name_outside_the_root_is_not_stored() -> None:
    outer = ObjectStore("memory://")
    address = outer.put(b"hello")
    assert not outer.exists("/" + address.relpath)
    assert not outer.exists("../" + address.relpath)
    assert outer.exists("x/../" + address.relpath)


def test_other_extensions_are_names_of_their_own(store: ObjectStore) -> None:
    for data in (b"hello", LARGE):
        names = [store.put(data, extension) for extension in ("txt", "asc", "", "png")]
        assert [name.is_duplicate for name in names] == [False, True, True, True]
        assert store.get(names[0].id) == names[2]._replace(is_duplicate=False)
        store.delete(names[2])
        assert store.get(names[0].id) == names[1]._replace(is_duplicate=False)
        store.delete(names[0].id)
    assert keys(store) == []


def test_the_type_goes_with_the_name(store: ObjectStore) -> None:
    for data in (b"hello", LARGE):
        for extension, content_type, shown in (
            (".txt", "text/plain; charset=utf-8", "inline"),
            (".html", "text/html; charset=utf-8", "attachment"),
            (".asc", "application/octet-stream", "attachment"),
            (".log", "text/plain; charset=utf-8", "inline"),
        ):
            address = store.put(data, extension)
            stored = objects_of(store)
            attributes = stored._obstore.get(stored._store, address.relpath).attributes
            assert attributes["Content-Type"] in (content_type, "text/x-log; charset=utf-8")
            assert attributes["Cache-Control"] == "max-age=31536000, immutable"
            assert attributes["Content-Disposition"].startswith(shown)


@pytest.mark.parametrize("data", [b"hello", LARGE], ids=["small", "large"])
def test_a_duplicate_of_another_size_is_healed_under_every_name(
    store: ObjectStore, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = store.put(data, "txt"), store.put(data, "log")
    for address in (first, second):
        objects_of(store).put(address.relpath, b"cut", {}, create=False)
    with caplog.at_level(logging.DEBUG, "flask_hashfs"):
        assert store.put(data, "txt").is_duplicate
    assert len(caplog.records) == 2
    assert store.open(first).read() == store.open(second).read() == data


def test_sixteen_writers_end_with_one_object(store: ObjectStore) -> None:
    for data in (b"hello" * 1000, LARGE):
        barrier = threading.Barrier(16)

        def put(_: int, data: bytes = data, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            return store.put(data)

        with ThreadPoolExecutor(16) as pool:
            addresses = list(pool.map(put, range(16)))
        assert len({address.id for address in addresses}) == 1
        if len(data) <= ONE_REQUEST_SIZE:
            assert sum(not address.is_duplicate for address in addresses) == 1
        assert store.open(addresses[0]).read() == data
    assert len(keys(store)) == 2


def test_what_fails_leaves_nothing(store: ObjectStore) -> None:
    def pieces() -> Iterator[bytes]:
        yield LARGE
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        store.put(pieces())
    with pytest.raises(FileTooLargeError):
        store.put(LARGE, max_size=ONE_REQUEST_SIZE)
    assert keys(store) == []


def test_uploads_wait_outside_the_store(store: ObjectStore) -> None:
    with store.writer() as writer:
        writer.write(bytes(ONE_REQUEST_SIZE))
        assert writer.getvalue() is not None
        writer.write(b"1")
        assert writer.getvalue() is None
        assert writer.spilled is not None
        assert writer.spilled.path is None
        assert keys(store) == []
        assert not store.commit(writer).is_duplicate


# -- what lies in a folder that is called like a content ------------------------------------------


@pytest.fixture
def unpacked(store: ObjectStore) -> str:
    """The key of a stranger's object in a folder named by a content and an extension."""
    key = store.relpath(store.idpath(HELLO, ".unpacked")) + "/readme"
    objects_of(store).put(key, b"a stranger's", {}, create=True)
    return key


def test_what_lies_in_a_folder_is_no_name_of_a_content(store: ObjectStore, unpacked: str) -> None:
    assert store.get(HELLO) is None
    with pytest.raises(NotStoredError):
        store.open(HELLO)
    store.delete(HELLO)
    assert keys(store) == [unpacked]
    found = store.get(unpacked)
    assert found is not None
    assert found.id != HELLO
    assert store.backend.layout.id_of(unpacked) is None
    assert [entry.id for entry in store.entries()] == [None]
    assert (store.stats().contents, store.stats().strangers) == (0, 1)


def test_a_put_beside_such_a_folder_is_new(store: ObjectStore, unpacked: str) -> None:
    (_, address), *_ = store.put_files([(b"hello", "zip")])
    assert not isinstance(address, Exception)
    assert not address.is_duplicate
    assert store.get(HELLO) == address
    assert store.put(b"hello", "unpackee").is_duplicate
    assert len(backend_of(store)._keys(HELLO)) == 2
    store.delete(HELLO)
    assert keys(store) == [unpacked]


def test_verify_prune_and_sync_leave_such_a_folder_alone(
    store: ObjectStore, unpacked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(store.verify(quarantine=True)) == []
    monkeypatch.setattr(module, "YOUNGEST_PRUNED", timedelta(0))
    aged(monkeypatch, timedelta(days=2))
    assert store.prune(allow_empty=True) == []
    target = ObjectStore("memory://")
    assert [step.outcome for step in sync(store, target)] == [Outcome.STRAY]
    assert keys(store) == [unpacked]


def test_the_names_of_a_content_are_found_without_listing_such_a_folder(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        key = store.relpath(store.idpath(HELLO, ".unpacked")) + f"/{number}"
        objects_of(store).put(key, b"", {}, create=True)
    names = {store.put(b"hello", extension).relpath for extension in ("txt", "unpacked0", "zip")}
    seen = 0
    list_objects = objects_of(store).list

    def counted(*given: Any, **more: Any) -> Iterator[Any]:
        nonlocal seen
        for found in list_objects(*given, **more):
            seen += 1
            yield found

    monkeypatch.setattr(objects_of(store), "list", counted)
    assert {found.key for found in backend_of(store)._keys(HELLO)} == names
    assert seen <= 5


def test_repair_gives_what_lies_in_such_a_folder_its_own_extension(store: ObjectStore) -> None:
    folder = store.relpath(store.idpath(HELLO, ".unpacked"))
    objects_of(store).put(f"{folder}/readme.md", b"hello", {}, create=True)
    assert [address.relpath for _, address in store.repair()] == [
        store.relpath(store.idpath(HELLO, ".md"))
    ]


def test_a_key_is_split_at_slashes_whatever_the_system_splits_at(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = store.put(b"hello", "tar.gz")
    monkeypatch.setattr(os, "sep", "\\")
    assert store.get(HELLO) == address
    assert store.unshard(address.abspath) == HELLO


# -- reading ---------------------------------------------------------------------------------------


def test_reading_seeks(store: ObjectStore) -> None:
    address = store.put(LARGE)
    with store.open(address) as file:
        assert isinstance(file, io.BufferedReader)
        for position, size in ((0, 10), (5_000_000, 3), (1, 1), (len(LARGE) - 4, 10), (7, 2**21)):
            assert file.seek(position) == position
            assert file.read(size) == LARGE[position : position + size]
        assert file.seek(-3, os.SEEK_END) == len(LARGE) - 3
        assert file.read() == LARGE[-3:]
        assert file.read() == b""
        file.seek(len(LARGE) + 100)
        assert file.read() == b""
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"1")
    with pytest.raises(ValueError):
        file.read()


def test_ranges_that_are_announced_are_asked_for_exactly(store: ObjectStore) -> None:
    address = store.put(LARGE)
    content = store.backend.open_content(address)
    assert content is not None
    file, size = content.file, content.size
    assert size == len(LARGE)
    with file:  # type: ignore[union-attr]
        ranges = [(0, 5), (100, 4_000_000), (8_000_000, size), (7, 7)]
        file.expect(ranges)  # type: ignore[union-attr]
        store.delete(address)
        for start, stop in ranges:
            file.seek(start)  # type: ignore[union-attr]
            data = b""
            while len(data) < stop - start:
                data += file.read(stop - start - len(data))  # type: ignore[union-attr]
            assert data == LARGE[start:stop]


def test_text_modes_read(store: ObjectStore) -> None:
    address = store.put(b"zwei\nZeilen\n")
    with store.open(address, "r") as file:
        assert list(file) == ["zwei\n", "Zeilen\n"]
    for mode in ("w", "r+", "ab", "x", "rb+", ""):
        with pytest.raises(ValueError, match="never changed"):
            store.open(address, mode)


def test_a_file_deleted_while_open_can_be_read_but_not_sought(store: ObjectStore) -> None:
    address = store.put(LARGE)
    with store.open(address) as file:
        store.delete(address)
        assert file.read(10) == LARGE[:10]
        if not store.root.startswith("memory:"):  # memory gives all at once
            file.seek(9_000_000)
            with pytest.raises(FileNotFoundError):
                file.read()


# -- keeping in order ------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"hello", LARGE], ids=["small", "large"])
def test_a_duplicate_of_some_age_becomes_young(
    store: ObjectStore, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = store.put(data, "txt")
    before = objects_of(store).head(address.relpath)
    assert before is not None
    time.sleep(1.1)  # S3's clock has seconds
    store.put(data, "txt")
    assert objects_of(store).head(address.relpath) == before
    aged(monkeypatch, timedelta(minutes=61))
    assert store.put(data, "txt").is_duplicate
    after = objects_of(store).head(address.relpath)
    assert after is not None
    assert after.modified > before.modified
    assert keys(store) == [address.relpath]
    assert store.open(address).read() == data


def test_quarantine_moves_nothing_where_no_object_at_all_is_whole(store: ObjectStore) -> None:
    for number in range(20):
        address = store.put(b"%d" % number)
        objects_of(store).put(address.relpath, b"x", {}, create=False)
    with pytest.raises(ConfigError, match="HASHFS_ALGORITHM"):
        list(store.verify(quarantine=True))
    assert store.stats().quarantined == 0
    assert len(list(store.verify(quarantine=True, force=True))) == 20
    assert store.stats().quarantined == 20


def test_verify_finds_damage_of_the_same_size(store: ObjectStore) -> None:
    good, bad = store.put(b"good"), store.put(b"hello", "txt")
    objects_of(store).put("stray", b"", {}, create=True)
    objects_of(store).put(bad.relpath, b"hallo", {}, create=False)
    assert list(store.verify()) == [bad]
    assert list(store.verify(quarantine=True)) == [bad]
    assert list(store.verify()) == []
    assert store.stats().quarantined == 1
    assert not store.exists(bad)
    assert sorted(store.files()) == sorted([good.abspath, f"{store.root}/stray"])
    assert not store.put(b"hello", "txt").is_duplicate
    assert store.open(bad).read() == b"hello"


def test_repair_moves_what_lies_wrong(store: ObjectStore) -> None:
    objects_of(store).put("somewhere/x.txt", b"hello", {}, create=True)
    target = store.idpath(HELLO, ".txt")
    (moved,) = store.repair()
    assert moved[0] == f"{store.root}/somewhere/x.txt"
    assert moved[1].abspath == target
    assert list(store.files()) == [target]
    assert store.repair() == []


def test_prune_deletes_what_is_old_and_not_live(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = [store.put(str(n).encode(), "txt") for n in range(4)]
    dead = [store.put(b"dead", "txt"), store.put(b"dead", "log")]
    objects_of(store).put("stray", b"", {}, create=True)
    keep: list[str | HashAddress] = [live[0], live[1].id, live[2].relpath, live[3].abspath]
    assert store.prune(keep) == []
    aged(monkeypatch, timedelta(hours=25))
    assert store.prune(keep, dry_run=True) == [dead[0].id]
    assert store.prune(keep) == []  # the object store's own clock decides
    monkeypatch.setattr(module, "YOUNGEST_PRUNED", timedelta(0))
    time.sleep(2.1)  # S3's clock has seconds
    assert store.prune(keep, older_than=timedelta(seconds=1)) == [dead[0].id]
    assert {found.key for found in objects_of(store).list()} == {
        "stray",
        *(address.relpath for address in live),
    }


@pytest.mark.parametrize(
    ("keep", "older_than", "words"),
    [
        (["nothing"], timedelta(days=1), "must be the address"),
        ([], timedelta(days=1), "nothing is in use"),
        ([HELLO], timedelta(minutes=119), "two hours"),
    ],
)
def test_prune_refuses(keep: list[str], older_than: timedelta, words: str) -> None:
    store = ObjectStore("memory://")
    store.put(b"hello")
    with pytest.raises(ValueError, match=words):
        store.prune(keep, older_than=older_than)
    assert store.count() == 1


def test_no_put_that_races_with_prunes_ends_without_its_file(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = 0.05 if store.root.startswith("memory") else 1.0  # of the object store's own clock
    monkeypatch.setattr(module, "RENEWED_AFTER", timedelta(seconds=unit))
    monkeypatch.setattr(module, "YOUNGEST_PRUNED", timedelta(0))
    until = time.monotonic() + 3 + 5 * unit
    pruned: list[str] = []

    def put(n: int) -> None:
        random = Random(n)
        while time.monotonic() < until:
            data = bytes([random.randrange(8)])
            address = store.put(data)
            assert store.open(address).read() == data
            time.sleep(random.random() * 6 * unit)

    def prune() -> None:
        while time.monotonic() < until:
            pruned.extend(store.prune(allow_empty=True, older_than=timedelta(seconds=4 * unit)))

    with ThreadPoolExecutor(6) as pool:
        puts = [pool.submit(put, n) for n in range(4)]
        for job in [*puts, pool.submit(prune), pool.submit(prune)]:
            job.result()
    assert pruned
    assert [key for key in keys(store) if key.startswith(".hashfs")] == []


def test_what_killed_processes_left_is_swept(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects_of(store).put(".hashfs/renew/abc", b"copy", {}, create=True)
    objects_of(store).put(".hashfs/pruning", HELLO.encode(), {}, create=True)
    assert list(store.verify()) == []
    assert len(keys(store)) == 2
    aged(monkeypatch, timedelta(hours=2))
    assert list(store.verify()) == []
    store.put(b"hello")
    assert keys(store) == [store.get(HELLO).relpath]  # type: ignore[union-attr]


def test_stats_count(store: ObjectStore) -> None:
    store.put(b"hello", "txt")
    store.put(b"hello", "log")
    address = store.put(b"hello, world")
    objects_of(store).put("stray", b"12", {}, create=True)
    stats = store.stats()
    assert (stats.files, stats.contents, stats.bytes, stats.strangers) == (3, 2, 22, 1)
    assert stats.largest is not None
    assert stats.largest.relpath == address.relpath
    assert {entry.relpath for entry in store.entries()} == set(keys(store))


# -- failures --------------------------------------------------------------------------------------

NOBODY = {"endpoint": "http://127.0.0.1:9", "retry_config": {"max_retries": 1}}
NOBODY |= {"access_key_id": "x", "secret_access_key": "y", "region": "us-east-1"}


def test_an_object_store_that_is_down_is_said_to_be() -> None:
    store = ObjectStore("s3://bucket/prefix", options=NOBODY)
    for call in (
        lambda: store.put(b"hello"),
        lambda: store.put(LARGE),
        lambda: store.get(HELLO),
        lambda: store.delete(HELLO),
        lambda: list(store.files()),
        lambda: store.open("a/b"),
        lambda: list(store.verify()),
    ):
        with pytest.raises(StoreUnavailableError, match="503 Service Unavailable"):
            call()


def test_the_route_answers_503_and_the_app_stays_up() -> None:
    app = Flask(__name__)
    app.config.update(
        HASHFS_ROOT_FOLDER="s3://bucket/prefix",
        HASHFS_STORE_OPTIONS=NOBODY,
        HASHFS_SERVE_FILES=True,
        HASHFS_PATH_PREFIX="/files",
    )
    FlaskHashFS(app)
    app.get("/")(lambda: "up")
    for method in ("GET", "HEAD"):
        response = app.test_client().open(f"/files/{HELLO}", method=method)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert b"127.0.0.1" not in response.data
    assert app.test_client().get("/").data == b"up"


def test_a_pickled_error_stays_what_it_is() -> None:
    error = pickle.loads(pickle.dumps(StoreUnavailableError("why")))
    assert isinstance(error, StoreUnavailableError)
    assert error.reason == "why"
    assert "why" in str(error)
    assert "why" not in error.get_description()


FORK = """
import os, sys, warnings
from flask_hashfs._store.object_store import ObjectStore
store = ObjectStore(sys.argv[1], options=eval(sys.argv[2]))
used = sys.argv[3] == "used"
if used:
    store.put(b"hello")
pid = os.fork()
if not pid:
    try:
        print(store.put(b"hello").id[:4], flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(store.put(b"hello").is_duplicate)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("used", ["used", "new"])
def test_a_used_store_in_a_forked_child_is_an_error(kind: str, used: str) -> None:
    url = "memory://" if kind == "memory" else new_url()
    given = {} if kind == "memory" else options()
    try:
        done = subprocess.run(
            [sys.executable, "-c", FORK, url, repr(given), used],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    finally:
        if kind == "s3":
            empty(ObjectStore(url, options=given))
    child, parent = done.stdout.splitlines()
    if used == "used":
        assert "before the process forked" in child
        assert parent == "True"
    else:
        assert child == HELLO[:4]


# -- set-up ----------------------------------------------------------------------------------------


def test_the_config_makes_an_object_store() -> None:
    app = Flask(__name__)
    app.config.update(
        HASHFS_ROOT_FOLDER="s3://bucket/a/b/",
        HASHFS_STORE_OPTIONS={"endpoint": "http://127.0.0.1:9", "timeout": "5s"},
        HASHFS_DEPTH=2,
        HASHFS_WIDTH=2,
        HASHFS_ALGORITHM="md5",
        HASHFS_MAX_FILE_SIZE=10,
    )
    fs = FlaskHashFS(app)
    with app.app_context():
        assert isinstance(fs.client, ObjectStore)
        assert isinstance(fs.client, HashFS)
        assert fs.client.root == "s3://bucket/a/b"
        assert fs.client.idpath("0" * 32) == f"s3://bucket/a/b/00/00/{'0' * 28}"
        assert fs.client.max_size == 10


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("s3://bucket", {"no_such_option": "1"}),
        ("s3://bucket", {"retry_config": {"max_retries": "many"}}),
        ("memory://", {"endpoint": "http://127.0.0.1"}),
        ("s3://bucket", {7: "1"}),
        ("az://container", {}),
    ],
)
def test_a_bad_option_is_a_config_error(url: str, given: dict[str, Any]) -> None:
    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=url, HASHFS_STORE_OPTIONS=given)
    with pytest.raises(ConfigError, match="HASHFS_ROOT_FOLDER"):
        FlaskHashFS(app)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("gs://", "names no bucket"),
        ("az://", "names no bucket"),
        ("s3://bucket?region=x", "more than a bucket and a prefix"),
        ("s3://bucket/prefix#x", "more than a bucket and a prefix"),
        ("s3://key:secret@bucket", "more than a bucket and a prefix"),
        ("s3://bucket:9000/prefix", "more than a bucket and a prefix"),
        ("s3://bucket/../prefix", "more than a bucket and a prefix"),
        ("s3://bucket/a//b", "empty path segment"),
        ("s3://b a", "invalid domain character"),
    ],
)
def test_a_url_that_obstore_would_misread_is_a_config_error(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ObjectStore(url)


ENDPOINTS_OF_NOBODY = [
    *("minio:9000", "minio", "localhost:9000/x", "", "http://", "http:///x", "://x", "//minio"),
    *(
        "ftp://x",
        "http://a b",
        "http://x:99999",
        "http://x:0",
        "http://[::1",
        "http://\u00fc.example",
    ),
]


@pytest.mark.parametrize("endpoint", ENDPOINTS_OF_NOBODY)
@pytest.mark.parametrize("name", ["endpoint", "aws_endpoint_url", "ENDPOINT", "AWS_ENDPOINT_URL"])
def test_an_endpoint_is_a_url_with_its_scheme(
    name: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "AWS_ENDPOINT_URL":
        monkeypatch.setenv(name, endpoint)
    given = {} if name == "AWS_ENDPOINT_URL" else {name: endpoint}
    with pytest.raises(ConfigError, match=f"endpoint \\({name}\\) is '.*must be a URL"):
        ObjectStore("s3://bucket", options=given)


@pytest.mark.parametrize("endpoint", ENDPOINTS_OF_NOBODY)
def test_no_panic_of_obstore_leaves_the_package(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_check_endpoints", lambda options: None)
    keys = {"access_key_id": "x", "secret_access_key": "y", "retry_config": {"max_retries": 0}}
    store = ObjectStore("s3://bucket", options={**keys, "endpoint": endpoint})
    for call in (
        lambda: store.put(b"hello"),
        lambda: store.get(HELLO),
        lambda: store.delete(HELLO),
        lambda: list(store.files()),
        lambda: store.open(HELLO),
        lambda: store.put(LARGE),
    ):
        with pytest.raises(StoreUnavailableError):
            call()


def test_missing_credentials_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    given = {"endpoint": "http://127.0.0.1:9", "retry_config": {"max_retries": 0}}
    store = ObjectStore("s3://bucket", options={**given, "metadata_endpoint": given["endpoint"]})
    for call in (
        lambda: store.get(HELLO),
        lambda: store.put(b"hello"),
        lambda: store.open(HELLO),
        lambda: list(store.files()),
        lambda: store.backend.signed_url(HashAddress(HELLO, HELLO, HELLO), 60),
    ):
        with pytest.raises(ConfigError, match=r"^no credentials .* set AWS_ACCESS_KEY_ID and"):
            call()
    with pytest.raises(ConfigError, match="Missing SecretAccessKey"):
        ObjectStore("s3://bucket", options={**given, "access_key_id": "x"})


def test_an_error_names_its_cause() -> None:
    given = {"endpoint": "http://127.0.0.1:9", "retry_config": {"max_retries": 0}}
    keys = {"access_key_id": "key", "secret_access_key": "secret"}
    with pytest.raises(StoreUnavailableError, match="Connection refused"):
        ObjectStore("s3://bucket", options={**given, **keys}).put(b"hello")


def test_without_obstore_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    app = Flask(__name__)
    app.config["HASHFS_ROOT_FOLDER"] = "memory://"
    with pytest.raises(ConfigError, match=r"pip install Flask-HashFS\[s3\]"):
        FlaskHashFS(app)


def test_importing_the_package_imports_no_obstore() -> None:
    code = "import sys, flask_hashfs; print('obstore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- over TLS --------------------------------------------------------------------------------------


@needs_tls
def test_everything_goes_over_tls() -> None:
    with object_store("tls") as store:
        for data in (b"hello", LARGE):
            address = store.put(data, "bin")
            assert store.put(data, "bin").is_duplicate
            assert store.put(data, "txt").is_duplicate
            with store.open(address) as file:
                assert file.read() == data
                assert file.seek(-3, os.SEEK_END) == len(data) - 3
                assert file.read() == data[-3:]
        assert list(store.verify()) == []
        signed = store.backend.signed_url(address, 3600)
        assert signed is not None
        assert signed[0].startswith(f"{TLS_ENDPOINT}/")
        store.delete(address.id)
        assert store.count() == 2


@needs_tls
def test_a_certificate_that_is_not_trusted_is_an_error() -> None:
    given = {**tls_options(), "client_options": {}, "retry_config": {"max_retries": 0}}
    with pytest.raises(StoreUnavailableError, match="InvalidCertificate UnknownIssuer"):
        ObjectStore(new_url(), options=given).put(b"hello")


# -- signed URLs -----------------------------------------------------------------------------------


@needs_s3
def test_a_signed_url_is_the_same_for_a_while_and_can_be_read() -> None:
    from urllib.request import urlopen

    with object_store("s3") as store:
        address = store.put(b"hello", "txt")
        signed = store.backend.signed_url(address, 3600)
        assert signed is not None
        url, seconds = signed
        assert 0 < seconds <= 3600
        with urlopen(url) as response:
            assert response.read() == b"hello"
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        if seconds > 5:
            again = store.backend.signed_url(address, 3600)
            assert again is not None
            assert again[0] == url


def test_memory_signs_nothing() -> None:
    store = ObjectStore("memory://")
    assert store.backend.signed_url(store.put(b"hello"), 3600) is None


def test_a_memory_store_may_have_a_name_and_a_prefix() -> None:
    store = ObjectStore("memory://bucket/prefix/")
    address = store.put(b"content", "txt")
    assert address.abspath == f"memory://bucket/prefix/{address.relpath}"
    assert store.get(address.abspath) == address
    assert list(store.files()) == [address.abspath]
