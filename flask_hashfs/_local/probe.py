"""The probe of a folder: bytes are written to it and read back."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator

from .._storage import posix
from .._storage.descriptors import with_room
from .._storage.probe import ProbeError
from .._storage.spool import TemporaryFolder

_SIZE = 64  # bytes: enough to need a block of the disk


class Probe:
    """Writes a temporary file below a root, and reads it back.

    It leaves nothing behind but the root itself, which it makes as the first put would. A root
    that it has found once must stay, though: an empty one in its place lacks all content.

    Args:
        folder: Of temporary files.
    """

    def __init__(self, folder: TemporaryFolder) -> None:
        self._folder = folder
        self._found = False

    def __call__(self, dmode: int, sync: bool) -> None:
        """Return if that can be done.

        Args:
            dmode: Mode of folders made.
            sync: Whether to wait for the disk, as a put does.

        Raises:
            ProbeError: It cannot.
        """
        root = self._folder.root
        if self._found and not os.path.lexists(root):
            raise ProbeError("root", f"{root} has gone")
        data = secrets.token_bytes(_SIZE)
        with _named("write"):
            file = with_room(self._folder.create, dmode)
        try:
            with _named("write"):
                file.write(data)
                if sync:
                    posix.sync_file(file.fd)
            with _named("read"):
                if posix.read_at(file.fd, _SIZE, 0) != data:
                    raise OSError(errno.EIO, "Other bytes are read than were written", root)
                with with_room(os.scandir, root) as entries:
                    next(entries, None)
        finally:
            file.close()
        self._found = True


@contextlib.contextmanager
def _named(check: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProbeError(check, error) from error
