"""The memory of all uploads: how it is shared, and that what is counted stays below it."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_hashfs._storage.upload_memory import BASE, MOST, Share, SmallContent, UploadMemory, share

KIB, MIB = 1024, 1024 * 1024


@pytest.mark.parametrize(
    ("size", "uploads", "expected"),
    [
        (64 * MIB, 0, 4 * MIB),
        (64 * MIB, 1, 4 * MIB),
        (64 * MIB, 16, 4 * MIB),
        (64 * MIB, 17, 64 * MIB // 17 + 64 * KIB),
        (64 * MIB, 64, 1 * MIB + 64 * KIB),
        (64 * MIB, 1024, 128 * KIB),
        (64 * MIB, 5000, 64 * KIB + 13421),
        (1 * MIB, 1, 1 * MIB + 64 * KIB),
        (0, 1, 64 * KIB),
        (0, 5000, 64 * KIB),
    ],
)
def test_each_upload_has_its_part_of_the_budget_beside_64_kib(
    size: int, uploads: int, expected: int
) -> None:
    assert share(size, uploads) == expected


@given(st.integers(0, 2**40), st.integers(1, 100_000))
def test_all_shares_together_are_the_budget_and_64_kib_each_at_most(
    size: int, uploads: int
) -> None:
    part = share(size, uploads)
    assert BASE <= part <= MOST
    assert uploads * part <= size + uploads * BASE
    assert share(size, uploads + 1) <= part <= share(size + 1, uploads)


@pytest.mark.slow
@given(
    st.integers(0, 4 * MIB),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2 * MIB), st.booleans()), max_size=60),
)
def test_what_uploads_do_that_keep_to_their_shares_never_counts_more_than_the_budget(
    size: int, steps: list[tuple[int, int, bool]]
) -> None:
    memory = UploadMemory(size)
    held = [SmallContent(memory) for _ in range(4)]
    shares: dict[int, Share] = {}
    for who, count, leaves in steps:
        if who < 4:
            held[who].release() if leaves else held[who].grow(count)
        elif leaves and who in shares:
            shares.pop(who).leave()
        else:
            upload = shares.get(who) or memory.enter(lambda: None)
            shares[who] = upload
            for each in shares.values():  # those who hold more write it to the disk
                each.hold(min(each.held, memory.limit))
            upload.hold(0)
            upload.hold(BASE if memory.is_used_up else min(count, memory.limit))
        small = sum(each.held for each in held)
        assert memory.uploads == len(shares)
        assert memory.buffered == small + sum(each.held for each in shares.values())
        assert small <= size
        assert memory.buffered - small <= size + len(shares) * BASE


def test_whoever_holds_more_than_its_share_is_told_and_shares_grow_back() -> None:
    memory, told = UploadMemory(8 * MIB), []
    large = memory.enter(lambda: told.append("large"))
    small = memory.enter(lambda: told.append("small"))
    large.hold(4 * MIB)
    small.hold(1000)
    others = [memory.enter(lambda: None) for _ in range(100)]
    assert set(told) == {"large"}
    assert len(told) < 30
    assert memory.limit < 200 * KIB
    for each in others:
        each.leave()
        each.leave()
    assert (memory.uploads, memory.limit) == (2, 4 * MIB)


def test_small_contents_hold_less_as_the_budget_runs_short() -> None:
    memory = UploadMemory(1 * MIB)
    contents = [SmallContent(memory) for _ in range(50)]
    sizes = []
    for content in contents:
        while content.grow(1 * KIB):
            pass
        sizes.append(content.held)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 200 * KIB
    assert sizes[-1] == 0
    assert memory.buffered == sum(sizes) <= 1 * MIB
    for content in contents:
        content.release()
    assert memory.buffered == 0
    assert contents[-1].grow(256 * KIB)


def test_what_is_put_beside_the_bodies_counts_but_is_no_upload() -> None:
    memory = UploadMemory(1 * MIB)
    beside = memory.enter_beside()
    beside.hold(500 * KIB)
    assert (memory.uploads, memory.buffered) == (0, 500 * KIB)
    assert memory.limit_beside == memory.limit
    beside.hold(2 * MIB)
    assert memory.limit_beside == BASE
    beside.leave()
    assert (memory.uploads, memory.buffered) == (0, 0)
    assert memory.limit_beside == memory.limit


@pytest.mark.slow
def test_what_is_forgotten_counts_no_more() -> None:
    memory = UploadMemory(1 * MIB)
    memory.enter(lambda: None).hold(500 * KIB)
    memory.enter_beside().hold(500 * KIB)
    SmallContent(memory).grow(10_000)
    gc.collect()
    assert (memory.uploads, memory.buffered) == (0, 0)
    assert SmallContent(memory).grow(256 * KIB)
