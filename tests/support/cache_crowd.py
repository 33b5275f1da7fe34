"""One process of a crowd that uses one cache: puts, reads, deletes and deletes the cache itself.

Started as ``python cache_crowd.py JSON``; it ends with an error if it was ever given a wrong byte
or met an exception that nobody has earned.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import threading
import time
from typing import Any

from flask_hashfs import HashFS
from flask_hashfs._cache.backend import CachedBackend
from flask_hashfs._store.object_store import ObjectStore

CONTENTS = 30
LARGEST = 300_000
THREADS = 4


def content(number: int) -> bytes:
    """Return one of the crowd's contents."""
    source = random.Random(number)
    return source.randbytes(source.randrange(1, LARGEST))


def id_of(number: int) -> str:
    """Return the id of one of them."""
    return hashlib.sha256(content(number)).hexdigest()


def open_store(root: str, options: dict[str, Any], folder: str, limit: int, trust: int) -> HashFS:
    """Return the crowd's store with its cache."""
    store: HashFS = ObjectStore(root, options=options) if "://" in root else HashFS(root)
    store.backend = CachedBackend(store.backend, folder, limit, limit, trust)
    return store


class Crowd:
    """The threads of this process."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.folder = given["folder"]
        self.store = open_store(
            given["root"], given["options"], self.folder, given["limit"], given["trust"]
        )
        self.deletes = given["deletes"]
        self.until = time.monotonic() + given["seconds"]
        self.seed = given["seed"]
        self.errors: list[BaseException] = []

    def run(self) -> None:
        """Run them to their end, and raise what the first one raised that failed."""
        threads = [threading.Thread(target=self._run, args=[each]) for each in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in self.errors:
            raise error

    def _run(self, thread: int) -> None:
        chosen = random.Random(self.seed * THREADS + thread)
        try:
            while time.monotonic() < self.until and not self.errors:
                self._step(chosen)
        except BaseException as error:
            self.errors.append(error)

    def _step(self, chosen: random.Random) -> None:
        number, step = chosen.randrange(CONTENTS), chosen.random()
        if step < 0.2:
            assert self.store.put(content(number)).id == id_of(number)
        elif step < 0.2 + self.deletes:
            self.store.delete(id_of(number))
        elif step < 0.21 + self.deletes and self.deletes:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self._read(number, chosen)

    def _read(self, number: int, chosen: random.Random) -> None:
        wanted = content(number)
        try:
            with self.store.open(id_of(number)) as file:
                if chosen.random() < 0.2:  # and leaves
                    assert wanted.startswith(file.read(1000))
                else:
                    assert file.read() == wanted
        except FileNotFoundError:
            assert self.deletes, "what nobody has deleted is not stored"


if __name__ == "__main__":
    Crowd(json.loads(sys.argv[1])).run()
