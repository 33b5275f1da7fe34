"""The benchmarks still run: tiny sizes, whose figures mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytest.importorskip("depot", reason="filedepot is not installed")


def test_the_store_section_runs_and_writes_its_report(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(BENCHMARKS), "store", "--tiny", "--json", str(report)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    subprocess.run(
        [*command, "--root", str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
    )
    written = json.loads(report.read_text())
    keys = {table["key"] for table in written["tables"]}
    assert {"small-BytesIO", "small-duplicate", "memory", "growth"} <= keys
    assert all(
        "Flask-HashFS" in table["rows"] or table["key"] == "growth" for table in written["tables"]
    )
    assert not [line for line in written["left_out"] if "is absent" not in line]
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"], "something was left"
