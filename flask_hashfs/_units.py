"""Sizes and counts in words, for messages."""

from __future__ import annotations

_UNITS = {
    "GB": 10**9,
    "GiB": 2**30,
    "MB": 10**6,
    "MiB": 2**20,
    "kB": 10**3,
    "KiB": 2**10,
}


def size(number: int) -> str:
    """Write a number of bytes, exactly, in the largest unit with at most one decimal.

    >>> size(50_000_000), size(1536), size(1), size(10_001)
    ('50 MB', '1.5 KiB', '1 byte', '10,001 bytes')
    """
    for unit, worth in _UNITS.items():
        if number >= worth and number * 10 % worth == 0:
            return f"{number / worth:,.1f}".removesuffix(".0") + f" {unit}"
    return counted(number, "byte")


def counted(number: int, noun: str) -> str:
    """Write a number of things, as in "1 content" and "2 contents"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
