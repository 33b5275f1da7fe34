"""Apps with a cache, over every kind of store that one may stand before."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from both_apps import Site
from gate import Gate, gate
from object_stores import BUCKET, ENDPOINT, needs_s3, new_url

from flask_hashfs import HashFS
from flask_hashfs._cache.backend import CachedBackend
from flask_hashfs._cache.fills import Fill

KINDS = ["bucket", pytest.param("s3", marks=needs_s3)]
ALL_KINDS = ["memory", "folder", *KINDS]
PREFIX = "/files"
IN_MEMORY = {"root": "memory://"}
"""The settings of a store that is gone with its process."""


def config(root: str, folder: Path, **more: Any) -> dict[str, Any]:
    """Return what an app with a cache is configured with; `more` without ``HASHFS_``."""
    values = {
        "ROOT_FOLDER": root,
        "CACHE_FOLDER": str(folder),
        "SERVE_FILES": True,
        "PATH_PREFIX": PREFIX,
        **more,
    }
    return {f"HASHFS_{key}": value for key, value in values.items()}


@contextmanager
def opened_gate(kind: str) -> Iterator[tuple[Gate, dict[str, Any]]]:
    """Open a gate to an empty bucket, its own or one on the real S3, with an app's settings."""
    with gate(ENDPOINT if kind == "s3" else None) as server:
        root = new_url() if kind == "s3" else f"s3://{BUCKET}/{secrets.token_hex(8)}"
        yield server, {"root": root, "STORE_OPTIONS": server.options}


@contextmanager
def cached_root(kind: str, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Return the settings of an empty store of this kind."""
    if kind == "memory":
        yield IN_MEMORY
    elif kind == "folder":
        yield {"root": str(tmp_path / "root")}
    else:
        with opened_gate(kind) as (_, settings):
            yield settings


def site(framework: str, tmp_path: Path, settings: dict[str, Any], **more: Any) -> Site:
    """Return an app with a cache below `tmp_path`."""
    settings = {**settings, **more}
    return Site(framework, config(settings.pop("root"), tmp_path / "cache", **settings))


def kept(tmp_path: Path) -> list[str]:
    """Return the relative paths of all kept files."""
    root = tmp_path / "cache" / "files"
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    return sorted(os.path.relpath(path, root) for path in found)


def expire(tmp_path: Path, seconds: int = 1000) -> None:
    """Let so many seconds pass for every kept file since the store last had it."""
    for relpath in kept(tmp_path):
        path = tmp_path / "cache" / "files" / relpath
        state = path.stat()
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns - seconds * 1_000_000_000))


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def fills_of(store: HashFS) -> dict[Any, Fill]:
    """Return what is being fetched into the cache of `store` now."""
    return cast(CachedBackend, store.backend)._fills._fills


def wait_for_fills(store: HashFS) -> None:
    """Wait until nothing is being fetched into the cache of `store`."""
    wait_until(lambda: not fills_of(store), "the fill has ended")


def drop_all(tmp_path: Path) -> None:
    """Delete all kept files behind the cache's back."""
    for relpath in kept(tmp_path):
        (tmp_path / "cache" / "files" / relpath).unlink(missing_ok=True)
