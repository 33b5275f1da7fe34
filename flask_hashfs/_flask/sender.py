"""Carries out an HTTP plan over WSGI."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from io import UnsupportedOperation
from typing import Any, BinaryIO

from flask import Response, current_app, request
from werkzeug.datastructures import Headers
from werkzeug.wsgi import wrap_file

from .._http.plan import Plan
from .._http.ranges import ByteRange
from .._http.reading import Steps, ended_early

_READ_SIZE = 256 * 1024
_IN_MEMORY_SIZE = 64 * 1024  # at most sent from memory, which is cheaper than to begin a sendfile


def send(
    plan: Plan, file: BinaryIO | None, size: int, reopen: Callable[[], BinaryIO] | None = None
) -> Response:
    """Carry out `plan`.

    Args:
        plan: What to answer.
        file: Open where it is needed; it is closed with the response.
        size: Bytes of the whole file.
        reopen: Opens the file that a HEAD is about, should anything look at the body.
    """
    body: Any = _body(plan, file, size)
    if reopen is not None and plan.status == 200:
        body = _SmallBodyOfHead(reopen) if size <= _IN_MEMORY_SIZE else _BodyOfHead(reopen)
    response = current_app.response_class(
        body,
        plan.status,
        Headers(plan.headers),
        direct_passthrough=not isinstance(body, (list, _BodyOfHead)),
    )
    if "Content-Type" not in dict(plan.headers):
        del response.headers["Content-Type"]
    return response


def _body(plan: Plan, file: BinaryIO | None, size: int) -> Iterable[bytes]:
    if file is None:
        return []
    pieces = _Pieces(plan, file)
    sizes = (len(part) if isinstance(part, bytes) else part.size for part in plan.body)
    if sum(sizes) <= _IN_MEMORY_SIZE:
        try:
            return list(pieces)
        finally:
            pieces.close()
    if plan.body == (ByteRange(0, size),):
        whole: Any = _WholeFile(file, size)
        return wrap_file(request.environ, whole, _READ_SIZE)  # the server may use sendfile
    return pieces


class _BodyOfHead:
    """The body that GET would send, for what looks at a response on its way out.

    The answer to a HEAD must have the headers of that to a GET (RFC 9110, section 9.3.2), also
    where an extension such as Flask-Compress derives some from the body. The file is opened only
    then, and nothing of it is sent.
    """

    def __init__(self, reopen: Callable[[], BinaryIO]) -> None:
        self._reopen = reopen

    def __iter__(self) -> Iterator[bytes]:
        with self._reopen() as file:
            while piece := file.read(_READ_SIZE):
                yield piece


class _SmallBodyOfHead(_BodyOfHead):
    """The same where GET sends from memory: only what has a length is not taken for a stream."""

    def __len__(self) -> int:
        return 1


class _WholeFile:
    """A whole file for the server's file wrapper, which may hand its descriptor to sendfile.

    A server whose sendfile ends early takes the answer for whole, so closing tells it.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self.fileno = file.fileno
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        if not piece and size and self._file.tell() < self._size:
            raise ended_early()
        return piece

    def close(self) -> None:
        if self._file.closed:
            return
        with self._file:
            try:
                is_shorter = os.fstat(self._file.fileno()).st_size < self._size
            except UnsupportedOperation:  # not a file of this machine: no sendfile for it
                return
        if is_shorter:
            raise ended_early()


class _Pieces:
    """The bytes of a plan; closing it closes the file, read or not."""

    def __init__(self, plan: Plan, file: BinaryIO) -> None:
        self._file = file
        self._pieces = self._read(plan)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._pieces.close()
        self._file.close()

    def _read(self, plan: Plan) -> Generator[bytes, None, None]:
        steps, position = Steps(plan.body), 0
        for step in steps:
            if isinstance(step, bytes):
                yield step
                continue
            if step.start != position:
                self._file.seek(step.start)
            piece = self._file.read(min(step.size, _READ_SIZE))
            position = step.start + len(piece)
            steps.took(len(piece))
            yield piece
