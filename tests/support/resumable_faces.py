"""Apps with resumable uploads behind one face: Flask and Quart in this process, by their clients.

::

    face = FlaskFace(tmp_path, HASHFS_MAX_FILE_SIZE=100)
    face.send("POST", "/uploads", {**TUS, "Upload-Length": "7"}).status
"""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from guards import LoopGuard
from object_stores import objects_of, uploads_elsewhere

from flask_hashfs import HashFS
from flask_hashfs._bucket import pending as bucket_pending
from flask_hashfs._local import pending as local_pending
from flask_hashfs._local.pending import LocalUploads
from flask_hashfs._storage.pending import PendingUploads

NOTHING_BLOCKS = LoopGuard()
TUS_TYPE = "application/offset+octet-stream"
DRAFT_TYPE = "application/partial-upload"
TUS = {"Tus-Resumable": "1.0.0"}
TUS_CONTENT = {**TUS, "Content-Type": TUS_TYPE}
DRAFT_CONTENT = {"Content-Type": DRAFT_TYPE}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def get(self, name: str) -> str | None:
        return self.headers.get(name.lower())


def answer_of(response: Any, body: bytes) -> Answer:
    """Return what a client of Flask or Quart has received."""
    headers = {name.lower(): value for name, value in response.headers}
    return Answer(response.status_code, headers, body)


class Face:
    """An app and its client."""

    app: Any
    fs: Any
    mount = ""
    """Where the app is mounted; paths are sent, and asked for, without it."""

    def __init__(self, root: Path, **config: Any) -> None:
        self.root = root
        self.app, self.fs = self._make(
            {
                "HASHFS_ROOT_FOLDER": str(root),
                "HASHFS_FSYNC": False,
                "HASHFS_UPLOADS_PATH": "/uploads",
                "HASHFS_SERVE_FILES": True,
                "HASHFS_PATH_PREFIX": "/files",
                **config,
            }
        )

    def _make(self, config: Mapping[str, Any]) -> tuple[Any, Any]:
        raise NotImplementedError

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] = {},
        body: bytes | Iterable[bytes] = b"",
    ) -> Answer:
        """Send a request; a body that is no bytes is chunked."""
        raise NotImplementedError

    def send_with_break(
        self,
        location: str,
        headers: Mapping[str, str],
        pieces: tuple[bytes, bytes | None],
        between: Callable[[], None],
    ) -> Answer:
        """Append a body of known length, and call `between` when the first piece was taken.

        Args:
            location: Of the upload.
            headers: Of the request.
            pieces: Of its body. The second is None where the body breaks off after the first.
            between: Called in whichever thread may block, while the request waits for more.
        """
        raise NotImplementedError

    def elsewhere(self) -> PendingUploads:
        """Return the uploads as another process has them, which shares no memory with this one."""
        link = self.root.with_name("elsewhere")  # by its path this process knows an upload
        if not link.exists():
            link.symlink_to(self.root)
        known = cast(LocalUploads, self.client.backend.pending)
        home = copy.copy(known.home)
        home.root = str(link)
        return LocalUploads(home, known.temporary)

    def has_taken_content(self, location: str) -> bool:
        """Tell whether a request of this process is at work on the upload, and has taken bytes."""
        modules, id = (local_pending, bucket_pending), location.rpartition("/")[2]
        # Threads change them meanwhile; only a list of the references is made at once.
        known = [ref() for module in modules for ref in module._taken.valuerefs()]
        return any(each is not None and each.id == id and each.offset > 0 for each in known)

    # -- what many tests do ------------------------------------------------------------------------

    def create(self, length: int | None = None, **headers: str) -> str:
        """Create an upload by tus, and return where it is."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        size = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        answer = self.send("POST", "/uploads", {**TUS, **size, **given})
        assert answer.status == 201, answer
        return answer.headers["location"]

    def tus(self, location: str, offset: int, body: Any, **headers: str) -> Answer:
        """Append by tus."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send(
            "PATCH", location, {**TUS_CONTENT, "Upload-Offset": str(offset), **given}, body
        )

    def draft(
        self, location: str, offset: int, body: Any, complete: str = "?0", **headers: str
    ) -> Answer:
        """Append by the draft."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        fields = {"Upload-Offset": str(offset), "Upload-Complete": complete}
        return self.send("PATCH", location, {**DRAFT_CONTENT, **fields, **given}, body)

    def offset(self, location: str) -> int | None:
        """Return the offset of an upload, or None where there is none."""
        answer = self.send("HEAD", location, TUS)
        return int(answer.headers["upload-offset"]) if answer.status == 200 else None

    def left(self) -> list[str]:
        """Return the ids of what is kept of uploads."""
        folder = self.root / ".hashfs" / "uploads"
        return sorted(each.name for each in folder.iterdir()) if folder.exists() else []

    def age(self, location: str, seconds: float = 90000) -> None:
        """Make an upload look as old as this."""
        past = time.time() - seconds
        for path in (self.root / ".hashfs" / "uploads" / location.rpartition("/")[2]).iterdir():
            os.utime(path, (past, past))

    def stored(self) -> list[str]:
        return list(self.fs_call("files"))

    def contents(self) -> list[bytes]:
        """Return all content that is stored."""
        return [Path(path).read_bytes() for path in self.stored()]

    @property
    def client(self) -> HashFS:
        """The store of the app."""
        client: HashFS = self.app.extensions["hashfs"]["client"]
        return client

    def fs_call(self, name: str, *args: Any) -> Any:
        raise NotImplementedError


class _InTwo:
    """A server's stream that calls a function between two pieces, and may break off then."""

    def __init__(self, pieces: tuple[bytes, bytes | None], between: Callable[[], None]) -> None:
        first, self._second = pieces
        self._now = io.BytesIO(first)
        self._between: Callable[[], None] | None = between

    def read(self, size: int = -1) -> bytes:
        piece = self._now.read(size)
        if piece or self._between is None:
            return piece
        between, self._between = self._between, None
        between()
        if self._second is None:
            raise ConnectionResetError
        self._now = io.BytesIO(self._second)
        return self._now.read(size)


class FlaskFace(Face):
    def _make(self, config: Mapping[str, Any]) -> tuple[Any, Any]:
        from flask import Flask

        from flask_hashfs import FlaskHashFS

        app = Flask(__name__)
        app.config.update(config)
        return app, FlaskHashFS(app)

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] = {},
        body: bytes | Iterable[bytes] = b"",
    ) -> Answer:
        more: dict[str, Any] = {"data": body}
        if not isinstance(body, bytes):
            more = {"input_stream": io.BytesIO(b"".join(body))}
            more["environ_overrides"] = {
                "HTTP_TRANSFER_ENCODING": headers.get("Transfer-Encoding", "chunked"),
                "wsgi.input_terminated": True,
            }
        elif "Content-Length" in headers:
            more = {"environ_overrides": {"CONTENT_LENGTH": headers["Content-Length"]}}
        more.setdefault("environ_overrides", {})["SCRIPT_NAME"] = self.mount
        response = self.app.test_client().open(path, method=method, headers=dict(headers), **more)
        return answer_of(response, response.data)

    def send_with_break(
        self,
        location: str,
        headers: Mapping[str, str],
        pieces: tuple[bytes, bytes | None],
        between: Callable[[], None],
    ) -> Answer:
        body = {"wsgi.input": _InTwo(pieces, between), "CONTENT_LENGTH": headers["Content-Length"]}
        client = self.app.test_client()
        response = client.patch(location, headers=dict(headers), environ_overrides=body)
        return answer_of(response, response.data)

    def fs_call(self, name: str, *args: Any) -> Any:
        with self.app.app_context():
            return list(getattr(self.fs.client, name)(*args))


class QuartFace(Face):
    def _make(self, config: Mapping[str, Any]) -> tuple[Any, Any]:
        from quart import Quart

        from flask_hashfs import QuartHashFS

        app = Quart(__name__)
        app.config.update(config)
        return app, QuartHashFS(app)

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] = {},
        body: bytes | Iterable[bytes] = b"",
    ) -> Answer:
        return asyncio.run(self._send(method, path, headers, body))

    async def _send(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> Answer:
        given = dict(headers)
        if not isinstance(body, bytes):
            given.setdefault("Transfer-Encoding", "chunked")
        elif body:
            given["Content-Length"] = str(len(body))
        client = self.app.test_client()
        with NOTHING_BLOCKS():
            where = {"path": self.mount + path, "root_path": self.mount}
            async with client.request(method=method, headers=given, **where) as connection:
                for piece in [body] if isinstance(body, bytes) else body:
                    await connection.send(piece)
                await connection.send_complete()
            response = await connection.as_response()
            data = await response.get_data(as_text=False)
        return answer_of(response, data)

    def send_with_break(
        self,
        location: str,
        headers: Mapping[str, str],
        pieces: tuple[bytes, bytes | None],
        between: Callable[[], None],
    ) -> Answer:
        first, second = pieces
        client = self.app.test_client()

        async def send() -> Answer:
            with NOTHING_BLOCKS():
                async with client.request(location, method="PATCH", headers=dict(headers)) as sent:
                    await sent.send(first)
                    while not self.has_taken_content(location):
                        await asyncio.sleep(0.01)
                    await asyncio.to_thread(between)
                    if second is not None:
                        await sent.send(second)
                    await sent.send_complete()  # too soon where it breaks off
                response = await sent.as_response()
                data = await response.get_data(as_text=False)
            return answer_of(response, data)

        return asyncio.run(send())

    def fs_call(self, name: str, *args: Any) -> Any:
        async def call() -> Any:
            async with self.app.app_context():
                return list(getattr(self.fs.client, name)(*args))

        return asyncio.run(call())


class BucketFace(Face):
    """A face whose store is an object store in memory."""

    def __init__(self, root: Path, **config: Any) -> None:
        super().__init__(root, **{"HASHFS_ROOT_FOLDER": "memory://", **config})

    @property
    def _objects(self) -> Any:
        return objects_of(self.client)

    def elsewhere(self) -> PendingUploads:
        return uploads_elsewhere(self.client)

    def left(self) -> list[str]:
        return sorted({found.key.split("/")[2] for found in self._objects.list(".hashfs/uploads")})

    def age(self, location: str, seconds: float = 90000) -> None:
        objects, id = self._objects, location.rpartition("/")[2]
        listed = objects.list

        def older(*args: Any, **more: Any) -> Iterator[Any]:
            for found in listed(*args, **more):
                past = timedelta(seconds=seconds if id in found.key else 0)
                yield found._replace(modified=found.modified - past)

        objects.list = older

    def contents(self) -> list[bytes]:
        return [self._objects.read(path.removeprefix("memory:///")) for path in self.stored()]


class BucketFlaskFace(BucketFace, FlaskFace):
    pass


class BucketQuartFace(BucketFace, QuartFace):
    pass


FACES = (FlaskFace, QuartFace, BucketFlaskFace, BucketQuartFace)
