"""Multipart forms under Quart: hashed and on the store's disk before the view sees them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from quart import current_app
from quart.datastructures import FileStorage
from quart.formparser import FormDataParser, ParserFunc
from werkzeug.datastructures import MultiDict

from .._app.extension import UploadWriters
from .._http.form_upload import FormUpload
from .._http.multipart import FilePart, Limits
from .._storage.upload_memory import MEMORY
from .._storage.writer import UploadStream, Writer
from .batch import Batch
from .body import UploadBody
from .workers import Workers, finished

if TYPE_CHECKING:
    from quart import Quart
    from quart.wrappers import Body

_INLINE = 64 * 1024  # parsed and hashed sooner than another thread would have begun
_PIECE = 256 * 1024
_STRETCH = 4 * 1024 * 1024  # copied in one call of a worker


class UploadedFile(FileStorage):
    """A file of a form; saving it elsewhere does not block the event loop."""

    def __init__(self, workers: Workers, part: FilePart[Writer]) -> None:
        stream = UploadStream(part.writer)
        super().__init__(cast(BinaryIO, stream), part.filename, part.name, headers=part.headers)
        self._workers = workers

    async def save(  # type: ignore[override]
        self, destination: str | os.PathLike[str] | BinaryIO, buffer_size: int = 16384
    ) -> None:
        """Copy what has not been read yet of the file.

        Args:
            destination: A path, or a file open for writing bytes, which stays open.
            buffer_size: Without meaning here; Quart's own has it.

        Raises:
            OSError: It cannot be written.
        """
        copying = self._copy(destination)
        try:
            while await self._workers.run(next, copying):
                pass
        finally:
            await finished(self._workers.run(copying.close))

    def _copy(self, destination: str | os.PathLike[str] | BinaryIO) -> Generator[bool, None, None]:
        """Yield True after each stretch, then False."""
        with _opened(destination) as target:
            left = _STRETCH
            while piece := self.stream.read(_PIECE):
                target.write(piece)
                left -= len(piece)
                if left <= 0:
                    yield True
                    left = _STRETCH
        yield False


class UploadFormParser(FormDataParser):
    """Quart's parser, but for the files of multipart forms, which go to the app's store."""

    workers: Workers
    writers: list[Writer]

    def get_parse_func(self, mimetype: str, options: dict[str, str]) -> ParserFunc | None:
        parse = super().get_parse_func(mimetype, options)
        if parse is FormDataParser._parse_multipart:
            return cast(ParserFunc, type(self)._parse_multipart)
        return parse

    async def _parse_multipart(
        self, body: Body, mimetype: str, content_length: int | None, options: dict[str, str]
    ) -> tuple[MultiDict[str, str], MultiDict[str, FileStorage]]:
        new_writer = UploadWriters.of(_app())
        if new_writer is None or not isinstance(body, UploadBody):
            return await super()._parse_multipart(body, mimetype, content_length, options)
        kind = self.cls or MultiDict
        with body.taking():
            if not body.is_untouched():
                return kind(), kind()  # as in stock Quart, whose app has read the body itself
            form = FormUpload(
                options.get("boundary", ""),
                new_writer,
                self.writers,
                Limits(None, self.max_form_memory_size, self.max_form_parts),
                content_length=content_length,
                judges=bool(new_writer.accepted),
            )
            try:
                await self._feed_all(body, form)
                fields, parts = form.finish()
            except BaseException:
                await close_writers(self.workers, self.writers)
                raise
        return kind(fields), kind([(part.name, UploadedFile(self.workers, part)) for part in parts])

    async def _feed_all(self, body: UploadBody, form: FormUpload[Writer]) -> None:
        """Parse, hash and write one batch in another thread while the next one arrives."""
        fed = 0
        while size := await body.next_batch(form.awaits_head):
            fed += size
            if fed <= _INLINE and MEMORY.has_room(_INLINE):
                _feed(form, body.take())
            else:
                await self.workers.run(_feed, form, late_argument=body.take, when_near=body.gather)


def _feed(form: FormUpload[Writer], batch: Batch) -> None:
    for block in batch.blocks():
        form.feed(block)


async def close_writers(workers: Workers, writers: Iterable[Writer]) -> None:
    """Close what the files of a form were written to, and drop what was never put.

    A worker closes what the event loop would have to wait for.
    """
    left = close_at_once(writers)
    if left:
        await finished(workers.run(_close_all, left))


def close_at_once(writers: Iterable[Writer]) -> list[Writer]:
    """Close those whose closing makes nobody wait, and return the others."""
    return [writer for writer in writers if not _is_closed_at_once(writer)]


def _is_closed_at_once(writer: Writer) -> bool:
    try:
        return writer.close_at_once()
    except OSError:  # its descriptor is gone, but the rest is to be done
        return False


def _close_all(writers: Iterable[Writer]) -> None:
    with ExitStack() as stack:  # each of them, whatever another one raises
        for writer in writers:
            stack.callback(writer.close)


def _opened(
    destination: str | os.PathLike[str] | BinaryIO,
) -> AbstractContextManager[BinaryIO]:
    if isinstance(destination, (str, os.PathLike)):
        return open(destination, "wb")
    return nullcontext(destination)


def _app() -> Quart:
    app: Quart = cast(Any, current_app)._get_current_object()
    return app
