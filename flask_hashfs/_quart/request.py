"""Quart's request, with a body that pushes back and forms that stream into the store."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from quart.formparser import FormDataParser
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException

from .._http.multipart import with_boundary
from .._storage.writer import Writer
from .body import UploadBody
from .forms import UploadFormParser, close_at_once, close_writers
from .workers import Workers, undisturbed

T = TypeVar("T")


class UploadRequest(Request):
    """A request whose body pushes back, and whose ``body_timeout`` is about silence.

    Stock Quart gives the whole body that many seconds, however steadily it moves.
    """

    body_class = UploadBody
    workers: Workers
    send_informational: Callable[[int, list[tuple[bytes, bytes]]], Awaitable[None]] | None = None
    """Sends an interim response, where the server takes one."""

    _timed = 0
    """How many wait for the body: meanwhile `body_timeout` is None, as stock code waits for it."""

    _form_error: HTTPException | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._writers: list[Writer] = []
        if isinstance(self.body, UploadBody):
            self.body.bind(self)

    @property
    def body_timeout(self) -> int | None:
        """Seconds of silence after which reading the body ends in a 408; None: no end."""
        return None if self._timed else self._body_timeout

    @body_timeout.setter
    def body_timeout(self, value: int | None) -> None:
        self._body_timeout = value

    def patience(self, *, always: bool = False) -> float | None:
        """Return the seconds of silence allowed to who waits for the body now."""
        return self._body_timeout if self._timed or always else None

    async def get_data(
        self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False
    ) -> Any:
        self._timed += 1
        try:
            return await super().get_data(cache, as_text, parse_form_data)
        finally:
            self._timed -= 1

    async def _load_form_data(self) -> None:
        if self._form_error is not None:  # the rest of the body is no form
            raise self._form_error
        self._timed += 1
        try:
            await super()._load_form_data()
        except HTTPException as error:
            self._form_error = error
            raise
        finally:
            self._timed -= 1

    @property
    def mimetype_params(self) -> dict[str, str]:
        """Parameters of the Content-Type, with a boundary that needs no quotes."""
        return with_boundary(super().mimetype_params, self.headers.get("Content-Type", ""))

    def make_form_data_parser(self) -> FormDataParser:
        parser = super().make_form_data_parser()
        if isinstance(parser, UploadFormParser):
            parser.workers, parser.writers = self.workers, self._writers
        return parser

    async def close(self) -> None:
        if self._writers:
            left = close_at_once(self._writers)
            if left:
                # Quart would make an error of a cancellation that ends the teardown of its context.
                await undisturbed(close_writers(self.workers, left))
        if sys.exception() is None:  # an error that is on its way needs its traceback
            self._let_go_of_frames()
        await super().close()

    def _let_go_of_frames(self) -> None:
        """Let the errors of the body keep nothing of this request, once they have been answered.

        An error refers to the frames that it came through, and they to the error: Quart's has it
        as the answer. The uploads of thousands of clients that vanish would be left to the garbage
        collector, which stops the event loop for as long as it takes to look at them all.
        """
        told = self.body.error if isinstance(self.body, UploadBody) else None
        for error in (self._form_error, told):
            if error is not None:
                error.__traceback__ = None


def upload_request_class(base: type[Request], workers: Workers) -> type[Request]:
    """Return `base` with the body, the limits and the forms of `UploadRequest`.

    Args:
        base: The app's own; a form parser of its own stays.
        workers: Where forms are parsed.
    """
    if issubclass(base, UploadRequest):
        return base
    composed = compose(UploadRequest, base)
    composed.workers = workers
    composed.body_class = compose(UploadBody, base.body_class)
    if base.form_data_parser_class is FormDataParser:
        composed.form_data_parser_class = UploadFormParser
    return composed


def compose(ours: type[T], base: type[Any]) -> type[T]:
    """Return a new class, so that what an app sets on its own reaches no other app."""
    bases = (ours,) if issubclass(ours, base) else (ours, base)
    return cast("type[T]", type(base.__name__, bases, {"__module__": base.__module__}))
