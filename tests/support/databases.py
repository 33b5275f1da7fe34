"""Databases for the tests: SQLite in a folder, and a real PostgreSQL on a socket of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = "PostgreSQL is not installed (Debian: postgresql): left out are all tests on it"


@functools.cache
def postgresql_programs() -> Path | None:
    """Return the folder of initdb and postgres, or None where they are not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    found = shutil.which("initdb")
    folders += [Path(os.path.realpath(found)).parent] if found else []
    return next((each for each in reversed(folders) if (each / "postgres").exists()), None)


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Start PostgreSQL as an unprivileged user, and return the query part of its URLs."""
    programs = postgresql_programs()
    assert programs is not None
    folder = tempfile.mkdtemp(prefix="hashfs-pg-", dir="/tmp")  # a socket's path must be short
    user = None
    if os.getuid() == 0:  # whom PostgreSQL refuses
        user = "nobody"
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    run = functools.partial(
        subprocess.run, user=user, cwd=folder, check=True, capture_output=True, text=True
    )
    data = f"{folder}/data"
    try:
        run([programs / "initdb", "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8", "-N"])
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=60"
        control = [programs / "pg_ctl", "-D", data, "-w", "-l", f"{folder}/log"]
        run([*control, "-o", options, "start"])
        try:
            # Without a password asyncpg would look for one in a file, on the event loop.
            yield f"user=tests&password=unused&host={folder}"
        finally:
            run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
