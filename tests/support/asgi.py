"""An ASGI server in miniature: it hands an app one request and notes what the app does."""

from __future__ import annotations

import asyncio
from typing import Any

Message = dict[str, Any]


class Exchange:
    """One request to `app`; use it as an async context manager, which waits for the app's end.

    The request's body is sent by `send` and `finish`, or the client goes by `disconnect`. What
    the app has asked for is `received`, what it has answered `sent`.
    """

    def __init__(
        self,
        app: Any,
        path: str = "/",
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        http_version: str = "1.1",
        extensions: dict[str, Any] | None = None,
        raw_path: bytes | None = None,
    ) -> None:
        self._app = app
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        path, _, query = path.partition("?")
        pairs = {"Host": "localhost", **(headers or {})}
        self.scope: Message = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": http_version,
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode() if raw_path is None else raw_path,
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in pairs.items()],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
            "extensions": extensions or {},
        }
        self.received = 0
        self.sent: list[Message] = []
        self.task: asyncio.Task[None]

    async def __aenter__(self) -> Exchange:
        self.task = asyncio.create_task(self._app(self.scope, self._receive, self.deliver))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.task.cancel()
        await asyncio.wait([self.task], timeout=None if kind is None else 10)
        if kind is None and not self.task.cancelled():
            self.task.result()

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self._messages.put({"type": "http.request", "body": piece, "more_body": True})

    async def finish(self) -> None:
        await self._messages.put({"type": "http.request", "body": b"", "more_body": False})

    async def disconnect(self) -> None:
        await self._messages.put({"type": "http.disconnect"})

    async def settle(self) -> None:
        """Let the app go on until it waits for something."""
        for _ in range(50):
            await asyncio.sleep(0)

    @property
    def status(self) -> int | None:
        starts = [m["status"] for m in self.sent if m["type"] == "http.response.start"]
        return starts[0] if starts else None

    @property
    def headers(self) -> dict[str, str]:
        for message in self.sent:
            if message["type"] == "http.response.start":
                return {k.decode().lower(): v.decode("latin-1") for k, v in message["headers"]}
        return {}

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent if m["type"].endswith(".body"))

    async def _receive(self) -> Message:
        message = await self._messages.get()
        self.received += message["type"] == "http.request"
        return message

    async def deliver(self, message: Message) -> None:
        self.sent.append(message)
        await asyncio.sleep(0)
        if message["type"] != "http.response.start" and not message.get("more_body"):
            await self.disconnect()  # as servers tell of the end
