"""Uploads that wait on a cache's disk, and go on in TMPDIR when that is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cached import wait_until
from file_systems import small_disk
from local_stores import inventory

from flask_hashfs._cache.spool import Spool
from flask_hashfs._cache.telling import Telling
from flask_hashfs._storage import upload_files
from flask_hashfs._storage.spool import SystemSpool
from flask_hashfs._storage.upload_files import FILES, UploadFile
from flask_hashfs._storage.writer import Writer

FIRST, SECOND, THIRD = (os.urandom(size) for size in (400_000, 900_000, 300_000))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    with small_disk(folder, "size=1m"):
        yield folder


@pytest.fixture(params=["unnamed", "named"])
def spool(
    request: pytest.FixtureRequest, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Spool]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = disk / "spool"
    spool = Spool(str(root), 0o755, SystemSpool(), Telling(str(disk), "store"))
    spool.unnamed = spool.other.unnamed = request.param == "unnamed"
    yield spool
    assert inventory(root) == inventory(tmp_path) == []
    assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > 1_000_000


def park(writer: Writer) -> None:
    file = writer.spilled
    assert isinstance(file, UploadFile)
    assert file.park()
    assert file.fd == -1


@pytest.mark.parametrize("parked_first", [False, True])
def test_an_upload_that_has_moved_can_be_closed_and_found_again(
    spool: Spool, parked_first: bool
) -> None:
    before = FILES.open_count
    with Writer("sha256", spool, 0o755) as writer:
        writer.count_as_upload()
        writer.write(FIRST)
        if parked_first:
            park(writer)
        writer.write(SECOND)
        file = writer.spilled
        assert file is not None
        assert (file.folder, file.can_be_kept) == (spool.other, False)
        assert inventory(Path(spool.root)) == []  # what it leaves has no use there
        park(writer)
        writer.write(THIRD)
        writer.finish()
        park(writer)
        with writer.reader() as reader:
            assert reader.read() == FIRST + SECOND + THIRD
    assert FILES.open_count == before


def test_a_descriptor_of_what_has_moved_reads_all_of_it(spool: Spool) -> None:
    with Writer("sha256", spool, 0o755) as writer:
        writer.write(FIRST)
        writer.write(SECOND)
        writer.finish()
        with os.fdopen(writer.open_descriptor(), "rb") as file:
            assert file.read() == FIRST + SECOND


def test_the_name_of_what_has_moved_is_touched(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = upload_files.UploadFiles(9)
    monkeypatch.setattr("flask_hashfs._storage.writer.FILES", files)
    monkeypatch.setattr(upload_files, "TOUCHED_EVERY", 0.01)
    spool.other.unnamed = False
    with Writer("sha256", spool, 0o755) as writer:
        writer.count_as_upload()
        writer.write(FIRST)
        writer.write(SECOND)
        file = writer.spilled
        assert isinstance(file, upload_files.UploadFile)
        path = file.path
        assert path is not None
        os.utime(path, (0, 0))

        def is_touched() -> bool:
            with file:  # as the upload goes on
                return os.stat(path).st_mtime > 0

        wait_until(is_touched, "it is touched")
