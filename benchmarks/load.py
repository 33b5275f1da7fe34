"""The load generator: a process of its own that speaks plain HTTP/1.1 over many connections.

It reads one order a line (JSON) and answers each with one line. One thread and one selector:
sending is a ``sendmsg`` of bytes that exist already, receiving reads into one buffer, so that it
can do several times what any server here can. ``python load.py sink`` is a server for its ceiling.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

MIB = 1024 * 1024
TIMEOUT = 120.0  # seconds without any progress
BOUNDARY = b"----benchmark0123456789"
BASE = bytearray(os.urandom(MIB))  # touched once, sent ever after
BUFFER = bytearray(MIB)


class Connection:
    """One client: sends a request, reads the answer, and begins again."""

    def __init__(self, port: int, requests: list[list[memoryview]]) -> None:
        self.port, self.requests = port, requests
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.received = 0
        self.socket = self._connect()
        self._next()

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        return connected

    def _next(self) -> None:
        self.out = self.requests.pop()
        self.is_head = bytes(self.out[0][:5]) == b"HEAD "
        self.begun = time.perf_counter()
        self.head = b""
        self.left: int | None = None

    @property
    def events(self) -> int:
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0)

    def send(self) -> None:
        try:
            sent = self.socket.sendmsg(self.out[:64])
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self.out = []  # an answer may have come before the end
            return
        while self.out and sent >= len(self.out[0]):
            sent -= len(self.out.pop(0))
        if sent:
            self.out[0] = self.out[0][sent:]

    def receive(self) -> bool:
        """Read what is there; return whether the last answer is complete."""
        try:
            count = self.socket.recv_into(BUFFER)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            count = 0
        if not count:
            return self._done("closed")
        if self.left is None:
            self.head += bytes(memoryview(BUFFER)[:count])
            head, end, rest = self.head.partition(b"\r\n\r\n")
            if not end:
                return False
            self.status = head[9:12].decode()
            self.closes = b"connection: close" in head.lower()
            _, found, length = head.lower().partition(b"\r\ncontent-length:")
            if self.is_head or self.status == "204":
                found, length = b"none", b"0"
            elif b"\r\ntransfer-encoding: chunked" in head.lower():
                if not rest.endswith(b"0\r\n\r\n"):
                    return False
                found, length = b"chunked", b"%d" % len(rest)
            if not found:
                return self._done("no length")
            self.left = int(length.split(b"\r\n", 1)[0]) - len(rest)
            self.received += len(rest)
        else:
            self.left -= count
            self.received += count
        return self.left <= 0 and self._done(self.status)

    def _done(self, status: str) -> bool:
        self.statuses[status] += 1
        self.latencies.append(time.perf_counter() - self.begun)
        if status in ("closed", "no length") or not self.requests:
            self.socket.close()
            return True
        if self.closes:
            self.socket.close()
            self.socket = self._connect()
        self._next()
        return False


Steps = Generator[list[memoryview], bytes, None]


class Session(Connection):
    """A client whose next request follows from the head of the answer before."""

    def __init__(self, port: int, steps: Steps) -> None:
        self._steps = steps
        super().__init__(port, [next(steps)])

    def _done(self, status: str) -> bool:
        with contextlib.suppress(StopIteration):
            self.requests = [self._steps.send(self.head)]
        return super()._done(status)


def drive(port: int, plans: list[list[list[memoryview]]]) -> dict[str, Any]:
    """Run one connection for each plan, a list of requests, until all are answered."""
    return run([partial(Connection, port, plan) for plan in plans])


def run(clients: list[Callable[[], Connection]]) -> dict[str, Any]:
    """Connect all clients, and run them until the last one is done."""
    begin, cpu = time.perf_counter(), time.process_time()
    with selectors.DefaultSelector() as selector:
        done = [connect() for connect in clients]
        for connection in done:
            selector.register(connection.socket, connection.events, connection)
        running = len(done)
        while running:
            ready = selector.select(TIMEOUT)
            if not ready:
                raise TimeoutError(f"{running} of {len(done)} clients saw nothing more")
            for key, events in ready:
                connection: Connection = key.data
                before, events_before = connection.socket, connection.events
                finished = False
                if events & selectors.EVENT_WRITE:
                    connection.send()
                if events & selectors.EVENT_READ:
                    finished = connection.receive()
                if finished:
                    selector.unregister(before)
                    running -= 1
                elif connection.socket is not before:
                    selector.unregister(before)
                    selector.register(connection.socket, connection.events, connection)
                elif connection.events != events_before:
                    selector.modify(before, connection.events, connection)
    seconds = time.perf_counter() - begin
    statuses: Counter[str] = sum((connection.statuses for connection in done), Counter())
    return {
        "seconds": seconds,
        "cpu": time.process_time() - cpu,
        "latencies": sorted(one for connection in done for one in connection.latencies),
        "statuses": statuses,
        "received": sum(connection.received for connection in done),
    }


def upload_request(
    encoding: str, size: int, path: str = "", begin: bytes = b""
) -> list[memoryview]:
    """Return a request whose content nobody has sent before, as pieces that share their bytes.

    Args:
        encoding: "raw", "multipart", or "resumable": a creation of tus that has the content too.
    """
    if encoding == "resumable":
        return request("POST /uploads", [f"Upload-Length: {size}", PATCH_TYPE], content(size))
    pieces = [begin + os.urandom(16)]
    left = size - 16 - len(begin)
    view = memoryview(BASE)
    body: list[Any] = [*pieces, *[view] * (left // MIB), view[: left % MIB]]
    kind = "application/octet-stream"
    if encoding == "multipart":
        kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
        disposition = b'Content-Disposition: form-data; name="file"; filename="picture.bin"'
        head = b"--" + BOUNDARY + b"\r\n" + disposition
        head += b"\r\nContent-Type: application/octet-stream\r\n\r\n"
        body = [head, *body, b"\r\n--" + BOUNDARY + b"--\r\n"]
    length = sum(len(piece) for piece in body)
    lines = [
        f"POST {path or '/' + encoding} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {kind}",
        f"Content-Length: {length}",
    ]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return [memoryview(piece) for piece in (head, *body) if len(piece)]


def uploads(
    port: int,
    clients: int,
    size: int,
    requests: int,
    encoding: str,
    path: str = "",
    begin: str = "",
) -> dict[str, Any]:
    """Let `clients` upload `requests` files each, all at once; `begin` is in hex."""
    plans = [
        [upload_request(encoding, size, path, bytes.fromhex(begin)) for _ in range(requests)]
        for _ in range(clients)
    ]
    return drive(port, plans)


def downloads(
    port: int, clients: int, requests: int, targets: list[str], ranges: list[str]
) -> dict[str, Any]:
    """Let `clients` fetch `requests` answers each, going round `targets` and `ranges`."""
    made = []
    for index in range(requests):
        lines = [f"GET {targets[index % len(targets)]} HTTP/1.1", "Host: 127.0.0.1"]
        if ranges:
            lines.append(f"Range: bytes={ranges[index % len(ranges)]}")
        made.append(("\r\n".join(lines) + "\r\n\r\n").encode())
    return drive(port, [[[memoryview(line)] for line in made] for _ in range(clients)])


def slow_uploads(
    port: int, clients: int, size: int, encoding: str, seconds: float
) -> dict[str, Any]:
    """Let `clients` send their files at a steady pace, each over so many seconds."""
    connections = [Connection(port, [upload_request(encoding, size)]) for _ in range(clients)]
    begin = time.monotonic()
    sent = [0] * clients
    total = [sum(map(len, connection.out)) for connection in connections]
    while any(connection.out for connection in connections):
        passed = time.monotonic() - begin
        if passed > seconds + TIMEOUT:
            raise TimeoutError("the uploads do not end")
        for index, connection in enumerate(connections):
            quota = int(total[index] * min(1.0, passed / seconds)) - sent[index]
            if connection.out and quota > 0:
                sent[index] += _send_some(connection, quota)
        time.sleep(0.02)
    waiting = set(connections)
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        while waiting:
            ready = selector.select(TIMEOUT)
            if not ready:
                raise TimeoutError(f"{len(waiting)} clients saw nothing more")
            for key, _ in ready:
                selector_socket = key.data.socket
                if key.data.receive():
                    selector.unregister(selector_socket)
                    waiting.discard(key.data)
    statuses: Counter[str] = sum((connection.statuses for connection in connections), Counter())
    return {"seconds": time.monotonic() - begin, "statuses": statuses}


# --- a crowd that holds its uploads -------------------------------------------------------------

_crowd: list[Connection] = []


def hold(
    port: int, clients: int, size: int, encoding: str, sent: int, at_once: int = 64
) -> dict[str, Any]:
    """Let `clients` begin an upload each, and send no more when `sent` bytes of it are.

    Args:
        at_once: How many send at the same time; the others wait, or have sent already.
    """
    begun, quotas = time.perf_counter(), dict[Connection, int]()
    with selectors.DefaultSelector() as selector:
        waiting = clients
        while waiting or quotas:
            while waiting and len(quotas) < at_once:
                connection = Connection(port, [upload_request(encoding, size)])
                _crowd.append(connection)
                quotas[connection] = sent
                waiting -= 1
                selector.register(connection.socket, selectors.EVENT_WRITE, connection)
            ready = selector.select(TIMEOUT)
            if not ready:
                raise TimeoutError(f"{len(quotas)} clients could send nothing more")
            for key, _ in ready:
                connection = key.data
                quotas[connection] -= _send_some(connection, quotas[connection])
                if quotas[connection] <= 0:
                    selector.unregister(connection.socket)
                    del quotas[connection]
    return {"seconds": time.perf_counter() - begun, "statuses": {}}


def finish() -> dict[str, Any]:
    """Send the rest of all uploads that are held, at once, and wait for the answers."""
    held = [*_crowd]
    _crowd.clear()
    return run([partial(_same, connection) for connection in held])


def vanish() -> dict[str, Any]:
    """Reset the connections of all uploads that are held."""
    for connection in _crowd:
        reset = struct.pack("ii", 1, 0)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    for connection in _crowd:
        connection.socket.close()
    _crowd.clear()
    return {"statuses": {}}


def _same(connection: Connection) -> Connection:
    return connection


# --- resumable uploads, by tus -------------------------------------------------------------------

TUS = ["Host: 127.0.0.1", "Tus-Resumable: 1.0.0"]
PATCH_TYPE = "Content-Type: application/offset+octet-stream"


def request(line: str, fields: list[str], body: Sequence[memoryview] = ()) -> list[memoryview]:
    """Return a request of tus as pieces."""
    length = sum(len(piece) for piece in body)
    lines = [f"{line} HTTP/1.1", *TUS, *fields]
    if not line.startswith("HEAD"):
        lines.append(f"Content-Length: {length}")
    return [memoryview("\r\n".join([*lines, "", ""]).encode()), *body]


def content(size: int) -> list[memoryview]:
    """Return content that nobody has sent before, as pieces that share their bytes."""
    start, view, left = memoryview(os.urandom(min(16, size))), memoryview(BASE), max(0, size - 16)
    body = [start, *[view] * (left // MIB), view[: left % MIB]]
    return [piece for piece in body if len(piece)]


def field_of(head: bytes, name: str) -> str:
    """Return the value of a field of an answer."""
    for line in head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    raise ValueError(f"no {name} in {head[:200]!r}")


def path_of(head: bytes) -> str:
    """Return the path of the upload that an answer has created."""
    location = field_of(head, "location")
    return "/" + location.split("/", 3)[3] if "://" in location else location


def creation(size: int) -> list[memoryview]:
    return request("POST /uploads", [f"Upload-Length: {size}"])


def append(path: str, offset: int, size: int) -> list[memoryview]:
    fields = [PATCH_TYPE, f"Upload-Offset: {offset}"]
    return request(f"PATCH {path}", fields, content(size))


def whole(size: int, piece: int) -> Steps:
    """Create an upload, and send it in pieces."""
    path = path_of((yield creation(size)))
    for offset in range(0, size, piece):
        yield append(path, offset, min(piece, size - offset))


def rest(path: str, size: int) -> Steps:
    """Ask how far an upload is, and send the rest."""
    offset = int(field_of((yield request(f"HEAD {path}", [])), "upload-offset"))
    yield append(path, offset, size - offset)


def resumable(port: int, clients: int, size: int, piece: int) -> dict[str, Any]:
    """Let `clients` upload a file each, in pieces, all at once."""
    return run([partial(Session, port, whole(size, piece)) for _ in range(clients)])


def begin(port: int, clients: int, size: int, sent: int) -> dict[str, Any]:
    """Let `clients` create an upload each and break off after so many bytes."""
    paths: list[str] = []

    def create() -> Steps:
        paths.append(path_of((yield creation(size))))

    done = run([partial(Session, port, create()) for _ in range(clients)])
    for path in paths:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
            head, *_ = append(path, 0, size)
            for piece in (head, *content(sent)):
                connection.sendall(piece)
    return {**done, "paths": paths}


def resume(port: int, paths: list[str], size: int) -> dict[str, Any]:
    """Go on with uploads, all at once."""
    return run([partial(Session, port, rest(path, size)) for path in paths])


def heads(port: int, paths: list[str], requests: int) -> dict[str, Any]:
    """Ask again and again how far uploads are, one client for each."""
    return drive(port, [[request(f"HEAD {path}", []) for _ in range(requests)] for path in paths])


def _send_some(connection: Connection, quota: int) -> int:
    try:
        count = connection.socket.send(connection.out[0][:quota])
    except BlockingIOError:
        return 0
    connection.out[0] = connection.out[0][count:]
    if not len(connection.out[0]):
        connection.out.pop(0)
    return count


def sink(port: int) -> None:
    """Serve the cheapest answers there are: throw uploads away, send zeros.

    ``GET /<number>`` is answered with so many bytes. This is what the generator is held against.
    """
    zeros = memoryview(bytes(16 * MIB))

    def answer(client: socket.socket) -> None:
        buffer = bytearray(MIB)
        with client:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    count = client.recv_into(buffer)
                    if not count:
                        return
                    head += bytes(memoryview(buffer)[:count])
                first, _, rest = head.partition(b"\r\n\r\n")
                _, found, length = first.lower().partition(b"content-length:")
                left = int(length.split(b"\r\n")[0]) - len(rest) if found else 0
                while left > 0:
                    left -= client.recv_into(buffer) or left
                number = first.split(b" ")[1].strip(b"/")
                size = int(number) if number.isdigit() else 2
                line = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
                client.sendmsg([line, zeros[: min(size, MIB)]])
                if size > MIB:
                    client.sendall(zeros[MIB:size])

    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=answer, args=(client,), daemon=True).start()


ORDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "uploads": uploads,
    "downloads": downloads,
    "slow_uploads": slow_uploads,
    "hold": hold,
    "finish": finish,
    "vanish": vanish,
    "resumable": resumable,
    "begin": begin,
    "resume": resume,
    "heads": heads,
}


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = ORDERS[order.pop("order")](**order)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["sink"]:
        sink(int(sys.argv[2]))
    else:
        main()
