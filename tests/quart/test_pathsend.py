"""granian sends whole files by itself; a middleware that does not know of it can be spared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import servers
from quart import Quart

from flask_hashfs import HashFS, QuartHashFS

CONTENT = bytes(range(256)) * 2000


def app_with_middleware() -> Quart:
    """Make an app behind a middleware that knows two kinds of messages."""
    app = Quart(__name__)
    app.config.from_prefixed_env("FLASK")
    QuartHashFS(app)
    inner: Callable[..., Awaitable[Any]] = app.asgi_app

    async def count(scope: Any, receive: Any, send: Any) -> None:
        async def send_counted(message: Any) -> None:
            if message["type"] == "http.response.body":
                len(message["body"])
            elif message["type"] != "http.response.start":
                raise ValueError(message["type"])
            await send(message)

        await inner(scope, receive, send_counted if scope["type"] == "http" else send)

    app.asgi_app = count  # type: ignore[method-assign]
    return app


@pytest.mark.servers
@pytest.mark.parametrize(("pathsend", "status"), [("false", 200), ("true", 500)])
def test_a_middleware_that_knows_no_pathsend(tmp_path: Path, pathsend: str, status: int) -> None:
    store = HashFS(tmp_path / "store", fsync=False)
    address = store.put(CONTENT)
    environment = {
        "FLASK_HASHFS_ROOT_FOLDER": store.root,
        "FLASK_HASHFS_SERVE_FILES": "true",
        "FLASK_HASHFS_PATH_PREFIX": "/files",
        "FLASK_HASHFS_PATHSEND": pathsend,
    }
    app = "test_pathsend:app_with_middleware()"
    folder = Path(__file__).parent
    with (
        servers.serve("granian", app, env=environment, cwd=folder) as server,
        server.connect() as client,
    ):
        answer = client.request("GET", f"/files/{address.id}")
    assert answer.status == status
    assert status != 200 or answer.body == CONTENT
