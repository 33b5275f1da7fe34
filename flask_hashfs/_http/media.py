"""What a file's name says about its type, and which types a page may show; pure."""

from __future__ import annotations

import mimetypes
import posixpath
import re
from collections.abc import Collection

from .accept import TYPE_NAME, covers

__all__ = ["DEFAULT_INLINE_TYPES", "check_mimetype", "extension_of", "guess_mimetype", "is_inline"]

DEFAULT_INLINE_TYPES = ("image/*", "audio/*", "video/*", "application/pdf", "text/plain")
"""Types shown in the page by default. A wildcard never covers a type that can carry script."""

# Parameters are those of RFC 9110, section 5.6.6, in ASCII.
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_QUOTED_STRING = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_MIMETYPE = re.compile(
    rf"{TYPE_NAME}/{TYPE_NAME}(?:[ \t]*;(?:[ \t]*{_TOKEN}=(?:{_TOKEN}|{_QUOTED_STRING}))?)*"
)

_UNKNOWN = "application/octet-stream"

# Compressed files are what they are: naming the type inside would make a browser show, or a proxy
# decode, something other than the stored bytes.
_COMPRESSED = {
    ".br": "application/x-brotli",
    ".bz2": "application/x-bzip2",
    ".gz": "application/gzip",
    ".lz4": "application/x-lz4",
    ".lzma": "application/x-lzma",
    ".svgz": "application/gzip",
    ".taz": "application/gzip",
    ".tbz2": "application/x-bzip2",
    ".tgz": "application/gzip",
    ".txz": "application/x-xz",
    ".tz": "application/gzip",
    ".tzst": "application/zstd",
    ".xz": "application/x-xz",
    ".z": "application/x-compress",
    ".zst": "application/zstd",
}

# Where Python's table is silent, out of date or differs among the Python versions.
_MODERN = {
    ".7z": "application/x-7z-compressed",
    ".aac": "audio/aac",
    ".apk": "application/vnd.android.package-archive",
    ".apng": "image/apng",
    ".atom": "application/atom+xml",
    ".avif": "image/avif",
    ".azw": "application/vnd.amazon.ebook",
    ".bmp": "image/bmp",
    ".cbor": "application/cbor",
    ".cbz": "application/vnd.comicbook+zip",
    ".cjs": "text/javascript",
    ".class": "application/java-vm",
    ".csv": "text/csv",
    ".deb": "application/vnd.debian.binary-package",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".dll": "application/vnd.microsoft.portable-executable",
    ".dwg": "image/vnd.dwg",
    ".eps": "application/postscript",
    ".epub": "application/epub+zip",
    ".exe": "application/vnd.microsoft.portable-executable",
    ".flac": "audio/flac",
    ".flv": "video/x-flv",
    ".geojson": "application/geo+json",
    ".gif": "image/gif",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".gpx": "application/gpx+xml",
    ".heic": "image/heic",
    ".heics": "image/heic-sequence",
    ".heif": "image/heif",
    ".heifs": "image/heif-sequence",
    ".icns": "image/x-icns",
    ".ico": "image/vnd.microsoft.icon",
    ".ics": "text/calendar",
    ".ipynb": "application/x-ipynb+json",
    ".jar": "application/java-archive",
    ".jfif": "image/jpeg",
    ".jp2": "image/jp2",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".jsonld": "application/ld+json",
    ".jxl": "image/jxl",
    ".key": "application/vnd.apple.keynote",
    ".kml": "application/vnd.google-earth.kml+xml",
    ".kmz": "application/vnd.google-earth.kmz",
    ".log": "text/plain",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".markdown": "text/markdown",
    ".md": "text/markdown",
    ".mid": "audio/midi",
    ".midi": "audio/midi",
    ".mjs": "text/javascript",
    ".mka": "audio/matroska",
    ".mkv": "video/matroska",
    ".mobi": "application/x-mobipocket-ebook",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".mpd": "application/dash+xml",
    ".numbers": "application/vnd.apple.numbers",
    ".obj": "model/obj",
    ".odg": "application/vnd.oasis.opendocument.graphics",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".ogx": "application/ogg",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".pages": "application/vnd.apple.pages",
    ".parquet": "application/vnd.apache.parquet",
    ".pcap": "application/vnd.tcpdump.pcap",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".psd": "image/vnd.adobe.photoshop",
    ".rar": "application/vnd.rar",
    ".rss": "application/rss+xml",
    ".rst": "text/x-rst",
    ".rtf": "application/rtf",
    ".sql": "application/sql",
    ".sqlite": "application/vnd.sqlite3",
    ".sqlite3": "application/vnd.sqlite3",
    ".sh": "text/x-shellscript",
    ".srt": "application/x-subrip",
    ".stl": "model/stl",
    ".svg": "image/svg+xml",
    ".text": "text/plain",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".toml": "application/toml",
    ".ts": "video/mp2t",
    ".ttc": "font/collection",
    ".ttf": "font/ttf",
    ".txt": "text/plain",
    ".usdz": "model/vnd.usdz+zip",
    ".vcf": "text/vcard",
    ".vtt": "text/vtt",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".wma": "audio/x-ms-wma",
    ".wmv": "video/x-ms-wmv",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xhtml": "application/xhtml+xml",
    ".xht": "application/xhtml+xml",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zip": "application/zip",
}

# A fresh instance holds Python's own table, not what the host's mime.types files add to it.
_TYPES = {**mimetypes.MimeTypes().types_map[True], **_MODERN, **_COMPRESSED}


def check_mimetype(mimetype: str) -> None:
    """Refuse what cannot be the value of a Content-Type header (RFC 9110, section 8.3).

    Args:
        mimetype: A type and subtype; parameters may follow.

    Raises:
        ValueError: It is anything else.
    """
    if not isinstance(mimetype, str) or _MIMETYPE.fullmatch(mimetype) is None:
        raise ValueError(
            f"mimetype is {mimetype!r}, but must be type/subtype, which parameters may follow, "
            'such as "image/png" or "text/csv; header=present"'
        )


def guess_mimetype(name: str) -> str:
    """Guess a file's type from its name alone, the same on every host.

    Args:
        name: A file's name or path; only its last extension counts, in any case.

    Returns:
        The type without parameters; ``application/octet-stream`` when the name says nothing.
    """
    extension = posixpath.splitext(name)[1]
    return _TYPES.get(extension.lower(), _UNKNOWN)


# The extension for a type that has several, or none in the tables above.
_PREFERRED = {
    "application/gzip": ".gz",
    "application/java-vm": ".class",
    "application/vnd.microsoft.portable-executable": ".exe",
    "application/x-bzip2": ".bz2",
    "application/x-tar": ".tar",
    "application/x-xz": ".xz",
    "application/zstd": ".zst",
    "application/vnd.tcpdump.pcap": ".pcap",
    "application/xhtml+xml": ".xhtml",
    "audio/basic": ".au",
    "audio/matroska": ".mka",
    "audio/midi": ".mid",
    "audio/mp4": ".m4a",
    "audio/ogg": ".ogg",
    "audio/x-aiff": ".aiff",
    "application/postscript": ".ps",
    "font/collection": ".ttc",
    "image/jpeg": ".jpg",
    "image/tiff": ".tiff",
    "image/x-icns": ".icns",
    "image/x-portable-pixmap": ".ppm",
    "message/rfc822": ".eml",
    "text/html": ".html",
    "text/javascript": ".js",
    "text/markdown": ".md",
    "text/plain": ".txt",
    "text/x-shellscript": ".sh",
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/x-flv": ".flv",
    "video/x-msvideo": ".avi",
}

_EXTENSIONS = {
    **{mimetype: extension for extension, mimetype in reversed(_MODERN.items())},
    **_PREFERRED,
}


def extension_of(mimetype: str) -> str | None:
    """Return the extension, with its dot, that a type's files have; None for an unknown type."""
    return _EXTENSIONS.get(mimetype)


def is_inline(mimetype: str, inline_types: Collection[str]) -> bool:
    """Tell whether a type may be shown in the page rather than downloaded.

    Args:
        mimetype: The file's type; parameters and case do not matter.
        inline_types: Types and wildcards; what a wildcard covers, `covers` says.
    """
    return covers(inline_types, mimetype)
