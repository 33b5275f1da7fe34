"""The draft's public kit against real servers.

The kit is the file ``scripts/rufh_conformity_test.py`` of github.com/tomdesair/tus-java-server.
``HASHFS_TEST_CONFORMITY`` names the path of a copy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import serve

KIT = os.environ.get("HASHFS_TEST_CONFORMITY")
SERVERS = {
    "gunicorn": ("gthread", "flask"),
    "gunicorn-asgi": ("gunicorn-asgi", "quart"),
    "uvicorn": ("uvicorn", "quart"),
    "hypercorn": ("hypercorn", "quart"),
    "granian": ("granian", "quart"),
}
OLDER = "bad_head_upload"
"""Names of tests of a rule that the draft has dropped: a HEAD that brings an offset got 400."""


@pytest.mark.skipif(KIT is None, reason="needs the kit, whose path HASHFS_TEST_CONFORMITY names")
@pytest.mark.parametrize("name", SERVERS)
def test_the_public_kit_of_the_draft_passes(name: str, tmp_path: Path) -> None:
    kind, framework = SERVERS[name]
    env = {
        "FLASK_HASHFS_ROOT_FOLDER": str(tmp_path / "root"),
        "FLASK_HASHFS_UPLOADS_PATH": "/uploads",
        "FLASK_HASHFS_FSYNC": "false",
        "FLASK_HASHFS_MAX_FILE_SIZE": "1024",  # so small that the kit sends more
    }
    kit = tmp_path / "rufh_conformity_test.py"
    kit.write_bytes(Path(str(KIT)).read_bytes())
    with serve(kind, f"resumable_app:{framework}_app()", env=env) as server:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", f"not {OLDER}", kit],
            cwd=tmp_path,
            env={**os.environ, "RUFH_URL": f"{server.url}/uploads"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout
    assert "47 passed" in done.stdout
