"""What the Flask and the Quart app share: settings, safety, and what the pages show.

Nothing in here waits or knows which of the two frameworks it serves.
"""

from __future__ import annotations

import argparse
import mimetypes
import os
import re
import secrets
from collections.abc import MutableMapping
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

from flask.sansio.app import App
from metadata import Catalog, Item
from werkzeug.datastructures import FileStorage, Headers
from werkzeug.exceptions import Forbidden, HTTPException, NotFound, ServiceUnavailable
from werkzeug.wrappers import Request

from flask_hashfs import FileTooLargeError, HashAddress, Upload

MB = 1_000_000
NAME_LENGTH = 200
# The types that every current browser shows in <img>, where an SVG runs no script. Styles that it
# carries are blocked by the store's Content-Security-Policy; attributes do as well.
PICTURES = {
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/svg+xml",
    "image/webp",
}

for _type in ("avif", "webp"):  # mimetypes knows them from Python 3.13 on
    mimetypes.add_type(f"image/{_type}", f".{_type}")


# -- settings


def instance_folder() -> Path:
    """Return the folder for everything the demo keeps: files, database and secret key."""
    default = Path(__file__).resolve().parent / "instance"
    folder = Path(os.environ.get("GALLERY_INSTANCE", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def settings(folder: Path) -> dict[str, Any]:
    return {
        "SECRET_KEY": _secret_key(folder / "secret-key"),
        "SESSION_COOKIE_NAME": "gallery",
        "SESSION_COOKIE_SAMESITE": "Lax",
        "MAX_CONTENT_LENGTH": 1000 * MB,
        "HASHFS_ROOT_FOLDER": str(folder / "files"),
        "HASHFS_PATH_PREFIX": "/media",
        "HASHFS_SERVE_FILES": True,
        "HASHFS_MAX_FILE_SIZE": 250 * MB,
        "HASHFS_UPLOADS_PATH": "/uploads",
    }


def _secret_key(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text()
    with open(descriptor, "w") as file:
        file.write(key := secrets.token_hex())
    return key


def command_line(framework: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"The Flask-HashFS gallery, on {framework}.")
    parser.add_argument(
        "--host",
        default=os.environ.get("GALLERY_HOST", "127.0.0.1"),
        help="address to listen on (default: GALLERY_HOST or %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("GALLERY_PORT", "5000"),
        help="port to listen on (default: GALLERY_PORT or %(default)s)",
    )
    return parser.parse_args()


def prepare(app: App, framework: str) -> None:
    """Give the templates what they need."""
    app.jinja_env.filters.update(
        filesize=filesize,
        fingerprint=fingerprint,
        is_picture=is_picture,
        is_shown=is_shown,
        kind=kind,
        moment=moment,
    )
    app.jinja_env.globals["framework"] = framework


# -- safety


def refuse_foreign_forms(request: Request) -> None:
    """Refuse what a page of another site sends in the visitor's name (CSRF).

    Every current browser says where a request comes from in Sec-Fetch-Site, older ones in Origin.
    Neither can be set by a script. A client that sends neither is not a browser, and no site can
    make it act for someone else.
    """
    if request.method in {"GET", "HEAD", "OPTIONS"}:
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is None:
        ours = origin is None or f"{origin}/" == request.host_url
    else:
        ours = site in {"same-origin", "none"}
    if not ours:
        raise Forbidden("That form came from another site, so nothing was done.")


def harden(headers: Headers) -> None:
    """Add the security headers of the gallery's own pages; files bring their own."""
    headers.setdefault(
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'",
    )
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("X-Content-Type-Options", "nosniff")


# -- an upload


def chosen(files: list[FileStorage]) -> list[FileStorage]:
    """Leave out the empty part that a browser sends when no file is chosen."""
    return [file for file in files if file.filename]


def file_name(sent: str | None) -> str:
    """Return the name to show and to download under; it never becomes a path on this machine."""
    name = PurePath((sent or "").replace("\\", "/")).name
    return "".join(char for char in name if char.isprintable())[-NAME_LENGTH:] or "unnamed"


def extension(sent: str | None) -> str | None:
    """Return an extension that the store accepts, or None: a name may end in anything."""
    suffix = PurePath(file_name(sent)).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,16}", suffix) else None


def new_item(sent: str | None, size: int, address: HashAddress, owner: str) -> Item:
    name = file_name(sent)
    return Item(
        name=name,
        mimetype=mimetypes.guess_type(name)[0] or "application/octet-stream",
        size=size,
        owner=owner,
        digest=address.id,
        address=address.relpath,
    )


def owner_name(typed: str | None) -> str:
    return " ".join((typed or "").split())[:60]


def outcome(item: Item) -> str:
    if item.is_copy:
        return f"Already stored, {filesize(item.size)} saved"
    return f"Stored, {filesize(item.size)}"


def result(item: Item) -> dict[str, Any]:
    """Return what the page's script wants to know of one stored file."""
    return {"item": item.id, "outcome": outcome(item), "duplicate": item.is_copy}


def know_visitor(session: MutableMapping[str, Any]) -> None:
    """Give a browser a secret of its own, so that nobody else goes on with its uploads."""
    session["_permanent"] = True
    session.setdefault("visitor", secrets.token_urlsafe())


def allow_upload(upload: Upload, session: MutableMapping[str, Any], typed: str | None) -> None:
    """Begin an upload for this visitor, or see that it is this visitor's.

    Args:
        upload: The upload that a request is about.
        session: The visitor's.
        typed: The name that the visitor wants to be shown under; it is needed at creation.
    """
    if upload.action == "create":
        session["owner"] = owner_name(typed)
        upload.owner = session.get("visitor")
        upload.extension = extension(upload.metadata.get("filename"))
    elif upload.owner != session.get("visitor"):
        raise NotFound("There is no such upload, or it is not yours.")


def deleted_meanwhile() -> ServiceUnavailable:
    """Return what ends an upload whose content went with its last other item just now."""
    return ServiceUnavailable("The same content was deleted at this moment.", retry_after=1)


def wants_json(request: Request) -> bool:
    return request.accept_mimetypes.best == "application/json"


def trouble(error: HTTPException) -> dict[str, Any]:
    """Say an error in words that help whoever uploaded the file."""
    words = error.description
    if isinstance(error, FileTooLargeError):
        words = f"Too large: the limit is {filesize(error.max_size)} a file."
    return {"title": error.name, "words": words}


# -- what the pages show


def index(catalog: Catalog, before: int | None) -> dict[str, Any]:
    items = catalog.page(before)
    older = items[-1].id if items and catalog.neighbours(items[-1])[1] else None
    return {"items": items, "before": before, "older": older, "totals": catalog.totals()}


def detail(catalog: Catalog, item_id: int) -> dict[str, Any]:
    item = catalog.get(item_id)
    newer, older = catalog.neighbours(item)
    return {
        "item": item,
        "others": catalog.same_content(item),
        "newer": newer,
        "older": older,
    }


def kind(item: Item) -> str:
    """Return a short word for the kind of file: its extension, or else "file"."""
    return PurePath(item.name).suffix[1:6] or "file"


def is_picture(item: Item) -> bool:
    return item.mimetype in PICTURES


def is_shown(item: Item) -> bool:
    """Tell whether a browser shows the file at its URL, as HASHFS_INLINE_TYPES is by default."""
    kind = item.mimetype.partition("/")[0]
    others = {"application/pdf", "text/plain"}
    is_shown_picture = is_picture(item) and item.mimetype != "image/svg+xml"
    return is_shown_picture or kind in {"audio", "video"} or item.mimetype in others


def filesize(size: float) -> str:
    """Return a size in three digits: ``532 bytes``, ``1.4 MB``."""
    units = iter(["byte" if size == 1 else "bytes", "kB", "MB", "GB"])
    unit = next(units)
    while size >= 999.5 and (larger := next(units, None)):
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def moment(when: datetime) -> str:
    return f"{when.day} {when:%B %Y, %H:%M} UTC"


def fingerprint(digest: str) -> list[str]:
    """Return one colour for each byte of a digest, in one family of hues.

    The same content always has the same colours, so that equal files are seen to be equal.
    """
    values = bytes.fromhex(digest)
    hue = values[0] * 360 / 256
    return [
        f"oklch({0.5 + 0.35 * value / 255:.3f} {0.05 + 0.08 * (value % 16) / 15:.3f} "
        f"{(hue + (value - 128) / 4) % 360:.0f})"
        for value in values
    ]
