"""A WSGI request's body as a stream that never passes a broken body off as a whole one.

Where a body ends is decided once, before anything of it is read (RFC 9112, section 6.3)::

    wsgi.input_terminated    where the server's stream ends
    Transfer-Encoding        nobody knows: 411, since the server hands out the chunks undecoded,
                             or decodes them and does not say how many bytes there are
    Content-Length           after so many bytes
    none of them             at once: the request has no body

A proxy that speaks the uwsgi protocol, such as nginx, has decoded the chunks and counted the
bytes, but passes Transfer-Encoding on as well; there the Content-Length holds.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from werkzeug.exceptions import HTTPException, LengthRequired

from .._http import framing
from .._http.body_rules import BodyRules, read_already
from .._storage.sources import ReadOnce
from .._storage.upload_memory import MEMORY, Share
from ..exceptions import IncompleteUploadError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

READ_SIZE = 1024 * 1024


def open_body(environ: WSGIEnvironment, max_size: int | None) -> BinaryIO:
    """Return a request's body as a stream that ends only where the body does.

    Args:
        environ: The request's WSGI environment.
        max_size: Bytes the body may have, or None.

    Raises:
        BadRequest: Content-Length is not a number.
        LengthRequired: It is chunked, and the server does not tell where it ends.
        RequestEntityTooLarge: Content-Length says that it has more.
    """
    terminated = _is_terminated(environ)
    length = None if _is_chunked(environ) else framing.content_length(environ.get("CONTENT_LENGTH"))
    rules = BodyRules(length, max_size)
    rules.check(0)
    if hides_end(environ):
        raise LengthRequired(
            "The request's body is chunked, and this server does not tell where it ends; "
            "send it with a Content-Length."
        )
    if rules.expected is None and not terminated:
        return io.BytesIO()
    return cast(BinaryIO, Body(environ["wsgi.input"], rules, terminated))


def body_length(environ: WSGIEnvironment) -> int | None:
    """Return the bytes that a request's body has, or None where only its end tells.

    Raises:
        BadRequest: Content-Length is not a number of bytes that a file can have.
    """
    version = environ.get("SERVER_PROTOCOL", "").partition("/")[2] or "1.1"
    return framing.body_length(_coding(environ), environ.get("CONTENT_LENGTH"), version)


def hides_end(environ: WSGIEnvironment) -> bool:
    """Tell whether the server does not tell where the body ends, so that `open_body` refuses it."""
    return _is_chunked(environ) and not _is_terminated(environ)


def _is_terminated(environ: WSGIEnvironment) -> bool:
    return bool(environ.get("wsgi.input_terminated"))


def _is_chunked(environ: WSGIEnvironment) -> bool:
    """Tell whether Transfer-Encoding frames the body, so that Content-Length has no say."""
    return framing.is_coded(_coding(environ))


def _coding(environ: WSGIEnvironment) -> str | None:
    """Return the Transfer-Encoding of the body, unless a proxy has decoded it."""
    return None if _is_decoded_by_proxy(environ) else environ.get("HTTP_TRANSFER_ENCODING")


def _is_decoded_by_proxy(environ: WSGIEnvironment) -> bool:
    """Tell whether uWSGI was handed the body by a proxy, decoded and counted.

    uWSGI's own HTTP server decodes nothing, even beside a Content-Length. Its router (``--http``)
    names itself; its ``--http-socket`` takes the machine for the server's name and, unlike a
    proxy, passes no REMOTE_PORT.
    """
    if "uwsgi.version" not in environ or not environ.get("CONTENT_LENGTH"):
        return False
    node = environ.get("uwsgi.node", b"").decode("latin-1")
    is_http_socket = environ.get("SERVER_NAME") == node and "REMOTE_PORT" not in environ
    return not is_http_socket and "UWSGI_ROUTER" not in environ


class Body(ReadOnce):
    """A request's body, read from the server and checked.

    Args:
        source: The server's stream.
        rules: The length promised and the limit.
        terminated: Whether `source` ends where the body does, rather than wait for more.

    Raises:
        IncompleteUploadError: On reading: it is shorter than promised, its chunking is broken,
            or the connection is.
        RequestEntityTooLarge: On reading: it is larger than allowed.
    """

    def __init__(self, source: Any, rules: BodyRules, terminated: bool) -> None:
        self._source = source
        self._rules = rules
        self._last = None if terminated else rules.expected
        self._position = 0
        self._failure: HTTPException | None = None
        self._has_ended = False
        self._is_interrupted = False
        self._kept: bytes | None = None
        self._taken_from = 0  # where the last put, or the form, began to read
        self._is_taken = False
        self._share: Share | None = None

    def keep(self, data: bytes) -> None:
        """Take note of what the request keeps of the bytes that it has read."""
        self._kept = data

    def unread(self) -> object:
        """Return what `put` stores: this body, or the bytes kept by who has read it.

        Raises:
            IncompleteUploadError: It has been read to its end, and nothing was kept; or another
                put, or a form, has taken some of it, so that the rest is not the whole.
        """
        self._taken_from = self._position
        if not self._position or self._failure is not None:
            return self  # whose reading tells what is wrong with it
        if self._is_taken:
            raise read_already()
        if not self._is_over:
            return self
        if self._kept is None:
            raise read_already()
        return self._kept

    def mark_taken(self) -> None:
        """Note that what has been read since `unread`, or at all, went into a content or a form."""
        self._is_taken = self._is_taken or self._position > self._taken_from

    def is_untouched(self) -> bool:
        """Tell whether a form can be read from it, rather than that the app has read all of it.

        Raises:
            IncompleteUploadError: Its beginning alone is gone, or a put or form has taken some.
        """
        if not self._position:
            return True
        if self._is_taken or not (self._is_over or not self.read(1)):
            raise self._failure or read_already()
        return False

    @property
    def _is_over(self) -> bool:
        return self._has_ended or self.is_exhausted

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    @property
    def is_exhausted(self) -> bool:
        """Whether as many bytes have been read as Content-Length promises."""
        return self._rules.expected is not None and self._position >= self._rules.expected

    @property
    def is_whole(self) -> bool:
        """Whether just as many bytes have been read, and not more, whose end is to be seen."""
        return self._position == self._rules.expected

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, as many as the server hands out at once; b"" at the end."""
        if size is None or size < 0:
            return self.readall()
        return self._take(self._source.read, size)

    def readall(self) -> bytes:
        pieces = []
        while piece := self._take(self._source.read, READ_SIZE):
            pieces.append(piece)
        return b"".join(pieces)

    def exhaust(self) -> bytes:
        """Read and return the rest."""
        return self.readall()

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer).cast("B") as view:
            data = self._take(self._source.read, len(view))
            view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1) -> bytes:
        """Return the bytes up to and with the next line feed, and no more than `size`."""
        whole = size is None or size < 0
        pieces = []
        while whole or size:
            piece = self._take(self._source.readline, READ_SIZE if whole else cast(int, size))
            pieces.append(piece)
            if not whole or not piece or piece.endswith(b"\n"):
                break
        return b"".join(pieces)

    def interrupt(self) -> None:
        """Note that this process ends it, so that it is not counted among what has broken off."""
        self._is_interrupted = True

    def leave(self) -> None:
        """Count this body no more among those of uploads: it has ended, or its request has."""
        if self._share is not None:
            self._share.leave()

    def _take(self, read: Callable[[int], bytes], size: int) -> bytes:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if self._failure is not None:
            raise self._failure
        if self._last is not None:
            size = min(size, self._last - self._position)
        if self._rules.limit is not None:  # one byte more tells whether it is too large
            size = min(size, self._rules.limit - self._position + 1)
        if size <= 0:
            return b""
        try:
            data = self._received(read, size)
            self._position += len(data)
            self._has_ended = not data
            self._rules.check(self._position, ended=self._has_ended)
        except HTTPException as error:
            self._failure = error
            if isinstance(error, IncompleteUploadError) and not self._is_interrupted:
                MEMORY.count_aborted()
            self.leave()
            raise
        if self._is_over:
            self.leave()
        elif self._share is None:  # a body that one read takes whole is over already
            self._share = MEMORY.enter(_nothing)
        return data

    def _received(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            return read(size)
        except HTTPException:
            raise
        except Exception as error:  # servers raise errors of their own for broken chunking
            raise self._rules.incomplete(self._position) from error


def _nothing() -> None:
    """Do nothing for a body that keeps nothing: its server does."""
