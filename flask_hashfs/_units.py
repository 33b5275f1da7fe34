"""Numbers in messages: a size with its unit, a count with its noun."""

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
    """Return a number of bytes in words: exact, in the largest unit that needs one decimal at most.

    >>> size(50_000_000), size(1536), size(1), size(10_001)
    ('50 MB', '1.5 KiB', '1 byte', '10,001 bytes')
    """
    for unit, factor in _UNITS.items():
        if number >= factor and number * 10 % factor == 0:
            return f"{number / factor:,.1f}".removesuffix(".0") + f" {unit}"
    return counted(number, "byte")


def about(number: float) -> str:
    """Return a number of bytes in words, to a tenth of the largest unit that is not above it.

    >>> about(1), about(1536), about(57_629_577_216)
    ('1 byte', '1.5 KiB', '53.7 GiB')
    """
    if number < 1024:
        return counted(round(number), "byte")
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1024:
            return f"{number:.1f} {unit}"
    return f"{number / 1024:.1f} TiB"


def counted(number: int, noun: str) -> str:
    """Return a number of things in words, such as "1 content" or "2 contents"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
