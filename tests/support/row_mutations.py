"""The schedules of row_schedules on a package that is broken in one way: a script.

Its first argument is the way. It shows that the schedules find what would lose or leave files.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import row_schedules
from flask import current_app

from flask_hashfs._local import prune
from flask_hashfs._local.set_aside import SetAside
from flask_hashfs.sqlalchemy import Tracked


def prune_has_no_grace() -> None:
    """What was put a moment ago, for a transaction that is still open, goes too."""
    find, delete = prune._candidates, prune._delete
    never = 2**63  # whatever was put before that is old
    prune._candidates = lambda store, used, _, tidy: find(store, used, never, tidy)  # type: ignore
    prune._delete = lambda store, id, paths, _: delete(store, id, paths, never)  # type: ignore


def track_forgets_a_row() -> None:
    """The first row of what is in use is left out."""
    read = Tracked.__call__
    Tracked.__call__ = lambda self: iter(list(read(self))[1:])  # type: ignore


def prune_leaves_what_it_set_aside() -> None:
    """It moves files away, and forgets to delete them."""
    SetAside.delete = lambda self, suffix=None: bool(self.files())  # type: ignore
    SetAside.restore = lambda self: True  # type: ignore[method-assign]


def files_go_before_the_commit() -> None:
    """A row's file is deleted with its row, as the peers do, though the transaction may fail."""
    change = row_schedules.change

    def broken(session: Any, kind: Any, new_file: Any, lot: Any) -> None:
        before = {row.file.id: row.file for row in session.query(kind)}
        change(session, kind, new_file, lot)
        session.flush()
        after = {row.file.id for row in session.query(kind)}
        client = current_app.extensions["hashfs"]["client"]
        for id in set(before) - after:
            client.delete(id)

    row_schedules.change = broken


MUTATIONS = {
    each.__name__: each
    for each in (
        prune_has_no_grace,
        track_forgets_a_row,
        prune_leaves_what_it_set_aside,
        files_go_before_the_commit,
    )
}

if __name__ == "__main__":
    MUTATIONS[sys.argv[1]]()
    for line in sys.stdin:
        print(json.dumps(row_schedules.play(json.loads(line))), flush=True)
