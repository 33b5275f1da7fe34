"""Upload: what the hooks of an app see of a resumable upload."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .._storage.predecessor import HashAddress
from .._storage.stored_file import StoredFile


@dataclass(slots=True)
class Upload:
    """A resumable upload, as ``before_upload`` and ``after_upload`` see it.

    Attributes:
        id: Names the upload, from its creation to the end of its record.
        action: What the request is about to do: ``create``, ``read``, ``append`` or ``delete``.
        length: Bytes of the whole, or None where the client has not said it yet.
        offset: Bytes that have arrived.
        metadata: What the client says of it, such as ``filename`` and ``filetype``: believe
            none of it.
        owner: Whose it is. Set it in ``create``; it is kept, and shown to the later hooks.
        extension: Of the stored content; set it in ``create``.
        max_size: Bytes allowed; set it in ``create``. ``HASHFS_MAX_FILE_SIZE`` holds as well.
        expected: The hex id that the whole content must have; set it in ``create``. A
            ``Repr-Digest`` of the request stands here already.
        accept: The types that the content may have; set it in ``create``.
        address: Where the content is stored; at the end.
        stored: The same with its name, type and size, for a row of a database; at the end.
    """

    id: str
    action: str
    length: int | None = None
    offset: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    owner: str | None = None
    extension: Any = None
    max_size: int | None = None
    expected: str | None = None
    accept: Any = None
    address: HashAddress | None = None
    stored: StoredFile | None = None
