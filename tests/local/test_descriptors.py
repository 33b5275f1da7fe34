"""A process without a descriptor: idle files of uploads make room, or the answer is a 503."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import few_descriptors
import pytest

from flask_hashfs import HashFS
from flask_hashfs._local.set_aside import SetAside
from flask_hashfs._storage import descriptors, page_cache
from flask_hashfs._storage.descriptors import with_room

DONE = {"creation of a resumable upload": [201, None]}
REFUSED = {"probe": "ProbeError"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Return what has become of each call: beside idle files, without one, and afterwards."""
    words = [sys.executable, few_descriptors.__file__, str(tmp_path_factory.mktemp("few"))]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("call", few_descriptors.CALLS)
def test_idle_files_make_room_and_without_one_the_store_is_unavailable(
    call: str, outcomes: dict[str, list[Any]]
) -> None:
    is_request = call.startswith("GET") or call in DONE
    done = DONE.get(call, [200, None] if is_request else "done")
    refused = [503, "5"] if is_request else REFUSED.get(call, "StoreUnavailableError")
    assert outcomes[call] == [done, refused, done]


def test_only_as_many_files_are_closed_as_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [1, 2, 3]

    def close() -> bool:
        return bool(idle and idle.pop())

    def call(needed: int) -> str:
        if len(idle) > needed:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return "opened"

    monkeypatch.setattr(descriptors, "close_idle", [close])
    assert with_room(call, 1) == "opened"
    assert len(idle) == 1
    with pytest.raises(OSError, match="Too many open files"):
        with_room(call, -1)
    assert not idle


def test_another_error_closes_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def close() -> bool:
        raise AssertionError("it is not asked")

    monkeypatch.setattr(descriptors, "close_idle", [close])
    with pytest.raises(FileNotFoundError):
        with_room(os.open, tmp_path / "missing", os.O_RDONLY)


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux alone can be asked")
def test_what_could_not_be_looked_up_for_want_of_a_descriptor_is_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def refuse(path: str, *args: Any) -> Any:
        looked.append(path)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    monkeypatch.setattr(page_cache, "_devices", {})
    monkeypatch.setattr(page_cache, "open", refuse, raising=False)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not page_cache.reads_cached(fd, 7)
        assert not page_cache.reads_cached(fd, 7)
    finally:
        os.close(fd)
    assert len(looked) == 2


def test_what_is_set_aside_is_not_missing_for_want_of_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    store = HashFS(tmp_path / "root", fsync=False)
    address = store.put(b"content")
    SetAside.make(store.backend, address.id).move_in(address.abspath)
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            store.exists(address.id)
    assert store.exists(address.id)


@pytest.mark.parametrize("framework", ["flask", "quart"])
def test_a_first_request_for_a_resumable_upload_has_nothing_to_import(
    framework: str, tmp_path: Path
) -> None:
    program = f"""
import sys
from {framework} import {framework.title()}
from flask_hashfs import {framework.title()}HashFS
for path in (None, "/uploads"):
    app = {framework.title()}("app")
    app.config.update(HASHFS_ROOT_FOLDER={str(tmp_path)!r}, HASHFS_UPLOADS_PATH=path)
    {framework.title()}HashFS(app)
    print("flask_hashfs._{framework}.resumable" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"True"]
