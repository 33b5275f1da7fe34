"""The recipe for a virus scanner in docs/checking.md, with a real clamd that knows one virus."""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Site

from flask_hashfs import HashFS, RejectedError

PAGE = Path(__file__).parents[2] / "docs" / "checking.md"
CLAMD = shutil.which("clamd") or shutil.which("clamd", path="/usr/sbin")
# The file that every scanner takes for a virus, in two pieces, so that none takes this one for it.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-" + b"STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
SIGNATURE = "44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test\n"

pytestmark = pytest.mark.skipif(CLAMD is None, reason="clamd is not installed (clamav-daemon)")


@pytest.fixture(scope="module")
def clamd() -> Iterator[str]:
    """The socket of a running clamd."""
    with tempfile.TemporaryDirectory(prefix="clamd-") as name:
        folder = Path(name)
        (folder / "own.hdb").write_text(SIGNATURE)
        address = folder / "socket"
        settings = {"LocalSocket": address, "DatabaseDirectory": folder, "Foreground": "yes"}
        settings |= {"LogFile": folder / "log", "TemporaryDirectory": folder}
        lines = "".join(f"{key} {value}\n" for key, value in settings.items())
        (folder / "clamd.conf").write_text(lines)
        command = [str(CLAMD), "--config-file", str(folder / "clamd.conf")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            _wait_for(address, process)
            yield str(address)
        finally:
            process.terminate()
            process.communicate()


def _wait_for(address: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0].decode())
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(address))
                return
            except OSError:
                time.sleep(0.1)
    raise AssertionError("clamd does not listen")


def recipe(site: Site) -> Any:
    """The function `scan` of the page, for the app of `site`."""
    section = PAGE.read_text(encoding="utf-8").partition("## A virus scanner")[2]
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {"app": site.app, "RejectedError": RejectedError}
    exec(code, names)
    return names["scan"]


@pytest.fixture(params=FRAMEWORKS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    site = Site(request.param, {"HASHFS_ROOT_FOLDER": str(tmp_path / "root")})
    site.fs.inspector(recipe(site))
    site.route_put("/put")
    return site


def test_a_virus_is_refused_and_all_else_is_stored(site: Site, clamd: str) -> None:
    site.app.config["CLAMD_SOCKET"] = clamd
    reply = site.ask("/put", "POST", {"Content-Length": str(len(EICAR))}, EICAR)
    assert reply.status == 422
    assert b"Eicar-Test" in reply.body
    assert list(site.client.files()) == []
    assert site.put(io.BytesIO(b"fine" * 200_000))


def test_a_scanner_that_is_down_is_a_503(site: Site, tmp_path: Path) -> None:
    site.app.config["CLAMD_SOCKET"] = str(tmp_path / "nobody")
    assert site.ask("/put", "POST", {"Content-Length": "4"}, b"fine").status == 503
    assert list(site.client.files()) == []


def test_new_signatures_find_what_is_stored(site: Site, clamd: str) -> None:
    site.app.config["CLAMD_SOCKET"] = clamd
    HashFS(site.client.root).put(EICAR)  # as before its signature was known
    done = site.app.test_cli_runner().invoke(args=["hashfs", "inspect", "--quarantine"])
    assert done.exit_code == 1
    assert "Eicar-Test" in done.output
    assert list(site.client.files()) == []
