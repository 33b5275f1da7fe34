"""Content-addressed file storage for Flask and Quart."""

from hashfs import HashAddress

from ._flask import FlaskHashFS
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
from .signals import file_deleted, file_served, file_stored

__all__ = [
    "ConfigError",
    "DigestMismatchError",
    "FileTooLargeError",
    "FlaskHashFS",
    "HashAddress",
    "HashFS",
    "HashFSError",
    "IncompleteUploadError",
    "InvalidExtensionError",
    "NotStoredError",
    "file_deleted",
    "file_served",
    "file_stored",
]
