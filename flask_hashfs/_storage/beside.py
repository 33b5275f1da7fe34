"""The second thread of one upload, which writes to the disk while the first one hashes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LARGE = 4 * 1024 * 1024
"""Bytes of one content, or of one body, from which on a second thread pays for itself."""


def second_thread() -> Executor:
    """Return the thread, which begins with its first call and has to be shut down."""
    return ThreadPoolExecutor(1, thread_name_prefix="hashfs-write")


def begin(
    thread: Executor, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> Callable[[], T]:
    """Let `thread` make a call, and return what waits for its result.

    While the interpreter shuts down no thread starts: then the call is made by whoever waits.
    """
    try:
        return thread.submit(call, *args, **kwargs).result
    except RuntimeError:
        return partial(call, *args, **kwargs)
