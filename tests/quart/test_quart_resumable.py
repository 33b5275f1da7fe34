"""Resumable uploads under Quart: what a client that goes away leaves behind, which is nothing."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from asgi import Exchange
from resumable_faces import TUS, TUS_CONTENT, QuartFace

from flask_hashfs._local.pending import LocalTaken, LocalUploads

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at /proc")


def open_below(folder: Path) -> list[str]:
    """Return the files below `folder` that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


@pytest.mark.parametrize(
    ("holder", "name", "method"),
    [
        (LocalUploads, "take", "HEAD"),
        (LocalUploads, "take", "PATCH"),
        (LocalUploads, "create", "POST"),
        (LocalTaken, "end", "PATCH"),
    ],
)
def test_a_client_that_goes_while_a_thread_works_leaves_no_descriptor(
    holder: type, name: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = QuartFace(tmp_path / "root")
    location = face.create(4)
    began, go_on = threading.Event(), threading.Event()
    real = getattr(holder, name)

    def slow(*args: Any, **more: Any) -> Any:
        result = real(*args, **more)
        began.set()
        go_on.wait(20)
        return result

    async def leave() -> None:
        path = "/uploads" if method == "POST" else location
        headers = {"POST": {**TUS, "Upload-Length": "4"}, "HEAD": TUS}.get(
            method, {**TUS_CONTENT, "Upload-Offset": "0", "Content-Length": "4"}
        )
        async with Exchange(face.app, path, method=method, headers=headers) as exchange:
            if method == "PATCH":
                await exchange.send(b"four")
            await exchange.finish()
            await asyncio.to_thread(began.wait, 20)
            await exchange.disconnect()
            await exchange.settle()
            go_on.set()

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, slow)
        asyncio.run(leave())
    assert open_below(face.root) == []
    offset = face.offset(location)  # the next request does not wait for the one that is gone
    assert offset is not None
    if name == "end":
        assert [Path(path).read_bytes() for path in face.stored()] == [b"four"]
    else:
        assert face.tus(location, offset, b"four"[offset:]).status == 204
