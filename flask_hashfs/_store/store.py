"""HashFS: files kept under the hash of their bytes, in one folder."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
from collections.abc import Generator, Iterable, Iterator
from datetime import timedelta
from typing import Any

from hashfs import HashAddress
from werkzeug.datastructures import FileStorage

from .._local import group_put, maintenance, repair
from .._local.lookup import Tree
from .._storage import posix, sources
from .._storage.full import full_is_told
from .._storage.writer import UploadStream, Writer
from ..exceptions import DigestMismatchError, FileTooLargeError, InvalidExtensionError

logger = logging.getLogger("flask_hashfs")

_FOLLOW = os.utime not in os.supports_follow_symlinks  # where it cannot do otherwise
_EXTENSION = re.compile(r"\.?(?=.{1,64}\Z)(?!\.*\Z)[A-Za-z0-9._+-]+", re.ASCII)


class HashFS(Tree):
    """Content-addressed files below `root`.

    Args:
        root: Folder of the store; made by the first put.
        depth: Number of nested folders a file lies in.
        width: Characters of each folder's name.
        algorithm: A name that ``hashlib.new`` takes.
        fmode: Exact mode of new files; None leaves them private to their owner.
        dmode: Mode of new folders, less the umask.
        fsync: Whether an address that ``put`` returned survives a power cut.
        max_size: Bytes that one file may have, or None.

    Raises:
        ValueError: An unknown algorithm, or one whose digests have no fixed length.
    """

    max_size: int | None

    def __init__(
        self,
        root: str | os.PathLike[str],
        depth: int = 4,
        width: int = 1,
        algorithm: str = "sha256",
        fmode: int | None = 0o664,
        dmode: int = 0o755,
        *,
        fsync: bool = True,
        max_size: int | None = None,
    ) -> None:
        super().__init__(root, depth, width, algorithm, fmode, dmode, fsync)
        self.max_size = max_size
        self._synced = posix.SyncedFolders()

    # -- putting ---------------------------------------------------------------------------

    def put(
        self,
        file: Any,
        extension: str | None = None,
        *,
        expected: str | None = None,
        max_size: int | None = None,
    ) -> HashAddress:
        """Store the content of `file` under its hash.

        Args:
            file: A path, bytes, a binary or text file object, a werkzeug ``FileStorage`` or
                an iterable of bytes. What can be sought is read from its start and its
                position restored.
            extension: Added to the stored file's name; no part of its identity.
            expected: The hex id that the content must have.
            max_size: Bytes allowed; the store's own ``max_size`` holds as well.

        Returns:
            The address; ``is_duplicate`` tells whether the content was there already.

        Raises:
            InvalidExtensionError: `extension` cannot be part of a name.
            FileTooLargeError: The content is larger than allowed.
            DigestMismatchError: The content is not the `expected` one.
            ValueError: A path that names no file, or a file object that is closed.
            TypeError: Nothing that can be stored.
            StoreFullError: The disk is full.
            OSError: The content cannot be read, or the disk cannot take it.
        """
        if extension is not None or expected is not None:
            self.check_put(extension, expected)
        if isinstance(file, FileStorage):
            file = file.stream
        if isinstance(file, UploadStream) and self._takes(file.writer):
            try:
                return self._put_upload(file.writer, extension, expected, max_size)
            except OSError as error:
                if error.errno != errno.EXDEV:  # one device, but mounted twice
                    raise
        writer = self.new_writer(self._limit(max_size))
        try:
            sources.copy(file, writer)
            return self.commit(writer, extension, expected=expected)
        finally:
            writer.close()

    def check_put(self, extension: str | None = None, expected: str | None = None) -> None:
        """Raise what `put` would raise for these, before any byte is read.

        Raises:
            InvalidExtensionError: `extension` cannot be part of a name.
            TypeError: `expected` is no str.
        """
        dotted(extension)
        if expected is not None and not isinstance(expected, str):
            raise TypeError(f"expected must be a hex id, not {type(expected).__name__}")

    def put_files(
        self, files: Iterable[tuple[Any, str | None]]
    ) -> Iterator[tuple[Any, HashAddress | Exception]]:
        """Store many files: as durable as a put of each, but the disk is waited for in groups.

        Args:
            files: Sources, as `put` takes them, with their extensions.

        Yields:
            Each source with its address, or with the error that kept it out.
        """
        return group_put.put_files(self, files)

    def writer(self, max_size: int | None = None) -> Writer:
        """Return a writer for one new content; `commit` stores it, `close` gives it up.

        Args:
            max_size: Bytes allowed; the store's own ``max_size`` holds as well.
        """
        return self.new_writer(self._limit(max_size))

    def _limit(self, max_size: int | None) -> int | None:
        if max_size is None or self.max_size is None:
            return self.max_size if max_size is None else max_size
        return min(max_size, self.max_size)

    def new_writer(self, limit: int | None) -> Writer:
        """Return a writer that takes `limit` bytes, whatever the store's own ``max_size``."""
        return Writer(self.algorithm, self._temporary, self.dmode, limit)

    def commit(
        self, writer: Writer, extension: str | None = None, *, expected: str | None = None
    ) -> HashAddress:
        """Publish what `writer` took, atomically: a reader sees the whole file or none.

        It may be called again, with another `extension`. The writer stays open.

        Raises:
            InvalidExtensionError: `extension` cannot be part of a name.
            DigestMismatchError: The content is not the `expected` one.
            ValueError: The writer is closed.
            StoreFullError: The disk is full.
            OSError: The disk cannot take it.
        """
        suffix = dotted(extension)
        if writer.closed:
            raise ValueError("this content was given up, or its stream closed")
        id = writer.finish()
        if expected is not None and expected.lower() != id:
            raise DigestMismatchError(expected, id)
        path = self.idpath(id) + suffix
        try:
            with full_is_told:
                is_duplicate = self._commit(writer, id, path)
        except BaseException:
            posix.remove_empty_folders(os.path.dirname(path), self.root)
            raise
        finally:
            writer.release()
        return HashAddress._make((id, path[len(self._prefix) :], path, is_duplicate))

    def _commit(self, writer: Writer, id: str, path: str) -> bool:
        is_new_folder = False
        for _ in range(posix.ATTEMPTS):
            try:
                is_duplicate = self._place(writer, id, path, is_new_folder)
                if self.fsync:
                    self._sync(path, is_duplicate)
                return is_duplicate
            except FileExistsError:  # another put was first, or damage: look again
                is_new_folder = False
            except FileNotFoundError:  # no folder yet, or a delete has just taken it
                is_new_folder = self._make_folder(os.path.dirname(path))
        raise FileNotFoundError(errno.ENOENT, "This folder does not stay", path)

    def _place(self, writer: Writer, id: str, path: str, is_new_folder: bool) -> bool:
        """Give the content its name, if it has none; return whether the content was there.

        Args:
            is_new_folder: Whether this put has just made the folder, so that nothing is in it.

        Raises:
            FileExistsError: Something else was done first: look again.
            FileNotFoundError: The folder does not exist, or a delete was first.
        """
        try:
            state = None if is_new_folder else self._renewed(path)
        except FileNotFoundError:
            state = None
        if state is None:
            self._check_inside(os.path.dirname(path))
            names = [] if is_new_folder else self._names(id)
            return self._place_new(writer, id, path, names)
        if self._leads_elsewhere(state):
            self._check_inside(os.path.dirname(path))
        if stat.S_ISREG(state.st_mode):
            if state.st_size != writer.size:
                self._heal(writer, id)
                raise FileExistsError(errno.EEXIST, "Healed, or just taken away", path)
            return True
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, "A folder stands at a file's address", path)
        self._publish(writer, path, over=True)  # a link or a device, which is no content
        return False

    def _place_new(self, writer: Writer, id: str, path: str, names: list[str]) -> bool:
        if not names and self._restore(id):
            raise FileExistsError(errno.EEXIST, "Put back", path)
        if not names:
            self._publish(writer, path)
            return False
        if any(os.lstat(name).st_size != writer.size for name in names):
            self._heal(writer, id)
        try:
            os.link(names[0], path)
        except OSError as error:
            if not posix.refuses_links(error):
                raise
            self._publish(writer, path)
        self._renewed(path)
        return True

    def _publish(self, writer: Writer, path: str, *, over: bool = False) -> None:
        """Name the content `path`: a link to the writer's file, a copy where that is refused."""
        file = writer.file()
        if file.orphaned:
            file = writer.copied()
        try:
            self._link(file, path, over)
        except OSError as error:
            if not posix.refuses_links(error):
                raise
            named = contextlib.nullcontext() if file.placed else writer.folder.named(error)
            with named:
                self._link(writer.copied(), path, over)

    def _link(self, file: posix.TemporaryFile, path: str, over: bool) -> None:
        file.seal(self.fmode, self.fsync)
        if over:
            file.replace(path, self.dmode)
        else:
            file.link(path)

    def _sync(self, path: str, is_duplicate: bool) -> None:
        """Wait until the content and the folders that lead to it are on the disk."""
        if is_duplicate:  # its writer may not have waited for the disk
            posix.sync_path(path)
        self._synced.sync(path, self.root)
        if self._temporary.is_new:
            posix.sync_above(self.root)
            self._temporary.is_new = False

    def _heal(self, writer: Writer, id: str) -> None:
        """Replace what is damaged, under every name of the content, by what has arrived."""
        # All are looked at first: CephFS hides a link for a moment once another was replaced.
        states = {name: posix.lstat(name) for name in self._names(id)}
        for name, state in states.items():
            if state is not None and state.st_size != writer.size:
                logger.warning(
                    "%s had %d bytes instead of %d; it is replaced by the content put now",
                    name,
                    state.st_size,
                    writer.size,
                )
                self._publish(writer, name, over=True)

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
            logger.warning("The age of %s cannot be renewed: %s", path, error)
        return os.lstat(path)  # a sweep may have taken the name while utime had found the file

    def _put_upload(
        self, writer: Writer, extension: str | None, expected: str | None, max_size: int | None
    ) -> HashAddress:
        limit = self._limit(max_size)
        if limit is not None and writer.size > limit:
            raise FileTooLargeError(limit)
        return self.commit(writer, extension, expected=expected)

    def _takes(self, writer: Writer) -> bool:
        """Tell whether what a writer took, of whichever store, can be linked into this one."""
        file = writer.spilled
        if file is not None and file.placed:
            mode = 0o600 if self.fmode is None else self.fmode
            if mode != stat.S_IMODE(os.fstat(file.fd).st_mode):
                return False  # it has the mode of another store already, and would share it
        if writer.folder is self._temporary:
            return True
        if writer.algorithm != self.algorithm or file is None:
            return False
        self.makepath(self.root)
        return os.fstat(file.fd).st_dev == os.stat(self.root).st_dev

    # -- keeping in order ------------------------------------------------------------------

    def corrupted(self, extensions: bool = True) -> Generator[tuple[str, HashAddress]]:
        """Iterate over the files that do not lie where their bytes belong.

        Args:
            extensions: Whether the place a file belongs to has the file's own extension.

        Yields:
            The path of the file, and the address of its bytes.
        """
        for found in repair.misplaced(self, extensions):
            yield found.path, found.address

    def repair(self, extensions: bool = True) -> list[tuple[str, HashAddress]]:
        """Move every file to where its bytes belong.

        Args:
            extensions: Whether a file keeps its extension.

        Returns:
            The old path and the new address of each file moved.
        """
        return repair.repair(self, extensions)

    def verify(self, *, quarantine: bool = False, force: bool = False) -> Generator[HashAddress]:
        """Hash every content again, in several threads, to find what is damaged.

        Args:
            quarantine: Whether to move damaged files to ``.hashfs/quarantine``, so that the
                next put of their content heals them.
            force: Whether to move them even if none of the first 20 files is whole.

        Yields:
            The address, as its path claims it, of every file whose bytes have another hash
            or cannot be read from the disk any more. In no order.

        Raises:
            ConfigError: None of the first 20 files is whole: the ``algorithm`` is probably not
                the one that they were stored with. Nothing was moved.
        """
        with contextlib.closing(self.verify_steps(quarantine, force)) as steps:
            for step in steps:
                if isinstance(step, HashAddress):
                    yield step

    def verify_steps(self, quarantine: bool, force: bool = False) -> Generator[HashAddress | int]:
        """Verify, and yield between what is damaged how many more files have been looked at."""
        return maintenance.verify(self, quarantine, force)

    def prune(
        self,
        keep: Iterable[str | os.PathLike[str] | HashAddress] = (),
        *,
        older_than: timedelta = timedelta(hours=24),
        dry_run: bool = False,
        allow_empty: bool = False,
    ) -> list[str]:
        """Delete every content, under all its names, that is neither in use nor young.

        Files that are no content are left alone. Nothing is lost to a put at the same time.

        Args:
            keep: What is in use: ids, paths or addresses. It need not be stored.
            older_than: The time since its last put that a content must have had.
            dry_run: Whether to delete nothing and only tell what would be deleted.
            allow_empty: Whether nothing at all may be in use.

        Returns:
            The ids of what was deleted.

        Raises:
            TypeError: An item of `keep` that names no file, or no timedelta; nothing is deleted.
            ValueError: An item that no content can have as its address, or nothing is in use
                at all; nothing is deleted.
        """
        return maintenance.prune(
            self, keep, older_than=older_than, dry_run=dry_run, allow_empty=allow_empty
        )

    def live(self) -> maintenance.Live:
        """Return an empty collection of what is in use, to be filled and given to `prune`."""
        return maintenance.Live(self)

    def entries(self) -> Iterator[maintenance.Entry]:
        """Iterate over all regular files with their sizes and dates, hidden ones left out."""
        return maintenance.entries(self)

    def stats(self) -> maintenance.Stats:
        """Return the store in numbers."""
        return maintenance.stats(self)


def dotted(extension: str | None) -> str:
    """Return an extension with its dot, or nothing.

    Raises:
        InvalidExtensionError: It could not be part of a file's name.
    """
    if not extension and not isinstance(extension, bytes):
        return ""
    if not isinstance(extension, str) or _EXTENSION.fullmatch(extension) is None:
        raise InvalidExtensionError(
            f"extension {extension!r} is not 1 to 64 of the ASCII letters, digits "
            "and . _ - +, with at least one that is no dot"
        )
    return extension if extension.startswith(os.extsep) else os.extsep + extension
