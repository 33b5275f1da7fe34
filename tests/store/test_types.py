"""Types by content: real files of many formats, and files that lie about themselves."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from real_formats import FORMATS, Format, zipped

from flask_hashfs._http.media import guess_mimetype
from flask_hashfs._http.sniffing import HEAD_SIZE, UNKNOWN, ZIP, first_bytes_type, refine
from flask_hashfs._store import types
from flask_hashfs._store.types import type_of_file, type_of_head
from flask_hashfs.exceptions import ConfigError

NAMED_OTHERWISE = {"page.xhtml", "numbers.csv", "notes.md", "style.css", "module.pyc"}


def type_of(content: bytes) -> str:
    return type_of_file(io.BytesIO(content))


def test_the_list_of_formats_is_long_enough() -> None:
    assert len({format.mimetype for format in FORMATS}) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)
def test_a_real_file_has_its_type(format: Format, tmp_path: Path) -> None:
    content = format.make(tmp_path)
    assert type_of(content) == format.mimetype
    if format.name not in NAMED_OTHERWISE:
        assert guess_mimetype(format.name) in (format.mimetype, UNKNOWN)


# -- liars -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of some formats, by their files' names."""
    wanted = {"picture.png", "picture.jpg", "picture.gif", "picture.pdf", "library.jar"}
    wanted |= {"sound.wav", "letter.docx", "picture.webp", "picture.tiff", "song.mid"}
    wanted.add("launcher.exe")
    folder = tmp_path_factory.mktemp("real")
    return {format.name: format.make(folder) for format in FORMATS if format.name in wanted}


PAGE = b"<html><script>alert(1)</script></html>"
DRAWING = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'

# What it is called, what it begins with (a real file, or bytes), what follows, and what it is.
LIARS: list[tuple[str, str | bytes, bytes, str]] = [
    ("page.html", "picture.png", b"", "image/png"),
    ("page.html", "picture.gif", PAGE, "image/gif"),
    ("page.html", "picture.jpg", PAGE, "image/jpeg"),
    ("drawing.svg", "picture.png", DRAWING, "image/png"),
    ("program.jar", "picture.gif", b"jar", "image/gif"),
    ("program.jar", "picture.pdf", b"jar", "application/pdf"),
    ("page.html", "sound.wav", PAGE, "audio/wav"),
    ("page.html", "picture.pdf", PAGE, "application/pdf"),
    ("page.html", "picture.webp", PAGE, "image/webp"),
    ("page.html", "picture.tiff", PAGE, "image/tiff"),
    ("page.html", "song.mid", PAGE, "audio/midi"),
    ("photo.jpg", PAGE, b"", "text/html"),
    ("photo.jpg", b"\n\n\t " + PAGE, b"", "text/html"),
    ("photo.jpg", b"\xef\xbb\xbf" + PAGE, b"", "text/html"),
    ("photo.jpg", PAGE.decode().encode("utf-16"), b"", "text/html"),
    ("photo.jpg", PAGE.decode().encode("utf-16-be"), b"", "text/html"),
    ("photo.jpg", b"<!--" + b"-" * 5000 + b"-->" + PAGE, b"", "text/html"),
    ("photo.jpg", b"<!--" + b"x" * 70_000 + b"-->" + PAGE, b"", "text/html"),
    ("photo.jpg", PAGE + b"\xff\xd8\xff\xe0", b"", "text/html"),
    ("photo.png", DRAWING, b"", "image/svg+xml"),
    ("photo.png", b"<!-- " + b"comment " * 400 + b"-->" + DRAWING, b"", "image/svg+xml"),
    ("photo.png", b"<?xml version='1.0'?><!DOCTYPE svg>" + DRAWING, b"", "image/svg+xml"),
    ("photo.png", DRAWING.decode().encode("utf-16"), b"", "image/svg+xml"),
    ("notes.txt", b"<?xml version='1.0'?><x/>", b"", "application/xml"),
    (
        "notes.txt",
        b"<?xml version='1.0'?><x/>".decode().encode("utf-16-le"),
        b"",
        "application/xml",
    ),
    ("notes.txt", "launcher.exe", b"", guess_mimetype("a.exe")),
    ("letter.pdf", b"some leading bytes\n%PDF-1.4\n%\xe2\xe3\n", b"", "application/pdf"),
    ("letter.pdf", b"just text, no document", b"", "text/plain"),
    (
        "photo.jpg",
        b"\x7fELF\2\1\1" + bytes(9) + b"\2\0>\0\1\0\0\0",
        b"",
        "application/x-executable",
    ),
    ("photo.gif", b"#!/bin/sh\nrm -rf /\n", b"", "text/x-shellscript"),
    ("photo.gif", b"<?php system($_GET['c']); ", b"", "text/x-php"),
    ("archive.zip", "letter.docx", b"", guess_mimetype("a.docx")),
    ("letter.docx", zipped(("a.txt", "hello")), b"", ZIP),
    ("noise.mp4", b"\xfe" * 500, b"", UNKNOWN),
]


def test_the_list_of_liars_is_long_enough() -> None:
    assert len(LIARS) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: f"{liar[0]} is {liar[3]}")
def test_a_liar_is_what_its_bytes_say(
    liar: tuple[str, str | bytes, bytes, str], real: dict[str, bytes]
) -> None:
    _, start, more, mimetype = liar
    head = real[start] if isinstance(start, str) else start
    content = head + (real["library.jar"] if more == b"jar" else more)
    assert type_of(content) == mimetype


# -- files and archives ------------------------------------------------------------------------


def test_a_file_keeps_its_position() -> None:
    file = io.BytesIO(b"%PDF-1.4 and more")
    file.seek(5)
    assert type_of_file(file) == "application/pdf"
    assert file.tell() == 5


def test_a_document_is_known_by_what_comes_after_the_head() -> None:
    members: list[tuple[str, str | bytes]] = [
        ("media/film.bin", os.urandom(2 * HEAD_SIZE)),
        ("[Content_Types].xml", ""),
    ]
    content = zipped(*members, ("word/document.xml", ""))
    assert type_of_head(content[:HEAD_SIZE]) == ZIP
    assert type_of(content) == guess_mimetype("a.docx")


def test_a_broken_archive_is_an_archive() -> None:
    whole = zipped(("a", os.urandom(1000)))
    for content in (whole[:500], whole[:-10], whole[:-4] + b"\xff" * 4, whole + b"PK\5\6" * 9):
        assert type_of(content) == ZIP


def test_a_directory_that_would_fill_memory_is_not_read() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(60):
            archive.writestr(zipfile.ZipInfo(f"{number}-" + "x" * 60_000), "")
        archive.writestr("AndroidManifest.xml", "")
    assert type_of(buffer.getvalue()) == ZIP


@pytest.mark.slow
def test_a_head_is_enough_but_for_archives(tmp_path: Path) -> None:
    for format in FORMATS:
        if format.name in {"film.webm", "sound.flac", "picture.icns", "picture.pdf"}:
            content = format.make(tmp_path)
            assert type_of_head(content[:HEAD_SIZE]) == format.mimetype


@pytest.mark.slow
def test_noise_is_nearly_never_taken_for_anything() -> None:
    noise = [type_of(bytes([0x83, 0xFE, number]) * 100) for number in range(256)]
    assert noise.count(UNKNOWN) == len(noise)


# -- the detector ------------------------------------------------------------------------------


def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pure_magic_rs", None)
    types.detector.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"Flask-HashFS\[types\]"):
            type_of(b"a")
    finally:
        types.detector.cache_clear()


@pytest.mark.slow
def test_the_detector_is_not_imported_before_it_is_used() -> None:
    code = (
        "import sys, flask_hashfs; fs = flask_hashfs.HashFS(sys.argv[1]); fs.put(b'a', 'txt');"
        "print('pure_magic_rs' in sys.modules, 'zipfile' in sys.modules)"
    )
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, root], capture_output=True, text=True, check=True
        )
    assert done.stdout.split()[0] == "False"


_FIRST_BYTES = [
    b"GIF87a",
    b"GIF89a",
    b"%PDF-1.4",
    b"%PDF-2.0",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(25),
    *(b"\xff\xd8\xff" + bytes([marker]) for marker in (0xDB, *range(0xE0, 0xF0), 0xFE)),
    *(
        b"\0\0\0\x18ftyp" + brand
        for brand in (b"isom", b"iso2", b"iso6", b"mp41", b"mp42", b"avc1")
    ),
]


@pytest.mark.parametrize("first", _FIRST_BYTES)
@pytest.mark.parametrize("rest", [b"", bytes(50_000), b"\n<svg>" * 9, b"a\n" * 2000, b"acTL"])
def test_what_the_first_bytes_tell_is_what_the_detector_says(first: bytes, rest: bytes) -> None:
    mimetype = first_bytes_type(first + rest)
    assert mimetype is not None
    assert mimetype == refine(first + rest, types._detected(first + rest))
    assert mimetype == first_bytes_type(first), "what follows tells nothing more"


def test_the_first_bytes_of_a_moving_png_do_not_tell_its_type() -> None:
    begin = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(21)
    assert first_bytes_type(begin) is None
    assert first_bytes_type(begin + b"acTL" + bytes(100)) is None
