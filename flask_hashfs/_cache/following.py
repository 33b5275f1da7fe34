"""Reading along a fill of another process, by the file that it writes."""

from __future__ import annotations

import os
import time

from .._storage import posix
from .._storage.descriptors import with_room
from .kept import is_whole

_POLLED = 0.01  # seconds
HELD_BACK = 64 * 1024
"""Bytes of a content's end that nobody is given before the hash is right."""

ALONG = ".along"
"""What the name of the file ends with whose lock, shared by all who read along, tells of them."""


class BrokenOffError(Exception):
    """A fill has ended early; the store may still be read."""


class FinalError(BrokenOffError):
    """A fill has ended early, and another one of the same content would end so, too."""


class Following:
    """One reader of a fill of another process; see `fills.FillReader`.

    Args:
        fd: Of the file that is filled.
        along: Of the file that tells of those who read along.
        size: Bytes of the content.
    """

    def __init__(self, fd: int, along: int, size: int) -> None:
        self._fd = fd
        self._along = along
        self._size = size

    @classmethod
    def of(cls, path: str, size: int) -> Following | None:
        """Open the file of a fill to read along; None where it is there no more."""
        try:
            fd = with_room(os.open, path, os.O_RDWR | posix.BINARY)
        except FileNotFoundError:
            return None
        flags = os.O_RDWR | os.O_CREAT | posix.BINARY
        with posix.closed_on_error(fd):
            try:
                along = with_room(os.open, path + ALONG, flags, 0o600)
            except FileNotFoundError:  # the whole cache has just been deleted
                os.close(fd)
                return None
            with posix.closed_on_error(along):
                posix.lock_shared(along)
        return cls(fd, along, size)

    def wait_begun(self) -> None:
        """Return: the process that fills has been answered, or will break off."""

    def wait(self, position: int) -> int:
        """See `fills.FillReader.wait`: what has been sealed is whole."""
        while True:
            state = os.fstat(self._fd)
            if self._is_sealed(state):
                return self._size
            there = min(state.st_size, self._size - HELD_BACK)
            if there > position:
                return there
            if posix.lock(self._fd, wait=False):  # its filler has let go
                posix.unlock(self._fd)
                if not self._is_sealed(os.fstat(self._fd)):
                    raise BrokenOffError("another process has given it up")
                continue
            time.sleep(_POLLED)

    def read(self, position: int, size: int) -> bytes:
        """Read from that file."""
        return posix.read_at(self._fd, size, position)

    def _is_sealed(self, state: os.stat_result) -> bool:
        return state.st_size == self._size and is_whole(state)

    def wait_kept(self) -> None:
        """Return: that process keeps it."""

    def leave(self) -> None:
        """Read along no more."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            os.close(self._along)


def is_followed(path: str) -> bool:
    """Tell whether another process reads along the file at `path`."""
    try:
        fd = with_room(os.open, path + ALONG, os.O_RDWR | posix.BINARY)
    except OSError:
        return False
    try:
        if not posix.lock(fd, wait=False):
            return True
        posix.unlock(fd)
        return False
    finally:
        os.close(fd)
