"""Quarantine: where damaged files are moved to, out of the way of the next put."""

from __future__ import annotations

import contextlib
import os
from itertools import count

from .._storage import posix
from .._storage.backend import Backend
from .listing import QUARANTINE
from .set_aside import SetAside


def isolate(store: Backend, id: str, path: str, fd: int) -> None:
    """Move the damaged file that is open as `fd` out of the tree, under all that it is named.

    A put may heal the name at any moment, so what is moved is looked at again, where look-ups
    find it, and a look-up may put the damaged file back, so the name is looked at again too.
    """
    damaged = os.fstat(fd)
    while (there := posix.lstat(path)) is not None and os.path.samestat(there, damaged):
        aside = SetAside.make(store, id)
        try:
            aside.move_in(path)
            for file in aside.files():
                state = posix.lstat(file)
                if state is not None and os.path.samestat(state, damaged):
                    _keep(store, file, path)
        finally:
            aside.restore()
    posix.remove_empty_folders(os.path.dirname(path), store.root)


def _keep(store: Backend, file: str, path: str) -> None:
    """Move `file` to the place in quarantine that belongs to `path`, numbered if it is taken."""
    place = os.path.join(store.root, QUARANTINE, os.path.relpath(path, store.root))
    target = place
    for number in count(1):
        store.makepath(os.path.dirname(target))
        try:
            os.link(file, target)
        except FileExistsError:
            target = f"{place}.{number}"
            continue
        except FileNotFoundError:  # a look-up was first; or the folder is gone
            if posix.lstat(file) is None:
                return
            continue
        except OSError as error:
            if not posix.refuses_links(error):
                raise
            os.replace(file, target)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)
        return
