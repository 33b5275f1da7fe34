"""The object stores that the tests run on: obstore's memory always, S3 where there is one.

``HASHFS_TEST_S3`` is the endpoint of an S3 with a bucket named by ``HASHFS_TEST_S3_BUCKET``, or
``hashfs``; the credentials come from ``AWS_*``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flask_hashfs._object_store import ObjectStore

ENDPOINT = os.environ.get("HASHFS_TEST_S3")
BUCKET = os.environ.get("HASHFS_TEST_S3_BUCKET", "hashfs")
LEFT_OUT = "HASHFS_TEST_S3 names no endpoint: left out are all tests on a real S3"

needs_s3 = pytest.mark.skipif(not ENDPOINT, reason=LEFT_OUT)
KINDS = ["memory", pytest.param("s3", marks=needs_s3)]


def options() -> dict[str, Any]:
    return {"endpoint": ENDPOINT}


def new_url() -> str:
    """Return a URL in the bucket that nothing is below yet."""
    return f"s3://{BUCKET}/tests/{secrets.token_hex(8)}"


@contextmanager
def object_store(kind: str, **arguments: Any) -> Iterator[ObjectStore]:
    """Make an empty store, and delete what is in it at the end."""
    if kind == "memory":
        yield ObjectStore("memory://", **arguments)
        return
    store = ObjectStore(new_url(), options=options(), **arguments)
    try:
        yield store
    finally:
        empty(store)


def empty(store: ObjectStore) -> None:
    store._objects.delete([found.key for found in store._objects.list()])


def keys(store: ObjectStore) -> list[str]:
    """Return every key, hidden ones too."""
    return [found.key for found in store._objects.list()]
