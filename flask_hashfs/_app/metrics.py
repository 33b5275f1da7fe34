"""Metrics and traces by the API of OpenTelemetry; where it is not installed, nothing of this runs.

The API does nothing until the app, or whoever starts it, installs an SDK, before or after
``init_app``. Each instrument is made once in a process, and the stores are told apart by an
attribute. Attributes have few values, and none is an id.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextvars import Token
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from werkzeug.exceptions import HTTPException

from .._http.plan import Plan
from .._http.ranges import ByteRange
from .._storage import messages
from .._storage.cache_stats import CacheStats
from .._storage.predecessor import HashAddress
from .._storage.upload_memory import MEMORY
from ..exceptions import (
    DigestMismatchError,
    FileTooLargeError,
    IncompleteUploadError,
    InvalidExtensionError,
    RejectedError,
    StoreFullError,
    StoreUnavailableError,
    UnsupportedTypeError,
)
from . import upload_stats
from .upload_stats import UploadStats

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation

NAME = "flask_hashfs"
"""What the meter and the tracer are named."""

_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (FileTooLargeError, "too_large"),
    (UnsupportedTypeError, "type"),
    (RejectedError, "rejected"),
    (DigestMismatchError, "digest"),
    (IncompleteUploadError, "incomplete"),
    (InvalidExtensionError, "extension"),
    (StoreFullError, "full"),
    (StoreUnavailableError, "unavailable"),
    (asyncio.CancelledError, "cancelled"),
    (HTTPException, "rejected"),  # what an inspector raised of its own
)
_ERRORS = {"unavailable", "full", "damaged", "unreadable", "healed"}
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BYTES = tuple(1024.0 * 4**power for power in range(12))  # 1 KiB to 4 GiB
_OF_UPLOADS: tuple[tuple[str, str, str, Callable[[UploadStats], int]], ...] = (
    ("active", "{request}", "Requests that upload now.", lambda stats: stats.active),
    ("buffered", "By", "Bytes of uploads that are in memory now.", lambda stats: stats.buffered),
)


_OF_CACHES = (
    ("hits", "{file}", "Files that were kept when they were asked for."),
    ("misses", "{file}", "Files that were not."),
    ("fills", "{file}", "Files fetched from the store and found whole."),
    ("evicted", "{file}", "Files deleted to make room."),
    ("damaged", "{file}", "Times that the store has sent other bytes than were put."),
    ("bytes", "By", "Bytes of all kept files."),
    ("files", "{file}", "Kept files."),
)


class _Instruments:
    """The instruments of this process."""

    def __init__(self) -> None:
        from opentelemetry import context, metrics, trace

        meter = metrics.get_meter(NAME)
        self.tracer = trace.get_tracer(NAME)
        self.as_current = trace.set_span_in_context
        self.attach, self.detach = context.attach, context.detach
        self.failed = trace.Status(trace.StatusCode.ERROR)
        self.observation = metrics.Observation
        histogram, counter = meter.create_histogram, meter.create_counter
        self.durations, self.sizes, self.counts = {}, {}, {}
        for kind, does in (("put", "put"), ("serve", "answer")):
            self.durations[kind] = histogram(
                f"hashfs.{kind}.duration",
                "s",
                f"How long one {does} took.",
                explicit_bucket_boundaries_advisory=_SECONDS,
            )
            self.sizes[kind] = histogram(
                f"hashfs.{kind}.size",
                "By",
                f"Bytes of one {does}.",
                explicit_bucket_boundaries_advisory=_BYTES,
            )
            self.counts[kind] = counter(f"hashfs.{kind}.count", f"{{{does}}}", f"Every {does}.")
        self.wait = histogram(
            "hashfs.worker.wait",
            "s",
            "How long a call waited for a worker thread, where it had to.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.errors = counter("hashfs.store.errors", "{error}", "What went wrong with a store.")
        meter.create_observable_gauge(
            "hashfs.worker.waiting",
            [self._observe_waiting],
            "{call}",
            "Calls that wait for a worker thread now.",
        )
        for name, unit, what, count in _OF_UPLOADS:
            meter.create_observable_gauge(
                f"hashfs.upload.{name}", [partial(self._observe_uploads, count)], unit, what
            )
        meter.create_observable_counter(
            "hashfs.upload.aborted",
            [self._observe_aborted],
            "{request}",
            "Requests that have broken off before all of their bytes had arrived.",
        )
        meter.create_observable_gauge(
            "hashfs.resumable.active",
            [self._observe_resumable],
            "{request}",
            "Requests that send bytes of a resumable upload now.",
        )
        for name, unit, what in _OF_CACHES:
            is_now = name in ("bytes", "files")
            make = meter.create_observable_gauge if is_now else meter.create_observable_counter
            make(f"hashfs.cache.{name}", [partial(self._observe_caches, name)], unit, what)
        messages.watch(self._count_error)

    def _count_error(self, kind: str) -> None:
        if kind in _ERRORS:
            self.errors.add(1, {"kind": kind})

    def _observe_uploads(
        self, count: Callable[[UploadStats], int], options: CallbackOptions
    ) -> Iterable[Observation]:
        yield self.observation(count(upload_stats.current()))

    def _observe_aborted(self, options: CallbackOptions) -> Iterable[Observation]:
        yield self.observation(MEMORY.aborted)

    def _observe_resumable(self, options: CallbackOptions) -> Iterable[Observation]:
        for metrics in list(_all_metrics):
            yield self.observation(metrics.resumable.count, metrics.attributes)

    def _observe_caches(self, name: str, options: CallbackOptions) -> Iterable[Observation]:
        for metrics in list(_all_metrics):
            if metrics.cache is not None:
                yield self.observation(getattr(metrics.cache(), name), metrics.attributes)

    def _observe_waiting(self, options: CallbackOptions) -> Iterable[Observation]:
        for metrics in list(_all_metrics):
            if metrics.waiting is not None:
                yield self.observation(metrics.waiting(), metrics.attributes)


_instruments = functools.cache(_Instruments)
_all_metrics: weakref.WeakSet[Metrics] = weakref.WeakSet()


class _Attributes(NamedTuple):
    """The same attributes as a measured value and a span have them."""

    of_value: dict[str, str]
    of_span: dict[str, str]


class Running:
    """Counts what runs within it now; a context that any number of threads may be in at once."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.count -= 1


class Metrics:
    """Measures one store of an app.

    Args:
        store: Its name, or None.
        framework: ``flask`` or ``quart``.

    Raises:
        ImportError: OpenTelemetry's API is not installed.
    """

    def __init__(self, store: str | None, framework: str) -> None:
        self.instruments = _instruments()
        self.attributes = {"store": store or "default", "framework": framework}
        self.waiting: Callable[[], int] | None = None
        self.cache: Callable[[], CacheStats] | None = None
        self.resumable = Running()
        self._with: dict[tuple[tuple[str, str], ...], _Attributes] = {}
        _all_metrics.add(self)

    def put(self) -> MeasuredPut:
        """Return what a put is to be made within."""
        return MeasuredPut(self, "put")

    def serve(self) -> MeasuredAnswer:
        """Return what an answer is to be made within."""
        return MeasuredAnswer(self, "serve")

    def waited(self, seconds: float) -> None:
        """Record how long a call waited for a worker thread."""
        self.instruments.wait.record(seconds, self.attributes)

    def having(self, more: tuple[tuple[str, str], ...]) -> _Attributes:
        """Return the attributes of the store with some more, of which there are few."""
        found = self._with.get(more)
        if found is None:
            attributes = {**self.attributes, **dict(more)}
            of_span = {f"hashfs.{name}": value for name, value in attributes.items()}
            found = self._with[more] = _Attributes(attributes, of_span)
        return found


def load(store: str | None, framework: str) -> Metrics | None:
    """Return what measures a store, or None where OpenTelemetry is not installed."""
    try:
        return Metrics(store, framework)
    except ImportError:
        return None


class _Measured:
    """A context in which one thing is done that has a span and a duration."""

    __slots__ = ("_began", "_kind", "_metrics", "_span", "_token", "more", "size")

    more: tuple[tuple[str, str], ...]
    """Attributes beside those of the store."""

    size: int | None
    """Bytes, where they are known."""

    def __init__(self, metrics: Metrics, kind: str) -> None:
        self._metrics = metrics
        self._kind = kind
        self.size = None
        self.more = ()

    def __enter__(self) -> Any:
        instruments = self._metrics.instruments
        self._span = instruments.tracer.start_span(f"hashfs.{self._kind}")
        self._token: Token[Any] = instruments.attach(instruments.as_current(self._span))
        self._began = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = time.perf_counter() - self._began
        instruments, span = self._metrics.instruments, self._span
        instruments.detach(self._token)
        if error is not None:
            self.more = self._of_error(error)
        attributes, of_span = self._metrics.having(self.more)
        instruments.durations[self._kind].record(seconds, attributes)
        instruments.counts[self._kind].add(1, attributes)
        if self.size is not None and error is None:
            instruments.sizes[self._kind].record(self.size, attributes)
        if span.is_recording():
            size = {} if self.size is None else {"hashfs.size": self.size}
            span.set_attributes({**of_span, **size})
            if error is not None and not _is_of_the_client(error):
                span.set_status(instruments.failed)
        span.end()

    def _of_error(self, error: BaseException) -> tuple[tuple[str, str], ...]:
        raise NotImplementedError


class MeasuredPut(_Measured):
    """The context of a put; it is told what came of it."""

    __slots__ = ()

    def stored(self, address: HashAddress, size: int) -> None:
        """Tell that the put was made, and of how many bytes."""
        self.size = size
        self.more = (("outcome", "duplicate" if address.is_duplicate else "new"),)

    def _of_error(self, error: BaseException) -> tuple[tuple[str, str], ...]:
        for kind, reason in _REASONS:
            if isinstance(error, kind):
                return (("outcome", reason),)
        return (("outcome", "error"),)


class MeasuredAnswer(_Measured):
    """The context of an answer; it is told what is answered."""

    __slots__ = ()

    def answered(self, plan: Plan, source: str) -> None:
        """Tell what is answered, and whether the file is in the store or in its cache."""
        if plan.body:  # else a HEAD, a 304, or the server in front sends the file
            self.size = sum(
                part.size if isinstance(part, ByteRange) else len(part) for part in plan.body
            )
        self.more = (("status", f"{plan.status // 100}xx"), ("source", source))

    def _of_error(self, error: BaseException) -> tuple[tuple[str, str], ...]:
        code = error.code if isinstance(error, HTTPException) else None
        return (("status", f"{(code or 500) // 100}xx"), ("source", "store"))


def _is_of_the_client(error: BaseException) -> bool:
    """Tell whether an error is no fault of the store or the app."""
    if isinstance(error, HTTPException):
        return error.code is not None and error.code < 500
    return isinstance(error, asyncio.CancelledError)
