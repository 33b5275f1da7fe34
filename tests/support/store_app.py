"""The apps behind which the contract of a store is tested over HTTP; for tests only.

A request says in its header ``Store`` which one it means, as the configuration of an app, so that
one server has as many stores as the tests want, each made by a worker that meets it first. Calls
and results are pickled, but for the bytes of files: those come and go as in any app.
"""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

CALLS = (
    *("get", "exists", "delete", "files", "folders", "count", "size"),
    *("corrupted", "repair", "verify", "prune"),
)
"""What is called by name; ``put`` and ``open`` have views of their own."""


def wsgi_app(environ: Any, start_response: Any) -> Any:
    """Hand the request to the Flask app of its store."""
    if "HTTP_STORE" not in environ:  # the question whether the server is up
        start_response("404 Not Found", [("Content-Length", "0")])
        return []
    return flask_app(environ["HTTP_STORE"])(environ, start_response)


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Hand the request to the Quart app of its store."""
    store = dict(scope["headers"]).get(b"store")
    if store is None:
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body"})
    else:
        await quart_app(store.decode())(scope, receive, send)


def failure(error: Exception) -> tuple[bytes, int]:
    """Return an error as a response."""
    return pickle.dumps(error), getattr(error, "code", 500)


@functools.lru_cache(8)
def flask_app(config: str) -> Any:
    """Make an app with this configuration."""
    from flask import Flask, request

    from flask_hashfs import FlaskHashFS

    app = Flask(__name__)
    app.config.update(json.loads(config))
    app.register_error_handler(Exception, failure)
    fs = FlaskHashFS(app)

    @app.post("/put")
    def put() -> bytes:
        options = json.loads(request.args["options"])
        return pickle.dumps(fs.put(request.stream, **options))

    @app.post("/open")
    def open() -> bytes:
        """Tell what file would be opened; its bytes are asked for by its URL."""
        file, mode = pickle.loads(request.get_data())
        fs.open(file, mode).close()
        address = fs.get(file)
        assert address is not None
        return pickle.dumps(fs.url_for(address, external=False))

    @app.post("/call/<name>")
    def call(name: str) -> bytes:
        assert name in CALLS
        arguments, keywords = pickle.loads(request.get_data())
        result = getattr(fs, name)(*arguments, **keywords)
        return pickle.dumps(list(result) if isinstance(result, Iterator) else result)

    return app


@functools.lru_cache(8)
def quart_app(config: str) -> Any:
    """Make the same app for Quart."""
    from quart import Quart, request

    from flask_hashfs import QuartHashFS

    app = Quart(__name__)
    app.config.update(json.loads(config))
    app.register_error_handler(Exception, failure)
    fs = QuartHashFS(app)

    @app.post("/put")
    async def put() -> bytes:
        options = json.loads(request.args["options"])
        return pickle.dumps(await fs.put(request.body, **options))

    @app.post("/open")
    async def open() -> bytes:
        sent: Any = await request.get_data()
        file, mode = pickle.loads(sent)
        async with fs.open(file, mode):
            pass
        address = await fs.get(file)
        assert address is not None
        return pickle.dumps(fs.url_for(address, external=False))

    @app.post("/call/<name>")
    async def call(name: str) -> bytes:
        assert name in CALLS
        sent: Any = await request.get_data()
        arguments, keywords = pickle.loads(sent)
        result = getattr(fs, name)(*arguments, **keywords)
        if isinstance(result, AsyncIterator):
            return pickle.dumps([item async for item in result])
        return pickle.dumps(await result)

    return app
