"""The app that tests send uploads to, on real servers; configured by the environment alone."""

from __future__ import annotations

import os
from typing import Any


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
        root, found = os.path.realpath(fs.client.root), []
        for fd in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
            except FileNotFoundError:
                pass
        return [path for path in found if path.startswith(root)]

    return app
