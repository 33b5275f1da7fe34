"""How long a request's body is, as its fields tell (RFC 9112, section 6.3)."""

from __future__ import annotations

from werkzeug.exceptions import BadRequest

_DIGITS = 19
"""Of the largest number of bytes that a file can have; int() refuses thousands."""


def is_coded(transfer_encoding: str | None) -> bool:
    """Tell whether Transfer-Encoding frames a body, so that Content-Length has no say."""
    return (transfer_encoding or "").strip(" \t").lower() not in ("", "identity")


def content_length(text: str | None) -> int | None:
    """Read Content-Length.

    Args:
        text: The field's value, or None.

    Returns:
        The number of bytes; None where the field is absent or empty.

    Raises:
        BadRequest: It is not a number of bytes that a file can have.
    """
    text = (text or "").strip(" \t")
    if not text:
        return None
    digits = text.lstrip("0") or "0"
    if not (text.isascii() and text.isdigit()) or len(digits) > _DIGITS:
        raise BadRequest(f"The Content-Length {text!r:.100} is not a number of bytes.")
    return int(digits)


def body_length(transfer_encoding: str | None, length: str | None, http_version: str) -> int | None:
    """Return the bytes of a body, or None where only its end tells.

    Args:
        transfer_encoding: The field's value, or None.
        length: That of Content-Length, or None.
        http_version: Such as ``1.1`` or ``2``.

    Raises:
        BadRequest: Content-Length is not a number of bytes that a file can have.
    """
    if is_coded(transfer_encoding):
        return None
    size = content_length(length)
    if size is None and http_version.startswith("1"):
        return 0  # nothing follows; later versions end a body by their own frames
    return size
