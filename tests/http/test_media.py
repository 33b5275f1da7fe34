from __future__ import annotations

import mimetypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_hashfs._http.media import DEFAULT_INLINE_TYPES, guess_mimetype, is_inline


@pytest.mark.parametrize(
    ("name", "mimetype"),
    [
        ("a.txt", "text/plain"),
        ("a.TXT", "text/plain"),
        ("x/y/a.Html", "text/html"),
        ("a.htm", "text/html"),
        ("a.xhtml", "application/xhtml+xml"),
        ("a.svg", "image/svg+xml"),
        ("a.jpg", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.png", "image/png"),
        ("a.gif", "image/gif"),
        ("a.webp", "image/webp"),
        ("a.avif", "image/avif"),
        ("a.heic", "image/heic"),
        ("a.jxl", "image/jxl"),
        ("a.ico", "image/vnd.microsoft.icon"),
        ("a.css", "text/css"),
        ("a.js", "text/javascript"),
        ("a.mjs", "text/javascript"),
        ("a.json", "application/json"),
        ("a.wasm", "application/wasm"),
        ("a.woff", "font/woff"),
        ("a.woff2", "font/woff2"),
        ("a.md", "text/markdown"),
        ("a.csv", "text/csv"),
        ("a.mp3", "audio/mpeg"),
        ("a.wav", "audio/wav"),
        ("a.flac", "audio/flac"),
        ("a.m4a", "audio/mp4"),
        ("a.opus", "audio/ogg"),
        ("a.mp4", "video/mp4"),
        ("a.webm", "video/webm"),
        ("a.pdf", "application/pdf"),
        ("a.zip", "application/zip"),
        ("a.tar", "application/x-tar"),
        ("a.tar.gz", "application/gzip"),
        ("a.txt.gz", "application/gzip"),
        ("a.html.GZ", "application/gzip"),
        ("a.tgz", "application/gzip"),
        ("a.svgz", "application/gzip"),
        ("a.svg.bz2", "application/x-bzip2"),
        ("a.txt.xz", "application/x-xz"),
        ("a.html.br", "application/x-brotli"),
        ("a.html.zst", "application/zstd"),
        ("a.html.Z", "application/x-compress"),
        ("a.gz.txt", "text/plain"),
        ("", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("html", "application/octet-stream"),
        (".html", "application/octet-stream"),
        ("a.html/b", "application/octet-stream"),
        ("a.html.", "application/octet-stream"),
        ("a.html ", "application/octet-stream"),
        ("a.nobodyknows", "application/octet-stream"),
        ("data:text/html,a", "application/octet-stream"),
        ("data:text/html,a.png", "image/png"),
        ("http://host/?a.html", "text/html"),
    ],
)
def test_guess_mimetype(name: str, mimetype: str) -> None:
    assert guess_mimetype(name) == mimetype


def test_the_guess_does_not_hang_on_the_process() -> None:
    mimetypes.add_type("text/html", ".png")
    try:
        assert guess_mimetype("a.png") == "image/png"
    finally:
        mimetypes.init()


@pytest.mark.slow
@given(st.text())
def test_any_name_has_a_type(name: str) -> None:
    kind, _, subtype = guess_mimetype(name).partition("/")
    assert kind
    assert subtype


@pytest.mark.parametrize(
    ("mimetype", "inline"),
    [
        ("image/png", True),
        ("image/avif", True),
        ("IMAGE/PNG", True),
        ("image/png; foo=bar", True),
        ("audio/ogg", True),
        ("video/mp4", True),
        ("application/pdf", True),
        ("text/plain", True),
        ("text/plain; charset=utf-8", True),
        ("image/svg+xml", False),
        ("Image/SVG+XML", False),
        ("image/svg+xml; charset=utf-8", False),
        ("text/html", False),
        ("text/css", False),
        ("text/javascript", False),
        ("application/xhtml+xml", False),
        ("application/json", False),
        ("application/gzip", False),
        ("application/octet-stream", False),
        ("", False),
        ("image", False),
        ("*/*", False),
    ],
)
def test_default_inline_types(mimetype: str, inline: bool) -> None:
    assert is_inline(mimetype, DEFAULT_INLINE_TYPES) is inline


@pytest.mark.parametrize(
    ("mimetype", "types", "inline"),
    [
        ("image/png", ["image/png"], True),
        ("image/png", ["Image/PNG "], True),
        ("image/png", {"image/*"}, True),
        ("image/png", ["image/jpeg"], False),
        ("image/png", [], False),
        ("image/png", ["*/*"], True),
        ("image/png", ["image"], False),
        ("image/png", ["image/p*"], False),
        # a document that may carry script is never covered by a wildcard
        ("image/svg+xml", ["image/*"], False),
        ("image/svg+xml", ["*/*"], False),
        ("image/svg+xml", ["image/*", "image/svg+xml"], True),
        ("text/html", ["text/*"], False),
        ("text/html", ["*/*"], False),
        ("text/html", ["text/html"], True),
        ("text/xml", ["text/*"], False),
        ("application/xml", ["application/*"], False),
        ("application/xhtml+xml", ["application/*"], False),
        ("application/atom+xml", ["application/atom+xml"], True),
        ("text/markdown", ["text/*"], True),
        ("application/json", ["application/*"], True),
    ],
)
def test_is_inline(mimetype: str, types: list[str], inline: bool) -> None:
    assert is_inline(mimetype, types) is inline
