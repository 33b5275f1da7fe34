"""The first look of a verify, which tells damaged files from wrong settings."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from ..exceptions import ConfigError

T = TypeVar("T")


class FirstLook(Generic[T]):
    """Holds back what is damaged until it is clear that the store's settings are right.

    Where not even one of the first `FIRST` files is whole, it is not the disk that is at fault:
    with another ``HASHFS_ALGORITHM`` every file of a store seems to be damaged.

    Args:
        algorithm: The one that the files were hashed with, for the message.
        is_trusted: Whether to hold nothing back.
    """

    FIRST = 20

    def __init__(self, algorithm: str, is_trusted: bool) -> None:
        self._algorithm = algorithm
        self._is_trusted = is_trusted
        self._is_refused = False
        self._held: list[T] = []
        self._lock = threading.Lock()

    @property
    def is_over(self) -> bool:
        """Whether it is known by now if the settings are right."""
        return self._is_trusted or self._is_refused

    def damaged(self, item: T) -> list[T]:
        """Note that `item` is damaged.

        Returns:
            What can be moved now.

        Raises:
            ConfigError: Nothing that was looked at is whole.
        """
        with self._lock:
            if self._is_trusted:
                return [item]
            self._held.append(item)
            if len(self._held) < self.FIRST or self._is_refused:
                return []
            self._is_refused = True
        raise ConfigError(
            f"none of the first {self.FIRST} files has the {self._algorithm} hash that its name "
            "claims, so HASHFS_ALGORITHM is probably not the one that they were stored with; "
            "nothing was moved: go on with force=True, or --force, if they really are damaged"
        )

    def whole(self) -> list[T]:
        """Note that something is whole.

        Returns:
            What can be moved now.
        """
        return [] if self._is_trusted else self.rest()

    def rest(self) -> list[T]:
        """Return all that was held back and can be moved, since something is whole or it is all."""
        with self._lock:
            if self._is_refused:
                return []
            self._is_trusted = True
            held, self._held = self._held, []
            return held

    def dropped(self) -> list[T]:
        """Return all that was held back and is not to be moved any more."""
        with self._lock:
            self._is_refused = True
            held, self._held = self._held, []
            return held
