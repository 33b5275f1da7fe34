"""Calls that need a descriptor, in a process that may have none left."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .full import lacks_descriptor

P = ParamSpec("P")
T = TypeVar("T")

close_idle: list[Callable[[], bool]] = []
"""What closes a file that is idle and can be opened again, and tells whether it has closed one."""


def with_room(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a call that opens something; where there is no descriptor, idle files are closed.

    Not to be used by what an idle file itself does, since that is the one that may be closed.

    Args:
        call: Such as ``os.open``.
        args: Of the call.
        kwargs: Of the call.

    Returns:
        What it returns.

    Raises:
        OSError: It fails. That there is no descriptor is an error only if no file is idle.
    """
    while True:
        try:
            return call(*args, **kwargs)
        except OSError as error:
            if not lacks_descriptor(error) or not any(close() for close in close_idle):
                raise
