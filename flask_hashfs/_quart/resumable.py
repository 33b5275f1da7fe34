"""The Quart driver of resumable uploads: it carries out the steps of a flow in the request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from quart import Response, current_app, g, make_response, request

from .._app.resumable import (
    READ_SIZE,
    AddHeaders,
    Answer,
    Call,
    Hook,
    Incoming,
    Inform,
    Inspect,
    MakeAnswer,
    Pause,
    Receive,
    Step,
    Tell,
    UploadFlow,
    Watch,
    add_headers,
)
from .._http.framing import body_length
from .._http.resumable import HeaderList, Reply
from .._storage.pending import StaleUploadError, Taken
from .batch import Batch
from .body import UploadBody
from .request import UploadRequest
from .workers import Workers, undisturbed

if TYPE_CHECKING:
    from .._storage.predecessor import HashAddress

_WORTH_AT_MOST = 2 * 1024 * 1024
"""Bytes of a fast client that are taken together, if they come within `COMPANY` seconds."""

_KEPT_FOR = 0.05
"""Seconds that calls which follow each other keep a thread, while others may wait for one."""


async def respond(
    flow: UploadFlow,
    incoming: Incoming,
    workers: Workers,
    tell: Callable[[HashAddress], Awaitable[None]],
    inspect: Callable[[Callable[[], BinaryIO], HashAddress], Awaitable[None]],
) -> Response:
    """Answer the current request to a resumable upload.

    Args:
        flow: What to do, step by step.
        incoming: The request.
        workers: Where calls that block are made.
        tell: Sends the signal that content was stored.
        inspect: Has the inspectors look at content.
    """
    reply = await _Driver(workers, tell, inspect).run(flow.run(incoming))
    response_class: Any = current_app.response_class
    response: Response = response_class(reply.body, reply.status)
    del response.headers["Content-Type"]
    response.headers.extend(reply.headers)
    return response


def incoming(location: str, id: str | None) -> Incoming:
    """Return the current request as a flow takes it.

    Args:
        location: The path at which uploads are created.
        id: The upload it is sent to, or None.
    """
    fields = request.headers
    coding, length = fields.get("Transfer-Encoding"), fields.get("Content-Length")
    size = body_length(coding, length, request.http_version)
    return Incoming(request.method, fields, size, id, location)


class _Driver:
    def __init__(
        self,
        workers: Workers,
        tell: Callable[[HashAddress], Awaitable[None]],
        inspect: Callable[[Callable[[], BinaryIO], HashAddress], Awaitable[None]],
    ) -> None:
        self._workers = workers
        self._tell = tell
        self._inspect = inspect
        self._body = cast(UploadBody, request.body)
        self._body.lift_limit()
        self._loop = asyncio.get_running_loop()
        self._worth = READ_SIZE  # bytes that are worth a call: more and more, while they come fast

    async def run(self, steps: Generator[Step, Any, Reply]) -> Reply:
        # A client that goes away is told by its body, as what has arrived of it is kept.
        with self._body.reading():
            await asyncio.sleep(0)  # the body takes what has arrived together with the head
            return await self._run(steps)

    async def _run(self, steps: Generator[Step, Any, Reply]) -> Reply:
        next = _go_on(steps)
        while not isinstance(next, Reply):
            try:
                if isinstance(next, Receive):
                    has_arrived = bool(await self._body.prompt_batch(self._worth))
                    next = await self._work(steps, next) if has_arrived else _go_on(steps, False)
                elif isinstance(next, Call) and not next.is_cleanup:
                    next = await self._work(steps, next)
                else:
                    next = _go_on(steps, await self._carry_out(next))
            except BaseException as error:
                next = _go_on(steps, error=error)
        return next

    async def _work(self, steps: Generator[Step, Any, Reply], next: Step) -> Step | Reply:
        """Let a worker go on with a flow, and take with it what has arrived of the body."""
        work = _Work(steps, self._watch)
        step = await self._workers.run(work, next, late_argument=self._take)
        if work.batch.size:
            self._body.give_back(work.batch)
        return step

    def _take(self) -> tuple[Batch, bool]:
        batch = self._body.take()
        if batch.size >= self._worth:
            self._worth = min(16 * self._worth, _WORTH_AT_MOST)
        return batch, self._body.ended

    async def _carry_out(self, step: Step) -> Any:
        match step:
            case Call(function):
                return await undisturbed(self._workers.run(function))
            case Hook(function, upload):
                if iscoroutinefunction(function):
                    return await function(upload)
                result = await self._workers.run(function, upload)
                return await result if isawaitable(result) else result
            case MakeAnswer(value):
                return await _answer(value)
            case Inspect(opens, address):
                return await self._inspect(opens, address)
            case Tell(address):
                return await self._tell(address)
            case Inform(headers):
                return await _inform(headers)
            case AddHeaders(headers):
                return add_headers(g, headers)
            case Watch(taken):
                return self._watch(taken)
            case Pause(seconds):
                return await asyncio.sleep(seconds)

    def _watch(self, taken: Taken) -> None:
        """Have a request that is taken over told so; in any thread."""
        loop, body = self._loop, self._body

        def interrupt() -> None:
            try:
                loop.call_soon_threadsafe(body.interrupt, StaleUploadError())
            except RuntimeError:  # the loop is closed, and the request with it
                pass

        taken.on_stale = interrupt
        if taken.is_stale:
            interrupt()


def _go_on(
    steps: Generator[Step, Any, Reply], result: Any = None, error: BaseException | None = None
) -> Step | Reply:
    """Let a flow go on with what came of its last step; return its next one, or its reply.

    A flow that has ended already raises the error.
    """
    try:
        return steps.send(result) if error is None else steps.throw(error)
    except StopIteration as stop:
        reply: Reply = stop.value
        return reply


class _Work:
    """What a worker does for a flow, until the flow needs something else than a worker.

    The thread is given back between two calls once they have taken `_KEPT_FOR` seconds.

    A job that has begun runs to its end, but where the request was cancelled meanwhile nobody gets
    what is next then. So a cleanup is never left to the caller: it is made here.

    Attributes:
        batch: What is left of the bytes that have arrived.
    """

    def __init__(self, steps: Generator[Step, Any, Reply], watch: Callable[[Taken], None]) -> None:
        self._steps = steps
        self._watch = watch
        self._ended = False
        self.batch = Batch()

    def __call__(self, next: Step | Reply, arrived: tuple[Batch, bool]) -> Step | Reply:
        self.batch, self._ended = arrived
        until = time.monotonic() + _KEPT_FOR
        is_first = True
        while carry_out := self._carrier(next):
            is_cleanup = isinstance(next, Call) and next.is_cleanup
            if not (is_first or is_cleanup or time.monotonic() < until):
                break
            is_first = False
            try:
                result = carry_out()
            except BaseException as error:
                next = _go_on(self._steps, error=error)
            else:
                next = _go_on(self._steps, result)
        return next

    def _carrier(self, step: Step | Reply) -> Callable[[], Any] | None:
        """Return what carries a step out in this thread, or None where nothing here does."""
        if isinstance(step, Call):
            return step.function
        if isinstance(step, Watch):
            return partial(self._watch, step.taken)
        if isinstance(step, Receive) and (self.batch.size or self._ended):
            return partial(self._receive, step.function)
        return None

    def _receive(self, function: Callable[[Batch], None]) -> bool:
        batch, self.batch = self.batch, Batch()
        if batch.size:
            function(batch)
        return batch.size > 0


async def _answer(value: Any) -> Answer:
    response = cast(Response, await make_response(value))
    body = await response.get_data(as_text=False)
    return Answer(response.status_code, tuple(response.headers), body)


async def _inform(headers: HeaderList) -> None:
    """Send an interim response, where the server takes one."""
    send = cast(UploadRequest, request).send_informational
    if send is not None:
        await send(104, [(name.lower().encode(), value.encode()) for name, value in headers])
