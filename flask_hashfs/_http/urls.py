"""Joining and quoting the parts of a file's URL; pure."""

from __future__ import annotations

from urllib.parse import quote

__all__ = ["join", "names_content", "quote_path"]

# What RFC 3986 allows unquoted in a path, beside letters, digits and "_.-~".
_PATH_SAFE = "/:@!$&'()*+,;="


def join(*parts: str) -> str:
    """Join parts of a URL with single slashes, exactly as Flask-HashFS 0.3.0 did.

    Empty parts are dropped and the slashes around each part collapse into one; the result starts
    (ends) with a slash when the first (last) part does. One part alone is returned unchanged.

    Args:
        parts: The parts in order; the first may be a scheme and host.

    Returns:
        The URL, not quoted.
    """
    given = [part for part in parts if part]
    if len(given) == 1:
        return given[0]
    if not given:
        return ""
    leading = "/" if given[0].startswith("/") else ""
    trailing = "/" if given[-1].endswith("/") else ""
    bare = (part.strip("/") for part in given)
    return leading + "/".join(part for part in bare if part) + trailing


def quote_path(path: str) -> str:
    """Percent-encode a path (not a whole URL) for use in a URL.

    Args:
        path: A path with ``/`` between its segments; names that the file system gave undecoded
            (surrogate escapes) become their bytes again.

    Returns:
        The path in ASCII.
    """
    return quote(path, safe=_PATH_SAFE, errors="surrogateescape")


def names_content(path: str, id: str, relpath: str) -> bool:
    """Tell whether a URL's path names a content, so that it can never mean another one.

    Args:
        path: The path of a request, decoded.
        id: The content's.
        relpath: Where it lies below the root, with ``/`` between its segments.

    Returns:
        True where a segment is the id, with or without an extension, or where the path ends with
        the relpath.
    """
    if path.endswith(f"/{relpath}"):
        return True
    return any(segment == id or segment.startswith(f"{id}.") for segment in path.split("/"))
