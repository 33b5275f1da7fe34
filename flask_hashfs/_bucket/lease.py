"""A lease: one process at a time has it, and loses it when it is killed."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from datetime import datetime, timedelta

from ..exceptions import HashFSError
from .client import ExistsError, Objects

_RENEWED_EVERY = 5.0  # seconds
_LASTS = timedelta(seconds=30)  # since it was last renewed
_ASKED_EVERY = 0.25  # seconds


class Lease:
    """The right to do something, which the object under a key stands for.

    Args:
        objects: Of the bucket.
        key: Of the object.
        there: The time that the object store had `since` this one.
        since: On the monotonic clock.
    """

    def __init__(self, objects: Objects, key: str, there: datetime, since: float) -> None:
        self._objects = objects
        self._key = key
        self._there = there
        self._since = since
        self._next = 0.0
        self._word = secrets.token_bytes(16)
        self._ended = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        """Whether it has been taken, and not been given back."""
        return self._keeper is not None

    def take(self) -> bool:
        """Take the lease if nobody has it, and tell whether that is so; call it often."""
        if self._keeper is not None:
            return True
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _ASKED_EVERY
        if not self._create():
            found = self._objects.head(self._key)
            if found is not None and self._now() - found.modified < _LASTS:
                return False
            self._objects.delete([self._key])
            if not self._create():
                return False
        self._keeper = threading.Thread(target=self._keep, name="hashfs-lease", daemon=True)
        self._keeper.start()
        return True

    def end(self, *, delete: bool = True) -> None:
        """Give the lease back.

        Args:
            delete: Whether its object is to be deleted.
        """
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        self._ended.set()
        keeper.join()
        if delete:
            self._objects.delete([self._key])

    def _now(self) -> datetime:
        return self._there + timedelta(seconds=time.monotonic() - self._since)

    def _create(self) -> bool:
        try:
            self._objects.put(self._key, self._word, {}, create=True)
        except ExistsError:  # it may be this one's own, whose first answer was lost
            with contextlib.suppress(FileNotFoundError):
                return self._objects.read(self._key) == self._word
            return False
        return True

    def _keep(self) -> None:
        while not self._ended.wait(_RENEWED_EVERY):
            with contextlib.suppress(HashFSError):
                self._objects.put(self._key, self._word, {}, create=False)
