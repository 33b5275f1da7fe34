"""The metrics that the documentation shows: of gunicorn's workers, and as a dashboard asks."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "metrics"
PORTS = 4  # that the workers choose among


def free_ports() -> int:
    """The first of several ports, one after the other, that nobody has."""
    for _ in range(100):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            first = int(found.getsockname()[1])
        try:
            for port in range(first, first + PORTS):
                with socket.socket() as other:
                    other.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return first
    pytest.fail("no free ports")


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The example under gunicorn: the socket that it answers at, and the first port of metrics."""
    folder = tmp_path_factory.getbasetemp() / "g"  # the path of a socket is short
    folder.mkdir()
    where, first, log = folder / "socket", free_ports(), folder / "log"
    command = [sys.executable, "-m", "gunicorn", "--bind", f"unix:{where}"]
    own = {"METRICS_PORT": str(first), "FILES": str(folder / "files")}
    environment = {**os.environ, **own, "XDG_RUNTIME_DIR": str(folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "app:app"], cwd=EXAMPLE, env=environment, stdout=output, stderr=output
        )
    try:
        while len(scrape(first)) < 2:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield where, first
    finally:
        process.terminate()
        process.wait(60)


def scrape(first: int) -> list[str]:
    """What every worker tells."""
    told = []
    for port in range(first, first + PORTS):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                told.append(answer.read().decode())
        except urllib.error.URLError:
            continue
    return told


def request(where: Path, head: str, body: bytes = b"") -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(where))
        client.sendall(f"{head}Host: x\r\nConnection: close\r\n\r\n".encode() + body)
        answer = b""
        while data := client.recv(65536):
            answer += data
    return answer


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="gunicorn needs POSIX")
def test_every_worker_is_scraped_and_the_dashboard_asks_for_what_there_is(
    server: tuple[Path, int],
) -> None:
    where, first = server
    for number in range(20):
        body = b"content %02d" % (number // 2)
        head = f"POST /files HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
        found = re.search(rb'"id":"(\w+)"', request(where, head, body))
        assert found
        assert b" 200 OK" in request(where, f"GET /files/{found[1].decode()} HTTP/1.1\r\n")
    told = "\n".join(scrape(first))

    def total(outcome: str) -> float:
        line = rf'^hashfs_put_count_total{{[^}}]*outcome="{outcome}"[^}}]*}} (\S+)$'
        return sum(float(value) for value in re.findall(line, told, re.MULTILINE))

    assert total("new") == 10
    assert total("duplicate") == 10
    names = set(re.findall(r"^(hashfs_\w+)", told, re.MULTILINE))
    names |= set(re.findall(r"^# TYPE (hashfs_\w+)", told, re.MULTILINE))
    assert asked() - names <= {"hashfs_store_errors_total", "hashfs_worker_waiting"}


def asked() -> set[str]:
    """The names that the dashboard asks Prometheus for."""
    dashboard = json.loads((EXAMPLE / "dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) == 12
    names = [re.findall(r"hashfs_\w+", query) for query in queries]
    assert all(len(found) == 1 for found in names)
    return {found[0] for found in names}
