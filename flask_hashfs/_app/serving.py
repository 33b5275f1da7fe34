"""How a stored file answers a request: found, opened and measured, and its answer planned."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from werkzeug.datastructures import Headers
from werkzeug.exceptions import NotFound
from werkzeug.sansio.request import Request

from .._http import plan as http
from .._http import urls
from .._http.media import check_mimetype, guess_mimetype, is_inline
from .._http.plan import Plan
from .._http.ranges import ByteRange
from .._storage.full import full_is_told
from .._storage.names import File
from .._storage.predecessor import HashAddress
from .._storage.records import Content
from .._storage.stored_file import StoredFile
from .._store.store import HashFS
from .config import StoreConfig

_REDIRECTED_FOR = 3600  # seconds that a signed URL is valid at least


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How a view wants a stored file sent; what it leaves out is as the file route does it.

    Attributes:
        mimetype: The type, with any parameters; guessed from the stored name, or else from
            `download_name`, if None.
        as_attachment: Whether the browser downloads rather than shows it; as
            ``HASHFS_INLINE_TYPES`` says for its type if None.
        download_name: The name it is saved under; its id and extension if None.
        max_age: Seconds it may be cached. If None: ``HASHFS_MAX_AGE`` where the request's path
            names the content, and not at all elsewhere.
        private: Whether shared caches must not keep it.
        until: When the request's URL ends, in seconds since the epoch; no cache and no URL of
            an object store may outlive it.

    Raises:
        ValueError: A `mimetype` that is not a type.
    """

    mimetype: str | None = None
    as_attachment: bool | None = None
    download_name: str | None = None
    max_age: int | None = None
    private: bool = False
    until: int | None = None

    def __post_init__(self) -> None:
        if self.mimetype is not None:
            check_mimetype(self.mimetype)

    def of(self, file: object) -> SendOptions:
        """Return these options with what a `StoredFile` knows where they leave it out."""
        if not isinstance(file, StoredFile):
            return self
        return replace(
            self,
            mimetype=file.content_type if self.mimetype is None else self.mimetype,
            download_name=file.filename if self.download_name is None else self.download_name,
        )

    @property
    def is_default(self) -> bool:
        """Whether the file is to be sent as the file route does it."""
        return replace(self, until=None) == AS_ROUTED

    @property
    def seconds_left(self) -> int | None:
        """For how long the request's URL still works, if it ends."""
        return None if self.until is None else max(0, self.until - math.ceil(time.time()))


AS_ROUTED = SendOptions()
"""As the file route sends a stored file."""


@dataclass(slots=True)
class Answer:
    """How a stored file answers a request: the plan, and the file as long as it is needed."""

    address: HashAddress
    size: int
    file: BinaryIO | None
    plan: Plan
    serves_content: bool
    reads_cached: bool
    path: str | None
    """Of the file, where it lies on this machine."""
    source: str
    """What has it: ``store`` or ``cache``."""

    def close(self) -> None:
        """Close the file; it may be called again."""
        file, self.file = self.file, None
        if file is not None:
            file.close()


@dataclass(frozen=True, slots=True)
class Serving:
    """What decides how the files of a store are served.

    Args:
        client: The store.
        settings: Its configuration.
        app_config: That of the app, for Flask's own ``USE_X_SENDFILE``.
    """

    client: HashFS
    settings: StoreConfig
    app_config: Mapping[str, Any]

    @full_is_told
    def open(self, file: File, method: str, *, is_routed: bool = False) -> Content:
        """Find, open and measure a stored file.

        Args:
            file: What ``get`` takes.
            method: The request's.
            is_routed: Whether only an id, or a stored name's exact path, will do.

        Raises:
            NotFound: It is not stored.
            StoreUnavailableError: The store fails, or the process is out of descriptors.
        """
        if is_routed and not self._may_be_route(file):
            raise NotFound
        content = self.client.backend.open_content(file, self._reads(method))
        if content is None:
            raise NotFound
        if is_routed and not self._is_route(file, content.address):
            content.close()
            raise NotFound
        return content

    def open_cached(self, file: File, method: str) -> Content | None:
        """Open a stored file as `open` does, if that takes no waiting."""
        return self.client.backend.open_cached(file) if self._reads(method) else None

    def answer(
        self, content: Content, request: Request, options: SendOptions = AS_ROUTED
    ) -> Answer:
        """Plan how a stored file answers a request, and close it if it need not be read.

        Args:
            content: From `open`.
            request: The request to answer; its method, headers and path are looked at.
            options: How the view wants it sent.

        Raises:
            NotFound: It has been deleted meanwhile.
        """
        try:
            return self._answer(content, request, options)
        except FileNotFoundError:  # of a bucket, which opens an object only when it is read
            content.close()
            raise NotFound from None
        except BaseException:
            content.close()
            raise

    def _reads(self, method: str) -> bool:
        hands_all_over = self._hands_over and not self.client.backend.is_cached
        return method != "HEAD" and not hands_all_over

    def _may_be_route(self, file: Any) -> bool:
        """Tell whether a path could be one of the route, before anything is looked up."""
        return not os.path.isabs(file) and self.client.backend.id_named(file) is not None

    def _is_route(self, file: object, address: HashAddress) -> bool:
        names = address.id, address.relpath.replace(os.sep, "/")
        return file in names and self.client.backend.layout.id_of(address.relpath) is not None

    @property
    def _hands_over(self) -> bool:
        """Whether the web server in front sends the files, or with a cache those kept in it."""
        if self.settings.accel_redirect is not None:
            return True
        backend = self.client.backend
        lies_here = backend.is_local or backend.is_cached
        return bool(self.app_config.get("USE_X_SENDFILE")) and lies_here

    def _answer(self, content: Content, request: Request, options: SendOptions) -> Answer:
        address, file, headers = content.address, content.file, request.headers
        lies_here = content.path is not None or not self.client.backend.is_cached
        hands_over = self._hands_over and lies_here
        if hands_over:
            headers = _without_range(headers)
        representation = self._represent(content, request.path, options)
        plan = http.plan(request.method, headers, representation)
        answer = Answer(
            address,
            content.size,
            file,
            plan,
            bool(plan.body),
            content.reads_cached,
            content.path,
            "cache" if content.path is not None and self.client.backend.is_cached else "store",
        )
        location = self._redirection(plan, representation, address, options)
        if hands_over and plan.body:
            answer.plan = _handed_over(plan, self._server_header(content))
        elif location is not None:
            answer.plan = location
        elif file is not None:
            parts = [part for part in plan.body if isinstance(part, ByteRange)]
            content.will_read((part.start, part.stop) for part in parts)
        if not answer.plan.body:
            answer.close()
        return answer

    def _server_header(self, content: Content) -> tuple[str, str]:
        """Return the header by which the web server in front is told to send the file itself."""
        internal = self.settings.accel_redirect
        if internal is None:
            return "X-Sendfile", content.path or content.address.abspath
        path = urls.quote_path(content.address.relpath.replace(os.sep, "/"))
        return "X-Accel-Redirect", urls.join(internal, path)

    def _redirection(
        self,
        plan: Plan,
        representation: http.Representation,
        address: HashAddress,
        options: SendOptions,
    ) -> Plan | None:
        """Return the plan that sends the client to the object store, where that is allowed.

        Only for the file as the object store itself would describe it, and never for a
        private one: whoever has the URL can read it.
        """
        settings = self.settings
        if (
            not settings.serve_redirect
            or plan.status not in (200, 206)
            or not options.is_default
            or not (lasts := _redirected_for(options.seconds_left))
        ):
            return None
        signed = self.client.backend.signed_url(address, lasts)
        if signed is None:
            return None
        url, seconds = signed
        age = representation.max_age
        caching = "no-cache" if age is None else f"max-age={min(seconds, age)}"
        return Plan(
            302, [("Location", url), ("Cache-Control", caching), ("Content-Length", "0")], ()
        )

    def _represent(self, content: Content, path: str, options: SendOptions) -> http.Representation:
        """Return what the HTTP plan has to know of a stored file.

        Args:
            content: The stored file.
            path: The request's, decoded.
            options: How the view wants it sent.
        """
        address = content.address
        name = address.id + self.client.backend.layout.suffix_of(address.relpath, address.id)
        mimetype, download_name = options.mimetype, options.download_name
        if mimetype is None:
            mimetype = guess_mimetype(name)
            if download_name is not None and mimetype == "application/octet-stream":
                mimetype = guess_mimetype(download_name)
        inline = not options.as_attachment
        if options.as_attachment is None:
            inline = is_inline(mimetype, self.settings.inline_types)
        # A path that does not name the content may mean another file tomorrow.
        immutable = urls.names_content(path, address.id, address.relpath.replace(os.sep, "/"))
        max_age = options.max_age
        if max_age is None and immutable:
            max_age = self.settings.max_age
        left = options.seconds_left
        if left is not None:
            immutable = False
            max_age = None if max_age is None else min(max_age, left)
        return http.Representation(
            id=address.id,
            size=content.size,
            algorithm=self.client.algorithm,
            mimetype=mimetype,
            filename=download_name or name,
            inline=inline,
            max_age=max_age,
            immutable=immutable,
            private=options.private,
        )


def _redirected_for(left: int | None) -> int:
    """Return how many seconds a signed URL is to be valid at least, and half of that at most.

    Args:
        left: For how many seconds the request's own URL still works, if it ends.

    Returns:
        Nothing where that is too short. Few different values, so that URLs are kept.
    """
    if left is None or left >= 2 * _REDIRECTED_FOR:
        return _REDIRECTED_FOR
    return 1 << ((left // 2).bit_length() - 1) if left >= 2 else 0


def _without_range(headers: Headers) -> Headers:
    """Return a request's headers without Range, which the server in front will answer."""
    headers = Headers(list(headers))
    headers.remove("Range")
    return headers


def _handed_over(plan: Plan, server_header: tuple[str, str]) -> Plan:
    # The server in front knows best how long the file is, and says itself that it takes ranges.
    own = {"Accept-Ranges", "Content-Length"}
    headers = [header for header in plan.headers if header[0] not in own]
    return Plan(plan.status, [*headers, server_header], ())
