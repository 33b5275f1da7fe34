"""Hostile input to resumable uploads, and the status that it gets: in process, and from servers."""

from __future__ import annotations

from resumable_faces import DRAFT_CONTENT, TUS, TUS_CONTENT, TUS_TYPE

BAD_CREATIONS: list[tuple[str, dict[str, str], int]] = [
    ("POST", {}, 412),
    ("POST", {"Tus-Resumable": "0.9", "Upload-Length": "1"}, 412),
    ("POST", {**TUS_CONTENT, "Upload-Length": "x"}, 400),
    ("POST", {**TUS_CONTENT, "Upload-Length": "-1"}, 400),
    ("POST", {**TUS_CONTENT, "Upload-Length": "9" * 500}, 400),
    ("POST", {**TUS_CONTENT}, 400),
    ("POST", {**TUS_CONTENT, "Upload-Length": "4", "Upload-Metadata": "a b c"}, 400),
    ("POST", {**TUS_CONTENT, "Upload-Length": "3"}, 413),
    ("POST", {**TUS, "Upload-Length": "1", "Content-Type": "text/plain"}, 415),
    ("POST", {"Upload-Complete": "maybe"}, 400),
    ("POST", {"Upload-Complete": "?1", "Repr-Digest": "sha-256=:YQ==:"}, 400),
    ("POST", {"Upload-Complete": "?1", "Upload-Length": "7"}, 400),
    ("PUT", {**TUS, "Upload-Length": "1"}, 405),
    ("GET", TUS, 405),
]
"""Methods, headers and statuses of creations whose content is ``body``."""

UNKNOWN_IDS = ["x", "0" * 32, "0" * 31, "A" * 32, "..", "%00", "%2e%2e%2fx", "a" * 999]

BAD_APPENDS: list[tuple[dict[str, str], int]] = [
    ({**TUS, "Upload-Offset": "0"}, 415),
    ({**TUS, "Upload-Offset": "0", "Content-Type": "text/plain"}, 415),
    (TUS_CONTENT, 400),
    ({**TUS_CONTENT, "Upload-Offset": "0x1"}, 400),
    ({**TUS_CONTENT, "Upload-Offset": "\u00b2"}, 400),
    ({**TUS_CONTENT, "Upload-Offset": "1"}, 409),
    ({**TUS_CONTENT, "Upload-Offset": "9" * 40}, 409),
    ({**TUS_CONTENT, "Upload-Offset": "0", "Upload-Checksum": "sha1 x"}, 400),
    ({"Content-Type": TUS_TYPE, "Upload-Offset": "0"}, 412),
    ({"Upload-Offset": "0", "Upload-Complete": "?0"}, 415),
    ({**DRAFT_CONTENT, "Upload-Offset": "0"}, 400),
    ({**DRAFT_CONTENT, "Upload-Complete": "?0"}, 400),
    ({**DRAFT_CONTENT, "Upload-Complete": "?0", "Upload-Offset": "1.5"}, 400),
]
"""Headers and statuses of appends to an upload that is empty."""
