"""QuartHashFS: set-up, the awaited calls, URLs and responses."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import io
import os
import pickle
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiofiles
import anyio
import flask
import pytest
import quart_trio
from asgi import Exchange
from quart import Quart, Response, render_template_string, request, websocket
from quart.datastructures import FileStorage

from flask_hashfs import (
    ConfigError,
    DigestMismatchError,
    FileTooLargeError,
    FlaskHashFS,
    HashAddress,
    HashFS,
    IncompleteUploadError,
    InvalidExtensionError,
    NotStoredError,
    QuartHashFS,
    file_deleted,
    file_served,
    file_stored,
)

pytestmark = pytest.mark.anyio

LARGE = bytes(range(256)) * 12_000  # 3 MB: over every threshold
SIZES = (0, 1, 65_536, 65_537, 1 << 20, (1 << 20) + 1, len(LARGE))


@pytest.fixture
def app(tmp_path: Path) -> Quart:
    app = Quart(__name__)
    app.config.update(
        TESTING=True,
        MAX_CONTENT_LENGTH=None,
        HASHFS_ROOT_FOLDER=str(tmp_path / "store"),
        HASHFS_FSYNC=False,
    )
    return app


@pytest.fixture
def fs(app: Quart) -> QuartHashFS:
    return QuartHashFS(app)


def serving(app: Quart, **config: Any) -> QuartHashFS:
    """Initialise an extension that serves its files below /files."""
    app.config.update(HASHFS_SERVE_FILES=True, HASHFS_PATH_PREFIX="/files", **config)
    return QuartHashFS(app)


def descriptors() -> set[str]:
    """Return what the open descriptors of this process lead to, files only."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("/") and not target.startswith(("/dev", "/proc")):
            found.add(f"{name} {target}")
    return found


async def in_thread(call: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(call, *args)


PATHSEND: dict[str, dict[object, object]] = {"http.response.pathsend": {}}


class TestSameNamesAsInFlask:
    OWN = ("put", "get", "exists", "open", "delete", "verify", "prune", "send_file")
    LISTING = ("files", "folders", "count", "size", "corrupted", "repair")
    SHARED = ("__init__", "init_app", "url_for", "expected_digest", "references")

    @staticmethod
    def parameters(call: Any) -> list[tuple[str, Any, Any]]:
        return [
            (each.name, each.kind, each.default)
            for each in inspect.signature(call).parameters.values()
        ]

    @pytest.mark.parametrize("name", [*OWN, *SHARED, *LISTING])
    def test_the_two_extensions_have_the_same_signatures(self, name: str) -> None:
        ours, theirs = getattr(QuartHashFS, name), getattr(FlaskHashFS, name)
        assert self.parameters(ours) == self.parameters(theirs)
        if name in self.LISTING:
            assert self.parameters(ours) == self.parameters(getattr(HashFS, name))

    @pytest.mark.parametrize("name", OWN)
    def test_their_parameters_have_the_same_types(self, name: str) -> None:
        hints = [dict(getattr(kind, name).__annotations__) for kind in (QuartHashFS, FlaskHashFS)]
        for hint in hints:
            del hint["return"]
        if name == "put":  # the one that takes more on Quart
            assert hints[0].pop("file") == f"{hints[1].pop('file')} | AsyncSource"
        assert hints[0] == hints[1]

    def test_the_two_extensions_have_the_same_names(self) -> None:
        def public(kind: type) -> set[str]:
            return {name for name in dir(kind) if not name.startswith("_")}

        assert public(FlaskHashFS) <= public(QuartHashFS)
        assert public(QuartHashFS) <= public(FlaskHashFS) | public(HashFS)

    # Of HashFS: what only computes, and what is for the package itself.
    PURE = frozenset({"idpath", "relpath", "shard", "unshard"})
    WITHIN = frozenset({"commit", "writer"})

    @pytest.mark.parametrize(
        "name",
        sorted(
            name
            for name in set(dir(HashFS)) - PURE - WITHIN
            if not name.startswith("_") and callable(getattr(HashFS, name))
        ),
    )
    def test_what_uses_the_disk_is_awaited(self, name: str) -> None:
        call = vars(QuartHashFS)[name]
        if name != "open":
            assert inspect.iscoroutinefunction(call) or "Async" in call.__annotations__["return"]
        theirs = self.parameters(getattr(HashFS, name))
        if name not in ("put", "prune", "verify"):  # these have their own test above
            assert self.parameters(call) == theirs


class TestInit:
    async def test_app_factory_and_several_apps(self, tmp_path: Path) -> None:
        fs = QuartHashFS()
        apps = []
        for name in ("one", "two"):
            app = Quart(name)
            app.config["HASHFS_ROOT_FOLDER"] = tmp_path / name
            fs.init_app(app)
            apps.append(app)
        for app in apps:
            async with app.app_context():
                assert fs.root == str(tmp_path / app.name)

    def test_an_app_that_runs_on_trio_is_refused_in_words(self, tmp_path: Path) -> None:
        app = quart_trio.QuartTrio(__name__)
        app.config["HASHFS_ROOT_FOLDER"] = str(tmp_path)
        with pytest.raises(TypeError, match=r"not QuartTrio: it runs on trio.*asyncio"):
            QuartHashFS(app)
        assert "hashfs" not in app.extensions

    @pytest.mark.parametrize("make", [lambda: flask.Flask(__name__), object])
    def test_a_wrong_app_is_told_what_to_use(self, make: Callable[[], Any]) -> None:
        with pytest.raises(TypeError, match="QuartHashFS needs a Quart app"):
            QuartHashFS().init_app(make())

    def test_a_flask_app_is_told_of_flaskhashfs(self) -> None:
        with pytest.raises(TypeError, match="use FlaskHashFS"):
            QuartHashFS().init_app(flask.Flask(__name__))  # type: ignore[arg-type]

    async def test_a_second_default_store_is_refused(self, app: Quart, fs: QuartHashFS) -> None:
        with pytest.raises(RuntimeError, match="name"):
            QuartHashFS(app)

    async def test_a_refused_app_is_left_as_it_was(self, app: Quart) -> None:
        app.config["HASHFS_DEPTH"] = "deep"
        before = app.request_class, app.asgi_http_class, list(app.url_map.iter_rules())
        with pytest.raises(ConfigError):
            serving(app)
        assert before == (app.request_class, app.asgi_http_class, list(app.url_map.iter_rules()))

    async def test_named_stores_inherit_nothing(
        self, app: Quart, fs: QuartHashFS, tmp_path: Path
    ) -> None:
        app.config.update(HASHFS_DEPTH=2, HASHFS_AVATARS_ROOT_FOLDER=str(tmp_path / "avatars"))
        avatars = QuartHashFS(app, name="avatars")
        async with app.app_context():
            assert (avatars.depth, avatars.root) == (4, str(tmp_path / "avatars"))
            address = await avatars.put(b"face")
            assert await avatars.exists(address.id)
            assert not await fs.exists(address.id)

    def test_names_of_the_store_need_an_app(self, fs: QuartHashFS) -> None:
        for name in ("root", "fsync", "client"):
            with pytest.raises(RuntimeError, match="app context"):
                getattr(fs, name)
        with pytest.raises(AttributeError, match="nonsense"):
            _ = fs.nonsense  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        "clone", [copy.copy, copy.deepcopy, lambda fs: pickle.loads(pickle.dumps(fs))]
    )
    async def test_copies(self, app: Quart, clone: Callable[[Any], Any]) -> None:
        fs = clone(QuartHashFS(app))
        async with app.app_context():
            assert isinstance(fs.client, HashFS)


class AsyncFile:
    """Something with an async ``read``, and nothing else."""

    def __init__(self, content: bytes | str, most: int = 7_000) -> None:
        self._file = io.BytesIO(content) if isinstance(content, bytes) else io.StringIO(content)
        self._most = most

    async def read(self, size: int = -1) -> Any:
        return self._file.read(min(size, self._most) if size >= 0 else self._most)


class WholeAsyncFile:
    """Something whose async ``read`` gives everything, every time, as an HTTP client's answer."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def read(self) -> bytes:
        return self._content


async def pieces(content: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


class TestPut:
    @pytest.mark.parametrize(
        "make",
        [
            lambda content: content,
            bytearray,
            io.BytesIO,
            lambda content: FileStorage(io.BytesIO(content)),
            lambda content: [content[:10], content[10:]],
            AsyncFile,
            WholeAsyncFile,
            pieces,
        ],
        ids=["bytes", "bytearray", "file", "storage", "list", "read", "read all", "iterable"],
    )
    @pytest.mark.parametrize("content", [b"", b"content", LARGE], ids=len)
    async def test_every_kind_of_input(
        self, app: Quart, fs: QuartHashFS, make: Callable[[bytes], Any], content: bytes
    ) -> None:
        async with app.app_context():
            address = await fs.put(make(content), "bin")
            assert not address.is_duplicate
            assert await in_thread(Path(address.abspath).read_bytes) == content
            assert (await fs.put(make(content), "bin")).is_duplicate

    async def test_paths_and_aiofiles(self, app: Quart, fs: QuartHashFS, tmp_path: Path) -> None:
        path = tmp_path / "file"
        await in_thread(path.write_bytes, LARGE)
        async with app.app_context():
            first = await fs.put(path)
            async with aiofiles.open(path, "rb") as file:
                await file.seek(100)
                assert (await fs.put(file)).id == first.id  # from its start …
                assert await file.tell() == 100  # … and put back
            async with await anyio.open_file(path, "rb") as other:
                assert (await fs.put(other)).id == first.id
            async with aiofiles.open(path, encoding="latin-1") as text:
                assert await fs.put(text) is not None  # type: ignore[arg-type]

    async def test_text_is_encoded_as_hashfs_does(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.app_context():
            assert (await fs.put(AsyncFile("zwölf"))).id == (await fs.put("zwölf".encode())).id

    async def test_what_is_no_content_is_a_type_error(self, app: Quart, fs: QuartHashFS) -> None:
        async def numbers() -> AsyncIterator[int]:
            yield 1

        async with app.app_context():
            wrong_ones: tuple[Any, ...] = (numbers(), 7, None)
            for wrong in wrong_ones:
                with pytest.raises(TypeError):
                    await fs.put(wrong)
            assert await fs.count() == 0

    @pytest.mark.parametrize("make", [bytes, pieces], ids=["sync", "async"])
    async def test_what_is_refused_leaves_nothing(
        self, app: Quart, fs: QuartHashFS, make: Callable[[bytes], Any]
    ) -> None:
        async with app.app_context():
            before = await in_thread(descriptors)
            with pytest.raises(FileTooLargeError):
                await fs.put(make(LARGE), max_size=len(LARGE) - 1)
            with pytest.raises(DigestMismatchError):
                await fs.put(make(LARGE), expected="0" * 64)
            with pytest.raises(InvalidExtensionError):
                await fs.put(make(LARGE), "a/b")
            assert await fs.count() == 0
            assert await in_thread(descriptors) == before
            assert not await in_thread(os.path.exists, os.path.join(fs.root, ".hashfs"))

    async def test_a_bad_extension_is_refused_before_a_byte_is_read(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        source = pieces(LARGE)
        async with app.app_context():
            with pytest.raises(InvalidExtensionError):
                await fs.put(source, "../x")
        assert await anext(source) == LARGE[:10_000]
        await source.aclose()  # type: ignore[attr-defined]

    async def test_a_source_that_fails_leaves_nothing(self, app: Quart, fs: QuartHashFS) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield LARGE
            raise ZeroDivisionError

        async with app.app_context():
            before = await in_thread(descriptors)
            with pytest.raises(ZeroDivisionError):
                await fs.put(failing())
            assert await in_thread(descriptors) == before
            assert await fs.count() == 0

    @pytest.mark.parametrize("chunked", [True, False])
    async def test_a_request_body(self, app: Quart, fs: QuartHashFS, chunked: bool) -> None:
        @app.post("/")
        async def view() -> dict[str, str]:
            return {"id": (await fs.put(request.body, "bin")).id}

        headers = {} if chunked else {"Content-Length": str(len(LARGE))}
        async with Exchange(app, headers=headers) as exchange:
            await exchange.send(*[LARGE[n : n + 60_000] for n in range(0, len(LARGE), 60_000)])
            await exchange.finish()
        async with app.app_context():
            assert exchange.body == b'{"id":"%s"}\n' % (await fs.put(LARGE)).id.encode()

    async def test_a_body_cut_short_is_not_stored(self, app: Quart, fs: QuartHashFS) -> None:
        caught: list[str] = []

        @app.post("/")
        async def view() -> str:
            with pytest.raises(IncompleteUploadError) as error:
                await fs.put(request.body)
            caught.append(str(error.value))
            return ""

        for gone in (True, False):
            async with Exchange(app, headers={"Content-Length": "3000000"}) as exchange:
                await exchange.send(LARGE[:1_000_000])
                await exchange.settle()
                await (exchange.disconnect() if gone else exchange.finish())
        assert ["1000000 of 3000000" in each for each in caught] == [True, True]
        async with app.app_context():
            assert await fs.count() == 0

    async def test_a_digest_header_becomes_a_check(self, app: Quart, fs: QuartHashFS) -> None:
        @app.post("/")
        async def view() -> str:
            await fs.put(request.body, expected=fs.expected_digest(request.headers))
            return "stored"

        client = app.test_client()
        wrong = {"Content-Digest": "sha-256=:" + "A" * 43 + "=:"}
        assert (await client.post("/", data=b"12345", headers=wrong)).status_code == 400
        async with app.app_context():
            assert await fs.count() == 0

    @pytest.mark.slow
    async def test_a_silent_client_is_given_up(self, app: Quart, fs: QuartHashFS) -> None:
        app.config["BODY_TIMEOUT"] = 0.05

        @app.post("/")
        async def view() -> str:
            await fs.put(request.body)
            return ""

        async with Exchange(app) as exchange:
            await exchange.send(b"x")
        assert exchange.status == 408

    async def test_a_small_body_costs_one_call_of_a_worker(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        calls = 0
        workers = app.extensions["hashfs"]["workers"]

        @app.post("/")
        async def view() -> str:
            nonlocal calls
            original = workers.run

            async def counted(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                return await original(*args, **kwargs)

            workers.run = counted
            await fs.put(request.body)
            return ""

        await app.test_client().post("/", data=b"x" * 100_000)
        assert calls == 1


class TestLookUp:
    async def test_get_open_delete(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.app_context():
            address = await fs.put(b"content", ".jpg")
            for name in (address.id, address.relpath, address.abspath, address):
                assert (await fs.get(name)).id == address.id  # type: ignore[union-attr]
                assert await fs.exists(name)
            assert await fs.get("invalid") is None
            for name in (address.id, address.abspath, address.relpath):
                await fs.put(b"content", ".jpg")
                await fs.delete(name)
                assert not await fs.exists(name)
                await fs.delete(name)

    @pytest.mark.slow
    async def test_all_ways_to_open(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.app_context():
            address = await fs.put(LARGE)
            before = await in_thread(descriptors)
            file = await fs.open(address)
            assert await file.read(4) == LARGE[:4]
            assert await file.seek(256) == 256
            assert await file.read(1) == LARGE[:1]
            await file.close()
            async with fs.open(address.id) as file:
                assert await file.read() == LARGE
            assert file.closed
            async with await fs.open(address.relpath) as file:
                assert len([line async for line in file]) == LARGE.count(b"\n") + 1
            assert file.closed
            async with fs.open(address, "r") as text:
                with pytest.raises(UnicodeDecodeError):
                    await text.read()
            assert await in_thread(descriptors) == before

    async def test_missing_files_and_writing_modes(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.app_context():
            with pytest.raises(NotStoredError):
                await fs.open("0" * 64)
            with pytest.raises(FileNotFoundError):
                async with fs.open("0" * 64):
                    pass
            with pytest.raises(ValueError, match="mode"):
                await fs.open("0" * 64, "wb")

    async def test_listing_and_repair(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.app_context():
            addresses = [await fs.put(bytes([n])) for n in range(5)]
            assert {path async for path in fs.files()} == {each.abspath for each in addresses}
            assert len([path async for path in fs.folders()]) == 5
            assert (await fs.count(), await fs.size()) == (5, 5)
            assert [each async for each in fs.corrupted(extensions=True)] == []
            stray = os.path.join(fs.root, "stray.txt")
            await in_thread(Path(stray).write_bytes, b"stray")
            assert [path async for path, _ in fs.corrupted()] == [stray]
            [(path, address)] = await fs.repair(extensions=False)
            assert path == stray
            assert await fs.get(address.id) == address

    async def test_numbers_entries_and_paths_are_awaited(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.app_context():
            files = [(b"one", ".txt"), (b"two", None), (b"", "a/b")]
            results = [result async for _, result in fs.put_files(files)]
            one, two, refused = results
            assert isinstance(one, HashAddress)
            assert isinstance(two, HashAddress)
            assert isinstance(refused, InvalidExtensionError)
            assert (await fs.stats()).bytes == 6
            found = {entry.relpath: entry.size async for entry in fs.entries()}
            assert found == {one.relpath: 3, two.relpath: 3}
            assert await fs.realpath(one.id) == one.abspath
            assert await fs.haspath(one.abspath)
            assert await fs.computehash(io.BytesIO(b"two")) == two.id
            await fs.makepath(os.path.join(fs.root, "a", "b"))
            await fs.remove_empty(os.path.join(fs.root, "a", "b"))

    async def test_a_file_whose_close_is_cancelled_is_closed(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        async with app.app_context():
            address = await fs.put(b"content")
            before = await in_thread(descriptors)
            reading, go_on = app.extensions["hashfs"]["reading"], threading.Event()

            async def leave(how: str) -> None:
                if how == "plain":
                    file = await fs.open(address)
                    reached.set()
                    await file.close()
                    return
                opening = fs.open(address)
                async with opening if how == "direct" else await opening:
                    reached.set()

            for how in ("direct", "awaited", "plain"):
                go_on.clear()
                # Every thread is busy, so that the close has to wait and can be cancelled.
                for _ in range(reading.threads):
                    reading.executor.submit(go_on.wait, 30)
                reached = asyncio.Event()
                task = asyncio.create_task(leave(how))
                await reached.wait()
                for _ in range(3):
                    await asyncio.sleep(0)
                    task.cancel()
                await asyncio.sleep(0)
                go_on.set()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await in_thread(descriptors) == before, how

    async def test_a_listing_may_be_left_early(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.app_context():
            await fs.put(b"a")
            await fs.put(b"b")
            files = fs.files()
            await anext(files)
            await files.aclose()  # type: ignore[attr-defined]

    @pytest.mark.slow
    async def test_more_paths_than_fit_in_one_call_of_a_worker(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        async with app.app_context():
            for n in range(600):
                await fs.put(str(n).encode())
            assert len({path async for path in fs.files()}) == 600


class TestUrlFor:
    async def test_as_under_flask(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.test_request_context("/"):
            address = await fs.put(b"x", "txt")
            assert fs.url_for(address) == f"http://localhost/{address.relpath}"
            assert fs.url_for("a b/ü?#%.txt", external=False) == "/a%20b/%C3%BC%3F%23%25.txt"

    async def test_the_mount_counts_when_this_app_serves(self, app: Quart) -> None:
        fs = serving(app)
        async with app.test_request_context("/", root_path="/mount"):
            assert fs.url_for("a") == "http://localhost/mount/files/a"
            assert fs.url_for("a", external=False) == "/mount/files/a"
            app.config["HASHFS_HOST"] = "https://cdn.example.com"
            assert fs.url_for("a") == "https://cdn.example.com/files/a"

    @pytest.mark.parametrize(("scheme", "web"), [("ws", "http"), ("wss", "https")])
    async def test_inside_a_websocket(self, app: Quart, scheme: str, web: str) -> None:
        fs = serving(app)

        @app.websocket("/ws")
        async def view() -> None:
            await websocket.send(fs.url_for("a"))

        client = app.test_client()
        async with client.websocket("/ws", scheme=scheme, root_path="") as connection:
            assert await connection.receive() == f"{web}://localhost/files/a"

    async def test_without_a_request(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.app_context():
            assert fs.url_for("a", external=False) == "/a"
            with pytest.raises(RuntimeError, match="request"):
                fs.url_for("a")
            app.config["SERVER_NAME"] = "example.com"
            assert fs.url_for("a") == "http://example.com/a"
            app.config["PREFER_SECURE_URLS"] = True
            assert fs.url_for("a") == "https://example.com/a"

    async def test_in_templates(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.test_request_context("/"):
            shown = await render_template_string("{{ hashfs_url_for('a') }}")
            assert shown == "http://localhost/a"


class TestServing:
    @staticmethod
    async def respond(
        app: Quart, fs: QuartHashFS, content: bytes = b"content", **options: Any
    ) -> Response:
        @app.get("/view")
        async def view() -> Response:
            return await fs.send_file(await fs.put(content, "bin"), **options)

        return await app.test_client().get("/view")

    @pytest.mark.parametrize("size", SIZES)
    async def test_every_size(self, app: Quart, fs: QuartHashFS, size: int) -> None:
        response = await self.respond(app, fs, LARGE[:size])
        assert await response.get_data() == LARGE[:size]
        assert response.content_length == size

    @pytest.mark.parametrize("field", ["bytes=0-", "bytes=5-2000000", "bytes=0-9,2000000-2999999"])
    async def test_ranges_of_a_large_file(self, app: Quart, field: str) -> None:
        fs = serving(app)
        async with app.app_context():
            address = await fs.put(LARGE)
        response = await app.test_client().get(f"/files/{address.id}", headers={"Range": field})
        assert response.status_code == 206
        data = await response.get_data(as_text=False)
        first, last = field.rpartition("=")[2].rpartition(",")[2].split("-")
        assert LARGE[int(first) : int(last or len(LARGE)) + 1] in data

    async def test_a_view_is_private_unless_it_says_otherwise(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        response = await self.respond(app, fs)
        assert response.headers["Cache-Control"] == "private, no-cache"

    async def test_public_name_and_type(self, app: Quart, fs: QuartHashFS) -> None:
        response = await self.respond(
            app, fs, private=False, max_age=60, download_name="ä.txt", as_attachment=True
        )
        assert response.headers["Cache-Control"] == "max-age=60"
        assert "filename*=UTF-8''%C3%A4.txt" in response.headers["Content-Disposition"]

    async def test_not_stored(self, app: Quart, fs: QuartHashFS) -> None:
        @app.get("/view")
        async def view() -> Response:
            return await fs.send_file("0" * 64)

        assert (await app.test_client().get("/view")).status_code == 404

    async def test_x_accel_redirect(self, app: Quart) -> None:
        app.config["HASHFS_ACCEL_REDIRECT"] = "/internal/"
        fs = serving(app)
        async with app.app_context():
            address = await fs.put(LARGE)
        response = await app.test_client().get(f"/files/{address.id}")
        assert response.headers["X-Accel-Redirect"] == f"/internal/{address.relpath}"
        assert await response.get_data() == b""

    async def test_a_head_request_reads_nothing(self, app: Quart) -> None:
        fs = serving(app)
        async with app.app_context():
            address = await fs.put(LARGE)
        await in_thread(os.chmod, address.abspath, 0)  # but root may read it still
        async with Exchange(app, f"/files/{address.id}", method="HEAD") as exchange:
            await exchange.finish()
        assert (exchange.status, exchange.body) == (200, b"")
        assert exchange.headers["content-length"] == str(len(LARGE))

    @pytest.mark.slow
    async def test_a_slow_client_is_not_cut(self, app: Quart) -> None:
        app.config["RESPONSE_TIMEOUT"] = 0.05
        fs = serving(app)
        async with app.app_context():
            address = await fs.put(LARGE)
        exchange = Exchange(app, f"/files/{address.id}", method="GET")
        send = exchange.deliver

        async def slow(message: dict[str, Any]) -> None:
            await asyncio.sleep(0.05)
            await send(message)

        exchange.deliver = slow  # type: ignore[method-assign]
        async with exchange:
            await exchange.finish()
        assert exchange.body == LARGE

    async def test_a_file_deleted_meanwhile_is_sent_whole(self, app: Quart) -> None:
        fs = serving(app)
        async with app.app_context():
            address = await fs.put(LARGE)
        exchange = Exchange(app, f"/files/{address.id}", method="GET")
        send = exchange.deliver

        async def delete_first(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                await in_thread(os.unlink, address.abspath)
            await send(message)

        exchange.deliver = delete_first  # type: ignore[method-assign]
        async with exchange:
            await exchange.finish()
        assert exchange.body == LARGE

    async def test_no_descriptor_stays_open(self, app: Quart) -> None:
        fs = serving(app)
        async with app.app_context():
            address = await fs.put(LARGE)
        before = await in_thread(descriptors)
        target = f"/files/{address.id}"
        for method, headers in (
            ("GET", {}),
            ("HEAD", {}),
            ("GET", {"Range": "bytes=1-1500000"}),
            ("GET", {"Range": "bytes=9999999-"}),
            ("GET", {"If-None-Match": f'"{address.id}"'}),
            ("GET", {"If-Match": '"x"'}),
        ):
            async with Exchange(app, target, method=method, headers=headers) as exchange:
                await exchange.finish()
            assert await in_thread(descriptors) == before, (method, headers)

    async def test_no_descriptor_stays_open_when_the_client_goes(self, app: Quart) -> None:
        fs = serving(app)
        async with app.app_context():
            address = await fs.put(LARGE)
        before = await in_thread(descriptors)
        for count in range(1, 5):
            exchange = Exchange(app, f"/files/{address.id}", method="GET")
            gone = asyncio.Event()

            async def stop_reading(
                message: dict[str, Any],
                exchange: Exchange = exchange,
                gone: asyncio.Event = gone,
                count: int = count,
            ) -> None:
                exchange.sent.append(message)
                if len(exchange.sent) == count:
                    await exchange.disconnect()
                    await gone.wait()

            exchange.deliver = stop_reading  # type: ignore[method-assign]
            async with exchange:
                await exchange.finish()
            assert await in_thread(descriptors) == before

    @pytest.mark.slow
    async def test_no_descriptor_stays_open_when_the_response_is_dropped(self, app: Quart) -> None:
        fs = serving(app)
        async with app.app_context():
            address = await fs.put(LARGE)

        @app.get("/dropped")
        async def view() -> str:
            await fs.send_file(address)
            return "another answer"

        before = await in_thread(descriptors)
        assert (await app.test_client().get("/dropped")).status_code == 200
        await in_thread(gc.collect)
        assert await in_thread(descriptors) == before

    @pytest.mark.parametrize("content", [b"small", LARGE], ids=len)
    async def test_the_server_sends_whole_files_where_it_can(
        self, app: Quart, content: bytes
    ) -> None:
        fs = serving(app)
        async with app.app_context():
            address = await fs.put(content, "bin")
        before = await in_thread(descriptors)
        target, offer = f"/files/{address.id}", PATHSEND
        async with Exchange(app, target, method="GET", extensions=offer) as exchange:
            await exchange.finish()
        assert [message["type"] for message in exchange.sent] == [
            "http.response.start",
            "http.response.pathsend",
        ]
        assert exchange.sent[1]["path"] == address.abspath
        assert exchange.headers["content-length"] == str(len(content))
        ranged = Exchange(
            app, target, method="GET", extensions=offer, headers={"Range": "bytes=1-"}
        )
        async with ranged:
            await ranged.finish()
        assert ranged.body == content[1:]
        assert await in_thread(descriptors) == before

    async def test_a_middleware_that_does_not_know_pathsend_is_spared_it(self, app: Quart) -> None:
        fs = serving(app, HASHFS_PATHSEND=False)
        async with app.app_context():
            address = await fs.put(LARGE)
        target, offer = f"/files/{address.id}", PATHSEND
        async with Exchange(app, target, method="GET", extensions=offer) as exchange:
            await exchange.finish()
        kinds = {message["type"] for message in exchange.sent}
        assert kinds == {"http.response.start", "http.response.body"}
        assert exchange.body == LARGE

    async def test_the_response_can_be_read_by_the_app(self, app: Quart) -> None:
        """Compressing and caching extensions do so in ``after_request``."""
        fs = serving(app)

        @app.after_request
        async def reverse(response: Response) -> Response:
            response.set_data((await response.get_data())[::-1])
            return response

        async with app.app_context():
            address = await fs.put(LARGE)
        response = await app.test_client().get(f"/files/{address.id}")
        assert await response.get_data() == LARGE[::-1]


class TestSignals:
    async def test_each_is_told(self, app: Quart) -> None:
        fs = serving(app)
        told: list[tuple[str, Any]] = []

        async def stored(sender: Quart, extension: QuartHashFS, address: HashAddress) -> None:
            assert (sender, extension) == (app, fs)
            told.append(("stored", address.is_duplicate))

        def deleted(sender: Quart, extension: QuartHashFS, address: HashAddress) -> None:
            told.append(("deleted", address.id))

        def served(sender: Quart, status: int, **_: Any) -> None:
            told.append(("served", status))

        with (
            file_stored.connected_to(stored, app),
            file_deleted.connected_to(deleted, app),
            file_served.connected_to(served, app),
        ):
            async with app.app_context():
                address = await fs.put(b"content")
            client = app.test_client()
            url = f"/files/{address.id}"
            await client.get(url)
            await client.head(url)
            await client.get(url, headers={"If-None-Match": f'"{address.id}"'})
            await client.get(url, headers={"Range": "bytes=0-1"})
            async with app.app_context():
                await fs.delete(address)
                await fs.delete(address)
        assert told == [
            ("stored", False),
            ("served", 200),
            ("served", 206),
            ("deleted", address.id),
        ]


class TestCancelling:
    @pytest.mark.slow
    @pytest.mark.parametrize("make", [bytes, pieces], ids=["sync", "async"])
    async def test_a_cancelled_put_leaves_nothing_half_done(
        self, app: Quart, fs: QuartHashFS, make: Callable[[bytes], Any]
    ) -> None:
        before = await in_thread(descriptors)
        async with app.app_context():
            for n in range(40):
                content = bytes([n]) + LARGE
                task = asyncio.create_task(fs.put(make(content)))
                await asyncio.sleep(n * 0.0005)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    pass
            assert await in_thread(descriptors) == before
            assert [each async for each in fs.corrupted()] == []
            assert not await in_thread(os.path.exists, os.path.join(fs.root, ".hashfs"))

    async def test_a_cancelled_open_leaves_no_descriptor(self, app: Quart, fs: QuartHashFS) -> None:
        async with app.app_context():
            address = await fs.put(LARGE)
            before = await in_thread(descriptors)

            async def opened() -> Any:
                return await fs.open(address)

            for n in range(40):
                task = asyncio.create_task(opened())
                for _ in range(n % 10):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    file = await task
                except asyncio.CancelledError:
                    pass
                else:
                    await file.close()
            assert await in_thread(descriptors) == before
