"""A store does what a dict would do, in any order of calls, in several threads at once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flask_hashfs import HashFS
from flask_hashfs.testing.store_contract import id_of

CONTENTS = [b"", b"a", b"b" * 1000, bytes(300_000), b"d" * 70_000, b"e"]
EXTENSIONS = [None, "txt", "tar.gz"]
LONG = bool(os.environ.get("HASHFS_TEST_LONG"))


def content_of(number: int) -> bytes:
    return CONTENTS[number]


contents = st.integers(0, len(CONTENTS) - 1).map(content_of)
extensions = st.sampled_from(EXTENSIONS)
some_contents = st.lists(contents, unique=True, min_size=1)


class Model(RuleBasedStateMachine):
    """The model: for each content the extensions of its names; and which contents are old."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.store = HashFS(self.root / "root", fsync=False)
        self.names: dict[bytes, set[str | None]] = {}
        self.old: set[bytes] = set()
        self.damaged: set[bytes] = set()
        self.threads = ThreadPoolExecutor(4)

    def teardown(self) -> None:
        self.threads.shutdown()
        shutil.rmtree(self.root)

    def path(self, content: bytes, extension: str | None) -> str:
        return self.store.idpath(id_of(content)) + (f".{extension}" if extension else "")

    def expect_put(self, content: bytes, extension: str | None) -> Callable[[], None]:
        """Put into the model; return the same put into the store, with its checks."""
        known = content in self.names
        self.names.setdefault(content, set()).add(extension)
        self.old.discard(content)

        def put() -> None:
            address = self.store.put(content, extension)
            assert address.id == id_of(content)
            assert address.abspath == self.path(content, extension)
            assert address.is_duplicate == known

        return put

    @rule(content=contents, extension=extensions)
    def put(self, content: bytes, extension: str | None) -> None:
        self.expect_put(content, extension)()

    @rule(several=some_contents, extension=extensions, gone=some_contents)
    def put_and_delete_in_threads(
        self, several: list[bytes], extension: str | None, gone: list[bytes]
    ) -> None:
        works: list[Callable[[], Any]] = [self.expect_put(each, extension) for each in several]
        for content in set(gone) - set(several):
            self.forget(content)
            works.append(partial(self.store.delete, id_of(content)))
        live = [id_of(content) for content in self.names]
        works.append(lambda: self.store.prune([*live, "0" * 64]))  # what is deleted meanwhile
        works.append(lambda: list(self.store.verify()))
        for future in [self.threads.submit(work) for work in works]:
            future.result()

    @rule(content=contents, extensions=st.sets(extensions, min_size=1))
    def put_the_same_in_threads(self, content: bytes, extensions: set[str | None]) -> None:
        known = content in self.names
        self.names.setdefault(content, set()).update(extensions)
        self.old.discard(content)
        futures = [
            self.threads.submit(self.store.put, content, extension)
            for extension in [*extensions, *extensions]
        ]
        new = [future for future in futures if not future.result().is_duplicate]
        assert bool(new) != known

    def forget(self, content: bytes) -> None:
        self.names.pop(content, None)
        self.old.discard(content)
        self.damaged.discard(content)

    @rule(content=contents)
    def delete(self, content: bytes) -> None:
        self.store.delete(id_of(content))
        self.forget(content)

    @rule(content=contents, extension=extensions)
    def delete_a_name(self, content: bytes, extension: str | None) -> None:
        path = self.path(content, extension)
        names = self.names.get(content, set())
        self.store.delete(path)
        names.discard(extension)
        if not names:
            self.forget(content)

    @rule(content=contents)
    def grow_old(self, content: bytes) -> None:
        for extension in self.names.get(content, ()):
            os.utime(self.path(content, extension), (0, 0))
            self.old.add(content)

    @rule(content=contents)
    def truncate(self, content: bytes) -> None:
        """Damage that the next put heals by itself."""
        if content and content in self.names and content not in self.damaged:
            for extension in self.names[content]:
                os.truncate(self.path(content, extension), len(content) - 1)
            assert {each.id for each in self.store.verify()} >= {id_of(content)}
            extension = next(iter(self.names[content]))
            assert self.store.put(content, extension).is_duplicate
            self.old.discard(content)

    @rule(content=contents)
    def change_a_byte(self, content: bytes) -> None:
        if content and content in self.names and content not in self.damaged:
            for extension in self.names[content]:
                path = Path(self.path(content, extension))
                path.write_bytes(b"\xff" + content[1:])
            self.damaged.add(content)
            self.old.discard(content)

    @rule()
    def quarantine(self) -> None:
        found = {each.id for each in self.store.verify(quarantine=True)}
        assert found == {id_of(content) for content in self.damaged}
        for content in list(self.damaged):
            self.forget(content)

    @rule(live=st.sets(contents), dry_run=st.booleans())
    def prune(self, live: set[bytes], dry_run: bool) -> None:
        dead = self.old - live
        keep = [id_of(content) for content in live]
        found = self.store.prune(keep, dry_run=dry_run, allow_empty=True)
        assert sorted(found) == sorted(map(id_of, dead))
        if not dry_run:
            for content in dead:
                self.forget(content)

    @rule(live=st.sets(contents))
    def prune_young_ones_too(self, live: set[bytes]) -> None:
        keep = [self.path(content, "txt") for content in live]
        found = self.store.prune(keep, older_than=timedelta(0), allow_empty=True)
        dead = set(self.names) - live
        assert sorted(found) == sorted(map(id_of, dead))
        for content in dead:
            self.forget(content)

    @rule()
    def repair(self) -> None:
        if not self.damaged:  # or it moves them to where their bytes belong
            assert self.store.repair() == []

    @rule(content=contents, extension=extensions)
    def misplace_and_repair(self, content: bytes, extension: str | None) -> None:
        if self.damaged:
            return
        HashFS(self.store.root, depth=1, width=3, fsync=False).put(content, extension)
        assert len(self.store.repair()) == 1
        self.names.setdefault(content, set()).add(extension)
        self.old.discard(content)

    @invariant()
    def the_same_is_stored(self) -> None:
        paths = {
            self.path(content, extension)
            for content, extensions in self.names.items()
            for extension in extensions
        }
        assert set(self.store.files()) == paths
        for content in CONTENTS:
            address = self.store.get(id_of(content))
            assert (address is not None) == (content in self.names)
            if address is not None and content not in self.damaged:
                with self.store.open(address) as file:
                    assert file.read() == content


ALL_CHECKS: Any = list(HealthCheck)  # iterated by its metaclass, which leaves out some
TestModel = pytest.mark.slow(Model.TestCase)
TestModel.settings = settings(
    max_examples=1000 if LONG else 25,
    stateful_step_count=40 if LONG else 25,
    deadline=None,
    suppress_health_check=ALL_CHECKS,
)
