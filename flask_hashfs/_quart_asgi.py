"""Quart's receiving side: a request body that pushes back, and the classes that carry it.

Stock Quart takes from the server whatever the client sends, read or not. Here the connection stops
asking for more while `HIGH_WATER` bytes lie unread: the client's own TCP window fills up, and the
memory of a request is bounded whatever the view does.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from quart.asgi import ASGIHTTPConnection
from quart.wrappers import Body, Request
from quart.wrappers.response import DataBody, FileBody, IOBody
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from .exceptions import IncompleteUploadError

if TYPE_CHECKING:
    from hypercorn.typing import (
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        ASGISendEvent,
    )
    from quart.typing import ASGIHTTPProtocol, ResponseTypes

HIGH_WATER = 512 * 1024
BATCH = 256 * 1024

SELF_CONTAINED = (DataBody, FileBody, IOBody, list, tuple)

T = TypeVar("T")


class UploadBody(Body):
    """A request body that keeps little unread and never passes a broken one off as whole.

    It is read like Quart's own, ``async for data in body`` or ``await body``; `batch` besides hands
    out pieces worth a thread hop. Limit and completeness are judged when somebody reads, so that a
    limit set by the view counts for what has arrived already.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(None, None)
        self._expected = expected_content_length
        self._default_limit = max_content_length
        self._owner: weakref.ref[UploadRequest] | None = None
        self._received = 0
        self._broken: str | None = None
        self._room = asyncio.Event()
        self._readers = 0
        self._lifted = 0
        self._abandoned = False

    def bind(self, owner: UploadRequest) -> None:
        """Take the limit and the timeout from *owner* (weakly: it owns this body)."""
        self._owner = weakref.ref(owner)

    # What the view does.

    def __aiter__(self) -> UploadBody:
        return self

    async def __anext__(self) -> bytes:
        await self._arrival(1)
        if not self._data:
            raise StopAsyncIteration
        return self._take()

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._whole().__await__()

    async def batch(self) -> bytes:
        """Return at least `BATCH` bytes, fewer at the end, none after it.

        Raises:
            RequestTimeout: The client was silent for longer than the request's ``body_timeout``.
        """
        await self._arrival(BATCH, self._patience(always=True))
        return self._take()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say that this body will be read on, though perhaps not at this very moment."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    def clear(self) -> None:
        super().clear()
        self._room.set()

    # What the connection does.

    def append(self, data: bytes) -> None:
        self._received += len(data)
        if data and self._abandoned:
            self._broken = "The request's body was not read before the response was sent."
        elif data:
            self._data += data
            self._has_data.set()

    def set_complete(self) -> None:
        if self._expected is not None and self._received < self._expected:
            self.set_broken()
        super().set_complete()
        self._room.set()

    def set_broken(self) -> bool:
        """Note that no more bytes will come; return whether more had to."""
        if self._complete.is_set():
            return False
        if self._broken is None:
            wanted = "" if self._expected is None else f" of {self._expected}"
            self._broken = f"The request's body ended after {self._received}{wanted} bytes."
        super().set_complete()
        self._room.set()
        return True

    def abandon(self) -> None:
        """Drop what is yet to come: the answer does not depend on it."""
        if not self._complete.is_set():
            self._abandoned = True
            self._room.set()

    async def room(self) -> None:
        """Wait until there is room for another message."""
        while self._full:
            self._room.clear()
            await self._room.wait()

    @property
    def broken(self) -> bool:
        """Whether the body ended before it was complete."""
        return self._broken is not None

    @property
    def is_read(self) -> bool:
        """Whether somebody is reading, and so will be told how the body ended."""
        return self._readers > 0

    @property
    def _full(self) -> bool:
        lifted = self._lifted or self._abandoned or self._complete.is_set()
        return not lifted and len(self._data) >= HIGH_WATER

    async def _whole(self) -> bytes:
        self._lifted += 1
        self._room.set()
        try:
            await self._arrival(math.inf, self._patience())
        finally:
            self._lifted -= 1
        return bytes(self._data)

    async def _arrival(self, count: float, patience: float | None = None) -> None:
        """Wait until *count* bytes are here or all that will ever be."""
        with self.reading():
            self._check()
            while len(self._data) < count and not self._complete.is_set():
                self._has_data.clear()
                try:
                    async with asyncio.timeout(patience):
                        await self._has_data.wait()
                except TimeoutError:
                    raise RequestTimeout from None
                self._check()

    def _take(self) -> bytes:
        data = bytes(self._data)
        self.clear()
        return data

    def _check(self) -> None:
        if self._must_raise is not None:
            raise self._must_raise
        limit = self._limit()
        if limit is not None and max(self._received, self._expected or 0) > limit:
            raise RequestEntityTooLarge
        if self._broken is not None:
            raise IncompleteUploadError(self._broken)

    def _limit(self) -> int | None:
        owner = self._owner and self._owner()
        limit = owner.max_content_length if owner else None
        return self._default_limit if limit is None else limit

    def _patience(self, *, always: bool = False) -> float | None:
        owner = self._owner and self._owner()
        return owner.patience(always=always) if owner else None


class UploadRequest(Request):
    """A request whose body pushes back, and whose ``body_timeout`` is about silence.

    Stock Quart gives the whole body that many seconds, however steadily it moves.
    """

    body_class = UploadBody
    _timed = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.body, UploadBody):
            self.body.bind(self)

    @property
    def body_timeout(self) -> int | None:
        """Seconds of silence after which reading the body ends in a 408; None: no end."""
        return None if self._timed else self._body_timeout

    @body_timeout.setter
    def body_timeout(self, value: int | None) -> None:
        self._body_timeout = value

    def patience(self, *, always: bool = False) -> float | None:
        """Return the seconds of silence allowed to who waits for the body now."""
        return self._body_timeout if self._timed or always else None

    @contextmanager
    def _timed_by_silence(self) -> Iterator[None]:
        # Meanwhile `body_timeout` reads as None, which is what stock code hands to `wait_for`.
        self._timed += 1
        try:
            yield
        finally:
            self._timed -= 1

    async def get_data(
        self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False
    ) -> Any:
        with self._timed_by_silence():
            return await super().get_data(cache, as_text, parse_form_data)

    async def _load_form_data(self) -> None:
        with self._timed_by_silence():
            await super()._load_form_data()


class UploadConnection(ASGIHTTPConnection):
    """A connection that receives no more than the body has room for."""

    _body: UploadBody | None = None
    _started = False
    _ending = False

    async def handle_messages(self, request: Request, receive: ASGIReceiveCallable) -> None:
        body = request.body
        if not isinstance(body, UploadBody):
            await super().handle_messages(request, receive)
            return

        async def receive_with_room() -> ASGIReceiveEvent:
            await body.room()
            message = await receive()
            if message["type"] == "http.disconnect":
                told = body.set_broken() and body.is_read
                if told or self._ending:
                    # Returning cancels the view. It is spared where it learns of the break from
                    # the body, and may answer (the client may be there still, its chunks
                    # unreadable), and where it was the answer's end that closed the stream.
                    await asyncio.Event().wait()
            return message

        await super().handle_messages(request, receive_with_room)

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        body = request.body
        if not isinstance(body, UploadBody):
            await super().handle_request(request, send)
            return
        self._body = body

        async def send_and_note(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start":
                self._started = True
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                # hypercorn ends a stream only when it is rid of the messages it has queued.
                self._ending = True
                body.abandon()
            await send(message)

        try:
            await super().handle_request(request, send_and_note)
        except asyncio.CancelledError:
            if body.broken and not self._started:
                with suppress(Exception):
                    await _send_bad_request(send)
            raise

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        # A client that sends everything before it reads anything would wait for ever, and so would
        # an answer longer than the socket's buffer. A generator may be reading the body, though.
        if self._body is not None and isinstance(response.response, SELF_CONTAINED):
            self._body.abandon()
        await super()._send_response(send, response)


async def _send_bad_request(send: ASGISendCallable) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def upload_request_class(base: type[Request]) -> type[Request]:
    """Return *base* with the body, the limits and the forms of `UploadRequest`."""
    if issubclass(base, UploadRequest):
        return base
    composed = _compose(UploadRequest, base)
    composed.body_class = _compose(UploadBody, base.body_class)
    return composed


def connection_class(base: type[ASGIHTTPProtocol]) -> type[ASGIHTTPProtocol]:
    """Return *base* made to receive no more than the request's body has room for.

    A class that shares nothing with Quart's own is left as it is.
    """
    if not issubclass(base, ASGIHTTPConnection) or issubclass(base, UploadConnection):
        return base
    return _compose(UploadConnection, base)


def _compose(ours: type[T], base: type[T]) -> type[T]:
    """Return a new class, so that what an app sets on its own reaches no other app."""
    bases = (ours,) if issubclass(ours, base) else (ours, base)
    return cast("type[T]", type(base.__name__, bases, {"__module__": base.__module__}))
