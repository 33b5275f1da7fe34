"""Checks: what a put has to pass, and in which order, before its content gets a path.

1. The extension and the form of the other arguments, before any byte is read: `before`.
2. The size, while the bytes arrive: the writer knows its limit. Content that arrived for
   another limit is measured when it is complete.
3. The expected digest, once the content is complete: `complete`.

The first check that fails is the answer, and nothing is stored. Only then does a backend see the
content.
"""

from __future__ import annotations

from .._storage.names import dotted
from .._storage.writer import Writer
from ..exceptions import DigestMismatchError, FileTooLargeError


def before(extension: str | None, expected: str | None) -> str:
    """Check what can be told before any byte is read, and return the extension with its dot.

    Raises:
        InvalidExtensionError: `extension` cannot be part of a name.
        TypeError: `expected` is not a str.
    """
    suffix = "" if extension is None else dotted(extension)
    if expected is not None and not isinstance(expected, str):
        raise TypeError(f"expected must be a hex id, not {type(expected).__name__}")
    return suffix


def complete(writer: Writer, expected: str | None, limit: int | None) -> None:
    """End the content that `writer` took, and check it.

    Args:
        writer: Of the content; it is finished here.
        expected: The hex id that the content must have, in any case, or None.
        limit: Bytes allowed, or None; the writer's own limit has held already.

    Raises:
        ValueError: The writer is closed.
        FileTooLargeError: The content has more than `limit` bytes.
        DigestMismatchError: The content is not the `expected` one.
    """
    if writer.closed:
        raise ValueError("this content was given up, or its stream closed")
    if limit is not None and writer.size > limit:
        raise FileTooLargeError(limit)
    id = writer.finish()
    if expected is not None and expected.lower() != id:
        raise DigestMismatchError(expected, id)
