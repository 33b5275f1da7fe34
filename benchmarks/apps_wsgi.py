"""The WSGI apps that are measured. ``BENCH_ROOT`` is the store's folder, ``BENCH_FSYNC`` 1 or 0."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from typing import Any

import flask
import hashfs
from whitenoise import WhiteNoise

from flask_hashfs import FlaskHashFS

ROOT = os.environ["BENCH_ROOT"]
SMALL = bytes(1024)


def make_ours(**config: Any) -> flask.Flask:
    app = flask.Flask(__name__)
    app.config.update(
        HASHFS_ROOT_FOLDER=ROOT,
        HASHFS_FSYNC=os.environ.get("BENCH_FSYNC") == "1",
        HASHFS_SERVE_FILES=True,
        HASHFS_PATH_PREFIX="/files",
        HASHFS_UPLOADS_PATH="/uploads",
    )
    app.config.update(config)
    fs = FlaskHashFS(app)

    @app.get("/link/<path:file>")
    def link(file: str) -> str:
        return fs.url_for(file, external=False, expires=86400)

    @app.post("/raw")
    def raw() -> str:
        return fs.put(flask.request.stream).id

    @app.post("/multipart")
    def multipart() -> str:
        return fs.put(flask.request.files["file"]).id

    return app


def make_bare() -> flask.Flask:
    """An app without any extension: what a request costs in any case."""
    app = flask.Flask(__name__)

    @app.get("/bare")
    def bare() -> bytes:
        return SMALL

    return app


def make_stock() -> flask.Flask:
    app = flask.Flask(__name__)
    store = hashfs.HashFS(ROOT, depth=4, width=1, algorithm="sha256")

    @app.post("/raw")
    def raw() -> str:
        return str(store.put(io.BytesIO(flask.request.get_data(cache=False))).id)

    @app.post("/multipart")
    def multipart() -> str:
        return str(store.put(flask.request.files["file"].stream).id)

    @app.get("/files/<path:name>")
    def file(name: str) -> flask.Response:
        return flask.send_file(os.path.join(ROOT, name), conditional=True)

    return app


def hash_only(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Receive and hash: no parsing, no storing."""
    digest = hashlib.sha256()
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left and (data := environ["wsgi.input"].read(min(left, 256 * 1024))):
        digest.update(data)
        left -= len(data)
    body = digest.hexdigest().encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


_MAKERS: dict[str, Callable[[], Any]] = {
    "ours": make_ours,
    "accept": lambda: make_ours(HASHFS_ACCEPT="image/*, application/octet-stream"),
    "signed": lambda: make_ours(HASHFS_SERVE_FILES="signed", SECRET_KEY="measured"),
    "not signed": lambda: make_ours(SECRET_KEY="measured"),
    "bare": make_bare,
    "stock": make_stock,
    "hash": lambda: hash_only,
    "whitenoise": lambda: WhiteNoise(hash_only, root=ROOT, prefix="files/"),
}
app = _MAKERS[os.environ["BENCH_APP"]]()
