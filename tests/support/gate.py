"""A small S3 that a test can look into, count at, take down and have lie.

It keeps its objects itself, or passes each request on to a gateway: obstore signs the host that
it is told, and the gateway is sent the same.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from odd_s3 import CREDENTIALS

Reply = tuple[int, dict[str, str], bytes]

_KEY = re.compile(rb"<Key>([^<]*)</Key>")


class MemoryOrigin:
    """Objects in memory, by their paths."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, bytes] = {}

    def __call__(self, method: str, target: str, headers: Any, body: bytes) -> Reply:
        url = urlsplit(target)
        path, query = unquote(url.path), parse_qs(url.query, keep_blank_values=True)
        if method in ("GET", "HEAD"):
            return self._list(path, query) if "list-type" in query else self._get(path, headers)
        if method == "PUT":
            return self._put(path, query, headers, body)
        if method == "POST":
            return self._post(path, query, body)
        self.objects.pop(path, None)
        return 204, {}, b""

    def _get(self, path: str, headers: Any) -> Reply:
        data = self.objects.get(path)
        if data is None:
            return 404, {}, b""
        told = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()[:32]}"',
            "Last-Modified": email.utils.formatdate(usegmt=True),
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", ""))
        if asked is None:
            return 200, told, data
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        told["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return 206, told, data[first : last + 1]

    def _put(self, path: str, query: Any, headers: Any, body: bytes) -> Reply:
        if "uploadId" in query:
            self.parts[f"{query['uploadId'][0]}/{int(query['partNumber'][0]):06}"] = body
            return 200, {"ETag": '"part"'}, b""
        source = headers.get("x-amz-copy-source")
        if source is not None:
            body = self.objects["/" + unquote(source).lstrip("/")]
            self.objects[path] = body
            return 200, {}, b'<CopyObjectResult><ETag>"x"</ETag></CopyObjectResult>'
        if headers.get("If-None-Match") == "*" and path in self.objects:
            return 412, {}, b""
        self.objects[path] = body
        return 200, {"ETag": '"x"'}, b""

    def _post(self, path: str, query: Any, body: bytes) -> Reply:
        if "delete" in query:
            keys = [key.decode() for key in _KEY.findall(body)]
            for key in keys:
                self.objects.pop(f"{path.rstrip('/')}/{key}", None)
            deleted = [f"<Deleted><Key>{key}</Key></Deleted>" for key in keys]
            return 200, {}, _xml("DeleteResult", "".join(deleted))
        if "uploads" in query:
            id = hashlib.sha256(path.encode()).hexdigest()
            words = f"<UploadId>{id}</UploadId>"
            return 200, {}, _xml("InitiateMultipartUploadResult", words)
        prefix = query["uploadId"][0] + "/"
        names = sorted(name for name in self.parts if name.startswith(prefix))
        self.objects[path] = b"".join(self.parts.pop(name) for name in names)
        return 200, {}, _xml("CompleteMultipartUploadResult", '<ETag>"x"</ETag>')

    def _list(self, path: str, query: Any) -> Reply:
        bucket = path.rstrip("/") + "/"
        prefix, after = query.get("prefix", [""])[0], query.get("start-after", [""])[0]
        entries = []
        for name, data in sorted(self.objects.items()):
            key = name.removeprefix(bucket)
            if key.startswith(prefix) and key > after:
                entries.append(
                    f"<Contents><Key>{key}</Key><Size>{len(data)}</Size><ETag>x</ETag>"
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
        words = f"<IsTruncated>false</IsTruncated>{''.join(entries)}"
        return 200, {}, _xml("ListBucketResult", words)


def _xml(name: str, words: str) -> bytes:
    return f"<{name}>{words}</{name}>".encode()


class Gateway:
    """Passes requests on to an endpoint."""

    def __init__(self, endpoint: str) -> None:
        self._host = urlsplit(endpoint).netloc

    def __call__(self, method: str, target: str, headers: Any, body: bytes) -> Reply:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            told = dict(response.getheaders())
            data = response.read()
            if method == "HEAD":
                data = bytes(int(told.get("Content-Length") or 0))
            return response.status, told, data
        finally:
            connection.close()


class Gate(ThreadingHTTPServer):
    """The server; set its attributes while it runs."""

    daemon_threads = False  # closing the server waits for them: other tests count open sockets
    request_queue_size = 256

    def __init__(self, origin: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.origin = origin
        self.asked: list[tuple[str, str]] = []
        self.flips = False
        """Whether the last byte of each object read is another one."""
        self.is_down = False
        """Whether connections are closed without an answer."""
        self.sends_nothing = False
        """Whether that is so of objects that are asked for, and others are answered."""
        self.answers = threading.Event()
        """Clear it, and nothing is answered at all."""
        self.answers.set()
        self.held = threading.Event()
        """Clear it, and bodies of objects stop after half."""
        self.held.set()

    @property
    def options(self) -> dict[str, Any]:
        """What reaches it, for ``HASHFS_STORE_OPTIONS``."""
        return {
            **({} if isinstance(self.origin, Gateway) else CREDENTIALS),
            "endpoint": f"http://127.0.0.1:{self.server_port}",
        }

    def count(self, method: str) -> int:
        """Return how many objects have been asked for by `method`; no listings."""
        return sum(each == method and "list-type" not in path for each, path in self.asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gate  # pyright: ignore[reportIncompatibleVariableOverride]

    def answer(self) -> None:
        gate = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        gate.asked.append((self.command, self.path))
        gate.answers.wait(60)
        is_object = self.command == "GET" and "?" not in self.path
        if gate.is_down or (is_object and gate.sends_nothing):
            self.close_connection = True
            return
        status, headers, data = gate.origin(self.command, self.path, self.headers, body)
        is_object = is_object and status in (200, 206)
        if is_object and gate.flips and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.close_connection = True
        self.send_response_only(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(data) // 2 if is_object else len(data)
        self.wfile.write(data[:half])
        if half < len(data):
            self.wfile.flush()
            gate.held.wait(60)
            self.wfile.write(data[half:])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def gate(endpoint: str | None = None) -> Iterator[Gate]:
    """Run one, with objects of its own or those behind `endpoint`."""
    server = Gate(MemoryOrigin() if endpoint is None else Gateway(endpoint))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.held.set()
        server.answers.set()
        server.shutdown()
        server.server_close()
        thread.join()
