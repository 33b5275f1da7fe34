"""`StoredFile` where a file is named: looked up, sent, linked and kept, in both frameworks."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Reply, Site
from object_stores import object_store

from flask_hashfs import StoredFile

HTML = b"<!doctype html><script>alert(1)</script>"


@pytest.fixture(params=FRAMEWORKS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    config = {
        "SECRET_KEY": "secret",
        "HASHFS_ROOT_FOLDER": str(tmp_path),
        "HASHFS_FSYNC": False,
        "HASHFS_PATH_PREFIX": "/files",
        "HASHFS_SERVE_FILES": "signed",
    }
    return Site(request.param, config)


@pytest.fixture
def file(site: Site) -> StoredFile:
    address = site.put(b"hello", "csv")
    return StoredFile(address.id, address.relpath, "Träume.txt", "text/plain", 5)


def sent(site: Site, file: StoredFile, **options: Any) -> Reply:
    """The answer of a view that sends `file`."""
    fs = site.fs

    def view() -> Any:
        return fs.send_file(file, **options)

    async def quart_view() -> Any:
        return await fs.send_file(file, **options)

    site.app.add_url_rule("/photo", "photo", quart_view if site.is_quart else view)
    return site.ask("/photo")


# -- sending ---------------------------------------------------------------------------------------


def test_it_is_sent_under_its_own_name_and_type(site: Site, file: StoredFile) -> None:
    reply = sent(site, file)
    assert (reply.status, reply.body) == (200, b"hello")
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    disposition = reply.headers["Content-Disposition"]
    assert disposition.startswith("inline; ")
    assert "Tr%C3%A4ume.txt" in disposition


def test_what_the_view_says_comes_before_what_the_row_says(site: Site, file: StoredFile) -> None:
    reply = sent(site, file, mimetype="image/png", download_name="b.png", as_attachment=True)
    assert reply.headers["Content-Type"] == "image/png"
    assert reply.headers["Content-Disposition"] == 'attachment; filename="b.png"'


@pytest.mark.parametrize("filename", [None, "page.txt", "page.png"])
def test_a_type_that_could_run_is_downloaded_whatever_its_name(
    site: Site, filename: str | None
) -> None:
    address = site.put(HTML, "png")
    page = StoredFile(address.id, address.relpath, filename, "text/html", len(HTML))
    reply = sent(site, page)
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert reply.headers["Content-Disposition"].startswith("attachment; ")


def test_without_a_name_it_is_sent_under_its_id(site: Site, file: StoredFile) -> None:
    reply = sent(site, dataclasses.replace(file, filename=None))
    assert file.id in reply.headers["Content-Disposition"]


def test_one_that_is_not_stored_is_not_found(site: Site, file: StoredFile) -> None:
    assert sent(site, dataclasses.replace(file, id="0" * 64, relpath="0")).status == 404


# -- links -----------------------------------------------------------------------------------------


def test_its_url_is_that_of_its_address(site: Site, file: StoredFile) -> None:
    address = site.call(site.fs.get, file)
    assert site.url_for(file) == site.url_for(address)


def test_only_a_url_that_ends_has_its_name(site: Site, file: StoredFile) -> None:
    url = site.url_for(file, external=False, expires=timedelta(hours=1))
    reply = site.ask(url)
    assert "Tr%C3%A4ume.txt" in reply.headers["Content-Disposition"]
    # The route's type is that of the stored name, as everywhere on the route.
    assert reply.headers["Content-Type"] == "text/csv; charset=utf-8"
    other = site.url_for(file, external=False, expires=60, download_name="other.txt")
    assert "other.txt" in site.ask(other).headers["Content-Disposition"]


# -- looking up, keeping and deleting --------------------------------------------------------------


def test_every_look_up_takes_it(site: Site, file: StoredFile) -> None:
    address = site.call(site.fs.get, file)
    assert address.id == file.id
    assert site.call(site.fs.exists, file)
    assert site.client.realpath(file) == address.abspath
    assert file in site.client
    with site.client.open(file) as opened:
        assert opened.read() == b"hello"


def test_a_row_of_another_layout_is_found_by_its_id(site: Site, file: StoredFile) -> None:
    moved = dataclasses.replace(file, relpath=f"{file.id[:2]}/{file.id[2:]}.csv")
    assert site.call(site.fs.get, moved).id == file.id


def test_prune_keeps_it(site: Site, file: StoredFile) -> None:
    unused = site.put(b"other")
    options: dict[str, Any] = {"older_than": timedelta(0)}
    assert site.call(site.fs.prune, [file, None], **options) == [unused.id]


def test_delete_refuses_it_and_names_prune(site: Site, file: StoredFile) -> None:
    for delete in (site.fs.delete, site.client.delete):
        with pytest.raises(TypeError, match="prune"):
            site.call(delete, file)
    assert site.client.exists(file)


def test_an_object_store_takes_it_too() -> None:
    with object_store("memory") as store:
        address = store.put(b"hello", "txt")
        file = StoredFile(address.id, address.relpath, None, "text/plain", 5)
        assert store.get(file) == store.get(address.id)
        with store.open(file) as opened:
            assert opened.read() == b"hello"
        with pytest.raises(TypeError, match="prune"):
            store.delete(file)  # type: ignore[arg-type]
        assert store.exists(file)
