"""How a full disk is told: by one error, whichever call noticed it."""

from __future__ import annotations

import contextlib
import errno
from types import TracebackType

from ..exceptions import StoreFullError
from . import messages

_FULL = {errno.ENOSPC, errno.EDQUOT}


class _FullIsTold(contextlib.ContextDecorator):
    """Raises `StoreFullError` in the place of what says that the disk or a quota is full."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, StoreFullError) or not isinstance(error, OSError):
            return
        if error.errno in _FULL:
            messages.FULL.log(None, error=error)  # an HTTP error is logged by nobody else
            raise StoreFullError(error.errno, error.strerror, error.filename) from error


full_is_told = _FullIsTold()
"""To be entered, or to decorate what writes to the disk. It keeps no state."""
