"""The parameters of a header mean what they mean to Werkzeug, and there are only so many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import BadRequest
from werkzeug.http import parse_options_header

from flask_hashfs._http.parameters import MAX_ESCAPES, MAX_PARAMETERS, parse_parameters

# Older releases read escapes, unclosed quotes and what RFC 2231 adds in other ways.
IS_READ_ALIKE = parse_options_header('form-data; a*="b"; c=%22')[1] == {"a": '"b"', "c": '"'}
FRAGMENTS = [
    *("a=b", "name=", "=", ";", "; ", " ", "\t", '"', "\\", "x", "*", "*0", "*1*", "filename*="),
    *("utf-8''", "iso-8859-1'en'", "utf-16''", "%", "%C5%BC", "%4", "%22", "\x00", "\u017c", "'"),
]


@pytest.mark.skipif(not IS_READ_ALIKE, reason="this release of Werkzeug reads them otherwise")
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join))
def test_they_mean_what_they_mean_to_werkzeug(rest: str) -> None:
    header = "form-data; " + rest
    assert parse_parameters(header) == parse_options_header(header)[1]


@pytest.mark.parametrize("header", ["", "form-data", ";a=b", "form-data;", " ; a=b"])
def test_a_header_without_parameters_has_none(header: str) -> None:
    assert parse_parameters(header) == {} == parse_options_header(header)[1]


@pytest.mark.skipif(not IS_READ_ALIKE, reason="this release of Werkzeug reads them otherwise")
@pytest.mark.parametrize("value", ["é", "é%20", "%C3%A9é"])
def test_a_value_that_should_be_ascii_and_is_not_is_no_error(value: str) -> None:
    header = f"form-data; filename*0*=UTF-8''a; filename*1*=\"{value}\""
    assert parse_parameters(header) == parse_options_header(header)[1]


@pytest.mark.parametrize(
    "rest",
    [
        "; a=b" * (MAX_PARAMETERS + 1),
        ";" * 1000,
        '; a="' + "\\x" * (MAX_ESCAPES + 1) + '"',
        "; a*=utf-8''" + "%" * 1000,
    ],
)
def test_there_are_limits(rest: str) -> None:
    with pytest.raises(BadRequest, match="A part's header has"):
        parse_parameters("form-data" + rest)
