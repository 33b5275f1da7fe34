"""Digests of content in header fields (RFC 9530), read and written; pure.

The fields are dictionaries of structured fields (RFC 9651), which the library http-sf parses. A
hash id is such a digest where the store's algorithm is sha256 or sha512.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from werkzeug.exceptions import BadRequest

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

__all__ = ["expected", "key_of", "parse", "write"]

_SIZES = {"sha-256": 32, "sha-512": 64}  # bytes of a digest; the other algorithms are broken


def key_of(algorithm: str) -> str | None:
    """Return the name that RFC 9530 has for an algorithm of hashlib, or None."""
    key = algorithm.lower().replace("-", "").replace("sha", "sha-")
    return key if key in _SIZES else None


def write(id: str, algorithm: str) -> str | None:
    """Write the value of Repr-Digest for a content.

    Args:
        id: The content's, in hex; the name of a file that lies in the root by hand is none.
        algorithm: The store's, as hashlib names it.

    Returns:
        The value, or None where RFC 9530 does not name the algorithm, or the id is none of it.
    """
    key = key_of(algorithm)
    if key is None:
        return None
    try:
        digest = bytes.fromhex(id)
    except ValueError:
        return None
    if len(digest) != _SIZES[key]:
        return None
    # Every answer needs one, and the library takes thirty times as long to write it.
    return f"{key}=:{base64.b64encode(digest).decode('ascii')}:"


def parse(field: str) -> dict[str, bytes | None]:
    """Parse the value of Repr-Digest or Content-Digest.

    Args:
        field: Its lines, joined by commas.

    Returns:
        What is promised for sha-256 and sha-512: None where that is not such a digest. Other
        algorithms, and parameters, are left out.

    Raises:
        ValueError: It is not a dictionary of structured fields.
    """
    import http_sf  # takes longer to import than all of this package

    members = http_sf.parse(field.encode("ascii", "replace"), tltype="dictionary")
    found: dict[str, bytes | None] = {}
    for key, member in members.items() if isinstance(members, dict) else ():
        value = member[0] if isinstance(member, tuple) else member
        size = _SIZES.get(key)
        if size is not None:
            found[key] = value if isinstance(value, bytes) and len(value) == size else None
    return found


def expected(headers: Headers, algorithm: str, *, required: bool = False) -> str | None:
    """Find the id that a request promises for its content.

    ``Repr-Digest`` is looked at first, then ``Content-Digest``. Digests by other algorithms than
    the store's are passed over, and so is the ``Digest`` field of RFC 3230.

    Args:
        headers: The request's headers.
        algorithm: The store's hash algorithm.
        required: Whether a request must promise something that can be checked.

    Returns:
        The id in lower-case hex; None where nothing is promised by the store's algorithm.

    Raises:
        BadRequest: A field cannot be parsed, or what it has for the store's algorithm is not a
            digest; with `required` also where nothing is promised.
        ValueError: A digest is required, but RFC 9530 does not name the store's algorithm.
    """
    own = key_of(algorithm)
    if required and own is None:
        raise ValueError(
            f"a digest cannot be required by {algorithm!r}, which RFC 9530 does not name: "
            "the store's algorithm must be sha256 or sha512"
        )
    promised = [_promise(name, headers, own) for name in ("Repr-Digest", "Content-Digest")]
    digest = next((each for each in promised if each is not None), None)
    if digest is None and required:
        raise BadRequest(f"A Repr-Digest or Content-Digest field with {own} is required.")
    return None if digest is None else digest.hex()


def _promise(name: str, headers: Headers, own: str | None) -> bytes | None:
    try:
        members = parse(",".join(headers.getlist(name)))
    except ValueError:
        raise BadRequest(f"The {name} field is malformed.") from None
    if own not in members:
        return None
    digest = members[own]
    if digest is None:
        raise BadRequest(f"The {name} field must have the {_SIZES[own]} bytes of a {own} digest.")
    return digest
