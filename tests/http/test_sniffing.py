"""What is markup, how each type is spelled, and what text is: tables over the pure part."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_hashfs._http.media import extension_of, guess_mimetype
from flask_hashfs._http.sniffing import (
    HEAD_SIZE,
    UNKNOWN,
    ZIP,
    ZIP_TYPES,
    markup_type,
    refine,
    spell,
    zip_type,
)

HTML, SVG, XML = "text/html", "image/svg+xml", "application/xml"
NAMESPACE = b' xmlns="http://www.w3.org/2000/svg"'

MARKUP = [
    (b"<!DOCTYPE html><p>", HTML),
    (b"<!doctype HTML PUBLIC '-//W3C//DTD HTML 4.01//EN'>", HTML),
    (b"<html>", HTML),
    (b"<HTML lang=en>", HTML),
    (b" \t\r\n\f<script>alert(1)</script>", HTML),
    (b"<script\nsrc=x>", HTML),
    (b"<script/src=x>", HTML),
    (b"<iframe src=x>", HTML),
    (b"<img src=x onerror=alert(1)>", HTML),
    (b"<b", HTML),
    (b"<!-- a comment", HTML),
    (b"<!-- a --> text", HTML),
    (b"<!--><script>alert(1)</script>", HTML),
    (b"<!---><script>alert(1)</script>", HTML),
    (b"<!-- a --!><script>alert(1)</script>", HTML),
    (b"\xef\xbb\xbf<html>", HTML),
    (b"\xef\xbb\xbf \n<!-- a -->\n<!-- b --><html>", HTML),
    (b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'>", HTML),
    (b"<?xml version='1.0'?><!DOCTYPE html><html>", HTML),
    (b"<x:html xmlns:x='http://www.w3.org/1999/xhtml'>", HTML),
    (b"<?php ?><script>alert(1)</script>", HTML),
    (b"<svg" + NAMESPACE + b"/>", SVG),
    (b"<svg onload=alert(1)>", SVG),
    (b"<!-- " + b"x" * 3000 + b" --><svg" + NAMESPACE + b">", SVG),
    (b"<!-- a -->" * 4000 + b"<svg>", SVG),
    (b"<?xml version='1.0' encoding='utf-8'?>\n<svg" + NAMESPACE + b">", SVG),
    (b"<?xml version='1.0'?><?xml-stylesheet href='a'?><!-- a --><svg>", SVG),
    (b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'a>b'><svg>", SVG),
    (b"<!DOCTYPE svg [<!ENTITY a '>'> ]><svg>", SVG),
    (b"<x:svg xmlns:x='http://www.w3.org/2000/svg'>", SVG),
    (b"<?xml version='1.0'?><rss>", XML),
    (b"<?xml version='1.0'?>", XML),
    (b"<?xml version='1.0'", XML),
    (b"<?XML version='1.0'?><script>", XML),
    (b"<!DOCTYPE note SYSTEM 'a.dtd'><note>", XML),
    (b"<!DOCTYPE note [<!ENTITY a ']>'>", XML),
    (b"<feed xmlns='http://www.w3.org/2005/Atom'>", XML),
    (b"<a:b xmlns:a='urn:a'>", XML),
]

NO_MARKUP = [
    b"",
    b"<",
    b"< script>",
    b"<3 you",
    b"<a@example.com> wrote",
    b"<scripted>",
    b"<unknown>",
    b"text <script>alert(1)</script>",
    b"<?php echo 1;",
    b"GIF89a<script>alert(1)</script>",
    b"%PDF-1.4<script>",
    b"\x89PNG\r\n\x1a\n<svg>",
]


@pytest.mark.parametrize(("head", "mimetype"), MARKUP)
def test_what_a_browser_could_run_is_markup_whatever_stands_before_it(
    head: bytes, mimetype: str
) -> None:
    assert markup_type(head) == mimetype
    assert refine(head, "image/png") == mimetype


@pytest.mark.parametrize(("head", "mimetype"), MARKUP)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_markup_in_utf_16_is_markup_with_and_without_its_mark(
    head: bytes, mimetype: str, encoding: str
) -> None:
    text = head.removeprefix(b"\xef\xbb\xbf").decode()
    assert markup_type(text.encode(encoding)) == mimetype


@pytest.mark.parametrize("head", NO_MARKUP)
def test_what_only_resembles_markup_is_none(head: bytes) -> None:
    assert markup_type(head) is None


@given(st.binary(max_size=200), st.sampled_from([b"", b"<", b"<!--", b"<?xml", b"<!doctype a"]))
def test_any_bytes_can_be_looked_at(data: bytes, start: bytes) -> None:
    assert markup_type(start + data) in {None, HTML, SVG, XML}
    assert "/" in refine(start + data, UNKNOWN)


SLOW = [b"<!--", b"<!-- -->", b"<?a ", b"<?a>", b"<!doctype a '", b"<!doctype a '' ", b"<a ", b" "]


@pytest.mark.slow
@pytest.mark.parametrize("piece", SLOW)
def test_a_head_full_of_beginnings_is_looked_at_in_one_go(piece: bytes) -> None:
    """The step count of these is linear: were it quadratic, this would run for minutes."""
    head = (piece * HEAD_SIZE)[:HEAD_SIZE]
    for _ in range(20):
        markup_type(head)


# -- one spelling ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_type", "spelled"),
    [
        ("text/xml", XML),
        ("Image/PNG", "image/png"),
        ("text/plain; charset=utf-8", "text/plain"),
        (" image/jpg ", "image/jpeg"),
        ("audio/x-wav", "audio/wav"),
        ("image/x-icon", "image/vnd.microsoft.icon"),
        ("application/x-zip-compressed", "application/zip"),
        ("video/MP2T", "video/mp2t"),
        ("application/x-unheard-of", "application/x-unheard-of"),
    ],
)
def test_a_type_has_one_spelling(given_type: str, spelled: str) -> None:
    assert spell(given_type) == spelled
    assert spell(spelled) == spelled


@pytest.mark.parametrize("extension", [".png", ".svg", ".xml", ".wav", ".rtf", ".mkv", ".m4a"])
def test_names_and_contents_are_spelled_alike(extension: str) -> None:
    mimetype = guess_mimetype("a" + extension)
    assert spell(mimetype) == mimetype
    assert extension_of(mimetype) == extension


def test_no_spelling_needs_another_look() -> None:
    from flask_hashfs._http import media, sniffing

    assert all(spell(spelled) == spelled for spelled in sniffing._SPELLINGS.values())
    assert {spell(mimetype) for mimetype in media._MODERN.values()} == set(media._MODERN.values())


@pytest.mark.parametrize(
    ("mimetype", "extension"),
    [
        ("image/jpeg", ".jpg"),
        ("text/plain", ".txt"),
        ("text/html", ".html"),
        ("video/mp4", ".mp4"),
        ("audio/mp4", ".m4a"),
        ("application/gzip", ".gz"),
        ("application/octet-stream", None),
        ("application/x-unheard-of", None),
    ],
)
def test_a_type_has_one_extension_or_none(mimetype: str, extension: str | None) -> None:
    assert extension_of(mimetype) == extension


# -- text and signatures -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "detected", "mimetype"),
    [
        (b"a,b\n1,2\n", "text/csv", "text/plain"),
        (b"int main() {}", "text/x-c", "text/plain"),
        ("h\u00e9llo".encode(), UNKNOWN, "text/plain"),
        ("h\u00e9llo".encode("utf-16"), UNKNOWN, "text/plain"),
        ("h\u00e9llo".encode("latin-1"), UNKNOWN, UNKNOWN),
        (b"h\x00llo", UNKNOWN, UNKNOWN),
        (b"\x1b[1mbold", UNKNOWN, "text/plain"),
        (b"", "application/x-empty", UNKNOWN),
        (b"#!/bin/sh\n", "text/x-shellscript", "text/x-shellscript"),
        (b"BEGIN:VCALENDAR\r\n", UNKNOWN, "text/calendar"),
        (b"%PDF-1.4", UNKNOWN, "application/pdf"),
        (b"x" * 1024 + b"%PDF-1.4", UNKNOWN, "application/pdf"),
        (b"x" * 1025 + b"%PDF-1.4", UNKNOWN, "text/plain"),
        (b"\x89PNG\r\n\x1a\n" + bytes(9), UNKNOWN, "image/png"),
        (b"\x89PNG\r\n\x1a\n" + b"text" * 9, "text/plain", "image/png"),
        (b"h\x00llo", "text/plain", UNKNOWN),
        (b"PK\x03\x04", UNKNOWN, ZIP),
        (b"\0asm\1\0\0\0", UNKNOWN, "application/wasm"),
        (b"MZ" + bytes(9), "application/x-dosexec", guess_mimetype("a.exe")),
        (b"\xe9\1\2", "application/x-dosexec", UNKNOWN),
        (b"\x85\2", "text/PGP # encoding: data", UNKNOWN),
    ],
)
def test_what_the_detector_says_is_corrected(head: bytes, detected: str, mimetype: str) -> None:
    assert refine(head, detected) == mimetype


@pytest.mark.parametrize("size", [10, HEAD_SIZE - 1, HEAD_SIZE, HEAD_SIZE + 1])
def test_a_character_that_the_head_cuts_in_two_leaves_it_text(size: int) -> None:
    content = ("\u4f60" * HEAD_SIZE).encode()[:size]
    expected = UNKNOWN if size < HEAD_SIZE and size % 3 else "text/plain"
    assert refine(content[:HEAD_SIZE], UNKNOWN) == expected


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 10, 100_000])
def test_json_is_known_by_its_beginning_too(count: int) -> None:
    for value in ([1.5, "a", None] * count, {str(key): ["\u00e9"] for key in range(count)}):
        content = json.dumps(value, ensure_ascii=False).encode()
        assert refine(content[:HEAD_SIZE], "application/json") == "application/json"


@pytest.mark.parametrize("content", [b'{"a":', b"{a}", b"[NaN]", b"[1] x", b"[" * 30_000, b"12"])
def test_what_is_no_whole_json_is_text(content: bytes) -> None:
    assert refine(content, "application/json") == "text/plain"


# -- archives ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "mimetype", "expected"),
    [
        ({"a.txt"}, "", ZIP),
        (set(), "", ZIP),
        ({"[Content_Types].xml", "word/document.xml"}, "", guess_mimetype("a.docx")),
        ({"[Content_Types].xml", "xl/workbook.xml"}, "", guess_mimetype("a.xlsx")),
        ({"[Content_Types].xml", "ppt/presentation.xml"}, "", guess_mimetype("a.pptx")),
        ({"word/document.xml"}, "", ZIP),
        ({"AndroidManifest.xml", "META-INF/MANIFEST.MF"}, "", guess_mimetype("a.apk")),
        ({"META-INF/MANIFEST.MF"}, "", guess_mimetype("a.jar")),
        ({"mimetype"}, "application/epub+zip\n", guess_mimetype("a.epub")),
        ({"mimetype"}, "image/png", ZIP),
        ({"mimetype"}, "text/html", ZIP),
        ({"doc.kml"}, "", guess_mimetype("a.kmz")),
    ],
)
def test_an_archive_is_told_by_what_is_in_it(names: set[str], mimetype: str, expected: str) -> None:
    assert zip_type(names, mimetype) == expected
    assert expected in ZIP_TYPES
