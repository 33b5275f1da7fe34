"""Lists of MIME types, and what is on them; pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from .sniffing import spell

__all__ = ["TYPE_NAME", "accepted_by", "covers", "parse_types"]

TYPE_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
"""A regular expression for a type or a subtype (RFC 6838, section 4.2)."""

_TYPE_OR_WILDCARD = re.compile(rf"\*/\*|{TYPE_NAME}/(?:{TYPE_NAME}|\*)")

# Documents that may carry script, and what is not a type at all.
_NEVER_COVERED = frozenset({"html", "xml", "xsl", "xul", "", "*"})


def parse_types(value: object) -> tuple[str, ...]:
    """Return a list of MIME types and wildcards, each in its one spelling.

    Args:
        value: A string with commas between the types, or an iterable of such strings.

    Raises:
        ValueError: Anything else; its argument is what cannot be used.
    """
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, Iterable) or isinstance(given, (bytes, Mapping)):
        raise ValueError(value)
    types: list[str] = []
    for item in given:
        if not isinstance(item, str):
            raise ValueError(item)
        if not item.strip():
            continue
        for each in item.split(","):
            if _TYPE_OR_WILDCARD.fullmatch(each.strip()) is None:
                raise ValueError(each)
            types.append(spell(each))
    return tuple(dict.fromkeys(types))


def covers(types: Collection[str], mimetype: str) -> bool:
    """Tell whether a type is on a list.

    A wildcard (``image/*``, ``*/*``) covers every type of its kind except those that a browser
    renders as a document that may carry script (HTML and XML, which SVG is): they must be listed
    in full.

    Args:
        types: Types and wildcards.
        mimetype: Parameters, case and a second name do not matter.
    """
    return _covers(tuple(types), mimetype)


@lru_cache(maxsize=256)  # an app has few lists, and serves few types
def _covers(types: tuple[str, ...], mimetype: str) -> bool:
    wanted = spell(mimetype)
    listed = {spell(item) for item in types}
    if wanted in listed:
        return True
    kind, _, subtype = wanted.partition("/")
    is_covered = f"{kind}/*" in listed or "*/*" in listed
    return is_covered and subtype not in _NEVER_COVERED and not subtype.endswith("+xml")


def accepted_by(lists: Iterable[Collection[str] | None], mimetype: str) -> bool:
    """Tell whether all of the lists allow a type; None allows everything."""
    return all(types is None or covers(types, mimetype) for types in lists)
