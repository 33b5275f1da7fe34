"""Tokens: what they bind, how long they hold, and that nothing about them can be changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_hashfs._http.signing import (
    Grant,
    InvalidTokenError,
    expiry,
    lifetime,
    read_token,
    token,
)

KEYS = ["secret"]
PATH = "a/b/c/d/ef0123.txt"
NOW = 1_800_000_000.0
GRANT = Grant(int(NOW) + 60, "Straße 1.txt", True)
ALPHABET = "ABCabc019-_.=! \u00e9"


def is_valid(
    text: str, keys: Any = KEYS, store: str = "", path: str = PATH, now: float = NOW
) -> bool:
    try:
        read_token(keys, store, path, [text], now)
    except InvalidTokenError:
        return False
    return True


@pytest.mark.parametrize(
    "grant",
    [
        GRANT,
        Grant(GRANT.expires),
        Grant(GRANT.expires, "x" * 5000),
        Grant(GRANT.expires, None, False),
    ],
)
def test_what_was_signed_is_read(grant: Grant) -> None:
    text = token(KEYS, "avatars", PATH, grant)
    assert read_token(KEYS, "avatars", PATH, [text], NOW) == grant


def test_a_token_needs_no_quoting() -> None:
    assert set(token(KEYS, "", PATH, GRANT)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    )


@pytest.mark.parametrize("grant", [GRANT, Grant(GRANT.expires), Grant(GRANT.expires, "x" * 500)])
def test_a_token_broken_at_any_position_is_refused(grant: Grant) -> None:
    text = token(KEYS, "", PATH, grant)
    for at in range(len(text)):
        for other in ALPHABET:
            assert text[at] == other or not is_valid(text[:at] + other + text[at + 1 :])
            assert not is_valid(text[:at] + other + text[at:])
        assert not is_valid(text[:at])
        assert not is_valid(text[:at] + text[at + 1 :])
    for more in ALPHABET:
        assert not is_valid(text + more)


@given(st.text(max_size=80))
def test_any_text_may_come_as_a_token(text: str) -> None:
    assert not is_valid(text)


@pytest.mark.parametrize("tokens", [[], ["a", "b"], [""]])
def test_there_must_be_one(tokens: list[str]) -> None:
    text = token(KEYS, "", PATH, GRANT)
    for given_tokens in (tokens, [*tokens, text] if tokens else tokens):
        with pytest.raises(InvalidTokenError):
            read_token(KEYS, "", PATH, given_tokens, NOW)


def test_it_holds_for_one_path_of_one_store() -> None:
    text = token(KEYS, "", PATH, GRANT)
    assert is_valid(text)
    assert not is_valid(text, path=PATH + "x")
    assert not is_valid(text, path="/" + PATH)
    assert not is_valid(text, store="avatars")
    assert not is_valid(text, keys=["other"])
    assert not is_valid(text, keys=[])


def test_it_holds_until_its_end() -> None:
    text = token(KEYS, "", PATH, GRANT)
    assert is_valid(text, now=GRANT.expires - 0.01)
    assert not is_valid(text, now=GRANT.expires)


def test_older_keys_are_checked_but_not_signed_with() -> None:
    old, new = token(["old"], "", PATH, GRANT), token(["old", "new"], "", PATH, GRANT)
    assert is_valid(old, keys=["old", "new"])
    assert not is_valid(new, keys=["old"])
    assert new == token([b"new"], "", PATH, GRANT)


def test_a_key_that_is_taken_away_holds_no_longer_from_the_next_check_on() -> None:
    signed = token(["old"], "", PATH, GRANT)
    for _ in range(3):
        assert read_token(["old", "new"], "", PATH, [signed], 0) == GRANT
        with pytest.raises(InvalidTokenError):
            read_token(["new"], "", PATH, [signed], 0)
        assert read_token([b"old"], "", PATH, [signed], 0) == GRANT


def test_a_path_that_the_file_system_gave_undecoded_can_be_signed() -> None:
    path = b"a/\xff".decode("utf-8", "surrogateescape")
    assert is_valid(token(KEYS, "", path, GRANT), path=path)


# -- time --------------------------------------------------------------------------------------


@given(st.floats(0, 4e9), st.floats(0.001, 1e9))
def test_it_ends_no_sooner_than_asked_and_little_later(now: float, seconds: float) -> None:
    end = expiry(now, seconds)
    assert end >= now + seconds
    assert end - (now + seconds) <= max(1, seconds / 4)


def test_a_file_has_the_same_url_for_a_while() -> None:
    ends = [expiry(NOW + second, 3600) for second in range(3600)]
    assert len(set(ends)) == 5
    assert all(end % 900 == 0 for end in ends)


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [(60, 60), (timedelta(minutes=5), 300), (timedelta(milliseconds=1), 0.001)],
)
def test_expires_is_a_timedelta_or_seconds(expires: Any, seconds: float) -> None:
    assert lifetime(expires) == seconds


@pytest.mark.parametrize("expires", [0, -1, timedelta(0), timedelta(seconds=-1)])
def test_a_time_that_is_over_is_refused(expires: Any) -> None:
    with pytest.raises(ValueError, match="more than nothing"):
        lifetime(expires)


@pytest.mark.parametrize("expires", [True, 1.5, "60", None])
def test_anything_else_is_refused(expires: Any) -> None:
    with pytest.raises(TypeError, match="timedelta"):
        lifetime(expires)
