"""Ctrl-C in the demo, which ``tox run -e demo`` starts: what toxfile.py is for."""

from __future__ import annotations

import os
import shutil
import subprocess
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
# The terminal sends what Ctrl-C means to those whose controlling terminal it is.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "demo-quart"])
def test_tox_calls_a_demo_that_ctrl_c_has_ended_a_success(name: str, tmp_path: Path) -> None:
    shutil.copy(PROJECT / "toxfile.py", tmp_path)
    (tmp_path / "tox.ini").write_text(CONFIG)
    (tmp_path / "demo.py").write_text(DEMO)
    terminal, side = pty.openpty()
    command = [sys.executable, "-m", "tox", "run", "-e", name, "--discover", sys.executable]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TOX_")}
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *command],
        cwd=tmp_path,
        env={**environ, "VIRTUALENV_NO_PERIODIC_UPDATE": "1"},
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    output = b""
    while b"it runs" not in output:
        more = read(terminal)
        assert more, output.decode()
        output += more
    os.write(terminal, b"\x03")
    while more := read(terminal):
        output += more
    os.close(terminal)
    assert b"it ends" in output
    assert b"failed" not in output
    assert process.wait() == 0


def read(terminal: int) -> bytes:
    """Return what the terminal shows next, or nothing at its end."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # as Linux tells that nobody writes to it any more
        return b""
