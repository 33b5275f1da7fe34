"""File systems that lack what a store would like, mounted for real; only root can."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SFTP = "/usr/lib/openssh/sftp-server"


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory with `options` of tmpfs, so that a test can fill it."""
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip("a small file system can only be mounted by root: no disk is filled")
    try:
        yield folder
    finally:  # lazily, since a failed test may hold a file
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def sshfs(served: Path, folder: Path) -> Iterator[Path]:
    """Mount a folder over SFTP without hard links, and without a network in between."""
    _need("sshfs", _SFTP)
    ours, theirs = socket.socketpair()
    words = ["sshfs", "-f", "-o", "passive,disable_hardlink", f":{served}", str(folder)]
    with ours, theirs:
        server = subprocess.Popen([_SFTP], stdin=theirs.fileno(), stdout=theirs.fileno())
        client = subprocess.Popen(
            words, stdin=ours.fileno(), stdout=ours.fileno(), stderr=subprocess.PIPE
        )
    with server, client:
        try:
            until = time.monotonic() + 30
            while not os.path.ismount(folder):
                if time.monotonic() > until:
                    pytest.skip("SFTP cannot be mounted here within 30 seconds")
                if client.poll() is not None:
                    assert client.stderr is not None
                    pytest.skip(f"SFTP cannot be mounted here: {client.stderr.read().decode()}")
                time.sleep(0.01)
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)
            client.terminate()
            server.terminate()


@contextmanager
def exfat(image: Path, folder: Path) -> Iterator[Path]:
    """Make and mount an exFAT file system, as memory cards have it."""
    _need("mkfs.exfat", "mount.exfat-fuse", "losetup")
    with image.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"an exFAT file system cannot be mounted here: {made.stderr}")
    device = made.stdout.strip()
    try:
        done = subprocess.run(["mount.exfat-fuse", device, folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"an exFAT file system cannot be mounted here: {done.stderr}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)


def _need(*programs: str) -> None:
    missing = [each for each in programs if not shutil.which(each)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"no odd file system is mounted: that takes root, and {', '.join(programs)}")
