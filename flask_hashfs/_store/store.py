"""HashFS: what the user holds, one store over a backend."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Generator, Iterable, Iterator
from datetime import timedelta
from typing import IO, Any, BinaryIO, cast, overload

from werkzeug.datastructures import FileStorage

from .._local.backend import LocalBackend
from .._storage import messages
from .._storage.backend import Backend
from .._storage.cache_stats import CacheStats
from .._storage.full import full_is_told
from .._storage.layout import Layout
from .._storage.names import BinaryMode, Extension, File, TextMode, check_mode, names_of
from .._storage.predecessor import HashAddress, PredecessorHashFS
from .._storage.records import Damaged, Entry, InUse, NothingInUseError, Stats
from .._storage.sources import Source
from .._storage.stored_file import StoredFile
from .._storage.writer import Writer
from ..exceptions import NotStoredError
from . import checks, types
from .putting import Inspection, Put


class HashFS(PredecessorHashFS):
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

    backend: Backend
    """Where the content lies: for those who write a backend, not for an app."""

    max_size: int | None

    accept: tuple[str, ...] | None = None
    """The types of content, told by its bytes, that are accepted; None accepts all."""

    inspection: Inspection | None = None
    """What has new content looked at, before it is published."""

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
        layout = Layout(depth, width, algorithm, os.sep)
        self.backend = LocalBackend(root, layout, fmode, dmode, fsync)
        self.max_size = max_size

    # -- settings --------------------------------------------------------------------------

    @property
    def root(self) -> str:
        """The folder, or the URL, that the content lies below."""
        return self.backend.root

    @property
    def depth(self) -> int:
        """Number of nested folders a file lies in."""
        return self.backend.layout.depth

    @property
    def width(self) -> int:
        """Characters of each folder's name."""
        return self.backend.layout.width

    @property
    def algorithm(self) -> str:
        """The name of the hash that ids are made by."""
        return self.backend.layout.algorithm

    @property
    def fmode(self) -> int | None:
        """Exact mode of new files, or None."""
        return self.backend.fmode

    @fmode.setter
    def fmode(self, mode: int | None) -> None:
        self.backend.fmode = mode

    @property
    def dmode(self) -> int:
        """Mode of new folders, less the umask."""
        return self.backend.dmode

    @dmode.setter
    def dmode(self, mode: int) -> None:
        self.backend.dmode = mode

    @property
    def fsync(self) -> bool:
        """Whether an address that ``put`` returned survives a power cut."""
        return self.backend.fsync

    @fsync.setter
    def fsync(self, fsync: bool) -> None:
        self.backend.fsync = fsync

    # -- putting ---------------------------------------------------------------------------

    def put(
        self,
        file: Source,
        extension: Extension = None,
        *,
        expected: str | None = None,
        max_size: int | None = None,
        accept: str | Iterable[str] | None = None,
    ) -> HashAddress:
        """Store the content of `file` under its hash.

        Args:
            file: A path, bytes, a binary or text file object, a werkzeug ``FileStorage`` or
                an iterable of bytes. What can be sought is read from its start and its
                position restored.
            extension: Added to the stored file's name; no part of its identity. ``AUTO``: that
                of the content's type.
            expected: The hex id that the content must have.
            max_size: Bytes allowed; the store's own ``max_size`` holds as well.
            accept: MIME types, told by the content's bytes; the store's own list holds as well.

        Returns:
            The address; ``is_duplicate`` tells whether the content was there already.

        Raises:
            ConfigError: `accept` is not a list of types, or no detector is installed.
            InvalidExtensionError: `extension` cannot be part of a name.
            FileTooLargeError: The content is larger than allowed.
            UnsupportedTypeError: The content is of no accepted type.
            DigestMismatchError: The content is not the `expected` one.
            RejectedError: An inspector refuses the content.
            ValueError: A path that names no file, or a file object that is closed.
            TypeError: Nothing that can be stored.
            StoreFullError: The disk is full.
            OSError: The content cannot be read, or the disk cannot take it.
        """
        step = Put(self, extension, expected, max_size, accept)
        try:
            return step.run(file)
        finally:
            step.close()

    def put_files(
        self, files: Iterable[tuple[Any, Extension]]
    ) -> Iterator[tuple[Any, HashAddress | Exception]]:
        """Store many files: as durable as a put of each, but in less time.

        A folder waits for the disk in groups, an object store takes several files at once.

        Args:
            files: Sources, as `put` takes them, with their extensions.

        Yields:
            Each source with its address, or with the error that kept it out.
        """
        return self.backend.put_files(files, self.writer, self.commit)

    def writer(self, max_size: int | None = None) -> Writer:
        """Return a writer for one new content; `commit` stores it, `close` gives it up.

        Args:
            max_size: Bytes allowed; the store's own ``max_size`` holds as well.
        """
        writer = self.backend.new_writer(checks.smaller(max_size, self.max_size))
        return checks.watch(writer, checks.accepted(self.accept))

    def commit(
        self,
        writer: Writer,
        extension: Extension = None,
        *,
        expected: str | None = None,
        sync: bool = True,
    ) -> HashAddress:
        """Publish what `writer` took, atomically: a reader sees the whole file or none.

        It may be called again, with another `extension`. The writer stays open.

        Args:
            writer: From `writer`, of this store.
            extension: Added to the stored file's name; no part of its identity.
            expected: The hex id that the content must have.
            sync: Whether to wait for the disk, where the store does so at all.

        Returns:
            The address; ``is_duplicate`` tells whether the content was stored already.

        Raises:
            InvalidExtensionError: `extension` cannot be part of a name.
            DigestMismatchError: The content is not the `expected` one.
            ValueError: The writer is closed.
            StoreFullError: The disk is full.
            OSError: The disk cannot take it.
        """
        step = Put(self, extension, expected, writer.max_size)
        step.check(writer)
        step.inspect()
        return step.publish(sync=sync)

    # -- types -----------------------------------------------------------------------------

    def type_of(self, file: Any) -> str:
        """Return the type of a stored file, or of a file to be stored, by its bytes alone.

        Args:
            file: What `get` takes; or an upload or another binary file that can be sought, whose
                position is kept.

        Returns:
            A MIME type in lower case, without parameters; ``application/octet-stream`` where it
            is unknown.

        Raises:
            ConfigError: No detector is installed: ``pip install 'Flask-HashFS[types]'``.
            NotStoredError: It is not stored.
            TypeError: Anything else, or a file of text.
        """
        if isinstance(file, FileStorage):
            file = file.stream
        if hasattr(file, "read"):
            return types.type_of_file(file)
        with self.open(file) as stored:
            return types.type_of_file(cast(BinaryIO, stored))

    # -- looking up ------------------------------------------------------------------------

    def get(self, file: File) -> HashAddress | None:
        """Return the address of a stored file, or None.

        Args:
            file: A hash id, a path relative to the root, an absolute path inside the root,
                an address or a `StoredFile`.

        Raises:
            TypeError: Anything else.
        """
        return self.backend.find(file)

    def exists(self, file: File) -> bool:
        """Tell whether a file is stored.

        Args:
            file: What `get` takes.

        Raises:
            TypeError: Anything else.
        """
        return self.backend.has(file)

    def realpath(self, file: File) -> str | None:
        """Return the absolute path of a stored file, or None.

        Args:
            file: What `get` takes.

        Raises:
            TypeError: Anything else.
        """
        address = self.backend.find(file)
        return None if address is None else address.abspath

    @overload
    def open(self, file: File, mode: BinaryMode = "rb") -> io.BufferedReader: ...
    @overload
    def open(self, file: File, mode: TextMode) -> io.TextIOWrapper: ...
    @overload
    def open(self, file: File, mode: str) -> IO[Any]: ...
    @full_is_told
    def open(self, file: File, mode: str = "rb") -> IO[Any]:
        """Open a stored file to read.

        In an object store it is read by ranges as they are needed: it has no ``fileno``, and
        once it has been sought in, a delete ends it.

        Args:
            file: What `get` takes.
            mode: ``"rb"``, or a text mode; no mode that writes.

        Returns:
            For ``"rb"`` an ``io.BufferedReader``.

        Raises:
            NotStoredError: It is not stored.
            StoreUnavailableError: The store fails, or the process is out of descriptors.
            ValueError: A mode that writes.
        """
        check_mode(mode)
        opened = self.backend.open(file, mode)
        if opened is None:
            raise NotStoredError(names_of(file)[0])
        return opened

    # -- deleting --------------------------------------------------------------------------

    def delete(self, file: str | os.PathLike[str] | HashAddress) -> None:
        """Delete a stored file and the folders it leaves empty; a missing one is no error.

        Args:
            file: An id deletes the content under all its paths, anything else only the
                one path that it stands for.

        Raises:
            TypeError: A `StoredFile`, since another row may mean the same content.
            OSError: The file system refuses.
        """
        if isinstance(file, StoredFile):
            raise TypeError(
                "delete takes no StoredFile, since another row may mean the same content: delete "
                "the row, and let prune delete what no row has (or name the content by its id)"
            )
        self.backend.delete(file)

    # -- paths -----------------------------------------------------------------------------

    def idpath(self, id: str, extension: str | None = "") -> str:
        """Return the absolute path that a content has, or would have.

        Args:
            id: Of the content, in hexadecimal digits.
            extension: With or without its dot; none if empty or None.
        """
        suffix = extension or ""
        if suffix and not suffix.startswith("."):
            suffix = "." + suffix
        return self.backend.path_of(id, suffix)

    def shard(self, id: str) -> list[str]:
        """Return the names of the folders that a content lies in, and of its file.

        Args:
            id: Of the content, in hexadecimal digits.
        """
        return self.backend.layout.shard(id)

    def unshard(self, path: str | os.PathLike[str]) -> str:
        """Return the hash id that a path inside the root stands for.

        Args:
            path: An absolute path; an extension is left out of the id.

        Raises:
            ValueError: The path lies outside the root.
        """
        path = os.fspath(path)
        if not path.startswith(self.backend.prefix) and not self.backend.haspath(path):
            raise ValueError(f"cannot unshard {path!r}: it does not lie inside {self.root!r}")
        return self.backend.layout.unshard(self.backend.relpath(path))

    def haspath(self, path: str) -> bool:
        """Tell whether a path lies inside the root, all symbolic links followed.

        Args:
            path: It need not exist.
        """
        return self.backend.haspath(path)

    def relpath(self, path: str) -> str:
        """Return the part of a path that is relative to the root.

        Args:
            path: An absolute path inside the root.
        """
        return self.backend.relpath(path)

    def makepath(self, path: str) -> None:
        """Create a folder and its missing parents; an object store has no folders.

        Args:
            path: The folder's absolute path; it gets the mode `dmode`.

        Raises:
            NotADirectoryError: A file stands in the way.
        """
        self.backend.makepath(path)

    def remove_empty(self, subpath: str) -> None:
        """Remove a folder and its parents inside the root, as far up as they are empty.

        Args:
            subpath: The folder's absolute path.
        """
        self.backend.remove_empty(subpath)

    # -- listing ---------------------------------------------------------------------------

    def files(self) -> Generator[str]:
        """Iterate over the absolute paths of all regular files, hidden ones left out."""
        return self.backend.files()

    def folders(self) -> Generator[str]:
        """Iterate over the absolute paths of all folders that hold files."""
        return self.backend.folders()

    def size(self) -> int:
        """Return the total size in bytes of all files."""
        return self.backend.size()

    def entries(self) -> Iterator[Entry]:
        """Iterate over all regular files with their sizes and dates, hidden ones left out."""
        return self.backend.entries()

    def stats(self) -> Stats:
        """Return the store in numbers."""
        return self.backend.stats()

    def cache_stats(self) -> CacheStats:
        """Return the cache of this machine, before the store, in numbers.

        Raises:
            ConfigError: There is none.
        """
        return self.backend.cache_stats()

    # -- keeping in order ------------------------------------------------------------------

    def corrupted(self, extensions: bool = True) -> Generator[tuple[str, HashAddress]]:
        """Iterate over the files that do not lie where their bytes belong.

        Args:
            extensions: Whether the place a file belongs to has the file's own extension.

        Yields:
            The path of the file, and the address of its bytes.
        """
        return self.backend.corrupted(extensions)

    def repair(self, extensions: bool = True) -> list[tuple[str, HashAddress]]:
        """Move every file to where its bytes belong.

        Args:
            extensions: Whether a file keeps its extension.

        Returns:
            The old path and the new address of each file moved.
        """
        return self.backend.repair(extensions)

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
        with contextlib.closing(self.backend.verify(quarantine, force)) as steps:
            for step in steps:
                if isinstance(step, Damaged):
                    yield step.address

    def prune(
        self,
        keep: Iterable[File] = (),
        *,
        older_than: timedelta = timedelta(hours=24),
        dry_run: bool = False,
        allow_empty: bool = False,
    ) -> list[str]:
        """Delete every content, under all its paths, that is neither in use nor young.

        Stray files are left alone. Nothing is lost to a put at the same time.

        Args:
            keep: What is in use: ids, paths, addresses or stored files. It need not be stored.
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
        if not isinstance(older_than, timedelta):  # a number could be seconds or hours
            raise TypeError(f"older_than must be a timedelta, not {older_than!r}")
        self.backend.check_age(older_than)
        in_use = keep
        if not isinstance(in_use, InUse):
            in_use = self.backend.in_use()
            in_use.update(keep)
        if not in_use and not allow_empty:
            raise NothingInUseError(
                "nothing is in use, so everything would be deleted: "
                "pass allow_empty=True if that is what you want"
            )
        deleted = self.backend.prune(in_use, older_than, dry_run)
        if deleted and not dry_run:
            messages.PRUNED.log(self.backend, root=self.root, deleted=len(deleted))
        return deleted
