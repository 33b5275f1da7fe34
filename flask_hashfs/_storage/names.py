"""What a look-up and a put may be given: names, modes and extensions."""

from __future__ import annotations

import enum
import os
import re
from typing import Literal, TypeAlias

from ..exceptions import InvalidExtensionError
from .predecessor import HashAddress
from .stored_file import StoredFile

File: TypeAlias = str | os.PathLike[str] | HashAddress | StoredFile
"""What a look-up takes."""

BinaryMode: TypeAlias = Literal["rb", "br"]
TextMode: TypeAlias = Literal["r", "rt", "tr"]


class Auto(enum.Enum):
    """The type of `AUTO`."""

    AUTO = "auto"


AUTO = Auto.AUTO
"""For `put`: the extension is that of the content's type, none where that is unknown."""

Extension: TypeAlias = str | Auto | None
"""What a put takes as the extension."""

_EXTENSION = re.compile(r"\.?(?=.{1,64}\Z)(?!\.*\Z)[A-Za-z0-9._+-]+", re.ASCII)


def names_of(file: object) -> tuple[str, ...]:
    """Return the names to look for, in order.

    Args:
        file: An id, a path as str or PathLike, or what has both, for which the path comes before
            the id.

    Raises:
        TypeError: Anything else.
    """
    if isinstance(file, (HashAddress, StoredFile)):
        return file.relpath, file.id
    if isinstance(file, (str, os.PathLike)):
        name = os.fspath(file)
        if isinstance(name, str):
            return (name,)
    raise TypeError(
        "a stored file is named by a hash id, a path as str or PathLike, a HashAddress or a "
        f"StoredFile, not by {type(file).__name__}"
    )


def check_mode(mode: str) -> None:
    """Refuse a mode that is not one of reading.

    Raises:
        ValueError: It would write, or is no mode.
    """
    if mode not in ("r", "rb", "br", "rt", "tr"):
        raise ValueError(f"stored files are never changed: mode {mode!r} is not for reading")


def dotted(extension: str | None) -> str:
    """Return an extension with its dot, or nothing.

    Raises:
        InvalidExtensionError: It could not be part of a file's name.
    """
    if not extension and not isinstance(extension, bytes):
        return ""
    if not isinstance(extension, str) or _EXTENSION.fullmatch(extension) is None:
        raise InvalidExtensionError(
            f"extension {extension!r} is not 1 to 64 of the ASCII letters, digits "
            "and . _ - +, with at least one that is no dot"
        )
    return extension if extension.startswith(".") else "." + extension
