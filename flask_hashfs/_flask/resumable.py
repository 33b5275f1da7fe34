"""The Flask driver of resumable uploads: it carries out the steps of a flow in the request."""

from __future__ import annotations

import socket
import time
from array import array
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from flask import Response, after_this_request, current_app, g, request

from .._app.awaiting import check_has_run
from .._app.resumable import (
    READ_SIZE,
    AddHeaders,
    Answer,
    Call,
    Hook,
    Incoming,
    Inform,
    Inspect,
    MakeAnswer,
    Pause,
    Piece,
    Receive,
    Step,
    Tell,
    UploadFlow,
    Watch,
    add_headers,
)
from .._http.resumable import HeaderList, Reply
from .._storage.pending import Taken
from .body import Body, body_length, hides_end, open_body

try:
    import ssl
except ImportError:  # a Python that was built without it
    ssl = None  # type: ignore[assignment]

try:
    import fcntl
    import termios
except ImportError:  # Windows, where gunicorn does not run
    fcntl = termios = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from .._storage.predecessor import HashAddress

SILENCE = 60.0
"""Seconds after which a client that sends nothing is given up."""

_UNREAD = 1024 * 1024  # bytes of a body that are dropped at most, so that its client gets an answer
_LINGER = 30.0  # seconds that this may take
_READ_AT_MOST = 1024 * 1024  # bytes that are read at once


def respond(
    flow: UploadFlow,
    incoming: Incoming,
    tell: Callable[[HashAddress], None],
    inspect: Callable[[Callable[[], BinaryIO], HashAddress], None],
) -> Response:
    """Answer the current request to a resumable upload.

    Args:
        flow: What to do, step by step.
        incoming: The request.
        tell: Sends the signal that content was stored.
        inspect: Has the inspectors look at content.
    """
    driver = _Driver(incoming, tell, inspect)
    after_this_request(driver.end_after)
    reply = driver.run(flow.run(incoming))
    response = current_app.response_class(reply.body, reply.status)
    del response.headers["Content-Type"]
    response.headers.extend(reply.headers)
    return response


def incoming(location: str, id: str | None) -> Incoming:
    """Return the current request as a flow takes it.

    Args:
        location: The path at which uploads are created.
        id: The upload it is sent to, or None.
    """
    environ = request.environ
    return Incoming(
        method=request.method,
        headers=request.headers,
        content_length=body_length(environ),
        id=id,
        location=location,
        hides_breaks=environ.get("SERVER_SOFTWARE", "").lower().startswith("granian"),
        hides_end=hides_end(environ),
    )


class _Driver:
    def __init__(
        self,
        incoming: Incoming,
        tell: Callable[[HashAddress], None],
        inspect: Callable[[Callable[[], BinaryIO], HashAddress], None],
    ) -> None:
        self._incoming = incoming
        self._tell = tell
        self._inspect = inspect
        self._environ = request.environ
        self._body: Any = None
        self._is_interrupted = False
        self._timeout: float | None = None
        self._socket: socket.socket | None = self._environ.get("gunicorn.socket")
        if not isinstance(self._socket, socket.socket):
            self._socket = None

    def run(self, steps: Generator[Step, Any, Reply]) -> Reply:
        result: Any = None
        error: BaseException | None = None
        while True:
            try:
                step = steps.send(result) if error is None else steps.throw(error)
            except StopIteration as stop:
                reply: Reply = stop.value
                return reply
            result = error = None
            try:
                result = self._carry_out(step)
            except BaseException as raised:
                error = raised

    def _carry_out(self, step: Step) -> Any:
        match step:
            case Call(function):
                return function()
            case Receive(function):
                return self._receive(function)
            case Hook(function, upload):
                result = current_app.ensure_sync(function)(upload)
                check_has_run("the hook", function, result)
                return result
            case MakeAnswer(value):
                return _answer(value)
            case Inspect(opens, address):
                return self._inspect(opens, address)
            case Tell(address):
                return self._tell(address)
            case Inform(headers):
                return self._inform(headers)
            case AddHeaders(headers):
                return add_headers(g, headers)
            case Watch(taken):
                return self._watch(taken)
            case Pause(seconds):
                return time.sleep(seconds)

    def _receive(self, function: Callable[[Piece], None]) -> bool:
        piece = self._read(self._worth_reading())
        if piece:
            function(piece)
        return bool(piece)

    def _worth_reading(self) -> int:
        """Return the bytes to read next: `READ_SIZE`, or what has arrived, if that is more.

        A read of more than has arrived could wait with all of that in the server's memory, where
        a reset of the connection loses it. Of a chunked body nobody knows how much has arrived.
        """
        if self._socket is None or self._incoming.content_length is None:
            return READ_SIZE
        return min(max(READ_SIZE, _count_arrived(self._socket)), _READ_AT_MOST)

    def _read(self, size: int) -> bytes:
        if self._body is None:
            self._body = open_body(self._environ, None)
            self._tell_body()
            if self._socket is not None:
                self._timeout = self._socket.gettimeout()
                self._socket.settimeout(SILENCE)
        data: bytes = self._body.read(size)
        return data

    def _inform(self, headers: HeaderList) -> None:
        """Send an interim response by the socket itself, which WSGI has no other way for."""
        if self._socket is None or self._environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
            return
        lines = ["HTTP/1.1 104 Upload Resumption Supported"]
        lines += [f"{name}: {value}" for name, value in headers]
        with suppress(OSError):  # the client is gone: the body will tell
            self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _watch(self, taken: Taken) -> None:
        taken.on_stale = self._interrupt
        if taken.is_stale:
            self._interrupt()

    def _interrupt(self) -> None:
        """Make a read that waits for the client end, in whichever thread it is."""
        self._is_interrupted = True
        self._tell_body()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)

    def _tell_body(self) -> None:
        if self._is_interrupted and isinstance(self._body, Body):
            self._body.interrupt()

    def end_after(self, response: Response) -> Response:
        """Let go of the body once the response has been sent."""
        response.call_on_close(self._end)
        return response

    def _end(self) -> None:
        """Drop a short rest of the body, since a connection closed over it may lose the answer."""
        with suppress(Exception):
            self._drop_rest()
        if self._socket is not None and self._body is not None:
            with suppress(OSError):
                self._socket.settimeout(self._timeout)

    def _drop_rest(self) -> None:
        read = 0 if self._body is None else self._body.tell()
        if not 0 < (self._incoming.content_length or 0) - read <= _UNREAD:
            return
        until = time.monotonic() + _LINGER
        while self._read(READ_SIZE) and (left := until - time.monotonic()) > 0:
            if self._socket is not None:
                self._socket.settimeout(left)


def _count_arrived(connection: socket.socket) -> int:
    """Return how many bytes can be read without waiting for the client, as far as that is known."""
    if fcntl is None or termios is None:
        return 0
    if ssl is not None and isinstance(connection, ssl.SSLSocket):  # encrypted ones say little
        return 0
    count = array("i", [0])
    try:
        fcntl.ioctl(connection, termios.FIONREAD, count)
    except (OSError, ValueError):  # the read will tell
        return 0
    return count[0]


def _answer(value: Any) -> Answer:
    response = current_app.make_response(value)
    return Answer(response.status_code, tuple(response.headers), response.get_data())
