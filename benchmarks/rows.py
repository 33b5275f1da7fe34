"""How often filedepot and sqlalchemy-file lose or leak files, in the schedules of the tests.

``python benchmarks/rows.py [schedules] [URL of a database]``. The writers are those of
tests/support/row_schedules.py, which play the same transactions with this package, where nothing
may be lost or left: they put, commit, roll back, delete singly and in bulk, and are killed. With
"shared", a content that a row has already is taken over from that row, which is locked; with "own
files", every row gets a file of its own. The libraries delete by themselves; there is no prune.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from depot.fields.sqlalchemy import UploadedFileField
from depot.manager import DepotManager
from libcloud.storage.drivers.local import LocalStorageDriver
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy_file import File, FileField
from sqlalchemy_file.storage import StorageManager

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from row_schedules import (
    WRITERS,
    Board,
    content_of,
    fork,
    kill_at,
    new_engine,
    play_transactions,
    wait_for_rollbacks,
)


class Base(DeclarativeBase):
    pass


class DepotRow(Base):
    __tablename__ = "depot_row"
    __mapper_args__: ClassVar[dict[str, bool]] = {"confirm_deleted_rows": False}
    id: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[int]
    file: Mapped[Any] = mapped_column(UploadedFileField)


class FileRow(Base):
    __tablename__ = "file_row"
    __mapper_args__: ClassVar[dict[str, bool]] = {"confirm_deleted_rows": False}
    id: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[int]
    file: Mapped[Any] = mapped_column(FileField)


class Filedepot:
    """filedepot with its local storage."""

    name = "filedepot"
    row = DepotRow

    def __init__(self, root: Path) -> None:
        self.root = root
        DepotManager._clear()
        DepotManager.configure("default", {"depot.storage_path": str(root)})

    def new(self, data: bytes) -> Any:
        return data

    def id(self, value: Any) -> str:
        return str(value.file_id)

    def read(self, value: Any) -> bytes:
        with DepotManager.get_file(value.path) as file:
            return bytes(file.read())


class SQLAlchemyFile:
    """sqlalchemy-file on libcloud's local storage."""

    name = "sqlalchemy-file"
    row = FileRow

    def __init__(self, root: Path) -> None:
        self.root = root / "files"
        self.root.mkdir(exist_ok=True)
        StorageManager._clear()
        driver = LocalStorageDriver(str(root))
        StorageManager.add_storage("default", driver.get_container("files"))

    def new(self, data: bytes) -> Any:
        return File(content=io.BytesIO(data), filename="a.txt", content_type="text/plain")

    def id(self, value: Any) -> str:
        return str(value["file_id"])

    def read(self, value: Any) -> bytes:
        return (self.root / self.id(value)).read_bytes()


def write(library: Any, job: dict[str, Any], board: Board, place: int, lot: random.Random) -> None:
    engine = new_engine(job)
    if lot.random() < 0.5:
        kill_at(engine, lot.randrange(1, 120))

    def new_file(session: Session, number: int) -> Any:
        row = library.row
        wanted = select(row).where(row.content == number).order_by(row.id).limit(1)
        other = session.scalars(wanted.with_for_update()).first() if job["share"] else None
        return library.new(content_of(number)) if other is None else other.file

    play_transactions(engine, library.row, new_file, board, place, lot, (Exception,))


def play(kind: Any, job: dict[str, Any]) -> dict[str, int]:
    """Play one schedule, and count the rows without their file and the files without a row."""
    engine, board, seed = new_engine(job), Board(), job["seed"]
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    root = Path(job["root"])
    root.mkdir()
    library = kind(root)
    waiting = {
        fork(lambda p=place: write(library, job, board, p, random.Random(f"{seed} {p}")))
        for place in range(WRITERS)
    }
    failed = 0
    while waiting:
        pid, status = os.wait()
        waiting.discard(pid)
        failed += os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL)
    wait_for_rollbacks(engine)
    with Session(engine) as session:
        rows = [(row.content, row.file) for row in session.scalars(select(library.row))]
        lost = sum(not is_whole(library, number, file) for number, file in rows)
        wanted = {library.id(file) for _, file in rows}
    left = {each.name for each in library.root.iterdir()} - wanted
    shutil.rmtree(root)
    return {"lost": lost, "left": len(left), "failed": failed}


def is_whole(library: Any, number: int, file: Any) -> bool:
    try:
        return bool(library.read(file) == content_of(number))
    except OSError:
        return False


def main(schedules: int, url: str | None) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        job = {"url": url or f"sqlite:///{folder}/rows.db", "root": f"{folder}/root"}
        for kind in (Filedepot, SQLAlchemyFile):
            for share in (True, False):
                counts: Counter[str] = Counter()
                for seed in range(schedules):
                    outcome = play(kind, {**job, "seed": seed, "share": share})
                    counts.update(each for each, count in outcome.items() if count)
                print(
                    f"{kind.name} {version(kind.name)}, {'shared' if share else 'own files'}: "
                    f"of {schedules} schedules {counts['lost']} lost a file, "
                    f"{counts['left']} left one ({counts['failed']} with an error)",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40, sys.argv[2] if len(sys.argv) > 2 else None)
