"""Unfinished uploads: what a backend does for them, and what this process remembers of them.

An upload lives below `.hashfs/uploads` of its store, so that any process may go on with it::

    create(record) ──> id          nothing is held while nobody sends
    take(id) ──> Taken             the newest request owns the upload, and an older one goes stale
        begin(…)                   the length and the mark that this request brings
        write(data) …              each piece by itself, none of it by a stale request
        keep() / cut()             a checksum was right: the mark goes / wrong: back to the mark
        sync()                     what is told is on the disk
    take(id) ──> Taken.end()       all bytes are there: one request at a time hashes the rest,
        record(…)                  publishes them as a put does, and records how it ended
        delete()

What the hash has seen cannot be kept on a disk, so each process remembers the states of its last
uploads (`HashStates`), and the end hashes what is missing.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from .writer import Bytes, Writer

SLICE = 8 * 1024 * 1024
"""Bytes that are read at a time to hash what has been written before."""

MOST_STATES = 256
"""Hash states that a process keeps."""

_ID = re.compile(r"[0-9a-f]{32}")


class PendingError(Exception):
    """Something is wrong with an unfinished upload."""


class UnknownUploadError(PendingError):
    """There is no upload of that id, or not any more."""


class ExpiredUploadError(PendingError):
    """The upload has expired, and waits to be swept."""


class StaleUploadError(PendingError):
    """A newer request has taken the upload over."""


class BusyUploadError(PendingError):
    """Another request is just bringing the upload to its end."""


class TooManyUploadsError(PendingError):
    """No more uploads may be unfinished at the same time."""


class NoRoomError(PendingError):
    """All unfinished uploads together may not hold more bytes."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What unfinished uploads may take.

    Attributes:
        expire: Seconds after its last byte that an upload, or a finished one's record, is gone.
        most: Uploads that may be unfinished at the same time.
        most_bytes: Bytes that all of them may hold, or None.
    """

    expire: int = 86400
    most: int = 1000
    most_bytes: int | None = None

    @property
    def most_of_owner(self) -> int:
        """Uploads that one owner may have unfinished."""
        return max(1, self.most // 10)

    @property
    def sweep_every(self) -> float:
        """Seconds between two sweeps."""
        return min(self.expire / 10, 60.0)


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of an upload beside its bytes.

    Attributes:
        owner: Who created it, in the app's words.
        extension: Of the stored content.
        max_size: Bytes allowed.
        expected: The id that the whole content must have.
        accept: The types that its content may have, in the app's words.
        length: Bytes of the whole, as far as it is known.
        declared: Whether it ends when it has that length.
        metadata: What the client says of it.
        metadata_field: The same as it was sent.
        concatenation: The Upload-Concat field.
        mark: Where it goes on if the request that set the mark does not succeed.
        final: How it ended, in the words of the protocols; None until then.
    """

    owner: str | None = None
    extension: Any = None
    max_size: int | None = None
    expected: str | None = None
    accept: Any = None
    length: int | None = None
    declared: bool = True
    metadata: dict[str, str] = field(default_factory=dict)
    metadata_field: str = ""
    concatenation: str = ""
    mark: int | None = None
    final: dict[str, Any] | None = None

    @property
    def is_partial(self) -> bool:
        """Whether it is a part of a later concatenation."""
        return self.concatenation == "partial"

    def dump(self) -> bytes:
        """Return the record as JSON."""
        values = {name: getattr(self, name) for name in _FIELDS}
        return json.dumps(values, separators=(",", ":")).encode()

    @classmethod
    def load(cls, data: bytes) -> Record:
        """Read what `dump` returns; fields of a later version are left out."""
        values = json.loads(data)
        if not isinstance(values, dict):
            raise ValueError("the state of an upload is a JSON object")
        return cls(**{name: value for name, value in values.items() if name in _FIELDS})


_FIELDS = dict.fromkeys(each.name for each in fields(Record))


@dataclass(frozen=True, slots=True)
class Listed:
    """One upload, as it is listed."""

    id: str
    record: Record
    offset: int
    expires: float
    """Seconds since the epoch."""


class Taken(ABC):
    """An upload that a request has taken over, and owns until another one takes it.

    Attributes:
        id: The upload's.
        record: What is kept of it.
        offset: Bytes that it has.
        expires: When it is gone, in seconds since the epoch.
        is_stale: Whether another request of this process is known to have taken it over.
        is_closed: Whether it has been closed.
        on_stale: Called, in whichever thread, when another request of this process takes the
            upload over.
    """

    id: str
    record: Record
    offset: int
    expires: float
    on_stale: Callable[[], None] | None
    is_stale: bool
    is_closed: bool = False

    @abstractmethod
    def begin(
        self, length: int | None, declared: bool, *, marked: bool, brings: int | None
    ) -> None:
        """Note what a request says before its content comes.

        Args:
            length: That of the whole, as far as it is known now.
            declared: Whether the upload ends when it has that length.
            marked: Whether none of the content counts until `keep`.
            brings: Bytes of the content, or None where only its end tells.

        Raises:
            StaleUploadError: Another request has taken it over.
            UnknownUploadError: It has been deleted.
        """

    @abstractmethod
    def write(self, data: Bytes) -> None:
        """Take the next bytes.

        Raises:
            StaleUploadError: Another request has taken it over; nothing is written.
            UnknownUploadError: It has been deleted.
            NoRoomError: All uploads together hold as much as they may; what there was room for
                is written.
            OSError: The disk is full, or fails; `offset` tells what is written.
        """

    @abstractmethod
    def read(self, size: int, position: int) -> bytes:
        """Return up to `size` bytes from byte `position` on."""

    @abstractmethod
    def keep(self) -> None:
        """Let the content since the mark count."""

    @abstractmethod
    def cut(self) -> None:
        """Cut the upload back to its mark, if it has one and has not been taken over."""

    @abstractmethod
    def sync(self) -> int:
        """Wait until all bytes are on the disk, and return how many there are now.

        Raises:
            UnknownUploadError: It has been deleted.
        """

    @abstractmethod
    def end(self, *, wait: bool = True) -> Writer | None:
        """Finish the content; nobody else can do so, or delete the upload, until `close`.

        Args:
            wait: Whether to wait for another request that is just doing it.

        Returns:
            A writer that has the whole content, to be published; None where the upload has
            ended meanwhile, as `record` tells.

        Raises:
            StaleUploadError: Not all bytes are there any more.
            UnknownUploadError: It has been deleted.
            BusyUploadError: Another request is doing it, and this one does not wait.
        """

    @abstractmethod
    def finish(self, final: dict[str, Any]) -> None:
        """Record how the upload ended, and let go of its bytes."""

    @abstractmethod
    def delete(self, *, wait: bool = True) -> None:
        """Delete the upload, after an end that another request is bringing about.

        Args:
            wait: Whether to wait for that.

        Raises:
            BusyUploadError: Another request is doing that, and this one does not wait.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the upload, which stays; it may be called again."""


class PendingUploads(ABC):
    """The unfinished uploads of one store, and the records of those that have ended lately."""

    limits: UploadLimits

    @abstractmethod
    def create(self, id: str, record: Record) -> Taken:
        """Make an empty upload, which is on the disk when this returns, and take it.

        Args:
            id: From `new_id`.
            record: What is kept of it.

        Returns:
            The upload, which nobody else has.

        Raises:
            TooManyUploadsError: There are as many as there may be.
        """

    @abstractmethod
    def find(self, id: str) -> Listed:
        """Return what is known of the upload `id`, and leave it to whoever owns it.

        Raises:
            UnknownUploadError: There is none.
            ExpiredUploadError: It is gone.
        """

    @abstractmethod
    def take(self, id: str) -> Taken:
        """Take the upload `id` over from whoever has it.

        Returns:
            The upload, which nobody else has.

        Raises:
            UnknownUploadError: There is none.
            ExpiredUploadError: It is gone.
        """

    @abstractmethod
    def listed(self) -> Iterator[Listed]:
        """Iterate over all uploads and records that have not expired."""

    @abstractmethod
    def sweep(self) -> int:
        """Delete what has expired.

        Returns:
            How many uploads that were.
        """


def new_id() -> str:
    """Return an id that nobody can guess."""
    return secrets.token_hex(16)


def is_id(text: str) -> bool:
    """Tell whether `text` has the shape of an upload's id."""
    return _ID.fullmatch(text) is not None


# -- hash states -------------------------------------------------------------------------------


class Room:
    """How many bytes uploads may still take: counted anew now and then, and in between summed.

    Args:
        count_held: Returns the bytes that all unfinished uploads hold now.
        trusted_for: Seconds that a count is trusted.
    """

    def __init__(self, count_held: Callable[[], int], trusted_for: float) -> None:
        self._count_held = count_held
        self._trusted_for = trusted_for
        self._counted = 0
        self._at = 0.0
        self.used = 0

    def left(self, most: int | None) -> int | None:
        """Return how many of at most ``most`` bytes may still be taken; None where it is None."""
        if most is None:
            return None
        if not self._at or time.monotonic() - self._at > self._trusted_for:
            self.count()
        return max(0, most - self._counted - self.used)

    def count(self) -> None:
        """Count what is there now."""
        self._at, self.used = time.monotonic(), 0
        self._counted = self._count_held()


class HashStates:
    """How far this process has hashed which uploads: of the last ones it was at work on.

    A state is of a prefix that never changes, so it stays right whoever goes on.
    """

    def __init__(self, most: int = MOST_STATES) -> None:
        self._most = most
        self._states: OrderedDict[tuple[str, str], tuple[int, hashlib._Hash]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str]) -> tuple[int, hashlib._Hash] | None:
        """Return the offset of a state and a copy of it, or None."""
        with self._lock:
            found = self._states.get(key)
            if found is None:
                return None
            self._states.move_to_end(key)
            return found[0], found[1].copy()

    def put(self, key: tuple[str, str], offset: int, state: hashlib._Hash) -> None:
        """Remember a state, and forget the one that was not used for longest."""
        with self._lock:
            self._states[key] = (offset, state)
            self._states.move_to_end(key)
            if len(self._states) > self._most:
                self._states.popitem(last=False)

    def forget(self, key: tuple[str, str]) -> None:
        """Forget the state of an upload, if there is one."""
        with self._lock:
            self._states.pop(key, None)

    def __len__(self) -> int:
        return len(self._states)


STATES = HashStates()
"""Those of this process."""


class Hashing:
    """The hash of one upload, while a request is at work on it.

    Args:
        key: Of the upload, in this process.
        algorithm: A name that ``hashlib.new`` takes.
        read: Returns so many bytes of the upload from a position on.
        states: Where the hash is remembered.
    """

    def __init__(
        self,
        key: tuple[str, str],
        algorithm: str,
        read: Callable[[int, int], bytes],
        states: HashStates = STATES,
    ) -> None:
        self._key = key
        self._algorithm = algorithm
        self._read = read
        self._states = states
        self._state: hashlib._Hash | None = None
        self._offset = 0
        self._marked: tuple[int, hashlib._Hash] | None = None
        self._has_mark = False

    def begin(self, offset: int, brings: int | None, *, marked: bool) -> None:
        """Go on from what this process remembers, where that is not far behind.

        Args:
            offset: That of the upload.
            brings: Bytes that will come: as many are read again at most.
            marked: Whether what comes may be taken back.
        """
        known, state = self._remembered()
        if known <= offset and offset - known <= (brings or 0):
            self._state, self._offset = state, known
            self._catch_up(offset)
        self._has_mark = marked
        if marked and self._state is not None:
            self._marked = offset, self._state.copy()

    def update(self, data: Bytes) -> None:
        """Hash bytes that have been written."""
        if self._state is not None:
            self._state.update(data)
            self._offset += len(data)

    def keep(self) -> None:
        """Let what has come since the mark count."""
        self._has_mark, self._marked = False, None

    def cut(self) -> None:
        """Go back to the mark."""
        if self._has_mark:
            self._offset, self._state = self._marked or (0, None)
            self.keep()

    def end(self, size: int) -> hashlib._Hash:
        """Hash what is missing of the whole, and return the state."""
        if self._state is None:
            self._offset, self._state = self._remembered()
            if self._offset > size:  # not of these bytes
                self._offset, self._state = 0, self._new()
        self._catch_up(size)
        return self._state.copy()

    def remember(self) -> None:
        """Leave the state to the next request of this process."""
        self.cut()
        if self._state is not None:
            self._states.put(self._key, self._offset, self._state)
            self._state = None

    def forget(self) -> None:
        """Forget the upload: it is over."""
        self._state = None
        self._states.forget(self._key)

    def _remembered(self) -> tuple[int, hashlib._Hash]:
        return self._states.get(self._key) or (0, self._new())

    def _new(self) -> hashlib._Hash:
        return hashlib.new(self._algorithm, usedforsecurity=False)

    def _catch_up(self, offset: int) -> None:
        assert self._state is not None
        while self._offset < offset:
            data = self._read(min(SLICE, offset - self._offset), self._offset)
            if not data:
                raise StaleUploadError
            self.update(data)
