"""Many clients at once, that hold their uploads, on real servers."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from multipart_cases import BOUNDARY, body_of
from servers import ANSWER_TIMEOUT, Server, _read_answer, serve

KIB, MIB = 1024, 1024 * 1024
CONTENT = os.urandom(1 * MIB)

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at /proc")


@contextmanager
def crowd_server(kind: str, app: str, root: str, **config: object) -> Iterator[Server]:
    keys = {"ROOT_FOLDER": root, "FSYNC": False, **config}
    env = {f"FLASK_HASHFS_{key}": json.dumps(value) for key, value in keys.items()}
    env["FLASK_MAX_CONTENT_LENGTH"] = "null"
    with serve(kind, f"crowd_app:{app}()", env=env, ready="/stats") as server:
        yield server


def stats_of(server: Server) -> dict[str, Any]:
    with server.connect() as client:
        stats: dict[str, Any] = json.loads(client.request("GET", "/stats").body)
        return stats


def until(server: Server, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the first stats for which `holds` is true."""
    end = time.monotonic() + ANSWER_TIMEOUT
    while not holds(stats := stats_of(server)):
        assert time.monotonic() < end, stats
        time.sleep(0.05)
    return stats


def content_of(number: int) -> bytes:
    return b"%08d" % number + CONTENT[8:]


def body_to(path: str, number: int) -> tuple[bytes, bytes]:
    """Return the head and the body of a request that uploads one content of 1 MiB."""
    body, kind = content_of(number), b"application/octet-stream"
    if path == "/form":
        head = b'Content-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\n'
        body, kind = body_of(head + body), b"multipart/form-data; boundary=" + BOUNDARY.encode()
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (path.encode(), kind, len(body)), body


@contextmanager
def holders(server: Server, path: str, count: int) -> Iterator[list[socket.socket]]:
    """Give so many clients that have sent nine tenths of an upload, as far as it is taken."""
    with ExitStack() as stack:
        clients = []
        for number in range(count):
            client = socket.create_connection(("127.0.0.1", server.port), ANSWER_TIMEOUT)
            clients.append(stack.enter_context(client))
            head, body = body_to(path, number)
            client.sendall(head + body[: 32 * KIB])
        for number, client in enumerate(clients):
            body = body_to(path, number)[1]
            if path != "/unread":
                client.sendall(body[32 * KIB : len(body) * 9 // 10])
        yield clients


def finish(path: str, number: int, client: socket.socket) -> list[str]:
    body = body_to(path, number)[1]
    client.sendall(body[32 * KIB if path == "/unread" else len(body) * 9 // 10 :])
    with client.makefile("rb") as file:
        answer = _read_answer(file, "POST")[0]
    assert answer.status == 200, answer.body
    ids: list[str] = json.loads(answer.body)["ids"]
    return ids


@pytest.mark.parametrize("path", ["/raw", "/form", "/unread"])
def test_what_a_crowd_holds_is_the_budget_and_64_kib_each_at_most(
    tmp_path: Path, path: str
) -> None:
    """Once the server's messages are written, which may be larger than what is left."""
    budget, count = 2 * MIB, 200
    root = str(tmp_path / "store")
    with crowd_server("uvicorn", "quart_app", root, UPLOAD_MEMORY=budget) as server:
        with holders(server, path, count) as clients:
            most = budget + count * 64 * KIB
            until(server, lambda stats: stats["active"] == count and stats["buffered"] <= most)
            for _ in range(5):
                assert stats_of(server)["buffered"] <= most
            if path == "/unread":
                with server.connect() as other:
                    other.request("GET", "/tell")
            for number, client in enumerate(clients):
                id = hashlib.sha256(content_of(number)).hexdigest()
                assert finish(path, number, client) == [id]
        stats = until(server, lambda stats: not stats["active"])
        assert (stats["buffered"], stats["files"], stats["waiting"]) == (0, 0, 0)
