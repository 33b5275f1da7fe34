"""The errors: what each of them is, and that it can cross processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.exceptions import BadRequest

from flask_hashfs import FlaskHashFS, InvalidExtensionError


def test_an_invalid_extension_from_a_visitor_is_a_bad_request(tmp_path: Path) -> None:
    app = Flask(__name__)
    app.config["HASHFS_ROOT_FOLDER"] = str(tmp_path)
    fs = FlaskHashFS(app)

    @app.post("/")
    def upload() -> str:
        return fs.put(b"a", "j pg").id

    answer = app.test_client().post("/")
    assert answer.status_code == 400
    assert "j pg" in answer.text
    assert list(tmp_path.rglob("*")) == []


def test_an_invalid_extension_is_a_value_error_as_before() -> None:
    with pytest.raises(ValueError, match=r"^not one$") as raised:
        raise InvalidExtensionError("not one")
    assert isinstance(raised.value, BadRequest)
    assert raised.value.get_response().status_code == 400
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (type(copy), str(copy)) == (InvalidExtensionError, "not one")
