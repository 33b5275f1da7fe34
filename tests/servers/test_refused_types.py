"""A body of a wrong type, into real servers: the answer comes before much of it has been sent."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from multipart_cases import BOUNDARY
from servers import ANSWER_TIMEOUT, Server, _read_answer, serve

FLASK_SERVERS = ("gunicorn", "gthread", "granian-wsgi", "uwsgi")
QUART_SERVERS = ("hypercorn", "uvicorn", "uvicorn-httptools", "granian")
MIB = 1024 * 1024
SIZE = 200 * MIB
PART = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="photo.jpg"\r\n'
    "Content-Type: image/jpeg\r\n\r\n"
).encode()
HEADS = {
    "/raw": b"Content-Type: image/jpeg\r\n",
    "/form": f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n".encode(),
}


@pytest.fixture(scope="module", params=[*FLASK_SERVERS, *QUART_SERVERS])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("root")
    env = {"FLASK_HASHFS_ROOT_FOLDER": str(root), "FLASK_HASHFS_ACCEPT": "image/*"}
    env["FLASK_MAX_CONTENT_LENGTH"] = str(2 * SIZE)
    app = "flask_app" if request.param in FLASK_SERVERS else "quart_app"
    with serve(request.param, f"upload_app:{app}()", env=env, ready="/descriptors") as running:
        yield running
    left = [path for path in Path(root).rglob("*") if not path.is_dir()]
    assert left == []


@pytest.mark.parametrize("path", HEADS)
@pytest.mark.parametrize("begins", [b"<!doctype html>", b"\xfe"], ids=["html", "noise"])
def test_the_answer_comes_before_half_of_the_body(server: Server, path: str, begins: bytes) -> None:
    content = (PART if path == "/form" else b"") + begins
    head = b"POST %b HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n" % (
        path.encode(),
        HEADS[path],
        SIZE,
    )
    piece, sent = content + b"\xfe" * MIB, 0
    with socket.create_connection(("127.0.0.1", server.port), ANSWER_TIMEOUT) as client:
        client.sendall(head)
        try:
            while sent < SIZE // 2 and not select.select([client], [], [], 0)[0]:
                client.sendall(piece)
                sent, piece = sent + len(piece), os.urandom(16) * (MIB // 16)
        except ConnectionError:  # answered and closed
            pass
        assert sent < SIZE // 2
        with client.makefile("rb") as stream:
            answer = _read_answer(stream, "POST")[0]
    assert answer.status == 415
    assert b"accepted is only image/*" in answer.body


@pytest.mark.parametrize("path", HEADS)
def test_64_kib_of_a_body_are_enough(server: Server, path: str) -> None:
    content = (PART if path == "/form" else b"") + b"\xfe" * 64 * 1024
    content = content[: 64 * 1024]
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%bContent-Length: %d\r\n\r\n" % (
        path.encode(),
        HEADS[path],
        SIZE,
    )
    with socket.create_connection(("127.0.0.1", server.port), ANSWER_TIMEOUT) as client:
        client.sendall(head + content)
        status = b""
        while len(status) < 12 and (piece := client.recv(12 - len(status))):
            status += piece
    assert status.endswith(b"415")
