"""The list of unfinished uploads: what a name tells, and how many more uploads there may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_hashfs._storage.pending import Record, TooManyUploadsError, UploadLimits, new_id
from flask_hashfs._storage.unfinished import CountedUploads, Entry


class Uploads(CountedUploads):
    """A list, some uploads of which have ended without having been taken off it."""

    limits = UploadLimits(most=1000)  # of which one owner may have 100

    def __init__(self, unfinished: int, owned: int, ended: int) -> None:
        owner = Entry.of(new_id(), OWNED).owner
        self.list = [Entry(new_id(), owner=owner if at < owned else "") for at in range(unfinished)]
        self.ended = [Entry(new_id(), owner=owner) for _ in range(ended)]

    def _names(self) -> list[str]:
        return [entry.name for entry in (*self.ended, *self.list)]

    def _counted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        return (entry for entry in entries if entry not in self.ended)

    create = find = take = listed = sweep = None  # type: ignore[assignment]


FREE, OWNED = Record(), Record(owner="me")


@pytest.mark.parametrize("ended", [0, 2000])
@pytest.mark.parametrize(
    ("unfinished", "owned", "record", "is_near"),
    [
        (0, 0, FREE, False),
        (935, 0, FREE, False),
        (936, 0, FREE, True),
        (999, 0, FREE, True),
        (500, 100, FREE, False),
        (500, 35, OWNED, False),
        (500, 36, OWNED, True),
        (500, 99, OWNED, True),
        (936, 0, OWNED, True),
    ],
)
def test_a_limit_is_near_when_so_few_more_reach_it(
    unfinished: int, owned: int, record: Record, is_near: bool, ended: int
) -> None:
    uploads = Uploads(unfinished, owned, ended)
    assert uploads._check_count(Entry.of(new_id(), record)) is is_near


@pytest.mark.parametrize(
    ("unfinished", "owned", "record"),
    [(1000, 0, FREE), (1001, 0, OWNED), (1000, 100, OWNED), (100, 100, OWNED)],
)
def test_one_upload_too_many_is_refused(unfinished: int, owned: int, record: Record) -> None:
    uploads = Uploads(unfinished, owned, 0)
    with pytest.raises(TooManyUploadsError):
        uploads._check_count(Entry.of(new_id(), record))


def test_an_upload_that_is_there_does_not_count_beside_itself() -> None:
    uploads = Uploads(1000, 0, 0)
    uploads._check_count_again(uploads.list[0])
    with pytest.raises(TooManyUploadsError):
        uploads._check_count_again(Entry(new_id()))


@given(
    st.uuids(),
    st.none() | st.text(st.characters()),
    st.sampled_from(["", "partial", "final;/a /b"]),
)
def test_a_name_tells_what_a_count_has_to_know(id: object, owner: str | None, parts: str) -> None:
    record = Record(owner=owner, concatenation=parts)
    entry = Entry.of(getattr(id, "hex", ""), record)
    assert Entry.read(entry.name) == entry
    assert entry.is_partial is record.is_partial
    assert bool(entry.owner) is (owner is not None)
    assert len(entry.name) < 64, "no file system finds it too long"


def test_an_owner_may_be_a_number_though_a_text_is_asked_for() -> None:
    number: Any = 42
    entry = Entry.of(new_id(), Record(owner=number))
    assert entry.owner == Entry.of(new_id(), Record(owner="42")).owner


@pytest.mark.parametrize("name", ["", "a", "0" * 32, f"{'0' * 32}-other", f"{'g' * 32}-whole"])
def test_other_names_are_none_of_an_entry(name: str) -> None:
    assert Entry.read(name) is None
