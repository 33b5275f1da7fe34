"""What a fill has fetched last, in memory: a reader that keeps up with it needs no disk."""

from __future__ import annotations

from typing import NamedTuple

_HELD = 1024 * 1024  # bytes, about; each fill holds so many


class _Piece(NamedTuple):
    start: int
    data: memoryview


class Arrived:
    """The last pieces of a content on its way; one thread adds them, any number reads them.

    What is not in memory any more is in the file of the fill.
    """

    def __init__(self) -> None:
        self._pieces: tuple[_Piece, ...] = ()  # replaced, never changed: read without a lock

    def add(self, start: int, data: memoryview) -> None:
        """Add the bytes from `start` on."""
        self._pieces = *self._pieces, _Piece(start, data)

    def shrink(self) -> None:
        """Drop old pieces, since all of them have been written."""
        pieces = self._pieces
        while len(pieces) > 1 and sum(len(piece.data) for piece in pieces) > _HELD:
            pieces = pieces[1:]
        self._pieces = pieces

    def clear(self) -> None:
        """Drop all pieces: they have been written, or nobody reads them."""
        self._pieces = ()

    def read(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position` on; none where they are not in memory."""
        parts = []
        for start, data in self._pieces:
            if start <= position < start + len(data) and size:
                part = data[position - start :][:size]
                parts.append(part)
                position += len(part)
                size -= len(part)
        return b"".join(parts)
