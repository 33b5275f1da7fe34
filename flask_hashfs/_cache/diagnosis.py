"""The diagnosis of a cache: whether its folder can be used, and whether it gains anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from .. import _units
from .._storage import disk
from .._storage.findings import Finding
from .._storage.spool import TemporaryFolder

_OVER_NETWORK = {
    "9p", "afs", "ceph", "cifs", "fuse.ceph", "fuse.ceph-fuse", "fuse.gcsfuse", "fuse.glusterfs",
    "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3",
    "smbfs", "virtiofs",
}  # fmt: skip
_IN_MEMORY = {"ramfs", "tmpfs"}
_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Examined:
    """The cache that is looked at.

    Attributes:
        folder: Of the cache.
        size: Bytes that it may hold.
        held: Bytes that it holds.
        dmode: Mode of the folders made in it, less the umask.
        root: The folder of the store behind it, or None where that is an object store.
    """

    folder: str
    size: int
    held: int
    dmode: int
    root: str | None


def diagnose(cache: Examined) -> Iterator[Finding]:
    """Yield a finding for each check; nothing is changed but a probe, which goes again."""
    usable = _folder(cache)
    yield usable
    if usable.level == "warning":
        return
    yield _file_system(cache)
    yield _room(cache)
    if hasattr(os, "geteuid") and os.path.isdir(cache.folder):
        yield _owner(cache)


def _folder(cache: Examined) -> Finding:
    check, folder = "cache folder", cache.folder
    wanted = (
        f"Set HASHFS_CACHE_FOLDER to a folder that the user {disk.user()} can write: until then "
        "the store answers everything itself."
    )
    if not os.path.lexists(folder):
        above = disk.nearest(folder)
        if os.path.isdir(above) and disk.may(above, os.W_OK | os.X_OK):
            message = f"{folder} does not exist; the first file kept makes it"
            return Finding(check, "ok", message)
        return Finding(check, "warning", f"{folder} cannot be made in {above}", wanted)
    if not os.path.isdir(folder):
        return Finding(check, "warning", f"{folder} is not a folder", wanted)
    try:
        TemporaryFolder(folder).create(cache.dmode).close()
    except OSError as error:
        message = f"{folder} cannot be written: {error.strerror}"
        return Finding(check, "warning", message, wanted)
    return Finding(check, "ok", f"{folder} can be written")


def _file_system(cache: Examined) -> Finding:
    check, place = "cache file system", disk.nearest(cache.folder)
    kind = disk.file_system(place) or "not known"
    if _is_on_one_disk(place, cache.root):
        wanted = "Leave HASHFS_CACHE_FOLDER out, or choose a faster disk for it."
        message = "the store is on the same file system, so the cache only takes room"
        return Finding(check, "warning", message, wanted)
    if kind in _OVER_NETWORK:
        wanted = "Set HASHFS_CACHE_FOLDER to a folder on a disk of this machine."
        return Finding(check, "warning", f"{kind}: each kept file is read over the network", wanted)
    if kind in _IN_MEMORY:
        wanted = "Nothing, if HASHFS_CACHE_SIZE fits into the memory beside the app."
        message = f"{kind}: kept files take memory, and a restart of the machine drops them"
        return Finding(check, "note", message, wanted)
    return Finding(check, "ok", kind)


def _is_on_one_disk(place: str, root: str | None) -> bool:
    if root is None or not os.path.exists(root):
        return False
    return os.stat(place).st_dev == os.stat(root).st_dev


def _room(cache: Examined) -> Finding:
    check = "cache space"
    if not hasattr(os, "statvfs"):
        return Finding(check, "ok", "this system does not tell how much is free")
    state = os.statvfs(disk.nearest(cache.folder))
    free = state.f_bavail * state.f_frsize
    kept = f"{_units.about(cache.held)} of {_units.about(cache.size)} are kept"
    message = f"{kept}, and {_units.about(free)} of the disk are free"
    if cache.held + free < cache.size:
        wanted = f"Make room, or set HASHFS_CACHE_SIZE to less than {cache.held + free}."
        return Finding(check, "warning", message, wanted)
    return Finding(check, "ok", message)


def _owner(cache: Examined) -> Finding:
    """Look at who could put other bytes there than the store has."""
    check, state = "cache owner", os.stat(cache.folder)
    wanted = f"Give the folder to the user {disk.user()}, and take the right to write from others."
    if state.st_uid != os.geteuid():
        message = f"the user {state.st_uid} owns {cache.folder}, and decides what is served"
        return Finding(check, "warning", message, wanted)
    if state.st_mode & _OF_OTHERS & ~cache.dmode:
        mode = stat.S_IMODE(state.st_mode)
        message = f"others may write {cache.folder} (mode {mode:#o}), and so decide what is served"
        return Finding(check, "warning", message, wanted)
    return Finding(check, "ok", "nobody else may write it")
