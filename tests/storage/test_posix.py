"""What is asked of a file system, where one call does less than it could."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from local_stores import write_few_bytes

from flask_hashfs._cache.count import Count
from flask_hashfs._storage import posix
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
