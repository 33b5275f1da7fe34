"""The object stores that the tests run on: obstore's memory always, S3 where there is one.

``HASHFS_TEST_S3`` is the endpoint of an S3 with a bucket named by ``HASHFS_TEST_S3_BUCKET``, or
``hashfs``; the credentials come from ``AWS_*``. ``HASHFS_TEST_S3_TLS`` is one over TLS, with the
certificate in the file ``HASHFS_TEST_S3_CERTIFICATE``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flask_hashfs import HashFS
from flask_hashfs._bucket.backend import BucketBackend
from flask_hashfs._bucket.client import Objects
from flask_hashfs._bucket.pending import BucketUploads
from flask_hashfs._store.object_store import ObjectStore

ENDPOINT = os.environ.get("HASHFS_TEST_S3")
BUCKET = os.environ.get("HASHFS_TEST_S3_BUCKET", "hashfs")
TLS_ENDPOINT = os.environ.get("HASHFS_TEST_S3_TLS")
CERTIFICATE = Path(os.environ.get("HASHFS_TEST_S3_CERTIFICATE", ""))
LEFT_OUT = "HASHFS_TEST_S3 names no endpoint: left out are all tests on a real S3"

needs_s3 = pytest.mark.skipif(not ENDPOINT, reason=LEFT_OUT)
needs_tls = pytest.mark.skipif(not TLS_ENDPOINT, reason="HASHFS_TEST_S3_TLS names no endpoint")
KINDS = ["memory", pytest.param("s3", marks=needs_s3)]


def options() -> dict[str, Any]:
    return {"endpoint": ENDPOINT}


def tls_options() -> dict[str, Any]:
    trusted = {"root_certificate": CERTIFICATE.read_bytes()}
    return {"endpoint": TLS_ENDPOINT, "client_options": trusted}


def new_url() -> str:
    """Return a URL in the bucket that nothing is below yet."""
    return f"s3://{BUCKET}/tests/{secrets.token_hex(8)}"


@contextmanager
def object_store(kind: str, **arguments: Any) -> Iterator[ObjectStore]:
    """Make an empty store, and delete what is in it at the end."""
    if kind == "memory":
        yield ObjectStore("memory://", **arguments)
        return
    given = tls_options() if kind == "tls" else options()
    store = ObjectStore(new_url(), options=given, **arguments)
    try:
        yield store
    finally:
        empty(store)


def backend_of(store: HashFS) -> BucketBackend:
    """Return the bucket that the content of `store` lies in."""
    backend = store.backend.past_cache
    assert isinstance(backend, BucketBackend)
    return backend


def objects_of(store: HashFS) -> Objects:
    """Return the client of the bucket, to look past the store and to disturb it."""
    return backend_of(store)._objects


def uploads_elsewhere(store: HashFS) -> BucketUploads:
    """Return the same uploads as another machine has them, which shares no memory with this one."""
    backend = backend_of(store)
    return BucketUploads(objects_of(store), backend.layout, "elsewhere", backend._puts.go_on)


def empty(store: ObjectStore) -> None:
    objects = objects_of(store)
    objects.delete([found.key for found in objects.list()])


def keys(store: ObjectStore) -> list[str]:
    """Return every key, hidden ones too."""
    return [found.key for found in objects_of(store).list()]
