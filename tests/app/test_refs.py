"""``hashfs refs`` under Flask and Quart: what is in use by column, and rows without a file."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import click.testing
import pytest
from both_apps import FRAMEWORKS, Site
from flask.cli import ScriptInfo
from quart.cli import ScriptInfo as QuartScriptInfo
from runners import make_runner
from sqlalchemy import Column, Engine, Integer, String, Table, create_engine, insert, text
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

    def lose_the_database(self, folder: Path) -> str:
        """Let it be where there is none, and return what it says then."""
        if isinstance(self.bind, Engine):
            self.bind = create_engine(f"sqlite:///{folder}/missing/rows.db")
            return "unable to open database file"
        url = f"postgresql+asyncpg:///postgres?user=tests&password=unused&host={folder}/missing"
        self.bind = lambda: create_async_engine(url, poolclass=NullPool)
        return "[Errno 2] No such file or directory"

    def track(self) -> None:
        self.site.fs.track(Base, bind=self.bind)
        self.site.fs.track(PAGES.c.scan, bind=self.bind)

    def __call__(self, *words: str) -> click.testing.Result:
        return self.run("refs", *words)

    def run(self, *words: str) -> click.testing.Result:
        kind: Any = QuartScriptInfo if self.site.is_quart else ScriptInfo
        info = kind(create_app=lambda *_: self.site.app)
        return make_runner().invoke(command, list(words), obj=info, catch_exceptions=False)

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


@pytest.mark.parametrize("words", [["prune", "--allow-empty", "--older-than", "0"], ["refs"]])
def test_a_database_that_does_not_answer_is_told_in_a_sentence(
    refs: Refs, tmp_path: Path, words: list[str]
) -> None:
    file = refs.site.put(b"1")
    said = refs.lose_the_database(tmp_path)
    refs.track()
    result = refs.run(*words)
    begin = "Nothing is deleted: the" if words[0] == "prune" else "The"
    told = f"Error: {begin} database could not be asked: {said}\n"
    assert (result.exit_code, result.stderr) == (3, told)
    assert refs.site.client.exists(file)


def test_a_table_that_is_missing_ends_a_prune_before_anything_is_deleted(refs: Refs) -> None:
    file = refs.site.put(b"1")
    PAGES.drop(refs.engine)
    refs.track()
    result = refs.run("prune", "--allow-empty", "--older-than", "0")
    assert result.exit_code == 3
    assert "no such table: page" in result.stderr
    assert refs.site.client.exists(file)


def test_a_reference_of_the_apps_own_whose_database_fails_is_told_too(refs: Refs) -> None:
    refs.site.put(b"1")

    @refs.site.fs.references
    def in_use() -> Any:
        with closing(sqlite3.connect(":memory:")) as connection:
            return connection.execute("SELECT file FROM photo").fetchall()

    result = refs.run("prune")
    assert result.exit_code == 3
    assert "Nothing is deleted: the database could not be asked: no such table" in result.stderr


def test_a_broken_value_ends_a_prune_with_its_column(refs: Refs) -> None:
    refs.site.put(b"1")
    refs.track()
    with refs.engine.begin() as connection:
        connection.execute(text("""INSERT INTO photo VALUES (1, '{"id": 5}')"""))
    result = refs.run("prune")
    assert result.exit_code == 2
    assert "Nothing is deleted: photo.file holds" in result.stderr


def test_flask_cannot_read_from_an_asynchronous_engine(tmp_path: Path) -> None:
    refs = Refs("flask", tmp_path, "async")
    refs.track()
    result = refs()
    refs.engine.dispose()
    assert result.exit_code == 2
    assert "asynchronous engine" in result.stderr


def test_without_tracked_columns_it_names_track(refs: Refs) -> None:
    result = refs()
    assert result.exit_code == 2
    assert "fs.track" in result.stderr
