"""The errors this package raises, as a tree.

::

    HashFSError
      ├─ ConfigError             (ValueError)             a HASHFS_* value that cannot be used
      ├─ InvalidExtensionError   (ValueError, BadRequest) 400: an extension that is not one
      ├─ NotStoredError          (FileNotFoundError)      nothing is stored under that name
      ├─ FileTooLargeError       (RequestEntityTooLarge)  413: over max_size
      ├─ UnsupportedTypeError    (UnsupportedMediaType)   415: not one of the types accepted
      ├─ RejectedError           (UnprocessableEntity)    422: an inspector refuses it
      ├─ DigestMismatchError     (BadRequest)             400: the content has another digest
      ├─ IncompleteUploadError   (BadRequest)             400: the request's body ended early
      ├─ StoreFullError          (OSError, HTTPException) 507: the disk, or a quota, is full
      └─ StoreUnavailableError   (ServiceUnavailable)     503: the object store fails

Those with a number are HTTP errors too: left unhandled in a view they answer with that status.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    ServiceUnavailable,
    UnprocessableEntity,
    UnsupportedMediaType,
)

from . import _units

__all__ = [
    "ConfigError",
    "DigestMismatchError",
    "FileTooLargeError",
    "HashFSError",
    "IncompleteUploadError",
    "InvalidExtensionError",
    "NotStoredError",
    "RejectedError",
    "StoreFullError",
    "StoreUnavailableError",
    "UnsupportedTypeError",
]

_RETRY_AFTER = 5  # seconds


class HashFSError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(HashFSError, ValueError):
    """A configuration value cannot be used; names the key, the value and what is wanted."""


class InvalidExtensionError(HashFSError, ValueError, BadRequest):
    """The extension given to ``put`` could not be part of a stored file's name.

    It often comes from a visitor's file name, so an unhandled one is a 400.
    """

    def __init__(self, description: str) -> None:
        BadRequest.__init__(self, description)  # which ValueError would not pass on

    def __str__(self) -> str:
        return self.description or ""

    def __reduce__(self) -> tuple[type[InvalidExtensionError], tuple[str | None]]:
        return type(self), (self.description,)


class NotStoredError(HashFSError, FileNotFoundError):
    """Nothing is stored under the name asked for (``filename``); ``errno`` is ``ENOENT``."""

    def __init__(self, file: object) -> None:
        super().__init__(errno.ENOENT, os.strerror(errno.ENOENT), str(file))

    def __reduce__(self) -> tuple[type[NotStoredError], tuple[object]]:
        return type(self), (self.filename,)


class FileTooLargeError(HashFSError, RequestEntityTooLarge):
    """A file has more bytes than ``max_size`` or ``HASHFS_MAX_FILE_SIZE`` allow."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        super().__init__(f"The file is larger than the {_units.size(max_size)} allowed.")

    def __reduce__(self) -> tuple[type[FileTooLargeError], tuple[int]]:
        return type(self), (self.max_size,)


class UnsupportedTypeError(HashFSError, UnsupportedMediaType):
    """The content's type, told by its bytes, is not one of those accepted."""

    def __init__(self, mimetype: str, accepted: Iterable[str]) -> None:
        self.mimetype = mimetype
        self.accepted = tuple(accepted)
        wanted = ", ".join(self.accepted)
        super().__init__(f"The content is {mimetype}; accepted is only {wanted}.")

    def __reduce__(self) -> tuple[type[UnsupportedTypeError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.mimetype, self.accepted)


class RejectedError(HashFSError, UnprocessableEntity):
    """An inspector refuses the content; for inspectors to raise, with the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __reduce__(self) -> tuple[type[RejectedError], tuple[str]]:
        return type(self), (self.reason,)


class DigestMismatchError(HashFSError, BadRequest):
    """The content does not have the digest that was promised for it."""

    def __init__(self, expected: str, actual: str) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(f"The content's digest is {actual}, not the expected {expected}.")

    def __reduce__(self) -> tuple[type[DigestMismatchError], tuple[str, str]]:
        return type(self), (self.expected, self.actual)


class IncompleteUploadError(HashFSError, BadRequest):
    """The request's body ended, or became unreadable, before it was complete."""


class StoreFullError(HashFSError, OSError, HTTPException):
    """The disk cannot take the content: ``errno`` is ``ENOSPC``, or ``EDQUOT`` for a quota.

    Nothing is left of what was put. The error itself, with the path, is for the log: the
    response says no more than that the storage is full. Source of the status: RFC 4918, 11.5.
    """

    code = 507
    description = "The file storage is full."

    def __init__(self, errno: int, strerror: str | None, filename: str | None = None) -> None:
        HTTPException.__init__(self)
        OSError.__init__(self, errno, strerror, filename)

    def __reduce__(self) -> tuple[type[StoreFullError], tuple[object, ...]]:
        return type(self), (self.errno, self.strerror, self.filename)


class StoreUnavailableError(HashFSError, ServiceUnavailable):
    """The object store does not answer, or not as it should; ``reason`` says how.

    It is also raised where this machine has no temporary folder for a large upload.

    The reason is for the log: the response says no more than that the storage is unavailable.
    Where ``has_answered`` is True the store has answered, and refused or failed for this one file.
    """

    def __init__(self, reason: str, *, has_answered: bool = False) -> None:
        self.reason = reason
        self.has_answered = has_answered
        super().__init__("The file storage is unavailable.", retry_after=_RETRY_AFTER)

    def __str__(self) -> str:
        return f"{super().__str__()} {self.reason}"

    def __reduce__(self) -> tuple[type[StoreUnavailableError], tuple[str]]:
        return type(self), (self.reason,)
