"""What the Flask and the Quart extension share: init_app, state and URLs."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Generic, TypeVar, cast
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.sansio.request import Request
from werkzeug.sansio.response import Response

from .._http import digests, urls
from .._http.cors import cors
from .._storage import messages
from .._storage.names import File, names_of
from .._storage.pending import UploadLimits, is_id
from .._storage.predecessor import HashAddress
from .._storage.stored_file import StoredFile
from .._storage.writer import Writer
from .._store import types
from .._store.checks import EVERYTHING, Accepted, accepted, watch
from .._store.opening import open_store
from .._store.store import HashFS
from ..exceptions import ConfigError
from . import commands, config, signed_urls, upload_stats
from . import state as app_state
from .config import StoreConfig
from .health import Health
from .inspection import Inspection
from .serving import AS_ROUTED, SendOptions, Serving
from .state import StoreState
from .upload import Upload
from .upload_stats import UploadStats

if TYPE_CHECKING:
    from flask.sansio.app import App

    from .._http.resumable import HeaderList
    from ..sqlalchemy import Tracked
    from .doctor import Patient
    from .metrics import Metrics
    from .resumable import UploadFlow

AppT = TypeVar("AppT", bound="App")
CallableT = TypeVar("CallableT", bound=Callable[..., Any])
SelfT = TypeVar("SelfT", bound="BaseHashFS[Any]")

_OFFERED = frozenset({*dir(HashFS), "max_size"})


class BaseHashFS(Generic[AppT]):
    """Everything of an extension that touches neither a request nor a response.

    Args:
        app: Initialised at once if given.
        name: Of a store beside the app's default one; it reads ``HASHFS_<NAME>_*``.

    Raises:
        ValueError: A name that cannot be part of a configuration key.
    """

    _framework: ClassVar[str]

    app: AppT | None = None
    name: str | None = None
    _references: tuple[Callable[[], Any], ...] = ()
    tracked: tuple[Tracked, ...] = ()
    """What `track` has registered."""

    _before_upload: tuple[Callable[[Upload], Any], ...] = ()
    _after_upload: tuple[Callable[[Upload], Any], ...] = ()
    _inspectors: tuple[Callable[..., Any], ...] = ()

    def __init__(self, app: AppT | None = None, *, name: str | None = None) -> None:
        config.key_prefix(name)
        self.name = name
        if app is not None:
            self.init_app(app)
            self.app = app

    def init_app(self, app: AppT) -> None:
        """Set up the store of an app from its configuration.

        Args:
            app: The app; its ``HASHFS_*`` keys are read now, and their defaults filled in.

        Raises:
            TypeError: The app is of the other framework, or none.
            ConfigError: A value that cannot be used.
            RuntimeError: The app has a store of this name already.
        """
        self._check_app(app)
        if self._key in app.extensions:
            store = f"a store named {self.name!r}" if self.name else "a default store"
            raise RuntimeError(
                f"This app already has {store}; give each further one "
                f'a name of its own: {type(self).__name__}(app, name="avatars")'
            )
        settings = config.load(app.config, self.name)
        self._check_cache(app, settings)
        client = _make_client(settings, config.key_prefix(self.name))
        if settings.accept is not None:
            client.accept = settings.accept
            types.detector()  # now, and not on the event loop when a form arrives
        client.inspection = Inspection(self, app)
        client.backend.on_damaged = partial(self._tell_damaged, app)
        backend = client.backend
        health = Health(self._key, backend.probe, lambda: backend.serves_alone)
        state = StoreState(
            client=client,
            config=settings,
            extension=self,
            health=health,
            metrics=_load_metrics(self.name, self._framework),
        )
        if backend.is_cached and state["metrics"] is not None:
            state["metrics"].cache = backend.cache_stats
        if self.name is None or not app_state.states(app):
            upload_stats.configure(settings)
        app.extensions[self._key] = state
        self._install(app, state)
        if commands.NAME not in app.cli.commands:
            app.cli.add_command(commands.Later(commands.NAME))
        app.add_template_global(self.url_for, f"{self._key}_url_for")
        if settings.serve_files:
            app.add_url_rule(
                settings.path_prefix.rstrip("/") + "/<path:file>",
                endpoint=f"{self._key}.file",
                view_func=self._serve,
                methods=["GET"],
            )
        if settings.health_path is not None:
            app.add_url_rule(
                settings.health_path,
                endpoint=f"{self._key}.health",
                view_func=self._answer_health,
                methods=["GET"],
            )
        if settings.uploads_path is not None:
            self._add_upload_routes(app, settings.uploads_path, settings, client)

    def _check_cache(self, app: AppT, settings: StoreConfig) -> None:
        """Refuse a folder of the cache that another store of the app has.

        Raises:
            ConfigError: Another one has it, or one of them lies in the other.
        """
        if settings.cache_folder is None:
            return
        for name, state in app_state.states(app).items():
            other = state["config"].cache_folder
            if other is not None and config.overlap(settings.cache_folder, other):
                raise ConfigError(
                    f"{config.key_prefix(self.name)}CACHE_FOLDER is {settings.cache_folder!r}, "
                    f"but {config.key_prefix(name)}CACHE_FOLDER is {other!r}: "
                    "each store needs a folder of its own"
                )

    def _add_upload_routes(
        self, app: AppT, path: str, settings: StoreConfig, client: HashFS
    ) -> None:
        """Register the routes of resumable uploads; what carries them out is imported only here."""
        client.backend.pending.limits = UploadLimits(
            settings.uploads_expire, settings.uploads_max, settings.uploads_bytes
        )
        for rule, endpoint, view, methods in (
            (path, "uploads", self._uploads, ["POST"]),
            (f"{path}/<id>", "upload", self._upload, ["GET", "PATCH", "DELETE", "POST"]),
        ):
            app.add_url_rule(
                rule,
                endpoint=f"{self._key}.{endpoint}",
                view_func=view,
                methods=["OPTIONS", *methods],
                provide_automatic_options=False,
            )
        self._add_upload_headers(app, settings)

    @property
    def config(self) -> Any:
        """The current app's configuration."""
        return self._current_app().config

    @property
    def client(self) -> HashFS:
        """The current app's store."""
        return self._state["client"]

    def url_for(
        self,
        file: File,
        external: bool = True,
        *,
        expires: timedelta | int | None = None,
        download_name: str | None = None,
        as_attachment: bool | None = None,
    ) -> str:
        """Return the URL of a stored file; whether it exists is not checked.

        Args:
            file: A path relative to the root, an id where this app serves the files, an
                address or a `StoredFile`.
            external: Whether to begin with ``HASHFS_HOST`` or the request's host.
            expires: For how long it works, as a timedelta or in seconds, where
                ``HASHFS_SERVE_FILES`` is ``"signed"``; without it such a URL answers 403.
            download_name: The name that the file is saved under; signed, so with `expires` only.
                That of a `StoredFile` if None.
            as_attachment: Whether the browser downloads it; signed, so with `expires` only.

        Raises:
            ConfigError: ``HASHFS_HOST`` is not a URL.
            RuntimeError: There is no app, or no ``SECRET_KEY`` to sign with, or the host is
                needed and there is no request.
            TypeError: An argument of another type.
            ValueError: `expires` is not more than nothing, or nobody would check it.
            BadRequest: The host is needed, and that of the request is missing or refused.
        """
        app = self._current_app()
        prefix = config.key_prefix(self.name)
        path = names_of(file)[0]
        host = config.host(prefix + "HOST", app.config[prefix + "HOST"])
        path_prefix = app.config[prefix + "PATH_PREFIX"]
        settings = self._state["config"]
        parts = [path_prefix, urls.quote_path(path.replace(os.sep, "/"))]
        if settings.serve_files:
            parts[0] = settings.path_prefix
            if not host:
                parts.insert(0, urls.quote_path(self._mount()))
        parts.insert(0, "/")
        if external:
            parts.insert(0, host or self._request_root(prefix))
        url = urls.join(*parts)
        if external and host and host.startswith("//"):
            url = f"/{url}"
        if expires is None:
            if download_name is not None or as_attachment is not None:
                raise ValueError("download_name and as_attachment are signed: give expires, too")
            return url
        if settings.serve_files != "signed":
            raise ValueError(
                f'nobody would check expires: {prefix}SERVE_FILES is not "signed" but '
                f"{settings.serve_files!r}"
            )
        if download_name is None and isinstance(file, StoredFile):
            download_name = file.filename
        path = path.replace(os.sep, "/").lstrip("/")
        wishes = expires, download_name, as_attachment
        return f"{url}?token={signed_urls.new_token(app.config, self.name, path, *wishes)}"

    def _request_root(self, prefix: str) -> str:
        """Return the root URL of the current request's host."""
        try:
            root = self._host_url()
        except RuntimeError as error:  # the framework's, which knows none of these ways out
            raise RuntimeError(
                "url_for knows no host outside a request: "
                f"set {prefix}HOST or SERVER_NAME, or pass external=False"
            ) from error
        if not urlsplit(root).netloc:
            raise BadRequest("The request's Host is missing or invalid.")
        return root

    def expected_digest(
        self, headers: Headers | Mapping[str, str], *, required: bool = False
    ) -> str | None:
        """Return the id that a request's headers promise for its body, to `put` it as expected.

        ::

            fs.put(request.stream, expected=fs.expected_digest(request.headers))

        ``Repr-Digest`` and ``Content-Digest`` (RFC 9530) are looked at. Digests by algorithms
        other than the store's are passed over, and so is the old ``Digest`` field.

        Args:
            headers: The request's.
            required: Whether a request must promise something that can be checked.

        Returns:
            The id in hex, or None where there is none to check.

        Raises:
            BadRequest: A field cannot be parsed, or what it has for the store's algorithm is not
                a digest; with `required` also where there is none.
            ValueError: A digest is required, but RFC 9530 does not name the store's algorithm.
        """
        return digests.expected(Headers(headers), self.client.algorithm, required=required)

    def references(self, function: CallableT) -> CallableT:
        """Register a callable that tells what is in use, for every later `prune`.

        Args:
            function: Called without arguments, within the app's context; it returns or yields
                ids, paths or addresses. Under Quart it may be a coroutine function or an
                asynchronous generator.

        Returns:
            The callable itself, so that this is a decorator.

        Raises:
            TypeError: It cannot be called.
        """
        if not callable(function):
            raise TypeError(f"references takes a callable, not {function!r}")
        self._references = (*self._references, function)
        return function

    def track(self, *what: Any, bind: Any) -> None:
        """Ask a database what is in use, at every later `prune`.

        Needs the extra ``sqlalchemy``. All columns are read by one statement for each
        database, so as of one moment; NULL refers to nothing.

        Args:
            what: Declarative bases (all columns of the type ``StoredFileType`` in all of their
                tables, when `prune` asks), registries, mapped classes, or single columns
                (a plain string column may hold ids, relative or absolute paths).
            bind: An engine, a session or a session maker, sync or (with Quart) async, or a
                callable that returns one. It is called in the app's context, when needed.

        Raises:
            ConfigError: SQLAlchemy is not installed.
            TypeError: `what` is nothing that has columns.
            ValueError: A mapped class has no column of the type ``StoredFileType``.

        Example:
            ``fs.track(db.Model, bind=lambda: db.engine)``
        """
        try:
            from ..sqlalchemy import Tracked
        except ImportError as error:
            raise ConfigError(
                f"track needs SQLAlchemy: pip install 'Flask-HashFS[sqlalchemy]' ({error})"
            ) from error
        tracked = Tracked(what, bind)
        self.tracked = (*self.tracked, tracked)
        self.references(tracked)

    def before_upload(self, function: CallableT) -> CallableT:
        """Register a callable that is asked before each request to a resumable upload.

        Args:
            function: Called with the `Upload`, within the request. It may abort, and in the
                action ``create`` set what is kept. Under Quart it may be a coroutine function.

        Returns:
            The callable itself, so that this is a decorator.

        Raises:
            TypeError: It cannot be called.
        """
        self._before_upload = (*self._before_upload, _callable("before_upload", function))
        return function

    def after_upload(self, function: CallableT) -> CallableT:
        """Register a callable that is told when the content of a resumable upload is stored.

        Args:
            function: Called with the `Upload`, within the request that brought the last byte.
                What it returns is the final answer, as if a view returned it, to a client that
                speaks the IETF draft; tus has no content in its answers. It may be called
                again for the same upload after a crash, or after an error of its own. Under
                Quart it may be a coroutine function.

        Returns:
            The callable itself, so that this is a decorator.

        Raises:
            TypeError: It cannot be called.
        """
        self._after_upload = (*self._after_upload, _callable("after_upload", function))
        return function

    def inspector(self, function: CallableT) -> CallableT:
        """Register a callable that looks at new content before it is stored.

        Several are called in the order of their registration, each with the whole content,
        readable from its start, and the `HashAddress` that it is to have. What raises
        `RejectedError`, or any other ``HTTPException``, refuses the content.

        Args:
            function: Called within the app's context, once for each new content. Under Quart a
                plain function is called in a worker thread of its own; a coroutine function is
                awaited, and so are the methods of the file that it is given.

        Returns:
            The callable itself, so that this is a decorator.

        Raises:
            TypeError: It cannot be called.
        """
        self._inspectors = (*self._inspectors, _callable("inspector", function))
        return function

    @property
    def has_inspectors(self) -> bool:
        """Whether anybody looks at new content."""
        return bool(self._inspectors)

    def _log_rejected(self, error: HTTPException) -> None:
        """Log that an inspector refused content, in the words that it found."""
        messages.REJECTED.log(self.client, store=self._key, error=error.description or error.name)

    def _patient(self) -> Patient:
        """Return what a diagnosis looks at."""
        from .doctor import Patient

        state = self._state
        return Patient(
            self.name,
            state["client"],
            state["config"],
            self._current_app().config,
            has_references=bool(self._references),
            has_before_upload=bool(self._before_upload),
        )

    def upload_stats(self) -> UploadStats:
        """Return what the uploads of this process are about, now; it needs no app, and no waiting.

        Example:
            ``fs.upload_stats().buffered``
        """
        return upload_stats.current()

    @property
    def has_references(self) -> bool:
        """Whether any callable tells what is in use."""
        return bool(self._references)

    if TYPE_CHECKING:  # what __getattr__ below offers; any other name is a mistake to a checker
        root: str
        depth: int
        width: int
        algorithm: str
        fmode: int | None
        dmode: int
        fsync: bool
        max_size: int | None
    else:

        def __getattr__(self, name: str) -> Any:
            """Return a public attribute of the current app's store."""
            inner = name.startswith("_") or name == "backend"
            if inner or not (self._has_app() or name in _OFFERED):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self.client, name)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name}  # apps cannot be pickled, and need not be

    def __copy__(self: SelfT) -> SelfT:
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __deepcopy__(self: SelfT, memo: dict[int, Any]) -> SelfT:
        return copy.copy(self)

    @cached_property
    def _key(self) -> str:
        return app_state.key(self.name)

    @property
    def _state(self) -> StoreState:
        try:
            state: StoreState = self._current_app().extensions[self._key]
            return state
        except KeyError:
            raise RuntimeError(
                f"This app has no such store: call {type(self).__name__}.init_app(app) first"
            ) from None

    def _serving(self, state: StoreState) -> Serving:
        return Serving(state["client"], state["config"], self._current_app().config)

    def _routed_options(self, file: str, request: Request) -> SendOptions:
        """Return how the file route answers a request, from its token where it needs one.

        Raises:
            Forbidden: The request has no valid token.
        """
        if self._state["config"].serve_files != "signed":
            return AS_ROUTED
        grant = signed_urls.check(self._current_app().config, self.name, file, request)
        return SendOptions(
            as_attachment=grant.as_attachment,
            download_name=grant.download_name,
            until=grant.expires,
        )

    # -- resumable uploads -----------------------------------------------------------------

    @property
    def _upload_flow(self) -> UploadFlow:
        from .resumable import UploadFlow

        measured = self._state["metrics"]
        return UploadFlow(
            self.client,
            self._before_upload,
            self._after_upload,
            self._content_location,
            nullcontext() if measured is None else measured.resumable,
        )

    def _upload_location(self) -> str:
        """Return the path, with the mount, at which uploads are created."""
        path = urls.quote_path(self._state["config"].uploads_path or "")
        return urls.quote_path(self._mount()).rstrip("/") + path

    def _content_location(self, address: HashAddress) -> tuple[str | None, str | None]:
        """Return the URL of stored content, and its digest, where anyone may fetch it."""
        settings = self._state["config"]
        prefix = config.key_prefix(self.name)
        host = config.host(prefix + "HOST", self._current_app().config[prefix + "HOST"])
        if settings.serve_files == "signed" or not (settings.serve_files or host):
            return None, None
        from .._http.resumable_fields import write_digest

        digest = write_digest(self.client.algorithm, address.id)
        return self.url_for(address, external=bool(host)), digest

    def _head_upload(
        self, settings: StoreConfig, request: Request, response: Response, added: HeaderList
    ) -> None:
        """Give a response at the routes of uploads its headers, that of an error too.

        Args:
            settings: Of the store.
            request: The current one; `Request` of Flask and of Quart both have what is asked here.
            response: To it, whoever made it.
            added: What the flow of the request has added.
        """
        fields: list[tuple[str, str]] = []
        endpoint = cast(Any, request).endpoint
        if self._is_upload_route(settings.uploads_path or "", endpoint, request.path):
            from .._http.resumable import VERSION

            headers = request.headers
            if "Tus-Resumable" in headers:
                fields.append(("Tus-Resumable", VERSION))
            fields += cors(request.method, headers, settings.uploads_origins)
        for name, value in (*fields, *added):
            if name == "Vary":
                response.vary.add(value)
            else:
                response.headers[name] = value

    def _is_upload_route(self, root: str, endpoint: str | None, path: str) -> bool:
        """Tell whether a request is one to this store's uploads; other routes may lie below."""
        if endpoint is not None:
            return endpoint in (f"{self._key}.uploads", f"{self._key}.upload")
        folder, _, id = path.rpartition("/")  # no route takes it, as with an unknown method
        return path == root or (folder == root and is_id(id))

    # -- what a framework gives ------------------------------------------------------------

    def _check_app(self, app: object) -> None:
        raise NotImplementedError

    def _install(self, app: AppT, state: StoreState) -> None:
        """Install the request class that takes uploads, once for each app."""
        raise NotImplementedError

    def inspect_now(self, app: AppT, opens: Callable[[], BinaryIO], address: HashAddress) -> None:
        """Have every inspector look at new content of the store of `app`, here and now.

        Raises:
            HTTPException: An inspector refuses the content.
        """
        raise NotImplementedError

    def _tell_damaged(self, app: AppT, address: HashAddress) -> None:
        """Send `file_damaged`, from a thread that is in no app's context."""
        raise NotImplementedError

    def _serve(self, file: str) -> Any:
        """Answer a request of the file route."""
        raise NotImplementedError

    def _answer_health(self) -> Any:
        """Answer a request of the health path."""
        raise NotImplementedError

    def _uploads(self) -> Any:
        """Answer a request that creates a resumable upload."""
        raise NotImplementedError

    def _upload(self, id: str) -> Any:
        """Answer a request to a resumable upload."""
        raise NotImplementedError

    def _add_upload_headers(self, app: AppT, settings: StoreConfig) -> None:
        """Let each response at the routes of uploads get its headers by `_head_upload`."""
        raise NotImplementedError

    def _current_app(self) -> AppT:
        raise NotImplementedError

    def _has_app(self) -> bool:
        raise NotImplementedError

    def _host_url(self) -> str:
        """Return the http(s) root URL of the current request, without its mount."""
        raise NotImplementedError

    def _mount(self) -> str:
        """Return the path that the app is mounted at."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class UploadWriters:
    """What makes the writers for the files of a form.

    They go to the first store of the app that takes them. Each may be as large as the largest of
    the app's stores allows, and of a type that any of them accepts: each put checks its own
    store's rules.
    """

    client: HashFS
    max_size: int | None
    accepted: Accepted

    @classmethod
    def of(cls, app: App) -> UploadWriters | None:
        """Return those of `app`, or None where its forms do not stream."""
        states = app_state.states(app).values()
        streaming = [state["client"] for state in states if state["config"].stream_uploads]
        if not streaming:
            return None
        clients = [state["client"] for state in states]
        sizes = [each.max_size for each in clients if each.max_size is not None]
        lists = [each.accept for each in clients if each.accept is not None]
        every = len(clients)
        return cls(
            streaming[0],
            max(sizes) if len(sizes) == every else None,
            accepted([mimetype for each in lists for mimetype in each])
            if len(lists) == every
            else EVERYTHING,
        )

    def __call__(self) -> Writer:
        writer = self.client.backend.new_writer(self.max_size)
        writer.count_as_upload()
        return watch(writer, self.accepted)


def _load_metrics(store: str | None, framework: str) -> Metrics | None:
    """Return what counts, where there is the API to count with; nothing of it is imported else."""
    try:
        if find_spec("opentelemetry") is None:
            return None
    except ValueError:  # a stub in its place, such as one of a test, may have no spec
        pass  # importing from it will tell
    from . import metrics

    return metrics.load(store, framework)


def _make_client(config: StoreConfig, prefix: str) -> HashFS:
    try:
        return open_store(
            config.root_folder,
            depth=config.depth,
            width=config.width,
            algorithm=config.algorithm,
            max_size=config.max_file_size,
            fmode=config.file_mode,
            dmode=config.dir_mode,
            fsync=config.fsync,
            options=config.store_options,
            max_age=config.max_age,
            inline_types=config.inline_types,
            cache=config.cache,
        )
    except ValueError as error:
        raise ConfigError(f"{prefix}ROOT_FOLDER is {config.root_folder!r}: {error}") from error


def _callable(what: str, function: Any) -> Any:
    if not callable(function):
        raise TypeError(f"{what} takes a callable, not {function!r}")
    return function
