"""What an app keeps of its stores."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from flask_hashfs import FlaskHashFS, HashFS
from flask_hashfs._app.state import key, states


def test_every_store_is_found_by_its_name_in_the_order_of_init_app(tmp_path: Path) -> None:
    app = Flask(__name__)
    app.config["HASHFS_AVATARS_ROOT_FOLDER"] = str(tmp_path / "avatars")
    app.config["HASHFS_ROOT_FOLDER"] = str(tmp_path / "files")
    avatars, files = FlaskHashFS(app, name="avatars"), FlaskHashFS(app)
    found = states(app)
    assert list(found) == ["avatars", None]
    assert [state["extension"] for state in found.values()] == [avatars, files]
    assert found[None]["client"].root == str(tmp_path / "files")
    assert found[None] is app.extensions["hashfs"]
    assert found["avatars"] is app.extensions["hashfs_avatars"]


def test_what_another_extension_keeps_under_such_a_key_is_left_out(tmp_path: Path) -> None:
    app = Flask(__name__)
    app.config["HASHFS_ROOT_FOLDER"] = str(tmp_path)
    app.extensions["hashfs_admin"] = {"client": HashFS(str(tmp_path)), "config": {}}
    app.extensions["hashfs_cache"] = object()
    FlaskHashFS(app)
    assert list(states(app)) == [None]


def test_a_store_keeps_its_key() -> None:
    assert key(None) == "hashfs"
    assert key("avatars") == "hashfs_avatars"
