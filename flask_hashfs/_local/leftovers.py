"""What killed processes have left behind, and how it is cleared."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import timedelta

from .._storage import messages, posix
from .._storage.backend import Backend
from .._storage.spool import TEMPORARY
from .listing import files_below
from .set_aside import all_set_aside
from .walk import folders_below

LEFT_OVER = timedelta(hours=1)
"""How old a temporary file must be to be nobody's."""


def clear(store: Backend) -> None:
    """Restore what was set aside, and delete old temporary files and uploads that have expired."""
    swept = store.pending.sweep()
    for aside in all_set_aside(store):
        swept += aside.restore()
    youngest = time.time() - LEFT_OVER.total_seconds()
    for path in files_below(store, TEMPORARY):
        state = posix.lstat(path)
        if state is not None and state.st_mtime < youngest:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                swept += 1
    for folder in folders_below(store.root, os.path.join(store.root, posix.HIDDEN)):
        if folder.is_empty:
            posix.remove_empty_folders(folder.path, store.root)
    if swept:
        messages.SWEPT.log(store.root, root=store.root, swept=swept)
