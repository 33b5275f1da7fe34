"""The HASHFS_* keys of an app: their defaults, and what their values may be."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from .._http.media import DEFAULT_INLINE_TYPES
from ..exceptions import ConfigError

logger = logging.getLogger("flask_hashfs")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_MIME_TYPE = re.compile(r"[\w!#$&^.+-]+/(\*|[\w!#$&^.+-]+)", re.ASCII)
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """One store's configuration, checked. The fields are the keys in lower case.

    ``HASHFS_HOST`` and ``HASHFS_PATH_PREFIX`` may change while the app runs, so `url_for` reads
    them from the app; the prefix here is the one the file route was registered with.
    """

    host: str | None
    path_prefix: str
    root_folder: str
    depth: int
    width: int
    algorithm: str
    file_mode: int | None
    dir_mode: int
    fsync: bool
    max_file_size: int | None
    stream_uploads: bool
    serve_files: bool
    max_age: int | None
    inline_types: tuple[str, ...]
    accel_redirect: str | None
    worker_threads: int
    serve_redirect: bool
    store_options: Mapping[str, Any]


DEFAULTS: Mapping[str, object] = {
    "HOST": None,
    "PATH_PREFIX": "",
    "ROOT_FOLDER": None,
    "DEPTH": 4,
    "WIDTH": 1,
    "ALGORITHM": "sha256",
    "FILE_MODE": 0o664,
    "DIR_MODE": 0o755,
    "FSYNC": True,
    "MAX_FILE_SIZE": None,
    "STREAM_UPLOADS": True,
    "SERVE_FILES": False,
    "MAX_AGE": 31536000,
    "INLINE_TYPES": DEFAULT_INLINE_TYPES,
    "ACCEL_REDIRECT": None,
    "WORKER_THREADS": 8,
    "SERVE_REDIRECT": False,
    "STORE_OPTIONS": {},
}


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
    for key, default in DEFAULTS.items():
        config.setdefault(prefix + key, default)
    values: dict[str, Any] = {}
    for field in fields(StoreConfig):
        key = prefix + field.name.upper()
        values[field.name] = _CHECKS[field.name](key, config[key])
    loaded = StoreConfig(**values)
    if loaded.serve_files and not loaded.path_prefix.strip("/"):
        _refuse(
            f"{prefix}PATH_PREFIX", loaded.path_prefix, 'a path such as "/files" to serve files at'
        )
    return loaded


def _warn_of_misspelt_keys(config: Iterable[str], prefix: str) -> None:
    """Log each key that no store can have: a limit that is misspelt is a limit that is missing."""
    for key in config:
        if isinstance(key, str) and key.startswith(prefix):
            rest = key.removeprefix(prefix)
            if rest not in DEFAULTS and not rest.endswith(tuple(f"_{each}" for each in DEFAULTS)):
                close = difflib.get_close_matches(rest, DEFAULTS, 1, 0.0)[0]
                logger.warning("%s is no key of Flask-HashFS; is %s meant?", key, prefix + close)


def _refuse(key: str, value: object, wanted: str) -> NoReturn:
    raise ConfigError(f"{key} is {value!r}, but must be {wanted}")


def _root_folder(key: str, value: object) -> str:
    if not value:
        raise ConfigError(f"{key} must be set: the folder that files are stored in")
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    return path if isinstance(path, str) else _refuse(key, value, "a path, as str or PathLike")


def _path_prefix(key: str, value: object) -> str:
    if value is None:
        raise ConfigError(f'{key} must be set: "" or a path with a leading slash')
    if not isinstance(value, str) or (value and not value.startswith("/")):
        _refuse(key, value, "empty, or start with a leading slash")
    if "<" in value or ">" in value:
        _refuse(key, value, "a path without < and >")
    return value


def _optional_text(wanted: str, start: str = "") -> Callable[[str, object], str | None]:
    def check(key: str, value: object) -> str | None:
        if value is None or (isinstance(value, str) and value.startswith(start)):
            return value or None
        _refuse(key, value, f"None or {wanted}")

    return check


def _integer(least: int, unit: str, optional: bool = False) -> Callable[[str, object], int | None]:
    wanted = f"a whole number of {unit}, {least} or more" + (", or None" if optional else "")

    def check(key: str, value: object) -> int | None:
        if optional and value is None:
            return None
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            _refuse(key, value, wanted)
        return value

    return check


def _switch(key: str, value: object) -> bool:
    if isinstance(value, str):
        value = _WORDS.get(value.lower(), value)
    if value in (True, False):  # also 1 and 0
        return bool(value)
    _refuse(key, value, "True or False")


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


def _file_mode(key: str, value: object) -> int | None:
    return None if value is None else _mode(key, value)


def _algorithm(key: str, value: object) -> str:
    try:
        if isinstance(value, str) and hashlib.new(value, usedforsecurity=False).digest_size:
            return value
    except ValueError:
        pass
    _refuse(key, value, 'an algorithm of hashlib with a digest of fixed length, such as "sha256"')


def _inline_types(key: str, value: object) -> tuple[str, ...]:
    types = (value,) if isinstance(value, str) else value
    wanted = 'MIME types such as ["image/*", "text/plain"]'
    if not isinstance(types, Iterable) or isinstance(types, (bytes, Mapping)):
        _refuse(key, value, wanted)
    types = tuple(types)
    for each in types:
        if not isinstance(each, str) or _MIME_TYPE.fullmatch(each.strip()) is None:
            _refuse(key, each, wanted)
    return tuple(each.strip().lower() for each in types)


def _options(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        _refuse(key, value, "a dict of options of the object store")
    return dict(value)


_CHECKS: Mapping[str, Callable[[str, Any], object]] = {
    "host": _optional_text('a URL such as "https://cdn.example.com"'),
    "path_prefix": _path_prefix,
    "root_folder": _root_folder,
    "depth": _integer(0, "folders"),
    "width": _integer(0, "characters"),
    "algorithm": _algorithm,
    "file_mode": _file_mode,
    "dir_mode": _mode,
    "fsync": _switch,
    "max_file_size": _integer(0, "bytes", optional=True),
    "stream_uploads": _switch,
    "serve_files": _switch,
    "max_age": _integer(0, "seconds", optional=True),
    "inline_types": _inline_types,
    "accel_redirect": _optional_text('a path such as "/protected/"', start="/"),
    "worker_threads": _integer(1, "threads"),
    "serve_redirect": _switch,
    "store_options": _options,
}
