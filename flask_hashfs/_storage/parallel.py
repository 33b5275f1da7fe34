"""The same call for many things at once, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 8


def in_threads(
    call: Callable[[T], R], items: Iterable[T], threads: int = THREADS
) -> Generator[tuple[T, R]]:
    """Yield each item with what `call` returns for it, in order; few are taken ahead.

    Given up or failed half way, it waits for the calls under way and begins no others.
    """
    rest = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="hashfs-many") as pool:
        running: deque[tuple[T, Future[R]]] = deque()
        try:
            while True:
                for item in islice(rest, 2 * threads - len(running)):
                    running.append((item, pool.submit(call, item)))
                if not running:
                    return
                item, future = running.popleft()
                yield item, future.result()
        finally:
            for _, future in running:
                future.cancel()
