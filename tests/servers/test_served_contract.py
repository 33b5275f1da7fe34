"""The contract of a store over HTTP: under gunicorn with several workers, and under uvicorn.

The apps keep it on a folder always, and on S3 where there is one. What may be put and how it is
read is decided on this side of the line; every put, look-up and listing, and the bytes of files,
come from the server.
"""

from __future__ import annotations

import http.client
import io
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode

import pytest
from object_stores import empty, needs_s3, new_url, options
from servers import ANSWER_TIMEOUT, Server, serve
from store_app import CALLS

from flask_hashfs import DigestMismatchError, FileTooLargeError, HashAddress, HashFS
from flask_hashfs._storage.writer import Writer
from flask_hashfs._store.object_store import ObjectStore
from flask_hashfs.testing.store_contract import (
    LARGE,
    NewStore,
    StoreContract,
    assert_empty,
    content,
    id_of,
)

SERVERS = {
    "gunicorn": ("gthread", "store_app:wsgi_app", ("--workers", "3")),
    "uvicorn": ("uvicorn", "store_app:asgi_app", ("--lifespan", "off")),
}
KEYS = {"max_size": "MAX_FILE_SIZE"}


class Remote:
    """The half of a store that a server keeps; before a `HashFS` among the bases."""

    server: Server
    headers: dict[str, str]

    def commit(
        self,
        writer: Writer,
        extension: str | None = None,
        *,
        expected: str | None = None,
        sync: bool = True,
    ) -> Any:
        """Put the content; the server's own `put` decides what it waits for."""
        if writer.closed:
            raise ValueError("this content was given up, or its stream closed")
        writer.finish()
        with writer.reader() as reader:
            wishes = {"extension": extension, "expected": expected}
            query = urlencode({"options": json.dumps(wishes)})
            return pickle.loads(self.send("POST", f"/put?{query}", reader, writer.size))

    def open(self, file: Any, mode: str = "rb") -> IO[Any]:
        url = pickle.loads(self.send("POST", "/open", pickle.dumps((file, mode))))
        reader = io.BufferedReader(io.BytesIO(self.send("GET", url)))
        return reader if "b" in mode else io.TextIOWrapper(reader)

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        return pickle.loads(self.send("POST", f"/call/{name}", pickle.dumps((arguments, keywords))))

    def __iter__(self) -> Iterator[str]:
        return iter(self.call("files"))

    def send(self, method: str, target: str, body: Any = None, size: int | None = None) -> bytes:
        """Send one request, and raise the error that it is answered with."""
        headers = {**self.headers, "Connection": "close"}
        if size is not None:
            headers["Content-Length"] = str(size)
        client = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=ANSWER_TIMEOUT)
        try:
            client.request(method, target, body, headers)
            response = client.getresponse()
            data = response.read()
        finally:
            client.close()
        if response.status >= 400:
            raise pickle.loads(data)
        return data


def called(name: str) -> Callable[..., Any]:
    return lambda remote, *arguments, **keywords: remote.call(name, *arguments, **keywords)


for name in CALLS:
    setattr(Remote, name, called(name))


class RemoteFolder(Remote, HashFS):  # type: ignore[misc]
    pass


class RemoteObjects(Remote, ObjectStore):  # type: ignore[misc]
    pass


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind, app, arguments = SERVERS[request.param]
    with serve(kind, app, options=arguments) as server:
        yield server
        log = server.log()
    assert "Traceback" not in log, log


class TestServedStore(StoreContract):
    passes_on_bytes = True  # sources are read on this side, and tests/local does that

    @pytest.fixture(params=["folder", pytest.param("s3", marks=needs_s3)])
    def new_store(
        self, server: Server, tmp_path: Path, request: pytest.FixtureRequest
    ) -> Iterator[NewStore]:
        stores: list[HashFS] = []

        def new_store(**given: Any) -> HashFS:
            store: Any
            if request.param == "s3":
                store = RemoteObjects(new_url(), options=options(), **given)
            else:
                store = RemoteFolder(tmp_path / f"store{len(stores)}", fsync=False, **given)
            config = {f"HASHFS_{KEYS.get(key, key.upper())}": given[key] for key in given}
            config |= {"HASHFS_ROOT_FOLDER": store.root, "HASHFS_FSYNC": False}
            config |= {"HASHFS_SERVE_FILES": True, "HASHFS_PATH_PREFIX": "/files"}
            if request.param == "s3":
                config["HASHFS_STORE_OPTIONS"] = options()
            store.server, store.headers = server, {"Store": json.dumps(config)}
            stores.append(store)
            return store

        yield new_store
        for store in stores:
            if isinstance(store, ObjectStore):
                empty(store)

    def test_sixteen_writers_of_equal_content_end_with_one_object(self, store: HashFS) -> None:
        start = threading.Barrier(16)

        def put(_: int) -> HashAddress:
            start.wait(60)
            return store.put(content(LARGE), "txt")

        with ThreadPoolExecutor(16) as threads:
            addresses = list(threads.map(put, range(16)))
        assert {address[:3] for address in addresses} == {addresses[0][:3]}
        assert [address.is_duplicate for address in addresses].count(False) == 1
        assert list(store.files()) == [addresses[0].abspath]

    @pytest.mark.parametrize(
        ("size", "expected", "error"),
        [(LARGE + 1, None, FileTooLargeError), (LARGE, "0" * 64, DigestMismatchError)],
    )
    def test_the_server_refuses_what_this_side_let_pass(
        self, new_store: NewStore, size: int, expected: str | None, error: type[Exception]
    ) -> None:
        store = new_store(max_size=LARGE)
        with store.backend.new_writer(None) as writer:
            writer.write(content(size))
            with pytest.raises(error):
                store.commit(writer, expected=expected)
        assert_empty(store)
        assert store.put(content(LARGE), expected=id_of(content(LARGE)))
