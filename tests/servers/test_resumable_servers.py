"""Resumable uploads on real servers: over workers, broken connections, and killed processes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from resumable_faces import DRAFT_CONTENT, TUS, TUS_CONTENT
from resumable_rules import BAD_APPENDS, BAD_CREATIONS, UNKNOWN_IDS
from servers import ANSWER_TIMEOUT, Answer, Server, serve

CONTENT = random.Random(11).randbytes(700_000)
ID = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)
MIB = 1024 * 1024
KILLED = int(os.environ.get("HASHFS_TEST_KILLED_UPLOADS", "4"))
"""Uploads during which a worker is killed."""
KINDS = {
    "gunicorn": ("gthread", "flask", ["--workers", "2"]),
    "gunicorn-asgi": ("gunicorn-asgi", "quart", ["--workers", "2"]),
    "uvicorn": ("uvicorn", "quart", ["--workers", "2"]),
    "hypercorn": ("hypercorn", "quart", ["--workers", "2"]),
    "granian": ("granian", "quart", []),
    "granian-wsgi": ("granian-wsgi", "flask", []),
}


@pytest.fixture(scope="module", params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def settings(root: Path) -> dict[str, str]:
    """Return the environment of a server that does not wait for the disk."""
    return {
        "FLASK_HASHFS_ROOT_FOLDER": str(root),
        "FLASK_HASHFS_UPLOADS_PATH": "/uploads",
        "FLASK_HASHFS_FSYNC": "false",
    }


@pytest.fixture(scope="module")
def server(name: str, root: Path) -> Iterator[Server]:
    kind, framework, options = KINDS[name]
    env = settings(root / name)
    with serve(kind, f"resumable_app:{framework}_app()", env=env, options=options) as running:
        yield running


def send(
    server: Server, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
) -> Answer:
    """Send one request on a connection of its own, so that any worker may get it."""
    if method in ("POST", "PATCH") and not body:
        headers = {**headers, "Content-Length": "0"}
    with server.connect() as client:
        return client.request(method, path, headers.items(), body)


def create(server: Server, length: int = SIZE) -> str:
    answer = send(server, "POST", "/uploads", {**TUS, "Upload-Length": str(length)})
    assert answer.status == 201, answer
    location = answer.get("Location")
    assert location is not None
    return location


def offset_of(server: Server, location: str) -> int:
    answer = send(server, "HEAD", location, TUS)
    assert answer.status == 200, answer
    return int(answer.get("Upload-Offset") or "")


def append(server: Server, location: str, offset: int, body: bytes) -> Answer:
    headers = {**TUS_CONTENT, "Upload-Offset": str(offset)}
    return send(server, "PATCH", location, headers, body)


def resume(server: Server, location: str, content: bytes, *, after: int) -> int:
    """Append what is missing, again each time that the answer is `after`; return the last one."""
    status, tries = after, 0
    while status == after and tries < 20:
        offset = offset_of(server, location)
        status = append(server, location, offset, content[offset:]).status
        tries += 1
    return status


def final_answer(server: Server, location: str) -> Any:
    """Ask the draft's way for the answer of the app."""
    headers = {**DRAFT_CONTENT, "Upload-Offset": str(SIZE), "Upload-Complete": "?1"}
    answer = send(server, "PATCH", location, headers)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def begin(server: Server, location: str, offset: int, length: int) -> socket.socket:
    """Open a connection and send the head of an append, whose body is yet to come."""
    connection = socket.create_connection(("127.0.0.1", server.port), 60)
    head = [
        f"PATCH {location} HTTP/1.1",
        "Host: localhost",
        "Tus-Resumable: 1.0.0",
        "Content-Type: application/offset+octet-stream",
        f"Upload-Offset: {offset}",
        f"Content-Length: {length}",
    ]
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


def data_of(root: Path, location: str) -> Path:
    return root / ".hashfs" / location.lstrip("/") / "data"


def wait_until_written(root: Path, location: str, size: int) -> None:
    """Wait until so much of an upload is in its file, though no more comes."""
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while (written := data_of(root, location).stat().st_size) < size:
        assert time.monotonic() < deadline, f"only {written} of {size} bytes are written"
        time.sleep(0.01)


def status_of(connection: socket.socket) -> int:
    data = b""
    while b"\r\n\r\n" not in data and (piece := connection.recv(4096)):
        data += piece
    return int(data.split(b" ", 2)[1]) if data else 0


def test_an_upload_in_pieces_over_the_workers(server: Server) -> None:
    location = create(server)
    for start in range(0, SIZE, 90_000):
        answer = append(server, location, start, CONTENT[start : start + 90_000])
        assert answer.status == 204, answer
        assert answer.get("Upload-Offset") == str(min(start + 90_000, SIZE))
    assert final_answer(server, location)["id"] == ID


def test_an_upload_in_one_request_of_the_draft(server: Server) -> None:
    answer = send(server, "POST", "/uploads", {"Upload-Complete": "?1"}, CONTENT)
    assert (answer.status, answer.get("Upload-Complete")) == (200, "?1")
    assert json.loads(answer.body)["id"] == ID


@pytest.mark.parametrize("complete", ["?0", "?1"])
def test_a_chunked_body(server: Server, name: str, complete: str) -> None:
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(piece), piece)
        for piece in (CONTENT[start : start + 50_000] for start in range(0, SIZE, 50_000))
    )
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        head = f"POST /uploads HTTP/1.1\r\nHost: x\r\nUpload-Complete: {complete}\r\n"
        head += "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        try:
            connection.sendall(chunks + b"0\r\n\r\n")
        except OSError:
            assert name == "granian-wsgi"
        status = status_of(connection)
    if name == "granian-wsgi" and complete == "?1":
        assert status == 411, "a body that broke off would look like a whole one"
    else:
        assert status == (200 if complete == "?1" else 201)


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_breaks_costs_little(
    server: Server, name: str, root: Path, reset: bool
) -> None:
    location = create(server)
    sent, least = 600_000, 600_000 - 128 * 1024
    connection = begin(server, location, 0, SIZE)
    connection.sendall(CONTENT[:sent])
    wait_until_written(root / name, location, least)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    offset = offset_of(server, location)
    assert least <= offset <= sent
    answer = append(server, location, offset, CONTENT[offset:])
    assert answer.status == 204, answer
    assert final_answer(server, location)["id"] == ID


def test_a_connection_that_hangs_never_stands_in_the_way(server: Server) -> None:
    location = create(server)
    with begin(server, location, 0, SIZE) as hanging:
        hanging.sendall(CONTENT[:100_000])
        time.sleep(0.5)
        offset = offset_of(server, location)
        assert offset <= 100_000
        answer = append(server, location, offset, CONTENT[offset:])
        assert answer.status == 204, answer
        try:
            hanging.sendall(CONTENT[100_000:300_000])
            status = status_of(hanging)
        except OSError:
            status = 0
        assert status in (409, 0), "the connection was closed, or told"
    assert final_answer(server, location)["id"] == ID


@pytest.mark.parametrize("kind", ["gunicorn", "gunicorn-asgi", "uvicorn"])
def test_a_silent_client_is_given_up_and_what_it_sent_is_kept(kind: str, tmp_path: Path) -> None:
    worker, framework, _ = KINDS[kind]
    env = {**settings(tmp_path), "FLASK_BODY_TIMEOUT": "1", "SILENCE": "1"}
    with serve(worker, f"resumable_app:{framework}_app()", env=env) as server:
        location = create(server)
        with begin(server, location, 0, SIZE) as silent:
            silent.sendall(CONTENT[:300_000])
            assert status_of(silent) == 408
        offset = offset_of(server, location)
        assert data_of(tmp_path, location).read_bytes() == CONTENT[:offset]
        assert resume(server, location, CONTENT, after=408) == 204  # a slow client is silent, too
        assert final_answer(server, location)["id"] == ID


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_256_uploads_that_broke_off_at_once_all_end(kind: str, tmp_path: Path) -> None:
    worker, framework, options = KINDS[kind]
    env = settings(tmp_path)
    contents = [random.Random(seed).randbytes(30_000) for seed in range(256)]
    app = f"resumable_app:{framework}_app()"
    with serve(worker, app, env=env, options=options) as server:
        locations = [create(server, len(content)) for content in contents]
        broken = []
        for location, content in zip(locations, contents, strict=True):
            broken.append(begin(server, location, 0, len(content)))
            broken[-1].sendall(content[:20_000])
        for connection in broken:
            connection.close()

        # A worker may only now take the request that broke off, and the newest one has the upload.
        go_on = partial(resume, server, after=409)
        with ThreadPoolExecutor(64) as pool:
            assert set(pool.map(go_on, locations, contents)) == {204}
        assert not list(tmp_path.glob(".hashfs/uploads/*/data"))
        stored = {path.read_bytes() for path in tmp_path.glob("?/**/*") if path.is_file()}
        assert stored == set(contents)


def test_two_clients_never_mix_bytes(server: Server) -> None:
    location = create(server)
    errors: list[BaseException] = []

    def upload(seed: int) -> None:
        rng = random.Random(seed)
        try:
            while (offset := offset_of(server, location)) < SIZE:
                size = rng.choice([20_000, 100_000])
                answer = append(server, location, offset, CONTENT[offset : offset + size])
                assert answer.status in (204, 409, 413), answer
        except BaseException as error:
            errors.append(error)

    clients = [threading.Thread(target=upload, args=(seed,)) for seed in range(2)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(120)
    assert errors == []
    assert final_answer(server, location)["id"] == ID


def usage_of(server: Server) -> dict[str, int]:
    """Return what the one worker uses: memory, now and at most since the last call, and reads."""
    found: dict[str, int] = json.loads(send(server, "GET", "/usage", {}).body)
    return found


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="looks at /proc")
@pytest.mark.parametrize("kind", ["gunicorn", "gunicorn-asgi", "uvicorn", "hypercorn", "granian"])
def test_the_memory_does_not_grow_with_the_upload(kind: str, tmp_path: Path) -> None:
    worker, framework, _ = KINDS[kind]
    piece = random.Random(5).randbytes(4 * MIB)

    def upload(server: Server, count: int) -> None:
        location = create(server, count * len(piece))
        for number in range(count):
            assert append(server, location, number * len(piece), piece).status == 204

    with serve(worker, f"resumable_app:{framework}_app()", env=settings(tmp_path)) as server:
        upload(server, 4)  # what is loaded and kept by the first requests
        usage_of(server)
        before = usage_of(server)["now"]
        upload(server, 24)
        assert usage_of(server)["peak"] - before <= 24 * MIB, "of 96 MiB"


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="looks at /proc")
@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_a_question_reads_no_byte_of_the_upload(kind: str, tmp_path: Path) -> None:
    worker, framework, _ = KINDS[kind]
    reads = []
    with serve(worker, f"resumable_app:{framework}_app()", env=settings(tmp_path)) as server:
        for size in (10 * 1024, 10 * 1024 * MIB):
            location = create(server, 20 * 1024 * MIB)
            os.truncate(data_of(tmp_path, location), size)
            offset_of(server, location)
            before = usage_of(server)["read"]
            for _ in range(10):
                assert offset_of(server, location) == size
            reads.append(usage_of(server)["read"] - before)
    small, large = reads
    assert large < small + MIB, "whether 10 KiB or 10 GiB of it are there"


def test_hostile_input_gets_its_status_and_leaves_nothing(
    server: Server, name: str, root: Path
) -> None:
    uploads = root / name / ".hashfs" / "uploads"
    before = sorted(uploads.iterdir()) if uploads.exists() else []
    for method, headers, status in BAD_CREATIONS:
        answer = send(server, method, "/uploads", headers, b"body")
        assert answer.status == status, (method, headers)
    for id in UNKNOWN_IDS:
        for method in ("HEAD", "GET", "PATCH", "DELETE"):
            headers = {**TUS_CONTENT, "Upload-Offset": "0"}
            answer = send(server, method, f"/uploads/{id}", headers)
            assert answer.status == 404, (method, id)
    assert (sorted(uploads.iterdir()) if uploads.exists() else []) == before
    location = create(server)
    for headers, status in BAD_APPENDS:
        answer = send(server, "PATCH", location, headers, CONTENT[:9])
        assert answer.status == status, headers
    assert offset_of(server, location) == 0


def test_an_early_answer_reaches_the_client(server: Server) -> None:
    location = create(server)
    answer = append(server, location, 7, CONTENT)
    assert (answer.status, answer.get("Upload-Offset")) == (409, "0")
    answer = append(server, location, 0, CONTENT + b"more")
    assert answer.status == 413
    assert offset_of(server, location) == 0


def test_an_early_answer_does_not_wait_for_the_content(server: Server) -> None:
    location = create(server)
    with begin(server, location, 7, SIZE) as connection:
        connection.settimeout(30)
        assert status_of(connection) == 409, "before any content was sent"


@pytest.mark.parametrize("version", [None, 5, 6, 8])
def test_104_tells_where_the_upload_is_before_its_content_is_sent(
    server: Server, name: str, version: int | None
) -> None:
    sends = name.startswith("gunicorn") and version in (6, 8)
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        head = "POST /uploads HTTP/1.1\r\nHost: x\r\nUpload-Complete: ?1\r\nConnection: close\r\n"
        head += f"Content-Length: {SIZE}\r\n"
        head += f"Upload-Draft-Interop-Version: {version}\r\n" if version else ""
        connection.sendall((head + "\r\n").encode())
        interim = b""
        if sends:
            while b"\r\n\r\n" not in interim:
                interim += connection.recv(4096)
        connection.sendall(CONTENT)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert (b" 104 " in interim + answer.partition(b"\r\n\r\n")[0]) is sends
    if sends:
        fields = dict(line.lower().split(b": ", 1) for line in interim.split(b"\r\n")[1:-2])
        assert fields[b"location"] in answer
        assert b"max-age=" in fields[b"upload-limit"]
        assert fields[b"upload-draft-interop-version"] == str(version).encode()


def workers_of(server: Server) -> list[int]:
    """Return the processes that answer requests."""
    pid = server.process.pid
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [each for each in map(int, text.split()) if _is_worker(each)]


def _is_worker(pid: int) -> bool:
    try:
        return b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return False


@pytest.mark.parametrize("kind", ["gunicorn", "gunicorn-asgi", "uvicorn"])
def test_a_client_that_stalls_loses_at_most_64_kib_when_its_worker_is_killed(
    kind: str, tmp_path: Path
) -> None:
    worker, framework, options = KINDS[kind]
    env = {
        "FLASK_HASHFS_ROOT_FOLDER": str(tmp_path),
        "FLASK_HASHFS_UPLOADS_PATH": "/uploads",
    }
    least = 600_000 - 64 * 1024 - 8 * 1024  # the last is gunicorn's own buffer
    app = f"resumable_app:{framework}_app()"
    with serve(worker, app, env=env, options=options) as server:
        location = create(server)
        data = data_of(tmp_path, location)
        with begin(server, location, 0, SIZE) as stalled:
            stalled.sendall(CONTENT[:600_000])
            wait_until_written(tmp_path, location, least)
            for pid in workers_of(server):
                os.kill(pid, signal.SIGKILL)
        while True:
            try:
                offset = offset_of(server, location)
            except (OSError, EOFError):  # no worker is there yet
                time.sleep(0.05)
            else:
                break
        assert least <= offset <= 600_000
        assert data.read_bytes() == CONTENT[:offset]


@pytest.mark.parametrize("kind", ["gunicorn", "gunicorn-sync", "gunicorn-asgi", "uvicorn"])
@pytest.mark.timeout(60 + 60 * KILLED)
def test_what_was_told_survives_killed_workers(kind: str, tmp_path: Path) -> None:
    # hypercorn ends with a worker that was killed, and granian does not start another one.
    worker, framework, options = KINDS.get(kind, ("gunicorn", "flask", ["--workers", "2"]))
    env = settings(tmp_path / "root")
    app = f"resumable_app:{framework}_app()"
    with serve(worker, app, env=env, options=options) as server:
        for number in range(KILLED):
            _upload_through_a_kill(server, number)


def _kill_worker(server: Server, rng: random.Random) -> None:
    if workers := workers_of(server):
        os.kill(rng.choice(workers), signal.SIGKILL)


def _upload_through_a_kill(server: Server, number: int) -> None:
    """Upload, while a worker is killed at a random moment of one of the requests."""
    rng = random.Random(number)
    content = rng.randbytes(400_000)
    fatal = rng.randrange(len(content))  # in the request that brings this byte
    told, location, killer = 0, None, None
    deadline = time.monotonic() + 240
    while told < len(content):
        assert time.monotonic() < deadline
        try:
            if location is None:
                location = create(server, len(content))
            told, before = offset_of(server, location), told
            assert told >= before, "what was told is lost"
            if killer is None and told + 60_000 > fatal:
                killer = threading.Timer(rng.uniform(0, 0.02), _kill_worker, (server, rng))
                killer.start()
            answer = append(server, location, told, content[told : told + 60_000])
            if answer.status == 204:
                told = int(answer.get("Upload-Offset") or "")
        except (OSError, EOFError, ValueError):
            time.sleep(0.05)
    assert killer is not None
    killer.join()
    id = hashlib.sha256(content).hexdigest()
    while True:
        assert time.monotonic() < deadline
        try:
            headers = {**DRAFT_CONTENT, "Upload-Offset": str(told), "Upload-Complete": "?1"}
            answer = send(server, "PATCH", str(location), headers)
            assert (answer.status, json.loads(answer.body)["id"]) == (200, id)
            return
        except (OSError, EOFError, ValueError):
            time.sleep(0.05)
