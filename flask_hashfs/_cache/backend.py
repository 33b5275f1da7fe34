"""CachedBackend: a backend of any kind, and what it served last on the disk of this machine."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import IO, Any, BinaryIO, cast

from .._storage import page_cache, posix
from .._storage.backend import Backend, Commit
from .._storage.cache_stats import CacheStats
from .._storage.findings import Finding
from .._storage.names import Extension, File, names_of
from .._storage.predecessor import HashAddress
from .._storage.records import Content, Damaged, Entry, InUse, Progress, Stats
from .._storage.writer import Writer
from ..exceptions import StoreUnavailableError
from . import threads
from .asking import Asking, Outage, Told
from .diagnosis import Examined, diagnose
from .eviction import Eviction
from .fills import Fills
from .keeping import Keeping
from .kept import Kept, KeptFiles, is_trusted, is_whole
from .missed import MissedFile
from .spool import Spool
from .telling import Telling
from .uses import Uses

_LONGEST_NAME = 200  # bytes, less what the names below `filling` end with
_MOST_KEEPING = 4  # threads that wait with what has been put for room
_BUFFER = 64 * 1024  # bytes of the reader of a file that is not kept


class CachedBackend(Backend):
    """A backend, and a folder of this machine before it; see `Backend` for the methods.

    Only what serves or opens a file, puts and deletes goes by way of the cache; everything else
    asks the store.

    Args:
        store: The backend.
        folder: Of the cache; made when it is needed, and again after it was deleted.
        size: Bytes that it may hold.
        file_size: Bytes above which a file is not kept.
        trust: Seconds for which a kept file is served without asking whether it is stored.
    """

    is_cached = True

    def __init__(
        self, store: Backend, folder: str, size: int, file_size: int, trust: float
    ) -> None:
        super().__init__(store.root, store.layout)
        self.prefix = store.prefix
        self.is_local = store.is_local
        self.pending = store.pending
        self._store = store
        self.folder = folder = os.path.abspath(folder)
        self._limit = size
        self._file_size = min(file_size, size)
        self._trust = trust
        self._telling = telling = Telling(folder, store.root)
        fmode = 0o600 if store.fmode is None else store.fmode
        self._kept = kept = KeptFiles(folder, store.layout, fmode, store.dmode, telling)
        self._uses = Uses(kept.path_of)
        self._eviction = Eviction(folder, kept, size)
        self._outage = Outage(os.path.join(folder, "unanswered"), telling)
        self._asking = Asking(store, kept, trust, self._outage, telling)
        self._fills = Fills(
            store, kept, self._keep, telling, self._damaged, self._filled, self._outage
        )
        self._reads_cached = False  # until a kept file on a local device has been opened
        self._numbers: dict[str, int] = dict.fromkeys(
            ("hits", "misses", "fills", "evicted", "damaged"), 0
        )
        self._turn = threading.Lock()
        self._waiting: list[threading.Thread] = []  # for room, with what has been put
        self._keeping: Keeping | None = None
        other = store.spool
        if other is not None:
            spool = Spool(os.path.join(folder, "spool"), store.dmode, other, telling)
            store.spool = spool
            self._keeping = Keeping(kept, spool, self._keep_put, telling)

    @property
    def past_cache(self) -> Backend:
        """The store itself."""
        return self._store

    @property
    def fmode(self) -> int | None:
        """Mode of files, where the store keeps files."""
        return self._store.fmode

    @fmode.setter
    def fmode(self, mode: int | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._store.fmode = mode

    @property
    def dmode(self) -> int:
        """Mode of folders, where the store has any."""
        return self._store.dmode

    @dmode.setter
    def dmode(self, mode: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._store.dmode = mode

    @property
    def fsync(self) -> bool:
        """Whether the store waits for a disk."""
        return self._store.fsync

    @fsync.setter
    def fsync(self, fsync: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._store.fsync = fsync

    # -- putting ---------------------------------------------------------------------------

    def new_writer(self, limit: int | None) -> Writer:
        """Return a writer that takes `limit` bytes."""
        return self._store.new_writer(limit)

    def takes(self, writer: Writer) -> bool:
        """Tell whether `commit` can publish what a writer of another store took."""
        return self._store.takes(writer)

    def commit(self, writer: Writer, suffix: str, *, sync: bool = True) -> HashAddress:
        """Publish what `writer` took, and keep it where it waited on this machine."""
        if self._keeping is None or writer.size > self._file_size:
            return self._store.commit(writer, suffix, sync=sync)
        relpath = self.layout.path_of(writer.id, suffix)
        with self._keeping.around(writer, relpath) as keep:
            address = self._store.commit(writer, suffix, sync=sync)
            keep()
            self._kept.forget_path(writer.id)
        return address

    def put_files(
        self,
        files: Iterable[tuple[Any, Extension]],
        begin: Callable[[], Writer],
        commit: Commit,
    ) -> Iterator[tuple[Any, HashAddress | Exception]]:
        """Store many files, in the way that is quickest in the store."""
        return self._store.put_files(files, begin, commit)

    # -- looking up ------------------------------------------------------------------------

    def find(self, file: File) -> HashAddress | None:
        """Return the address of a stored file, or None; the store is asked."""
        return self._store.find(file)

    def open(self, file: File, mode: str) -> IO[Any] | None:
        """Open a stored file to read, or return None."""
        kept = self._look_up(file)
        if kept is not None:
            return open(kept.path, mode, opener=lambda path, flags: kept.fd)
        content = self._missed(file, True)
        if content is None:
            return None
        if isinstance(content.file, MissedFile):
            try:
                content.file.begin()
            except FileNotFoundError:  # deleted since it was looked up
                content.close()
                return None
            except BaseException:
                content.close()
                raise
        reader = io.BufferedReader(cast(Any, content.file), _BUFFER)
        return reader if "b" in mode else io.TextIOWrapper(reader)

    def open_content(self, file: File, read: bool = True) -> Content | None:
        """Look up a stored file, open it if it is to be read, and measure it, to serve it.

        Args:
            file: What a look-up takes.
            read: Whether its bytes will be needed.
        """
        kept = self._look_up(file)
        return self._missed(file, read) if kept is None else self._content(kept, read)

    def open_cached(self, file: File) -> Content | None:
        """Open a kept file to serve it, if that takes no waiting at all.

        Args:
            file: Its id, or its exact path relative to the root, or its address.
        """
        name = names_of(file)[0]
        if not self._reads_cached:
            return None
        relpath = self.layout.path_of(name) if self.layout.is_id(name) else name
        id = self._id_of(relpath)
        if id is None:
            return None
        path = self._kept.path_of(relpath)
        opened = page_cache.open_cached(path)
        if opened is None:
            return None
        fd, state = opened
        raw = cast(BinaryIO, io.FileIO(fd))
        if not (is_whole(state) and is_trusted(state, self._trust)):
            raw.close()
            return None
        address, size = HashAddress(id, relpath, self.prefix + relpath), state.st_size
        if size > page_cache.MOST:
            is_local = page_cache.reads_cached(fd, state.st_dev)
            self._hit(relpath)
            return Content(address, raw, size, is_local, path)
        with raw:
            data = page_cache.read_cached(fd, 0, size)
        if data is None:
            return None
        self._hit(relpath)
        return Content(address, io.BytesIO(data), size, path=path)

    def signed_url(self, address: HashAddress, seconds: int) -> tuple[str, int] | None:
        """Return a URL by which anyone can read stored content past the app, if there are any."""
        return self._store.signed_url(address, seconds)

    def _content(self, kept: Kept, read: bool) -> Content:
        address, size = self.address_of(kept.relpath), kept.state.st_size
        if not read:
            os.close(kept.fd)
            return Content(address, None, size, path=kept.path)
        raw = cast(BinaryIO, io.FileIO(kept.fd))
        self._reads_cached = is_local = page_cache.reads_cached(kept.fd, kept.state.st_dev)
        return Content(address, raw, size, is_local, kept.path)

    def _look_up(self, file: File) -> Kept | None:
        """Open a kept file that is stored, as far as that is known or can be asked."""
        relpath = self._relpath_of(names_of(file)[0])
        kept = None if relpath is None else self._kept.open(relpath)
        if kept is None:
            return None
        if not is_trusted(kept.state, self._trust) and self._asks(kept) is Told.GONE:
            os.close(kept.fd)
            self._kept.drop(kept.relpath)
            return None
        self._hit(kept.relpath)
        return kept

    def _asks(self, kept: Kept) -> Told:
        try:
            return self._asking.about(kept)
        except BaseException:
            os.close(kept.fd)
            raise

    def _relpath_of(self, name: str) -> str | None:
        """Return where a name leads, if that is a content; the one an id led to the last time."""
        if self.layout.is_id(name):
            return self._kept.relpath_of(name)
        relpath = self._store.relpath_of(name)
        return None if relpath is None or self._id_of(relpath) is None else relpath

    def _id_of(self, relpath: str) -> str | None:
        """Return the id if a relative path is that of a content which can be kept."""
        id = self.layout.id_of(relpath)
        if id is None or "\0" in relpath:
            return None
        if relpath.isascii() and len(relpath) <= _LONGEST_NAME:
            return id
        try:
            fits = len(os.fsencode(os.path.basename(relpath))) <= _LONGEST_NAME
        except ValueError:  # a lone surrogate
            return None
        return id if fits else None

    def _missed(self, file: File, read: bool) -> Content | None:
        """Look up in the store what is not kept, or not known to be stored."""
        self._outage.check()
        try:
            content = self._store.open_content(file, read)
        except StoreUnavailableError as error:
            self._outage.begin(error)
            raise
        if content is None:
            return None
        relpath = content.address.relpath
        id = self._id_of(relpath)
        past_cache = content._replace(path=None)  # a server in front sends what is kept only
        if id is None:  # a stray file
            return past_cache
        try:
            kept = self._kept_after_all(id, file, content)
            if kept is not None:
                content.close()
                return self._content(kept, read)
            if not read:
                return past_cache
            return self._to_be_filled(id, content)
        except BaseException:
            content.close()
            raise

    def _kept_after_all(self, id: str, file: File, content: Content) -> Kept | None:
        """Return the kept file that the store has just named, if there is one."""
        relpath = content.address.relpath
        if self.layout.is_id(names_of(file)[0]):
            self._kept.remember(id, relpath)
        kept = self._kept.open(relpath)
        if kept is not None:
            self._kept.renew(kept)
            self._hit(relpath)
        return kept

    def _to_be_filled(self, id: str, content: Content) -> Content:
        self._add("misses")
        address, size = content.address, content.size
        failed = partial(self._damaged, address)
        if not size and self.layout.new_hash().hexdigest() != id:
            raise failed()
        fills = self._fills if size <= self._file_size else None
        file = MissedFile(content, fills, self.layout, failed)
        return Content(address, cast(BinaryIO, file), size)

    # -- keeping ---------------------------------------------------------------------------

    def _keep(self, fd: int, name: str, relpath: str, *, has_others: bool = False) -> None:
        """Keep a sealed file; make room for it, if need be."""
        size = os.fstat(fd).st_size
        for _ in range(3):
            if self._kept.publish(fd, name, relpath, self._limit, has_others=has_others):
                return
            self._uses.write()
            self._add("evicted", self._eviction.make_room(size))

    def _keep_put(self, fd: int, name: str, relpath: str) -> None:
        """Keep a sealed file at once, or, where there is no room, in a thread; close it then.

        Where too many wait for room already, it is not kept: its first reader fetches it.
        """
        goes_on = False
        try:
            if not self._kept.publish(fd, name, relpath, self._limit, has_others=True):
                goes_on = self._keeps_later(fd, name, relpath)
        finally:
            if not goes_on:
                self._end_put(fd, name)

    def _keeps_later(self, fd: int, name: str, relpath: str) -> bool:
        with self._turn:
            self._waiting = [thread for thread in self._waiting if thread.is_alive()]
            if len(self._waiting) >= _MOST_KEEPING:
                return False
            thread = threads.begin("hashfs-keeping", self._keep_later, fd, name, relpath)
            self._waiting.append(thread)
            return True

    def _keep_later(self, fd: int, name: str, relpath: str) -> None:
        try:
            self._keep(fd, name, relpath, has_others=True)
        except OSError as error:
            self._telling.failing(error)
        finally:
            self._end_put(fd, name)

    def _end_put(self, fd: int, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._kept.filling, name))
        posix.unlock_and_close(fd)

    def _damaged(self, address: HashAddress) -> StoreUnavailableError:
        """Tell of content whose bytes are others than were put, and return the error for it."""
        self._add("damaged")
        self._telling.damaged(address.abspath)
        if self.on_damaged is not None:
            self.on_damaged(address)
        return StoreUnavailableError("the store has sent other bytes than were put")

    def _filled(self) -> None:
        self._add("fills")

    def _hit(self, relpath: str) -> None:
        self._add("hits")
        self._uses.note(relpath)

    def _add(self, name: str, count: int = 1) -> None:
        with self._turn:
            self._numbers[name] += count

    # -- the cache itself ------------------------------------------------------------------

    def cache_stats(self) -> CacheStats:
        """Return the cache in numbers."""
        try:
            totals = self._kept.count.totals()
        except OSError as error:
            self._telling.failing(error)
            return CacheStats(bytes=0, files=0, **self._numbers)
        return CacheStats(bytes=totals.bytes, files=totals.files, **self._numbers)

    def clear_cache(self) -> int:
        """Drop all kept files, and return how many there were."""
        count = 0
        for relpath, _ in self._kept.walk():
            count += self._kept.unlink(relpath, counted=False)
        self._kept.clear_unfinished()
        self._kept.count.forget()
        return count

    def warm_cache(self, file: File) -> bool:
        """Keep a stored file, unless it is too large; tell whether it is stored.

        Raises:
            StoreUnavailableError: The store fails, or sends other bytes than were put.
        """
        content = self.open_content(file)
        if content is None:
            return False
        with cast(BinaryIO, content.file) as opened:
            if isinstance(opened, MissedFile) and content.size <= self._file_size:
                opened.wait_kept()
        return True

    # -- deleting --------------------------------------------------------------------------

    def delete(self, file: File) -> None:
        """Delete a stored file, and drop it here; a missing one is not an error."""
        name = names_of(file)[0]
        self._store.delete(file)
        if self.layout.is_id(name):
            self._kept.drop_id(name)
            return
        relpath = self._relpath_of(name)
        if relpath is not None:
            self._kept.drop(relpath)

    # -- names -----------------------------------------------------------------------------

    def relpath_of(self, name: str) -> str | None:
        """Return the relative path that a name stands for, or None where nothing can lie."""
        return self._store.relpath_of(name)

    def haspath(self, path: str) -> bool:
        """Tell whether a path lies inside the root of the store."""
        return self._store.haspath(path)

    def relpath(self, path: str) -> str:
        """Return the part of a path inside the root of the store that is relative to it."""
        return self._store.relpath(path)

    def makepath(self, path: str) -> None:
        """Create a folder and its missing parents, where the store has folders."""
        self._store.makepath(path)

    def remove_empty(self, path: str) -> None:
        """Remove a folder and its parents, as far up as they are empty, where there are any."""
        self._store.remove_empty(path)

    # -- listing ---------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Iterate over all files of the store."""
        return self._store.entries()

    def folders(self) -> Generator[str]:
        """Iterate over the paths of all folders that hold files."""
        return self._store.folders()

    def stats(self) -> Stats:
        """Return the store in numbers."""
        return self._store.stats()

    # -- keeping in order ------------------------------------------------------------------

    def diagnose(self) -> Iterator[Finding]:
        """Yield what works of the store and of its cache, and what does not."""
        yield from self._store.diagnose()
        has_count = os.path.lexists(os.path.join(self.folder, "count"))
        held = self.cache_stats().bytes if has_count else 0
        root = self.root if os.path.isabs(self.root) else None
        yield from diagnose(Examined(self.folder, self._limit, held, self.dmode, root))

    def probe(self) -> None:
        """Return if the store works; see whether any file is kept that would be served without it.

        Raises:
            ProbeError: It does not.
        """
        self.serves_alone = self._kept.is_any()
        self._store.probe()

    def corrupted(self, extensions: bool) -> Generator[tuple[str, HashAddress]]:
        """Yield the path of every file that lies in a wrong place, with the right address."""
        return self._store.corrupted(extensions)

    def repair(self, extensions: bool) -> list[tuple[str, HashAddress]]:
        """Move every file to where its bytes belong, and return what `corrupted` yields."""
        return self._store.repair(extensions)

    def verify(self, quarantine: bool, force: bool = False) -> Generator[Progress | Damaged]:
        """Hash every content of the store again."""
        return self._store.verify(quarantine, force)

    def quarantine(self, relpath: str) -> None:
        """Move a file to where `verify` moves what is damaged, and drop it here."""
        self._store.quarantine(relpath)
        self._kept.drop(relpath)

    def in_use(self) -> InUse:
        """Return an empty collection of what is in use, to be filled and given to `prune`."""
        return self._store.in_use()

    def check_age(self, older_than: timedelta) -> None:
        """Refuse an age that `prune` cannot go by."""
        self._store.check_age(older_than)

    def prune(self, in_use: InUse, older_than: timedelta, dry_run: bool) -> list[str]:
        """Delete every content that is neither in use nor young, here too; return the ids."""
        ids = self._store.prune(in_use, older_than, dry_run)
        for id in [] if dry_run else ids:
            self._kept.drop_id(id)
        return ids
