"""What docs/rows.md shows, used: its views, its forms, its admin pages and its migration."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from depot.manager import DepotManager
from PIL import Image
from sqlalchemy import Engine, create_engine, insert, select
from sqlalchemy.orm import Session
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser

pytestmark = pytest.mark.slow  # the admin pages take seconds to import

PAGE = Path(__file__).parents[1] / "docs" / "rows.md"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Everything that the code of the page defines, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    document = Sybil([PythonCodeBlockParser()], path=str(PAGE.parent)).parse(PAGE)
    document.namespace["__name__"] = __name__
    for example in document.examples():
        example.evaluate()
    page = SimpleNamespace(**document.namespace)
    page.app.config["WTF_CSRF_ENABLED"] = False
    (tmp_path / "instance").mkdir(exist_ok=True)
    page.app.config["HASHFS_FSYNC"] = False
    with page.app.app_context():
        page.db.create_all()
        yield page
        page.db.session.remove()
        page.db.engine.dispose()
    for each in document.namespace.values():
        if isinstance(each, Engine):
            each.dispose()


def picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(data, "PNG")
    return data.getvalue()


def test_the_form_adds_a_photo_and_the_view_shows_it(page: Any) -> None:
    client = page.app.test_client()
    form = {"title": "Sea", "photo": (io.BytesIO(picture()), "sea.png")}
    answer = client.post("/photos/new", data=form, follow_redirects=True)
    assert (answer.status_code, answer.data) == (200, picture())
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == 'inline; filename="sea.png"'


def test_the_form_tells_what_is_no_picture(page: Any) -> None:
    form = {"title": "Sea", "photo": (io.BytesIO(b"<html>"), "sea.png")}
    answer = page.app.test_client().post("/photos/new", data=form)
    assert answer.status_code == 200
    assert b"text/html" in answer.data
    assert not list(page.fs.files())


@pytest.mark.slow
def test_admin_previews_and_replaces_a_photo(page: Any) -> None:
    client = page.app.test_client()
    form: dict[str, Any] = {"title": "Sea", "upload": (io.BytesIO(picture()), "sea.png")}
    assert client.post("/admin/photo/new/", data=form).status_code == 302
    assert b'<img src="/photos/1" height="60"' in client.get("/admin/photo/").data
    assert client.get("/photos/1").data == picture()
    # Without a file the old one stays, and what is not a picture is refused.
    assert client.post("/admin/photo/edit/?id=1", data={"title": "Lake"}).status_code == 302
    form = {"title": "Pond", "upload": (io.BytesIO(b"<html>"), "sea.png")}
    assert client.post("/admin/photo/edit/?id=1", data=form).status_code == 200
    assert client.get("/photos/1").data == picture()


def test_a_deleted_photo_goes_with_the_next_prune(page: Any) -> None:
    photos = [page.Photo(file=page.fs.save(data)) for data in (b"1", b"2")]
    page.db.session.add_all(photos)
    page.db.session.commit()
    page.copy_photo(photos[0].id)
    page.PlainBase.metadata.create_all(page.engine)
    page.db.session.execute(page.update(page.Photo).values(title="same"))
    gone = photos[1].file.id
    for photo in photos:
        page.db.session.delete(photo)
    page.db.session.commit()
    assert page.fs.prune(older_than=timedelta(0)) == [gone]  # the copy keeps the other one


@pytest.mark.anyio
async def test_quart_stores_and_shows_a_document(page: Any) -> None:
    async with page.async_engine.begin() as connection:
        await connection.run_sync(page.PlainBase.metadata.create_all)
    client = page.quart_app.test_client()
    from quart.datastructures import FileStorage

    def files() -> dict[str, Any]:
        return {"document": FileStorage(io.BytesIO(b"hello"), "a.txt", content_type="text/plain")}

    answer = await client.post("/documents", files=files())
    assert answer.status_code == 201
    answer = await client.get("/documents/1")
    assert await answer.get_data() == b"hello"
    assert answer.headers["Content-Disposition"] == 'inline; filename="a.txt"'
    answer = await client.post("/documents/checked", files=files())
    assert answer.status_code == 201
    await page.async_engine.dispose()


def test_files_of_filedepot_move(page: Any, tmp_path: Path) -> None:
    from depot.fields.upload import UploadedFile
    from depot.io.utils import FileIntent

    DepotManager.configure("default", {"depot.storage_path": str(tmp_path / "depot")})
    try:
        intent = FileIntent(io.BytesIO(b"from depot"), "a.txt", "text/plain")
        upload = UploadedFile(intent, "default")
        assert_moves(page, page.from_filedepot, upload.encode(), DepotManager.get_file)
    finally:
        DepotManager._clear()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # unclosed files
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_files_of_sqlalchemy_file_move(page: Any, tmp_path: Path) -> None:
    from libcloud.storage.drivers.local import LocalStorageDriver
    from sqlalchemy_file import File
    from sqlalchemy_file.storage import StorageManager

    def open_old(path: str) -> Any:
        return StorageManager.get_file(path).object.as_stream()

    (tmp_path / "libcloud" / "photos").mkdir(parents=True)
    container = LocalStorageDriver(str(tmp_path / "libcloud")).get_container("photos")
    StorageManager._clear()
    StorageManager.add_storage("default", container)
    try:
        upload = File(
            content=io.BytesIO(b"from depot"), filename="a.txt", content_type="text/plain"
        )
        upload.save_to_storage("default")
        value = dict(upload.encode())
        assert_moves(page, page.from_sqlalchemy_file, value, open_old)
    finally:
        StorageManager._clear()


def assert_moves(page: Any, table: Any, value: Any, open_old: Any) -> None:
    engine = create_engine("sqlite://")
    page.old_metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(insert(table), [{"photo": value}, {"photo": None}])
        session.commit()
        for _ in range(2):
            page.move(session, table, table.c.photo, table.c.file, open_old)
        moved, empty = session.scalars(select(table.c.file).order_by(table.c.id)).all()
    engine.dispose()
    assert empty is None
    assert (moved.filename, moved.content_type, moved.size) == ("a.txt", "text/plain", 10)
    with page.fs.open(moved) as file:
        assert file.read() == b"from depot"
