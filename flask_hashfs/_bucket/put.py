"""Put into a bucket: what is there is not sent, and what is sent appears at once."""

from __future__ import annotations

import enum
import errno
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .._storage import messages
from .._storage.layout import Layout
from .._storage.predecessor import HashAddress
from .._storage.spool import SystemSpool, TemporaryFile, TemporaryFolder
from .._storage.writer import Writer
from ..exceptions import StoreUnavailableError
from . import prune
from .client import COPIED_AT_MOST, ONE_REQUEST_SIZE, ExistsError, Found, Objects
from .hidden import RENEWING

_PUT_ATTEMPTS = 20  # of a put that others are in the way of
_MODE = 0o700  # of folders; the spool makes none


class ReadFile(TemporaryFile):
    """What a writer reads as its file, and what lies elsewhere.

    Args:
        read: Returns up to so many bytes from a position on. It is called in a thread of its own:
            obstore asks for bytes to send while it is in a call, and can begin no other one there.
        folder: Where the writer would make files.
    """

    __slots__ = ("_read", "_thread")

    def __init__(self, read: Callable[[int, int], bytes], folder: TemporaryFolder) -> None:
        super().__init__(-1, None, folder)
        self._read = read
        self._thread = ThreadPoolExecutor(1, "hashfs-reading")

    @property
    def can_be_kept(self) -> bool:
        """Whether it lies where a cache can keep it by a link."""
        return False

    def read_into(self, buffer: memoryview, position: int) -> int:
        """Read from byte `position` on, and return how many bytes were read."""
        data = self._thread.submit(self._read, len(buffer), position).result()
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    def touch(self) -> None:
        """Leave the date alone: what is sent is new."""

    def reopen(self) -> int:
        """Refuse: there is nothing to open.

        Raises:
            OSError: Always.
        """
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


class _Placing(enum.Enum):
    """What a put came upon."""

    NEW = enum.auto()
    YOUNG = enum.auto()  # no prune deletes it for another hour
    RENEWED = enum.auto()  # one may be about to


class Puts:
    """The puts of one bucket.

    Args:
        objects: Of the bucket.
        layout: How a key follows from an id.
        prefix: What the URL of every object begins with.
        keys_of: Returns the objects of a content, one for each extension.
        describe: Returns the headers of the object with this key.
        pruning: The prunes that a put has to mind.
    """

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        prefix: str,
        keys_of: Callable[[str], list[Found]],
        describe: Callable[[str], dict[str, str]],
        pruning: prune.Pruning,
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._prefix = prefix
        self._keys_of = keys_of
        self._describe = describe
        self._pruning = pruning
        self.spool: TemporaryFolder = SystemSpool()
        self._lists_first = True  # whether the last put was of new content, so the next may be

    def new_writer(self, limit: int | None) -> Writer:
        """Return a writer that takes `limit` bytes."""
        return Writer(
            self._layout.algorithm, self.spool, _MODE, limit, memory_limit=ONE_REQUEST_SIZE
        )

    def go_on(self, read: Callable[[int, int], bytes], size: int, state: hashlib._Hash) -> Writer:
        """Return a writer that has its content already, in objects.

        Args:
            read: Returns so many bytes of the content from a position on.
            size: Of the content.
            state: Its hash.
        """
        begun = (ReadFile(read, self.spool), size, state)
        return Writer(self._layout.algorithm, self.spool, _MODE, begun=begun)

    def commit(self, writer: Writer, suffix: str) -> HashAddress:
        """Store what `writer` took, atomically; content that is there already is not sent.

        Raises:
            StoreUnavailableError: The object store fails.
        """
        id = writer.id
        key = self._layout.path_of(id, suffix)
        for _ in range(_PUT_ATTEMPTS):
            try:
                placing = self._place(writer, id, key)
            except (ExistsError, FileNotFoundError):  # another put or a delete was first
                self._lists_first = False
                time.sleep(0.01)
                continue
            self._lists_first = placing is _Placing.NEW
            if placing is not _Placing.RENEWED or self._stays(id, key):
                is_duplicate = placing is not _Placing.NEW
                return HashAddress(id, key, self._prefix + key, is_duplicate)
        raise StoreUnavailableError(f"{self._prefix}{key} does not stay as it is put")

    def _place(self, writer: Writer, id: str, key: str) -> _Placing:
        """Give the content its key, if it has none; return whether the content was there.

        Raises:
            ExistsError: Another put was first.
            FileNotFoundError: A delete was first.
        """
        # New content needs a listing of all its keys; a duplicate needs only a HEAD, at half the
        # cost. Each put first sends whichever would have been enough for the put before.
        found, keys = None, []
        if not self._lists_first:
            found = self._objects.head(key)
        if found is None:
            keys = self._keys_of(id)
            if not keys:
                self.send(writer, key, create=True)
                return _Placing.NEW
            found = next((each for each in keys if each.key == key), None)
        if found is None:
            self._heal(writer, keys)
            self._add_key(writer, keys[0], key)
        elif found.size != writer.size:
            self._heal(writer, self._keys_of(id))
        elif prune.now() - found.modified > prune.RENEWED_AFTER:
            self._renew(writer, key)
        else:
            return _Placing.YOUNG
        return _Placing.RENEWED

    def send(self, writer: Writer, key: str, *, create: bool = False) -> None:
        """Send what a writer took, under a key.

        Args:
            writer: Finished.
            key: Of the object.
            create: Whether an object that is there already is an error; one of a content above
                `ONE_REQUEST_SIZE` is replaced in any case.

        Raises:
            ExistsError: It is there already.
            FileNotFoundError: A delete was first.
        """
        attributes = self._describe(key)
        if writer.size <= ONE_REQUEST_SIZE:
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

    def _heal(self, writer: Writer, keys: list[Found]) -> None:
        for found in keys:
            if found.size != writer.size:
                path = f"{self._prefix}{found.key}"
                messages.HEALED.log(self._objects, path=path, stored=found.size, size=writer.size)
                self.send(writer, found.key)

    def _add_key(self, writer: Writer, source: Found, key: str) -> None:
        """Store content under one more extension, by a copy inside the object store."""
        same = self._describe(source.key)["Content-Type"] == self._describe(key)["Content-Type"]
        if same and ONE_REQUEST_SIZE < writer.size <= COPIED_AT_MOST:
            self._objects.copy(source.key, key)
        else:  # a copy would keep the type
            self.send(writer, key)

    def _renew(self, writer: Writer, key: str) -> None:
        """Make stored content as young as a new put.

        An object store has nothing like ``touch``, and S3 copies no object onto itself
        unless its type is lost. Small content is sent again; large content makes a round.
        """
        if writer.size <= ONE_REQUEST_SIZE or writer.size > COPIED_AT_MOST:
            self.send(writer, key)
            return
        spare = f"{RENEWING}/{os.urandom(16).hex()}"
        try:
            self._objects.copy(key, spare)
            self._objects.copy(spare, key)
        finally:
            self._objects.delete([spare])

    def _stays(self, id: str, key: str) -> bool:
        """Wait for a prune that is about to delete this content, and tell whether it did."""
        return not self._pruning.wait(id) or self._objects.head(key) is not None
