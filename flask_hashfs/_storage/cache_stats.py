"""CacheStats: a cache in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheStats:
    """A cache in numbers.

    Attributes:
        hits: Look-ups to serve or open a file, in this process, that found it kept.
        misses: Those that did not.
        fills: Files that this process has fetched from the store and found whole.
        bytes: Of all kept files, whichever process keeps them.
        files: How many there are.
        evicted: Files that this process has deleted to make room.
        damaged: Times that this process got other bytes from the store than were put.
    """

    hits: int
    misses: int
    fills: int
    bytes: int
    files: int
    evicted: int
    damaged: int
