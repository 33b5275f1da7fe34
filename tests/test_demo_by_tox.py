"""Ctrl-C in the demo, which ``tox run -e demo`` starts: what toxfile.py is for."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="terminals are of POSIX")

PROJECT = Path(__file__).parents[1]
CONFIG = """
[testenv:demo{,-quart}]
package = skip
commands = python demo.py
"""
DEMO = """
import time
try:
    print("it runs", flush=True)
    while True:
        time.sleep(0.05)  # not `pause`, which misses a signal that comes just before
except KeyboardInterrupt:
    print("it ends", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tox") is None, reason="tox is not on PATH")
@pytest.mark.parametrize("name", ["demo", "demo-quart"])
def test_tox_calls_a_demo_that_ctrl_c_has_ended_a_success(name: str, tmp_path: Path) -> None:
    shutil.copy(PROJECT / "toxfile.py", tmp_path)
    (tmp_path / "tox.ini").write_text(CONFIG)
    (tmp_path / "demo.py").write_text(DEMO)
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("TOX_")}
        os.execvpe("tox", ["tox", "run", "-e", name, "--discover", sys.executable], environ)
    output = b""
    while b"it runs" not in output:
        more = read(terminal)
        assert more, output.decode()
        output += more
    os.write(terminal, b"\x03")
    while more := read(terminal):
        output += more
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    assert b"it ends" in output
    assert b"failed" not in output
    assert os.waitstatus_to_exitcode(status) == 0


def read(terminal: int) -> bytes:
    """Return what the terminal shows next, or nothing at its end."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # as Linux tells that nobody writes to it any more
        return b""
