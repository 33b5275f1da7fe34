"""BucketBackend: content in an object store such as S3."""

from __future__ import annotations

import io
import posixpath
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import IO, Any, BinaryIO, NamedTuple, TypeVar, cast

from .._storage import messages
from .._storage.backend import Backend, Commit, put_one
from .._storage.findings import Finding
from .._storage.layout import Layout
from .._storage.names import Extension, File, names_of
from .._storage.parallel import in_threads
from .._storage.predecessor import HashAddress
from .._storage.probe import ProbeError
from .._storage.records import Content, Damaged, Entry, InUse, Progress, Stats
from .._storage.spool import TemporaryFolder
from .._storage.writer import Writer
from ..exceptions import HashFSError
from . import diagnosis, prune
from .client import Found, Objects
from .hidden import HIDDEN, PROBE, QUARANTINE, RENEWING
from .pending import BucketUploads
from .put import Puts
from .reader import ObjectFile
from .verify import Upkeep

T = TypeVar("T")

_LONGEST_KEY = 1024  # bytes, in S3
_KEYS_WITHIN = 60.0  # seconds to list the keys of one content
_LAST = "\U0010ffff"  # no character comes after it
_SIGNED = 4096  # URLs kept
_BUFFER = 64 * 1024  # bytes of each reader; much more would go back to the system every time


class _Slot(NamedTuple):
    """A span of time in which every signed URL of an object is the same."""

    seconds: int
    number: int
    key: str


class BucketBackend(Backend):
    """Content as objects below a URL; see `Backend` for the methods.

    Nothing is sent before the first call. Folders do not exist, so ``makepath`` and
    ``remove_empty`` do nothing; paths are URLs such as ``s3://bucket/prefix/a/b/1/2/…``.

    Args:
        url: ``s3://bucket/prefix``, ``gs://…``, ``az://…`` or ``memory://``.
        layout: How a key follows from an id.
        options: Of the object store, as obstore takes them.
        describe: Returns what the object store tells those who read past the app: the headers of
            the object with this key, ``Content-Type`` among them.

    Raises:
        ConfigError: obstore is not installed, or refuses the URL or an option.
    """

    def __init__(
        self,
        url: str,
        layout: Layout,
        options: Mapping[str, Any],
        describe: Callable[[str], dict[str, str]],
    ) -> None:
        scheme, _, rest = url.partition("://")
        super().__init__(f"{scheme}://{rest.strip('/')}", layout)
        self._longest_key = _LONGEST_KEY - len(rest.encode())
        self._options = options
        self._objects = objects = Objects(url, options)
        self._pruning = prune.Pruning(objects)
        self._puts = Puts(objects, layout, self.prefix, self._keys, describe, self._pruning)
        self._upkeep = Upkeep(objects, layout, self._puts, self.address_of)
        self.pending = BucketUploads(objects, layout, self.root, self._puts.go_on)
        self._signed: dict[_Slot, str] = {}

    @property
    def spool(self) -> TemporaryFolder:
        """Where content waits that is too large for memory."""
        return self._puts.spool

    @spool.setter
    def spool(self, spool: TemporaryFolder) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._puts.spool = spool

    # -- putting ---------------------------------------------------------------------------

    def new_writer(self, limit: int | None) -> Writer:
        """Return a writer that takes `limit` bytes."""
        return self._puts.new_writer(limit)

    def put_files(
        self,
        files: Iterable[tuple[Any, Extension]],
        begin: Callable[[], Writer],
        commit: Commit,
    ) -> Iterator[tuple[Any, HashAddress | Exception]]:
        """Store many files, several at once."""

        def put(file: tuple[Any, Extension]) -> HashAddress | Exception:
            return put_one(*file, begin, commit)

        for (source, _), result in in_threads(put, files):
            yield source, result

    def commit(self, writer: Writer, suffix: str, *, sync: bool = True) -> HashAddress:
        """Store what `writer` took, atomically; content that is there already is not sent.

        Raises:
            StoreUnavailableError: The object store fails.
        """
        return self._puts.commit(writer, suffix)

    # -- looking up ------------------------------------------------------------------------

    def find(self, file: File) -> HashAddress | None:
        """Return the address of a stored file, or None."""
        found = self._look_up(file)
        return None if found is None else self.address_of(found.key)

    def open(self, file: File, mode: str) -> IO[Any] | None:
        """Open a stored file to read, by ranges as they are needed, or return None."""
        begun = self._ask(file, self._objects.begin)
        if begun is None:
            return None
        found, stream = begun
        raw = ObjectFile(self._objects, found.key, found.size, stream)
        reader = io.BufferedReader(raw, _BUFFER)
        return reader if "b" in mode else io.TextIOWrapper(reader)

    def pieces(self, file: File, size: int) -> Generator[memoryview] | None:
        """Return the bytes of a stored object in pieces as they arrive, not copied, or None."""
        begun = self._ask(file, partial(self._objects.begin, piece=size))
        if begun is None:
            return None
        found, stream = begun
        return _pieces(ObjectFile(self._objects, found.key, found.size, stream, size))

    def open_content(self, file: File, read: bool = True) -> Content | None:
        """Look up a stored file and, if it is to be read, open it, to serve it.

        Args:
            file: What a look-up takes.
            read: Whether its bytes will be needed.
        """
        found = self._look_up(file)
        if found is None:
            return None
        opened = ObjectFile(self._objects, found.key, found.size) if read else None
        file_read = cast("BinaryIO | None", opened)
        return Content(self.address_of(found.key), file_read, found.size)

    def signed_url(self, address: HashAddress, seconds: int) -> tuple[str, int] | None:
        """Return a URL by which anyone can read an object past the app, where there are any.

        Calls within one span of `seconds`, counted from 1970, return the same URL.
        """
        if self.root.startswith("memory:"):
            return None
        number, past = divmod(int(time.time()), seconds)
        slot = _Slot(seconds, number, address.relpath)
        url = self._signed.get(slot)
        if url is None:
            url = self._objects.sign(address.relpath, 2 * seconds - past)
            if len(self._signed) >= _SIGNED:
                self._signed = {}
            self._signed[slot] = url
        return url, seconds - past

    def haspath(self, path: str) -> bool:
        """Tell whether a URL lies inside the root."""
        return path.startswith(self.prefix) and self.relpath_of(path) is not None

    def relpath(self, path: str) -> str:
        """Return the key of a URL inside the root."""
        return path.removeprefix(self.prefix)

    def _look_up(self, file: File) -> Found | None:
        return self._ask(file, self._objects.head)

    def _ask(self, file: File, ask: Callable[[str], T | None]) -> T | None:
        """Return the first answer about a key that `file` may mean."""
        for name in names_of(file):
            key = self.layout.path_of(name) if self.layout.is_id(name) else self.relpath_of(name)
            answer = ask(key) if key is not None else None
            if answer is None and self.layout.is_id(name):
                names = self._keys(name)
                answer = ask(names[0].key) if names else None
            if answer is not None:
                return answer
        return None

    def relpath_of(self, name: str) -> str | None:
        """Return the key that `name` stands for, or None where nothing can be stored."""
        if name.startswith(self.prefix):
            name = name[len(self.prefix) :]
        if not name or name.startswith("/") or name.endswith("/"):
            return None
        key = posixpath.normpath(name)
        if key in (".", "..") or key.startswith("../") or (key + "/").startswith(HIDDEN):
            return None
        try:
            return key if len(key.encode()) <= self._longest_key else None
        except UnicodeEncodeError:
            return None

    def _keys(self, id: str) -> list[Found]:
        """Return all objects of a content, sorted: one for each extension."""
        start = self.layout.path_of(id)
        keys: list[Found] = []
        after: str | None = start[:-1]
        until = time.monotonic() + _KEYS_WITHIN
        while after is not None:
            after = self._collect_keys(start, after, until, keys)
        return keys

    def _collect_keys(self, start: str, after: str, until: float, keys: list[Found]) -> str | None:
        """Add the objects behind the key `after`, up to a folder; return the last key in that."""
        for found in self._objects.list(posixpath.dirname(start), after=after, until=until):
            if not found.key.startswith(start):
                return None
            name, slash, _ = found.key[len(start) :].partition("/")
            if slash:  # what lies in a folder is stray: not all of it is listed
                return f"{start}{name}/{_LAST}"
            if name[:1] in ("", "."):
                keys.append(found)
        return None

    # -- deleting --------------------------------------------------------------------------

    def delete(self, file: File) -> None:
        """Delete a stored file; a missing one is not an error.

        Args:
            file: An id deletes the content under all its paths, anything else only one.

        Raises:
            StoreUnavailableError: The object store fails.
        """
        name = names_of(file)[0]
        if self.layout.is_id(name):
            keys = [found.key for found in self._keys(name)]
        else:
            key = self.relpath_of(name)
            keys = [key] if key is not None and self._objects.head(key) is not None else []
        self._objects.delete(keys)
        if keys and (id := self.layout.id_of(keys[0])) is not None:
            self._pruning.wait(id)  # whose delete must not come after a next put

    # -- listing ---------------------------------------------------------------------------

    def files(self) -> Generator[str]:
        """Iterate over the URLs of all objects below the root, hidden ones left out."""
        for found in self._all():
            yield self.prefix + found.key

    def folders(self) -> Generator[str]:
        """Iterate over the URLs of all folders that hold files."""
        seen = set()
        for found in self._all():
            folder = posixpath.dirname(found.key)
            if folder not in seen:
                seen.add(folder)
                yield (self.prefix + folder).rstrip("/") if folder else self.root

    def size(self) -> int:
        """Return the total size in bytes of all files."""
        return sum(found.size for found in self._all())

    def _all(self) -> Iterator[Found]:
        return (found for found in self._objects.list() if not found.key.startswith(HIDDEN))

    # -- keeping in order ------------------------------------------------------------------

    def diagnose(self) -> Iterator[Finding]:
        """Yield what works of the bucket and what does not."""
        return diagnosis.diagnose(self.root, self._objects, self._options)

    def probe(self) -> None:
        """Ask for one object by a HEAD, whether it is there or not: the bucket may be read-only."""
        try:
            self._objects.head_once(PROBE)
        except (HashFSError, RuntimeError) as error:
            raise ProbeError("reach", error) from error

    def verify(self, quarantine: bool, force: bool = False) -> Generator[Progress | Damaged]:
        """Hash every object again, one after the other."""
        self._delete_left_overs()
        yield from self._upkeep.verify(self._all(), quarantine, force)

    def quarantine(self, relpath: str) -> None:
        """Move the object at a relative path to where `verify` moves what is damaged."""
        self._upkeep.quarantine(relpath)

    def check_age(self, older_than: timedelta) -> None:
        """Refuse an age below two hours.

        Raises:
            ValueError: It is below.
        """
        prune.check_age(older_than)

    def prune(self, in_use: InUse, older_than: timedelta, dry_run: bool) -> list[str]:
        """Delete every content that is neither in use nor young, and return the ids.

        Raises:
            StoreUnavailableError: The object store fails; nothing in use has been deleted.
        """
        old = prune.old_contents(self._all(), self.layout, in_use, older_than)
        if dry_run:
            return list(old)
        self._delete_left_overs()
        return self._pruning.delete(old, in_use.since, older_than)

    def _delete_left_overs(self) -> None:
        swept = self._pruning.delete_left_overs() + self.pending.sweep()
        if swept:
            messages.SWEPT.log(self._objects, root=self.root, swept=swept)

    def entries(self) -> Iterator[Entry]:
        """Iterate over all objects with their sizes and dates, hidden ones left out."""
        for found in self._all():
            id = self.layout.id_of(found.key)
            yield Entry(id, found.key, found.size, found.modified.timestamp())

    def stats(self) -> Stats:
        """Return the store in numbers; further paths of a content are copies here."""
        result = super().stats()
        result.left_overs = sum(1 for _ in self._objects.list(RENEWING))
        result.quarantined = sum(1 for _ in self._objects.list(QUARANTINE))
        return result

    def corrupted(self, extensions: bool) -> Generator[tuple[str, HashAddress]]:
        """Yield the URL of every object that lies in a wrong place, with the right address."""
        for found, address in self._upkeep.misplaced(self._all(), extensions):
            yield self.prefix + found.key, address

    def repair(self, extensions: bool) -> list[tuple[str, HashAddress]]:
        """Move every object to where its bytes belong, and return what `corrupted` yields."""
        return [
            (self.prefix + found.key, address)
            for found, address in tuple(self._upkeep.misplaced(self._all(), extensions))
            if self._upkeep.move(found, address)
        ]


def _pieces(file: ObjectFile) -> Generator[memoryview]:
    with file:
        yield from file.pieces()
