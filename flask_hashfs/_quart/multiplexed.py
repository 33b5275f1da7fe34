"""A request of a shared connection: what has no room in memory goes to disk, so that none waits.

Several requests share a connection of HTTP/2 or HTTP/3. A server that cannot hand on the bytes of
one of them reads none of the others either (hypercorn), or uses up the window that all of them
share. So from the moment when the body of such a request has no room, its messages are taken from
the server all the same. They wait in memory up to `SPILL` bytes, beyond that in a temporary file,
which is one of those of uploads (`_storage/upload_files.py`) and is closed once nothing is in it::

    server -> _receive_all -> (_write -> file -> _read_back) -> receive -> body

The order is kept: while the file holds anything, nothing in memory is handed out before it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from .._storage.full import full_is_told
from .._storage.spool import SystemSpool
from .._storage.upload_files import FILES, UploadFile
from ..exceptions import IncompleteUploadError, StoreUnavailableError
from .batch import Batch
from .body import UploadBody
from .workers import Workers

Message = dict[str, Any]

SPILL = 256 * 1024
"""Bytes gathered in memory before they are written to the file, and read back from it at once."""

_DMODE = 0o700


class SpooledMessages:
    """The messages of one request, kept until its body has room for them.

    Args:
        receive: The server's.
        body: Its limit holds here too: what is larger is not worth a place on the disk.
        workers: Where the file is written and read.
    """

    def __init__(
        self, receive: Callable[[], Awaitable[Any]], body: UploadBody, workers: Workers
    ) -> None:
        self._server_receive = receive
        self._body = body
        self._workers = workers
        self._gathered = Batch()
        self._file: UploadFile | None = None
        self._read, self._written = 0, 0  # positions in the file
        self._turn = asyncio.Lock()  # of whoever uses the file
        self._arrived = asyncio.Event()
        self._is_awaited = False
        self._drops = False
        self._is_complete, self._is_told = False, False
        self._last: Message | Exception | None = None
        self._receiving = asyncio.ensure_future(self._receive_all())

    async def receive(self) -> Any:
        """Return the next message, as the server's own ``receive`` does."""
        while True:
            data = await self._next()
            is_all = self._is_complete and not self._waiting
            if data or (is_all and not self._is_told):
                self._is_told = is_all
                return {"type": "http.request", "body": data, "more_body": not is_all}
            if isinstance(self._last, Exception):
                raise self._last
            if self._last is not None:
                return self._last
            self._arrived.clear()
            self._is_awaited = True
            try:
                await self._arrived.wait()
            finally:
                self._is_awaited = False

    async def close(self) -> None:
        """Receive no more, and drop what is left with the file."""
        self._receiving.cancel()
        await asyncio.wait([self._receiving])
        if self._file is not None:
            await self._workers.run(self._close_file)

    @property
    def _waiting(self) -> int:
        """How many bytes have not been handed out, where none is on its way to the file."""
        return self._written - self._read + self._gathered.size

    async def _receive_all(self) -> None:
        """Take every message from the server until it says that the client is gone."""
        try:
            while (message := await self._server_receive())["type"] == "http.request":
                await self._keep(message.get("body", b""))
                self._is_complete = not message.get("more_body", False)
                self._arrived.set()
            self._last = message
        except Exception as error:
            self._last = error
        self._arrived.set()

    async def _keep(self, data: bytes) -> None:
        if self._drops:
            self._body.lose(_dropped(), len(data))
            return
        self._gathered.append(data)
        if self._gathered.size >= SPILL and not self._is_awaited:
            await self._spill()

    async def _spill(self) -> None:
        """Write what is gathered to the file, unless the body has become too large."""
        async with self._turn:
            if self._body.is_too_large_with(self._waiting):
                await self._drop(_dropped())
                return
            try:
                await self._workers.run(self._write, late_argument=self._take)
            except (OSError, StoreUnavailableError) as error:
                await self._drop(error)

    async def _drop(self, error: Exception) -> None:
        """Drop what is kept and what will come; the body remembers how much it was."""
        self._drops = True
        size = self._waiting
        self._gathered, self._read = Batch(), self._written
        self._body.lose(error, size)
        if self._file is not None:
            await self._workers.run(self._close_file)

    async def _next(self) -> bytes:
        """Return the bytes that come next, as far as they are there."""
        async with self._turn:
            if self._written == self._read:
                return bytes(self._take())
            try:
                return await self._workers.run(self._read_back)
            except (OSError, StoreUnavailableError) as error:
                await self._drop(error)
                return b""

    def _take(self) -> Batch:
        gathered, self._gathered = self._gathered, Batch()
        return gathered

    # In a worker thread, one at a time.

    @full_is_told
    def _write(self, gathered: Batch) -> None:
        if self._file is None:
            self._file = FILES.create(functools.partial(_spool().create, _DMODE))
        self._file.write(bytes(gathered))
        self._written += gathered.size

    @full_is_told
    def _read_back(self) -> bytes:
        assert self._file is not None
        buffer = bytearray(min(SPILL, self._written - self._read))
        with memoryview(buffer) as view:
            count = self._file.read_into(view, self._read)
        self._read += count
        if self._read == self._written:
            self._close_file()
        del buffer[count:]
        return bytes(buffer)

    def _close_file(self) -> None:
        file, self._file = self._file, None
        self._read = self._written = 0
        if file is not None:
            with suppress(OSError):
                file.close()


@functools.cache
def _spool() -> SystemSpool:
    return SystemSpool()


def _dropped() -> IncompleteUploadError:
    return IncompleteUploadError(
        "The request's body was dropped, as it was larger than was allowed when it arrived."
    )
