"""How the body of a plan is read."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_hashfs._http.ranges import ByteRange
from flask_hashfs._http.reading import Read, Steps

DATA = bytes(range(200))

parts = st.binary(max_size=5) | st.tuples(st.integers(0, 200), st.integers(0, 200)).map(
    lambda ends: ByteRange(min(ends), max(ends))
)


def carry_out(body: tuple[bytes | ByteRange, ...], data: bytes, chunk: int) -> bytes:
    """What a sender sends that reads `chunk` bytes at once."""
    sent, file, steps = [], io.BytesIO(data), Steps(body)
    for step in steps:
        if isinstance(step, bytes):
            sent.append(step)
        else:
            file.seek(step.start)
            sent.append(file.read(min(step.size, chunk)))
            steps.took(len(sent[-1]))
    return b"".join(sent)


@given(st.lists(parts).map(tuple), st.integers(1, 64))
def test_any_body_is_sent_whole_by_reads_of_any_size(
    body: tuple[bytes | ByteRange, ...], chunk: int
) -> None:
    wanted = [
        DATA[part.start : part.stop] if isinstance(part, ByteRange) else part for part in body
    ]
    assert carry_out(body, DATA, chunk) == b"".join(wanted)


def test_a_read_says_how_much_is_left() -> None:
    steps = Steps((b"head", ByteRange(5, 12), b"tail"))
    seen = []
    for step in steps:
        seen.append(step)
        if isinstance(step, Read):
            steps.took(4 if step.start == 5 else step.size)
    assert seen == [b"head", Read(5, 7), Read(9, 3), b"tail"]


@pytest.mark.parametrize("length", [0, 4, 9])
@pytest.mark.parametrize("chunk", [1, 100])
def test_a_file_that_has_become_shorter_never_ends_as_if_whole(length: int, chunk: int) -> None:
    with pytest.raises(OSError, match="shorter than when it was opened"):
        carry_out((ByteRange(0, 10), b"tail"), DATA[:length], chunk)
