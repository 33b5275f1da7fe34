"""Asynchronous calls made from a thread, which can be given up as no blocking call can."""

from __future__ import annotations

import functools
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")


def call(coroutine: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return what a coroutine returns; it runs on an event loop of this package's own.

    Args:
        coroutine: Must not block.
        seconds: After which it is cancelled.

    Raises:
        TimeoutError: It has not ended by then.
    """
    import asyncio  # only who lists an object store pays for the import

    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result(max(seconds, 0))
    finally:
        future.cancel()


@functools.cache
def _loop() -> AbstractEventLoop:
    import asyncio

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="hashfs-listing", daemon=True).start()
    return loop
