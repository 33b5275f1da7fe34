"""The contract that ships passes a right backend of somebody else, and fails a wrong one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import pytest

from flask_hashfs import HashAddress, HashFS
from flask_hashfs.backends import Content, File, InUse, Layout, Writer
from flask_hashfs.testing import NewStore, StoreContract

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "backend" / "dict_backend.py"

spec = importlib.util.spec_from_file_location("dict_backend", EXAMPLE)
assert spec is not None
assert spec.loader is not None
dict_backend: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dict_backend)
DictBackend: Any = dict_backend.DictBackend


@pytest.mark.slow  # `quick` runs the contract over one store, tests/local/test_store.py
class TestDictStore(StoreContract):
    passes_on_bytes = True  # sources are read before a backend is asked

    @pytest.fixture
    def new_store(self) -> NewStore:
        new: NewStore = dict_backend.DictStore
        return new


class NeverADuplicate(DictBackend):
    def commit(self, writer: Writer, suffix: str, *, sync: bool = True) -> HashAddress:
        address: HashAddress = super().commit(writer, suffix, sync=sync)
        return address._replace(is_duplicate=False)


class ForgetsTheExtension(DictBackend):
    def commit(self, writer: Writer, suffix: str, *, sync: bool = True) -> HashAddress:
        address: HashAddress = super().commit(writer, "", sync=sync)
        return address


class LosesTheEnd(DictBackend):
    def open(self, file: File, mode: str) -> IO[Any] | None:
        opened: IO[Any] | None = super().open(file, mode)
        if opened is not None:
            opened.read(1)
        return opened


class CannotDelete(DictBackend):
    def delete(self, file: File) -> None:
        return


class MeasuresWrongly(DictBackend):
    def open_content(self, file: File, read: bool = True) -> Content | None:
        content: Content | None = super().open_content(file, read)
        return content and content._replace(size=content.size + 1)


class PrunesAll(DictBackend):
    def prune(self, in_use: InUse, older_than: timedelta, dry_run: bool) -> list[str]:
        ids: list[str] = super().prune(self.in_use(), timedelta(0), dry_run)
        return ids


CONTRACT = StoreContract()
CAUGHT: dict[Any, Callable[[HashFS], None]] = {
    NeverADuplicate: lambda store: CONTRACT.test_equal_content_is_stored_once(store, 5),
    ForgetsTheExtension: lambda store: CONTRACT.test_an_extension_ends_the_name(store, "txt"),
    LosesTheEnd: lambda store: CONTRACT.test_open_gives_a_binary_reader(store, 5),
    CannotDelete: CONTRACT.test_delete_by_id_takes_every_name,
    MeasuresWrongly: lambda store: CONTRACT.test_content_to_serve_comes_measured(store, 5),
    PrunesAll: CONTRACT.test_a_prune_leaves_what_is_in_use_and_what_is_young,
}


@pytest.mark.parametrize("broken", CAUGHT, ids=lambda broken: broken.__name__)
def test_a_broken_backend_fails_the_contract(broken: Any) -> None:
    CAUGHT[broken](dict_backend.DictStore())
    store = dict_backend.DictStore()
    store.backend = broken(Layout(4, 1, "sha256"))
    with pytest.raises(AssertionError):
        CAUGHT[broken](store)


def test_many_files_are_stored_by_a_backend_that_has_no_quicker_way() -> None:
    store = dict_backend.DictStore()
    results = [result for _, result in store.put_files([(b"one", None), (5, None), (b"two", "a")])]
    assert [type(result) for result in results] == [HashAddress, TypeError, HashAddress]
    stats = store.stats()
    assert (stats.files, stats.contents, stats.bytes) == (2, 2, 6)


TEST_FILE = """
import pytest
from dict_backend import DictStore
from flask_hashfs.testing import StoreContract


class TestDictStore(StoreContract):
    @pytest.fixture
    def new_store(self):
        return DictStore


class TestBroken(TestDictStore):
    @pytest.fixture
    def new_store(self):
        def new_store(**options):
            store = DictStore(**options)
            store.backend.delete = lambda file: None
            return store

        return new_store
"""


@pytest.mark.slow
def test_the_contract_runs_in_a_project_that_allows_no_warning(tmp_path: Path) -> None:
    (tmp_path / "dict_backend.py").write_text(EXAMPLE.read_text(encoding="utf-8"))
    (tmp_path / "test_it.py").write_text(TEST_FILE)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -W error --strict-markers\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "delete_again"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "where 1 = count()" in done.stdout or "assert [" in done.stdout  # values are told


@pytest.mark.slow
def test_who_only_stores_needs_no_pytest() -> None:
    code = (
        "import sys, flask_hashfs.backends\n"
        "print({'pytest', 'flask_hashfs.testing'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
