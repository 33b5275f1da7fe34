"""Unfinished uploads in a bucket: the contract, and what only a bucket has, as pieces."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import random
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from object_stores import (
    KINDS,
    backend_of,
    keys,
    object_store,
    objects_of,
    options,
    uploads_elsewhere,
)
from pending_contract import CONTENT, ID, PendingContract, Reopen, append, begun, content_of, end

from flask_hashfs import HashFS
from flask_hashfs._bucket import lease
from flask_hashfs._bucket.client import ExistsError, Found
from flask_hashfs._bucket.hidden import UNFINISHED
from flask_hashfs._bucket.pending import PIECE
from flask_hashfs._storage import descriptors
from flask_hashfs._storage.pending import (
    BusyUploadError,
    Listed,
    Record,
    StaleUploadError,
    Taken,
    UnknownUploadError,
    new_id,
)
from flask_hashfs._store.object_store import ObjectStore
from flask_hashfs.exceptions import StoreFullError, StoreUnavailableError


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    with object_store(request.param) as store:
        yield store


def key(id: str, name: str | int) -> str:
    return f".hashfs/uploads/{id}/{name}"


def make_older(
    monkeypatch: pytest.MonkeyPatch, store: ObjectStore, part: str, seconds: float
) -> None:
    """Let the bucket date what has `part` in its key so much earlier."""
    objects = objects_of(store)
    listed, head = objects.list, objects.head

    def older(found: Found) -> Found:
        moved = found.modified - timedelta(seconds=seconds)
        return found._replace(modified=moved) if part in found.key else found

    def head_older(name: str) -> Found | None:
        found = head(name)
        return None if found is None else older(found)

    monkeypatch.setattr(objects, "list", lambda *a, **more: map(older, listed(*a, **more)))
    monkeypatch.setattr(objects, "head", head_older)


class TestBucketUploads(PendingContract):
    @pytest.fixture(autouse=True)
    def _patches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def left(self, store: HashFS) -> list[str]:
        assert isinstance(store, ObjectStore)
        return keys(store)

    def age(self, store: HashFS, id: str, seconds: float) -> None:
        assert isinstance(store, ObjectStore)
        self.monkeypatch.undo()
        make_older(self.monkeypatch, store, id, seconds)

    def reopening(self, store: HashFS) -> Reopen:
        if store.root.startswith("memory:"):
            pytest.skip("obstore's memory is that of one process")
        return functools.partial(ObjectStore, store.root, options=options())

    def entries(self, store: HashFS) -> list[str]:
        return [found.key.rpartition("/")[2] for found in objects_of(store).list(UNFINISHED)]

    def put_entry(self, store: HashFS, name: str, seconds: float) -> None:
        assert isinstance(store, ObjectStore)
        self.monkeypatch.undo()
        objects_of(store).put(f"{UNFINISHED}/{name}", b"", {}, create=False)
        make_older(self.monkeypatch, store, name, seconds)

    def drop_entry(self, store: HashFS, name: str) -> None:
        objects_of(store).delete([f"{UNFINISHED}/{name}"])


# --- the objects of an upload --------------------------------------------------------------------


def test_an_upload_is_a_chain_of_pieces(store: ObjectStore) -> None:
    content = random.Random(1).randbytes(2 * PIECE + 1000)
    taken = store.backend.pending.create(new_id(), Record(length=len(content)))
    taken.begin(len(content), True, marked=False, brings=len(content))
    for start in range(0, len(content), 1_000_000):
        taken.write(content[start : start + 1_000_000])
    taken.keep()
    names = ["0", str(PIECE), str(2 * PIECE), "epoch", "state"]
    expected = [f"{UNFINISHED}/{taken.id}-whole", *(key(taken.id, name) for name in names)]
    assert keys(store) == sorted(expected)
    assert json.loads(objects_of(store).read(key(taken.id, "state")))["length"] == len(content)
    assert taken.read(PIECE + 20, PIECE - 10) == content[PIECE - 10 : 2 * PIECE + 10]
    taken.close()
    again = store.backend.pending.take(taken.id)
    assert again.offset == len(content)
    address = end(store, again)
    assert address.id == hashlib.sha256(content).hexdigest()
    assert content_of(store, address.id) == content
    assert keys(store) == sorted([address.relpath, key(taken.id, "state")])


def test_a_piece_beyond_a_gap_does_not_count(store: ObjectStore) -> None:
    id = begun(store)
    objects_of(store).put(key(id, 2000), b"stray", {}, create=True)
    taken = store.backend.pending.take(id)
    assert taken.offset == 1000
    taken.close()


def test_an_unreadable_state_is_no_upload(store: ObjectStore) -> None:
    id = begun(store)
    for content in (b"", b"{", b"[]", b"7", b'{"a": 1}'):
        objects_of(store).put(key(id, "state"), content, {}, create=False)
        if content == b'{"a": 1}':
            assert store.backend.pending.find(id).record == Record(), "what a later version may add"
        else:
            with pytest.raises(UnknownUploadError):
                store.backend.pending.find(id)


def test_a_duplicate_sends_nothing(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(CONTENT)
    sent: list[str] = []
    send = backend_of(store)._puts.send
    monkeypatch.setattr(
        backend_of(store)._puts,
        "send",
        lambda writer, key, **more: (sent.append(key), send(writer, key, **more))[1],
    )
    assert end(store, store.backend.pending.take(begun(store, CONTENT))).is_duplicate
    assert sent == []


def test_no_look_up_reaches_a_piece(store: ObjectStore) -> None:
    id = begun(store)
    for name in (key(id, 0), key(id, "state"), f"{store.root}/{key(id, 0)}"):
        assert store.get(name) is None
        store.delete(name)
    assert list(store.files()) == list(store.folders()) == []
    assert (store.count(), store.size()) == (0, 0)
    assert store.backend.pending.find(id).offset == 1000


def test_what_a_killed_creation_left_goes_after_an_hour(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = key("0" * 32, "epoch")
    objects_of(store).put(path, b"", {}, create=True)
    store.backend.pending.sweep()
    assert keys(store) == [path]
    make_older(monkeypatch, store, path, 3700)
    assert store.backend.pending.sweep() == 0
    assert keys(store) == []


def test_bytes_of_a_slow_client_do_not_wait_for_long(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_hashfs._bucket.pending._PATIENCE", -1.0)
    taken = store.backend.pending.take(begun(store))
    taken.begin(len(CONTENT), True, marked=False, brings=None)
    taken.write(CONTENT[1000:1500])
    assert uploads_elsewhere(store).find(taken.id).offset == 1500
    taken.close()


def test_what_came_is_sent_when_the_request_ends_in_whatever_way(store: ObjectStore) -> None:
    taken = store.backend.pending.take(begun(store))
    taken.begin(len(CONTENT), True, marked=False, brings=None)
    taken.write(CONTENT[1000:1500])
    taken.cut()
    taken.close()
    assert store.backend.pending.find(taken.id).offset == 1500


# --- other machines ------------------------------------------------------------------------------


def test_another_machine_goes_on(store: ObjectStore) -> None:
    id, other = begun(store), uploads_elsewhere(store)
    taken = other.take(id)
    append(taken, CONTENT[1000:], len(CONTENT))
    taken.close()
    assert end(store, store.backend.pending.take(id)).id == ID


def test_a_request_that_another_machine_took_over_goes_stale(store: ObjectStore) -> None:
    first = store.backend.pending.take(begun(store))
    second = uploads_elsewhere(store).take(first.id)
    first.write(b"stale")
    with pytest.raises(StaleUploadError):
        first.keep()
    assert first.sync() == 1000
    with pytest.raises(StaleUploadError):
        first.begin(77, True, marked=False, brings=1)
    first.close()
    append(second, CONTENT[1000:], len(CONTENT))
    second.close()
    assert end(store, store.backend.pending.take(first.id)).id == ID


def test_the_first_writer_of_an_offset_wins(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.backend.pending.take(begun(store))
    second = uploads_elsewhere(store).take(first.id)
    monkeypatch.setattr(first, "_check_owned", lambda: None)  # it looked just before
    append(first, CONTENT[1000:3000], len(CONTENT))
    second.begin(len(CONTENT), True, marked=False, brings=2000)
    second.write(CONTENT[1000:2000])
    with pytest.raises(StaleUploadError):
        second.keep()
    assert second.sync() == 3000
    first.close()
    second.close()


def test_a_piece_whose_answer_was_lost_counts_once(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, objects = store.backend.pending.take(begun(store)), objects_of(store)
    put = objects.put

    def repeated(name: str, data: Any, *more: Any, create: bool) -> None:
        put(name, data, *more, create=create)
        if create and name == key(taken.id, 1000):
            put(name, data, *more, create=create)  # as obstore repeats a request

    monkeypatch.setattr(objects, "put", repeated)
    append(taken, CONTENT[1000:2000], len(CONTENT))
    assert taken.sync() == taken.offset == 2000
    taken.close()


def test_a_state_that_has_changed_is_not_replaced(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.backend.pending.take(begun(store, CONTENT))
    monkeypatch.setattr(first, "_check_owned", lambda: None)  # it looked just before
    end(store, uploads_elsewhere(store).take(first.id))
    with pytest.raises(StaleUploadError):
        first.begin(77, True, marked=False, brings=1)
    first.close()
    assert store.backend.pending.find(first.id).record.final == {"id": ID}


def test_one_machine_at_a_time_brings_about_the_end(store: ObjectStore) -> None:
    first = store.backend.pending.take(begun(store, CONTENT))
    writer = first.end()
    assert writer is not None
    second = uploads_elsewhere(store).take(first.id)
    for call in (second.end, second.delete):
        with pytest.raises(BusyUploadError):
            call(wait=False)
    with writer:
        store.commit(writer)
    first.finish({"first": True})
    first.close()
    assert second.end() is None
    assert second.record.final == {"first": True}
    second.close()
    assert keys(store)[0] == key(first.id, "state")
    assert len(keys(store)) == 2


def test_an_end_whose_machine_died_is_brought_about_by_another(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.backend.pending.take(begun(store, CONTENT))
    assert first.end() is not None
    make_older(monkeypatch, store, "/ending", 31)  # it has not been renewed
    assert end(store, uploads_elsewhere(store).take(first.id)).id == ID
    first.close()


def test_a_lease_is_renewed_while_it_is_held(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_RENEWED_EVERY", 0.01)
    objects = objects_of(store)
    taken = store.backend.pending.take(begun(store, CONTENT))
    assert taken.end() is not None
    seen = set[datetime]()
    while len(seen) < 3:
        found = objects.head(key(taken.id, "ending"))
        assert found is not None
        seen.add(found.modified)
    taken.close()
    assert objects.head(key(taken.id, "ending")) is None


# --- a bucket that fails -------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreFullError(28, "full"), StoreUnavailableError("down")])
def test_what_a_bucket_did_not_take_does_not_count(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    taken = store.backend.pending.take(begun(store))

    def fail(*args: object, **more: object) -> None:
        raise error

    taken.begin(len(CONTENT), True, marked=False, brings=500)
    taken.write(CONTENT[1000:1500])
    with monkeypatch.context() as patch:
        patch.setattr(objects_of(store), "put", fail)
        with pytest.raises(type(error)):
            taken.keep()
    assert taken.offset == taken.sync() == 1000
    append(taken, CONTENT[1000:], len(CONTENT))
    taken.close()
    assert end(store, store.backend.pending.take(taken.id)).id == ID


def test_a_passing_conflict_is_tried_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, objects = store.backend.pending.take(begun(store)), objects_of(store)
    put, refused = objects.put, list[str]()

    def conflict(name: str, *more: Any, **given: Any) -> None:
        if name == key(taken.id, 1000) and not refused:
            refused.append(name)
            raise ExistsError
        put(name, *more, **given)

    monkeypatch.setattr(objects, "put", conflict)
    append(taken, CONTENT[1000:2000], len(CONTENT))
    assert taken.sync() == 2000
    taken.close()


# --- what is swept -------------------------------------------------------------------------------


def expired(monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> Taken:
    """Return an upload that expires while a request has it."""
    taken = store.backend.pending.take(begun(store))
    for name in ("state", 0):
        make_older(monkeypatch, store, key(taken.id, name), 90_000)
    taken.expires -= 90_000
    taken.begin(len(CONTENT), True, marked=False, brings=None)
    taken.write(CONTENT[1000:5000])
    return taken


def test_an_upload_that_gets_bytes_while_it_is_swept_stays(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads, taken = uploads_elsewhere(store), expired(monkeypatch, store)
    find, looked = uploads.find, list[str]()

    def find_and_be_late(id: str) -> Listed:
        looked.append(id)
        try:
            return find(id)
        finally:
            if len(looked) == 1:
                taken.keep()

    monkeypatch.setattr(uploads, "find", find_and_be_late)
    assert uploads.sweep() == 0
    assert taken.sync() == 5000
    assert find(taken.id).offset == 5000
    taken.close()


def test_bytes_that_come_too_late_for_a_sweep_do_not_count(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads, taken = uploads_elsewhere(store), expired(monkeypatch, store)
    create: Any = taken._create_piece  # type: ignore[attr-defined]

    def sweep_and_create(data: bytes) -> None:
        assert uploads.sweep() == 1
        create(data)

    monkeypatch.setattr(taken, "_create_piece", sweep_and_create)
    with pytest.raises(UnknownUploadError):
        taken.keep()
    assert taken.offset == 1000
    taken.close()


def test_an_upload_that_is_deleted_while_it_is_put_on_the_list_leaves_no_entry(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads: Any = uploads_elsewhere(store)
    taken = store.backend.pending.take(begun(store))
    objects_of(store).delete([f"{UNFINISHED}/{taken.id}-whole"])  # an earlier version had none
    put_on_list = uploads._list

    def delete_and_list(entry: Any) -> None:
        taken.delete()
        put_on_list(entry)

    monkeypatch.setattr(uploads, "_list", delete_and_list)
    uploads.sweep()
    assert keys(store) == []
    taken.close()


def test_an_idle_file_makes_room_for_content_whose_digest_is_to_be_checked(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, temporary, content = ["a file"], tempfile.TemporaryFile, os.urandom(PIECE + 1000)

    def open_file(*args: Any, **more: Any) -> Any:
        if idle:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return temporary(*args, **more)

    taken = store.backend.pending.create(new_id(), Record(length=len(content)))
    monkeypatch.setattr(tempfile, "TemporaryFile", open_file)
    monkeypatch.setattr(descriptors, "close_idle", [lambda: bool(idle and idle.pop())])
    append(taken, content, len(content), marked=True)
    assert taken.read(2000, PIECE - 1000) == content[PIECE - 1000 :]
    taken.cut()
    taken.close()
