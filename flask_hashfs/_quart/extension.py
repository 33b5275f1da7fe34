"""QuartHashFS: the calls of FlaskHashFS, awaited, and the sender that speaks ASGI."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
)
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from io import FileIO
from itertools import islice
from typing import Any, BinaryIO, TypeVar, cast, overload

from blinker import NamedSignal
from flask.sansio.app import App
from quart import (
    Quart,
    Request,
    Response,
    current_app,
    g,
    has_app_context,
    has_request_context,
    has_websocket_context,
    request,
    websocket,
)
from werkzeug.exceptions import HTTPException

from .._app import doctor, health, saving
from .._app.config import StoreConfig
from .._app.extension import BaseHashFS
from .._app.inspection import look
from .._app.serving import Answer, SendOptions, Serving
from .._app.state import StoreState
from .._storage.cache_stats import CacheStats
from .._storage.findings import Finding
from .._storage.names import AUTO, BinaryMode, Extension, File, TextMode
from .._storage.predecessor import HashAddress
from .._storage.records import Damaged, Entry, InUse, Stats
from .._storage.sources import AsyncSource, Source
from .._storage.stored_file import StoredFile
from .._storage.upload_memory import MEMORY
from .._storage.writer import Writer
from .._store import types
from .._store.putting import Put
from ..signals import file_damaged, file_deleted, file_rejected, file_served, file_stored
from . import sources
from .batch import Batch
from .body import UploadBody
from .connection import connection_class
from .reader import BinaryReader, Opening, TextReader
from .request import upload_request_class
from .sender import begin_answer, close_answer, make_response, read_first, sends_paths
from .workers import Workers, finished

T = TypeVar("T")

for _name in ("http_sf", "python_multipart.multipart"):  # now, and not on the event loop
    importlib.import_module(_name)

_PATHS_IN_CALL = 256  # paths in one call
_PUT = 128  # files in one call, as many as share the syncs of the disk
_INLINE = 128 * 1024  # bytes hashed sooner than a thread would begin, and kept in memory
_STEPS = 8  # of a verify in one call: a cancelled one ends in less than a second


class _State(StoreState):
    """One store of a Quart app, with the threads that work for it.

    Looking up, opening and reading do not wait behind uploads, nor uploads behind them.
    """

    workers: Workers
    reading: Workers
    inspecting: Workers


class QuartHashFS(BaseHashFS[Quart]):
    """Content-addressed file storage for Quart.

    Every attribute that is not documented here is the one of the app's store, `HashFS`.

    Args:
        app: Initialised at once if given.
        name: Of a store beside the app's default one; it reads ``HASHFS_<NAME>_*``.

    Raises:
        ValueError: A name that cannot be part of a configuration key.
    """

    _framework = "quart"

    async def put(
        self,
        file: Source | AsyncSource,
        extension: Extension = None,
        *,
        expected: str | None = None,
        max_size: int | None = None,
        accept: str | Iterable[str] | None = None,
    ) -> HashAddress:
        """Store the content of `file` under its hash.

        Args:
            file: A path, bytes, a binary or text file object, an upload (``FileStorage``) or
                an iterable of bytes. It also takes an async iterable of bytes, such as
                ``request.body``, and an object with an async ``read``.
            extension: Added to the stored path; not a part of the identity. `AUTO` stands for
                the extension of the content's type.
            expected: The hex id that the content must have.
            max_size: Bytes allowed; ``HASHFS_MAX_FILE_SIZE`` holds as well.
            accept: MIME types that are allowed; ``HASHFS_ACCEPT`` holds as well.

        Returns:
            The address; ``is_duplicate`` tells whether the content was stored already.

        Raises:
            InvalidExtensionError: `extension` cannot be part of a path (400).
            FileTooLargeError: The content is larger than allowed (413).
            UnsupportedTypeError: The content is of a type that is not accepted (415).
            RejectedError: An inspector refuses the content (422).
            DigestMismatchError: The content is not the `expected` one (400).
            IncompleteUploadError: The request's body ended before it was complete, or another put
                or form has taken some of it (400).
            StoreFullError: The disk is full (507).
            StoreUnavailableError: The object store does not answer, or a large upload has no
                temporary folder (503).

        Example:
            ``address = await fs.put((await request.files)["photo"], ".jpg")``
        """
        if (accept is not None or extension is AUTO) and not types.is_loaded():
            await self._workers.run(types.detector)
        state, checks = cast(_State, self._state), (extension, expected, max_size, accept)
        client, workers, metrics = state["client"], state["workers"], state["metrics"]
        if metrics is None:
            address = await self._put(Put(client, *checks), workers, file)
        else:
            with metrics.put() as measured:
                step = Put(client, *checks)
                address = await self._put(step, workers, file)
                measured.stored(address, step.size)
        await self._tell(file_stored, address=address)
        return address

    async def _put(self, step: Put, workers: Workers, file: Source | AsyncSource) -> HashAddress:
        """Carry out one put, of what is read here or has to be awaited."""
        try:
            if sources.is_async(file):
                address = await _receive(step, workers, file)
            else:
                address = await workers.run(_take, step, file)
            if address is None:
                await self._inspect(step.open, step.address)
                address = await workers.run(_publish, step)
        except BaseException:
            await finished(workers.run(step.close))
            raise
        return address

    async def save(
        self,
        file: Any,
        extension: Extension = None,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        expected: str | None = None,
        max_size: int | None = None,
        accept: str | Iterable[str] | None = None,
    ) -> StoredFile:
        """Store a file, and return what a row of a database keeps of it.

        Args:
            file: What `put` takes.
            extension: Added to the stored path; not a part of the identity.
            filename: The name to keep; that of the upload if None. Its last component is
                kept, at most 255 bytes of UTF-8, without control characters.
            content_type: Type and subtype; told by the bytes if None (by the name where the
                extra ``types`` is not installed).
            expected: The hex id that the content must have.
            max_size: Bytes allowed; the store's own limit holds as well.
            accept: MIME types, told by the content's bytes; the store's own list holds as well.

        Returns:
            What a column of the type ``StoredFileType`` takes.

        Raises:
            ValueError: `content_type` is not type/subtype; and all that `put` raises.

        Example:
            ``photo = Photo(file=await fs.save((await request.files)["photo"]))``
        """
        saving.check_save(content_type)
        address = await self.put(
            file, extension, expected=expected, max_size=max_size, accept=accept
        )
        filename = saving.name_of(file, filename)
        describe = partial(saving.describe, self.client, address)
        return await self._workers.run(describe, filename, content_type)

    async def type_of(self, file: Any) -> str:
        """Return the type of a file, by its bytes alone.

        Args:
            file: What `get` takes, or an upload or a seekable binary file, whose position is
                kept.

        Returns:
            Type and subtype, such as ``image/png``; ``application/octet-stream`` if unknown.

        Raises:
            ConfigError: The extra ``types`` is not installed.
            NotStoredError: `file` is not stored.
        """
        return await self._reading.run(self.client.type_of, file)

    async def get(self, file: File) -> HashAddress | None:
        """Return the address of a stored file, or None where it is not stored.

        Args:
            file: A hash id, a path relative to the root, an absolute path inside the root, an
                address or a `StoredFile`.

        Raises:
            TypeError: `file` is anything else.
        """
        return await self._reading.run(self.client.get, file)

    async def exists(self, file: File) -> bool:
        """Tell whether a file is stored.

        Args:
            file: A hash id, a path relative to the root, an absolute path inside the root, an
                address or a `StoredFile`.
        """
        return await self._reading.run(self.client.exists, file)

    @overload
    def open(self, file: File, mode: BinaryMode = "rb") -> Opening[BinaryReader]: ...
    @overload
    def open(self, file: File, mode: TextMode) -> Opening[TextReader]: ...
    @overload
    def open(self, file: File, mode: str) -> Opening[Any]: ...
    def open(self, file: File, mode: str = "rb") -> Opening[Any]:
        """Open a stored file to read.

        Args:
            file: A hash id, a path relative to the root, an absolute path inside the root, an
                address or a `StoredFile`.
            mode: ``"rb"``, or a text mode such as ``"r"``; no mode that writes.

        Returns:
            What can be awaited for an aiofiles file, or entered with ``async with``.

        Raises:
            NotStoredError: The file is not stored; it is a ``FileNotFoundError`` too.
            ValueError: `mode` writes.

        Example:
            ``async with fs.open(address) as file: …``
        """
        return Opening(self._reading, partial(self.client.open, file, mode))

    async def delete(self, file: str | os.PathLike[str] | HashAddress) -> None:
        """Delete a stored file; one that is not stored is not an error.

        Args:
            file: What `get` takes. An id deletes the content under all its extensions,
                anything else only the one path.

        Raises:
            TypeError: `file` is a `StoredFile`: another row may mean the same content, so
                `prune` deletes what no row has.
        """
        address = await self.get(file) if file_deleted.receivers else None
        await self._workers.run(self.client.delete, file)
        if address is not None:
            await self._tell(file_deleted, address=address)

    def files(self) -> AsyncIterator[str]:
        """Iterate over the absolute paths of all files (``async for``)."""
        return self._iterate(self.client.files)

    def folders(self) -> AsyncIterator[str]:
        """Iterate over the absolute paths of all folders that hold files (``async for``)."""
        return self._iterate(self.client.folders)

    def corrupted(self, extensions: bool = True) -> AsyncIterator[tuple[str, HashAddress]]:
        """Iterate over the files that do not lie where their bytes belong.

        Args:
            extensions: Whether an extension belongs to the path; hashfs 0.7.2 needs it.

        Yields:
            The path of each such file, and the address that it should have.
        """
        return self._iterate(partial(self.client.corrupted, extensions), 1)

    async def repair(self, extensions: bool = True) -> list[tuple[str, HashAddress]]:
        """Move every file to where its bytes belong.

        Args:
            extensions: Whether files keep their extensions.

        Returns:
            What `corrupted` yields.
        """
        return await self._workers.run(self.client.repair, extensions)

    async def count(self) -> int:
        """Return the number of files."""
        return await self._workers.run(self.client.count)

    async def size(self) -> int:
        """Return the total size in bytes of all files."""
        return await self._workers.run(self.client.size)

    def entries(self) -> AsyncIterator[Entry]:
        """Iterate over all regular files with sizes and dates; see `HashFS.entries`."""
        return self._iterate(self.client.entries)

    async def cache_stats(self) -> CacheStats:
        """Return the cache of this machine, before the store, in numbers.

        Raises:
            ConfigError: There is none: ``HASHFS_CACHE_FOLDER`` is not set.
        """
        return await self._workers.run(self.client.cache_stats)

    async def stats(self) -> Stats:
        """Return the store in numbers; see `HashFS.stats`."""
        return await self._workers.run(self.client.stats)

    def put_files(
        self, files: Iterable[tuple[Any, Extension]]
    ) -> AsyncIterator[tuple[Any, HashAddress | Exception]]:
        """Store many files: each as durable as by a `put`, but for few waits for the disk.

        Args:
            files: Sources with their extensions. They are read in worker threads, so none of
                them may be asynchronous.

        Yields:
            Each source with its address, or with the error that kept it out.
        """
        return self._iterate(partial(self.client.put_files, files), _PUT)

    async def realpath(self, file: File) -> str | None:
        """Return the absolute path of a stored file, or None.

        Args:
            file: What `get` takes.

        Raises:
            TypeError: Anything else.
        """
        return await self._reading.run(self.client.realpath, file)

    async def haspath(self, path: str) -> bool:
        """Tell whether a path lies inside the root, all symbolic links followed.

        Args:
            path: It need not exist.
        """
        return await self._reading.run(self.client.haspath, path)

    async def makepath(self, path: str) -> None:
        """Create a folder and its missing parents; an object store has no folders.

        Args:
            path: The folder's absolute path; it gets the mode of ``HASHFS_DIR_MODE``.

        Raises:
            NotADirectoryError: A file stands in the way.
        """
        await self._workers.run(self.client.makepath, path)

    async def remove_empty(self, subpath: str) -> None:
        """Remove a folder and its parents inside the root, as far up as they are empty.

        Args:
            subpath: The folder's absolute path.
        """
        await self._workers.run(self.client.remove_empty, subpath)

    async def computehash(self, stream: Any) -> str:
        """Return the id that the content of a stream would have.

        Args:
            stream: An iterable of bytes or of str; it is read to its end.
        """
        return await self._workers.run(self.client.computehash, stream)

    async def verify(
        self, *, quarantine: bool = False, force: bool = False
    ) -> AsyncGenerator[HashAddress, None]:
        """Hash every content again, and yield what is damaged (``async for``).

        Args:
            quarantine: Whether to move damaged files aside, so that the next put heals them.
            force: Whether to move files even though none of the first 20 is whole.

        Yields:
            The address of each file whose bytes differ from its id, as its path claims it.

        Raises:
            ConfigError: None of the first 20 files is whole, so the settings must be wrong;
                nothing was moved.
        """
        steps = self._iterate(partial(self.client.backend.verify, quarantine, force), _STEPS)
        async with aclosing(steps):
            async for step in steps:
                if isinstance(step, Damaged):
                    yield step.address

    async def prune(
        self,
        keep: Iterable[File] = (),
        *,
        older_than: timedelta = timedelta(hours=24),
        dry_run: bool = False,
        allow_empty: bool = False,
    ) -> list[str]:
        """Delete every content that is neither in use nor young.

        In use is `keep`, which may be asynchronous, together with what the callables registered by
        `references` and `track` name.

        Args:
            keep: Further content in use: anything that `get` takes; None is passed over.
            older_than: The time that must have passed since the last put of a content.
            dry_run: Whether to delete nothing.
            allow_empty: Whether nothing at all may be in use.

        Returns:
            The ids of what was deleted, or would be.

        Raises:
            ValueError: Something in use is not an address, or nothing is in use. Nothing was
                deleted.
        """
        in_use = self.client.backend.in_use()
        await self._add(in_use, keep)
        for function in self._references:
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                await self._add(in_use, function(), function)
            else:
                await self._add(in_use, await self._workers.run(function), function)
        prune = partial(self.client.prune, older_than=older_than, dry_run=dry_run)
        return await self._workers.run(partial(prune, allow_empty=allow_empty), in_use)

    async def diagnose(self) -> list[Finding]:
        """Look at the store and its settings: what works, what does not, and what to do.

        It changes nothing but a probe that it writes and takes away again.

        Returns:
            What was found, the settings first; each finding tells how bad it is.
        """
        return await self._workers.run(doctor.diagnose, self._patient())

    async def healthy(self) -> bool:
        """Tell whether the store works; it is asked at most once a second, and for two at most.

        A folder is written and read, an object store is only asked, by one HEAD.
        """
        return (await self._state["health"].condition_async()).is_served

    async def send_file(
        self,
        file: File,
        *,
        mimetype: str | None = None,
        as_attachment: bool | None = None,
        download_name: str | None = None,
        max_age: int | None = None,
        private: bool = True,
    ) -> Response:
        """Answer the current request with a stored file.

        Args:
            file: What `get` takes.
            mimetype: A type and subtype, which parameters may follow. If None, that of a
                `StoredFile`; for others guessed from the stored name, or from `download_name`.
            as_attachment: Whether the browser downloads rather than shows it; if None, as
                ``HASHFS_INLINE_TYPES`` says for its type.
            download_name: The name it is saved under. If None, that of a `StoredFile`, and
                otherwise its id and extension.
            max_age: Seconds it may be cached. If None: ``HASHFS_MAX_AGE`` where the request's
                path has the file's id or relpath in it; elsewhere caches ask each time, since
                such a URL may mean another file tomorrow.
            private: Whether shared caches must not keep it.

        Returns:
            The response, whose body is read while it is sent.

        Raises:
            NotFound: It is not stored.
            ValueError: `mimetype` is not a type.
        """
        options = SendOptions(mimetype, as_attachment, download_name, max_age, private).of(file)
        return await self._respond(file, options)

    # -- within ----------------------------------------------------------------------------

    @property
    def _workers(self) -> Workers:
        return cast(_State, self._state)["workers"]

    @property
    def _reading(self) -> Workers:
        return cast(_State, self._state)["reading"]

    async def _tell(self, signal: NamedSignal, **what: Any) -> None:
        if signal.receivers:
            app = self._current_app()
            wrap = cast("Callable[..., Any]", app.ensure_async)
            await signal.send_async(app, _sync_wrapper=wrap, extension=self, **what)

    async def _add(
        self, in_use: InUse, items: Any, told_by: Callable[[], object] | None = None
    ) -> None:
        """Add what is in use, waiting for it where it has to be awaited."""
        update = partial(in_use.update, told_by=told_by)
        if inspect.isawaitable(items):
            items = await items
        if not isinstance(items, AsyncIterable):
            await self._workers.run(update, items)
            return
        batch: list[object] = []
        async for item in items:
            batch.append(item)
            if len(batch) == _PATHS_IN_CALL:
                await self._workers.run(update, batch)
                batch = []
        await self._workers.run(update, batch)

    async def _inspect(self, opens: Callable[[], BinaryIO], address: HashAddress) -> None:
        """Have every inspector look at new content; see `inspector`.

        Raises:
            HTTPException: An inspector refuses the content.
        """
        inspecting = cast(_State, self._state)["inspecting"]
        try:
            for function in self._inspectors:
                if inspect.iscoroutinefunction(function):
                    opening: Opening[BinaryReader] = Opening(inspecting, opens)
                    async with opening as file:
                        await function(file, address)
                else:
                    await inspecting.run(look, function, opens, address)
        except HTTPException as error:
            self._log_rejected(error)
            await self._tell(file_rejected, address=address, error=error)
            raise

    def inspect_now(self, app: Quart, opens: Callable[[], BinaryIO], address: HashAddress) -> None:
        """Have every inspector look at new content, for a caller that is in no event loop.

        Args:
            app: The app in whose context the inspectors are called.
            opens: Opens the whole content to read.
            address: The address that it is to have.

        Raises:
            HTTPException: An inspector refuses it.
        """

        async def run() -> None:
            async with app.app_context():
                await self._inspect(opens, address)

        asyncio.run(run())

    async def _iterate(
        self, make: Callable[[], Iterable[T]], at_once: int = _PATHS_IN_CALL
    ) -> AsyncGenerator[T, None]:
        workers, items = self._workers, iter(make())
        try:
            while listed := await workers.run(lambda: list(islice(items, at_once))):
                for item in listed:
                    yield item
        except BaseException:  # left early
            if isinstance(items, Generator):
                await finished(workers.run(items.close))
            raise

    async def _respond(
        self,
        file: File,
        options: SendOptions,
        *,
        is_routed: bool = False,
    ) -> Response:
        """Answer with a stored file, and measure that where OpenTelemetry is installed."""
        state = cast(_State, self._state)
        serving, workers, metrics = self._serving(state), state["reading"], state["metrics"]
        if metrics is None:
            return (await self._send(serving, workers, file, options, is_routed))[0]
        with metrics.serve() as measured:
            response, answer = await self._send(serving, workers, file, options, is_routed)
            measured.answered(answer.plan, answer.source)
            return response

    async def _send(
        self, serving: Serving, workers: Workers, file: File, options: SendOptions, is_routed: bool
    ) -> tuple[Response, Answer]:
        """Answer with a stored file, found, opened and begun in one call of a worker, or none."""
        asked: Request = cast(Any, request)._get_current_object()
        by_path = serving.settings.pathsend and sends_paths(cast(Any, asked.scope))

        def begin() -> tuple[Answer, bytes]:
            content = serving.open(file, asked.method, is_routed=is_routed)
            return begin_answer(serving.answer(content, asked, options), by_path)

        content = serving.open_cached(file, asked.method)
        if content is not None:
            answer = serving.answer(content, asked, options)
            first = b"" if isinstance(answer.file, FileIO) else read_first(answer)
        else:
            answer, first = await workers.run(begin, on_lost_result=close_answer)
        response = make_response(answer, first, by_path, workers)
        if answer.serves_content:
            await self._tell(file_served, address=answer.address, status=answer.plan.status)
        return response, answer

    def _check_app(self, app: object) -> None:
        if isinstance(app, Quart) and not _runs_on_trio(app):
            return
        if isinstance(app, Quart):
            hint = ": it runs on trio, and files are read and stored here by way of asyncio"
        else:
            hint = "; use FlaskHashFS for a Flask app" if isinstance(app, App) else ""
        raise TypeError(f"QuartHashFS needs a Quart app, not {type(app).__name__}{hint}")

    def _install(self, app: Quart, state: StoreState) -> None:
        threads, kept = state["config"].worker_threads, cast(_State, state)
        workers, reading = kept["workers"], kept["reading"] = Workers(threads), Workers(threads)
        if (metrics := state["metrics"]) is not None:
            metrics.waiting = lambda: workers.count_waiting() + reading.count_waiting()
            workers.on_wait = reading.on_wait = metrics.waited
        kept["inspecting"] = Workers(threads)  # a slow inspector holds up no upload
        app.request_class = upload_request_class(app.request_class, workers)
        app.asgi_http_class = connection_class(app.asgi_http_class)

    def _tell_damaged(self, app: Quart, address: HashAddress) -> None:
        async def tell() -> None:
            async with app.app_context():
                await self._tell(file_damaged, address=address)

        if file_damaged.receivers:
            asyncio.run(tell())

    async def _serve(self, file: str) -> Response:
        options = self._routed_options(file, request)
        return await self._respond(file, options, is_routed=True)

    async def _answer_health(self) -> Response:
        answer = health.answer(await self._state["health"].condition_async())
        response = cast(Response, await current_app.make_response(answer))
        if request.method == "HEAD":  # which Quart would send the body to
            length = response.content_length
            response.set_data(b"")
            response.content_length = length
        return response

    async def _uploads(self) -> Response:
        return await self._respond_to_upload(None)

    async def _upload(self, id: str) -> Response:
        return await self._respond_to_upload(id)

    async def _respond_to_upload(self, id: str | None) -> Response:
        from . import resumable

        incoming = resumable.incoming(self._upload_location(), id)
        return await resumable.respond(
            self._upload_flow, incoming, self._workers, self._tell_stored, self._inspect
        )

    async def _tell_stored(self, address: HashAddress) -> None:
        await self._tell(file_stored, address=address)

    def _add_upload_headers(self, app: Quart, settings: StoreConfig) -> None:
        from .._app.resumable import added_headers
        from . import resumable  # noqa: F401 (now: a request could lack the descriptors for it)

        @app.after_request
        async def add_upload_headers(response: Any) -> Any:
            # The objects themselves, as every response of the app comes by here.
            asked, kept = (cast(Any, each)._get_current_object() for each in (request, g))
            self._head_upload(settings, asked, response, added_headers(kept))
            return response

    def _current_app(self) -> Quart:
        app: Quart = cast(Any, current_app)._get_current_object()
        return app

    def _has_app(self) -> bool:
        return has_app_context()

    def _host_url(self) -> str:
        if has_websocket_context():
            return websocket.host_url.replace("ws", "http", 1)
        if not has_request_context() and (host := current_app.config["SERVER_NAME"]):
            scheme = "https" if current_app.config["PREFER_SECURE_URLS"] else "http"
            return f"{scheme}://{host}/"
        return request.host_url

    def _mount(self) -> str:
        if has_websocket_context():
            return websocket.root_path
        if has_request_context():
            return request.root_path
        return cast(str, current_app.config["APPLICATION_ROOT"])


def _write(writer: Writer, batch: Batch) -> None:
    for block in batch.blocks():
        writer.write(block)


def _take(step: Put, file: Any) -> HashAddress | None:
    """Take what can be read here, and go on as `_finish`."""
    step.take(file)
    return None if step.must_be_inspected() else _publish(step)


async def _receive(step: Put, workers: Workers, source: Any) -> HashAddress | None:
    """Take and check what has to be awaited; see `_finish` for what is returned."""
    if isinstance(source, UploadBody):
        with source.taking():
            await source.check_unread()
            return await _receive_batches(step, workers, source)
    async with sources.opened(source) as batches:
        return await _receive_batches(step, workers, batches)


async def _receive_batches(
    step: Put, workers: Workers, batches: UploadBody | sources.Gathered
) -> HashAddress | None:
    writer = step.begin()
    writer.count_as_upload()
    gather = batches.gather if isinstance(batches, UploadBody) else None
    while (size := await batches.next_batch(step.awaits_head)) and not batches.ended:
        if step.awaits_head and size <= _INLINE and MEMORY.has_room(_INLINE):
            _write(writer, batches.take())
        else:
            await workers.run(_write, writer, late_argument=batches.take, when_near=gather)
    return await workers.run(partial(_finish, step, writer), late_argument=batches.take)


def _finish(step: Put, writer: Writer, last: Batch) -> HashAddress | None:
    """Do in one call what remains when the last bytes are there.

    Returns:
        The address; None where the content has to be inspected before it gets one.
    """
    _write(writer, last)
    step.check(writer)
    return None if step.must_be_inspected() else _publish(step)


def _publish(step: Put) -> HashAddress:
    with step:
        return step.publish()


def _runs_on_trio(app: Quart) -> bool:
    """Tell whether the app is of the package quart_trio, which need not be installed."""
    return any(kind.__module__.partition(".")[0] == "quart_trio" for kind in type(app).__mro__)
