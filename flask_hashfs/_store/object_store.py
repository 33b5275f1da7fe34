"""ObjectStore: a HashFS over a bucket."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from werkzeug.datastructures import Headers

from .._bucket.backend import BucketBackend
from .._http import media, plan
from .._storage.layout import Layout
from .store import HashFS

_DESCRIBED = ("Content-Type", "Cache-Control", "Content-Disposition")


class ObjectStore(HashFS):
    """Content-addressed objects below `url`, with the methods and meanings of `HashFS`.

    Nothing is sent before the first call. Folders do not exist, so ``makepath`` and
    ``remove_empty`` do nothing; paths are URLs such as ``s3://bucket/prefix/a/b/1/2/…``.

    Args:
        url: ``s3://bucket/prefix``, ``gs://…``, ``az://…`` or ``memory://``.
        depth: Number of nested folders in a key.
        width: Characters of each folder's name.
        algorithm: A name that ``hashlib.new`` takes.
        max_size: Bytes that one file may have, or None.
        options: Of the object store, as obstore takes them.
        max_age: Seconds that those who read past the app may cache an object, or None.
        inline_types: Types that are shown rather than downloaded there.

    Raises:
        ConfigError: obstore is not installed, or refuses the URL or an option.
        ValueError: An unknown algorithm, or one whose digests have no fixed length.
    """

    def __init__(
        self,
        url: str,
        depth: int = 4,
        width: int = 1,
        algorithm: str = "sha256",
        *,
        max_size: int | None = None,
        options: Mapping[str, Any] | None = None,
        max_age: int | None = 31536000,
        inline_types: Collection[str] = media.DEFAULT_INLINE_TYPES,
    ) -> None:
        layout = Layout(depth, width, algorithm, "/")
        describe = _Description(layout, max_age, inline_types)
        self.backend = BucketBackend(url, layout, options or {}, describe)
        self.max_size = max_size


@dataclass(frozen=True, slots=True)
class _Description:
    """What the object store tells those who read past the app: what a GET here would say."""

    layout: Layout
    max_age: int | None
    inline_types: Collection[str]

    def __call__(self, key: str) -> dict[str, str]:
        id = self.layout.unshard(key)
        name = id + self.layout.suffix_of(key, id)
        mimetype = media.guess_mimetype(name)
        representation = plan.Representation(
            id=id,
            size=0,
            algorithm=self.layout.algorithm,
            mimetype=mimetype,
            filename=name,
            inline=media.is_inline(mimetype, self.inline_types),
            max_age=self.max_age,
            immutable=True,
            private=False,
        )
        headers = Headers(plan.plan("GET", Headers(), representation).headers)
        return {name: headers[name] for name in _DESCRIBED if name in headers}
