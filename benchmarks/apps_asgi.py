"""The ASGI apps that are measured. ``BENCH_ROOT`` is the store's folder, ``BENCH_FSYNC`` 1 or 0."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import io
import os
from collections.abc import Callable
from typing import Any

import hashfs
from quart import Quart, request, send_file
from stalls import Stalls
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from yardstick import store

from flask_hashfs import QuartHashFS

ROOT = os.environ["BENCH_ROOT"]
LIMIT = 2 * 1024**3
SMALL = bytes(1024)


def watched(app: ASGIApp) -> ASGIApp:
    """Add ``/stalls/start`` and ``/stalls/stop``, which answers the worst one in milliseconds.

    ``/trim`` makes the allocator give back what it keeps.
    """
    stalls = Stalls()

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path.startswith("/stalls/"):
            await answer(send, await stalls.ask(path))
        elif path == "/trim":
            with contextlib.suppress(OSError, AttributeError):  # not the C library of GNU
                ctypes.CDLL(None).malloc_trim(0)
            await answer(send, b"")
        else:
            await app(scope, receive, send)

    return outer


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def old_store() -> hashfs.HashFS:
    return hashfs.HashFS(ROOT, depth=4, width=1, algorithm="sha256")


# --- uploads -------------------------------------------------------------------------------------


def make_ours(**config: Any) -> Quart:
    app = Quart(__name__)
    app.config.update(
        HASHFS_ROOT_FOLDER=ROOT,
        HASHFS_FSYNC=os.environ.get("BENCH_FSYNC") == "1",
        HASHFS_SERVE_FILES=True,
        HASHFS_PATH_PREFIX="/files",
        HASHFS_UPLOADS_PATH="/uploads",
        HASHFS_UPLOADS_MAX=20_000,  # more than any crowd here
        MAX_CONTENT_LENGTH=LIMIT,
    )
    app.config.from_prefixed_env()  # QUART_HASHFS_*
    app.config.update(config)
    fs = QuartHashFS(app)

    @app.get("/link/<path:file>")
    async def link(file: str) -> str:
        return fs.url_for(file, external=False, expires=86400)

    @app.post("/raw")
    async def raw() -> str:
        return (await fs.put(request.body)).id

    @app.post("/multipart")
    async def multipart() -> str:
        return (await fs.put((await request.files)["file"])).id

    @app.post("/slow")
    async def slow() -> str:
        async for _ in request.body:
            await asyncio.sleep(0.002)
        return "slow"

    @app.post("/unread")
    async def unread() -> str:
        await asyncio.sleep(3)
        return "unread"

    @app.get("/bare")
    async def bare() -> bytes:
        return SMALL

    return app


def make_bare() -> Quart:
    """An app without any extension: what a request costs in any case."""
    app = Quart(__name__)

    @app.get("/bare")
    async def bare() -> bytes:
        return SMALL

    return app


def make_stock(threads: bool) -> Quart:
    app = Quart(__name__)
    app.config.update(MAX_CONTENT_LENGTH=LIMIT, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    old = old_store()

    async def put(file: Any) -> str:
        if threads:
            return str((await asyncio.to_thread(old.put, file)).id)
        return str(old.put(file).id)

    @app.post("/raw")
    async def raw() -> str:
        return await put(io.BytesIO(await request.get_data(cache=False)))

    @app.post("/multipart")
    async def multipart() -> str:
        return await put((await request.files)["file"].stream)

    @app.post("/slow")
    async def slow() -> str:
        async for _ in request.body:
            await asyncio.sleep(0.002)
        return "slow"

    @app.post("/unread")
    async def unread() -> str:
        await asyncio.sleep(3)
        return "unread"

    @app.get("/files/<path:name>")
    async def file(name: str) -> Any:
        return await send_file(os.path.join(ROOT, name), conditional=True)

    return app


def make_starlette() -> Starlette:
    old = old_store()

    async def raw(request: Request) -> PlainTextResponse:
        content = io.BytesIO(await request.body())
        return PlainTextResponse((await run_in_threadpool(old.put, content)).id)

    async def multipart(request: Request) -> PlainTextResponse:
        async with request.form() as form:
            file: Any = form["file"]
            return PlainTextResponse((await run_in_threadpool(old.put, file.file)).id)

    async def file(request: Request) -> FileResponse:
        return FileResponse(os.path.join(ROOT, request.path_params["name"]))

    return Starlette(
        routes=[
            Route("/raw", raw, methods=["POST"]),
            Route("/multipart", multipart, methods=["POST"]),
            Route("/files/{name:path}", file),
        ]
    )


async def drop(scope: Scope, receive: Receive, send: Send) -> None:
    """Receive, and do nothing with it: the least that any app costs."""
    if scope["type"] != "http":
        return
    while (message := await receive()).get("more_body", False):
        pass
    if message["type"] == "http.request":
        await answer(send, b"dropped")


async def hash_and_write(scope: Scope, receive: Receive, send: Send) -> None:
    """Store each body as it is, a form too: the yardstick."""
    if scope["type"] == "http":
        await answer(send, (await store(ROOT, receive)).encode())


async def hash_only(scope: Scope, receive: Receive, send: Send) -> None:
    """Receive and hash, on the event loop: no parsing, no storing."""
    if scope["type"] != "http":
        return
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    await answer(send, digest.hexdigest().encode())


_MAKERS: dict[str, Callable[[], Any]] = {
    "ours": make_ours,
    "accept": lambda: make_ours(HASHFS_ACCEPT="image/*, application/octet-stream"),
    "signed": lambda: make_ours(HASHFS_SERVE_FILES="signed", SECRET_KEY="measured"),
    "not signed": lambda: make_ours(SECRET_KEY="measured"),
    "bare": make_bare,
    "stock": lambda: make_stock(threads=False),
    "stock_threads": lambda: make_stock(threads=True),
    "starlette": make_starlette,
    "hash": lambda: hash_only,
    "drop": lambda: drop,
    "write": lambda: hash_and_write,
}
app = watched(_MAKERS[os.environ["BENCH_APP"]]())
