"""The inspectors of a store: what looks at new content before it is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from .._storage.predecessor import HashAddress


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
