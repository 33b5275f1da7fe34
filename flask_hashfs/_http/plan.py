"""The HTTP plan: which status, headers and bytes answer a request for a stored file; pure.

Nothing here reads a file or a socket. The senders open and measure the file, ask for a plan and
carry it out.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from . import digests, ranges
from .ranges import ByteRange

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

__all__ = ["Plan", "Representation", "plan"]

# Uploaded HTML and SVG get an empty policy in a sandbox without scripts. The page's own origin
# stays, as browsers refuse to show PDFs and to seek in media under an opaque one.
CONTENT_SECURITY_POLICY = "default-src 'none'; media-src 'self'; sandbox allow-same-origin"


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

    # Section 13.2.2: the conditions in their order of precedence. Steps 2 and 4, those on dates,
    # do not apply to a file without a date.
    if method in {"GET", "HEAD"}:
        # Step 1: If-Match is false where no tag of it is the file's, by strong comparison.
        if "if-match" in fields and not _matches(fields["if-match"], etag, weak=False):
            return Plan(412, [("Content-Length", "0")], ())
        # Step 3: If-None-Match is false where some tag of it is the file's, by weak comparison.
        if "if-none-match" in fields and _matches(fields["if-none-match"], etag, weak=True):
            return Plan(304, [*_caching(representation), *_security()], ())

    # Step 5: the ranges, of a GET only (section 14.2), unless If-Range has another tag.
    parts = None
    if method == "GET" and _is_current(fields.get("if-range"), etag):
        parts = ranges.requested(fields.get("range", []), representation.size)

    # Step 6: the answer itself.
    if parts is None:
        return _whole(method, representation)
    if not parts:  # section 15.5.17
        unsatisfied = ("Content-Range", f"bytes */{representation.size}")
        return Plan(416, [unsatisfied, ("Content-Length", "0")], ())
    if len(parts) == 1:
        return _single(parts[0], representation)
    return _multiple(parts, representation)


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


def _multiple(parts: list[ByteRange], representation: Representation) -> Plan:
    # Uploaded bytes cannot contain a boundary that is only drawn now.
    boundary = secrets.token_hex(16)
    body: list[bytes | ByteRange] = []
    for wanted in parts:
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


def _matches(lines: list[str], etag: str, *, weak: bool) -> bool:
    """Tell whether a tag in an If-Match or If-None-Match field matches the file's strong tag."""
    found = (member.strip(" \t") for member in _LIST_MEMBER.findall(",".join(lines)))
    members = {member for member in found if member}
    return members == {"*"} or etag in members or (weak and f"W/{etag}" in members)


def _is_current(if_range: list[str] | None, etag: str) -> bool:
    """Tell whether ranges may be sent (section 13.1.5).

    A date, a weak tag, a list or garbage never match the file's strong tag.
    """
    return if_range is None or if_range == [etag]


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
    digest = digests.write(representation.id, representation.algorithm)
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
