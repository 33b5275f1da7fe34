"""The validators of forms: over real requests, with WTForms and Flask-WTF, on what has arrived."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from flask_wtf import FlaskForm
from flask_wtf.file import FileAllowed, FileField, FileRequired, FileSize, MultipleFileField
from PIL import Image
from wtforms import FileField as PlainFileField
from wtforms import Form

from flask_hashfs import FlaskHashFS
from flask_hashfs.wtforms import ContentType, MaxSize


def picture(kind: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, kind)
    return data.getvalue()


PNG, GIF = picture("PNG"), picture("GIF")
HTML = b"<!doctype html><script>alert(1)</script>"


class PhotoForm(FlaskForm):
    photo = FileField(validators=[FileRequired(), ContentType("image/*"), MaxSize(1000)])


class AlbumForm(FlaskForm):
    photos = MultipleFileField(validators=[ContentType("image/png", "image/gif")])


class OldForm(FlaskForm):
    photo = FileField(validators=[FileRequired(), FileAllowed(["png"]), FileSize(1000)])


class PlainForm(Form):
    photo = PlainFileField(validators=[ContentType("image/*"), MaxSize(1000)])


class GermanForm(FlaskForm):
    photo = FileField(
        validators=[
            ContentType("image/*", message="Kein Bild, sondern %(type)s."),
            MaxSize(10, message="Über %(size)d Byte."),
        ]
    )


FORMS = {form.__name__: form for form in (PhotoForm, AlbumForm, OldForm, GermanForm)}


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=tmp_path, HASHFS_FSYNC=False, WTF_CSRF_ENABLED=False)
    app.secret_key = "for tests"
    fs = FlaskHashFS(app)

    @app.post("/plain")
    def plain() -> Any:
        form = PlainForm(request.files)
        return {"valid": form.validate(), "errors": form.errors, "stored": []}

    @app.post("/<name>")
    def check(name: str) -> Any:
        form = FORMS[name]()
        valid = form.validate_on_submit()
        files = [file for files in request.files.listvalues() for file in files if file]
        stored = [fs.put(file).id for file in files] if valid else []
        return {"valid": valid, "errors": form.errors, "stored": stored}

    return app.test_client()


def post(client: FlaskClient, form: str, *files: tuple[bytes, str]) -> dict[str, Any]:
    field = "photos" if form == "AlbumForm" else "photo"
    data = {field: [(io.BytesIO(data), name, "image/png") for data, name in files]}
    response = client.post(f"/{form}", data=data, content_type="multipart/form-data")
    assert response.status_code == 200
    return response.get_json()


@pytest.mark.parametrize("form", ["PhotoForm", "AlbumForm", "OldForm", "plain"])
def test_a_file_of_an_accepted_type_passes_and_is_put_whole(client: FlaskClient, form: str) -> None:
    result = post(client, form, (PNG, "a.png"))
    assert result["valid"], result
    if form != "plain":
        assert result["stored"] == [hashlib.sha256(PNG).hexdigest()]


@pytest.mark.parametrize("form", ["PhotoForm", "AlbumForm", "plain"])
def test_a_file_that_lies_about_its_type_is_refused(client: FlaskClient, form: str) -> None:
    [[message]] = post(client, form, (HTML, "a.png"))["errors"].values()
    assert "text/html" in message
    assert "image/" in message


def test_one_bad_file_of_several_is_enough(client: FlaskClient) -> None:
    assert post(client, "AlbumForm", (PNG, "a"), (GIF, "b"))["valid"]
    assert not post(client, "AlbumForm", (PNG, "a"), (HTML, "b"), (GIF, "c"))["valid"]


@pytest.mark.parametrize("form", ["PhotoForm", "plain"])
def test_a_file_that_is_too_large_is_refused_with_the_limit(client: FlaskClient, form: str) -> None:
    [[message]] = post(client, form, (PNG + bytes(1000), "a.png"))["errors"].values()
    assert message == "The file is larger than 1000 bytes."


def test_an_empty_field_passes_unless_it_is_required(client: FlaskClient) -> None:
    assert post(client, "AlbumForm", (b"", ""))["valid"]
    assert post(client, "plain", (b"", ""))["valid"]
    assert post(client, "PhotoForm", (b"", ""))["errors"] == {"photo": ["This field is required."]}


def test_a_message_of_the_app_stands_for_ours(client: FlaskClient) -> None:
    assert post(client, "GermanForm", (HTML, "a"))["errors"] == {
        "photo": ["Kein Bild, sondern text/html."]
    }
    assert post(client, "GermanForm", (PNG, "a"))["errors"] == {"photo": ["Über 10 Byte."]}


@pytest.mark.parametrize("types", [(), ("image",), ("",), ("image/png;q=1",)])
def test_a_list_that_is_not_of_types_is_a_value_error(types: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="type"):
        ContentType(*types)


def test_a_negative_size_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="-1"):
        MaxSize(-1)
