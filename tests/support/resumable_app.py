"""The app that tests send resumable uploads to, on real servers; configured by the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def _usage() -> dict[str, int]:
    """Return the memory used now, and at most since this was last called, and bytes read."""
    lines = Path("/proc/self/status").read_text().splitlines()
    used = {line.split()[0]: line.split()[1:] for line in lines}
    Path("/proc/self/clear_refs").write_text("5")
    read = int(Path("/proc/self/io").read_text().split()[1])
    now, peak = (int(used[name][0]) * 1024 for name in ("VmRSS:", "VmHWM:"))
    return {"now": now, "peak": peak, "read": read}


def _prepare(app: Any, fs: Any) -> None:
    @fs.after_upload  # type: ignore[untyped-decorator,unused-ignore]
    def stored(upload: Any) -> Any:
        return {"id": upload.address.id, "upload": upload.id}


def flask_app() -> Any:
    """Make a Flask app from ``FLASK_*``; ``SILENCE`` is how long a client may be silent."""
    from flask import Flask, request

    from flask_hashfs import FlaskHashFS
    from flask_hashfs._flask import resumable

    resumable.SILENCE = float(os.environ.get("SILENCE", resumable.SILENCE))
    app = Flask(__name__)
    app.config.from_prefixed_env("FLASK")
    fs = FlaskHashFS(app)
    _prepare(app, fs)
    app.get("/usage")(_usage)

    @app.post("/put")
    def put() -> Any:
        """Store the body, for comparison."""
        return {"id": fs.put(request.stream).id}

    return app


def quart_app() -> Any:
    """Make the same app for Quart."""
    from quart import Quart, request

    from flask_hashfs import QuartHashFS

    app = Quart(__name__)
    app.config.from_prefixed_env("FLASK")
    fs = QuartHashFS(app)
    _prepare(app, fs)
    app.get("/usage")(_usage)

    @app.post("/put")
    async def put() -> Any:
        """Store the body, for comparison."""
        return {"id": (await fs.put(request.body)).id}

    return app
