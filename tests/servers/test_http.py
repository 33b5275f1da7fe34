"""Every case of the tables, over every server and both frameworks.

A `Peer` is whatever answers requests: a connection to a real server, or Flask's test client.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from http_app import flask_app
from http_cases import (
    CASES,
    MAX_AGE,
    NOT_STORED,
    REFUSALS,
    SIZES,
    Case,
    check,
    check_error,
    content,
)
from servers import Answer, serve

from flask_hashfs import HashAddress, HashFS

FLASK_SERVERS = ("gunicorn", "gthread", "granian-wsgi")
QUART_SERVERS = ("hypercorn", "uvicorn", "uvicorn-httptools", "granian")
# These get every case, the others every seventh; HASHFS_TEST_ALL_CASES=1 gives all to all.
THOROUGH = ("flask", "gthread")
SECRET = b"not for anybody"


class Peer(Protocol):
    kind: str

    def request(
        self, method: str, target: str, headers: list[tuple[str, str]] = ..., body: bytes = ...
    ) -> Answer: ...


class FlaskClient:
    """Flask's test client, seen as a peer."""

    kind = "flask"

    def __init__(self, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        self._client = flask_app().test_client()

    def request(
        self,
        method: str,
        target: str,
        headers: list[tuple[str, str]] | None = None,
        body: bytes = b"",
    ) -> Answer:
        with self._client.open(target, method=method, headers=headers, data=body) as response:
            return Answer(response.status_code, response.headers.to_wsgi_list(), response.data)


@dataclass(frozen=True)
class Store:
    """What the servers serve."""

    root: Path
    client: HashFS
    sized: Mapping[int, HashAddress]

    @property
    def env(self) -> dict[str, str]:
        return {
            "FLASK_HASHFS_ROOT_FOLDER": str(self.root),
            "FLASK_HASHFS_SERVE_FILES": "true",
            "FLASK_HASHFS_PATH_PREFIX": "/files",
            "FLASK_HASHFS_FSYNC": "false",
        }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    outside = tmp_path_factory.mktemp("http")
    root = outside / "root"
    client = HashFS(root, fsync=False)
    sized = {size: client.put(content(size), ".bin") for size in SIZES}
    (outside / "secret.txt").write_bytes(SECRET)
    for stray in ("secret.txt", "stray.txt", "stray", "a/stray.txt", ".hashfs/kept"):
        (root / stray).parent.mkdir(exist_ok=True)
        (root / stray).write_bytes(SECRET)
    folder = Path(sized[10].abspath).parent
    (folder / "link.bin").symlink_to(outside / "secret.txt")
    os.mkfifo(folder / "pipe.bin")
    return Store(root, client, sized)


@pytest.fixture(scope="module", params=["flask", *FLASK_SERVERS, *QUART_SERVERS])
def peer(request: pytest.FixtureRequest, store: Store) -> Iterator[Peer]:
    kind = request.param
    if kind == "flask":
        with pytest.MonkeyPatch.context() as monkeypatch:
            yield FlaskClient(store.env, monkeypatch)
        return
    app = "http_app:flask_app()" if kind in FLASK_SERVERS else "http_app:quart_app()"
    with serve(kind, app, env=store.env) as server, server.connect() as client:
        client.kind = kind
        yield client
        log = server.log()
    assert "Traceback" not in log, log


@pytest.mark.parametrize("size", SIZES)
def test_cases(peer: Peer, store: Store, size: int) -> None:
    address = store.sized[size]
    data = content(size)
    target = "/files/" + address.relpath
    cases = [case for case in CASES if case.size == size]
    failures = []
    thorough = peer.kind in THOROUGH or os.environ.get("HASHFS_TEST_ALL_CASES") == "1"
    for case in cases if thorough else cases[::7]:
        if peer.kind == "granian-wsgi" and not str(case).isascii():
            continue  # it empties values beyond ASCII
        answer = peer.request(case.method, target, case.lines(address.id))
        try:
            check(case, answer, data, disposition=f'attachment; filename="{address.id}.bin"')
        except AssertionError as error:
            failures.append(f"{case}\n    {str(error).splitlines()[:3]}")
    assert not failures, f"{len(failures)} cases:\n" + "\n".join(failures[:20])


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_is_found_by_its_id_and_by_its_path(peer: Peer, store: Store, method: str) -> None:
    address = store.sized[10]
    case = Case(10, method, (), 200, ((0, 10),))
    for name in (address.id, address.relpath, f"{address.id}?a=b", f"{address.relpath}?../x"):
        check(case, peer.request(method, f"/files/{name}"), content(10))


CONDITIONS: tuple[list[tuple[str, str]], ...] = (
    [],
    [("Range", "bytes=0-4")],
    [("Range", "bytes=0-0,2-2")],
    [("If-Match", "*")],
    [("If-Match", '"x"')],
    [("If-None-Match", "*")],
    [("If-None-Match", '"x"'), ("Range", "bytes=99999999-")],
)


def test_what_is_not_stored_is_not_found(peer: Peer, store: Store) -> None:
    address = store.sized[10]
    failures = []
    for name in NOT_STORED:
        target = "/files/" + (
            name.replace("{id}", address.id)
            .replace("{ID}", address.id.upper())
            .replace("{path}", address.relpath)
            .replace("{folder}", os.path.dirname(address.relpath))
            .replace("{root}", str(store.root).lstrip("/"))
        )
        for method in ("GET", "HEAD"):
            answer = peer.request(method, target)
            if answer.status not in REFUSALS or SECRET in answer.body:
                failures.append((method, target, answer.status))
            check_error(answer)
            assert answer.get("X-Injected") is None
            if answer.status == 308:
                location = answer.get("Location") or ""
                assert re.match(
                    r"(http://(localhost|127\.0\.0\.1:\d+))?/(files|etc|tmp)?", location
                )
    assert not failures


@pytest.mark.parametrize("headers", CONDITIONS, ids=str)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions_mean_nothing_for_what_is_not_there(
    peer: Peer, method: str, headers: list[tuple[str, str]]
) -> None:
    answer = peer.request(method, f"/files/{'0' * 64}", headers)
    assert answer.status == 404
    check_error(answer)
    if method == "HEAD":
        assert answer.body == b""


def test_a_deleted_file_is_gone(peer: Peer, store: Store) -> None:
    address = store.client.put(b"short-lived", ".txt")
    target = "/files/" + address.relpath
    assert peer.request("GET", target).body == b"short-lived"
    store.client.delete(address)
    check_error(answer := peer.request("GET", target, [("If-None-Match", f'"{address.id}"')]))
    assert answer.status == 404


# --- methods -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("stored", [True, False])
def test_other_methods_are_not_allowed(peer: Peer, store: Store, method: str, stored: bool) -> None:
    address = store.sized[10]
    target = "/files/" + (address.relpath if stored else "0" * 64)
    answer = peer.request(method, target, [("If-Match", "*"), ("Range", "bytes=0-0")], b"body")
    assert answer.status == 405
    assert _allowed(answer) == {"GET", "HEAD", "OPTIONS"}
    check_error(answer)
    assert store.client.exists(address)


def test_options_says_what_is_allowed(peer: Peer, store: Store) -> None:
    answer = peer.request("OPTIONS", "/files/" + store.sized[10].relpath)
    assert answer.status in {200, 204}
    assert _allowed(answer) == {"GET", "HEAD", "OPTIONS"}
    assert answer.body == b""
    check_error(answer)


def _allowed(answer: Answer) -> set[str]:
    return {method.strip() for method in (answer.get("Allow") or "").split(",")}


# --- types and dispositions ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extension", "mimetype", "shown"),
    [
        (".txt", "text/plain; charset=utf-8", "inline"),
        (".png", "image/png", "inline"),
        (".webp", "image/webp", "inline"),
        (".pdf", "application/pdf", "inline"),
        (".mp4", "video/mp4", "inline"),
        (".mp3", "audio/mpeg", "inline"),
        (".html", "text/html; charset=utf-8", "attachment"),
        (".HTML", "text/html; charset=utf-8", "attachment"),
        (".xhtml", "application/xhtml+xml", "attachment"),
        (".svg", "image/svg+xml", "attachment"),
        (".svgz", "application/gzip", "attachment"),
        (".xml", "application/xml", "attachment"),
        (".js", "text/javascript; charset=utf-8", "attachment"),
        (".css", "text/css; charset=utf-8", "attachment"),
        (".md", "text/markdown; charset=utf-8", "attachment"),
        (".json", "application/json", "attachment"),
        (".zip", "application/zip", "attachment"),
        (".tar.gz", "application/gzip", "attachment"),
        (".txt.gz", "application/gzip", "attachment"),
        (".unknown", "application/octet-stream", "attachment"),
        ("", "application/octet-stream", "attachment"),
    ],
)
def test_the_name_tells_the_type(
    peer: Peer, store: Store, extension: str, mimetype: str, shown: str
) -> None:
    data = f"<script>alert(1)</script>{extension}".encode()
    size = len(data)
    address = store.client.put(data, extension or None)
    target = "/files/" + address.relpath
    none_match = (("If-None-Match", f'"{address.id}"'),)
    for case in (
        Case(size, "GET", (), 200, ((0, size),)),
        Case(size, "HEAD", (), 200),
        Case(size, "GET", (("Range", "bytes=0-4"),), 206, ((0, 5),)),
        Case(size, "GET", (("Range", "bytes=0-4,6-7"),), 206, ((0, 5), (6, 8))),
        Case(size, "GET", none_match, 304),
        Case(size, "HEAD", none_match, 304),
        Case(size, "GET", (("Range", f"bytes={size}-"),), 416),
        Case(size, "GET", (("If-Match", '"x"'),), 412),
    ):
        answer = peer.request(case.method, target, list(case.headers))
        disposition = f'{shown}; filename="{address.id}{extension}"'
        check(case, answer, data, mimetype=mimetype, disposition=disposition)


def test_one_content_under_several_names(peer: Peer, store: Store) -> None:
    data = b"under several names"
    names = {extension: store.client.put(data, extension) for extension in (".txt", ".bin", ".png")}
    id = names[".txt"].id
    whole = Case(len(data), "GET", (), 200, ((0, len(data)),))
    for extension, address in names.items():
        check(
            whole,
            answer := peer.request("GET", "/files/" + address.relpath),
            data,
            mimetype=answer.get("Content-Type") or "",
        )
        assert (answer.get("Content-Disposition") or "").endswith(f'filename="{id}{extension}"')
    first = peer.request("GET", f"/files/{id}")
    check(whole, first, data, disposition=f'attachment; filename="{id}.bin"')


def test_a_view_answers_privately(peer: Peer, store: Store) -> None:
    address = store.sized[10]
    private = f"private, max-age={MAX_AGE}, immutable"
    for case in (
        Case(10, "GET", (), 200, ((0, 10),)),
        Case(10, "HEAD", (), 200),
        Case(10, "GET", (("Range", "bytes=0-0,2-2"),), 206, ((0, 1), (2, 3))),
        Case(10, "GET", (("If-None-Match", f'"{address.id}"'),), 304),
        Case(10, "GET", (("Range", "bytes=10-"),), 416),
    ):
        answer = peer.request(case.method, f"/view/{address.id}", list(case.headers))
        check(case, answer, content(10), cache_control=private)
    answer = peer.request("GET", "/view/nothing")
    assert answer.status == 404
    check_error(answer)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("a%20b.bin", 'filename="a b.bin"'),
        ("a%22b", 'filename="a\\"b"; filename*=UTF-8\'\'a%22b'),
        ("a%0d%0aX-Injected:%201", 'filename="a__X-Injected: 1"'),
        ("..%2f..%2fx", 'filename=".._.._x"'),
        ("na%C3%AFve.bin", "filename=\"naive.bin\"; filename*=UTF-8''na%C3%AFve.bin"),
        ("%E6%97%A5.bin", "filename=\"_.bin\"; filename*=UTF-8''%E6%97%A5.bin"),
    ],
)
def test_a_view_names_the_file(peer: Peer, store: Store, name: str, parameters: str) -> None:
    answer = peer.request("GET", f"/view/{store.sized[10].id}?name={name}")
    assert answer.get("Content-Disposition") == "attachment; " + parameters
    assert answer.get("X-Injected") is None
    assert answer.body == content(10)
