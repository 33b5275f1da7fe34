"""What whoever writes a backend needs: the interface, and the values that cross it.

`Backend` says what a backend has to do; `flask_hashfs.testing` proves that it does.
"""

from __future__ import annotations

from ._storage.backend import Backend, Commit
from ._storage.findings import Finding
from ._storage.first_look import FirstLook
from ._storage.layout import Layout
from ._storage.names import Extension, File, names_of
from ._storage.pending import PendingUploads
from ._storage.predecessor import HashAddress
from ._storage.probe import ProbeError
from ._storage.records import Content, Damaged, Entry, InUse, Progress, Stats
from ._storage.spool import SystemSpool, TemporaryFolder
from ._storage.writer import Writer

__all__ = [
    "Backend",
    "Commit",
    "Content",
    "Damaged",
    "Entry",
    "Extension",
    "File",
    "Finding",
    "FirstLook",
    "HashAddress",
    "InUse",
    "Layout",
    "PendingUploads",
    "ProbeError",
    "Progress",
    "Stats",
    "SystemSpool",
    "TemporaryFolder",
    "Writer",
    "names_of",
]
