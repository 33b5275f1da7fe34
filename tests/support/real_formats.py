"""Files of many formats, each made by a real program or library, with the type each has."""

from __future__ import annotations

import bz2
import email.message
import gzip
import io
import json
import lzma
import pickle
import plistlib
import py_compile
import shutil
import sqlite3
import struct
import subprocess
import sys
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

Maker = Callable[[Path], bytes]
ZIP_DOCUMENT = "application/vnd.openxmlformats-officedocument."


@dataclass(frozen=True)
class Format:
    """A kind of file: the name of one, its type, and what makes it in a folder of its own."""

    name: str
    mimetype: str
    make: Maker


FORMATS: list[Format] = []


def _make(make: Callable[[Path, str], bytes], name: str, folder: Path) -> bytes:
    return make(folder, name)


def made(*kinds: tuple[str, str], **settings: Any) -> Callable[[Any], Any]:
    """Add a format for each file name and type in `kinds`; the maker is given the name."""

    def add(make: Callable[[Path, str], bytes]) -> Callable[[Path, str], bytes]:
        for name, mimetype in kinds:
            FORMATS.append(Format(name, mimetype, partial(_make, make, name)))
        return make

    return add


def written(folder: Path, name: str, write: Callable[[Path], Any]) -> bytes:
    path = folder / name
    write(path)
    return path.read_bytes()


# -- pictures, by Pillow -----------------------------------------------------------------------


@made(
    ("picture.png", "image/png"),
    ("picture.jpg", "image/jpeg"),
    ("picture.gif", "image/gif"),
    ("picture.bmp", "image/bmp"),
    ("picture.tiff", "image/tiff"),
    ("picture.webp", "image/webp"),
    ("picture.ico", "image/vnd.microsoft.icon"),
    ("picture.icns", "image/x-icns"),
    ("picture.jp2", "image/jp2"),
    ("picture.avif", "image/avif"),
    ("picture.ppm", "image/x-portable-pixmap"),
    ("picture.eps", "application/postscript"),
    ("picture.pdf", "application/pdf"),
)
def picture(folder: Path, name: str) -> bytes:
    from PIL import Image, features

    if name.endswith(".avif") and not features.check("avif"):
        pytest.skip("this Pillow makes no AVIF")
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    return written(folder, name, image.save)


@made(("picture.heic", "image/heic"))
def heic(folder: Path, name: str) -> bytes:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    from PIL import Image

    file = heif.from_pillow(Image.effect_noise((64, 64), 60).convert("RGB"))
    return written(folder, name, lambda path: file.save(str(path)))


@made(("animated.webp", "image/webp"), ("animated.gif", "image/gif"))
def animation(folder: Path, name: str) -> bytes:
    from PIL import Image

    first, *more = (Image.effect_noise((64, 64), 60).convert("RGB") for _ in range(3))
    return written(folder, name, lambda path: first.save(path, save_all=True, append_images=more))


# -- sound and films, by FFmpeg's libraries and by the standard library -------------------------


@made(
    ("film.mp4", "video/mp4"),
    ("film.mov", "video/quicktime"),
    ("film.webm", "video/webm"),
    ("film.mkv", "video/matroska"),
    ("film.avi", "video/x-msvideo"),
    ("film.flv", "video/x-flv"),
    ("film.ts", "video/mp2t"),
)
def film(folder: Path, name: str) -> bytes:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    codecs = {"webm": "libvpx", "flv": "flv1", "ts": "mpeg2video"}
    codec = codecs.get(name.rpartition(".")[2], "mpeg4")

    def write(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, width=64, height=64)
            stream.pix_fmt = "yuv420p"
            for _ in range(10):
                container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(stream.encode())

    return written(folder, name, write)


@made(
    ("sound.mp3", "audio/mpeg"),
    ("sound.flac", "audio/flac"),
    ("sound.ogg", "audio/ogg"),
    ("sound.opus", "audio/ogg"),
    ("sound.m4a", "audio/mp4"),
    ("sound.aac", "audio/aac"),
    ("sound.aiff", "audio/x-aiff"),
    ("sound.au", "audio/basic"),
)
def sound(folder: Path, name: str) -> bytes:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    codecs = {
        "mp3": ("libmp3lame", "s16p", 44100),
        "flac": ("flac", "s16", 44100),
        "ogg": ("flac", "s16", 44100),
        "opus": ("libopus", "flt", 48000),
        "m4a": ("aac", "fltp", 44100),
        "aac": ("aac", "fltp", 44100),
        "aiff": ("pcm_s16be", "s16", 44100),
        "au": ("pcm_s16be", "s16", 44100),
    }
    codec, layout, rate = codecs[name.rpartition(".")[2]]

    def write(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, layout="mono")
            for number in range(10):
                frame = av.AudioFrame(layout, "mono", 960)
                for plane in frame.planes:
                    plane.update(bytes(plane.buffer_size))
                frame.sample_rate, frame.pts = rate, number * 960
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return written(folder, name, write)


@made(("sound.wav", "audio/wav"))
def wav(folder: Path, name: str) -> bytes:
    def write(path: Path) -> None:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(8000))

    return written(folder, name, write)


@made(("song.mid", "audio/midi"))
def midi(folder: Path, name: str) -> bytes:
    mido = pytest.importorskip("mido", reason="mido is not installed")
    file = mido.MidiFile()
    file.tracks.append(mido.MidiTrack([mido.Message("note_on", note=64, time=32)]))
    return written(folder, name, lambda path: file.save(str(path)))


# -- documents ---------------------------------------------------------------------------------


@made(("letter.docx", ZIP_DOCUMENT + "wordprocessingml.document"))
def docx(folder: Path, name: str) -> bytes:
    module = pytest.importorskip("docx", reason="python-docx is not installed")
    document = module.Document()
    document.add_paragraph("Dear reader")
    return written(folder, name, lambda path: document.save(str(path)))


@made(("sheet.xlsx", ZIP_DOCUMENT + "spreadsheetml.sheet"))
def xlsx(folder: Path, name: str) -> bytes:
    module = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book = module.Workbook()
    book.active["A1"] = "Sum"
    return written(folder, name, lambda path: book.save(str(path)))


@made(("slides.pptx", ZIP_DOCUMENT + "presentationml.presentation"))
def pptx(folder: Path, name: str) -> bytes:
    module = pytest.importorskip("pptx", reason="python-pptx is not installed")
    return written(folder, name, lambda path: module.Presentation().save(str(path)))


@made(
    ("letter.odt", "application/vnd.oasis.opendocument.text"),
    ("sheet.ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("slides.odp", "application/vnd.oasis.opendocument.presentation"),
    ("drawing.odg", "application/vnd.oasis.opendocument.graphics"),
)
def open_document(folder: Path, name: str) -> bytes:
    opendocument = pytest.importorskip("odf.opendocument", reason="odfpy is not installed")
    kinds = {"odt": "Text", "ods": "Spreadsheet", "odp": "Presentation", "odg": "Drawing"}
    document = getattr(opendocument, f"OpenDocument{kinds[name.rpartition('.')[2]]}")()
    return written(folder, name, lambda path: document.save(str(path)))


@made(("book.epub", "application/epub+zip"))
def epub(folder: Path, name: str) -> bytes:
    container = (
        '<?xml version="1.0"?><container version="1.0" '
        'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/>'
        "</rootfiles></container>"
    )
    return zipped(
        ("mimetype", "application/epub+zip"),
        ("META-INF/container.xml", container),
        ("book.opf", '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"/>'),
    )


@made(("note.rtf", "application/rtf"))
def rtf(folder: Path, name: str) -> bytes:
    return rb"{\rtf1\ansi\deff0{\fonttbl{\f0 Times;}}\f0 Hello\par}"


@made(("mail.eml", "message/rfc822"))
def mail(folder: Path, name: str) -> bytes:
    message = email.message.EmailMessage()
    message["From"], message["To"] = "a@example.com", "b@example.com"
    message["Received"] = "from example.com"
    message["Subject"] = "Hello"
    message.set_content("Hello")
    return b"Received: from example.com by example.org; Fri, 1 Jan 2027 00:00:00 +0000\r\n" + (
        message.as_bytes()
    )


# -- archives and compressed files -------------------------------------------------------------


def zipped(*members: tuple[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


@made(("archive.zip", "application/zip"))
def archive(folder: Path, name: str) -> bytes:
    return zipped(("readme.txt", "hello"), ("data/numbers.csv", "1,2\n3,4\n"))


@made(("empty.zip", "application/zip"))
def empty_archive(folder: Path, name: str) -> bytes:
    return zipped()


@made(("library.jar", "application/java-archive"))
def jar(folder: Path, name: str) -> bytes:
    return zipped(
        ("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\n\r\n"), ("A.class", b"\xca\xfe\xba\xbe")
    )


@made(("app.apk", "application/vnd.android.package-archive"))
def apk(folder: Path, name: str) -> bytes:
    return zipped(
        ("AndroidManifest.xml", b"\x03\x00\x08\x00" + bytes(60)),
        ("classes.dex", b"dex\n035\x00"),
        ("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\n\r\n"),
    )


@made(("archive.tar", "application/x-tar"))
def tar(folder: Path, name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        info = tarfile.TarInfo("hello.txt")
        info.size = 5
        file.addfile(info, io.BytesIO(b"hello"))
    return buffer.getvalue()


TEXT = b"The quick brown fox jumps over the lazy dog.\n" * 20


@made(("log.gz", "application/gzip"))
def gz(folder: Path, name: str) -> bytes:
    return gzip.compress(TEXT)


@made(("log.bz2", "application/x-bzip2"))
def bzip2(folder: Path, name: str) -> bytes:
    return bz2.compress(TEXT)


@made(("log.xz", "application/x-xz"))
def xz(folder: Path, name: str) -> bytes:
    return lzma.compress(TEXT)


@made(("log.zst", "application/zstd"))
def zst(folder: Path, name: str) -> bytes:
    module = pytest.importorskip("zstandard", reason="zstandard is not installed")
    data: bytes = module.compress(TEXT)
    return data


@made(("log.lz4", "application/x-lz4"))
def lz4(folder: Path, name: str) -> bytes:
    module = pytest.importorskip("lz4.frame", reason="lz4 is not installed")
    data: bytes = module.compress(TEXT)
    return data


@made(("archive.7z", "application/x-7z-compressed"))
def seven_zip(folder: Path, name: str) -> bytes:
    module = pytest.importorskip("py7zr", reason="py7zr is not installed")

    def write(path: Path) -> None:
        with module.SevenZipFile(path, "w") as file:
            file.writestr(TEXT, "log.txt")

    return written(folder, name, write)


@made(("package.deb", "application/vnd.debian.binary-package"))
def deb(folder: Path, name: str) -> bytes:
    program("dpkg-deb")
    control = folder / "package" / "DEBIAN" / "control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.com>\nDescription: a\n"
    )
    target = folder / name
    subprocess.run(["dpkg-deb", "--build", control.parents[1], target], check=True, stdout=-3)
    return target.read_bytes()


# -- programs ----------------------------------------------------------------------------------


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@made(
    ("program", "application/x-executable"),
    ("library.so", "application/x-sharedlib"),
    ("compiled.o", "application/x-object"),
)
def elf(folder: Path, name: str) -> bytes:
    if sys.platform != "linux":
        pytest.skip("programs are ELF files on Linux")
    source = folder / "a.c"
    source.write_text("int main(void) { return 0; }\n")
    options = {"program": "-no-pie", "library.so": "-shared", "compiled.o": "-c"}[name]
    subprocess.run([program("cc"), options, "-fPIC", source, "-o", folder / name], check=True)
    return (folder / name).read_bytes()


@made(("launcher.exe", "application/vnd.microsoft.portable-executable"))
def exe(folder: Path, name: str) -> bytes:
    module = pytest.importorskip("distlib", reason="distlib is not installed")
    return (Path(module.__file__).parent / "w64.exe").read_bytes()


@made(("A.class", "application/java-vm"))
def java_class(folder: Path, name: str) -> bytes:
    source = folder / "A.java"
    source.write_text("class A {}\n")
    subprocess.run([program("javac"), "-d", folder, source], check=True)
    return (folder / name).read_bytes()


@made(("script.sh", "text/x-shellscript"))
def script(folder: Path, name: str) -> bytes:
    return b"#!/bin/sh\necho hello\n"


# -- fonts, by fonttools -----------------------------------------------------------------------


@made(
    ("font.ttf", "font/ttf"),
    ("font.otf", "font/otf"),
    ("font.woff", "font/woff"),
    ("font.woff2", "font/woff2"),
    ("font.ttc", "font/collection"),
)
def font(folder: Path, name: str) -> bytes:
    builder = pytest.importorskip("fontTools.fontBuilder", reason="fonttools is not installed")
    from fontTools.pens.t2CharStringPen import T2CharStringPen
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    glyphs = [".notdef", "space"]
    new = builder.FontBuilder(1024, isTTF=not name.endswith(".otf"))
    new.setupGlyphOrder(glyphs)
    new.setupCharacterMap({32: "space"})
    if name.endswith(".otf"):
        charstrings = {glyph: T2CharStringPen(600, None).getCharString() for glyph in glyphs}
        new.setupCFF("A", {"FullName": "A"}, charstrings, {})
    else:
        new.setupGlyf({glyph: TTGlyphPen(None).glyph() for glyph in glyphs})
    new.setupHorizontalMetrics(dict.fromkeys(glyphs, (600, 0)))
    new.setupHorizontalHeader(ascent=800, descent=-200)
    new.setupNameTable({"familyName": "A", "styleName": "Regular"})
    new.setupOS2()
    new.setupPost()
    if name.endswith((".woff", ".woff2")):
        if name.endswith("2"):
            pytest.importorskip("brotli", reason="brotli is not installed")
        new.font.flavor = name.rpartition(".")[2]
    if name.endswith(".ttc"):
        from fontTools.ttLib import TTCollection

        collection = TTCollection()
        collection.fonts = [new.font]
        return written(folder, name, lambda path: collection.save(str(path)))
    return written(folder, name, lambda path: new.save(str(path)))


# -- data --------------------------------------------------------------------------------------


@made(("data.sqlite", "application/vnd.sqlite3"))
def database(folder: Path, name: str) -> bytes:
    def write(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE a (b)")
        connection.close()

    return written(folder, name, write)


@made(("data.json", "application/json"))
def json_object(folder: Path, name: str) -> bytes:
    return json.dumps({"a": [1, 2, {"b": None}]}, indent=1).encode()


@made(("settings.plist", "application/x-bplist"))
def property_list(folder: Path, name: str) -> bytes:
    return plistlib.dumps({"a": 1}, fmt=plistlib.FMT_BINARY)


@made(("numbers.parquet", "application/vnd.apache.parquet"))
def parquet(folder: Path, name: str) -> bytes:
    """The smallest file of the format's specification: no columns, no rows.

    FileMetaData in Thrift's compact protocol: version 2, a schema of one root element, 0 rows.
    """
    root = b"\x48\x06schema\x15\x00\x00"  # SchemaElement: name "schema", no children
    footer = b"\x15\x04\x19\x1c" + root + b"\x16\x00\x19\x0c\x00"
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


@made(("module.wasm", "application/wasm"))
def wasm(folder: Path, name: str) -> bytes:
    """An empty module, as the specification of WebAssembly 1.0 allows it."""
    return b"\x00asm\x01\x00\x00\x00"


@made(("module.pyc", "application/x-bytecode.python"))
def bytecode(folder: Path, name: str) -> bytes:
    source = folder / "a.py"
    source.write_text("a = 1\n")
    return written(folder, name, lambda path: py_compile.compile(str(source), str(path)))


@made(("model.glb", "model/gltf-binary"))
def gltf(folder: Path, name: str) -> bytes:
    text = json.dumps({"asset": {"version": "2.0"}}).encode()
    text += b" " * (-len(text) % 4)
    header = struct.pack("<4sII", b"glTF", 2, 20 + len(text))
    return header + struct.pack("<I4s", len(text), b"JSON") + text


@made(("capture.pcap", "application/vnd.tcpdump.pcap"))
def capture(folder: Path, name: str) -> bytes:
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


@made(
    ("page.html", "text/html"),
    ("drawing.svg", "image/svg+xml"),
    ("feed.xml", "application/xml"),
    ("page.xhtml", "text/html"),
)
def markup(folder: Path, name: str) -> bytes:
    texts = {
        "html": "<!DOCTYPE html>\n<html><head><title>A</title></head><body></body></html>",
        "svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>',
        "xml": '<?xml version="1.0" encoding="utf-8"?>\n<rss version="2.0"></rss>',
        "xhtml": '<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml"></html>',
    }
    return texts[name.rpartition(".")[2]].encode()


@made(
    ("english.txt", "text/plain"),
    ("numbers.csv", "text/plain"),
    ("notes.md", "text/plain"),
    ("umlaut.txt", "text/plain"),
    ("chinese.txt", "text/plain"),
    ("utf16.txt", "text/plain"),
    ("style.css", "text/plain"),
)
def text(folder: Path, name: str) -> bytes:
    return {
        "english.txt": TEXT,
        "numbers.csv": b"name,age\nanna,4\nben,5\n",
        "notes.md": b"# Notes\n\n- one\n- two\n",
        "umlaut.txt": "Größe und Übermut\n".encode() * 9,
        "chinese.txt": "\u4f60\u597d\u4e16\u754c\n".encode() * 9,
        "utf16.txt": "Hello, this is text.\r\n".encode("utf-16"),
        "style.css": b"body { color: red; }\n",
    }[name]


@made(("noise.bin", "application/octet-stream"), ("empty", "application/octet-stream"))
def unknown(folder: Path, name: str) -> bytes:
    if name == "empty":
        return b""
    noise = b"".join(zlib.crc32(bytes([n])).to_bytes(4, "big") for n in range(1, 250))
    return b"\xfe" + noise


@made(("object.pickle", "application/octet-stream"))
def pickled(folder: Path, name: str) -> bytes:
    return pickle.dumps({"a": 1}, protocol=4)
