"""An object as a file: raw, seekable, read by ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .._storage.raw_reader import RawReader
from ..exceptions import StoreUnavailableError
from .client import READ_SIZE, Objects

if TYPE_CHECKING:
    from obstore import BytesStream

_FIRST = 1024 * 1024  # bytes asked for where nobody said how far the reading will go
_LARGEST = 64 * 1024 * 1024
_READ_ATTEMPTS = 3  # where a connection breaks
_AT_ONCE = 8  # requests of one file


class ObjectFile(RawReader):
    """An object of `size` bytes, open to read.

    It asks for as much as `expect` announced; else for pieces that grow as long as they are
    read one after the other. A read that breaks off goes on where it stood.

    Args:
        objects: Of the bucket.
        key: Of the object.
        size: Its bytes.
        stream: Of all of it, if that has begun.
        piece: Bytes that come at a time, at least.
    """

    def __init__(
        self,
        objects: Objects,
        key: str,
        size: int,
        stream: BytesStream | None = None,
        piece: int = READ_SIZE,
    ) -> None:
        super().__init__(size)
        self._piece = piece
        self._objects = objects
        self._key = key
        self._expected: dict[int, tuple[int, BytesStream | None]] = {}
        self._stream: BytesStream | None = None
        self._left = memoryview(b"")  # arrived, not read yet
        self._at = 0  # where _left begins
        self._stop = 0  # where _stream ends
        self._window = _FIRST
        self._reads_all = False
        if stream is not None:  # of all of it
            self._expected[0] = size, stream

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Announce ranges, from a first byte to behind a last, and begin to read some of them.

        Those that have begun survive a delete of the object.

        Raises:
            FileNotFoundError: The object is not there.
        """
        for start, stop in ranges:
            begins = start < stop and len(self._expected) < _AT_ONCE
            stream = self._ask(start, stop) if begins else None
            self._expected[start] = stop, stream

    def read_at(self, position: int, buffer: memoryview) -> int:
        """Read what has arrived, or wait for it."""
        if not self._at <= position < self._at + len(self._left):
            self._fetch()
        offset = position - self._at
        piece = self._left[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def readall(self) -> bytes:
        """Read the rest."""
        pieces = [*self.pieces()]
        whole = pieces[0].obj if len(pieces) == 1 else None
        if isinstance(whole, bytes) and len(whole) == len(pieces[0]):
            return whole  # not copied
        return b"".join(pieces)

    def pieces(self) -> Iterator[memoryview]:
        """Iterate over the rest as it arrives, without a copy."""
        self._reads_all = True
        try:
            while self._position < self._size:
                if not self._at <= self._position < self._at + len(self._left):
                    self._fetch()
                piece = self._left[self._position - self._at :]
                self._position += len(piece)
                yield piece
        finally:
            self._reads_all = False

    def close(self) -> None:
        """Give up what was being read."""
        self._give_up()
        self._expected.clear()
        super().close()

    def _fetch(self) -> None:
        """Wait for bytes at the position."""
        follows = self._position == self._at + len(self._left)
        if not follows or self._position in self._expected:
            self._give_up()
            self._stop = 0
        for attempt in range(_READ_ATTEMPTS):
            try:
                if self._stream is None or self._position >= self._stop:
                    self._begin(follows)
                assert self._stream is not None
                piece = self._objects.next(self._stream)
                if not piece:
                    raise StoreUnavailableError(
                        "an object ended before it was complete", has_answered=True
                    )
                piece = memoryview(piece)[: self._stop - self._position]  # no more than asked for
            except StoreUnavailableError:
                self._give_up()
                if attempt + 1 == _READ_ATTEMPTS:
                    raise
                continue
            self._at, self._left = self._position, piece
            return

    def _begin(self, follows: bool) -> None:
        if self._position in self._expected:
            self._stop, self._stream = self._expected.pop(self._position)
            if self._stream is not None:
                return
        elif self._position >= self._stop:
            self._window = min(self._window * 2, _LARGEST) if follows and self._stop else _FIRST
            stop = self._size if self._reads_all else self._position + self._window
            self._stop = min(stop, self._size)
        self._stream = self._ask(self._position, self._stop)

    def _ask(self, start: int, stop: int) -> BytesStream:
        return self._objects.stream(self._key, start, stop, self._piece)

    def _give_up(self) -> None:
        self._stream = None
        self._left = memoryview(b"")
        self._at = self._position
