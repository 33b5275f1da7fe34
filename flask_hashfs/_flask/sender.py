"""Carries out an HTTP plan over WSGI."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any, BinaryIO

from flask import Response, current_app, request
from werkzeug.datastructures import Headers
from werkzeug.wsgi import wrap_file

from .._http.plan import ByteRange, Plan

_CHUNK = 256 * 1024
_SMALL = 64 * 1024  # sent from memory: cheaper than what a sendfile needs to begin


def send(plan: Plan, file: BinaryIO | None, size: int) -> Response:
    """Carry out `plan` with the open `file`, which is closed with the response."""
    body: Any = _body(plan, file, size)
    response = current_app.response_class(
        body, plan.status, Headers(plan.headers), direct_passthrough=not isinstance(body, list)
    )
    if "Content-Type" not in dict(plan.headers):
        del response.headers["Content-Type"]
    return response


def _body(plan: Plan, file: BinaryIO | None, size: int) -> Iterable[bytes]:
    if file is None:
        return []
    pieces = _Pieces(plan, file)
    if sum(len(part) if isinstance(part, bytes) else part.size for part in plan.body) <= _SMALL:
        try:
            return list(pieces)
        finally:
            pieces.close()
    if plan.body == (ByteRange(0, size),):
        return wrap_file(request.environ, file, _CHUNK)  # the server may use sendfile
    return pieces


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
        for part in plan.body:
            if isinstance(part, bytes):
                yield part
                continue
            self._file.seek(part.start)
            left = part.size
            while left and (piece := self._file.read(min(left, _CHUNK))):
                left -= len(piece)
                yield piece
