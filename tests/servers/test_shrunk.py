"""A stored file that becomes shorter while it is sent never ends an answer as if it were whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers import serve

from flask_hashfs import HashFS


@pytest.mark.parametrize("kind", ["gthread:flask_app()", "uvicorn:quart_app()"])
@pytest.mark.parametrize("field", [None, "bytes=1-"])
def test_the_connection_breaks_off(kind: str, field: str | None, tmp_path: Path) -> None:
    kind, app = kind.split(":")
    address = HashFS(tmp_path).put(bytes(5_000_000))
    env = {"FLASK_HASHFS_ROOT_FOLDER": str(tmp_path), "FLASK_HASHFS_PATHSEND": "false"}
    with serve(kind, f"http_app:{app}", env=env) as server, server.connect() as client:
        headers = [] if field is None else [("Range", field)]
        with pytest.raises(AssertionError, match=r"the body ended after \d+ of [45]\d+ bytes"):
            client.request("GET", f"/shrinking/{address.id}", headers)
