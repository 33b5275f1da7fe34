"""The type of a content, told by its bytes alone.

The detector is pure-magic-rs (libmagic's rules in Rust), which the extra ``types`` installs. It is
imported when it is first used, so that it costs nothing where no type is ever asked for.
"""

from __future__ import annotations

import functools
import io
import os
import zipfile
from typing import TYPE_CHECKING, BinaryIO, cast

from .._http.sniffing import HEAD_SIZE, UNKNOWN, ZIP, first_bytes_type, refine, zip_type
from ..exceptions import ConfigError

if TYPE_CHECKING:
    from pure_magic_rs import MagicDb

_DIRECTORY_SIZE = 2 * 1024 * 1024  # bytes of an archive's directory; a larger one is not read

# Rules weaker than this look at two bytes, and one in a hundred files of noise fits one of them.
# Those of the types below are as short, but what they name is common, and noise is not.
_STRENGTH = 60
_SHORT = frozenset({"application/postscript", "application/x-compress", "image/jxl"})


@functools.cache
def detector() -> MagicDb:
    """Return the detector, loaded by the first call.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        from pure_magic_rs import MagicDb
    except ImportError as error:
        raise ConfigError(
            "types by content need a package that is not installed: "
            "pip install 'Flask-HashFS[types]'"
        ) from error
    return MagicDb()


def is_loaded() -> bool:
    """Tell whether `detector` returns at once, without reading from the disk."""
    return detector.cache_info().currsize > 0


def type_of_head(head: bytes) -> str:
    """Return the type that a content's beginning tells.

    Args:
        head: Its first `HEAD_SIZE` bytes, or all of it.

    Returns:
        The type; ``application/zip`` where only the whole archive tells more.

    Raises:
        ConfigError: The detector is not installed, whether it would be asked or not.
    """
    detector()
    return first_bytes_type(head) or refine(head, _detected(head))


def _detected(head: bytes) -> str:
    database = detector()
    try:
        found = database.best_magic_buffer(head)
    except ValueError:
        return UNKNOWN
    mimetype = found.mime_type
    if found.strength >= _STRENGTH or mimetype.startswith("text/") or mimetype in _SHORT:
        return mimetype
    return UNKNOWN


def type_of_file(file: BinaryIO) -> str:
    """Return the type of a seekable file's content; its position is kept."""
    position = file.tell()
    try:
        file.seek(0)
        head = _read(file, HEAD_SIZE)
        mimetype = type_of_head(head)
        return _archive_type(file) if mimetype == ZIP else mimetype
    finally:
        file.seek(position)


def _read(file: BinaryIO, size: int) -> bytes:
    """Read up to `size` bytes of a file that may give them in pieces."""
    pieces = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _archive_type(file: BinaryIO) -> str:
    try:
        with zipfile.ZipFile(cast(BinaryIO, _Bounded(file))) as archive:
            names = frozenset(archive.namelist())
            return zip_type(names, _mimetype_member(archive) if "mimetype" in names else "")
    except Exception:  # whatever a broken archive makes zipfile raise
        return ZIP


def _mimetype_member(archive: zipfile.ZipFile) -> str:
    with archive.open("mimetype") as member:
        return member.read(256).decode("ascii", "replace")


class _Bounded(io.RawIOBase):
    """A file of which nobody reads more at once than an archive's directory may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _DIRECTORY_SIZE:
            size = _DIRECTORY_SIZE + 1
        data = _read(self._file, size)
        if len(data) > _DIRECTORY_SIZE:
            raise ValueError("the archive's directory is too large to be read")
        return data
