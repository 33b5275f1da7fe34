"""The classes of hashfs 0.7.2, which has no types, as a type checker is to see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:

    class HashAddress(NamedTuple):
        """Where a content lies."""

        id: str
        """The hash of the content, in hex."""
        relpath: str
        """Its path relative to the root."""
        abspath: str
        """Its whole path, or its URL in an object store."""
        is_duplicate: bool = False
        """Whether the content was stored already when it was put."""

    class PredecessorHashFS:
        """The part of ``hashfs.HashFS`` that is inherited."""

        def computehash(self, stream: Any) -> str: ...
        def count(self) -> int: ...
        def __contains__(self, file: Any) -> bool: ...
        def __iter__(self) -> Iterator[str]: ...
        def __len__(self) -> int: ...

else:
    from hashfs import HashAddress
    from hashfs import HashFS as PredecessorHashFS

__all__ = ["HashAddress", "PredecessorHashFS"]
