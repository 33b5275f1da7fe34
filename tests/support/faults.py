"""Processes to be killed, starved and lied to while they work on a store; run as a script.

The script waits for jobs on its standard input, one JSON object a line. Each is done by a forked
child, which starts at once where a fresh Python would take longer than its work, and makes no
system calls but those of the job. What the child reports survives its death.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask_hashfs import HashFS
from flask_hashfs._storage import spool

SMALL = b"small content"
LARGE = bytes(range(256)) * 2000  # goes to a file before it is put
OTHER = b"other content"

Report = Callable[[str], None]


def make_store(job: dict[str, Any]) -> HashFS:
    return HashFS(job["root"], fsync=job.get("fsync", True))


# -- what a child does -------------------------------------------------------------------------


def put(job: dict[str, Any], report: Report) -> None:
    content = {"small": SMALL, "large": LARGE}[job["content"]]
    address = make_store(job).put(content, job.get("extension"))
    report(f"{address.id} {address.relpath}")


def prune(job: dict[str, Any], report: Report) -> None:
    make_store(job).prune([job["keep"]])


def verify(job: dict[str, Any], report: Report) -> None:
    list(make_store(job).verify(quarantine=True))


def repair(job: dict[str, Any], report: Report) -> None:
    make_store(job).repair()


def put_many(job: dict[str, Any], report: Report) -> None:
    """Put, and sometimes prune, until killed."""
    store, lot = make_store(job), random.Random(job["seed"])
    in_use = [f"{0:064x}"]
    while True:
        content = content_of(lot.randrange(300))
        extension = lot.choice([None, "txt", "tar.gz"])
        address = store.put(content, extension)
        report(f"{address.id} {address.relpath}")
        if lot.random() < 0.02:
            store.prune(in_use)


def content_of(number: int) -> bytes:
    """Return some content, a few bytes or up to a megabyte."""
    lot = random.Random(number)
    return lot.randbytes(lot.choice([0, 10, 5000, 100_000, 300_000, 1_000_000]))


def race(job: dict[str, Any], report: Report) -> None:
    """Put old content in several threads while others prune it; report what is missing."""
    import threading

    store, end = make_store(job), time.monotonic() + job["seconds"]
    puts = 0

    def work(mark: str) -> None:
        try:
            put_and_look(mark)
        except Exception as error:
            report(f"failed {error!r}")

    def put_and_look(mark: str) -> None:
        nonlocal puts
        for number in range(sys.maxsize):
            if time.monotonic() > end:
                return
            content = f"{mark} {number % 5}".encode()
            address = store.put(content)
            puts += 1
            for look in (address.id, address.relpath):
                if not store.exists(look):
                    report(f"missing {look}, then {store.exists(look)}, was {address}")
            try:
                with store.open(address) as file:
                    if file.read() != content:
                        report(f"wrong {address.relpath}")
            except OSError as error:
                report(f"missing {error}")
            if number % 3:
                with contextlib.suppress(FileNotFoundError):  # just moved aside
                    os.utime(address.abspath, (0, 0))  # the next put finds it old, or half gone

    threads = [
        threading.Thread(target=work, args=(f"{job['seed']} {each}",))
        for each in range(job["threads"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report(f"puts {puts}")


def prune_always(job: dict[str, Any], report: Report) -> None:
    store, end = make_store(job), time.monotonic() + job["seconds"]
    prunes = deleted = 0
    while time.monotonic() < end:
        deleted += len(store.prune([f"{0:064x}"]))
        prunes += 1
    report(f"prunes {prunes} deleted {deleted}")


JOBS: dict[str, Callable[[dict[str, Any], Report], None]] = {
    each.__name__: each for each in (put, prune, verify, repair, put_many, race, prune_always)
}


def child(job: dict[str, Any], pipe: int) -> None:
    write = os.write

    def report(line: str) -> None:
        write(pipe, line.encode() + b"\n")

    if job.get("named"):
        spool._UNNAMED = 0
    if job.get("short_writes"):
        os.write = lambda fd, data: write(
            fd, memoryview(data)[: max(1, memoryview(data).nbytes // 2)]
        )
    if job.get("traced"):
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(2**64 - 1))  # whoever may trace it
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        JOBS[job["do"]](job, report)
    except OSError as error:
        report(f"error {error}")


def serve() -> None:
    with tempfile.TemporaryDirectory() as root:  # so that everything is imported
        store = HashFS(root)
        store.put(LARGE)
        store.put(LARGE, "txt")
        list(store.verify())
        store.prune(allow_empty=True)
    gc.disable()
    for line in sys.stdin:
        job = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(read)
                child(job, write)
                code = 0
            finally:
                os._exit(code)
        os.close(write)
        print(pid, flush=True)
        with os.fdopen(read) as pipe:
            reports = pipe.read().splitlines()
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps({"reports": reports, "code": code}), flush=True)


# -- what a test does --------------------------------------------------------------------------


@dataclass
class Outcome:
    reports: list[str]
    code: int
    calls: Counter[str]

    @property
    def returned(self) -> list[tuple[str, str]]:
        """The id and relpath of every put that returned."""
        pairs = (line.split(" ") for line in self.reports if not line.startswith("error"))
        return [(id, relpath) for id, relpath in pairs]


class Server:
    """The script, running."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, **job: Any) -> int:
        """Begin a job and return the pid of its process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job, default=str) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def outcome(self, calls: Counter[str] | None = None) -> Outcome:
        """Wait for the end of the job."""
        assert self._process.stdout
        return Outcome(**json.loads(self._process.stdout.readline()), calls=calls or Counter())

    def run(self, **job: Any) -> Outcome:
        self.start(**job)
        return self.outcome()

    def trace(self, log: Path, *options: str, **job: Any) -> Outcome:
        """Do a job under strace."""
        pid = self.start(traced=True, **job)
        while " T " not in Path(f"/proc/{pid}/stat").read_text():
            time.sleep(0.001)
        words = ["strace", "-f", "-o", str(log), "-e", "trace=%file,%desc", *options]
        with subprocess.Popen([*words, "-p", str(pid)], stderr=subprocess.PIPE) as strace:
            assert strace.stderr
            attached = strace.stderr.readline()
            os.kill(pid, signal.SIGCONT)
            assert b"attached" in attached, attached
            outcome = self.outcome()
            strace.stderr.read()
        names = re.findall(r"^(?:\d+ +)?(\w+)\(", log.read_text(errors="replace"), re.M)
        outcome.calls = Counter(names)
        return outcome

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@contextmanager
def server() -> Iterator[Server]:
    running = Server()
    try:
        yield running
    finally:
        running.close()


def check(root: Path, returned: list[tuple[str, str]]) -> None:
    """Check what must hold of a store after any crash."""
    store = HashFS(root)
    for path in store.files():
        relpath = os.path.relpath(path, root)
        id = store.backend.layout.id_of(relpath)
        assert id is not None, f"{relpath} is no address"
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        assert digest == id, f"{relpath} holds other bytes"
    for id, relpath in returned:
        assert store.exists(id)
        assert store.exists(relpath), f"the put of {relpath} had returned"


def check_prune(root: Path, in_use: list[str]) -> None:
    """Check that the next prune leaves nothing but content."""
    store = HashFS(root, fsync=False)
    old = time.time() - 3601
    for path in root.glob(".hashfs/tmp/*"):
        os.utime(path, (old, old))
    store.prune([*in_use, f"{0:064x}"])
    left = [path for path in root.glob(".hashfs/**/*") if "quarantine" not in path.parts]
    assert left in ([], [root / ".hashfs" / "quarantine"]), left
    for folder in root.rglob("?"):  # another layout's folders are no business of a prune
        assert not folder.is_dir() or any(folder.iterdir()), f"{folder} is empty"


if __name__ == "__main__":
    serve()
