"""A file that is not kept, open to be read: along its fill, or from the store itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import BinaryIO

from .._storage.layout import Layout
from .._storage.raw_reader import RawReader
from .._storage.records import Content
from .._storage.verified import VerifiedReader
from .fills import FillReader, Fills
from .following import BrokenOffError, FinalError

_AHEAD = 1024 * 1024  # bytes that a reader waits for, where it does not read on
_HASHED = 256 * 1024  # bytes at a time
_JOINED = 3  # fills that a reader joins again after one that gave it nothing: each may be killed


class MissedFile(RawReader):
    """A stored file that is not kept.

    All of it is read along its fill, and verified. A fill that breaks off before anything of it
    was read is followed by another one, once for all who read along. Where there can be no fill,
    or it breaks off later, the store is read, and that is verified as well. A range of it comes
    from the store as it is, and has the file filled beside.

    Args:
        content: Of the store, open.
        fills: What fills the cache; None where the file is not to be kept.
        layout: That of the store.
        failed: Returns the error for content that has another hash.
    """

    def __init__(
        self,
        content: Content,
        fills: Fills | None,
        layout: Layout,
        failed: Callable[[], Exception],
    ) -> None:
        super().__init__(content.size)
        self._content = content
        self._fills = fills
        self._layout = layout
        self._failed = failed
        self._source: FillReader | None = None
        self._direct: BinaryIO | None = None
        self._begun = False
        self._at = 0  # where the last read ended
        self._joined = 0  # after the first fill

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Announce what will be read; see `Content.will_read`."""
        ranges = list(ranges)
        if not ranges:
            return
        self._begin(ranges == [(0, self._size)])
        if self._source is None:
            self._content.will_read(ranges)

    def begin(self) -> None:
        """Have the file filled, since all of it may be read.

        Raises:
            FileNotFoundError: It is not stored any more.
            StoreUnavailableError: The store fails.
        """
        self._begin(True)

    def read_at(self, position: int, buffer: memoryview) -> int:
        """Read what has arrived, or wait for it.

        Raises:
            StoreUnavailableError: The store fails, or sends other bytes than were put.
        """
        data = self._read_along(position, len(buffer))
        if data:
            buffer[: len(data)] = data
            return len(data)
        assert self._direct is not None
        with memoryview(buffer) as view:
            self._direct.seek(position)
            read: int = self._direct.readinto(view)  # type: ignore[attr-defined]
        return read

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes, as `read_at` does, but copy them once only."""
        is_some = size is not None and size > 0 and self._position < self._size
        if self.closed or not is_some:
            return super().read(-1 if size is None else size)
        assert size is not None
        data = self._read_along(self._position, size)
        if not data:
            return super().read(size)
        self._position += len(data)
        return data

    def wait_kept(self) -> None:
        """Have the file filled, and wait until it is kept, or cannot be."""
        self.expect([(0, self._size)])
        while self._source is not None:
            try:
                self._source.wait(max(0, self._size - 1))
                self._source.wait_kept()
                return
            except BrokenOffError as error:
                if not self._join_again(error):
                    return

    def close(self) -> None:
        """Read along no more."""
        source, self._source = self._source, None
        if source is not None:
            source.leave()
        if self._direct is not None:
            self._direct.close()
        self._content.close()
        super().close()

    def _read_along(self, position: int, size: int) -> bytes:
        """Return what the fill has from `position` on; nothing where the store is to be read."""
        if not self._begun:
            self._begin(position <= _AHEAD)
        elif self._source is not None and position > self._at + _AHEAD:
            self._begin(False)  # far ahead: not worth waiting for
        if self._source is None:
            return b""
        data = self._arrived(position, size)
        if data:
            self._at = position + len(data)
        else:
            self._go_on_directly(position)
        return data

    def _arrived(self, position: int, size: int) -> bytes:
        """Return what there is from `position` on, once there is any; nothing if it broke off."""
        while True:
            assert self._source is not None
            try:
                there = self._source.wait(position)
                return self._source.read(position, min(size, there - position))
            except BrokenOffError as error:
                if not self._join_again(error):
                    return b""

    def _join_again(self, error: BrokenOffError) -> bool:
        """Join the fill that comes after one which broke off; tell whether there is one.

        It has to be the first whose bytes are read, since they are verified with the rest.
        """
        if isinstance(error, FinalError) or self._at or self._joined == _JOINED:
            return False
        if self._fills is None or self._source is None:
            return False
        self._joined += 1
        source = self._fills.join_again(self._content.address, self._size)
        if source is None:
            return False
        self._source.leave()
        self._source = source
        return True

    def _begin(self, is_whole: bool) -> None:
        self._begun = True
        old, self._source = self._source, None
        address = self._content.address
        source = None
        if self._fills is not None:
            source = self._fills.join(address, self._size, goes_on=not is_whole)
        if old is not None:
            old.leave()
        if source is not None and is_whole:
            self._source = source
            source.wait_begun()
            return
        if source is not None:
            source.leave()
        self._go_on_directly(0)

    def _go_on_directly(self, position: int) -> None:
        """Read the store from `position` on; what was read along is hashed first."""
        state = self._layout.new_hash()
        hashed = 0
        if self._source is not None:
            while hashed < position:
                data = self._source.read(hashed, min(_HASHED, position - hashed))
                if not data:  # it broke off before it came so far
                    break
                state.update(data)
                hashed += len(data)
            self._source.leave()
            self._source = None
            self._content.will_read([(hashed, self._size)])
        assert self._content.file is not None
        self._direct = VerifiedReader(
            self._content.file,
            self._size,
            self._content.address.id,
            state,
            hashed,
            self._failed,
        )  # type: ignore[assignment]
        self._hash_up_to(position, hashed)

    def _hash_up_to(self, position: int, hashed: int) -> None:
        """Read the store from `hashed` to `position`, so that what follows is verified."""
        assert self._direct is not None
        self._direct.seek(hashed)
        while data := self._direct.read(min(_HASHED, position - hashed)):
            hashed += len(data)
