"""The app that a crowd of clients uploads to; configured by the environment alone."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import resource
import threading
from typing import Any

_hoard: list[int] = []


def _limit_descriptors() -> None:
    if limit := int(os.environ.get("CROWD_DESCRIPTORS", 0)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def _hoard_descriptors() -> str:
    """Leave this process no descriptor."""
    while True:
        try:
            _hoard.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return ""


def _release_descriptors() -> str:
    while _hoard:
        os.close(_hoard.pop())
    return ""


def quart_app() -> Any:
    """Make a Quart app that stores what it is sent, or holds it unread until it is told."""
    from quart import Quart, request

    from flask_hashfs import QuartHashFS

    _limit_descriptors()
    app = Quart(__name__)
    app.config.from_prefixed_env("FLASK")
    fs = QuartHashFS(app)
    told = asyncio.Event()

    @app.post("/raw")
    async def raw() -> Any:
        return {"ids": [(await fs.put(request.body)).id]}

    @app.post("/form")
    async def form() -> Any:
        files = (await request.files).getlist("f")
        return {"ids": [(await fs.put(file)).id for file in files]}

    @app.get("/hoard")
    async def hoard() -> str:
        return await asyncio.to_thread(_hoard_descriptors)

    @app.get("/release")
    async def release() -> str:
        return await asyncio.to_thread(_release_descriptors)

    @app.post("/unread")
    async def unread() -> Any:
        await told.wait()
        return await raw()

    @app.get("/tell")
    async def tell() -> str:
        told.set()
        return ""

    @app.get("/stats")
    async def stats() -> Any:
        """Answer with what the process holds."""
        return {
            "tasks": len(asyncio.all_tasks()),
            **dataclasses.asdict(fs.upload_stats()),
            **_process(),
        }

    return app


def flask_app() -> Any:
    """Make a Flask app that stores what it is sent."""
    from flask import Flask, request

    from flask_hashfs import FlaskHashFS

    _limit_descriptors()
    app = Flask(__name__)
    app.config.from_prefixed_env("FLASK")
    fs = FlaskHashFS(app)

    @app.post("/raw")
    def raw() -> Any:
        return {"ids": [fs.put(request.stream).id]}

    @app.post("/form")
    def form() -> Any:
        return {"ids": [fs.put(file).id for file in request.files.getlist("f")]}

    app.get("/hoard")(_hoard_descriptors)
    app.get("/release")(_release_descriptors)

    @app.get("/stats")
    def stats() -> Any:
        return {**dataclasses.asdict(fs.upload_stats()), **_process()}

    return app


def _process() -> dict[str, Any]:
    return {"descriptors": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}
