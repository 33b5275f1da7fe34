"""Unfinished uploads on disk: the contract, and what only a folder has, as modes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_stores import write_few_bytes
from pending_contract import CONTENT, ID, PendingContract, Reopen, append, begun, end

from flask_hashfs import HashFS
from flask_hashfs._storage import posix
from flask_hashfs._storage.pending import (
    HashStates,
    NoRoomError,
    Record,
    UnknownUploadError,
    UploadLimits,
    new_id,
)

FINAL = {"status": 200}


@pytest.fixture
def store(tmp_path: Path) -> HashFS:
    return HashFS(tmp_path / "root", fsync=False)


def files_below(store: HashFS) -> list[str]:
    """Return the files below the root, and the folders that are empty."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), store.root)
        for folder, folders, names in os.walk(store.root)
        for name in names or ([] if folders or folder == store.root else [""])
    )


def folder(store: HashFS, id: str) -> Path:
    return Path(store.root, ".hashfs", "uploads", id)


def list_folder(store: HashFS) -> Path:
    return Path(store.root, ".hashfs", "unfinished")


class TestLocalUploads(PendingContract):
    def left(self, store: HashFS) -> list[str]:
        return files_below(store)

    def age(self, store: HashFS, id: str, seconds: float) -> None:
        past = time.time() - seconds
        for path in folder(store, id).iterdir():
            os.utime(path, (past, past))

    def reopening(self, store: HashFS) -> Reopen:
        return functools.partial(HashFS, store.root, fsync=False)

    def entries(self, store: HashFS) -> list[str]:
        path = list_folder(store)
        return [entry.name for entry in path.iterdir()] if path.exists() else []

    def put_entry(self, store: HashFS, name: str, seconds: float) -> None:
        list_folder(store).mkdir(parents=True, exist_ok=True)
        path = list_folder(store) / name
        path.touch()
        then = time.time() - seconds
        os.utime(path, (then, then))

    def drop_entry(self, store: HashFS, name: str) -> None:
        (list_folder(store) / name).unlink()


class TestLocalUploadsWithoutFlock(TestLocalUploads):
    """As on Windows: in one process, since other processes are not locked out there."""

    @pytest.fixture(autouse=True)
    def without_flock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(posix, "fcntl", None)

    def reopening(self, store: HashFS) -> Reopen:
        pytest.skip("takes more than one process")

    def test_no_lock_is_left_of_an_upload(self, store: HashFS) -> None:
        taken = store.backend.pending.take(begun(store, CONTENT))
        end(store, taken)
        assert not posix._NO_FLOCK._holders


def test_an_upload_is_whole_where_each_call_writes_a_few_bytes(
    store: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_few_bytes(monkeypatch, 7)
    pending = store.backend.pending
    taken = pending.take(begun(store))
    append(taken, CONTENT[1000:1100], len(CONTENT))
    assert taken.sync() == 1100
    taken.close()
    assert pending.find(taken.id).offset == 1100
    assert (folder(store, taken.id) / "lock").stat().st_size == 52


def test_an_offset_is_not_told_where_a_mark_is_made_meanwhile(
    store: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = store.backend.pending.take(begun(store))
    lstat = posix.lstat

    def write_and_lstat(path: str) -> os.stat_result | None:
        monkeypatch.setattr(posix, "lstat", lstat)
        append(taken, CONTENT[1000:2000], len(CONTENT), marked=True)
        return lstat(path)

    monkeypatch.setattr(posix, "lstat", write_and_lstat)
    assert store.backend.pending.find(taken.id).offset == 1000
    taken.cut()
    taken.close()


def test_the_content_is_the_file_that_was_written(store: HashFS) -> None:
    id = begun(store, CONTENT)
    inode = (folder(store, id) / "data").stat().st_ino
    address = end(store, store.backend.pending.take(id))
    assert os.stat(address.abspath).st_ino == inode, "it is linked, not copied"
    assert os.stat(address.abspath).st_nlink == 1


def test_bytes_wait_in_private_files(store: HashFS) -> None:
    path = folder(store, begun(store))
    assert sorted(each.name for each in path.iterdir()) == ["data", "lock", "state"]
    assert (path / "data").read_bytes() == CONTENT[:1000]
    assert stat.S_IMODE((path / "data").stat().st_mode) == 0o600


def test_a_file_system_without_links_gets_a_copy(
    store: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    link = os.link
    taken = store.backend.pending.take(begun(store, CONTENT))
    data = folder(store, taken.id) / "data"
    monkeypatch.setattr(
        os,
        "link",
        lambda source, *args, **more: (
            refuse() if source == str(data) else link(source, *args, **more)
        ),
    )
    writer = taken.end()
    assert writer is not None
    address = store.commit(writer)
    assert data.read_bytes() == CONTENT, "the bytes stay until the end is recorded"
    assert Path(address.abspath).read_bytes() == CONTENT
    writer.close()
    taken.finish(FINAL)
    taken.close()
    assert not data.exists()


def test_an_unreadable_state_is_no_upload(store: HashFS) -> None:
    id = begun(store)
    for content in (b"", b"{", b"[]", b"7", b'{"a": 1}'):
        (folder(store, id) / "state").write_bytes(content)
        if content == b'{"a": 1}':
            assert store.backend.pending.find(id).record == Record(), "what a later version may add"
        else:
            with pytest.raises(UnknownUploadError):
                store.backend.pending.find(id)


def test_only_so_many_hash_states_are_kept() -> None:
    states = HashStates(3)
    for number in range(5):
        states.put(("root", str(number)), number, hashlib.sha256())
    assert len(states) == 3
    assert states.get(("root", "1")) is None
    found = states.get(("root", "4"))
    assert found is not None
    found[1].update(b"a copy")
    again = states.get(("root", "4"))
    assert again is not None
    assert again[1].digest() == hashlib.sha256().digest()


def test_a_folder_that_a_killed_creation_left_goes_after_an_hour(store: HashFS) -> None:
    path = folder(store, "0" * 32)
    path.mkdir(parents=True)
    (path / "data").touch()
    store.backend.pending.sweep()
    assert path.exists()
    then = time.time() - 3700
    os.utime(path, (then, then))
    store.backend.pending.sweep()
    assert not path.exists()


def test_nobody_goes_on_with_an_upload_while_it_is_swept(
    store: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads, id = store.backend.pending, begun(store)
    remove, could_be_locked = uploads.remove, list[bool]()  # type: ignore[attr-defined]

    def look_and_remove(id: str, *more: Any) -> None:
        with open(folder(store, id) / "lock", "rb+") as file:
            could_be_locked.append(posix.lock(file.fileno(), wait=False))
        remove(id, *more)

    monkeypatch.setattr(uploads, "remove", look_and_remove)
    then = time.time() - 90000
    for path in folder(store, id).iterdir():
        os.utime(path, (then, then))
    assert uploads.sweep() == 1
    assert could_be_locked == [False]
    assert not folder(store, id).exists()


def test_every_offset_that_is_told_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HashFS(tmp_path / "root")
    synced: list[str] = []
    fdatasync, fsync = os.fdatasync, os.fsync

    def note(fd: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(os, "fdatasync", lambda fd: (note(fd), fdatasync(fd))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (note(fd), fsync(fd))[1])
    taken = store.backend.pending.create(new_id(), Record(length=len(CONTENT)))
    assert {"uploads", ".hashfs", "root", taken.id} <= set(synced), "its entries"
    assert any(name.startswith("state.") for name in synced)
    append(taken, CONTENT[:1000], len(CONTENT))
    synced.clear()
    assert taken.sync() == 1000
    assert synced == ["data"]
    taken.close()
    synced.clear()
    again = store.backend.pending.take(taken.id)
    assert again.sync() == 1000
    assert synced == [], "it has been told before"
    append(again, CONTENT[1000:2000], len(CONTENT))
    again.close()
    again = store.backend.pending.take(taken.id)
    assert again.sync() == 2000
    assert synced == ["data"], "nobody has told it yet"
    again.close()


def test_a_file_that_a_power_cut_left_shorter_than_its_mark_is_not_filled_up(
    store: HashFS,
) -> None:
    killed = store.backend.pending.take(begun(store))
    append(killed, CONTENT[1000:2000], len(CONTENT), marked=True)
    os.truncate(folder(store, killed.id) / "data", 400)  # no more had reached the disk
    again = store.backend.pending.take(killed.id)
    killed.close()
    assert again.offset == again.sync() == 400
    append(again, CONTENT[400:], len(CONTENT))
    assert end(store, again).id == ID


def test_no_offset_is_told_of_an_upload_whose_folder_somebody_has_deleted(store: HashFS) -> None:
    taken = store.backend.pending.take(begun(store))
    append(taken, CONTENT[1000:2000], len(CONTENT))
    shutil.rmtree(folder(store, taken.id))
    with pytest.raises(UnknownUploadError):
        taken.sync()
    taken.close()


def test_an_upload_that_has_ended_still_tells_its_size(store: HashFS) -> None:
    with contextlib.closing(store.backend.pending.take(begun(store, CONTENT))) as taken:
        writer = taken.end()
        assert writer is not None
        with writer:
            store.commit(writer)
        taken.finish(FINAL)
        assert taken.sync() == len(CONTENT)


def test_looking_at_a_huge_upload_reads_none_of_it(
    store: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 10 * 1024**3
    id = begun(store, b"begun", 2 * size)
    os.truncate(folder(store, id) / "data", size)  # a hole
    read = list[int]()
    read_at = posix.read_at

    def note_and_read(fd: int, size: int, position: int) -> bytes:
        read.append(size)
        return read_at(fd, size, position)

    monkeypatch.setattr(posix, "read_at", note_and_read)
    with contextlib.closing(store.backend.pending.take(id)) as taken:
        assert taken.offset == taken.sync() == size
    assert sum(read) < 1000, "the locks alone"


def test_a_full_disk_keeps_what_was_written(store: HashFS, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = store.backend.pending.take(begun(store))
    pwrite = os.pwrite

    def nearly_full(fd: int, data: Any, position: int) -> int:
        if position >= 1500:
            raise OSError(28, "No space left on device")
        return pwrite(fd, data[: 1500 - position], position)

    taken.begin(len(CONTENT), True, marked=False, brings=1000)
    with monkeypatch.context() as patch:
        patch.setattr(
            os,
            "pwrite",
            lambda fd, data, position: (
                nearly_full(fd, data, position) if len(data) > 60 else pwrite(fd, data, position)
            ),
        )
        with pytest.raises(OSError, match="No space"):
            taken.write(CONTENT[1000:2000])
    assert taken.offset == 1500
    taken.write(CONTENT[1500:])
    taken.close()
    assert end(store, store.backend.pending.take(taken.id)).id == ID


def test_nothing_stays_open(store: HashFS) -> None:
    def opened() -> Iterator[str]:
        for fd in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue
            if target.startswith(store.root):
                yield target

    taken = store.backend.pending.take(begun(store, CONTENT))
    end(store, taken)
    taken = store.backend.pending.take(begun(store))
    taken.delete()
    taken.close()
    store.backend.pending.sweep()
    assert list(opened()) == []


def test_another_user_s_prune_makes_no_list_that_the_app_could_not_write(
    store: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = begun(store)
    shutil.rmtree(list_folder(store))  # as an earlier version leaves it
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.stat(store.root).st_uid + 1, raising=False)
        assert list(store.verify()) == []
    assert not list_folder(store).exists()
    store.backend.pending.sweep()
    assert [path.name for path in list_folder(store).iterdir()] == [f"{id}-whole"]


def test_an_upload_ends_though_its_entry_cannot_be_removed(
    store: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def refuse(path: str, **more: Any) -> None:
        if "unfinished" in str(path):
            raise PermissionError(1, "Operation not permitted")
        unlink(path, **more)

    taken = store.backend.pending.take(begun(store, CONTENT))
    monkeypatch.setattr(os, "unlink", refuse)
    assert end(store, taken).id == ID
    assert store.backend.pending.find(taken.id).record.final is not None


def test_bytes_of_uploads_of_an_earlier_version_count(store: HashFS) -> None:
    id = begun(store, CONTENT[:1000])
    shutil.rmtree(list_folder(store))
    again = HashFS(store.root, fsync=False)
    again.backend.pending.limits = UploadLimits(most_bytes=1500)
    taken = again.backend.pending.take(id)
    with pytest.raises(NoRoomError):
        append(taken, CONTENT[1000:2000], len(CONTENT))
    assert taken.offset == 1500
    taken.close()


def test_the_state_is_json_for_other_programs_to_read(store: HashFS) -> None:
    record = Record(owner="me", length=9)
    taken = store.backend.pending.create(new_id(), record)
    taken.close()
    values = json.loads((folder(store, taken.id) / "state").read_bytes())
    assert (values["owner"], values["length"]) == ("me", 9)
