"""Making room in a cache: the least recently used files go first, by one process at a time."""

from __future__ import annotations

import heapq
import os

from .._storage import posix
from .kept import KeptFiles

_LEFT = 0.9  # of the limit


class Eviction:
    """Deletes kept files.

    All of them are walked for it, which takes seconds where there are a million. But then a tenth
    of the room is free, so what a fill costs does not depend on their number.

    Args:
        folder: Of the cache.
        kept: Its files.
        limit: Bytes that it may hold.
    """

    def __init__(self, folder: str, kept: KeptFiles, limit: int) -> None:
        self._lock = os.path.join(folder, "evicting")
        self._kept = kept
        self._limit = limit

    def make_room(self, size: int) -> int:
        """Delete files until 90 % of the limit is left, and so many bytes more are free.

        If another process does so already, wait for it instead.

        Returns:
            How many were deleted.
        """
        wanted = min(int(self._limit * _LEFT), self._limit - size)
        fd = posix.lock_file(self._lock, self._kept.dmode, wait=True)
        assert fd is not None  # since it waited
        try:
            return self._evict(wanted, size)
        finally:
            posix.unlock_and_close(fd)

    def _evict(self, wanted: int, size: int) -> int:
        before = self._kept.count.totals()
        if before.bytes + size <= self._limit:  # another process has done it
            return 0
        self._kept.clear_unfinished()
        bytes = files = evicted = 0
        oldest = _Oldest(before.bytes - wanted)
        for relpath, state in self._kept.walk():
            bytes += state.st_size
            files += 1
            oldest.see(state.st_atime_ns, state.st_size, relpath)
        for _, length, relpath in oldest.in_order():
            if bytes <= wanted:
                break
            try:
                evicted += self._kept.unlink(relpath, counted=False)
            except OSError:  # it is there still
                continue
            bytes -= length
            files -= 1
        self._kept.count.reset(bytes, files, before)
        return evicted


class _Oldest:
    """The files used least recently that have so many bytes together; no more are in memory."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._bytes = 0
        self._heap: list[tuple[int, int, str]] = []  # the youngest first

    def see(self, used: int, size: int, relpath: str) -> None:
        """Look at one more file."""
        heap = self._heap
        if self._bytes >= self._wanted and heap and -heap[0][0] <= used:
            return
        heapq.heappush(heap, (-used, size, relpath))
        self._bytes += size
        while self._bytes - heap[0][1] >= self._wanted:
            self._bytes -= heapq.heappop(heap)[1]

    def in_order(self) -> list[tuple[int, int, str]]:
        """Return them, the oldest first."""
        return sorted(self._heap, reverse=True)
