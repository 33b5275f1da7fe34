"""A spool on a full disk: an error of its own, 507, and nothing left behind."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_systems import small_disk
from flask import Flask, request
from object_stores import keys

from flask_hashfs import FlaskHashFS, StoreFullError
from flask_hashfs._bucket.client import ONE_REQUEST_SIZE
from flask_hashfs._store.object_store import ObjectStore

SIZE = 1024 * 1024  # bytes of the file system
LARGE = bytes(ONE_REQUEST_SIZE + 1)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("spool")
    with small_disk(folder, f"size={SIZE}"):
        yield folder


@pytest.fixture
def spool(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    yield disk
    assert os.listdir(disk) == []
    assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize == SIZE


@pytest.mark.usefixtures("spool")
def test_content_that_does_not_fit_is_told_by_its_own_error() -> None:
    store = ObjectStore("memory://")
    for source in (LARGE, io.BytesIO(LARGE), iter([LARGE[:99], LARGE])):
        with pytest.raises(StoreFullError):
            store.put(source)
    ((_, small), (_, large)) = store.put_files([(b"small", None), (LARGE, None)])
    assert not isinstance(small, Exception)
    assert isinstance(large, StoreFullError)
    assert keys(store) == [small.relpath]


@pytest.mark.usefixtures("spool")
def test_an_upload_that_does_not_fit_is_a_507() -> None:
    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER="memory://")
    fs = FlaskHashFS(app)
    app.add_url_rule("/raw", "raw", lambda: fs.put(request.stream).id, methods=["POST"])
    app.add_url_rule("/form", "form", lambda: fs.put(request.files["f"]).id, methods=["POST"])
    client = app.test_client()
    assert client.post("/raw", data=LARGE).status_code == 507
    head = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n\r\n'
    form = {
        "data": head + LARGE + b"\r\n--x--\r\n",
        "content_type": "multipart/form-data; boundary=x",
    }
    assert client.post("/form", **form).status_code == 507
    with app.app_context():
        assert list(fs.files()) == []
