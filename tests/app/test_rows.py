"""Rows and their files: the column type, and what `track` finds in use, on real databases."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import LEFT_OUT, postgresql, postgresql_programs
from flask import Flask
from quart import Quart
from sqlalchemy import (
    JSON,
    Column,
    Engine,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from flask_hashfs import ConfigError, FlaskHashFS, HashAddress, QuartHashFS, StoredFile
from flask_hashfs.sqlalchemy import StoredFileType, Tracked

AT_ONCE = timedelta(0)


class Base(DeclarativeBase):
    pass


class Photo(Base):
    __tablename__ = "photo"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[StoredFile | None] = mapped_column(StoredFileType)
    thumbnail: Mapped[StoredFile | None] = mapped_column(StoredFileType, nullable=True)


class Old(Base):
    __tablename__ = "old"
    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str | None] = mapped_column(String(300))


ATTIC = Table("attic", Base.metadata, Column("file", StoredFileType))  # nothing is mapped to it


class Other(DeclarativeBase):
    pass


class Plain(Other):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(scope="module")
def postgresql_query() -> Iterator[str]:
    if postgresql_programs() is None:
        pytest.skip(LEFT_OUT)
    with postgresql() as query:
        yield query


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The URL of an empty database, for a sync and for an async engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/rows.db", f"sqlite+aiosqlite:///{tmp_path}/rows.db"
    query = request.getfixturevalue("postgresql_query")
    return f"postgresql+psycopg:///postgres?{query}", f"postgresql+asyncpg:///postgres?{query}"


@pytest.fixture
def engine(urls: tuple[str, str]) -> Iterator[Engine]:
    engine = create_engine(urls[0])
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=tmp_path / "root", HASHFS_FSYNC=False)
    return app


def put(app: Flask | Quart, data: bytes) -> HashAddress:
    address: HashAddress = app.extensions["hashfs"]["client"].put(data, "txt")
    return address


def stored(app: Flask | Quart, data: bytes) -> StoredFile:
    address = put(app, data)
    return StoredFile(address.id, address.relpath, None, "text/plain", len(data))


# -- the column ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_row_gives_back_what_it_was_given(engine: Engine) -> None:
    file = StoredFile("a" * 64, "a/a.txt", "Träume ☂ \"'\\.txt", "text/plain", 2**40)
    with Session(engine) as session:
        session.add_all([Photo(file=file), Photo(file=None)])
        session.commit()
        assert session.scalars(select(Photo.file).order_by(Photo.id)).all() == [file, None]


@pytest.mark.slow
def test_a_column_is_compared_in_sql(engine: Engine) -> None:
    one, two = (StoredFile(c * 64, f"{c}.txt", None, "text/plain", 1) for c in "ab")
    with Session(engine) as session:
        session.add_all([Photo(id=1, file=one), Photo(id=2, file=two), Photo(id=3, file=None)])
        session.commit()
        assert session.scalars(select(Photo.id).where(Photo.file == one)).all() == [1]
        assert session.scalars(select(Photo.id).where(Photo.file != one)).all() == [2]
        assert session.scalars(select(Photo.id).where(Photo.file.in_([one, two]))).all() == [1, 2]
        assert session.scalars(select(Photo.id).where(Photo.file == None)).all() == [3]  # noqa: E711


def test_none_is_null(engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Photo(file=None))
        session.commit()
        assert session.scalar(text("SELECT count(*) FROM photo WHERE file IS NULL")) == 1


@pytest.mark.parametrize("broken", ['{"id": "x"}', "[1]", '"a"', "5"])
def test_a_broken_value_is_an_error_with_table_and_column(engine: Engine, broken: str) -> None:
    with engine.begin() as connection:
        as_json = Table("photo", type(Base.metadata)(), Column("thumbnail", JSON))
        value = {'{"id": "x"}': {"id": "x"}, "[1]": [1], '"a"': "a", "5": 5}[broken]
        connection.execute(insert(as_json), {"thumbnail": value})
    with Session(engine) as session, pytest.raises(ValueError, match=r"photo\.thumbnail"):
        session.scalars(select(Photo.thumbnail)).all()
    with pytest.raises(ValueError, match=r"photo\.thumbnail"):
        list(Tracked((Base,), engine)())  # type: ignore[arg-type]


def test_anything_but_a_stored_file_is_refused(engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Photo(file="a/b/c"))
        with pytest.raises(Exception, match=r"photo\.file takes a StoredFile, not str"):
            session.commit()


# -- what is in use --------------------------------------------------------------------------------


def binds(engine: Engine) -> dict[str, Any]:
    return {
        "engine": engine,
        "session maker": sessionmaker(engine),
        "callable": lambda: engine,
        "callable of a session": lambda: Session(engine),
    }


@pytest.mark.parametrize("bind", binds(None))  # type: ignore[arg-type]
def test_a_base_means_every_column_of_its_tables(engine: Engine, app: Flask, bind: str) -> None:
    fs = FlaskHashFS(app)
    fs.track(Base, bind=binds(engine)[bind])
    kept = [stored(app, data) for data in (b"1", b"2", b"3")]
    unused = stored(app, b"4")
    with Session(engine) as session:
        session.add_all(
            [Photo(file=kept[0], thumbnail=kept[1]), Photo(file=None), Photo(file=kept[0])]
        )
        session.execute(insert(ATTIC), {"file": kept[2]})
        session.commit()
    with app.app_context():
        assert fs.prune(older_than=AT_ONCE) == [unused.id]
        assert all(fs.exists(file) for file in kept)


def test_a_column_that_is_added_later_is_in_use(engine: Engine, app: Flask) -> None:
    class Late(DeclarativeBase):
        pass

    fs = FlaskHashFS(app)
    fs.track(Late, bind=engine)
    later = Table("later", Late.metadata, Column("file", StoredFileType))
    later.create(engine)
    try:
        file = stored(app, b"1")
        with engine.begin() as connection:
            connection.execute(insert(later), {"file": file})
        with app.app_context():
            assert fs.prune(older_than=AT_ONCE) == []
    finally:
        later.drop(engine)


def test_single_columns_may_hold_ids_and_paths(engine: Engine, app: Flask) -> None:
    fs = FlaskHashFS(app)
    fs.track(Old.path, bind=engine)
    kept = [put(app, data) for data in (b"1", b"2", b"3")]
    unused = put(app, b"4")
    with Session(engine) as session:
        paths = [kept[0].id, kept[1].relpath, kept[2].abspath, None]
        session.add_all([Old(path=path) for path in paths])
        session.commit()
    with app.app_context():
        assert fs.prune(older_than=AT_ONCE) == [unused.id]


def test_a_database_that_does_not_answer_ends_the_prune_before_anything_is_deleted(
    app: Flask, tmp_path: Path
) -> None:
    fs = FlaskHashFS(app)
    fs.track(Base, bind=lambda: create_engine(f"sqlite:///{tmp_path}/missing/rows.db"))
    file = stored(app, b"1")
    with app.app_context():
        with pytest.raises(Exception, match="unable to open database"):
            fs.prune(older_than=AT_ONCE, allow_empty=True)
        assert fs.exists(file)


def test_all_columns_are_read_as_of_one_moment(engine: Engine, app: Flask) -> None:
    """A row that moves its file from one table to another meanwhile is never missed."""
    FlaskHashFS(app)
    file = stored(app, b"1")
    with Session(engine) as session:
        session.add(Photo(id=1, file=file))
        session.commit()
    statements: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    assert list(Tracked((Base,), engine)()) == [file.id]  # type: ignore[arg-type]
    assert sum(statement.lstrip().startswith("SELECT") for statement in statements) == 1


@pytest.mark.parametrize(
    ("what", "error"), [((), TypeError), ((5,), TypeError), ((Plain,), ValueError)]
)
def test_what_cannot_be_tracked_is_refused_at_once(
    app: Flask, what: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        FlaskHashFS(app).track(*what, bind=None)


def test_a_bind_that_is_none_is_refused(app: Flask) -> None:
    fs = FlaskHashFS(app)
    fs.track(Base, bind=lambda: None)
    with app.app_context(), pytest.raises(TypeError, match="bind must be an engine"):
        fs.prune(older_than=AT_ONCE)


def test_without_sqlalchemy_track_names_the_extra(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "flask_hashfs.sqlalchemy", None)
    with pytest.raises(ConfigError, match=r"Flask-HashFS\[sqlalchemy\]"):
        FlaskHashFS(app).track(Base, bind=None)


# -- Quart -----------------------------------------------------------------------------------------


def async_binds(engine: AsyncEngine) -> dict[str, Callable[[], Any]]:
    return {
        "engine": lambda: engine,
        "session maker": lambda: async_sessionmaker(engine),
        "session": lambda: AsyncSession(engine),
    }


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("bind", ["sync engine", *async_binds(None)])  # type: ignore[arg-type]
async def test_quart_prunes_by_rows(
    urls: tuple[str, str], engine: Engine, tmp_path: Path, bind: str
) -> None:
    app = Quart(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=tmp_path / "root", HASHFS_FSYNC=False)
    fs = QuartHashFS(app)
    reader = await asyncio.to_thread(create_async_engine, urls[1])
    fs.track(Base, bind=engine if bind == "sync engine" else async_binds(reader)[bind])

    def fill() -> tuple[StoredFile, StoredFile]:
        files = [stored(app, data) for data in (b"1", b"2")]
        with Session(engine) as session:
            session.add(Photo(file=files[0]))
            session.commit()
        return files[0], files[1]

    kept, unused = await asyncio.to_thread(fill)
    async with app.app_context():
        assert await fs.prune(older_than=AT_ONCE) == [unused.id]
        assert await fs.exists(kept)
    await reader.dispose()


@pytest.mark.slow
def test_the_columns_need_no_greenlet(tmp_path: Path) -> None:
    code = f"""
import sys

sys.modules["greenlet"] = None  # as where it is not installed, which SQLAlchemy 2.1 allows
from datetime import timedelta
from flask import Flask
from sqlalchemy import Column, Integer, MetaData, Table, create_engine
from flask_hashfs import FlaskHashFS
from flask_hashfs.sqlalchemy import StoredFileType

key, file = Column("id", Integer, primary_key=True), Column("file", StoredFileType)
items = Table("items", MetaData(), key, file)
engine = create_engine("sqlite://")
items.metadata.create_all(engine)
app = Flask("app")
app.config["HASHFS_ROOT_FOLDER"] = {str(tmp_path)!r}
fs = FlaskHashFS(app)
fs.track(items.c.file, bind=engine)
with app.app_context(), engine.begin() as connection:
    connection.execute(items.insert().values(file=fs.save(b"kept")))
with app.app_context():
    print(fs.prune(older_than=timedelta(0), allow_empty=True))
engine.dispose()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
