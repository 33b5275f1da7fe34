"""Files of an object store over HTTP: the cases of the tables, and redirects."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
from both_apps import FRAMEWORKS, Site
from flask import Flask
from http_cases import CASES, SIZES, Case, check, content
from object_stores import (
    KINDS,
    backend_of,
    empty,
    needs_s3,
    new_url,
    object_store,
    objects_of,
    options,
)
from quart import Quart
from servers import Answer, serve

from flask_hashfs import FlaskHashFS, HashAddress, QuartHashFS
from flask_hashfs._store.object_store import ObjectStore

SERVING = {"HASHFS_SERVE_FILES": True, "HASHFS_PATH_PREFIX": "/files"}


class Peer(Protocol):
    def request(self, method: str, target: str, headers: list[tuple[str, str]] = ...) -> Answer: ...


@dataclass(frozen=True)
class InProcess:
    """A framework's test client, over the store `client`."""

    ask: Callable[..., Answer]

    def request(
        self, method: str, target: str, headers: list[tuple[str, str]] | None = None
    ) -> Answer:
        return self.ask(method, target, headers)


def flask_peer(store: ObjectStore, **config: Any) -> InProcess:
    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER="memory://", **SERVING, **config)
    fs = FlaskHashFS(app)
    app.extensions["hashfs"]["client"] = store
    views: dict[str, dict[str, Any]] = {"view": {}, "public": {"private": False}}
    views["named"] = {"private": False, "download_name": "a.txt"}
    for name, wishes in views.items():
        view = partial(fs.send_file, **wishes)
        app.add_url_rule(f"/{name}/<path:file>", name, view)

    def ask(method: str, target: str, headers: Any) -> Answer:
        with app.test_client().open(target, method=method, headers=headers) as response:
            return Answer(response.status_code, response.headers.to_wsgi_list(), response.data)

    return InProcess(ask)


def quart_peer(store: ObjectStore, **config: Any) -> InProcess:
    app = Quart(__name__)
    app.config.update(HASHFS_ROOT_FOLDER="memory://", **SERVING, **config)
    QuartHashFS(app)
    app.extensions["hashfs"]["client"] = store

    async def answer(method: str, target: str, headers: Any) -> Answer:
        response = await app.test_client().open(target, method=method, headers=headers)  # type: ignore[call-arg]
        data = await response.get_data(False)
        return Answer(response.status_code, response.headers.to_wsgi_list(), data)

    return InProcess(lambda *request: asyncio.run(answer(*request)))


def stored(store: ObjectStore) -> Mapping[int, HashAddress]:
    return {size: store.put(content(size), ".bin") for size in SIZES}


def check_cases(peer: Peer, sized: Mapping[int, HashAddress], cases: Sequence[Case]) -> None:
    failures = []
    for case in cases:
        address = sized[case.size]
        answer = peer.request(case.method, f"/files/{address.relpath}", case.lines(address.id))
        try:
            check(case, answer, content(case.size))
        except AssertionError as error:
            failures.append(f"{case}\n    {str(error).splitlines()[:3]}")
    assert not failures, f"{len(failures)} cases:\n" + "\n".join(failures[:20])


@pytest.mark.parametrize("kind", KINDS)
def test_cases_with_flask(kind: str) -> None:
    with object_store(kind) as store:
        check_cases(flask_peer(store), stored(store), CASES[:: 1 if kind == "memory" else 5])


@pytest.mark.parametrize("kind", KINDS)
def test_cases_with_quart(kind: str) -> None:
    with object_store(kind) as store:
        # Its test client gives an answer without a body the length of that.
        cases = [case for case in CASES if case.method == "GET" and case.status in (200, 206)]
        check_cases(quart_peer(store), stored(store), cases[:: 4 if kind == "memory" else 20])


@pytest.fixture(scope="module")
def shared() -> Iterator[ObjectStore]:
    store = ObjectStore(new_url(), options=options())
    yield store
    empty(store)


def env(store: ObjectStore) -> dict[str, str]:
    return {
        "FLASK_HASHFS_ROOT_FOLDER": store.root,
        "FLASK_HASHFS_STORE_OPTIONS": json.dumps(options()),
        "FLASK_HASHFS_SERVE_FILES": "true",
        "FLASK_HASHFS_PATH_PREFIX": "/files",
    }


SERVERS = [
    ("gunicorn", "http_app:flask_app()", ("--workers", "3")),
    ("gthread", "http_app:flask_app()", ("--workers", "2", "--preload")),
    ("uvicorn", "http_app:quart_app()", ()),
    ("hypercorn", "http_app:quart_app()", ()),
]


@needs_s3
@pytest.mark.parametrize(("kind", "app", "arguments"), SERVERS, ids=[kind for kind, *_ in SERVERS])
def test_cases_on_real_servers(
    kind: str, app: str, arguments: tuple[str, ...], shared: ObjectStore
) -> None:
    sized = stored(shared)
    with serve(kind, app, env=env(shared), options=arguments) as server:
        with server.connect() as client:
            check_cases(client, sized, CASES[::10])

        def download(n: int) -> None:
            size = SIZES[n % len(SIZES)]
            with server.connect() as client:
                answer = client.request("GET", f"/files/{sized[size].relpath}")
            assert answer.body == content(size)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(download, range(40)))
        log = server.log()
    assert "Traceback" not in log, log


# -- what is deleted meanwhile ---------------------------------------------------------------------


def test_a_file_deleted_after_it_was_found_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore("memory://")
    address = store.put(content(3_000_000))
    look_up = backend_of(store)._look_up

    def found_and_deleted(file: Any) -> Any:
        found = look_up(file)
        objects_of(store).delete([address.relpath])
        return found

    monkeypatch.setattr(store.backend, "_look_up", found_and_deleted)
    assert flask_peer(store).request("GET", f"/files/{address.id}").status == 404


# -- X-Sendfile ------------------------------------------------------------------------------------


def test_x_sendfile_is_for_files_of_this_machine() -> None:
    store = ObjectStore("memory://")
    address = store.put(b"hello")
    answer = flask_peer(store, USE_X_SENDFILE=True).request("GET", f"/files/{address.id}")
    assert answer.body == b"hello"
    assert answer.get("X-Sendfile") is None


# -- redirects -------------------------------------------------------------------------------------


def test_memory_is_served_without_a_redirect() -> None:
    store = ObjectStore("memory://")
    address = store.put(b"hello")
    peer = flask_peer(store, HASHFS_SERVE_REDIRECT=True)
    assert peer.request("GET", f"/files/{address.id}").body == b"hello"


@needs_s3
class TestRedirects:
    @pytest.fixture
    def store(self) -> Iterator[ObjectStore]:
        with object_store("s3") as store:
            yield store

    @pytest.fixture
    def peer(self, store: ObjectStore) -> InProcess:
        return flask_peer(store, HASHFS_SERVE_REDIRECT=True)

    def test_the_url_gives_the_file(self, store: ObjectStore, peer: InProcess) -> None:
        address = store.put(content(40_000), ".html")
        for target in (f"/files/{address.relpath}", f"/public/{address.id}"):
            for method in ("GET", "HEAD"):
                answer = peer.request(method, target)
                assert answer.status == 302
                assert answer.body == b""
                assert answer.get("ETag") is None
        location = answer.get("Location")
        assert location is not None
        with urlopen(Request(location, headers={"Range": "bytes=100-199"})) as response:
            assert response.status == 206
            assert response.read() == content(40_000)[100:200]
            assert response.headers["Content-Type"] == "text/html; charset=utf-8"
            assert response.headers["Content-Disposition"].startswith("attachment")
            assert "immutable" in response.headers["Cache-Control"]
        with pytest.raises(HTTPError):
            urlopen(location.replace(address.id[4:20], "0" * 16))

    def test_caches_still_hit(self, store: ObjectStore, peer: InProcess) -> None:
        address = store.put(b"hello")
        answers = [peer.request("GET", f"/files/{address.id}") for _ in range(2)]
        ages = [re.fullmatch(r"max-age=(\d+)", a.get("Cache-Control") or "") for a in answers]
        seconds = [int(age[1]) for age in ages if age is not None]
        assert len(seconds) == 2
        assert all(0 < each <= 3600 for each in seconds)
        if seconds[1] <= seconds[0]:  # not over the hour
            assert answers[0].get("Location") == answers[1].get("Location")
        conditional = [("If-None-Match", f'"{address.id}"')]
        assert peer.request("GET", f"/files/{address.id}", conditional).status == 304

    def test_private_and_renamed_files_stay_with_the_app(
        self, store: ObjectStore, peer: InProcess
    ) -> None:
        address = store.put(b"hello", "txt")
        for view in ("view", "named"):
            answer = peer.request("GET", f"/{view}/{address.id}")
            assert (answer.status, answer.body) == (200, b"hello")

    def test_quart_redirects_too(self, store: ObjectStore) -> None:
        address = store.put(b"hello")
        peer = quart_peer(store, HASHFS_SERVE_REDIRECT=True)
        answer = peer.request("GET", f"/files/{address.id}", [])
        assert answer.status == 302
        assert answer.body == b""

    @pytest.mark.parametrize("framework", FRAMEWORKS)
    def test_a_signed_url_redirects_to_one_that_ends_no_later(
        self, store: ObjectStore, framework: str
    ) -> None:
        signed = {**SERVING, "HASHFS_SERVE_FILES": "signed", "SECRET_KEY": "secret"}
        config = {"HASHFS_ROOT_FOLDER": "memory://", "HASHFS_SERVE_REDIRECT": True, **signed}
        site = Site(framework, config)
        site.app.extensions["hashfs"]["client"] = store
        address = store.put(content(40_000), ".html")
        url = site.url_for(address, external=False, expires=60)
        answer = site.ask(url)
        assert (answer.status, answer.body) == (302, b"")
        location = answer.headers["Location"]
        [seconds] = parse_qs(urlsplit(location).query)["X-Amz-Expires"]
        assert 0 < int(seconds) <= 75  # rounded up by a quarter at most
        with urlopen(location) as response:
            assert response.read() == content(40_000)
        for refused in (url.partition("?")[0], url[:-1] + ("A" if url[-1] != "A" else "B")):
            assert site.ask(refused).status == 403
        named = site.url_for(address, external=False, expires=60, download_name="a.html")
        answer = site.ask(named)  # which the object store does not know
        assert (answer.status, answer.body) == (200, content(40_000))

    def test_what_is_not_stored_is_not_found(self, peer: InProcess) -> None:
        assert peer.request("GET", f"/files/{'0' * 64}").status == 404
