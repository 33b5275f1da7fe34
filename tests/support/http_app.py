"""The apps that the tests run on real servers; configured by the environment alone."""

from __future__ import annotations

import os
from typing import Any


def flask_app() -> Any:
    """Make a Flask app from ``FLASK_HASHFS_*`` that serves its files, also from a view."""
    from flask import Flask, request

    from flask_hashfs import FlaskHashFS

    app = Flask(__name__)
    app.config.from_prefixed_env("FLASK")
    fs = FlaskHashFS(app)

    @app.get("/view/<path:file>")
    def view(file: str) -> Any:
        return fs.send_file(file, download_name=request.args.get("name"))

    @app.get("/shrinking/<path:file>")
    def shrinking(file: str) -> Any:
        response = fs.send_file(file)
        os.truncate(fs.get(file).abspath, 200_000)  # type: ignore[union-attr]
        return response

    return app


def quart_app() -> Any:
    """Make the same app for Quart."""
    from quart import Quart, request

    from flask_hashfs import QuartHashFS

    app = Quart(__name__)
    app.config.from_prefixed_env("FLASK")
    fs = QuartHashFS(app)

    @app.get("/view/<path:file>")
    async def view(file: str) -> Any:
        return await fs.send_file(file, download_name=request.args.get("name"))

    @app.get("/shrinking/<path:file>")
    async def shrinking(file: str) -> Any:
        response = await fs.send_file(file)
        os.truncate((await fs.get(file)).abspath, 200_000)  # type: ignore[union-attr]
        return response

    return app
