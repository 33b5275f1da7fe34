"""The fields of both resumable protocols, read and written.

tus 1.0.0 has plain fields; those of the IETF draft are structured (RFC 9651), and their
parameters are ignored. A field that is absent is read as None. One that is malformed raises
`FieldError` where the protocol has to refuse it, and counts as absent where it need not.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

import http_sf
from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header

from . import digests as rfc9530

MAX_METADATA = 4096
"""Bytes that Upload-Metadata may have."""

CHECKSUMS: Mapping[str, int] = {"sha1": 20, "sha256": 32, "sha512": 64, "md5": 16, "crc32": 4}
"""The algorithms of Upload-Checksum, with the bytes of their digests."""

FAR = 10**19
"""Stands for every number that is larger than any file: beyond the end of all."""

_KEY = re.compile(r"[!-+\--~]+")  # ASCII without spaces and commas
_LARGEST = 10**15 - 1  # of a structured Integer


class FieldError(ValueError):
    """A field has a value that it must not have."""

    def __init__(self, field: str, wanted: str) -> None:
        super().__init__(f"{field} must be {wanted}.")
        self.field = field


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a request's content must hash to."""

    algorithm: str
    """One of `CHECKSUMS`."""
    digest: bytes


@dataclass(frozen=True, slots=True)
class Concatenation:
    """What an Upload-Concat field says: a part, or the whole made of `parts`."""

    parts: tuple[str, ...] | None
    """URLs as the client wrote them; None for a part."""


def text_of(headers: Headers, field: str) -> str | None:
    """Return the value of a field, its lines joined as RFC 9110 (section 5.3) has it."""
    lines = headers.getlist(field)
    return ",".join(lines).strip(" \t") if lines else None


def media_type(headers: Headers) -> str:
    """Return a request's type without parameters, in lower case; "" where it has none."""
    return (text_of(headers, "Content-Type") or "").partition(";")[0].strip(" \t").lower()


# --- tus -----------------------------------------------------------------------------------------


def natural(headers: Headers, field: str) -> int | None:
    """Read a length or an offset of tus: decimal digits and nothing else.

    Returns:
        The number; `FAR` for one with more digits than any file has bytes.
    """
    text = text_of(headers, field)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise FieldError(field, "a whole number of bytes")
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) < 20 else FAR


def is_deferred(headers: Headers) -> bool:
    """Read Upload-Defer-Length, whose only value is 1."""
    text = text_of(headers, "Upload-Defer-Length")
    if text not in (None, "1"):
        raise FieldError("Upload-Defer-Length", "1")
    return text is not None


def metadata(headers: Headers) -> tuple[str, dict[str, str]]:
    """Read Upload-Metadata: unique keys, with UTF-8 in base64.

    Returns:
        The field as it was sent, and what it says.
    """
    text = text_of(headers, "Upload-Metadata") or ""
    if len(text) > MAX_METADATA:
        raise FieldError("Upload-Metadata", f"no longer than {MAX_METADATA} bytes")
    found: dict[str, str] = {}
    for pair in text.split(",") if text else ():
        key, _, encoded = pair.strip(" ").partition(" ")
        value = _base64(encoded)
        if _KEY.fullmatch(key) is None or key in found or value is None:
            raise FieldError("Upload-Metadata", "unique keys, each with a value in base64")
        try:
            found[key] = value.decode()
        except UnicodeDecodeError:
            raise FieldError("Upload-Metadata", "UTF-8 in base64") from None
    return text, found


def write_metadata(pairs: Mapping[str, str]) -> str:
    """Write Upload-Metadata."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in pairs.items()}
    return ",".join(f"{key} {value}".rstrip() for key, value in encoded.items())


def checksum(headers: Headers) -> Checksum | None:
    """Read Upload-Checksum: an algorithm of `CHECKSUMS`, and its digest in base64."""
    text = text_of(headers, "Upload-Checksum")
    if text is None:
        return None
    algorithm, _, encoded = text.partition(" ")
    digest = _base64(encoded)
    if algorithm not in CHECKSUMS:
        raise FieldError("Upload-Checksum", f"by one of the algorithms {', '.join(CHECKSUMS)}")
    if digest is None or CHECKSUMS[algorithm] != len(digest):
        raise FieldError("Upload-Checksum", f"{algorithm} and its digest in base64")
    return Checksum(algorithm, digest)


def concatenation(headers: Headers) -> tuple[str, Concatenation] | None:
    """Read Upload-Concat: ``partial``, or ``final;`` and the URLs of its parts.

    Returns:
        The field as it was sent, and what it says.
    """
    text = text_of(headers, "Upload-Concat")
    if text is None:
        return None
    if text == "partial":
        return text, Concatenation(None)
    kind, mark, urls = text.partition(";")
    parts = tuple(urls.split())
    if kind != "final" or not mark or not parts:
        raise FieldError("Upload-Concat", '"partial", or "final;" and the URLs of partial uploads')
    return text, Concatenation(parts)


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


# --- the IETF draft ------------------------------------------------------------------------------


def boolean(headers: Headers, field: str) -> bool | None:
    """Read a structured Boolean."""
    text = text_of(headers, field)
    if text is None:
        return None
    value = _item(text)
    if not isinstance(value, bool):
        raise FieldError(field, "?0 or ?1")
    return value


def integer(headers: Headers, field: str) -> int | None:
    """Read a structured Integer that is not negative."""
    text = text_of(headers, field)
    if text is None:
        return None
    value = _item(text)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FieldError(field, "a whole number of bytes")
    return value


def digests(headers: Headers, field: str, algorithm: str) -> list[Checksum]:
    """Read Content-Digest or Repr-Digest (RFC 9530).

    Args:
        headers: The request's.
        field: Which of the two.
        algorithm: That of the store, whose digest must be right if it is there; any other one
            that is malformed is ignored.

    Returns:
        The digests by algorithms that are known.
    """
    try:
        members = rfc9530.parse(text_of(headers, field) or "")
    except ValueError:
        raise FieldError(field, "a dictionary of digests") from None
    own = rfc9530.key_of(algorithm)
    if own in members and members[own] is None:
        raise FieldError(field, f"a {own} digest in base64")
    return [Checksum(key.replace("-", ""), digest) for key, digest in members.items() if digest]


def write_digest(algorithm: str, id: str) -> str | None:
    """Write Repr-Digest for a content, or None where RFC 9530 does not name the algorithm."""
    return rfc9530.write(id, algorithm)


def write_limits(max_size: int | None, max_age: int) -> str:
    """Write Upload-Limit; where any size is allowed it says so by ``min-size=0``."""
    size = {"min-size": 0} if max_size is None else {"max-size": min(max_size, _LARGEST)}
    return http_sf.ser({**size, "max-age": max(max_age, 0)})


def described(headers: Headers) -> dict[str, str]:
    """Return what a draft's creation says of its content, under the keys that tus clients use."""
    found: dict[str, str] = {}
    disposition = text_of(headers, "Content-Disposition") or ""
    name = parse_options_header(disposition)[1].get("filename")
    if name and name.isprintable():
        found["filename"] = name
    kind = text_of(headers, "Content-Type")
    if kind and kind.isprintable():
        found["filetype"] = kind
    return found if len(write_metadata(found)) <= MAX_METADATA else {}


def _item(text: str) -> object:
    try:
        value = http_sf.parse(_ascii(text), tltype="item")
    except ValueError:
        return None
    return value[0] if isinstance(value, tuple) else value


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "replace")  # "?" is not allowed in these places either
