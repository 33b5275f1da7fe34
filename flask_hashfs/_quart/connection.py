"""Quart's connection, made to receive no more than the body has room for."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from quart.asgi import ASGIHTTPConnection
from quart.wrappers import Request
from quart.wrappers.response import DataBody, FileBody, IOBody

from .body import UploadBody
from .request import compose
from .sender import StoredBody, send_path, sends_paths
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

LINGER = 30.0  # seconds given to a client to finish a body that nobody reads, …
SILENCE = 1.0  # … as long as it does send


class UploadConnection(ASGIHTTPConnection):
    """A connection that receives no more than the body has room for."""

    _body: UploadBody | None = None
    _started = False
    _ending = False
    _lingers = False
    _over = False

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        self._tasks: list[asyncio.Task[Any]] = []

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        # Before 0.23 Quart leaves its tasks behind where the server cancels this one.
        try:
            await super().__call__(receive, send)
        finally:
            self._over = True
            left = [task for task in self._tasks if not task.done()]
            self._tasks.clear()
            for task in left:
                task.cancel()
            if left:
                await finished(asyncio.wait(left))

    def _begin_task(self) -> None:
        if self._over:
            raise asyncio.CancelledError
        self._tasks.append(cast("asyncio.Task[Any]", asyncio.current_task()))

    async def handle_messages(
        self, request: Request, receive: ASGIReceiveCallable, *view: asyncio.Task[None]
    ) -> None:
        self._begin_task()
        body = request.body
        if not isinstance(body, UploadBody):
            await super().handle_messages(request, receive, *view)
            return
        if view:  # before 0.23 Quart itself ended the receiving with the view, and gave no task
            _cancel_after(view[0])

        async def receive_with_room() -> ASGIReceiveEvent:
            if body.full:
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

        await super().handle_messages(request, receive_with_room, *view)

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        self._begin_task()
        body = request.body
        if not isinstance(body, UploadBody):
            await super().handle_request(request, send)
            return
        self._body = body

        async def send_and_note(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start":
                self._started = True
                self._lingers = _tells_its_end(message)
            elif _is_last(message):
                # hypercorn ends a stream only when it is rid of the messages it has queued.
                self._ending = True
                if body.abandon() and self._lingers and not message.get("body"):
                    await _linger(body)
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
        content = response.response
        if self._body is not None and isinstance(content, SELF_CONTAINED):
            self._body.abandon()
        if not isinstance(content, StoredBody):
            await super()._send_response(send, response)
            return
        async with content:  # Quart enters it only when the headers are out
            if content.path is not None and sends_paths(self.scope):
                await send_path(send, response, content.path)
            else:
                await super()._send_response(send, response)


def _cancel_after(view: asyncio.Task[None]) -> None:
    """Cancel the running task when `view` is done."""
    # In a frame of its own: a cancelled task that its own frame knows is garbage in a cycle.
    receiver = cast("asyncio.Task[Any]", asyncio.current_task())
    view.add_done_callback(lambda _: receiver.cancel())


async def _linger(body: UploadBody) -> None:
    """Let the client finish sending: many read an answer, such as a 413, only when they have.

    The answer is theirs already, but for its formal end. If the connection were closed now, what
    they go on to send would make their system throw the answer away.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            await body.drain(SILENCE)


def _tells_its_end(start: HTTPResponseStartEvent) -> bool:
    """Tell whether the client sees where the answer ends before its formal end."""
    return any(name.lower() == b"content-length" for name, _ in start["headers"])


def _is_last(message: ASGISendEvent) -> bool:
    kind = cast(str, message["type"])
    more = cast("dict[str, Any]", message).get("more_body", False)
    return kind == "http.response.pathsend" or (kind == "http.response.body" and not more)


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
