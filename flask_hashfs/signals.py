"""Signals, sent with the app as sender; nothing is computed for them while nobody listens.

Each is sent with ``extension``, the `FlaskHashFS` or `QuartHashFS` it happened in, and
``address``, the `HashAddress` of the file. Under Quart receivers may be coroutines.
"""

from __future__ import annotations

from blinker import Namespace

__all__ = ["file_damaged", "file_deleted", "file_rejected", "file_served", "file_stored"]

_signals = Namespace()

file_stored = _signals.signal("hashfs-file-stored")
"""A put has returned; ``address.is_duplicate`` tells whether the content was there already."""

file_deleted = _signals.signal("hashfs-file-deleted")
"""A stored file has been deleted; not sent for one that was not stored."""

file_served = _signals.signal("hashfs-file-served")
"""A response with (a part of) the file's content begins; ``status`` is 200 or 206."""

file_rejected = _signals.signal("hashfs-file-rejected")
"""An inspector has refused a file; ``address`` is as it saw it, ``error`` what it raised."""

file_damaged = _signals.signal("hashfs-file-damaged")
"""A store with a cache has sent other bytes than were put; nobody was given all of them."""
