"""What a store survives: kills at every system call, failing and full disks, crowds of processes.

With HASHFS_TEST_LONG set the random parts run for as long as a release deserves.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faults
import pytest
from faults import LARGE, OTHER, SMALL, Server, check, check_prune

from flask_hashfs import HashFS
from flask_hashfs.testing.store_contract import id_of

LONG = bool(os.environ.get("HASHFS_TEST_LONG"))
ROUNDS = 500 if LONG else 15
SECONDS = 30 if LONG else 2

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with faults.server() as running:
        yield running


@pytest.fixture(scope="module")
def strace(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Server:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: nothing is injected into system calls")
    folder = tmp_path_factory.mktemp("trial")
    try:
        server.trace(folder / "log", do="put", content="small", root=folder / "root")
    except AssertionError as error:
        pytest.skip(f"strace may not trace here: {error}")
    return server


# -- at every system call ----------------------------------------------------------------------


def put_old(store: HashFS, content: bytes, extension: str | None = None) -> None:
    os.utime(store.put(content, extension).abspath, (0, 0))


def nothing(store: HashFS) -> None:
    pass


def other(store: HashFS) -> None:
    put_old(store, OTHER)


def stored(store: HashFS) -> None:
    put_old(store, SMALL)


def stored_twice(store: HashFS) -> None:
    put_old(store, SMALL)
    put_old(store, SMALL, "txt")
    put_old(store, OTHER)


def truncated(store: HashFS) -> None:
    put_old(store, LARGE)
    put_old(store, LARGE, "txt")
    os.truncate(store.idpath(id_of(LARGE)), 1000)


def damaged(store: HashFS) -> None:
    put_old(store, SMALL)
    put_old(store, OTHER)
    Path(store.idpath(id_of(SMALL))).write_bytes(b"damaged")


def misplaced(store: HashFS) -> None:
    HashFS(store.root, depth=1, width=2, fsync=False).put(SMALL)


@dataclass
class Case:
    before: Callable[[HashFS], None]
    job: dict[str, Any]
    kept: list[bytes] = field(default_factory=list)
    """What no crash may take."""


CASES = {
    "new": Case(nothing, {"do": "put", "content": "small"}),
    "new large": Case(nothing, {"do": "put", "content": "large", "extension": "txt"}),
    "duplicate": Case(stored, {"do": "put", "content": "small"}, [SMALL]),
    "new name": Case(stored, {"do": "put", "content": "small", "extension": "txt"}, [SMALL]),
    "healing": Case(truncated, {"do": "put", "content": "large"}),
    "named": Case(nothing, {"do": "put", "content": "large", "named": True}),
    "named healing": Case(truncated, {"do": "put", "content": "large", "named": True}),
    "prune": Case(stored_twice, {"do": "prune", "keep": id_of(OTHER)}, [OTHER]),
    "quarantine": Case(damaged, {"do": "verify"}, [OTHER]),
    "repair": Case(misplaced, {"do": "repair"}),
}
PUTS = [name for name, case in CASES.items() if case.job["do"] == "put"]
DAMAGED = (truncated, damaged, misplaced)


CHANGING = {
    *("openat", "write", "fchmod", "fdatasync", "fsync", "utimensat", "mkdir", "mkdirat", "rmdir"),
    *("link", "linkat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "ftruncate"),
}


def moments(calls: Counter[str]) -> list[tuple[str, int]]:
    """Return the calls to interfere with, as names and numbers, in the order of their names.

    Between two calls that change nothing the disk is the same, so unless there is much time
    only those that may change it count, and of the others the first and the last.
    """
    found = []
    for call, count in sorted(calls.items()):
        every = LONG or call in CHANGING
        found += [(call, when) for when in range(1, count + 1) if every or when in (1, count)]
    return found


def prepared(case: Case, root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    case.before(HashFS(root, fsync=False))
    return root


def check_case(case: Case, root: Path, outcome: faults.Outcome) -> None:
    if case.before in DAMAGED:  # the damage may be there still, but never in what was returned
        store = HashFS(root)
        for _, relpath in outcome.returned:
            assert Path(root, relpath).read_bytes() in (SMALL, LARGE, OTHER)
        assert all(store.exists(id_of(content)) for content in case.kept)
    else:
        check(root, outcome.returned)
        assert all(HashFS(root).exists(id_of(content)) for content in case.kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_kill_at_every_system_call(strace: Server, tmp_path: Path, name: str) -> None:
    case, root, log = CASES[name], tmp_path / "root", tmp_path / "log"
    calls = strace.trace(log, **case.job, root=prepared(case, root)).calls
    assert calls.total() > 10
    for call, when in moments(calls):
        kill = f"inject={call}:signal=SIGKILL:when={when}"
        outcome = strace.trace(log, "-e", kill, **case.job, root=prepared(case, root))
        assert outcome.code == -signal.SIGKILL or "verify" in case.job["do"]
        check_case(case, root, outcome)
        if case.job["do"] == "prune":
            assert HashFS(root).prune([id_of(OTHER)]) in ([], [id_of(SMALL)])
            assert HashFS(root).count() == 1
        check_prune(root, [id_of(SMALL), id_of(LARGE), id_of(OTHER)])
        for content in (SMALL, LARGE):  # the store is as usable as before
            assert HashFS(root, fsync=False).put(content).id == id_of(content)
        if case.before is not damaged:
            assert list(HashFS(root).verify()) == [] or case.before is truncated


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"] if LONG else ["EIO"])
@pytest.mark.parametrize("name", PUTS)
def test_an_error_at_every_system_call(
    strace: Server, tmp_path: Path, name: str, error: str
) -> None:
    case, root, log = CASES[name], tmp_path / "root", tmp_path / "log"
    calls = strace.trace(log, **case.job, root=prepared(case, root)).calls
    for call, when in moments(calls):
        if call in ("close", "lseek", "fcntl", "ioctl", "read", "poll"):
            continue
        inject = f"inject={call}:error={error}:when={when}"
        outcome = strace.trace(log, "-e", inject, **case.job, root=prepared(case, root))
        assert outcome.code == 0 or (call, outcome.reports) == ("write", [])  # its own report
        check_case(case, root, outcome)
        check_prune(root, [id_of(SMALL), id_of(LARGE), id_of(OTHER)])


@pytest.mark.slow
def test_short_writes_are_continued(server: Server, tmp_path: Path) -> None:
    for named in (False, True):
        root = tmp_path / str(named)
        outcome = server.run(do="put", content="large", short_writes=True, named=named, root=root)
        assert outcome.returned
        check(root, outcome.returned)


# -- at any time -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
def test_kills_at_random_times(tmp_path: Path, named: bool) -> None:
    lot, root, returned = random.Random(4), tmp_path / "root", set()
    with faults.server() as one, faults.server() as two:
        for seed in range(ROUNDS // 2 + 1):
            pids = [
                each.start(do="put_many", root=root, seed=f"{seed} {each is one}", named=named)
                for each in (one, two)
            ]
            for pid in pids:
                time.sleep(lot.uniform(0.005, 0.1))
                os.kill(pid, signal.SIGKILL)
            for each in (one, two):
                returned.update(each.outcome().returned)
            check(root, sorted(returned))
    assert returned
    check_prune(root, [id for id, _ in returned])
    check(root, sorted(returned))


@pytest.mark.slow
def test_puts_race_with_prune(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with faults.server() as one, faults.server() as two, faults.server() as keeper:
        for seed, each in enumerate((one, two)):
            each.start(do="race", root=root, seconds=SECONDS, threads=4, seed=seed, fsync=False)
        keeper.start(do="prune_always", root=root, seconds=SECONDS)
        [prunes] = keeper.outcome().reports
        for each in (one, two):
            *missing, puts = each.outcome().reports
            assert missing == []
            print(puts)
    print(prunes)
    assert "deleted 0" not in prunes
    check_prune(root, [])


# -- on small and foreign disks ----------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=200", "none", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("mount is not installed")
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("size", [1, 20_000, 300_000], ids=["inodes", "small", "large"])
@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
def test_a_full_disk(
    small_disk: Path, size: int, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:
        monkeypatch.setattr("flask_hashfs._storage.spool._UNNAMED", 0)
    store, returned, content = HashFS(small_disk / "root"), [], b""
    with pytest.raises(OSError) as caught:  # noqa: PT012
        for number in range(1000):
            content = b"%d" % number * (size // len(str(number)) + 1)
            address = store.put(content)
            returned.append((address.id, address.relpath))
    assert caught.value.errno == errno.ENOSPC
    free = os.statvfs(small_disk)
    for _ in range(3):
        with pytest.raises(OSError):
            store.put(content)
    after = os.statvfs(small_disk)
    assert (after.f_bfree, after.f_ffree) == (free.f_bfree, free.f_ffree)
    check(small_disk / "root", returned)
    store.delete(returned[0][0])
    store.delete(returned[1][0])
    assert store.put(b"fits again")
    check_prune(small_disk / "root", [id for id, _ in returned] + [id_of(b"fits again")])


def test_temporary_files_elsewhere(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TMPDIR is another file system, and too small: nothing goes there."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    monkeypatch.setenv("TMPDIR", str(small_disk))
    store = HashFS(tmp_path / "root")
    content = random.Random(1).randbytes(5_000_000)
    (tmp_path / "source").write_bytes(content)
    for source in (content, iter([content]), tmp_path / "source"):
        assert store.put(source).id == id_of(content)
    assert list(small_disk.iterdir()) == []
