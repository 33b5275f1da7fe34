"""What a tile of the gallery shows of a file: a small picture, the first words, its digest."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from colorsys import hls_to_rgb
from io import BytesIO
from typing import BinaryIO, NamedTuple

from PIL import Image, ImageOps

# Type of a picture: the format that Pillow knows it by. Only these are decoded.
PICTURES = {
    "image/avif": "AVIF",
    "image/bmp": "BMP",
    "image/gif": "GIF",
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
}
TEXTS = {"application/json", "application/xml", "application/javascript"}
EDGE = 480  # pixels: a tile of 240, sharp on a screen that has two for each
MOST_PIXELS = 50_000_000  # of a picture; decoding more takes too long and too much memory
EXCERPT = 280  # characters
Image.MAX_IMAGE_PIXELS = None  # MOST_PIXELS takes its place, and does not warn


class Preview(NamedTuple):
    thumbnail: bytes | None = None
    excerpt: str = ""


def preview(file: BinaryIO, content_type: str) -> Preview:
    """Return what to show of a file.

    Args:
        file: The stored content, from its start.
        content_type: Its type, as its bytes tell.
    """
    if content_type in PICTURES:
        return Preview(thumbnail=_thumbnail(file, PICTURES[content_type]))
    if content_type.startswith("text/") or content_type in TEXTS:
        return Preview(excerpt=_excerpt(file))
    return Preview()


def _thumbnail(file: BinaryIO, kind: str) -> bytes | None:
    try:
        with Image.open(file, formats=[kind]) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            return _small(image)
    except Exception:  # what broken pictures raise has no common class
        return None


def _small(image: Image.Image) -> bytes:
    image.thumbnail((EDGE, EDGE))  # first, since it decodes a JPEG at a fraction of its size
    small = ImageOps.exif_transpose(image)
    has_alpha = small.mode in {"LA", "PA", "RGBA"} or "transparency" in small.info
    small.convert("RGBA" if has_alpha else "RGB").save(made := BytesIO(), "WEBP", quality=80)
    return made.getvalue()


def _excerpt(file: BinaryIO) -> str:
    text = file.read(4 * EXCERPT).decode("utf-8", "ignore")
    return "".join(char for char in text if char.isprintable() or char in "\n\t")[:EXCERPT]


def fingerprint(digest: str) -> str:
    """Return a digest as a picture, one colour for each byte, in one family of hues: a data URL.

    The same content always has the same colours, so that equal files are seen to be equal.
    """
    values = bytes.fromhex(digest)
    colours = bytes(part for value in values for part in _colour(values[0], value))
    Image.frombytes("RGB", (len(values), 1), colours).save(made := BytesIO(), "PNG")
    return f"data:image/png;base64,{b64encode(made.getvalue()).decode()}"


def _colour(family: int, value: int) -> Iterator[int]:
    hue = (family / 256 + (value - 128) / 1440) % 1
    light, full = 0.4 + 0.4 * value / 255, 0.2 + 0.3 * (value % 16) / 15
    return (round(255 * part) for part in hls_to_rgb(hue, light, full))
