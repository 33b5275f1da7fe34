"""What is a local store's own: paths, links, modes, trees of hashfs 0.7.2, trouble with disks."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import hashfs
import hypothesis
import hypothesis.strategies as st
import pytest
from local_stores import (
    WAYS,
    assert_tidy,
    has_unnamed_files,
    local_stores,
    open_files,
    refuse_links,
    spool_of,
)
from permissions import permissions_hold

from flask_hashfs import HashAddress, HashFS, NotStoredError
from flask_hashfs._storage import posix
from flask_hashfs._storage.spool import TemporaryFolder
from flask_hashfs._storage.writer import UploadStream
from flask_hashfs.testing.store_contract import HELLO, LARGE, NewStore, content, id_of, read

ADDRESS = os.path.join(*HELLO[:4], HELLO[4:])
"""Where content ``hello`` lies below a root."""


def address_of(store: HashFS, file: str) -> HashAddress:
    """Look up what is there."""
    address = store.get(file)
    assert address is not None
    return address


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


@pytest.fixture
def new_store(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NewStore]:
    with local_stores(way, tmp_path / "stores", monkeypatch) as new:
        yield new


@pytest.fixture
def store(new_store: NewStore) -> HashFS:
    return new_store()


@pytest.fixture
def plain(tmp_path: Path) -> HashFS:
    """A store, where it makes no difference how content gets its address."""
    return HashFS(tmp_path / "root", fsync=False)


def mode_of(path: str | os.PathLike[str]) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def everything(folder: str | os.PathLike[str]) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))


def plant(store: HashFS, data: bytes, relpath: str) -> Path:
    """Write a file into the tree, as others may."""
    path = Path(store.root, relpath)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# -- names and modes ---------------------------------------------------------------------------


def test_the_root_is_made_by_the_first_put(store: HashFS) -> None:
    assert not os.path.exists(store.root)
    store.get(HELLO)
    store.delete(HELLO)
    list(store.files())
    assert not os.path.exists(store.root)
    store.put(b"hello")
    assert os.path.isfile(os.path.join(store.root, ADDRESS))


def test_a_root_may_be_relative_a_path_or_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    store = HashFS("real", fsync=False)
    stores = [store, HashFS(Path("link")), HashFS(tmp_path / "x/../real")]
    address = store.put(b"hello")
    monkeypatch.chdir("/")
    for store in stores:
        assert store.root == str(tmp_path / "real")
        assert store.get(address.abspath) == address
        assert store.get(tmp_path / "link" / address.relpath) == address
        assert store.get(tmp_path / "x" / ".." / "real" / address.relpath) == address
    store.delete(tmp_path / "link" / address.relpath)
    assert everything(tmp_path / "real") == []


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("size", [5, LARGE])
def test_modes_are_exact_and_the_umask_is_left_alone(
    new_store: NewStore, mask: int, size: int
) -> None:
    os.makedirs(os.path.dirname(new_store().root), exist_ok=True)
    before = os.umask(mask)
    try:
        for fmode in (0o664, 0o600, 0o444, 0o640):
            store = new_store(fmode=fmode, dmode=0o750)
            address = store.put(content(size))
            assert mode_of(address.abspath) == fmode
            folder = os.path.dirname(address.abspath)
            while len(folder) > len(store.root):
                assert mode_of(folder) == 0o750 & ~mask
                folder = os.path.dirname(folder)
    finally:
        assert os.umask(before) == mask


def test_a_file_system_without_modes_is_told_once(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on CIFS, where fchmod is refused unless it would change nothing."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(os, "chmod", refuse)
    store = new_store()
    for data in (b"hello", b"there", b"x" * LARGE):
        assert read(store, store.put(data, "txt")) == data
    Path(address_of(store, id_of(b"hello")).abspath).rename(os.path.join(store.root, "misplaced"))
    assert len(store.repair()) == 1
    assert caplog.text.count("cannot be given modes") == 1


@pytest.mark.parametrize("size", [5, LARGE])
def test_without_a_mode_files_are_their_owners(new_store: NewStore, size: int) -> None:
    store = new_store(fmode=None)
    address = store.put(content(size))
    assert mode_of(address.abspath) == 0o600
    os.chmod(address.abspath, 0o640)
    moved = HashFS(store.root, depth=1, fmode=None).repair()[0][1]
    assert mode_of(moved.abspath) == 0o640


def test_names_of_one_content_are_links(plain: HashFS) -> None:
    names = [plain.put(content(LARGE), extension).abspath for extension in ("", "a", "b")]
    assert len({os.stat(name).st_ino for name in names}) == 1
    assert os.stat(names[0]).st_nlink == 3


def test_names_are_copies_where_links_are_refused(
    plain: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool_of(plain).unnamed = False
    refuse_links(monkeypatch)
    names = [plain.put(content(LARGE), extension) for extension in ("", "a", "b")]
    assert [name.is_duplicate for name in names] == [False, True, True]
    assert len({os.stat(name.abspath).st_ino for name in names}) == 3
    assert {Path(name.abspath).read_bytes() for name in names} == {content(LARGE)}
    assert_tidy(plain)


def test_unnamed_files_are_given_up_where_they_cannot_be_linked(
    plain: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_links(monkeypatch)
    assert not plain.put(content(LARGE)).is_duplicate
    with plain.writer() as writer:
        writer.write(content(2 * LARGE))
        assert not plain.commit(writer).is_duplicate
        assert plain.commit(writer, "txt").is_duplicate
    assert plain.count() == 3
    assert_tidy(plain)


def test_a_name_is_a_copy_where_a_file_has_too_many_links(
    plain: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def refuse(source: str, target: str, **options: Any) -> None:
        if source == first.abspath:
            raise OSError(errno.EMLINK, "Too many links")
        link(source, target, **options)

    first = plain.put(b"hello")
    monkeypatch.setattr(os, "link", refuse)
    assert plain.put(b"hello", "txt").is_duplicate
    assert plain.count() == 2


@hypothesis.given(
    depth=st.integers(0, 40),
    width=st.integers(0, 12),
    id=st.text("0123456789abcdef", min_size=1, max_size=70),
    extension=st.sampled_from(["", None, "txt", ".txt", ".tar.gz", "..."]),
)
def test_shards_and_paths_are_those_of_hashfs(
    depth: int, width: int, id: str, extension: str | None
) -> None:
    ours = HashFS("/root", depth, width)
    theirs: Any = hashfs.HashFS("/root", depth, width)
    assert ours.shard(id) == theirs.shard(id)
    assert ours.idpath(id, extension) == theirs.idpath(id, extension)


def test_an_upload_is_linked_not_copied(plain: HashFS, tmp_path: Path) -> None:
    other = HashFS(tmp_path / "other", fsync=False)
    with plain.writer() as writer:
        writer.write(content(LARGE))
        stream = UploadStream(writer)
        inodes = {os.stat(store.put(stream).abspath).st_ino for store in (plain, other)}
    assert len(inodes) == 1


def test_a_put_of_content_in_memory_holds_no_descriptor(store: HashFS) -> None:
    before, streams = open_files(), []
    for number in range(20):
        with store.writer() as writer:
            writer.write(b"%d" % number)
            writer.finish()
            store.commit(writer)
            store.commit(writer, "txt")
            assert open_files() == before
        upload = store.writer()
        upload.write(b"upload %d" % number)
        stream = UploadStream(upload)
        streams.append(stream)
        address = store.put(stream, "txt")
        assert not address.is_duplicate
        assert open_files() == before
        assert stream.read() == b"upload %d" % number
        store.delete(address.id)
        assert not store.put(stream).is_duplicate
    assert open_files() == before
    assert store.count() == 60
    for stream in streams:
        stream.close()


def test_an_upload_is_copied_into_a_store_of_another_mode(plain: HashFS, tmp_path: Path) -> None:
    other = HashFS(tmp_path / "other", fmode=0o600, fsync=False)
    with plain.writer() as writer:
        writer.write(content(LARGE))
        stream = UploadStream(writer)
        assert [mode_of(store.put(stream).abspath) for store in (plain, other)] == [0o664, 0o600]
        assert [mode_of(store.put(stream).abspath) for store in (plain, other)] == [0o664, 0o600]


@pytest.mark.parametrize("first", ["here", "there"])
def test_an_upload_is_copied_to_another_device(store: HashFS, first: str) -> None:
    folder = other_device(store)
    try:
        other = HashFS(folder, fsync=False)
        spool_of(other).unnamed = spool_of(store).unnamed
        with store.writer() as writer:
            writer.write(content(LARGE))
            stream = UploadStream(writer)
            for each in (store, other) if first == "here" else (other, store):
                assert not each.put(stream).is_duplicate
                assert read(each, id_of(content(LARGE))) == content(LARGE)
        assert_tidy(other)
    finally:
        shutil.rmtree(folder)


def test_content_of_a_device_that_is_mounted_twice_is_copied_and_nothing_stays_open(
    plain: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, refused = os.link, list[bool]()

    def refuse_once(*args: Any, **options: Any) -> None:
        if not refused:
            refused.append(True)
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(*args, **options)

    before = open_files()
    monkeypatch.setattr(os, "link", refuse_once)
    with plain.writer() as writer:
        writer.write(content(LARGE))
        address = plain.commit(writer)
    assert refused
    assert read(plain, address.id) == content(LARGE)
    assert open_files() == before
    assert_tidy(plain)


def test_a_file_whose_rename_fails_on_windows_is_closed_once(
    plain: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool_of(plain).unnamed = False
    file = spool_of(plain).create(0o755)
    refuse_links(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        with pytest.raises(FileNotFoundError):
            file.link(os.path.join(plain.root, "missing", "name"))
    descriptor = os.open(plain.root, os.O_RDONLY)  # gets the number that has become free
    try:
        file.close()
        os.fstat(descriptor)
    finally:
        os.close(descriptor)
    assert_tidy(plain)


def other_device(store: HashFS) -> str:
    folder = Path("/dev/shm")
    there = folder.is_dir() and os.access(folder, os.W_OK) and folder.stat().st_dev
    if there in (False, os.stat(os.path.dirname(os.path.dirname(store.root))).st_dev):
        pytest.skip("/dev/shm is no second disk")
    return subprocess.check_output(["mktemp", "-d", "-p", folder], text=True).strip()


def test_an_unnamed_file_needs_no_name_before_it_is_whole(plain: HashFS, tmp_path: Path) -> None:
    if not has_unnamed_files(tmp_path):
        pytest.skip("no O_TMPFILE here")
    with plain.writer() as writer:
        writer.write(content(LARGE))
        assert everything(plain.root) == []
        plain.commit(writer)


# -- after many new contents, when a put lists the folder before it tries to renew the content ----


@pytest.fixture
def expecting(store: HashFS) -> HashFS:
    """A store whose last puts were all of new content."""
    for number in range(20):
        assert not store.put(str(number).encode()).is_duplicate
    return store


def put_many(store: HashFS) -> None:
    for number in range(20):
        store.put(b"more %d" % number)


def test_a_duplicate_after_many_new_contents_is_one_and_is_renewed(expecting: HashFS) -> None:
    address = expecting.put(b"hello")
    os.utime(address.abspath, (0, 0))
    put_many(expecting)
    assert expecting.put(b"hello") == address._replace(is_duplicate=True)
    assert os.stat(address.abspath).st_mtime > 0
    assert [name for name in expecting.files() if read(expecting, name) == b"hello"] == [
        address.abspath
    ]


def test_another_extension_after_many_new_contents_is_a_duplicate(expecting: HashFS) -> None:
    address = expecting.put(b"hello", "txt")
    put_many(expecting)
    assert expecting.put(b"hello", "md").is_duplicate
    assert expecting.put(b"hello").is_duplicate
    expecting.delete(address.id)
    assert not any(HELLO[4:] in name for name in expecting.files())


@pytest.mark.parametrize("damage", [b"", b"hell", b"longer than it was"])
def test_damaged_content_is_healed_after_many_new_contents(
    expecting: HashFS, damage: bytes
) -> None:
    addresses = [expecting.put(b"hello", extension) for extension in ("", "txt")]
    for address in addresses:
        os.unlink(address.abspath)
        Path(address.abspath).write_bytes(damage)
    put_many(expecting)
    assert expecting.put(b"hello").is_duplicate
    assert [Path(address.abspath).read_bytes() for address in addresses] == [b"hello"] * 2


def test_a_folder_at_an_address_is_an_error_after_many_new_contents(expecting: HashFS) -> None:
    path = Path(expecting.root, ADDRESS)
    path.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        expecting.put(b"hello")
    os.removedirs(path)


def test_a_link_at_an_address_is_replaced_after_many_new_contents(expecting: HashFS) -> None:
    path = Path(expecting.root, ADDRESS)
    path.parent.mkdir(parents=True)
    path.symlink_to("nowhere")
    assert not expecting.put(b"hello").is_duplicate
    assert read(expecting, HELLO) == b"hello"


@pytest.mark.parametrize("grants", [True, False], ids=["", "where access tells nothing"])
def test_what_a_killed_prune_has_set_aside_is_found_after_many_new_contents(
    expecting: HashFS, grants: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask_hashfs._local.set_aside import SetAside

    address = expecting.put(b"hello")
    put_many(expecting)
    if not grants:  # as under a filter of system calls that is older than faccessat2
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
    SetAside.make(expecting.backend, address.id).move_in(address.abspath)
    assert expecting.put(b"hello").is_duplicate
    assert read(expecting, HELLO) == b"hello"


# -- healing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, LARGE])
@pytest.mark.parametrize("damage", [b"", b"hell", b"longer than it was" * 20_000])
def test_a_duplicate_of_another_size_is_replaced_under_every_name_and_logged(
    store: HashFS, size: int, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    data = content(size)
    names = [store.put(data, extension).abspath for extension in ("", "txt", "tar.gz")]
    for name in names:
        os.unlink(name)
        Path(name).write_bytes(damage)
    with open(names[0], "rb") as reader, caplog.at_level(logging.DEBUG, "flask_hashfs"):
        assert store.put(data, "txt").is_duplicate
        assert [Path(name).read_bytes() for name in names] == [data] * 3
        assert reader.read() == damage  # replaced, not rewritten
    assert sorted(vars(record)["hashfs_path"] for record in caplog.records) == sorted(names)
    assert store.put(data).is_duplicate
    assert len(caplog.records) == 3


def test_a_new_name_of_damaged_content_heals_it(store: HashFS) -> None:
    first = store.put(b"hello", "a")
    os.truncate(first.abspath, 2)
    assert store.put(b"hello", "b").is_duplicate
    assert {Path(path).read_bytes() for path in store.files()} == {b"hello"}


def test_healing_sees_a_name_that_hides_once_another_is_replaced(
    plain: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CephFS, where a link is missing for a moment after another one was replaced."""
    addresses = [plain.put(b"hello", extension) for extension in ("", "a", "b")]
    os.truncate(addresses[0].abspath, 2)
    replace, lstat, hidden = os.replace, posix.lstat, list[str]()

    def replace_and_hide(source: str, target: str) -> None:
        replace(source, target)
        hidden[:] = [address.abspath for address in addresses if address.abspath != target]

    def look(path: str) -> os.stat_result | None:
        return None if path in hidden else lstat(path)

    monkeypatch.setattr(os, "replace", replace_and_hide)
    monkeypatch.setattr(posix, "lstat", look)
    assert plain.put(b"hello").is_duplicate
    assert hidden
    assert [Path(address.abspath).read_bytes() for address in addresses] == [b"hello"] * 3


@pytest.mark.parametrize("size", [5, 300_000, 4 * 1024 * 1024])
@pytest.mark.parametrize("make", [bytes, io.BytesIO], ids=["bytes", "BytesIO"])
def test_a_duplicate_that_is_in_memory_is_not_written(
    plain: HashFS, make: Callable[[bytes], Any], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(size)
    assert not plain.put(make(content)).is_duplicate
    monkeypatch.setattr(TemporaryFolder, "create", None)
    assert plain.put(make(content)).is_duplicate
    with pytest.raises(TypeError):
        plain.put(make(content + b"new"))


def test_a_duplicate_renews_the_age_and_reading_does_not(plain: HashFS) -> None:
    address = plain.put(b"hello")
    os.utime(address.abspath, (0, 0))
    read(plain, HELLO)
    assert os.stat(address.abspath).st_mtime == 0
    plain.put(b"hello")
    assert os.stat(address.abspath).st_mtime > 0


def test_a_refused_touch_is_logged(
    plain: HashFS, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    plain.put(b"hello")
    monkeypatch.setattr(os, "utime", refuse)
    assert plain.put(b"hello").is_duplicate
    assert "cannot be renewed" in caplog.text


# -- trees of hashfs 0.7.2 ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("depth_and_width", [(4, 1), (2, 3), (0, 1), (64, 1)])
@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_what_hashfs_wrote_is_found_and_the_other_way_round(
    tmp_path: Path, depth_and_width: tuple[int, int], algorithm: str
) -> None:
    theirs: Any = hashfs.HashFS(str(tmp_path), *depth_and_width, algorithm)
    ours = HashFS(tmp_path, *depth_and_width, algorithm, fsync=False)
    for n, extension in enumerate([None, "txt", ".jpg", "tar.gz", "_-+"]):
        old = theirs.put(io.BytesIO(b"old%d" % n), extension)
        new = ours.put(b"new%d" % n, extension)
        for name in (old.id, old.relpath, old.abspath):
            assert ours.get(name) == old
            assert read(ours, name) == b"old%d" % n
        for name in (new.id, new.relpath, new.abspath):
            found = theirs.get(name)
            assert found.abspath == new.abspath
            with theirs.open(name) as file:
                assert file.read() == b"new%d" % n
        assert ours.put(b"old%d" % n, extension) == old._replace(is_duplicate=True)
        assert theirs.put(io.BytesIO(b"new%d" % n), extension).is_duplicate
    assert sorted(ours) == sorted(theirs)
    assert list(ours.corrupted()) == []
    for address in list(map(ours.get, theirs.files())):
        assert address is not None
        theirs.delete(address.abspath)
    assert everything(tmp_path) == []


@pytest.mark.parametrize(
    "extension", ["a b", "ä", "jpg?size=1", "...", "x" * 100, "~", "\n", "*", "[a]", "\udce9", "'"]
)
def test_an_extension_that_hashfs_allowed_is_found_served_by_id_and_deleted(
    tmp_path: Path, extension: str
) -> None:
    old = hashfs.HashFS(str(tmp_path)).put(io.BytesIO(b"hello"), extension)
    store = HashFS(tmp_path, fsync=False)
    for name in (old.id, old.relpath, old.abspath):
        found = store.get(name)
        assert found == old._replace(id=HELLO)
        assert read(store, name) == b"hello"
    assert list(store.corrupted()) == []
    assert store.put(b"hello", "txt").is_duplicate
    store.delete(old.relpath)
    assert store.count() == 1
    store.delete(HELLO)
    assert everything(tmp_path) == []


def test_content_of_an_algorithm_used_before_is_found(tmp_path: Path) -> None:
    old = HashFS(tmp_path, algorithm="md5", fsync=False).put(b"hello", "tar.gz")
    store = HashFS(tmp_path, fsync=False)
    assert store.get(old.id) == old
    assert not store.put(b"hello").is_duplicate
    store.delete(old.id)
    assert store.count() == 1


# -- confinement -------------------------------------------------------------------------------


@pytest.fixture
def outside(plain: HashFS) -> Path:
    """A tree with content beside the root, that the root is linked to in every way."""
    address = plain.put(b"hello", "txt")
    there = Path(plain.root).parent / "outside"
    shutil.copytree(plain.root, there)
    (there / "secret").write_bytes(b"secret")
    root = Path(plain.root)
    (root / "file").symlink_to(there / "secret")
    (root / "folder").symlink_to(there)
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    other = id_of(b"other")
    path = Path(plain.idpath(other))
    path.parent.mkdir(parents=True)
    path.symlink_to(there / "secret")
    assert plain.exists(address)
    return there


def test_no_look_up_or_delete_leaves_the_root(plain: HashFS, outside: Path) -> None:
    for name in (
        *(outside / "secret", "../outside/secret", "file", "folder/secret", "up/outside/secret"),
        *("up/outside/" + ADDRESS + ".txt", "folder/" + ADDRESS + ".txt", "loop", "loop/x"),
        *(f"{plain.root}/../outside/secret", f"{plain.root}/file", id_of(b"other"), "/etc/passwd"),
        *(f"{plain.root}x", plain.root, plain.root + "/", "../root", "a/../../outside/secret"),
    ):
        assert plain.get(name) is None, name
        assert name not in plain
        with pytest.raises(NotStoredError):
            plain.open(name)
        plain.delete(name)
    assert (outside / "secret").read_bytes() == b"secret"
    assert len(everything(outside)) == 6
    assert list(plain.files()) == [plain.idpath(HELLO, "txt")]


def test_a_path_may_wander_inside_the_root(plain: HashFS) -> None:
    address = plain.put(b"hello")
    Path(plain.root, "inner").symlink_to(HELLO[0])
    for name in ("x/../" + address.relpath, "./" + address.relpath, "//" + address.abspath[1:]):
        assert plain.get(name) == address
    found = plain.get("inner/" + address.relpath[2:])
    assert found is not None
    assert found.relpath == "inner/" + address.relpath[2:]


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("is_there", [False, True])
def test_no_put_leaves_the_root(plain: HashFS, tmp_path: Path, level: int, is_there: bool) -> None:
    there = tmp_path / "there"
    there.mkdir()
    link = Path(plain.root, *HELLO[: level + 1])
    link.parent.mkdir(parents=True)
    link.symlink_to(there)
    if is_there:
        plant(plain, b"hello", ADDRESS)
    before = everything(there)
    with pytest.raises(NotADirectoryError, match="out of the store"):
        plain.put(b"hello")
    assert everything(there) == before
    assert link.is_symlink()
    assert plain.get(HELLO) is None


@pytest.mark.parametrize("level", [0, 3])
def test_a_put_follows_a_link_inside_the_root(plain: HashFS, level: int) -> None:
    there = Path(plain.root, "there")
    there.mkdir(parents=True)
    link = Path(plain.root, *HELLO[: level + 1])
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(there)
    assert not plain.put(b"hello").is_duplicate
    assert plain.put(b"hello").is_duplicate
    assert read(plain, HELLO) == b"hello"


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is a short one
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: never ends
    except PermissionError:
        pytest.skip("only root makes devices")


def _link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _inner_link(path: Path) -> None:
    (path.parent / "real").write_bytes(b"hello")
    path.symlink_to("real")


@pytest.mark.parametrize(
    "make", [Path.mkdir, _fifo, _socket, _device, _link, _dangling, _inner_link]
)
@pytest.mark.parametrize("extension", ["", ".txt"])
def test_what_is_no_regular_file_is_not_stored_and_never_hangs(
    plain: HashFS, make: Callable[[Path], None], extension: str
) -> None:
    path = Path(plain.root, ADDRESS + extension)
    path.parent.mkdir(parents=True)
    make(path)
    for name in (HELLO, ADDRESS + extension, path):
        assert plain.get(name) is None
        with pytest.raises(NotStoredError):
            plain.open(name)
        plain.delete(name)
    assert os.path.lexists(path)
    assert [each for each in plain.files() if not each.endswith("real")] == []
    assert [each for each, _ in plain.corrupted() if not each.endswith("real")] == []
    if make is Path.mkdir and not extension:
        with pytest.raises(IsADirectoryError):
            plain.put(b"hello")
        assert path.is_dir()
    else:
        assert not plain.put(b"hello").is_duplicate
        assert read(plain, HELLO) == b"hello"


def test_a_link_out_of_the_root_is_not_opened_on_a_system_that_would_follow_it(
    plain: HashFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = Path(plain.root, ADDRESS)
    path.parent.mkdir(parents=True)
    path.symlink_to(secret)
    monkeypatch.delattr(os, "O_NOFOLLOW")
    monkeypatch.setattr(posix, "path_of", lambda fd: None)
    with pytest.raises(NotStoredError):
        plain.open(HELLO)
    assert plain.backend.open_content(HELLO) is None


def test_a_file_that_may_not_be_read_is_no_missing_one(
    plain: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = plain.put(b"hello")
    opens = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == address.abspath:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return opens(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)  # root, who may run this, is refused nothing
    for name in (address.id, address.relpath):
        with pytest.raises(PermissionError):
            plain.open(name)


ASKED: dict[str, Callable[[HashFS, Any], object]] = {
    "get": HashFS.get,
    "exists": HashFS.exists,
    "open": HashFS.open,
    "delete": HashFS.delete,
    "serve": lambda store, file: store.backend.open_content(file),
    "measure": lambda store, file: store.backend.open_content(file, read=False),
}


@pytest.mark.parametrize("mode", [0, 0o444], ids=oct)
@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("ask", ASKED)
def test_content_in_a_folder_that_may_not_be_entered_is_not_missing(
    plain: HashFS, ask: str, level: int, mode: int
) -> None:
    address = plain.put(b"hello", "txt")
    shut = Path(address.abspath).parents[level]
    try:
        shut.chmod(mode)
        with permissions_hold():
            for file in (address.id, address.relpath, address.abspath, address):
                with pytest.raises(PermissionError):
                    ASKED[ask](plain, file)
            with pytest.raises(PermissionError):
                plain.put(b"hello", "txt")
    finally:
        shut.chmod(0o755)
    assert plain.exists(address)


def test_content_in_a_folder_that_may_not_be_listed_is_found_by_its_path_only(
    plain: HashFS,
) -> None:
    address = plain.put(b"hello", "txt")
    folder = Path(address.abspath).parent
    try:
        folder.chmod(0o311)
        with permissions_hold():
            assert plain.get(address.relpath) == address
            with pytest.raises(PermissionError):
                plain.get(address.id)
    finally:
        folder.chmod(0o755)


def test_a_folder_out_of_the_root_that_may_not_be_entered_holds_nothing(
    plain: HashFS, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    os.makedirs(plain.root)
    Path(plain.root, HELLO[0]).symlink_to(outside)
    Path(plain.root, "link").symlink_to(outside / "inner")
    (outside / "inner").mkdir()
    try:
        outside.chmod(0)
        with permissions_hold():
            for name in (HELLO, ADDRESS, "link/x", outside / "x"):
                assert plain.get(name) is None
    finally:
        outside.chmod(0o755)


UNPACKED = ADDRESS + ".unpacked/readme"
"""What lies in a folder at an address: archives are unpacked beside themselves."""


def test_what_lies_in_a_folder_at_an_address_is_no_path_of_the_content(plain: HashFS) -> None:
    stray = plant(plain, b"stray", UNPACKED)
    assert plain.get(HELLO) is None
    assert plain.backend.layout.id_of(UNPACKED) is None
    assert plain.backend.id_named(UNPACKED) is None
    assert address_of(plain, UNPACKED).id != HELLO
    with pytest.raises(ValueError, match="readme"):
        plain.prune([UNPACKED])
    address = plain.put(b"hello", "txt")
    assert not address.is_duplicate
    assert plain.get(HELLO) == address
    assert [entry.id for entry in plain.entries()] == [HELLO, None]
    assert plain.stats().strangers == 1
    plain.delete(HELLO)
    assert stray.read_bytes() == b"stray"
    [(_, moved)] = plain.repair()
    assert os.path.splitext(moved.relpath)[1] == ""


def test_a_folder_at_an_address_does_not_make_verify_or_prune_spin(plain: HashFS) -> None:
    stray = plant(plain, b"stray", UNPACKED)
    address = plain.put(b"hello", "txt")
    Path(address.abspath).write_bytes(b"jello")
    assert list(plain.verify(quarantine=True)) == [address]
    assert plain.put(b"hello", "txt") == address
    assert plain.prune(allow_empty=True, older_than=timedelta(0)) == [HELLO]
    assert list(plain.files()) == [str(stray)]


def test_delete_of_nothing_does_not_touch_what_is_beside_the_root(tmp_path: Path) -> None:
    store = HashFS(tmp_path / "root", fsync=False)
    store.put(b"hello")
    for name in ("root.tar.gz", "root.", "rootx"):
        (tmp_path / name).write_bytes(b"beside")
    for name in ("", ".", "/", "..", "../root.tar.gz"):
        store.delete(name)
        assert store.get(name) is None
    assert len(everything(tmp_path)) == 3 + 1 + 5


def test_hidden_files_are_out_of_reach(plain: HashFS) -> None:
    address = plain.put(b"hello")
    hidden = plant(plain, b"hello", f".hashfs/tmp/{'0' * 32}")
    plant(plain, b"hello", ".hashfs/" + ADDRESS)
    Path(plain.root, "link").symlink_to(".hashfs")
    for name in (hidden, ".hashfs/tmp/" + "0" * 32, "link/tmp/" + "0" * 32, ".hashfs/" + ADDRESS):
        assert plain.get(name) is None
        plain.delete(name)
    assert hidden.exists()
    assert list(plain.files()) == [address.abspath]
    assert list(plain.folders()) == [os.path.dirname(address.abspath)]
    assert (plain.count(), plain.size()) == (1, 5)
    assert list(plain.corrupted()) == []
    assert plain.repair() == []


def test_folders_that_a_delete_leaves_empty_go(plain: HashFS) -> None:
    address = plain.put(b"hello")
    stray = plant(plain, b"stray", f"{HELLO[0]}/{HELLO[1]}/stray")
    plain.delete(address)
    assert everything(stray.parent.parent) == [HELLO[1], f"{HELLO[1]}/stray"]


def test_remove_empty_stays_inside_the_root(plain: HashFS, tmp_path: Path) -> None:
    beside = tmp_path / "a" / "long" / "way" / "to"
    beside.mkdir(parents=True)
    os.makedirs(os.path.join(plain.root, "x", "y"))
    (beside / "root").symlink_to(plain.root)
    for path in (beside, tmp_path, plain.root, os.path.join(plain.root, "x", "..", "..")):
        plain.remove_empty(os.fspath(path))
    assert os.path.isdir(os.path.join(plain.root, "x", "y"))
    plain.remove_empty(os.path.join(beside, "root", "x", "y"))
    assert everything(plain.root) == []
    assert beside.is_dir()


# -- listings ----------------------------------------------------------------------------------


def test_stray_files_are_listed_and_found_by_their_path(plain: HashFS) -> None:
    path = plant(plain, b"stray", "some/where.txt")
    assert list(plain.files()) == [str(path)]
    assert list(plain.folders()) == [str(path.parent)]
    assert read(plain, "some/where.txt") == b"stray"
    plain.delete("some/where.txt")
    assert everything(plain.root) == []


def test_a_tree_that_changes_while_it_is_listed(plain: HashFS) -> None:
    for n in range(50):
        plain.put(b"%d" % n)
    for path in plain.files():
        for each in list(plain.files()):
            if each != path:
                plain.delete(each)
    assert plain.count() == 1


# -- repair ------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth_and_width", [(1, 2), (0, 1), (6, 2)])
def test_repair_moves_a_tree_to_another_layout(
    new_store: NewStore, depth_and_width: tuple[int, int]
) -> None:
    old = new_store()
    names = [old.put(b"%d" % n, extension) for n in range(5) for extension in ("", "txt", "tar.gz")]
    store = HashFS(old.root, *depth_and_width, fsync=False)
    assert {path for path, _ in store.corrupted()} == {name.abspath for name in names}
    assert all(store.get(name.id) is None for name in names)
    found = [store.get(name.relpath) for name in names]
    assert [address.id for address in found if address] == [name.id for name in names]
    repaired = dict(store.repair())
    for name in names:
        extension = name.relpath.partition(".")[2]
        assert repaired.pop(name.abspath) == store.get(store.idpath(name.id, extension))
    assert repaired == {}
    assert list(store.corrupted()) == []
    assert store.count() == 15
    assert store.repair() == []


def test_repair_keeps_extensions_or_not(plain: HashFS) -> None:
    address = plain.put(b"hello", "tar.gz")
    assert plain.repair() == []
    assert [path for path, _ in plain.corrupted(extensions=False)] == [address.abspath]
    [(path, moved)] = plain.repair(extensions=False)
    assert path == address.abspath
    assert moved == plain.get(HELLO)
    assert moved.relpath == ADDRESS
    assert everything(plain.root)[-1] == ADDRESS


def test_damaged_content_goes_where_it_belongs_with_its_whole_extension(plain: HashFS) -> None:
    address = plain.put(b"hello", "tar.gz")
    Path(address.abspath).write_bytes(b"other")
    [(path, moved)] = plain.repair()
    assert path == address.abspath
    assert moved.abspath == plain.idpath(id_of(b"other"), "tar.gz")
    assert not plain.exists(HELLO)


def test_repair_drops_what_is_there_already(plain: HashFS) -> None:
    address = plain.put(b"hello")
    stray = plant(plain, b"hello", "stray")
    assert plain.repair() == [(str(stray), address)]
    assert list(plain.files()) == [address.abspath]


def test_repair_of_contents_that_stand_in_each_others_places_loses_none(plain: HashFS) -> None:
    contents = [b"%03d" % n for n in range(40)]
    paths = [plain.put(data).abspath for data in contents]
    for path, data in zip(paths, contents[1:] + contents[:1], strict=True):  # one long cycle
        Path(path).write_bytes(data)
    a, b = plain.put(b"a", "x").abspath, plain.put(b"b", "x").abspath
    Path(a).write_bytes(b"b")
    Path(b).write_bytes(b"a")
    assert len(plain.repair()) == 42
    assert sorted(read(plain, id_of(data)) for data in contents) == contents
    assert [read(plain, id_of(data)) for data in (b"a", b"b")] == [b"a", b"b"]
    assert plain.count() == 42
    assert_tidy(plain)


def test_repair_never_drops_a_file_for_another_of_its_size(plain: HashFS) -> None:
    target = Path(plain.idpath(HELLO))
    target.mkdir(parents=True)
    stray = plant(plain, b"hello", "stray")
    os.truncate(stray, 5)
    assert plain.repair() == []
    assert stray.read_bytes() == b"hello"


def test_repair_leaves_alone_what_a_put_has_healed(
    plain: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = plain.put(b"hello")
    Path(address.abspath).write_bytes(b"damaged")
    found = list(plain.corrupted())
    monkeypatch.setattr("flask_hashfs._local.repair.misplaced", heal_meanwhile(plain))
    assert plain.repair() == []
    assert len(found) == 1
    assert read(plain, HELLO) == b"hello"
    assert_tidy(plain)


def heal_meanwhile(store: HashFS) -> Callable[..., Iterator[Any]]:
    from flask_hashfs._local.repair import misplaced

    def after(*args: Any) -> Iterator[Any]:
        found = list(misplaced(*args))
        store.put(b"hello")
        yield from found

    return after


def test_repair_gives_files_the_stores_mode(new_store: NewStore) -> None:
    store = new_store(fmode=0o640)
    stray = plant(store, b"hello", "stray")
    os.chmod(stray, 0o600)
    store.repair()
    assert mode_of(store.idpath(HELLO)) == 0o640


# -- trouble -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, LARGE])
def test_a_root_below_a_file_cannot_be_written(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"")
    before = open_files()
    for root in (tmp_path / "file", tmp_path / "file" / "root"):
        store = HashFS(root)
        with pytest.raises(NotADirectoryError):
            store.put(content(size))
        assert store.get(HELLO) is None
        assert list(store.files()) == []
    assert open_files() == before
    assert everything(tmp_path) == ["file"]


@pytest.mark.parametrize("level", [0, 1, 3])
def test_a_file_in_the_place_of_a_folder_is_an_error(store: HashFS, level: int) -> None:
    path = plant(store, b"stray", os.path.join(*HELLO[: level + 1]))
    with pytest.raises(NotADirectoryError):
        store.put(b"hello")
    assert path.read_bytes() == b"stray"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[HashFS]:
    """A store on a disk that cannot be written, with one content."""
    root = tmp_path / "disk"
    root.mkdir()
    HashFS(root).put(b"hello")
    words = ["mount", "--bind", "-o", "ro", str(root), str(root)]
    done = shutil.which("mount") and subprocess.run(words, capture_output=True, text=True)
    if not done or done.returncode != 0:
        pytest.skip("no read-only disk can be mounted here")
    try:
        if os.access(root, os.W_OK):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
        yield HashFS(root)
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


@pytest.mark.parametrize("size", [3, LARGE])
def test_a_disk_that_cannot_be_written_is_an_os_error(
    read_only: HashFS, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_files()
    with pytest.raises(OSError) as caught:
        read_only.put(content(size))
    assert caught.value.errno == 30
    with pytest.raises(OSError):
        read_only.put(b"hello", "txt")
    with pytest.raises(OSError):
        read_only.delete(HELLO)
    assert read_only.put(b"hello").is_duplicate
    assert "cannot be renewed" in caplog.text
    assert read(read_only, HELLO) == b"hello"
    assert open_files() == before
    assert read_only.count() == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_permissions_are_kept_to(plain: HashFS, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0)
    with pytest.raises(PermissionError):
        plain.put(secret)
    os.makedirs(plain.root)
    os.chmod(plain.root, 0o500)
    with pytest.raises(PermissionError):
        plain.put(b"hello")
    assert everything(plain.root) == []


def test_an_unreadable_path_is_a_permission_error(plain: HashFS, tmp_path: Path) -> None:
    """Asked by a child without root's privileges, where the tests have them."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0)
    os.makedirs(plain.root)
    os.chmod(plain.root, 0o777)
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            plain.put(secret)
        return
    assert in_child(lambda: (os.setuid(65534), refused(lambda: plain.put(secret)))[1])
    assert everything(plain.root) == []


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except PermissionError:
        return True
    return False


def in_child(work: Callable[[], object]) -> bool:
    """Tell whether `work`, in a forked child, returned something true."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.slow
def test_folders_that_come_and_go_trouble_no_put(plain: HashFS) -> None:
    """One thread removes every empty folder, at any time, that the other is about to use."""
    stop, enough = threading.Event(), time.monotonic() + 20
    folders = [os.path.join(plain.root, *HELLO[:level]) for level in (4, 3, 2, 1)]
    folders.append(os.path.join(plain.root, ".hashfs", "tmp"))

    def remove() -> None:
        while not stop.is_set():
            for folder in folders:
                plain.remove_empty(folder)

    thread = threading.Thread(target=remove)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for n in range(300):
            spool_of(plain).unnamed = n % 2 == 0
            plain.put(b"hello", "txt")
            plain.delete(HELLO)
            if time.monotonic() > enough:  # FUSE makes both as slow: a put takes a thousand tries
                break
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    assert everything(plain.root) == []


def test_a_put_that_is_interrupted_leaves_nothing(store: HashFS) -> None:
    def pieces() -> Iterator[bytes]:
        yield content(6_000_000)
        signal.raise_signal(signal.SIGINT)
        yield b"more"

    with pytest.raises(KeyboardInterrupt):
        store.put(pieces())
    assert list(store.files()) == []


@pytest.mark.slow
def test_large_content_is_written_by_a_second_thread_that_ends(store: HashFS) -> None:
    before = threading.active_count()
    data = content(9_000_000)
    assert store.put(data).id == hashlib.sha256(data).hexdigest()
    with pytest.raises(OSError):
        store.put(Fails(data))
    assert threading.active_count() == before


class Fails(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)
        if not count:
            raise OSError("the line is dead")
        return count


@pytest.mark.slow
def test_a_put_while_the_interpreter_shuts_down_does_without_the_second_thread(
    tmp_path: Path,
) -> None:
    code = f"""
import atexit
from flask_hashfs import HashFS
store = HashFS({str(tmp_path / "root")!r}, fsync=False)
atexit.register(lambda: print(store.put(b"x" * 9_000_000).is_duplicate))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


def test_a_store_can_be_pickled_and_used_by_another_process(plain: HashFS) -> None:
    import pickle

    again = pickle.loads(pickle.dumps(plain))
    assert again.put(b"hello") == plain.get(HELLO)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_root_may_lie_as_deep_as_paths_are_long(tmp_path: Path) -> None:
    store = HashFS(os.path.join(tmp_path, *"x" * 1100))
    try:
        assert read(store, store.put(b"hello")) == b"hello"
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "x"], check=True)


def test_a_root_where_no_folder_can_be_made_does_not_hang() -> None:
    with pytest.raises(FileNotFoundError):
        HashFS("/proc/hashfs").put(b"hello")
