"""One app under Flask and under Quart, asked alike, for what both must answer alike."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from flask import Flask
from flask import request as flask_request
from guards import LoopGuard
from quart import Quart
from quart import request as quart_request
from werkzeug.datastructures import Headers

from flask_hashfs import FlaskHashFS, QuartHashFS

NOTHING_BLOCKS = LoopGuard("flask_hashfs")
FRAMEWORKS = ["flask", "quart"]


@dataclass(frozen=True)
class Reply:
    """What an app answered."""

    status: int
    headers: Headers
    body: bytes


class Site:
    """An app of one framework with its stores; every call is made to its end.

    Args:
        framework: ``flask`` or ``quart``.
        config: The app's.
        names: Of the stores beside the default one.
    """

    def __init__(self, framework: str, config: dict[str, Any], names: Iterable[str] = ()) -> None:
        self.is_quart = framework == "quart"
        self.app: Any = (Quart if self.is_quart else Flask)("site")
        self.app.config.update(config)
        make: Any = QuartHashFS if self.is_quart else FlaskHashFS
        self.fs: Any = make(self.app)
        self.stores = {name: make(self.app, name=name) for name in names}

    @property
    def client(self) -> Any:
        """The default store itself."""
        return self.app.extensions["hashfs"]["client"]

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what `function` does in the app's context with a request, awaited if need be."""
        if not self.is_quart:
            with self.app.test_request_context("/"):
                return function(*args, **kwargs)

        async def call() -> Any:
            async with self.app.test_request_context("/"):
                result = function(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

        return self._run(call())

    def put(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(self.fs.put, *args, **kwargs)

    def url_for(self, *args: Any, **kwargs: Any) -> str:
        url: str = self.call(self.fs.url_for, *args, **kwargs)
        return url

    def route_put(self, path: str, **kwargs: Any) -> None:
        """Add a view that puts the raw body, and one at ``path/form`` that puts each file."""
        fs, name = self.fs, path.strip("/")

        def ids(addresses: list[Any]) -> dict[str, Any]:
            return {"relpaths": [address.relpath for address in addresses]}

        def raw() -> Any:
            extension = flask_request.args.get("extension")
            return ids([fs.put(flask_request.stream, extension, **kwargs)])

        def form() -> Any:
            extension = flask_request.args.get("extension")
            files = flask_request.files.getlist("f")
            return ids([fs.put(file, extension, **kwargs) for file in files])

        async def quart_raw() -> Any:
            extension = quart_request.args.get("extension")
            return ids([await fs.put(quart_request.body, extension, **kwargs)])

        async def quart_form() -> Any:
            extension = quart_request.args.get("extension")
            files = (await quart_request.files).getlist("f")
            return ids([await fs.put(file, extension, **kwargs) for file in files])

        views = (quart_raw, quart_form) if self.is_quart else (raw, form)
        for suffix, view in zip(("", "/form"), views, strict=True):
            self.app.add_url_rule(path + suffix, name + suffix, view, methods=["POST"])

    def ask(
        self,
        target: str,
        method: str = "GET",
        headers: Any = None,
        data: bytes | None = None,
    ) -> Reply:
        """Return the answer to one request."""
        if not self.is_quart:
            client = self.app.test_client()
            length = Headers(headers).get("Content-Length")  # else it sends that of the data
            environ = {} if length is None else {"CONTENT_LENGTH": length}
            with client.open(
                target, method=method, headers=headers, data=data, environ_overrides=environ
            ) as response:
                return Reply(response.status_code, response.headers, response.data)

        async def ask() -> Reply:
            client = self.app.test_client()
            response = await client.open(target, method=method, headers=headers, data=data)
            return Reply(response.status_code, response.headers, await response.get_data())

        reply: Reply = self._run(ask())
        return reply

    def _run(self, coroutine: Any) -> Any:
        async def run() -> Any:
            with NOTHING_BLOCKS():
                return await coroutine

        return asyncio.run(run())
