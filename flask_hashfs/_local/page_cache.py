"""Files read without waiting: those that the kernel has in memory, name and content.

A read in another thread costs an event loop many times what a small file does. Linux can be asked
for what it would not have to fetch, and says so where it would. That holds for the file systems of
the machine's own disks; a network one may ask somebody else for every file that is opened.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import stat
import sys
import threading
from collections.abc import Callable

MOST = 256 * 1024
"""Bytes that can be read at a time."""

_OPENAT2 = 437  # from 64-bit Linux 5.6 on
_MACHINES = {"aarch64", "loongarch64", "ppc64le", "riscv64", "s390x", "x86_64"}
_AT_FDCWD = -100
_NO_SYMLINKS, _CACHED = 0x04, 0x20
_LOCAL = {b"ext2", b"ext3", b"ext4", b"f2fs", b"xfs"}
_NOT_KNOWN = {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.E2BIG}  # an old kernel, or a sandbox


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _open_how() -> _OpenHow:
    names = ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")
    flags = sum(getattr(os, name, 0) for name in names)
    return _OpenHow(os.O_RDONLY | flags, 0, _NO_SYMLINKS | _CACHED)


def _find_syscall() -> Callable[..., int] | None:
    known = sys.platform == "linux" and platform.machine() in _MACHINES and sys.maxsize > 2**32
    if not known or not hasattr(os, "RWF_NOWAIT"):
        return None
    try:
        syscall: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
    except (AttributeError, OSError, TypeError):  # a static build
        return None
    return syscall


_HOW = _open_how()
_buffers = threading.local()
_syscall = _find_syscall()


@functools.cache
def is_local(device: int) -> bool:
    """Tell whether a file of a device asks nobody but this machine, and can be read on condition.

    Args:
        device: The ``st_dev`` of a file there.
    """
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return False
    return any(mount[2] == wanted and mount[mount.index(b"-") + 1] in _LOCAL for mount in mounts)


def open_cached(path: str) -> tuple[int, os.stat_result] | None:
    """Open a file to read, if that takes no waiting.

    Args:
        path: Absolute, and of a device that `is_local`; no symbolic link in it is followed.

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
    state = os.fstat(fd)
    if stat.S_ISREG(state.st_mode):
        return fd, state
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
    size = ctypes.c_size_t(ctypes.sizeof(_HOW))
    fd = _syscall(_OPENAT2, _AT_FDCWD, path, ctypes.byref(_HOW), size)
    if fd >= 0:
        return fd
    if ctypes.get_errno() in _NOT_KNOWN:
        _syscall = None
    return None
