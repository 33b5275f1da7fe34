"""The Range field: parsed, fitted to a file's size, and merged; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MAX_RANGES", "ByteRange", "requested"]

# More ranges than any honest client asks for at once; each costs a part header of about 150 bytes.
MAX_RANGES = 50


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes of a file from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.stop - self.start


def requested(lines: list[str], size: int) -> list[ByteRange] | None:
    """Find the ranges of a file that a request asks for (RFC 9110, sections 14.1 and 14.2).

    Args:
        lines: The values of the request's Range fields.
        size: Bytes of the file.

    Returns:
        The ranges, merged, in the order asked for; empty when none can be satisfied; None when
        the whole file is wanted or the field is to be ignored.
    """
    specs = _parse(lines[0]) if len(lines) == 1 else None
    if specs is None:
        return None
    if not size and any(first is None and last for first, last in specs):
        return None  # the last N bytes of nothing: satisfiable, yet no Content-Range can say so
    ranges = [wanted for wanted in (_resolve(*spec, size) for spec in specs) if wanted.size > 0]
    if len(ranges) > 2 and sum(wanted.size for wanted in ranges) > size:
        return None  # more bytes than the file has, out of many overlaps: a way to wear us out
    return _merge(ranges)


_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_FAR = 10**19  # beyond the end of any file


def _parse(field: str) -> list[tuple[int | None, int | None]] | None:
    """Parse a Range field into first and last positions; None when it is not valid."""
    unit, _, range_set = field.partition("=")
    if unit.lower() != "bytes":
        return None
    items = range_set.split(",")
    if items[0].strip(" \t") and items[0][0] in " \t":
        return None  # whitespace is allowed around commas only
    texts = [item.strip(" \t") for item in items]
    specs = [_parse_spec(text) for text in texts if text]
    if not 0 < len(specs) <= MAX_RANGES:
        return None
    valid = [spec for spec in specs if spec]
    return valid if len(valid) == len(specs) else None


def _parse_spec(text: str) -> tuple[int | None, int | None] | None:
    match = _SPEC.fullmatch(text)
    if match is None or text == "-":
        return None
    first, last = (digits and (digits.lstrip("0") or "0") for digits in match.groups())
    # Compared as text, since int() refuses thousands of digits.
    if first and last and (len(last), last) < (len(first), first):
        return None
    return _position(first), _position(last)


def _position(digits: str) -> int | None:
    if not digits:
        return None
    return int(digits) if len(digits) < 20 else _FAR


def _resolve(first: int | None, last: int | None, size: int) -> ByteRange:
    """Fit a first and last position, or a suffix, to the file; empty where they miss it."""
    if first is None:
        return ByteRange(max(size - (last or 0), 0), size)
    return ByteRange(first, size if last is None else min(last + 1, size))


def _merge(ranges: list[ByteRange]) -> list[ByteRange]:
    """Merge ranges that overlap or touch; each stands where its first part was asked for."""
    merged: list[tuple[int, ByteRange]] = []
    for place, wanted in sorted(enumerate(ranges), key=lambda item: item[1].start):
        if merged and wanted.start <= merged[-1][1].stop:
            before, last = merged.pop()
            place = min(before, place)
            wanted = ByteRange(last.start, max(last.stop, wanted.stop))
        merged.append((place, wanted))
    return [wanted for _, wanted in sorted(merged, key=lambda item: item[0])]
