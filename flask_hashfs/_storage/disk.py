"""What a diagnosis asks of a disk, whatever lies on it."""

from __future__ import annotations

import contextlib
import os

_EFFECTIVE = os.access in os.supports_effective_ids
_MOUNTS = "/proc/self/mountinfo"


def may(path: str, mode: int) -> bool:
    """Tell whether this process may use a path in a way, such as ``os.W_OK``."""
    return os.access(path, mode, effective_ids=_EFFECTIVE)


def user() -> str:
    """Return whom this process runs as."""
    return str(os.geteuid()) if hasattr(os, "geteuid") else os.environ.get("USERNAME", "")


def nearest(path: str) -> str:
    """Return the path itself, the nearest folder above it that exists, or the topmost one.

    On Windows not even the topmost one needs to exist: it is a drive.
    """
    while not os.path.lexists(path) and (above := os.path.dirname(path)) != path:
        path = above
    return path


def file_system(path: str) -> str | None:
    """Return what the file system of an existing path is called, where the system tells."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}" if hasattr(os, "major") else ""
    with contextlib.suppress(OSError), open(_MOUNTS, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            first, _, second = line.partition(" - ")
            if first.split()[2] == number:
                return second.split()[0]
    return None
