"""What the stores do not know: who gave a file, when, and how a tile shows it. Kept in SQLite.

Functions of a plain SQLAlchemy session. The Flask app calls them as they are, the Quart app hands
them to ``AsyncSession.run_sync``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine, exists, func, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    column_property,
    mapped_column,
)
from werkzeug.exceptions import NotFound

from flask_hashfs import StoredFile
from flask_hashfs.sqlalchemy import StoredFileType

FILE = "items.sqlite"
PAGE_SIZE = 48
PATIENCE = 30  # seconds that one writer of the database waits for another


class Base(DeclarativeBase):
    pass


class Item(Base):
    """One upload. Many items may mean one content, which none of them owns."""

    __tablename__ = "items"
    __table_args__ = ({"sqlite_autoincrement": True},)  # an item's URL never means another one

    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[StoredFile] = mapped_column(StoredFileType)
    digest: Mapped[str] = mapped_column(index=True)  # of the file, where an index finds it
    size: Mapped[int]
    owner: Mapped[str]
    added: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    thumbnail: Mapped[StoredFile | None] = mapped_column(StoredFileType)
    excerpt: Mapped[str]  # the first words of a text

    @property
    def name(self) -> str:
        return self.file.filename or "unnamed"

    @property
    def mimetype(self) -> str:
        return self.file.content_type


class Arrival(Base):
    """A resumable upload that became an item; its end may be told again after a crash."""

    __tablename__ = "arrivals"

    upload: Mapped[str] = mapped_column(primary_key=True)
    item: Mapped[int]


_earlier = aliased(Item)
# True where an earlier item has the same content, so that this one costs no space.
Item.is_copy = column_property(
    exists().where(_earlier.digest == Item.digest, _earlier.id < Item.id)
)


@dataclass(frozen=True)
class Totals:
    count: int
    size: int
    stored: int

    @property
    def saved(self) -> int:
        return self.size - self.stored


def create_tables(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": PATIENCE})
    Base.metadata.create_all(engine)
    engine.dispose()


def add(session: Session, item: Item, upload: str | None = None) -> Item:
    """Add an item, or return the one that this resumable upload has already become.

    Args:
        session: In a transaction.
        item: The new item.
        upload: The id of its upload, if it may be added again.
    """
    arrival = session.get(Arrival, upload) if upload else None
    known = session.get(Item, arrival.item) if arrival else None
    if known is not None:
        return known
    session.add(item)
    session.flush()
    if upload:
        session.merge(Arrival(upload=upload, item=item.id))
    session.refresh(item)
    return item


def get(session: Session, item_id: int) -> Item:
    item = session.get(Item, item_id)
    if item is None:
        raise NotFound("There is no such file, or it has been deleted.")
    return item


def page(session: Session, before: int | None = None) -> list[Item]:
    """Return the newest items, or the newest of those older than the item ``before``."""
    query = select(Item).order_by(Item.id.desc()).limit(PAGE_SIZE)
    if before is not None:
        query = query.where(Item.id < before)
    return list(session.scalars(query))


def neighbours(session: Session, item: Item) -> tuple[int | None, int | None]:
    """Return the ids of the next newer and the next older item."""
    newer = session.scalar(select(func.min(Item.id)).where(Item.id > item.id))
    older = session.scalar(select(func.max(Item.id)).where(Item.id < item.id))
    return newer, older


def same_content(session: Session, item: Item) -> list[Item]:
    """Return the other items that mean this item's content."""
    query = select(Item).where(Item.digest == item.digest, Item.id != item.id)
    return list(session.scalars(query.order_by(Item.id)))


def totals(session: Session) -> Totals:
    contents = select(Item.size).group_by(Item.digest).subquery()
    count, size = session.execute(
        select(func.count(), func.coalesce(func.sum(Item.size), 0)).select_from(Item)
    ).one()
    stored = session.scalar(select(func.coalesce(func.sum(contents.c.size), 0)))
    return Totals(count, size, stored or 0)


def remove(session: Session, item_id: int) -> str:
    """Delete an item, and return its name. Its content is ``prune``'s, once no item means it."""
    item = get(session, item_id)
    session.delete(item)
    return item.name
