"""A store that speaks just enough S3 to answer wrongly: obstore asks it as it asks any other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flask_hashfs._store.object_store import ObjectStore

CREDENTIALS = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}


class OddS3(BaseHTTPRequestHandler):
    """Answers any GET and HEAD with `content`, and a listing by `listing`."""

    protocol_version = "HTTP/1.1"
    content = b""
    written: tuple[int, bytes] = (200, b"")
    """Status and body of the answer to a put."""

    def do_HEAD(self) -> None:
        """Tell the size of the content."""
        self._send(200, b"", length=len(self.content))

    def do_GET(self) -> None:
        """Send a listing, or the content."""
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "list-type" in query:
            self._send(200, self.listing(query), "application/xml")
        else:
            self.read()

    def do_PUT(self) -> None:
        """Take whatever comes, and forget it."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._send(*self.written)

    def do_POST(self) -> None:
        """Refuse a multipart upload, or what else it is, as a PUT is refused."""
        self.do_PUT()

    def read(self) -> None:
        """Send the content, or a range of it."""
        asked = self.headers.get("Range")
        if asked is None:
            self._send(200, self.content)
            return
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        self.send_range(first, last)

    def send_range(self, first: int, last: int) -> None:
        """Send the bytes from `first` to `last`."""
        content_range = f"bytes {first}-{last}/{len(self.content)}"
        self._send(206, self.content[first : last + 1], content_range=content_range)

    def listing(self, query: dict[str, list[str]]) -> bytes:
        """Return the page of a listing."""
        return page([])

    def _send(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/octet-stream",
        *,
        length: int | None = None,
        content_range: str | None = None,
    ) -> None:
        with contextlib.suppress(ConnectionError):  # an answer may be broken off
            self._answer(status, body, content_type, length, content_range)

    def _answer(
        self,
        status: int,
        body: bytes,
        content_type: str,
        length: int | None,
        content_range: str | None,
    ) -> None:
        self.close_connection = True  # other tests count open sockets
        self.send_response(status)
        self.send_header("Connection", "close")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        if content_range is not None:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def page(keys: list[str], more: str | None = None) -> bytes:
    """Return one page of a listing: its keys, and the token of the page that follows."""
    contents = "".join(
        f"<Contents><Key>{key}</Key><Size>5</Size><ETag>1</ETag>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for key in keys
    )
    token = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    truncated = "true" if more else "false"
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
        f"<Name>bucket</Name><KeyCount>{len(keys)}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>{truncated}</IsTruncated>{token}{contents}</ListBucketResult>"
    ).encode()


@contextmanager
def odd_endpoint(handler: type[OddS3]) -> Iterator[str]:
    """Serve a bucket by `handler`, and give the URL of the endpoint."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = False  # so that closing the server waits for them
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def odd_store(handler: type[OddS3], **options: Any) -> Iterator[ObjectStore]:
    """Serve a bucket by `handler`, and make a store in it."""
    with odd_endpoint(handler) as endpoint:
        given = {"endpoint": endpoint, "retry_config": {"max_retries": 0}, **CREDENTIALS, **options}
        yield ObjectStore("s3://bucket", options=given)
