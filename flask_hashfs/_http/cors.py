"""Cross-origin requests (CORS, fetch.spec.whatwg.org) to the routes of resumable uploads."""

from __future__ import annotations

from collections.abc import Sequence

from werkzeug.datastructures import Headers

_METHODS = "POST, HEAD, GET, PATCH, DELETE, OPTIONS"
_ALLOWED = (
    *("Content-Type", "Content-Disposition", "Content-Digest", "Repr-Digest", "Authorization"),
    *("Tus-Resumable", "Upload-Length", "Upload-Defer-Length", "Upload-Offset", "Upload-Metadata"),
    *("Upload-Concat", "Upload-Checksum", "Upload-Complete", "Upload-Draft-Interop-Version"),
    *("X-HTTP-Method-Override", "X-Requested-With"),
)
_EXPOSED = (
    *("Location", "Content-Location", "Repr-Digest", "Retry-After", "Accept-Patch"),
    *("Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"),
    *("Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata"),
    *("Upload-Concat", "Upload-Expires", "Upload-Complete", "Upload-Limit"),
    "Upload-Draft-Interop-Version",
)
_MAX_AGE = 86400  # seconds that a browser may remember a preflight


def cors(method: str, headers: Headers, origins: Sequence[str] | str) -> list[tuple[str, str]]:
    """Return the fields that let pages of other origins use these routes.

    Args:
        method: The request's own.
        headers: The request's.
        origins: Those that may; ``"*"`` for all, without credentials.
    """
    if not origins:
        return []
    vary = [("Vary", "Origin")]
    origin = headers.get("Origin")
    if origin is None or (origins != "*" and origin not in origins):
        return vary
    found = [*vary, ("Access-Control-Allow-Origin", "*" if origins == "*" else origin)]
    if origins != "*":
        found.append(("Access-Control-Allow-Credentials", "true"))
    if method == "OPTIONS" and "Access-Control-Request-Method" in headers:
        found += [
            ("Access-Control-Allow-Methods", _METHODS),
            ("Access-Control-Allow-Headers", _allowed(headers)),
            ("Access-Control-Max-Age", str(_MAX_AGE)),
        ]
    else:
        found.append(("Access-Control-Expose-Headers", ", ".join(_EXPOSED)))
    return found


def _allowed(headers: Headers) -> str:
    asked = headers.get("Access-Control-Request-Headers", "").split(",")
    known = {name.lower() for name in _ALLOWED}
    more = [name for each in asked if (name := each.strip()) and name.lower() not in known]
    return ", ".join((*_ALLOWED, *more))
