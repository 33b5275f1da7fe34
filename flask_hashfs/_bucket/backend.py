"""BucketBackend: content in an object store such as S3."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import io
import logging
import os
import posixpath
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from typing import IO, Any, BinaryIO, NamedTuple, TypeVar, cast

from hashfs import HashAddress

from .._storage import posix, sources
from .._storage.backend import Backend, Commit
from .._storage.first_look import FirstLook
from .._storage.layout import Layout
from .._storage.names import File, names_of
from .._storage.parallel import in_threads
from .._storage.records import Content, Damaged, Entry, InUse, Progress, Stats
from .._storage.writer import Writer
from ..exceptions import NotStoredError, StoreUnavailableError
from .client import CHUNK, SMALL, ExistsError, Found, Objects
from .reader import ObjectFile

T = TypeVar("T")

logger = logging.getLogger("flask_hashfs")

RENEWED_AFTER = timedelta(hours=1)
"""Age from which a put of stored content makes it young again."""

YOUNGEST_PRUNED = timedelta(hours=2)
"""What ``older_than`` must be at least: twice that, as clocks differ and puts take time."""

_HIDDEN = posix.HIDDEN + "/"
_RENEWING = _HIDDEN + "renew/"
_QUARANTINE = _HIDDEN + "quarantine/"
_PRUNING = _HIDDEN + "pruning"  # the ids that a prune is about to delete
_PRUNED_AT_ONCE = 100
_PRUNING_LASTS = 120.0  # seconds; no request of one batch is under way any longer
_DELETES_WITHIN = 20.0  # seconds from announcing a deletion to asking for it
_LEFT_OVER_AFTER = timedelta(hours=1)
_COPIED_AT_MOST = 5 * 1024**3  # bytes, by S3 in one request
_LONGEST_KEY = 1024  # bytes, in S3
_NAMES_WITHIN = 60.0  # seconds to list the names of one content
_LAST = "\U0010ffff"  # no character comes after it
_ATTEMPTS = 20
_SIGNED = 4096  # URLs kept
_BUFFER = 64 * 1024  # bytes of each reader; much more would go back to the system every time


class _Spool(posix.TemporaryFolder):
    """Content too large for memory waits in unnamed files of the system's temporary folder."""

    def create(self, dmode: int) -> posix.TemporaryFile:
        with tempfile.TemporaryFile(buffering=0) as file:
            return posix.TemporaryFile(os.dup(file.fileno()), None, self)


class _Placing(enum.Enum):
    """What a put came upon."""

    NEW = enum.auto()
    YOUNG = enum.auto()  # no prune deletes it for another hour
    RENEWED = enum.auto()  # one may be about to


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
        self._temporary = _Spool(tempfile.gettempdir())
        self._objects = Objects(url, options)
        self._describe = describe
        self._signed: dict[_Slot, str] = {}
        self._lists_first = True  # whether the last put was of new content, so the next may be

    # -- putting ---------------------------------------------------------------------------

    def new_writer(self, limit: int | None) -> Writer:
        """Return a writer that takes `limit` bytes."""
        return Writer(self.layout.algorithm, self._temporary, self.dmode, limit, memory_limit=SMALL)

    def put_files(
        self,
        files: Iterable[tuple[Any, str | None]],
        begin: Callable[[], Writer],
        commit: Commit,
    ) -> Iterator[tuple[Any, HashAddress | Exception]]:
        """Store many files, several at once."""

        def put(file: tuple[Any, str | None]) -> HashAddress | Exception:
            source, extension = file
            try:
                with begin() as writer:
                    sources.copy(source, writer)
                    writer.finish()
                    return commit(writer, extension)
            except Exception as error:
                return error

        for (source, _), result in in_threads(put, files):
            yield source, result

    def commit(self, writer: Writer, suffix: str, *, sync: bool = True) -> HashAddress:
        """Store what `writer` took, atomically; content that is there already is not sent.

        Raises:
            StoreUnavailableError: The object store fails.
        """
        id = writer.id
        key = self.layout.path_of(id, suffix)
        for _ in range(_ATTEMPTS):
            try:
                placing = self._place_object(writer, id, key)
            except (ExistsError, FileNotFoundError):  # another put or a delete was first
                self._lists_first = False
                time.sleep(0.01)
                continue
            self._lists_first = placing is _Placing.NEW
            if placing is not _Placing.RENEWED or self._stays(id, key):
                is_duplicate = placing is not _Placing.NEW
                return HashAddress(id, key, self.prefix + key, is_duplicate)
        raise StoreUnavailableError(f"{self.prefix}{key} does not stay as it is put")

    def _place_object(self, writer: Writer, id: str, key: str) -> _Placing:
        """Give the content its key, if it has none; return whether the content was there.

        Raises:
            ExistsError: Another put was first.
            FileNotFoundError: A delete was first.
        """
        # A listing tells all names, which new content must be asked for; the head of a duplicate
        # costs half of that. The one that the last put could have done with comes first.
        found, names = None, []
        if not self._lists_first:
            found = self._objects.head(key)
        if found is None:
            names = self._keys(id)
            if not names:
                self._send(writer, key, create=True)
                return _Placing.NEW
            found = next((name for name in names if name.key == key), None)
        if found is None:
            self._heal_objects(writer, names)
            self._add_name(writer, names[0], key)
        elif found.size != writer.size:
            self._heal_objects(writer, self._keys(id))
        elif _now() - found.modified > RENEWED_AFTER:
            self._renew_object(writer, key)
        else:
            return _Placing.YOUNG
        return _Placing.RENEWED

    def _send(self, writer: Writer, key: str, *, create: bool = False) -> None:
        attributes = self._describe(key)
        if writer.size <= SMALL:
            data: Any = writer.getvalue()
            if data is None:
                with writer.reader() as reader:
                    data = reader.read()
            self._objects.put(key, data, attributes, create=create)
            return
        self._objects.upload(key, writer, attributes)
        found = self._objects.head(key)
        if found is None or found.size != writer.size:
            raise FileNotFoundError(key)  # deleted meanwhile: once more

    def _heal_objects(self, writer: Writer, names: list[Found]) -> None:
        for found in names:
            if found.size != writer.size:
                logger.warning(
                    "%s%s had %d bytes instead of %d; it is replaced by the content put now",
                    self.prefix,
                    found.key,
                    found.size,
                    writer.size,
                )
                self._send(writer, found.key)

    def _add_name(self, writer: Writer, source: Found, key: str) -> None:
        """Store content under one more extension, by a copy inside the object store."""
        same = self._describe(source.key)["Content-Type"] == self._describe(key)["Content-Type"]
        if same and SMALL < writer.size <= _COPIED_AT_MOST:
            self._objects.copy(source.key, key)
        else:  # a copy would keep the type
            self._send(writer, key)

    def _renew_object(self, writer: Writer, key: str) -> None:
        """Make stored content as young as a new put.

        An object store has nothing like ``touch``, and S3 copies no object onto itself
        unless its type is lost. Small content is sent again; large content makes a round.
        """
        if writer.size <= SMALL or writer.size > _COPIED_AT_MOST:
            self._send(writer, key)
            return
        spare = f"{_RENEWING}{os.urandom(16).hex()}"
        try:
            self._objects.copy(key, spare)
            self._objects.copy(spare, key)
        finally:
            self._objects.delete([spare])

    def _stays(self, id: str, key: str) -> bool:
        """Wait for a prune that is about to delete this content, and tell whether it did."""
        return not self._wait_for_prune(id) or self._objects.head(key) is not None

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

    def open_content(self, file: File, read: bool = True) -> Content | None:
        """Look up a stored file and, if it is to be read, open it, to serve it.

        Args:
            file: What `get` takes.
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
        if key in (".", "..") or key.startswith("../") or (key + "/").startswith(_HIDDEN):
            return None
        try:
            return key if len(key.encode()) <= self._longest_key else None
        except UnicodeEncodeError:
            return None

    def _keys(self, id: str) -> list[Found]:
        """Return all names of a content, sorted: one for each extension."""
        start = self.layout.path_of(id)
        names: list[Found] = []
        after: str | None = start[:-1]
        until = time.monotonic() + _NAMES_WITHIN
        while after is not None:
            after = self._collect_names(start, after, until, names)
        return names

    def _collect_names(
        self, start: str, after: str, until: float, names: list[Found]
    ) -> str | None:
        """Add the names behind the key `after`, up to a folder; return the last key in that."""
        for found in self._objects.list(posixpath.dirname(start), after=after, until=until):
            if not found.key.startswith(start):
                return None
            name, slash, _ = found.key[len(start) :].partition("/")
            if slash:  # what lies in a folder is no name: not all of it is listed
                return f"{start}{name}/{_LAST}"
            if name[:1] in ("", "."):
                names.append(found)
        return None

    # -- deleting --------------------------------------------------------------------------

    def delete(self, file: File) -> None:
        """Delete a stored file; a missing one is no error.

        Args:
            file: An id deletes the content under all its names, anything else only the
                one name it stands for.

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
            self._wait_for_prune(id)  # whose delete must not come after a next put

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
        return (found for found in self._objects.list() if not found.key.startswith(_HIDDEN))

    # -- keeping in order ------------------------------------------------------------------

    def verify(self, quarantine: bool, force: bool = False) -> Generator[Progress | Damaged]:
        """Hash every object again, one after the other."""
        self._sweep()
        look: FirstLook[Found] = FirstLook(self.layout.algorithm, force or not quarantine)
        for found in self._all():
            id = self.layout.id_of(found.key)
            if id is None:
                continue
            try:
                is_damaged = self._hash_object(found) != id
            except FileNotFoundError:  # deleted meanwhile
                continue
            for damaged in look.damaged(found) if is_damaged else look.whole():
                yield from self._settle(damaged, quarantine)
            yield Progress(1)
        for damaged in look.rest():
            yield from self._settle(damaged, quarantine)

    def _settle(self, damaged: Found, quarantine: bool) -> Iterator[Damaged]:
        """Move a damaged object aside, if that is wished, and yield the address that it has."""
        if quarantine:
            try:
                self._move_object(damaged, self._place_in_quarantine(damaged.key))
            except FileNotFoundError:  # deleted meanwhile
                return
        yield Damaged(self.address_of(damaged.key))

    def check_age(self, older_than: timedelta) -> None:
        """Refuse an age below two hours.

        Raises:
            ValueError: It is below.
        """
        if older_than < YOUNGEST_PRUNED:
            raise ValueError(
                f"older_than is {older_than}, but must be two hours or more on an object store, "
                "where a put makes content young again only once it is an hour old"
            )

    def prune(self, in_use: InUse, older_than: timedelta, dry_run: bool) -> list[str]:
        """Delete every content that is neither in use nor young, and return the ids.

        Raises:
            StoreUnavailableError: The object store fails; nothing in use has been deleted.
        """
        old = self._old_contents(in_use, older_than)
        if dry_run:
            return list(old)
        self._sweep()
        ids, pruned = list(old), []
        for start in range(0, len(ids), _PRUNED_AT_ONCE):
            batch = {id: old[id] for id in ids[start : start + _PRUNED_AT_ONCE]}
            pruned += self._prune_batch(batch, in_use.since, older_than)
        return pruned

    def _old_contents(self, in_use: InUse, older_than: timedelta) -> dict[str, list[str]]:
        """Return the keys of each content that may be deleted, as far as a listing tells."""
        limit = _now() - older_than
        old: dict[str, list[str]] = {}
        young = set()
        for found in self._all():
            id = self.layout.id_of(found.key)
            if id is None or id in in_use:
                continue
            if found.modified > limit:
                young.add(id)
            old.setdefault(id, []).append(found.key)
        return {id: keys for id, keys in old.items() if id not in young}

    def _prune_batch(
        self, old: dict[str, list[str]], since: int, older_than: timedelta
    ) -> list[str]:
        """Delete what was old at `since`, announced so that a put of the same content waits.

        A put of old content renews it first and then looks for the announcement; here it is
        announced first and then looked at the age: one of the two sees the other.
        """
        with self._announced(old) as (started, now):
            limit = now - older_than - timedelta(microseconds=(time.time_ns() - since) // 1000)
            pruned = [id for id, keys in old.items() if self._all_older(keys, limit)]
            if time.monotonic() - started > _DELETES_WITHIN:
                raise StoreUnavailableError("the object store is too slow to prune it safely")
            self._objects.delete_once(key for id in pruned for key in old[id])
        return pruned

    def _all_older(self, keys: list[str], limit: datetime) -> bool:
        heads = [self._objects.head(key) for key in keys]
        return any(heads) and all(found is None or found.modified <= limit for found in heads)

    @contextlib.contextmanager
    def _announced(self, ids: Iterable[str]) -> Iterator[tuple[float, datetime]]:
        """Name the ids to be deleted; yield when that began, and the time over there."""
        text = "\n".join([os.urandom(16).hex(), *ids]).encode()
        while True:
            started = time.monotonic()
            try:
                self._objects.put(_PRUNING, text, {}, create=True)
                break
            except ExistsError:  # another prune is at it
                self._wait_for_prune()
        try:
            announcement = self._objects.head(_PRUNING)
            if announcement is None:
                raise StoreUnavailableError("another prune took this one for killed")
            yield started, announcement.modified
        except StoreUnavailableError:  # a request may be under way still: it stays announced
            raise
        except BaseException:
            self._objects.delete([_PRUNING])
            raise
        self._objects.delete([_PRUNING])

    def _wait_for_prune(self, id: str | None = None) -> bool:
        """Wait while a prune is about to delete the content `id`, or any; tell whether it was.

        The announcement of a prune that was killed is cleared once no request of it can be
        under way any more.
        """
        seen, since, waited = b"", 0.0, False
        while True:
            try:
                text = self._objects.read(_PRUNING)
            except FileNotFoundError:
                return waited
            if id is not None and id.encode() not in text.split():
                return waited
            if text != seen:
                seen, since = text, time.monotonic()
            if time.monotonic() - since > _PRUNING_LASTS or self._is_left_over(_PRUNING):
                self._objects.delete([_PRUNING])
            waited = True
            time.sleep(0.05)

    def _is_left_over(self, key: str) -> bool:
        found = self._objects.head(key)
        return found is not None and _now() - found.modified > _LEFT_OVER_AFTER

    def entries(self) -> Iterator[Entry]:
        """Iterate over all objects with their sizes and dates, hidden ones left out."""
        for found in self._all():
            id = self.layout.id_of(found.key)
            yield Entry(id, found.key, found.size, found.modified.timestamp())

    def stats(self) -> Stats:
        """Return the store in numbers."""
        result, ids = Stats(), set()
        for entry in self.entries():
            result.add(entry)  # further paths are copies here
            if entry.id is not None:
                ids.add(bytes.fromhex(entry.id))
        result.contents = len(ids)
        result.left_overs = sum(1 for _ in self._objects.list(_RENEWING.rstrip("/")))
        result.quarantined = sum(1 for _ in self._objects.list(_QUARANTINE.rstrip("/")))
        return result

    def _sweep(self) -> None:
        """Delete what processes left that were killed while they renewed or pruned something."""
        limit = _now() - _LEFT_OVER_AFTER
        found = self._objects.list(_RENEWING.rstrip("/"))
        self._objects.delete([each.key for each in found if each.modified < limit])
        if self._is_left_over(_PRUNING):
            self._objects.delete([_PRUNING])

    def corrupted(self, extensions: bool) -> Generator[tuple[str, HashAddress]]:
        """Yield the URL of every object that lies in a wrong place, with the right address."""
        for path in self.files():
            try:
                id = self._hash_file(path)
            except FileNotFoundError:  # deleted meanwhile
                continue
            key = self.layout.path_of(id)
            if extensions:
                key += self.layout.suffix_of(self.relpath(path), id)
            if self.prefix + key != path:
                yield path, HashAddress(id, key, self.prefix + key)

    def repair(self, extensions: bool) -> list[tuple[str, HashAddress]]:
        """Move every object to where its bytes belong, and return what `corrupted` yields."""
        return [
            (path, address)
            for path, address in tuple(self.corrupted(extensions))
            if self._move(path, address)
        ]

    def _move(self, path: str, address: HashAddress) -> bool:
        source, there = self._objects.head(self.relpath(path)), self._objects.head(address.relpath)
        if source is None:
            return False
        if there is None:
            self._move_object(source, address.relpath)
        elif self._hash_object(there) == address.id:
            self._objects.delete([source.key])
        else:
            logger.warning("%s belongs to %s, but that is taken", path, address.abspath)
            return False
        return True

    def _place_in_quarantine(self, key: str) -> str:
        """Return a key that nothing is kept under yet."""
        taken = {found.key for found in self._objects.list(_QUARANTINE + posixpath.dirname(key))}
        places = chain([_QUARANTINE + key], (f"{_QUARANTINE}{key}.{n}" for n in count(1)))
        return next(place for place in places if place not in taken)

    def _move_object(self, source: Found, target: str) -> None:
        if source.size <= _COPIED_AT_MOST:
            self._objects.copy(source.key, target)
        else:
            with self.new_writer(None) as writer, self._reader(source) as reader:
                while piece := reader.read(CHUNK):
                    writer.write(piece)
                writer.finish()
                self._send(writer, target)
        self._objects.delete([source.key])

    def _hash_file(self, path: str) -> str:
        found = self._objects.head(self.relpath(path))
        if found is None:
            raise NotStoredError(path)
        return self._hash_object(found)

    def _hash_object(self, found: Found) -> str:
        with self._reader(found) as reader:
            return hashlib.file_digest(reader, self.layout.new_hash).hexdigest()

    def _reader(self, found: Found) -> ObjectFile:
        file = ObjectFile(self._objects, found.key, found.size)
        file.expect([(0, found.size)])
        return file


def _now() -> datetime:
    return datetime.now(UTC)
