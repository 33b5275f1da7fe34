"""Prunes by rows and tells what memory that took; run as a script by test_row_memory.

Its arguments: the URL of the database, or ``ids`` for the same ids without one, the number of rows,
and the root of an empty store.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from flask import Flask
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from flask_hashfs import FlaskHashFS, StoredFile
from flask_hashfs.sqlalchemy import StoredFileType


class Base(DeclarativeBase):
    pass


class Many(Base):
    __tablename__ = "many"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[StoredFile] = mapped_column(StoredFileType)


_VALUE = """'{"id": "' || ID || '", "relpath": "' || ID || '.jpg", "filename": "a photo.jpg", """
_VALUE += """"content_type": "image/jpeg", "size": 123456}'"""
_FILL = {
    "sqlite": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows) "
        "INSERT INTO many (id, file) SELECT i, " + _VALUE.replace("ID", "printf('%064x', i)")
    )
    + " FROM n",
    "postgresql": (
        "INSERT INTO many (id, file) SELECT i, CAST("
        + _VALUE.replace("ID", "lpad(to_hex(i), 64, '0')")
        + " AS jsonb) FROM generate_series(1, CAST(:rows AS integer)) AS i"
    ),
}


def fill(url: str, rows: int) -> None:
    """Make the table, with that many rows, each with another content."""
    engine = create_engine(url, poolclass=NullPool)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    statement = _FILL[engine.dialect.name].replace('": ', '"\\: ')
    with engine.begin() as connection:
        connection.execute(text(statement), {"rows": rows})


def peak() -> int:
    """Return the largest size this process has had, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main(url: str, rows: int, root: str) -> None:
    app = Flask("many")
    app.config.update(HASHFS_ROOT_FOLDER=root, HASHFS_FSYNC=False)
    fs = FlaskHashFS(app)
    engine: Engine = create_engine(url if url != "ids" else "sqlite://", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    if url == "ids":
        fs.references(lambda: (f"{number:064x}" for number in range(1, rows + 1)))
    else:
        fs.track(Base, bind=engine)
    with app.app_context():
        unused = fs.put(b"unused").id
        before = peak()
        deleted = fs.prune(older_than=timedelta(0))
    assert deleted == [unused]
    print(peak() - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
