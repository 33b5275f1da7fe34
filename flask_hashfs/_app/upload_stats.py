"""What the uploads of a process hold, and how much that may be."""

from __future__ import annotations

from dataclasses import dataclass

from .._storage.upload_files import FILES, default_limit
from .._storage.upload_memory import MEMORY
from .config import StoreConfig


@dataclass(frozen=True, slots=True)
class UploadStats:
    """What the uploads of this process are about.

    Attributes:
        active: Requests that upload.
        buffered: Bytes that lie unread or are being written, and those of small files.
        files: Temporary files open.
        waiting: Contents that wait until they can have such a file.
    """

    active: int
    buffered: int
    files: int
    waiting: int


def current() -> UploadStats:
    """Return the state of this process."""
    return UploadStats(MEMORY.uploads, MEMORY.buffered, FILES.open_count, FILES.waiting)


def configure(settings: StoreConfig) -> None:
    """Let the uploads of this process have what a store's keys say."""
    MEMORY.size = settings.upload_memory
    FILES.limit = default_limit() if settings.upload_files is None else settings.upload_files
