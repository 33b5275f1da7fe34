"""What the rows of tracked columns refer to: how much it is, and what of it is not stored."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Any

from .._storage.records import InUse, NoAddressError
from .._store.store import HashFS
from ..exceptions import ConfigError

_DATABASE_ERRORS = (
    ("sqlalchemy.exc", "SQLAlchemyError"),
    ("sqlite3", "Error"),
    ("psycopg", "Error"),
    ("psycopg2", "Error"),
    ("pymysql", "Error"),
    ("asyncpg", "PostgresError"),  # which SQLAlchemy lets pass while it connects
    ("asyncpg", "InterfaceError"),
)


def database_errors() -> tuple[type[Exception], ...]:
    """Return the errors of SQLAlchemy, and of drivers that are used without it, if loaded."""
    return tuple(
        getattr(sys.modules[module], name)
        for module, name in _DATABASE_ERRORS
        if module in sys.modules
    )


def in_words(error: Exception) -> str:
    """Return what the database itself said, without the statement that it was asked."""
    said = getattr(error, "orig", None) or error
    return f"the database could not be asked: {' '.join(str(said).split())}"


@dataclass
class Column:
    """What is in use by one column."""

    table: str
    name: str
    contents: InUse
    rows: int = 0
    """How many are not NULL."""


@dataclass
class Refs:
    """What is in use by tracked columns.

    Args:
        client: The store.
        tracked: What ``track`` has registered (`flask_hashfs.sqlalchemy.Tracked`).
    """

    client: HashFS
    tracked: Iterable[Any]
    columns: dict[tuple[str, str], Column] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in self.tracked:
            for column in each.columns():
                self._column(column.table.fullname, column.column.name)

    def read(self, look: Callable[[Any], object]) -> None:
        """Count every row, and call `look` with it.

        Raises:
            NoAddressError: A row has no address of a content.
            ConfigError: A database can be read only asynchronously.
        """
        for each in self.tracked:
            rows = each.rows(keyed=True)
            if isinstance(rows, AsyncGenerator):
                raise ConfigError(f"{each!r} has an asynchronous engine, which Flask cannot await")
            with closing(rows):
                for row in rows:
                    self._count(row)
                    look(row)

    async def read_async(self, look: Callable[[Any], object]) -> None:
        """Do what `read` does, awaiting asynchronous engines."""
        for each in self.tracked:
            rows = each.rows(keyed=True)
            if not isinstance(rows, AsyncGenerator):
                rows = _awaited(rows)
            async with aclosing(rows):
                async for row in rows:
                    self._count(row)
                    look(row)

    def _count(self, row: Any) -> None:
        column = self._column(row.table, row.column)
        column.rows += 1
        try:
            column.contents.add(row.value)
        except NoAddressError as error:
            raise NoAddressError(f"{row.table}.{row.column}: {error}") from None

    def _column(self, table: str, name: str) -> Column:
        new = Column(table, name, self.client.backend.in_use())
        return self.columns.setdefault((table, name), new)


async def _awaited(rows: Iterable[Any]) -> AsyncGenerator[Any, None]:
    for row in rows:
        yield row
