"""The app that tests send uploads to, on real servers; configured by the environment alone."""

from __future__ import annotations

import asyncio
import os
from typing import Any

SLOW = 200 * 1024 * 1024  # bytes a second


def flask_app() -> Any:
    """Make a Flask app from ``FLASK_*`` whose views store what they are sent."""
    from flask import Flask, request

    from flask_hashfs import FlaskHashFS

    app = Flask(__name__)
    app.config.from_prefixed_env("FLASK")
    fs = FlaskHashFS(app)

    @app.post("/form")
    def form() -> Any:
        """Store every file of a form, and answer with what the form was."""
        return {
            "fields": list(request.form.items(multi=True)),
            "files": [
                [name, file.filename, fs.put(file).id]
                for name, file in request.files.items(multi=True)
            ],
        }

    @app.post("/raw")
    def raw() -> Any:
        """Store the body."""
        return {"id": fs.put(request.stream).id}

    @app.post("/data")
    def data() -> Any:
        """Answer with the size of the body, read into memory."""
        return {"size": len(request.get_data())}

    @app.post("/fields")
    def fields() -> Any:
        """Answer with the form, putting nothing."""
        return {"fields": list(request.form.items(multi=True))}

    @app.get("/descriptors")
    def descriptors() -> Any:
        """Answer with the open files of the server's process that lie in the store."""
        return open_below(fs.client.root)

    return app


def flask_by_a2wsgi() -> Any:
    """Make the Flask app an ASGI one, by a2wsgi."""
    from a2wsgi import WSGIMiddleware

    return WSGIMiddleware(flask_app())


def flask_by_asgiref() -> Any:
    """Make the Flask app an ASGI one, by asgiref."""
    from asgiref.wsgi import WsgiToAsgi

    to_asgi: Any = WsgiToAsgi
    return to_asgi(flask_app())


def quart_app() -> Any:
    """Make the same app for Quart, with views that read slowly or not at all."""
    from quart import Quart, request

    from flask_hashfs import QuartHashFS

    app = Quart(__name__)
    app.config.from_prefixed_env("FLASK")
    fs = QuartHashFS(app)

    @app.post("/form")
    async def form() -> Any:
        files = (await request.files).items(multi=True)
        return {
            "fields": list((await request.form).items(multi=True)),
            "files": [[name, file.filename, (await fs.put(file)).id] for name, file in files],
        }

    @app.post("/raw")
    async def raw() -> Any:
        return {"id": (await fs.put(request.body)).id}

    @app.post("/data")
    async def data() -> Any:
        return {"size": len(await request.get_data())}

    @app.post("/fields")
    async def fields() -> Any:
        return {"fields": list((await request.form).items(multi=True))}

    @app.post("/slow")
    async def slow() -> Any:
        """Read the body slower than it could come."""
        size = 0
        async for piece in request.body:
            size += len(piece)
            await asyncio.sleep(len(piece) / SLOW)
        return {"size": size}

    @app.post("/unread")
    async def unread() -> Any:
        """Answer without having read the body."""
        await asyncio.sleep(0.5)
        return {"size": 0}

    @app.post("/small")
    async def small() -> Any:
        """Store the body, if it is a small one."""
        request.max_content_length = 1000
        return await raw()

    @app.get("/descriptors")
    async def descriptors() -> Any:
        return open_below(fs.client.root)

    @app.get("/memory")
    async def memory() -> Any:
        """Answer with the memory used at most since the last such request, in bytes."""
        with open("/proc/self/status") as status:
            used = {line.split()[0]: line.split()[1:] for line in status}
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")
        return {"now": int(used["VmRSS:"][0]) * 1024, "peak": int(used["VmHWM:"][0]) * 1024}

    return app


def open_below(root: str) -> list[str]:
    root, found = os.path.realpath(root), []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass
    return [path for path in found if path.startswith(root)]
