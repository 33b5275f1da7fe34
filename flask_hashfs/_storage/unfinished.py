"""The list of unfinished uploads, from which they are counted.

Each one has an entry in `.hashfs/unfinished` of its store, an empty file or object, from before it
is made until it has ended. Its name has all that a count has to know. So a creation reads this
list, and neither the records of the many uploads that have ended lately nor any file.

An entry too many (a process was killed) does no harm: near a limit, each is looked at. One too few
(an upload of an earlier version) is made up for by the next sweep.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .pending import PendingUploads, Record, TooManyUploadsError, UploadLimits

_NAME = re.compile(r"([0-9a-f]{32})-(part|whole)(?:-([0-9a-f]{16}))?")

_MARGIN = 64
"""Where no more uploads than this may be added, those on the list are looked at, and twice."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An unfinished upload in the list.

    Attributes:
        id: The upload's.
        is_partial: Whether it is a part of a later concatenation.
        owner: The beginning of a digest of its owner; empty where it has none.
    """

    id: str
    is_partial: bool = False
    owner: str = ""

    @classmethod
    def of(cls, id: str, record: Record) -> Entry:
        """Return the entry of an upload."""
        owner = record.owner
        if owner is None:
            return cls(id, record.is_partial)
        data = str(owner).encode(errors="surrogatepass")  # an app may have given a number
        digest = hashlib.sha256(data).hexdigest()
        return cls(id, record.is_partial, digest[:16])

    @classmethod
    def read(cls, name: str) -> Entry | None:
        """Return the entry that has a name, or None: it is none of an entry."""
        found = _NAME.fullmatch(name)
        return found and cls(found[1], found[2] == "part", found[3] or "")

    @property
    def name(self) -> str:
        """Its name in the list."""
        kind = "part" if self.is_partial else "whole"
        return f"{self.id}-{kind}-{self.owner}" if self.owner else f"{self.id}-{kind}"


class CountedUploads(PendingUploads):
    """Uploads of a store that has a list of the unfinished ones."""

    @abstractmethod
    def _names(self) -> list[str]:
        """Return the names in the list, and perhaps others."""

    @abstractmethod
    def _counted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield those that hold bytes and may get more: not what has ended, or is a whole part."""

    def _check_count(self, new: Entry) -> bool:
        """Refuse one upload too many.

        Returns:
            Whether a limit is near, so that it has to be asked once more when `new` is there:
            others may have been as quick.

        Raises:
            TooManyUploadsError: There are as many as there may be.
        """
        return self._left(new) <= _MARGIN

    def _check_count_again(self, new: Entry) -> None:
        """Refuse an upload that is there by now, if it is one too many."""
        self._left(new)

    def _left(self, new: Entry) -> int:
        names = self._names()
        left = _count_left(self.limits, names, new)
        if left <= _MARGIN:  # some of them may have ended
            others = (entry for entry in _entries(names) if entry.id != new.id)
            left = _count_left(self.limits, [entry.name for entry in self._counted(others)], new)
        if left <= 0:
            raise TooManyUploadsError
        return left

    def _entries(self) -> Iterator[Entry]:
        return _entries(self._names())


def _entries(names: Iterable[str]) -> Iterator[Entry]:
    return filter(None, map(Entry.read, names))


def _count_left(limits: UploadLimits, names: list[str], new: Entry) -> int:
    """Return how many uploads more there may be."""
    left = limits.most - len(names)
    if new.owner:
        owned = sum(name.endswith(new.owner) for name in names)
        left = min(left, limits.most_of_owner - owned)
    return left
