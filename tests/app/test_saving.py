"""`save`, in both frameworks: what it keeps of an upload."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from flask import Flask
from quart import Quart
from werkzeug.datastructures import FileStorage

from flask_hashfs import AUTO, FlaskHashFS, QuartHashFS, StoredFile, UnsupportedTypeError

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154"
    "08d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


class Saver:
    """`save` of one framework, called alike."""

    def __init__(self, framework: str, root: Path) -> None:
        self.app: Any = (Flask if framework == "flask" else Quart)(__name__)
        self.app.config.update(HASHFS_ROOT_FOLDER=root, HASHFS_FSYNC=False)
        make: Any = FlaskHashFS if framework == "flask" else QuartHashFS
        self.fs: Any = make(self.app)
        self.store = self.app.extensions["hashfs"]["client"]

    def __call__(self, *arguments: Any, **options: Any) -> StoredFile:
        if isinstance(self.fs, FlaskHashFS):
            with self.app.app_context():
                return self.fs.save(*arguments, **options)

        async def save() -> StoredFile:
            async with self.app.app_context():
                return await self.fs.save(*arguments, **options)

        with start_blocking_portal("asyncio") as portal:
            return portal.call(save)


@pytest.fixture(params=["flask", "quart"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Saver:
    return Saver(request.param, tmp_path)


def test_it_keeps_the_name_the_type_of_the_bytes_and_the_size(save: Saver) -> None:
    upload = FileStorage(io.BytesIO(PNG), "C:\\photos\\ada.jpg", content_type="text/html")
    file = save(upload, "png")
    id = hashlib.sha256(PNG).hexdigest()
    assert file == StoredFile(id, save.store.get(id).relpath, "ada.jpg", "image/png", len(PNG))
    assert file.relpath.endswith(".png")


def test_what_is_given_stands_for_what_was_sent(save: Saver) -> None:
    upload = FileStorage(io.BytesIO(PNG), "ada.jpg")
    file = save(upload, filename="../Ada\r\n.png", content_type="image/x-mine")
    assert (file.filename, file.content_type) == ("Ada.png", "image/x-mine")


def test_what_is_accepted_and_the_extension_of_the_type_are_those_of_put(save: Saver) -> None:
    with pytest.raises(UnsupportedTypeError):
        save(b"hello", accept="image/*")
    assert save.store.count() == 0
    assert save(PNG, AUTO, accept=["image/*"]).relpath.endswith(".png")


@pytest.mark.parametrize("source", [b"", b"hello", io.BytesIO(b"x" * 300_000)])
def test_bytes_have_no_name(save: Saver, source: Any) -> None:
    file = save(source)
    assert file.filename is None
    assert file.size == len(source if isinstance(source, bytes) else source.getvalue())


@pytest.mark.parametrize("content_type", ["image", "image/png\r\nX: y", ""])
def test_a_type_that_cannot_be_one_is_refused_before_anything_is_stored(
    save: Saver, content_type: str
) -> None:
    with pytest.raises(ValueError, match="mimetype"):
        save(PNG, content_type=content_type)
    assert save.store.count() == 0


def test_without_the_detector_the_names_tell_the_type(
    save: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask_hashfs._store import types

    monkeypatch.setitem(__import__("sys").modules, "pure_magic_rs", None)
    types.detector.cache_clear()
    try:
        assert save(PNG, "gif").content_type == "image/gif"
        assert save(b"other", filename="a.csv").content_type == "text/csv"
        assert save(b"unknown").content_type == "application/octet-stream"
    finally:
        types.detector.cache_clear()
