"""Validators for file fields of WTForms: the type by content, and the size of each file.

Needs the extra ``wtf``. They look at what has arrived, and read none of it twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from werkzeug.datastructures import FileStorage
from wtforms import Form
from wtforms.fields import Field
from wtforms.validators import StopValidation

from ._http.accept import covers, parse_types
from ._store.types import detector, type_of_file

__all__ = ["ContentType", "MaxSize"]


class ContentType:
    """Accept only files whose bytes are of the given types.

    The name of a file and the type that the client claims are not looked at. An empty field
    passes: add ``FileRequired`` or ``InputRequired`` where a file is needed.

    Args:
        types: MIME types, ``image/*`` allowed. No wildcard covers HTML, XML or SVG.
        message: Shown when a file is of another type. ``%(type)s`` stands for its type and
            ``%(types)s`` for those that are accepted.

    Raises:
        ValueError: No type is given, or one is not written as type/subtype.
        ConfigError: The extra ``types`` is not installed.

    Example:
        ``photo = FileField(validators=[FileRequired(), ContentType("image/*")])``
    """

    def __init__(self, *types: str, message: str | None = None) -> None:
        self.types = _parsed(types)
        self.message = message
        detector()

    def __call__(self, form: Form, field: Field) -> None:
        """Raise StopValidation unless every file of the field is of an accepted type."""
        for file in _files(field):
            mimetype = type_of_file(file.stream)  # type: ignore[arg-type]
            if not covers(self.types, mimetype):
                message = self.message
                if message is None:
                    message = field.gettext(
                        "The file is of the type %(type)s. Accepted are: %(types)s."
                    )
                raise StopValidation(message % {"type": mimetype, "types": ", ".join(self.types)})


class MaxSize:
    """Accept only files of at most so many bytes each.

    ``HASHFS_MAX_FILE_SIZE`` refuses a larger file while it arrives, with 413; this validator
    is for a smaller limit of one form, and tells the user in the form.

    Args:
        size: Bytes that each file may have.
        message: Shown when a file is larger. ``%(size)d`` stands for the limit in bytes.

    Raises:
        ValueError: The size is negative.

    Example:
        ``photo = FileField(validators=[FileRequired(), MaxSize(5_000_000)])``
    """

    def __init__(self, size: int, message: str | None = None) -> None:
        if size < 0:
            raise ValueError(f"a size is a number of bytes, not {size!r}")
        self.size = size
        self.message = message

    def __call__(self, form: Form, field: Field) -> None:
        """Raise StopValidation unless every file of the field is small enough."""
        for file in _files(field):
            if _size(file.stream) > self.size:
                message = self.message
                if message is None:
                    message = field.ngettext(
                        "The file is larger than %(size)d byte.",
                        "The file is larger than %(size)d bytes.",
                        self.size,
                    )
                raise StopValidation(message % {"size": self.size})


def _parsed(types: tuple[str, ...]) -> tuple[str, ...]:
    try:
        parsed = parse_types(types)
    except ValueError as error:
        raise ValueError(
            f"{error.args[0]!r} is not a type such as 'image/png' or 'image/*'"
        ) from None
    if not parsed:
        raise ValueError("ContentType takes at least one type, such as 'image/*'")
    return parsed


def _files(field: Field) -> Iterator[FileStorage]:
    """Yield the files that were chosen: a field has one, several, or an empty one for none."""
    data: Any = field.data
    files: Iterable[Any] = data if isinstance(data, (list, tuple)) else [data]
    return (file for file in files if isinstance(file, FileStorage) and file)


def _size(stream: Any) -> int:
    """Return the length of a stream in bytes; its position is kept."""
    position = stream.tell()
    try:
        return int(stream.seek(0, os.SEEK_END))
    finally:
        stream.seek(position)
