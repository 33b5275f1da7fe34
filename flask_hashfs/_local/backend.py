"""LocalBackend: content in a folder, published by links that are never written over."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import timedelta
from typing import Any

from .._storage import messages, posix
from .._storage.backend import Commit
from .._storage.findings import Finding
from .._storage.full import full_is_told, tell_full
from .._storage.layout import Layout
from .._storage.names import Extension
from .._storage.predecessor import HashAddress
from .._storage.records import Damaged, Entry, InUse, Progress, Stats
from .._storage.writer import Writer
from . import listing
from .lookup import Tree
from .probe import Probe

_EXPECTS_NEW = 8
"""New contents in a row after which a put lists the folder at once, as it has to for new content,
and does not try to renew the content first."""

_FOLLOW = os.utime not in os.supports_follow_symlinks  # where it cannot do otherwise


class LocalBackend(Tree):
    """Content below a folder; see `Backend` for the methods and `Tree` for the arguments."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        layout: Layout,
        fmode: int | None = 0o664,
        dmode: int = 0o755,
        fsync: bool = True,
    ) -> None:
        super().__init__(root, layout, fmode, dmode, fsync)
        self._synced = posix.SyncedFolders()
        self._new_in_a_row = 0  # puts; threads may miscount, since it only decides what is faster
        self._probe = Probe(self.temporary)

    # -- putting ---------------------------------------------------------------------------

    def new_writer(self, limit: int | None) -> Writer:
        """Return a writer that takes `limit` bytes."""
        return Writer(self.layout.algorithm, self.temporary, self.dmode, limit)

    def put_files(
        self,
        files: Iterable[tuple[Any, Extension]],
        begin: Callable[[], Writer],
        commit: Commit,
    ) -> Iterator[tuple[Any, HashAddress | Exception]]:
        """Store many files: as durable as each alone, but the disk is waited for in groups."""
        from . import group_put

        return group_put.put_files(self, files, begin, commit)

    def commit(self, writer: Writer, suffix: str, *, sync: bool = True) -> HashAddress:
        """Publish what `writer` took: a link to its file, which a reader finds whole or not."""
        id, sync = writer.id, sync and self.fsync
        relpath = self.layout.path_of(id, suffix)
        path = self.prefix + relpath
        try:
            is_duplicate = self._commit(writer, id, path, sync)
        except BaseException as error:
            posix.remove_empty_folders(os.path.dirname(path), self.root)
            tell_full(error)
            raise
        finally:
            writer.release()
        return HashAddress._make((id, relpath, path, is_duplicate))

    def _commit(self, writer: Writer, id: str, path: str, sync: bool) -> bool:
        is_new_folder = False
        for _ in range(posix.ATTEMPTS):
            try:
                is_duplicate = self._place(writer, id, path, is_new_folder, sync)
                self._new_in_a_row = 0 if is_duplicate else self._new_in_a_row + 1
                if sync:
                    self._sync(path, is_duplicate)
                return is_duplicate
            except FileExistsError:  # another put was first, or damage: look again
                is_new_folder = False
                self._new_in_a_row = 0
            except FileNotFoundError:  # no folder yet, or a delete has just taken it
                is_new_folder = self._make_folder(os.path.dirname(path))
        raise FileNotFoundError(errno.ENOENT, "This folder does not stay", path)

    def _place(self, writer: Writer, id: str, path: str, is_new_folder: bool, sync: bool) -> bool:
        """Give the content its path, if it has none; return whether the content was there.

        Args:
            is_new_folder: Whether this put has just made the folder, so that nothing is in it.
            sync: Whether new bytes are waited for before they are linked.

        Raises:
            FileExistsError: Something else was done first: look again.
            FileNotFoundError: The folder does not exist, or a delete was first.
        """
        state = None
        if not is_new_folder and self._new_in_a_row < _EXPECTS_NEW:
            try:
                state = self._renewed(path)
            except FileNotFoundError:
                pass
        if state is None:
            folder, name = self._split(path)
            self._check_inside(folder)
            leaf = name.partition(os.extsep)[0]
            others = [] if is_new_folder else self._paths_in(folder, leaf)
            if path not in others:
                return self._place_new(writer, id, path, others, sync)
            state = self._renewed(path)
        if self._leads_elsewhere(state):
            self._check_inside(os.path.dirname(path))
        if stat.S_ISREG(state.st_mode):
            if state.st_size != writer.size:
                self._heal(writer, id, sync)
                raise FileExistsError(errno.EEXIST, "Healed, or just taken away", path)
            return True
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, "A folder stands at a file's address", path)
        # What stands there is a link or a device, which is not content.
        writer.publish(path, self.fmode, sync=sync, over=True)
        return False

    def _place_new(self, writer: Writer, id: str, path: str, others: list[str], sync: bool) -> bool:
        """Give the content a path that it does not have; `others` are those that it has."""
        if not others and self._restore(id):
            raise FileExistsError(errno.EEXIST, "Put back", path)
        if not others:
            writer.publish(path, self.fmode, sync=sync)
            return False
        if any(os.lstat(other).st_size != writer.size for other in others):
            self._heal(writer, id, sync)
        try:
            os.link(others[0], path)
        except OSError as error:
            if not posix.refuses_links(error):
                raise
            writer.publish(path, self.fmode, sync=sync)
        self._renewed(path)
        return True

    def _sync(self, path: str, is_duplicate: bool) -> None:
        """Wait until the content and the folders that lead to it are on the disk."""
        if is_duplicate:  # its writer may not have waited for the disk
            posix.sync_path(path)
        self._synced.sync(path, self.root)
        if self.temporary.is_new:
            posix.sync_above(self.root)
            self.temporary.is_new = False

    def _heal(self, writer: Writer, id: str, sync: bool) -> None:
        """Replace what is damaged, under every path of the content, by what has arrived."""
        # All are looked at first: CephFS hides a link for a moment once another was replaced.
        states = {path: posix.lstat(path) for path in self._paths_of(id)}
        for path, state in states.items():
            if state is not None and state.st_size != writer.size:
                messages.HEALED.log(self.root, path=path, stored=state.st_size, size=writer.size)
                writer.publish(path, self.fmode, sync=sync, over=True)

    def _renewed(self, path: str) -> os.stat_result:
        """Make stored content as young as a new put, so that no prune takes it for old.

        Raises:
            FileNotFoundError: It is not there, or not any more.
        """
        try:
            os.utime(path, follow_symlinks=_FOLLOW)
        except FileNotFoundError:
            raise
        except OSError as error:
            messages.NOT_RENEWED.log(self.root, path=path, error=error)
        return os.lstat(path)  # a prune may have moved the file after utime had found it

    @full_is_told
    def takes(self, writer: Writer) -> bool:
        """Tell whether what a writer took, of whichever store, can be linked into this one."""
        file = writer.spilled
        if file is not None and file.placed:
            mode = 0o600 if self.fmode is None else self.fmode
            if mode != stat.S_IMODE(file.stat().st_mode):
                return False  # it has the mode of another store already, and would share it
        if writer.folder is self.temporary:
            return True
        if writer.algorithm != self.layout.algorithm or file is None:
            return False
        self.makepath(self.root)
        return file.stat().st_dev == os.stat(self.root).st_dev

    # -- listing ---------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Iterate over all regular files with their sizes and dates, hidden ones left out."""
        return listing.entries(self)

    def stats(self) -> Stats:
        """Return the store in numbers."""
        return listing.stats(self)

    # -- keeping in order: what does so is imported when it is needed -----------------------

    def diagnose(self) -> Iterator[Finding]:
        """Yield what works of the folder and what does not."""
        from . import diagnosis

        return diagnosis.diagnose(self)

    def probe(self) -> None:
        """Write a temporary file, and read it back."""
        self._probe(self.dmode, self.fsync)

    def corrupted(self, extensions: bool) -> Generator[tuple[str, HashAddress]]:
        """Yield the path of every file that lies in a wrong place, with the right address."""
        from . import repair

        for found in repair.misplaced(self, extensions):
            yield found.path, found.address

    def repair(self, extensions: bool) -> list[tuple[str, HashAddress]]:
        """Move every file to where its bytes belong, and return what `corrupted` yields."""
        from . import repair

        return repair.repair(self, extensions)

    def verify(self, quarantine: bool, force: bool = False) -> Generator[Progress | Damaged]:
        """Hash every content again, in several threads."""
        from . import verify

        return verify.verify(self, quarantine, force)

    def quarantine(self, relpath: str) -> None:
        """Move the file at a relative path out of the tree."""
        from .quarantine import isolate

        path = self.prefix + relpath
        try:
            fd = posix.open_regular(path, os.O_RDONLY | posix.BINARY)
        except FileNotFoundError:
            return
        try:
            isolate(self, self.layout.unshard(relpath), path, fd)
        finally:
            os.close(fd)

    def prune(self, in_use: InUse, older_than: timedelta, dry_run: bool) -> list[str]:
        """Delete every content that is neither in use nor young, and return the ids."""
        from . import prune

        return prune.prune(self, in_use, older_than, dry_run)
