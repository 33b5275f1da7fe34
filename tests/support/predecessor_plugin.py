"""A pytest plugin that runs the tests of hashfs 0.7.2 on this package's ``HashFS``.

Used by ``tox run -e predecessor``, which fetches those tests; they are no part of this project.
"""

from __future__ import annotations

import hashfs
import pytest

import flask_hashfs

hashfs.HashFS = flask_hashfs.HashFS

# Their tests date from a pytest that called generator fixtures so; newer ones dropped the name.
if not hasattr(pytest, "yield_fixture"):
    setattr(pytest, "yield_fixture", pytest.fixture)  # noqa: B010


def pytest_report_header() -> str:
    return f"hashfs.HashFS is {hashfs.HashFS.__module__}.{hashfs.HashFS.__qualname__}"
