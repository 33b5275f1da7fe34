"""What is asked of a file system, where one call does less than it could."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_stores import open_files, write_few_bytes

from flask_hashfs import HashFS
from flask_hashfs._cache.backend import CachedBackend
from flask_hashfs._cache.count import Count
from flask_hashfs._cache.following import Following
from flask_hashfs._storage import page_cache, posix
from flask_hashfs._storage.pending import Record, new_id
from flask_hashfs._storage.spool import TemporaryFolder

DATA = b"0123456789"


@pytest.fixture
def wrote(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let each call write three bytes at most; return how many each has written."""
    return write_few_bytes(monkeypatch, 3)


@pytest.fixture
def fd(tmp_path: Path) -> Any:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | posix.BINARY, 0o600)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("position", [None, 2])
def test_all_is_written_in_several_calls(
    kind: Any, position: int | None, fd: int, wrote: list[int]
) -> None:
    posix.write_all(fd, kind(DATA), position)
    posix.write_all(fd, kind(b""), position)
    assert wrote == [3, 3, 3, 1]
    assert posix.read_at(fd, 100, position or 0) == DATA


def test_a_small_file_is_replaced_by_the_whole_new_one(tmp_path: Path, wrote: list[int]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    posix.replace_file(str(path), DATA, sync=False)
    assert path.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["file"]


def test_a_small_file_stays_where_a_part_of_the_new_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def nearly_full(fd: int, data: Any) -> int:
        if os.fstat(fd).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, bytes(data)[:3])

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(OSError, match="No space left"):
        posix.replace_file(str(path), DATA, sync=False)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.usefixtures("wrote")
def test_a_temporary_file_and_the_count_of_a_cache_are_written_whole(tmp_path: Path) -> None:
    file = TemporaryFolder(str(tmp_path)).create(0o755)
    file.write(DATA)
    assert posix.read_at(file.fd, 100, 0) == DATA
    file.close()
    count = Count(str(tmp_path / "count"), lambda: (0, 0), 0o755)
    with count.adding(300_000, 1_000_000) as has_room:
        assert has_room
    totals = count.totals()
    assert (totals.bytes, totals.files) == (300_000, 1)


class TestNoDescriptorIsLeftOpen:
    """Network file systems refuse locks, and fail to tell of a file that is open."""

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, tmp_path: Path) -> Iterator[None]:
        yield
        assert not [path for path in open_files() if path.startswith(str(tmp_path))]

    @pytest.fixture
    def no_locks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refuse(monkeypatch, fcntl, "flock", errno.ENOLCK)

    @pytest.mark.usefixtures("no_locks")
    @pytest.mark.parametrize("wait", [True, False])
    def test_by_a_file_that_cannot_be_locked(self, tmp_path: Path, wait: bool) -> None:
        with pytest.raises(OSError, match="No locks available"):
            posix.lock_file(str(tmp_path / "lock"), 0o755, wait=wait)

    @pytest.mark.parametrize("has_flock", [True, False])
    def test_by_a_locked_file_that_cannot_be_looked_at(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_flock: bool
    ) -> None:
        if not has_flock:
            monkeypatch.setattr(posix, "fcntl", None)
        with monkeypatch.context() as patched:
            refuse(patched, os, "lstat", errno.EIO)
            with pytest.raises(OSError, match="Input/output error"):
                posix.lock_file(str(tmp_path / "lock"), 0o755, wait=True)
        fd = posix.lock_file(str(tmp_path / "lock"), 0o755, wait=False)
        assert fd is not None, "it is not locked"
        posix.unlock_and_close(fd)

    def test_by_an_open_file_that_cannot_be_measured(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        with monkeypatch.context() as patched:
            refuse(patched, os, "fstat", errno.ESTALE)
            with pytest.raises(OSError, match="Stale"):
                posix.open_regular(str(tmp_path / "file"), os.O_RDONLY)

    def test_by_stored_content_that_cannot_be_looked_at(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = HashFS(tmp_path / "root", fsync=False)
        address = store.put(DATA)
        refuse(monkeypatch, page_cache, "reads_cached", errno.EIO)
        with pytest.raises(OSError, match="Input/output error"):
            store.open(address)

    @pytest.mark.usefixtures("no_locks")
    def test_by_a_fill_that_cannot_be_read_along(self, tmp_path: Path) -> None:
        (tmp_path / "fill").touch()
        with pytest.raises(OSError, match="No locks available"):
            Following.of(str(tmp_path / "fill"), 1)

    @pytest.mark.parametrize("size", [10, 300_000], ids=["small", "large"])
    def test_by_a_put_that_cannot_be_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        pytest.importorskip("obstore", reason="obstore is not installed: no put is kept")
        from flask_hashfs._store.object_store import ObjectStore

        store, kept = ObjectStore("memory://"), tmp_path / "cache"
        store.backend = CachedBackend(store.backend, str(kept), 10**9, 10**9, 300)
        refuse(monkeypatch, fcntl, "flock", errno.ENOLCK)
        store.put(bytes(size))
        assert not [each for each in kept.rglob("*") if each.is_file() and each.stat().st_size]

    def test_by_a_resumable_upload_whose_end_cannot_be_unlocked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = HashFS(tmp_path / "root", fsync=False)
        taken = store.backend.pending.create(new_id(), Record(length=0))
        writer = taken.end()
        assert writer is not None
        writer.close()
        with monkeypatch.context() as patched:
            refuse(patched, fcntl, "flock", errno.ENOLCK)
            with pytest.raises(OSError, match="No locks available"):
                taken.close()


def refuse(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, number: int) -> None:
    """Let each call of a function fail."""

    def call(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, name, call)
