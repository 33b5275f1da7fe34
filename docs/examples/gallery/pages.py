"""What the Flask and the Quart app share: settings, safety, and what the pages show.

Nothing in here waits or knows which of the two frameworks it serves.
"""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Protocol

import metadata
from flask.sansio.app import App
from metadata import Item
from previews import PICTURES, Preview, fingerprint
from sqlalchemy.orm import Session
from werkzeug.datastructures import FileStorage, Headers
from werkzeug.exceptions import Forbidden, HTTPException, NotFound
from werkzeug.wrappers import Request

from flask_hashfs import AUTO, FileTooLargeError, StoredFile, UnsupportedTypeError, Upload

MB = 1_000_000
LINKED_FOR = timedelta(hours=8)  # how long a page may stay open and still load its files
SHARED_FOR = timedelta(days=7)  # how long a link works that a visitor copies
SMALL = 100_000  # bytes: a drawing that a tile shows as it is
# Shown in <img>, where an SVG runs no script. Styles that it carries are blocked by the store's
# Content-Security-Policy; attributes do as well.
SHOWN = {*PICTURES, "image/svg+xml"}
ARCHIVES = {
    f"application/{kind}"
    for kind in ("gzip", "zip", "x-7z-compressed", "x-bzip2", "x-rar", "x-tar", "x-xz", "zstd")
}
DOCUMENTS = {"application/pdf", "application/rtf", "application/msword"}


class Extension(Protocol):
    """FlaskHashFS or QuartHashFS, whose URLs are made alike."""

    url_for: Callable[..., str]


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
        # Else the answer to a picture, asked for before the session changed, would undo the change.
        "SESSION_REFRESH_EACH_REQUEST": False,
        "MAX_CONTENT_LENGTH": 1000 * MB,
        "HASHFS_ROOT_FOLDER": str(folder / "files"),
        "HASHFS_PATH_PREFIX": "/media",
        "HASHFS_SERVE_FILES": "signed",
        "HASHFS_MAX_FILE_SIZE": 250 * MB,
        "HASHFS_UPLOADS_PATH": "/uploads",
        "HASHFS_THUMBNAILS_ROOT_FOLDER": str(folder / "thumbnails"),
        "HASHFS_THUMBNAILS_PATH_PREFIX": "/thumbnails",
        "HASHFS_THUMBNAILS_SERVE_FILES": "signed",
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


def prepare(app: App, framework: str, fs: Extension, thumbnails: Extension) -> None:
    """Give the templates what they need."""
    app.jinja_env.filters.update(
        accepted=accepted,
        filesize=filesize,
        fingerprint=fingerprint,
        icon=icon,
        is_drawing=is_drawing,
        is_opened=is_opened,
        is_shown=is_shown,
        kind=kind,
        moment=moment,
    )
    app.jinja_env.globals.update(
        framework=framework,
        file_url=partial(fs.url_for, external=False, expires=LINKED_FOR),
        shared_url=partial(fs.url_for, expires=SHARED_FOR),
        thumbnail_url=partial(thumbnails.url_for, external=False, expires=LINKED_FOR),
    )


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
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'",
    )
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("X-Content-Type-Options", "nosniff")


# -- an upload


def chosen(files: list[FileStorage]) -> list[FileStorage]:
    """Leave out the empty part that a browser sends when no file is chosen."""
    return [file for file in files if file.filename]


def new_item(file: StoredFile, preview: Preview, thumbnail: StoredFile | None, owner: str) -> Item:
    return Item(
        file=file,
        digest=file.id,
        size=file.size,
        owner=owner,
        thumbnail=thumbnail,
        excerpt=preview.excerpt,
    )


def with_type(file: StoredFile, content_type: str) -> StoredFile:
    """Return a file with the type that its bytes tell: an upload's is that of its name."""
    return replace(file, content_type=content_type)


def download(file: StoredFile) -> dict[str, Any]:
    """Return what the signed URL of a download says beside the file."""
    return {"expires": LINKED_FOR, "download_name": file.filename, "as_attachment": True}


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
    if "visitor" not in session:
        session.update(_permanent=True, visitor=secrets.token_urlsafe())


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
        upload.extension = AUTO
    elif upload.owner != session.get("visitor"):
        raise NotFound("There is no such upload, or it is not yours.")


def wants_json(request: Request) -> bool:
    return request.accept_mimetypes.best == "application/json"


def trouble(error: HTTPException) -> dict[str, Any]:
    """Say an error in words that help whoever uploaded the file."""
    words = error.description
    if isinstance(error, FileTooLargeError):
        words = f"Too large: the limit is {filesize(error.max_size)} a file."
    elif isinstance(error, UnsupportedTypeError):
        words = f"This is {error.mimetype}, which is not accepted here."
    return {"title": error.name, "words": words}


# -- what the pages show


def index(session: Session, before: int | None) -> dict[str, Any]:
    items = metadata.page(session, before)
    older = items[-1].id if items and metadata.neighbours(session, items[-1])[1] else None
    totals = metadata.totals(session)
    return {"items": items, "before": before, "older": older, "totals": totals}


def detail(session: Session, item_id: int) -> dict[str, Any]:
    item = metadata.get(session, item_id)
    newer, older = metadata.neighbours(session, item)
    others = metadata.same_content(session, item)
    return {"item": item, "others": others, "newer": newer, "older": older}


def kind(item: Item) -> str:
    """Return a short word for the kind of file: its extension, or else "file"."""
    return PurePath(item.name).suffix[1:6] or "file"


def icon(item: Item) -> str:
    """Return the name of the icon that stands for the file where there is no picture of it."""
    family = item.mimetype.partition("/")[0]
    if family in {"audio", "image", "video"}:
        return family
    if item.mimetype in ARCHIVES:
        return "archive"
    is_document = item.mimetype in DOCUMENTS or "document" in item.mimetype
    return "document" if is_document or family == "text" else "file"


def is_shown(item: Item) -> bool:
    """Tell whether the page shows the file in <img>."""
    return item.mimetype in SHOWN


def is_drawing(item: Item) -> bool:
    """Tell whether a tile shows the file itself: an SVG, which needs no thumbnail."""
    return item.mimetype == "image/svg+xml" and item.size <= SMALL


def is_opened(item: Item) -> bool:
    """Tell whether a browser shows the file at its URL, as HASHFS_INLINE_TYPES is by default."""
    family = item.mimetype.partition("/")[0]
    others = {"application/pdf", "text/plain"}
    return item.mimetype in PICTURES or family in {"audio", "video"} or item.mimetype in others


def accepted(types: Iterable[str] | str | None) -> str:
    """Return HASHFS_ACCEPT as an ``accept`` attribute has it; nothing where all is accepted."""
    return types if isinstance(types, str) else ",".join(types or ())


def filesize(size: float) -> str:
    """Return a size in three digits: ``532 bytes``, ``1.4 MB``."""
    units = iter(["byte" if size == 1 else "bytes", "kB", "MB", "GB"])
    unit = next(units)
    while size >= 999.5 and (larger := next(units, None)):
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def moment(when: datetime) -> str:
    return f"{when.day} {when:%B %Y, %H:%M} UTC"
