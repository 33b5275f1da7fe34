"""Callables of an app that return a coroutine, which nobody awaits: they are refused."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable, iscoroutine
from typing import Any


def check_has_run(what: str, function: Callable[..., Any], result: object) -> None:
    """Check that a callable of the app has run when it returned.

    Args:
        what: What the app calls it, for the error.
        function: The callable.
        result: What it returned.

    Raises:
        TypeError: The result has to be awaited, so the callable has decided nothing yet.
    """
    if not isawaitable(result):
        return
    if iscoroutine(result):
        result.close()
    raise TypeError(f"{what} {function!r} has to be awaited, which nobody does here")
