"""The store alone: put, duplicates, system calls, memory, and how cost grows with the tree."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hashfs
from depot.io.local import LocalFileStorage
from harness import (
    MIB,
    Goal,
    Metric,
    Report,
    Sample,
    Scale,
    Table,
    Workspace,
    run_rounds,
    stopwatch,
    which,
)

from flask_hashfs import HashFS

OURS, SYNCED, HASHFS, DEPOT = "Flask-HashFS", "Flask-HashFS, FSYNC on", "hashfs", "filedepot"
HASH, CP = "hash alone", "cp"
KINDS = ("path", "BytesIO", "file object")
SMALL = 4096
TIME = Metric("time", "time")

Put = Callable[[Any], object]


def _depot(root: Path) -> Put:
    storage = LocalFileStorage(str(root))

    def put(source: Any) -> object:
        if not isinstance(source, str):
            return storage.create(source, "name", "application/octet-stream")
        with open(source, "rb") as file:
            return storage.create(file, "name", "application/octet-stream")

    return put


STORES: dict[str, Callable[[Path], Put]] = {
    OURS: lambda root: HashFS(root, fsync=False).put,
    SYNCED: lambda root: HashFS(root).put,
    HASHFS: lambda root: hashfs.HashFS(str(root), depth=4, width=1, algorithm="sha256").put,
    DEPOT: _depot,
}


def run(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure everything about the store."""
    if not scale.full:
        STORES.pop(SYNCED, None)  # slow on a busy disk
    workspace.prime(scale.pick(2048, 512, 1) * MIB)
    small = Smalls(workspace, scale)
    with workspace.cleaned():
        small.measure(report)
    big = scale.pick(256, 64, 1) * MIB
    sizes = [MIB, big] if scale.full else [big]
    for size in sizes:
        with workspace.cleaned():
            Bigs(workspace, scale, size).measure(report)
    with workspace.cleaned():
        calls(report, workspace)
    with workspace.cleaned():
        memory(report, workspace, big, scale)
    with workspace.cleaned():
        growth(report, workspace, scale)


# --- a thousand small files ----------------------------------------------------------------------


class Smalls:
    """Many files of 4 KiB, which live in memory: what a put costs beside its bytes."""

    def __init__(self, workspace: Workspace, scale: Scale) -> None:
        self.workspace, self.rounds = workspace, scale.rounds
        self.full = scale.full
        self.contents = [os.urandom(SMALL) for _ in range(scale.pick(1000, 500, 20))]
        self.folder = workspace.fresh("sources")
        self.paths = []
        for index, content in enumerate(self.contents):
            path = self.folder / str(index)
            path.write_bytes(content)
            self.paths.append(str(path))

    def measure(self, report: Report) -> None:
        count = len(self.contents)
        for kind in KINDS if self.full else ("BytesIO", "path"):
            self._table(
                report,
                f"small-{kind}",
                f"put {count} new files of 4 KiB, {kind}, folders exist",
                {name: partial(self._put, name, kind, folders=True) for name in STORES},
                [Goal("at most 0.40 x hashfs", "time", OURS, HASHFS, 0.40, True)],
                kind,
            )
        self._table(
            report,
            "small-fresh",
            f"put {count} new files of 4 KiB, BytesIO, into an empty tree",
            {name: partial(self._put, name, "BytesIO") for name in STORES},
            [],
            "BytesIO",
        )
        stores = [name for name in STORES if name != DEPOT]  # which knows no duplicates
        self._table(
            report,
            "small-duplicate",
            f"put {count} duplicates of 4 KiB, BytesIO",
            {name: partial(self._put, name, "BytesIO", twice=True) for name in stores},
            [Goal("at most 0.5 x hashfs", "time", OURS, HASHFS, 0.5, True)],
            "BytesIO",
        )

    def _table(
        self,
        report: Report,
        key: str,
        title: str,
        contenders: dict[str, Callable[[], Sample]],
        goals: list[Goal],
        kind: str,
    ) -> None:
        contenders[HASH] = partial(self._hash, kind)
        if kind == "path":
            contenders[CP] = self._cp
        with self.workspace.cleaned():
            table = Table(key, title, HASHFS, [TIME], goals=goals)
            run_rounds(report, table, contenders, self.rounds)

    def _put(self, name: str, kind: str, *, folders: bool = False, twice: bool = False) -> Sample:
        # Syncing is slow, and every file costs the same: fewer of them.
        count = max(1, len(self.contents) // 10) if name == SYNCED else len(self.contents)
        root = self.workspace.fresh()
        put = STORES[name](root)
        if folders:
            self._make_folders(root)
        if twice:
            for content in self.contents[:count]:
                put(io.BytesIO(content))
        sample: Sample = {}
        sources = self._sources(kind, count)
        with stopwatch(sample):
            for source in sources:
                put(source)
        _close(sources)
        return {"time": sample["time"] / count}

    def _sources(self, kind: str, count: int) -> list[Any]:
        if kind == "path":
            return list(self.paths[:count])
        if kind == "BytesIO":
            return [io.BytesIO(content) for content in self.contents[:count]]
        return [open(path, "rb") for path in self.paths[:count]]

    def _make_folders(self, root: Path) -> None:
        for content in self.contents:
            name = hashlib.sha256(content).hexdigest()
            os.makedirs(os.path.join(root, *name[:4]), exist_ok=True)

    def _hash(self, kind: str) -> Sample:
        sample: Sample = {}
        sources = self._sources(kind, len(self.contents))
        with stopwatch(sample):
            for source in sources:
                hash_alone(source)
        _close(sources)
        return {"time": sample["time"] / len(self.contents)}

    def _cp(self) -> Sample:
        sample: Sample = {}
        target = self.workspace.fresh()
        with stopwatch(sample):
            copy(self.folder, target / "copy")
        return {"time": sample["time"] / len(self.contents)}


# --- large files ---------------------------------------------------------------------------------


class Bigs:
    """One file of many bytes: what a put costs beside reading and hashing them."""

    def __init__(self, workspace: Workspace, scale: Scale, size: int) -> None:
        self.workspace, self.scale, self.size = workspace, scale, size
        self.times = 64 if scale.full and size <= MIB else 1
        self.source = workspace.fresh("source") / "content"
        block = os.urandom(MIB)
        with self.source.open("wb") as file:
            for index in range(size // MIB):
                file.write(index.to_bytes(8, "big") + block[8:])

    def measure(self, report: Report) -> None:
        amount = f"{self.size // MIB} MiB"
        for kind in KINDS if self.scale.full else KINDS[:2]:
            contenders = {name: partial(self._put, name, kind) for name in STORES}
            self._table(report, f"put a new {amount}, {kind}", contenders, kind, self._goals(kind))
        for kind in KINDS[:2]:
            stores = [name for name in STORES if name != DEPOT]
            contenders = {name: partial(self._put, name, kind, twice=True) for name in stores}
            goal = Goal(
                "at most 1.25 x reading and hashing the file", "time", OURS, HASH, 1.25, True
            )
            goals = [goal] if kind == "path" and self.size > MIB else []
            self._table(report, f"put a duplicate of {amount}, {kind}", contenders, kind, goals)

    def _goals(self, kind: str) -> list[Goal]:
        if self.size <= MIB or kind == "file object":
            return []
        limit, text = {
            "path": (1.10, "reading and hashing the file"),
            "BytesIO": (1.50, "hashing it"),
        }[kind]
        return [Goal(f"at most {limit:.2f} x {text}", "time", OURS, HASH, limit, True)]

    def _table(
        self,
        report: Report,
        title: str,
        contenders: dict[str, Callable[[], Sample]],
        kind: str,
        goals: list[Goal],
    ) -> None:
        contenders[HASH] = partial(self._hash, kind)
        if kind == "path":
            contenders[CP] = self._cp
        key = title.replace(" ", "-").replace(",", "")
        run_rounds(
            report,
            Table(key, title, HASH, [TIME], goals=goals),
            contenders,
            max(3, self.scale.rounds - 2) if self.size > MIB else self.scale.rounds,
        )

    def _put(self, name: str, kind: str, *, twice: bool = False) -> Sample:
        sample: Sample = {}
        with self.workspace.cleaned():
            for _ in range(self.times):
                put = STORES[name](self.workspace.fresh())
                if twice:
                    put(str(self.source))
                source = self._open(kind)
                self.workspace.warm(self.size)
                with stopwatch(sample):
                    put(source)
                _close([source])
        return sample

    def _open(self, kind: str) -> Any:
        if kind == "path":
            return str(self.source)
        return io.BytesIO(self.source.read_bytes()) if kind == "BytesIO" else self.source.open("rb")

    def _hash(self, kind: str) -> Sample:
        sample: Sample = {}
        for _ in range(self.times):
            source = self._open(kind)
            with stopwatch(sample):
                hash_alone(source)
            _close([source])
        return sample

    def _cp(self) -> Sample:
        sample: Sample = {}
        with self.workspace.cleaned():
            target = self.workspace.fresh()
            self.workspace.warm(self.size * self.times)
            with stopwatch(sample):
                for index in range(self.times):
                    copy(self.source, target / str(index))
        return sample


def hash_alone(source: Any) -> str:
    """Read and hash a source as fast as hashlib can."""
    if isinstance(source, io.BytesIO):
        with source.getbuffer() as buffer:
            return hashlib.sha256(buffer).hexdigest()
    if not isinstance(source, str):
        return hashlib.file_digest(source, "sha256").hexdigest()
    with open(source, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy(source: Path, target: Path) -> None:
    command = [which("cp") or "cp", "-r", "--reflink=never", str(source), str(target)]
    subprocess.run(command, check=True)


def _close(sources: Iterable[Any]) -> None:
    for source in sources:
        if hasattr(source, "close"):
            source.close()


# --- what needs a process of its own -------------------------------------------------------------


def calls(report: Report, workspace: Workspace) -> None:
    """Count the system calls of a put of 4 KiB into folders that exist."""
    if (strace := which("strace")) is None:
        report.leave_out("system calls of a put: strace is absent")
        return
    table = Table(
        "calls",
        "system calls of a put of 4 KiB, BytesIO, folders exist",
        "",
        [Metric("new", "new", "calls"), Metric("duplicate", "duplicate", "calls")],
        goals=[Goal("about 10, at most 12, for a new file", "new", OURS, "", 12, True)],
    )

    def count(name: str, what: str, number: int) -> int:
        log = workspace.fresh() / "log"
        child = _child("calls", name, what, number, workspace.fresh())
        subprocess.run(
            [strace, "-f", "-c", "-U", "calls,name", "-o", str(log), *child],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return sum(
            int(line.split()[0])
            for line in log.read_text().splitlines()
            if line.split() and line.split()[0].isdigit() and not line.endswith("total")
        )

    def measure(name: str) -> Sample:
        stores = ("new",) if name == DEPOT else ("new", "duplicate")
        return {what: (count(name, what, 60) - count(name, what, 20)) / 40 for what in stores}

    run_rounds(report, table, {name: partial(measure, name) for name in STORES}, 1, prime=False)


def memory(report: Report, workspace: Workspace, size: int, scale: Scale) -> None:
    """Measure how far a put lets the process grow."""
    table = Table(
        "memory",
        f"memory growth of a put of {size // MIB} MiB",
        "",
        [Metric(kind, kind, "MiB", worst=True) for kind in KINDS],
        goals=[Goal(f"at most 8 MiB, {kind}", kind, OURS, "", 8, True) for kind in KINDS],
    )
    source = workspace.fresh("source") / "content"
    source.write_bytes(os.urandom(size))

    def measure(name: str) -> Sample:
        with workspace.cleaned():
            return {
                kind: float(
                    subprocess.run(
                        _child("memory", name, kind, source, workspace.fresh()),
                        check=True,
                        capture_output=True,
                        text=True,
                    ).stdout
                )
                for kind in KINDS
            }

    contenders = {name: partial(measure, name) for name in STORES}
    run_rounds(report, table, contenders, 3 if scale.full else 1, prime=False)


def _child(*arguments: object) -> list[str]:
    return [sys.executable, __file__, *map(str, arguments)]


def _child_calls(name: str, what: str, number: str, root: str) -> None:
    contents = [index.to_bytes(8, "big") * (SMALL // 8) for index in range(60)]
    put = STORES[name](Path(root))
    for content in contents:
        digest = hashlib.sha256(content).hexdigest()
        os.makedirs(os.path.join(root, *digest[:4]), exist_ok=True)
        if what == "duplicate":
            put(io.BytesIO(content))
    for content in contents[: int(number)]:
        put(io.BytesIO(content))


def _child_memory(name: str, kind: str, source: str, root: str) -> None:
    put = STORES[name](Path(root))
    put(io.BytesIO(os.urandom(2 * MIB)))  # imports, threads, buffers
    content: Any = source
    if kind == "BytesIO":
        content = io.BytesIO(Path(source).read_bytes())
    elif kind != "path":
        content = io.BufferedReader(io.FileIO(source))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    put(content)
    print(max(0.0, _status("VmHWM") - before))


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


# --- growth --------------------------------------------------------------------------------------

PER_FILE = 5200  # bytes of disk that a tiny file and its share of the folders take


def growth(report: Report, workspace: Workspace, scale: Scale) -> None:
    """Measure the calls on trees of more and more files."""
    steps = [1000, 10_000, *([100_000] if scale.full else [])]
    if scale.name == "tiny":
        steps = [20, 40]
    if scale.million:
        steps.append(1_000_000)
    cap = workspace.room() // (2 * PER_FILE)
    if steps[-1] > cap:
        report.leave_out(f"trees of more than {cap} files: the disk has no room for two of them")
        steps = [step for step in steps if step <= cap]
    names = {OURS: "ours", HASHFS: "theirs"}
    table = Table(
        "growth",
        "one call on a tree of so many files",
        "",
        [
            Metric("ours", f"{OURS}, on {steps[0]} = 1", "ratio"),
            Metric("theirs", f"hashfs, on {steps[0]} = 1", "ratio"),
            Metric("between", f"{OURS}, hashfs = 1", "ratio"),
        ],
    )
    print(f"* {table.title}", flush=True)
    trees = {name: Tree(name, workspace.fresh("tree")) for name in names}
    first: dict[tuple[str, str], float] = {}
    for step in steps:
        for tree in trees.values():
            tree.fill(step)
        for _ in range(scale.rounds if step < 1_000_000 else 2):
            taken = {name: tree.measure(scale.pick(300, 100, 5)) for name, tree in trees.items()}
            for call in taken[OURS]:
                sample: Sample = {"between": taken[OURS][call] / taken[HASHFS][call]}
                for name, key in names.items():
                    sample[key] = taken[name][call] / first.setdefault(
                        (name, call), taken[name][call]
                    )
                table.rows.setdefault(f"{call}, {step:,} files", []).append(sample)
    order = {call: index for index, call in enumerate(Tree.CALLS)}
    table.rows = dict(sorted(table.rows.items(), key=lambda row: order[row[0].split(",")[0]]))
    report.add(table)


class Tree:
    """A store that is filled further and further."""

    CALLS = ("put", "duplicate", "get", "delete", "count")

    def __init__(self, name: str, root: Path) -> None:
        self.store: Any = HashFS(root, fsync=False)
        self.filler = HashFS(root, fsync=False)  # both lay their files out alike
        if name == HASHFS:
            self.store = hashfs.HashFS(str(root), depth=4, width=1, algorithm="sha256")
        self.number = self.serial = 0

    def fill(self, number: int) -> None:
        for index in range(self.number, number):
            self.filler.put(b"%d" % index)
        self.number = number

    def measure(self, times: int) -> Sample:
        """Return the seconds of each call, made so many times; the tree is then as before."""
        fresh = [io.BytesIO(b"new %d" % (self.serial + index)) for index in range(times)]
        self.serial += times
        step = max(1, self.number // times)
        stored = [b"%d" % index for index in range(0, self.number, step)][:times]
        ids = [hashlib.sha256(content).hexdigest() for content in stored]
        put = self._each(self.store.put, fresh)
        new_ids = [hashlib.sha256(source.getvalue()).hexdigest() for source in fresh]
        sample = {
            "put": put,
            "duplicate": self._each(self.store.put, [io.BytesIO(content) for content in stored]),
            "get": self._each(self.store.get, ids),
            "delete": self._each(self.store.delete, new_ids),
        }
        begin = time.perf_counter()
        found = self.store.count()
        sample["count"] = time.perf_counter() - begin
        if found != self.number:
            raise AssertionError(f"{found} files, not {self.number}")
        return sample

    @staticmethod
    def _each(call: Callable[[Any], object], items: Sequence[Any]) -> float:
        begin = time.perf_counter()
        for item in items:
            call(item)
        return (time.perf_counter() - begin) / len(items)


if __name__ == "__main__":
    {"calls": _child_calls, "memory": _child_memory}[sys.argv[1]](*sys.argv[2:])
