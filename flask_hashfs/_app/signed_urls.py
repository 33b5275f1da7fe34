"""Signed URLs of an app: its secret keys, the tokens of its URLs, and what a request may fetch."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from werkzeug.exceptions import Forbidden
from werkzeug.sansio.request import Request

from .._http import signing
from .._http.signing import Grant, InvalidTokenError

PARAMETER = "token"

_ONLY_TOKEN = re.compile(rb"token=([\w.-]+)")


def new_token(
    app_config: Mapping[str, Any],
    store: str | None,
    path: str,
    expires: timedelta | int,
    download_name: str | None,
    as_attachment: bool | None,
) -> str:
    """Return the token of a URL that works until some time from now.

    Args:
        app_config: The app's, for its secret keys.
        store: The store's name, None for the default one.
        path: What the URL has behind the route's prefix, decoded.
        expires: How long the URL is to work, as a timedelta or in seconds.
        download_name: The name that the file is saved under, if not its own.
        as_attachment: Whether the browser downloads it, if not as its type has it.

    Raises:
        RuntimeError: The app has no secret key.
        TypeError: An argument of another type.
        ValueError: `expires` is not more than nothing.
    """
    if download_name is not None and not isinstance(download_name, str):
        raise TypeError(f"download_name must be a str, not {type(download_name).__name__}")
    if as_attachment is not None and not isinstance(as_attachment, bool):
        raise TypeError(f"as_attachment must be a bool, not {type(as_attachment).__name__}")
    end = signing.expiry(time.time(), signing.lifetime(expires))
    if not app_config.get("SECRET_KEY"):
        raise RuntimeError("set SECRET_KEY: without it no URL can be signed")
    grant = Grant(end, download_name, as_attachment)
    return signing.token(_secret_keys(app_config), store or "", path, grant)


def check(app_config: Mapping[str, Any], store: str | None, path: str, request: Request) -> Grant:
    """Return what a request's token allows.

    Args:
        app_config: The app's, for its secret keys.
        store: The store's name, None for the default one.
        path: What the URL has behind the route's prefix, decoded.
        request: The request.

    Raises:
        Forbidden: Its token is missing, broken, of something else, or expired.
    """
    keys = _secret_keys(app_config)
    try:
        return signing.read_token(keys, store or "", path, _tokens(request), time.time())
    except InvalidTokenError:
        raise Forbidden from None


def _tokens(request: Request) -> list[str]:
    """Return the values of the parameter; Werkzeug parses what is more than one plain value."""
    plain = _ONLY_TOKEN.fullmatch(request.query_string)
    if plain:
        return [plain[1].decode()]
    try:
        return request.args.getlist(PARAMETER)
    except UnicodeDecodeError:  # raised by Werkzeug; a token has ASCII only
        return []


def _secret_keys(app_config: Mapping[str, Any]) -> Sequence[str | bytes]:
    """Return the keys that may have signed a token, the one that signs last."""
    keys = [*(app_config.get("SECRET_KEY_FALLBACKS") or ()), app_config.get("SECRET_KEY")]
    return [key for key in keys if key]
