"""What a row wants to know of a file that was put: its name, type and size."""

from __future__ import annotations

import os
from typing import BinaryIO, cast

from .._http.filenames import clean_filename
from .._http.media import check_mimetype, guess_mimetype
from .._storage.predecessor import HashAddress
from .._storage.stored_file import StoredFile
from .._store.store import HashFS
from .._store.types import type_of_file
from ..exceptions import ConfigError

_UNKNOWN = "application/octet-stream"


def check_save(content_type: str | None) -> None:
    """Raise what `describe` would raise, before anything is stored.

    Raises:
        ValueError: `content_type` is not type/subtype.
    """
    if content_type is not None:
        check_mimetype(content_type)


def name_of(source: object, filename: str | None) -> str | None:
    """Return the file name to keep: the one given, else the one that an upload has."""
    if filename is None:
        sent = getattr(source, "filename", None)
        filename = sent if isinstance(sent, str) else None
    return clean_filename(filename)


def describe(
    client: HashFS, address: HashAddress, filename: str | None, content_type: str | None
) -> StoredFile:
    """Return what a row keeps of stored content.

    Args:
        client: Its store.
        address: Where it lies.
        filename: The name to keep.
        content_type: Told by the bytes if None, or by the names without the extra ``types``.
    """
    with client.open(address) as file:
        size = file.seek(0, os.SEEK_END)
        if content_type is None:
            content_type = type_of_put(cast(BinaryIO, file), filename, address)
    return StoredFile(address.id, address.relpath, filename, content_type, size)


def type_of_put(file: BinaryIO, filename: str | None, address: HashAddress) -> str:
    """Return the type of content by its bytes, or by the names without the extra ``types``."""
    try:
        return type_of_file(file)
    except ConfigError:  # the detector is not installed
        by_path = guess_mimetype(address.relpath)
        return guess_mimetype(filename) if filename and by_path == _UNKNOWN else by_path
