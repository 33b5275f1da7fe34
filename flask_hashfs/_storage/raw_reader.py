"""A raw reader with a position, whatever its bytes come from."""

from __future__ import annotations

import io
import os


class RawReader(io.RawIOBase):
    """A seekable stream of `size` bytes that `read_at` fetches.

    A subclass writes `read_at`, and closes what it reads from.

    Args:
        size: Bytes that there are.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def read_at(self, position: int, buffer: memoryview) -> int:
        """Read bytes from `position` on, and return how many; some, unless there are none.

        Args:
            position: Of the first byte; less than the size.
            buffer: Takes the bytes; not empty.
        """
        raise NotImplementedError

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, without reading anything, and return the new position."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        if whence not in start:
            raise ValueError(f"whence is {whence!r}, but must be 0, 1 or 2")
        position = start[whence] + offset
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def readinto(self, buffer: object) -> int:
        """Read into `buffer`, and return the number of bytes; 0 at the end."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        with memoryview(buffer).cast("B") as view:  # type: ignore[arg-type]
            if not view or self._position >= self._size:
                return 0
            count = self.read_at(self._position, view)
        self._position += count
        return count
