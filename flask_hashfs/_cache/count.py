"""How many files a cache holds and how large they are, told to all processes by one small file."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .._storage import posix

_ATTEMPTS = 100  # to open a file that others delete


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
    kept, and uncounted after they are gone. If its file is missing, the files are walked once.

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

    def add(self, size: int, limit: int) -> int | None:
        """Count a file that is about to be kept.

        Args:
            size: Its bytes.
            limit: Bytes of all files together.

        Returns:
            What `is_still` takes; None where the file would exceed the limit.
        """
        with self._opened() as (fd, totals):
            if totals.bytes + size > limit:
                return None
            bytes, files, added, added_files = totals
            _write(fd, Totals(bytes + size, files + 1, added + size, added_files + 1))
            return os.fstat(fd).st_ino

    def remove(self, size: int) -> None:
        """Uncount a file that is gone."""
        with self._opened() as (fd, totals):
            _write(fd, totals._replace(bytes=totals.bytes - size, files=totals.files - 1))

    def is_still(self, inode: int) -> bool:
        """Tell whether what `add` counted has not been deleted meanwhile."""
        try:
            return os.stat(self._path).st_ino == inode
        except FileNotFoundError:
            return False

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
        fd = self._open()
        try:
            data = os.read(fd, _FORMAT.size)
            if len(data) == _FORMAT.size:
                totals = Totals._make(_FORMAT.unpack(data))
            else:
                totals = Totals(*self._walk())
                _write(fd, totals)
            yield fd, totals
        finally:
            posix.unlock(fd)
            os.close(fd)

    def _open(self) -> int:
        for _ in range(_ATTEMPTS):
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | posix.BINARY, 0o600)
            except FileNotFoundError:
                posix.make_folders(os.path.dirname(self._path), self._dmode)
                continue
            posix.lock(fd)
            if self.is_still(os.fstat(fd).st_ino):
                return fd
            posix.unlock(fd)
            os.close(fd)
        raise FileNotFoundError(f"{self._path} does not stay")


def _write(fd: int, totals: Totals) -> None:
    posix.write_at(fd, _FORMAT.pack(*totals), 0)
