from __future__ import annotations

from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_hashfs._http.urls import join, names_content, quote_path


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        ((), ""),
        (("",), ""),
        (("", ""), ""),
        (("/",), "/"),
        (("a",), "a"),
        (("//a//",), "//a//"),
        (("", "//a//", ""), "//a//"),
        (("", "/a"), "/a"),
        (("a", "/"), "a/"),
        (("/", "a"), "/a"),
        (("/", "/"), "//"),
        (("", "/a", "", "", "b"), "/a/b"),
        (("a", "b", "c"), "a/b/c"),
        (("a/b", "/c/d/", "/e/f"), "a/b/c/d/e/f"),
        (("/a/", "b/", "/c", "d", "e/"), "/a/b/c/d/e/"),
        (("/", "a", "b", "c", "1", "/"), "/a/b/c/1/"),
        (("/", "", "a/b.jpg"), "/a/b.jpg"),
        (("/", "/files", "a/b.jpg"), "/files/a/b.jpg"),
        (("/", "/files/", "/a/b.jpg"), "/files/a/b.jpg"),
        (("/", "/x//y", "a//b"), "/x//y/a//b"),
        (("http://localhost/", "/", "", "a/b"), "http://localhost/a/b"),
        (("http://localhost/", "/", "/files", "a/b"), "http://localhost/files/a/b"),
        (
            ("https://cdn.example/base", "/", "files/", "a/b/"),
            "https://cdn.example/base/files/a/b/",
        ),
    ],
)
def test_join(parts: tuple[str, ...], joined: str) -> None:
    assert join(*parts) == joined


@given(st.lists(st.text("/ab")))
def test_join_neither_loses_nor_adds_a_segment(parts: list[str]) -> None:
    def segments(text: str) -> list[str]:
        return [segment for segment in text.split("/") if segment]

    assert segments(join(*parts)) == [name for part in parts for name in segments(part)]


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        ("", ""),
        ("/files/a/b.jpg", "/files/a/b.jpg"),
        ("a b", "a%20b"),
        ("a%20b", "a%2520b"),
        ("a?b#c", "a%3Fb%23c"),
        ("caf\u00e9.txt", "caf%C3%A9.txt"),
        ("\U0001f40d", "%F0%9F%90%8D"),
        ('"<>\\^`{|}', "%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("\r\n\0", "%0D%0A%00"),
        ("-._~!$&'()*+,;=:@", "-._~!$&'()*+,;=:@"),
        ("\udcff", "%FF"),
    ],
)
def test_quote_path(path: str, quoted: str) -> None:
    assert quote_path(path) == quoted


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_quoted_path_is_a_path_and_nothing_else(path: str) -> None:
    quoted = quote_path(path)
    split = urlsplit("http://host/" + quoted)
    assert (split.path, split.query, split.fragment) == ("/" + quoted, "", "")
    assert unquote_to_bytes(quoted) == path.encode()


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/abc", True),
        ("/abc/", True),
        ("/files/abc.tar.gz/x", True),
        ("/a/b/c.txt", True),
        ("/files/a/b/c.txt", True),
        ("/a/b/c", False),
        ("/a/b/c.txt/", False),
        ("a/b/c.txt", False),
        ("/abcd", False),
        ("/ABC", False),
        ("/xabc", False),
        ("/", False),
        ("", False),
    ],
)
def test_a_path_names_a_content_by_a_segment_or_by_its_end(path: str, names: bool) -> None:
    assert names_content(path, "abc", "a/b/c.txt") is names
