"""Content-addressed file storage for Flask and Quart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._app.upload import Upload
from ._app.upload_stats import UploadStats
from ._flask.extension import FlaskHashFS
from ._storage.cache_stats import CacheStats
from ._storage.findings import Finding
from ._storage.names import AUTO
from ._storage.predecessor import HashAddress
from ._storage.stored_file import StoredFile
from ._store.store import HashFS
from .exceptions import (
    ConfigError,
    DigestMismatchError,
    FileTooLargeError,
    HashFSError,
    IncompleteUploadError,
    InvalidExtensionError,
    NotStoredError,
    RejectedError,
    StoreFullError,
    StoreUnavailableError,
    UnsupportedTypeError,
)
from .signals import file_damaged, file_deleted, file_rejected, file_served, file_stored

if TYPE_CHECKING:
    from ._quart.extension import QuartHashFS

__all__ = [
    "AUTO",
    "CacheStats",
    "ConfigError",
    "DigestMismatchError",
    "FileTooLargeError",
    "Finding",
    "FlaskHashFS",
    "HashAddress",
    "HashFS",
    "HashFSError",
    "IncompleteUploadError",
    "InvalidExtensionError",
    "NotStoredError",
    "QuartHashFS",
    "RejectedError",
    "StoreFullError",
    "StoreUnavailableError",
    "StoredFile",
    "UnsupportedTypeError",
    "Upload",
    "UploadStats",
    "file_damaged",
    "file_deleted",
    "file_rejected",
    "file_served",
    "file_stored",
]


def __getattr__(name: str) -> object:
    if name == "QuartHashFS":  # Flask apps need not wait for the import of Quart
        from ._quart.extension import QuartHashFS

        globals()[name] = QuartHashFS
        return QuartHashFS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
