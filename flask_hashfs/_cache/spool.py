"""Where content that is put waits, so that it can be kept by a link."""

from __future__ import annotations

import os

from .._storage import posix
from .._storage.spool import TemporaryFile, TemporaryFolder
from .telling import Telling

_COPIED = 1024 * 1024  # bytes at a time


class Spool(TemporaryFolder):
    """Temporary files in the folder of a cache, or elsewhere as long as that fails.

    Args:
        root: Folder that the files lie in.
        dmode: Mode of the folders made for them, less the umask.
        other: Where they lie without a cache.
        telling: Logs what fails.
    """

    def __init__(self, root: str, dmode: int, other: TemporaryFolder, telling: Telling) -> None:
        super().__init__(root)
        self._dmode = dmode
        self.other = other
        self.telling = telling

    def create(self, dmode: int) -> TemporaryFile:
        """Create an empty file."""
        try:
            file = super().create(self._dmode)
        except OSError as error:
            self.telling.failing(error)
            return self.other.create(dmode)
        return SpooledFile(file.fd, file.path, self)


class SpooledFile(TemporaryFile):
    """A temporary file that moves elsewhere when the disk of the cache fails."""

    __slots__ = ("_has_moved",)

    def __init__(self, fd: int, path: str | None, folder: Spool) -> None:
        super().__init__(fd, path, folder)
        self._has_moved = False

    @property
    def can_be_kept(self) -> bool:
        """Whether it lies where a cache can keep it by a link."""
        return not self._has_moved

    def write(self, data: memoryview | bytes | bytearray) -> None:
        """Append all of `data`."""
        start = os.lseek(self.fd, 0, os.SEEK_CUR)
        try:
            super().write(data)
        except OSError as error:
            folder = self._folder
            if self._has_moved or not isinstance(folder, Spool):
                raise
            folder.telling.failing(error)
            self._move(folder.other, start)
            super().write(data)

    def _move(self, folder: TemporaryFolder, size: int) -> None:
        other = folder.create(0o700)
        try:
            position = 0
            while position < size:
                data = posix.read_at(self.fd, min(_COPIED, size - position), position)
                other.write(data)
                position += len(data)
            os.dup2(other.fd, self.fd, inheritable=False)
            self._has_moved = True
        finally:
            other.close()
