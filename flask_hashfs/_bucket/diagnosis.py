"""The diagnosis of a bucket: whether it is reached and may be used, and what is left over in it."""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from itertools import islice
from typing import Any

from .._storage.findings import Finding, left_over, uploads_left_over
from ..exceptions import ConfigError, HashFSError
from .client import ExistsError, Objects
from .connect import endpoint_is_plain
from .hidden import PROBE, PRUNING, QUARANTINE, RENEWING, UPLOADS

_SKEW = 300.0  # seconds; S3 refuses requests whose date is 900 away from its own
_CREDENTIALS = {
    *("access_key_id", "credential_provider"),
    *("account_key", "sas_token", "bearer_token", "client_secret", "federated_token_file"),
    *("service_account", "service_account_key", "application_credentials"),
}
_TRUE = ("1", "true", "on", "yes", "y")  # as obstore reads an option

WITHIN = 20.0
"""Seconds after which no further check begins."""

REQUEST_WITHIN = 5.0
"""Seconds that one request of a check may take."""


def diagnose(root: str, objects: Objects, options: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each check; nothing is changed but a probe, which is deleted."""
    until = time.monotonic() + WITHIN
    with contextlib.closing(
        _checks(root, objects.hurried(REQUEST_WITHIN), options, until)
    ) as findings:
        for finding in findings:
            yield finding
            if time.monotonic() > until:
                message = f"after {WITHIN:g} seconds the remaining checks are left out"
                wanted = "Look at the network and the object store: each answer takes seconds."
                yield Finding("time limit", "error", message, wanted)
                return


def _checks(
    root: str, objects: Objects, options: Mapping[str, Any], until: float
) -> Generator[Finding]:
    yield _encryption(root, options)
    yield _spool()
    reached = _reach(objects, _credentials(root, objects, options))
    yield from reached
    if any(finding.level == "error" for finding in reached):
        return
    yield _may_list(objects, until)
    key = f"{PROBE}-{secrets.token_hex(8)}"
    try:
        yield from _writing(objects, key)
    finally:
        with contextlib.suppress(HashFSError):
            objects.delete_once([key])
    yield from _left_overs(objects, until)


def _encryption(root: str, options: Mapping[str, Any]) -> Finding:
    if root.startswith("memory:"):
        wanted = "Use it in tests only."
        return Finding("TLS", "note", "the store is the memory of this process", wanted)
    if endpoint_is_plain(options):
        wanted = "Use an endpoint with https://, unless the network is your own."
        return Finding("TLS", "warning", "the endpoint is spoken to without encryption", wanted)
    return Finding("TLS", "ok", "the endpoint is spoken to with encryption")


def _spool() -> Finding:
    """Try the folder in which large uploads wait until they are sent."""
    check = "temporary folder"
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"probe")
            file.flush()
        return Finding(check, "ok", f"large uploads wait in {tempfile.gettempdir()}")
    except OSError as error:
        wanted = "Set TMPDIR to a folder that can be written, with room for large uploads."
        message = f"the folder of large uploads cannot be used: {error.strerror}"
        return Finding(check, "error", message, wanted)


def _credentials(root: str, objects: Objects, options: Mapping[str, Any]) -> str:
    """Return where the credentials come from that a request has got through with."""
    if root.startswith("memory:"):
        return "not needed"
    given = {**options, **objects.options}
    skips = given.get("skip_signature")
    if skips is None and root.startswith("s3:"):
        skips = os.environ.get("AWS_SKIP_SIGNATURE")
    if str(skips).lower() in _TRUE:
        return "not used, since skip_signature is set"
    if not _CREDENTIALS.isdisjoint(given):
        return "found in HASHFS_STORE_OPTIONS"
    return "found in the environment, or by the machine's role"


def _reach(objects: Objects, credentials: str) -> list[Finding]:
    try:
        objects.head_once(PROBE)
    except ConfigError as error:
        wanted = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or HASHFS_STORE_OPTIONS."
        return [Finding("credentials", "error", str(error), wanted)]
    except HashFSError as error:
        wanted = (
            "Look at the endpoint, the name of the bucket, the network, the credentials and what "
            "these may do."
        )
        return [Finding("endpoint", "error", str(error), wanted)]
    return [Finding("endpoint", "ok", "answers"), Finding("credentials", "ok", credentials)]


def _may_list(objects: Objects, until: float) -> Finding:
    try:
        next(iter(objects.list(until=until)), None)
    except HashFSError as error:
        wanted = "Allow ListBucket, which look-ups by id, verify and prune need."
        return Finding("list", "error", f"refused: {error}", wanted)
    return Finding("list", "ok", "allowed")


def _writing(objects: Objects, key: str) -> Iterator[Finding]:
    try:
        objects.put(key, b"probe", {}, create=True)
    except HashFSError as error:
        wanted = "Allow PutObject, unless the app only reads."
        yield Finding("put", "error", f"refused: {error}", wanted)
        return
    yield Finding("put", "ok", "allowed")
    yield _condition(objects, key)
    yield _clock(objects, key)
    try:
        objects.delete_once([key])
        remains = objects.head(key) is not None
    except HashFSError as error:
        yield Finding("delete", "error", f"refused: {error}", _DELETE)
        return
    if remains:
        yield Finding("delete", "error", "what was deleted is still there", _DELETE)
    else:
        yield Finding("delete", "ok", "allowed")


_DELETE = "Allow DeleteObject, which delete and prune need, and delete the probe in .hashfs/."


def _condition(objects: Objects, key: str) -> Finding:
    check, message = "conditional puts", "a second put to the same key replaced the first"
    wanted = "Use an object store that knows If-None-Match: two equal puts at once overwrite here."
    try:
        objects.put(key, b"other", {}, create=True)
    except ExistsError:
        return Finding(check, "ok", "honoured")
    except HashFSError as error:
        return Finding(check, "warning", f"refused: {error}", wanted)
    return Finding(check, "warning", message, wanted)


def _clock(objects: Objects, key: str) -> Finding:
    try:
        found = objects.head(key)
    except HashFSError as error:
        return Finding("clock", "error", f"not known: {error}", "Allow GetObject.")
    if found is None:
        wanted = "Use an object store that shows at once what was put."
        return Finding("clock", "error", "what was put is not there", wanted)
    skew = found.modified.timestamp() - time.time()
    message = f"the object store's is {skew:+.0f} seconds from ours"
    if abs(skew) > _SKEW:
        wanted = "Set the clock (NTP): at 15 minutes requests are refused, and prune goes by it."
        return Finding("clock", "error", message, wanted)
    return Finding("clock", "ok", message)


def _left_overs(objects: Objects, until: float) -> Iterator[Finding]:
    clear = "`hashfs verify` clears them."
    kinds = (
        ("renewals", RENEWING, clear),
        ("interrupted prunes", PRUNING, clear),
        ("quarantine", QUARANTINE, f"Put good copies again, then delete {QUARANTINE}/."),
    )
    with contextlib.suppress(HashFSError):  # told above
        for check, folder, remedy in kinds:
            found = list(islice(objects.list(folder, until=until), 10_000))
            sizes = ((each.size, each.modified.timestamp()) for each in found)
            yield left_over(check, sizes, remedy)
        uploads = list(islice(objects.list(UPLOADS, until=until), 10_000))
        yield uploads_left_over(
            (*posixpath.split(each.key), each.size, each.modified.timestamp()) for each in uploads
        )
