"""A store in a dict: a backend that keeps every promise of a store, in a hundred lines."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Generator, Iterator
from datetime import timedelta
from typing import IO, Any

from flask_hashfs import HashFS
from flask_hashfs.backends import (
    Backend,
    Content,
    Damaged,
    Entry,
    File,
    Finding,
    FirstLook,
    HashAddress,
    InUse,
    Layout,
    Progress,
    SystemSpool,
    Writer,
    names_of,
)


class DictStore(HashFS):
    """A store over a `DictBackend`."""

    def __init__(
        self,
        depth: int = 4,
        width: int = 1,
        algorithm: str = "sha256",
        *,
        max_size: int | None = None,
    ) -> None:
        self.backend = DictBackend(Layout(depth, width, algorithm))
        self.max_size = max_size


class DictBackend(Backend):
    """Content in a dict, under its path relative to the root."""

    def __init__(self, layout: Layout) -> None:
        super().__init__("dict:", layout)
        self._files: dict[str, tuple[bytes, float]] = {}  # bytes, and when they were last put
        self._quarantine: list[tuple[str, bytes]] = []
        self._lock = threading.Lock()
        self._spool = SystemSpool()

    # -- putting ---------------------------------------------------------------------------

    def new_writer(self, limit: int | None) -> Writer:
        return Writer(self.layout.algorithm, self._spool, self.dmode, limit)

    def commit(self, writer: Writer, suffix: str, *, sync: bool = True) -> HashAddress:
        with writer.reader() as reader:
            data = reader.read()
        path = self.layout.path_of(writer.id, suffix)
        with self._lock:
            there = self._paths(writer.id)
            for each in (path, *there):  # every path of the content is young again, and whole
                self._files[each] = data, time.time()
        return self.address_of(path)._replace(is_duplicate=bool(there))

    # -- looking up ------------------------------------------------------------------------

    def find(self, file: File) -> HashAddress | None:
        found = self._look_up(file)
        return None if found is None else self.address_of(found[0])

    def open(self, file: File, mode: str) -> IO[Any] | None:
        found = self._look_up(file)
        if found is None:
            return None
        reader = io.BufferedReader(io.BytesIO(found[1]))
        return reader if "b" in mode else io.TextIOWrapper(reader)

    def open_content(self, file: File, read: bool = True) -> Content | None:
        found = self._look_up(file)
        if found is None:
            return None
        path, data = found
        return Content(self.address_of(path), io.BytesIO(data) if read else None, len(data))

    def relpath_of(self, name: str) -> str | None:
        return name.removeprefix(self.prefix) or None

    def haspath(self, path: str) -> bool:
        return path.startswith(self.prefix)

    def _look_up(self, file: File) -> tuple[str, bytes] | None:
        with self._lock:
            for name in names_of(file):
                paths = self._paths(name) if self.layout.is_id(name) else [self.relpath_of(name)]
                if paths and paths[0] in self._files:
                    return paths[0], self._files[paths[0]][0]
        return None

    def _paths(self, id: str) -> list[str]:
        path = self.layout.path_of(id)
        return sorted(each for each in self._files if each == path or each.startswith(path + "."))

    # -- deleting --------------------------------------------------------------------------

    def delete(self, file: File) -> None:
        name = names_of(file)[0]
        with self._lock:
            paths = self._paths(name) if self.layout.is_id(name) else [self.relpath_of(name)]
            for path in paths:
                self._files.pop(path or "", None)

    # -- listing ---------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        for path, (data, mtime) in self._snapshot():
            yield Entry(self.layout.id_of(path), path, len(data), mtime)

    def folders(self) -> Generator[str]:
        yield from {path.rpartition("/")[0] for path in self.files()}

    def _snapshot(self) -> list[tuple[str, tuple[bytes, float]]]:
        with self._lock:
            return list(self._files.items())

    # -- keeping in order ------------------------------------------------------------------

    def diagnose(self) -> Iterator[Finding]:
        yield Finding("memory", "ok", "the content is gone when the process ends")

    def probe(self) -> None:
        return

    def corrupted(self, extensions: bool) -> Generator[tuple[str, HashAddress]]:
        for path, (data, _) in self._snapshot():
            id = self._hash(data)
            suffix = self.layout.suffix_of(path, id) if extensions else ""
            right = self.layout.path_of(id, suffix)
            if right != path:
                yield self.prefix + path, self.address_of(right)

    def repair(self, extensions: bool) -> list[tuple[str, HashAddress]]:
        moved = list(self.corrupted(extensions))
        with self._lock:
            for path, address in moved:
                self._files[address.relpath] = self._files.pop(self.relpath(path))
        return moved

    def verify(self, quarantine: bool, force: bool = False) -> Generator[Progress | Damaged]:
        look: FirstLook[str] = FirstLook(self.layout.algorithm, force or not quarantine)
        for path, (data, _) in self._snapshot():
            is_damaged = self._hash(data) != self.layout.id_of(path)
            yield from self._settle(look.damaged(path) if is_damaged else look.whole(), quarantine)
            yield Progress(1)
        yield from self._settle(look.rest(), quarantine)

    def quarantine(self, relpath: str) -> None:
        with self._lock:
            if relpath in self._files:
                self._quarantine.append((relpath, self._files.pop(relpath)[0]))

    def prune(self, in_use: InUse, older_than: timedelta, dry_run: bool) -> list[str]:
        limit = in_use.since / 1e9 - older_than.total_seconds()
        with self._lock:
            ids = {self.layout.id_of(path) for path in self._files}
            gone = [
                id
                for id in ids
                if id is not None
                and id not in in_use
                and all(self._files[path][1] <= limit for path in self._paths(id))
            ]
            if not dry_run:
                for id in gone:
                    for path in self._paths(id):
                        del self._files[path]
        return gone

    def _settle(self, paths: list[str], quarantine: bool) -> Iterator[Damaged]:
        for path in paths:
            if quarantine:
                self.quarantine(path)
            yield Damaged(self.address_of(path))

    def _hash(self, data: bytes) -> str:
        hash = self.layout.new_hash()
        hash.update(data)
        return hash.hexdigest()
