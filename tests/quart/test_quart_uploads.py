"""Forms under Quart: their files arrive hashed, off the event loop, and leave nothing behind."""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import io
import os
import random
import stat
import threading
import traceback
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from asgi import Exchange
from local_stores import inventory, open_files
from multipart_cases import (
    BOUNDARY,
    FILENAMES,
    MALFORMED,
    NAMED,
    SMALL,
    WELL_FORMED,
    body_of,
    file_part,
)
from quart import Quart, Request, Response, request
from quart.datastructures import FileStorage
from quart.formparser import FormDataParser
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from flask_hashfs import HashAddress, IncompleteUploadError, QuartHashFS
from flask_hashfs._quart.batch import BATCH, Batch
from flask_hashfs._quart.body import UploadBody
from flask_hashfs._storage.upload_files import FILES, UploadFile
from flask_hashfs._storage.writer import UploadStream

FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
LARGE = os.urandom(1_700_000)  # several batches, and more than is kept in memory

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at /proc"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def app(root: Path) -> Quart:
    app = Quart(__name__)
    app.config.update(TESTING=True, HASHFS_ROOT_FOLDER=str(root), HASHFS_FSYNC=False)
    return app


@pytest.fixture
def fs(app: Quart) -> QuartHashFS:
    return QuartHashFS(app)


@pytest.fixture(autouse=True)
def nothing_stays(root: Path) -> Iterator[None]:
    """Make what a test leaves open or half done in the store an error of that test."""
    yield
    assert not open_below(root)
    assert not (root / ".hashfs").exists()
    for path in inventory(root):
        id = "".join(path.relative_to(root).parts).partition(".")[0]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == id


def open_below(root: Path) -> list[str]:
    return [path for path in open_files() if path.startswith(str(root))]


async def in_thread(call: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(call, *args)


async def post(
    app: Quart,
    body: bytes,
    path: str = "/",
    *,
    size: int = 60_000,
    headers: Mapping[str, str] = FORM,
) -> Exchange:
    """Send a body in pieces of `size`, with its length."""
    fields = {**FORM, "Content-Length": str(len(body)), **headers}
    async with Exchange(app, path, headers=fields) as exchange:
        await exchange.send(*[body[at : at + size] for at in range(0, len(body), size)])
        await exchange.finish()
    return exchange


def view(app: Quart) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    return app.route("/", methods=["POST"])


async def description(form: MultiDict[str, Any]) -> list[Any]:
    """Return what an app can see of a form."""
    return [
        (
            key,
            (
                (each.name, each.filename, each.mimetype, list(each.headers), each.read())
                if isinstance(each, FileStorage)
                else each
            ),
        )
        for key, each in form.items(multi=True)
    ]


class TestFormsMeanWhatTheyMeanToQuart:
    """What a form means is what it means without this package."""

    @staticmethod
    async def both(app: Quart, body: bytes, headers: dict[str, str] = FORM) -> tuple[Any, Any]:
        seen: list[Any] = []
        for each in (app, Quart("stock")):

            @each.post("/")
            async def show() -> str:
                form, files = await request.form, await request.files
                seen.append((await description(form), await description(files)))
                return ""

            async with Exchange(each, headers=headers) as exchange:
                await exchange.send(body)
                await exchange.finish()
            assert exchange.status == 200
        return seen[0], seen[1]

    @pytest.mark.slow
    @pytest.mark.parametrize("body", WELL_FORMED.values(), ids=WELL_FORMED.keys())
    async def test_forms(self, app: Quart, fs: QuartHashFS, body: bytes) -> None:
        ours, stock = await self.both(app, body)
        assert ours == stock

    @pytest.mark.parametrize("parameter", FILENAMES.values(), ids=FILENAMES.keys())
    async def test_filenames(self, app: Quart, fs: QuartHashFS, parameter: bytes) -> None:
        body = body_of(b'Content-Disposition: form-data; name="f"; ' + parameter + b"\r\n\r\nx")
        ours, stock = await self.both(app, body)
        assert ours == stock

    async def test_a_boundary_needs_no_quotes(self, app: Quart, fs: QuartHashFS) -> None:
        names = []

        @view(app)
        async def seen() -> str:
            names.append(list(await request.files))
            return ""

        body = SMALL.replace(b"bound", b"a/b:c=d")
        for quoted in ("a/b:c=d", '"a/b:c=d"'):
            kind = f"multipart/form-data; boundary={quoted}; charset=utf-8"
            await post(app, body, headers={"Content-Type": kind})
        assert names == [["f"], ["f"]]

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("application/x-www-form-urlencoded", b"a=1&b=2&a=%C5%BC"),
            ("text/plain", b"a=1"),
            ("multipart/form-data; boundary=x", b""),
        ],
    )
    async def test_other_bodies(
        self, app: Quart, fs: QuartHashFS, content_type: str, body: bytes
    ) -> None:
        ours, stock = await self.both(app, body, {"Content-Type": content_type})
        assert ours == stock

    async def test_the_test_client_uploads(self, app: Quart, fs: QuartHashFS) -> None:
        @view(app)
        async def put() -> Any:
            file = (await request.files)["photo"]
            text = (await request.form)["text"]
            return {"id": (await fs.put(file)).id, "text": text, "name": file.filename}

        photo = FileStorage(io.BytesIO(LARGE), "a.jpg")
        client = app.test_client()
        response = await client.post("/", files={"photo": photo}, form={"text": "words"})
        digest = hashlib.sha256(LARGE).hexdigest()
        assert await response.get_json() == {"id": digest, "text": "words", "name": "a.jpg"}

    async def test_the_data_of_a_form_read_before_or_after_it(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        @app.post("/before")
        async def before() -> str:
            assert await request.get_data() == SMALL
            assert len(await request.files) == 1
            return ""

        @app.post("/after")
        async def after() -> str:
            assert len(await request.files) == 1
            assert await request.get_data() == b""
            return ""

        @app.post("/instead")
        async def instead() -> str:
            assert b"".join([data async for data in request.body]) == SMALL
            assert not await request.files
            return ""

        for path in ("/before", "/after", "/instead"):
            assert (await post(app, SMALL, path)).status == 200

    async def test_the_parameter_storage_class_is_the_apps(self, app: Quart) -> None:
        class Own(MultiDict[str, Any]):
            pass

        class OwnRequest(Request):
            parameter_storage_class = Own

        app.request_class = OwnRequest
        QuartHashFS(app)

        @view(app)
        async def seen() -> str:
            assert type(await request.form) is type(await request.files) is Own
            return ""

        assert (await post(app, SMALL)).status == 200


class TestStreaming:
    """A file part is hashed and on the store's disk when the view sees it."""

    @pytest.mark.parametrize("content", [b"", b"small", LARGE], ids=["empty", "small", "large"])
    async def test_put_is_a_link(
        self, app: Quart, fs: QuartHashFS, root: Path, content: bytes, monkeypatch: Any
    ) -> None:
        @view(app)
        async def put() -> Any:
            file = (await request.files)["f"]
            assert isinstance(file, FileStorage)
            assert isinstance(file.stream, UploadStream)
            monkeypatch.setattr("flask_hashfs._storage.sources.copy", None)  # nothing is read again
            address = await fs.put(file, "bin")
            return [address.id, address.is_duplicate]

        digest = hashlib.sha256(content).hexdigest()
        for duplicate in ("false", "true"):
            exchange = await post(app, body_of(file_part(content)))
            assert exchange.body == f'["{digest}",{duplicate}]\n'.encode()
        (stored,) = await in_thread(inventory, root)
        assert stored.suffix == ".bin"
        assert await in_thread(stored.read_bytes) == content

    async def test_a_part_that_is_never_put_leaves_nothing(
        self, app: Quart, fs: QuartHashFS, root: Path
    ) -> None:
        kept: list[Any] = []

        @view(app)
        async def ignore() -> str:
            kept.extend((await request.files).getlist("f"))
            assert len(await in_thread(open_below, root)) == 2
            kept[0].stream = io.BytesIO()  # taken apart by the app
            await fs.put(kept[1])
            return ""

        parts = [LARGE, b"put", LARGE + b"x", b"small"]
        await post(app, body_of(*map(file_part, parts)))
        writers = [file.stream.writer for file in kept[1:]]
        assert all(writer.closed for writer in writers)
        (stored,) = await in_thread(inventory, root)
        assert await in_thread(stored.read_bytes) == b"put"

    async def test_a_file_that_was_put_and_deleted_is_freed_by_a_worker(
        self, app: Quart, fs: QuartHashFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its last descriptor frees its blocks, which may take the disk a while."""
        close, loop_thread, frees_on_loop = os.close, threading.current_thread(), list[bool]()

        def watched_close(fd: int) -> None:
            state = os.fstat(fd)
            if stat.S_ISREG(state.st_mode) and not state.st_nlink:
                frees_on_loop.append(threading.current_thread() is loop_thread)
            close(fd)

        @view(app)
        async def put_and_delete() -> str:
            file = (await request.files)["f"]
            assert isinstance(file.stream, UploadStream)
            spilled = file.stream.writer.spilled
            assert spilled is not None
            if spilled.path is not None:
                pytest.skip("temporary files have names here")
            address = await fs.put(file)
            await fs.delete(address)
            monkeypatch.setattr(os, "close", watched_close)
            return ""

        await post(app, body_of(file_part(LARGE)))
        assert frees_on_loop == [False]

    async def test_a_file_of_a_form_without_its_end_is_freed_by_a_worker(
        self, app: Quart, fs: QuartHashFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        close, loop_thread = UploadFile.close, threading.current_thread()
        frees_on_loop: list[bool] = []

        def watched_close(file: UploadFile) -> None:
            if file.fd >= 0:
                frees_on_loop.append(threading.current_thread() is loop_thread)
            close(file)

        @view(app)
        async def read() -> str:
            await request.files
            return ""

        monkeypatch.setattr(UploadFile, "close", watched_close)
        body = body_of(file_part(LARGE)).rpartition(b"\r\n--")[0]
        assert (await post(app, body)).status == 400
        assert frees_on_loop == [False]

    async def test_a_file_that_cannot_be_closed_keeps_no_other_open(
        self, app: Quart, fs: QuartHashFS, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        close, is_broken = os.close, [False]

        def close_once_in_vain(fd: int) -> None:
            fails = is_broken[0] and stat.S_ISREG(os.fstat(fd).st_mode)
            close(fd)
            if fails:
                is_broken[0] = False
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        @view(app)
        async def put() -> str:
            for file in (await request.files).getlist("f"):
                await fs.put(file)
            is_broken[0] = True
            return ""

        before = FILES.open_count
        monkeypatch.setattr(os, "close", close_once_in_vain)
        await post(app, body_of(*(file_part(LARGE + bytes([number])) for number in range(3))))
        assert (is_broken[0], FILES.open_count) == (False, before)

    async def test_a_file_that_another_thread_is_naming_keeps_the_loop_from_nothing(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        is_held, loop_goes_on, was_set = threading.Event(), threading.Event(), list[bool]()

        @view(app)
        async def put() -> str:
            file = (await request.files)["f"]
            await fs.put(file)
            assert isinstance(file.stream, UploadStream)
            spilled = file.stream.writer.spilled
            assert isinstance(spilled, UploadFile)

            def hold() -> None:
                with spilled._turn:  # as while it is closed to make room for another
                    is_held.set()
                    was_set.append(loop_goes_on.wait(20))

            thread = threading.Thread(target=hold)
            thread.start()
            await in_thread(is_held.wait)
            asyncio.get_running_loop().call_later(0.1, loop_goes_on.set)
            return ""

        await post(app, body_of(file_part(LARGE)))
        assert was_set == [True]

    async def test_a_view_that_raises_leaves_nothing(self, app: Quart, fs: QuartHashFS) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = False

        @view(app)
        async def fail() -> str:
            await request.files
            raise LookupError

        assert (await post(app, body_of(file_part(LARGE)))).status == 500

    @pytest.mark.parametrize("content", [b"", b"small", LARGE * 4], ids=len)
    async def test_saving_elsewhere(
        self, app: Quart, fs: QuartHashFS, tmp_path: Path, content: bytes
    ) -> None:
        app.config["MAX_CONTENT_LENGTH"] = None

        @view(app)
        async def save() -> str:
            file = (await request.files)["f"]
            memory = io.BytesIO()
            await file.save(tmp_path / "saved")
            file.stream.seek(0)
            await file.save(memory)  # type: ignore[arg-type]
            assert memory.getvalue() == content
            with pytest.raises(FileNotFoundError):
                await file.save(tmp_path / "no" / "folder")
            return ""

        assert (await post(app, body_of(file_part(content)))).status == 200
        assert await in_thread((tmp_path / "saved").read_bytes) == content

    async def test_reading_and_seeking_but_not_writing(self, app: Quart, fs: QuartHashFS) -> None:
        @view(app)
        async def read() -> str:
            stream = (await request.files)["f"].stream

            def check() -> None:
                assert stream.read(16) == LARGE[:16]
                assert stream.seek(-5, os.SEEK_END) == len(LARGE) - 5
                assert stream.read() == LARGE[-5:]
                with pytest.raises(io.UnsupportedOperation):
                    stream.write(b"x")

            await in_thread(check)
            return ""

        assert (await post(app, body_of(file_part(LARGE)))).status == 200

    async def test_streaming_can_be_switched_off(self, app: Quart) -> None:
        app.config["HASHFS_STREAM_UPLOADS"] = False
        fs = QuartHashFS(app)

        @view(app)
        async def put() -> str:
            file = (await request.files)["f"]
            assert not isinstance(file.stream, UploadStream)
            return (await fs.put(file)).id

        exchange = await post(app, body_of(file_part(b"small")))
        assert exchange.body.decode() == hashlib.sha256(b"small").hexdigest()

    @pytest.mark.parametrize("own", ["class", "method"])
    async def test_the_apps_own_parser_wins(self, app: Quart, own: str) -> None:
        class OwnParser(FormDataParser):
            pass

        class OwnRequest(Request):
            if own == "class":
                form_data_parser_class = OwnParser
            else:

                def make_form_data_parser(self) -> FormDataParser:
                    return OwnParser()

        app.request_class = OwnRequest
        QuartHashFS(app)

        @view(app)
        async def read() -> bytes:
            file = (await request.files)["f"]
            assert not isinstance(file.stream, UploadStream)
            return file.read()

        assert (await post(app, body_of(file_part(b"content")))).body == b"content"


class TestHops:
    """Work for other threads is counted, and never runs twice at once for one upload."""

    async def calls_of(
        self, app: Quart, fs: QuartHashFS, body: bytes, size: int = 60_000
    ) -> list[int]:
        calls: list[int] = []

        @view(app)
        async def read() -> str:
            workers = request.workers  # type: ignore[attr-defined]
            run, running = type(workers).run, threading.Lock()

            async def counted(call: Any, *args: Any, **kwargs: Any) -> Any:
                def alone(*args: Any) -> Any:
                    calls.append(len(args[-1]) if args and isinstance(args[-1], Batch) else 0)
                    assert running.acquire(blocking=False)
                    try:
                        return call(*args)
                    finally:
                        running.release()

                return await run(workers, alone, *args, **kwargs)

            workers.run = counted
            await request.files
            del workers.run
            return ""

        assert (await post(app, body, size=size)).status == 200
        return calls

    async def test_a_small_form_needs_none(self, app: Quart, fs: QuartHashFS) -> None:
        assert await self.calls_of(app, fs, body_of(file_part(b"x" * 60_000))) == []

    async def test_a_form_of_one_batch_needs_one(self, app: Quart, fs: QuartHashFS) -> None:
        assert len(await self.calls_of(app, fs, body_of(file_part(b"x" * 200_000)))) == 1

    @pytest.mark.parametrize("size", [999, 60_000, 1_000_000])
    async def test_a_large_form_needs_one_for_each_batch(
        self, app: Quart, fs: QuartHashFS, size: int
    ) -> None:
        body = body_of(file_part(LARGE))
        calls = await self.calls_of(app, fs, body, size)
        assert sum(calls) == len(body)
        assert all(call >= BATCH for call in calls[:-1])


class TestMalformed:
    """A form that is none is the client's error, and leaves nothing."""

    @pytest.fixture(autouse=True)
    def put_all(self, app: Quart, fs: QuartHashFS) -> None:
        @view(app)
        async def put() -> str:
            for file in (await request.files).values():
                await fs.put(file)
            return ""

    @pytest.mark.parametrize("start", [b"small", LARGE], ids=["in memory", "on disk"])
    @pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
    async def test_malformed_forms(self, app: Quart, root: Path, body: bytes, start: bytes) -> None:
        body = body_of(file_part(start)).removesuffix(b"--bound--\r\n") + body
        assert (await post(app, body)).status == 400
        assert not await in_thread(inventory, root)

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
    async def test_impossible_boundaries(self, app: Quart, root: Path, content_type: str) -> None:
        assert (await post(app, SMALL, headers={"Content-Type": content_type})).status == 400
        assert not await in_thread(inventory, root)

    @pytest.mark.slow
    async def test_truncation_at_every_byte(self, app: Quart, root: Path) -> None:
        body = SMALL.removesuffix(b"\r\n")
        for at in range(1, len(body)):
            assert (await post(app, body[:at])).status == 400, at
        assert not await in_thread(inventory, root)
        assert (await post(app, body)).status == 200

    async def test_a_content_length_that_promises_more(self, app: Quart, root: Path) -> None:
        for body in (SMALL, SMALL[:-20], b""):
            length = {"Content-Length": str(len(SMALL) + 1)}
            assert (await post(app, body, headers=length)).status == 400
        assert not await in_thread(inventory, root)

    async def test_split_at_every_byte_of_the_closing_boundary(self, app: Quart) -> None:
        sizes: list[int] = []

        @app.post("/sizes")
        async def measure() -> str:
            sizes.append(len((await request.files)["f"].read()))
            return ""

        body = body_of(file_part(b"x" * 1000))
        for at in range(1000, len(body)):
            async with Exchange(app, "/sizes", headers=FORM) as exchange:
                await exchange.send(body[:at], body[at:])
                await exchange.finish()
        assert set(sizes) == {1000}

    async def test_the_error_stays(self, app: Quart) -> None:
        @app.post("/twice")
        async def twice() -> str:
            with pytest.raises(BadRequest) as first:
                await request.files
            with pytest.raises(BadRequest) as second:
                await request.form
            assert second.value is first.value
            return ""

        assert (await post(app, MALFORMED["no final boundary"], "/twice")).status == 200


@contextmanager
def without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class TestAfterAnError:
    """What an upload that breaks off held is freed at once, with no help of the collector."""

    requests: list[weakref.ref[Request]]

    @pytest.fixture(autouse=True)
    def take_uploads(self, app: Quart, fs: QuartHashFS) -> None:
        self.requests = []

        @app.before_request
        def remember() -> None:
            asked: Any = request
            self.requests.append(weakref.ref(asked._get_current_object()))

        @app.post("/raw")
        async def raw() -> str:
            return (await fs.put(request.body)).id

        @app.post("/form")
        async def form() -> str:
            return (await fs.put((await request.files)["f"])).id

    async def break_off(self, app: Quart, path: str) -> Exchange:
        body = body_of(file_part(LARGE))
        fields = {**FORM, "Content-Length": str(len(body))}
        async with Exchange(app, path, headers=fields) as exchange:
            await exchange.send(body[:1_000_000])
            await exchange.settle()
            await exchange.disconnect()
        return exchange

    async def wait_until_freed(self) -> None:
        """Wait for a worker that is about to let go of its last job, but not for the collector."""
        async with asyncio.timeout(30):
            while self.requests[-1]() is not None:
                await asyncio.sleep(0.01)

    @pytest.mark.parametrize("path", ["/raw", "/form"])
    async def test_the_request_is_freed(self, app: Quart, path: str) -> None:
        await self.break_off(app, path)  # imports what is imported late
        with without_collector():
            exchange = await self.break_off(app, path)
            assert exchange.status == 400
            await exchange.settle()
            del exchange
            await self.wait_until_freed()

    @pytest.mark.parametrize("path", ["/raw", "/form"])
    async def test_a_client_that_falls_silent_leaves_nothing(self, app: Quart, path: str) -> None:
        app.config["BODY_TIMEOUT"] = 0.01
        fields = {**FORM, "Content-Length": "1000"}
        with without_collector():
            async with Exchange(app, path, headers=fields) as exchange:
                await exchange.send(b"--")
                while exchange.status is None:
                    await asyncio.sleep(0.01)
                await exchange.disconnect()
            assert exchange.status == 408
            await exchange.settle()
            del exchange
            await self.wait_until_freed()

    @pytest.mark.parametrize("path", ["/raw", "/form"])
    async def test_an_error_that_is_raised_keeps_its_traceback(
        self, app: Quart, monkeypatch: pytest.MonkeyPatch, path: str
    ) -> None:
        app.config.update(TRAP_HTTP_EXCEPTIONS=True, PROPAGATE_EXCEPTIONS=True)
        handle_request, names = app.handle_request, list[str]()

        async def note_frames(asked: Request) -> Any:
            try:
                return await handle_request(asked)
            except IncompleteUploadError as error:
                passed = traceback.walk_tb(error.__traceback__)
                names.extend(frame.f_code.co_name for frame, _ in passed)
                return Response("noted", 500)

        monkeypatch.setattr(app, "handle_request", note_frames)
        await self.break_off(app, path)
        assert path.strip("/") in names
        assert names[-1] == "check"


class TestLimits:
    """Limits hold while the bytes arrive."""

    @pytest.fixture(autouse=True)
    def put_all(self, app: Quart) -> None:
        @view(app)
        async def put() -> str:
            for name in ("max_content_length", "max_form_parts", "max_form_memory_size"):
                if name in request.args:
                    setattr(request, name, request.args.get(name, type=int))
            fs: QuartHashFS = app.extensions["hashfs"]["extension"]
            for file in (await request.files).values():
                await fs.put(file)
            return ""

    async def test_a_file(self, app: Quart, root: Path) -> None:
        app.config["HASHFS_MAX_FILE_SIZE"] = 300_000
        QuartHashFS(app)
        assert (await post(app, body_of(file_part(LARGE[:300_000])))).status == 200
        assert (await post(app, body_of(file_part(LARGE[:300_001])))).status == 413
        assert len(await in_thread(inventory, root)) == 1

    @pytest.mark.slow
    async def test_a_file_is_stopped_while_it_arrives(self, app: Quart) -> None:
        app.config["HASHFS_MAX_FILE_SIZE"] = 300_000
        QuartHashFS(app)
        async with Exchange(app, headers=FORM) as exchange:
            await exchange.send(body_of(file_part(LARGE))[:900_000])
        assert exchange.status == 413

    async def test_a_field(self, app: Quart) -> None:
        QuartHashFS(app)
        fields = [NAMED + b"\r\n" + b"x" * 1000] * 2
        body = body_of(*fields, file_part(LARGE))
        assert (await post(app, body, "/?max_form_memory_size=1000")).status == 200
        assert (await post(app, body, "/?max_form_memory_size=999")).status == 413

    async def test_the_parts(self, app: Quart) -> None:
        QuartHashFS(app)
        body = body_of(*[file_part(b"%d" % n) for n in range(30)])
        assert (await post(app, body, "/?max_form_parts=30")).status == 200
        assert (await post(app, body, "/?max_form_parts=29")).status == 413
        assert (await post(app, body_of(*[NAMED] * 1001))).status == 413

    async def test_the_body(self, app: Quart) -> None:
        QuartHashFS(app)
        body = body_of(file_part(LARGE))
        for limit, status in ((len(body), 200), (len(body) - 1, 413)):
            exchange = await post(app, body, f"/?max_content_length={limit}")
            assert exchange.status == status

    @pytest.mark.slow
    async def test_a_silent_client_is_given_up(self, app: Quart) -> None:
        app.config["BODY_TIMEOUT"] = 0.05
        QuartHashFS(app)
        async with Exchange(app, headers=FORM) as exchange:
            await exchange.send(body_of(file_part(LARGE))[:-5])
        assert exchange.status == 408


class TestClientsThatGo:
    """A client that goes, or a view that is cancelled, leaves nothing (see `nothing_stays`)."""

    @pytest.mark.slow
    async def test_clients_that_go_at_any_moment(self, app: Quart, fs: QuartHashFS) -> None:
        @app.post("/form")
        async def form() -> str:
            return (await fs.put((await request.files)["f"])).id

        @app.post("/raw")
        async def raw() -> str:
            return (await fs.put(request.body)).id

        dice = random.Random(7)
        for number in range(200):
            content = b"%d" % number + LARGE[: dice.choice([1000, 100_000, 600_000])]
            path = dice.choice(["/form", "/raw"])
            body = body_of(file_part(content)) if path == "/form" else content
            cut = body[: dice.randrange(len(body))]
            async with Exchange(app, path, headers=FORM) as exchange:
                await exchange.send(*[cut[at : at + 50_000] for at in range(0, len(cut), 50_000)])
                for _ in range(dice.randrange(30)):
                    await asyncio.sleep(0)
                if dice.random() < 0.3:
                    await asyncio.sleep(0.002)
                await exchange.disconnect()
            assert exchange.status in (None, 400)

    @pytest.mark.slow
    async def test_requests_cancelled_at_any_moment(self, app: Quart, fs: QuartHashFS) -> None:
        @view(app)
        async def form() -> str:
            return (await fs.put((await request.files)["f"])).id

        dice = random.Random(7)
        for number in range(100):
            body = body_of(file_part(b"%d" % number + LARGE[:600_000]))
            exchange = Exchange(app, headers=FORM)
            async with exchange:
                await exchange.send(*[body[at : at + 50_000] for at in range(0, len(body), 50_000)])
                await exchange.finish()
                await asyncio.sleep(dice.random() / 100)
                exchange.task.cancel()
                for _ in range(dice.randrange(3)):  # servers may insist
                    await asyncio.sleep(0)
                    exchange.task.cancel()


def test_two_event_loops_take_uploads_at_once(app: Quart, fs: QuartHashFS) -> None:
    app.config["HASHFS_WORKER_THREADS"] = 1
    digests = list[bool]()

    @view(app)
    async def form() -> str:
        return (await fs.put((await request.files)["f"])).id

    def serve(number: int) -> None:
        async def upload() -> None:
            content = b"%d" % number + LARGE
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(post(app, body_of(file_part(content)))) for _ in "12345"]
            digest = hashlib.sha256(content).hexdigest()
            digests.extend(task.result().body.decode() == digest for task in tasks)

        asyncio.run(upload())

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert digests == [True] * 15


class TestReadAlready:
    """A body that something else has read is what was kept of it, or an error, never empty."""

    async def put_after(self, app: Quart, fs: QuartHashFS, read: Any, body: bytes) -> Exchange:
        @view(app)
        async def store() -> str:
            await read()
            return (await fs.put(request.body)).id

        return await post(app, body)

    @pytest.mark.parametrize("how", ["get_data", "body"])
    async def test_what_was_kept_is_stored(self, app: Quart, fs: QuartHashFS, how: str) -> None:
        async def read() -> Any:
            return await (request.get_data() if how == "get_data" else request.body)

        exchange = await self.put_after(app, fs, read, b"content")
        assert exchange.body.decode() == hashlib.sha256(b"content").hexdigest()

    @pytest.mark.parametrize("how", ["uncached", "form", "iterated"])
    async def test_what_was_not_kept_is_an_error(
        self, app: Quart, fs: QuartHashFS, how: str
    ) -> None:
        async def read() -> None:
            if how == "uncached":
                await request.get_data(cache=False)
            elif how == "form":
                await request.files
            else:
                async for _ in request.body:
                    pass

        exchange = await self.put_after(app, fs, read, body_of(file_part(b"content")))
        assert exchange.status == 400
        assert b"has been read already" in exchange.body

    async def test_what_is_left_of_a_body_that_the_view_has_begun_to_read_is_stored(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        first: list[bytes] = []

        async def read() -> None:
            async for piece in request.body:
                first.append(piece)
                break

        exchange = await self.put_after(app, fs, read, LARGE)
        rest = LARGE[len(first[0]) :]
        assert 0 < len(rest) < len(LARGE)
        assert exchange.body.decode() == hashlib.sha256(rest).hexdigest()

    async def test_nothing_is_stored_where_nothing_was_left_though_the_end_is_still_to_come(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        @view(app)
        async def store() -> str:
            async for _ in request.body:
                break
            return (await fs.put(request.body)).id

        async with Exchange(app) as exchange:
            await exchange.send(b"all there is")
            await exchange.settle()
            await exchange.finish()
        assert exchange.status == 400

    async def test_an_empty_body_is_the_empty_file(self, app: Quart, fs: QuartHashFS) -> None:
        async def read() -> None:
            await request.get_data(cache=False)

        exchange = await self.put_after(app, fs, read, b"")
        assert exchange.body.decode() == hashlib.sha256(b"").hexdigest()


class TestTakenOnce:
    """What a put or a form takes is gone with it: nobody gets the rest for the whole."""

    CONTENT = os.urandom(3 * 1024 * 1024)  # of two batches

    async def after(
        self,
        app: Quart,
        first: Callable[[], Awaitable[object]],
        then: Callable[[], Awaitable[object]],
        body: bytes = CONTENT,
        *,
        fails_early: bool = True,
    ) -> Exchange:
        """Do one thing, which fails (when it has half of the body, or all), and then the other."""
        has_failed = asyncio.Event()

        @view(app)
        async def store() -> str:
            with pytest.raises((HTTPException, TimeoutError)):
                await first()
            has_failed.set()
            return str(await then())

        headers = {**FORM, "Content-Length": str(len(body))}
        async with Exchange(app, headers=headers) as exchange:
            await exchange.send(body[: len(body) // 2 + 1000])
            await exchange.settle()
            if fails_early:
                await has_failed.wait()
            await exchange.send(body[len(body) // 2 + 1000 :])
            await exchange.finish()
        return exchange

    @staticmethod
    async def given_up(first: Awaitable[object]) -> None:
        """Cancel what reads the body as soon as it has taken something of it."""
        reading = asyncio.ensure_future(first)
        while not cast(UploadBody, request.body)._is_begun:
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        raise TimeoutError

    @pytest.mark.parametrize(
        ("first", "fails_early"),
        [
            (lambda fs: fs.put(request.body, max_size=500_000), True),
            (lambda fs: fs.put(request.body, expected="0" * 64), False),
            (lambda fs: TestTakenOnce.given_up(fs.put(request.body)), True),
        ],
        ids=["too large", "mismatch", "given up"],
    )
    @pytest.mark.parametrize("then", ["put", "form"])
    async def test_after_a_put_that_has_failed(
        self, app: Quart, fs: QuartHashFS, first: Any, fails_early: bool, then: str
    ) -> None:
        async def put_again() -> object:
            return await (fs.put(request.body) if then == "put" else request.files)

        exchange = await self.after(
            app,
            lambda: first(fs),
            put_again,
            body_of(file_part(self.CONTENT)),
            fails_early=fails_early,
        )
        assert exchange.status == 400
        assert b"has been read already" in exchange.body

    async def test_after_a_form_that_has_been_given_up(self, app: Quart, fs: QuartHashFS) -> None:
        async def files() -> object:
            return await request.files

        body = body_of(file_part(self.CONTENT))
        exchange = await self.after(app, lambda: self.given_up(files()), files, body)
        assert exchange.status == 400

    async def test_after_a_put_that_has_failed_before_it_took_anything(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        async def put() -> str:
            return (await fs.put(request.body)).id

        exchange = await self.after(app, lambda: fs.put(request.body, "a/b"), put)
        assert exchange.body.decode() == hashlib.sha256(self.CONTENT).hexdigest()

    async def test_what_is_wrong_with_the_body_is_told_again(
        self, app: Quart, fs: QuartHashFS
    ) -> None:
        app.config["MAX_CONTENT_LENGTH"] = 1_000_000

        async def put() -> object:
            return await fs.put(request.body)

        @view(app)
        async def store() -> str:
            with pytest.raises(RequestEntityTooLarge):
                await put()
            return str(await put())

        async with Exchange(app) as exchange:  # of no known length, so that it is begun
            await exchange.send(*[bytes(100_000)] * 11)
            await exchange.finish()
        assert exchange.status == 413

    async def test_two_puts_at_once(self, app: Quart, fs: QuartHashFS) -> None:
        results = list[object]()

        @view(app)
        async def store() -> str:
            puts = [fs.put(request.body), fs.put(request.body)]
            results.extend(await asyncio.gather(*puts, return_exceptions=True))
            return ""

        async with Exchange(app) as exchange:
            for start in range(0, len(self.CONTENT), BATCH):
                await exchange.send(self.CONTENT[start : start + BATCH])
                await exchange.settle()
            await exchange.finish()
        stored, refused = results
        assert cast(HashAddress, stored).id == hashlib.sha256(self.CONTENT).hexdigest()
        assert isinstance(refused, IncompleteUploadError)

    @pytest.mark.parametrize("content", [b"small", CONTENT], ids=["all of it", "a part"])
    async def test_a_form_that_the_view_has_begun_to_read(
        self, app: Quart, fs: QuartHashFS, content: bytes
    ) -> None:
        @view(app)
        async def store() -> str:
            async for _ in request.body:
                break
            return str(await request.files)

        assert (await post(app, body_of(file_part(content)))).status == 400


class Upper(FileStorage):
    """A file of a form that the app reads in its own way."""

    async def read(self, size: int = -1) -> bytes:
        return self.stream.read(size).upper()

    def seekable(self) -> bool:
        return False


async def test_a_file_is_read_in_the_way_of_the_apps_own_class(app: Quart, fs: QuartHashFS) -> None:
    @view(app)
    async def put() -> str:
        file = (await request.files)["f"]
        return (await fs.put(Upper(file.stream))).id

    exchange = await post(app, body_of(file_part(b"hello")))
    assert exchange.body.decode() == hashlib.sha256(b"HELLO").hexdigest()
