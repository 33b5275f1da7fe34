"""Stored files in the columns of a database, and `prune` that asks it what is in use.

Needs the extra ``sqlalchemy``. Source: ``docs/rows.md``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    MetaData,
    Table,
    Text,
    event,
    inspect,
    literal,
    null,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Mapper, Session, registry, scoped_session, sessionmaker
from sqlalchemy.orm.attributes import QueryableAttribute
from sqlalchemy.types import TypeDecorator, TypeEngine

from ._storage.records import NoAddressError
from ._storage.stored_file import StoredFile

_ASYNC_BINDS: tuple[type[Any], ...] = ()
_ASYNC_MAKERS: tuple[type[Any], ...] = ()
if TYPE_CHECKING or find_spec("greenlet"):  # without it there can be no asynchronous engine
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_scoped_session,
        async_sessionmaker,
    )

    _ASYNC_BINDS = (AsyncEngine, AsyncConnection, AsyncSession)
    _ASYNC_MAKERS = (async_sessionmaker, async_scoped_session)

__all__ = ["StoredFile", "StoredFileType", "Tracked"]

_AT_ONCE = 1000  # rows that the database sends at once
_SHOWN = 200  # characters of a broken value in an error


class StoredFileType(TypeDecorator[StoredFile]):
    """A column that holds a `StoredFile`, as JSON.

    NULL is None. PostgreSQL keeps JSONB, since it cannot compare JSON: columns can be
    compared with a `StoredFile` in SQL by ``==`` everywhere.

    Example:
        ``file: Mapped[StoredFile | None] = mapped_column(StoredFileType)``

    Raises:
        TypeError: Another value than a `StoredFile` or None is bound.
        ValueError: The database holds something else; the error names table and column.
    """

    impl = JSON
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(none_as_null=True)
        self._where = "a column of stored files"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return what the database keeps: JSONB in PostgreSQL, JSON elsewhere."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSONB(none_as_null=True))
        return super().load_dialect_impl(dialect)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Return the type of what the column is compared with."""
        if value is None or isinstance(value, StoredFile):
            return self
        return self.impl_instance.coerce_compared_value(op, value)

    def process_bind_param(self, value: Any, dialect: Dialect) -> dict[str, Any] | None:
        """Return what is written as JSON for a value."""
        if value is None:
            return None
        if not isinstance(value, StoredFile):
            raise TypeError(f"{self._where} takes a StoredFile, not {type(value).__name__}")
        return value.as_dict()

    def process_result_value(self, value: Any, dialect: Dialect) -> StoredFile | None:
        """Return the value of what was read from JSON."""
        return None if value is None else StoredFile.from_dict(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """Return what reads a value, and says where it stands when it is broken."""
        read = super().result_processor(dialect, coltype)
        if read is None:
            return None

        def checked(value: Any) -> StoredFile | None:
            with _named(self._where, value):
                return read(value)

        return checked


@event.listens_for(Column, "after_parent_attach")
def _tell_its_place(column: Column[Any], table: object) -> None:
    """Give each column a type of its own, which knows the column's name."""
    if isinstance(column.type, StoredFileType) and isinstance(table, Table):
        kind = column.type.copy()
        kind._where = f"{table.fullname}.{column.name}"
        column.type = kind


class Row(NamedTuple):
    """What one row has in a tracked column: an address or its like, and where it stands."""

    table: str
    column: str
    value: StoredFile | str
    key: str | None
    """The primary key, its parts joined by commas; None where there is none, or nobody asked."""


class _Tracked(NamedTuple):
    """One column, and what chooses its database."""

    column: Column[Any]
    mapper: Mapper[Any] | None

    @property
    def table(self) -> Table:
        return self.column.table

    def rows(self, value: str, key: str | None) -> Iterator[Row]:
        """Yield the row that has `value`, which was read as text; none for a JSON null.

        Raises:
            ValueError: It is not a stored file.
        """
        table, column = self.table.fullname, self.column.name
        if not isinstance(self.column.type, StoredFileType):
            yield Row(table, column, value, key)
        elif value != "null":
            with _named(f"{table}.{column}", value):
                file = StoredFile.from_dict(json.loads(value))
            yield Row(table, column, file, key)


@dataclass(frozen=True)
class Tracked:
    """Columns whose values are in use; ``fs.track`` registers one as a reference.

    Args:
        what: Declarative bases, registries, mapped classes or single columns.
        bind: An engine, a session or its maker, sync or async, or a callable that returns one.

    Raises:
        TypeError: `what` holds something else, or nothing.
        ValueError: A mapped class has no column of stored files.
    """

    what: tuple[Any, ...]
    bind: Any

    def __post_init__(self) -> None:
        if not self.what:
            raise TypeError("track takes a declarative base, mapped classes or columns")
        for each in self.what:
            if not _columns_of(each) and isinstance(inspect(each, raiseerr=False), Mapper):
                raise ValueError(f"{each.__name__} has no column of the type StoredFileType")

    def __call__(self) -> Iterable[str] | AsyncIterator[str]:
        """Return the ids, paths or addresses that the rows have; an async engine's awaited."""
        rows = self.rows()
        if isinstance(rows, AsyncIterator):
            return (_name(row.value) async for row in rows)
        return (_name(row.value) for row in rows)

    def __repr__(self) -> str:
        columns = [f"{each.table.fullname}.{each.column.name}" for each in self.columns()]
        return f"track({', '.join(columns)})"

    def columns(self) -> list[_Tracked]:
        """Return the columns that are tracked now, each once."""
        found: dict[Column[Any], _Tracked] = {}
        for each in self.what:
            for tracked in _columns_of(each):
                found.setdefault(tracked.column, tracked)
        return list(found.values())

    def rows(
        self, *, keyed: bool = False
    ) -> Generator[Row, None, None] | AsyncGenerator[Row, None]:
        """Return every row that is not NULL: of each database in one statement, so as of one time.

        Args:
            keyed: Whether to read the primary keys as well.

        Raises:
            TypeError: `bind` is, or returns, nothing that can be read from.
        """
        bind = _resolve(self.bind)
        if isinstance(bind, _ASYNC_BINDS):
            return self._read_async(bind, keyed)
        return self._read(bind, keyed)

    def _read(self, bind: Engine | Connection | Session, keyed: bool) -> Generator[Row, None, None]:
        for source, columns in self._by_database(bind).items():
            with _connected(source) as connection:
                options = connection.execution_options(stream_results=True, yield_per=_AT_ONCE)
                with options.execute(_statement(columns, keyed)) as result:
                    for row in result:
                        yield from columns[row.place].rows(row.value, row.key)

    async def _read_async(
        self, bind: AsyncEngine | AsyncConnection | AsyncSession, keyed: bool
    ) -> AsyncGenerator[Row, None]:
        sync = bind.sync_session if isinstance(bind, AsyncSession) else bind
        for source, columns in self._by_database(sync).items():
            if isinstance(source, AsyncConnection):
                async for row in _stream(source, _statement(columns, keyed), columns):
                    yield row
                continue
            engine = source if isinstance(source, AsyncEngine) else AsyncEngine(source)
            async with _async_connected(engine) as connection:
                async for row in _stream(connection, _statement(columns, keyed), columns):
                    yield row

    def _by_database(self, bind: Any) -> dict[Any, list[_Tracked]]:
        """Return the columns of each database; a session chooses it as it does for the app."""
        databases: dict[Any, list[_Tracked]] = {}
        for tracked in self.columns():
            source = bind
            if isinstance(bind, Session):
                source = bind.get_bind(tracked.mapper, clause=tracked.table)
            databases.setdefault(source, []).append(tracked)
        return databases


async def _stream(
    connection: AsyncConnection, statement: Any, columns: list[_Tracked]
) -> AsyncGenerator[Row, None]:
    options = {"yield_per": _AT_ONCE}
    result = await connection.stream(statement, execution_options=options)
    try:
        async for read in result:
            for row in columns[read.place].rows(read.value, read.key):
                yield row
    finally:
        await result.close()


def _statement(columns: list[_Tracked], keyed: bool) -> Any:
    """Return one statement for all columns, so that they are read as of one moment."""
    parts: list[Any] = [
        select(
            literal(index).label("place"),
            _as_text(each.column).label("value"),
            _key(each.table if keyed else None).label("key"),
        ).where(each.column.is_not(None))
        for index, each in enumerate(columns)
    ]
    return parts[0] if len(parts) == 1 else union_all(*parts)


def _key(table: Table | None) -> Any:
    """Return the primary key as text, or NULL where it has none."""
    parts = [_as_text(column) for column in table.primary_key] if table is not None else []
    return reduce(lambda key, part: key + "," + part, parts) if parts else _as_text(null())


def _as_text(column: Any) -> Any:
    """Return a column as text, so that columns of all types fit into one statement."""
    return type_coerce(sql_cast(column, Text), Text)


@contextmanager
def _connected(source: Engine | Connection) -> Iterator[Connection]:
    if isinstance(source, Connection):
        yield source
        return
    with source.connect() as connection:
        yield connection


@asynccontextmanager
async def _async_connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with AsyncExitStack() as stack:
        try:
            connection = await stack.enter_async_context(engine.connect())
        except OSError as error:  # which asyncpg raises as it is; other drivers' are SQLAlchemy's
            raise OperationalError("connect", None, error) from error
        yield connection


def _resolve(bind: Any) -> Any:
    """Return the engine, connection or session that `bind` is, makes or returns."""
    makers: tuple[type[Any], ...] = (sessionmaker, scoped_session, *_ASYNC_MAKERS)
    wanted = (Engine, Connection, Session, *_ASYNC_BINDS)
    for _ in range(3):
        if isinstance(bind, wanted):
            return bind
        if not isinstance(bind, makers) and not callable(bind):
            break
        bind = bind()
    raise TypeError(
        "bind must be an engine, a session, a session maker, or a callable that returns one, "
        f"not {type(bind).__name__}"
    )


def _columns_of(what: Any) -> list[_Tracked]:
    """Return the columns of stored files that `what` has now; a single column whatever its type.

    Raises:
        TypeError: It is none of what `Tracked` takes.
    """
    if isinstance(what, QueryableAttribute):
        [column] = what.property.columns
        return [_Tracked(column, what.parent if isinstance(what.parent, Mapper) else None)]
    if isinstance(what, Column):
        return [_Tracked(what, None)]
    if isinstance(what, Table):
        return _of_table(what, None)
    mapper = inspect(what, raiseerr=False) if isinstance(what, type) else None
    if isinstance(mapper, Mapper):
        mappers = mapper.self_and_descendants
        return [each for mapper in mappers for each in _of_mapper(mapper)]
    return _of_base(what)


def _of_base(base: Any) -> list[_Tracked]:
    """Return the columns of all tables of a base or registry, mapped or not."""
    known = base if isinstance(base, registry) else getattr(base, "registry", None)
    by_key = getattr(getattr(base, "__fsa__", None), "metadatas", {})  # of Flask-SQLAlchemy
    candidates = [getattr(each, "metadata", None) for each in (base, known)]
    metadatas = [each for each in (*candidates, *by_key.values()) if isinstance(each, MetaData)]
    if not metadatas:
        raise TypeError(
            f"track takes declarative bases, registries, mapped classes and columns, not {base!r}"
        )
    mapped = [each for mapper in known.mappers for each in _of_mapper(mapper)] if known else []
    tables = [table for metadata in metadatas for table in metadata.tables.values()]
    return [*mapped, *(each for table in tables for each in _of_table(table, None))]


def _of_mapper(mapper: Mapper[Any]) -> list[_Tracked]:
    tables = [table for table in mapper.tables if isinstance(table, Table)]
    return [each for table in tables for each in _of_table(table, mapper)]


def _of_table(table: Table, mapper: Mapper[Any] | None) -> list[_Tracked]:
    columns = table.columns.values()
    return [_Tracked(each, mapper) for each in columns if isinstance(each.type, StoredFileType)]


def _name(value: StoredFile | str) -> str:
    return value.id if isinstance(value, StoredFile) else value


@contextmanager
def _named(where: str, value: object) -> Iterator[None]:
    """Say where a value stands that is not a stored file."""
    try:
        yield
    except ValueError as error:
        raise NoAddressError(f"{where} holds {str(value)[:_SHOWN]!r}: {error}") from error
