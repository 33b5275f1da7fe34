"""Unfinished uploads in a folder: `.hashfs/uploads/<id>/` with `data`, `state` and `lock`.

Each has an entry in the list of them, too (`_storage/unfinished.py`).

``data``
    The bytes, mode 0600; its size is the offset, and its date that of the last byte.
``state``
    A `Record` as JSON, replaced atomically. Once the upload has ended it is the only file left.
``lock``
    The epoch, drawn anew by each request that takes the upload, and how many bytes are known to
    be on the disk. Its ``flock`` is held for one piece, or one change of the state, at a time, so
    no request ever waits for another one's client. An epoch that has changed makes a request
    stale, and its bytes are not written. Whoever deletes an upload draws a new one before.

The second lock, that of the end, is the ``flock`` of ``data``. An end publishes a link to ``data``,
and lets go of it only when ``state`` tells how it ended. From the link to that moment nothing may
write to the file or cut it, and nothing does: it has its full length, and no mark.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol

from .._storage import posix
from .._storage.descriptors import with_room
from .._storage.full import lacks_descriptor
from .._storage.layout import Layout
from .._storage.pending import (
    BusyUploadError,
    ExpiredUploadError,
    Hashing,
    Listed,
    NoRoomError,
    Record,
    Room,
    StaleUploadError,
    Taken,
    UnknownUploadError,
    UploadLimits,
    is_id,
)
from .._storage.spool import LentFile, TemporaryFolder
from .._storage.unfinished import CountedUploads, Entry
from .._storage.writer import Bytes, Writer

FOLDER = os.path.join(posix.HIDDEN, "uploads")
"""Where the uploads of a store lie, below its root."""

LIST = os.path.join(posix.HIDDEN, "unfinished")
"""Where the entries of its unfinished uploads lie."""

_TORN = 3600.0  # seconds after which a folder without a state, or an entry, is a left-over
_RECOUNT = 0.5  # seconds that a count of all bytes is trusted
_EPOCH = 32  # hex digits
_SYNCED = 20  # decimal digits

_taken: weakref.WeakValueDictionary[str, LocalTaken] = weakref.WeakValueDictionary()


class Home(Protocol):
    """What uploads have to know of their store."""

    root: str
    layout: Layout
    dmode: int
    fsync: bool


class LocalUploads(CountedUploads):
    """The unfinished uploads of a store in a folder.

    Args:
        home: The store.
        temporary: Where it makes files.
    """

    def __init__(self, home: Home, temporary: TemporaryFolder) -> None:
        self.limits = UploadLimits()
        self.home = home
        self.temporary = temporary
        self._swept: float | None = None
        self._room = Room(self.bytes_held, _RECOUNT)

    @property
    def _folder(self) -> str:
        return os.path.join(self.home.root, FOLDER)

    def path(self, id: str, name: str = "") -> str:
        """Return where a file of an upload lies, or its folder."""
        return os.path.join(self._folder, id, name) if name else os.path.join(self._folder, id)

    # -- making and finding --------------------------------------------------------------------

    def create(self, id: str, record: Record) -> LocalTaken:
        """Make an empty upload, which is on the disk when this returns, and take it."""
        if self._swept is None or time.monotonic() - self._swept >= self.limits.sweep_every:
            self.sweep()
        entry = Entry.of(id, record)
        is_near = self._check_count(entry)
        try:
            self._list(entry)
            self._make(id, record)
            if is_near:
                self._check_count_again(entry)
            return self.take(id)
        except BaseException:
            self.remove(id, entry)
            raise

    def _make(self, id: str, record: Record) -> None:
        for _ in range(posix.ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):  # taken away, empty as it was
                return self._make_files(id, record)
        raise FileNotFoundError(errno.ENOENT, "This folder does not stay", self._folder)

    def _make_files(self, id: str, record: Record) -> None:
        posix.make_folders(self.path(id), self.home.dmode)
        try:
            _make_file(self.path(id, "data"), b"")
            _make_file(self.path(id, "lock"), _lock_content("", 0))
            posix.replace_file(self.path(id, "state"), record.dump(), sync=self.home.fsync)
            self._sync_folders()
        except BaseException:
            self._remove_files(id)
            raise

    def _sync_folders(self) -> None:
        if self.home.fsync:
            posix.sync_folders(self._folder, self.home.root)
            if self.temporary.is_new:
                posix.sync_above(self.home.root)

    # -- the list of them ----------------------------------------------------------------------

    @property
    def _list_folder(self) -> str:
        return os.path.join(self.home.root, LIST)

    def _list(self, entry: Entry) -> None:
        """Put an upload on the list of the unfinished ones."""
        path = os.path.join(self._list_folder, entry.name)
        for _ in range(posix.ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):  # taken away, empty as it was
                return _make_file(path, b"", os.O_TRUNC)
            posix.make_folders(self._list_folder, self.home.dmode)
        raise FileNotFoundError(errno.ENOENT, "This folder does not stay", self._list_folder)

    def unlist(self, entry: Entry) -> None:
        """Take an upload off the list, if it is there; an entry too many does no harm."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._list_folder, entry.name))
            posix.remove_empty_folders(self._list_folder, self.home.root)

    def _names(self) -> list[str]:
        return _names_in(self._list_folder)

    def _counted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield those that hold bytes and may get more: not what has ended, or is a whole part."""
        oldest = time.time() - self.limits.expire
        for entry in entries:
            state = posix.lstat(self.path(entry.id, "data"))
            if state is None or state.st_mtime <= oldest:
                continue
            if not (entry.is_partial and self._has_all_bytes(entry.id, state)):
                yield entry

    def _has_all_bytes(self, id: str, state: os.stat_result) -> bool:
        """Tell whether all bytes of an upload are there."""
        with contextlib.suppress(UnknownUploadError):
            record = self.load(id)
            return record.length == _offset(state, record)
        return True

    def _ids(self) -> list[str]:
        """Return the ids of all uploads, and of those of which only a record is left."""
        return [name for name in _names_in(self._folder) if is_id(name)]

    def load(self, id: str) -> Record:
        """Return what is kept of an upload.

        Raises:
            UnknownUploadError: There is none.
        """
        if not is_id(id):
            raise UnknownUploadError
        try:
            return Record.load(posix.read_file(self.path(id, "state")))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            raise UnknownUploadError from None

    def find(self, id: str) -> Listed:
        """Look at an upload, and leave it to whoever owns it."""
        record, state = self._look(id)
        expires = state.st_mtime + self.limits.expire
        if expires <= time.time():
            raise ExpiredUploadError
        if record.final is not None:
            return Listed(id, record, record.length or 0, expires)
        return Listed(id, record, _offset(state, record), expires)

    def _look(self, id: str) -> tuple[Record, os.stat_result]:
        """Return what is kept of an upload, and the state of its file, of the same moment."""
        record = self.load(id)
        while True:
            state = posix.lstat(self.path(id, "state" if record.final is not None else "data"))
            seen, record = record, self.load(id)
            if (record.final, record.mark) == (seen.final, seen.mark):
                if state is None:
                    raise UnknownUploadError  # it is being deleted
                return record, state

    def take(self, id: str) -> LocalTaken:
        """Take an upload over."""
        if is_id(id):
            with contextlib.suppress(_OverError):
                return LocalTaken.open(self, id)
        return LocalTaken(self, self.find(id))

    def listed(self) -> Iterator[Listed]:
        """Iterate over all uploads and records that have not expired."""
        for id in sorted(self._ids()):
            with contextlib.suppress(UnknownUploadError, ExpiredUploadError):
                yield self.find(id)

    # -- limits --------------------------------------------------------------------------------

    def room(self) -> int | None:
        """Return how many bytes uploads may still take, or None."""
        return self._room.left(self.limits.most_bytes)

    def recount(self) -> None:
        """Look at what there is when a request begins, if there is a limit."""
        if self.limits.most_bytes is not None:
            if self._swept is None:  # an upload of an earlier version may not be on the list
                self.sweep()
            self._room.count()

    def took(self, size: int) -> None:
        """Note that so many bytes have been written."""
        self._room.used += size

    def bytes_held(self) -> int:
        """Return the bytes that uploads hold."""
        states = (posix.lstat(self.path(entry.id, "data")) for entry in self._entries())
        return sum(state.st_size for state in states if state is not None)

    # -- cleaning up ---------------------------------------------------------------------------

    def sweep(self) -> int:
        """Delete what has expired, and return how many uploads that were."""
        self._swept = time.monotonic()
        entries = {entry.id: entry for entry in self._entries()}
        swept = sum(self._sweep(id, entries.pop(id, None)) for id in self._ids())
        for entry in entries.values():  # of uploads that are gone, or just being made
            state = posix.lstat(os.path.join(self._list_folder, entry.name))
            if state is not None and state.st_mtime < time.time() - _TORN:
                self.unlist(entry)
        return swept

    def _sweep(self, id: str, entry: Entry | None) -> bool:
        if posix.lstat(self.path(id, "data")) is None:
            state = posix.lstat(self.path(id, "state"))
            if state is not None:  # it has ended
                if entry is not None:  # and who ended it was killed
                    self.unlist(entry)
                if state.st_mtime + self.limits.expire > time.time():
                    return False
        elif entry is None:
            entry = self._list_again(id)
        try:
            self.find(id)
        except ExpiredUploadError:
            return self._delete_expired(id, entry)
        except UnknownUploadError:
            state = posix.lstat(self.path(id))  # without a state: a creation that was killed
            if state is not None and state.st_mtime < time.time() - _TORN:
                self.remove(id, entry)
        return False

    def _list_again(self, id: str) -> Entry | None:
        """Put an upload on the list that is not there: an earlier version had none."""
        state = posix.lstat(self.path(id))
        if state is None or (hasattr(os, "geteuid") and state.st_uid != os.geteuid()):
            return None  # the app could not take it off: a prune may run as another user
        try:
            entry = Entry.of(id, self.load(id))
        except UnknownUploadError:
            return None
        self._list(entry)
        if posix.lstat(self.path(id, "data")) is None:  # it has ended meanwhile
            self.unlist(entry)
        return entry

    def _delete_expired(self, id: str, entry: Entry | None) -> bool:
        try:
            fd = with_room(os.open, self.path(id, "lock"), os.O_RDWR | posix.BINARY)
        except (FileNotFoundError, NotADirectoryError):  # only a record
            self.remove(id, entry)
            return True
        try:
            with posix.locked(fd):
                return self._remove_expired(id, entry, fd)
        finally:
            os.close(fd)

    def _remove_expired(self, id: str, entry: Entry | None, lock: int) -> bool:
        """Remove an upload that nobody has gone on with; its lock must be held."""
        try:
            self.find(id)
        except UnknownUploadError:
            return False
        except ExpiredUploadError:
            with contextlib.suppress(OSError):  # a request that has it still goes stale
                posix.write_all(lock, _lock_content(_new_epoch(), 0), 0)
            self.remove(id, entry)
            return True
        return False

    def remove(self, id: str, entry: Entry | None) -> None:
        """Remove all of an upload, the state first: without it there is no upload.

        Args:
            id: The upload's.
            entry: Its entry in the list, if it may have one.
        """
        self._remove_files(id)
        if entry is not None:
            self.unlist(entry)

    def _remove_files(self, id: str) -> None:
        folder = self.path(id)
        try:
            names = sorted(with_room(os.listdir, folder), key=lambda name: name != "state")
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except OSError as error:
            if not lacks_descriptor(error):
                raise
            names = ["state", "data", "lock"]  # a list of them would need a descriptor
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
        posix.remove_empty_folders(folder, self.home.root)


class _OverError(Exception):
    """The upload has ended, or been deleted, while it was being opened."""


class LocalTaken(Taken):
    """An upload in a folder that a request has taken over."""

    def __init__(
        self, uploads: LocalUploads, found: Listed, lock: int = -1, data: int = -1
    ) -> None:
        self.id = found.id
        self.record = found.record
        self.offset = found.offset
        self.expires = found.expires
        self.on_stale = None
        self._uploads = uploads
        self._lock = lock
        self._data = data
        self._epoch = _new_epoch()
        self.is_stale = False
        self._ends = False
        self._begun = False
        self._key = uploads.path(found.id)
        key = (uploads.home.root, found.id)
        self._hash = Hashing(key, uploads.home.layout.algorithm, self.read)

    @classmethod
    def open(cls, uploads: LocalUploads, id: str) -> LocalTaken:
        """Open an unfinished upload and draw a new epoch."""
        try:
            lock = with_room(os.open, uploads.path(id, "lock"), os.O_RDWR | posix.BINARY)
        except (FileNotFoundError, NotADirectoryError):
            raise _OverError from None
        taken = cls(uploads, Listed(id, Record(), 0, 0.0), lock)
        before = _taken.get(taken._key)  # afterwards it could be a newer request
        try:
            taken._open()
        except BaseException:
            taken.close()
            raise
        _taken[taken._key] = taken
        if before is not None:
            before._give_up()
        return taken

    def _open(self) -> None:
        with posix.locked(self._lock):
            try:
                path = self._uploads.path(self.id, "data")
                self._data = with_room(os.open, path, os.O_RDWR | posix.BINARY)
                self.record = self._uploads.load(self.id)
            except (FileNotFoundError, UnknownUploadError):
                raise _OverError from None
            if self.record.final is not None:
                raise _OverError
            state = os.fstat(self._data)
            self.offset, self.expires = state.st_size, state.st_mtime + self._uploads.limits.expire
            if self.expires <= time.time():
                raise ExpiredUploadError
            if self.record.mark is not None:
                self.offset = _offset(state, self.record)
                os.ftruncate(self._data, self.offset)
                self._replace(mark=None)
            _, synced = self._read_lock()
            self._write_lock(min(synced, self.offset))
        self._uploads.recount()

    def _give_up(self) -> None:
        self.is_stale = True
        on_stale = self.on_stale  # which the request it belongs to may take away at any moment
        if on_stale is not None:
            on_stale()

    @property
    def _entry(self) -> Entry:
        return Entry.of(self.id, self.record)

    # -- the lock ------------------------------------------------------------------------------

    def _read_lock(self) -> tuple[str, int]:
        content = posix.read_at(self._lock, _EPOCH + _SYNCED, 0).decode("ascii", "replace")
        digits = content[_EPOCH:]
        return content[:_EPOCH], int(digits) if digits.isdigit() else 0

    def _write_lock(self, synced: int) -> None:
        posix.write_all(self._lock, _lock_content(self._epoch, synced), 0)

    @contextlib.contextmanager
    def _owned(self) -> Iterator[None]:
        """Hold the lock, if no other request has taken the upload over."""
        if self.is_stale:
            raise StaleUploadError
        with posix.locked(self._lock):
            if self._read_lock()[0] != self._epoch:
                self._check_there()
                raise StaleUploadError
            if os.fstat(self._data).st_size != self.offset:
                raise StaleUploadError
            yield

    def _check_there(self) -> None:
        if self._lock < 0 or os.fstat(self._lock).st_nlink == 0:
            self._uploads.load(self.id)  # deleted, or
            raise StaleUploadError  # brought to its end by another request

    def _replace(self, **changes: Any) -> None:
        """Change the record, on the disk too; the lock must be held."""
        record = replace(self.record, **changes)
        path = self._uploads.path(self.id, "state")
        posix.replace_file(path, record.dump(), sync=self._uploads.home.fsync)
        self.record = record

    # -- receiving -----------------------------------------------------------------------------

    def begin(
        self, length: int | None, declared: bool, *, marked: bool, brings: int | None
    ) -> None:
        """Note what a request says before its content comes."""
        mark = self.offset if marked else None
        changes = {"length": length, "declared": declared, "mark": mark}
        if any(getattr(self.record, name) != value for name, value in changes.items()):
            with self._owned():
                self._replace(**changes)
        self._hash.begin(self.offset, brings, marked=marked)
        self._begun = True

    def write(self, data: Bytes) -> None:
        """Take the next bytes."""
        with memoryview(data) as view:
            room = self._uploads.room()
            size = len(view) if room is None else min(len(view), room)
            written = 0
            try:
                with self._owned():
                    while written < size:
                        position = self.offset + written
                        written += posix.write_at(self._data, view[written:size], position)
            finally:
                self.offset += written
                self._uploads.took(written)
                self._hash.update(view[:written])
            if size < len(view):
                raise NoRoomError

    def read(self, size: int, position: int) -> bytes:
        """Return up to `size` bytes from byte `position` on."""
        return posix.read_at(self._data, size, position)

    def keep(self) -> None:
        """Let the content since the mark count."""
        if self.record.mark is not None:
            if self._uploads.home.fsync:
                posix.sync_file(self._data)  # or a power cut could leave less, and no mark
            with self._owned():
                self._replace(mark=None)
        self._hash.keep()

    def cut(self) -> None:
        """Cut the upload back to its mark, if it has one and has not been taken over."""
        if self.record.mark is None:
            return
        self._hash.cut()
        with contextlib.suppress(StaleUploadError, UnknownUploadError), self._owned():
            os.ftruncate(self._data, self.record.mark)
            self.offset = self.record.mark
            self._replace(mark=None)

    def sync(self) -> int:
        """Wait until all bytes are on the disk, and return how many there are now."""
        if self._data < 0:
            return self.offset
        size = self._counted()
        if self._uploads.home.fsync and size > self._read_lock()[1]:
            posix.sync_file(self._data)
            with posix.locked(self._lock):
                epoch, synced = self._read_lock()
                content = _lock_content(epoch, max(size, synced))
                posix.write_all(self._lock, content, 0)
        return size

    def _counted(self) -> int:
        """Return how many bytes count now; those that a newer request's mark covers do not."""
        if self._read_lock()[0] == self._epoch:  # nobody else has written since
            if self.record.final is None:  # else this request has removed the files itself
                self._check_there()
            return self.offset
        with posix.locked(self._lock):
            record = self._uploads.load(self.id)
            if record.final is not None:
                return record.length or 0
            return _offset(os.fstat(self._data), record)

    # -- ending --------------------------------------------------------------------------------

    def end(self, *, wait: bool = True) -> Writer | None:
        """Finish the content; nobody else can do so, or delete the upload, until `close`."""
        self._take_end(wait)
        with posix.locked(self._lock):
            self.record = self._uploads.load(self.id)
            if self.record.final is not None:
                return None
            size = os.fstat(self._data).st_size
            if size != self.record.length or self.record.mark is not None:
                raise StaleUploadError
        self.offset, self._begun = size, True
        state = self._hash.end(size)
        if os.utime in os.supports_fd:
            os.utime(self._data)  # content ages from its put on
        path, uploads = self._uploads.path(self.id, "data"), self._uploads
        file = LentFile(with_room(os.dup, self._data), path, uploads.temporary)
        begun = (file, size, state)
        return Writer(
            uploads.home.layout.algorithm, uploads.temporary, uploads.home.dmode, begun=begun
        )

    def _take_end(self, wait: bool) -> None:
        if self._data < 0 or self._ends:
            return
        if not posix.lock(self._data, wait):
            raise BusyUploadError
        self._ends = True

    def finish(self, final: dict[str, Any]) -> None:
        """Record how the upload ended, and let go of its bytes."""
        with posix.locked(self._lock):
            self._check_there()
            self._replace(final=final, mark=None)
            self.expires = time.time() + self._uploads.limits.expire
            for name in ("data", "lock"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._uploads.path(self.id, name))
            self._uploads.unlist(self._entry)
        self._hash.forget()

    def delete(self, *, wait: bool = True) -> None:
        """Delete the upload, after an end that another request is bringing about."""
        self._take_end(wait)
        with posix.locked(self._lock) if self._lock >= 0 else contextlib.nullcontext():
            self._uploads.remove(self.id, self._entry)
        self._hash.forget()

    def close(self) -> None:
        """Let go of the upload, which stays; it may be called again."""
        self.is_closed = True
        if _taken.get(self._key) is self:
            _taken.pop(self._key, None)
        lock, self._lock = self._lock, -1
        data, self._data = self._data, -1
        try:
            if self._begun:
                self._begun = False
                self._hash.remember()
            if self._ends and data >= 0:
                posix.unlock(data)  # closing lets go of it only where the system has such locks
        finally:
            for fd in (data, lock):
                if fd >= 0:
                    os.close(fd)


def _names_in(folder: str) -> list[str]:
    try:
        return with_room(os.listdir, folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _make_file(path: str, content: bytes, flags: int = os.O_EXCL) -> None:
    fd = with_room(os.open, path, os.O_WRONLY | os.O_CREAT | flags | posix.BINARY, 0o600)
    try:
        posix.write_all(fd, content)
    finally:
        os.close(fd)


def _offset(data: os.stat_result, record: Record) -> int:
    """Return how many bytes of an unfinished upload count: those that a mark covers do not."""
    size = data.st_size
    return size if record.mark is None else min(size, record.mark)  # a power cut may leave less


def _new_epoch() -> str:
    return secrets.token_hex(_EPOCH // 2)


def _lock_content(epoch: str, synced: int) -> bytes:
    return f"{epoch:0<{_EPOCH}}{synced:0{_SYNCED}}".encode("ascii")
