"""What the beginning of a content says about its type, beyond what a detector knows; pure.

A detector by magic numbers knows pictures, films and archives. What is here stands around it: what
a browser would run is called markup whatever stands before it, each type has one spelling, text is
not guessed to be more than text, and a few types are known that the detector does not know.

Source: the WHATWG's MIME Sniffing Standard, section 7.1, and HTML's rules for comments.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection

__all__ = [
    "HEAD_SIZE",
    "UNKNOWN",
    "ZIP",
    "ZIP_TYPES",
    "first_bytes_type",
    "markup_type",
    "refine",
    "spell",
    "zip_type",
]

HEAD_SIZE = 48 * 1024
"""Bytes at the beginning of a content that its type is told by, but for what is in an archive.

An ISO image has its mark at 32 KiB; with what a form puts around it, 64 KiB of a body are enough.
"""

UNKNOWN = "application/octet-stream"
ZIP = "application/zip"

_HTML = "text/html"
_SVG = "image/svg+xml"
_XML = "application/xml"
_TEXT = "text/plain"
_PDF = "application/pdf"

_SPELLINGS = {
    "application/cdfv2": "application/x-ole-storage",
    "application/epub": "application/epub+zip",
    "application/font-sfnt": "font/ttf",
    "application/font-woff": "font/woff",
    "application/javascript": "text/javascript",
    "application/vnd.ms-opentype": "font/otf",
    "application/x-7z": "application/x-7z-compressed",
    "application/x-bzip": "application/x-bzip2",
    "application/x-dosexec": "application/vnd.microsoft.portable-executable",
    "application/x-font-ttf": "font/ttf",
    "application/x-gzip": "application/gzip",
    "application/x-java-applet": "application/java-vm",
    "application/x-javascript": "text/javascript",
    "application/x-msdownload": "application/vnd.microsoft.portable-executable",
    "application/x-ogg": "application/ogg",
    "application/x-parquet": "application/vnd.apache.parquet",
    "application/x-pdf": "application/pdf",
    "application/x-rar": "application/vnd.rar",
    "application/x-rar-compressed": "application/vnd.rar",
    "application/x-rtf": "application/rtf",
    "application/x-sqlite3": "application/vnd.sqlite3",
    "application/x-zip": "application/zip",
    "application/x-zip-compressed": "application/zip",
    "application/x-zstd": "application/zstd",
    "audio/m4a": "audio/mp4",
    "audio/mp3": "audio/mpeg",
    "audio/vnd.wave": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/aiff": "audio/x-aiff",
    "audio/x-flac": "audio/flac",
    "audio/x-hx-aac-adts": "audio/aac",
    "audio/x-aac": "audio/aac",
    "audio/x-m4a": "audio/mp4",
    "audio/x-midi": "audio/midi",
    "audio/x-mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/svg": "image/svg+xml",
    "image/x-bmp": "image/bmp",
    "image/x-icon": "image/vnd.microsoft.icon",
    "image/x-ms-bmp": "image/bmp",
    "image/x-png": "image/png",
    "image/x-webp": "image/webp",
    "text/rtf": "application/rtf",
    "text/x-javascript": "text/javascript",
    "text/xml": "application/xml",
    "video/avi": "video/x-msvideo",
    "video/msvideo": "video/x-msvideo",
    "video/x-m4v": "video/mp4",
    "video/x-matroska": "video/matroska",
}

# -- markup ------------------------------------------------------------------------------------

_SPACE = re.compile(r"[\t\n\f\r ]*")
_COMMENT = re.compile(r"<!--(?:-?>|.*?--!?>)", re.DOTALL)
_INSTRUCTION = re.compile(r"<\?(xml\b)?", re.IGNORECASE)
_INSTRUCTION_END = re.compile(r"\?>")
_TAG_END = re.compile(">")
_DOCTYPE = re.compile(
    r"<!doctype[\s/]+([^\s>\[]*)(?:[^\[\"'>]|\"[^\"]*\"|'[^']*')*(\[)?", re.IGNORECASE
)
_SUBSET_END = re.compile(r"\]\s*>")
_TAG = re.compile(r"<([\w.-]+:)?([A-Za-z_][\w.-]*)(?=[\s/>]|\Z)([^>]*)")

_HTML_TAGS = frozenset(
    re.findall(
        r"\w+",
        """
        a abbr acronym address applet area article aside audio b base basefont bdi bdo bgsound big
        blink blockquote body br button canvas caption center cite code col colgroup data datalist
        dd del details dfn dialog dir div dl dt em embed fieldset figcaption figure font footer
        form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe image img input
        ins isindex kbd keygen label legend li link listing main map mark marquee math menu
        menuitem meta meter nav nobr noembed noframes noscript object ol optgroup option output p
        param picture plaintext pre progress q rp rt ruby s samp script search section select slot
        small source span strike strong style sub summary sup table tbody td template textarea
        tfoot th thead time title tr track tt u ul var video wbr xmp
        """,
    )
)


def markup_type(head: bytes) -> str | None:
    """Return the type of content that a browser could run, or None for any other.

    Byte order mark, white space, comments, processing instructions and document types may come
    first, in UTF-8 or UTF-16. What begins as a comment that does not end is HTML.

    Args:
        head: The beginning of the content.

    Returns:
        ``text/html``, ``image/svg+xml``, ``application/xml`` or None.
    """
    text = _characters(head)
    position, is_xml, is_comment = 0, False, False
    while True:
        position = _end(_SPACE.match(text, position))
        if text.startswith("<!--", position):
            is_comment = True
            match = _COMMENT.match(text, position)
        elif match := _INSTRUCTION.match(text, position):
            is_xml = is_xml or match[1] is not None
            match = (_INSTRUCTION_END if is_xml else _TAG_END).search(text, position)
        elif match := _DOCTYPE.match(text, position):
            if match[1].lower() == "html":
                return _HTML
            is_xml = True
            match = (_SUBSET_END if match[2] else _TAG_END).search(text, match.end())
        else:
            break
        if match is None:
            break
        position = match.end()
    if root := _TAG.match(text, position):
        mimetype = _root_type(root[2].lower(), root[3], is_xml or root[1] is not None)
        return mimetype or (_HTML if is_comment else None)
    if is_xml:
        return _XML
    return _HTML if is_comment else None


def _root_type(name: str, attributes: str, is_xml: bool) -> str | None:
    if name == "svg":
        return _SVG
    if name == "html" or (name in _HTML_TAGS and not is_xml):
        return _HTML
    return _XML if is_xml or "xmlns" in attributes else None


def _characters(head: bytes) -> str:
    """Decode a content's beginning, as far as markup in it is concerned."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return head.decode("utf-16", "replace")
    if head[1:2] == b"\0" and head[:1] != b"\0":
        return head.decode("utf-16-le", "replace")
    if head[:1] == b"\0" and head[1:2] != b"\0":
        return head.decode("utf-16-be", "replace")
    return head.removeprefix(codecs.BOM_UTF8).decode("latin-1")


def _end(match: re.Match[str] | None) -> int:
    assert match is not None
    return match.end()


# -- everything else ---------------------------------------------------------------------------

# Binary bytes by section 4.4 of the standard, which no text has.
_NOT_IN_TEXT = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_PDF_WITHIN = 1024  # bytes that readers let stand before its header


def spell(mimetype: str) -> str:
    """Return the one spelling of a type: lower case, without parameters, no second name."""
    bare = mimetype.partition(";")[0].strip().lower()
    return _SPELLINGS.get(bare, bare)


def refine(head: bytes, detected: str) -> str:
    """Return the type of a content from its beginning and a detector's opinion of that.

    Args:
        head: Its first `HEAD_SIZE` bytes, or all of it.
        detected: What the detector says of these bytes.

    Returns:
        The type, in its one spelling; `ZIP` where what is in the archive may tell more.
    """
    if not head:
        return UNKNOWN
    if markup := markup_type(head):
        return markup
    detected = spell(detected)
    is_type = _MIMETYPE.fullmatch(detected) is not None
    if not is_type or (detected == _PROGRAM and not head.startswith(b"MZ")):
        detected = UNKNOWN
    if known := _signature(head, detected):
        return known
    if detected not in (UNKNOWN, "application/json") and not detected.startswith("text/"):
        return detected
    if head.startswith(b"#!") and detected.startswith("text/"):
        return detected
    if b"%PDF-" in head[: _PDF_WITHIN + 5]:
        return _PDF
    return _text_type(head)


# What the detector does not know, or knows under another's name.
_SIGNATURES = (
    (b"\0asm", "application/wasm"),
    (b"PAR1", "application/vnd.apache.parquet"),
    (b"ARROW1\0\0", "application/vnd.apache.arrow.file"),
    (b"OTTO", "font/otf"),
    (b"ttcf", "font/collection"),
)

# What cannot be anything else to the detector either.
_PLAIN = re.compile(
    rb"""
    (?P<image_png>\x89PNG\r\n\x1a\n\0\0\0\rIHDR.{21}(?!acTL).{4})
    | (?P<image_jpeg>\xff\xd8\xff[\xdb\xe0-\xef\xfe])
    | (?P<image_gif>GIF8[79]a)
    | (?P<application_pdf>%PDF-[12]\.[0-9])
    | (?P<video_mp4>\0\0\0.ftyp(?:isom|iso[2-6]|mp4[12]|avc1))
    """,
    re.DOTALL | re.VERBOSE,
)


def first_bytes_type(head: bytes) -> str | None:
    """Return the type of what its first bytes alone tell, as the detector would, or None.

    Most uploads are of these types. The detector reads a few megabytes of rules for each content,
    which takes longer than hashing and writing half of a small picture.

    Args:
        head: The beginning of the content.
    """
    match = _PLAIN.match(head)
    return match and str(match.lastgroup).replace("_", "/")


# What the standard knows by its first bytes alone, where the detector wants to see more.
_FIRST_BYTES = re.compile(
    rb"""
    (?P<image_png>\x89PNG\r\n\x1a\n)
    | (?P<image_jpeg>\xff\xd8\xff)
    | (?P<image_webp>RIFF....WEBPVP)
    | (?P<audio_mpeg>ID3[\x02-\x04])
    | (?P<application_ogg>OggS\0)
    | (?P<application_gzip>\x1f\x8b\x08)
    | (?P<application_zip>PK\x03\x04)
    """,
    re.DOTALL | re.VERBOSE,
)

_MIMETYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)
_PROGRAM = "application/vnd.microsoft.portable-executable"


def _signature(head: bytes, detected: str) -> str | None:
    for signature, mimetype in _SIGNATURES:
        if head.startswith(signature):
            return mimetype
    if detected in (UNKNOWN, _TEXT) and (match := _FIRST_BYTES.match(head)):
        return str(match.lastgroup).replace("_", "/")
    is_sfnt = head.startswith((b"\0\1\0\0", b"true")) and head[4:5] == b"\0"
    if is_sfnt and detected == UNKNOWN and re.fullmatch(rb"[ -~]{4}", head[12:16]):
        return "font/ttf"
    return None


_TEXT_SIGNATURES = {
    b"BEGIN:VCARD": "text/vcard",
    b"BEGIN:VCALENDAR": "text/calendar",
    b"WEBVTT": "text/vtt",
    b"<?php": "text/x-php",
}


def _text_type(head: bytes) -> str:
    if not _is_text(head):
        return UNKNOWN
    text = head.removeprefix(codecs.BOM_UTF8)
    for signature, mimetype in _TEXT_SIGNATURES.items():
        if text.startswith(signature):
            return mimetype
    return "application/json" if _is_json(text) else _TEXT


def _is_text(head: bytes) -> bool:
    is_wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decoder = codecs.getincrementaldecoder("utf-16" if is_wide else "utf-8")()
    try:
        text = decoder.decode(head, final=len(head) < HEAD_SIZE)
    except UnicodeDecodeError:
        return False
    return _NOT_IN_TEXT.search(text.encode() if is_wide else head) is None


def _is_json(head: bytes) -> bool:
    """Tell whether a text is an object or array of JSON, or the beginning of one."""
    if not head.lstrip(b"\t\n\r ").startswith((b"{", b"[")):
        return False
    text = head.decode("utf-8", "ignore")
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        is_cut = len(head) + 3 >= HEAD_SIZE
        return is_cut and (error.msg.startswith("Unterminated") or error.pos >= len(text) - 8)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> object:
    raise ValueError(f"JSON has no {name}")


# -- archives ----------------------------------------------------------------------------------

_OFFICE = "application/vnd.openxmlformats-officedocument."
_OPEN_DOCUMENT = "application/vnd.oasis.opendocument."

_OFFICE_KINDS = {
    "word/": "wordprocessingml.document",
    "xl/": "spreadsheetml.sheet",
    "ppt/": "presentationml.presentation",
}
_OPEN_DOCUMENT_KINDS = (
    *("chart", "database", "formula", "graphics", "image"),
    *("presentation", "spreadsheet", "text"),
)
ZIP_TYPES = frozenset(
    {
        ZIP,
        "application/epub+zip",
        "application/java-archive",
        "application/vnd.android.package-archive",
        "application/vnd.google-earth.kmz",
        *(_OFFICE + kind for kind in _OFFICE_KINDS.values()),
        *(_OPEN_DOCUMENT + kind for kind in _OPEN_DOCUMENT_KINDS),
    }
)
"""The types of what is a ZIP archive by its first bytes."""


def zip_type(names: Collection[str], mimetype: str = "") -> str:
    """Return the type of a ZIP archive from what is in it.

    Args:
        names: Its members' names.
        mimetype: The content of the member ``mimetype``, where it has one.
    """
    if "mimetype" in names and (spelled := spell(mimetype)) in ZIP_TYPES:
        return spelled
    if "[Content_Types].xml" in names:
        for folder, kind in _OFFICE_KINDS.items():
            if any(name.startswith(folder) for name in names):
                return _OFFICE + kind
    if "AndroidManifest.xml" in names:
        return "application/vnd.android.package-archive"
    if "META-INF/MANIFEST.MF" in names:
        return "application/java-archive"
    return "application/vnd.google-earth.kmz" if "doc.kml" in names else ZIP
