"""A process that runs out of descriptors, with idle files of uploads or without; run as a script.

It takes a folder, and prints as JSON what became of each call: first beside files that are idle,
then where no file is, and at last with descriptors again.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flask import Flask
from quart import Quart

from flask_hashfs import FlaskHashFS, HashFS, QuartHashFS
from flask_hashfs._storage.upload_files import FILES
from flask_hashfs._storage.writer import UploadStream, Writer

LARGE = 300 * 1024  # bytes: of one content that goes to a file
IDLE = 8  # files: more than any call needs
ROUTES = {"HASHFS_SERVE_FILES": True, "HASHFS_PATH_PREFIX": "/files", "HASHFS_FSYNC": True}


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    with ExitStack() as stack:
        try:
            while True:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        yield


def upload(store: HashFS, size: int = LARGE) -> Writer:
    """Return a writer that has taken content as an upload does."""
    writer = store.backend.new_writer(None)
    writer.count_as_upload()
    writer.write(os.urandom(size))
    return writer


def finished(store: HashFS, size: int = LARGE) -> Writer:
    writer = upload(store, size)
    writer.finish()
    return writer


def read_parked(store: HashFS) -> Callable[[], Any]:
    stream = UploadStream(finished(store))
    file: Any = stream.writer.spilled
    assert file.park()
    return lambda: stream.read(10)


def flask_request(root: str, path: str, **more: Any) -> Callable[[], Any]:
    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=root, HASHFS_UPLOADS_PATH="/uploads", **ROUTES)
    FlaskHashFS(app)
    client = app.test_client()

    def ask() -> Any:
        with client.open(path, **more) as response:
            return response.status_code, response.headers.get("Retry-After")

    ask()  # what Flask itself opens with its first request is no matter of ours
    return ask


def create(store: HashFS) -> Callable[[], Any]:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
    return flask_request(store.root, "/uploads", method="POST", headers=headers)


def flask_get(root: str, relpath: str) -> Callable[[], Any]:
    return flask_request(root, f"/files/{relpath}")


def quart_get(root: str, relpath: str) -> Callable[[], Any]:
    app = Quart(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=root, **ROUTES)
    QuartHashFS(app)
    loop = asyncio.new_event_loop()

    async def ask() -> Any:
        response = await app.test_client().get(f"/files/{relpath}")
        await response.get_data()
        return response.status_code, response.headers.get("Retry-After")

    def get() -> Any:
        return loop.run_until_complete(ask())

    get()
    return get


def get_from(app: str) -> Callable[[HashFS], Callable[[], Any]]:
    get = {"flask": flask_get, "quart": quart_get}[app]
    return lambda store: get(store.root, store.put(os.urandom(LARGE)).relpath)


def put_path(store: HashFS) -> Callable[[], Any]:
    path = Path(store.root).with_name("source")
    path.write_bytes(os.urandom(1000))
    return lambda: store.put(path)


def put_many(store: HashFS) -> Callable[[], Any]:
    def put() -> None:
        ((_, result),) = store.put_files([(os.urandom(1000), None)])
        if isinstance(result, Exception):
            raise result

    put()  # it imports what it needs
    return put


def open_stored(store: HashFS) -> Callable[[], Any]:
    id = store.put(os.urandom(1000)).id
    return lambda: store.open(id).close()


def commit(size: int) -> Callable[[HashFS], Callable[[], Any]]:
    def prepare(store: HashFS) -> Callable[[], Any]:
        writer = finished(store, size)
        return lambda: store.commit(writer)

    return prepare


CALLS: dict[str, Callable[[HashFS], Callable[[], Any]]] = {
    "put": lambda store: lambda: store.put(os.urandom(1000)),
    "put of a file": lambda store: lambda: store.put(os.urandom(LARGE)),
    "put of a path": put_path,
    "put of many": put_many,
    "put of a duplicate": lambda store: lambda: store.put(b"there already"),
    "upload": lambda store: lambda: upload(store).close(),
    "put of a large upload": commit(LARGE),
    "put of a small upload": commit(1000),
    "open": open_stored,
    "probe": lambda store: store.backend.probe,
    "read of a file that was closed": read_parked,
    "creation of a resumable upload": create,
    "GET from Flask": get_from("flask"),
    "GET from Quart": get_from("quart"),
}
"""What prepares a call, which is then made without a descriptor."""


def outcome(call: Callable[[], Any]) -> Any:
    try:
        result = call()
    except Exception as error:
        return type(error).__name__
    return result if isinstance(result, tuple) and len(result) == 2 else "done"


def outcomes(store: HashFS, prepare: Callable[[HashFS], Callable[[], Any]]) -> list[Any]:
    call = prepare(store)
    idle = [upload(store) for _ in range(IDLE)]
    with no_descriptor_left():
        found = [outcome(call)]
    for writer in idle:
        writer.close()
    call = prepare(store)
    while FILES._park_one():
        pass
    with no_descriptor_left():
        found.append(outcome(call))
    return [*found, outcome(call)]


def main(root: str) -> None:
    gc.disable()  # an app that is collected in the middle of a call would give its descriptors back
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    store = HashFS(Path(root, "root"))
    store.put(b"there already")
    print(json.dumps({name: outcomes(store, prepare) for name, prepare in CALLS.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
