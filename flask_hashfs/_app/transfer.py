"""Copying one store's content into another."""

from __future__ import annotations

import enum
from collections.abc import Generator
from dataclasses import dataclass

from werkzeug.exceptions import HTTPException

from .._storage.parallel import THREADS, in_threads
from .._storage.records import Entry
from .._store.store import HashFS
from ..exceptions import (
    ConfigError,
    DigestMismatchError,
    InvalidExtensionError,
    StoreUnavailableError,
)


class Outcome(enum.Enum):
    """What became of one file."""

    COPIED = "copied"
    THERE = "already there"
    DAMAGED = "damaged"
    GONE = "gone meanwhile"
    REFUSED = "refused"
    STRAY = "no content"


@dataclass(frozen=True, slots=True)
class Step:
    """One file of the source, and what became of it."""

    entry: Entry
    outcome: Outcome
    reason: str = ""


def sync(source: HashFS, target: HashFS, threads: int = THREADS) -> Generator[Step]:
    """Copy every content of `source` that `target` lacks, under all its names.

    Every content is hashed on its way, so that nothing damaged arrives. Begun again, it goes on
    where it stood: what is there, with the same size, is not read.

    Args:
        source: Stays as it is.
        target: May have another layout, but not another algorithm.
        threads: How many files are copied at once.

    Yields:
        What became of each file, stray files included.

    Raises:
        ConfigError: The two stores know their content by different hashes.
    """
    if source.algorithm != target.algorithm:
        raise ConfigError(
            f"content known by its {source.algorithm} cannot be copied into a store "
            f"that knows its own by {target.algorithm}"
        )

    def copy(entry: Entry) -> Step:
        return _copy(source, target, entry)

    for _, step in in_threads(copy, source.entries(), threads):
        yield step


def _copy(source: HashFS, target: HashFS, entry: Entry) -> Step:
    if entry.id is None:
        return Step(entry, Outcome.STRAY)
    suffix = source.backend.layout.suffix_of(entry.relpath, entry.id)
    name = target.relpath(target.idpath(entry.id, suffix))
    if _size(target, name) == entry.size:
        return Step(entry, Outcome.THERE)
    try:
        with source.backend.open_past_cache(entry.relpath) as file:
            target.put(file, suffix, expected=entry.id)
    except FileNotFoundError:
        return Step(entry, Outcome.GONE)
    except DigestMismatchError as error:
        return Step(entry, Outcome.DAMAGED, error.description or "")
    except InvalidExtensionError as error:
        return Step(entry, Outcome.REFUSED, str(error))
    except HTTPException as error:
        if isinstance(error, StoreUnavailableError) or (error.code or 500) >= 500:
            raise
        return Step(entry, Outcome.REFUSED, error.description or "")
    return Step(entry, Outcome.COPIED)


def _size(store: HashFS, relpath: str) -> int | None:
    content = store.backend.past_cache.open_content(relpath, read=False)
    return None if content is None else content.size
