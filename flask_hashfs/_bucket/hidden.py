"""Keys that are not content: what the package itself keeps in a bucket."""

from __future__ import annotations

from .._storage import posix

HIDDEN = posix.HIDDEN + "/"
"""What all of these keys begin with."""

RENEWING = HIDDEN + "renew"
"""Folder of copies on their way to becoming young again."""

QUARANTINE = HIDDEN + "quarantine"
"""Folder of damaged objects, under the keys that they had."""

PRUNING = HIDDEN + "pruning"
"""The ids that a prune is about to delete, one a line after a first line of its own."""

PROBE = HIDDEN + "probe"
"""What a health check asks for, and the diagnosis writes and takes away."""

UPLOADS = HIDDEN + "uploads"
"""Folder of unfinished uploads, each in a folder named by its id."""

UNFINISHED = HIDDEN + "unfinished"
"""Folder of the entries of unfinished uploads, from which they are counted."""
