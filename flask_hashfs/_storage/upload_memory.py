"""The memory that all uploads of a process share: what each of them may keep.

An upload may keep its equal share of the budget unread, at most `MOST` and at least `BASE`, which
comes on top. Small files of forms take what they hold from the same budget, and go to disk sooner
as it runs short. Nobody is refused, and nobody waits for another: an upload whose share is used up
is written to disk, and only then are more of its bytes received.

In a crowd an equal share is hardly worth a call of a worker thread. So the few uploads that such a
thread writes next, and these only, may keep a whole batch, even where the budget is used up.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

BASE = 64 * 1024
"""Bytes that an upload may keep whatever the others do."""

MOST = 4 * 1024 * 1024
"""Bytes that an upload may keep at most."""

DEFAULT_SIZE = 64 * 1024 * 1024

SMALL_UPLOAD = 1024 * 1024
"""Bytes of a small upload, which is worth one batch."""

_BATCHES = 64  # or this part of the budget: those of eight threads hold less than half of it

_OF_FREE = 4  # a small file may hold this part of what is free, so the last ones go to disk early
_TOLD = 7 / 8  # how far the share shrinks until those who hold more are told: few times in a crowd


def share(size: int, uploads: int) -> int:
    """Return how many bytes each of so many uploads may keep.

    Args:
        size: Of the budget, in bytes.
        uploads: How many there are.
    """
    return min(MOST, BASE + size // max(uploads, 1))


class UploadMemory:
    """A budget, and what is taken of it.

    Args:
        size: Of the budget, in bytes.

    Attributes:
        limit: Bytes that each upload may keep now.
    """

    def __init__(self, size: int = DEFAULT_SIZE) -> None:
        self._size = size
        self._uploads = 0
        self._buffered = 0
        self._aborted = 0
        self._charged = 0  # less than what is buffered by `BASE` for each upload
        self.limit = self._told = share(size, 0)
        self._shares: weakref.WeakSet[Share] = weakref.WeakSet()
        self._lock = threading.Lock()
        # A finalizer may run while this thread holds the lock, so it leaves its notes here.
        self._lost: deque[tuple[int, int, int]] = deque()

    @property
    def size(self) -> int:
        """The budget, in bytes."""
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        with self._lock:
            self._size = size
            told = self._set_limit()
        _tell(told)

    @property
    def batch(self) -> int:
        """Bytes beyond `BASE` that the few uploads may keep which are about to be written."""
        return min(SMALL_UPLOAD, self._size // _BATCHES)

    @property
    def uploads(self) -> int:
        """How many requests upload."""
        with self._lock:
            self._settle()
            return self._uploads

    @property
    def buffered(self) -> int:
        """Bytes that lie unread or on their way to the disk, and those of small files."""
        with self._lock:
            self._settle()
            return self._buffered

    @property
    def aborted(self) -> int:
        """How many requests have broken off before all of their bytes were here."""
        return self._aborted

    def count_aborted(self) -> None:
        """Count one more request that has broken off."""
        with self._lock:
            self._aborted += 1

    @property
    def is_used_up(self) -> bool:
        """Whether nothing of the budget is left."""
        return self._charged >= self._size

    def has_room(self, size: int) -> bool:
        """Tell whether small contents of so many bytes together stay in memory now."""
        return size * (_OF_FREE + 1) <= self._size - self._charged

    def enter(self, on_less: Callable[[], None]) -> Share:
        """Count one more upload.

        Args:
            on_less: Called, in any thread, when the upload may keep less than it holds.
        """
        with self._lock:
            new = Share(self, on_less)
            self._shares.add(new)
            self._uploads += 1
            told = self._set_limit()
        if told:
            _tell(told)
        return new

    def enter_beside(self) -> Share:
        """Return the share of a source that is put but is no request's body: its bytes count too.

        It does not count among the uploads, as it may stand for the body of one. It should hold
        no more than `limit_beside`.
        """
        return Share(self, _nothing, uploads=0)

    @property
    def limit_beside(self) -> int:
        """Bytes that such a source may keep now."""
        return BASE if self.is_used_up else self.limit

    def _set_limit(self) -> list[Share]:
        """Set what each may keep, and return who has to be told that it is less than it holds."""
        if self._lost:
            self._settle()
        self.limit = limit = share(self._size, self._uploads)
        if limit >= self._told * _TOLD:
            self._told = max(self._told, limit)
            return []
        self._told = limit
        return [each for each in self._shares if each.held > limit]

    def _settle(self) -> None:
        while self._lost:
            uploads, buffered, charged = self._lost.popleft()
            self._uploads -= uploads
            self._buffered -= buffered
            self._charged -= charged

    # What the two below do with the counters.

    def _hold(self, upload: Share, size: int) -> None:
        """Note what an upload holds; each message of a server comes by here, so it is one step."""
        with self._lock:
            if self._lost:
                self._settle()
            held, upload.held = upload.held, size
            self._buffered += size - held
            if size > BASE or held > BASE:
                self._charged += max(size, BASE) - max(held, BASE)

    def _leave(self, upload: Share) -> None:
        self._hold(upload, 0)
        with self._lock:
            self._shares.discard(upload)
            self._uploads -= upload.uploads
            self._set_limit()

    def _grow(self, content: SmallContent, count: int) -> bool:
        with self._lock:
            if self._lost:
                self._settle()
            held = content.held + count
            if held * _OF_FREE > self._size - self._charged + content.held:
                return False
            content.held = held
            self._buffered += count
            self._charged += count
            return True

    def _release(self, content: SmallContent) -> None:
        held, content.held = content.held, 0
        if not self._lock.acquire(blocking=False):  # perhaps by this thread: see `_lost`
            self._lost.append((0, held, held))
            return
        try:
            self._buffered -= held
            self._charged -= held
        finally:
            self._lock.release()

    def forget_threads(self) -> None:
        """Go on in the child of a fork, where no other thread holds the lock."""
        self._lock = threading.Lock()


class Share:
    """What one upload keeps.

    Attributes:
        held: Bytes that are unread, or on their way to the disk.
        uploads: For how many uploads it counts.
    """

    __slots__ = ("__weakref__", "_has_left", "_memory", "held", "on_less", "uploads")

    def __init__(
        self, memory: UploadMemory, on_less: Callable[[], None], *, uploads: int = 1
    ) -> None:
        self._memory = memory
        self._has_left = False
        self.on_less = on_less
        self.held = 0
        self.uploads = uploads

    def hold(self, size: int) -> None:
        """Count `size` bytes as held, instead of those before."""
        if size != self.held and not self._has_left:
            self._memory._hold(self, size)

    def leave(self) -> None:
        """Count this upload no more; it may be called again."""
        if not self._has_left:
            self._has_left = True
            self._memory._leave(self)

    def __del__(self) -> None:
        if not self._has_left:
            self._memory._lost.append((self.uploads, self.held, _charge(self.held)))


class SmallContent:
    """What one content holds in memory, if there is room for it.

    Attributes:
        held: Its bytes.
    """

    __slots__ = ("_memory", "held")

    def __init__(self, memory: UploadMemory) -> None:
        self._memory = memory
        self.held = 0

    def grow(self, count: int) -> bool:
        """Count `count` bytes more, or return False: there is no room for them."""
        return self._memory._grow(self, count)

    def release(self) -> None:
        """Give back what is held; it may be called again."""
        if self.held:
            self._memory._release(self)

    def __del__(self) -> None:
        if self.held:
            self._memory._lost.append((0, self.held, self.held))


def _charge(held: int) -> int:
    return max(0, held - BASE)


def _nothing() -> None:
    """Do nothing for a source that holds little, and looks at its limit before it takes more."""


def _tell(uploads: list[Share]) -> None:
    for each in uploads:
        each.on_less()


MEMORY = UploadMemory()
"""The memory of this process."""


def _after_fork() -> None:
    MEMORY.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
