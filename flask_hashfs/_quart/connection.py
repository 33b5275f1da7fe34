"""Quart's connection, made to receive no more than the body has room for.

Quart runs two tasks for a request: one receives messages and gives their bytes to the body, the
other runs the view and sends the response. When the first returns, the second is cancelled. How far
the exchange is decides what the client's going means::

    phase        next         when the client is gone     when the view is cancelled
    VIEWING      ANSWERING    the view is cancelled [1]   a 400, if the body broke off
    ANSWERING    ENDING       the view is cancelled [1]   nothing more can be said
    ENDING       OVER         it is no news [2]           nothing more can be said
    OVER         -            -                           a task that begins now is cancelled

    [1] Unless it is reading the body, which tells it. It may answer: the client may be connected
        still, and only its chunked encoding be invalid.
    [2] Servers say so of each response that they have sent.

The response is not ended until the client has finished sending, for up to `LINGER` seconds and only
while bytes keep arriving: many clients read a response, such as a 413, only when they have sent
everything, and if the connection were closed before, their system would throw the response away.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from quart.asgi import ASGIHTTPConnection
from quart.wrappers import Request
from quart.wrappers.response import DataBody, FileBody, IOBody

from .body import UploadBody
from .multiplexed import SpooledMessages
from .request import UploadRequest, compose
from .sender import StoredBody, send_path
from .turns import turns
from .workers import finished

if TYPE_CHECKING:
    from hypercorn.typing import (
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        ASGISendEvent,
        HTTPResponseStartEvent,
        HTTPScope,
    )
    from quart import Quart
    from quart.typing import ASGIHTTPProtocol, ResponseTypes

SELF_CONTAINED = (DataBody, FileBody, IOBody, StoredBody, list, tuple)

INFORMATIONAL = "http.response.informational"
"""The ASGI message for an interim response."""

LINGER = 30.0
"""Seconds that a client has to finish a body that nobody reads."""

SILENCE = 1.0
"""Seconds without a byte after which such a client is not waited for any more."""


class Phase(enum.Enum):
    """How far the exchange is."""

    VIEWING = "nothing of the response is sent"
    ANSWERING = "the status and the headers are sent"
    ENDING = "the last message is being sent"
    OVER = "the server has left the connection"


class UploadConnection(ASGIHTTPConnection):
    """A connection that receives no more than the body has room for."""

    _body: UploadBody | None = None
    _phase = Phase.VIEWING
    _start: HTTPResponseStartEvent | None = None
    _place: asyncio.Future[None] | None = None

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        self._tasks: list[asyncio.Task[Any]] = []

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        # Before 0.23 Quart leaves its tasks behind where the server cancels this one.
        try:
            await super().__call__(receive, send)
        finally:
            self._phase = Phase.OVER
            if self._body is not None:
                self._body.leave()
            left = [task for task in self._tasks if not task.done()]
            self._tasks.clear()
            for task in left:
                task.cancel()
            try:
                if left:
                    await finished(asyncio.wait(left))
            finally:
                if self._place is not None:
                    turns().leave(self._place)

    def _begin_task(self) -> None:
        if self._phase is Phase.OVER:
            raise asyncio.CancelledError
        self._tasks.append(cast("asyncio.Task[Any]", asyncio.current_task()))

    async def handle_messages(
        self,
        request: Request,
        receive: ASGIReceiveCallable,
        request_task: asyncio.Task[None] | None = None,
    ) -> None:
        # Before 0.23 Quart itself ended the receiving with the view, and gave no task.
        view = [] if request_task is None else [request_task]
        self._begin_task()
        body = request.body
        if not isinstance(body, UploadBody):
            await super().handle_messages(request, receive, *view)
            return
        if request_task is not None:
            _cancel_after(request_task)
        spooled: SpooledMessages | None = None

        async def receive_with_room() -> ASGIReceiveEvent:
            nonlocal spooled
            if body.full:
                if spooled is None and self._is_shared and isinstance(request, UploadRequest):
                    spooled = SpooledMessages(receive, body, request.workers)
                await body.room()
            message = await (receive() if spooled is None else spooled.receive())
            if message["type"] == "http.disconnect":
                if self._phase is not Phase.ENDING:
                    self._place = turns().join()
                    await self._place  # many clients may have gone at once
                if self._spares_the_view(body):
                    await asyncio.Event().wait()  # returning would cancel the view
            return message

        try:
            await super().handle_messages(request, receive_with_room, *view)
        finally:
            if spooled is not None:
                await finished(spooled.close())

    @property
    def _is_shared(self) -> bool:
        """Whether other requests may come over the same connection at the same time."""
        return self.scope["http_version"].partition(".")[0] not in ("0", "1")

    def _spares_the_view(self, body: UploadBody) -> bool:
        """Tell whether the view goes on although the client is gone."""
        learns_of_it = body.set_broken() and body.is_read
        return learns_of_it or self._phase is Phase.ENDING

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        self._begin_task()
        body = request.body
        if not isinstance(body, UploadBody):
            await super().handle_request(request, send)
            return
        self._body = body
        if isinstance(request, UploadRequest) and _takes_interim_responses(self.scope, send):
            request.send_informational = partial(_send_informational, send)

        async def send_and_note(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start":
                self._phase = Phase.ANSWERING
                self._start = message
            elif _is_last(message):
                # hypercorn ends a stream only when it is rid of the messages it has queued.
                self._phase = Phase.ENDING
                if body.abandon() and _tells_its_end(self._start) and not message.get("body"):
                    await _linger(body)
            await send(message)

        try:
            await super().handle_request(request, send_and_note)
        except asyncio.CancelledError:
            if body.broken and self._phase is Phase.VIEWING:
                with suppress(Exception):
                    await _send_bad_request(send)
            raise

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        # A client that sends everything before it reads anything would wait for ever, and so would
        # an answer longer than the socket's buffer. A generator may be reading the body, though.
        content = response.response
        if self._body is not None and isinstance(content, SELF_CONTAINED):
            self._body.abandon()
        if not isinstance(content, StoredBody):
            await super()._send_response(send, response)
            return
        async with content:  # Quart enters it only when the headers are out
            if content.path is not None:
                await send_path(send, response, content.path)
            else:
                await super()._send_response(send, response)


def _takes_interim_responses(scope: HTTPScope, send: ASGISendCallable) -> bool:
    """Tell whether the server sends interim responses; one that does not ends the connection."""
    if INFORMATIONAL in (scope.get("extensions") or {}):
        return True
    return str(getattr(send, "__module__", "")).startswith(
        "gunicorn."
    )  # which does not announce it


async def _send_informational(
    send: ASGISendCallable, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    send_any: Any = send
    await send_any({"type": INFORMATIONAL, "status": status, "headers": headers})


def _cancel_after(view: asyncio.Task[None]) -> None:
    """Cancel the running task when `view` is done."""
    # In a frame of its own: where the frame of a task has a variable for the task, the two make a
    # cycle once it is cancelled, and only a garbage collection frees them.
    receiver = cast("asyncio.Task[Any]", asyncio.current_task())
    view.add_done_callback(lambda _: receiver.cancel())


async def _linger(body: UploadBody) -> None:
    """Let the client finish sending what is dropped."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            await body.drain(SILENCE)


def _tells_its_end(start: HTTPResponseStartEvent | None) -> bool:
    """Tell whether the client sees where the answer ends before its formal end."""
    return start is not None and any(
        name.lower() == b"content-length" for name, _ in start["headers"]
    )


def _is_last(message: Mapping[str, Any]) -> bool:
    kind = message["type"]
    if kind == "http.response.body":
        return not message.get("more_body", False)
    return bool(kind == "http.response.pathsend")


async def _send_bad_request(send: ASGISendCallable) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def connection_class(base: type[ASGIHTTPProtocol]) -> type[ASGIHTTPProtocol]:
    """Return `base` made to receive no more than the request's body has room for.

    A class that shares nothing with Quart's own is left as it is.
    """
    if not issubclass(base, ASGIHTTPConnection) or issubclass(base, UploadConnection):
        return base
    return compose(UploadConnection, base)
