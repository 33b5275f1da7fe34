"""FlaskHashFS: set-up, proxying, URLs and responses."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import flask
import pytest
import quart
from flask import Flask, render_template_string, request
from werkzeug.exceptions import BadRequest
from werkzeug.test import TestResponse

import flask_hashfs
from flask_hashfs import (
    ConfigError,
    FlaskHashFS,
    HashAddress,
    HashFS,
    HashFSError,
    file_deleted,
    file_served,
    file_stored,
)


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask(__name__)
    app.config.update(TESTING=True, HASHFS_ROOT_FOLDER=str(tmp_path / "store"))
    return app


@pytest.fixture
def fs(app: Flask) -> FlaskHashFS:
    return FlaskHashFS(app)


def serving(app: Flask, **config: Any) -> FlaskHashFS:
    """Initialise an extension that serves its files below /files."""
    app.config.update(HASHFS_SERVE_FILES=True, HASHFS_PATH_PREFIX="/files", **config)
    return FlaskHashFS(app)


class TestUsageOf030:
    """The usage that Flask-HashFS 0.3.0 documents."""

    def test_put_get_open_delete(self, app: Flask, fs: FlaskHashFS) -> None:
        with app.app_context():
            address = fs.put(io.BytesIO(b"content"), extension=".jpg")
            assert fs.get(address.id) == address
            assert fs.get(address.relpath) == address
            assert fs.get(address.abspath) == address
            assert fs.get("invalid") is None
            for name in (address.id, address.abspath, address.relpath):
                with fs.open(name) as file:
                    assert isinstance(file, io.BufferedReader)
                    assert file.read() == b"content"
            for name in (address.id, address.abspath, address.relpath):
                fs.put(b"content", ".jpg")
                fs.delete(name)
                assert fs.get(address.id) is None
                fs.delete(name)

    def test_client(self, app: Flask, fs: FlaskHashFS) -> None:
        with app.app_context():
            assert isinstance(fs.client, flask_hashfs.HashFS)
            assert app.extensions["hashfs"]["client"] is fs.client
            assert fs.config is app.config

    def test_defaults_are_filled_in(self, app: Flask, fs: FlaskHashFS) -> None:
        assert app.config["HASHFS_HOST"] is None
        assert app.config["HASHFS_PATH_PREFIX"] == ""
        assert app.config["HASHFS_DEPTH"] == 4
        assert app.config["HASHFS_WIDTH"] == 1
        assert app.config["HASHFS_ALGORITHM"] == "sha256"

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("HASHFS_PATH_PREFIX", None),
            ("HASHFS_PATH_PREFIX", "foo"),
            ("HASHFS_ROOT_FOLDER", None),
        ],
    )
    def test_bad_values(self, app: Flask, key: str, value: str | None) -> None:
        app.config[key] = value
        with pytest.raises(ValueError, match=key):
            FlaskHashFS(app)

    @pytest.mark.parametrize(
        ("host", "prefix", "external", "url"),
        [
            (None, "", True, "http://localhost/a/b.txt"),
            (None, "", False, "/a/b.txt"),
            ("https://cdn.example.com/x", "", True, "https://cdn.example.com/x/a/b.txt"),
            ("https://cdn.example.com/x", "", False, "/a/b.txt"),
            (None, "/p", True, "http://localhost/p/a/b.txt"),
            (None, "/p", False, "/p/a/b.txt"),
            ("https://cdn.example.com/x", "/p", True, "https://cdn.example.com/x/p/a/b.txt"),
            ("https://cdn.example.com/x", "/p", False, "/p/a/b.txt"),
        ],
    )
    def test_url_for(
        self, app: Flask, fs: FlaskHashFS, host: str | None, prefix: str, external: bool, url: str
    ) -> None:
        app.config.update(HASHFS_HOST=host, HASHFS_PATH_PREFIX=prefix)
        with app.test_request_context():
            assert fs.url_for("a/b.txt", external=external) == url


class TestInit:
    def test_app_factory_and_several_apps(self, tmp_path: Path) -> None:
        fs = FlaskHashFS()
        apps = []
        for name in ("one", "two"):
            app = Flask(name)
            app.config["HASHFS_ROOT_FOLDER"] = tmp_path / name
            fs.init_app(app)
            apps.append(app)
        for app in apps:
            with app.app_context():
                assert fs.root == str(tmp_path / app.name)

    @pytest.mark.parametrize("make", [lambda: quart.Quart(__name__), object])
    def test_a_wrong_app_is_told_what_to_use(self, make: Callable[[], Any]) -> None:
        with pytest.raises(TypeError, match="FlaskHashFS needs a Flask app"):
            FlaskHashFS().init_app(make())

    def test_a_quart_app_is_told_of_quarthashfs(self) -> None:
        with pytest.raises(TypeError, match="QuartHashFS"):
            FlaskHashFS().init_app(quart.Quart(__name__))  # type: ignore[arg-type]

    def test_a_second_default_store_is_refused(self, app: Flask, fs: FlaskHashFS) -> None:
        with pytest.raises(RuntimeError, match="name"):
            FlaskHashFS(app)
        with pytest.raises(RuntimeError, match="default store"):
            fs.init_app(app)

    def test_a_refused_app_is_left_as_it_was(self, app: Flask) -> None:
        app.config["HASHFS_DEPTH"] = "deep"
        rules = list(app.url_map.iter_rules())
        with pytest.raises(ConfigError):
            serving(app)
        assert "hashfs" not in app.extensions
        assert list(app.url_map.iter_rules()) == rules

    def test_named_stores_inherit_nothing(
        self, app: Flask, fs: FlaskHashFS, tmp_path: Path
    ) -> None:
        app.config.update(HASHFS_DEPTH=2, HASHFS_AVATARS_ROOT_FOLDER=str(tmp_path / "avatars"))
        avatars = FlaskHashFS(app, name="avatars")
        with app.app_context():
            assert avatars.depth == 4
            assert avatars.root == str(tmp_path / "avatars")
            address = avatars.put(b"face")
            assert address.id in avatars
            assert address.id not in fs

    def test_a_named_store_needs_its_own_root(self, app: Flask, fs: FlaskHashFS) -> None:
        with pytest.raises(ConfigError, match="HASHFS_AVATARS_ROOT_FOLDER"):
            FlaskHashFS(app, name="avatars")

    @pytest.mark.parametrize("name", ["", "a b", "é", "1st", 7])
    def test_a_name_is_part_of_a_key(self, name: Any) -> None:
        with pytest.raises(ValueError, match="name"):
            FlaskHashFS(name=name)

    def test_without_init_app(self) -> None:
        with Flask(__name__).app_context(), pytest.raises(RuntimeError, match="init_app"):
            FlaskHashFS().put(b"x")


class TestProxy:
    def test_names_of_the_store_need_an_app(self, fs: FlaskHashFS) -> None:
        for name in ("root", "fsync", "client"):
            with pytest.raises(RuntimeError, match="application context"):
                getattr(fs, name)
        for method in (
            *(fs.files, fs.folders, fs.corrupted, fs.repair, fs.count, fs.size),
            *(fs.stats, fs.entries),
        ):
            with pytest.raises(RuntimeError, match="application context"):
                method()

    def test_other_names_are_attribute_errors(self, app: Flask, fs: FlaskHashFS) -> None:
        with pytest.raises(AttributeError, match="nonsense"):
            _ = fs.nonsense  # type: ignore[attr-defined]
        with app.app_context(), pytest.raises(AttributeError, match="nonsense"):
            _ = fs.nonsense  # type: ignore[attr-defined]

    def test_all_of_the_store_is_there(self, app: Flask, fs: FlaskHashFS) -> None:
        with app.app_context():
            fs.put(b"a")
            fs.put(b"bc")
            assert (fs.count(), fs.size()) == (2, 3)
            assert len(list(fs.files())) == 2
            assert len(list(fs.folders())) == 2
            assert list(fs.corrupted(extensions=True)) == []
            assert fs.repair(extensions=True) == []

    @pytest.mark.parametrize(
        "clone", [copy.copy, copy.deepcopy, lambda fs: pickle.loads(pickle.dumps(fs))]
    )
    @pytest.mark.parametrize("name", [None, "avatars"])
    def test_copies(
        self, app: Flask, clone: Callable[[FlaskHashFS], FlaskHashFS], name: str | None
    ) -> None:
        app.config["HASHFS_AVATARS_ROOT_FOLDER"] = app.config["HASHFS_ROOT_FOLDER"]
        fs = clone(FlaskHashFS(app, name=name))
        with app.app_context():
            assert isinstance(fs.client, HashFS)


class TestUrlFor:
    def test_an_address(self, app: Flask, fs: FlaskHashFS) -> None:
        with app.test_request_context():
            address = fs.put(b"x", "txt")
            assert fs.url_for(address) == f"http://localhost/{address.relpath}"

    def test_the_path_is_percent_encoded(self, app: Flask, fs: FlaskHashFS) -> None:
        with app.test_request_context():
            assert fs.url_for("a b/ü?#%.txt", external=False) == "/a%20b/%C3%BC%3F%23%25.txt"

    def test_the_host_may_leave_the_scheme_to_the_page(self, app: Flask, fs: FlaskHashFS) -> None:
        app.config["HASHFS_HOST"] = "//cdn.example.com/x/"
        with app.app_context():
            assert fs.url_for("a") == "//cdn.example.com/x/a"
            assert fs.url_for("a", external=False) == "/a"

    def test_a_host_that_is_no_url_would_make_the_links_relative(
        self, app: Flask, fs: FlaskHashFS
    ) -> None:
        app.config["HASHFS_HOST"] = "cdn.example.com"
        with app.app_context(), pytest.raises(ConfigError, match="HASHFS_HOST is 'cdn"):
            fs.url_for("a")

    def test_the_mount_counts_when_this_app_serves(self, app: Flask) -> None:
        fs = serving(app)
        with app.test_request_context("/", base_url="http://example.com/mount"):
            assert fs.url_for("a") == "http://example.com/mount/files/a"
            assert fs.url_for("a", external=False) == "/mount/files/a"
            app.config["HASHFS_HOST"] = "https://cdn.example.com"
            assert fs.url_for("a") == "https://cdn.example.com/files/a"

    def test_the_mount_does_not_count_otherwise(self, app: Flask, fs: FlaskHashFS) -> None:
        with app.test_request_context("/", base_url="http://example.com/mount"):
            assert fs.url_for("a") == "http://example.com/a"

    def test_without_a_request(self, app: Flask, fs: FlaskHashFS) -> None:
        with app.app_context():
            assert fs.url_for("a", external=False) == "/a"
            wanted = "set HASHFS_HOST or SERVER_NAME, or pass external=False"
            with pytest.raises(RuntimeError, match=wanted):
                fs.url_for("a")
            app.config["SERVER_NAME"] = "example.com"
            assert fs.url_for("a") == "http://example.com/a"

    @pytest.mark.parametrize("host", ["", "a b", "a/b"])
    def test_under_a_host_that_is_refused(
        self, app: Flask, fs: FlaskHashFS, host: str | None
    ) -> None:
        """It was ``http:/a/b``."""
        with app.test_request_context(environ_overrides={"HTTP_HOST": host}):
            if not request.host:
                with pytest.raises(BadRequest, match="Host is missing or invalid"):
                    fs.url_for("a/b")
            assert fs.url_for("a/b", external=False) == "/a/b"
            app.config["HASHFS_HOST"] = "https://cdn.example.com"
            assert fs.url_for("a/b") == "https://cdn.example.com/a/b"

    def test_in_templates(self, app: Flask, fs: FlaskHashFS, tmp_path: Path) -> None:
        app.config["HASHFS_AVATARS_ROOT_FOLDER"] = tmp_path / "avatars"
        app.config["HASHFS_AVATARS_PATH_PREFIX"] = "/avatars"
        FlaskHashFS(app, name="avatars")
        with app.test_request_context():
            template = "{{ hashfs_url_for('a') }} {{ hashfs_avatars_url_for('a', external=False) }}"
            assert render_template_string(template) == "http://localhost/a /avatars/a"


class TestRoute:
    def test_by_id_and_by_path(self, app: Flask) -> None:
        fs = serving(app)
        with app.test_request_context():
            address = fs.put(b"text", "txt")
            urls = [fs.url_for(address), fs.url_for(address.id)]
        for url in urls:
            response = app.test_client().get(url)
            assert response.data == b"text"
            assert response.mimetype == "text/plain"
            assert "private" not in response.headers["Cache-Control"]

    def test_only_content_addresses(self, app: Flask, tmp_path: Path) -> None:
        fs = serving(app)
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "stray.txt").write_text("stray")
        (tmp_path / "outside.txt").write_text("outside")
        with app.app_context():
            address = fs.put(b"text", "txt")
            assert fs.exists("stray.txt")
        (tmp_path / "store" / ("f" * 64)).write_text("stray with an id's name")
        client = app.test_client()
        for path in (
            "stray.txt",
            "f" * 64,
            "../outside.txt",
            "%2e%2e/outside.txt",
            str(tmp_path / "outside.txt"),
            address.abspath,
            f"./{address.relpath}",
            address.relpath.replace("/", "//", 1),
            address.relpath + "/",
            address.id + ".txt",
            "a%00b",
            "x" * 5000,
            "*",
        ):
            assert client.get(f"/files/{path}", follow_redirects=False).status_code in (308, 404)

    def test_is_not_there_unless_asked_for(self, app: Flask, fs: FlaskHashFS) -> None:
        with app.app_context():
            address = fs.put(b"x")
        assert app.test_client().get(f"/{address.relpath}").status_code == 404

    def test_needs_a_prefix(self, app: Flask) -> None:
        app.config["HASHFS_SERVE_FILES"] = True
        with pytest.raises(ConfigError, match="HASHFS_PATH_PREFIX"):
            FlaskHashFS(app)

    def test_endpoints(self, app: Flask, tmp_path: Path) -> None:
        serving(app)
        app.config.update(
            HASHFS_AVATARS_ROOT_FOLDER=tmp_path / "avatars",
            HASHFS_AVATARS_SERVE_FILES=True,
            HASHFS_AVATARS_PATH_PREFIX="/avatars/",
        )
        FlaskHashFS(app, name="avatars")
        with app.test_request_context():
            assert flask.url_for("hashfs.file", file="a/b") == "/files/a/b"
            assert flask.url_for("hashfs_avatars.file", file="a/b") == "/avatars/a/b"


class TestSendFile:
    def respond(
        self,
        app: Flask,
        fs: FlaskHashFS,
        content: bytes = b"content",
        extension: str = "bin",
        **options: Any,
    ) -> TestResponse:
        @app.get("/view")
        def view() -> Any:
            return fs.send_file(fs.put(content, extension), **options)

        return app.test_client().get("/view")

    def test_a_view_is_private_unless_it_says_otherwise(self, app: Flask, fs: FlaskHashFS) -> None:
        response = self.respond(app, fs)
        assert response.headers["Cache-Control"] == "private, no-cache"

    def test_public(self, app: Flask, fs: FlaskHashFS) -> None:
        response = self.respond(app, fs, private=False, max_age=60)
        assert response.headers["Cache-Control"] == "max-age=60"

    def test_name_and_type(self, app: Flask, fs: FlaskHashFS) -> None:
        response = self.respond(app, fs, download_name="ä.txt", as_attachment=True)
        disposition = response.headers["Content-Disposition"]
        assert disposition.startswith("attachment;")
        assert "filename*=UTF-8''%C3%A4.txt" in disposition

    def test_the_inline_types_are_the_apps(self, app: Flask) -> None:
        app.config["HASHFS_INLINE_TYPES"] = "text/css"
        fs = FlaskHashFS(app)
        assert self.respond(app, fs, b"a{}", "css").headers["Content-Disposition"][:6] == "inline"

    def test_not_stored(self, app: Flask, fs: FlaskHashFS) -> None:
        @app.get("/view")
        def view() -> Any:
            return fs.send_file("0" * 64)

        assert app.test_client().get("/view").status_code == 404

    @pytest.mark.parametrize("size", [0, 1, 65536, 65537, 1_000_000])
    def test_every_size(self, app: Flask, fs: FlaskHashFS, size: int) -> None:
        content = bytes(range(256)) * (size // 256 + 1)
        with self.respond(app, fs, content[:size]) as response:
            assert response.data == content[:size]
            assert response.content_length == size

    @pytest.mark.parametrize("field", [None, "bytes=0-", "bytes=0-9,100000-"])
    def test_a_file_that_has_become_shorter_never_ends_as_if_whole(
        self, app: Flask, fs: FlaskHashFS, field: str | None
    ) -> None:
        with app.app_context():
            address = fs.put(bytes(300_000))

        @app.get("/view")
        def view() -> Any:
            response = fs.send_file(address)
            os.truncate(address.abspath, 100_001)
            return response

        headers = {} if field is None else {"Range": field}
        response = app.test_client().get("/view", headers=headers)
        with pytest.raises(OSError, match="shorter than when it was opened"):
            _ = response.data
        with suppress(OSError):
            response.close()

    def test_x_sendfile(self, app: Flask, fs: FlaskHashFS) -> None:
        app.config["USE_X_SENDFILE"] = True
        response = self.respond(app, fs)
        with app.app_context():
            found = fs.get(fs.put(b"content", "bin"))
            assert found is not None
            assert response.headers["X-Sendfile"] == found.abspath
        assert response.data == b""

    def test_x_accel_redirect(self, app: Flask) -> None:
        app.config["HASHFS_ACCEL_REDIRECT"] = "/internal/"
        fs = FlaskHashFS(app)
        response = self.respond(app, fs)
        with app.app_context():
            relpath = fs.put(b"content", "bin").relpath
        assert response.headers["X-Accel-Redirect"] == f"/internal/{relpath}"
        assert response.data == b""

    def test_the_server_in_front_answers_ranges_but_not_conditions(self, app: Flask) -> None:
        app.config["HASHFS_ACCEL_REDIRECT"] = "/internal/"
        fs = serving(app)
        with app.app_context():
            address = fs.put(b"content")
        client = app.test_client()
        ranged = client.get(f"/files/{address.id}", headers={"Range": "bytes=0-1"})
        assert (ranged.status_code, "X-Accel-Redirect" in ranged.headers) == (200, True)
        known = client.get(f"/files/{address.id}", headers={"If-None-Match": f'"{address.id}"'})
        assert (known.status_code, "X-Accel-Redirect" in known.headers) == (304, False)
        head = client.head(f"/files/{address.id}")
        assert (head.content_length, "X-Accel-Redirect" in head.headers) == (7, False)


class TestUploads:
    def test_a_form_file_is_stored(self, app: Flask, fs: FlaskHashFS) -> None:
        @app.post("/upload")
        def upload() -> Any:
            address = fs.put(request.files["photo"], "jpg")
            return {"id": address.id, "duplicate": address.is_duplicate}

        client = app.test_client()
        first, second = (
            client.post("/upload", data={"photo": (io.BytesIO(b"pixels"), "a.jpg")}).json
            for _ in range(2)
        )
        assert first is not None
        assert second is not None
        assert first["id"] == second["id"]
        assert (first["duplicate"], second["duplicate"]) == (False, True)

    def test_an_unhandled_store_error_is_a_status(self, app: Flask, fs: FlaskHashFS) -> None:
        @app.post("/upload")
        def upload() -> Any:
            fs.put(request.stream, expected=fs.expected_digest(request.headers), max_size=5)
            return "stored"

        client = app.test_client()
        assert client.post("/upload", data=b"123456").status_code == 413
        wrong = {"Content-Digest": "sha-256=:" + "A" * 43 + "=:"}
        assert client.post("/upload", data=b"12345", headers=wrong).status_code == 400
        with app.app_context():
            assert fs.count() == 0


class TestSignals:
    def test_each_is_told(self, app: Flask) -> None:
        fs = serving(app)
        told: list[tuple[str, dict[str, Any]]] = []

        def listen(name: str) -> Callable[..., None]:
            def receive(sender: object, extension: object, **data: Any) -> None:
                assert sender is app
                assert extension is fs
                told.append((name, data))

            return receive

        receivers = [
            (signal, listen(name))
            for name, signal in (
                ("stored", file_stored),
                ("served", file_served),
                ("deleted", file_deleted),
            )
        ]
        for signal, receive in receivers:
            signal.connect(receive, app)
        with app.app_context():
            address = fs.put(b"content")
            app.test_client().get(f"/files/{address.id}", headers={"Range": "bytes=0-1"})
            app.test_client().head(f"/files/{address.id}")
            fs.delete(address.id)
            fs.delete(address.id)
        assert told == [
            ("stored", {"address": address}),
            ("served", {"address": address, "status": 206}),
            ("deleted", {"address": address}),
        ]


def test_errors_have_one_base() -> None:
    for name in flask_hashfs.exceptions.__all__:
        assert issubclass(getattr(flask_hashfs, name), HashFSError)


def test_addresses_are_those_of_hashfs(app: Flask, fs: FlaskHashFS) -> None:
    with app.app_context():
        assert isinstance(fs.put(b"x"), HashAddress)


WITHOUT_SSL = """
import sys
sys.modules["ssl"] = sys.modules["_ssl"] = None  # as in a Python that was built without it
import socket
from flask import Flask
from flask_hashfs import FlaskHashFS
app = Flask("x")
app.config.update(HASHFS_ROOT_FOLDER=sys.argv[1], HASHFS_UPLOADS_PATH="/uploads")
FlaskHashFS(app)
mine, theirs = socket.socketpair()
mine.sendall(b"content")
headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "7"}
headers |= {"Content-Type": "application/offset+octet-stream"}
environ = {"gunicorn.socket": theirs, "wsgi.input": theirs.makefile("rb"), "CONTENT_LENGTH": "7"}
answer = app.test_client().post("/uploads", headers=headers, environ_overrides=environ)
print(answer.status_code, answer.headers["Upload-Offset"])
"""


@pytest.mark.slow
def test_a_python_without_ssl_takes_uploads(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_SSL, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["201", "7"]
