"""What is logged for whoever keeps an app running: each kind of message once a minute at most.

A kind is told once a minute for each cause, which is mostly a store: a disk that fails would say
the same of every file. What is left out is logged as DEBUG, and counted in the next line.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

logger = logging.getLogger("flask_hashfs")

INTERVAL = 60.0
"""Seconds that must lie between two lines of one kind and cause."""

_KEPT = 200  # causes of which it is known when they were told last


class _Told(NamedTuple):
    at: float  # on the monotonic clock
    left_out: int  # since then


_watchers: list[Callable[[str], None]] = []
_told: dict[tuple[str, Hashable], _Told] = {}
_turns = [threading.Lock()]


def _after_fork() -> None:
    _turns[0] = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Message(NamedTuple):
    """One kind of message.

    Attributes:
        kind: The value of the field ``hashfs_kind``.
        level: Of the module `logging`.
        text: Names its fields as ``%(path)s``.
    """

    kind: str
    level: int
    text: str

    def log(self, cause: Hashable, **fields: Any) -> None:
        """Log the message, as DEBUG if it was told of `cause` within the last minute.

        Args:
            cause: What the message is told of once a minute: mostly the root of a store.
            fields: Of the text; each one is ``hashfs_<name>`` in the record, too.
        """
        for watcher in _watchers:
            watcher(self.kind)
        left_out = _take_turn((self.kind, cause))
        level = logging.DEBUG if left_out is None else self.level
        if not logger.isEnabledFor(level):
            return
        text = f"{self.text} (%(left_out)d more were left out)" if left_out else self.text
        fields = {name: _plain(value) for name, value in fields.items()}
        fields["left_out"] = left_out or 0
        extra = {f"hashfs_{name}": value for name, value in fields.items()}
        logger.log(level, text, fields, extra={"hashfs_kind": self.kind, **extra}, stacklevel=2)


def _plain(value: Any) -> Any:
    """Return what any logger can write."""
    return value if isinstance(value, (int, str)) else str(value)


def watch(function: Callable[[str], None]) -> None:
    """Call `function` with the kind of each message from now on, logged or left out."""
    _watchers.append(function)


def forget() -> None:
    """Let each message be logged again, as a new process would."""
    with _turns[0]:
        _told.clear()


def _take_turn(key: tuple[str, Hashable]) -> int | None:
    """Return how many lines were left out before this one, or None if this one is, too."""
    with _turns[0]:
        now, told = time.monotonic(), _told.get(key)
        if told is not None and now - told.at < INTERVAL:
            _told[key] = told._replace(left_out=told.left_out + 1)
            return None
        if len(_told) >= _KEPT:
            _told.clear()
        _told[key] = _Told(now, 0)
        return 0 if told is None else told.left_out


HEALED = Message(
    "healed",
    logging.WARNING,
    "%(path)s had %(stored)d bytes instead of %(size)d; it is replaced by the content put now",
)
DAMAGED = Message(
    "damaged", logging.ERROR, "%(path)s is damaged: its bytes are not those of its id"
)
UNREADABLE = Message("unreadable", logging.WARNING, "%(path)s cannot be read: %(error)s")
REJECTED = Message(
    "rejected", logging.WARNING, "An inspector of the store %(store)s refused content: %(error)s"
)
FAILING = Message("failing", logging.ERROR, "The store %(store)s does not work: %(error)s")
WORKING = Message("working", logging.INFO, "The store %(store)s works again")
UNAVAILABLE = Message("unavailable", logging.ERROR, "%(root)s is not available: %(error)s")
AVAILABLE = Message("available", logging.INFO, "%(root)s is available again")
FULL = Message("full", logging.ERROR, "The store is full: %(error)s")
PRUNED = Message("pruned", logging.INFO, "A prune of %(root)s deleted %(deleted)d contents")
SWEPT = Message("swept", logging.INFO, "%(swept)d left-overs in %(root)s were cleared")
NOT_RENEWED = Message(
    "not-renewed", logging.WARNING, "The age of %(path)s cannot be renewed: %(error)s"
)
NOT_RESTORED = Message(
    "not-restored",
    logging.WARNING,
    "%(id)s cannot be put back after an interrupted prune: %(error)s",
)
BLOCKED = Message(
    "blocked", logging.WARNING, "%(path)s stays there, since no file stands at %(target)s"
)
TAKEN = Message("taken", logging.WARNING, "%(path)s belongs to %(target)s, but that is taken")
OTHER_DISK = Message(
    "other-disk",
    logging.WARNING,
    "%(path)s is on another disk than its store and is left alone",
)
LEFT_OUT = Message("left-out", logging.WARNING, "%(path)s is left out: %(error)s")
NO_MODES = Message(
    "no-modes", logging.WARNING, "Files below %(root)s cannot be given modes: %(error)s"
)
PIECES_STAY = Message(
    "pieces-stay",
    logging.WARNING,
    "The pieces of the upload %(upload)s stay until it expires: %(error)s",
)
BYTES_LOST = Message(
    "bytes-lost", logging.WARNING, "The last bytes of the upload %(upload)s are lost: %(error)s"
)
CACHE_FAILING = Message(
    "cache-failing",
    logging.WARNING,
    "The cache %(folder)s fails, so the store answers directly: %(error)s",
)
UNANSWERED = Message(
    "unanswered",
    logging.WARNING,
    "%(root)s does not answer, so kept files are served without asking it: %(error)s",
)
UNKNOWN_KEY = Message(
    "unknown-key",
    logging.WARNING,
    "%(key)s is not a key of Flask-HashFS; is %(meant)s meant?",
)

MESSAGES = tuple(value for value in globals().values() if isinstance(value, Message))
"""Every kind there is."""
