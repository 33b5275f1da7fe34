"""One put into a store, step by step: take the content, check it, have it inspected, publish it.

What happens, in order, and where:

1. `checks.before`: the extension and the arguments, before any byte is read.
2. `Put.take`: `_storage.sources` reads, `_storage.writer` hashes and writes to the spool.
3. `checks.complete`: size, type and digest of the whole.
4. `Put.inspect`: the inspectors look at content that is new.
5. `Put.publish`: `Backend.commit`. In a folder (`_local.backend`) `_place` makes stored content
   young, or gives new content its path: `Writer.publish`, `TemporaryFile.publish`, and there
   the file is sealed (mode, fdatasync) and linked (linkat).
6. Between linkat and the answer: `LocalBackend._sync` waits for the folders that lead to the path,
   `commit` releases the spool and makes the `HashAddress`, `Put.close` closes the writer, and the
   extension sends `file_stored`.

Until 5 a failure leaves nothing. After it the content is stored, even if the answer is lost.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from werkzeug.datastructures import FileStorage

from .._storage import sources
from .._storage.full import full_is_told
from .._storage.names import Extension
from .._storage.predecessor import HashAddress
from .._storage.writer import UploadStream, Writer
from . import checks

if TYPE_CHECKING:
    from .store import HashFS


class Inspection(Protocol):
    """Has new content looked at before it is published."""

    def __bool__(self) -> bool:
        """Tell whether anybody looks."""
        ...

    def __call__(self, opens: Callable[[], BinaryIO], address: HashAddress) -> None:
        """Have them look at what `opens` opens and at the address that it is to have."""
        ...


class Put:
    """One put into `store`; the steps come in this order, and `close` in any case.

    Args:
        store: Where it goes.
        extension: Added to the stored file's name, or `AUTO`.
        expected: The hex id that the content must have, or None.
        max_size: Bytes allowed, beside the store's own limit, or None.
        accept: Types allowed, beside the store's own list, or None.

    Raises:
        ConfigError: `accept` is not a list of types, or no detector is installed.
        InvalidExtensionError: `extension` cannot be part of a name.
        TypeError: `expected` is not a str.
    """

    __slots__ = ("_accepted", "_expected", "_limit", "_owned", "_store", "_suffix", "_writer")

    def __init__(
        self,
        store: HashFS,
        extension: Extension,
        expected: str | None,
        max_size: int | None = None,
        accept: str | Iterable[str] | None = None,
    ) -> None:
        self._suffix: checks.Suffix = ""
        if extension is not None or expected is not None:
            self._suffix = checks.before(extension, expected)
        self._accepted = checks.EVERYTHING
        if accept is not None or store.accept is not None:
            self._accepted = checks.accepted(store.accept, checks.accept_list(accept))
        self._store = store
        self._expected = expected
        limit = store.max_size
        self._limit = limit if max_size is None else checks.smaller(max_size, limit)
        self._writer: Writer | None = None
        self._owned = False

    def take(self, file: Any) -> None:
        """Take the content of what `HashFS.put` is given, and check it.

        Raises:
            FileTooLargeError: The content is larger than allowed.
            UnsupportedTypeError: The content is of no accepted type.
            DigestMismatchError: The content is not the expected one.
        """
        if isinstance(file, FileStorage):
            file = file.stream
        if isinstance(file, UploadStream) and self._store.backend.takes(file.writer):
            self.check(file.writer)
            return
        writer = self.begin()
        sources.copy(file, writer)
        self.check(writer)

    def run(self, file: Any) -> HashAddress:
        """Take content, have it inspected and publish it, here and now."""
        self.take(file)
        if self._store.inspection:
            self.inspect()
        return self.publish()

    @property
    def size(self) -> int:
        """Bytes of the content that was taken."""
        return self._checked.size

    def begin(self) -> Writer:
        """Return a writer of the put's own, which refuses what the put does not accept."""
        writer = self._store.backend.new_writer(self._limit)
        if self._accepted.lists:
            checks.watch(writer, self._accepted)
        self._writer, self._owned = writer, True
        return writer

    @property
    def awaits_head(self) -> bool:
        """Whether the next bytes decide if the content is of an accepted type."""
        return self._writer is not None and self._writer.awaits_head

    def check(self, writer: Writer) -> None:
        """Check the whole content that a writer took, but for the inspectors."""
        self._writer = writer
        self._suffix = checks.complete(
            writer, self._suffix, self._expected, self._limit, self._accepted
        )

    @property
    def address(self) -> HashAddress:
        """The address that the content is to have."""
        backend = self._store.backend
        return backend.address_of(backend.layout.path_of(self._checked.id, str(self._suffix)))

    @full_is_told
    def must_be_inspected(self) -> bool:
        """Tell whether anybody looks at new content, and this is new."""
        store = self._store
        return bool(store.inspection) and not store.backend.has(self._checked.id)

    def open(self) -> BinaryIO:
        """Open the content to read it from its start."""
        return cast(BinaryIO, self._checked.reader())

    def inspect(self) -> None:
        """Have new content looked at, here and now.

        Raises:
            HTTPException: An inspector refuses it; `RejectedError` is one.
        """
        inspection = self._store.inspection
        if inspection and self.must_be_inspected():
            inspection(self.open, self.address)

    def publish(self, *, sync: bool = True) -> HashAddress:
        """Give the content its address; `sync` waits for the disk where the store does."""
        backend, writer = self._store.backend, self._writer
        assert writer is not None
        try:
            return backend.commit(writer, str(self._suffix), sync=sync)
        except OSError as error:
            if error.errno != errno.EXDEV or self._owned:
                raise
        # It is on the same device as the store, but mounted twice.
        with backend.new_writer(None) as copied:
            with writer.reader() as content:
                sources.copy(content, copied)
            copied.finish()
            return backend.commit(copied, str(self._suffix), sync=sync)

    def close(self) -> None:
        """Give up what was not published of the put's own content."""
        if self._owned and self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Put:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _checked(self) -> Writer:
        assert self._writer is not None
        return self._writer
