"""Hashing objects again, and moving those that are damaged or lie in a wrong place."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain, count

from .._storage import messages
from .._storage.first_look import FirstLook
from .._storage.layout import Layout
from .._storage.predecessor import HashAddress
from .._storage.records import Damaged, Progress
from .client import COPIED_AT_MOST, READ_SIZE, Found, Objects
from .hidden import QUARANTINE
from .put import Puts
from .reader import ObjectFile


class Upkeep:
    """What verify and repair do with the objects of one bucket.

    Args:
        objects: Of the bucket.
        layout: How a key follows from an id.
        puts: Sends what is too large to be copied inside the object store.
        address_of: Returns the address of the object under a key.
    """

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        puts: Puts,
        address_of: Callable[[str], HashAddress],
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._puts = puts
        self._address_of = address_of

    def verify(
        self, listed: Iterable[Found], quarantine: bool, force: bool
    ) -> Generator[Progress | Damaged]:
        """Hash objects again, one after the other; see `Backend.verify`."""
        look: FirstLook[Found] = FirstLook(self._layout.algorithm, force or not quarantine)
        for found in listed:
            id = self._layout.id_of(found.key)
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
        if not quarantine or self.quarantine(damaged.key):
            address = self._address_of(damaged.key)
            messages.DAMAGED.log(self._objects, path=address.abspath)
            yield Damaged(address)

    def quarantine(self, key: str) -> bool:
        """Move an object into quarantine; tell whether it was still there."""
        found = self._objects.head(key)
        if found is None:
            return False
        try:
            self._move_object(found, self._place_in_quarantine(key))
        except FileNotFoundError:  # deleted meanwhile
            return False
        return True

    def misplaced(
        self, listed: Iterable[Found], extensions: bool
    ) -> Generator[tuple[Found, HashAddress]]:
        """Yield every object that lies in a wrong place, with the right address.

        Args:
            listed: The objects to look at.
            extensions: Whether an object keeps its extension.
        """
        for found in listed:
            try:
                id = self._hash_object(found)
            except FileNotFoundError:  # deleted meanwhile
                continue
            suffix = self._layout.suffix_of(found.key, id) if extensions else ""
            key = self._layout.path_of(id, suffix)
            if key != found.key:
                yield found, self._address_of(key)

    def move(self, misplaced: Found, address: HashAddress) -> bool:
        """Move an object to where its bytes belong; tell whether that could be done."""
        source, there = self._objects.head(misplaced.key), self._objects.head(address.relpath)
        if source is None:
            return False
        if there is None:
            self._move_object(source, address.relpath)
        elif self._hash_object(there) == address.id:
            self._objects.delete([source.key])
        else:
            path = self._address_of(source.key).abspath
            messages.TAKEN.log(self._objects, path=path, target=address.abspath)
            return False
        return True

    def _place_in_quarantine(self, key: str) -> str:
        """Return a key that nothing is kept under yet."""
        place = f"{QUARANTINE}/{key}"
        taken = {found.key for found in self._objects.list(posixpath.dirname(place))}
        places = chain([place], (f"{place}.{n}" for n in count(1)))
        return next(place for place in places if place not in taken)

    def _move_object(self, source: Found, target: str) -> None:
        if source.size <= COPIED_AT_MOST:
            self._objects.copy(source.key, target)
        else:
            with self._puts.new_writer(None) as writer, self._reader(source) as reader:
                while piece := reader.read(READ_SIZE):
                    writer.write(piece)
                writer.finish()
                self._puts.send(writer, target)
        self._objects.delete([source.key])

    def _hash_object(self, found: Found) -> str:
        with self._reader(found) as reader:
            return hashlib.file_digest(reader, self._layout.new_hash).hexdigest()

    def _reader(self, found: Found) -> ObjectFile:
        file = ObjectFile(self._objects, found.key, found.size)
        file.expect([(0, found.size)])
        return file
