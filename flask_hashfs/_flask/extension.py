"""FlaskHashFS: the extension for Flask apps."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from io import BufferedReader, TextIOWrapper
from typing import IO, Any, BinaryIO, ParamSpec, TypeVar, cast, overload

from flask import Flask, Response, current_app, g, has_app_context, has_request_context, request
from flask.sansio.app import App
from werkzeug.exceptions import HTTPException

from .._app import health, saving
from .._app.config import StoreConfig
from .._app.extension import BaseHashFS
from .._app.inspection import look
from .._app.serving import Answer, SendOptions, Serving
from .._app.state import StoreState
from .._storage.cache_stats import CacheStats
from .._storage.findings import Finding
from .._storage.names import BinaryMode, Extension, File, TextMode
from .._storage.predecessor import HashAddress
from .._storage.records import Entry, Stats
from .._storage.sources import Source
from .._storage.stored_file import StoredFile
from .._store.putting import Put
from ..signals import file_damaged, file_deleted, file_rejected, file_served, file_stored
from .request import upload_request_class
from .sender import send

P = ParamSpec("P")
T = TypeVar("T")


class FlaskHashFS(BaseHashFS[Flask]):
    """Content-addressed file storage for Flask.

    Every attribute that is not documented here is the one of the app's store, `HashFS`.

    Args:
        app: Initialised at once if given.
        name: Of a store beside the app's default one; it reads ``HASHFS_<NAME>_*``.

    Raises:
        ValueError: A name that cannot be part of a configuration key.
    """

    _framework = "flask"

    def put(
        self,
        file: Source,
        extension: Extension = None,
        *,
        expected: str | None = None,
        max_size: int | None = None,
        accept: str | Iterable[str] | None = None,
    ) -> HashAddress:
        """Store the content of `file` under its hash.

        Args:
            file: A path, bytes, a binary or text file object, an upload (``FileStorage``) or
                an iterable of bytes.
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
            ``address = fs.put(request.files["photo"], ".jpg")``
        """
        state = self._state
        client, metrics = state["client"], state["metrics"]
        if metrics is None:
            address = client.put(
                file, extension, expected=expected, max_size=max_size, accept=accept
            )
        else:
            checks = extension, expected, max_size, accept
            with metrics.put() as measured, Put(client, *checks) as step:
                address = step.run(file)
                measured.stored(address, step.size)
        if file_stored.receivers:
            file_stored.send(_app(), extension=self, address=address)
        return address

    def save(
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
            ``photo = Photo(file=fs.save(request.files["photo"]))``
        """
        saving.check_save(content_type)
        address = self.put(file, extension, expected=expected, max_size=max_size, accept=accept)
        filename = saving.name_of(file, filename)
        return saving.describe(self.client, address, filename, content_type)

    def get(self, file: File) -> HashAddress | None:
        """Return the address of a stored file, or None where it is not stored.

        Args:
            file: A hash id, a path relative to the root, an absolute path inside the root, an
                address or a `StoredFile`.

        Raises:
            TypeError: `file` is anything else.
        """
        return self.client.get(file)

    def type_of(self, file: Any) -> str:
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
        return self.client.type_of(file)

    def exists(self, file: File) -> bool:
        """Tell whether a file is stored.

        Args:
            file: A hash id, a path relative to the root, an absolute path inside the root, an
                address or a `StoredFile`.
        """
        return self.client.exists(file)

    def __contains__(self, file: File) -> bool:
        return self.client.exists(file)

    @overload
    def open(self, file: File, mode: BinaryMode = "rb") -> BufferedReader: ...
    @overload
    def open(self, file: File, mode: TextMode) -> TextIOWrapper: ...
    @overload
    def open(self, file: File, mode: str) -> IO[Any]: ...
    def open(self, file: File, mode: str = "rb") -> IO[Any]:
        """Open a stored file to read.

        Args:
            file: A hash id, a path relative to the root, an absolute path inside the root, an
                address or a `StoredFile`.
            mode: ``"rb"``, or a text mode such as ``"r"``; no mode that writes.

        Returns:
            A binary reader, or a text reader for a text mode.

        Raises:
            NotStoredError: The file is not stored; it is a ``FileNotFoundError`` too.
            ValueError: `mode` writes.

        Example:
            ``with fs.open(address) as file: …``
        """
        return self.client.open(file, mode)

    def delete(self, file: str | os.PathLike[str] | HashAddress) -> None:
        """Delete a stored file; one that is not stored is not an error.

        Args:
            file: What `get` takes. An id deletes the content under all its extensions,
                anything else only the one path.

        Raises:
            TypeError: `file` is a `StoredFile`: another row may mean the same content, so
                `prune` deletes what no row has.
        """
        address = self.client.get(file) if file_deleted.receivers else None
        self.client.delete(file)
        if address is not None:
            file_deleted.send(_app(), extension=self, address=address)

    def files(self) -> Generator[str]:
        """Iterate over the absolute paths of all files."""
        return self.client.files()

    def folders(self) -> Generator[str]:
        """Iterate over the absolute paths of all folders that hold files."""
        return self.client.folders()

    def corrupted(self, extensions: bool = True) -> Generator[tuple[str, HashAddress]]:
        """Iterate over the files that do not lie where their bytes belong.

        Args:
            extensions: Whether an extension belongs to the path; hashfs 0.7.2 needs it.

        Yields:
            The path of each such file, and the address that it should have.
        """
        return self.client.corrupted(extensions)

    def repair(self, extensions: bool = True) -> list[tuple[str, HashAddress]]:
        """Move every file to where its bytes belong.

        Args:
            extensions: Whether files keep their extensions.

        Returns:
            What `corrupted` yields.
        """
        return self.client.repair(extensions)

    def count(self) -> int:
        """Return the number of files."""
        return self.client.count()

    def size(self) -> int:
        """Return the total size in bytes of all files."""
        return self.client.size()

    def entries(self) -> Iterator[Entry]:
        """Iterate over all regular files below the root, with their sizes and dates."""
        return self.client.entries()

    def stats(self) -> Stats:
        """Return the store in numbers: files, contents and bytes."""
        return self.client.stats()

    def cache_stats(self) -> CacheStats:
        """Return the cache of this machine, before the store, in numbers.

        Raises:
            ConfigError: There is none: ``HASHFS_CACHE_FOLDER`` is not set.
        """
        return self.client.cache_stats()

    def put_files(
        self, files: Iterable[tuple[Any, str | None]]
    ) -> Iterator[tuple[Any, HashAddress | Exception]]:
        """Store many files: each as durable as by a `put`, but for few waits for the disk.

        Args:
            files: Sources, as `put` takes them, with their extensions.

        Yields:
            Each source with its address, or with the error that kept it out.
        """
        return self.client.put_files(files)

    def verify(self, *, quarantine: bool = False, force: bool = False) -> Generator[HashAddress]:
        """Hash every content again, and yield what is damaged.

        Args:
            quarantine: Whether to move damaged files aside, so that the next put heals them.
            force: Whether to move files even though none of the first 20 is whole.

        Yields:
            The address of each file whose bytes differ from its id, as its path claims it.

        Raises:
            ConfigError: None of the first 20 files is whole, so the settings must be wrong;
                nothing was moved.
        """
        return self.client.verify(quarantine=quarantine, force=force)

    def prune(
        self,
        keep: Iterable[File] = (),
        *,
        older_than: timedelta = timedelta(hours=24),
        dry_run: bool = False,
        allow_empty: bool = False,
    ) -> list[str]:
        """Delete every content that is neither in use nor young.

        In use is `keep` together with what the callables registered by
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
        in_use.update(keep)
        for function in self._references:
            in_use.update(function(), told_by=function)
        return self.client.prune(
            in_use, older_than=older_than, dry_run=dry_run, allow_empty=allow_empty
        )

    def diagnose(self) -> list[Finding]:
        """Look at the store and its settings: what works, what does not, and what to do.

        It changes nothing but a probe that it writes and takes away again.

        Returns:
            What was found, the settings first; each finding tells how bad it is.
        """
        from .._app import doctor

        return doctor.diagnose(self._patient())

    def healthy(self) -> bool:
        """Tell whether the store works; it is asked at most once a second, and for two at most.

        A folder is written and read, an object store is only asked, by one HEAD.
        """
        return self._state["health"].condition().is_served

    def send_file(
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
        return self._respond(file, options)

    def _respond(self, file: File, options: SendOptions, *, is_routed: bool = False) -> Response:
        state = self._state
        serving, metrics = self._serving(state), state["metrics"]
        if metrics is None:
            return self._send(serving, file, options, is_routed)[0]
        with metrics.serve() as measured:
            response, answer = self._send(serving, file, options, is_routed)
            measured.answered(answer.plan, answer.source)
            return response

    def _send(
        self, serving: Serving, file: File, options: SendOptions, is_routed: bool
    ) -> tuple[Response, Answer]:
        content = serving.open(file, request.method, is_routed=is_routed)
        answer = serving.answer(content, request, options)
        reopen = partial(serving.client.open, answer.address) if request.method == "HEAD" else None
        try:
            response = send(answer.plan, answer.file, answer.size, reopen)
        except BaseException:
            answer.close()
            raise
        if answer.serves_content and file_served.receivers:
            address, status = answer.address, answer.plan.status
            file_served.send(_app(), extension=self, address=address, status=status)
        return response, answer

    def _check_app(self, app: object) -> None:
        if isinstance(app, Flask):
            return
        hint = "; use QuartHashFS for a Quart app" if isinstance(app, App) else ""
        raise TypeError(f"FlaskHashFS needs a Flask app, not {type(app).__name__}{hint}")

    def _install(self, app: Flask, state: StoreState) -> None:
        app.request_class = upload_request_class(app.request_class)

    def inspect_now(self, app: Flask, opens: Callable[[], BinaryIO], address: HashAddress) -> None:
        """Have every inspector look at new content; see `inspector`.

        Args:
            app: The app in whose context the inspectors are called.
            opens: Opens the whole content to read.
            address: The address that it is to have.

        Raises:
            HTTPException: An inspector refuses it.
        """
        is_current = has_app_context() and _app() is app
        with nullcontext() if is_current else app.app_context():
            try:
                for function in self._inspectors:
                    look(function, opens, address)
            except HTTPException as error:
                self._log_rejected(error)
                file_rejected.send(app, extension=self, address=address, error=error)
                raise

    def _tell_damaged(self, app: Flask, address: HashAddress) -> None:
        if file_damaged.receivers:
            with app.app_context():
                file_damaged.send(app, extension=self, address=address)

    def _serve(self, file: str) -> Response:
        options = self._routed_options(file, request)
        return self._respond(file, options, is_routed=True)

    def _answer_health(self) -> health.Answer:
        return health.answer(self._state["health"].condition())

    def _uploads(self) -> Response:
        return self._respond_to_upload(None)

    def _upload(self, id: str) -> Response:
        return self._respond_to_upload(id)

    def _respond_to_upload(self, id: str | None) -> Response:
        from . import resumable

        incoming = resumable.incoming(self._upload_location(), id)
        inspect = partial(self.inspect_now, _app())
        return resumable.respond(self._upload_flow, incoming, self._tell_stored, inspect)

    def _tell_stored(self, address: HashAddress) -> None:
        if file_stored.receivers:
            file_stored.send(_app(), extension=self, address=address)

    def _add_upload_headers(self, app: Flask, settings: StoreConfig) -> None:
        from .._app.resumable import added_headers
        from . import resumable  # noqa: F401 (now: a request could lack the descriptors for it)

        @app.after_request
        def add_upload_headers(response: Response) -> Response:
            current = cast(Any, request)._get_current_object()
            self._head_upload(settings, current, response, added_headers(g))
            return response

    def _current_app(self) -> Flask:
        return current_app

    def _has_app(self) -> bool:
        return has_app_context()

    def _host_url(self) -> str:
        if not has_request_context() and (host := current_app.config["SERVER_NAME"]):
            return f"{current_app.config['PREFERRED_URL_SCHEME']}://{host}/"
        return request.host_url

    def _mount(self) -> str:
        if has_request_context():
            return request.root_path
        return cast(str, current_app.config["APPLICATION_ROOT"])


def _app() -> Flask:
    app: Flask = cast(Any, current_app)._get_current_object()
    return app
