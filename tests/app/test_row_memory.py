"""Memory of a prune that asks a database: no more than for the ids themselves, whatever the rows.

``HASHFS_TEST_ROWS`` is how many rows there are, if not a few only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import row_memory
from databases import LEFT_OUT, postgresql, postgresql_programs

ROWS = int(os.environ.get("HASHFS_TEST_ROWS", "100000"))
BESIDE = 64 * 1024  # KiB beside the ids

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/rows.db"
        return
    if postgresql_programs() is None:
        pytest.skip(LEFT_OUT)
    with postgresql() as query:
        yield f"postgresql+psycopg:///postgres?{query}"


def growth(of: str, root: Path) -> int:
    """The memory in KiB that a prune took in a process of its own."""
    command = [sys.executable, row_memory.__file__, of, str(ROWS), str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rows_are_streamed(url: str, tmp_path: Path) -> None:
    row_memory.fill(url, ROWS)
    ids, rows = growth("ids", tmp_path / "ids"), growth(url, tmp_path / "rows")
    print(f"{ROWS} rows: {rows / 1024:.1f} MiB, the ids alone {ids / 1024:.1f} MiB")  # pytest -rP
    assert rows - ids <= BESIDE
