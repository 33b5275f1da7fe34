"""Backend: what a place for content has to do, on a disk, in a bucket or elsewhere.

A new backend writes the abstract methods; everything else follows from them. It imports what it
needs from `flask_hashfs.backends`, and it is right if a store over it passes the tests of
`flask_hashfs.testing.StoreContract`. It decides nothing about what may be put: a store checks that,
and commits only what has passed. A *path* is the backend's root, a separator and the path relative
to it that `Layout` derives: a path on a disk, a URL in a bucket.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import timedelta
from typing import IO, Any, Protocol

from ..exceptions import ConfigError, NotStoredError
from . import sources
from .cache_stats import CacheStats
from .findings import Finding
from .layout import Layout
from .names import Extension, File, names_of
from .pending import PendingUploads
from .predecessor import HashAddress
from .records import Content, Damaged, Entry, InUse, Progress, Stats
from .spool import TemporaryFolder
from .writer import Writer


class Commit(Protocol):
    """A store's commit: it checks what a writer took before the backend publishes it."""

    def __call__(
        self, writer: Writer, extension: Extension = None, *, sync: bool = True
    ) -> HashAddress:
        """Publish what `writer` took; see `Backend.commit` for `sync`."""
        ...


def put_one(
    source: object, extension: Extension, begin: Callable[[], Writer], commit: Commit
) -> HashAddress | Exception:
    """Store one of many files; see `Backend.put_files`."""
    try:
        with begin() as writer:
            sources.copy(source, writer)
            writer.finish()
            return commit(writer, extension)
    except Exception as error:
        return error


class Backend(ABC):
    """Where the content of a store lies.

    Args:
        root: What every path begins with.
        layout: How a path follows from an id.
    """

    is_local = False
    """Whether its paths can be opened on this machine."""

    serves_alone = False
    """Whether it would serve some files if the store failed, as of the last `probe`."""

    fmode: int | None = 0o664
    """Mode of files, where the backend keeps files."""

    dmode: int = 0o755
    """Mode of folders, where it has any."""

    fsync: bool = True
    """Whether it waits for a disk, where it has one."""

    spool: TemporaryFolder | None = None
    """Where content waits that is put, if it waits elsewhere than where it is to lie."""

    is_cached = False
    """Whether only those of its files lie on this machine that are kept here."""

    on_damaged: Callable[[HashAddress], None] | None = None
    """Called for content that is read and turns out to have other bytes than were put."""

    pending: PendingUploads
    """The uploads that are not finished yet, where the backend keeps any."""

    def __init__(self, root: str, layout: Layout) -> None:
        self.root = root
        self.layout = layout
        self.prefix = root + layout.separator

    @property
    def past_cache(self) -> Backend:
        """The same without the cache before it, if there is one."""
        return self

    def cache_stats(self) -> CacheStats:
        """Return the cache before it in numbers.

        Raises:
            ConfigError: There is none.
        """
        raise ConfigError("this store has no cache: HASHFS_CACHE_FOLDER is not set")

    def clear_cache(self) -> int:
        """Drop all files that are kept in the cache before it.

        Returns:
            How many there were.
        """
        return 0

    def warm_cache(self, file: File) -> bool:
        """Keep a stored file in the cache before it.

        Args:
            file: What a look-up takes.

        Returns:
            Whether it is stored.

        Raises:
            StoreUnavailableError: The store fails, or sends other bytes than were put.
        """
        return self.find(file) is not None

    # -- putting ---------------------------------------------------------------------------

    @abstractmethod
    def new_writer(self, limit: int | None) -> Writer:
        """Return a writer for one new content.

        Args:
            limit: Bytes that it takes, or None.
        """

    @abstractmethod
    def commit(self, writer: Writer, suffix: str, *, sync: bool = True) -> HashAddress:
        """Publish what `writer` took, atomically: a reader sees the whole content or none.

        It may be called again, with another suffix. Content that is stored already is a
        duplicate: it is made as young as new content, and healed where its size is wrong.

        Args:
            writer: Finished; it stays open.
            suffix: The extension with its dot, or nothing.
            sync: Whether to wait until it would survive a power cut, where `fsync` says so.

        Returns:
            The address; ``is_duplicate`` tells whether the content was stored already.
        """

    def takes(self, writer: Writer) -> bool:
        """Tell whether `commit` can publish what a `writer` of another store took."""
        return writer.algorithm == self.layout.algorithm

    def put_files(
        self,
        files: Iterable[tuple[Any, Extension]],
        begin: Callable[[], Writer],
        commit: Commit,
    ) -> Iterator[tuple[Any, HashAddress | Exception]]:
        """Store many files, in the way that is quickest here: one after the other.

        Args:
            files: Sources with their extensions.
            begin: Returns a writer for one of them.
            commit: Checks and publishes what a writer took.

        Yields:
            Each source with its address once that is durable, or with the error that kept it out.
        """
        for source, extension in files:
            yield source, put_one(source, extension, begin, commit)

    # -- looking up ------------------------------------------------------------------------

    @abstractmethod
    def find(self, file: File) -> HashAddress | None:
        """Return the address of a stored `file`, or None."""

    def has(self, file: File) -> bool:
        """Tell whether `file` is stored."""
        return self.find(file) is not None

    @abstractmethod
    def open(self, file: File, mode: str) -> IO[Any] | None:
        """Open a stored file to read, or return None.

        Args:
            file: What a look-up takes.
            mode: A mode of reading.
        """

    @abstractmethod
    def open_content(self, file: File, read: bool = True) -> Content | None:
        """Look up a stored file, open it if it is to be read, and measure it, to serve it.

        Args:
            file: What a look-up takes.
            read: Whether its bytes will be needed.

        Returns:
            The content, not open where `read` is False; None if it is not stored.
        """

    def pieces(self, file: File, size: int) -> Generator[memoryview] | None:
        """Return the bytes of a stored file in pieces as they arrive, or None.

        Args:
            file: What a look-up takes.
            size: Bytes of a piece, about.

        Returns:
            A generator, which closes the file when it ends, or is closed once it has begun.
        """
        opened = self.open(file, "rb")
        return None if opened is None else _pieces(opened, size)

    def open_past_cache(self, file: File) -> IO[Any]:
        """Open a stored file to read its bytes as they are stored, past any cache.

        Args:
            file: What a look-up takes.

        Raises:
            NotStoredError: It is not stored.
        """
        opened = self.past_cache.open(file, "rb")
        if opened is None:
            raise NotStoredError(names_of(file)[0])
        return opened

    def open_cached(self, file: File) -> Content | None:
        """Open a stored file to serve it, if that takes no waiting at all.

        Args:
            file: Its id, or its exact path relative to the root, or its address.

        Returns:
            Its content, a small one read already; None also where it may be stored all the same.
        """
        return None

    def signed_url(self, address: HashAddress, seconds: int) -> tuple[str, int] | None:
        """Return a URL by which anyone can read stored content past the app, if there are any.

        Args:
            address: Of a stored file.
            seconds: How long the URL is valid at least, and at most twice as long.

        Returns:
            The URL, and the seconds until another one takes its place.
        """
        return None

    # -- deleting --------------------------------------------------------------------------

    @abstractmethod
    def delete(self, file: File) -> None:
        """Delete a stored file; a missing one is not an error.

        Args:
            file: An id deletes the content under all its paths, anything else only one.
        """

    # -- names -----------------------------------------------------------------------------

    @abstractmethod
    def relpath_of(self, name: str) -> str | None:
        """Return the relative path that a name stands for, or None where nothing can lie.

        Args:
            name: A path, relative to the root or not.
        """

    @abstractmethod
    def haspath(self, path: str) -> bool:
        """Tell whether `path` lies inside the root."""

    def relpath(self, path: str) -> str:
        """Return the part of `path`, which lies inside the root, that is relative to it."""
        return path[len(self.prefix) :]

    def path_of(self, id: str, suffix: str = "") -> str:
        """Return the path that the content `id` has, or would have, under this `suffix`."""
        return self.prefix + self.layout.path_of(id, suffix)

    def address_of(self, relpath: str) -> HashAddress:
        """Return the address of the file at the relative path `relpath`."""
        return HashAddress(self.layout.unshard(relpath), relpath, self.prefix + relpath)

    def id_named(self, name: str) -> str | None:
        """Return the id that a look-up of `name` would find, or None if it is not an address."""
        if self.layout.is_id(name):
            return name
        relpath = self.relpath_of(name)
        return None if relpath is None else self.layout.id_of(relpath)

    def makepath(self, path: str) -> None:
        """Create the folder `path` and its missing parents, where there are folders."""
        return

    def remove_empty(self, path: str) -> None:
        """Remove the folder `path` and its parents, as far up as they are empty."""
        return

    # -- listing ---------------------------------------------------------------------------

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Iterate over all files, stray ones included and hidden ones left out."""

    def files(self) -> Generator[str]:
        """Iterate over the paths of what `entries` yields."""
        for entry in self.entries():
            yield self.prefix + entry.relpath

    @abstractmethod
    def folders(self) -> Generator[str]:
        """Iterate over the paths of all folders that hold files."""

    def size(self) -> int:
        """Return the total size in bytes of all files."""
        return sum(entry.size for entry in self.entries())

    def stats(self) -> Stats:
        """Return the store in numbers."""
        result, ids = Stats(), set()
        for entry in self.entries():
            result.add(entry)
            if entry.id is not None:
                ids.add(bytes.fromhex(entry.id))
        result.contents = len(ids)
        return result

    # -- keeping in order ------------------------------------------------------------------

    @abstractmethod
    def diagnose(self) -> Iterator[Finding]:
        """Yield what works and what does not, and change nothing but a probe that goes again."""

    @abstractmethod
    def probe(self) -> None:
        """Return if the store works, as far as little work can show.

        Raises:
            ProbeError: It does not.
        """

    @abstractmethod
    def corrupted(self, extensions: bool) -> Generator[tuple[str, HashAddress]]:
        """Yield the path of every file that lies in a wrong place, with the right address.

        Args:
            extensions: Whether the right place has the file's own extension.
        """

    @abstractmethod
    def repair(self, extensions: bool) -> list[tuple[str, HashAddress]]:
        """Move every file to where its bytes belong, and return what `corrupted` yields.

        Args:
            extensions: Whether files keep their extensions.

        Returns:
            The old path and the new address of each file moved.
        """

    @abstractmethod
    def verify(self, quarantine: bool, force: bool = False) -> Generator[Progress | Damaged]:
        """Hash every content again, and yield often, so that whoever waits can give up.

        Args:
            quarantine: Whether to move what is damaged out of the way of the next put.
            force: Whether to move it even if none of the first 20 files is whole.

        Yields:
            `Damaged` for each damaged file, and between them how many files were looked at.

        Raises:
            ConfigError: None of the first 20 files is whole, and nothing was moved.
        """

    @abstractmethod
    def quarantine(self, relpath: str) -> None:
        """Move the file at `relpath` to where `verify` moves what is damaged.

        It is not an error if it has been deleted meanwhile.
        """

    def in_use(self) -> InUse:
        """Return an empty collection of what is in use, to be filled and given to `prune`."""
        return InUse(self.id_named)

    def check_age(self, older_than: timedelta) -> None:
        """Refuse an age `older_than` that `prune` cannot go by.

        Raises:
            ValueError: It is negative, or too short here.
        """
        if older_than < timedelta(0):
            raise ValueError(f"older_than must not be negative: {older_than!r}")

    @abstractmethod
    def prune(self, in_use: InUse, older_than: timedelta, dry_run: bool) -> list[str]:
        """Delete every content that is neither in use nor young, and return the ids.

        A put at the same time never ends with a missing content.

        Args:
            in_use: What stays.
            older_than: The time since its last put that a content must have had.
            dry_run: Whether to delete nothing.

        Returns:
            The ids of what was deleted, or would be.
        """


def _pieces(file: IO[Any], size: int) -> Generator[memoryview]:
    with file:
        while data := file.read1(size):  # type: ignore[attr-defined]
            yield memoryview(data)
