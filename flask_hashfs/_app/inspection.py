"""The inspectors of a store: what looks at new content before it is stored."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

from werkzeug.exceptions import HTTPException

from .._storage.predecessor import HashAddress
from .._storage.records import Entry
from .._store.store import HashFS
from ..exceptions import NotStoredError
from .awaiting import check_has_run


class Inspection:
    """Has the inspectors of an extension look at new content of one app's store.

    Args:
        extension: Whose inspectors; they may be registered later.
        app: The app whose store it is.
    """

    def __init__(self, extension: Any, app: Any) -> None:
        self._extension = extension
        self._app = app

    def __bool__(self) -> bool:
        return bool(self._extension.has_inspectors)

    def __call__(self, opens: Callable[[], BinaryIO], address: HashAddress) -> None:
        """Have them look, here and now.

        Args:
            opens: Opens the content, to be read from its start.
            address: The one that the content is to have.

        Raises:
            HTTPException: An inspector refuses the content; `RejectedError` is one.
        """
        self._extension.inspect_now(self._app, opens, address)


def look(function: Callable[..., Any], opens: Callable[[], BinaryIO], address: HashAddress) -> None:
    """Have one inspector look, here and now.

    Raises:
        TypeError: It has to be awaited, so it has not looked: the content must not pass.
    """
    with opens() as file:
        result = function(file, address)
    check_has_run("the inspector", function, result)


@dataclass(frozen=True, slots=True)
class Inspected:
    """A stored file that the inspectors have looked at, and why they refuse it, if they do."""

    entry: Entry
    error: HTTPException | None


def inspect_stored(store: HashFS, quarantine: bool) -> Iterator[Inspected]:
    """Have the inspectors of `store` look at every content that is stored.

    Each content is looked at once, however many extensions it is stored under.

    Args:
        store: With an `inspection`.
        quarantine: Whether to move what is refused where `verify` moves what is damaged.

    Raises:
        HTTPException: An inspector could not decide: its error has a status of 500 or more.
    """
    folder, errors = "", dict[str, HTTPException | None]()
    for entry in store.entries():
        if entry.id is None:
            continue
        if posixpath.dirname(entry.relpath) != folder:  # that holds all names of a content
            folder, errors = posixpath.dirname(entry.relpath), {}
        try:
            if entry.id not in errors:
                errors[entry.id] = _refusal(store, entry)
        except NotStoredError:  # deleted meanwhile; no other missing file, such as a scanner's
            continue
        error = errors[entry.id]
        if quarantine and error is not None:
            store.backend.quarantine(entry.relpath)
        yield Inspected(entry, error)


def _refusal(store: HashFS, entry: Entry) -> HTTPException | None:
    opens = cast("Callable[[], BinaryIO]", partial(store.backend.open_past_cache, entry.relpath))
    opens().close()  # what is not there must not look like an inspector's error
    assert store.inspection is not None
    try:
        store.inspection(opens, store.backend.address_of(entry.relpath))
    except HTTPException as error:
        if error.code is None or error.code >= 500:
            raise
        return error
    return None
