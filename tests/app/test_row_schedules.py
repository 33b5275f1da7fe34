"""Rows and files in schedules drawn by lot, with processes that are killed, on real databases.

``HASHFS_TEST_SCHEDULES`` is how many there are for each database, if not a few only.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import row_mutations
from databases import LEFT_OUT, postgresql, postgresql_programs
from row_schedules import player

SCHEDULES = int(os.environ.get("HASHFS_TEST_SCHEDULES", "3"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/rows.db"
        return
    if postgresql_programs() is None:
        pytest.skip(LEFT_OUT)
    with postgresql() as query:
        yield f"postgresql+psycopg:///postgres?{query}"


@pytest.mark.slow
@pytest.mark.timeout(300 + 10 * SCHEDULES)
def test_no_row_is_without_its_file_and_no_file_stays_without_a_row(
    url: str, tmp_path: Path
) -> None:
    totals: Counter[str] = Counter()
    with player() as playing:
        for seed in range(SCHEDULES):
            root = tmp_path / "root"
            outcome = playing.play(seed=seed, root=root, url=url)
            assert outcome["lost"] == [], f"seed {seed}: rows without their file"
            assert outcome["left"] == [], f"seed {seed}: files without a row"
            assert outcome["failed"] == 0, f"seed {seed}: a process ended with an error"
            totals.update({key: outcome[key] for key in ("rows", "deleted", "killed")})
            shutil.rmtree(root)
    print(SCHEDULES, dict(totals))  # shown by pytest -rP
    assert all(totals[each] for each in ("rows", "deleted", "killed")), totals


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", row_mutations.MUTATIONS)
def test_schedules_find_what_would_lose_or_leave_files(mutation: str, tmp_path: Path) -> None:
    """Each is found by one of the first schedules."""
    with player(row_mutations.__file__, mutation) as playing:
        for seed in range(40):
            url = f"sqlite:///{tmp_path}/rows.db"
            outcome = playing.play(seed=seed, root=tmp_path / "root", url=url)
            if outcome["lost"] or outcome["left"]:
                return
            shutil.rmtree(tmp_path / "root")
    pytest.fail("40 schedules have found nothing")
