"""Many clients at once, that hold their uploads, on real servers."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from local_stores import inventory
from multipart_cases import BOUNDARY, body_of
from servers import ANSWER_TIMEOUT, Answer, Server, _read_answer, serve

KIB, MIB = 1024, 1024 * 1024
CONTENT = os.urandom(1 * MIB)
HELD = MIB * 9 // 10
RESET = struct.pack("ii", 1, 0)

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at /proc")


@contextmanager
def crowd_server(
    kind: str, app: str, root: str, *, descriptors: int | None = None, **config: object
) -> Iterator[Server]:
    keys = {"ROOT_FOLDER": root, "FSYNC": False, **config}
    env = {f"FLASK_HASHFS_{key}": json.dumps(value) for key, value in keys.items()}
    env["FLASK_MAX_CONTENT_LENGTH"] = "null"
    if descriptors is not None:
        env["CROWD_DESCRIPTORS"] = str(descriptors)
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
def holders(
    server: Server, path: str, count: int, sent: int = HELD
) -> Iterator[list[socket.socket]]:
    """Give so many clients that have `sent` so much of an upload, as far as it is taken."""
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
                client.sendall(body[32 * KIB : sent])
        yield clients


def finish(path: str, number: int, client: socket.socket) -> list[str]:
    body = body_to(path, number)[1]
    client.sendall(body[32 * KIB if path == "/unread" else HELD :])
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
            most, looks = budget + count * 64 * KIB, 0

            def stays_below(stats: dict[str, Any]) -> bool:
                nonlocal looks  # in a row: some is still arriving when the first are below
                is_below = stats["active"] == count and stats["buffered"] <= most
                looks = looks + 1 if is_below else 0
                return looks == 6

            until(server, stays_below)
            if path == "/unread":
                with server.connect() as other:
                    other.request("GET", "/tell")
            for number, client in enumerate(clients):
                id = hashlib.sha256(content_of(number)).hexdigest()
                assert finish(path, number, client) == [id]
        stats = until(server, lambda stats: not stats["active"])
        assert (stats["buffered"], stats["files"], stats["waiting"]) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["uvicorn", "granian"])
@pytest.mark.parametrize("path", ["/raw", "/form", "/unread"])
def test_clients_that_vanish_at_once_leave_nothing(tmp_path: Path, kind: str, path: str) -> None:
    count, root = 60, tmp_path / "store"
    with crowd_server(kind, "quart_app", str(root), UPLOAD_MEMORY=MIB) as server:
        before = stats_of(server)
        with holders(server, path, count, sent=256 * KIB) as clients:
            writes = path != "/unread"
            until(server, lambda stats: stats["active"] == count and stats["files"] >= writes)
            for client in clients:  # a reset, as of a machine that is gone
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if path == "/unread":  # what has no room for another byte learns of it when it reads
            with server.connect() as other:
                other.request("GET", "/tell")
        until(server, lambda stats: not any(stats[key] for key in ("active", "buffered", "files")))
        until(server, lambda stats: stats["descriptors"] <= before["descriptors"] + 2)
        stats = until(server, lambda stats: stats["tasks"] <= before["tasks"] + 2)
        assert stats["threads"] < before["threads"] + count
    assert not inventory(root)


FACES = [("gthread", "flask_app"), ("uvicorn", "quart_app")]


@pytest.mark.parametrize(("kind", "app"), FACES)
@pytest.mark.parametrize("store", ["folder", "bucket"])
def test_a_form_of_a_thousand_files_needs_no_thousand_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, app: str, store: str
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    root = str(tmp_path / "store") if store == "folder" else "memory://crowd"
    head = b'Content-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\n'
    contents = [b"%08d" % number + CONTENT[8 : 300 * KIB] for number in range(1000)]
    body = body_of(*[head + content for content in contents])
    with crowd_server(kind, app, root, descriptors=256) as server:
        answer = ask(server, "/form", body)
        assert answer.status == 200
        ids = [hashlib.sha256(content).hexdigest() for content in contents]
        assert json.loads(answer.body)["ids"] == ids
        stats = until(server, lambda stats: not stats["files"])
        assert stats["descriptors"] < 100
    assert not (tmp_path / "store" / ".hashfs").exists()
    assert not (temporary / ".hashfs").exists()


@pytest.mark.parametrize(("kind", "app"), FACES)
@pytest.mark.parametrize("path", ["/raw", "/form"])
def test_an_upload_without_a_descriptor_is_unavailable_and_the_next_is_stored(
    tmp_path: Path, kind: str, app: str, path: str
) -> None:
    root = tmp_path / "store"
    with crowd_server(kind, app, str(root), descriptors=256) as server:
        with server.connect() as upload, server.connect() as other:
            kind_of, body = parts_of(path)
            assert upload.request("GET", "/stats").status == 200
            assert other.request("GET", "/hoard").status == 200
            answer = upload.request("POST", path, [("Content-Type", kind_of)], body)
            assert answer.status == 503
            assert answer.get("Retry-After")
            assert other.request("GET", "/release").status == 200
        answer = ask(server, path, body)
        assert answer.status == 200
        until(server, lambda stats: not (stats["active"] or stats["buffered"] or stats["files"]))
    assert len([each for each in root.rglob("*") if each.is_file()]) == 1
    assert not (root / ".hashfs").exists()


def parts_of(path: str) -> tuple[str, bytes]:
    head, body = body_to(path, 0)
    (kind,) = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Type: ")]
    return kind.decode().removeprefix("Content-Type: "), body


def ask(server: Server, path: str, body: bytes) -> Answer:
    kind = parts_of(path)[0]
    with server.connect() as client:
        return client.request("POST", path, [("Content-Type", kind)], body)
