"""Eight threads in each of four processes put, get, open and delete sixteen contents at once.

``HASHFS_TEST_SECONDS`` is how long they do so, if not for a moment only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import crowd
import pytest
from local_stores import assert_tidy

from flask_hashfs import HashFS

SECONDS = float(os.environ.get("HASHFS_TEST_SECONDS", "2"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "fsync"), [("unnamed", False), ("named", False), ("unnamed", True)]
)
def test_no_call_fails_because_of_another_and_nothing_is_left_behind(
    tmp_path: Path, way: str, fsync: bool
) -> None:
    store = HashFS(tmp_path / "root", fsync=False)
    processes = [
        subprocess.Popen(
            [sys.executable, Path(crowd.__file__), json.dumps(orders)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for orders in (
            {"root": store.root, "way": way, "seconds": SECONDS, "seed": seed, "fsync": fsync}
            for seed in range(4)
        )
    ]
    counts: Counter[str] = Counter()
    for process in processes:
        result = json.loads(process.communicate(timeout=SECONDS + 120)[0])
        assert result["errors"] == []
        counts.update(result["counts"])
    assert all(counts[step] for step in ("put", "upload", "get", "open", "delete", "list")), counts
    assert list(store.corrupted()) == []
    for path in list(store.files()):
        store.delete(path)
    assert_tidy(store)
    assert os.listdir(store.root) == []
