"""Sizes and counts in words."""

from __future__ import annotations

import pytest

from flask_hashfs import FileTooLargeError
from flask_hashfs._units import counted, size


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (10_001, "10,001 bytes"),
        (50_000_000, "50 MB"),
        (1_500_000, "1.5 MB"),
        (16 * 2**20, "16 MiB"),
        (2 * 10**9, "2 GB"),
        (10**13, "10,000 GB"),
    ],
)
def test_a_size_is_exact_and_short(number: int, words: str) -> None:
    assert size(number) == words


def test_a_count_fits_its_noun() -> None:
    assert [counted(n, "content") for n in (0, 1, 2)] == ["0 contents", "1 content", "2 contents"]


def test_a_limit_is_told_in_a_unit() -> None:
    assert "larger than the 50 MB allowed" in str(FileTooLargeError(50_000_000))
