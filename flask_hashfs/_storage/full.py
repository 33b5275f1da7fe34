"""One error for a full disk, and one for too few descriptors, whoever noticed it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

from ..exceptions import StoreFullError, StoreUnavailableError
from . import messages

P = ParamSpec("P")
T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}


class _FullIsTold:
    """Raises `StoreFullError` in the place of what says that the disk or a quota is full."""

    def __call__(self, call: Callable[P, T]) -> Callable[P, T]:
        """Decorate a function; `contextlib.ContextDecorator` would cost each call a third more."""

        @wraps(call)
        def told(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return call(*args, **kwargs)
            except OSError as error:
                tell_full(error)
                raise

        return told

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            tell_full(error)


def is_full(error: OSError) -> bool:
    """Tell whether `error` says that the disk or a quota is full."""
    return error.errno in _FULL


def lacks_descriptor(error: OSError) -> bool:
    """Tell whether `error` says that the process, or the system, is out of descriptors."""
    return error.errno in _NO_DESCRIPTOR


def tell_full(error: BaseException) -> None:
    """Raise `StoreFullError` where `error` says that the disk or a quota is full.

    Raises:
        StoreFullError: It says so.
        StoreUnavailableError: It says that there is no descriptor; soon there will be one.
    """
    if not isinstance(error, OSError):
        return
    if lacks_descriptor(error):
        raise StoreUnavailableError(f"no file can be opened: {error}") from error
    if error.errno in _FULL and not isinstance(error, StoreFullError):
        messages.FULL.log(None, error=error)  # an HTTP error is logged by nobody else
        raise StoreFullError(error.errno, error.strerror, error.filename) from error


full_is_told = _FullIsTold()
"""To be entered, or to decorate what writes to the disk. It keeps no state."""
