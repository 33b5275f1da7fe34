"""``hashfs refs`` under Flask and Quart: what is in use by column, and rows without a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click.testing
import pytest
from both_apps import FRAMEWORKS, Site
from flask.cli import ScriptInfo
from quart.cli import ScriptInfo as QuartScriptInfo
from runners import make_runner
from sqlalchemy import Column, Integer, String, Table, create_engine, insert, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from flask_hashfs import StoredFile
from flask_hashfs._app.cli import hashfs as command
from flask_hashfs.sqlalchemy import StoredFileType


class Base(DeclarativeBase):
    pass


class Photo(Base):
    __tablename__ = "photo"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[StoredFile | None] = mapped_column(StoredFileType)


PAGES = Table(
    "page",
    Base.metadata,
    Column("book", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("scan", String(300)),
)


class Refs:
    """An app with rows, and its command."""

    def __init__(self, framework: str, folder: Path, bind: str) -> None:
        config = {"HASHFS_ROOT_FOLDER": str(folder / "root"), "HASHFS_FSYNC": False}
        self.site = Site(framework, config)
        self.engine = create_engine(f"sqlite:///{folder}/rows.db")
        Base.metadata.create_all(self.engine)
        self.bind: Any = self.engine
        if bind == "async":
            self.bind = lambda: create_async_engine(
                f"sqlite+aiosqlite:///{folder}/rows.db", poolclass=NullPool
            )

    def track(self) -> None:
        self.site.fs.track(Base, bind=self.bind)
        self.site.fs.track(PAGES.c.scan, bind=self.bind)

    def __call__(self, *words: str) -> click.testing.Result:
        kind: Any = QuartScriptInfo if self.site.is_quart else ScriptInfo
        info = kind(create_app=lambda *_: self.site.app)
        return make_runner().invoke(command, ["refs", *words], obj=info, catch_exceptions=False)

    def fill(self) -> tuple[StoredFile, StoredFile]:
        """Add rows, one with a file that is not stored in each column."""
        address = self.site.put(b"1", "txt")
        there = StoredFile(address.id, address.relpath, "a.txt", "text/plain", 1)
        gone = StoredFile("0" * 64, f"0/{'0' * 63}", None, "text/plain", 1)
        with Session(self.engine) as session:
            session.add_all([Photo(id=n, file=f) for n, f in enumerate((there, there, gone, None))])
            rows = [{"book": 7, "number": n, "scan": f.id} for n, f in enumerate((there, gone))]
            session.execute(insert(PAGES), rows)
            session.commit()
        return there, gone


@pytest.fixture(params=[*FRAMEWORKS, "quart with an async engine"])
def refs(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    framework, _, rest = request.param.partition(" ")
    refs = Refs(framework, tmp_path, "async" if rest else "sync")
    yield refs
    refs.engine.dispose()


def lines(result: click.testing.Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_column_is_counted(refs: Refs) -> None:
    refs.track()
    refs.fill()
    result = refs()
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        ["photo.file  3 rows, 2 contents", "page.scan  2 rows, 2 contents"],
    )
    assert lines(refs("--json"))[0] == {
        "table": "photo",
        "column": "file",
        "rows": 3,
        "contents": 2,
    }


def test_a_column_without_rows_is_named_too(refs: Refs) -> None:
    refs.track()
    assert lines(refs("--json")) == [
        {"table": "photo", "column": "file", "rows": 0, "contents": 0},
        {"table": "page", "column": "scan", "rows": 0, "contents": 0},
    ]


def test_rows_without_a_file_are_listed_with_their_keys(refs: Refs) -> None:
    refs.track()
    _, gone = refs.fill()
    result = refs("--missing")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"photo.file  2  {gone.relpath}",
        f"page.scan  7,1  {gone.id}",
    ]
    assert "5 rows looked at, 2 without a file" in result.stderr
    assert lines(refs("--missing", "--json")) == [
        {"table": "photo", "column": "file", "value": gone.as_dict(), "key": "2"},
        {"table": "page", "column": "scan", "value": gone.id, "key": "7,1"},
    ]


def test_where_nothing_is_missing_all_is_well(refs: Refs) -> None:
    refs.track()
    result = refs("--missing")
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_row_without_an_address_is_named_by_its_column(refs: Refs) -> None:
    refs.track()
    with refs.engine.begin() as connection:
        connection.execute(text("INSERT INTO page VALUES (1, 1, 'no address')"))
    result = refs()
    assert result.exit_code == 2
    assert "page.scan" in result.stderr


def test_without_tracked_columns_it_names_track(refs: Refs) -> None:
    result = refs()
    assert result.exit_code == 2
    assert "fs.track" in result.stderr
