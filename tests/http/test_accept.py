"""Lists of MIME types: how they may be written, and what they cover."""

from __future__ import annotations

from typing import Any

import pytest

from flask_hashfs._http.accept import accepted_by, covers, parse_types

DOCUMENTS = ["text/html", "image/svg+xml", "application/xml", "application/xhtml+xml", "text/xml"]


@pytest.mark.parametrize(
    ("value", "types"),
    [
        ("image/*, application/pdf", ("image/*", "application/pdf")),
        ("image/*", ("image/*",)),
        (["image/*", " Application/PDF "], ("image/*", "application/pdf")),
        (("image/*,text/plain", "text/csv"), ("image/*", "text/plain", "text/csv")),
        ({"image/jpg"}, ("image/jpeg",)),
        (iter(["text/xml", "application/xml"]), ("application/xml",)),
        ("*/*", ("*/*",)),
        ("", ()),
        ([], ()),
    ],
)
def test_a_list_is_a_string_with_commas_or_an_iterable(value: Any, types: Any) -> None:
    assert parse_types(value) == types


@pytest.mark.parametrize(
    "value",
    ["image", "image/", "*/png", "a/b/c", "image/png,", 3, b"a/b", [None], {"a/b": 1}, None],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        parse_types(value)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_wildcard_covers_what_may_carry_script(document: str) -> None:
    assert not covers(["*/*", "image/*", "text/*", "application/*"], document)
    assert covers([document], document)


def test_a_wildcard_covers_all_others_of_its_kind() -> None:
    assert covers(["image/*"], "image/png")
    assert covers(["*/*"], "application/octet-stream")
    assert not covers(["image/*"], "video/mp4")
    assert not covers([], "image/png")


def test_a_second_name_of_a_type_means_the_same() -> None:
    assert covers(["audio/x-wav"], "audio/wav")
    assert covers(["audio/wav"], "AUDIO/X-WAV; rate=1")


def test_every_list_must_allow_a_type() -> None:
    assert accepted_by([None, None], "text/html")
    assert accepted_by([None, ("image/*",), ("image/png",)], "image/png")
    assert not accepted_by([("image/*",), ("image/png",)], "image/gif")
