"""Flask's request class: its body is checked, and its multipart forms go into the app's store."""

from __future__ import annotations

import importlib
from typing import Any, TypeVar, cast

from flask import Flask, current_app
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.formparser import FormDataParser
from werkzeug.utils import cached_property
from werkzeug.wrappers import Request

from .._app.extension import UploadWriters
from .._http.form_upload import FormUpload
from .._http.multipart import FilePart, Limits, with_boundary
from .._storage.beside import LARGE, second_thread
from .._storage.writer import UploadStream, Writer
from .body import READ_SIZE, Body, open_body

_HEAD_READ = 16 * 1024  # a server waits for all of a larger read, and its client may have stopped

RequestT = TypeVar("RequestT", bound=Request)


def upload_request_class(base: type[RequestT]) -> type[RequestT]:
    """Return a subclass of an app's request class `base` that streams uploads into its store.

    What the app has made its own stays so: its ``stream``, ``make_form_data_parser``,
    ``form_data_parser_class`` or ``_get_file_stream`` win, now and in later subclasses.
    """
    if issubclass(base, _Uploads):
        return base
    for name in ("http_sf", "python_multipart.multipart"):  # a request may find no descriptor left
        importlib.import_module(name)
    mixins: list[type[Request]] = [_Uploads]
    if base.stream is Request.stream:
        mixins.append(_CheckedBody)
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    return cast("type[RequestT]", type(base.__name__, (*mixins, base), names))


class _CheckedBody(Request):
    """A request whose stream raises rather than ends early or goes on over the limit."""

    @cached_property
    def stream(self) -> Any:
        if self.shallow:
            return super().stream
        return open_body(self.environ, self.max_content_length)

    def get_data(self, *args: Any, **kwargs: Any) -> Any:
        data = super().get_data(*args, **kwargs)
        kept, stream = self.__dict__.get("_cached_data"), self.__dict__.get("stream")
        if kept is not None and isinstance(stream, Body):
            stream.keep(kept)  # a later put of the stream finds nothing left in it
        return data


class _Uploads(Request):
    """A request that parses multipart forms into the app's store."""

    _writers: list[Writer] | None = None
    _form_error: HTTPException | None = None

    @property
    def mimetype_params(self) -> dict[str, str]:
        """Parameters of the Content-Type, with a boundary that needs no quotes."""
        return with_boundary(super().mimetype_params, self.headers.get("Content-Type", ""))

    def make_form_data_parser(self) -> FormDataParser:
        parser = super().make_form_data_parser()
        new_writer = UploadWriters.of(_app()) if current_app else None
        if new_writer is None or not _is_stock(parser):
            return parser
        if self._writers is None:
            self._writers = []
        return _UploadParser(parser, new_writer, self._writers)

    def _load_form_data(self) -> None:
        if self._form_error is not None:  # the rest of the body is no form
            raise self._form_error
        try:
            super()._load_form_data()
        except HTTPException as error:
            if "stream" in self.__dict__:
                self._form_error = error
            raise

    def close(self) -> None:
        try:
            super().close()
        finally:
            if isinstance(stream := self.__dict__.get("stream"), Body):
                stream.leave()
            for writer in self._writers or ():
                writer.close()


class _UploadParser(FormDataParser):
    """Parses multipart forms with `MultipartDecoder`, and any other as `stock` does."""

    def __init__(
        self, stock: FormDataParser, new_writer: UploadWriters, writers: list[Writer]
    ) -> None:
        super().__init__(
            stock.stream_factory,
            stock.max_form_memory_size,
            stock.max_content_length,
            stock.cls,
            stock.silent,
            max_form_parts=stock.max_form_parts,
        )
        self._new_writer = new_writer
        self._writers = writers

    def parse(
        self,
        stream: Any,
        mimetype: str,
        content_length: int | None,
        options: dict[str, str] | None = None,
    ) -> tuple[Any, MultiDict[str, str], MultiDict[str, FileStorage]]:
        if mimetype != "multipart/form-data":
            return super().parse(stream, mimetype, content_length, options)
        fields, files = self._parse_upload(stream, content_length, options or {})
        return stream, self.cls(fields), self.cls(files)

    def _parse_upload(
        self, stream: Any, content_length: int | None, options: dict[str, str]
    ) -> tuple[list[tuple[str, str]], list[tuple[str, FileStorage]]]:
        body = stream if isinstance(stream, Body) else None
        if body is not None and not body.is_untouched():
            return [], []  # as in stock Flask, whose app has read the body itself
        beside = None
        if content_length is None or content_length >= LARGE:
            beside = second_thread()
        form = FormUpload(
            options.get("boundary", ""),
            self._new_writer,
            self._writers,
            Limits(None, self.max_form_memory_size, self.max_form_parts),
            content_length=content_length,
            judges=bool(self._new_writer.accepted),
            beside=beside,
        )
        try:
            while data := stream.read(_HEAD_READ if form.awaits_head else READ_SIZE):
                form.feed(data)
                if body is not None and body.is_whole and form.is_complete:
                    break  # else the server would be asked once more, for nothing
            fields, parts = form.finish()
        finally:
            if body is not None:
                body.mark_taken()
            form.close()
            if beside is not None:
                beside.shutdown()
        return fields, [(part.name, _file_storage(part)) for part in parts]


def _app() -> Flask:
    app: Flask = cast(Any, current_app)._get_current_object()  # the proxy is slow
    return app


def _is_stock(parser: FormDataParser) -> bool:
    """Tell whether a parser is what Werkzeug makes of a request class nobody has changed."""
    factory = getattr(parser.stream_factory, "__func__", None)
    return type(parser) is FormDataParser and factory is Request._get_file_stream


def _file_storage(part: FilePart[Writer]) -> FileStorage:
    stream: Any = UploadStream(part.writer)
    return FileStorage(stream, part.filename, part.name, headers=part.headers)
