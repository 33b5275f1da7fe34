"""Whether a request's body is complete, incomplete or too large: one rule and one wording.

Both frameworks count the bytes they receive and ask here what that means. The length that the
client promised (Content-Length) and the limit are known from the start or change while the body
arrives, for example when a view sets ``request.max_content_length``; so a judgement depends on
nothing but the numbers handed in::

    received <= limit, more may come        OPEN
    max(received, expected) > limit         TOO_LARGE    413, as soon as it is known
    ended, received >= expected             COMPLETE
    ended, received < expected, or broken   INCOMPLETE   400

`ended` means that the server said so: its stream returned nothing, or its last message came.
`broken` means that it never will: the chunking is invalid or the connection is gone.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from werkzeug.exceptions import RequestEntityTooLarge

from .. import _units
from ..exceptions import IncompleteUploadError


class BodyState(enum.Enum):
    """What is known about a body that is being received."""

    OPEN = "open"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    TOO_LARGE = "too large"


@dataclass(frozen=True, slots=True)
class BodyRules:
    """What one request's body has to be.

    Args:
        expected: Bytes that Content-Length promises, or None.
        limit: Bytes allowed (``MAX_CONTENT_LENGTH``), or None.
    """

    expected: int | None = None
    limit: int | None = None

    def state(self, received: int, *, ended: bool = False, broken: bool = False) -> BodyState:
        """Judge a body of which `received` bytes have come.

        Args:
            received: Bytes so far.
            ended: Whether the server has announced the end.
            broken: Whether no more can come although no end was announced.
        """
        if self.limit is not None and max(received, self.expected or 0) > self.limit:
            return BodyState.TOO_LARGE
        if broken or (ended and self.expected is not None and received < self.expected):
            return BodyState.INCOMPLETE
        return BodyState.COMPLETE if ended else BodyState.OPEN

    def check(self, received: int, *, ended: bool = False, broken: bool = False) -> None:
        """Raise the error that fits the state of the body, if any does; see `state`.

        Raises:
            RequestEntityTooLarge: It is, or will be, larger than the limit.
            IncompleteUploadError: It ended before it was complete.
        """
        if self.limit is None and not ended and not broken:
            return  # the usual case, told with fewer calls
        state = self.state(received, ended=ended, broken=broken)
        if state is BodyState.TOO_LARGE:
            raise self.too_large()
        if state is BodyState.INCOMPLETE:
            raise self.incomplete(received)

    def too_large(self) -> RequestEntityTooLarge:
        """Return the error for a body over the limit."""
        limit = _units.size(self.limit or 0)
        return RequestEntityTooLarge(f"The request's body is larger than the {limit} allowed.")

    def incomplete(self, received: int) -> IncompleteUploadError:
        """Return the error for a body that ended after `received` bytes."""
        promised = "" if self.expected is None else f" of {self.expected}"
        return IncompleteUploadError(f"The request's body ended after {received}{promised} bytes.")


def read_already() -> IncompleteUploadError:
    """Return the error for a body of which something else has had some, and nothing has kept it."""
    return IncompleteUploadError(
        "The request's body, or a part of it, has been read already, and cannot be read again."
    )
