"""Files read without waiting: those that the kernel has in memory, name and content.

A read in another thread costs an event loop many times what a small file does. Linux can be asked
for what it would not have to fetch, and says so where it would. That holds for the file systems of
the machine's own disks; a network one may ask somebody else for every file that is opened.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from .full import lacks_descriptor

if sys.platform == "linux":
    import fcntl

MOST = 256 * 1024
"""Bytes that can be read at a time."""

_OPENAT2 = 437  # from 64-bit Linux 5.6 on
_MACHINES = {"aarch64", "loongarch64", "ppc64le", "riscv64", "s390x", "x86_64"}
_AT_FDCWD = -100
_NO_SYMLINKS, _CACHED = 0x04, 0x20
_LOCAL = {b"btrfs", b"ext2", b"ext3", b"ext4", b"f2fs", b"xfs"}
"""File systems that ask nobody but this machine for a file, and tell what they have in memory.

tmpfs, overlayfs and zfs refuse to be asked (ENOTSUP), so they are read in worker threads.
"""

_NOATIME = getattr(os, "O_NOATIME", 0)
"""Keeps a read from renewing the date of access, which may wait for the disk."""

_NOT_KNOWN = {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.E2BIG}  # an old kernel, or a sandbox


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _open_how(noatime: int) -> _OpenHow:
    names = ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")
    flags = sum(getattr(os, name, 0) for name in names)
    return _OpenHow(os.O_RDONLY | flags | noatime, 0, _NO_SYMLINKS | _CACHED)


def _find_syscall() -> Callable[..., int] | None:
    known = sys.platform == "linux" and platform.machine() in _MACHINES and sys.maxsize > 2**32
    if not known or not hasattr(os, "RWF_NOWAIT"):
        return None
    try:
        syscall: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
    except (AttributeError, OSError, TypeError):  # a static build
        return None
    return syscall


_HOWS = [_open_how(_NOATIME), _open_how(0)]
_SIZE = ctypes.c_size_t(ctypes.sizeof(_OpenHow))
_devices: dict[int, bool] = {}
_buffers = threading.local()
_syscall = _find_syscall()


def reads_cached(fd: int, device: int) -> bool:
    """Tell whether an open file can be read on the condition that nothing has to be fetched.

    Where it can, its date of access is left alone from now on, if this process may ask for that.

    Args:
        fd: Of a regular file.
        device: Its ``st_dev``.
    """
    is_local = _devices.get(device)
    if is_local is None:
        try:
            is_local = _devices[device] = _is_local(fd)
        except OSError:  # out of descriptors: the next file is looked at again
            is_local = False
    if is_local and sys.platform == "linux":
        with suppress(OSError):  # a file of somebody else's
            fcntl.fcntl(fd, fcntl.F_SETFL, _NOATIME)
    return is_local


def _is_local(fd: int) -> bool:
    """Look up the file system of an open file (not by its device: btrfs has one per subvolume)."""
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            mount_id = next(line.split()[1] for line in file if line.startswith(b"mnt_id:"))
        with open("/proc/self/mountinfo", "rb") as file:
            mount = next(fields for line in file if (fields := line.split())[0] == mount_id)
    except StopIteration:
        return False
    except OSError as error:
        if lacks_descriptor(error):
            raise
        return False
    return mount[mount.index(b"-") + 1] in _LOCAL


def open_cached(path: str) -> tuple[int, os.stat_result] | None:
    """Open a file to read, if that takes no waiting.

    Args:
        path: Absolute; no symbolic link in it is followed.

    Returns:
        The descriptor with the file's state; None where the way to it is not in memory, where it
        is no regular file or not there, or where the system cannot tell.
    """
    try:
        fd = _open(os.fsencode(path))
    except ValueError:  # a lone surrogate
        return None
    if fd is None:
        return None
    try:
        state = os.fstat(fd)
        if stat.S_ISREG(state.st_mode):
            return fd, state
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def read_cached(fd: int, start: int, size: int) -> bytes | None:
    """Return `size` bytes of a file from `start` on, or None where some would have to be fetched.

    Args:
        size: Bytes, at most `MOST`.
    """
    buffer = getattr(_buffers, "view", None)
    if buffer is None:  # a fresh one each time would be faulted in by the page
        buffer = _buffers.view = memoryview(bytearray(MOST))
    try:
        count = os.preadv(fd, [buffer[:size]], start, os.RWF_NOWAIT) if size else 0
    except OSError:  # not in memory, or a file system that cannot tell
        return None
    return bytes(buffer[:size]) if count == size else None


def _open(path: bytes) -> int | None:
    global _syscall
    if _syscall is None or b"\0" in path:
        return None
    for how in _HOWS:
        fd = _syscall(_OPENAT2, _AT_FDCWD, path, ctypes.byref(how), _SIZE)
        if fd >= 0:
            return fd
        if ctypes.get_errno() != errno.EPERM:  # that is how O_NOATIME on another's file is refused
            break
    if ctypes.get_errno() in _NOT_KNOWN:
        _syscall = None
    return None
