"""Keeping what is put: the file that it waited in becomes the kept one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator

from .._storage import posix
from .._storage.descriptors import with_room
from .._storage.spool import TemporaryFile
from .._storage.writer import Writer
from .kept import KeptFiles
from .spool import Spool
from .telling import Telling


class Keeping:
    """Keeps content that has been put into the store.

    Its file has a name below ``filling`` from before the store has it, so that a delete which
    comes between takes that name away, and it is not kept.

    Args:
        kept: The kept files.
        spool: Where content waits.
        keep: Keeps a sealed file, at once or later: its descriptor, which is closed then, its
            name below ``filling``, its path in the store.
        telling: Logs what fails.
    """

    def __init__(
        self,
        kept: KeptFiles,
        spool: Spool,
        keep: Callable[[int, str, str], None],
        telling: Telling,
    ) -> None:
        self._kept = kept
        self._spool = spool
        self._keep = keep
        self._telling = telling

    @contextlib.contextmanager
    def around(self, writer: Writer, relpath: str) -> Iterator[Callable[[], None]]:
        """Let a writer's content be kept, once it is stored.

        Args:
            writer: Finished.
            relpath: The path that it gets in the store.

        Yields:
            What keeps it, to be called when it is stored.
        """
        name = f"{writer.id}.{secrets.token_hex(8)}"
        left: list[int] = []
        there = self._kept.open(relpath)
        try:
            if there is None and (fd := self._named(writer, name)) is not None:
                left.append(fd)
        except OSError as error:
            self._telling.failing(error)
            self._unname(name)

        def keep() -> None:
            if there is not None:
                self._kept.renew(there)
            if not left:
                return
            try:
                self._fill(left[0], writer)
                self._kept.seal(left[0])
                self._keep(left.pop(), name, relpath)
            except OSError as error:
                self._telling.failing(error)

        try:
            yield keep
        finally:
            if there is not None:
                os.close(there.fd)
            for each in left:
                self._unname(name)
                posix.unlock_and_close(each)

    def _unname(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._kept.filling, name))

    def _named(self, writer: Writer, name: str) -> int | None:
        """Give the content's file a name below ``filling``; None where it cannot be kept."""
        path = os.path.join(self._kept.filling, name)
        file = writer.spilled
        if file is None and writer.getvalue() is not None:
            fd = self._open(path)
        elif file is None or not file.can_be_kept:
            return None
        elif file.stat().st_nlink > (file.path is not None):
            return None  # kept already, with another extension
        else:
            try:
                fd = self._link(file, path)
            except FileNotFoundError:  # deleted meanwhile
                return None
        with posix.closed_on_error(fd):
            posix.lock(fd, wait=False)
        return fd

    def _link(self, file: TemporaryFile, path: str) -> int:
        def is_gone() -> bool:
            return file.orphaned if file.path is None else not os.path.lexists(file.path)

        self._kept.made(lambda: file.link(path), path, is_gone)
        return with_room(os.open, path, os.O_RDWR | posix.BINARY)

    def _open(self, path: str) -> int:
        found: list[int] = []
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | posix.BINARY
        self._kept.made(lambda: found.append(with_room(os.open, path, flags, 0o600)), path)
        return found[0]

    def _fill(self, fd: int, writer: Writer) -> None:
        """Write content that has stayed in memory."""
        data = writer.getvalue()
        if data is not None:
            posix.write_all(fd, data)
