"""The HTTP plan: which status, headers and bytes answer a request for a stored file; pure.

Nothing here reads a file or a socket. The senders open and measure the file, ask for a plan and
carry it out.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

__all__ = [
    "ByteRange",
    "Plan",
    "Representation",
    "expected_digest",
    "plan",
]

# Uploaded HTML and SVG get an empty policy in a sandbox without scripts. The page's own origin
# stays, as browsers refuse to show PDFs and to seek in media under an opaque one.
CONTENT_SECURITY_POLICY = "default-src 'none'; media-src 'self'; sandbox allow-same-origin"

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


@dataclass(frozen=True, slots=True)
class Representation:
    """What a plan needs to know about the stored file and about how the app wants it served.

    Attributes:
        id: The content's hash id, in hex.
        size: Bytes of the content.
        algorithm: The hash algorithm's name, as in ``HASHFS_ALGORITHM``.
        mimetype: The type without parameters; text gets ``charset=utf-8``.
        filename: The name offered for saving; None leaves it out.
        inline: Whether the browser may show the file rather than download it.
        max_age: Seconds a cache may keep the answer; None: it has to ask each time.
        immutable: Whether the request's URL can never mean another file.
        private: Whether shared caches must not keep the answer.
    """

    id: str
    size: int
    algorithm: str
    mimetype: str
    filename: str | None
    inline: bool
    max_age: int | None
    immutable: bool
    private: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole response: its status, its headers, and its body as bytes and ranges of the file.

    An empty ``body`` means that nothing of the file is sent and it need not be read.
    """

    status: int
    headers: list[tuple[str, str]]
    body: tuple[bytes | ByteRange, ...]


def plan(method: str, headers: Headers, representation: Representation) -> Plan:
    """Decide how to answer a request for a stored file (RFC 9110, sections 13 to 15).

    Conditions are evaluated for GET and HEAD only, ranges for GET only. The file has no
    Last-Modified date, so conditions on dates are ignored.

    Args:
        method: The request's method.
        headers: The request's headers; any text in them is safe.
        representation: The file asked for, which exists.

    Returns:
        The plan to carry out.
    """
    fields = _relevant(headers)
    etag = f'"{representation.id}"'
    if method in {"GET", "HEAD"}:
        if "if-match" in fields and not _names(fields["if-match"], etag, weak=False):
            return Plan(412, [("Content-Length", "0")], ())
        if "if-none-match" in fields and _names(fields["if-none-match"], etag, weak=True):
            return Plan(304, [*_caching(representation), *_security()], ())
    ranges = _requested_ranges(fields, etag, representation.size) if method == "GET" else None
    if ranges is None:
        return _whole(method, representation)
    if not ranges:
        unsatisfied = ("Content-Range", f"bytes */{representation.size}")
        return Plan(416, [unsatisfied, ("Content-Length", "0")], ())
    if len(ranges) == 1:
        return _single(ranges[0], representation)
    return _multiple(ranges, representation)


def _whole(method: str, representation: Representation) -> Plan:
    headers = [
        ("Content-Type", _content_type(representation.mimetype)),
        ("Content-Length", str(representation.size)),
        *_describing(representation),
    ]
    if method == "HEAD" or not representation.size:
        return Plan(200, headers, ())
    return Plan(200, headers, (ByteRange(0, representation.size),))


def _single(wanted: ByteRange, representation: Representation) -> Plan:
    headers = [
        ("Content-Type", _content_type(representation.mimetype)),
        ("Content-Length", str(wanted.size)),
        ("Content-Range", _content_range(wanted, representation)),
        *_describing(representation),
    ]
    return Plan(206, headers, (wanted,))


def _multiple(ranges: list[ByteRange], representation: Representation) -> Plan:
    # Uploaded bytes cannot contain a boundary that is only drawn now.
    boundary = secrets.token_hex(16)
    body: list[bytes | ByteRange] = []
    for wanted in ranges:
        head = (
            f"--{boundary}\r\n"
            f"Content-Type: {_content_type(representation.mimetype)}\r\n"
            f"Content-Range: {_content_range(wanted, representation)}\r\n"
            "\r\n"
        )
        body += [(f"\r\n{head}" if body else head).encode("latin-1"), wanted]
    body.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    length = sum(item.size if isinstance(item, ByteRange) else len(item) for item in body)
    headers = [
        ("Content-Type", f"multipart/byteranges; boundary={boundary}"),
        ("Content-Length", str(length)),
        *_describing(representation),
    ]
    return Plan(206, headers, tuple(body))


# --- the request ---------------------------------------------------------------------------------

_RELEVANT = frozenset({"if-match", "if-none-match", "if-range", "range"})


def _relevant(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Collect the lines of the fields that matter, in one pass (a WSGI environ has no index)."""
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        key = name.lower()
        if key in _RELEVANT:
            fields.setdefault(key, []).append(value.strip(" \t"))
    return fields


# A quoted tag may hold commas; whatever is no tag runs to the next comma and matches nothing.
_LIST_MEMBER = re.compile(r'[ \t]*(?:W/)?"[^"]*"(?=[ \t]*(?:,|\Z))|[^,]+')


def _names(lines: list[str], etag: str, *, weak: bool) -> bool:
    """Tell whether the lines of an If-Match or If-None-Match field name the file's strong tag."""
    found = (member.strip(" \t") for member in _LIST_MEMBER.findall(",".join(lines)))
    members = {member for member in found if member}
    return members == {"*"} or etag in members or (weak and f"W/{etag}" in members)


def _requested_ranges(fields: dict[str, list[str]], etag: str, size: int) -> list[ByteRange] | None:
    """Find the ranges to send.

    Returns:
        The ranges, merged, in the order asked for; empty when none can be satisfied; None when
        the whole file is wanted or the field is to be ignored.
    """
    lines = fields.get("range", ())
    # A date, a weak tag, a list or garbage in If-Range never match.
    if len(lines) != 1 or fields.get("if-range", [etag]) != [etag]:
        return None
    specs = _parse_range(lines[0])
    if specs is None:
        return None
    if not size and any(first is None and last for first, last in specs):
        return None  # the last N bytes of nothing: satisfiable, yet no Content-Range can say so
    ranges = [wanted for wanted in (_resolve(*spec, size) for spec in specs) if wanted.size > 0]
    if len(ranges) > 2 and sum(wanted.size for wanted in ranges) > size:
        return None  # more bytes than the file has, out of many overlaps: a way to wear us out
    return _merge(ranges)


_RANGE_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_FAR = 10**19  # beyond the end of any file


def _parse_range(field: str) -> list[tuple[int | None, int | None]] | None:
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
    match = _RANGE_SPEC.fullmatch(text)
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


# --- the response's headers ----------------------------------------------------------------------


def _describing(representation: Representation) -> list[tuple[str, str]]:
    """Headers of every answer that carries the file or a part of it, and of HEAD."""
    disposition = _content_disposition(representation.filename, inline=representation.inline)
    headers = [
        ("Accept-Ranges", "bytes"),
        ("Content-Disposition", disposition),
        *_caching(representation),
        *_security(),
    ]
    digest = _repr_digest(representation.id, representation.algorithm)
    return [*headers, ("Repr-Digest", digest)] if digest else headers


def _caching(representation: Representation) -> list[tuple[str, str]]:
    directives = ["private"] if representation.private else []
    if representation.max_age is None:
        directives.append("no-cache")
    else:
        directives.append(f"max-age={max(representation.max_age, 0)}")
        if representation.immutable:
            directives.append("immutable")
    return [("ETag", f'"{representation.id}"'), ("Cache-Control", ", ".join(directives))]


def _security() -> list[tuple[str, str]]:
    return [
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ]


def _content_type(mimetype: str) -> str:
    if mimetype.lower().startswith("text/") and "charset=" not in mimetype.lower():
        return f"{mimetype}; charset=utf-8"
    return mimetype


def _content_range(wanted: ByteRange, representation: Representation) -> str:
    return f"bytes {wanted.start}-{wanted.stop - 1}/{representation.size}"


# Slashes would make a path of a name; control and bidirectional characters hide what it says.
_UNSAFE_IN_NAME = re.compile(
    "[/\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def _content_disposition(filename: str | None, *, inline: bool) -> str:
    """Write the header of RFC 6266; names beyond plain ASCII in the form of RFC 8187 as well."""
    disposition = "inline" if inline else "attachment"
    name = _UNSAFE_IN_NAME.sub("_", filename or "")
    if name in {"", ".", ".."}:
        return disposition
    plain = _to_ascii(name)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    disposition = f'{disposition}; filename="{escaped}"'
    # Some clients decode %xx, or stop at a backslash, in the plain form: give them the exact one.
    if plain == name and not any(char in name for char in '%"\\'):
        return disposition
    return f"{disposition}; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}"


_ATTR_CHAR = "!#$&+-.^_`|~"


def _to_ascii(name: str) -> str:
    """Spell a name in ASCII: accents dropped, every other character an underscore."""
    if name.isascii():
        return name
    decomposed = unicodedata.normalize("NFKD", name)
    letters = (char for char in decomposed if not unicodedata.combining(char))
    return "".join(char if " " <= char <= "~" else "_" for char in letters)


# --- digests (RFC 9530) --------------------------------------------------------------------------


def _digest_key(algorithm: str) -> tuple[str, int] | None:
    """Name an algorithm of hashlib as RFC 9530 does, with the bytes of its digest."""
    plain = algorithm.lower().replace("-", "")
    return {"sha256": ("sha-256", 32), "sha512": ("sha-512", 64)}.get(plain)


def _repr_digest(id: str, algorithm: str) -> str | None:
    known = _digest_key(algorithm)
    if known is None:
        return None
    return f"{known[0]}=:{base64.b64encode(bytes.fromhex(id)).decode('ascii')}:"


_KEY = r"[a-z*][a-z0-9_.*-]*"
_BARE_ITEM = (
    r":[A-Za-z0-9+/=]*:"  # bytes
    r'|"(?:[ !#-\[\]-~]|\\["\\])*"'  # string
    r"|-?[0-9]{1,15}(?:\.[0-9]{1,3})?"
    r"|[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"  # token
    r"|\?[01]"
)
_DIGEST_MEMBER = re.compile(
    rf"(?P<key>{_KEY})(?:=(?P<item>{_BARE_ITEM}))?(?:;[ ]*{_KEY}(?:=(?:{_BARE_ITEM}))?)*"
    r"(?P<end>[ \t]*(?:,[ \t]*(?!\Z)|\Z))"
)


def expected_digest(headers: Headers, algorithm: str) -> str | None:
    """Find the id that a request promises for its content.

    ``Repr-Digest`` is looked at first, then ``Content-Digest``.

    Args:
        headers: The request's headers.
        algorithm: The store's hash algorithm.

    Returns:
        The id in lower-case hex; None when both fields are absent, malformed or use other
        algorithms only.
    """
    known = _digest_key(algorithm)
    if known is None:
        return None
    for name in ("Repr-Digest", "Content-Digest"):
        item = _digest_members(",".join(headers.getlist(name))).get(known[0]) or ""
        digest = _decode(item)
        if digest is not None and len(digest) == known[1]:
            return digest.hex()
    return None


def _digest_members(field: str) -> dict[str, str | None]:
    """Parse a dictionary of structured fields (RFC 9651) without inner lists; {}: malformed."""
    members: dict[str, str | None] = {}
    field = field.strip(" ")
    position = 0
    while position < len(field):
        member = _DIGEST_MEMBER.match(field, position)
        if member is None:
            return {}
        members[member["key"]] = member["item"]
        position = member.end()
    return members


def _decode(item: str) -> bytes | None:
    if not item.startswith(":"):
        return None
    text = item.strip(":").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None
