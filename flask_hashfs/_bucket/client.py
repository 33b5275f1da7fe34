"""Objects under keys: what the store asks of obstore, with its errors in words of this package.

obstore is imported only when an object store is made, and nothing is sent before it is used.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from .._storage.writer import Writer
from ..exceptions import ConfigError, StoreUnavailableError
from . import background

if TYPE_CHECKING:
    from obstore import BytesStream

SCHEMES = ("s3", "gs", "az", "memory")
SMALL = 8 * 1024 * 1024
"""Bytes up to which a content is sent in one request, atomically."""

CHUNK = 1024 * 1024
"""Bytes that come at a time when an object is read."""

COPIED_AT_MOST = 5 * 1024**3
"""Bytes of an object that S3 copies in one request."""

_PARTS = 9_000  # S3 allows 10 000 in one upload
_IN_FLIGHT = 32 * 1024 * 1024  # bytes of one upload in memory
_LISTED = 1000  # names in one step of a listing
_CHUNK_WITHIN = 60.0  # seconds for such a step

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

# Of what obstore says when it finds no credentials and asks the machine for those of its role.
_CREDENTIALS = re.compile(
    r"/latest/(?:api|meta-data)/|/computeMetadata/|/metadata/identity/|//169\.254\."
    r"|Missing(?:SecretAccessKey|AccessKeyId)\b"
)
_CAUSE = re.compile(r'(?:message|error): "([^"]+)"|(InvalidCertificate)\(\s*(\w+)')

_process = {"used": False, "forked": False}


def _after_fork() -> None:
    _process["forked"] = _process["forked"] or _process["used"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Found(NamedTuple):
    """An object that is there."""

    key: str
    size: int
    modified: datetime


class ExistsError(Exception):
    """The key has an object already, or a conflicting request has just ended."""


class _RefusedError(ValueError):
    """obstore sends no such request: no object can have this key, mostly."""


def is_url(root: str) -> bool:
    """Tell whether `root` names an object store rather than a folder."""
    scheme, separator, _ = root.partition("://")
    return bool(separator) and scheme in SCHEMES


class Objects:
    """The objects of one bucket below one prefix.

    Args:
        url: ``s3://bucket/prefix`` and the like.
        options: Of obstore's store: ``client_options``, ``retry_config``,
            ``credential_provider``, and the configuration keys of the kind of store.

    Raises:
        ConfigError: obstore is not installed, or an option or the URL is none.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._obstore = _import_obstore()
        self._store = _connect(self._obstore, url, options)
        once = {**options, "retry_config": {"max_retries": 0}}
        self._scheme = url.partition("://")[0]
        self._has_worked = False  # not even once: it may be the settings
        is_memory = self._scheme == "memory"
        # obstore's memory takes its own lock and Python's in either order: one call at a time.
        self._turn = threading.Lock() if is_memory else contextlib.nullcontext()
        self._once = self._store if is_memory else _connect(self._obstore, url, once)

    def head(self, key: str) -> Found | None:
        """Return what is known of an object, or None."""
        try:
            with self._call():
                meta = self._obstore.head(self._store, key)
        except FileNotFoundError:
            return None
        except _RefusedError:
            return None
        return Found(meta["path"], meta["size"], meta["last_modified"])

    def put(self, key: str, data: Any, attributes: dict[str, str], *, create: bool) -> None:
        """Store `data` atomically.

        Args:
            create: Whether an object that is there already is an error.

        Raises:
            ExistsError: It is there already.
        """
        with self._call():
            self._obstore.put(
                self._store,
                key,
                data,
                attributes=attributes,
                mode="create" if create else "overwrite",
                use_multipart=False,
            )

    def upload(self, key: str, writer: Writer, attributes: dict[str, str]) -> None:
        """Store what `writer` took, in parts; a failed upload is given up there as well."""
        part = max(SMALL, math.ceil(writer.size / _PARTS))
        with self._call(), writer.reader() as file:
            self._obstore.put(
                self._store,
                key,
                file,
                attributes=attributes,
                mode="overwrite",
                use_multipart=True,
                chunk_size=part,
                max_concurrency=max(1, _IN_FLIGHT // part),
            )

    def read(self, key: str) -> bytes:
        """Return all of a small object.

        Raises:
            FileNotFoundError: It is not there.
        """
        with self._call():
            return bytes(self._obstore.get(self._store, key).bytes())

    def stream(self, key: str, start: int, stop: int) -> BytesStream:
        """Begin to read the bytes from `start` to `stop`, which must lie inside the object.

        Raises:
            FileNotFoundError: It is not there.
        """
        with self._call():
            result = self._obstore.get(self._store, key, options={"range": (start, stop)})
            stream: BytesStream = result.stream(min_chunk_size=CHUNK)
            return stream

    def begin(self, key: str) -> tuple[Found, BytesStream] | None:
        """Begin to read all of an object; return what is known of it, or None."""
        try:
            with self._call():
                result = self._obstore.get(self._store, key)
                meta, stream = result.meta, result.stream(min_chunk_size=CHUNK)
        except (FileNotFoundError, _RefusedError):
            return None
        return Found(meta["path"], meta["size"], meta["last_modified"]), stream

    def next(self, stream: BytesStream) -> Any:
        """Return the next bytes of a stream, nothing at its end."""
        with self._call():
            return next(stream, b"")

    def list(
        self, folder: str = "", after: str | None = None, *, until: float = math.inf
    ) -> Iterator[Found]:
        """Iterate over the objects below `folder`, in the order of their keys.

        Args:
            folder: Key without a slash at its end; all objects lie below the empty one.
            after: Key that the first one must come after.
            until: When all of it must have arrived, on the monotonic clock.

        Raises:
            StoreUnavailableError: The object store fails, or its listing has no end.
        """
        chunks: Any = None
        seen, mark = 0, None
        while True:
            with self._call():
                if chunks is None:
                    chunks = self._obstore.list(
                        self._store, folder or None, offset=after, chunk_size=_LISTED
                    )
                chunk = self._next_chunk(chunks, min(until - time.monotonic(), _CHUNK_WITHIN))
            if chunk is None:
                return
            for meta in chunk:
                if meta["path"] == mark:
                    raise StoreUnavailableError(f"the listing comes back to {mark!r}")
                seen += 1
                if seen & (seen - 1) == 0:  # a circle of any length meets one of these
                    mark = meta["path"]
                yield Found(meta["path"], meta["size"], meta["last_modified"])

    def _next_chunk(self, chunks: Any, seconds: float) -> Any:
        """Return the next names of a listing, None at its end.

        obstore goes on from page to page until it has enough names. If a store always announces
        one more empty page, that never ends, and only an asynchronous call can be given up.
        """
        if self._scheme == "memory":
            return next(chunks, None)
        try:
            return background.call(_anext(chunks), seconds)
        except TimeoutError:
            raise StoreUnavailableError("the listing does not end") from None

    def copy(self, source: str, target: str) -> None:
        """Copy an object where it is, with its type; S3 does so up to 5 GiB.

        Raises:
            FileNotFoundError: It is not there.
        """
        with self._call():
            self._obstore.copy(self._store, source, target)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; one that is missing is no error."""
        keys = list(keys)
        if keys:
            with contextlib.suppress(FileNotFoundError), self._call():
                self._obstore.delete(self._store, keys)

    def delete_once(self, keys: Iterable[str]) -> None:
        """Delete objects by requests that are not repeated, so that none comes late."""
        if keys := [*keys]:
            with contextlib.suppress(FileNotFoundError), self._call():
                self._obstore.delete(self._once, keys)

    def sign(self, key: str, seconds: int) -> str:
        """Return a URL by which anyone can read an object for so many seconds.

        Raises:
            ConfigError: This kind of store has no such URLs, or there are no credentials.
        """
        try:
            with self._call():
                url: str = self._obstore.sign(self._store, "GET", key, timedelta(seconds=seconds))
                return url
        except _RefusedError as error:
            raise ConfigError(f"this object store signs no URLs: {error}") from error

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        """Raise what obstore raises in this package's words, around each call of it."""
        if _process["forked"]:
            raise RuntimeError(
                "This object store was used before the process forked, and cannot be used in "
                "the child: use it only after the fork, or start the child with spawn"
            )
        _process["used"] = True
        exceptions = self._obstore.exceptions
        try:
            with self._turn:
                yield
        except exceptions.AlreadyExistsError as error:
            raise ExistsError from error
        except (exceptions.InvalidPathError, ValueError) as error:
            raise _RefusedError(_first_line(error)) from error
        except exceptions.BaseError as error:
            if not self._has_worked and _CREDENTIALS.search(str(error)):
                raise ConfigError(
                    f"{_no_credentials(self._scheme)}: {_with_cause(error)}"
                ) from error
            raise StoreUnavailableError(_with_cause(error)) from error
        except BaseException as error:
            if _is_panic(error):
                raise StoreUnavailableError(f"obstore failed: {_first_line(error)}") from error
            raise
        self._has_worked = True


async def _anext(chunks: Any) -> Any:
    try:
        return await chunks.__anext__()
    except StopAsyncIteration:
        return None


def _import_obstore() -> ModuleType:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise ConfigError(
            "an object store needs the package obstore: pip install Flask-HashFS[s3]"
        ) from error
    return obstore


def _connect(obstore: ModuleType, url: str, options: Mapping[str, Any]) -> Any:
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
        if isinstance(error, refusals) or _is_panic(error):
            raise ConfigError(f"obstore refuses {url!r}: {_first_line(error)}") from error
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
    return allowed or _is_plain(options)


def _is_encrypted(options: Mapping[str, Any]) -> bool:
    given = {"unsigned_payload", "aws_unsigned_payload"} & options.keys()
    return not given and not _is_plain(options)


def _is_plain(options: Mapping[str, Any]) -> bool:
    """Whether the endpoint was given as plain HTTP."""
    return any(each.lower().startswith("http://") for each in _endpoints(options).values())


def _is_panic(error: BaseException) -> bool:
    """Tell a panic of obstore's Rust code, whose types cannot be imported.

    That of a blocking call is not an `Exception`, so that it would pass every handler.
    """
    return type(error).__name__ in ("PanicException", "RustPanic")


def _no_credentials(scheme: str) -> str:
    """Say that there are no credentials, and where they may come from."""
    variables = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}
    wanted = variables.get(scheme, "the usual environment variables")
    return (
        f"no credentials for the object store: set {wanted}, or give them in the store's options, "
        "or run where the machine has a role"
    )


def _with_cause(error: BaseException) -> str:
    """Return an error's first line and, where its details name one, the cause.

    The line itself says no more of a refused connection than of a certificate nobody trusts.
    """
    words = [_first_line(error)]
    for match in _CAUSE.finditer(str(error)):
        words[1:] = [" ".join(filter(None, match.groups()))]  # the last is the innermost
    return ": ".join(words)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
