"""Behind Flask-Compress the answer to a HEAD has the headers of that to a GET."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_compress import Compress

from flask_hashfs import FlaskHashFS, HashFS


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=tmp_path, HASHFS_FSYNC=False)
    app.config.update(HASHFS_SERVE_FILES=True, HASHFS_PATH_PREFIX="/files")
    FlaskHashFS(app)
    Compress(app)
    return app


# Flask-Compress drops a streamed body when it has read it, without closing it.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("size", [0, 10, 5_000, 64 * 1024, 300_000])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_head_agrees_with_get(app: Flask, size: int, encoding: str) -> None:
    store: HashFS = app.extensions["hashfs"]["client"]
    address = store.put((b"some text " * (size // 10 + 1))[:size], "txt")
    client = app.test_client()

    def headers(method: str) -> dict[str, str]:
        response = client.open(
            f"/files/{address.id}", method=method, headers={"Accept-Encoding": encoding}
        )
        assert response.status_code == 200
        assert (response.data == b"") == (method == "HEAD" or not size)
        return {name: value for name, value in response.headers if name != "Date"}

    assert headers("HEAD") == headers("GET")
    gc.collect()  # what was dropped is told of here, not in a later test


def test_a_head_alone_opens_nothing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    store: HashFS = app.extensions["hashfs"]["client"]
    address = store.put(b"\x89PNG" + bytes(1000), "png")  # which Flask-Compress passes by
    opened: list[object] = []
    monkeypatch.setattr(type(store), "open", lambda *arguments: opened.append(arguments))
    client: FlaskClient = app.test_client()
    response = client.head(f"/files/{address.id}")
    assert response.status_code == 200
    assert response.headers["Content-Length"] == "1004"
    assert not opened
