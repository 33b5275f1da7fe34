"""What the tests of a cache share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from both_apps import Site
from cached import site
from gate import Gate


@pytest.fixture
def gated_app(
    framework: str, tmp_path: Path, gated: tuple[Gate, dict[str, Any]]
) -> tuple[Gate, Site]:
    """Return an app with a cache before a bucket, and the gate to that bucket."""
    gate, settings = gated
    return gate, site(framework, tmp_path, settings)
