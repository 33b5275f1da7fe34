"""The walk through a tree: what cannot be entered is left out, and depth has no limit."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from permissions import permissions_hold

from flask_hashfs import HashFS

LISTINGS: dict[str, Callable[[HashFS], Any]] = {
    "files": lambda store: list(store.files()),
    "folders": lambda store: list(store.folders()),
    "count": lambda store: store.count(),
    "size": lambda store: store.size(),
    "entries": lambda store: list(store.entries()),
    "stats": lambda store: store.stats(),
    "corrupted": lambda store: list(store.corrupted()),
    "repair": lambda store: store.repair(),
    "verify": lambda store: list(store.verify(quarantine=True)),
    "prune": lambda store: store.prune(allow_empty=True, older_than=timedelta(days=1)),
}


@pytest.fixture
def store(tmp_path: Path) -> HashFS:
    store = HashFS(tmp_path / "root", fsync=False)
    store.put(b"hello", "txt")
    return store


@pytest.mark.parametrize(
    ("place", "mode"),
    [("lost+found", 0), ("lost+found", 0o444), ("a/b", 0o111), (".hashfs/quarantine", 0)],
)
@pytest.mark.parametrize("listing", LISTINGS)
def test_a_folder_that_may_not_be_entered_is_left_out_with_a_warning(
    store: HashFS, listing: str, place: str, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    expected = LISTINGS[listing](store)
    lost = Path(store.root, place)
    lost.mkdir(parents=True)
    (lost / "inner").mkdir()
    (lost / "file").write_bytes(b"out of reach")
    try:
        lost.chmod(mode)
        with permissions_hold(), caplog.at_level(logging.WARNING, "flask_hashfs"):
            assert LISTINGS[listing](store) == expected
    finally:
        lost.chmod(0o755)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"{lost} is left out: Permission denied"] * len(told)
    assert len(told) == 1 or place != "lost+found"


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_root_that_may_not_be_entered_is_an_error_and_not_an_empty_store(
    store: HashFS, listing: str
) -> None:
    try:
        os.chmod(store.root, 0)
        with permissions_hold(), pytest.raises(PermissionError):
            LISTINGS[listing](store)
    finally:
        os.chmod(store.root, 0o755)


@pytest.fixture
def nest(store: HashFS) -> Iterator[Callable[[str, int], None]]:
    """Give a function that nests folders of one name, deeper than Python's own calls can."""

    def nest(name: str, depth: int) -> None:
        folder = os.open(store.root, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=folder)
            inner = os.open(name, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
        os.close(folder)

    yield nest
    subprocess.run(["rm", "-rf", store.root], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("listing", LISTINGS)
def test_folders_may_be_nested_as_deep_as_paths_are_long(
    store: HashFS, nest: Callable[[str, int], None], listing: str
) -> None:
    expected = LISTINGS[listing](store)
    nest("x", 1100)
    assert LISTINGS[listing](store) == expected


@pytest.mark.parametrize("listing", LISTINGS)
def test_folders_deeper_than_a_path_can_be_long_are_left_out_with_a_warning(
    store: HashFS,
    nest: Callable[[str, int], None],
    listing: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = LISTINGS[listing](store)
    nest("n" * 200, 30)
    with caplog.at_level(logging.WARNING, "flask_hashfs"):
        assert LISTINGS[listing](store) == expected
    assert "File name too long" in caplog.text
