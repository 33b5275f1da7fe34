"""A bucket's app on a machine without a temporary folder: large uploads are told with a 503."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Site
from object_stores import keys
from resumable_faces import BucketFlaskFace, BucketQuartFace, encoded

from flask_hashfs._bucket.client import ONE_REQUEST_SIZE
from flask_hashfs._storage.spool import SystemSpool
from flask_hashfs._store.object_store import ObjectStore
from flask_hashfs.exceptions import StoreUnavailableError

SMALL = b"small"
LARGE = bytes(ONE_REQUEST_SIZE + 1)
HEAD = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.fixture(params=["there is none", "it is gone", "it is a file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let no folder be the temporary one, from the beginning or from now on."""
    folder = tmp_path / "temporary"
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    if request.param == "there is none":
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(folder)])
        monkeypatch.setenv("TMPDIR", str(folder))
    elif request.param == "it is a file":
        folder.write_bytes(b"")
    return folder


def check_told(error: StoreUnavailableError, folder: Path) -> None:
    assert str(folder) in str(error)
    assert "TMPDIR" in str(error)
    assert "TMPDIR" not in (error.description or "")  # a client learns nothing of the machine
    assert str(folder) not in (error.description or "")


def test_a_put_is_told_what_is_missing(folder: Path) -> None:
    store = ObjectStore("memory://")
    for source in (LARGE, io.BytesIO(LARGE), iter([LARGE[:99], LARGE])):
        with pytest.raises(StoreUnavailableError) as caught:
            store.put(source)
        check_told(caught.value, folder)
    ((_, small), (_, large)) = store.put_files([(SMALL, None), (LARGE, None)])
    assert not isinstance(small, Exception)
    assert isinstance(large, StoreUnavailableError)
    assert keys(store) == [small.relpath]


def test_it_is_told_where_files_have_to_have_names(folder: Path) -> None:
    spool = SystemSpool()
    spool.unnamed = False
    with pytest.raises(StoreUnavailableError) as caught:
        spool.create(0o700)
    check_told(caught.value, folder)


def test_a_folder_that_comes_back_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    store = ObjectStore("memory://")
    with pytest.raises(StoreUnavailableError):
        store.put(LARGE)
    folder.mkdir()
    address = store.put(LARGE)
    assert keys(store) == [address.relpath]
    assert os.listdir(folder) == []


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_upload_is_a_503_and_small_ones_go_on(
    framework: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(framework, {"HASHFS_ROOT_FOLDER": "memory://", "MAX_CONTENT_LENGTH": None})
    site.route_put("/put")
    with caplog.at_level(logging.INFO, "flask_hashfs"):
        replies = [
            site.ask("/put", "POST", data=LARGE),
            site.ask("/put/form", "POST", FORM, HEAD + LARGE + b"\r\n--x--\r\n"),
        ]
    for reply in replies:
        assert reply.status == 503
        assert reply.headers["Retry-After"] == "5"
        assert str(folder).encode() not in reply.body
    (line,) = [record for record in caplog.records if record.levelno > logging.INFO]
    told: dict[str, Any] = vars(line)
    assert (told["hashfs_kind"], told["hashfs_root"]) == ("unavailable", str(folder))
    assert site.ask("/put", "POST", data=SMALL).status == 200
    assert site.ask("/put/form", "POST", FORM, HEAD + SMALL + b"\r\n--x--\r\n").status == 200


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_small_file_of_a_form_has_no_descriptor_and_is_read_all_the_same(framework: str) -> None:
    site = Site(framework, {"HASHFS_ROOT_FOLDER": "memory://"})

    def use(stream: Any) -> str:
        with pytest.raises(io.UnsupportedOperation):
            stream.fileno()
        return str(stream.read().decode())

    if site.is_quart:
        from quart import request as quart_request

        async def quart_view() -> str:
            file = (await quart_request.files)["f"]
            return await asyncio.to_thread(use, file.stream)

        site.app.add_url_rule("/", "view", quart_view, methods=["POST"])
    else:
        from flask import request

        site.app.add_url_rule("/", "view", lambda: use(request.files["f"].stream), methods=["POST"])
    reply = site.ask("/", "POST", FORM, HEAD + SMALL + b"\r\n--x--\r\n")
    assert (reply.status, reply.body) == (200, SMALL)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", [BucketFlaskFace, BucketQuartFace])
def test_a_resumable_upload_whose_bytes_have_to_be_judged_is_a_503(
    kind: type[Any], tmp_path: Path
) -> None:
    face = kind(tmp_path, MAX_CONTENT_LENGTH=None)
    location = face.create(len(LARGE))
    checksum = f"sha256 {encoded(hashlib.sha256(LARGE).digest())}"
    assert face.tus(location, 0, LARGE, Upload_Checksum=checksum).status == 503
    assert face.offset(location) == 0
    assert face.tus(location, 0, LARGE).status == 204  # which waits in memory, piece by piece
    assert len(face.stored()) == 1
