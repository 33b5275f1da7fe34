"""The HASHFS_* keys of an app, in one table: default, check and meaning of each.

A key is a field in lower case and without the prefix: HASHFS_CACHE_TRUST is ``cache_trust``.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NoReturn, TypeAlias, TypeVar

from .._http.accept import parse_types
from .._http.media import DEFAULT_INLINE_TYPES
from .._storage import messages
from .._store.opening import SCHEMES, CacheSettings, is_url
from ..exceptions import ConfigError

T = TypeVar("T")
Check: TypeAlias = Callable[[str, Any], T]
"""Takes a key's name and the value set; returns what to use, or raises `ConfigError`."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]+|null")
_DIGITS = re.compile(r"[0-9]{1,100}")  # of more, int() may refuse to read any
_PATH = re.compile(r"/(?:[^/<>?#\s][^<>?#\s]*)?")
_HOST = re.compile(r"(https?:)?//[^/?#\s]", re.IGNORECASE)
# Other URLs are known by their slashes, these also without: a path may have a colon.
_URL = re.compile(r"\s*(?:([a-z][a-z0-9+.-]+)://|(s3|gs|gcs|az|azure|memory|file|https?):)", re.I)
_MEANT = {"gcs": "gs", "azure": "az"}
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


# -- checks ------------------------------------------------------------------------------------


def _refuse(key: str, value: object, wanted: str) -> NoReturn:
    raise ConfigError(f"{key} is {value!r}, but must be {wanted}")


def root_folder(key: str, value: object) -> str:
    """Check the root of a store, and return a path or the URL of an object store.

    Args:
        key: What an error calls the value.
        value: A path, a URL of an object store, or ``file:///path`` for a path.

    Raises:
        ConfigError: Anything else, such as a URL that would pass for a relative path.
    """
    if not value:
        raise ConfigError(f"{key} must be set: the folder that files are stored in")
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        _refuse(key, value, "a path, as str or PathLike")
    if "\0" in path:
        _refuse(key, value, "a path without NUL")
    match = _URL.match(path)
    if match is None or is_url(path):
        return path
    if path.startswith("file:///") and len(path) > len("file:///") and not {"?", "#"} & set(path):
        from urllib.request import url2pathname  # takes long to import, and is rarely needed

        return url2pathname(path.removeprefix("file://"))
    scheme = (match[1] or match[2]).lower()
    meant = _MEANT.get(scheme, scheme) + "://bucket/prefix"
    wanted = "a folder, file:///folder, or the URL of a bucket that begins with "
    wanted += ", ".join(f"{each}://" for each in SCHEMES)
    _refuse(key, value, f'{wanted}; is "{meant}" meant?' if is_url(meant) else wanted)


def host(key: str, value: object) -> str | None:
    """Check the host that `url_for` begins its URLs with.

    Args:
        key: What an error calls the value.
        value: A URL with a host, which may leave its scheme to the page; or nothing.

    Raises:
        ConfigError: Anything else; without ``//``, links would be relative ones.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str) and _HOST.match(value):
        return value
    _refuse(key, value, 'a URL such as "https://cdn.example.com" or "//cdn.example.com", or None')


def _path_prefix(key: str, value: object) -> str:
    if value is None:
        raise ConfigError(f'{key} must be set: "" or a path with a leading slash')
    if not isinstance(value, str) or (value and not value.startswith("/")):
        _refuse(key, value, "empty, or start with a leading slash")
    if "<" in value or ">" in value:
        _refuse(key, value, "a path without < and >")
    return value


def _or_none(check: Check[T]) -> Check[T | None]:
    def check_unless_none(key: str, value: object) -> T | None:
        if value is None:
            return None
        try:
            return check(key, value)
        except ConfigError as error:
            raise ConfigError(f"{error}, or None") from None

    return check_unless_none


def _text(wanted: str, start: str = "") -> Check[str | None]:
    """Check a text that begins with `start`; an empty one, which an environment has, is None."""

    def check(key: str, value: object) -> str | None:
        if isinstance(value, str) and (not value or value.startswith(start)):
            return value or None
        _refuse(key, value, wanted)

    return _or_none(check)


def _integer(least: int, unit: str) -> Check[int]:
    def check(key: str, value: object) -> int:
        number = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            _refuse(key, value, f"a whole number of {unit}, {least} or more")
        return number

    return check


def _switch(key: str, value: object) -> bool:
    if isinstance(value, str):
        value = _WORDS.get(value.lower(), value)
    if value in (True, False):  # also 1 and 0
        return bool(value)
    _refuse(key, value, "True or False")


def _serve_files(key: str, value: object) -> bool | Literal["signed"]:
    if isinstance(value, str) and value.lower() == "signed":
        return "signed"
    try:
        return _switch(key, value)
    except ConfigError as error:
        raise ConfigError(f'{error}, or "signed"') from None


def _mode(key: str, value: object) -> int:
    mode = value
    if isinstance(value, str):
        try:
            mode = int(value, 8)
        except ValueError:
            mode = None
    if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777:
        _refuse(key, value, 'a file mode: an int up to 0o777, or octal digits such as "0o664"')
    return mode


def _algorithm(key: str, value: object) -> str:
    try:
        if isinstance(value, str) and hashlib.new(value, usedforsecurity=False).digest_size:
            return value
    except ValueError:
        pass
    _refuse(key, value, 'an algorithm of hashlib with a digest of fixed length, such as "sha256"')


def _inline_types(key: str, value: object) -> tuple[str, ...]:
    try:
        return parse_types(value)
    except ValueError as error:
        _refuse(key, error.args[0], 'MIME types such as ["image/*", "text/plain"]')


def _uploads_path(key: str, value: object) -> str | None:
    wanted = 'a path such as "/uploads"'
    if value == "":
        return None
    if not isinstance(value, str) or not value.startswith("/") or {"<", ">"} & set(value):
        _refuse(key, value, wanted)
    return value.rstrip("/") or _refuse(key, value, wanted)


def _health_path(key: str, value: object) -> str | None:
    if value == "":
        return None
    if isinstance(value, str) and _PATH.fullmatch(value):
        return value
    _refuse(key, value, 'a path such as "/-/files"')


def _origins(key: str, value: object) -> tuple[str, ...] | str:
    if value == "*":
        return "*"
    origins = value.split(",") if isinstance(value, str) else value
    wanted = 'origins such as ["https://app.example.com"], or "*"'
    if not isinstance(origins, Iterable) or isinstance(origins, (bytes, Mapping)):
        _refuse(key, value, wanted)
    found = []
    for each in origins:
        if not isinstance(each, str) or (each.strip() and not _ORIGIN.fullmatch(each.strip())):
            _refuse(key, each, wanted)
        found += [each.strip().lower()] if each.strip() else []
    return tuple(found)


def _accept(key: str, value: object) -> tuple[str, ...]:
    wanted = 'MIME types such as "image/*, application/pdf"'
    try:
        types = parse_types(value)
    except ValueError as error:
        _refuse(key, error.args[0], wanted)
    return types or _refuse(key, value, wanted)


def _cache_folder(key: str, value: object) -> str | None:
    if value == "":
        return None
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(path, str) and "\0" not in path and _URL.match(path) is None:
        return path
    _refuse(key, value, "a folder of this machine")


def _options(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        _refuse(key, value, "a dict of options of the object store")
    return dict(value)


# -- the table ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key(Generic[T]):
    """What is known of one key.

    Attributes:
        default: Its value where an app sets none.
        check: Turns a value set by an app into the one to use.
        help: What it means, for docs/configuration.md.
        shown: Its default in the documentation, where that is not the Python literal.
    """

    default: Any
    check: Check[T]
    help: str
    shown: str | None = None


def _key(default: Any, check: Check[T], help: str, shown: str | None = None) -> T:
    """Make a field of `StoreConfig` from one line."""
    field: T = dataclasses.field(metadata={Key: Key(default, check, help, shown)})
    return field


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """One store's configuration, checked. Each field is a key, in lower case.

    To add a key, add a field here, and the row that the tests ask for to docs/configuration.md.

    ``HASHFS_HOST`` and ``HASHFS_PATH_PREFIX`` may change while the app runs, so `url_for` reads
    them from the app; the prefix here is the one the file route was registered with.
    """

    # fmt: off
    root_folder: str = _key(
        None, root_folder,
        "the folder that files are stored in, or the URL of a bucket such as `s3://bucket/prefix`",
        "required")
    depth: int = _key(
        4, _integer(0, "folders"),
        "the number of folders in the path of a content")
    width: int = _key(
        1, _integer(0, "characters"),
        "the number of characters in the name of each of these folders")
    algorithm: str = _key(
        "sha256", _algorithm,
        "the algorithm of the ids: any algorithm of `hashlib` with a digest of fixed length; "
        "see [](security.md) about `md5` and `sha1`")
    host: str | None = _key(
        None, host,
        'the host in the URLs that `url_for` returns, such as `"https://cdn.example.com"`; with '
        "`None` it is the host of the request")
    path_prefix: str = _key(
        "", _path_prefix,
        "the path in front of the file's own path in its URL")
    serve_files: bool | Literal["signed"] = _key(
        False, _serve_files,
        "whether the app has a route below the prefix that serves the files; with "
        '`"signed"` that route serves signed URLs only')
    max_age: int | None = _key(
        31536000, _or_none(_integer(0, "seconds")),
        "the seconds for which a cache may keep a file")
    inline_types: tuple[str, ...] = _key(
        DEFAULT_INLINE_TYPES, _inline_types,
        "the MIME types that a browser may show; files of all other types are downloads",
        "audio, video, PDF, plain text, and images except SVG")
    accel_redirect: str | None = _key(
        None, _text('a path such as "/protected/"', start="/"),
        "the prefix of an internal location of nginx, for `X-Accel-Redirect`")
    max_file_size: int | None = _key(
        None, _or_none(_integer(0, "bytes")),
        "the largest size of one file, in bytes; `None` means no limit")
    accept: tuple[str, ...] | None = _key(
        None, _or_none(_accept),
        "the MIME types that may be put; the bytes of a content tell its type; `None` means "
        "every type")
    stream_uploads: bool = _key(
        True, _switch,
        "whether the files of a form go straight into the store while they arrive")
    fsync: bool = _key(
        True, _switch,
        "whether `put` waits for the disk, so that an address it returned survives a power cut")
    file_mode: int | None = _key(
        0o664, _or_none(_mode),
        "the exact mode of new files; `None` leaves them private to their owner",
        "`0o664`")
    dir_mode: int = _key(
        0o755, _mode,
        "the mode of new folders, from which the umask is subtracted",
        "`0o755`")
    health_path: str | None = _key(
        None, _or_none(_health_path),
        "the path of a route that answers whether the store works")
    uploads_path: str | None = _key(
        None, _or_none(_uploads_path),
        "the path at which clients create resumable uploads; `None` means there are none")
    uploads_expire: int = _key(
        86400, _integer(1, "seconds"),
        "the seconds for which an unfinished upload is kept after its last byte")
    uploads_max: int = _key(
        1000, _integer(1, "uploads"),
        "the number of uploads that may be unfinished at the same time; one owner may have "
        "at most a tenth of them")
    uploads_bytes: int | None = _key(
        None, _or_none(_integer(0, "bytes")),
        "the bytes that all unfinished uploads together may hold; `None` means no limit")
    uploads_origins: tuple[str, ...] | str = _key(
        (), _origins,
        'the origins whose pages may use the resumable uploads; `"*"` allows every origin')
    upload_memory: int = _key(
        64 * 1024 * 1024, _integer(0, "bytes"),
        "the bytes of unread bodies and small files of forms that a process may hold in memory, "
        "for all requests together; see [](deployment.md)",
        "64 MiB")
    upload_files: int | None = _key(
        None, _or_none(_integer(1, "files")),
        "the number of temporary files of unfinished forms and raw uploads that a process may have "
        "open; see [](deployment.md)",
        "a quarter of the limit of open files")
    worker_threads: int = _key(
        8, _integer(1, "threads"),
        "Quart only: the number of threads of each event loop that take uploads; as many others "
        "look up, open and read")
    pathsend: bool = _key(
        True, _switch,
        "Quart only: whether the server sends whole files (`http.response.pathsend`), where it "
        "offers to; set it to `False` if an ASGI middleware does not know this message")
    cache_folder: str | None = _key(
        None, _or_none(_cache_folder),
        "a folder of this machine in which the files served last are kept; you may delete it at "
        "any time; `None` means no cache")
    cache_size: int = _key(
        10 * 1024**3, _integer(1, "bytes"),
        "the bytes that the cache may hold",
        "10 GiB")
    cache_file_size: int = _key(
        1024**3, _integer(0, "bytes"),
        "the size in bytes above which the cache does not keep a file",
        "1 GiB")
    cache_trust: int = _key(
        300, _integer(0, "seconds"),
        "the seconds for which a kept file is served without asking the store whether it still "
        "has the file")
    serve_redirect: bool = _key(
        False, _switch,
        "object store only: whether the app answers with a redirect to a presigned URL")
    store_options: Mapping[str, Any] = _key(
        {}, _options,
        "object store only: the options that are passed to obstore")
    # fmt: on

    @property
    def cache(self) -> CacheSettings | None:
        """The cache, if there is one."""
        if self.cache_folder is None:
            return None
        return CacheSettings(
            self.cache_folder, self.cache_size, self.cache_file_size, self.cache_trust
        )


KEYS: Mapping[str, Key[Any]] = {
    field.name.upper(): field.metadata[Key] for field in dataclasses.fields(StoreConfig)
}
"""Every key without the prefix of its store."""


# -- reading it --------------------------------------------------------------------------------


def key_prefix(name: str | None) -> str:
    """Return what the keys of the store `name` begin with.

    Raises:
        ValueError: A name that cannot be part of a key.
    """
    if name is None:
        return "HASHFS_"
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ValueError(f"a store's name is letters, digits and _, not {name!r}")
    return f"HASHFS_{name.upper()}_"


def load(config: MutableMapping[str, Any], name: str | None = None) -> StoreConfig:
    """Check a store's configuration and fill its defaults into `config`.

    Args:
        config: The app's configuration.
        name: The store's name, or None for the default store.

    Raises:
        ConfigError: A value that cannot be used.
    """
    prefix = key_prefix(name)
    _warn_of_misspelt_keys(config, prefix)
    values = {}
    for rest, key in KEYS.items():
        value = config.setdefault(prefix + rest, copy.copy(key.default))
        values[rest.lower()] = key.check(prefix + rest, value)
    loaded = StoreConfig(**values)
    if loaded.serve_files and not loaded.path_prefix.strip("/"):
        _refuse(
            f"{prefix}PATH_PREFIX", loaded.path_prefix, 'a path such as "/files" to serve files at'
        )
    _check_cache(loaded, prefix)
    return loaded


def overlap(folder: str, other: str) -> bool:
    """Tell whether two folders are one, or one of them lies in the other."""
    paths = [os.path.realpath(each) for each in (folder, other)]
    return os.path.commonpath(paths) in paths


def _check_cache(loaded: StoreConfig, prefix: str) -> None:
    folder = loaded.cache_folder
    if folder is None:
        return
    if loaded.serve_redirect:
        raise ConfigError(
            f"{prefix}SERVE_REDIRECT is True and {prefix}CACHE_FOLDER is {folder!r}, but they "
            "exclude each other: a client that is redirected reads past the cache"
        )
    if not is_url(loaded.root_folder) and overlap(folder, loaded.root_folder):
        _refuse(
            f"{prefix}CACHE_FOLDER",
            folder,
            f"neither in nor around {prefix}ROOT_FOLDER, {loaded.root_folder!r}",
        )


def _warn_of_misspelt_keys(config: Iterable[str], prefix: str) -> None:
    """Log each key that no store can have: a limit that is misspelt is a limit that is missing."""
    endings = tuple(f"_{key}" for key in KEYS)  # of the keys of named stores
    others = _prefixes_of_other_stores(config, prefix)
    for key in config:
        if not isinstance(key, str) or not key.startswith(prefix):
            continue
        rest = key.removeprefix(prefix)
        if rest in KEYS or key.removeprefix(key_prefix(None)) in KEYS or rest.endswith(endings):
            continue
        if key.startswith(others):  # that store warns of it
            continue
        close = difflib.get_close_matches(rest, KEYS, 1, 0.0)[0]
        messages.UNKNOWN_KEY.log(key, key=key, meant=prefix + close)


def _prefixes_of_other_stores(config: Iterable[str], prefix: str) -> tuple[str, ...]:
    """Return what the keys begin with of the named stores that have a root."""
    return tuple(
        key.removesuffix("ROOT_FOLDER")
        for key in config
        if isinstance(key, str) and key.startswith(prefix) and key.endswith("_ROOT_FOLDER")
        if key != prefix + "ROOT_FOLDER"
    )
