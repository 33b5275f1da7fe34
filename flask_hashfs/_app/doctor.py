"""The diagnosis of a store: its settings, and what its backend finds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .. import _units
from .._storage.findings import Finding
from .._storage.records import Entry
from .._store.opening import is_url
from .._store.store import HashFS
from ..exceptions import HashFSError
from .config import StoreConfig, key_prefix

_SAMPLE = 1000  # stored files whose paths are looked at
_HASHED = 5  # of them that are hashed
_HASHED_SIZE = 1024 * 1024  # bytes of the largest that is hashed
_UNREACHED = {"root", "endpoint", "credentials", "list", "time limit"}
_WEAK = {"md5", "sha1"}
_IDS = re.compile(r"[0-9a-f]{32,}")
_FILES = 256  # descriptors of what an app has open beside its uploads
_FILES_OF_THREAD = 4


@dataclass(frozen=True)
class Patient:
    """What is looked at.

    Attributes:
        name: Of the store, or None.
        client: The store.
        settings: Its configuration.
        config: The app's.
        has_references: Whether anything tells what is in use.
        has_before_upload: Whether anything decides who may upload.
    """

    name: str | None
    client: HashFS
    settings: StoreConfig
    config: Mapping[str, Any]
    has_references: bool
    has_before_upload: bool

    @property
    def prefix(self) -> str:
        """What the keys of the store begin with."""
        return key_prefix(self.name)


def diagnose(patient: Patient) -> list[Finding]:
    """Return what is found; nothing is changed but a probe, which is taken away again."""
    findings = [*_settings(patient), *patient.client.backend.diagnose()]
    if not any(each.check in _UNREACHED and each.level == "error" for each in findings):
        findings += _stored(patient)
    return findings


def _settings(patient: Patient) -> Iterator[Finding]:
    yield _limit(patient)
    yield _root(patient)
    yield _algorithm(patient)
    if patient.settings.serve_files == "signed":
        yield _secret(patient)
    if patient.settings.uploads_path is not None:
        yield _before_upload(patient)
    yield _references(patient)
    yield from _open_files(patient)


def _limit(patient: Patient) -> Finding:
    check, key = "upload limit", f"{patient.prefix}MAX_FILE_SIZE"
    file, request = patient.settings.max_file_size, patient.config.get("MAX_CONTENT_LENGTH")
    if file is None and request is None:
        wanted = f"Set {key}, or MAX_CONTENT_LENGTH."
        return Finding(check, "warning", "an upload may be of any size", wanted)
    if file is not None and request is not None and request < file:
        message = f"MAX_CONTENT_LENGTH ({request}) is below {key} ({file})"
        wanted = f"Set MAX_CONTENT_LENGTH to more than {file}: a form is larger than its files."
        return Finding(check, "warning", message, wanted)
    limits = f"a file: {_limit_in_words(file)}; a request: {_limit_in_words(request)}"
    return Finding(check, "ok", limits)


def _limit_in_words(limit: int | None) -> str:
    return "no limit" if limit is None else f"{_units.size(limit)} at most"


def _root(patient: Patient) -> Finding:
    key = f"{patient.prefix}ROOT_FOLDER"
    root = os.fspath(patient.config[key])
    if is_url(root) or root.startswith("file:") or os.path.isabs(root):
        return Finding("root setting", "ok", f"{key} does not depend on the working folder")
    message = f"{key} ({root!r}) is relative, and means {patient.client.root} now"
    wanted = "Set an absolute path, or one below app.instance_path."
    return Finding("root setting", "warning", message, wanted)


def _algorithm(patient: Patient) -> Finding:
    name = patient.client.algorithm
    if name.lower().replace("-", "") in _WEAK:
        message = f"{name}: whoever uploads can make two files with one id"
        wanted = "Use sha256 for uploads of people you do not trust; `hashfs sync` moves files."
        return Finding("algorithm", "warning", message, wanted)
    return Finding("algorithm", "ok", name)


def _secret(patient: Patient) -> Finding:
    if patient.config.get("SECRET_KEY"):
        return Finding("signed URLs", "ok", "there is a SECRET_KEY")
    return Finding("signed URLs", "error", "no SECRET_KEY signs them", "Set SECRET_KEY.")


def _before_upload(patient: Patient) -> Finding:
    if patient.has_before_upload:
        return Finding("resumable uploads", "ok", "before_upload decides who may upload")
    message = "anyone who can reach the app may upload"
    wanted = "Register a function with @fs.before_upload that aborts for others."
    return Finding("resumable uploads", "warning", message, wanted)


def _references(patient: Patient) -> Finding:
    if patient.has_references:
        return Finding("references", "ok", "prune knows what is in use")
    wanted = "Register a function with @fs.references, or fs.track, or give `prune --keep-from`."
    return Finding("references", "note", "prune cannot know what is in use", wanted)


def _open_files(patient: Patient) -> Iterator[Finding]:
    try:
        import resource  # of POSIX
    except ImportError:
        return
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    uploads = patient.settings.uploads_max if patient.settings.uploads_path is not None else 0
    wanted = _FILES + _FILES_OF_THREAD * patient.settings.worker_threads + uploads
    message = f"a process may have {allowed} files open; it may need {wanted}, and its connections"
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        yield Finding(
            "open files", "warning", message, "Raise the limit: `ulimit -n`, or LimitNOFILE."
        )
    else:
        yield Finding("open files", "ok", message)


# -- what is stored ----------------------------------------------------------------------------


def _stored(patient: Patient) -> Iterator[Finding]:
    client, prefix = patient.client, patient.prefix
    try:
        entries = list(islice(client.entries(), _SAMPLE))
        hashes = _hash_some(client, entries)
    except (HashFSError, OSError) as error:
        wanted = "Mend what the findings above tell."
        yield Finding("layout", "error", f"what is stored cannot be listed: {error}", wanted)
        return
    length = len(client.computehash(b""))
    named = [_hex(entry.relpath, client) for entry in entries]
    misplaced = sum(
        entry.id is None and len(hexed) == length
        for entry, hexed in zip(entries, named, strict=True)
    )
    others = sum(bool(hexed) and len(hexed) != length for hexed in named)
    if misplaced:
        message = f"{misplaced} files lie where another depth or width would put them"
        wanted = f"Set {prefix}DEPTH and {prefix}WIDTH back, or move the files: `hashfs repair`."
        yield Finding("layout", "error", message, wanted)
    else:
        yield Finding("layout", "ok", "depth and width fit what is stored")
    if others or (hashes and not any(hashes)):
        message = f"the ids of stored files are not {client.algorithm}"
        wanted = f"Set {prefix}ALGORITHM back to what it was."
        yield Finding("stored ids", "error", message, wanted)
    else:
        yield Finding("stored ids", "ok", f"those looked at are {client.algorithm}")


def _hex(relpath: str, client: HashFS) -> str:
    """Return the id of whichever algorithm and layout that a path seems to have, or nothing."""
    found = relpath.replace(client.backend.layout.separator, "").partition(".")[0]
    return found if _IDS.fullmatch(found) else ""


def _hash_some(client: HashFS, entries: list[Entry]) -> list[bool]:
    """Return whether the ids of some small files are their hashes."""
    found = []
    for entry in entries:
        if entry.id is None or entry.size > _HASHED_SIZE:
            continue
        with client.backend.open_past_cache(entry.relpath) as file:
            found.append(client.computehash(file) == entry.id)
        if len(found) == _HASHED:
            break
    return found
