"""The request body of the Quart half: what it holds back, what it refuses, what it leaves alone."""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgi import Exchange
from quart import Quart, Request, request, websocket
from quart.asgi import ASGIHTTPConnection
from quart.formparser import FormDataParser
from quart.wrappers import Body
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from flask_hashfs._quart import body as body_module
from flask_hashfs._quart.batch import BATCH
from flask_hashfs._quart.body import Arrival, UploadBody
from flask_hashfs._quart.connection import connection_class
from flask_hashfs._quart.request import upload_request_class
from flask_hashfs._quart.workers import Workers
from flask_hashfs._storage.upload_memory import MOST, UploadMemory
from flask_hashfs.exceptions import IncompleteUploadError

pytestmark = pytest.mark.anyio

PIECE = bytes(64 * 1024)


def make_app(**config: Any) -> Quart:
    app = Quart(__name__)
    app.config.update(MAX_CONTENT_LENGTH=None, **config)
    return installed(app)


def installed(app: Quart) -> Quart:
    app.request_class = upload_request_class(app.request_class, Workers(2))
    app.asgi_http_class = connection_class(app.asgi_http_class)
    return app


class Gate:
    """Holds a view until the test opens it."""

    def __init__(self) -> None:
        self.reached, self._open = asyncio.Event(), asyncio.Event()

    async def wait(self) -> None:
        self.reached.set()
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


async def garbage_of_a_request(app: Quart) -> int:
    """Return how many objects a request leaves that only the garbage collector frees."""

    async def ask() -> None:
        async with Exchange(app) as exchange:
            await exchange.finish()
        assert exchange.status == 200

    await ask()
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            await ask()
        return gc.collect() // 10
    finally:
        gc.enable()


@pytest.mark.slow
async def test_a_request_is_freed_at_its_end_as_in_stock_quart() -> None:
    async def view() -> str:
        return "well"

    stock, ours = Quart(__name__), make_app()
    for app in (stock, ours):
        app.post("/")(view)
    assert await garbage_of_a_request(ours) <= await garbage_of_a_request(stock)


# Backpressure.


async def test_receiving_stops_at_the_mark_and_goes_on_when_the_view_has_drained() -> None:
    app, gate, count = make_app(), Gate(), 4 * MOST // len(PIECE)

    @app.post("/")
    async def view() -> dict[str, int]:
        await gate.wait()
        return {"size": sum([len(data) async for data in request.body])}

    async with Exchange(app) as exchange:
        await exchange.send(*[PIECE] * count)
        await gate.reached.wait()
        while exchange.received < MOST // len(PIECE):
            await asyncio.sleep(0)
        await exchange.settle()
        assert exchange.received == MOST // len(PIECE)
        gate.open()
        await exchange.finish()
    assert exchange.received == count + 1
    assert exchange.body == b'{"size":%d}\n' % (count * len(PIECE))


async def test_no_more_than_the_mark_and_one_message_is_ever_unread() -> None:
    app, most = make_app(), 0

    @app.post("/")
    async def view() -> str:
        nonlocal most
        async for data in request.body:
            most = max(most, len(data))
            for _ in range(30):
                await asyncio.sleep(0)
        return ""

    async with Exchange(app) as exchange:
        await exchange.send(*[PIECE] * (2 * MOST // len(PIECE)))
        await exchange.finish()
    assert most <= MOST + len(PIECE)


@pytest.mark.slow
async def test_the_answer_goes_out_while_the_body_is_unread() -> None:
    app = make_app()

    @app.post("/")
    async def view() -> str:
        return "enough"

    async with Exchange(app) as exchange:
        await exchange.send(*[PIECE] * 30)
    assert (exchange.status, exchange.body) == (200, b"enough")


async def test_an_answer_that_does_not_depend_on_the_body_lets_the_rest_of_it_pass() -> None:
    """A client that sends everything before it reads anything would wait for ever otherwise."""
    app, count = make_app(), 40

    @app.post("/")
    async def view() -> bytes:
        return b"long answer"

    exchange = Exchange(app)
    send = exchange.deliver
    blocked = asyncio.Event()

    async def send_when_all_is_received(message: dict[str, Any]) -> None:
        while exchange.received < count + 1:
            await asyncio.sleep(0)
        blocked.set()
        await send(message)

    exchange.deliver = send_when_all_is_received  # type: ignore[method-assign]
    async with exchange:
        await exchange.send(*[PIECE] * count)
        await exchange.finish()
    assert blocked.is_set()
    assert exchange.body == b"long answer"


@pytest.mark.parametrize("limit", [None, 1000])
async def test_the_answer_ends_when_the_client_has_sent_all(limit: int | None) -> None:
    """Were the connection closed before, his system would throw the answer away."""
    app, count = make_app(), 40
    app.config["MAX_CONTENT_LENGTH"] = limit

    @app.post("/")
    async def view() -> Any:
        return "" if limit is None else await request.get_data(as_text=True)

    async with Exchange(app) as exchange:
        for _ in range(count):
            await exchange.send(PIECE)
            await asyncio.sleep(0.002)
        assert exchange.status == (200 if limit is None else 413)
        assert exchange.sent[-1].get("more_body")
        await exchange.finish()
    assert exchange.received == count + 1
    assert not exchange.sent[-1]["more_body"]


async def test_an_answer_may_stream_the_body_back() -> None:
    app = make_app()

    @app.post("/")
    async def view() -> AsyncIterator[bytes]:
        body = request.body

        async def echo() -> AsyncIterator[bytes]:
            async for data in body:
                yield data

        return echo()

    sent = [bytes([n]) * len(PIECE) for n in range(30)]
    async with Exchange(app) as exchange:
        await exchange.send(*sent)
        await exchange.finish()
    assert exchange.body == b"".join(sent)


@pytest.mark.parametrize("how", ["data", "get_data", "body", "json", "form"])
async def test_a_view_that_wants_the_whole_body_gets_it(how: str) -> None:
    app = make_app(MAX_FORM_MEMORY_SIZE=None)
    size = 4 * MOST

    @app.post("/")
    async def view() -> dict[str, int]:
        match how:
            case "data":
                return {"size": len(await request.data)}
            case "get_data":
                whole = await request.get_data(cache=False)
                assert await request.get_data() == b""
                return {"size": len(whole)}
            case "body":
                whole = await request.body
                assert await request.body == whole
                return {"size": len(whole)}
            case "json":
                return {"size": len(await request.get_json())}
            case _:
                return {"size": len((await request.form)["a"])}

    content = {"json": b'"' + b"x" * size + b'"', "form": b"a=" + b"x" * size}
    types = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
    whole = content.get(how, b"x" * size)
    headers = {"Content-Type": types.get(how, "text/plain"), "Content-Length": str(len(whole))}
    async with Exchange(app, headers=headers) as exchange:
        await exchange.send(*[whole[n : n + 60_000] for n in range(0, len(whole), 60_000)])
        await exchange.finish()
    assert exchange.body == b'{"size":%d}\n' % size


@pytest.mark.slow
async def test_a_wait_for_the_whole_body_that_is_given_up_lowers_the_mark_again() -> None:
    app, gate = make_app(), Gate()

    @app.post("/")
    async def view() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await request.body
        await gate.wait()
        return ""

    async with Exchange(app) as exchange:
        await gate.reached.wait()
        await exchange.send(*[PIECE] * (2 * MOST // len(PIECE)))
        while exchange.received < MOST // len(PIECE):
            await asyncio.sleep(0)
        await exchange.settle()
        assert exchange.received == MOST // len(PIECE)
        gate.open()


async def test_a_batch_is_worth_a_hop_and_the_last_one_what_is_left() -> None:
    app, sizes = make_app(), list[int]()

    @app.post("/")
    async def view() -> str:
        while size := await request.body.batch():  # type: ignore[attr-defined]
            assert len(request.body.take()) == size  # type: ignore[attr-defined]
            sizes.append(size)
        return ""

    async with Exchange(app) as exchange:
        await exchange.send(*[bytes(10_000)] * 200)
        await exchange.finish()
    assert sum(sizes) == 2_000_000
    assert all(BATCH <= size <= MOST + 10_000 for size in sizes[:-1])


@pytest.mark.parametrize("size", [1, MOST - 1, MOST, MOST + 1, 1_049_000, 3_000_000])
@pytest.mark.parametrize("piece", [1_000, len(PIECE), 200_000])
async def test_a_body_of_known_length_comes_in_even_batches(size: int, piece: int) -> None:
    app, sizes = make_app(), list[int]()

    @app.post("/")
    async def view() -> str:
        body = request.body
        assert isinstance(body, UploadBody)
        while count := await body.batch():
            sizes.append(count)
            body.take()
        return ""

    async with Exchange(app, headers={"Content-Length": str(size)}) as exchange:
        whole = bytes(size)
        await exchange.send(*[whole[at : at + piece] for at in range(0, size, piece)])
        await exchange.finish()
    assert sum(sizes) == size
    assert len(sizes) <= math.ceil(size / MOST)
    assert max(sizes) <= MOST + piece


@pytest.mark.parametrize("said", [10, 100_000])
async def test_a_body_longer_than_it_said_is_read_all_the_same(said: int) -> None:
    app = make_app()

    @app.post("/")
    async def view() -> dict[str, int]:
        size, body = 0, request.body
        assert isinstance(body, UploadBody)
        while await body.batch():
            size += len(body.take())
        return {"size": size}

    async with Exchange(app, headers={"Content-Length": str(said)}) as exchange:
        for _ in range(20):
            await exchange.send(PIECE)
            await exchange.settle()
        await exchange.finish()
    assert exchange.body == b'{"size":%d}\n' % (20 * len(PIECE))


# Prompt batches, as a resumable upload takes them: bytes count when they come.


def fed(*pieces: bytes, expected: int | None = None, limit: int | None = None) -> UploadBody:
    body = UploadBody(expected, limit)
    for piece in pieces:
        body.append(piece)
    return body


async def test_a_prompt_batch_does_not_wait_for_company_for_ever() -> None:
    body = fed(b"first")
    assert await body.prompt_batch(len(PIECE)) == 5
    assert bytes(body.take()) == b"first"
    later = asyncio.get_running_loop().call_later(0.01, body.append, b"second")
    assert await body.prompt_batch(len(PIECE)) == 6  # whatever the silence before it
    later.cancel()


async def test_a_prompt_batch_is_handed_out_once_it_is_large_enough() -> None:
    body = fed()
    waiting = asyncio.create_task(body.prompt_batch(len(PIECE)))
    for _ in range(3):
        await asyncio.sleep(0)
    body.append(PIECE)
    assert await waiting == len(PIECE)


async def test_a_body_that_breaks_off_gives_what_has_come_and_then_its_error() -> None:
    body = fed(b"12345", expected=10)
    body.set_broken()
    assert await body.prompt_batch(len(PIECE)) == 5
    assert bytes(body.take()) == b"12345"
    with pytest.raises(IncompleteUploadError, match="after 5 of 10 bytes"):
        await body.prompt_batch(len(PIECE))


async def test_bytes_that_were_given_back_come_first_again() -> None:
    body = fed(b"1", b"2" * 5000, expected=5004)
    taken = body.take()
    body.append(b"3")
    body.give_back(taken)
    body.append(b"45")
    body.set_complete()
    assert await body.prompt_batch(len(PIECE)) == 5004
    assert bytes(body.take()) == b"1" + b"2" * 5000 + b"345"
    assert body.ended


async def test_bytes_that_were_given_back_have_waited_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("flask_hashfs._quart.body.time.monotonic", lambda: now[0])
    body = fed(b"1", expected=2)
    taken = body.take()
    now[0] += 1
    body.append(b"2")
    body.give_back(taken)
    assert body._unread_since == 100


async def test_a_prompt_batch_at_the_end_is_empty_and_one_beyond_the_limit_an_error() -> None:
    body = fed()
    body.set_complete()
    assert await body.prompt_batch(len(PIECE)) == 0
    with pytest.raises(RequestEntityTooLarge, match="larger than the 4 bytes allowed"):
        await fed(b"12345", limit=4).prompt_batch(len(PIECE))


# What becomes of the bytes: the table at the top of the module.

EVENTS: dict[str, Callable[[UploadBody], object]] = {
    "append": lambda body: body.append(b"x"),
    "abandon": UploadBody.abandon,
    "lose": lambda body: body.lose(OSError("the disk")),
    "set_complete": UploadBody.set_complete,
    "set_broken": UploadBody.set_broken,
}
WAYS = {
    Arrival.KEPT: (),
    Arrival.UNWANTED: ("abandon",),
    Arrival.LOST: ("lose",),
    Arrival.ENDED: ("set_complete",),
    Arrival.BROKEN: ("set_broken",),
}


def rows_of_the_table() -> list[tuple[Arrival, str, Arrival]]:
    """Read the table of states in the module's docstring."""
    lines = (inspect.getdoc(body_module) or "").splitlines()
    start = next(n for n, line in enumerate(lines) if line.split()[:1] == ["state"])
    events = lines[start].split()[1:]
    rows = []
    for line in lines[start + 1 : start + 6]:
        state, *results = re.sub(r"\[\d\]", "", line).split()
        assert len(results) == len(events)
        rows += [
            (Arrival[state], event, Arrival[result])
            for event, result in zip(events, results, strict=True)
            if result != "-"
        ]
    return rows


@pytest.mark.parametrize(("state", "event", "result"), rows_of_the_table())
async def test_the_states_of_a_body_are_those_of_the_table(
    state: Arrival, event: str, result: Arrival
) -> None:
    body = UploadBody(None, None)
    for step in (*WAYS[state], event):
        EVENTS[step](body)
    assert body._state is result
    assert body.broken == (result in (Arrival.BROKEN, Arrival.LOST))


async def test_a_body_shorter_than_promised_ends_broken_and_an_unwanted_one_may_be_empty() -> None:
    short = fed(b"x", expected=2)
    short.set_complete()
    assert short._state is Arrival.BROKEN
    unwanted = fed()
    unwanted.abandon()
    unwanted.append(b"")
    assert unwanted._state is Arrival.UNWANTED


async def test_what_was_lost_is_told_to_whoever_reads() -> None:
    body = fed(b"kept")
    body.lose(OSError("the disk"), 100)
    body.set_complete()
    for read in (body.batch, body.__anext__, lambda: body.prompt_batch(1)):
        with pytest.raises(OSError, match="the disk"):
            await read()


# Limits.


LIMIT = 100_000


def limited_app(how: str) -> Quart:
    app = make_app(MAX_FORM_MEMORY_SIZE=None)

    @app.post("/")
    async def view() -> str:
        if how == "iterate":
            async for _ in request.body:
                pass
        elif how == "await":
            await request.body
        else:
            await request.form
        return "under the limit"

    return app


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("where", ["app", "view", "before_request"])
@pytest.mark.parametrize("how", ["iterate", "await", "form"])
async def test_max_content_length_counts_all_bytes_received(
    how: str, where: str, chunked: bool
) -> None:
    app = limited_app(how)
    if where == "app":
        app.config["MAX_CONTENT_LENGTH"] = LIMIT
    else:

        async def limit() -> None:
            await asyncio.sleep(0.01)  # the body has begun
            request.max_content_length = LIMIT

        app.before_request(limit)
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413)):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if not chunked:
            headers["Content-Length"] = str(size)
        body = b"a=" + b"x" * (size - 2)
        async with Exchange(app, headers=headers) as exchange:
            await exchange.send(*[body[n : n + 7_000] for n in range(0, size, 7_000)])
            await exchange.finish()
        assert exchange.status == status


async def test_a_view_may_raise_the_limit_of_the_app() -> None:
    app = limited_app("await")
    app.config["MAX_CONTENT_LENGTH"] = 10

    @app.before_request
    async def raise_the_limit() -> None:
        request.max_content_length = LIMIT

    async with Exchange(app, headers={"Content-Length": "5000"}) as exchange:
        await exchange.send(bytes(5000))
        await exchange.finish()
    assert exchange.status == 200


@pytest.mark.slow
async def test_a_limit_ends_the_read_without_waiting_for_the_rest() -> None:
    app = limited_app("await")
    app.config["MAX_CONTENT_LENGTH"] = LIMIT
    async with Exchange(app) as exchange:
        await exchange.send(bytes(LIMIT), b"x")
    assert exchange.status == 413


# Bodies cut short.


async def outcome_of_reading() -> str:
    try:
        async for _ in request.body:
            pass
    except IncompleteUploadError as error:
        return str(error)
    return "whole"


async def test_a_body_shorter_than_its_content_length_is_incomplete() -> None:
    app = make_app()
    app.post("/")(outcome_of_reading)
    async with Exchange(app, headers={"Content-Length": "10"}) as exchange:
        await exchange.send(b"12345")
        await exchange.finish()
    assert b"ended after 5 of 10 bytes" in exchange.body


async def test_a_client_gone_mid_body_makes_it_incomplete_for_who_reads() -> None:
    app = make_app()
    app.post("/")(outcome_of_reading)
    async with Exchange(app) as exchange:
        await exchange.send(b"12345")
        await exchange.settle()
        await exchange.disconnect()
    assert b"ended after 5 bytes" in exchange.body


async def test_a_view_that_handles_no_incomplete_body_answers_400() -> None:
    app = limited_app("await")
    async with Exchange(app) as exchange:
        await exchange.send(b"12345")
        await exchange.settle()
        await exchange.disconnect()
    assert exchange.status == 400


@pytest.mark.parametrize("whole", [True, False])
async def test_a_client_gone_while_the_view_does_not_read_cancels_it(whole: bool) -> None:
    app, gate, cancelled = make_app(), Gate(), False

    @app.post("/")
    async def view() -> str:
        nonlocal cancelled
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled = True
            raise
        return ""

    async with Exchange(app) as exchange:
        await exchange.send(b"12345")
        if whole:
            await exchange.finish()
        await gate.reached.wait()
        await exchange.disconnect()
    assert cancelled
    assert exchange.status == (None if whole else 400)  # the latter for a server that still asks


async def test_the_body_of_an_answered_request_is_not_passed_off_as_whole() -> None:
    """A background task that reads on after the answer has missed what was dropped."""
    app = make_app()
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @app.post("/")
    async def view() -> str:
        body, answered = request.body, asyncio.Event()

        async def read_later() -> None:
            await answered.wait()
            try:
                outcome.set_result(f"{len(await body)} bytes")
            except IncompleteUploadError:
                outcome.set_result("incomplete")

        app.add_background_task(read_later)
        asyncio.get_running_loop().call_later(0.05, answered.set)
        return ""

    async with Exchange(app) as exchange:
        await exchange.send(*[PIECE] * (2 * MOST // len(PIECE)))
        await exchange.finish()
    assert await outcome == "incomplete"


# What nobody can read any more is not held.


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> UploadMemory:
    """Return the memory that the bodies of a test share, and nobody else."""
    memory = UploadMemory()
    monkeypatch.setattr(body_module, "MEMORY", memory)
    return memory


@pytest.mark.parametrize("end", [None, UploadBody.set_complete, UploadBody.set_broken])
async def test_what_was_unread_when_the_answer_began_is_dropped(
    memory: UploadMemory, end: Callable[[UploadBody], object] | None
) -> None:
    body = fed(PIECE, PIECE)
    if end is not None:
        end(body)
    body.abandon()
    assert memory.buffered == 0
    assert memory.uploads == (end is None)
    body.set_complete()
    with pytest.raises(IncompleteUploadError):
        await body.batch()


async def test_what_somebody_reads_is_kept_until_more_of_it_is_dropped(
    memory: UploadMemory,
) -> None:
    body = fed(PIECE, PIECE)
    with body.reading():
        body.abandon()
        assert memory.buffered == 2 * len(PIECE)
        reader = asyncio.create_task(body.prompt_batch(3 * len(PIECE)))
        await asyncio.sleep(0)
        body.append(b"dropped")
        assert memory.buffered == 0
        with pytest.raises(IncompleteUploadError):
            await reader
    body.append(b"dropped too")
    assert memory.buffered == 0


async def test_what_a_reader_takes_of_a_whole_body_is_kept_though_the_answer_has_begun(
    memory: UploadMemory,
) -> None:
    body = fed(PIECE, PIECE)
    body.set_complete()
    with body.reading():
        assert await body.batch() == 2 * len(PIECE)
        body.abandon()
        assert body.take().size == 2 * len(PIECE)
    assert memory.buffered == 0


async def test_a_task_that_is_busy_with_a_piece_gets_the_rest_though_the_answer_has_begun(
    memory: UploadMemory,
) -> None:
    body = fed(PIECE, PIECE, PIECE)
    body.set_complete()
    first = await anext(body)
    body.abandon()
    assert b"".join([first, *[piece async for piece in body]]) == 3 * PIECE
    assert memory.buffered == 0


async def test_a_little_and_what_the_view_has_had_as_a_whole_can_still_be_read(
    memory: UploadMemory,
) -> None:
    for body in (fed(PIECE), fed(PIECE, PIECE)):
        body.set_complete()
        whole = await body if body._unread.size > len(PIECE) else PIECE
        body.abandon()
        assert await body == whole


@pytest.mark.parametrize("is_whole", [False, True])
async def test_the_body_of_an_answer_under_way_holds_no_memory(
    memory: UploadMemory, is_whole: bool
) -> None:
    app, gate, was_held = make_app(), Gate(), list[int]()

    @app.post("/")
    async def view() -> str:
        while request.body._received < 8 * len(PIECE):  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        was_held.append(memory.buffered)
        return "no"

    exchange = Exchange(app)
    deliver = exchange.deliver

    async def deliver_slowly(message: dict[str, Any]) -> None:
        await gate.wait()
        await deliver(message)

    exchange.deliver = deliver_slowly  # type: ignore[method-assign]
    async with exchange:
        await exchange.send(*[PIECE] * 8)
        if is_whole:
            await exchange.finish()
        await gate.reached.wait()
        if not is_whole:
            await exchange.send(b"and so on")
            await exchange.settle()
        held = memory.buffered
        await exchange.finish()
        gate.open()
    assert was_held == [8 * len(PIECE)]
    assert held == 0


# Timeouts.


@pytest.mark.slow
@pytest.mark.parametrize("how", ["await request.data", "await request.form"])
async def test_a_slow_body_that_moves_is_not_cut_and_a_silent_one_is(how: str) -> None:
    app = make_app(BODY_TIMEOUT=0.2)
    outcomes: list[Any] = []

    @app.post("/")
    async def view() -> str:
        assert request.body_timeout == 0.2
        try:
            await (request.data if "data" in how else request.form)
        except HTTPException as error:
            outcomes.append(error.code)
        else:
            outcomes.append("whole")
        return ""

    headers = {"Content-Type": "application/x-www-form-urlencoded" if "form" in how else "a/b"}
    async with Exchange(app, headers=headers) as exchange:
        for _ in range(8):
            await exchange.send(b"x")
            await asyncio.sleep(0.05)
        await exchange.finish()
    async with Exchange(app, headers=headers) as exchange:
        await exchange.send(b"x")
    assert outcomes == ["whole", 408]


# Company: the app's own classes, the test client, websockets.


async def test_the_apps_own_classes_keep_their_say() -> None:
    seen = []

    class OwnBody(Body):
        nickname = "own"

    class OwnParser(FormDataParser):
        pass

    class OwnRequest(Request):
        body_class = OwnBody
        form_data_parser_class = OwnParser
        nickname = "own"

        async def get_data(self, *args: Any, **kwargs: Any) -> Any:
            seen.append("get_data")
            return await super().get_data(*args, **kwargs)

    class OwnConnection(ASGIHTTPConnection):
        async def handle_messages(self, *args: Any, **more: Any) -> None:
            seen.append("handle_messages")
            await super().handle_messages(*args, **more)

    app = Quart(__name__)
    app.request_class, app.asgi_http_class = OwnRequest, OwnConnection
    installed(app)

    @app.post("/")
    async def view() -> str:
        own: Any = request
        assert isinstance(request.body, OwnBody)
        assert isinstance(request.body, UploadBody)
        assert request.make_form_data_parser().__class__ is OwnParser
        return f"{own.nickname} {await own.get_data(as_text=True)}"

    response = await app.test_client().post("/", data="text")
    assert await response.get_data(as_text=True) == "own text"
    assert sorted(seen) == ["get_data", "handle_messages"]


async def test_installing_twice_changes_nothing() -> None:
    app = make_app()
    classes = app.request_class, app.asgi_http_class
    installed(app)
    assert (app.request_class, app.asgi_http_class) == classes


async def test_two_apps_do_not_share_their_classes() -> None:
    first, second = make_app(), make_app()
    first.request_class.nickname = "first"  # type: ignore[attr-defined]
    assert not hasattr(second.request_class, "nickname")
    assert not hasattr(Request, "nickname")


class OwnProtocol:
    def __init__(self, *_: Any) -> None: ...


def test_a_connection_that_is_not_quarts_is_left_alone() -> None:
    own: Any = OwnProtocol
    assert connection_class(own) is own


async def test_the_test_client_and_a_test_request_context_work_as_before() -> None:
    app = make_app()

    @app.route("/", methods=["GET", "POST"])
    async def view() -> dict[str, Any]:
        return {"json": await request.get_json(), "args": request.args}

    client = app.test_client()
    assert (await (await client.post("/?a=1", json={"b": 2})).get_json())["json"] == {"b": 2}
    assert (await client.get("/")).status_code == 200
    async with client.request("/", method="POST") as connection:
        await connection.send(b"{}")
        await connection.send_complete()
    assert (await connection.as_response()).status_code == 200
    async with app.test_request_context("/", method="POST", data=b"abc"):
        assert await request.get_data() == b"abc"


async def test_websockets_are_untouched() -> None:
    app = make_app()

    @app.websocket("/ws")
    async def echo() -> None:
        await websocket.send(await websocket.receive())

    async with app.test_client().websocket("/ws") as connection:
        await connection.send("hello")
        assert await connection.receive() == "hello"


async def test_in_a_crowd_a_body_that_is_about_to_be_taken_gathers_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = UploadMemory(8 * 1024 * 1024)  # so a batch is 128 KiB
    monkeypatch.setattr(body_module, "MEMORY", memory)
    others = [memory.enter(lambda: None) for _ in range(1000)]
    body, piece = UploadBody(1024 * 1024, None), bytes(80 * 1024)
    with body.reading():
        body.append(piece)
        connection = asyncio.create_task(body.room())
        await asyncio.sleep(0)
        assert not connection.done()
        body.gather()
        await connection
        body.append(piece)
        assert not body.full
        body.append(piece)
        assert body.full
        assert body.take().size == 3 * len(piece)
        assert body.full  # what was taken counts until it is written
        reader = asyncio.create_task(body.batch())  # which tells that it is
        await asyncio.sleep(0)
        assert not body.full
        body.append(piece)
        assert body.full  # and no batch of its own is due
        reader.cancel()
        await asyncio.wait([reader])
    for other in others:
        other.leave()


async def test_a_body_goes_on_when_others_give_memory_back_at_the_same_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = UploadMemory(1024 * 1024)
    monkeypatch.setattr(body_module, "MEMORY", memory)
    other = memory.enter(lambda: None)
    other.hold(2 * memory.size)
    body = UploadBody(1024 * 1024, None)
    body.append(bytes(10))
    reader = asyncio.create_task(body.batch())
    await asyncio.sleep(0)
    body.append(PIECE)
    connection = asyncio.create_task(body.room())
    body_is_full = body.full
    loop = asyncio.get_running_loop()
    # After the connection's first turn, which wakes the reader, and before the reader's own.
    loop.call_soon(other.hold, 0)
    await asyncio.wait_for(connection, 10)
    assert body_is_full
    body.set_complete()
    with pytest.raises(IncompleteUploadError):
        await reader
