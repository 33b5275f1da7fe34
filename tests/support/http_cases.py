"""Requests for a stored file and the answers RFC 9110 wants, as tables free of any framework.

``CASES`` holds every case; ``check`` compares an answer with one. A range is written as in the
header (``0-4``), an expectation as what is sent: ``whole`` (200), ``none`` (416), or the parts of
the 206 in their order.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import BytesHeaderParser

from servers import Answer

SIZES = (0, 1, 10, 40_000, 3_000_000)
MAX_AGE = 31_536_000
POLICY = "default-src 'none'; media-src 'self'; sandbox allow-same-origin"


def content(size: int) -> bytes:
    """Make the same bytes without a pattern each time."""
    return random.Random(size).randbytes(size)


@dataclass(frozen=True)
class Case:
    """A request and its answer; ``{id}`` in a header is the file's id, ``{ID}`` in capitals."""

    size: int
    method: str
    headers: tuple[tuple[str, str], ...]
    status: int
    parts: tuple[tuple[int, int], ...] = ()

    def lines(self, id: str) -> list[tuple[str, str]]:
        return [
            (name, value.replace("{id}", id).replace("{ID}", id.upper()))
            for name, value in self.headers
        ]

    def __str__(self) -> str:
        fields = "; ".join(f"{name}: {value[:60]}" for name, value in self.headers)
        return f"{self.method} {self.size} [{fields}] -> {self.status} {self.parts}"


# --- ranges --------------------------------------------------------------------------------------

# Not valid, or of a unit nobody knows: as if the field were not there. Whole field values, of up
# to 8,000 characters: servers refuse longer ones.
IGNORED = (
    "",
    "bytes",
    "bytes=",
    "bytes=,",
    "bytes= , ,",
    "bytes=-",
    "bytes=--",
    "bytes=--1",
    "bytes=-1-",
    "bytes=-1-2",
    "bytes=0--1",
    "bytes=1-0",
    "bytes=5-4",
    "bytes=0-0,5-4",
    "bytes=5-4,0-0",
    "bytes=100-99",
    "bytes=0",
    "bytes=0,1",
    "bytes=0-0,x",
    "bytes=x",
    "bytes=a-b",
    "bytes=0-z",
    "bytes=z-0",
    "bytes=0x0-0x1",
    "bytes=+0-+1",
    "bytes=0-+1",
    "bytes=0_0-0_1",
    "bytes=1e0-2e0",
    "bytes=0.0-1.0",
    "bytes=0-0;q=1",
    "bytes=0-0 1-1",
    "bytes=0-0;1-1",
    "bytes=0 - 0",
    "bytes=0- 0",
    "bytes=0 -0",
    "bytes=- 1",
    "bytes= 0-0",
    "bytes =0-0",
    "bytes = 0-0",
    "bytes=\t0-0",
    "bytes:0-0",
    "bytes 0-0",
    "bytes 0-0/1",
    "bytes=0-0/1",
    "bytes=*",
    "bytes=*/1",
    "bytes==0-0",
    "bytes=bytes=0-0",
    "bytes=0-0,bytes=0-0",
    "bytes=\u00b2-\u00b3",
    "bytes=0-\u00b9",
    "bytes=\u00a00-0",
    "byte=0-0",
    "octets=0-0",
    "items=0-0",
    "none=0-0",
    "seconds=0-1",
    "x-bytes=0-0",
    "=0-0",
    "0-0",
    "-1",
    "-",
    ",",
    "*",
    "none",
    '"bytes=0-0"',
    f"bytes=2{'0' * 3999}-1{'0' * 3999}",
    f"bytes=1{'0' * 5000}-1",
    "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(500)),
    "bytes=" + ",".join(["0-"] * 500),
    "bytes=" + ",".join(["-1"] * 500),
    "bytes=" + ",".join(["0-0"] * 1000),
    "bytes=0-," + ",".join(f"5-{n}" for n in range(500)),
)

# Valid, for each size; without "bytes=".
RANGES: dict[int, tuple[tuple[str, str], ...]] = {
    0: (
        ("0-", "none"),
        ("0-0", "none"),
        ("0-9", "none"),
        ("1-", "none"),
        ("1-1", "none"),
        ("-0", "none"),
        ("0-0,1-1", "none"),
        ("0-,-0", "none"),
        (f"{'9' * 30}-", "none"),
        # RFC 9110 calls a suffix of any file satisfiable, but no Content-Range can say "nothing".
        ("-1", "whole"),
        ("-100", "whole"),
        (f"-{'9' * 5000}", "whole"),
        ("0-0,-1", "whole"),
    ),
    1: (
        ("0-", "0-0"),
        ("0-0", "0-0"),
        ("0-1", "0-0"),
        ("0-100", "0-0"),
        ("00-00", "0-0"),
        ("-1", "0-0"),
        ("-2", "0-0"),
        ("-100", "0-0"),
        ("-01", "0-0"),
        ("-0", "none"),
        ("-000", "none"),
        ("1-", "none"),
        ("1-1", "none"),
        ("1-2", "none"),
        ("2-3", "none"),
        ("100-", "none"),
        ("1-,-0", "none"),
        ("0-0,0-0", "0-0"),
        ("0-0,1-1", "0-0"),
        ("1-1,0-0", "0-0"),
        ("0-,-1", "0-0"),
        ("-0,-1", "0-0"),
        ("0-0,0-0,0-0", "whole"),
    ),
    10: (
        ("0-", "0-9"),
        ("0-9", "0-9"),
        ("0-10", "0-9"),
        ("0-11", "0-9"),
        ("0-0", "0-0"),
        ("0-1", "0-1"),
        ("0-4", "0-4"),
        ("0-8", "0-8"),
        ("1-", "1-9"),
        ("1-1", "1-1"),
        ("1-8", "1-8"),
        ("2-", "2-9"),
        ("3-7", "3-7"),
        ("5-5", "5-5"),
        ("5-1000", "5-9"),
        ("8-", "8-9"),
        ("9-", "9-9"),
        ("9-9", "9-9"),
        ("9-10", "9-9"),
        ("9-1000", "9-9"),
        ("0000-0004", "0-4"),
        (f"{'0' * 5000}1-{'0' * 2}2", "1-2"),
        (f"0-{'9' * 18}", "0-9"),
        (f"0-{'9' * 19}", "0-9"),
        (f"0-{2**63 - 1}", "0-9"),
        (f"0-{2**63}", "0-9"),
        (f"0-{2**64}", "0-9"),
        (f"3-{2**64 + 4}", "3-9"),
        (f"4-{'9' * 5000}", "4-9"),
        ("-1", "9-9"),
        ("-2", "8-9"),
        ("-5", "5-9"),
        ("-9", "1-9"),
        ("-10", "0-9"),
        ("-11", "0-9"),
        ("-1000", "0-9"),
        ("-0005", "5-9"),
        (f"-{2**63}", "0-9"),
        (f"-{2**64}", "0-9"),
        (f"-{'9' * 5000}", "0-9"),
        ("-0", "none"),
        ("-00", "none"),
        ("10-", "none"),
        ("10-10", "none"),
        ("10-11", "none"),
        ("11-", "none"),
        ("11-12", "none"),
        ("11-100", "none"),
        ("100-", "none"),
        ("100-1000", "none"),
        (f"{2**63}-", "none"),
        (f"{2**64}-", "none"),
        (f"{2**64}-{2**64 + 1}", "none"),
        (f"{'9' * 5000}-", "none"),
        ("10-10,11-11", "none"),
        ("10-,-0", "none"),
        ("-0,-0", "none"),
        # several: those that miss the file are left out
        ("0-0,10-10", "0-0"),
        ("10-10,0-0", "0-0"),
        ("100-,3-4,-0", "3-4"),
        ("-0,0-0", "0-0"),
        ("0-0,2-2", "0-0 2-2"),
        ("0-1,4-5", "0-1 4-5"),
        ("0-1,5-8", "0-1 5-8"),
        ("0-1,5-", "0-1 5-9"),
        ("0-0,-1", "0-0 9-9"),
        ("0-0,-2", "0-0 8-9"),
        ("0-0,9-9", "0-0 9-9"),
        ("1-2,4-5,7-8", "1-2 4-5 7-8"),
        ("0-0,2-2,4-4,6-6,8-8", "0-0 2-2 4-4 6-6 8-8"),
        # in the order asked for
        ("5-6,0-1", "5-6 0-1"),
        ("-1,0-0", "9-9 0-0"),
        ("8-,4-5,0-1", "8-9 4-5 0-1"),
        ("7-8,100-,0-0", "7-8 0-0"),
        # overlapping or touching: one part, where the first was asked for
        ("0-4,2-6", "0-6"),
        ("2-6,0-4", "0-6"),
        ("0-5,3-9", "0-9"),
        ("0-4,5-9", "0-9"),
        ("0-0,1-1", "0-1"),
        ("0-0,0-0", "0-0"),
        ("0-9,2-3", "0-9"),
        ("2-3,0-9", "0-9"),
        ("0-,-1", "0-9"),
        ("-3,-1", "7-9"),
        ("8-8,0-1,1-2", "8-8 0-2"),
        ("1-2,8-8,2-3", "1-3 8-8"),
        ("4-5,0-0,5-6,1-1", "4-6 0-1"),
        # more than two and more bytes than the file has
        ("0-,1-,2-,3-,4-", "whole"),
        ("0-,0-,0-", "whole"),
        ("0-9,0-9,0-9", "whole"),
        ("-10,-10,-10", "whole"),
        # white space and empty members around commas
        ("0-0 , 2-2", "0-0 2-2"),
        ("0-0\t,\t2-2", "0-0 2-2"),
        ("0-0,  2-2", "0-0 2-2"),
        ("0-4,", "0-4"),
        ("0-4 ,", "0-4"),
        (",0-4", "0-4"),
        (" ,0-4", "0-4"),
        (",,0-0,,2-2,,", "0-0 2-2"),
        (" , 0-0 , , 2-2 , ", "0-0 2-2"),
    ),
    40_000: (
        ("0-", "0-39999"),
        ("0-0", "0-0"),
        ("0-499", "0-499"),
        ("500-999", "500-999"),
        ("0-39998", "0-39998"),
        ("0-39999", "0-39999"),
        ("0-40000", "0-39999"),
        ("1-", "1-39999"),
        ("8191-8192", "8191-8192"),
        ("16383-16384", "16383-16384"),
        ("20000-", "20000-39999"),
        ("39999-", "39999-39999"),
        ("39999-40000", "39999-39999"),
        ("-1", "39999-39999"),
        ("-500", "39500-39999"),
        ("-39999", "1-39999"),
        ("-40000", "0-39999"),
        ("-40001", "0-39999"),
        ("-0", "none"),
        ("40000-", "none"),
        ("40000-40000", "none"),
        ("50000-60000", "none"),
        ("0-99,200-299", "0-99 200-299"),
        ("0-0,-1", "0-0 39999-39999"),
        ("500-600,601-999", "500-999"),
        ("500-700,601-999", "500-999"),
        ("0-99,50-149", "0-149"),
        ("0-100,70-100,1000-1001", "0-100 1000-1001"),
        ("1-90,70-100,1000-1001,5-6", "1-100 1000-1001"),
        ("1-90,70-100,1000-1001,200-206", "1-100 1000-1001 200-206"),
        ("1000-1001,1-70,71-100", "1000-1001 1-100"),
        ("1000-1001,1-70,72-100", "1000-1001 1-70 72-100"),
        ("0-9,-10,10-19", "0-19 39990-39999"),
        ("0-9,-10,100000-,20-29", "0-9 39990-39999 20-29"),
        ("0-19998,20000-", "0-19998 20000-39999"),
        ("20000-29999,100-199,-10", "20000-29999 100-199 39990-39999"),
        ("39000-,0-99,100-199", "39000-39999 0-199"),
        ("0-0,100-100,40000-,200-200", "0-0 100-100 200-200"),
        (
            ",".join(f"{1000 * n}-{1000 * n + 9}" for n in range(20)),
            " ".join(f"{1000 * n}-{1000 * n + 9}" for n in range(20)),
        ),
        (",".join(f"{n}-" for n in range(5)), "whole"),
        (",".join(["0-39999"] * 4), "whole"),
    ),
    3_000_000: (
        ("0-", "0-2999999"),
        ("0-0", "0-0"),
        ("0-2999998", "0-2999998"),
        ("0-2999999", "0-2999999"),
        ("0-3000000", "0-2999999"),
        ("1-", "1-2999999"),
        ("1048575-1048576", "1048575-1048576"),
        ("262143-524288", "262143-524288"),
        ("1500000-", "1500000-2999999"),
        ("2999999-", "2999999-2999999"),
        ("-1", "2999999-2999999"),
        ("-1000000", "2000000-2999999"),
        ("-2999999", "1-2999999"),
        ("-3000000", "0-2999999"),
        ("-3000001", "0-2999999"),
        ("-0", "none"),
        ("3000000-", "none"),
        ("3000000-4000000", "none"),
        ("0-0,-1", "0-0 2999999-2999999"),
        ("0-999999,2000000-2999999", "0-999999 2000000-2999999"),
        ("2000000-2999999,0-999999", "2000000-2999999 0-999999"),
        ("0-1999999,1000000-2999999", "0-2999999"),
        ("0-1499999,1500000-", "0-2999999"),
        ("1000000-1000009,5-6,1000010-1000019", "1000000-1000019 5-6"),
        ("0-,0-,0-,0-,0-,0-", "whole"),
    ),
}

UNITS = ("bytes", "Bytes", "BYTES", "bYtEs")


def _ranges() -> Iterator[Case]:
    for size in SIZES:
        for text, sent in RANGES[size]:
            yield _ranged(size, (("Range", f"bytes={text}"),), sent)
        for value in IGNORED if size < 100_000 else IGNORED[::5]:
            yield _ranged(size, (("Range", value),), "whole")
        for unit in UNITS:
            sent = "0-0" if size else "none"
            yield _ranged(size, (("Range", f"{unit}=0-0"),), sent)
        # Two lines are no list, also where a server has joined them with a comma.
        for lines in (("bytes=0-0", "bytes=0-0"), ("bytes=0-0", "bytes=2-2"), ("bytes=0-0", "x=1")):
            yield _ranged(size, tuple(("Range", line) for line in lines), "whole")
        for text, _ in RANGES[size][:8]:  # defined for GET only
            yield Case(size, "HEAD", (("Range", f"bytes={text}"),), 200)
        yield Case(size, "HEAD", (("Range", "bytes=99999999-"),), 200)


def _ranged(size: int, headers: tuple[tuple[str, str], ...], sent: str) -> Case:
    if sent == "whole":
        return Case(size, "GET", headers, 200, ((0, size),))
    if sent == "none":
        return Case(size, "GET", headers, 416)
    parts = (part.split("-") for part in sent.split(" "))
    return Case(size, "GET", headers, 206, tuple((int(a), int(b) + 1) for a, b in parts))


# --- conditions ----------------------------------------------------------------------------------

PAST = "Thu, 01 Jan 1970 00:00:00 GMT"
FUTURE = "Fri, 31 Dec 2999 23:59:59 GMT"
OTHER = '"0123456789abcdef"'

# Lists of tags: the field's lines, whether they name the file strongly, whether weakly.
TAGS: tuple[tuple[tuple[str, ...], bool, bool], ...] = (
    (('"{id}"',), True, True),
    (("*",), True, True),
    (("*", "*"), True, True),
    (('"{id}"', OTHER), True, True),
    ((OTHER, '"{id}"'), True, True),
    ((OTHER, OTHER, '"{id}"', OTHER), True, True),
    ((OTHER, 'W/"{id}"'), False, True),
    ((f'{OTHER}, "{{id}}"',), True, True),
    ((f'"{{id}}",{OTHER}',), True, True),
    ((f'{OTHER}\t,\t"{{id}}"',), True, True),
    ((f', ,{OTHER}, , "{{id}}",,',), True, True),
    ((f'W/{OTHER}, W/"x", "{{id}}"',), True, True),
    (('"a,b", "{id}"',), True, True),
    (('"a, b", "{id}"',), True, True),
    (('W/"a,b","{id}"',), True, True),
    (('"", "{id}"',), True, True),
    (('garbage, "{id}"',), True, True),
    (('"\u00e9", "{id}"',), True, True),
    (('W/"{id}"',), False, True),
    ((f'{OTHER}, W/"{{id}}"',), False, True),
    (('W/"{id}", W/"{id}"',), False, True),
    (('W/"{id}", "{id}"',), True, True),
    ((OTHER,), False, False),
    ((f"W/{OTHER}",), False, False),
    ((f"{OTHER}, {OTHER}",), False, False),
    (("",), False, False),
    ((",",), False, False),
    (('""',), False, False),
    (('W/""',), False, False),
    (("{id}",), False, False),
    (("W/{id}",), False, False),
    (("'{id}'",), False, False),
    (('"{id}',), False, False),
    (('{id}"',), False, False),
    (('"{id}"x',), False, False),
    (('x"{id}"',), False, False),
    (('""{id}""',), False, False),
    (('" {id}"',), False, False),
    (('"{id} "',), False, False),
    (('"{id}-gzip"',), False, False),
    (('"x{id}"',), False, False),
    (('"{ID}"',), False, False),
    (('w/"{id}"',), False, False),
    (('W "{id}"',), False, False),
    (('W / "{id}"',), False, False),
    (('W/W/"{id}"',), False, False),
    ((f'{OTHER} "{{id}}"',), False, False),
    ((f'{OTHER}; "{{id}}"',), False, False),
    (('"*"',), False, False),
    (('W/"*"',), False, False),
    (("W/*",), False, False),
    (("**",), False, False),
    (("garbage",), False, False),
    (('"',), False, False),
    (('"""',), False, False),
    (("W/",), False, False),
    (("\\",), False, False),
    (('"\\"{id}\\""',), False, False),
    (("\u00ff\u00fe",), False, False),
    ((PAST,), False, False),
    ((FUTURE,), False, False),
    ((",".join(["x"] * 2000),), False, False),
    (('"' * 4000,), False, False),
)

# The file has no date: whatever they say, nothing changes.
DATES: tuple[tuple[str, str], ...] = tuple(
    (name, value)
    for name in ("If-Modified-Since", "If-Unmodified-Since")
    for value in (PAST, FUTURE, "0", "garbage", "", "Thu, 32 Foo 1970 99:99:99 GMT")
)

# If-Range takes one strong tag and nothing else.
IF_RANGE: tuple[tuple[tuple[str, ...], bool], ...] = (
    (('"{id}"',), True),
    (('W/"{id}"',), False),
    ((OTHER,), False),
    ((f"W/{OTHER}",), False),
    (("{id}",), False),
    (('"{id}',), False),
    (('"{id}"x',), False),
    ((f'"{{id}}", {OTHER}',), False),
    (('"{id}", "{id}"',), False),
    (('"{id}"', '"{id}"'), False),
    (("*",), False),
    (('""',), False),
    (("",), False),
    (("garbage",), False),
    ((PAST,), False),
    ((FUTURE,), False),
    (("Thu, 01 Jan 1970",), False),
)


def _conditions() -> Iterator[Case]:
    for size in SIZES:
        # What a field says does not hang on the size: all of it for one, some for the others.
        for lines, strong, weak in TAGS if size == 10 else TAGS[::7]:
            match = tuple(("If-Match", line) for line in lines)
            none_match = tuple(("If-None-Match", line) for line in lines)
            yield from _all_ways(size, match, 0 if strong else 412)
            yield from _all_ways(size, none_match, 304 if weak else 0)
        for date in DATES if size == 10 else DATES[::5]:
            yield from _all_ways(size, (date,), 0)
            yield from _all_ways(size, (date, ("If-Match", '"{id}"')), 0)
            yield from _all_ways(size, (date, ("If-None-Match", OTHER)), 0)
            yield Case(size, "GET", (date, ("If-None-Match", '"{id}"')), 304)
            yield Case(size, "GET", (date, ("If-Match", OTHER)), 412)
        yield from _both(size)
        for lines, matches in IF_RANGE:
            yield from _if_range(size, tuple(("If-Range", line) for line in lines), matches)


def _all_ways(size: int, headers: tuple[tuple[str, str], ...], stop: int) -> Iterator[Case]:
    """A condition alone, with HEAD, and beside ranges of every kind; 304 and 412 win."""
    inside = "0-0" if size else "none"
    for extra, sent in (
        ((), "whole"),
        ((("Range", "bytes=0-0"),), inside),
        ((("Range", f"bytes={size}-"),), "none"),
        ((("Range", "bytes=0-0"), ("If-Range", '"{id}"')), inside),
        ((("Range", "bytes=0-0"), ("If-Range", OTHER)), "whole"),
    ):
        if stop:
            yield Case(size, "GET", (*headers, *extra), stop)
        elif size < 100_000 or sent != "whole":  # megabytes prove no more here
            yield _ranged(size, (*headers, *extra), sent)
    yield Case(size, "HEAD", headers, stop or 200)
    yield Case(size, "HEAD", (("Range", "bytes=0-0"), *headers), stop or 200)


def _both(size: int) -> Iterator[Case]:
    """If-Match goes first, whatever the order of the lines."""
    for match, passes in (('"{id}"', True), ("*", True), (OTHER, False), ('W/"{id}"', False)):
        for none_match, fresh in (
            ('"{id}"', True),
            ("*", True),
            ('W/"{id}"', True),
            (OTHER, False),
        ):
            fields = (("If-Match", match), ("If-None-Match", none_match))
            stop = 412 if not passes else 304 if fresh else 0
            yield from _all_ways(size, fields, stop)
            yield from _all_ways(size, fields[::-1], stop)


def _if_range(size: int, fields: tuple[tuple[str, str], ...], matches: bool) -> Iterator[Case]:
    yield _ranged(size, fields, "whole")  # means nothing without Range
    yield Case(size, "HEAD", fields, 200)
    yield Case(size, "HEAD", (*fields, ("Range", "bytes=0-0")), 200)
    for text, sent in RANGES[size][: 12 if size < 100_000 else 3]:
        yield _ranged(size, (*fields, ("Range", f"bytes={text}")), sent if matches else "whole")
    yield _ranged(size, (*fields, ("Range", "bytes=5-4")), "whole")
    yield _ranged(size, (*fields, ("Range", f"bytes={size}-")), "none" if matches else "whole")


def _plain() -> Iterator[Case]:
    """Fields that must not change the answer."""
    for size in SIZES:
        yield _ranged(size, (), "whole")
        yield Case(size, "HEAD", (), 200)
        for field in (
            ("Want-Repr-Digest", "sha-256=10"),
            ("Want-Repr-Digest", "sha-512=3, sha-256=0"),
            ("Want-Repr-Digest", "((("),
            ("Want-Repr-Digest", "\u00ff=\u00ff"),
            ("Want-Repr-Digest", ""),
            ("Want-Content-Digest", "?"),
            ("Accept-Encoding", "gzip, br;q=0.5, *;q=0"),
            ("Accept-Encoding", "identity;q=0"),
            ("Accept", "text/html"),
            ("Accept", ";;;"),
            ("Accept-Charset", "utf-16"),
            ("Cache-Control", "no-cache"),
            ("Cache-Control", "only-if-cached, max-stale=\u00b2"),
            ("Pragma", "no-cache"),
            ("TE", "trailers, deflate"),
            ("Content-Range", "bytes 0-0/1"),
            ("Request-Range", "bytes=0-0"),
        ):
            yield _ranged(size, (field,), "whole")


CASES: tuple[Case, ...] = (*_plain(), *_ranges(), *_conditions())


# --- checking ------------------------------------------------------------------------------------

SECURITY = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": POLICY}
# What an error must not say about a file.
OF_THE_FILE = (
    "Accept-Ranges",
    "Cache-Control",
    "Content-Digest",
    "Content-Disposition",
    "Content-Security-Policy",
    "ETag",
    "Expires",
    "Last-Modified",
    "Repr-Digest",
    "X-Content-Type-Options",
)


def check(
    case: Case,
    answer: Answer,
    data: bytes,
    *,
    mimetype: str = "application/octet-stream",
    disposition: str | None = None,
    cache_control: str = f"max-age={MAX_AGE}, immutable",
) -> None:
    """Compare an answer with what the case wants, header by header and byte by byte.

    Args:
        case: The case.
        answer: What the server said.
        data: The file's content.
        mimetype: The Content-Type wanted.
        disposition: The Content-Disposition wanted; None: any.
        cache_control: The Cache-Control wanted.
    """
    assert answer.status == case.status, f"{case}: {answer.status}"
    absent: tuple[str, ...] = ("Last-Modified", "Expires", "Content-Encoding")
    if answer.status in {412, 416}:
        check_error(answer)
        wanted = f"bytes */{case.size}" if answer.status == 416 else None
        assert answer.get("Content-Range") == wanted, case
        return
    for name, value in SECURITY.items():
        assert answer.get(name) == value, (case, name)
    digest = hashlib.sha256(data)
    assert answer.get("ETag") == f'"{digest.hexdigest()}"', case
    assert answer.get("Cache-Control") == cache_control, case
    if answer.status == 304:
        absent += ("Content-Length", "Content-Type", "Content-Range", "Content-Disposition")
        absent += ("Repr-Digest", "Transfer-Encoding")
        assert answer.body == b"", case
    else:
        coded = base64.b64encode(digest.digest()).decode()
        assert answer.get("Repr-Digest") == f"sha-256=:{coded}:", case
        assert answer.get("Accept-Ranges") == "bytes", case
        found = answer.get("Content-Disposition")
        assert found is not None, case
        assert disposition in {None, found}, (case, found)
        _check_body(case, answer, data, mimetype)
    for name in absent:
        assert answer.get(name) is None, (case, name)


def check_error(answer: Answer) -> None:
    """Check that an error keeps silent about files and is framed properly."""
    for name in OF_THE_FILE:
        assert answer.get(name) is None, (name, answer.headers)
    if answer.body or answer.get("Transfer-Encoding") is None:
        length = answer.get("Content-Length")
        assert length is None or not answer.body or int(length) == len(answer.body)


def _check_body(case: Case, answer: Answer, data: bytes, mimetype: str) -> None:
    if case.method == "HEAD":
        assert answer.body == b"", case
        assert answer.get("Content-Length") == str(case.size), case
        assert answer.get("Content-Type") == mimetype, case
        assert answer.get("Content-Range") is None, case
        return
    assert answer.get("Content-Length") == str(len(answer.body)), case
    assert answer.get("Transfer-Encoding") is None, case
    if len(case.parts) > 1:
        assert answer.get("Content-Range") is None, case
        parts = parse_byteranges(answer)
        assert [part.get("Content-Type") for part in parts] == [mimetype] * len(parts), case
        ranges = [part.get("Content-Range") for part in parts]
        assert ranges == [f"bytes {a}-{b - 1}/{case.size}" for a, b in case.parts], case
        same = [part.body for part in parts] == [data[a:b] for a, b in case.parts]
        assert same, case
        return
    start, stop = next(iter(case.parts))
    assert answer.get("Content-Type") == mimetype, case
    partial = f"bytes {start}-{stop - 1}/{case.size}" if answer.status == 206 else None
    assert answer.get("Content-Range") == partial, case
    same = answer.body == data[start:stop]  # outside of the assert: pytest would print megabytes
    assert same, case


def parse_byteranges(answer: Answer) -> list[Answer]:
    """Take a multipart/byteranges answer apart, as strictly as the format allows."""
    kind, _, boundary = (answer.get("Content-Type") or "").partition("; boundary=")
    assert kind == "multipart/byteranges"
    assert 1 <= len(boundary) <= 70
    assert set(boundary) <= set("0123456789abcdefghijklmnopqrstuvwxyz'()+_,-./:=?")
    first = f"--{boundary}\r\n".encode()
    last = f"\r\n--{boundary}--\r\n".encode()
    assert answer.body.startswith(first)
    assert answer.body.endswith(last)
    inner = answer.body[len(first) : -len(last)]
    return [_parse_part(part) for part in inner.split(b"\r\n" + first)]


def _parse_part(part: bytes) -> Answer:
    head, _, body = part.partition(b"\r\n\r\n")
    assert b"\n" not in head.replace(b"\r\n", b"")
    fields: Iterable[tuple[str, str]] = BytesHeaderParser().parsebytes(head + b"\r\n\r\n").items()
    return Answer(206, [(name, str(value)) for name, value in fields], body)


# --- what is not there ---------------------------------------------------------------------------

# Below the route of the files. {id} and {path} are those of a stored file, {folder} is the path's
# folder, {root} the store's root without its leading slash.
NOT_STORED: tuple[str, ...] = (
    "",
    "nothing",
    "nothing.bin",
    "0" * 64,
    "{id}x",
    "{id}.bin",
    "{id}.txt",
    "{id}/",
    "{id}%20",
    "%20{id}",
    "{id}%00",
    "{id}%0a",
    "{id}%0d%0aX-Injected:%201",
    "{ID}",
    "{path}x",
    "{path}/",
    "{path}/.",
    "{path}/..",
    "{path}/x",
    "{path}%00",
    "{path}%00.txt",
    "{path}%2f",
    "{folder}",
    "{folder}/",
    "{folder}/.",
    "{folder}/*",
    "{folder}/%2a",
    "{folder}/%3f%3f",
    "{folder}/[0-9a-f]*",
    "{folder}/link.bin",
    "{folder}/pipe.bin",
    "*",
    "%2a%2a/%2a",
    ".",
    "..",
    "./",
    "../",
    "./{path}",
    "%2e/{path}",
    "a/../{path}",
    "{folder}/../../{path}",
    "%2e%2e/{path}",
    "..%2f{path}",
    "../../../../../../../../etc/passwd",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "%2E%2E%2F%2E%2E%2F%2E%2E%2F%2E%2E%2F%2E%2E%2F%2E%2E%2Fetc%2Fpasswd",
    "..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "..%5c..%5c..%5cetc%5cpasswd",
    "..\\..\\..\\etc\\passwd",
    "%252e%252e/%252e%252e/etc/passwd",
    "%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
    "....//....//....//etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "%2f%2fetc%2fpasswd",
    "etc/passwd",
    "file:///etc/passwd",
    "~root/.profile",
    "C:%5cWindows%5cwin.ini",
    "/{root}/{path}",
    "%2f{root}/{path}",
    "{root}/{path}",
    "/{root}/secret.txt",
    "%2f{root}/../secret.txt",
    "../secret.txt",
    "..%2fsecret.txt",
    "stray.txt",
    "stray",
    "a/stray.txt",
    ".hashfs",
    ".hashfs/",
    ".hashfs/kept",
    ".hashfs/../{path}",
    "%00",
    "%ff%fe",
    "%ed%a0%80",
    "%",
    "%zz",
    "%e2%80%ae",
    "caf%c3%a9",
    "a" * 255,
    "a" * 300,
    "a/" * 1000,
    "..%2f" * 500 + "etc/passwd",
    "{id}" * 20,
)

# Beside 404: a server that refuses such a path itself, or a framework that tidies it up first.
REFUSALS = frozenset({404, 400, 308, 414})
