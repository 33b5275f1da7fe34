"""What a put asks of the kernel: few calls, and with ``fsync`` the disk, in an order that lasts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_stores import has_unnamed_files

from flask_hashfs import HashFS
from flask_hashfs._storage.writer import MEMORY_LIMIT

CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")
SIZES = [4096, MEMORY_LIMIT + 1]

CODE = """
import os, sys
from flask_hashfs import HashFS
root, size, fsync, again = sys.argv[1], *map(int, sys.argv[2:])
data = os.urandom(size)
stores = [HashFS(root, fsync=bool(fsync)), HashFS(root, fsync=False)]
stores[1].put(b"first")
if again:
    stores[1].put(data)
    stores[1].put(data)
else:
    stores[1].makepath(os.path.dirname(stores[1].idpath(__import__("hashlib").sha256(data).hexdigest())))
stores[0].put(b"first")
os.access("/begin", 0)
address = stores[0].put(data)
os.access("/end", 0)
print(address.relpath)
"""


@pytest.fixture(scope="module")
def strace(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed: system calls are not looked at")
    log = tmp_path_factory.mktemp("trial") / "log"
    if subprocess.run([path, "-o", log, "true"], capture_output=True).returncode != 0:
        pytest.skip("strace may not trace here: system calls are not looked at")
    return path


def calls_of_put(
    strace: str, root: Path, *, size: int, fsync: bool, again: bool = False
) -> tuple[str, list[tuple[str, str]]]:
    """Return the relpath of what was put, and the system calls with their arguments.

    The tree is there already, and the content too if it is put `again`.
    """
    log = root.with_name("log")
    words = [strace, "-f", "-y", "-s", "500", "-o", str(log), sys.executable, "-c", CODE, str(root)]
    words += [str(int(each)) for each in (size, fsync, again)]
    relpath = subprocess.run(words, capture_output=True, check=True, text=True).stdout.strip()
    matches = map(CALL.match, log.read_text().splitlines())
    calls = [(match[1], match[2]) for match in matches if match]
    names = [f"{name} {rest}" for name, rest in calls]
    begin, end = (
        next(n for n, call in enumerate(names) if f'"/{mark}"' in call) for mark in ("begin", "end")
    )
    return relpath, calls[begin + 1 : end]


def names_of(calls: list[tuple[str, str]]) -> list[str]:
    return [name for name, _ in calls]


def path_in(arguments: str) -> str:
    """Return the path of the descriptor in the arguments of a call."""
    match = re.search(r"<(.*?)>", arguments)
    assert match is not None
    return match[1]


@pytest.mark.slow
def test_a_small_put_into_an_existing_tree_takes_few_calls(strace: str, tmp_path: Path) -> None:
    _, calls = calls_of_put(strace, tmp_path / "root", size=4096, fsync=False)
    assert names_of(calls).count("write") == 1
    most = 14 if has_unnamed_files(tmp_path) else 24  # a name, in folders that come and go
    assert len(calls) <= most, calls


@pytest.mark.slow
def test_a_small_duplicate_takes_two_calls(strace: str, tmp_path: Path) -> None:
    _, calls = calls_of_put(strace, tmp_path / "root", size=4096, fsync=False, again=True)
    assert names_of(calls) == ["newfstatat", "utimensat"] or len(calls) == 2, calls


@pytest.mark.slow
def test_without_fsync_nothing_waits_for_the_disk(strace: str, tmp_path: Path) -> None:
    for size in SIZES:
        for again in (False, True):
            _, calls = calls_of_put(strace, tmp_path / "root", size=size, fsync=False, again=again)
            assert not [name for name in names_of(calls) if "sync" in name]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_the_data_is_on_the_disk_before_its_name_and_the_name_before_put_returns(
    strace: str, tmp_path: Path, size: int
) -> None:
    root = tmp_path / "root"
    relpath, calls = calls_of_put(strace, root, size=size, fsync=True)
    names = names_of(calls)
    written = max(n for n, name in enumerate(names) if name == "write")
    synced, linked = names.index("fdatasync"), names.index("linkat")
    assert written < synced < linked
    folders = [rest for name, rest in calls[linked:] if name == "fsync"]
    expected = [root / Path(relpath).parents[n] for n in range(5)]
    assert [path_in(rest) for rest in folders] == [str(each) for each in expected]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_a_duplicate_is_on_the_disk_before_put_returns(
    strace: str, tmp_path: Path, size: int
) -> None:
    """It may have been written by hashfs, or without fsync."""
    root = tmp_path / "root"
    relpath, calls = calls_of_put(strace, root, size=size, fsync=True, again=True)
    synced = [(name, path_in(rest)) for name, rest in calls if "sync" in name]
    folders = [str(root / Path(relpath).parents[n]) for n in range(5)]
    assert synced == [("fdatasync", str(root / relpath)), *(("fsync", each) for each in folders)]


def test_the_way_to_a_new_root_is_synced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", fsync)
    root = tmp_path / "new" / "root"
    store = HashFS(root)
    store.put(b"one")
    assert [str(root.parent), str(tmp_path), "/"] == [
        each for each in synced if each in (str(root.parent), str(tmp_path), "/")
    ]
    synced.clear()
    store.put(b"two")
    assert len(synced) == 5
    shutil.rmtree(tmp_path / "new")
    synced.clear()
    store.put(b"two")
    assert str(tmp_path) in synced


def test_only_folders_that_have_changed_are_synced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(fd: int) -> None:
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), tmp_path))

    monkeypatch.setattr(os, "fsync", fsync)
    settled, never, soon = "flask_hashfs._storage.posix.SETTLED", 10**18, 20_000_000
    monkeypatch.setattr(settled, never)
    store = HashFS(tmp_path)
    folders = [str(parent) for parent in Path(store.put(b"hello").relpath).parents]
    time.sleep(0.1)
    monkeypatch.setattr(settled, soon)
    synced.clear()
    store.put(b"hello")  # the folders are old enough now to be remembered
    assert synced == folders
    synced.clear()
    store.put(b"hello")
    assert synced == []
    monkeypatch.setattr(settled, never)
    store.put(b"hello", "txt")
    assert synced == folders[:1]
    synced.clear()
    (tmp_path / folders[2] / "new").mkdir()  # another process may not have waited for the disk
    store.put(b"hello")
    assert synced == [folders[0], folders[2]]
    shutil.rmtree(tmp_path / folders[3])
    synced.clear()
    store.put(b"hello")
    assert synced == folders


def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(fd: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    assert HashFS(tmp_path / "root").put(b"hello").id


HEAD_CODE = """
import os, sys
from pathlib import Path
from flask import Flask
from flask_hashfs import FlaskHashFS
root, tus = sys.argv[1], {"Tus-Resumable": "1.0.0"}
app = Flask("app")
app.config.update(HASHFS_ROOT_FOLDER=root, HASHFS_UPLOADS_PATH="/uploads", HASHFS_FSYNC=False)
FlaskHashFS(app)
client = app.test_client()
for size in (10 * 1024, 10 * 1024, 10 * 1024**3):  # the first one imports what is needed
    answer = client.post("/uploads", headers={**tus, "Upload-Length": str(20 * 1024**3)})
    location = answer.headers["Location"]
    os.truncate(Path(root, ".hashfs", location.lstrip("/"), "data"), size)
    os.access(f"/begin-{size}", 0)
    answer = client.head(location, headers=tus)
    os.access(f"/end-{size}", 0)
    assert answer.headers["Upload-Offset"] == str(size)
"""


@pytest.mark.slow
def test_a_head_of_an_unfinished_upload_costs_the_same_whatever_its_size(
    strace: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    words = [strace, "-f", "-y", "-s", "500", "-o", str(log)]
    words += [sys.executable, "-c", HEAD_CODE, str(tmp_path / "root")]
    subprocess.run(words, capture_output=True, check=True)
    lines = log.read_text().splitlines()
    small, large = (_about_uploads(lines, size) for size in (10 * 1024, 10 * 1024**3))
    assert names_of(large) == names_of(small)
    told = [int(rest.rpartition(" = ")[2]) for name, rest in large if "read" in name]
    assert told, "its state was read"
    assert sum(told) < 4096


def _about_uploads(lines: list[str], size: int) -> list[tuple[str, str]]:
    """Return the calls of the last HEAD of an upload of that size that name a file of it."""
    marks = [n for n, line in enumerate(lines) if f'-{size}"' in line][-2:]
    calls = [match.groups() for match in map(CALL.match, lines[slice(*marks)]) if match]
    return [(name, rest) for name, rest in calls if ".hashfs/uploads" in rest]
