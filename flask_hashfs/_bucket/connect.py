"""Opening a bucket by obstore: what its URL and its options may be.

obstore is imported only when an object store is made, and nothing is sent before it is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from ..exceptions import ConfigError
from .errors import first_line, is_panic

SCHEMES = ("s3", "gs", "az", "memory")
"""Of the URLs that name an object store."""

# With obstore's own a read on a broken cluster returns after three minutes.
_CLIENT_OPTIONS: Mapping[str, Any] = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=30),
    "timeout": timedelta(seconds=30),
}
_RETRY_CONFIG: Mapping[str, Any] = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    },
}

_ENDPOINT_VARIABLES = ("AWS_ENDPOINT", "AWS_ENDPOINT_URL")
_ENDPOINT_KEYS = {
    *("endpoint", "endpoint_url", "aws_endpoint", "aws_endpoint_url"),
    *("azure_endpoint", "azure_storage_endpoint", "base_url"),
}
_ENDPOINT = re.compile(r"https?://[!-~]+", re.ASCII | re.IGNORECASE)


def is_url(root: str) -> bool:
    """Tell whether `root` names an object store rather than a folder."""
    scheme, separator, _ = root.partition("://")
    return bool(separator) and scheme in SCHEMES


def import_obstore() -> ModuleType:
    """Return obstore.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise ConfigError(
            "an object store needs the package obstore: pip install Flask-HashFS[s3]"
        ) from error
    return obstore


def open_bucket(obstore: ModuleType, url: str, options: Mapping[str, Any]) -> Any:
    """Return obstore's store at `url`; nothing is sent.

    Args:
        obstore: The package.
        url: ``s3://bucket/prefix`` and the like.
        options: Of obstore's store; those of its HTTP client may stand among them.

    Raises:
        ConfigError: An option or the URL cannot be used.
    """
    scheme = url.partition("://")[0]
    _check_url(url)
    _check_endpoints(options)
    if scheme == "memory":
        if options:
            raise ConfigError("memory:// has no options")
        return obstore.store.MemoryStore()
    options = dict(options)
    client_options = {
        **_CLIENT_OPTIONS,
        "allow_http": _allows_http(options),
        **options.pop("client_options", {}),
    }
    if scheme == "s3" and _is_encrypted(options):
        options.setdefault("unsigned_payload", True)  # TLS keeps it whole: not hashed once more
    retry_config = {**_RETRY_CONFIG, **options.pop("retry_config", {})}
    for key in _CLIENT_OPTIONS.keys() | {"allow_http"}:
        if key in options:  # plain keys are of the store, these of its HTTP client
            client_options[key] = options.pop(key)
    try:
        return obstore.store.from_url(
            url, client_options=client_options, retry_config=retry_config, **options
        )
    except BaseException as error:
        refusals = (obstore.exceptions.BaseError, ValueError, TypeError)
        if isinstance(error, refusals) or is_panic(error):
            raise ConfigError(f"obstore refuses {url!r}: {first_line(error)}") from error
        raise


def _check_url(url: str) -> None:
    """Refuse a URL of which obstore would pass over a part.

    Raises:
        ConfigError: It names no bucket, or more than a bucket and a prefix.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "memory" and not bucket:
        raise ConfigError(f"{url!r} names no bucket; {scheme}://bucket/prefix is wanted")
    if set("?#") & set(rest) or set("@:") & set(bucket) or {".", ".."} & {*prefix.split("/")}:
        raise ConfigError(f"{url!r} is more than a bucket and a prefix: {scheme}://bucket/prefix")


def _check_endpoints(options: Mapping[str, Any]) -> None:
    """Refuse an endpoint that no request can be sent to: obstore panics at it.

    Raises:
        ConfigError: It lacks its scheme, most likely.
    """
    for name, endpoint in _endpoints(options).items():
        if _ENDPOINT.fullmatch(endpoint) is None or not _has_host(endpoint):
            raise ConfigError(
                f"the endpoint ({name}) is {endpoint!r}, but must be a URL with its scheme, "
                'such as "https://s3.example.com" or "http://minio:9000"'
            )


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, or half an IPv6 address
        return False


def _endpoints(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the endpoints that were given, by the names of their options or variables."""
    given = {name: value for name, value in options.items() if str(name).lower() in _ENDPOINT_KEYS}
    given |= {name: os.environ.get(name) for name in _ENDPOINT_VARIABLES}
    return {name: str(value) for name, value in given.items() if value is not None}


def _allows_http(options: Mapping[str, Any]) -> bool:
    """Whether plain HTTP will do, by the endpoint or by obstore's own switch."""
    allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes", "on")
    return allowed or endpoint_is_plain(options)


def _is_encrypted(options: Mapping[str, Any]) -> bool:
    given = {"unsigned_payload", "aws_unsigned_payload"} & options.keys()
    return not given and not endpoint_is_plain(options)


def endpoint_is_plain(options: Mapping[str, Any]) -> bool:
    """Tell whether the endpoint was given as plain HTTP."""
    return any(each.lower().startswith("http://") for each in _endpoints(options).values())
