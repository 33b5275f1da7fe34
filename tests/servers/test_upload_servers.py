"""Uploads into real servers of both frameworks, by clients that keep to no rule."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from local_stores import inventory
from multipart_cases import BOUNDARY, MALFORMED, NAMED, body_of, file_part
from servers import ANSWER_TIMEOUT, Answer, Server, _read_answer, serve

FORM = f"multipart/form-data; boundary={BOUNDARY}"
FLASK_SERVERS = ("gunicorn", "gthread", "granian-wsgi", "uwsgi")
QUART_SERVERS = ("hypercorn", "uvicorn", "uvicorn-httptools", "granian")
#: These servers hand a chunked body to these apps without telling where it ends.
UNENDED = [
    ("uwsgi", "flask_app"),
    ("uwsgi-router", "flask_app"),
    ("hypercorn-wsgi", "flask_app"),
    ("wsgiref", "flask_app"),
    ("uvicorn", "flask_by_a2wsgi"),
    ("granian", "flask_by_asgiref"),
]
MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at /proc")


@dataclass(frozen=True)
class Peer:
    """A server of `upload_app`, and the root of its store."""

    kind: str
    app: str
    server: Server
    root: Path

    @property
    def ends_chunks(self) -> bool:
        """Whether a chunked body gets as far as the app."""
        return (self.kind, self.app) not in UNENDED

    def exchange(self, message: bytes, *, end: bool = False) -> Answer | None:
        """Send bytes and, where asked to, break off; return the answer, if there is one."""
        address = ("127.0.0.1", self.server.port)
        with socket.create_connection(address, ANSWER_TIMEOUT) as client:
            try:
                client.sendall(message)
                if end:
                    client.shutdown(socket.SHUT_WR)
            except OSError:  # answered and closed before all was sent
                pass
            with client.makefile("rb") as stream:
                try:
                    return _read_answer(stream, "POST")[0]
                except (EOFError, ConnectionResetError):
                    return None


@contextmanager
def start(kind: str, root: Path, app: str | None = None, **config: str) -> Iterator[Peer]:
    env = {"FLASK_HASHFS_ROOT_FOLDER": str(root), "FLASK_HASHFS_FSYNC": "false"}
    env.update({f"FLASK_{key}": value for key, value in config.items()})
    app = app or ("flask_app" if kind in FLASK_SERVERS else "quart_app")
    with serve(kind, f"upload_app:{app}()", env=env, ready="/descriptors") as server:
        yield Peer(kind, app, server, root)
        log = server.log()
    assert "Traceback" not in log, log


@pytest.fixture(scope="module", params=[*FLASK_SERVERS, *QUART_SERVERS])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peer]:
    root, limits = tmp_path_factory.mktemp("store"), {"HASHFS_MAX_FILE_SIZE": "1000000"}
    with start(request.param, root, MAX_CONTENT_LENGTH="2000000", **limits) as peer:
        yield peer


@pytest.fixture
def peer(running: Peer) -> Iterator[Peer]:
    """A server that holds nothing of its store open at the end, and whose every file is whole."""
    yield running
    deadline = time.monotonic() + ANSWER_TIMEOUT  # a client gone is noticed after he is gone
    with running.server.connect() as client:
        while (found := json.loads(client.request("GET", "/descriptors").body)) != []:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
    for path in inventory(running.root):
        id = "".join(path.relative_to(running.root).parts)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == id


def http(path: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(body: bytes, size: int = 1000) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


UPLOADS = {
    "raw": ("/raw", "Content-Type: application/octet-stream", os.urandom(400_000)),
    "form": ("/form", f"Content-Type: {FORM}", body_of(file_part(os.urandom(400_000)))),
    "small form": ("/form", f"Content-Type: {FORM}", body_of(NAMED, file_part(os.urandom(50)))),
    "urlencoded": (
        "/fields", "Content-Type: application/x-www-form-urlencoded", b"a=" + b"x" * 9000
    ),
    "data": ("/data", "Content-Type: text/plain", b"x" * 9000),
}  # fmt: skip
BROKEN_CHUNKS = {
    "no last chunk": lambda body: chunked(body).removesuffix(b"0\r\n\r\n"),
    "cut within a chunk": lambda body: chunked(body)[: len(body) // 2],
    "cut within a size": lambda body: chunked(body, len(body))[:2],
    "a size that is none": lambda body: b"5\r\nabcde\r\nxyz\r\n" + chunked(body),
    "a negative size": lambda body: b"-5\r\nabcde\r\n" + chunked(body),
    "a chunk longer than its size": lambda body: b"5\r\nabcdefgh\r\n" + chunked(body),
    "no line break after a chunk": lambda body: b"5\r\nabcde" + chunked(body),
}
CHUNKED = "Transfer-Encoding: chunked"


def stored(answer: Answer | None) -> str:
    assert answer is not None
    assert answer.status == 200
    found = json.loads(answer.body)
    id: str = found["id"] if "id" in found else found["files"][0][2]
    return id


def assert_refused(peer: Peer, answer: Answer | None) -> None:
    if answer is None:  # some answer nobody who has closed his half of the connection
        assert peer.kind in {"granian-wsgi", "uvicorn", "uvicorn-httptools"}
    else:
        assert answer.status == 400


@pytest.mark.parametrize("kind", ["raw", "form", "small form"])
def test_whole_bodies_on_a_server(peer: Peer, kind: str) -> None:
    path, header, body = UPLOADS[kind]
    id = stored(peer.exchange(http(path, header, f"Content-Length: {len(body)}", body=body)))
    if peer.ends_chunks:
        assert stored(peer.exchange(http(path, header, CHUNKED, body=chunked(body)))) == id
    assert any("".join(file.parts).endswith(id[8:]) for file in inventory(peer.root))


@pytest.mark.parametrize("kind", UPLOADS)
def test_a_body_shorter_than_its_content_length(peer: Peer, kind: str) -> None:
    path, header, body = UPLOADS[kind]
    before = inventory(peer.root)
    length = f"Content-Length: {len(body)}"
    for at in (0, 1, 100, len(body) // 2, len(body) - 1):
        cut = body[: min(at, len(body) - 1)]
        assert_refused(peer, peer.exchange(http(path, header, length, body=cut), end=True))
    assert inventory(peer.root) == before


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "app"), UNENDED)
def test_a_chunked_body_that_the_server_does_not_end_is_refused(
    kind: str, app: str, tmp_path: Path
) -> None:
    """Never stored as the empty file, nor with its chunk sizes in it."""
    with start(kind, tmp_path, app) as peer:
        for path, header, body in UPLOADS.values():
            answer = peer.exchange(http(path, header, CHUNKED, body=chunked(body)))
            if answer is None:  # reset: the server closed with the body unread, as TCP has it
                continue
            assert answer.status == 411, answer
            assert b"Content-Length" in answer.body
        if kind.startswith("uwsgi"):  # the others refuse both together
            message = http("/raw", "Content-Length: 5", CHUNKED, body=chunked(b"hello"))
            answer = peer.exchange(message)
            assert answer is not None
            assert answer.status == 411
        answer = peer.exchange(http("/raw", CHUNKED, body=chunked(b"hello")))
        assert answer is not None
        assert answer.status == 411
        assert inventory(tmp_path) == []


@pytest.mark.parametrize("broken", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
@pytest.mark.parametrize("kind", UPLOADS)
def test_broken_chunking(peer: Peer, kind: str, broken: Callable[[bytes], bytes]) -> None:
    path, header, body = UPLOADS[kind]
    before = inventory(peer.root)
    if peer.kind == "granian-wsgi":
        pytest.skip("granian ends a broken chunked body like a whole one, and tells nobody")
    if not peer.ends_chunks:
        pytest.skip("this server's chunked bodies are refused, broken or not")
    message = http(path, header, CHUNKED, body=broken(body))
    assert_refused(peer, peer.exchange(message, end=True))
    assert inventory(peer.root) == before


def test_limits_on_a_server(peer: Peer) -> None:
    before = inventory(peer.root)
    form = f"Content-Type: {FORM}"
    for path, header, body in (
        ("/raw", "Content-Type: x/y", b"x" * 1_000_001),
        ("/form", form, body_of(file_part(b"x" * 1_000_001))),
        ("/form", form, body_of(*[file_part(b"x" * 900_000)] * 3)),
        ("/data", "Content-Type: x/y", b"x" * 2_000_001),
    ):
        for message in (
            http(path, header, f"Content-Length: {len(body)}", body=body),
            http(path, header, CHUNKED, body=chunked(body, 100_000)),
        ):
            answer = peer.exchange(message)
            assert answer is None or answer.status == (
                411 if CHUNKED.encode() in message and not peer.ends_chunks else 413
            )
    assert inventory(peer.root) == before


def test_every_byte_of_a_small_form_on_a_server(peer: Peer) -> None:
    before = inventory(peer.root)
    body = body_of(NAMED + b"\r\na", file_part(b"never stored"))
    for at in range(0, len(body) - 1, 3):
        length = f"Content-Length: {len(body)}"
        message = http("/form", f"Content-Type: {FORM}", length, body=body[:at])
        assert_refused(peer, peer.exchange(message, end=True))
    assert inventory(peer.root) == before


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_forms_on_a_server(peer: Peer, body: bytes) -> None:
    before = inventory(peer.root)
    body = body_of(file_part(b"never stored" * 50_000)).removesuffix(b"--bound--\r\n") + body
    length = f"Content-Length: {len(body)}"
    answer = peer.exchange(http("/form", f"Content-Type: {FORM}", length, body=body))
    if answer is not None or len(body) < MIB:  # some close on a client that sends on
        assert answer is not None
        assert answer.status == (400 if len(body) < 2_000_000 else 413)
    assert inventory(peer.root) == before


def test_clients_that_go_at_any_moment(peer: Peer) -> None:
    """200 uploads, 8 at a time, cut at random; what is stored must be whole (see `peer`)."""
    before = inventory(peer.root)
    dice = random.Random(peer.kind)
    turns = []
    for number in range(200):
        path, header, body = UPLOADS[dice.choice(["raw", "form", "small form"])]
        body = body.replace(b"\0", b"%d" % number, 1)
        in_chunks = number % 2 and peer.kind != "granian-wsgi"  # see test_broken_chunking
        framed = chunked(body, 50_000) if in_chunks else body
        length = CHUNKED if in_chunks else f"Content-Length: {len(body)}"
        message = http(path, header, length, body=framed)
        turns.append(message[: dice.randrange(len(message) - 10)])

    def go(turns: list[bytes], dice: random.Random) -> None:
        for message in turns:
            with socket.create_connection(("127.0.0.1", peer.server.port)) as client:
                with suppress(OSError):  # refused already
                    client.sendall(message)
                if dice.random() < 0.5:
                    time.sleep(dice.random() / 50)
                if dice.random() < 0.3:  # with a reset instead of an orderly end
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    threads = [
        threading.Thread(target=go, args=(turns[number::8], random.Random(number)))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with peer.server.connect() as client:
        assert client.request("GET", "/descriptors").status == 200
    assert inventory(peer.root) == before


def test_http_1_0(peer: Peer) -> None:
    path, header, body = UPLOADS["form"]
    message = http(path, header, f"Content-Length: {len(body)}", body=body)
    answer = peer.exchange(message.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert stored(answer)


def test_http_2(unlimited: Peer) -> None:
    if unlimited.kind != "hypercorn":
        pytest.skip("of hypercorn")
    content = os.urandom(3 * MIB)
    id = hashlib.sha256(content).hexdigest()
    with httpx.Client(
        base_url=unlimited.server.url, http1=False, http2=True, timeout=ANSWER_TIMEOUT
    ) as client:
        assert client.post("/raw", content=content).json() == {"id": id}
        assert client.post("/form", files={"f": content}).json()["files"][0][2] == id
        assert client.post("/unread", content=content).json() == {"size": 0}
        assert client.post("/small", content=content).status_code == 413
        assert client.post("/slow", content=content).json() == {"size": len(content)}


# Memory.


def peak(peer: Peer) -> dict[str, int]:
    with peer.server.connect() as client:
        found: dict[str, int] = json.loads(client.request("GET", "/memory").body)
        return found


@pytest.fixture(scope="module", params=QUART_SERVERS)
def unlimited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Peer]:
    with start(request.param, tmp_path_factory.mktemp("store"), MAX_CONTENT_LENGTH="null") as peer:
        yield peer


@pytest.mark.parametrize("path", ["/raw", "/form", "/slow", "/unread"])
def test_the_memory_does_not_grow_with_the_upload(unlimited: Peer, path: str) -> None:
    total, piece = 96 * MIB, os.urandom(MIB)
    form, end = (file_part(b""), b"\r\n--bound--\r\n") if path == "/form" else (b"", b"")
    start = b"--bound\r\n" + form if form else b""
    length = len(start) + total + len(end)
    head = http(path, f"Content-Type: {FORM}", f"Content-Length: {length}", body=start)
    peak(unlimited)
    before = peak(unlimited)["now"]
    with socket.create_connection(("127.0.0.1", unlimited.server.port), ANSWER_TIMEOUT) as client:
        try:
            client.sendall(head)
            for _ in range(total // MIB):
                client.sendall(piece)
            client.sendall(end)
        except OSError:  # granian closes when it has answered
            assert path == "/unread"
        with client.makefile("rb") as stream:
            answer, _ = _read_answer(stream, "POST")
    assert answer.status == 200
    assert peak(unlimited)["peak"] - before <= 8 * MIB
    for file in inventory(unlimited.root):
        if file.stat().st_size == total:
            file.unlink()
