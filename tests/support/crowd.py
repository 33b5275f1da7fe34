"""A crowd of threads on one store, in a process of its own; run as a script by test_crowd.py.

It gets its orders as JSON on the command line, and prints what went wrong and what it counted.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from typing import Any

from local_stores import spool_of

from flask_hashfs import HashFS, NotStoredError

CONTENTS = [bytes([n]) * (size + n) for n, size in enumerate([0, 1, 4096, 300_000] * 4)]
IDS = [hashlib.sha256(data).hexdigest() for data in CONTENTS]


def main(root: str, way: str, seconds: float, seed: int, fsync: bool) -> dict[str, Any]:
    umask = os.umask(0o027)
    os.umask(umask)
    fds = len(os.listdir("/proc/self/fd"))
    store = HashFS(root, fsync=fsync)
    if way != "unnamed":
        spool_of(store).unnamed = False
    errors: list[str] = []
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    os.umask(0o077)
    threads = [
        threading.Thread(
            target=work, args=(store, end, random.Random(f"{seed} {n}"), errors, counts)
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if os.umask(umask) != 0o077:
        errors.append("the umask has changed")
    if len(os.listdir("/proc/self/fd")) != fds:
        errors.append("a descriptor is left open")
    return {"errors": errors[:5], "counts": counts}


def work(
    store: HashFS, end: float, lot: random.Random, errors: list[str], counts: Counter[str]
) -> None:
    step, number = "", 0
    try:
        while time.monotonic() < end:
            step = lot.choice(["put", "put", "upload", "get", "open", "delete", "list"])
            number = lot.randrange(len(CONTENTS))
            counts[step] += act(store, step, number, lot)
    except BaseException as error:
        errors.append(f"{step} {number}: {type(error).__name__}: {error}")


def act(store: HashFS, step: str, number: int, lot: random.Random) -> int:
    """Take one step, and tell whether it met the content."""
    data, extension = CONTENTS[number], lot.choice(["", "txt", "tar.gz"])
    path = store.idpath(IDS[number], extension)
    name = lot.choice([IDS[number], path, store.relpath(path)])
    if step == "put":
        address = store.put(io.BytesIO(data), extension, expected=IDS[number])
        assert address.abspath == path
        return not address.is_duplicate
    if step == "upload":
        with store.writer() as writer:
            writer.write(data)
            return store.commit(writer, extension).id == writer.id
    if step == "get":
        found = store.get(name)
        assert found is None or found.id == IDS[number]
        return found is not None
    if step == "open":
        try:
            with store.open(name) as file:
                assert file.read() == data, "not whole"
        except NotStoredError:
            return 0
        return 1
    if step == "delete":
        store.delete(name)
        return 1
    assert store.count() <= 3 * len(CONTENTS)
    return store.size() > 0


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
