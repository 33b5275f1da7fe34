"""The demo gallery in a real browser, on Flask and on Quart.

They need Playwright and Chromium (``tox run -e browser``, after ``apt-get install chromium``) and
are skipped without. With HASHFS_TEST_SCREENSHOTS=<folder> they also leave the docs' pictures there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import httpx
import pytest
from cutting_proxy import CuttingProxy
from pictures import HEIGHT, SCENES, WIDTH, scene
from PIL import Image

PLAYWRIGHT = find_spec("playwright") and find_spec("axe_playwright_python")
if TYPE_CHECKING or PLAYWRIGHT:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import (
        Browser,
        BrowserContext,
        CDPSession,
        ConsoleMessage,
        Download,
        Locator,
        Page,
        Request,
        Response,
        Route,
        expect,
        sync_playwright,
    )

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or PLAYWRIGHT is None,
    reason="needs Chromium (apt-get install chromium) and Playwright (tox run -e browser)",
)

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "gallery"
SCREENSHOTS = os.environ.get("HASHFS_TEST_SCREENSHOTS")
PICTURES = {
    "gallery-files-1280-light.png",
    "gallery-files-1280-dark.png",
    "gallery-files-390-dark.png",
    "gallery-uploads-1280-light.png",
    "gallery-file-1280-dark.png",
    "gallery-file-390-light.png",
}
MAX_FILE_SIZE = 20_000_000
PATIENCE = 180  # seconds: a busy machine needs long to start an app, and to answer
CRAWL = 50_000  # bytes per second, at which nothing comes to its end before it has been looked at
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"waited in vain: {what}")


class Gallery:
    """One of the two apps, running as its own process on an empty folder."""

    def __init__(self, framework: str, folder: Path, **config: str) -> None:
        self.script = EXAMPLE / f"{framework}_app.py"
        self.framework = framework
        self.files = folder / "files"
        self.log = folder / "log"
        prefix = framework.upper()
        settings = {"HASHFS_MAX_FILE_SIZE": str(MAX_FILE_SIZE)} | config
        self.environment = os.environ | {
            "GALLERY_INSTANCE": str(folder),
            "PYTHONUNBUFFERED": "1",
            **{f"{prefix}_{key}": value for key, value in settings.items()},
        }
        self.url = ""

    def start(self) -> None:
        """Start the app, at its old port if it has run before."""
        port = self.url.rpartition(":")[2] or "0"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, self.script, "--port", port],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: self._answers() or self.process.poll() is not None, "a start")
            assert self.process.poll() is None, self.log.read_text()
        except BaseException:
            self.__exit__()
            raise

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def __enter__(self) -> Gallery:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)

    def _answers(self) -> bool:
        """Tell whether the app answers: it says where it runs a moment before it does."""
        found = re.search(r"Running on (http://127\.0\.0\.1:[1-9]\d*)\s", self.log.read_text())
        if not found:
            return False
        self.url = found[1]
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.url, timeout=PATIENCE).is_success
        return False

    def client(self) -> httpx.Client:
        """Return a visitor without a browser."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE)

    def contents(self) -> list[Path]:
        """Return all the files below the store's root, but for what is kept beside uploads."""
        # Folders go meanwhile, which os.walk passes over; before Python 3.12, Path.rglob does not.
        walk = os.walk(self.files)
        files = [Path(folder, name) for folder, _, names in walk for name in names]
        return [path for path in files if not self._is_of_upload(path) or path.name == "data"]

    def _is_of_upload(self, path: Path) -> bool:
        hidden = self.files / ".hashfs"
        return any(hidden / name in path.parents for name in ("uploads", "unfinished"))

    def stored(self) -> list[str]:
        """Return the digests of what is stored, and of what was left behind."""
        digests = []
        for path in self.contents():
            with contextlib.suppress(FileNotFoundError):  # it may be on its way out
                digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        return sorted(digests)

    def hashfs(self, *arguments: str) -> None:
        """Run a command of the store, as whoever keeps the app running does."""
        app = ["--app", f"{self.framework}_app", "hashfs"]
        subprocess.run(
            [sys.executable, "-m", self.framework, *app, *arguments],
            cwd=EXAMPLE,
            env=self.environment,
            check=True,
            timeout=PATIENCE,
        )

    def received(self) -> int:
        """Return how many bytes of unfinished uploads are there."""
        size = 0
        for path in filter(self._is_of_upload, self.contents()):
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
        return size


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE * 1000
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def visit(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    """Open a browser window of its own for a visitor."""
    with browser.new_context(**options) as context:
        context.set_default_timeout(PATIENCE * 1000)
        yield context


@pytest.fixture(params=["flask", "quart"])
def framework(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def gallery(framework: str, tmp_path: Path) -> Iterator[Gallery]:
    with Gallery(framework, tmp_path) as gallery:
        yield gallery
    assert "Traceback" not in gallery.log.read_text()


@pytest.fixture
def page(browser: Browser, gallery: Gallery) -> Iterator[Page]:
    """The gallery's first page; nothing may go wrong in it without being seen."""
    complaints = []

    def on_console(message: ConsoleMessage) -> None:
        # A failed request is logged too, which a test may have wanted: see on_response. And the
        # browser's own page around a picture has styles, which the CSP of the file does not allow.
        is_wanted = message.text.startswith("Failed to load resource")
        is_of_file = message.location["url"].startswith(f"{gallery.url}/media/")
        if message.type == "error" and not is_wanted and not is_of_file:
            complaints.append(f"{message.location}: {message.text}")

    def on_response(response: Response) -> None:
        is_part = response.request.resource_type in {"script", "stylesheet", "image"}
        if response.status >= 500 or (is_part and response.status >= 400):
            complaints.append(f"{response.url}: {response.status}")

    with visit(browser, viewport={"width": 1280, "height": 900}) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=gallery.url)
        page = context.new_page()
        page.on("console", on_console)
        page.on("response", on_response)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        # Playwright looks for choosers only while someone listens, and begins to a little too late.
        page.on("filechooser", lambda chooser: None)
        page.on("dialog", lambda dialog: dialog.accept())  # leave a page that uploads
        page.goto(gallery.url)
        yield page
    assert complaints == []


@pytest.fixture(scope="module")
def photos(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return every scene of ``pictures`` as a JPEG file, drawn by the browser itself."""
    folder = tmp_path_factory.mktemp("photos")
    files = {}
    with visit(browser, viewport={"width": WIDTH, "height": HEIGHT}) as context:
        page = context.new_page()
        for name in SCENES:
            files[name] = folder / f"{name}.jpg"
            page.set_content(f"<style>body{{margin:0}}</style>{scene(name)}")
            page.screenshot(path=files[name], type="jpeg", quality=88)
    return files


@pytest.fixture
def photo(photos: dict[str, Path]) -> Path:
    return photos["Red evening"]


def digest(*files: Path | bytes) -> list[str]:
    contents = [file if isinstance(file, bytes) else file.read_bytes() for file in files]
    return sorted(hashlib.sha256(content).hexdigest() for content in contents)


def choose(page: Page, *files: Path, outcome: str | re.Pattern[str] = re.compile("tored")) -> None:
    """Choose files by the button and wait until each has come to its end."""
    page.locator("#files").set_input_files(files)
    for file in files:
        row = page.locator(".transfer", has_text=file.name).last
        expect(row.locator(".transfer-state")).to_contain_text(outcome)


def drag(page: Page, kind: str, *files: Path) -> None:
    """Move files from outside over the page, or drop them, as the desktop would."""
    page.context.new_cdp_session(page).send(
        "Input.dispatchDragEvent",
        {
            "type": kind,
            "x": 640,
            "y": 700,
            "data": {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1},
        },
    )


def slow_down(page: Page, bytes_per_second: int) -> CDPSession:
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    set_speed(session, bytes_per_second)
    return session


def set_speed(session: CDPSession, bytes_per_second: int) -> None:
    session.send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": 0,
            "downloadThroughput": -1,
            "uploadThroughput": bytes_per_second,
        },
    )


def kb(size: int) -> str:
    return f"{size / 1000:.3g} kB"


def content_of(download: Download) -> bytes:
    return Path(download.path()).read_bytes()


# -- uploading


def test_upload_by_the_button(page: Page, gallery: Gallery, photos: dict[str, Path]) -> None:
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    page.get_by_label("Your name").fill("Ada")
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Choose files").click()
    chosen = list(photos.values())[:3]
    chooser.value.set_files(chosen)
    expect(page.locator(".transfer[data-state=stored]")).to_have_count(3)
    expect(page.locator(".card")).to_have_count(3)
    expect(page.get_by_text("Nothing here yet")).to_be_hidden()
    page.reload()
    expect(page.locator(".card")).to_have_count(3)
    expect(page.locator(".meta").first).to_contain_text("Ada")
    expect(page.get_by_label("Your name")).to_have_value("Ada")
    assert gallery.stored() == digest(*chosen)


def test_upload_by_drop(page: Page, gallery: Gallery, photos: dict[str, Path]) -> None:
    chosen = list(photos.values())[:4]
    drag(page, "dragEnter", *chosen)
    drag(page, "dragOver", *chosen)
    expect(page.locator("body")).to_have_class("dragging")
    drag(page, "drop", *chosen)
    expect(page.locator("body")).not_to_have_class("dragging")
    expect(page.locator(".transfer[data-state=stored]")).to_have_count(4)
    assert gallery.stored() == digest(*chosen)


def test_upload_without_javascript(browser: Browser, gallery: Gallery, photo: Path) -> None:
    with visit(browser, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(gallery.url)
        for outcome in "Stored", "Already stored":
            page.locator("#files").set_input_files(photo)
            page.get_by_role("button", name="Upload").click()
            expect(page.locator(".messages")).to_contain_text(f"{photo.name}: {outcome}")
        expect(page.locator(".card")).to_have_count(2)
        page.locator(".card a").first.click()
        page.get_by_text("Delete…").click()
        page.get_by_role("button", name=f"Delete {photo.name}").click()
        expect(page.locator(".messages")).to_contain_text(f"{photo.name}: deleted")
        assert gallery.stored() == digest(photo)


def test_progress_is_shown(page: Page, gallery: Gallery, tmp_path: Path) -> None:
    (large := tmp_path / "large.bin").write_bytes(content := os.urandom(3_000_000))
    network = slow_down(page, CRAWL)
    page.locator("#files").set_input_files(large)
    expect(page.locator(".transfer-state")).to_have_text(
        re.compile(r"[\d.]+ .B of 3 MB at [\d.]+ .B/s")
    )
    bar = page.get_by_role("progressbar", name=f"Progress of {large.name}")
    shares = set[float]()
    wait_until(
        lambda: shares.add(float(bar.get_attribute("value") or 0)) or len(shares) > 3,
        "a progress bar that moves",
    )
    set_speed(network, -1)
    expect(page.locator(".transfer[data-state=stored]")).to_have_count(1)
    assert gallery.stored() == digest(content)
    assert sorted(shares)[-1] <= 1


def test_cancel_half_way_leaves_nothing(page: Page, gallery: Gallery, tmp_path: Path) -> None:
    (large := tmp_path / "large.bin").write_bytes(os.urandom(16_000_000))
    network = begin_slowly(page, gallery, large)
    expect(page.get_by_text(re.compile("^[1-9].* MB of 16 MB"))).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".transfer-state")).to_have_text("Cancelled")
    wait_until(lambda: gallery.stored() == [], "an end of the upload at the server")
    set_speed(network, -1)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".transfer-state")).to_contain_text("Stored")
    assert gallery.stored() == digest(large)


def test_cancel_while_an_upload_begins_leaves_nothing(
    page: Page, gallery: Gallery, photo: Path
) -> None:
    """The server may have made the upload already when its answer has not yet come."""
    created: list[Route] = []
    page.route(re.compile(r"/uploads\?"), lambda route: created.append(route))
    page.locator("#files").set_input_files(photo)
    wait_until(lambda: bool(page.title() and created), "a creation")  # seen by calls of Playwright
    answer = created[0].fetch()
    assert gallery.stored() == digest(b"")
    page.get_by_role("button", name=f"Cancel: {photo.name}").click()
    expect(page.locator(".transfer-state")).to_have_text("Cancelled")
    created[0].fulfill(response=answer)
    wait_until(lambda: gallery.stored() == [], "an end of the upload at the server")
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".transfer-state")).to_contain_text("Stored")
    assert gallery.stored() == digest(photo)


def test_older_files_have_pages_of_their_own(page: Page, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(50)]
    for file in files:
        file.write_text(file.name)
    page.locator("#files").set_input_files(files)
    expect(page.locator(".transfer[data-state=stored]")).to_have_count(50)
    expect(page.locator(".totals dd").first).to_have_text("50")
    page.get_by_role("button", name="Clear finished").click()
    expect(page.locator(".transfer")).to_have_count(0)
    page.reload()
    expect(page.locator(".card")).to_have_count(48)
    page.get_by_role("link", name="Older files").click()
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_role("link", name="Newest").click()
    expect(page.locator(".card")).to_have_count(48)


def test_waiting_uploads_can_be_cancelled(page: Page, gallery: Gallery, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.bin" for number in range(5)]
    for file in files:
        file.write_bytes(os.urandom(1_000_000))
    network = slow_down(page, CRAWL)
    page.locator("#files").set_input_files(files)
    page.get_by_role("button", name="Cancel: 4.bin").click()
    expect(page.locator(".transfer", has_text="4.bin")).to_contain_text("Cancelled")
    set_speed(network, -1)
    expect(page.locator(".transfer[data-state=stored]")).to_have_count(4)
    assert gallery.stored() == digest(*files[:4])


def test_a_file_over_the_limit(page: Page, gallery: Gallery, photo: Path, tmp_path: Path) -> None:
    (large := tmp_path / "large.bin").write_bytes(bytes(MAX_FILE_SIZE + 1))
    wire = Wire(page)
    page.locator("#files").set_input_files([large, photo])
    expect(page.locator(".transfer", has_text=large.name)).to_contain_text(
        "Too large: the limit is 20 MB a file"
    )
    expect(page.locator(".transfer", has_text=photo.name)).to_contain_text("Stored")
    assert gallery.stored() == digest(photo)
    assert wire.creations == 1  # the large one is refused before anything is sent
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    page.get_by_role("button", name=f"Dismiss: {large.name}").click()
    expect(page.locator(".transfer")).to_have_count(1)


def test_all_uploads_are_cancelled_at_once(page: Page, gallery: Gallery, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.bin" for number in range(5)]
    for file in files:
        file.write_bytes(os.urandom(1_000_000))
    slow_down(page, CRAWL)
    page.locator("#files").set_input_files(files)
    expect(page.locator(".transfer-name")).to_have_text([file.name for file in files])
    expect(page.get_by_role("progressbar", name="Progress of all uploads")).to_be_visible()
    expect(page.locator("#left")).to_contain_text(" left")
    page.get_by_role("button", name="Cancel all").click()
    expect(page.locator(".transfer[data-state=cancelled]")).to_have_count(5)
    wait_until(lambda: gallery.stored() == [], "an end of the uploads at the server")


def test_all_uploads_that_were_cancelled_can_be_tried_again_at_once(
    page: Page, gallery: Gallery, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.bin" for number in range(3)]
    for file in files:
        file.write_bytes(os.urandom(1_000_000))
    (large := tmp_path / "large.bin").write_bytes(bytes(MAX_FILE_SIZE + 1))
    network = slow_down(page, CRAWL)
    page.locator("#files").set_input_files([large, *files])
    expect(page.locator("#summary")).to_have_text("0 of 4 stored, 1 failed")
    again = page.get_by_role("button", name="Try all again")
    expect(again).to_be_hidden()
    page.get_by_role("button", name="Cancel all").click()
    expect(page.locator(".transfer[data-state=cancelled]")).to_have_count(3)
    assert not Axe().run(page).response["violations"]
    again.press("Enter")
    expect(page.get_by_role("button", name="Cancel all")).to_be_focused()
    set_speed(network, -1)
    expect(page.locator("#summary")).to_have_text("3 of 4 stored, 1 failed")
    expect(page.locator(".transfer[data-state=failed]")).to_have_count(1)  # the one over the limit
    expect(again).to_be_hidden()


def test_the_panel_of_uploads_can_be_folded(page: Page, gallery: Gallery, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    files = [tmp_path / f"{number}.bin" for number in range(12)]
    for file in files:
        file.write_bytes(os.urandom(1_000_000))
    slow_down(page, CRAWL)
    page.locator("#files").set_input_files(files)
    panel, rows = page.locator("#transfers"), page.locator("#transfer-list")
    fold = page.get_by_role("button", name="List of uploads")
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(rows).to_be_visible()
    fold.press("Enter")
    expect(fold).to_have_attribute("aria-expanded", "false")
    expect(rows).to_be_hidden()
    expect(fold).to_be_focused()
    expect(page.get_by_role("progressbar", name="Progress of all uploads")).to_be_visible()
    box = panel.bounding_box()
    assert box is not None
    assert box["height"] < 844 / 8  # the files behind it can be seen
    assert not Axe().run(page).response["violations"]
    fold.click()
    expect(rows).to_be_visible()
    page.get_by_role("button", name="Cancel all").click()
    expect(page.locator(".transfer[data-state=cancelled]")).to_have_count(12)
    wait_until(lambda: gallery.stored() == [], "an end of the uploads at the server")


def test_leaving_during_an_upload_asks(page: Page, tmp_path: Path) -> None:
    (large := tmp_path / "large.bin").write_bytes(os.urandom(3_000_000))
    slow_down(page, CRAWL)
    page.get_by_label("Your name").click()  # a page that nobody has touched may not ask
    page.locator("#files").set_input_files(large)
    expect(page.locator(".transfer")).to_have_attribute("data-state", "sending")
    with page.expect_event("dialog") as dialog:
        page.reload()
    assert dialog.value.type == "beforeunload"


def test_a_dropped_folder_stands_for_the_files_in_it(
    page: Page, gallery: Gallery, tmp_path: Path
) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "one.txt").write_text("one")
    (tmp_path / "folder" / "inner" / "two.txt").write_text("two")
    for kind in "dragEnter", "dragOver", "drop":
        drag(page, kind, tmp_path / "folder")
    expect(page.locator(".transfer[data-state=stored]")).to_have_count(2)
    assert gallery.stored() == digest(b"one", b"two")


def test_a_deletion_can_be_taken_back(page: Page, gallery: Gallery, photo: Path) -> None:
    choose(page, photo)
    page.get_by_role("link", name="View").click()
    for leave in (
        lambda: page.get_by_role("button", name="Cancel").click(),
        lambda: page.keyboard.press("Escape"),
    ):
        page.get_by_text("Delete…").click()
        expect(page.get_by_role("button", name=f"Delete {photo.name}")).to_be_in_viewport()
        leave()
        expect(page.get_by_role("button", name=f"Delete {photo.name}")).to_be_hidden()
        expect(page.locator("summary")).to_be_focused()
    assert gallery.stored() == digest(photo)


def test_the_same_content_is_stored_once(
    page: Page, gallery: Gallery, photo: Path, tmp_path: Path
) -> None:
    shutil.copy(photo, copy := tmp_path / "The same.jpg")
    shutil.copy(photo, other := tmp_path / "The same.jpeg")
    choose(page, photo)
    choose(page, copy, other, outcome=re.compile(r"Already stored, [\d.]+ kB saved"))
    expect(page.locator(".badge")).to_have_count(2)
    size = photo.stat().st_size
    expect(page.locator(".totals dd")).to_have_text(["3", kb(3 * size), kb(size), kb(2 * size)])
    assert gallery.stored() == digest(photo)

    for left in 2, 1, 0:  # the content may go after its last item
        page.goto(gallery.url)
        page.locator(".card a").last.click()
        expect(page.locator(".others li")).to_have_count(left)
        page.get_by_text("Delete…").click()
        page.get_by_role("button", name="Delete").click()
        expect(page.locator(".card")).to_have_count(left)
        gallery.hashfs("prune", "--older-than", "0", "--allow-empty")
        assert gallery.stored() == (digest(photo) if left else [])
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    assert [path.name for path in gallery.files.iterdir()] == [".hashfs"]  # records of uploads


# -- going on

RECEIVED = 500_000  # of 16 MB, when the connection is cut


@pytest.fixture
def large(tmp_path: Path) -> Path:
    (file := tmp_path / "large.bin").write_bytes(os.urandom(16_000_000))
    return file


class Wire:
    """What a page sends, as far as uploads are concerned."""

    def __init__(self, page: Page) -> None:
        self.creations = 0
        self.offsets: list[int] = []
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        self.creations += request.method == "POST"
        if request.method == "PATCH":
            self.offsets.append(int(request.headers["upload-offset"]))


def begin_slowly(page: Page, gallery: Gallery, file: Path) -> CDPSession:
    """Choose a file and wait until a good part of it has arrived; the rest takes a minute."""
    network = slow_down(page, RECEIVED // 2)
    page.locator("#files").set_input_files(file)
    wait_until(lambda: gallery.received() > RECEIVED, "a good part of the upload")
    return network


def test_an_upload_goes_on_when_its_server_was_killed(
    page: Page, gallery: Gallery, large: Path
) -> None:
    wire = Wire(page)
    network = begin_slowly(page, gallery, large)
    gallery.kill()
    kept = gallery.received()
    row = page.locator(".transfer")
    expect(row).to_contain_text(re.compile(r"The server cannot be reached.* \d+ s"))
    assert gallery.received() == kept
    set_speed(network, -1)
    gallery.start()
    expect(row).to_have_attribute("data-state", "stored")
    assert gallery.stored() == digest(large)
    assert (wire.creations, wire.offsets) == (1, [0, kept])
    expect(page.locator(".card")).to_have_count(1)


def test_an_upload_goes_on_when_only_its_connection_breaks(
    page: Page, gallery: Gallery, tmp_path: Path
) -> None:
    (file := tmp_path / "large.bin").write_bytes(os.urandom(6_000_000))
    with CuttingProxy(int(gallery.url.rpartition(":")[2]), seed=1) as proxy:
        page.goto(f"http://127.0.0.1:{proxy.port}")
        wire = Wire(page)
        choose(page, file)
    assert gallery.stored() == digest(file)
    assert proxy.cuts >= 3  # no connection lets 1.5 MiB through
    assert wire.creations == 1
    assert wire.offsets[0] == 0
    assert wire.offsets[-1] > 3_000_000


def test_an_upload_goes_on_when_the_page_was_loaded_again(
    page: Page, gallery: Gallery, large: Path
) -> None:
    wire = Wire(page)
    network = begin_slowly(page, gallery, large)
    page.reload()
    page.locator("#files").set_input_files(large)
    expect(page.locator(".transfer")).to_contain_text(" of 16 MB")
    share = page.get_by_role("progressbar", name=f"Progress of {large.name}")
    assert float(share.get_attribute("value") or 0) > RECEIVED / large.stat().st_size
    set_speed(network, -1)
    expect(page.locator(".transfer")).to_have_attribute("data-state", "stored")
    assert gallery.stored() == digest(large)
    assert wire.creations == 1
    assert wire.offsets[-1] > RECEIVED


def test_an_upload_that_the_server_has_forgotten_begins_again(
    page: Page, gallery: Gallery, large: Path
) -> None:
    wire = Wire(page)
    network = begin_slowly(page, gallery, large)
    page.reload()
    for folder in gallery.files.glob(".hashfs/uploads/*"):
        shutil.rmtree(folder, ignore_errors=True)  # which the server may be clearing up, too
    set_speed(network, -1)
    choose(page, large)
    assert wire.creations == 2
    assert gallery.stored() == digest(large)


def test_nobody_goes_on_with_the_upload_of_another_visitor(gallery: Gallery) -> None:
    with gallery.client() as visitor, gallery.client() as other:
        for client in visitor, other:
            client.get("/")
        headers = {"Upload-Complete": "?0", "Upload-Length": "5"}
        location = visitor.post("/uploads", headers=headers).headers["Location"]
        assert (other.head(location).status_code, other.delete(location).status_code) == (404, 404)
        assert visitor.head(location).status_code == 204


def test_no_answer_but_a_change_sets_the_session(gallery: Gallery) -> None:
    """A picture that was asked for earlier, and answered later, would bring the old one back."""
    with gallery.client() as visitor:
        assert "Set-Cookie" in visitor.get("/").headers
        for path in "/", "/static/mark.svg":
            assert "Set-Cookie" not in visitor.get(path).headers


# -- one file


def test_detail_and_download(page: Page, gallery: Gallery, photo: Path, tmp_path: Path) -> None:
    shutil.copy(photo, file := tmp_path / "Übung «eins», 100%.jpg")
    choose(page, file)
    page.get_by_role("link", name="View").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(file.name)
    [expected] = digest(photo)
    facts = page.locator(".facts")
    for fact in expected, "image/jpeg", f"({photo.stat().st_size:,} bytes)":
        expect(facts).to_contain_text(fact)
    picture = page.locator(".stage img")
    wait_until(lambda: picture.evaluate("image => image.naturalWidth") == WIDTH, "the picture")

    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    url = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(rf"{gallery.url}/media/[0-9a-f/]+\.jpg\?token=[\w.-]+", url)
    with gallery.client() as stranger:
        assert stranger.get(url.partition("?")[0]).status_code == 403
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == file.name
    assert content_of(download.value) == photo.read_bytes()
    page.goto(url)
    assert page.evaluate("document.contentType") == "image/jpeg"


def test_what_is_shown_in_the_browser(page: Page, gallery: Gallery, tmp_path: Path) -> None:
    printed = page.context.new_page()
    printed.set_content("<h1 style='background: rgb(200, 0, 0); height: 100vh'>")
    printed.pdf(path=tmp_path / "red.pdf", print_background=True)
    (tmp_path / "words.txt").write_text("grüße <b>not bold</b>", encoding="utf-8")
    printed.screenshot(path=tmp_path / "shot.png")
    printed.close()
    choose(page, tmp_path / "red.pdf", tmp_path / "words.txt", tmp_path / "shot.png")

    def open_file(name: str) -> str:
        page.goto(gallery.url)
        page.locator(".card", has_text=name).get_by_role("link").click()
        page.get_by_role("link", name="Open").click()
        page.wait_for_url("**/media/**")
        return page.evaluate("document.contentType")

    assert open_file("shot.png") == "image/png"
    assert page.locator("img").evaluate("image => image.naturalWidth") == 1280
    assert open_file("words.txt") == "text/plain"
    assert page.locator("body").inner_text() == "grüße <b>not bold</b>"
    assert open_file("red.pdf") == "application/pdf"


HOSTILE = {
    "page.html": "<!doctype html><title>quiet</title>{}<p>shown",
    "page.xhtml": '<html xmlns="http://www.w3.org/1999/xhtml"><title>quiet</title>{}</html>',
    "drawing.svg": '<svg xmlns="http://www.w3.org/2000/svg"><title>quiet</title>{}</svg>',
}
SCRIPT = "<script>document.title = 'ran'; fetch('/ran'); location = '/ran'</script>"


@pytest.mark.parametrize("inline", [False, True], ids=["downloaded", "inline"])
def test_an_uploaded_script_does_not_run(
    browser: Browser, framework: str, tmp_path: Path, inline: bool
) -> None:
    """By default such files download. Shown inline, by an app that asks for it, they stay mute."""
    types = '["text/html", "image/svg+xml", "application/xhtml+xml"]'
    config = {"HASHFS_INLINE_TYPES": types} if inline else {}
    with Gallery(framework, tmp_path, **config) as gallery, visit(browser) as context:
        page = context.new_page()
        requests: list[str] = []
        context.on("request", lambda request: requests.append(request.url))
        for name, text in HOSTILE.items():
            (tmp_path / name).write_text(text.format(SCRIPT))
            page.goto(gallery.url)
            choose(page, tmp_path / name)
            page.get_by_role("link", name="View").click()
            opened = page.get_by_role("link", name="Open")
            if inline:
                opened.click()
                page.wait_for_url("**/media/**")
                page.wait_for_load_state("networkidle")
                assert page.title() == "quiet"
            else:
                with page.expect_download() as download:
                    opened.click()
                assert content_of(download.value) == (tmp_path / name).read_bytes()
        assert not [url for url in requests if url.endswith("/ran")]


def test_another_site_cannot_act_for_the_visitor(page: Page, gallery: Gallery, photo: Path) -> None:
    choose(page, photo)
    form = f'<form method="post" action="{gallery.url}/files/1/delete"><button>Win</button></form>'
    page.route(
        "http://other.example/", lambda route: route.fulfill(body=form, content_type="text/html")
    )
    page.goto("http://other.example/")
    with page.expect_response(f"{gallery.url}/files/1/delete") as response:
        page.get_by_role("button").click()
    assert response.value.status == 403
    expect(page.get_by_role("heading", level=1)).to_have_text("Forbidden")
    assert gallery.stored() == digest(photo)


# -- for everyone


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus, and see that every stop on the way is marked."""
    for _ in range(40):
        page.keyboard.press("Tab")
        marked = page.evaluate(
            """() => {
              const at = document.activeElement;
              const outline = (element) => element && getComputedStyle(element).outlineStyle;
              return at === document.body || outline(at) !== "none"
                || outline(at.nextElementSibling) !== "none";
            }"""
        )
        assert marked, page.evaluate("document.activeElement.outerHTML")
        if page.locator(selector).first.evaluate("it => it === document.activeElement"):
            return
    pytest.fail(f"no way by Tab to {selector}")


def test_use_by_keyboard_alone(page: Page, gallery: Gallery, photo: Path) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the skip link
    expect(page.locator("main")).to_be_focused()
    page.reload()
    tab_to(page, "#theme")
    page.keyboard.press("Enter")
    tab_to(page, "#files")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files([photo])
    expect(page.get_by_role("status").last).to_contain_text(f"{photo.name}: Stored")
    tab_to(page, ".transfer .close")
    page.keyboard.press("Enter")  # dismiss the row
    expect(page.locator("#files")).to_be_focused()
    tab_to(page, ".card a")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(photo.name)
    tab_to(page, "summary")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".messages")).to_contain_text(f"{photo.name}: deleted")
    expect(page.locator(".card")).to_have_count(0)


def test_the_theme_is_kept(page: Page) -> None:
    def paper() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = paper()
    page.emulate_media(color_scheme="dark")
    dark = paper()
    assert light != dark
    page.get_by_role("button", name="Theme: Auto").click()
    page.reload()
    expect(page.get_by_role("button", name="Theme: Light")).to_be_visible()
    assert paper() == light
    page.get_by_role("button", name="Theme: Light").click()
    page.emulate_media(color_scheme="light")
    assert paper() == dark


def inspect(page: Page, gallery: Gallery, name: str) -> None:
    """Check a page in all its clothes, and take the docs' pictures of them."""
    for width, height in (1280, 900), (390, 844), (320, 640):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function("width => innerWidth === width", arg=width)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for colours in "light", "dark":
            page.emulate_media(color_scheme=colours, reduced_motion="reduce")
            violations = Axe().run(page).response["violations"]
            assert not violations, [
                (violation["id"], [node["html"] for node in violation["nodes"]])
                for violation in violations
            ]
            picture = f"gallery-{name}-{width}-{colours}.png"
            if SCREENSHOTS and gallery.framework == "flask" and picture in PICTURES:
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=Path(SCREENSHOTS, picture))


def test_every_page_in_every_size_and_colour(
    page: Page,
    gallery: Gallery,
    photos: dict[str, Path],
    assorted: dict[str, Path],
    tmp_path: Path,
) -> None:
    inspect(page, gallery, "empty")

    page.goto(gallery.url)
    page.get_by_label("Your name").fill("Ada")
    (report := tmp_path / "Minutes.pdf").write_bytes(b"%PDF-1.4 " + bytes(2_500_000))
    choose(page, *photos.values())
    choose(page, *assorted.values())
    page.get_by_label("Your name").fill("Grace")
    shutil.copy(photos["Lavender"], again := tmp_path / "From the south.jpg")
    choose(page, again)
    page.reload()
    expect(page.locator(".card")).to_have_count(16)
    inspect(page, gallery, "files")

    page.goto(gallery.url)
    network = slow_down(page, CRAWL)
    page.locator("#files").set_input_files([report, photos["Storm"], assorted["text"]])
    expect(page.locator(".transfer[data-state=duplicate]")).to_have_count(2)
    expect(page.locator(".transfer[data-state=sending]")).to_contain_text(" at ")
    inspect(page, gallery, "uploads")
    set_speed(network, -1)

    page.goto(gallery.url)
    page.locator(".card", has_text=again.name).get_by_role("link").click()
    page.get_by_text("Delete…").click()
    inspect(page, gallery, "file")

    page.goto(f"{gallery.url}/files/999")
    inspect(page, gallery, "missing")


# -- behind the pages


def send(client: httpx.Client, name: str, content: bytes) -> int:
    """Upload as the page's script does, and return the number of the item."""
    headers = {"Content-Disposition": f"attachment; filename={name}", "Upload-Complete": "?0"}
    created = client.post("/uploads", headers=headers)
    headers = {
        "Content-Type": "application/partial-upload",
        "Upload-Complete": "?1",
        "Upload-Offset": "0",
    }
    return client.patch(created.headers["Location"], headers=headers, content=content).json()[
        "item"
    ]


def test_a_content_stays_as_long_as_an_item_uses_it(gallery: Gallery) -> None:
    """Visitors who add and delete the same content all at once never lose a file in use."""
    content = os.urandom(1000)

    def visit(visitor: int) -> None:
        with gallery.client() as client:
            client.headers["Accept"] = "application/json"
            for _ in range(6):
                item = send(client, f"{visitor}.bin", content)
                downloaded = client.get(f"/files/{item}/download", follow_redirects=True)
                assert downloaded.content == content
                assert client.post(f"/files/{item}/delete").status_code == 303

    with ThreadPoolExecutor(4) as visitors:
        visits = [visitors.submit(visit, visitor) for visitor in range(4)]
        gallery.hashfs("prune", "--older-than", "1h", "--allow-empty")
        for each in visits:
            each.result()
    assert gallery.stored() == digest(content)
    gallery.hashfs("prune", "--older-than", "0", "--allow-empty")
    assert gallery.stored() == []


def test_prune_spares_what_the_gallery_shows(gallery: Gallery, photo: Path) -> None:
    unused = b"put by someone else"
    with gallery.client() as client:
        client.post("/files", files={"files": ("used.jpg", photo.read_bytes())})
    (gallery.files.parent / "unused.txt").write_bytes(unused)
    gallery.hashfs("put", str(gallery.files.parent / "unused.txt"))
    assert gallery.stored() == digest(photo.read_bytes(), unused)
    gallery.hashfs("prune", "--older-than", "0")
    gallery.hashfs("--store", "thumbnails", "prune", "--older-than", "0")
    assert gallery.stored() == digest(photo)
    gallery.hashfs("refs", "--missing")
    gallery.hashfs("--store", "thumbnails", "refs", "--missing")


def test_ctrl_c_ends_the_demo_without_a_word_of_trouble(gallery: Gallery) -> None:
    gallery.process.send_signal(signal.SIGINT)
    assert gallery.process.wait(PATIENCE) == 0
    assert "Traceback" not in gallery.log.read_text()


CARDS = 41


def test_a_page_of_many_files_is_light(gallery: Gallery, photo: Path) -> None:
    files = [("files", (f"{number}.jpg", photo.read_bytes())) for number in range(CARDS)]
    with gallery.client() as client:
        client.post("/files", files=files)
        page = client.get("/").text
    assert page.count('class="card"') == CARDS
    assert len(page.encode()) < 60_000


# -- tiles


@pytest.fixture
def assorted(tmp_path: Path, photos: dict[str, Path]) -> dict[str, Path]:
    """Return one file of each kind that a tile shows in a way of its own."""
    shutil.copy(photos["Storm"], picture := tmp_path / "From the boat.jpg")
    (svg := tmp_path / "Drawing.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30" fill="teal">'
        '<circle cx="13" cy="15" r="9"/><path d="m20 26 9-20 9 20z" fill="orange"/></svg>'
    )
    (text := tmp_path / "Notes.txt").write_text(
        "# Things to see on the coast\n\n- the lighthouse\n- the harbour, before six <b>\n" * 9
    )
    (document := tmp_path / "Report.pdf").write_bytes(b"%PDF-1.4\n" + bytes(5000))
    with zipfile.ZipFile(archive := tmp_path / "Holiday.zip", "w") as packed:
        packed.writestr("one.txt", "one")
    film = tmp_path / "Waves.webm"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        frame = av.VideoFrame.from_image(Image.open(photos["Copper coast"]).resize((320, 240)))
        for _ in range(10):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return {
        "picture": picture,
        "drawing": svg,
        "text": text,
        "document": document,
        "archive": archive,
        "film": film,
    }


def test_a_tile_shows_what_is_in_the_file(
    page: Page, gallery: Gallery, assorted: dict[str, Path]
) -> None:
    fetched: list[str] = []
    choose(page, *assorted.values())
    page.on("request", lambda request: fetched.append(request.url))
    page.reload()

    def tile(kind: str) -> Locator:
        return page.locator(".card", has_text=assorted[kind].name).locator(".thumb")

    def width(shown: Locator) -> int:
        return shown.evaluate("it => it.naturalWidth ?? it.videoWidth")

    picture, drawing = tile("picture").locator("img"), tile("drawing").locator(".whole")
    expect(picture).to_have_attribute("src", re.compile("^/thumbnails/"))
    wait_until(lambda: width(picture) == 480, "the thumbnail")
    wait_until(lambda: width(drawing) == 40, "the drawing")
    wait_until(lambda: width(tile("film").locator("video")) == 320, "the film's first frame")
    expect(tile("text").locator(".excerpt")).to_contain_text("the harbour, before six <b>")
    for kind in "document", "archive":
        expect(tile(kind).locator(f".icon.{kind}")).to_be_visible()
    originals = [url for url in fetched if "/media/" in url]
    assert {url.partition("?")[0][-4:] for url in originals} == {".svg", "webm"}


def test_a_broken_picture_is_kept_and_has_an_icon(gallery: Gallery, photo: Path) -> None:
    broken = photo.read_bytes()[:600]
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    files = [("files", ("broken.jpg", broken)), ("files", ("bomb.png", bomb.getvalue()))]
    with gallery.client() as client:
        assert client.post("/files", files=files).status_code == 303
        page = client.get("/").text
    assert gallery.stored() == digest(broken, bomb.getvalue())
    assert page.count('class="icon image"') == 2
    assert "/thumbnails/" not in page


def test_types_that_are_not_accepted_are_refused_with_words(
    browser: Browser, framework: str, tmp_path: Path, photo: Path
) -> None:
    (notes := tmp_path / "notes.jpg").write_text("no picture at all\n" * 100)
    with (
        Gallery(framework, tmp_path, HASHFS_ACCEPT="image/*") as gallery,
        visit(browser) as context,
    ):
        page = context.new_page()
        page.goto(gallery.url)
        expect(page.locator("#limit")).to_contain_text("image/*")
        expect(page.locator("#files")).to_have_attribute("accept", "image/*")
        choose(page, notes, outcome="This is text/plain, which is not accepted here.")
        expect(page.get_by_role("button", name="Try again")).to_have_count(0)
        choose(page, photo)
        assert gallery.stored() == digest(photo)
