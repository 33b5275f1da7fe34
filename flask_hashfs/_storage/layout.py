"""Where a content lies below its root: from an id to a relative path, and back."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from os.path import splitext

_ID_OF_ANY_ALGORITHM = re.compile("[0-9a-f]{32,}")  # an app may have had another one before


@dataclass(frozen=True, slots=True)
class Layout:
    """The rule by which a store derives the path of a content from its id. It touches no disk.

    Args:
        depth: Number of nested folders a file lies in.
        width: Characters of each folder's name.
        algorithm: A name that ``hashlib.new`` takes.
        separator: What stands between two names of a path: ``os.sep`` on a disk.

    Raises:
        ValueError: An unknown algorithm, or one whose digests have no fixed length.

    ``Layout(2, 1, "md5").path_of("d41d8cd98f00b204e9800998ecf8427e", ".txt")`` is
    ``"d/4/1d8cd98f00b204e9800998ecf8427e.txt"``.
    """

    depth: int
    width: int
    algorithm: str
    separator: str = "/"
    id_length: int = field(init=False)
    """Hexadecimal digits of an id."""

    def __post_init__(self) -> None:
        length = self.new_hash().digest_size * 2
        if not length:
            raise ValueError(f"algorithm {self.algorithm!r} has no digest of a fixed length")
        object.__setattr__(self, "id_length", length)

    def new_hash(self) -> hashlib._Hash:
        """Return a new hash object of the algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def is_id(self, text: str) -> bool:
        """Tell whether `text` is an id of this algorithm."""
        return len(text) == self.id_length and not text.strip("0123456789abcdef")

    def shard(self, id: str) -> list[str]:
        """Return the names of the folders that the content `id` lies in, and of its file."""
        width, end = self.width, self.depth * self.width
        if width == 1:
            parts = list(id[:end])
        else:
            parts = [id[start : start + width] for start in range(0, end, width or 1)]
        parts.append(id[end:])
        return parts if len(id) > end else [part for part in parts if part]

    def path_of(self, id: str, suffix: str = "") -> str:
        """Return the relative path of a content.

        Args:
            id: Of the content.
            suffix: Its extension with the dot, or nothing.
        """
        return self.separator.join(self.shard(id)) + suffix

    def id_of(self, path: str) -> str | None:
        """Return the id if `path` is where some content with some extension lies, else None.

        Args:
            path: Relative to the root.
        """
        id, suffix = self._split(path)
        return id if self.is_id(id) and path == self.path_of(id, suffix) else None

    def unshard(self, path: str) -> str:
        """Return what stands for the id in the relative `path`, whether or not it can be one."""
        id, _ = self._split(path)
        return id if is_any_id(id) else splitext(path)[0].replace(self.separator, "")

    def suffix_of(self, path: str, id: str) -> str:
        """Return the extension, with its dot, of a file whose bytes have the hash `id`.

        Args:
            path: Relative to the root. An id in it ends where the extension begins: all of
                ``.tar.gz``. In any other path only the part after the last dot counts.
            id: Of the bytes, wherever they lie.
        """
        claimed, suffix = self._split(path)
        if claimed == id or self.is_id(claimed):
            return suffix
        return splitext(path.rpartition(self.separator)[2])[1]

    def _split(self, path: str) -> tuple[str, str]:
        """Return the id and the extension that a path claims; both empty if it can have none."""
        stem, dot, extension = path.partition(".")
        if self.separator in extension:  # it lies in a folder that is called like a file
            return "", ""
        return stem.replace(self.separator, ""), dot + extension


def is_any_id(text: str) -> bool:
    """Tell whether `text` can be an id of this or another algorithm."""
    return _ID_OF_ANY_ALGORITHM.fullmatch(text) is not None
