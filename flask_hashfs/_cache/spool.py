"""Where content that is put waits, so that it can be kept by a link."""

from __future__ import annotations

from .._storage.spool import TemporaryFile, TemporaryFolder
from .telling import Telling


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
        self.files_can_be_kept = True
        self._dmode = dmode
        self.other = other
        self.telling = telling

    def create(self, dmode: int) -> TemporaryFile:
        """Create an empty file."""
        try:
            return super().create(self._dmode)
        except OSError as error:
            return self.next_best(error).create(dmode)

    def next_best(self, error: OSError) -> TemporaryFolder:
        """Return where a file goes on that cannot be written here because of `error`."""
        self.telling.failing(error)
        return self.other
