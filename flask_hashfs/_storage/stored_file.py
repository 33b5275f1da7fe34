"""StoredFile: what an app's database keeps of a stored file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "relpath": (str,),
    "filename": (str, type(None)),
    "content_type": (str,),
    "size": (int,),
}
_MISSING = object()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Stored content, and what the upload said of it.

    ``fs.save`` returns one. Every look-up, ``url_for`` and ``send_file`` take it, and two
    are equal when all their fields are. ``delete`` refuses it, since another row may mean
    the same content: ``prune`` deletes what no row has.

    Args:
        id: Hash of the content, in hexadecimal digits.
        relpath: Path of the content, relative to the root of its store.
        filename: Name that the upload had, without folders; None where it had none.
        content_type: Type and subtype of the content, such as ``image/png``.
        size: Length of the content in bytes.
    """

    id: str
    relpath: str
    filename: str | None
    content_type: str
    size: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> StoredFile:
        """Return the stored file that `as_dict` described.

        Args:
            fields: All five fields by name; further ones are ignored.

        Raises:
            ValueError: A field is missing, or is not of its type.
        """
        if not isinstance(fields, Mapping):
            raise ValueError(f"a stored file is a mapping of its fields, not {fields!r}")
        for name, types in _TYPES.items():
            value = fields.get(name, _MISSING)
            if not isinstance(value, types) or isinstance(value, bool):
                problem = "is missing" if value is _MISSING else f"cannot be {value!r}"
                raise ValueError(f"a stored file's {name} {problem}")
        if fields["size"] < 0:
            raise ValueError(f"a stored file's size cannot be {fields['size']!r}")
        return cls(*(fields[name] for name in _TYPES))
