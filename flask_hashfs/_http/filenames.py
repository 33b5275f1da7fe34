"""The file name that a client sends, made safe to keep and to show."""

from __future__ import annotations

import posixpath
import unicodedata

LONGEST = 255  # bytes of UTF-8, as in most file systems
_LONGEST_SUFFIX = 32  # bytes; what is longer is not an extension worth keeping
# Bidirectional controls (Unicode TR 9) make "cod.exe" look like "exe.doc".
_CONTROLS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean_filename(name: str | None) -> str | None:
    """Return the last component of a client's file name, without control characters.

    Args:
        name: As it was sent; old browsers send a whole path, with either kind of slash.

    Returns:
        A name of at most 255 bytes in UTF-8, or None where nothing but dots is left.
    """
    if not name:
        return None
    last = name.replace("\\", "/").rpartition("/")[2]
    clean = "".join(filter(_is_shown, last)).strip()
    if not clean.strip("."):
        return None
    return _shortened(clean)


def _is_shown(character: str) -> bool:
    category = unicodedata.category(character)
    return category not in ("Cc", "Cs", "Zl", "Zp") and character not in _CONTROLS


def _shortened(name: str) -> str:
    """Cut a name to the longest allowed, before its extension where it has one."""
    if len(name.encode()) <= LONGEST:
        return name
    suffix = posixpath.splitext(name)[1]
    if len(suffix.encode()) > _LONGEST_SUFFIX:
        suffix = ""
    stem = name.encode()[: LONGEST - len(suffix.encode())].decode(errors="ignore")
    return stem + suffix
