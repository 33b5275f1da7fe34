"""What every backend does for unfinished uploads, as tests: kept is what was told, one end ends it.

A subclass gives the fixture ``store`` and what the tests have to do past the interface.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from flask_hashfs import HashFS
from flask_hashfs._storage import pending as pending_module
from flask_hashfs._storage.pending import (
    STATES,
    BusyUploadError,
    ExpiredUploadError,
    NoRoomError,
    Record,
    StaleUploadError,
    Taken,
    TooManyUploadsError,
    UnknownUploadError,
    UploadLimits,
    new_id,
)

CONTENT = random.Random(7).randbytes(300_000)
ID = hashlib.sha256(CONTENT).hexdigest()

Reopen: TypeAlias = Callable[[], HashFS]


def append(taken: Taken, data: bytes, length: int | None = None, *, marked: bool = False) -> None:
    """Take content as a request does; what has a mark is not judged yet."""
    taken.begin(length, True, marked=marked, brings=len(data))
    for start in range(0, len(data), 65536):
        taken.write(data[start : start + 65536])
    if not marked:
        taken.keep()


def begun(store: HashFS, data: bytes = CONTENT[:1000], length: int | None = len(CONTENT)) -> str:
    """Make an upload, and let go of it."""
    taken = store.backend.pending.create(new_id(), Record(length=length))
    append(taken, data, length)
    taken.close()
    return taken.id


def end(store: HashFS, taken: Taken) -> Any:
    """Bring an upload to its end, and return the address."""
    writer = taken.end()
    if writer is None:
        return taken.record.final
    with writer:
        address = store.commit(writer)
    taken.finish({"id": address.id})
    taken.close()
    return address


def content_of(store: HashFS, id: str) -> bytes:
    with store.open(id) as file:
        data: bytes = file.read()
    return data


STRANGE = [
    "",
    ".",
    "..",
    "../x",
    "a" * 31,
    "a" * 33,
    "A" * 32,
    "g" * 32,
    "a/" * 16,
    "a" * 31 + "\0",
]


def _write_pieces(reopen: Reopen, id: str, seed: int, results: Any) -> None:
    """Go on with an upload again and again, as a worker does; several at once."""
    uploads = reopen().backend.pending
    rng = random.Random(seed)
    while True:
        taken = uploads.take(id)
        try:
            offset = taken.offset
            if offset == len(CONTENT):
                break
            taken.begin(len(CONTENT), True, marked=rng.random() < 0.3, brings=None)
            size = rng.choice([1, 500, 5000])
            for start in range(offset, min(offset + 10 * size, len(CONTENT)), size):
                taken.write(CONTENT[start : start + size])
            if rng.random() < 0.5:
                taken.keep()
            else:
                taken.cut()
        except StaleUploadError:
            pass
        finally:
            taken.close()
    results.put(seed)


def _upload_until_killed(reopen: Reopen, id: str, told: Any) -> None:
    uploads = reopen().backend.pending
    while True:
        taken = uploads.take(id)
        taken.begin(len(CONTENT), True, marked=False, brings=None)
        for _ in range(5):
            taken.write(CONTENT[taken.offset : taken.offset + 777])
        told.send(taken.sync())
        taken.close()


class PendingContract:
    ENDED: tuple[str, ...] = ("state",)
    """What is kept of an upload that has ended."""

    def left(self, store: HashFS) -> list[str]:
        """Return what lies in the store, hidden or not, relative to its root."""
        raise NotImplementedError

    def age(self, store: HashFS, id: str, seconds: float) -> None:
        """Make an upload look as old as this."""
        raise NotImplementedError

    def reopening(self, store: HashFS) -> Reopen:
        """Return what another process opens the store by; the test is skipped if none can."""
        raise NotImplementedError

    def entries(self, store: HashFS) -> list[str]:
        """Return the names in the list of unfinished uploads."""
        raise NotImplementedError

    def put_entry(self, store: HashFS, name: str, seconds: float) -> None:
        """Put a name on that list, so many seconds ago."""
        raise NotImplementedError

    def drop_entry(self, store: HashFS, name: str) -> None:
        """Take a name off it."""
        raise NotImplementedError

    def left_of(self, store: HashFS, id: str) -> list[str]:
        return [path for path in self.left(store) if id in path]

    # --- from the first byte to the last ----------------------------------------------------------

    @pytest.mark.parametrize("piece", [1, 4096, 65536, 100_000, len(CONTENT)])
    def test_pieces_over_several_requests_become_one_content(
        self, store: HashFS, piece: int
    ) -> None:
        content = CONTENT if piece > 1 else CONTENT[:100]
        taken = store.backend.pending.create(new_id(), Record())
        taken.close()
        for start in range(0, len(content), piece):
            taken = store.backend.pending.take(taken.id)
            assert taken.offset == start
            append(taken, content[start : start + piece], len(content))
            taken.close()
        address = end(store, store.backend.pending.take(taken.id))
        assert address.id == hashlib.sha256(content).hexdigest()
        assert content_of(store, address.id) == content
        assert not address.is_duplicate
        assert self.left(store) == sorted([address.relpath, f".hashfs/uploads/{taken.id}/state"])

    def test_what_was_told_is_kept_in_words(self, store: HashFS) -> None:
        record = Record(
            owner="me", extension=".mp4", max_size=7, expected="ab", length=3, metadata={"a": "b"}
        )
        uploads = store.backend.pending
        taken = uploads.create(new_id(), record)
        taken.close()
        assert uploads.find(taken.id).record == record
        assert uploads.take(taken.id).record == record

    def test_an_ended_upload_is_a_record_alone(self, store: HashFS) -> None:
        taken = store.backend.pending.take(begun(store, CONTENT))
        end(store, taken)
        again = store.backend.pending.take(taken.id)
        assert again.record.final == {"id": ID}
        assert again.offset == again.sync() == len(CONTENT)
        again.close()

    def test_a_duplicate_ends_too(self, store: HashFS) -> None:
        store.put(CONTENT)
        address = end(store, store.backend.pending.take(begun(store, CONTENT)))
        assert address.is_duplicate
        assert len(list(store.files())) == 1

    # --- ids --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("id", [*STRANGE, "0" * 32])
    def test_what_is_no_upload_is_unknown(self, store: HashFS, id: str) -> None:
        begun(store)
        for call in (store.backend.pending.find, store.backend.pending.take):
            with pytest.raises(UnknownUploadError):
                call(id)

    # --- who owns it ------------------------------------------------------------------------------

    def test_the_newest_request_owns_the_upload(self, store: HashFS) -> None:
        first = store.backend.pending.take(begun(store))
        second = store.backend.pending.take(first.id)
        with pytest.raises(StaleUploadError):
            first.write(b"stale")
        assert second.offset == 1000
        append(second, CONTENT[1000:], len(CONTENT))
        for taken in (first, second):
            taken.close()
        assert end(store, store.backend.pending.take(first.id)).id == ID

    def test_one_of_two_simultaneous_requests_owns_the_upload(
        self, store: HashFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with contextlib.closing(store.backend.pending.take(begun(store))) as taken:
            kind: Any = type(taken)
        opens, overtakers = kind._open, list[Taken]()

        def open_and_be_overtaken(self: Any) -> None:
            opens(self)
            with monkeypatch.context() as patch:
                patch.setattr(kind, "_open", opens)
                overtakers.append(store.backend.pending.take(taken.id))

        monkeypatch.setattr(kind, "_open", open_and_be_overtaken)
        first = store.backend.pending.take(taken.id)
        monkeypatch.undo()
        (second,) = overtakers
        append(second, CONTENT[1000:], len(CONTENT))
        for each in (first, second):
            each.close()
        assert end(store, store.backend.pending.take(taken.id)).id == ID

    def test_one_of_this_process_is_told_at_once(self, store: HashFS) -> None:
        told = []
        first = store.backend.pending.take(begun(store))
        first.on_stale = lambda: told.append(True)
        second = store.backend.pending.take(first.id)
        assert told == [True]
        first.close()
        assert store.backend.pending.take(first.id).offset == 1000
        second.close()

    def test_a_stale_request_changes_nothing(self, store: HashFS) -> None:
        first = store.backend.pending.take(begun(store))
        store.backend.pending.take(first.id).close()
        calls: tuple[Callable[[], object], ...] = (
            lambda: first.begin(77, True, marked=False, brings=1),
            lambda: first.begin(None, True, marked=True, brings=1),
            lambda: first.write(b"x"),
        )
        for call in calls:
            with pytest.raises(StaleUploadError):
                call()
        first.cut()
        first.close()
        found = store.backend.pending.find(first.id)
        assert (found.offset, found.record.length, found.record.mark) == (1000, len(CONTENT), None)

    def test_a_stale_request_counts_no_bytes_that_have_a_mark(self, store: HashFS) -> None:
        first = store.backend.pending.take(begun(store))
        second = store.backend.pending.take(first.id)
        append(second, CONTENT[1000:90_000], len(CONTENT), marked=True)
        assert first.sync() == 1000
        second.keep()
        assert first.sync() == 90_000
        append(second, CONTENT[90_000:99_000], len(CONTENT), marked=True)
        second.cut()
        assert first.sync() == 90_000
        append(second, CONTENT[90_000:], len(CONTENT))
        second.close()
        end(store, store.backend.pending.take(first.id))
        assert first.sync() == len(CONTENT)
        store.backend.pending.take(first.id).delete()
        with pytest.raises(UnknownUploadError):
            first.sync()
        first.close()

    def test_a_deleted_upload_is_unknown_to_its_owner(self, store: HashFS) -> None:
        first = store.backend.pending.take(begun(store))
        second = store.backend.pending.take(first.id)
        second.delete()
        second.close()
        with pytest.raises((StaleUploadError, UnknownUploadError)):
            first.write(b"x")
        first.close()
        assert self.left(store) == []

    @pytest.mark.slow
    def test_processes_that_take_it_from_each_other_never_mix_bytes(self, store: HashFS) -> None:
        id = begun(store, b"", None)
        reopen = self.reopening(store)
        context = multiprocessing.get_context("spawn")
        results: Any = context.Queue()
        workers = [
            context.Process(target=_write_pieces, args=(reopen, id, seed, results))
            for seed in range(3)
        ]
        for worker in workers:
            worker.start()
        assert sorted(results.get(timeout=120) for _ in workers) == [0, 1, 2]
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        assert end(store, store.backend.pending.take(id)).id == ID

    # --- marks ------------------------------------------------------------------------------------

    def test_content_that_failed_its_checksum_is_cut_off(self, store: HashFS) -> None:
        taken = store.backend.pending.take(begun(store))
        append(taken, b"wrong" * 100, len(CONTENT), marked=True)
        taken.cut()
        assert taken.offset == 1000
        append(taken, CONTENT[1000:], len(CONTENT), marked=True)
        taken.keep()
        taken.close()
        assert end(store, store.backend.pending.take(taken.id)).id == ID

    def test_whoever_opens_an_upload_with_a_mark_cuts_it_back(self, store: HashFS) -> None:
        first = store.backend.pending.take(begun(store))
        append(first, b"never judged", len(CONTENT), marked=True)
        STATES.forget((store.root, first.id))  # as in another process
        second = store.backend.pending.take(first.id)
        assert second.offset == 1000
        with pytest.raises(StaleUploadError):
            first.keep()
        first.close()
        append(second, CONTENT[1000:], len(CONTENT))
        second.close()
        assert end(store, store.backend.pending.take(first.id)).id == ID

    def test_content_that_has_a_mark_is_not_told(self, store: HashFS) -> None:
        uploads = store.backend.pending
        taken = uploads.take(begun(store))
        append(taken, CONTENT[1000:], len(CONTENT), marked=True)
        assert uploads.find(taken.id).offset == 1000
        assert [listed.offset for listed in uploads.listed()] == [1000]
        taken.keep()
        assert uploads.find(taken.id).offset == len(CONTENT)
        assert [listed.offset for listed in uploads.listed()] == [len(CONTENT)]
        taken.close()

    def test_an_upload_with_a_mark_does_not_end(self, store: HashFS) -> None:
        taken = store.backend.pending.take(begun(store))
        append(taken, CONTENT[1000:], len(CONTENT), marked=True)
        with pytest.raises(StaleUploadError):
            taken.end()
        taken.close()

    # --- the end ----------------------------------------------------------------------------------

    def test_an_end_that_fails_keeps_the_bytes(self, store: HashFS) -> None:
        taken = store.backend.pending.take(begun(store, CONTENT))
        writer = taken.end()
        assert writer is not None
        with writer:
            store.commit(writer)
        taken.close()  # the app's own function failed, or the process was killed
        assert store.backend.pending.find(taken.id).offset == len(CONTENT)
        address = end(store, store.backend.pending.take(taken.id))
        assert (address.id, address.is_duplicate) == (ID, True)
        assert content_of(store, ID) == CONTENT

    def test_while_one_ends_it_the_others_wait(self, store: HashFS) -> None:
        first = store.backend.pending.take(begun(store, CONTENT))
        writer = first.end()
        assert writer is not None
        second = store.backend.pending.take(first.id)
        for call in (second.end, second.delete):
            with pytest.raises(BusyUploadError):
                call(wait=False)
        ended: list[Any] = []
        waiting = threading.Thread(target=lambda: ended.append(second.end()))
        waiting.start()
        with writer:
            store.commit(writer)
        first.finish({"first": True})
        first.close()
        waiting.join(60)
        assert ended == [None]
        assert second.record.final == {"first": True}
        second.close()

    def test_what_was_deleted_meanwhile_does_not_end(self, store: HashFS) -> None:
        first, second = store.backend.pending.take(begun(store, CONTENT)), None
        second = store.backend.pending.take(first.id)
        second.delete()
        second.close()
        with pytest.raises(UnknownUploadError):
            first.end()
        first.close()

    def test_only_what_this_process_has_not_hashed_is_read_again(
        self, store: HashFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashed: list[int] = []
        update = pending_module.Hashing.update

        def note_and_update(self: pending_module.Hashing, data: bytes) -> None:
            hashed.append(len(data))
            update(self, data)

        monkeypatch.setattr(pending_module.Hashing, "update", note_and_update)
        id = begun(store, CONTENT[:200_000])
        taken = store.backend.pending.take(id)
        append(taken, CONTENT[200_000:], len(CONTENT))
        end(store, taken)
        assert sum(hashed) == len(CONTENT)
        hashed.clear()
        id = begun(store, CONTENT[:200_000])
        STATES.forget((store.root, id))
        taken = store.backend.pending.take(id)
        append(taken, CONTENT[200_000:], len(CONTENT))
        assert sum(size for size in hashed[4:] if size) < len(CONTENT), "too far behind to catch up"
        end(store, taken)
        assert sum(hashed) <= 3 * len(CONTENT)

    # --- limits -----------------------------------------------------------------------------------

    def test_there_are_only_so_many_unfinished_uploads(self, store: HashFS) -> None:
        store.backend.pending.limits = UploadLimits(most=3)
        ids = [begun(store) for _ in range(3)]
        with pytest.raises(TooManyUploadsError):
            begun(store)
        assert len(list(store.backend.pending.listed())) == 3
        taken = store.backend.pending.take(ids[0])
        taken.delete()
        taken.close()
        begun(store)

    def test_one_owner_has_at_most_a_tenth_of_them(self, store: HashFS) -> None:
        store.backend.pending.limits = UploadLimits(most=20)
        for owner in ("a", "a", "b", None, None, None):
            store.backend.pending.create(new_id(), Record(owner=owner)).close()
        with pytest.raises(TooManyUploadsError):
            store.backend.pending.create(new_id(), Record(owner="a"))
        store.backend.pending.create(new_id(), Record(owner="b")).close()

    def test_finished_ones_and_parts_that_are_whole_do_not_count(self, store: HashFS) -> None:
        store.backend.pending.limits = UploadLimits(most=1)
        end(store, store.backend.pending.take(begun(store, CONTENT)))
        taken = store.backend.pending.create(new_id(), Record(concatenation="partial", length=4))
        append(taken, b"part", 4)
        taken.close()
        begun(store)
        with pytest.raises(TooManyUploadsError):
            begun(store)

    def test_what_has_ended_is_not_on_the_list(self, store: HashFS) -> None:
        ids = [begun(store, CONTENT) for _ in range(3)]
        assert sorted(self.entries(store)) == sorted(f"{id}-whole" for id in ids)
        end(store, store.backend.pending.take(ids[0]))
        taken = store.backend.pending.take(ids[1])
        taken.delete()
        taken.close()
        self.age(store, ids[2], 90000)
        store.backend.pending.sweep()
        assert self.entries(store) == []
        assert not any("unfinished" in path for path in self.left(store))

    def test_no_upload_that_has_ended_is_looked_at_to_count(
        self, store: HashFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uploads: Any = store.backend.pending
        uploads.limits = UploadLimits(most=3)  # which is near
        end(store, uploads.take(begun(store, CONTENT)))
        id, looked_at = begun(store), list[Any]()
        counted = uploads._counted

        def note_and_count(entries: Any) -> Any:
            looked_at.extend(entries)
            return counted(entries)

        monkeypatch.setattr(uploads, "_counted", note_and_count)
        begun(store)
        assert {entry.id for entry in looked_at} == {id}

    def test_an_end_that_was_killed_leaves_an_entry_for_the_sweep(self, store: HashFS) -> None:
        uploads = store.backend.pending
        id = begun(store, CONTENT)
        end(store, uploads.take(id))
        self.put_entry(store, f"{id}-whole", 0)
        uploads.limits = UploadLimits(most=1)
        begun(store)  # it does not count
        uploads.sweep()
        assert not any(name.startswith(id) for name in self.entries(store))
        assert uploads.find(id).record.final is not None

    def test_an_entry_without_an_upload_goes_after_an_hour(self, store: HashFS) -> None:
        uploads = store.backend.pending
        name = f"{new_id()}-part-0123456789abcdef"
        self.put_entry(store, name, 3500)
        uploads.sweep()
        assert self.entries(store) == [name], "its upload may just be made"
        self.put_entry(store, name, 3700)
        uploads.sweep()
        assert self.entries(store) == []

    def test_an_upload_of_an_earlier_version_is_put_on_the_list(self, store: HashFS) -> None:
        uploads = store.backend.pending
        taken = uploads.create(new_id(), Record(owner="a", concatenation="partial"))
        taken.close()
        (name,) = self.entries(store)
        self.drop_entry(store, name)
        uploads.sweep()
        assert self.entries(store) == [name]
        uploads.limits = UploadLimits(most=1)
        with pytest.raises(TooManyUploadsError):
            begun(store)

    def test_all_uploads_together_may_hold_only_so_many_bytes(self, store: HashFS) -> None:
        store.backend.pending.limits = UploadLimits(most_bytes=1500)
        begun(store, CONTENT[:1000])
        taken = store.backend.pending.create(new_id(), Record(length=1000))
        with pytest.raises(NoRoomError):
            append(taken, CONTENT[:1000], 1000)
        assert taken.offset == 500, "what there was room for is kept"
        with pytest.raises(NoRoomError):
            taken.write(b"x")
        taken.close()
        assert store.backend.pending.find(taken.id).offset == 500

    # --- expiry -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("ended", [False, True])
    def test_an_old_upload_has_expired_until_it_is_swept(self, store: HashFS, ended: bool) -> None:
        id = begun(store, CONTENT)
        if ended:
            end(store, store.backend.pending.take(id))
        self.age(store, id, 86390)
        assert store.backend.pending.sweep() == 0
        self.age(store, id, 86401)
        for call in (store.backend.pending.find, store.backend.pending.take):
            with pytest.raises(ExpiredUploadError):
                call(id)
        assert store.backend.pending.sweep() == 1
        with pytest.raises(UnknownUploadError):
            store.backend.pending.find(id)
        assert not any(path.startswith(".hashfs") for path in self.left(store))
        assert store.exists(ID) is ended

    def test_a_creation_sweeps_now_and_then(
        self, store: HashFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id = begun(store)
        self.age(store, id, 90000)
        begun(store)
        assert self.left_of(store, id), "it has just been swept"
        monkeypatch.setattr(UploadLimits, "sweep_every", 0.0)  # as if a minute had passed
        begun(store)
        assert not self.left_of(store, id)

    @pytest.mark.parametrize("keeper", ["verify", "prune"])
    def test_the_keepers_sweep_too_and_leave_the_others_alone(
        self, store: HashFS, keeper: str
    ) -> None:
        old, young = begun(store), begun(store)
        self.age(store, old, 90000)
        store.put(b"something else")
        if keeper == "verify":
            assert list(store.verify()) == []
        else:
            store.prune([store.put(b"something else")])
        assert not self.left_of(store, old)
        assert store.backend.pending.find(young).offset == 1000
        assert len(list(store.files())) == store.count() == 1

    def test_an_upload_that_was_swept_under_a_request_is_unknown(self, store: HashFS) -> None:
        taken = store.backend.pending.take(begun(store))
        self.age(store, taken.id, 90000)
        store.backend.pending.sweep()
        with pytest.raises(UnknownUploadError):
            append(taken, b"x", len(CONTENT))
        taken.close()

    # --- the disk ---------------------------------------------------------------------------------

    @pytest.mark.slow
    def test_what_was_told_survives_a_kill_at_any_moment(self, store: HashFS) -> None:
        id = begun(store, b"", None)
        reopen = self.reopening(store)
        context = multiprocessing.get_context("spawn")
        rng = random.Random(3)
        for _ in range(8):
            receiver, sender = context.Pipe(duplex=False)
            worker = context.Process(target=_upload_until_killed, args=(reopen, id, sender))
            worker.start()
            sender.close()
            told = 0
            for _ in range(rng.randrange(1, 8)):
                told = receiver.recv()
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
            taken = store.backend.pending.take(id)
            assert taken.offset >= told
            assert taken.read(len(CONTENT), 0) == CONTENT[: taken.offset]
            taken.close()
        taken = store.backend.pending.take(id)
        append(taken, CONTENT[taken.offset :], len(CONTENT))
        assert end(store, taken).id == ID

    def test_creations_beside_sweeps_leave_nothing_and_lose_nothing(self, store: HashFS) -> None:
        stop = threading.Event()
        errors: list[BaseException] = []

        def sweep() -> None:
            try:
                while not stop.is_set():
                    list(store.verify())
            except BaseException as error:
                errors.append(error)

        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        try:
            for _ in range(60):
                taken = store.backend.pending.create(new_id(), Record(length=4))
                append(taken, b"data", 4)
                taken.delete()
                taken.close()
        finally:
            stop.set()
            sweeper.join()
        assert errors == []
        store.backend.pending.sweep()
        assert self.left(store) == []
