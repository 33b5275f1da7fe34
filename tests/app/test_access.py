"""What may come in: one order of checks, in both frameworks, as forms and raw, on both stores."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Site
from real_formats import zipped
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import Conflict

from flask_hashfs import (
    AUTO,
    ConfigError,
    FileTooLargeError,
    HashAddress,
    HashFS,
    NotStoredError,
    RejectedError,
    UnsupportedTypeError,
    file_rejected,
    file_stored,
)
from flask_hashfs._http.media import guess_mimetype
from flask_hashfs._http.sniffing import HEAD_SIZE
from flask_hashfs._store import types

pytestmark = pytest.mark.decided_once

PNG = b"\x89PNG\r\n\x1a\n" + b"picture" * 100
GIF = b"GIF89a\x01\x00\x01\x00" + bytes(20)
HTML = b"<!doctype html><script>alert(1)</script>"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
ARCHIVE = zipped(("a.txt", "hello"))
DOCX = zipped(("media", bytes(2 * HEAD_SIZE)), ("[Content_Types].xml", ""), ("word/a.xml", ""))
STORES = ["folder", "bucket"]


def form(*contents: bytes, filename: str = "a") -> tuple[dict[str, str], bytes]:
    """The headers and the body of a form with a file for each content."""
    parts = b"".join(
        b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="%b"\r\n'
        b"Content-Type: image/png\r\n\r\n%b\r\n" % (filename.encode(), content)
        for content in contents
    )
    return {"Content-Type": "multipart/form-data; boundary=xyz"}, parts + b"--xyz--\r\n"


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=STORES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "root")
    pytest.importorskip("obstore")
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def new_site(framework: str, root: str) -> Callable[..., Site]:
    def new(*names: str, **config: Any) -> Site:
        settings = {"HASHFS_ROOT_FOLDER": root} | config
        for name in names:
            folder = f"{root}-{name}" if "://" not in root else f"memory://{uuid.uuid4().hex}"
            settings.setdefault(f"HASHFS_{name.upper()}_ROOT_FOLDER", folder)
        site = Site(framework, settings, names)
        site.route_put("/put")
        return site

    return new


def post(site: Site, content: bytes, how: str, query: str = "") -> Any:
    """The reply to a content that is sent as a form or as a raw body."""
    if how == "raw":
        return site.ask(f"/put{query}", "POST", {"Content-Length": str(len(content))}, content)
    headers, body = form(content)
    return site.ask(f"/put/form{query}", "POST", headers, body)


def stored(site: Site) -> list[str]:
    return sorted(site.client.files())


@pytest.fixture(params=["raw", "form"])
def how(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# -- the order of checks -----------------------------------------------------------------------

OTHER_ID = "0" * 64

# What is put, with what (max_size, accept, expected, and what an inspector raises), and the answer.
ORDER = [
    ("nothing is wrong", PNG, {}, None, 200),
    ("the size comes before the type", HTML * 30, {}, None, 413),
    ("the size comes before the digest", PNG * 2, {"expected": OTHER_ID}, None, 413),
    ("a put's own size comes before the digest", PNG, {"max_size": 5, "expected": "0"}, None, 413),
    ("the type comes before the digest", HTML, {"expected": OTHER_ID}, None, 415),
    ("the type comes before the inspectors", HTML, {}, RejectedError("no"), 415),
    ("the digest comes before what is in an archive", DOCX, {"expected": OTHER_ID}, None, 400),
    ("what is in an archive comes before the inspectors", DOCX, {}, RejectedError("no"), 415),
    ("the digest comes before the inspectors", PNG, {"expected": OTHER_ID}, Conflict(), 400),
    ("the inspectors come last", PNG, {}, RejectedError("no"), 422),
    ("an inspector may answer as it likes", PNG, {}, Conflict(), 409),
    ("an inspector's bug is the app's", PNG, {}, ZeroDivisionError(), 500),
]


@pytest.mark.parametrize(
    ("content", "arguments", "raised", "status"),
    [pytest.param(*case, id=name) for name, *case in ORDER],
)
def test_the_first_check_that_fails_is_the_answer(
    new_site: Callable[..., Site],
    how: str,
    content: bytes,
    arguments: dict[str, Any],
    raised: Exception | None,
    status: int,
) -> None:
    size = 1000 if len(content) < HEAD_SIZE else None
    site = new_site(HASHFS_ACCEPT="image/*, application/zip", HASHFS_MAX_FILE_SIZE=size)
    site.route_put("/checked", **arguments)

    @site.fs.inspector
    def look(file: Any, address: HashAddress) -> None:
        if raised is not None:
            raise raised

    headers, body = form(content)
    if how == "raw":
        headers, body = {"Content-Length": str(len(content))}, content
    site.app.config["PROPAGATE_EXCEPTIONS"] = False
    reply = site.ask("/checked" + ("" if how == "raw" else "/form"), "POST", headers, body)
    assert reply.status == status
    assert len(stored(site)) == (status == 200)


# What is put of which the end is missing, with what, and the answer.
IS_CUT = rb"ended|ends|broke off"
BROKEN = [
    (
        "the type comes before the end of the body",
        b"x" * 2 * HEAD_SIZE,
        {},
        415,
        b"accepted is",
    ),
    (
        "the end of the body comes before the digest",
        PNG,
        {"expected": OTHER_ID},
        400,
        IS_CUT,
    ),
    (
        "the end of the body comes before what is in an archive",
        DOCX,
        {},
        400,
        IS_CUT,
    ),
    ("the end of the body comes before the inspectors", PNG, {}, 400, IS_CUT),
]


@pytest.mark.parametrize(
    ("content", "arguments", "status", "words"),
    [pytest.param(*case, id=name) for name, *case in BROKEN],
)
def test_a_body_that_breaks_off_is_judged_in_the_same_order(
    new_site: Callable[..., Site],
    how: str,
    content: bytes,
    arguments: dict[str, Any],
    status: int,
    words: bytes,
) -> None:
    site = new_site(HASHFS_ACCEPT="image/*, application/zip")
    site.route_put("/checked", **arguments)
    looking = Seen()
    site.fs.inspector(looking)
    headers, body = form(content)
    if how == "raw":
        headers, body = {}, content
    headers["Content-Length"] = str(len(body) + 1000)
    body = body if how == "raw" else body[: -len("--xyz--")]
    reply = site.ask("/checked" + ("" if how == "raw" else "/form"), "POST", headers, body)
    assert reply.status == status
    assert re.search(words, reply.body)
    assert looking.contents == []
    assert stored(site) == []


# -- types -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (PNG, 200),
        (GIF + HTML, 200),
        (HTML, 415),
        (SVG, 415),
        (b"", 415),
        (b"text", 415),
        (PNG + bytes(300_000), 200),
        (b"x" * 300_000, 415),
    ],
    ids=["png", "gif and html", "html", "svg", "nothing", "text", "large png", "large text"],
)
def test_only_what_is_accepted_is_stored(
    new_site: Callable[..., Site], how: str, content: bytes, status: int
) -> None:
    site = new_site(HASHFS_ACCEPT="image/*")
    reply = post(site, content, how)
    assert reply.status == status
    assert len(stored(site)) == (status == 200)


def test_the_message_names_both(new_site: Callable[..., Site], how: str) -> None:
    body = post(new_site(HASHFS_ACCEPT=["image/*", "application/pdf"]), HTML, how).body.decode()
    assert "text/html" in body
    assert "image/*, application/pdf" in body


def test_everything_is_accepted_without_a_list(new_site: Callable[..., Site], how: str) -> None:
    site = new_site()
    assert post(site, HTML, how, "?extension=html").status == 200
    assert stored(site)[0].endswith(".html")


@pytest.mark.parametrize(
    ("content", "extension", "served"),
    [
        (GIF + HTML, "html", ".gif"),
        (PNG, "svg", ".png"),
        (PNG, "jpg", ".jpg"),
        (PNG, "PNG", ".PNG"),
        (PNG, "x-unknown", ".png"),
        (PNG, "", ""),
    ],
)
def test_what_is_accepted_is_also_what_is_served(
    new_site: Callable[..., Site], how: str, content: bytes, extension: str, served: str
) -> None:
    site = new_site(HASHFS_ACCEPT="image/*")
    assert post(site, content, how, f"?extension={extension}").status == 200
    [path] = stored(site)
    assert path.endswith(hashlib.sha256(content).hexdigest()[4:] + served)


def test_a_put_may_be_narrower_and_not_wider(new_site: Callable[..., Site]) -> None:
    site = new_site(HASHFS_ACCEPT="image/*")
    assert site.put(PNG, accept="image/png")
    with pytest.raises(UnsupportedTypeError) as caught:
        site.put(GIF, accept=["image/png"])
    assert (caught.value.mimetype, caught.value.accepted) == ("image/gif", ("image/png",))
    with pytest.raises(UnsupportedTypeError):
        site.put(HTML, accept="text/html")


@pytest.mark.parametrize("accept", ["", [], "nonsense", 3, ["image"]])
def test_a_list_that_is_none_is_a_config_error(new_site: Callable[..., Site], accept: Any) -> None:
    with pytest.raises(ConfigError):
        new_site().put(PNG, accept=accept)
    with pytest.raises(ConfigError, match="HASHFS_ACCEPT"):
        new_site(HASHFS_ACCEPT=accept)


def test_a_duplicate_is_judged_like_new_content(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.put(HTML, "html")
    with pytest.raises(UnsupportedTypeError):
        site.put(HTML, "png", accept="image/*")
    assert len(stored(site)) == 1


def test_an_archive_is_told_by_the_whole(new_site: Callable[..., Site], how: str) -> None:
    site = new_site(HASHFS_ACCEPT=guess_mimetype("a.docx"))
    assert post(site, ARCHIVE, how).status == 415
    assert post(site, DOCX, how, "?extension=zip").status == 200
    assert stored(site)[0].endswith(".docx")
    assert post(new_site(HASHFS_ACCEPT="image/*"), DOCX, how).status == 415


def test_a_file_of_a_form_that_was_not_chosen_is_not_judged(new_site: Callable[..., Site]) -> None:
    site = new_site(HASHFS_ACCEPT="image/*")
    headers, body = form(b"", filename="")
    body = body.replace(b'name="f"', b'name="other"')
    assert site.ask("/put/form", "POST", headers, body).status == 200
    headers, body = form(b"", filename="")
    assert site.ask("/put/form", "POST", headers, body).status == 415


def test_a_form_takes_what_any_store_accepts_and_each_put_its_own(
    new_site: Callable[..., Site],
) -> None:
    site = new_site("texts", HASHFS_ACCEPT="image/*", HASHFS_TEXTS_ACCEPT="text/plain")
    seen: list[str] = []
    site.app.add_url_rule("/seen", "seen", counting(site, seen), methods=["POST"])
    headers, body = form(b"text")
    assert site.ask("/put/form", "POST", headers, body).status == 415  # by the put
    assert site.ask("/seen", "POST", headers, body).status == 200
    headers, body = form(HTML)
    assert site.ask("/seen", "POST", headers, body).status == 415
    assert seen == ["a"]


def counting(site: Site, seen: list[str]) -> Callable[[], Any]:
    """A view that notes the names of a form's files."""
    from flask import request as flask_request
    from quart import request as quart_request

    def view() -> str:
        seen.extend(str(file.filename) for file in flask_request.files.values())
        return ""

    async def quart_view() -> str:
        seen.extend(str(file.filename) for file in (await quart_request.files).values())
        return ""

    return quart_view if site.is_quart else view


def test_many_parts_are_judged_each_for_itself(new_site: Callable[..., Site]) -> None:
    site = new_site(HASHFS_ACCEPT="image/*")
    headers, body = form(PNG, PNG + b"x" * 200_000, GIF)
    assert site.ask("/put/form", "POST", headers, body).status == 200
    assert len(stored(site)) == 3
    headers, body = form(PNG + b"1", HTML, GIF + b"1")
    assert site.ask("/put/form", "POST", headers, body).status == 415
    assert len(stored(site)) == 3


# -- AUTO and type_of --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "suffix"),
    [(PNG, ".png"), (b"hello", ".txt"), (b"\xfe\xfe", ""), (HTML, ".html"), (DOCX, ".docx")],
)
def test_auto_gives_the_extension_of_the_content(
    new_site: Callable[..., Site], content: bytes, suffix: str
) -> None:
    site = new_site()
    address = site.put(content, AUTO)
    assert address.relpath.endswith(address.id[4:] + suffix)
    assert site.put(FileStorage(io.BytesIO(content), "a.bin"), AUTO).is_duplicate


def test_type_of_takes_every_form_of_a_look_up(new_site: Callable[..., Site]) -> None:
    site = new_site()
    type_of = functools.partial(site.call, site.fs.type_of)
    address = site.put(PNG, "txt")
    for file in (address, address.id, address.relpath, address.abspath):
        assert type_of(file) == "image/png"
    assert type_of(site.put(DOCX)) == guess_mimetype("a.docx")
    with pytest.raises(NotStoredError):
        type_of("0" * 64)


def test_type_of_takes_an_upload_and_keeps_its_position(new_site: Callable[..., Site]) -> None:
    site = new_site()
    for file in (io.BytesIO(PNG), FileStorage(io.BytesIO(PNG), "a.html", content_type="text/html")):
        file.seek(3)
        assert site.call(site.fs.type_of, file) == "image/png"
        assert file.tell() == 3


@pytest.mark.parametrize("file", [3, None, io.StringIO("text")])
def test_type_of_anything_else_is_a_type_error(new_site: Callable[..., Site], file: Any) -> None:
    site = new_site()
    with pytest.raises(TypeError):
        site.call(site.fs.type_of, file)


def test_without_the_detector_everything_that_needs_it_says_what_to_install(
    new_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pure_magic_rs", None)
    types.detector.cache_clear()
    try:
        site = new_site()
        address = site.put(PNG, "png")  # which does not need it
        for call in (
            lambda: new_site(HASHFS_ACCEPT="image/*"),
            lambda: site.put(GIF, accept="image/*"),
            lambda: site.put(GIF, AUTO),
            lambda: site.call(site.fs.type_of, address),
            lambda: site.call(site.fs.type_of, io.BytesIO(GIF)),
        ):
            with pytest.raises(ConfigError, match=r"Flask-HashFS\[types\]"):
                call()
        assert len(stored(site)) == 1
    finally:
        types.detector.cache_clear()


# -- inspectors --------------------------------------------------------------------------------


class Seen:
    """An inspector that notes what it was given."""

    def __init__(self, raises: Exception | None = None) -> None:
        self.contents: list[bytes] = []
        self.addresses: list[HashAddress] = []
        self.threads: list[str] = []
        self.raises = raises

    def __call__(self, file: Any, address: HashAddress) -> None:
        from flask import current_app as flask_app
        from quart import current_app as quart_app

        assert flask_app or quart_app
        self.contents.append(file.read())
        self.addresses.append(address)
        self.threads.append(threading.current_thread().name)
        if self.raises is not None:
            raise self.raises


@pytest.fixture
def signals() -> Iterator[list[tuple[str, Any, Any]]]:
    """The names of the signals sent, with the address and the error of each."""
    sent: list[tuple[str, Any, Any]] = []

    def note(name: str, sender: Any, **what: Any) -> None:
        sent.append((name, what["address"], what.get("error")))

    stored_note, rejected_note = functools.partial(note, "stored"), functools.partial(note, "no")
    with file_stored.connected_to(stored_note), file_rejected.connected_to(rejected_note):
        yield sent


@pytest.mark.slow
def test_new_content_is_looked_at_once(
    new_site: Callable[..., Site], how: str, signals: list[Any]
) -> None:
    site = new_site()
    first, second = Seen(), Seen()
    site.fs.inspector(first)
    assert site.fs.inspector(second) is second
    for _ in range(2):
        assert post(site, PNG, how, "?extension=png").status == 200
    assert post(site, PNG, how, "?extension=jpg").status == 200
    assert first.contents == second.contents == [PNG]
    [address] = first.addresses
    assert address.id == hashlib.sha256(PNG).hexdigest()
    assert address.relpath.endswith(".png")
    assert address.abspath in stored(site)
    assert [name for name, _, _ in signals] == ["stored"] * 3


def test_a_refusal_leaves_nothing_and_is_told(
    new_site: Callable[..., Site], how: str, signals: list[Any]
) -> None:
    site = new_site()
    error = RejectedError("a virus was found")
    looking, never = Seen(error), Seen()
    site.fs.inspector(looking)
    site.fs.inspector(never)
    reply = post(site, PNG, how, "?extension=png")
    assert reply.status == 422
    assert b"a virus was found" in reply.body
    assert stored(site) == []
    assert never.contents == []
    assert signals == [("no", looking.addresses[0], error)]


def test_a_bug_of_an_inspector_is_not_a_refusal(
    new_site: Callable[..., Site], signals: list[Any]
) -> None:
    site = new_site()
    site.fs.inspector(Seen(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        site.put(PNG)
    assert stored(site) == []
    assert signals == []


def test_it_sees_the_extension_that_the_content_gets(new_site: Callable[..., Site]) -> None:
    site = new_site(HASHFS_ACCEPT="image/*")
    looking = Seen()
    site.fs.inspector(looking)
    site.put(GIF + HTML, "html")
    site.put(PNG + b"x" * 400_000, AUTO)
    assert [address.relpath[-4:] for address in looking.addresses] == [".gif", ".png"]
    assert looking.contents[1] == PNG + b"x" * 400_000


def test_every_kind_of_source_is_looked_at(new_site: Callable[..., Site], tmp_path: Path) -> None:
    site = new_site()
    looking = Seen()
    site.fs.inspector(looking)
    path = tmp_path / "file"
    path.write_bytes(b"1")
    for source in (str(path), b"2", io.BytesIO(b"3"), io.StringIO("4"), iter([b"5"])):
        site.put(source)
    assert looking.contents == [b"1", b"2", b"3", b"4", b"5"]
    for _, result in site.client.put_files([(b"6", None), (b"6", "a"), (b"7", None)]):
        assert isinstance(result, HashAddress)
    assert sorted(looking.contents[5:]) in ([b"6", b"7"], [b"6", b"6", b"7"])


def test_a_put_that_is_refused_can_be_put_again(new_site: Callable[..., Site]) -> None:
    site = new_site()
    looking = Seen(RejectedError("no"))
    site.fs.inspector(looking)
    with pytest.raises(RejectedError):
        site.put(PNG)
    looking.raises = None
    assert not site.put(PNG).is_duplicate
    assert looking.contents == [PNG, PNG]


def test_only_callables_inspect(new_site: Callable[..., Site]) -> None:
    with pytest.raises(TypeError, match="callable"):
        new_site().fs.inspector("scan")


def test_nothing_is_stored_where_nobody_awaits_the_inspector(
    new_site: Callable[..., Site],
) -> None:
    site = new_site()

    async def scan() -> None:
        raise RejectedError("a virus was found")

    @site.fs.inspector
    def look(file: Any, address: HashAddress) -> Any:
        return scan()

    with pytest.raises(TypeError, match="awaited"):
        site.put(PNG)
    assert list(site.client.files()) == []


def test_a_coroutine_inspects_on_the_loop_of_quart(root: str, signals: list[Any]) -> None:
    site = Site("quart", {"HASHFS_ROOT_FOLDER": root})
    seen: list[Any] = []

    @site.fs.inspector
    async def look(file: Any, address: HashAddress) -> None:
        await file.seek(2)
        seen.append((await file.read(), threading.current_thread() is threading.main_thread()))
        if seen[-1][0].endswith(b"!"):
            raise RejectedError("no")

    site.put(b"ab and c")
    site.put(io.BytesIO(b"xx" + bytes(500_000)))
    assert seen == [(b" and c", True), (bytes(500_000), True)]
    with pytest.raises(RejectedError):
        site.put(b"xx!")
    assert [name for name, _, _ in signals] == ["stored", "stored", "no"]
    [(_, result)] = site.client.put_files([(b"yy!", None)])  # as the command line does
    assert isinstance(result, RejectedError)
    assert signals[-1][0] == "no"


def test_plain_inspectors_of_quart_run_in_threads_of_their_own(root: str) -> None:
    site = Site("quart", {"HASHFS_ROOT_FOLDER": root, "HASHFS_WORKER_THREADS": 1})
    looking = Seen()
    site.fs.inspector(looking)
    site.put(PNG)
    assert looking.threads != [threading.main_thread().name]


def put_at_once(site: Site, *contents: bytes) -> list[HashAddress]:
    """The addresses of contents that as many requests put at the same time."""
    if not site.is_quart:
        with ThreadPoolExecutor() as threads:
            return list(threads.map(site.put, contents))

    async def put(content: bytes) -> Any:
        async with site.app.test_request_context("/"):
            return await site.fs.put(content)

    async def put_all() -> list[HashAddress]:
        return await asyncio.gather(*map(put, contents))

    addresses: list[HashAddress] = site.call(put_all)
    return addresses


def test_a_slow_scan_holds_up_no_upload_that_needs_none(new_site: Callable[..., Site]) -> None:
    site = new_site(HASHFS_WORKER_THREADS=1)
    site.put(b"there already")
    another_is_stored = threading.Event()

    @site.fs.inspector
    def look(file: Any, address: HashAddress) -> None:
        assert another_is_stored.wait(60)

    def note(sender: Any, **what: Any) -> None:
        another_is_stored.set()

    with file_stored.connected_to(note):
        put_at_once(site, b"new", b"there already")
    assert len(stored(site)) == 2


def test_new_content_that_is_put_twice_at_once_is_stored_by_one(
    new_site: Callable[..., Site], signals: list[Any]
) -> None:
    site = new_site()
    both_look = threading.Barrier(2)

    @site.fs.inspector
    def look(file: Any, address: HashAddress) -> None:
        both_look.wait(60)
        assert file.read() == PNG

    addresses = put_at_once(site, PNG, PNG)
    assert sorted(address.is_duplicate for address in addresses) == [False, True]
    assert len(stored(site)) == 1
    assert [name for name, _, _ in signals] == ["stored", "stored"]


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [UnsupportedTypeError("text/html", ["image/*"]), RejectedError("a virus")]
)
def test_errors_survive_pickling(error: Any) -> None:
    import pickle

    again = pickle.loads(pickle.dumps(error))
    assert again.__dict__ == error.__dict__
    assert str(again) == str(error)
    assert again.code in (415, 422)


def test_the_store_alone_checks_too(tmp_path: Path) -> None:
    store = HashFS(tmp_path / "root")
    assert store.type_of(store.put(PNG, AUTO)) == "image/png"
    with pytest.raises(UnsupportedTypeError):
        store.put(HTML, accept="image/*")
    with pytest.raises(FileTooLargeError):
        store.put(HTML, accept="image/*", max_size=2)
    writer = store.writer()
    writer.write(PNG)
    assert store.commit(writer, AUTO).relpath.endswith(".png")
    writer.close()
