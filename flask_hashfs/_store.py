"""HashFS: files kept under the hash of their bytes, in one folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
import re
import stat
from collections.abc import Generator, Iterable, Iterator
from datetime import timedelta
from typing import IO, Any, BinaryIO, cast

import hashfs
from hashfs import HashAddress
from werkzeug.datastructures import FileStorage

from . import _aside, _bulk, _disk, _maintenance, _sources
from ._writer import UploadStream, Writer
from .exceptions import (
    DigestMismatchError,
    FileTooLargeError,
    InvalidExtensionError,
    NotStoredError,
)

logger = logging.getLogger("flask_hashfs")

_EXTENSION = re.compile(r"\.?(?=.{1,64}\Z)(?!\.*\Z)[A-Za-z0-9._+-]+", re.ASCII)


class HashFS(hashfs.HashFS):  # type: ignore[misc,unused-ignore]
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

    root: str
    depth: int
    width: int
    algorithm: str
    fmode: int | None
    dmode: int

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
        super().__init__(root, depth, width, algorithm, dmode=dmode)
        self.fmode = fmode
        self.fsync = fsync
        self.max_size = max_size
        self._id_length = hashlib.new(algorithm, usedforsecurity=False).digest_size * 2
        if not self._id_length:
            raise ValueError(f"algorithm {algorithm!r} has no digest of a fixed length")
        self._prefix = os.path.join(self.root, "")
        self._temporary = _disk.TemporaryFolder(self.root)

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
            OSError: The content cannot be read, or the disk cannot take it.
        """
        self.check_put(extension, expected)
        if isinstance(file, FileStorage):
            file = file.stream
        if isinstance(file, UploadStream) and self._takes(file.writer):
            try:
                return self._put_upload(file.writer, extension, expected, max_size)
            except OSError as error:
                if error.errno != errno.EXDEV:  # one device, but mounted twice
                    raise
        with self.writer(max_size) as writer:
            _sources.copy(file, writer)
            return self.commit(writer, extension, expected=expected)

    def check_put(self, extension: str | None = None, expected: str | None = None) -> None:
        """Raise what `put` would raise for these, before any byte is read.

        Raises:
            InvalidExtensionError: `extension` cannot be part of a name.
            TypeError: `expected` is no str.
        """
        _suffix(extension)
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
        return _bulk.put_files(self, files)

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
            OSError: The disk cannot take it.
        """
        suffix = _suffix(extension)
        if writer.closed:
            raise ValueError("this content was given up, or its stream closed")
        id = writer.finish()
        if expected is not None and expected.lower() != id:
            raise DigestMismatchError(expected, id)
        path = self.idpath(id) + suffix
        folder = path.rpartition(os.sep)[0]
        try:
            for _ in range(_disk.ATTEMPTS):
                try:
                    is_duplicate = self._place(writer, id, path)
                    if self.fsync:
                        self._sync(path, is_duplicate)
                    return HashAddress(id, path[len(self._prefix) :], path, is_duplicate)
                except FileExistsError:  # another put was first: look again
                    continue
                except FileNotFoundError:  # no folder yet, or a delete has just taken it
                    self.makepath(folder)
            raise FileNotFoundError(errno.ENOENT, "This folder does not stay", folder)
        except BaseException:
            _disk.remove_empty_folders(folder, self.root)
            raise

    def _place(self, writer: Writer, id: str, path: str) -> bool:
        """Give the content its name, if it has none; return whether the content was there.

        Raises:
            FileExistsError: Another put was first.
            FileNotFoundError: The folder does not exist, or a delete was first.
        """
        state = _disk.lstat(path)
        if state is None:
            return self._place_new(writer, id, path)
        if stat.S_ISREG(state.st_mode):
            if state.st_size != writer.size:
                self._heal(writer, id)
            self._renew(path)
            return True
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, "A folder stands at a file's address", path)
        self._publish(writer, path, over=True)  # a link or a device, which is no content
        return False

    def _place_new(self, writer: Writer, id: str, path: str) -> bool:
        names = self._names(id)
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
            if not _disk.refuses_links(error):
                raise
            self._publish(writer, path)
        self._renew(path)
        return True

    def _publish(self, writer: Writer, path: str, *, over: bool = False) -> None:
        """Name the content `path`: a link to the writer's file, a copy where that is refused."""
        file = writer.file()
        if file.orphaned:
            file = writer.copied()
        try:
            self._link(file, path, over)
        except OSError as error:
            if not (file.placed and _disk.refuses_links(error)):
                raise
            self._link(writer.copied(), path, over)

    def _link(self, file: _disk.TemporaryFile, path: str, over: bool) -> None:
        file.seal(self.fmode, self.fsync)
        if over:
            file.replace(path, self.dmode)
        else:
            file.link(path)

    def _sync(self, path: str, is_duplicate: bool) -> None:
        """Wait until the content and the folders that lead to it are on the disk."""
        if is_duplicate:  # its writer may not have waited for the disk
            _disk.sync_path(path)
        _disk.sync_folders(os.path.dirname(path), self.root)
        if self._temporary.is_new:
            _disk.sync_above(self.root)
            self._temporary.is_new = False

    def _heal(self, writer: Writer, id: str) -> None:
        """Replace what is damaged, under every name of the content, by what has arrived."""
        for name in self._names(id):
            state = _disk.lstat(name)
            if state is not None and state.st_size != writer.size:
                logger.warning(
                    "%s had %d bytes instead of %d; it is replaced by the content put now",
                    name,
                    state.st_size,
                    writer.size,
                )
                self._publish(writer, name, over=True)

    def _renew(self, path: str) -> None:
        """Make stored content as young as a new put, so that no prune takes it for old."""
        try:
            os.utime(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            logger.warning("The age of %s cannot be renewed: %s", path, error)

    def _put_upload(
        self, writer: Writer, extension: str | None, expected: str | None, max_size: int | None
    ) -> HashAddress:
        limit = self._limit(max_size)
        if limit is not None and writer.size > limit:
            raise FileTooLargeError(limit)
        return self.commit(writer, extension, expected=expected)

    def _takes(self, writer: Writer) -> bool:
        """Tell whether what another store's writer took can be linked into this one."""
        if writer.folder is self._temporary:
            return True
        file = writer.spilled
        if writer.algorithm != self.algorithm or file is None:
            return False
        state = os.fstat(file.fd)
        mode = 0o600 if self.fmode is None else self.fmode
        if file.placed and mode != stat.S_IMODE(state.st_mode):
            return False  # it has a mode already, and would share it
        self.makepath(self.root)
        return state.st_dev == os.stat(self.root).st_dev

    # -- looking up ------------------------------------------------------------------------

    def get(self, file: str | os.PathLike[str] | HashAddress) -> HashAddress | None:
        """Return the address of a stored file, or None.

        Args:
            file: A hash id, a path relative to the root, an absolute path inside the root,
                or an address.

        Raises:
            TypeError: Anything else.
        """
        path = self.realpath(file)
        if path is None:
            return None
        return HashAddress(self.unshard(path), path[len(self._prefix) :], path)

    def exists(self, file: str | os.PathLike[str] | HashAddress) -> bool:
        """Tell whether `file` is stored; it takes what `get` takes."""
        return self.realpath(file) is not None

    def realpath(self, file: str | os.PathLike[str] | HashAddress) -> str | None:
        """Return the absolute path of a stored file, or None; it takes what `get` takes."""
        for name in _names_of(file):
            for _ in range(_disk.ATTEMPTS):
                path = self._find(name)
                if path is not None:
                    return path
                restored = self._restore(self.id_named(name))
                path = self._find(name)  # in any case: a sweep may just have put it back
                if path is not None:
                    return path
                if not restored:
                    break
        return None

    def open(self, file: str | os.PathLike[str] | HashAddress, mode: str = "rb") -> IO[Any]:
        """Open a stored file to read.

        Args:
            file: What `get` takes.
            mode: ``"rb"``, or a text mode; no mode that writes.

        Returns:
            For ``"rb"`` an ``io.BufferedReader``.

        Raises:
            NotStoredError: It is not stored.
            ValueError: A mode that writes.
        """
        if not mode or set(mode) - set("rbt"):
            raise ValueError(f"stored files are never changed: mode {mode!r} is not for reading")
        for _ in range(_disk.ATTEMPTS):
            path = self.realpath(file)
            if path is None:
                break
            try:
                return open(path, mode, opener=_disk.open_regular)
            except FileNotFoundError:  # deleted since; by id another name may be left
                continue
        raise NotStoredError(file)

    def open_content(self, address: HashAddress, read: bool = True) -> tuple[BinaryIO | None, int]:
        """Open a stored file, unless it is not to be read, and measure it, to serve it.

        Returns:
            The unbuffered file, or None, and the content's size in bytes.

        Raises:
            FileNotFoundError: It has been deleted since it was looked up.
        """
        while True:
            try:
                if not read:
                    return None, os.lstat(address.abspath).st_size
                file = io.FileIO(address.abspath, opener=_disk.open_regular)
                return cast(BinaryIO, file), os.fstat(file.fileno()).st_size
            except FileNotFoundError:
                if self.realpath(address.abspath) is None:  # not just moved by a sweep and back
                    raise

    def idpath(self, id: str, extension: str | None = "") -> str:
        """Return the path that the content `id` has, or would have, with this extension."""
        suffix = extension or ""
        if suffix and not suffix.startswith(os.extsep):
            suffix = os.extsep + suffix
        return self._prefix + os.sep.join(self.shard(id)) + suffix

    def shard(self, id: str) -> list[str]:
        """Split an id into the names of its folders and of its file."""
        width, end = self.width, self.depth * self.width
        parts = [id[start : start + width] for start in range(0, end, width or 1)]
        parts.append(id[end:])
        return parts if len(id) > end else [part for part in parts if part]

    def local_path(self, address: HashAddress) -> str | None:
        """Return the path of a stored file on this machine, or None where it has none."""
        path: str = address.abspath
        return path

    def unshard(self, path: str | os.PathLike[str]) -> str:
        """Return the hash id that a path inside the root stands for.

        Raises:
            ValueError: The path lies outside the root.
        """
        path = os.fspath(path)
        relpath = path[len(self._prefix) :] if path.startswith(self._prefix) else ""
        id = self.id_of(relpath)
        return id if id is not None else super().unshard(path)

    def id_of(self, relpath: str) -> str | None:
        """Return the id if `relpath` is where some content with some extension lies."""
        id = relpath.replace(os.sep, "").partition(os.extsep)[0]
        if not self._is_id(id):
            return None
        address = self.idpath(id)[len(self._prefix) :]
        return id if relpath == address or relpath.startswith(address + os.extsep) else None

    def id_named(self, name: str) -> str | None:
        """Return the id that a look-up of `name` would find stored, or None if it is no address."""
        if self._is_id(name):
            return name
        try:
            path = self._normal(os.path.join(self.root, name))
        except (OSError, ValueError):  # a NUL, a loop of links
            return None
        return None if path is None else self.id_of(path[len(self._prefix) :])

    def _is_id(self, name: str) -> bool:
        return len(name) == self._id_length and not name.strip("0123456789abcdef")

    def _find(self, name: str) -> str | None:
        try:
            if self._is_id(name):
                path = self._contained(self.idpath(name))
                if path is not None:
                    return path
                names = self._names(name)
                if names:
                    return self._contained(names[0])
            return self._contained(os.path.join(self.root, name)) if name else None
        except (OSError, ValueError):  # too long, a NUL, a loop of links: nothing stored there
            return None

    def _contained(self, path: str) -> str | None:
        """Return the normal form of `path` if it is a regular file inside the root."""
        if path.endswith(os.sep):
            return None
        normal = self._normal(path)
        if normal is None:
            return None
        path = normal
        state = _disk.lstat(path)
        if state is None or not stat.S_ISREG(state.st_mode):
            return None
        folder = os.path.dirname(path)
        while len(folder) > len(self.root):
            if os.path.islink(folder):
                real = os.path.realpath(path)
                return path if real.startswith(self._prefix) and not self._hides(real) else None
            folder = os.path.dirname(folder)
        return None if self._hides(path) else path

    def _normal(self, path: str) -> str | None:
        """Return the normal form of `path` if it lies inside the root."""
        path = os.path.normpath(path)
        if not path.startswith(self._prefix):
            path = os.path.realpath(path)  # the root may be known by another path
        return path if path.startswith(self._prefix) else None

    def _hides(self, path: str) -> bool:
        first = path[len(self._prefix) :].partition(os.sep)[0]
        return os.path.normcase(first) == _disk.HIDDEN

    def _names(self, id: str) -> list[str]:
        """Return the paths of all names of a content, sorted: one for each extension."""
        folder, leaf = os.path.split(self.idpath(id))
        try:
            with os.scandir(folder) as entries:
                return sorted(
                    entry.path
                    for entry in entries
                    if entry.name.startswith(leaf)
                    and entry.name[len(leaf) : len(leaf) + 1] in ("", os.extsep)
                    and entry.is_file(follow_symlinks=False)
                )
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _restore(self, id: str | None) -> bool:
        """Put back what a sweep has moved aside of a content; tell whether there was anything."""
        if id is None:
            return False
        try:
            restored = [box.put_back() for box in _aside.boxes(self, id)]
        except OSError as error:  # nothing may be written here, or no more
            logger.warning("%s cannot be put back after an interrupted sweep: %s", id, error)
            return False
        return any(restored)

    # -- deleting --------------------------------------------------------------------------

    def delete(self, file: str | os.PathLike[str] | HashAddress) -> None:
        """Delete a stored file and the folders it leaves empty; a missing one is no error.

        Args:
            file: An id deletes the content under all its names, anything else only the
                one name it stands for.

        Raises:
            OSError: The file system refuses.
        """
        name = _names_of(file)[0]
        for _ in range(_disk.ATTEMPTS):
            path = self.realpath(name)
            if path is None or self._delete(name, path):
                return

    def _delete(self, name: str, path: str) -> bool:
        """Delete a name, or all of an id; False if a sweep at work may have kept one."""
        paths = self._names(name) if self._is_id(name) else [path]
        done = True
        for each in paths:
            try:
                os.unlink(each)
            except FileNotFoundError:
                done = False
        _disk.remove_empty_folders(os.path.dirname(path), self.root)
        id = self.id_named(path)
        if id is not None:
            suffix = None if self._is_id(name) else path[len(self.idpath(id)) :]
            for box in _aside.boxes(self, id):
                done = not box.delete(suffix) and done
        return done

    def remove_empty(self, subpath: str) -> None:
        """Remove `subpath` and its parents inside the root, as far up as they are empty."""
        if self.haspath(subpath):
            _disk.remove_empty_folders(os.path.abspath(subpath), self.root)

    def makepath(self, path: str) -> None:
        """Create the folder `path` and its missing parents.

        Raises:
            NotADirectoryError: A file stands in the way.
        """
        if not os.path.isdir(self.root):
            self._temporary.is_new = True
        _disk.make_folders(path, self.dmode)

    # -- listing ---------------------------------------------------------------------------

    def files(self) -> Generator[str]:
        """Iterate over the absolute paths of all regular files, hidden ones left out."""
        for folder, _ in self._walk(self.root):
            yield from folder

    def folders(self) -> Generator[str]:
        """Iterate over the absolute paths of all folders that hold files."""
        for files, path in self._walk(self.root):
            if files:
                yield path

    def size(self) -> int:
        """Return the total size in bytes of all files."""
        states = map(_disk.lstat, self.files())
        return sum(state.st_size for state in states if state is not None)

    def _walk(self, folder: str) -> Iterator[tuple[list[str], str]]:
        folders, files = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        files.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile
            return
        yield files, folder
        for each in folders:
            if folder != self.root or not self._hides(each):
                yield from self._walk(each)

    # -- keeping in order ------------------------------------------------------------------

    def corrupted(self, extensions: bool = True) -> Generator[tuple[str, HashAddress]]:
        """Iterate over the files that do not lie where their bytes belong.

        Args:
            extensions: Whether the place a file belongs to has the file's own extension.

        Yields:
            The path of the file, and the address of its bytes.
        """
        for path in self.files():
            try:
                id = self._hash_file(path)
            except FileNotFoundError:
                continue
            expected = self.idpath(id) + (
                self.suffix_of(path[len(self._prefix) :], id) if extensions else ""
            )
            if expected != path:
                yield path, HashAddress(id, expected[len(self._prefix) :], expected)

    def repair(self, extensions: bool = True) -> list[tuple[str, HashAddress]]:
        """Move every file to where its bytes belong.

        Args:
            extensions: Whether a file keeps its extension.

        Returns:
            The old path and the new address of each file moved.
        """
        repaired = []
        for path, address in tuple(self.corrupted(extensions)):
            if self._move(path, address.abspath):
                _disk.remove_empty_folders(os.path.dirname(path), self.root)
                repaired.append((path, address))
        return repaired

    def verify(self, *, quarantine: bool = False) -> Generator[HashAddress]:
        """Hash every content again, in several threads, to find what is damaged.

        Args:
            quarantine: Whether to move damaged files to ``.hashfs/quarantine``, so that the
                next put of their content heals them.

        Yields:
            The address, as its path claims it, of every file whose bytes have another hash
            or cannot be read from the disk any more. In no order.
        """
        with contextlib.closing(self.verify_steps(quarantine)) as steps:
            for step in steps:
                if isinstance(step, HashAddress):
                    yield step

    def verify_steps(self, quarantine: bool) -> Generator[HashAddress | int]:
        """Verify, and yield between what is damaged how many more files have been looked at."""
        return _maintenance.verify(self, quarantine)

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
        return _maintenance.prune(
            self, keep, older_than=older_than, dry_run=dry_run, allow_empty=allow_empty
        )

    def live(self) -> _maintenance.Live:
        """Return an empty collection of what is in use, to be filled and given to `prune`."""
        return _maintenance.Live(self)

    def entries(self) -> Iterator[_maintenance.Entry]:
        """Iterate over all regular files with their sizes and dates, hidden ones left out."""
        return _maintenance.entries(self)

    def stats(self) -> _maintenance.Stats:
        """Return the store in numbers."""
        return _maintenance.stats(self)

    def _move(self, path: str, target: str) -> bool:
        for _ in range(_disk.ATTEMPTS):
            state, there = _disk.lstat(path), _disk.lstat(target)
            if state is None:
                return False
            if there is not None and there.st_size == state.st_size:
                os.unlink(path)
            else:
                self.makepath(os.path.dirname(target))
                try:
                    os.replace(path, target)
                except FileNotFoundError:
                    continue
            if self.fmode is not None:
                os.chmod(target, self.fmode)
            if self.fsync:
                _disk.sync_folders(os.path.dirname(target), self.root)
            return True
        return False

    def _hash_file(self, path: str) -> str:
        with open(path, "rb", buffering=0, opener=_disk.open_regular) as file:
            return hashlib.file_digest(file, self._new_hash).hexdigest()

    def _new_hash(self) -> hashlib._Hash:
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def suffix_of(self, relpath: str, id: str) -> str:
        """Return the extension, with its dot, of a file whose bytes have the hash `id`."""
        flat = relpath.replace(os.sep, "")
        if flat.startswith(id) and flat[len(id) : len(id) + 1] in ("", os.extsep):
            return flat[len(id) :]
        return os.path.splitext(relpath)[1]


def _suffix(extension: str | None) -> str:
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


def _names_of(file: object) -> tuple[str, ...]:
    """Return the names to look for, in order."""
    if isinstance(file, HashAddress):
        return file.relpath, file.id
    if isinstance(file, (str, os.PathLike)):
        name = os.fspath(file)
        if isinstance(name, str):
            return (name,)
    raise TypeError(
        "a stored file is named by a hash id, a path as str or PathLike, or a HashAddress, "
        f"not by {type(file).__name__}"
    )
