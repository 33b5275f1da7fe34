"""How many uploads may be unfinished: one upload too many is refused, and a near limit is told."""

from __future__ import annotations

import pytest

from flask_hashfs._storage.pending import TooManyUploadsError, UploadLimits

LIMITS = UploadLimits(most=100)  # of which one owner may have 10


@pytest.mark.parametrize(
    ("unfinished", "owned", "is_near"),
    [
        (0, None, False),
        (94, None, False),
        (95, None, True),
        (99, None, True),
        (50, 0, False),
        (50, 4, False),
        (50, 5, True),
        (50, 9, True),
        (95, 0, True),
    ],
)
def test_a_limit_is_near_when_so_few_more_reach_it(
    unfinished: int, owned: int | None, is_near: bool
) -> None:
    assert LIMITS.check_count(unfinished, owned, margin=5) is is_near


@pytest.mark.parametrize(("unfinished", "owned"), [(100, None), (101, 0), (100, 10), (10, 10)])
def test_one_upload_too_many_is_refused(unfinished: int, owned: int | None) -> None:
    with pytest.raises(TooManyUploadsError):
        LIMITS.check_count(unfinished, owned, margin=5)
