"""What a diagnosis asks of a disk."""

from __future__ import annotations

import ntpath
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from flask_hashfs._storage import disk


@pytest.fixture
def ends() -> Iterator[None]:
    """Raise an error in a loop that does not end, after a minute of processor time."""

    def end(*_: object) -> None:
        raise AssertionError("it does not end")

    old = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, 60)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, old)


def test_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert disk.nearest(str(tmp_path)) == str(tmp_path)
    assert disk.nearest(os.path.join(tmp_path, "a", "b")) == str(tmp_path)


@pytest.mark.usefixtures("ends")
def test_a_drive_that_is_missing_is_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths are those of Windows; here no file has one."""
    monkeypatch.setattr(disk, "os", SimpleNamespace(path=ntpath))
    assert disk.nearest("Z:\\app\\files") == "Z:\\"
    assert disk.nearest("\\\\server\\share\\files") == "\\\\server\\share\\"
