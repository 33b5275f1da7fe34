"""The temporary files of uploads: how many are open, and that none is lost."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cached import wait_until
from local_stores import inventory

from flask_hashfs import HashFS
from flask_hashfs._storage import upload_files
from flask_hashfs._storage.spool import TEMPORARY, SystemSpool, TemporaryFolder
from flask_hashfs._storage.upload_files import UploadFile, UploadFiles

DMODE = 0o755


def folder_of(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> TemporaryFolder:
    root.mkdir()
    if kind == "of the system":
        monkeypatch.setattr("tempfile.tempdir", str(root))
        return SystemSpool()
    folder = TemporaryFolder(str(root))
    if kind == "of named files":
        folder.unnamed = False
    return folder


@pytest.fixture(params=["of a root", "of named files", "of the system"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TemporaryFolder:
    return folder_of(request.param, tmp_path / "root", monkeypatch)


def create(files: UploadFiles, folder: TemporaryFolder) -> UploadFile:
    return files.create(lambda: folder.create(DMODE))


def content(file: UploadFile) -> bytes:
    buffer = bytearray(100)
    return bytes(buffer[: file.read_into(memoryview(buffer), 0)])


def test_one_more_closes_the_one_idle_longest_and_each_goes_on(folder: TemporaryFolder) -> None:
    files = UploadFiles(2)
    first, second, third = (create(files, folder) for _ in range(3))
    assert (first.fd, files.open_count) == (-1, 2)
    second.write(b"2")
    first.write(b"1")
    assert (third.fd, files.open_count) == (-1, 2)
    third.write(b"3")
    for file in (first, second, third):
        file.write(b"+")
    assert [content(file) for file in (first, second, third)] == [b"1+", b"2+", b"3+"]
    assert files.open_count == 2
    for file in (first, second, third):
        file.close()
        file.close()
    assert (files.open_count, files.waiting) == (0, 0)
    assert not inventory(Path(folder.root))


def test_what_is_read_back_does_not_move_where_the_next_write_goes(
    folder: TemporaryFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pread", "preadv"):  # Windows has neither
        monkeypatch.delattr(os, name, raising=False)
    file = create(UploadFiles(1), folder)
    file.write(b"123")
    assert file.read_into(memoryview(bytearray(2)), 0) == 2
    file.write(b"4")
    assert content(file) == b"1234"
    file.close()


def test_a_closed_file_can_be_published_and_read_and_leaves_no_other_name(
    folder: TemporaryFolder,
) -> None:
    files, target = UploadFiles(1), os.path.join(folder.root, "target")
    first = create(files, folder)
    first.write(b"content")
    second = create(files, folder)
    first.publish(target, 0o444, DMODE, True)
    second.write(b"x")
    assert content(first) == b"content"
    os.close(first.reopen())
    for file in (first, second):
        file.close()
    assert inventory(Path(folder.root)) == [Path(target)]


def test_others_are_counted_while_the_disk_takes_its_time_to_close_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of("of a root", tmp_path / "root", monkeypatch)
    begun, goes_on, link = threading.Event(), threading.Event(), folder.new_name

    def slow(*args: Any) -> str:
        begun.set()
        assert goes_on.wait(60)
        return link(*args)

    monkeypatch.setattr(folder, "new_name", slow)
    files = UploadFiles(2)
    first, second = create(files, folder), create(files, folder)
    if first.path is not None:
        pytest.skip("this file has a name from the start")
    third: list[UploadFile] = []
    maker = threading.Thread(target=lambda: third.append(create(files, folder)))
    maker.start()
    assert begun.wait(60)
    closer = threading.Thread(target=second.close)
    closer.start()
    closer.join(60)
    is_closed = not closer.is_alive()
    goes_on.set()
    maker.join(60)
    assert is_closed
    assert (first.fd, files.open_count) == (-1, 1)
    for file in (first, *third):
        file.close()
    assert not inventory(Path(folder.root))


@pytest.mark.slow
def test_what_cannot_have_a_name_stays_open(folder: TemporaryFolder) -> None:
    files, file = UploadFiles(1), folder.create(DMODE)
    if file.path is not None:
        pytest.skip("this file has a name from the start")
    if isinstance(folder, SystemSpool):
        pytest.skip("its folder of names is a new one, with nothing in the way")
    lost = UploadFile(file, files)
    files.opened(lost)
    os.makedirs(os.path.join(folder.root, os.path.dirname(TEMPORARY)))
    Path(folder.root, TEMPORARY).touch()  # where the folder of names would be
    second = create(files, folder)
    assert files.open_count == 2
    for each in (lost, second):
        each.write(b"x")
        each.close()


def test_a_closed_file_is_as_young_as_its_name(folder: TemporaryFolder) -> None:
    files = UploadFiles(1)
    first = create(files, folder)
    os.utime(first.fd, (0, 0))  # it has waited long for its next bytes
    second = create(files, folder)
    assert first.path is not None
    assert os.stat(first.path).st_mtime > 0
    for file in (first, second):
        file.close()


@pytest.mark.parametrize("stranger", [os.link, os.symlink])
def test_no_other_file_is_taken_for_a_closed_one(
    folder: TemporaryFolder, tmp_path: Path, stranger: Callable[[Path, str], None]
) -> None:
    (other := tmp_path / "other").write_bytes(b"mine")
    files = UploadFiles(1)
    first, second = create(files, folder), create(files, folder)
    assert first.path is not None
    os.unlink(first.path)
    stranger(other, first.path)
    with pytest.raises(FileNotFoundError):
        first.write(b"x")
    assert other.read_bytes() == b"mine"
    for file in (first, second):
        file.close()


def test_a_file_is_not_closed_by_what_it_is_just_used_for(
    folder: TemporaryFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_files, "_PATIENCE", 0.0)
    files = UploadFiles(1)
    file = create(files, folder)
    file.write(b"all of it")
    fd = file.reopen()  # for which there is room only if the file itself is closed
    try:
        assert os.pread(fd, 100, 0) == b"all of it"
    finally:
        os.close(fd)
    with file:
        assert not files._park_one()
    assert files._park_one()
    file.close()


@pytest.mark.slow
def test_what_lost_its_address_stays_open(folder: TemporaryFolder) -> None:
    files, target = UploadFiles(1), os.path.join(folder.root, "target")
    first = create(files, folder)
    first.link(target)
    os.unlink(target)
    if first.path is None:
        second = create(files, folder)
        assert (first.fd >= 0, files.open_count) == (True, 2)
        second.close()
    first.close()


@pytest.mark.slow
def test_what_lost_its_only_name_stays_open(folder: TemporaryFolder) -> None:
    files = UploadFiles(1)
    first, second = create(files, folder), create(files, folder)
    first.write(b"1")
    assert first.path is not None
    os.unlink(first.path)
    second.write(b"2")
    assert (first.fd >= 0, files.open_count) == (True, 2)
    assert content(first) == b"1"
    for file in (first, second):
        file.close()


def test_bytes_that_are_lost_when_a_file_is_closed_are_the_loss_of_its_own_upload(
    folder: TemporaryFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = UploadFiles(1)
    first = create(files, folder)
    first.write(b"1")
    close, its_own = os.close, first.fd

    def fail(fd: int) -> None:
        close(fd)
        if fd == its_own:
            raise OSError(errno.EDQUOT, "as NFS does")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        second = create(files, folder)
    second.write(b"2")
    assert (first.fd, files.open_count, content(second)) == (-1, 1, b"2")
    for use in (lambda: first.write(b"1"), lambda: content(first), first.reopen):
        with pytest.raises(OSError, match="as NFS does"):
            use()
    for file in (first, second):
        file.close()
    assert not inventory(Path(folder.root))


@pytest.mark.slow
def test_a_file_whose_disk_fails_is_no_hindrance_to_others(
    folder: TemporaryFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = UploadFiles(1)
    first = create(files, folder)

    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", fail)
        patch.setattr(os, "supports_fd", {fail})
        second = create(files, folder)
    assert (first.fd >= 0, files.open_count) == (True, 2)
    for file in (first, second):
        file.close()


def test_nobody_else_can_enter_the_folder_of_names_below_tmp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of("of the system", tmp_path / "root", monkeypatch)
    files = UploadFiles(1)
    first, second = create(files, folder), create(files, folder)
    assert first.path is not None
    assert os.stat(os.path.dirname(first.path)).st_mode & 0o777 == 0o700
    for file in (first, second):
        file.close()
    assert os.listdir(folder.root) == []


@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open, named from birth"])
def test_a_name_is_touched_so_that_no_clean_up_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    assert upload_files.TOUCHED_EVERY <= 600
    monkeypatch.setattr(upload_files, "TOUCHED_EVERY", 0.01)
    store = HashFS(str(tmp_path))
    files, folder = UploadFiles(1 + is_open), TemporaryFolder(store.root)
    folder.unnamed = folder.unnamed and not is_open
    first, second = create(files, folder), create(files, folder)
    assert (first.fd >= 0) == is_open
    assert first.path is not None
    os.utime(first.path, (0, 0))

    def is_touched() -> bool:
        with second:  # a name is noted by what others do, too
            return os.stat(str(first.path)).st_mtime > 0

    wait_until(is_touched, "it is touched")
    assert list(store.verify()) == []  # which sweeps what is old
    assert os.path.exists(first.path)
    threads = [
        thread
        for thread in threading.enumerate()
        if isinstance(thread, threading.Timer) and thread.function == files._touch
    ]
    for file in (first, second):
        file.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_what_has_lost_its_only_name_is_published_as_a_copy(tmp_path: Path) -> None:
    store = HashFS(str(tmp_path), fsync=False)
    writer = store.backend.new_writer(None)
    writer.folder.unnamed = False
    with writer:
        writer.count_as_upload()
        writer.write(bytes(300_000))
        assert writer.spilled is not None
        assert writer.spilled.path is not None
        os.unlink(writer.spilled.path)
        writer.write(b"more")
        address = store.commit(writer)
    assert os.stat(address.abspath).st_size == 300_004


def test_a_file_that_lives_for_a_moment_takes_no_thread_to_touch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, folder = UploadFiles(9), folder_of("of named files", tmp_path / "root", monkeypatch)
    for _ in range(3):
        file = create(files, folder)
        file.write(b"all of it")
        assert files._timer is None
        file.close()


def test_a_forked_process_leaves_the_files_of_its_parent_alone(folder: TemporaryFolder) -> None:
    files = UploadFiles(9)
    file = create(files, folder)
    files.forget_threads()  # what a child does first
    assert not files._park_one()
    assert (file.fd >= 0, files.open_count) == (True, 0)
    file.close()


def test_many_threads_use_many_files_and_no_byte_is_lost(folder: TemporaryFolder) -> None:
    files = UploadFiles(3)
    wanted: list[bytes] = []
    made: list[UploadFile] = []

    def upload(number: int) -> None:
        mine = [create(files, folder) for _ in range(4)]
        texts = [b"" for _ in mine]
        chance = random.Random(number)
        for step in range(40):
            which = chance.randrange(4)
            piece = b"%d" % (step % 10)
            mine[which].write(piece)
            texts[which] += piece
        made.extend(mine)
        wanted.extend(texts)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {content(file) for file in made} == set(wanted)
    assert files.open_count <= 6
    for file in made:
        file.close()
    assert (files.open_count, files.waiting) == (0, 0)
    assert not inventory(Path(folder.root))


def test_only_a_file_that_an_address_keeps_is_closed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, target = folder_of("of a root", tmp_path / "root", monkeypatch), tmp_path / "target"
    files = UploadFiles(2)
    file = create(files, folder)
    if file.path is not None:
        file.close()
        pytest.skip("files of this file system have names from the start")
    assert not file.close_at_once()  # no address keeps it
    file.publish(str(target), 0o644, DMODE, False)
    target.unlink()
    assert not file.close_at_once()  # none does any more
    file.close()
    file = create(files, folder)
    file.publish(str(target), 0o644, DMODE, False)
    assert file.close_at_once()
    assert (file.fd, files.open_count) == (-1, 0)
