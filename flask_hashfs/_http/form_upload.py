"""A multipart form on its way into a store, whoever reads its body; no I/O of its own.

A framework reads the body and feeds it; how much it reads at a time depends on `awaits_head`::

    form = FormUpload(boundary, new_writer, writers, limits, content_length=…, judges=…)
    while data := read(little if form.awaits_head else much):
        form.feed(data)
    fields, files = form.finish()
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Generic

from .multipart import FilePart, Limits, MultipartDecoder, SinkT


class FormUpload(Generic[SinkT]):
    """One multipart form.

    Args:
        boundary: The boundary parameter of the body's Content-Type, or nothing.
        new_writer: Makes the writer of one file.
        writers: Gets every writer that is made, for their owner to close in the end.
        limits: What the form may ask for.
        content_length: Bytes of the body, as far as it is announced.
        judges: Whether a file may be refused by its head.
        beside: Writes large pieces to the disk while the feeding thread hashes them.
    """

    def __init__(
        self,
        boundary: str,
        new_writer: Callable[[], SinkT],
        writers: list[SinkT],
        limits: Limits,
        *,
        content_length: int | None,
        judges: bool,
        beside: Executor | None = None,
    ) -> None:
        self._boundary = boundary
        self._new_writer = new_writer
        self._writers = writers
        self._limits = limits
        self._content_length = content_length
        self._judges = judges
        self._beside = beside
        self._decoder: MultipartDecoder[SinkT] | None = None

    @property
    def awaits_head(self) -> bool:
        """Whether to feed what little is there, since it may decide about a file.

        A file of a wrong type is refused by its head even if the client stops behind it.
        """
        return self._judges and (self._decoder is None or self._decoder.awaits_head)

    def feed(self, data: bytes) -> None:
        """Parse, hash and write one batch of the body, which is not empty.

        Raises:
            BadRequest: The boundary is missing or cannot be one, or the body is not well-formed.
            RequestEntityTooLarge: A field, or the number of parts, is over its limit.
            FileTooLargeError: A file is over its limit.
            UnsupportedTypeError: A file is of no accepted type.
            OSError: A writer could not keep its bytes.
        """
        self._begun().feed(data)

    @property
    def is_complete(self) -> bool:
        """Whether nothing more of the body matters to the form."""
        return self._decoder is not None and self._decoder.is_complete

    def finish(self) -> tuple[list[tuple[str, str]], list[FilePart[SinkT]]]:
        """Return the fields and the files, in their order; a request without a body has none.

        Raises:
            BadRequest: The boundary is missing or cannot be one.
            IncompleteUploadError: The body ended before its final boundary.
        """
        if self._decoder is None and self._content_length is None:
            return [], []
        return self._begun().finish()

    def close(self) -> None:
        """Close every writer that `finish` has not handed over."""
        if self._decoder is not None:
            self._decoder.close()

    def _begun(self) -> MultipartDecoder[SinkT]:
        if self._decoder is None:
            self._decoder = MultipartDecoder(
                self._boundary,
                # A method of this form would make a cycle, which only the garbage collector frees.
                partial(_kept, self._new_writer, self._writers),
                self._limits,
                self._beside,
            )
        return self._decoder


def _kept(new_writer: Callable[[], SinkT], writers: list[SinkT]) -> SinkT:
    writer = new_writer()
    writers.append(writer)
    return writer
