"""The aiohttp app: ``python apps_aiohttp.py PORT``, its store in ``BENCH_ROOT``."""

from __future__ import annotations

import asyncio
import io
import os
import sys

import hashfs
import uvloop
from aiohttp import web
from stalls import Stalls

ROOT = os.environ["BENCH_ROOT"]
LIMIT = 2 * 1024**3


def make() -> web.Application:
    store = hashfs.HashFS(ROOT, depth=4, width=1, algorithm="sha256")
    stalls = Stalls()

    async def raw(request: web.Request) -> web.Response:
        content = io.BytesIO(await request.read())
        return web.Response(text=(await asyncio.to_thread(store.put, content)).id)

    async def multipart(request: web.Request) -> web.Response:
        file = (await request.post())["file"]
        assert isinstance(file, web.FileField)
        return web.Response(text=(await asyncio.to_thread(store.put, file.file)).id)

    async def file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(os.path.join(ROOT, request.match_info["name"]))

    async def stall(request: web.Request) -> web.Response:
        return web.Response(body=await stalls.ask(request.path))

    app = web.Application(client_max_size=LIMIT)
    app.router.add_post("/raw", raw)
    app.router.add_post("/multipart", multipart)
    app.router.add_get("/files/{name:.*}", file)
    app.router.add_get("/stalls/{what}", stall)
    return app


if __name__ == "__main__":
    loop = uvloop.new_event_loop()  # which uvicorn takes as well
    web.run_app(
        make(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=loop
    )
