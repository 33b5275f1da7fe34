"""Checks: what a put has to pass, and in which order, before its content gets a path.

1. The extension and the form of the other arguments, before any byte is read: `before`.
2. The size, while the bytes arrive: the writer knows its limit. Content that arrived for
   another limit is measured when it is complete.
3. The type, as soon as the beginning of the content tells: `watch`, or else `complete`.
4. The expected digest, once the content is complete: `complete`.
5. The type where only the whole tells, as with archives: `complete`.
6. The inspectors, for content that is not stored yet: the store calls them.

The first check that fails is the answer, and nothing is stored. Only then does a backend see the
content.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from .._http.accept import covers, parse_types
from .._http.media import extension_of, guess_mimetype
from .._http.sniffing import HEAD_SIZE, ZIP, ZIP_TYPES, first_bytes_type
from .._storage.names import AUTO, Auto, Extension, dotted
from .._storage.writer import Writer
from ..exceptions import (
    ConfigError,
    DigestMismatchError,
    FileTooLargeError,
    UnsupportedTypeError,
)
from . import types

Suffix: TypeAlias = str | Auto
"""An extension with its dot, or nothing, or `AUTO`."""


@functools.lru_cache(maxsize=512)  # the same few types come again with each upload
def _allow(lists: tuple[tuple[str, ...], ...], mimetype: str) -> bool:
    return all(covers(each, mimetype) for each in lists)


@functools.lru_cache(maxsize=512)
def _allow_extension(lists: tuple[tuple[str, ...], ...], extension: str) -> bool:
    return _allow(lists, guess_mimetype("x" + extension))


@dataclass(frozen=True, slots=True)
class Accepted:
    """The types that a put accepts: each of these lists has to allow them; without lists, all."""

    lists: tuple[tuple[str, ...], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lists)

    def check(self, mimetype: str) -> None:
        """Refuse a type that is not accepted.

        Raises:
            UnsupportedTypeError: It is not.
        """
        if _allow(self.lists, mimetype):
            return
        refusing = next(each for each in self.lists if not covers(each, mimetype))
        raise UnsupportedTypeError(mimetype, refusing)

    def check_head(self, mimetype: str) -> None:
        """Refuse what the beginning of a content tells, if nothing more can make it acceptable.

        Raises:
            UnsupportedTypeError: It is not accepted, whatever follows.
        """
        if mimetype != ZIP or not any(_allow(self.lists, each) for each in ZIP_TYPES):
            self.check(mimetype)


EVERYTHING = Accepted()


def accepted(*lists: Collection[str] | None) -> Accepted:
    """Return what all of these lists allow; None allows everything."""
    given = tuple([tuple(each) for each in lists if each is not None])
    return Accepted(given) if given else EVERYTHING


def accept_list(accept: object) -> tuple[str, ...] | None:
    """Return the types that one put is to accept, or None for all of them.

    Raises:
        ConfigError: No list of MIME types, or no detector is installed to tell them.
    """
    if accept is None:
        return None
    try:
        listed = parse_types(accept)
    except ValueError as error:
        raise ConfigError(f"accept has {error.args[0]!r}, which is not a MIME type") from None
    if not listed:
        raise ConfigError("accept has no type, so that nothing could be put")
    types.detector()
    return listed


def smaller(one: int | None, other: int | None) -> int | None:
    """Return the smaller of two limits, of which None is none."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def before(extension: Extension, expected: str | None) -> Suffix:
    """Check what can be told before any byte is read, and return the extension with its dot.

    Raises:
        ConfigError: `AUTO`, but no detector is installed.
        InvalidExtensionError: `extension` cannot be part of a name.
        TypeError: `expected` is not a str.
    """
    suffix: Suffix = ""
    if isinstance(extension, Auto):
        types.detector()
        suffix = AUTO
    elif extension is not None:
        suffix = dotted(extension)
    if expected is not None and not isinstance(expected, str):
        raise TypeError(f"expected must be a hex id, not {type(expected).__name__}")
    return suffix


def watch(writer: Writer, types_accepted: Accepted) -> Writer:
    """Let a writer refuse content as soon as its beginning is not of an accepted type."""
    if types_accepted.lists:
        writer.look_at_head(
            HEAD_SIZE,
            functools.partial(_judge, writer, types_accepted),
            functools.partial(_judge_first, writer, types_accepted),
        )
    return writer


def _judge(writer: Writer, types_accepted: Accepted, head: bytes) -> None:
    writer.head_type = types.type_of_head(head)
    types_accepted.check_head(writer.head_type)


def _judge_first(writer: Writer, types_accepted: Accepted, first: bytes) -> bool:
    """Judge by the first bytes of a content, if they tell its type; return whether they do."""
    mimetype = first_bytes_type(first)
    if mimetype is None:
        return False
    types.detector()  # it is missed here, too, and not only for other types
    writer.head_type = mimetype
    types_accepted.check(mimetype)
    return True


def complete(
    writer: Writer,
    suffix: Suffix,
    expected: str | None,
    limit: int | None,
    types_accepted: Accepted = EVERYTHING,
) -> str:
    """End the content that `writer` took, and check it.

    Args:
        writer: Of the content; it is finished here.
        suffix: The extension asked for.
        expected: The hex id that the content must have, in any case, or None.
        limit: Bytes allowed, or None; the writer's own limit has held already.
        types_accepted: What the put accepts.

    Returns:
        The extension that the content gets.

    Raises:
        ValueError: The writer is closed.
        FileTooLargeError: The content has more than `limit` bytes.
        UnsupportedTypeError: The content is of no accepted type.
        DigestMismatchError: The content is not the `expected` one.
    """
    if writer.closed:
        raise ValueError("this content was given up, or its stream closed")
    if limit is not None and writer.size > limit:
        raise FileTooLargeError(limit)
    needs_type = types_accepted.lists or suffix is AUTO
    if needs_type:
        types_accepted.check_head(_head_type(writer))
    id = writer.finish()
    if expected is not None and expected.lower() != id:
        raise DigestMismatchError(expected, id)
    if not needs_type:
        assert isinstance(suffix, str)
        return suffix
    mimetype = _head_type(writer)
    if mimetype == ZIP:
        with writer.reader() as file:
            mimetype = types.type_of_file(file)
        types_accepted.check(mimetype)
    return _served(suffix, mimetype, types_accepted)


def _head_type(writer: Writer) -> str:
    if writer.head_type is None:
        writer.head_type = types.type_of_head(writer.read_head(HEAD_SIZE))
    return writer.head_type


def _served(suffix: Suffix, mimetype: str, types_accepted: Accepted) -> str:
    """Return the extension under which what is accepted is also what is served."""
    if isinstance(suffix, str) and (not suffix or _allow_extension(types_accepted.lists, suffix)):
        return suffix
    return extension_of(mimetype) or ""
