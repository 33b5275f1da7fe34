"""The HASHFS_* keys: what is accepted, and how a bad value is told."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Config, Flask

from flask_hashfs import ConfigError, FlaskHashFS
from flask_hashfs._app.config import KEYS, Key, StoreConfig, load

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"

ROOT = {"HASHFS_ROOT_FOLDER": "/tmp/store"}


def loaded(**config: Any) -> StoreConfig:
    return load(Config(".", {**ROOT, **config}))


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("HASHFS_FILE_MODE", 0o640, "file_mode", 0o640),
        ("HASHFS_FILE_MODE", "0o640", "file_mode", 0o640),
        ("HASHFS_FILE_MODE", "0640", "file_mode", 0o640),
        ("HASHFS_FILE_MODE", None, "file_mode", None),
        ("HASHFS_DIR_MODE", "0o700", "dir_mode", 0o700),
        ("HASHFS_FSYNC", 0, "fsync", False),
        ("HASHFS_FSYNC", "False", "fsync", False),
        ("HASHFS_FSYNC", "yes", "fsync", True),
        ("HASHFS_MAX_FILE_SIZE", "1000", "max_file_size", 1000),
        ("HASHFS_MAX_FILE_SIZE", 0, "max_file_size", 0),
        ("HASHFS_INLINE_TYPES", "image/*", "inline_types", ("image/*",)),
        ("HASHFS_INLINE_TYPES", {"text/CSS"}, "inline_types", ("text/css",)),
        ("HASHFS_INLINE_TYPES", (), "inline_types", ()),
        ("HASHFS_HOST", "", "host", None),
        ("HASHFS_HOST", "//cdn", "host", "//cdn"),
        ("HASHFS_HOST", "https://cdn.example.com/x/", "host", "https://cdn.example.com/x/"),
        ("HASHFS_HOST", "HTTP://[::1]:80", "host", "HTTP://[::1]:80"),
        ("HASHFS_ROOT_FOLDER", "s3://bucket/prefix", "root_folder", "s3://bucket/prefix"),
        ("HASHFS_ROOT_FOLDER", "memory://", "root_folder", "memory://"),
        ("HASHFS_ROOT_FOLDER", "C:/files", "root_folder", "C:/files"),
        ("HASHFS_ROOT_FOLDER", "/a:b//c", "root_folder", "/a:b//c"),
        ("HASHFS_ROOT_FOLDER", "files:old", "root_folder", "files:old"),
        ("HASHFS_ROOT_FOLDER", "file:///var/my%20files", "root_folder", "/var/my files"),
        ("HASHFS_DEPTH", 0, "depth", 0),
        ("HASHFS_ALGORITHM", "blake2b", "algorithm", "blake2b"),
    ],
)
def test_accepted(key: str, value: object, field: str, expected: object) -> None:
    assert getattr(loaded(**{key: value}), field) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("HASHFS_ROOT_FOLDER", ""),
        ("HASHFS_ROOT_FOLDER", b"/tmp"),
        ("HASHFS_ROOT_FOLDER", 7),
        ("HASHFS_ROOT_FOLDER", "a\0b"),
        ("HASHFS_HOST", 7),
        ("HASHFS_HOST", "cdn.example.com"),
        ("HASHFS_HOST", "/cdn"),
        ("HASHFS_HOST", "https://"),
        ("HASHFS_HOST", "https:cdn"),
        ("HASHFS_HOST", "ftp://cdn"),
        ("HASHFS_PATH_PREFIX", "files"),
        ("HASHFS_PATH_PREFIX", None),
        ("HASHFS_PATH_PREFIX", "/<file>"),
        ("HASHFS_DEPTH", -1),
        ("HASHFS_DEPTH", "four"),
        ("HASHFS_DEPTH", "9" * 5000),
        ("HASHFS_DEPTH", True),
        ("HASHFS_WIDTH", 1.5),
        ("HASHFS_ALGORITHM", "rot13"),
        ("HASHFS_ALGORITHM", "shake_128"),
        ("HASHFS_ALGORITHM", None),
        ("HASHFS_FILE_MODE", 664),
        ("HASHFS_FILE_MODE", 0o1664),
        ("HASHFS_FILE_MODE", "rw-rw-r--"),
        ("HASHFS_FILE_MODE", True),
        ("HASHFS_DIR_MODE", None),
        ("HASHFS_FSYNC", "maybe"),
        ("HASHFS_FSYNC", None),
        ("HASHFS_MAX_FILE_SIZE", -1),
        ("HASHFS_MAX_FILE_SIZE", "1M"),
        ("HASHFS_STREAM_UPLOADS", "on and off"),
        ("HASHFS_SERVE_FILES", 2),
        ("HASHFS_MAX_AGE", "a year"),
        ("HASHFS_INLINE_TYPES", "images"),
        ("HASHFS_INLINE_TYPES", ["image/png", 7]),
        ("HASHFS_INLINE_TYPES", 7),
        ("HASHFS_INLINE_TYPES", {"image/png": True}),
        ("HASHFS_ACCEL_REDIRECT", "internal"),
        ("HASHFS_WORKER_THREADS", 0),
        ("HASHFS_PATHSEND", "sometimes"),
        ("HASHFS_SERVE_REDIRECT", "later"),
        ("HASHFS_STORE_OPTIONS", ["x"]),
    ],
)
def test_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        loaded(**{key: value})


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("S3://b", "s3://bucket/prefix"),
        ("s3:/b", "s3://bucket/prefix"),
        ("s3:b", "s3://bucket/prefix"),
        (" s3://b", "s3://bucket/prefix"),
        ("gcs://b", "gs://bucket/prefix"),
        ("azure://b", "az://bucket/prefix"),
        *((url, None) for url in ("https://b", "http:/b", "ftp://x", "sftp+x://y", "s3a://b")),
        *((url, None) for url in ("file:///", "file://host/x", "file:x", "file:///x?y")),
    ],
)
def test_no_other_url_is_taken_for_a_folder(value: object, meant: str | None) -> None:
    with pytest.raises(ConfigError, match=r"HASHFS_ROOT_FOLDER is '.*must be a folder,") as raised:
        loaded(HASHFS_ROOT_FOLDER=value)
    assert meant is None or str(raised.value).endswith(f'; is "{meant}" meant?')


def test_the_error_names_key_value_and_what_is_wanted() -> None:
    with pytest.raises(ConfigError, match=r"HASHFS_DEPTH is 'x', but must be a whole number of"):
        loaded(HASHFS_DEPTH="x")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("HASHFS_MAX_SIZE", "HASHFS_MAX_FILE_SIZE"),
        ("HASHFS_ROOTFOLDER", "HASHFS_ROOT_FOLDER"),
    ],
)
def test_a_misspelt_key_is_told(key: str, meant: str, caplog: pytest.LogCaptureFixture) -> None:
    loaded(**{key: 1000})
    assert f"{key} is not a key of Flask-HashFS; is {meant} meant?" in caplog.text


def test_the_keys_of_a_named_store_are_known(caplog: pytest.LogCaptureFixture) -> None:
    loaded(HASHFS_AVATARS_ROOT_FOLDER="/tmp/avatars", HASHFS_AVATARS_MAX_FILE_SIZE=1)
    assert not caplog.text


def test_the_keys_of_another_store_are_known(caplog: pytest.LogCaptureFixture) -> None:
    """``HASHFS_FILE_MODE`` is the default store's, whatever else is named "file"."""
    config = Config(".", {**ROOT, "HASHFS_FILE_MODE": 0o640, "HASHFS_FILE_ROOT_FOLDER": "/tmp/f"})
    load(config)
    load(config, "file")
    assert not caplog.text


def test_the_defaults_are_filled_in_and_belong_to_one_app() -> None:
    config, other = Config(".", dict(ROOT)), Config(".", dict(ROOT))
    load(config)
    load(other)
    assert {key: config[f"HASHFS_{key}"] for key in KEYS if key != "ROOT_FOLDER"} == {
        name: key.default for name, key in KEYS.items() if name != "ROOT_FOLDER"
    }
    config["HASHFS_STORE_OPTIONS"]["region"] = "here"
    assert other["HASHFS_STORE_OPTIONS"] == {}


def test_every_default_passes_its_check(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert loaded() == loaded(
        **{f"HASHFS_{key}": KEYS[key].default for key in KEYS if key != "ROOT_FOLDER"}
    )
    assert not caplog.text


def documented(name: str, key: Key[Any]) -> str:
    """The entry of a key in the list of docs/configuration.md."""
    default = key.shown
    if default is None and isinstance(key.default, str):
        default = f'`"{key.default}"`'
    elif default is None:
        number = isinstance(key.default, int) and not isinstance(key.default, bool)
        default = str(key.default) if number else f"`{key.default!r}`"
    anchor = f"hashfs_{name}".lower()
    given = "Required" if default == "required" else f"Default: {default}"
    help = key.help[0].upper() + key.help[1:]
    return f"[`HASHFS_{name}`](#{anchor}){{#{anchor}}}\n: {given}. {help}.\n"


def test_the_documentation_has_the_list_of_keys() -> None:
    page = DOCS.read_text(encoding="utf-8")
    entries = re.findall(r"^\[`HASHFS_.*\n: .*\n", page, re.MULTILINE)
    assert entries == [documented(name, key) for name, key in KEYS.items()]


def test_only_the_store_itself_warns_of_its_keys(caplog: pytest.LogCaptureFixture) -> None:
    config = Config(".", {**ROOT, "HASHFS_ARCHIVE_ROOT_FOLDER": "/tmp/archive"})
    config["HASHFS_ARCHIVE_PATH"] = "/tmp"
    load(config)
    assert not caplog.text
    load(config, "archive")
    assert "HASHFS_ARCHIVE_PATH is not a key of Flask-HashFS; is HASHFS_ARCHIVE_" in caplog.text


def test_a_store_may_be_named_like_the_beginning_of_a_key(caplog: pytest.LogCaptureFixture) -> None:
    config = Config(".", {**ROOT, "HASHFS_UPLOADS_ROOT_FOLDER": "/tmp/uploads"})
    config["HASHFS_UPLOADS_PATH"] = "/uploads"
    load(config)
    load(config, "uploads")
    assert not caplog.text


def test_every_key_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = {
        "ROOT_FOLDER": str(tmp_path),
        "HOST": "null",
        "PATH_PREFIX": "/files",
        "DEPTH": "2",
        "WIDTH": "2",
        "ALGORITHM": "sha512",
        "FILE_MODE": "0o600",
        "DIR_MODE": "0o700",
        "FSYNC": "false",
        "MAX_FILE_SIZE": "1000",
        "ACCEPT": "image/*, application/pdf",
        "STREAM_UPLOADS": "false",
        "HEALTH_PATH": "/-/files",
        "UPLOADS_PATH": "/uploads",
        "UPLOADS_EXPIRE": "60",
        "UPLOADS_MAX": "10",
        "UPLOADS_BYTES": "1000",
        "UPLOADS_ORIGINS": '["https://a.example"]',
        "UPLOAD_MEMORY": "1000",
        "UPLOAD_FILES": "10",
        "SERVE_FILES": "true",
        "MAX_AGE": "60",
        "INLINE_TYPES": '["image/png"]',
        "ACCEL_REDIRECT": "/internal/",
        "WORKER_THREADS": "2",
        "PATHSEND": "false",
        "CACHE_FOLDER": "/tmp/none/cache",
        "CACHE_SIZE": "1000",
        "CACHE_FILE_SIZE": "100",
        "CACHE_TRUST": "60",
        "SERVE_REDIRECT": "false",
        "STORE_OPTIONS": '{"a": "b"}',
    }
    assert values.keys() == KEYS.keys()
    for key, value in values.items():
        monkeypatch.setenv(f"FLASK_HASHFS_{key}", value)
    app = Flask(__name__)
    app.config.from_prefixed_env()
    FlaskHashFS(app)
    config = app.extensions["hashfs"]["config"]
    assert config.file_mode == 0o600
    assert config.dir_mode == 0o700
    assert config.fsync is False
    assert config.max_file_size == 1000
    assert config.accept == ("image/*", "application/pdf")
    assert config.inline_types == ("image/png",)
    assert config.store_options == {"a": "b"}
    assert config.serve_files is True
