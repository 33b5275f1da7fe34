"""The names that clients send: what is kept of them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_hashfs._http.filenames import clean_filename


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("cat.jpg", "cat.jpg"),
        ("Träume ☂.txt", "Träume ☂.txt"),
        ("C:\\Users\\ada\\cat.jpg", "cat.jpg"),
        ("../../etc/passwd", "passwd"),
        ("a/b/", None),
        ("line\r\nbreak\x00.txt", "linebreak.txt"),
        ("exe\u202ecod.txt", "execod.txt"),
        ("broken\udcff.txt", "broken.txt"),
        ("  cat.jpg  ", "cat.jpg"),
        (".htaccess", ".htaccess"),
        ("", None),
        (None, None),
        (".", None),
        ("..", None),
        ("...", None),
        ("\x00\x1f", None),
        ("a" * 300 + ".jpg", "a" * 251 + ".jpg"),
        ("a" * 300, "a" * 255),
        ("ä" * 200 + ".jpg", "ä" * 125 + ".jpg"),
        ("a." + "b" * 300, "a." + "b" * 253),
    ],
)
def test_a_name_is_kept_as_far_as_it_is_safe(sent: str | None, kept: str | None) -> None:
    assert clean_filename(sent) == kept


@given(st.text(st.characters(codec=None), max_size=400))
def test_no_name_breaks_what_it_is_put_into(sent: str) -> None:
    kept = clean_filename(sent)
    if kept is None:
        return
    assert 0 < len(kept.encode()) <= 255
    assert not set(kept) & set("/\\")
    assert not any(unicodedata.category(each) in ("Cc", "Cs") for each in kept)
    assert clean_filename(kept) == kept or len(kept.encode()) == 255
