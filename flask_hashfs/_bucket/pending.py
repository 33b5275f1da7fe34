"""Unfinished uploads in a bucket: `.hashfs/uploads/<id>/` with `state`, `epoch` and the pieces.

Each has an entry in the list of them, too (`_storage/unfinished.py`). Nothing of an upload is kept
on this machine, so any other one may go on with it.

``state``
    A `Record` as JSON, replaced only by who knows the last one. Once the upload has ended it is
    the only object left.
``epoch``
    A random word, drawn anew by each request that takes the upload. It is looked at before a piece
    is sent, so that a request which is not the newest goes stale soon.
``<offset>``
    Up to 8 MiB of the upload from that byte on. Such an object is created once: if two requests
    are at the same offset, the bytes of the first one count, and the other one goes stale. The
    upload's offset is the end of the unbroken chain of these pieces.
``ending``
    The lease of the request that brings about the end, or deletes the upload.

No piece is changed or taken back before the end, so no bytes of two requests are ever mixed.
Therefore content whose digest is still to be checked waits on this side, and is sent when it was
found to be right; no upload here has a mark.
"""

from __future__ import annotations

import contextlib
import posixpath
import secrets
import tempfile
import time
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from .._storage import messages
from .._storage.descriptors import with_room
from .._storage.full import full_is_told
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
from .._storage.spool import no_folder_is_told
from .._storage.unfinished import CountedUploads, Entry
from .._storage.writer import Bytes, Writer
from ..exceptions import HashFSError, StoreUnavailableError
from . import prune
from .client import ONE_REQUEST_SIZE, ExistsError, Found, Objects
from .hidden import UNFINISHED, UPLOADS
from .lease import Lease

PIECE = ONE_REQUEST_SIZE
"""Bytes of the largest piece."""

_PATIENCE = 10.0  # seconds after which a slow client's bytes are sent as a smaller piece
_TORN = 3600.0  # seconds after which objects without a state, or an entry, are left-overs
_SKEW = 60.0  # seconds by which the clocks of two machines may differ
_RECOUNT = 5.0  # seconds that a count of all bytes is trusted
_PIECE_ATTEMPTS = 5  # of a piece that a conflicting request is in the way of
_WAIT = 0.05  # seconds between two looks at another request's end

_taken: weakref.WeakValueDictionary[tuple[str, str], BucketTaken] = weakref.WeakValueDictionary()


@dataclass(slots=True)
class _Objects:
    """The objects of one upload, as a listing shows them."""

    pieces: dict[int, int] = field(default_factory=dict)
    sizes: int = 0
    state: datetime | None = None
    epoch: datetime | None = None
    newest: datetime | None = None  # the last byte's, or the state's

    def add(self, found: Found) -> None:
        name = posixpath.basename(found.key)
        if name == "epoch":
            self.epoch = found.modified
            return
        if name == "ending":
            return
        if name == "state":
            self.state = found.modified
        elif name.isascii() and name.isdigit():
            self.pieces[int(name)] = found.size
            self.sizes += found.size
        self.newest = max(found.modified, self.newest or found.modified)

    def chain(self) -> list[tuple[int, int]]:
        """Return the pieces that follow each other from the first byte on, as starts and ends."""
        chain, offset = [], 0
        while size := self.pieces.get(offset):
            chain.append((offset, offset + size))
            offset += size
        return chain


class BucketUploads(CountedUploads):
    """The unfinished uploads of a store in a bucket.

    Args:
        objects: Of the bucket.
        layout: How a key follows from an id.
        root: URL of the store.
        go_on: Returns a writer of content that can be read already.
    """

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        root: str,
        go_on: Callable[..., Writer],
    ) -> None:
        self.limits = UploadLimits()
        self.objects = objects
        self.layout = layout
        self.root = root
        self.go_on = go_on
        self._swept: float | None = None
        self._room = Room(self.bytes_held, _RECOUNT)

    def key(self, id: str, name: str | int = "") -> str:
        """Return the key of an object of an upload, or of their folder."""
        return f"{UPLOADS}/{id}/{name}" if name != "" else f"{UPLOADS}/{id}"

    # -- making and finding --------------------------------------------------------------------

    def create(self, id: str, record: Record) -> BucketTaken:
        """Make an empty upload, which is in the bucket when this returns, and take it."""
        if self._swept is None or time.monotonic() - self._swept >= self.limits.sweep_every:
            self.sweep()
        entry = Entry.of(id, record)
        is_near = self._check_count(entry)
        try:
            self._list(entry)
            self.objects.put(self.key(id, "state"), record.dump(), {}, create=False)
            taken = self.take(id)
            if is_near:
                self._check_count_again(entry)
            return taken
        except BaseException:
            self.remove(id, entry)
            raise

    def _list(self, entry: Entry) -> None:
        """Put an upload on the list of the unfinished ones."""
        self.objects.put(_key_of(entry), b"", {}, create=False)

    def _names(self) -> list[str]:
        return [posixpath.basename(found.key) for found in self.objects.list(UNFINISHED)]

    def _counted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield those that hold bytes and may get more: not what has ended, or is a whole part."""
        oldest = prune.now().timestamp() - self.limits.expire
        uploads = dict(self._all())
        for entry in entries:
            found = uploads.get(entry.id)
            if found is None or found.state is None or found.epoch is None or not found.newest:
                continue
            if found.newest.timestamp() > oldest and not self._is_finished_part(entry, found):
                yield entry

    def _is_finished_part(self, entry: Entry, found: _Objects) -> bool:
        """Tell whether an upload is a part that waits to be concatenated."""
        if not entry.is_partial:
            return False
        try:
            return self.load(entry.id)[0].length == found.sizes
        except UnknownUploadError:
            return True

    def _all(self) -> Iterator[tuple[str, _Objects]]:
        uploads: dict[str, _Objects] = {}
        for found in self.objects.list(UPLOADS):
            id = posixpath.basename(posixpath.dirname(found.key))
            if is_id(id):
                uploads.setdefault(id, _Objects()).add(found)
        yield from uploads.items()

    def load(self, id: str) -> tuple[Record, str | None]:
        """Return what is kept of an upload, and the tag of that.

        Raises:
            UnknownUploadError: There is none.
        """
        if not is_id(id):
            raise UnknownUploadError
        try:
            data, tag = self.objects.read_tagged(self.key(id, "state"))
            return Record.load(data), tag
        except (FileNotFoundError, ValueError, TypeError):
            raise UnknownUploadError from None

    def look(self, id: str) -> _Objects:
        """Return what there is of an upload."""
        found = _Objects()
        for each in self.objects.list(self.key(id)):
            found.add(each)
        return found

    def find(self, id: str) -> Listed:
        """Look at an upload, and leave it to whoever owns it."""
        record, _ = self.load(id)
        return self.judge(id, record, self.look(id))

    def judge(self, id: str, record: Record, found: _Objects) -> Listed:
        """Return an upload as it is listed.

        Raises:
            UnknownUploadError: It has just been deleted.
            ExpiredUploadError: It is gone.
        """
        if found.newest is None or found.state is None:
            raise UnknownUploadError
        newest = found.state if record.final is not None else found.newest
        expires = newest.timestamp() + self.limits.expire
        if expires <= prune.now().timestamp():
            raise ExpiredUploadError
        chain = found.chain()
        offset = chain[-1][1] if chain else 0
        if record.final is not None:
            offset = record.length or 0
        return Listed(id, record, offset, expires)

    def take(self, id: str) -> BucketTaken:
        """Take an upload over."""
        record, _ = self.load(id)
        if record.final is None:
            return BucketTaken.open(self, id, record)
        return BucketTaken(self, self.judge(id, record, self.look(id)))

    def listed(self) -> Iterator[Listed]:
        """Iterate over all uploads and records that have not expired."""
        for id, found in sorted(self._all()):
            with contextlib.suppress(UnknownUploadError, ExpiredUploadError):
                yield self.judge(id, self.load(id)[0], found)

    # -- limits --------------------------------------------------------------------------------

    def room(self) -> int | None:
        """Return how many bytes uploads may still take, or None."""
        return self._room.left(self.limits.most_bytes)

    def recount(self) -> None:
        """Look at what there is when a request begins, if there is a limit."""
        if self.limits.most_bytes is not None:
            self._room.count()

    def took(self, size: int) -> None:
        """Note that so many bytes have been taken."""
        self._room.used += size

    def bytes_held(self) -> int:
        """Return the bytes that uploads hold."""
        return sum(found.sizes for _, found in self._all())

    # -- cleaning up ---------------------------------------------------------------------------

    def sweep(self) -> int:
        """Delete what has expired, and return how many uploads that were."""
        self._swept = time.monotonic()
        entries = {entry.id: entry for entry in self._entries()}
        swept = sum(self._sweep(id, found, entries.pop(id, None)) for id, found in self._all())
        torn = prune.now().timestamp() - _TORN
        for entry in entries.values():  # of uploads that are gone, or just being made
            found = self.objects.head(_key_of(entry))
            if found is not None and found.modified.timestamp() < torn:
                self.objects.delete([_key_of(entry)])
        return swept

    def _sweep(self, id: str, found: _Objects, entry: Entry | None) -> bool:
        now = prune.now().timestamp()
        newest = found.newest or found.epoch
        if found.state is None:  # left by what was killed, or came after a deletion
            if newest is None or newest.timestamp() < now - _TORN:
                self.remove(id, entry)
            return False
        if (entry is None) is not (found.epoch is None):
            entry = self._mend_list(id, entry)
        if newest is None or newest.timestamp() + self.limits.expire > now:
            return False
        try:
            self.find(id)  # it may have been gone on with
        except ExpiredUploadError:
            return self._delete_expired(id, entry, is_record=found.epoch is None)
        except UnknownUploadError:
            pass
        return False

    def _mend_list(self, id: str, entry: Entry | None) -> Entry | None:
        """Put an upload on the list, or take it off.

        An earlier version had no list, and a process may have been killed that ended an upload.
        """
        with contextlib.suppress(UnknownUploadError):
            record, _ = self.load(id)
            entry = entry or Entry.of(id, record)
            if record.final is None:
                self._list(entry)
                record, _ = self.load(id)  # it may have ended meanwhile, or been deleted
            if record.final is None:
                return entry
        if entry is not None:
            self.objects.delete([_key_of(entry)])
        return None

    def _delete_expired(self, id: str, entry: Entry | None, *, is_record: bool) -> bool:
        """Delete what has expired, unless a request that has long had it goes on with it now.

        That request goes stale before the last look. So its next piece is either seen by this
        look, or does not count: `BucketTaken._send` asks for the epoch once more then.
        """
        if not is_record:
            self.objects.put(self.key(id, "epoch"), _new_epoch(), {}, create=False)
        try:
            self.find(id)
        except ExpiredUploadError:
            self.remove(id, entry)
            return True
        except UnknownUploadError:
            self.remove_bytes(id, entry)
        return False

    def remove(self, id: str, entry: Entry | None) -> None:
        """Delete all objects of an upload, the state first: without it there is no upload.

        Args:
            id: The upload's.
            entry: Its entry in the list, if it may have one.
        """
        self.objects.delete([self.key(id, "state")])
        self.remove_bytes(id, entry)

    def remove_bytes(self, id: str, entry: Entry | None) -> None:
        """Delete all objects of an upload but its state."""
        state = self.key(id, "state")
        keys = [found.key for found in self.objects.list(self.key(id)) if found.key != state]
        if entry is not None:
            keys.append(_key_of(entry))
        self.objects.delete(keys)


class BucketTaken(Taken):
    """An upload in a bucket that a request has taken over."""

    def __init__(self, uploads: BucketUploads, found: Listed) -> None:
        self.id = found.id
        self.record = found.record
        self.offset = found.offset
        self.expires = found.expires
        self.on_stale = None
        self.is_stale = False
        self._uploads = uploads
        self._tag: str | None = None
        self._epoch = b""
        self._lease: Lease | None = None
        self._chain: list[tuple[int, int]] = []
        self._waiting = bytearray()  # bytes on their way
        self._since = 0.0  # when the first of them came
        self._unjudged: Any = None  # content whose digest is to be checked
        self._begun = False
        self._last: tuple[int, bytes] = (0, b"")
        self._key = uploads.root, found.id
        self._hash = Hashing(self._key, uploads.layout.algorithm, self.read)

    @classmethod
    def open(cls, uploads: BucketUploads, id: str, record: Record) -> BucketTaken:
        """Take an unfinished upload, and draw a new epoch."""
        taken = cls(uploads, Listed(id, record, 0, 0.0))
        before = _taken.get(taken._key)
        taken._open()
        _taken[taken._key] = taken
        if before is not None:
            before._give_up()
        return taken

    def _open(self) -> None:
        uploads, key = self._uploads, self._uploads.key(self.id, "epoch")
        self._epoch = _new_epoch()
        since = time.monotonic()
        uploads.objects.put(key, self._epoch, {}, create=False)
        try:
            found = self._look()
        except UnknownUploadError:
            uploads.remove_bytes(self.id, self._entry)
            raise
        if self.record.final is not None:  # it has ended meanwhile
            uploads.objects.delete([key])
            return
        self._lease = Lease(
            uploads.objects,
            uploads.key(self.id, "ending"),
            found.epoch or prune.now(),
            since,
        )
        uploads.recount()

    def _look(self) -> _Objects:
        """Look at what there is of the upload now."""
        self.record, self._tag = self._uploads.load(self.id)
        found = self._uploads.look(self.id)
        listed = self._uploads.judge(self.id, self.record, found)
        self._chain = found.chain()
        self.offset, self.expires = listed.offset, listed.expires
        return found

    def _give_up(self) -> None:
        self.is_stale = True
        on_stale = self.on_stale  # which the request it belongs to may take away at any moment
        if on_stale is not None:
            on_stale()

    @property
    def _entry(self) -> Entry:
        return Entry.of(self.id, self.record)

    @property
    def _stored(self) -> int:
        if self.record.final is not None:
            return self.record.length or 0
        return self._chain[-1][1] if self._chain else 0

    def _check_owned(self) -> None:
        """Look whether another request has taken the upload over, which need not be seen yet.

        Raises:
            StaleUploadError: It has.
            UnknownUploadError: The upload is gone.
        """
        if self.is_stale or self._lease is None:
            raise StaleUploadError
        try:
            epoch = self._uploads.objects.read(self._uploads.key(self.id, "epoch"))
        except FileNotFoundError:
            self._uploads.load(self.id)  # deleted, or
            epoch = b""  # brought to its end by another request
        if epoch != self._epoch:
            self.is_stale = True
            raise StaleUploadError

    # -- receiving -----------------------------------------------------------------------------

    def begin(
        self, length: int | None, declared: bool, *, marked: bool, brings: int | None
    ) -> None:
        """Note what a request says before its content comes."""
        if self.is_stale:
            raise StaleUploadError
        changes = {"length": length, "declared": declared}
        if any(getattr(self.record, name) != value for name, value in changes.items()):
            self._check_owned()
            self._replace(**changes)
        if marked:
            self._unjudged = tempfile.SpooledTemporaryFile(PIECE)  # noqa: SIM115 (`cut` closes it)
        self._hash.begin(self._stored, brings, marked=False)
        self._begun = True

    def _replace(self, **changes: Any) -> None:
        record = replace(self.record, **changes)
        key = self._uploads.key(self.id, "state")
        try:
            self._tag = self._uploads.objects.replace(key, record.dump(), self._tag)
        except ExistsError:
            if self._uploads.load(self.id)[1] != self._tag:
                raise StaleUploadError from None
            # It is the same one: Ceph, for one, refuses the tag that it has given itself.
            self._tag = self._uploads.objects.replace(key, record.dump(), None)
        self.record = record

    def write(self, data: Bytes) -> None:
        """Take the next bytes, and send them when they are enough."""
        if self.is_stale or self._lease is None:
            raise StaleUploadError
        with memoryview(data) as view:
            room = self._uploads.room()
            size = len(view) if room is None else min(len(view), room)
            if self._unjudged is None:
                self._gather(view[:size])
            else:
                with full_is_told, no_folder_is_told():
                    if self._unjudged.tell() + size > PIECE:
                        with_room(self._unjudged.rollover)  # a write cannot be tried again
                    self._unjudged.write(view[:size])
            self.offset += size
            self._uploads.took(size)
            if size < len(view):
                raise NoRoomError

    def _gather(self, view: memoryview) -> None:
        while view:
            if not self._waiting:
                self._since = time.monotonic()
            count = min(PIECE - len(self._waiting), len(view))
            self._waiting += view[:count]
            view = view[count:]
            if len(self._waiting) == PIECE:
                self._send_waiting()
        if self._waiting and time.monotonic() - self._since > _PATIENCE:
            self._send_waiting()

    def _send_waiting(self) -> None:
        """Send what has come; should that fail it has not come."""
        data = bytes(self._waiting)
        self._waiting.clear()
        if not data:
            return
        try:
            self._send(data)
        except BaseException:
            self.offset = self._stored
            raise

    def _send(self, data: bytes) -> None:
        self._check_owned()
        self._create_piece(data)
        now = prune.now().timestamp()
        if now > self.expires - _SKEW:  # it may have been swept meanwhile
            self._check_owned()
        self.expires = max(self.expires, now + self._uploads.limits.expire)
        self._chain.append((self._stored, self._stored + len(data)))
        self._hash.update(data)

    def _create_piece(self, data: bytes) -> None:
        key = self._uploads.key(self.id, self._stored)
        for _ in range(_PIECE_ATTEMPTS):
            try:
                return self._uploads.objects.put(key, data, {}, create=True)
            except ExistsError:  # or a request is repeated whose first answer was lost
                with contextlib.suppress(FileNotFoundError):
                    if self._uploads.objects.read(key) == data:
                        return None
                    self.is_stale = True
                    raise StaleUploadError from None
            time.sleep(_WAIT)
        raise StoreUnavailableError(f"{key} cannot be created")

    def read(self, size: int, position: int) -> bytes:
        """Return up to `size` bytes from byte `position` on."""
        pieces = []
        while size > 0 and (piece := self._read_piece(position, size)):
            pieces.append(piece)
            position += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_piece(self, position: int, size: int) -> bytes:
        """Return bytes of the one piece that has the byte at `position`."""
        index = bisect_right(self._chain, position, key=lambda piece: piece[0]) - 1
        if index < 0 or position >= self._chain[index][1]:
            return self._read_waiting(position, size)
        start, stop = self._chain[index]
        if self._last[0] != start or not self._last[1]:
            try:
                data = self._uploads.objects.read(self._uploads.key(self.id, start))
            except FileNotFoundError:
                raise UnknownUploadError from None
            if len(data) != stop - start:
                raise StoreUnavailableError("a piece of an upload has another size")
            self._last = start, data
        offset = position - start
        return self._last[1][offset : offset + size]

    def _read_waiting(self, position: int, size: int) -> bytes:
        offset = position - self._stored
        if self._unjudged is None:
            return bytes(self._waiting[offset : offset + size])
        self._unjudged.seek(offset)
        data: bytes = self._unjudged.read(size)
        self._unjudged.seek(0, 2)
        return data

    def keep(self) -> None:
        """Let the content since the mark count, and send all that has come."""
        spool, self._unjudged = self._unjudged, None
        if spool is None:
            return self._send_waiting()
        with spool:
            spool.seek(0)
            try:
                while data := spool.read(PIECE):
                    self._send(data)
            except BaseException:
                self.offset = self._stored
                raise
        return None

    def cut(self) -> None:
        """Forget the content since the mark, if there is one."""
        spool, self._unjudged = self._unjudged, None
        if spool is not None:
            spool.close()
            self.offset = self._stored

    def sync(self) -> int:
        """Send all that has come, and return how many bytes there are now."""
        if self._lease is None:
            return self.offset
        if self._waiting:
            self._send_waiting()
        if self.is_stale:
            return self._uploads.find(self.id).offset
        return self._stored

    # -- ending --------------------------------------------------------------------------------

    def end(self, *, wait: bool = True) -> Writer | None:
        """Finish the content; nobody else can do so, or delete the upload, until `close`."""
        self._send_waiting()
        has_mark = self._unjudged is not None
        self._take_lease(wait)
        self._look()
        if self.record.final is not None:
            return None
        size = self._stored
        if size != self.record.length or has_mark:
            raise StaleUploadError
        self._begun = True
        return self._uploads.go_on(self.read, size, self._hash.end(size))

    def _take_lease(self, wait: bool) -> None:
        if self._lease is None:
            return
        while not self._lease.take():
            if not wait:
                raise BusyUploadError
            time.sleep(_WAIT)

    def finish(self, final: dict[str, Any]) -> None:
        """Record how the upload ended, and let go of its bytes."""
        uploads = self._uploads
        record = replace(self.record, final=final, mark=None)
        uploads.objects.put(uploads.key(self.id, "state"), record.dump(), {}, create=False)
        self.record = record
        self.expires = prune.now().timestamp() + uploads.limits.expire
        self._end_lease()
        self._hash.forget()
        try:
            uploads.remove_bytes(self.id, self._entry)
        except HashFSError as error:  # it has ended all the same, and they go when it expires
            messages.PIECES_STAY.log(self._uploads.objects, upload=self.id, error=error)

    def delete(self, *, wait: bool = True) -> None:
        """Delete the upload, after an end that another request is bringing about."""
        self._waiting.clear()
        self._take_lease(wait)
        self._end_lease()
        self._uploads.remove(self.id, self._entry)
        self._hash.forget()

    def _end_lease(self) -> None:
        """Give the lease back for good; its object goes with the others."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end(delete=False)

    def close(self) -> None:
        """Let go of the upload, which stays; it may be called again."""
        self.is_closed = True
        if _taken.get(self._key) is self:
            _taken.pop(self._key, None)
        self.cut()
        if self._waiting and not self.is_stale and self._lease is not None:
            try:
                self._send_waiting()
            except (StaleUploadError, UnknownUploadError):
                pass
            except HashFSError as error:  # nobody has been told of these bytes
                messages.BYTES_LOST.log(self._uploads.objects, upload=self.id, error=error)
        self._waiting.clear()
        self._last = (0, b"")
        if self._begun:
            self._begun = False
            self._hash.remember()
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end()


def _key_of(entry: Entry) -> str:
    return f"{UNFINISHED}/{entry.name}"


def _new_epoch() -> bytes:
    return secrets.token_hex(16).encode()
