"""Uploads into Flask: forms whose files arrive hashed, and bodies that must arrive whole."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import stat
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any, cast

import pytest
from flask import Flask, Request, request
from local_stores import inventory
from multipart_cases import (
    BOUNDARY,
    FILE,
    FILENAMES,
    MALFORMED,
    NAMED,
    SMALL,
    WELL_FORMED,
    body_of,
    file_part,
)
from werkzeug.datastructures import FileStorage, Headers, MultiDict
from werkzeug.exceptions import BadRequest, LengthRequired, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from flask_hashfs import (
    DigestMismatchError,
    FileTooLargeError,
    FlaskHashFS,
    IncompleteUploadError,
    InvalidExtensionError,
)
from flask_hashfs._flask.body import Body, open_body
from flask_hashfs._flask.request import upload_request_class
from flask_hashfs._http.body_rules import BodyRules
from flask_hashfs._storage.writer import UploadStream

resource = pytest.importorskip("resource")

FORM = f"multipart/form-data; boundary={BOUNDARY}"
LARGE = os.urandom(700_000)  # more than is kept in memory

TRANSFER_CHUNKED = {"Transfer-Encoding": "chunked"}

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at /proc")


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """Make a descriptor that a test leaves open an error of that test."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def app(root: Path) -> Flask:
    app = Flask(__name__)
    app.config.update(TESTING=True, HASHFS_ROOT_FOLDER=str(root), HASHFS_FSYNC=False)
    return app


@pytest.fixture
def fs(app: Flask) -> FlaskHashFS:
    return FlaskHashFS(app)


def post(app: Flask, body: bytes = b"", url: str = "/", **options: Any) -> Any:
    options.setdefault("content_type", FORM)
    return app.test_client().post(url, data=body, **options)


def promise(length: int) -> dict[str, str]:
    """Return what makes a request's Content-Length another than its body's."""
    return {"CONTENT_LENGTH": str(length)}


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Let this process have so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open nothing more."""
    os.close(free := os.open(os.devnull, os.O_RDONLY))
    with descriptors(free):
        yield


def stream_of(file: FileStorage) -> UploadStream:
    stream: Any = file.stream
    assert isinstance(stream, UploadStream)
    return stream


def view(app: Flask) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    return app.route("/", methods=["GET", "POST"])


def description(value: Any) -> Any:
    """Return what an app can see of a form."""
    if isinstance(value, FileStorage):
        content = value.stream.read()
        assert value.stream.tell() == len(content)
        return (
            value.name,
            value.filename,
            value.mimetype,
            value.mimetype_params,
            value.content_length,
            list(value.headers),
            bool(value),
            content,
        )
    return [
        (key, description(each) if isinstance(each, FileStorage) else each)
        for key, each in value.items(multi=True)
    ]


def both(
    app: Flask, seen: Callable[[], Any], body: bytes, **options: Any
) -> tuple[tuple[int, Any], tuple[int, Any]]:
    """Return what a view sees in this package's request and in the stock one, with the status."""
    results = []
    for each in (app, Flask("stock")):
        result: list[Any] = []

        def endpoint(result: list[Any] = result) -> str:
            result.append(seen())
            return ""

        each.add_url_rule("/", view_func=endpoint, methods=["GET", "POST"])
        each.config.update(
            {key: value for key, value in app.config.items() if not key.startswith("HASHFS")}
        )
        each.config["PROPAGATE_EXCEPTIONS"] = False
        results.append((post(each, body, **options).status_code, result))
    return results[0], results[1]


class TestFormsMeanWhatTheyMeanToFlask:
    """What a form means is what it means without this package."""

    @pytest.mark.parametrize("body", WELL_FORMED.values(), ids=WELL_FORMED.keys())
    def test_forms(self, app: Flask, fs: FlaskHashFS, root: Path, body: bytes) -> None:
        ours, stock = both(
            app, lambda: (description(request.form), description(request.files)), body
        )
        assert ours == stock
        assert ours[0] == 200
        assert not inventory(root)

    @pytest.mark.parametrize("parameter", FILENAMES.values(), ids=FILENAMES.keys())
    def test_filenames(self, app: Flask, fs: FlaskHashFS, parameter: bytes) -> None:
        body = body_of(b'Content-Disposition: form-data; name="f"; ' + parameter + b"\r\n\r\nx")
        ours, stock = both(
            app, lambda: (description(request.form), description(request.files)), body
        )
        assert ours == stock
        assert ours[0] == 200

    @pytest.mark.parametrize(
        "seen",
        [
            lambda: description(request.values),
            lambda: request.get_data(),
            lambda: (request.data, description(request.form)),
            lambda: (request.get_data(parse_form_data=True), description(request.form)),
            lambda: (request.get_data(), description(request.form), description(request.files)),
            lambda: (description(request.form), request.get_data(), request.stream.read()),
            lambda: (request.stream.read(), description(request.form)),
            lambda: (request.stream.read(10), list(request.stream), request.stream.read()),
            lambda: (request.stream.readline(), request.stream.readlines()),
            lambda: (request.stream.readline(3), request.stream.readline(-1)),
            lambda: request.get_json(force=True, silent=True),
            lambda: request.get_json(),
            lambda: request.form["missing"],
            lambda: request.files["missing"],
            lambda: request.form.to_dict(flat=False),
            lambda: type(request.form).__name__ + type(request.files).__name__,
            lambda: (request.content_length, request.mimetype, request.is_json),
        ],
    )
    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            (SMALL, FORM),
            (b"a=1&b=2&a=3&c=%C5%BC", "application/x-www-form-urlencoded"),
            (b"a=\xff", "application/x-www-form-urlencoded"),
            (b'{"a": [1,\n2]}\nx', "application/json"),
            (b'{"a": [1,\n2]}', "application/json"),
            (b"line\nline\r\nno line", "text/plain"),
            (b"", "text/plain"),
            (b"anything", None),
        ],
    )
    def test_every_way_to_read_a_body(
        self,
        app: Flask,
        fs: FlaskHashFS,
        seen: Callable[[], Any],
        body: bytes,
        content_type: str | None,
    ) -> None:
        ours, stock = both(app, seen, body, content_type=content_type)
        assert ours == stock

    def test_a_request_without_a_body_has_an_empty_form(self, app: Flask, fs: FlaskHashFS) -> None:
        @view(app)
        def seen() -> Any:
            return [list(request.form), list(request.files), request.get_data().decode()]

        environ = {"CONTENT_TYPE": FORM}
        answer = app.test_client().get("/", environ_overrides=environ)
        assert answer.json == [[], [], ""]

    @pytest.mark.parametrize("boundary", ["a/b", "a:b", "==a=", "bound"])
    def test_a_boundary_needs_no_quotes(self, app: Flask, fs: FlaskHashFS, boundary: str) -> None:
        @view(app)
        def seen() -> Any:
            return fs.put(request.files["f"]).id

        body = body_of(file_part(b"content")).replace(b"bound", boundary.encode())
        for quoted in (boundary, f'"{boundary}"'):
            kind = f"multipart/form-data; boundary={quoted}; charset=utf-8"
            answer = post(app, body, content_type=kind)
            assert answer.text == hashlib.sha256(b"content").hexdigest()

    def test_the_test_client_uploads(self, app: Flask, fs: FlaskHashFS) -> None:
        @view(app)
        def seen() -> Any:
            return {
                "form": list(request.form.items(multi=True)),
                "files": [
                    [name, file.filename, file.mimetype, len(file.read())]
                    for name, file in request.files.items(multi=True)
                ],
            }

        data = {
            "text": ["a", ""],
            "files": [
                (io.BytesIO(b"abc"), "a.txt"),
                (io.BytesIO(b""), "b.png"),
                (io.BytesIO(LARGE[:300_000]), "c"),
            ],
        }
        answer = app.test_client().post("/", data=data)
        assert answer.json == {
            "form": [["text", "a"], ["text", ""]],
            "files": [
                ["files", "a.txt", "text/plain", 3],
                ["files", "b.png", "image/png", 0],
                ["files", "c", "application/octet-stream", 300_000],
            ],
        }

    def test_the_parameter_storage_class_is_the_apps(self, app: Flask) -> None:
        class Own(MultiDict[str, Any]):
            pass

        class OwnRequest(Request):
            parameter_storage_class = Own

        app.request_class = OwnRequest
        FlaskHashFS(app)

        @view(app)
        def seen() -> Any:
            assert {type(request.form), type(request.files)} == {Own}
            return list(request.form.items(multi=True))

        body = WELL_FORMED["order and duplicates"]
        expected = [["b", "0"], ["b", "2"], ["a", "1"], ["a", "3"], ["c", "4"]]
        assert post(app, body).json == expected


class TestStreaming:
    """A file part is hashed and on the store's disk when the view sees it."""

    @pytest.mark.parametrize("content", [b"", b"small", LARGE], ids=["empty", "small", "large"])
    def test_put_is_a_link(
        self, app: Flask, fs: FlaskHashFS, root: Path, content: bytes, monkeypatch: Any
    ) -> None:
        @view(app)
        def put() -> Any:
            file = request.files["f"]
            assert isinstance(file.stream, UploadStream)
            if content is LARGE:
                assert str(root) in os.readlink(f"/proc/self/fd/{file.stream.fileno()}")
            monkeypatch.setattr("flask_hashfs._storage.sources.copy", None)  # nothing is read again
            file.read(3)
            address = fs.put(file, "bin")
            assert file.tell() == min(3, len(content))
            return [address.id, address.is_duplicate]

        body = body_of(file_part(content))
        digest = hashlib.sha256(content).hexdigest()
        assert post(app, body).json == [digest, False]
        assert post(app, body).json == [digest, True]
        (stored,) = inventory(root)
        assert stored.read_bytes() == content
        assert stored.suffix == ".bin"
        assert stored.stat().st_mode & 0o777 == 0o664

    @pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
    def test_a_part_may_be_put_twice(
        self, app: Flask, fs: FlaskHashFS, root: Path, content: bytes
    ) -> None:
        @view(app)
        def put() -> Any:
            file = request.files["f"]
            first = fs.put(file, ".txt")
            assert file.read() == content
            second = fs.put(file.stream, ".log")
            return [first.is_duplicate, second.is_duplicate, first.id == second.id]

        assert post(app, body_of(file_part(content))).json == [False, True, True]
        stored = inventory(root)
        assert [path.suffix for path in stored] == [".log", ".txt"]
        assert os.path.samefile(*stored)

    @pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
    def test_a_part_may_be_put_delete_and_put_again(
        self, app: Flask, fs: FlaskHashFS, root: Path, content: bytes
    ) -> None:
        @view(app)
        def put() -> Any:
            file = request.files["f"]
            fs.delete(fs.put(file).id)
            assert not inventory(root)
            return [fs.put(file).is_duplicate]

        assert post(app, body_of(file_part(content))).json == [False]
        assert [path.read_bytes() for path in inventory(root)] == [content]

    @pytest.mark.parametrize("length_known", [True, False])
    def test_a_body_of_many_pieces(
        self, app: Flask, fs: FlaskHashFS, root: Path, length_known: bool
    ) -> None:
        view(app)(lambda: [fs.put(file).id for file in request.files.values()])
        contents = [LARGE * 9, b"small", os.urandom(1_500_000)]
        body = body_of(*map(file_part, contents))
        environ: dict[str, Any] = {} if length_known else {"wsgi.input_terminated": True}
        headers = {} if length_known else {"Transfer-Encoding": "chunked"}
        answer = post(app, body, environ_overrides=environ, headers=headers)
        assert answer.json == [hashlib.sha256(contents[0]).hexdigest()]
        assert [path.read_bytes() for path in inventory(root)] == [contents[0]]

    @pytest.mark.parametrize("size", [2_000_000, 6_000_000])
    def test_a_full_disk_leaves_nothing(
        self, app: Flask, fs: FlaskHashFS, root: Path, size: int
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = False
        view(app)(lambda: fs.put(request.files["f"]).id)
        body = body_of(file_part(b"small"), file_part(b"x" * size))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        try:
            answer = app.test_client().post(
                "/", input_stream=io.BytesIO(body), content_type=FORM, content_length=len(body)
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert answer.status_code == 500
        assert not inventory(root)
        assert post(app, body).status_code == 200

    def test_a_part_that_is_never_put_leaves_nothing(
        self, app: Flask, fs: FlaskHashFS, root: Path
    ) -> None:
        kept = []

        @view(app)
        def ignore() -> Any:
            kept.extend(request.files.getlist("f"))
            fs.put(kept[1])
            return ""

        parts = [LARGE, b"put", LARGE + b"x", b"small"]
        post(app, body_of(*map(file_part, parts)))
        assert all(stream_of(file).writer.closed for file in kept)
        assert [path.read_bytes() for path in inventory(root)] == [b"put"]

    def test_a_view_that_raises_leaves_nothing(
        self, app: Flask, fs: FlaskHashFS, root: Path
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = False
        kept = []

        @view(app)
        def fail() -> Any:
            kept.extend(request.files.getlist("f"))
            raise LookupError

        answer = post(app, body_of(file_part(LARGE), file_part(b"small")))
        assert answer.status_code == 500
        assert all(stream_of(file).writer.closed for file in kept)
        assert not inventory(root)

    def test_a_stream_the_app_has_taken_apart_is_closed_too(
        self, app: Flask, fs: FlaskHashFS, root: Path
    ) -> None:
        kept = []

        @view(app)
        def detach() -> Any:
            for file in request.files.values():
                kept.append(stream_of(file).writer)
                stream_of(file).detach()
                file.stream = io.BytesIO()
            return ""

        assert post(app, body_of(file_part(LARGE))).status_code == 200
        assert kept[0].closed

    def test_the_view_reads_and_seeks_but_does_not_write(self, app: Flask, fs: FlaskHashFS) -> None:
        @view(app)
        def read() -> Any:
            stream = stream_of(request.files["f"])
            assert stream.readable()
            assert stream.seekable()
            assert not stream.writable()
            with pytest.raises(io.UnsupportedOperation):
                stream.write(b"x")
            with pytest.raises(io.UnsupportedOperation):
                stream.truncate(0)
            # as Pillow does: peek at the head, jump about, read in small pieces
            assert stream.read(16) == content[:16]
            assert stream.tell() == 16
            assert stream.seek(-5, os.SEEK_END) == len(content) - 5
            assert stream.read() == content[-5:]
            assert stream.read(1) == b""
            assert stream.seek(2) == 2
            assert stream.seek(3, os.SEEK_CUR) == 5
            buffer = bytearray(7)
            assert stream.readinto(buffer) == 7
            assert buffer == content[5:12]
            stream.seek(0)
            assert stream.peek(4)[:4] == content[:4]
            assert stream.read() == content
            return ""

        for content in (bytes(range(256)), LARGE):
            assert post(app, body_of(file_part(content))).status_code == 200

    def test_common_readers_work(self, app: Flask, fs: FlaskHashFS, tmp_path: Path) -> None:
        rows = [["a", "b"], ["1", "żółw"]] * 20_000
        text = "".join(",".join(row) + "\r\n" for row in rows)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("table.csv", text)
            file.writestr("large", LARGE)

        @view(app)
        def read() -> Any:
            table, zipped = request.files.getlist("f")
            assert (
                list(csv.reader(io.TextIOWrapper(cast("IO[bytes]", table), "utf-8", newline="")))
                == rows
            )
            with zipfile.ZipFile(zipped.stream) as file:
                assert file.read("table.csv").decode() == text
                assert file.read("large") == LARGE
            zipped.seek(0)
            zipped.save(tmp_path / "saved.zip")
            zipped.seek(0)
            memory = io.BytesIO()
            zipped.save(memory)
            assert memory.getvalue() == archive.getvalue()
            zipped.seek(0)
            assert b"".join(zipped) == archive.getvalue()
            return ""

        assert (
            post(app, body_of(file_part(text.encode()), file_part(archive.getvalue()))).status_code
            == 200
        )
        assert (tmp_path / "saved.zip").read_bytes() == archive.getvalue()

    @pytest.mark.parametrize(
        "content", [b"", b"small" * 100, LARGE], ids=["none", "small", "large"]
    )
    def test_other_programs_read_an_upload_as_a_file(
        self, app: Flask, fs: FlaskHashFS, content: bytes
    ) -> None:
        """As a process's input, by its descriptor, before and after it was put."""

        @view(app)
        def read() -> Any:
            upload = request.files["f"]
            assert upload.mode == "rb"
            assert upload.seekable()
            for _ in range(2):
                upload.seek(0)
                assert (
                    subprocess.run(["cat"], stdin=cast("IO[bytes]", upload), stdout=PIPE).stdout
                    == content
                )
                assert os.fstat(upload.fileno()).st_size == len(content)
                with pytest.raises(OSError, match="descriptor"):
                    os.write(upload.fileno(), b"x")
                upload.seek(len(content) // 2)
                assert upload.read() == content[len(content) // 2 :]
                assert fs.put(upload).id == hashlib.sha256(content).hexdigest()
            return ""

        assert post(app, body_of(file_part(content))).status_code == 200

    @pytest.mark.parametrize("content", [b"small" * 100, LARGE], ids=["small", "large"])
    def test_an_upload_is_sent_on_with_its_length(
        self, app: Flask, fs: FlaskHashFS, content: bytes
    ) -> None:
        """As presigned URLs want it: not chunked."""
        requests = pytest.importorskip("requests")

        @view(app)
        def send() -> Any:
            sent = requests.Request("PUT", "http://127.0.0.1/", data=request.files["f"]).prepare()
            assert sent.headers.get("Transfer-Encoding") is None
            assert sent.headers["Content-Length"] == str(len(content))
            assert b"".join(sent.body) == content
            return ""

        assert post(app, body_of(file_part(content))).status_code == 200

    @pytest.mark.parametrize("size", [1000, 300_000])
    def test_small_files_hold_no_descriptor_and_large_ones_hold_one_each(
        self, app: Flask, fs: FlaskHashFS, size: int
    ) -> None:
        count, before = 20, len(os.listdir("/proc/self/fd"))
        held = 0 if size == 1000 else count

        @view(app)
        def put() -> Any:
            files = request.files.getlist("f")
            assert len(os.listdir("/proc/self/fd")) == before + held
            for extension in (None, None, "bin"):
                for file in files:
                    fs.put(file, extension)
                assert len(os.listdir("/proc/self/fd")) == before + held
            fs.delete(fs.put(files[0]).id)
            assert not fs.put(files[0]).is_duplicate
            assert len(os.listdir("/proc/self/fd")) == before + held
            return ""

        parts = [file_part(bytes([at]) * size) for at in range(count)]
        assert post(app, body_of(*parts)).status_code == 200

    @pytest.mark.slow
    def test_a_form_of_more_small_files_than_there_are_descriptors(
        self, app: Flask, fs: FlaskHashFS, root: Path
    ) -> None:
        @view(app)
        def put() -> Any:
            return {"ids": [fs.put(file).id for file in request.files.getlist("f")]}

        contents = [at.to_bytes(4, "big") * 250 for at in range(200)]
        with descriptors(100):
            answer = post(app, body_of(*(file_part(content) for content in contents)))
        assert answer.status_code == 200
        assert answer.json["ids"] == [hashlib.sha256(each).hexdigest() for each in contents]
        assert len(inventory(root)) == 200

    def test_expected_digests_hold(self, app: Flask, fs: FlaskHashFS, root: Path) -> None:
        @view(app)
        def put() -> Any:
            return fs.put(request.files["f"], expected=request.args["id"]).id

        body, digest = body_of(file_part(LARGE)), hashlib.sha256(LARGE).hexdigest()
        assert post(app, body, f"/?id={'0' * 64}").status_code == 400
        assert not inventory(root)
        assert post(app, body, f"/?id={digest.upper()}").text == digest

    def test_streaming_can_be_switched_off(self, app: Flask, root: Path) -> None:
        app.config["HASHFS_STREAM_UPLOADS"] = False
        fs = FlaskHashFS(app)

        @view(app)
        def put() -> Any:
            file = request.files["f"]
            assert not isinstance(file.stream, UploadStream)
            file.stream.write(b"")
            return fs.put(file).id

        assert post(app, body_of(file_part(LARGE))).text == hashlib.sha256(LARGE).hexdigest()


class TestStores:
    """Several stores in one app."""

    def test_a_part_put_into_two_stores_has_the_mode_of_each(
        self, app: Flask, tmp_path: Path
    ) -> None:
        app.config.update(
            HASHFS_PRIVATE_ROOT_FOLDER=str(tmp_path / "private"), HASHFS_PRIVATE_FILE_MODE=0o600
        )
        default, private = FlaskHashFS(app), FlaskHashFS(app, name="private")

        @view(app)
        def put() -> Any:
            order = (default, private) if "x" in request.args else (private, default)
            addresses = {fs.name: fs.put(request.files["f"], "x") for fs in order}
            return {
                str(name): oct(stat.S_IMODE(os.stat(address.abspath).st_mode))
                for name, address in addresses.items()
            }

        for url in ("/", "/?x"):
            answer = post(app, body_of(file_part(os.urandom(600_000))), url)
            assert answer.json == {"None": "0o664", "private": "0o600"}

    def test_parts_go_to_the_first_store_and_are_linked_into_the_others(
        self, app: Flask, tmp_path: Path
    ) -> None:
        app.config.update(
            HASHFS_AVATARS_ROOT_FOLDER=str(tmp_path / "avatars"),
            HASHFS_MD5_ROOT_FOLDER=str(tmp_path / "md5"),
            HASHFS_MD5_ALGORITHM="md5",
        )
        avatars = FlaskHashFS(app, name="avatars")
        default, md5 = FlaskHashFS(app), FlaskHashFS(app, name="md5")

        @view(app)
        def put() -> Any:
            file = request.files["f"]
            file.seek(5)
            if file.filename == "large":
                folder = os.readlink(f"/proc/self/fd/{file.fileno()}")
                assert folder.startswith(str(tmp_path / "avatars"))
            order = (default, md5, avatars) if "x" in request.args else (avatars, default, md5)
            addresses = {fs.name: fs.put(file, "x") for fs in order}
            assert file.tell() == 5
            links[:] = [os.stat(addresses[name].abspath) for name in (None, "avatars")]
            return {str(name): address.id for name, address in addresses.items()}

        links: list[os.stat_result] = []
        for url in ("/", "/?x"):
            for content in (os.urandom(600_000), b"small" + url.encode()):
                part = file_part(content, "large" if len(content) > 100 else "small")
                assert post(app, body_of(part), url).json == {
                    "None": hashlib.sha256(content).hexdigest(),
                    "avatars": hashlib.sha256(content).hexdigest(),
                    "md5": hashlib.md5(content).hexdigest(),
                }
                if len(content) > 100:
                    assert os.path.samestat(*links)

    def test_the_parser_stops_at_the_largest_limit_and_each_put_at_its_own(
        self, app: Flask, tmp_path: Path
    ) -> None:
        app.config.update(
            HASHFS_MAX_FILE_SIZE=10,
            HASHFS_BIG_ROOT_FOLDER=str(tmp_path / "big"),
            HASHFS_BIG_MAX_FILE_SIZE=20,
        )
        small, big = FlaskHashFS(app), FlaskHashFS(app, name="big")

        @view(app)
        def put() -> Any:
            reached.append(request.files["f"].filename or "")
            fs = big if "big" in request.args else small
            return fs.put(request.files["f"]).id

        reached: list[str] = []
        assert post(app, body_of(file_part(b"x" * 10))).status_code == 200
        assert post(app, body_of(file_part(b"x" * 11))).status_code == 413
        assert post(app, body_of(file_part(b"x" * 20)), "/?big").status_code == 200
        assert len(reached) == 3
        assert post(app, body_of(file_part(b"x" * 21)), "/?big").status_code == 413
        assert len(reached) == 3
        assert small.name is None

    def test_the_first_store_that_streams_takes_them(self, app: Flask, tmp_path: Path) -> None:
        app.config.update(HASHFS_STREAM_UPLOADS=False, HASHFS_B_ROOT_FOLDER=str(tmp_path / "b"))
        default, other = FlaskHashFS(app), FlaskHashFS(app, name="b")

        @view(app)
        def put() -> Any:
            file = request.files["f"]
            assert stream_of(file).writer.folder.root == other.client.root
            return [default.put(file).id, other.put(file).id]

        digest = hashlib.sha256(LARGE).hexdigest()
        assert post(app, body_of(file_part(LARGE))).json == [digest, digest]

    def test_one_extension_may_serve_many_apps(self, tmp_path: Path) -> None:
        fs = FlaskHashFS()
        for name in ("a", "b"):
            app = Flask(name)
            app.config["HASHFS_ROOT_FOLDER"] = str(tmp_path / name)
            fs.init_app(app)
            view(app)(lambda: fs.put(request.files["f"]).abspath)
            assert post(app, body_of(file_part(LARGE))).text.startswith(str(tmp_path / name))


class TestMalformed:
    """A form that is none is the client's error, and leaves nothing."""

    @pytest.fixture(autouse=True)
    def put_all(self, app: Flask, fs: FlaskHashFS) -> None:
        @view(app)
        def put() -> Any:
            for file in request.files.values():
                fs.put(file)
            return ""

    @pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
    def test_malformed_forms(self, app: Flask, root: Path, body: bytes) -> None:
        answer = post(app, body_of(file_part(LARGE)).removesuffix(b"--bound--\r\n") + body)
        assert answer.status_code == 400
        assert not inventory(root)

    @pytest.mark.parametrize(
        "content_type",
        [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            'multipart/form-data; boundary=""',
            f"multipart/form-data; boundary={'x' * 300}",
            "multipart/form-data; boundary=other",
            "multipart/form-data; boundary*=utf-8''%0d%0a",
            "multipart/form-data; boundary*=utf-8''%C5%BC",
        ],
    )
    def test_impossible_boundaries(self, app: Flask, root: Path, content_type: str) -> None:
        answer = post(app, SMALL, content_type=content_type)
        assert answer.status_code == 400
        assert not inventory(root)

    @pytest.mark.slow
    def test_truncation_at_every_byte(self, app: Flask, root: Path) -> None:
        body = SMALL.removesuffix(b"\r\n")
        for at in range(1, len(body)):
            assert post(app, body[:at]).status_code == 400, at
        assert not inventory(root)
        assert post(app, body).status_code == 200

    def test_a_content_length_that_promises_more(self, app: Flask, root: Path) -> None:
        for body in (SMALL, SMALL[:-20], b""):
            assert post(app, body, environ_overrides=promise(len(SMALL) + 1)).status_code == 400
        assert not inventory(root)

    def test_a_content_length_that_promises_less(self, app: Flask, root: Path) -> None:
        environ = promise(len(SMALL) - 20)
        assert post(app, SMALL, environ_overrides=environ).status_code == 400
        assert not inventory(root)

    def test_the_error_stays(self, app: Flask) -> None:
        @app.post("/twice")
        def twice() -> Any:
            with pytest.raises(BadRequest) as first:
                request.files  # noqa: B018
            with pytest.raises(BadRequest) as second:
                request.form  # noqa: B018
            assert second.value is first.value
            return ""

        assert post(app, MALFORMED["no final boundary"], "/twice").status_code == 200

    @pytest.mark.parametrize("extension", ["x" * 256, "../../x", "a\x00", "", "a b", "ż"])
    def test_the_extension_of_a_hostile_filename(
        self, app: Flask, fs: FlaskHashFS, root: Path, extension: str
    ) -> None:
        @app.post("/extension")
        def put_with_extension() -> Any:
            file = request.files["f"]
            try:
                return fs.put(file, os.path.splitext(file.filename or "")[1]).relpath
            except ValueError as error:
                raise BadRequest(str(error)) from error

        answer = post(app, body_of(file_part(b"x", f"a.{extension}")), "/extension")
        assert answer.status_code == (200 if extension == "../../x" else 400)


class TestLimits:
    """Limits hold while the bytes arrive."""

    @pytest.fixture(autouse=True)
    def put_all(self, app: Flask) -> None:
        @view(app)
        def put() -> Any:
            if "limit" in request.args:
                request.max_content_length = request.args.get("limit", type=int)
            if "parts" in request.args:
                request.max_form_parts = request.args.get("parts", type=int)
            if "memory" in request.args:
                request.max_form_memory_size = request.args.get("memory", type=int)
            fs: FlaskHashFS = app.extensions["hashfs"]["extension"]
            return [fs.put(file).id for file in request.files.values()]

    def test_a_file(self, app: Flask, root: Path) -> None:
        app.config["HASHFS_MAX_FILE_SIZE"] = 300_000
        FlaskHashFS(app)
        assert post(app, body_of(file_part(LARGE[:300_000]))).status_code == 200
        assert post(app, body_of(file_part(b"a"), file_part(LARGE[:300_001]))).status_code == 413
        assert len(inventory(root)) == 1

    def test_a_field(self, app: Flask) -> None:
        app.config["MAX_FORM_MEMORY_SIZE"] = 1000
        FlaskHashFS(app)
        fields = [NAMED + b"\r\n" + b"x" * 1000] * 2
        assert post(app, body_of(*fields, file_part(LARGE))).status_code == 200
        assert post(app, body_of(NAMED + b"\r\n" + b"x" * 1001)).status_code == 413
        assert post(app, body_of(*fields), "/?memory=999").status_code == 413

    @pytest.mark.slow
    def test_the_parts(self, app: Flask, root: Path) -> None:
        FlaskHashFS(app)
        assert post(app, body_of(*[FILE] * 1000)).status_code == 200
        assert post(app, body_of(*[NAMED] * 1001)).status_code == 413
        assert post(app, body_of(*[file_part(b"%d" % n) for n in range(10_000)])).status_code == 413
        assert len(inventory(root)) == 1
        assert post(app, body_of(NAMED, NAMED), "/?parts=1").status_code == 413

    @pytest.mark.parametrize("terminated", [False, True])
    def test_the_body(self, app: Flask, root: Path, terminated: bool) -> None:
        FlaskHashFS(app)
        body = body_of(file_part(LARGE))
        environ = {"wsgi.input_terminated": True} if terminated else {}
        limit = f"/?limit={len(body)}"
        assert post(app, body, limit, environ_overrides=environ).status_code == 200
        limit = f"/?limit={len(body) - 1}"
        assert post(app, body, limit, environ_overrides=environ).status_code == 413
        assert len(inventory(root)) == 1


class TestTheAppsOwn:
    """What the app has made its own stays so."""

    def refuses_upload_streams(self, app: Flask) -> None:
        FlaskHashFS(app)

        @view(app)
        def put() -> Any:
            file = request.files["f"]
            assert not isinstance(file.stream, UploadStream)
            return file.read()

        assert post(app, body_of(file_part(b"content"))).data == b"content"

    def test_file_streams(self, app: Flask) -> None:
        class Own(Request):
            def _get_file_stream(self, *args: Any, **kwargs: Any) -> Any:
                return io.BytesIO()

        app.request_class = Own
        self.refuses_upload_streams(app)

    def test_the_form_parser(self, app: Flask) -> None:
        class Parser(FormDataParser):
            pass

        class Own(Request):
            form_data_parser_class = Parser

        app.request_class = Own
        self.refuses_upload_streams(app)

    def test_how_the_form_parser_is_made(self, app: Flask) -> None:
        class Own(Request):
            def make_form_data_parser(self) -> FormDataParser:
                return FormDataParser()

        app.request_class = Own
        self.refuses_upload_streams(app)

    def test_a_class_made_afterwards(self, app: Flask) -> None:
        app.config["HASHFS_B_ROOT_FOLDER"] = app.config["HASHFS_ROOT_FOLDER"]
        FlaskHashFS(app, name="b")

        class Own(app.request_class):  # type: ignore[name-defined]
            def _get_file_stream(self, *args: Any, **kwargs: Any) -> Any:
                return io.BytesIO()

        app.request_class = Own
        self.refuses_upload_streams(app)

    def test_the_stream(self, app: Flask) -> None:
        class Own(Request):
            @property
            def stream(self) -> Any:
                return io.BytesIO(b"its own")

        app.request_class = Own
        FlaskHashFS(app)
        view(app)(lambda: request.get_data())
        assert post(app, b"sent", content_type="text/plain").data == b"its own"

    def test_methods_and_names(self, app: Flask) -> None:
        class Own(Request):
            """The app's."""

            closed = 0

            def close(self) -> None:
                type(self).closed += 1
                super().close()

        app.request_class = Own
        FlaskHashFS(app)
        composed = app.request_class
        assert issubclass(composed, Own)
        assert (composed.__name__, composed.__module__) == ("Own", __name__)
        assert upload_request_class(composed) is composed
        view(app)(lambda: repr(request))
        assert post(app, SMALL).text == "<Own 'http://localhost/' [POST]>"
        assert composed.closed == 1


class Source(io.BytesIO):
    """A server's stream; it may fail at its end, as servers do, and it counts its reads."""

    def __init__(self, content: bytes, error: BaseException | None = None) -> None:
        super().__init__(content)
        self.error = error
        self.reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        data = super().read(size)
        if self.error is not None and not data:
            raise self.error
        return data

    def readline(self, size: int | None = -1) -> bytes:
        data = super().readline(size)
        if self.error is not None and not data:
            raise self.error
        return data


def read_all(body: Any) -> bytes:
    return body.read()


def read_pieces(body: Any) -> bytes:
    return b"".join(iter(lambda: body.read(7), b""))


def read_lines(body: Any) -> bytes:
    return b"".join(body)


def read_into(body: Any) -> bytes:
    buffer, found = bytearray(5), b""
    while count := body.readinto(buffer):
        found += buffer[:count]
    return found


READERS = [read_all, read_pieces, read_lines, read_into, lambda body: body.exhaust()]


@pytest.mark.parametrize("read", READERS)
class TestBody:
    """`request.stream`, however it is read."""

    CONTENT = b"line\n" * 10 + b"no line"

    @pytest.mark.parametrize("terminated", [False, True])
    @pytest.mark.parametrize("max_size", [None, len(CONTENT), 1000])
    def test_a_whole_body(
        self, read: Callable[[Any], bytes], terminated: bool, max_size: int | None
    ) -> None:
        size = len(self.CONTENT)
        body = Body(Source(self.CONTENT), BodyRules(size, max_size), terminated)
        assert read(body) == self.CONTENT
        assert body.tell() == size
        assert body.is_exhausted
        assert body.read(10) == body.read() == body.readline() == b""

    def test_what_follows_is_left_unread(self, read: Callable[[Any], bytes]) -> None:
        source = Source(self.CONTENT + b"next request")
        assert read(Body(source, BodyRules(len(self.CONTENT)), False)) == self.CONTENT
        assert source.tell() == len(self.CONTENT)

    def test_a_terminated_body_may_exceed_its_content_length(
        self, read: Callable[[Any], bytes]
    ) -> None:
        """As where the server has decompressed it."""
        assert read(Body(Source(self.CONTENT), BodyRules(3), True)) == self.CONTENT

    @pytest.mark.parametrize("terminated", [False, True])
    def test_a_short_body(self, read: Callable[[Any], bytes], terminated: bool) -> None:
        body = Body(Source(self.CONTENT), BodyRules(len(self.CONTENT) + 1), terminated)
        with pytest.raises(IncompleteUploadError) as first:
            read(body)
        with pytest.raises(IncompleteUploadError) as second:
            read(body)
        assert first.value is second.value

    def test_an_endless_body(self, read: Callable[[Any], bytes]) -> None:
        source = Source(self.CONTENT * 1000)
        with pytest.raises(RequestEntityTooLarge, match="100 bytes"):
            read(Body(source, BodyRules(None, 100), True))
        assert source.tell() == 101

    @pytest.mark.parametrize(
        "error", [OSError("gone"), ValueError("I/O on closed file"), LookupError("no OSError")]
    )
    def test_a_broken_body(self, read: Callable[[Any], bytes], error: Exception) -> None:
        body = Body(Source(self.CONTENT, error), BodyRules(None), True)
        with pytest.raises(IncompleteUploadError) as caught:
            read(body)
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize("error", [RequestEntityTooLarge(), KeyboardInterrupt()])
    def test_errors_that_mean_something_else_pass(
        self, read: Callable[[Any], bytes], error: BaseException
    ) -> None:
        with pytest.raises(type(error)):
            read(Body(Source(self.CONTENT, error), BodyRules(None), True))


def test_lines_are_those_of_a_file() -> None:
    content = b"a\n\n" + b"x" * 300_000 + b"\nb"
    expected, body = io.BytesIO(content), Body(Source(content), BodyRules(len(content)), False)
    for size in (-1, 0, 1, 5, None, 299_999, 5, 1, -1, -1):
        assert body.readline(size) == expected.readline(size)
    body = Body(Source(content), BodyRules(None), True)
    assert body.readlines() == io.BytesIO(content).readlines()
    assert io.BufferedReader(Body(Source(content), BodyRules(None), True)).read() == content


def test_a_closed_body_is_not_read() -> None:
    body = Body(Source(b"x"), BodyRules(1), False)
    body.close()
    with pytest.raises(ValueError, match="closed"):
        body.read()


def test_a_body_nobody_ends_is_empty() -> None:
    """Without Content-Length a read of the socket would wait for ever."""
    assert open_body({"wsgi.input": Source(b"x", AssertionError())}, None).read() == b""


def test_a_content_length_over_the_limit_is_refused_unread() -> None:
    environ = {"wsgi.input": Source(b"", AssertionError()), "CONTENT_LENGTH": "11"}
    with pytest.raises(RequestEntityTooLarge, match="10 bytes"):
        open_body(environ, 10)


CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked"}
UWSGI = {"uwsgi.version": b"2.0.31", "uwsgi.node": b"box", "SERVER_NAME": "example.com"}


class TestFraming:
    """Where a body ends is known, or it is refused."""

    @pytest.mark.parametrize(
        "environ",
        [
            CHUNKED,
            {"HTTP_TRANSFER_ENCODING": "gzip, Chunked"},
            {**CHUNKED, "CONTENT_LENGTH": "5"},
            {**CHUNKED, **UWSGI},
            {**CHUNKED, **UWSGI, "CONTENT_LENGTH": ""},
            {**CHUNKED, **UWSGI, "CONTENT_LENGTH": "5", "UWSGI_ROUTER": "http"},
            {**CHUNKED, **UWSGI, "CONTENT_LENGTH": "5", "SERVER_NAME": "box"},
        ],
    )
    def test_a_chunked_body_that_nobody_ends(self, environ: dict[str, Any]) -> None:
        environ = {"wsgi.input": Source(b"", AssertionError()), **environ}
        with pytest.raises(LengthRequired, match="Content-Length"):
            open_body(environ, None)

    @pytest.mark.parametrize(
        "environ",
        [
            {"CONTENT_LENGTH": "5"},
            {"CONTENT_LENGTH": "5", "HTTP_TRANSFER_ENCODING": "identity"},
            {**CHUNKED, "wsgi.input_terminated": True},
            {**CHUNKED, "wsgi.input_terminated": True, "CONTENT_LENGTH": "50"},
            {**CHUNKED, **UWSGI, "CONTENT_LENGTH": "5"},
            {**CHUNKED, **UWSGI, "CONTENT_LENGTH": "5", "SERVER_NAME": "box", "REMOTE_PORT": "9"},
        ],
    )
    def test_a_body_whose_end_is_known(self, environ: dict[str, Any]) -> None:
        assert open_body({"wsgi.input": Source(b"hello"), **environ}, None).read() == b"hello"

    @pytest.mark.parametrize("length", ["x", "-1", "5, 5", "1_0", "\u0661"])
    def test_a_content_length_that_is_not_a_number(self, length: str) -> None:
        environ = {"wsgi.input": Source(b"", AssertionError()), "CONTENT_LENGTH": length}
        with pytest.raises(BadRequest, match="not a number"):
            open_body(environ, None)

    def test_every_way_to_read_a_chunked_body_is_refused(
        self, app: Flask, fs: FlaskHashFS, root: Path
    ) -> None:
        reads = [
            lambda: fs.put(request.stream),
            lambda: fs.put(request.files["f"]),
            lambda: request.form["a"],
            lambda: request.get_data(),
            lambda: request.get_json(),
            lambda: request.stream.read(),
        ]
        for at, read in enumerate(reads):
            app.add_url_rule(f"/{at}", str(at), read, methods=["POST"])
        for at in range(len(reads)):
            kind = "application/json" if at == 4 else FORM
            answer = post(app, SMALL, f"/{at}", content_type=kind, headers=TRANSFER_CHUNKED)
            assert answer.status_code == 411
            assert "Content-Length" in answer.text
        assert not inventory(root)


def test_raw_bodies_are_put_whole_or_not_at_all(app: Flask, fs: FlaskHashFS, root: Path) -> None:
    @view(app)
    def put() -> Any:
        return fs.put(request.stream, max_size=1_000_000).id

    raw = {"content_type": "application/octet-stream"}
    assert post(app, LARGE, **raw).text == hashlib.sha256(LARGE).hexdigest()
    too_long = promise(len(LARGE) + 1)
    assert post(app, LARGE[::-1], environ_overrides=too_long, **raw).status_code == 400
    assert post(app, LARGE * 2, **raw).status_code == 413
    app.config["MAX_CONTENT_LENGTH"] = 10
    chunked = {"wsgi.input_terminated": True, "wsgi.input": io.BytesIO(b"x" * 11)}
    headers = {"Transfer-Encoding": "chunked"}
    answer = app.test_client().post("/", environ_overrides=chunked, headers=headers)
    assert answer.status_code == 413
    assert len(inventory(root)) == 1


@pytest.mark.parametrize("length_known", [True, False])
def test_the_server_is_asked_for_nothing_behind_a_whole_form(
    app: Flask, fs: FlaskHashFS, length_known: bool
) -> None:
    body = body_of(FILE + b"\r\nhello")
    source = Source(body)
    environ = {"wsgi.input": source, "wsgi.input_terminated": True, "CONTENT_TYPE": FORM}
    environ["CONTENT_LENGTH"] = str(len(body)) if length_known else ""
    with app.test_request_context("/", method="POST", environ_overrides=environ):
        assert request.files
    assert source.reads == (1 if length_known else 2)


def test_a_body_that_is_longer_than_said_is_read_to_its_end(
    app: Flask, fs: FlaskHashFS, root: Path
) -> None:
    @view(app)
    def put() -> Any:
        return fs.put(request.files["f"]).id

    # A middleware that decompresses may leave the Content-Length alone.
    source = Source(body_of(file_part(b"hello")), OSError("the checksum is wrong"))
    environ = {"wsgi.input": source, "wsgi.input_terminated": True, "CONTENT_LENGTH": "10"}
    answer = app.test_client().post("/", content_type=FORM, environ_overrides=environ)
    assert answer.status_code == 400
    assert not inventory(root)


def test_a_request_class_can_repair_the_content_type(app: Flask) -> None:
    class Repaired(app.request_class):  # type: ignore[name-defined, misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.headers = Headers([("Content-Type", "multipart/form-data; boundary=a/b")])

    app.request_class = Repaired
    fs = FlaskHashFS(app)

    @view(app)
    def put() -> Any:
        return fs.put(request.files["f"]).id

    body = body_of(file_part(b"hello")).replace(BOUNDARY.encode(), b"a/b")
    answer = app.test_client().post("/", data=body, content_type="text/plain")
    assert answer.text == hashlib.sha256(b"hello").hexdigest()


class TestABodyReadBefore:
    """What a hook has read is stored from what it kept, or not at all; never as the empty file."""

    URLENCODED = "application/x-www-form-urlencoded"

    @pytest.mark.parametrize("terminated", [False, True])
    @pytest.mark.parametrize(
        ("hook", "status"),
        [
            (lambda: request.get_data(), 200),
            (lambda: request.get_data(as_text=True), 200),
            (lambda: request.get_json(silent=True), 200),
            (lambda: (request.get_data(), request.form), 200),
            (lambda: request.content_length, 200),
            (lambda: request.get_data(cache=False), 400),
            (lambda: request.form, 400),
            (lambda: request.stream.read(), 400),
            (lambda: request.stream.read(7), 400),  # all there is, but not asked for the end
            (lambda: request.stream.readline(), 400),
        ],
    )
    def test_raw(
        self,
        app: Flask,
        fs: FlaskHashFS,
        root: Path,
        hook: Callable[[], Any],
        status: int,
        terminated: bool,
    ) -> None:
        @app.before_request
        def read() -> None:
            hook()

        @view(app)
        def put() -> Any:
            return fs.put(request.stream).id

        body = b"a=1&b=2"
        options: Any = {"environ_overrides": {"wsgi.input_terminated": terminated}}
        answer = post(app, body, content_type=self.URLENCODED, **options)
        assert answer.status_code == status
        if status == 200:
            assert answer.text == hashlib.sha256(body).hexdigest()
        else:
            assert "read already" in answer.text
            assert not inventory(root)

    def test_the_rest_of_a_body_and_an_empty_one_are_stored(
        self, app: Flask, fs: FlaskHashFS
    ) -> None:
        @view(app)
        def put() -> Any:
            request.stream.read(2)
            return fs.put(request.stream).id

        for body in (b"a=1&b=2", b""):
            answer = post(app, body, content_type="text/plain")
            assert answer.text == hashlib.sha256(body[2:]).hexdigest()


class TestTakenOnce:
    """What a put or a form takes is gone with it: nobody gets the rest for the whole."""

    CONTENT = os.urandom(1_700_000)

    @pytest.mark.parametrize("terminated", [False, True])
    @pytest.mark.parametrize(
        "then",
        [
            lambda fs: fs.put(request.stream),
            lambda fs: (request.get_data(), fs.put(request.stream)),
            lambda fs: request.files,
        ],
        ids=["put", "kept rest", "form"],
    )
    @pytest.mark.parametrize(
        "options", [{"max_size": 500_000}, {"expected": "0" * 64}], ids=["too large", "mismatch"]
    )
    def test_after_a_put_that_has_failed(
        self,
        app: Flask,
        fs: FlaskHashFS,
        options: dict[str, Any],
        then: Callable[[FlaskHashFS], object],
        terminated: bool,
    ) -> None:
        @view(app)
        def put() -> str:
            with pytest.raises((FileTooLargeError, DigestMismatchError)):
                fs.put(request.stream, **options)
            return str(then(fs))

        environ = {"wsgi.input_terminated": terminated}
        body = body_of(file_part(self.CONTENT))
        answer = post(app, body, environ_overrides=environ)
        assert answer.status_code == 400
        assert "has been read already" in answer.text

    def test_after_a_put_that_has_failed_before_it_took_anything(
        self, app: Flask, fs: FlaskHashFS
    ) -> None:
        @view(app)
        def put() -> str:
            with pytest.raises(InvalidExtensionError):
                fs.put(request.stream, "a/b")
            return fs.put(request.stream).id

        answer = post(app, self.CONTENT)
        assert answer.text == hashlib.sha256(self.CONTENT).hexdigest()

    def test_after_a_form_that_has_failed(
        self, app: Flask, fs: FlaskHashFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError(errno.EIO, "the disk")

        monkeypatch.setattr("flask_hashfs._storage.writer.Writer.write", fail)

        @view(app)
        def put() -> str:
            with pytest.raises(OSError, match="the disk"):
                list(request.files)
            return str(list(request.files))

        assert post(app, body_of(file_part(self.CONTENT))).status_code == 400

    @pytest.mark.parametrize("terminated", [False, True])
    def test_a_form_whose_beginning_the_view_has_read(
        self, app: Flask, fs: FlaskHashFS, terminated: bool
    ) -> None:
        @view(app)
        def put() -> str:
            request.stream.read(10)
            return str(list(request.files))

        environ = {"wsgi.input_terminated": terminated}
        answer = post(app, body_of(file_part(b"x")), environ_overrides=environ)
        assert answer.status_code == 400

    @pytest.mark.parametrize("terminated", [False, True])
    def test_a_form_that_the_view_has_read_without_asking_for_its_end(
        self, app: Flask, fs: FlaskHashFS, terminated: bool
    ) -> None:
        body = body_of(file_part(b"x"))

        @view(app)
        def put() -> str:
            request.stream.read(len(body))
            return str(list(request.files))

        environ = {"wsgi.input_terminated": terminated}
        assert post(app, body, environ_overrides=environ).text == "[]"  # as in stock Flask


def test_outside_an_app_a_request_is_a_stock_one(fs: FlaskHashFS, app: Flask) -> None:
    environ = {"method": "POST", "content_type": FORM}
    with app.request_class.from_values(input_stream=io.BytesIO(SMALL), **environ) as req:
        assert isinstance(req.files["f"].read(), bytes)
        assert not isinstance(req.files["f"].stream, UploadStream)


def test_a_resumable_upload_that_needs_a_descriptor_too_many_is_answered_with_503(
    tmp_path: Path,
) -> None:
    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=str(tmp_path / "root"), HASHFS_UPLOADS_PATH="/uploads")
    FlaskHashFS(app)
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
    client = app.test_client()
    assert client.post("/uploads", headers=headers).status_code == 201
    before = inventory(tmp_path)
    with no_descriptor_left():
        refused = client.post("/uploads", headers=headers)
    assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
    assert inventory(tmp_path) == before
    assert client.post("/uploads", headers=headers).status_code == 201
