"""What the log is told of a cache."""

from __future__ import annotations

from dataclasses import dataclass

from .._storage import messages


@dataclass(frozen=True, slots=True)
class Telling:
    """Logs what a cache meets, each kind once a minute at most.

    Args:
        folder: Of the cache.
        root: Of the store.
    """

    folder: str
    root: str

    def failing(self, error: OSError) -> None:
        """Say that the disk of the cache fails."""
        messages.CACHE_FAILING.log(self.folder, folder=self.folder, error=error)

    def unanswered(self, error: BaseException | str) -> None:
        """Say that the store does not answer."""
        messages.UNANSWERED.log(self.root, root=self.root, error=error)

    def damaged(self, path: str) -> None:
        """Say that the store has sent other bytes than were put."""
        messages.DAMAGED.log(self.root, path=path)
