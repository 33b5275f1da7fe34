"""Processes that put, commit, roll back, delete and are killed, while others prune: a script.

The script reads schedules from its standard input, one JSON object a line, and answers each with
what was lost and what was left behind. One schedule: three writers draw their transactions by lot,
a pruner prunes all the while, and some of the four are killed by SIGKILL at a statement, or at a
call of the file system, that is drawn by lot, too.

The promise holds for transactions that are shorter than ``older_than``. So that it is tried to its
edge, every writer tells when its transaction began, and the pruner's ``older_than`` is as long as
the longest one is open, and hardly more.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import Engine, create_engine, delete, event, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import NullPool

from flask_hashfs import FlaskHashFS, StoredFile
from flask_hashfs.sqlalchemy import StoredFileType

WRITERS = 3
TRANSACTIONS = 8
CONTENTS = 8
SLACK = 0.05  # seconds of older_than beyond the longest transaction
CLOCK = 0.02  # seconds by which a file's date may lie before the time that it was put at
CALLS = ("link", "rename", "replace", "unlink", "utime", "open")
_DELETED = WRITERS  # the place of the number of contents that were deleted


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "schedule_row"
    __mapper_args__ = {"confirm_deleted_rows": False}  # noqa: RUF012 - another one may have deleted it
    id: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[int]
    file: Mapped[StoredFile] = mapped_column(StoredFileType)


def content_of(number: int) -> bytes:
    return f"content {number} ".encode() * (1 if number % 4 else 30_000)


class Board:
    """Numbers that all processes of a schedule see: since when each transaction is open."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * (WRITERS + 1))

    def __getitem__(self, place: int) -> float:
        return float(struct.unpack_from("d", self._memory, 8 * place)[0])

    def __setitem__(self, place: int, value: float) -> None:
        struct.pack_into("d", self._memory, 8 * place, value)

    def longest(self, now: float) -> float:
        """Return for how many seconds the longest transaction has been open."""
        return max(
            (now - start for start in map(self.__getitem__, range(WRITERS)) if start), default=0.0
        )


class TooLate(Exception):
    """What a pruner's reference raises when the prune began too late to know what is open."""


# -- what a process does -----------------------------------------------------------------------


def kill_at(engine: Engine, step: int) -> None:
    """Kill this process at a statement, commit, rollback or call of the file system."""
    left = step

    def count(*_: Any, **__: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "after_cursor_execute", "commit", "rollback"):
        event.listen(engine, name, count)
    for name in CALLS:
        setattr(os, name, _counting(getattr(os, name), count))


def _counting(call: Callable[..., Any], count: Callable[[], None]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        count()
        return call(*args, **kwargs)

    return counted


def new_engine(job: dict[str, Any]) -> Engine:
    sqlite = job["url"].startswith("sqlite")
    return create_engine(
        job["url"], poolclass=NullPool, connect_args={"timeout": 30} if sqlite else {}
    )


def new_app(job: dict[str, Any]) -> tuple[Flask, FlaskHashFS]:
    app = Flask("rows")
    app.config.update(HASHFS_ROOT_FOLDER=job["root"], HASHFS_FSYNC=False)
    return app, FlaskHashFS(app)


def write(job: dict[str, Any], board: Board, place: int, lot: random.Random) -> None:
    engine = new_engine(job)
    app, fs = new_app(job)
    fs.track(Base, bind=engine)
    if lot.random() < 0.5:
        kill_at(engine, lot.randrange(1, 120))
    with app.app_context():
        play_transactions(engine, Row, lambda _, number: save(fs, number), board, place, lot)


def play_transactions(
    engine: Engine,
    kind: Any,
    new_file: Callable[[Session, int], Any],
    board: Board,
    place: int,
    lot: random.Random,
    passing: tuple[type[Exception], ...] = (OperationalError, StaleDataError),
) -> None:
    """Play a writer's transactions on the rows of a class that has `content` and `file`.

    An error of a kind that is `passing` ends its transaction only: on SQLite another one writes.
    """
    for _ in range(TRANSACTIONS):
        board[place] = time.time() - CLOCK
        try:
            with Session(engine) as session:
                for _ in range(lot.randrange(1, 5)):
                    change(session, kind, new_file, lot)
                    session.flush()
                    time.sleep(lot.random() * 0.02)
                if lot.random() < 0.7:
                    session.commit()
        except passing:
            pass
        board[place] = 0
        time.sleep(lot.random() * 0.05)


def change(
    session: Session, kind: Any, new_file: Callable[[Session, int], Any], lot: random.Random
) -> None:
    number = lot.randrange(CONTENTS)
    deed = lot.choice(("add", "add", "add", "delete", "delete all", "delete many", "replace"))
    if deed == "delete many":
        session.execute(delete(kind).where(kind.id % 3 == lot.randrange(3)))
    if deed == "delete all":
        session.execute(delete(kind).where(kind.content == number))
    if deed == "add":
        session.add(kind(content=number, file=new_file(session, number)))
    if deed in ("delete", "replace"):
        row = session.scalars(
            select(kind).order_by(kind.id).limit(1).with_for_update(skip_locked=True)
        ).first()
        if row is not None and deed == "replace":
            row.content, row.file = number, new_file(session, number)
        elif row is not None:
            session.delete(row)


def save(fs: FlaskHashFS, number: int) -> StoredFile:
    return fs.save(content_of(number), filename=f"{number}.txt", content_type="text/plain")


def prune(job: dict[str, Any], board: Board, lot: random.Random) -> None:
    engine = new_engine(job)
    app, fs = new_app(job)
    asked = 0.0

    @fs.references
    def in_time() -> list[str]:
        if time.time() - asked > SLACK:  # what has begun since is not within older_than
            raise TooLate
        return []

    fs.track(Base, bind=engine)
    if lot.random() < 0.5:
        kill_at(engine, lot.randrange(20, 400))
    with app.app_context():
        while True:
            asked = time.time()
            older_than = timedelta(seconds=board.longest(asked) + SLACK)
            try:
                board[_DELETED] += len(fs.prune(older_than=older_than, allow_empty=True))
            except (TooLate, OperationalError):
                pass
            time.sleep(lot.random() * 0.01)


# -- what the script does ------------------------------------------------------------------------


def fork(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def play(job: dict[str, Any]) -> dict[str, Any]:
    """Play one schedule, and tell how it ended."""
    seed, board, engine = job["seed"], Board(), new_engine(job)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)

    def fork_pruner(number: int) -> int:
        return fork(lambda: prune(job, board, random.Random(f"{seed} pruner {number}")))

    pruner = fork_pruner(0)
    writers = {
        fork(partial(write, job, board, place, random.Random(f"{seed} {place}"))): place
        for place in range(WRITERS)
    }
    failed = killed = prunes = 0
    while writers:
        pid, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        killed += code == -signal.SIGKILL
        failed += code not in (0, -signal.SIGKILL)
        if pid == pruner:
            prunes += 1
            pruner = fork_pruner(prunes)
        else:
            board[writers.pop(pid)] = 0
    os.kill(pruner, signal.SIGKILL)
    os.waitpid(pruner, 0)
    wait_for_rollbacks(engine)
    outcome = judge(job, engine)
    return {**outcome, "killed": killed, "failed": failed, "deleted": int(board[_DELETED])}


def wait_for_rollbacks(engine: Engine) -> None:
    """Wait until PostgreSQL has noticed which of its clients were killed."""
    if engine.dialect.name != "postgresql":
        return
    others = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    for _ in range(1000):
        with engine.connect() as connection:
            if not connection.scalar(others):
                return
        time.sleep(0.01)
    raise TimeoutError("PostgreSQL goes on with what was killed")


def judge(job: dict[str, Any], engine: Engine) -> dict[str, Any]:
    """Tell which rows have no file, and, after a last prune, which files have no row."""
    app, fs = new_app(job)
    fs.track(Base, bind=engine)
    with app.app_context(), Session(engine) as session:
        rows = session.execute(select(Row.content, Row.file)).all()
        lost = unreadable(fs, rows)
        unused = fs.prune(older_than=timedelta(0), allow_empty=True)
        lost += unreadable(fs, rows)
    root = Path(job["root"])
    files = {each.name for each in root.rglob("*") if each.is_file()}
    wanted = {Path(row.file.relpath).name for row in rows}
    left = sorted(files - wanted)
    return {"rows": len(rows), "lost": lost, "left": left, "unused": len(unused)}


def unreadable(fs: FlaskHashFS, rows: Any) -> list[str]:
    lost = []
    for number, file in rows:
        try:
            with fs.open(file) as opened:
                data = opened.read()
        except OSError as error:
            lost.append(f"{number}: {error!r}")
        else:
            if data != content_of(number) or hashlib.sha256(data).hexdigest() != file.id:
                lost.append(f"{number}: other bytes")
    return lost


# -- what a test does ----------------------------------------------------------------------------


class Player:
    """The script, or another one that answers alike, running."""

    def __init__(self, script: str, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def play(self, **job: Any) -> dict[str, Any]:
        """Play the schedule of one seed, in an empty root."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job, default=str) + "\n")
        self._process.stdin.flush()
        outcome: dict[str, Any] = json.loads(self._process.stdout.readline())
        return outcome

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def player(script: str = __file__, *words: str) -> Iterator[Player]:
    playing = Player(script, *words)
    try:
        yield playing
    finally:
        playing.close()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(play(json.loads(line))), flush=True)
