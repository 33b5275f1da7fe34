"""An app whose store is measured: `gunicorn app:app` reads `gunicorn.conf.py` beside it."""

from __future__ import annotations

import os

from flask import Flask, request

from flask_hashfs import FlaskHashFS

app = Flask(__name__)
app.config["HASHFS_ROOT_FOLDER"] = os.environ.get("FILES", os.path.join(app.instance_path, "files"))
app.config["HASHFS_PATH_PREFIX"] = "/files"
app.config["HASHFS_SERVE_FILES"] = True
fs = FlaskHashFS(app)


@app.post("/files")
def upload() -> dict[str, str]:
    """Store the body of the request."""
    return {"id": fs.put(request.stream).id}
