"""What a store tells of its content, and what it is told: values that every backend shares."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, NamedTuple

from .predecessor import HashAddress
from .stored_file import StoredFile


class Content(NamedTuple):
    """A stored file about to be served."""

    address: HashAddress
    file: BinaryIO | None
    """Unbuffered; None where it is not to be read."""
    size: int
    """In bytes."""
    reads_cached: bool = False
    """Whether the file's system is known to tell what of it is in memory."""
    path: str | None = None
    """Where it lies on this machine, if it is a file that a server can send by itself."""

    def will_read(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Announce what will be read, so that a file far away can be asked for it in advance.

        Args:
            ranges: From a first byte to behind a last.

        Raises:
            FileNotFoundError: It has been deleted meanwhile.
        """
        expect = getattr(self.file, "expect", None)
        if expect is not None:
            expect(ranges)

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored file: a path of a content."""

    id: str | None
    """The id that the path claims; None for a stray file."""
    relpath: str
    """Its path relative to the root."""
    size: int
    """In bytes."""
    mtime: float
    """When the content was last put, in seconds since the epoch."""


@dataclass(slots=True)
class Stats:
    """A store in numbers; sizes are in bytes."""

    files: int = 0
    """Paths of contents."""
    contents: int = 0
    """Different contents."""
    bytes: int = 0
    """In the store: a file of several paths counts once."""
    bytes_saved: int = 0
    """By further paths that cost nothing; equal puts under one path leave no trace."""
    largest: Entry | None = None
    """The file with the most bytes."""
    oldest: Entry | None = None
    """The file that was put the longest ago."""
    strangers: int = 0
    """Stray files."""
    left_overs: int = 0
    """Files that interrupted processes have left below ``.hashfs``."""
    quarantined: int = 0
    """Damaged files that `verify` has moved out of the way."""

    def add(self, entry: Entry, *, is_link: bool = False) -> None:
        """Count one file; the contents are counted by whoever knows which belong together.

        Args:
            entry: The file.
            is_link: Whether it shares its bytes with a file counted already.
        """
        if entry.id is None:
            self.strangers += 1
            return
        self.files += 1
        if is_link:
            self.bytes_saved += entry.size
        else:
            self.bytes += entry.size
        if self.largest is None or entry.size > self.largest.size:
            self.largest = entry
        if self.oldest is None or entry.mtime < self.oldest.mtime:
            self.oldest = entry


class Progress(NamedTuple):
    """A step of a verify: so many more files have been looked at."""

    looked_at: int
    """0 says only that the verify goes on."""


class Damaged(NamedTuple):
    """A step of a verify: a file whose bytes have another hash, or cannot be read any more."""

    address: HashAddress
    """As the file's path claims it."""


class NothingInUseError(ValueError):
    """A prune would delete everything."""


class NoAddressError(ValueError):
    """What is said to be in use is no address of a content."""


class NoAddressTypeError(NoAddressError, TypeError):
    """What is said to be in use is not even of a type that an address has."""


class InUse:
    """The ids of what is in use, kept as bytes: about 130 bytes of memory each.

    Args:
        id_named: Returns the id that a look-up of a name would find, or None if the name is
            not an address.
        items: See `add`.
    """

    def __init__(self, id_named: Callable[[str], str | None], items: Iterable[object] = ()) -> None:
        self.since = time.time_ns()
        """When the collection began: what is put from then on is younger than all of it."""
        self._id_named = id_named
        self._digests: set[bytes] = set()
        self.update(items)

    def update(self, items: Iterable[object], told_by: Callable[[], object] | None = None) -> None:
        """Add all of `items`; see `add`.

        Args:
            items: What is in use.
            told_by: The callable that they come from, to be named by an error.

        Raises:
            NoAddressError: One of them is not the address of a content.
            NoAddressTypeError: They are not iterable, or one of them cannot name a file.
        """
        whose = "what is in use" if told_by is None else f"what {_name(told_by)} tells to be in use"
        if isinstance(items, (str, bytes, HashAddress)) or not isinstance(items, Iterable):
            raise NoAddressTypeError(
                f"{whose} must be an iterable of addresses, not {items!r:.200}"
            )
        for item in items:
            try:
                self.add(item)
            except NoAddressError as error:
                if told_by is None:
                    raise
                raise type(error)(f"{_name(told_by)}: {error}") from None

    def add(self, item: object) -> None:
        """Add one content that is in use.

        Args:
            item: What a look-up takes: an id, a path or an address. It need not be stored. None,
                as a database has it where there is no file, is passed over.

        Raises:
            NoAddressError: It is not the address of a content.
            NoAddressTypeError: It cannot name a file; this is a TypeError, too.
        """
        if item is None:
            return
        name = item.id if isinstance(item, (HashAddress, StoredFile)) else item
        if isinstance(name, os.PathLike):
            name = os.fspath(name)
        if not isinstance(name, str):
            raise NoAddressTypeError(
                f"an item in use is an id, a path, a HashAddress or None, not {item!r:.200}"
            )
        id = self._id_named(name) or self._id_elsewhere(name)
        if id is None:
            raise NoAddressError(
                f"an item in use must be the address of a content, but this is not: {item!r:.200}"
            )
        self._digests.add(bytes.fromhex(id))

    def _id_elsewhere(self, name: str) -> str | None:
        """Return the id in a path relative to the root that was kept under another layout."""
        stem, _, extension = name.replace(os.sep, "/").partition(".")
        flat = stem.replace("/", "")
        return self._id_named(flat) if flat.isalnum() and "/" not in extension else None

    def __iter__(self) -> Iterator[str]:
        return (digest.hex() for digest in self._digests)

    def __contains__(self, id: str) -> bool:
        return bytes.fromhex(id) in self._digests

    def __len__(self) -> int:
        return len(self._digests)


def _name(function: Callable[[], object]) -> str:
    while isinstance(function, partial):
        function = function.func
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return repr(function) if name is None else f"{module}.{name}"
