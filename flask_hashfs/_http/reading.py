"""How the body of a plan is read: the steps that a sender carries out, and their check; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .ranges import ByteRange

__all__ = ["Read", "Steps", "ended_early"]


class Read(NamedTuple):
    """Read up to `size` bytes of the file, from `start` on."""

    start: int
    size: int


class Steps:
    """The steps that send a body: bytes as they are, and reads of the file.

    After each `Read` the sender calls `took`; the next step goes on from there.
    ::

        steps = Steps(plan.body)
        for step in steps:
            if isinstance(step, bytes):
                yield step
            else:
                file.seek(step.start)
                piece = file.read(min(step.size, READ_SIZE))
                steps.took(len(piece))
                yield piece

    Args:
        body: That of the plan.
    """

    def __init__(self, body: tuple[bytes | ByteRange, ...]) -> None:
        self._body = body
        self._start = 0

    def __iter__(self) -> Iterator[bytes | Read]:
        for part in self._body:
            if isinstance(part, bytes):
                yield part
                continue
            self._start = part.start
            while self._start < part.stop:
                yield Read(self._start, part.stop - self._start)

    def took(self, size: int) -> None:
        """Say how many bytes the last read gave.

        Raises:
            OSError: It gave none, though there should be some: the answer has announced more
                bytes than the file has now. It must break off, for the client takes an answer
                that just ends for whole, or waits for the rest on a connection that is kept.
        """
        if not size:
            raise ended_early()
        self._start += size


def ended_early() -> OSError:
    """Return the error for a file that has become shorter while it was sent."""
    return OSError("a stored file is shorter than when it was opened")
