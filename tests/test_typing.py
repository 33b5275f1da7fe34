"""Type checkers find the mistakes of an app, and nothing else."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
APP = PROJECT / "tests" / "support" / "typed_app.py"
COMMANDS = {
    "mypy": ["--strict", "--python-version", "3.11", "--no-pretty", "--disable-error-code=misc"],
    "pyright": ["--pythonpath", sys.executable],
}


@pytest.mark.slow
@pytest.mark.parametrize("checker", list(COMMANDS))
def test_every_mistake_is_found_and_nothing_else(checker: str) -> None:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed: it is in the group typing of pyproject.toml")
    command = [sys.executable, "-m", checker, *COMMANDS[checker], str(APP)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    found = {int(line) for line in re.findall(r"typed_app\.py:(\d+):.*error", done.stdout)}
    lines = APP.read_text(encoding="utf-8").splitlines()
    wanted = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    assert wanted
    assert found == wanted, done.stdout + done.stderr
