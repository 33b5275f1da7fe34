"""The file route asks nothing of what lies outside the root, whatever the URL says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import asyncio, os, sys
framework, root, *urls = sys.argv[1:]
if framework == "flask":
    from flask import Flask as App
    from flask_hashfs import FlaskHashFS as HashFS
else:
    from quart import Quart as App
    from flask_hashfs import QuartHashFS as HashFS
app = App("example", root_path=root)
app.config.update(
    HASHFS_ROOT_FOLDER=root, HASHFS_PATH_PREFIX="/files", HASHFS_SERVE_FILES=True,
    HASHFS_FSYNC=False,
)
HashFS(app)
client = app.test_client()
app.extensions["hashfs"]["client"].put(b"hello")

def get(url):
    response = client.get(url)
    return asyncio.run(response).status_code if framework == "quart" else response.status_code

get("/files/nothing")
os.access("/begin", 0)
print([get(url) for url in urls])
os.access("/end", 0)
"""


@pytest.fixture(scope="module")
def strace(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed: system calls are not looked at")
    log = tmp_path_factory.mktemp("trial") / "log"
    if subprocess.run([path, "-o", log, "true"], capture_output=True).returncode != 0:
        pytest.skip("strace may not trace here: system calls are not looked at")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["flask", "quart"])
def test_the_route_asks_nothing_of_what_lies_outside_the_root(
    strace: str, tmp_path: Path, framework: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ("a" * 64)).write_bytes(b"secret")
    id, path = "a" * 64, f"{outside}/{'a' * 64}".replace("/", "%2f")
    names = [f"..%2foutside%2f{id}", "..%2foutside", f"a%2f..%2f..%2foutside%2f{id}"]
    names += [path, "..%2f" * 4 + path, f"{id}%2f..%2f..%2foutside"]
    log = tmp_path / "log"
    words = [
        strace,
        "-f",
        "-s",
        "500",
        "-e",
        "trace=file",
        "-o",
        str(log),
        sys.executable,
        "-c",
        CODE,
    ]
    words += [framework, str(tmp_path / "root")]
    words += [*(f"/files/{name}" for name in names)]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    statuses = json.loads(result.stdout)
    assert len(statuses) == len(names)
    assert set(statuses) <= {404, 308}, statuses
    calls = log.read_text().splitlines()
    begin, end = (
        next(n for n, call in enumerate(calls) if f'"/{mark}"' in call) for mark in ("begin", "end")
    )
    assert not [call for call in calls[begin:end] if "outside" in call]
