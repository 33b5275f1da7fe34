"""Stored files sent as ASGI responses, from memory at once or by way of a thread."""

from __future__ import annotations

import os
import threading
from asyncio import sleep
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from io import FileIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from aiofiles.threadpool.binary import AsyncFileIO
from quart import Response, current_app
from quart.utils import encode_headers
from quart.wrappers.response import DataBody, ResponseBody
from werkzeug.datastructures import Headers

from .._app.serving import Answer
from .._http.ranges import ByteRange
from .._http.reading import Steps
from .._storage.page_cache import read_cached
from .reader import close
from .workers import Workers, finished

if TYPE_CHECKING:
    from hypercorn.typing import ASGISendCallable, HTTPScope
    from quart.typing import ResponseTypes

    from .._http.plan import Plan

READ_SIZE = 512 * 1024  # of larger ones the allocator gives the memory back, and faults it in again
_CACHED_READ_SIZE = 120 * 1024  # from 128 KiB on glibc would map each anew, and faults cost more


class _InTurn:
    """A file whose close waits for the read that another thread is in.

    So a cancelled task need not wait for its read: it is the close that is waited for.
    """

    def __init__(self, file: BinaryIO, reads_cached: bool) -> None:
        self._file = file
        self._reads_cached = reads_cached
        self._turn = threading.Lock()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def seek(self, position: int) -> int:
        with self._turn:
            return self._file.seek(position)

    def read(self, size: int) -> bytes:
        with self._turn:
            return self._file.read(size)

    def read_cached(self, start: int, size: int) -> bytes | None:
        """Return bytes that are in memory, or None rather than wait."""
        if not self._reads_cached or not self._turn.acquire(blocking=False):
            return None
        try:
            return read_cached(self._file.fileno(), start, size)
        finally:
            self._turn.release()

    def close_at_once(self) -> bool:
        """Close the file if that takes no waiting; tell whether it did."""
        if not self._reads_cached or not self._turn.acquire(blocking=False):
            return False
        try:
            if os.fstat(self._file.fileno()).st_nlink == 0:  # the close frees the disk
                return False
            self._file.close()
            return True
        finally:
            self._turn.release()

    def close(self) -> None:
        with self._turn:
            self._file.close()

    def drop(self) -> None:
        """Close the file, unless it is being read: then the last to hold it does."""
        if self._turn.acquire(blocking=False):
            try:
                close(self._file)
            finally:
                self._turn.release()


class StoredBody(ResponseBody):
    """The bytes of a plan, read from an open file; what has been read of it goes first.

    Args:
        plan: What to send.
        file: Unbuffered; closed with the body.
        first: The beginning of the plan's first range, and all the file has been read of.
        executor: Where it is read.
        path: Of the whole file, where the body is that alone and the server may send it itself.
        reads_cached: Whether what is in memory can be read at once, without `executor`.
    """

    def __init__(
        self,
        plan: Plan,
        file: BinaryIO,
        first: bytes,
        executor: Executor,
        path: str | None,
        reads_cached: bool,
    ) -> None:
        self.path = path
        self._parts = plan.body
        self._first = first
        self._file = _InTurn(file, reads_cached)
        self._reader: Any = AsyncFileIO(cast(Any, self._file), None, executor)

    async def __aenter__(self) -> StoredBody:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._file.closed and not self._file.close_at_once():
            await finished(self._reader.close())

    def __del__(self) -> None:
        self._file.drop()  # of a response that was never sent

    async def __aiter__(self) -> AsyncIterator[bytes]:
        steps, position = Steps(self._parts), -1
        # The end of the range whose rest is left to the thread: a read that is refused begins to
        # read ahead, so one is enough.
        refused = -1
        for step in steps:
            if isinstance(step, bytes):
                yield step
                continue
            start, size = step
            piece = None
            if self._first:
                piece, self._first = self._first, b""
                position = start + len(piece)
            elif start + size != refused:
                piece = self._file.read_cached(start, min(size, _CACHED_READ_SIZE))
                await sleep(0)  # others have their turn, even if sending never waits
            if piece is None:
                refused = start + size
                if start != position:
                    self._file.seek(start)
                piece = await self._reader.read(min(size, READ_SIZE))
                position = start + len(piece)
            steps.took(len(piece))
            yield piece


def begin_answer(answer: Answer, by_path: bool) -> tuple[Answer, bytes]:
    """Return the answer with the beginning of its first range, which may be all of it.

    Nothing is read of what the server will read by itself.
    """
    try:
        reads = not by_path or _path(answer) is None
        return answer, read_first(answer) if reads else b""
    except BaseException:
        answer.close()
        raise


def read_first(answer: Answer) -> bytes:
    part = next((part for part in answer.plan.body if isinstance(part, ByteRange)), None)
    if answer.file is None or part is None:
        return b""
    if part.start:
        answer.file.seek(part.start)
    first = answer.file.read(min(part.size, READ_SIZE))
    if len(answer.plan.body) == 1 and len(first) == part.size:
        answer.close()
    return first


def _path(answer: Answer) -> str | None:
    """Return where the server can find what it is to send, if that is one whole file."""
    whole = isinstance(answer.file, FileIO) and answer.plan.body == (ByteRange(0, answer.size),)
    return answer.path if whole else None


def make_response(answer: Answer, first: bytes, by_path: bool, workers: Workers) -> Response:
    """Return the response that carries an answer out.

    Args:
        answer: From `begin_answer`, with what it read.
        first: What has been read of the file.
        by_path: Whether the server may be left to send a whole file by itself.
        workers: Where the rest is read.
    """
    plan = answer.plan
    body: ResponseBody
    if answer.file is None:
        body = DataBody(first)
    else:
        path, reads_cached = _path(answer) if by_path else None, answer.reads_cached
        body = StoredBody(plan, answer.file, first, workers.executor, path, reads_cached)
    response_class: Any = current_app.response_class
    response: Response = response_class(body, plan.status, Headers(plan.headers))
    response.timeout = None
    if "Content-Type" not in dict(plan.headers):
        del response.headers["Content-Type"]
    return response


def close_answer(ready: tuple[Answer, bytes]) -> None:
    ready[0].close()


def sends_paths(scope: HTTPScope) -> bool:
    """Tell whether the server sends whole files by itself."""
    return "http.response.pathsend" in (scope.get("extensions") or {})


async def send_path(send: ASGISendCallable, response: ResponseTypes, path: str) -> None:
    """Let the server send a whole file (an ASGI extension that hypercorn's types do not know)."""
    send_any: Any = send
    headers = encode_headers(response.headers)
    await send_any(
        {"type": "http.response.start", "status": response.status_code, "headers": headers}
    )
    await send_any({"type": "http.response.pathsend", "path": path})
