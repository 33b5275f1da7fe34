"""What the store does not know: who gave a file, when, and under which name. Kept in SQLite.

Plain synchronous SQLAlchemy: the Flask app calls it as it is, the Quart app in a worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine, delete, exists, func, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    column_property,
    mapped_column,
    sessionmaker,
)
from werkzeug.exceptions import NotFound

PAGE_SIZE = 48


class Base(DeclarativeBase):
    pass


class Item(Base):
    """One upload. Many items may point at one content."""

    __tablename__ = "items"
    __table_args__ = ({"sqlite_autoincrement": True},)  # an item's URL never means another one

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    mimetype: Mapped[str]
    size: Mapped[int]
    owner: Mapped[str]
    added: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    digest: Mapped[str] = mapped_column(index=True)
    address: Mapped[str] = mapped_column(index=True)  # HashAddress.relpath: the digest, as a path


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


class Catalog:
    """The items, by any number of threads and processes at once."""

    def __init__(self, path: Path) -> None:
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
        Base.metadata.create_all(engine)
        self._begin = sessionmaker(engine, expire_on_commit=False).begin

    def add(self, item: Item, upload: str | None = None) -> Item:
        """Add an item, or return the one that this resumable upload has already become.

        Args:
            item: The new item.
            upload: The id of its upload, if it may be added again.
        """
        with self._begin() as session:
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

    def get(self, item_id: int) -> Item:
        with self._begin() as session:
            item = session.get(Item, item_id)
        if item is None:
            raise NotFound("There is no such file, or it has been deleted.")
        return item

    def page(self, before: int | None = None) -> list[Item]:
        """Return the newest items, or the newest of those older than the item ``before``."""
        query = select(Item).order_by(Item.id.desc()).limit(PAGE_SIZE)
        if before is not None:
            query = query.where(Item.id < before)
        with self._begin() as session:
            return list(session.scalars(query))

    def neighbours(self, item: Item) -> tuple[int | None, int | None]:
        """Return the ids of the next newer and the next older item."""
        with self._begin() as session:
            newer = session.scalar(select(func.min(Item.id)).where(Item.id > item.id))
            older = session.scalar(select(func.max(Item.id)).where(Item.id < item.id))
        return newer, older

    def same_content(self, item: Item) -> list[Item]:
        """Return the other items that point at this item's content."""
        query = select(Item).where(Item.digest == item.digest, Item.id != item.id)
        with self._begin() as session:
            return list(session.scalars(query.order_by(Item.id)))

    def totals(self) -> Totals:
        contents = select(Item.size).group_by(Item.digest).subquery()
        with self._begin() as session:
            count, size = session.execute(
                select(func.count(), func.coalesce(func.sum(Item.size), 0)).select_from(Item)
            ).one()
            stored = session.scalar(select(func.coalesce(func.sum(contents.c.size), 0)))
        return Totals(count, size, stored or 0)

    def remove(self, item_id: int, delete_file: Callable[[str], object]) -> str:
        """Delete an item, and its file with ``delete_file`` if no other item uses that.

        The file goes while the transaction holds the database's one write lock: an upload of the
        same content either has its row in already, and the file stays, or adds it afterwards and
        finds out that the file is gone.

        Returns:
            The item's name.
        """
        with self._begin() as session:
            row = session.execute(
                delete(Item).where(Item.id == item_id).returning(Item.name, Item.address)
            ).one_or_none()
            if row is None:
                raise NotFound("There is no such file, or it has been deleted.")
            if not session.scalar(select(exists().where(Item.address == row.address))):
                delete_file(row.address)
            return row.name

    def addresses(self) -> Iterator[str]:
        """Yield the address of every file in use; ``prune`` deletes none of them."""
        with self._begin() as session:
            yield from session.scalars(select(Item.address).distinct())
