"""Turns to end: of a thousand requests that have to end at once, a few do at a time."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque

AT_ONCE = 16
"""How many requests end at the same time."""

PATIENCE = 0.025
"""Seconds for which others wait for a request to end."""


class Turns:
    """A line at which a request is let in when another one has ended.

    A thousand clients that vanish at once are noticed in one turn of the event loop. If all their
    requests ended in the next few, nobody else would be served. Each of them also makes new
    objects, such as an error with its traceback. A thousand of these at once would set off the
    garbage collector, which then looks at all objects of the process.

    Args:
        patience: Seconds after which a request that has not ended yet keeps no other one waiting.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._line: deque[asyncio.Future[None]] = deque()
        self._ending: dict[asyncio.Future[None], float] = {}  # and since when
        self._timer: asyncio.TimerHandle | None = None

    def join(self) -> asyncio.Future[None]:
        """Return a future that is done once the caller may end: already, where few end."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(place)
        self._let_in()
        return place

    def leave(self, place: asyncio.Future[None]) -> None:
        """Let others in, as the request with this place has ended."""
        if self._ending.pop(place, None) is not None:
            self._let_in()

    def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        while self._line and len(self._ending) < AT_ONCE:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                self._ending[place] = loop.time()
        if self._line and self._timer is None:
            self._timer = loop.call_later(self._patience, self._pass_by)

    def _pass_by(self) -> None:
        """Wait no more for those who take their time."""
        self._timer = None
        long_ago = asyncio.get_running_loop().time() - self._patience
        self._ending = {place: since for place, since in self._ending.items() if since > long_ago}
        self._let_in()


_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = weakref.WeakKeyDictionary()


def turns() -> Turns:
    """Return the line that all requests of the running event loop share."""
    return _turns.setdefault(asyncio.get_running_loop(), Turns())
