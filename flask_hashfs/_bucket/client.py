"""Objects under keys: what the store asks of obstore, with its errors in words of this package."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from .._storage import messages
from .._storage.writer import Writer
from ..exceptions import ConfigError, HashFSError, StoreUnavailableError
from . import background
from .connect import import_obstore, open_bucket
from .errors import first_line, in_words, is_panic

if TYPE_CHECKING:
    from obstore import BytesStream

ONE_REQUEST_SIZE = 8 * 1024 * 1024
"""Bytes up to which a content is sent in one request, atomically."""

READ_SIZE = 1024 * 1024
"""Bytes that come at a time when an object is read."""

COPIED_AT_MOST = 5 * 1024**3
"""Bytes of an object that S3 copies in one request."""

_PARTS = 9_000  # S3 allows 10 000 in one upload
_IN_FLIGHT = 32 * 1024 * 1024  # bytes of one upload in memory
_KEYS_IN_STEP = 1000  # keys in one step of a listing
_READ_WITHIN = 60.0  # seconds for such a step

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
    """The key has an object already, or another one by now, or a conflicting request ended."""


class _RefusedError(ValueError):
    """obstore sends no such request: no object can have this key, mostly."""


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
        self._obstore = import_obstore()
        self._store = open_bucket(self._obstore, url, options)
        once = {**options, "retry_config": {"max_retries": 0}}
        self._root = url
        self._options = options
        self._scheme = url.partition("://")[0]
        self._has_worked = False  # not even once: it may be the settings
        self._is_failing = False
        is_memory = self._scheme == "memory"
        # obstore's memory takes its own lock and Python's in either order: one call at a time.
        self._turn = threading.Lock() if is_memory else contextlib.nullcontext()
        self._once = self._store if is_memory else open_bucket(self._obstore, url, once)

    def hurried(self, seconds: float) -> Objects:
        """Return the same objects for one who does not wait: each request is tried once.

        Args:
            seconds: That a request may take.
        """
        if self._scheme == "memory":
            return self
        within = timedelta(seconds=seconds)
        limits = dict.fromkeys(("connect_timeout", "read_timeout", "timeout"), within)
        options = {key: value for key, value in self._options.items() if key not in limits}
        options["client_options"] = {**options.get("client_options", {}), **limits}
        options["retry_config"] = {"max_retries": 0}
        return Objects(self._root, options)

    @property
    def options(self) -> Mapping[str, Any]:
        """What the store was given, by the names that obstore has for it."""
        return getattr(self._store, "config", {})  # that in memory has none

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

    def head_once(self, key: str) -> None:
        """Ask for an object, there or not, by a request that is not repeated."""
        with contextlib.suppress(FileNotFoundError), self._call():
            self._obstore.head(self._once, key)

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

    def replace(self, key: str, data: bytes, tag: str | None) -> str | None:
        """Store `data` atomically in the place of an object; return the new one's tag.

        Args:
            key: Of the object.
            data: Small.
            tag: The ETag that the object must have, or None where it has none.

        Raises:
            ExistsError: It is another one by now, or gone.
        """
        mode: Any = "overwrite" if tag is None else {"e_tag": tag}
        try:
            with self._call():
                result = self._obstore.put(self._store, key, data, mode=mode, use_multipart=False)
        except FileNotFoundError as error:
            raise ExistsError from error
        new: str | None = result["e_tag"]
        return new

    def upload(self, key: str, writer: Writer, attributes: dict[str, str]) -> None:
        """Store what `writer` took, in parts; a failed upload is given up there as well."""
        part = max(ONE_REQUEST_SIZE, math.ceil(writer.size / _PARTS))
        with writer.reader() as file:
            # What is read may lie in this memory, too, which takes one call at a time.
            content: Any = file.read() if self._scheme == "memory" else file
            with self._call():
                self._send_parts(key, content, attributes, part)

    def _send_parts(self, key: str, content: Any, attributes: dict[str, str], part: int) -> None:
        self._obstore.put(
            self._store,
            key,
            content,
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

    def read_tagged(self, key: str) -> tuple[bytes, str | None]:
        """Return all of a small object and its ETag, if it has one.

        Raises:
            FileNotFoundError: It is not there.
        """
        with self._call():
            result = self._obstore.get(self._store, key)
            return bytes(result.bytes()), result.meta["e_tag"]

    def stream(self, key: str, start: int, stop: int, piece: int = READ_SIZE) -> BytesStream:
        """Begin to read the bytes from `start` to `stop`, which must lie inside the object.

        Args:
            key: Of the object.
            start: First byte.
            stop: Behind the last byte.
            piece: Bytes that come at a time, at least.

        Raises:
            FileNotFoundError: It is not there.
        """
        with self._call():
            result = self._obstore.get(self._store, key, options={"range": (start, stop)})
            stream: BytesStream = result.stream(min_chunk_size=piece)
            return stream

    def begin(self, key: str, piece: int = READ_SIZE) -> tuple[Found, BytesStream] | None:
        """Begin to read all of an object, as `stream` does; return what is known of it, or None."""
        try:
            with self._call():
                result = self._obstore.get(self._store, key)
                meta, stream = result.meta, result.stream(min_chunk_size=piece)
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
                        self._store, folder or None, offset=after, chunk_size=_KEYS_IN_STEP
                    )
                chunk = self._next_chunk(chunks, min(until - time.monotonic(), _READ_WITHIN))
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
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise ExistsError from error
        except (exceptions.InvalidPathError, ValueError) as error:
            raise _RefusedError(first_line(error)) from error
        except BaseException as error:
            if isinstance(error, exceptions.BaseError) or is_panic(error):
                raise self._told(in_words(error, self._scheme, self._has_worked)) from error
            raise
        self._has_worked = True
        if self._is_failing:
            self._is_failing = False
            messages.AVAILABLE.log(self, root=self._root)

    def _told(self, error: HashFSError) -> HashFSError:
        """Log that the object store fails, if it does, and return the error."""
        if isinstance(error, StoreUnavailableError):
            self._is_failing = True
            messages.UNAVAILABLE.log(self, root=self._root, error=error.description)
        return error


async def _anext(chunks: Any) -> Any:
    try:
        return await chunks.__anext__()
    except StopAsyncIteration:
        return None
