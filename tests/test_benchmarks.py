"""The benchmarks still run: tiny sizes, whose figures mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

ALONE = """
import runpy, sys
sys.modules["depot"] = None  # as where it is not installed
sys.argv = ["benchmarks", "store", "--tiny"]
runpy.run_path({path!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_a_package_that_is_missing_is_told_before_anything_is_measured() -> None:
    code = ALONE.format(path=str(BENCHMARKS))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "the module 'depot' is not installed" in done.stderr
    assert "tox run -e bench" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def report_of(section: str, folder: Path) -> Any:
    """Run one section on a folder, and return the report that it leaves there."""
    report = folder / "report.json"
    command = [sys.executable, str(BENCHMARKS), section, "--tiny", "--json", str(report)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    subprocess.run(
        [*command, "--root", str(folder)],
        check=True,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
    )
    return json.loads(report.read_text())


@pytest.mark.slow
def test_the_store_section_runs_and_writes_its_report(tmp_path: Path) -> None:
    pytest.importorskip("depot", reason="filedepot is not installed")
    written = report_of("store", tmp_path)
    keys = {table["key"] for table in written["tables"]}
    assert {"small-BytesIO", "small-duplicate", "memory", "growth"} <= keys
    assert all(
        "Flask-HashFS" in table["rows"] or table["key"] == "growth" for table in written["tables"]
    )
    assert not [line for line in written["left_out"] if "is absent" not in line]
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"], "something was left"


@pytest.mark.slow
def test_the_metrics_section_compares_with_a_process_without_them(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed")
    written = report_of("metrics", tmp_path)
    assert [table["key"] for table in written["tables"]] == ["metrics-put", "metrics-serve"]
    for table in written["tables"]:
        assert len(table["rows"]) == 5
        for samples in table["rows"].values():
            assert all({"ratio", "more"} <= sample.keys() for sample in samples)
    assert written["left_out"] == []
