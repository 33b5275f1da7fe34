"""Threads of a cache, and a system that has no room for one more."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any


def begin(name: str, run: Callable[..., None], *args: Any) -> threading.Thread:
    """Start a thread that ends with the process.

    Args:
        name: Of the thread.
        run: Called in it.
        args: Of `run`.

    Raises:
        OSError: The system starts no more threads.
    """
    thread = threading.Thread(target=run, args=args, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    return thread
