"""What a probe of a store says when it fails."""

from __future__ import annotations


class ProbeError(Exception):
    """A store does not work.

    Args:
        check: What failed, in one word that anyone may see.
        reason: The whole of it, with paths, for the log.
    """

    def __init__(self, check: str, reason: object) -> None:
        super().__init__(f"{check}: {reason}")
        self.check = check
