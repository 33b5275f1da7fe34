"""Batches: what a worker thread gets in one block."""

from __future__ import annotations

import pytest

from flask_hashfs._quart.batch import BATCH, Batch

KIB = 1024


@pytest.mark.parametrize(
    ("pieces", "sizes"),
    [
        ([], []),
        ([100], [100]),
        ([64 * KIB] * 8, [512 * KIB]),
        ([64 * KIB] * 10, [640 * KIB]),  # a rest of 128 KiB is taken along
        ([64 * KIB] * 11, [512 * KIB, 192 * KIB]),
        ([65_000] * 16 + [8_576], [520_000, 528_576]),  # 1 MiB as a server cuts it: two, not three
        ([2 * BATCH, 100], [2 * BATCH, 100]),
    ],
)
def test_a_little_rest_is_no_block_of_its_own(pieces: list[int], sizes: list[int]) -> None:
    batch, content = Batch(), b""
    for number, size in enumerate(pieces):
        piece = bytes([number]) * size
        batch.append(piece)
        content += piece
    blocks = list(batch.blocks())
    assert [len(block) for block in blocks] == sizes
    assert b"".join(blocks) == content
    assert batch.size == 0
