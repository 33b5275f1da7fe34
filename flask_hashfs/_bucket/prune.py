"""Prune in a bucket: a deletion is announced first, so that no put loses its content to it.

A put of old content makes the content young again, and *then* looks for an announcement that names
it. A prune announces what it is about to delete, and *then* looks at the ages once more. Whatever
the order, one of the two sees the other: the prune sees young content and leaves it, or the put
sees the announcement, waits until it is gone, and looks whether its content is still there.

That holds only while no request of a prune comes later than its announcement lasts, so these
requests are not repeated, and a prune that has become slow gives up before it deletes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from .._storage.layout import Layout
from .._storage.records import InUse
from ..exceptions import StoreUnavailableError
from .client import ExistsError, Found, Objects
from .hidden import PRUNING, RENEWING

RENEWED_AFTER = timedelta(hours=1)
"""Age from which a put of stored content makes it young again."""

YOUNGEST_PRUNED = timedelta(hours=2)
"""What ``older_than`` must be at least: twice that, as clocks differ and puts take time."""

_PRUNED_AT_ONCE = 100  # contents of one announcement
_PRUNING_LASTS = 120.0  # seconds; no request of one batch is under way any longer
_DELETES_WITHIN = 20.0  # seconds from announcing a deletion to asking for it
_LEFT_OVER_AFTER = timedelta(hours=1)


def now() -> datetime:
    """Return the time on this side, which may differ from the object store's by some minutes."""
    return datetime.now(UTC)


def check_age(older_than: timedelta) -> None:
    """Refuse an age below two hours.

    Raises:
        ValueError: It is below.
    """
    if older_than < YOUNGEST_PRUNED:
        raise ValueError(
            f"older_than is {older_than}, but must be two hours or more on an object store, "
            "where a put makes content young again only once it is an hour old"
        )


def old_contents(
    listed: Iterable[Found], layout: Layout, in_use: InUse, older_than: timedelta
) -> dict[str, list[str]]:
    """Return the keys of each content that may be deleted, as far as a listing tells."""
    limit = now() - older_than
    old: dict[str, list[str]] = {}
    young = set()
    for found in listed:
        id = layout.id_of(found.key)
        if id is None or id in in_use:
            continue
        if found.modified > limit:
            young.add(id)
        old.setdefault(id, []).append(found.key)
    return {id: keys for id, keys in old.items() if id not in young}


class Pruning:
    """The deletions of prunes in one bucket, and what puts have to know of them."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def delete(self, old: dict[str, list[str]], since: int, older_than: timedelta) -> list[str]:
        """Delete contents unless they have become young; return the ids of those deleted.

        Args:
            old: The keys of each content.
            since: When it was known what is in use, in nanoseconds since the epoch.
            older_than: Age that a content must have had then.

        Raises:
            StoreUnavailableError: The object store fails, or is too slow.
        """
        ids, pruned = list(old), []
        for start in range(0, len(ids), _PRUNED_AT_ONCE):
            batch = {id: old[id] for id in ids[start : start + _PRUNED_AT_ONCE]}
            pruned += self._delete_batch(batch, since, older_than)
        return pruned

    def _delete_batch(
        self, old: dict[str, list[str]], since: int, older_than: timedelta
    ) -> list[str]:
        """Delete what was old at `since`, announced so that a put of the same content waits."""
        with self._announced(old) as (started, there):
            limit = there - older_than - timedelta(microseconds=(time.time_ns() - since) // 1000)
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
                self._objects.put(PRUNING, text, {}, create=True)
                break
            except ExistsError:  # another prune is at it
                self.wait()
        try:
            announcement = self._objects.head(PRUNING)
            if announcement is None:
                raise StoreUnavailableError("another prune took this one for killed")
            yield started, announcement.modified
        except StoreUnavailableError:  # a request may be under way still: it stays announced
            raise
        except BaseException:
            self._objects.delete([PRUNING])
            raise
        self._objects.delete([PRUNING])

    def wait(self, id: str | None = None) -> bool:
        """Wait while a prune is about to delete the content `id`, or any; tell whether one was.

        The announcement of a prune that was killed is cleared once no request of it can be
        under way any more.
        """
        seen, since, waited = b"", 0.0, False
        while True:
            try:
                text = self._objects.read(PRUNING)
            except FileNotFoundError:
                return waited
            if id is not None and id.encode() not in text.split():
                return waited
            if text != seen:
                seen, since = text, time.monotonic()
            if time.monotonic() - since > _PRUNING_LASTS or self._is_left_over(PRUNING):
                self._objects.delete([PRUNING])
            waited = True
            time.sleep(0.05)

    def delete_left_overs(self) -> int:
        """Delete what processes left that were killed while they renewed or pruned something.

        Returns:
            How many objects that were.
        """
        limit = now() - _LEFT_OVER_AFTER
        old = [each.key for each in self._objects.list(RENEWING) if each.modified < limit]
        if self._is_left_over(PRUNING):
            old.append(PRUNING)
        self._objects.delete(old)
        return len(old)

    def _is_left_over(self, key: str) -> bool:
        found = self._objects.head(key)
        return found is not None and now() - found.modified > _LEFT_OVER_AFTER
