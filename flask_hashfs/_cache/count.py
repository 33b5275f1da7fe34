"""How many files a cache holds and how large they are, told to all processes by one small file."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .._storage import posix


class Totals(NamedTuple):
    """What is kept, in numbers.

    Attributes:
        bytes: Kept now.
        files: Kept now.
        added: Bytes ever added since the count began; it only grows.
        added_files: The same for files.
    """

    bytes: int
    files: int
    added: int = 0
    added_files: int = 0


_FORMAT = struct.Struct("<4q")


class Count:
    """The count of a cache's files.

    It may be too large after a crash, and never too small: files are counted before they are
    kept, and uncounted after they are gone, both under its lock, so that no walk comes between. If
    its file is missing, the files are walked once.

    Args:
        path: Of the file.
        walk: Returns the bytes and the number of all files there are.
        dmode: Mode of the folder, less the umask.
    """

    def __init__(self, path: str, walk: Callable[[], tuple[int, int]], dmode: int) -> None:
        self._path = path
        self._walk = walk
        self._dmode = dmode

    def totals(self) -> Totals:
        """Return what is kept."""
        with self._opened() as (_, totals):
            return totals

    @contextlib.contextmanager
    def adding(self, size: int, limit: int) -> Iterator[bool]:
        """Count a file, and hold the lock while it is being kept.

        Args:
            size: Its bytes.
            limit: Bytes of all files together.

        Yields:
            Whether there is room for it. It is uncounted again if an OSError is raised.
        """
        with self._opened() as (fd, totals):
            has_room = totals.bytes + size <= limit
            if has_room:
                bytes, files, added, added_files = totals
                _write(fd, Totals(bytes + size, files + 1, added + size, added_files + 1))
            try:
                yield has_room
            except OSError:
                _write(fd, totals)
                raise
            if has_room and not posix.is_at(fd, self._path):  # the folder was deleted meanwhile
                self.forget()

    def removing(self, delete: Callable[[], int]) -> None:
        """Uncount a file, and hold the lock while it is deleted.

        Args:
            delete: Deletes it, and returns its bytes. It is not uncounted if an OSError is raised.
        """
        with self._opened() as (fd, totals):
            size = delete()
            _write(fd, totals._replace(bytes=totals.bytes - size, files=totals.files - 1))

    def reset(self, bytes: int, files: int, since: Totals) -> None:
        """Replace the count by what a walk has found.

        Args:
            bytes: Found, and not deleted.
            files: The same.
            since: The count when the walk began; what was added meanwhile may be counted twice.
        """
        with self._opened() as (fd, now):
            bytes += max(0, now.added - since.added)
            files += max(0, now.added_files - since.added_files)
            _write(fd, now._replace(bytes=bytes, files=files))

    def forget(self) -> None:
        """Have the files walked the next time."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[int, Totals]]:
        """Open and lock the file, and read it; walk the files where it is new."""
        fd = posix.lock_file(self._path, self._dmode, wait=True)
        assert fd is not None  # since it waited
        try:
            data = os.read(fd, _FORMAT.size)
            if len(data) == _FORMAT.size:
                totals = Totals._make(_FORMAT.unpack(data))
            else:
                totals = Totals(*self._walk())
                _write(fd, totals)
            yield fd, totals
        finally:
            posix.unlock_and_close(fd)


def _write(fd: int, totals: Totals) -> None:
    posix.write_all(fd, _FORMAT.pack(*totals), 0)
