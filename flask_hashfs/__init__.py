"""Content-addressed file storage for Flask and Quart."""

from hashfs import HashAddress

from ._store import HashFS
from .exceptions import (
    ConfigError,
    DigestMismatchError,
    FileTooLargeError,
    HashFSError,
    IncompleteUploadError,
    InvalidExtensionError,
    NotStoredError,
)

__all__ = [
    "ConfigError",
    "DigestMismatchError",
    "FileTooLargeError",
    "HashAddress",
    "HashFS",
    "HashFSError",
    "IncompleteUploadError",
    "InvalidExtensionError",
    "NotStoredError",
]
