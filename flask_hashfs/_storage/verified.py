"""A reader that hashes what it reads, and never gives the end of content that is not whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from .raw_reader import RawReader


class VerifiedReader(RawReader):
    """Content of `size` bytes, hashed while it is read from its start to its end.

    The last piece is given only if the hash is right. What is read in another order is not
    verified: no part of it tells whether it is as it was.

    Args:
        file: The content, unbuffered; closed with this reader.
        size: Its bytes.
        id: The hash that it must have.
        state: The hash of the bytes before `hashed`.
        hashed: Bytes that have been read from elsewhere.
        failed: Returns the error for content that has another hash.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        id: str,
        state: hashlib._Hash,
        hashed: int,
        failed: Callable[[], Exception],
    ) -> None:
        super().__init__(size)
        self._file = file
        self._at = -1  # where the file stands, if that is known
        self._id = id
        self._state = state
        self._hashed = hashed
        self._failed = failed

    def read_at(self, position: int, buffer: memoryview) -> int:
        """Read on.

        Raises:
            Exception: That of `failed`, in place of the last piece.
        """
        if position != self._at:
            self._file.seek(position)
        count = self._file.readinto(buffer) or 0  # type: ignore[attr-defined]
        self._at = position + count
        if position == self._hashed:
            self._state.update(buffer[:count])
            self._hashed += count
            if self._hashed == self._size and self._state.hexdigest() != self._id:
                raise self._failed()
        return count

    def close(self) -> None:
        """Close the file, too."""
        try:
            self._file.close()
        finally:
            super().close()
