"""Asynchronous calls made from a thread, which can be given up as no blocking call can."""

from __future__ import annotations

import atexit
import functools
import threading
import time
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

    entered = threading.RLock()

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(  # type: ignore[override]
            self, *args: Any, **options: Any
        ) -> asyncio.Handle:
            with entered:
                return super().call_soon_threadsafe(*args, **options)

    def let_leave() -> None:
        # A thread of obstore that brings a result is still in the call above when the loop has
        # the result. Before 3.14 Python aborts a process that ends meanwhile (CPython issue 87135).
        if entered.acquire(timeout=5):
            entered.release()
        time.sleep(0.05)  # for its way from the release of the lock out of Python

    loop = Loop()
    threading.Thread(target=loop.run_forever, name="hashfs-listing", daemon=True).start()
    atexit.register(let_leave)
    return loop
