"""X-Accel-Redirect behind a real nginx: the configuration that docs/serving.md gives works."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import START_TIMEOUT, Client, serve

from flask_hashfs import HashAddress, HashFS

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PAGE = Path(__file__).parents[2] / "docs" / "serving.md"

pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx, Debian's package nginx-light")

CONTENT = bytes(range(256)) * 1000


def documented_location(root: Path) -> str:
    """Return the internal location as the documentation has it, for this root."""
    block = re.search(r"```nginx\n(location /protected/ .*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    return block.group(1).replace("/var/lib/myapp/uploads/", f"{root}/")


def documented_location_of_uploads(app_port: int) -> str:
    """Return the location of uploads as the documentation has it, for this app."""
    page = PAGE.with_name("deployment.md").read_text()
    block = re.search(r"```nginx\n(location /upload .*?)```", page, re.DOTALL)
    assert block is not None
    found = block.group(1).replace("location /upload", "location /raw")
    return found.replace("127.0.0.1:8000", f"127.0.0.1:{app_port}")


def documented_location_of_a_cache(cache: Path) -> str:
    """Return the internal location of kept files as the documentation has it."""
    page = PAGE.with_name("object-store.md").read_text()
    block = re.search(r"```nginx\n(location /kept/ .*?)```", page, re.DOTALL)
    assert block is not None
    return block.group(1).replace("/var/cache/myapp/files/", f"{cache}/files/")


@contextlib.contextmanager
def nginx(folder: Path, app_port: int, location: str) -> Iterator[Client]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(f"""
        daemon off;
        pid {folder}/nginx.pid;
        error_log stderr;
        {"user root;" if getpass.getuser() == "root" else ""}
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi;
            server {{
                listen 127.0.0.1:{port};
                location / {{ proxy_pass http://127.0.0.1:{app_port}; }}
                {location}
            }}
        }}
    """)
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(config)])
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with Client(port) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module", params=["gunicorn:flask_app()", "uvicorn:quart_app()"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, HashAddress]]:
    """Yield a client of nginx in front of an app, and the address of a file in its store."""
    folder = tmp_path_factory.mktemp("nginx")
    kind, app = request.param.split(":")
    env = {
        "FLASK_HASHFS_ROOT_FOLDER": str(folder / "store"),
        "FLASK_HASHFS_PATH_PREFIX": "/files",
        "FLASK_HASHFS_SERVE_FILES": "true",
        "FLASK_HASHFS_ACCEL_REDIRECT": "/protected/",
    }
    address = HashFS(folder / "store").put(CONTENT, "bin")
    with (
        serve(kind, f"http_app:{app}", env=env) as server,
        nginx(folder, server.port, documented_location(folder / "store")) as client,
    ):
        yield client, address


def test_nginx_sends_the_file_with_the_headers_of_the_app(site: tuple[Client, HashAddress]) -> None:
    client, address = site
    answer = client.request("GET", f"/files/{address.id}")
    assert (answer.status, answer.body) == (200, CONTENT)
    assert (answer.get("Server") or "").startswith("nginx")
    assert answer.get("X-Accel-Redirect") is None
    assert answer.get("ETag") == f'"{address.id}"'
    assert answer.get("Cache-Control") == "max-age=31536000, immutable"
    assert answer.get("X-Content-Type-Options") == "nosniff"
    assert "sandbox" in (answer.get("Content-Security-Policy") or "")
    assert (answer.get("Repr-Digest") or "").startswith("sha-256=:")
    assert (answer.get("Content-Disposition") or "").startswith("attachment")
    assert answer.get("Last-Modified") is None
    assert [value for name, value in answer.headers if name.lower() == "accept-ranges"] == ["bytes"]


def test_nginx_answers_ranges(site: tuple[Client, HashAddress]) -> None:
    client, address = site
    answer = client.request("GET", f"/files/{address.id}", [("Range", "bytes=10-19")])
    assert (answer.status, answer.body) == (206, CONTENT[10:20])
    assert answer.get("Content-Range") == f"bytes 10-19/{len(CONTENT)}"


def test_the_app_answers_conditions(site: tuple[Client, HashAddress]) -> None:
    client, address = site
    known = [("If-None-Match", f'"{address.id}"')]
    assert client.request("GET", f"/files/{address.id}", known).status == 304


def test_the_internal_location_is_closed(site: tuple[Client, HashAddress]) -> None:
    client, address = site
    assert client.request("GET", f"/protected/{address.relpath}").status == 404


@pytest.mark.parametrize("server", ["gunicorn:flask_app()", "uvicorn:quart_app()"])
def test_nginx_sends_what_a_cache_keeps_and_the_app_what_it_does_not(
    server: str, tmp_path: Path
) -> None:
    kind, app = server.split(":")
    cache = tmp_path / "cache"
    env = {
        "FLASK_HASHFS_ROOT_FOLDER": str(tmp_path / "store"),
        "FLASK_HASHFS_CACHE_FOLDER": str(cache),
        "FLASK_HASHFS_PATH_PREFIX": "/files",
        "FLASK_HASHFS_SERVE_FILES": "true",
        "FLASK_HASHFS_ACCEL_REDIRECT": "/kept/",
    }
    address = HashFS(tmp_path / "store").put(CONTENT, "bin")
    path = f"/files/{address.relpath}"
    location = documented_location_of_a_cache(cache)
    with (
        serve(kind, f"http_app:{app}", env=env) as running,
        nginx(tmp_path, running.port, location) as client,
    ):
        assert client.request("GET", path).body == CONTENT
        kept = cache / "files" / address.relpath
        deadline = time.monotonic() + 30
        while not kept.exists():
            assert time.monotonic() < deadline, "it is not kept"
            time.sleep(0.01)
        answer = client.request("GET", path)
        assert (answer.status, answer.body) == (200, CONTENT)
        assert answer.get("ETag") == f'"{address.id}"'
        ranged = client.request("GET", path, [("Range", "bytes=5-9")])
        assert (ranged.status, ranged.body) == (206, CONTENT[5:10])


@pytest.mark.parametrize("server", ["gunicorn:flask_app()", "uvicorn:quart_app()"])
def test_nginx_refuses_more_than_1_mb_by_itself_unless_it_is_told_not_to(
    server: str, tmp_path: Path
) -> None:
    kind, app = server.split(":")
    env = {"FLASK_HASHFS_ROOT_FOLDER": str(tmp_path / "store")}
    content = bytes(2_000_000)
    (default := tmp_path / "default").mkdir()
    (documented := tmp_path / "documented").mkdir()
    with serve(kind, f"upload_app:{app}", env=env) as running:
        with nginx(default, running.port, "") as client:
            # Nothing of the body is sent: a client that sends may be cut off before it reads.
            answer = client.request("POST", "/raw", [("Content-Length", str(len(content)))])
            assert answer.status == 413
            assert b"<center>nginx" in answer.body
            assert client.request("POST", "/raw", body=content[:1_000_000]).status == 200
        location = documented_location_of_uploads(running.port)
        with nginx(documented, running.port, location) as client:
            assert client.request("POST", "/raw", body=content).status == 200
