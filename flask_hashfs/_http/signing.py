"""URLs that work until a time: one token, signed by itsdangerous, and checked; pure.

A token binds the store, the path, the time, the name it is saved under and whether it is
downloaded. The host is not part of it, so that a CDN may stand in front.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from itsdangerous import BadData, URLSafeSerializer
from itsdangerous.encoding import base64_decode, base64_encode, want_bytes

__all__ = ["Grant", "InvalidTokenError", "expiry", "lifetime", "read_token", "token"]

Key = str | bytes


class InvalidTokenError(ValueError):
    """A token that is missing, broken, of something else, or expired."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What the holder of a token may fetch.

    Attributes:
        expires: The time it ends, in whole seconds since the epoch.
        download_name: The name it is saved under, or None.
        as_attachment: Whether the browser downloads it; None leaves that to its type.
    """

    expires: int
    download_name: str | None = None
    as_attachment: bool | None = None


def lifetime(expires: timedelta | int) -> float:
    """Return for how many seconds a URL is to work.

    Raises:
        TypeError: Neither a timedelta nor an int.
        ValueError: Not more than nothing.
    """
    if isinstance(expires, bool) or not isinstance(expires, (timedelta, int)):
        raise TypeError(
            f"expires must be a timedelta, or seconds as an int, not {type(expires).__name__}"
        )
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    if seconds <= 0:
        raise ValueError(f"expires is {expires!r}, but must be more than nothing")
    return seconds


def expiry(now: float, seconds: float) -> int:
    """Return when a URL ends that is to work for some seconds from now on.

    It is rounded up to a multiple of a quarter of these seconds, so that a file has the same URL
    for a while and caches can hit.

    Args:
        now: Seconds since the epoch.
        seconds: How long it is to work.

    Returns:
        Seconds since the epoch: never less than asked for, and less than a quarter, or 1 s, more.
    """
    step = max(1, int(seconds // 4))
    return math.ceil((now + seconds) / step) * step


def token(keys: Sequence[Key], store: str, path: str, grant: Grant) -> str:
    """Return the token for a path.

    Args:
        keys: The app's secret keys, the current one last.
        store: The store's name, empty for the default one.
        path: What the URL has behind the route's prefix, decoded.
        grant: What it allows.
    """
    payload = [grant.expires, grant.download_name, grant.as_attachment]
    signed = _serializer(_in_bytes(keys)).dumps(payload, salt=_salt(store, path))
    return signed if isinstance(signed, str) else signed.decode("ascii")


def read_token(
    keys: Sequence[Key], store: str, path: str, tokens: Sequence[str], now: float
) -> Grant:
    """Check a URL's token and return what it allows.

    Args:
        keys: The app's secret keys; any of them may have signed it.
        store: The store that was asked.
        path: The path that was asked for.
        tokens: The values of the URL's parameter ``token``, of which there must be one.
        now: Seconds since the epoch.

    Raises:
        InvalidTokenError: It does not hold; why is not told.
    """
    if len(tokens) != 1 or not keys:
        raise InvalidTokenError
    grant = _grant(_in_bytes(keys), store, path, tokens[0])
    if now >= grant.expires:
        raise InvalidTokenError
    return grant


@functools.lru_cache(maxsize=1024)  # a player asks for many ranges by one URL; errors are not kept
def _grant(keys: tuple[bytes, ...], store: str, path: str, token: str) -> Grant:
    """Return what a token allows that was signed at any time."""
    try:
        grant = Grant(*_serializer(keys).loads(token, salt=_salt(store, path)))
        is_canonical = _is_canonical(token)
    except (BadData, TypeError, ValueError) as error:
        raise InvalidTokenError from error
    if not is_canonical:
        raise InvalidTokenError
    return grant


def _salt(store: str, path: str) -> bytes:
    return f"flask_hashfs.url\0{store}\0{path}".encode("utf-8", "surrogateescape")


def _in_bytes(keys: Sequence[Key]) -> tuple[bytes, ...]:
    return tuple(map(want_bytes, keys))


@functools.lru_cache(maxsize=16)
def _serializer(keys: tuple[bytes, ...]) -> URLSafeSerializer:
    """Return what signs and reads with these keys; making one costs as much as a signature.

    An app has the same keys for long, and those of a few apps are kept.
    """
    settings = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    return URLSafeSerializer(cast("Any", list(keys)), signer_kwargs=settings)


def _is_canonical(text: str) -> bool:
    """Tell whether a signature that holds is written as it was made.

    Base64 leaves bits of the last character unused, and its decoder passes over what is not of
    its alphabet: many texts decode to the same signature.
    """
    signature = text.rpartition(".")[2].encode("ascii", "replace")
    return base64_encode(base64_decode(signature)) == signature
