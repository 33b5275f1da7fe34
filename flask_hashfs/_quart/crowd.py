"""Turns to gather a batch: where more upload than can have a large share, some do at a time.

If a thousand uploads shared the memory evenly, each could keep little, and would need many calls of
a worker thread for what one call does where few upload. So a few of them gather a whole batch, and
the others wait until one of these is taken. Meanwhile their bytes stay where they are: with the
server, the kernel and the client.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import OrderedDict
from typing import Protocol

from .._storage.upload_memory import TURNS

LOOK = 0.005
"""Seconds after which the crowd looks, while some wait, whose clients are silent."""

SILENT_LOOKS = 4
"""Looks without a byte, after which an upload that has its turn has to write what it has.

They are counted, and not the seconds: a busy event loop takes a few of its own turns until bytes
that have arrived are here.
"""

LONGEST = 5.0
"""Seconds after which a turn ends in any case, though the upload's view may not have read."""

PATIENCE = 5.0
"""Seconds for which an upload waits, until it is asked to go on without a turn, with little."""


class Member(Protocol):
    """What the crowd asks of an upload."""

    @property
    def received(self) -> int:
        """How many bytes have come."""
        ...

    def begin_turn(self) -> None:
        """Take as much as a turn allows."""

    def end_turn(self) -> None:
        """Write what has come, as others wait."""

    def hurry(self) -> None:
        """Go on without a turn for once: take a message, and write it."""


class _Turn:
    """The turn of an upload, as the crowd sees it."""

    __slots__ = ("_received", "_silent_looks", "since")

    def __init__(self, received: int) -> None:
        self.since = time.monotonic()
        self._received = received
        self._silent_looks = 0

    def is_silent(self, received: int) -> bool:
        """Look at how many bytes have come; tell whether none did at the last looks."""
        self._silent_looks = self._silent_looks + 1 if received == self._received else 0
        self._received = received
        return self._silent_looks >= SILENT_LOOKS


class Crowd:
    """The uploads of one event loop that gather a batch, and those that wait for their turn."""

    def __init__(self) -> None:
        self._gathering: dict[Member, _Turn] = {}
        self._waiting: OrderedDict[Member, None] = OrderedDict()  # first come, first served
        self._due: OrderedDict[Member, float] = OrderedDict()  # when each of them is to hurry
        self._timer: asyncio.TimerHandle | None = None

    def join(self, upload: Member) -> None:
        """Give `upload` a turn as soon as there is one."""
        if upload in self._waiting:
            return
        self._waiting[upload] = None
        self._due[upload] = time.monotonic() + PATIENCE
        self._let_in()

    def leave(self, upload: Member) -> None:
        """Take `upload` out, whether it has its turn or waits."""
        is_gathering = upload in self._gathering
        self._remove(upload)
        if is_gathering:
            self._let_in()

    def _remove(self, upload: Member) -> None:
        self._gathering.pop(upload, None)
        self._waiting.pop(upload, None)
        self._due.pop(upload, None)

    def _let_in(self) -> None:
        while self._waiting and len(self._gathering) < TURNS:
            upload = next(iter(self._waiting))
            self._remove(upload)
            self._gathering[upload] = _Turn(upload.received)
            upload.begin_turn()
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK, self._look)

    def _look(self) -> None:
        """End the turns of those whose clients are silent, and hurry who has waited for long."""
        self._timer = None
        now = time.monotonic()
        for upload, turn in list(self._gathering.items()):
            if now - turn.since > LONGEST:
                self._remove(upload)
                upload.end_turn()
            elif turn.is_silent(upload.received):
                upload.hurry()
        while self._due and now >= self._due[upload := next(iter(self._due))]:
            self._due[upload] = now + PATIENCE
            self._due.move_to_end(upload)
            upload.hurry()
        self._let_in()


_crowds: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Crowd] = weakref.WeakKeyDictionary()


def crowd() -> Crowd:
    """Return the crowd of the running event loop."""
    return _crowds.setdefault(asyncio.get_running_loop(), Crowd())
