"""The diagnosis of a folder: whether and how it can be written, and what is left over in it."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from .._storage import disk, page_cache, posix
from .._storage.findings import Finding, left_over, uploads_left_over
from .._storage.full import is_full
from .._storage.spool import TEMPORARY, TemporaryFolder
from .._units import about
from .listing import QUARANTINE, files_below
from .set_aside import all_set_aside

if TYPE_CHECKING:
    from .backend import LocalBackend

LITTLE = 1024**3
"""Free bytes that a disk should have, or a twentieth of it where that is less."""

_NO_ROOM = 64 * 1024  # free bytes below which not even a small file can be relied on
_FEW_INODES = 10_000
_SLOW = 0.25  # seconds of one fsync
_SAMPLE = 200  # stored files whose modes are looked at


def diagnose(store: LocalBackend) -> Iterator[Finding]:
    """Yield a finding for each check; nothing is changed but a probe, which goes again."""
    if not os.path.lexists(store.root):
        yield _missing(store.root)
        return
    if not os.path.isdir(store.root):
        wanted = "Move it away, or set HASHFS_ROOT_FOLDER to a folder."
        yield Finding("root", "error", f"{store.root} is not a folder", wanted)
        return
    if not disk.may(store.root, os.R_OK | os.X_OK):
        wanted = f"Give it to the user {disk.user()}, or let that user list and enter it."
        yield Finding("root", "error", f"{store.root} may not be listed or entered", wanted)
        return
    yield Finding("root", "ok", f"{store.root} exists")
    yield _file_system(store.root)
    yield from _room(store.root)
    yield from _writing(store)
    yield _stored_modes(store)
    yield from _left_overs(store)


def _missing(root: str) -> Finding:
    above = disk.nearest(root)
    if os.path.isdir(above) and disk.may(above, os.W_OK | os.X_OK):
        message = f"{root} does not exist; the first put makes it"
        wanted = "Nothing, if nothing is stored yet. Otherwise mount the disk, or mend the path."
        return Finding("root", "note", message, wanted)
    message = f"{root} does not exist, and cannot be made in {above}"
    return Finding("root", "error", message, f"Make it, and give it to the user {disk.user()}.")


def _file_system(root: str) -> Finding:
    kind = disk.file_system(root)
    if kind == "tmpfs":
        wanted = "Choose a root on a disk, unless the files may be lost."
        return Finding("file system", "warning", "tmpfs: a restart loses all files", wanted)
    return Finding("file system", "ok", kind or "not known")


def _room(root: str) -> Iterator[Finding]:
    if not hasattr(os, "statvfs"):
        return
    state = os.statvfs(root)
    free, total = state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize
    message = f"{about(free)} of {about(total)} are free"
    wanted = "Make room: `hashfs prune`, or a larger disk."
    if free < _NO_ROOM:
        yield Finding("free space", "error", message, wanted)
    elif free < min(LITTLE, total // 20):
        yield Finding("free space", "warning", message, wanted)
    else:
        yield Finding("free space", "ok", message)
    if state.f_files == 0:
        yield Finding("free inodes", "ok", "this file system has no limit")
        return
    message = f"{state.f_favail} of {state.f_files} inodes are free"
    wanted = "Make room: `hashfs prune`, or a file system with more inodes."
    if state.f_favail == 0:
        yield Finding("free inodes", "error", message, wanted)
    elif state.f_favail < min(_FEW_INODES, state.f_files // 20):
        yield Finding("free inodes", "warning", message, wanted)
    else:
        yield Finding("free inodes", "ok", message)


def _writing(store: LocalBackend) -> Iterator[Finding]:
    """Try what a put does, with a probe."""
    folder = TemporaryFolder(store.root)
    try:
        file = folder.create(store.dmode)
    except OSError as error:
        yield _unwritable(store.root, error)
        return
    try:
        file.write(b"probe")
        yield Finding("write", "ok", f"the user {disk.user()} can write it")
        yield _unnamed(file.path is None)
        yield _sync(file.fd, store.fsync)
        yield _mode(file.fd, store.fmode)
        yield _cached(file.fd)
        with folder.spare_name(_make, store.dmode) as name:
            yield _case(name)
            yield _link(name)
            yield _rename(name)
    except OSError as error:
        yield _unwritable(store.root, error)
    finally:
        file.close()


def _unwritable(root: str, error: OSError) -> Finding:
    if is_full(error):
        wanted = "Make room: `hashfs prune`, or a larger disk or quota."
    elif error.errno == errno.EROFS:
        wanted = "Mount it writable; the kernel's log tells if a fault has made it read-only."
    else:
        wanted = f"Give the folder to the user {disk.user()}, or let that user write it."
    return Finding("write", "error", f"{root} cannot be written: {error.strerror}", wanted)


def _make(name: str) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | posix.BINARY, 0o600))


def _unnamed(has_them: bool) -> Finding:
    if has_them:
        return Finding("unnamed files", "ok", "uploads need no name until they are complete")
    wanted = "Nothing. What a killed process leaves behind is cleared by `hashfs verify`."
    return Finding("unnamed files", "note", "uploads lie below .hashfs/tmp at first", wanted)


def _sync(fd: int, waits: bool) -> Finding:
    if not waits:
        wanted = "Set HASHFS_FSYNC = True, unless files may be lost."
        return Finding("fsync", "note", "a power cut may take what was put last", wanted)
    begun = time.perf_counter()
    posix.sync_file(fd)
    took = time.perf_counter() - begun
    message = f"waiting for the disk takes {1000 * took:.1f} ms"
    if took > _SLOW:
        wanted = "Choose a faster disk, or put many files by `put_files`, which waits less often."
        return Finding("fsync", "warning", message, wanted)
    return Finding("fsync", "ok", message)


def _mode(fd: int, mode: int | None) -> Finding:
    if mode is None or not hasattr(os, "fchmod"):
        return Finding("new files", "ok", "are private to their owner")
    wanted = "Mount it with the modes that are wanted (file_mode and the like)."
    try:
        os.fchmod(fd, mode)
        given = stat.S_IMODE(os.fstat(fd).st_mode)
    except OSError as error:
        return Finding("new files", "warning", f"cannot be given modes: {error.strerror}", wanted)
    if given != mode:
        message = f"have the mode {given:#o} and not HASHFS_FILE_MODE, {mode:#o}"
        return Finding("new files", "warning", message, wanted)
    return Finding("new files", "ok", f"have the mode {mode:#o}")


def _cached(fd: int) -> Finding:
    check = "reads without waiting"
    if page_cache.reads_cached(fd, os.fstat(fd).st_dev):
        return Finding(check, "ok", "Quart sends what is in memory without a thread")
    message = "this system or file system does not tell what it has in memory"
    return Finding(check, "note", message, "Nothing, or a root on ext4, xfs, btrfs or f2fs.")


def _case(name: str) -> Finding:
    folder, base = os.path.split(name)
    if not os.path.lexists(os.path.join(folder, base.upper())) or base == base.upper():
        return Finding("case", "ok", "names that differ in case are different files")
    wanted = "Nothing, as long as extensions are put in one case."
    return Finding("case", "note", "names that differ only in case are one file", wanted)


def _link(name: str) -> Finding:
    try:
        os.link(name, f"{name}.link")
    except OSError as error:
        message = f"are refused ({error.strerror}): files are copied or renamed in their place"
        return Finding("hard links", "note", message, "Nothing, or a file system that has them.")
    os.unlink(f"{name}.link")
    return Finding("hard links", "ok", "work")


def _rename(name: str) -> Finding:
    try:
        os.rename(name, f"{name}.new")
        os.rename(f"{name}.new", name)
    except OSError as error:
        wanted = "Choose a file system that renames files."
        return Finding("rename", "error", f"is refused: {error.strerror}", wanted)
    return Finding("rename", "ok", "works")


def _stored_modes(store: LocalBackend) -> Finding:
    """Look at the modes and owners of some stored files."""
    odd = unreadable = 0
    mode = 0o600 if store.fmode is None else store.fmode
    for entry in islice(store.entries(), _SAMPLE):
        path = store.prefix + entry.relpath
        state = posix.lstat(path)
        if state is None or entry.id is None:
            continue
        odd += stat.S_IMODE(state.st_mode) != mode
        unreadable += not disk.may(path, os.R_OK)
    if unreadable:
        wanted = f"Give the files to the user {disk.user()}: chown -R."
        return Finding("stored files", "error", f"{unreadable} cannot be read", wanted)
    if odd:
        message = f"{odd} have another mode than HASHFS_FILE_MODE, {mode:#o}"
        return Finding("stored files", "warning", message, f"chmod them to {mode:o}.")
    return Finding("stored files", "ok", "their modes fit, and they can be read")


def _left_overs(store: LocalBackend) -> Iterator[Finding]:
    verify = "`hashfs verify` clears them once they are an hour old."
    yield left_over("temporary files", _measured(files_below(store, TEMPORARY)), verify)
    yield left_over(
        "files set aside",
        _measured(path for aside in all_set_aside(store) for path in aside.files()),
        "`hashfs verify` puts back what an interrupted prune left.",
    )
    yield left_over(
        "quarantine",
        _measured(files_below(store, QUARANTINE)),
        f"Put good copies again, then delete {os.path.join(store.root, QUARANTINE)}.",
    )
    uploads = files_below(store, os.path.join(posix.HIDDEN, "uploads"))
    yield uploads_left_over(
        (*os.path.split(path), state.st_size, state.st_mtime) for path, state in _looked_at(uploads)
    )


def _measured(paths: Iterable[str]) -> Iterator[tuple[int, float]]:
    return ((state.st_size, state.st_mtime) for _, state in _looked_at(paths))


def _looked_at(paths: Iterable[str]) -> Iterator[tuple[str, os.stat_result]]:
    for path in paths:
        state = posix.lstat(path)
        if state is not None:
            yield path, state
