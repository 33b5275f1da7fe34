"""What a diagnosis finds, whatever it looked at."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .._units import about

Level: TypeAlias = Literal["ok", "note", "warning", "error"]

_UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a diagnosis looked at.

    Attributes:
        check: What was looked at, in a word or two.
        level: ``"ok"``; ``"note"``, which need not be changed; ``"warning"``, which will hurt some
            day; ``"error"``, which does not work now.
        message: What was found.
        remedy: What to do about it; empty only where the level is ``"ok"``.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.level != "ok" and not self.remedy:
            raise ValueError(f"the finding {self.check!r} says nothing of what to do")


def left_over(check: str, files: Iterable[tuple[int, float]], remedy: str) -> Finding:
    """Return how much is left over of one kind, and how old it is.

    Args:
        check: What kind.
        files: Bytes and date of each, in seconds since 1970.
        remedy: The command that clears them.
    """
    found = list(files)
    if not found:
        return Finding(check, "ok", "none")
    size = sum(size for size, _ in found)
    age = _age(time.time() - min(date for _, date in found))
    return Finding(check, "note", f"{len(found)}, {about(size)}, the oldest of {age}", remedy)


def uploads_left_over(files: Iterable[tuple[str, str, int, float]]) -> Finding:
    """Return how many resumable uploads are unfinished, and how old they are.

    Args:
        files: The folder of its upload, the name, the bytes and the date of each file of theirs.
            Of an upload that has ended only its record is left, the file ``state``.
    """
    uploads: dict[str, list[tuple[str, int, float]]] = defaultdict(list)
    for folder, name, size, date in files:
        uploads[folder].append((name, size, date))
    unfinished = (
        (sum(size for _, size, _ in files), max(date for *_, date in files))
        for files in uploads.values()
        if any(name != "state" for name, *_ in files)
    )
    remedy = "`hashfs uploads --prune` clears those that have expired (HASHFS_UPLOADS_EXPIRE)."
    return left_over("unfinished uploads", unfinished, remedy)


def _age(seconds: float) -> str:
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"
