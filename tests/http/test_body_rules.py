"""A body is complete, incomplete or too large by its numbers alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import RequestEntityTooLarge

from flask_hashfs import IncompleteUploadError
from flask_hashfs._http.body_rules import BodyRules, BodyState, read_already

OPEN, COMPLETE, INCOMPLETE, TOO_LARGE = BodyState

SIZES = st.integers(0, 20)


@pytest.mark.parametrize(
    ("expected", "limit", "received", "ended", "broken", "state"),
    [
        (None, None, 0, False, False, OPEN),
        (None, None, 0, True, False, COMPLETE),
        (None, None, 7, False, True, INCOMPLETE),
        (10, None, 9, False, False, OPEN),
        (10, None, 10, False, False, OPEN),
        (10, None, 10, True, False, COMPLETE),
        (10, None, 9, True, False, INCOMPLETE),
        (10, None, 10, False, True, INCOMPLETE),
        (10, None, 11, True, False, COMPLETE),
        (10, 10, 10, True, False, COMPLETE),
        (10, 9, 0, False, False, TOO_LARGE),
        (10, 9, 3, True, False, TOO_LARGE),
        (None, 10, 10, True, False, COMPLETE),
        (None, 10, 11, False, False, TOO_LARGE),
        (None, 0, 1, False, True, TOO_LARGE),
        (0, 0, 0, True, False, COMPLETE),
    ],
)
def test_the_numbers_decide(
    expected: int | None, limit: int | None, received: int, ended: bool, broken: bool, state: object
) -> None:
    assert BodyRules(expected, limit).state(received, ended=ended, broken=broken) is state


@given(
    expected=st.none() | SIZES,
    limit=st.none() | SIZES,
    received=SIZES,
    ended=st.booleans(),
    broken=st.booleans(),
)
def test_a_check_raises_exactly_what_the_state_says(
    expected: int | None, limit: int | None, received: int, ended: bool, broken: bool
) -> None:
    rules = BodyRules(expected, limit)
    error: BaseException | None = None
    try:
        rules.check(received, ended=ended, broken=broken)
    except (RequestEntityTooLarge, IncompleteUploadError) as raised:
        error = raised
    state = rules.state(received, ended=ended, broken=broken)
    assert {TOO_LARGE: RequestEntityTooLarge, INCOMPLETE: IncompleteUploadError}.get(state) is (
        None if error is None else type(error)
    )


def test_the_errors_name_the_numbers() -> None:
    assert str(BodyRules(10, 9).too_large().description) == (
        "The request's body is larger than the 9 bytes allowed."
    )
    assert BodyRules(10).incomplete(3).description == (
        "The request's body ended after 3 of 10 bytes."
    )
    assert BodyRules().incomplete(3).description == "The request's body ended after 3 bytes."
    assert "read already" in str(read_already().description)
