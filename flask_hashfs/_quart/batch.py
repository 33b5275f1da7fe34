"""Bytes gathered on the event loop for one call in a worker thread."""

from __future__ import annotations

from collections.abc import Iterator

BATCH = 512 * 1024
"""Bytes worth a call: the more in one, the less often its thread waits for the GIL."""

_LITTLE = BATCH // 4  # a rest of so much is not worth a call of its own
_TINY = 4 * 1024


class Batch:
    """Bytes on their way to another thread, kept as they came; the thread joins them.

    Joined, they are hashed and written by one call each. After each call the thread has to get the
    GIL back from a busy event loop, which costs more than the joining.

    Attributes:
        size: The number of bytes; ``len()`` returns the same, more slowly.
    """

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self.size = 0

    def append(self, data: bytes) -> None:
        """Add a piece."""
        size = len(data)
        self.size += size
        if size >= _TINY or not self._pieces:
            self._pieces.append(data)
            return
        last = self._pieces[-1]
        if len(last) >= _TINY or not last:
            self._pieces.append(data)
        elif isinstance(last, bytearray):  # many tiny pieces would need many times their memory
            last += data
        else:
            self._pieces[-1] = bytearray(last) + data

    def extend(self, other: Batch) -> None:
        """Add what another batch has; that one must not be used any more."""
        self._pieces += other._pieces
        self.size += other.size

    def __len__(self) -> int:
        return self.size

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes joined to blocks of about `BATCH`, and keep none that is yielded.

        So the copy of a large batch is small.
        """
        while self._pieces:
            yield self.take_block()

    def take_block(self) -> bytes:
        """Return the first bytes, about `BATCH` of them joined, and keep the others."""
        size = count = 0
        most = self.size if self.size <= BATCH + _LITTLE else BATCH
        for piece in self._pieces:
            if count and size + len(piece) > most:
                break
            size += len(piece)
            count += 1
        block = self._pieces[:count]
        del self._pieces[:count]
        self.size -= size
        return _join(block)

    def __bytes__(self) -> bytes:
        data = _join(self._pieces)
        self._pieces = [data]
        return data


def _join(pieces: list[bytes | bytearray]) -> bytes:
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
