"""What a request to a resumable upload does, step by step, in either framework.

`UploadFlow.run` is a generator. It decides nothing about the protocols (`_http.resumable` does)
and touches neither a request nor a disk by itself: it yields steps, and a driver carries each one
out in its own way and sends back what came of it, or throws the error in. So both frameworks do
the same in the same order::

    Flask: call it                          Quart: await it in a worker thread
    ───────────────────────── Call(function) ─────────────────────────
    ─────────────────────── Receive(function) ────────────────────────
    …

The order of a creation is: read the fields, decide, ask ``before_upload``, decide again (the hook
may have set a lower limit), make the upload, take its content. Of any other request: look the
upload up, ask the hook, take the upload over, bring about an end that is due, decide, carry out.
"""

from __future__ import annotations

import base64
import hashlib
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException, RequestTimeout

from .._http import resumable as http
from .._http import resumable_fields as fields
from .._http.filenames import clean_filename
from .._http.resumable import Append, Create, Delete, Final, New, Problem, Reply, Request, State
from .._http.sniffing import HEAD_SIZE
from .._storage.full import is_full, tell_full
from .._storage.names import AUTO, Auto, Extension
from .._storage.pending import (
    BusyUploadError,
    ExpiredUploadError,
    Listed,
    NoRoomError,
    PendingUploads,
    Record,
    StaleUploadError,
    Taken,
    TooManyUploadsError,
    UnknownUploadError,
    new_id,
)
from .._storage.predecessor import HashAddress
from .._storage.stored_file import StoredFile
from .._storage.writer import Writer
from .._store import checks, types
from .._store.putting import Put
from ..exceptions import DigestMismatchError, IncompleteUploadError, UnsupportedTypeError
from ..signals import file_stored
from . import saving
from .upload import Upload

if TYPE_CHECKING:
    from .._store.store import HashFS

READ_SIZE = 64 * 1024
"""Bytes that may wait for company in this process as long as it takes, and be lost by a kill.

More is only taken together where it has arrived already (what waits for a thread, or in the
socket, would be lost in any case), or comes so fast that none of it waits for more than 0.1 s.
"""

_ADDED = "_hashfs_upload_headers"
_POLL = 0.02  # seconds between two looks at whether another request has brought about the end
_AUTO = {"auto": True}  # in a record, where AUTO itself cannot be written
_COPY = 1024 * 1024  # bytes of a part that are copied at a time
_DROPPED = {"content-length", "date", "connection", "transfer-encoding", "server"}


class Globals(Protocol):
    """What Flask and Quart each call `g`: values that live as long as a request."""

    def get(self, name: str, default: Any = None, /) -> Any: ...

    def __setattr__(self, name: str, value: Any, /) -> None: ...


class Piece(Protocol):
    """Bytes of a body, joined only where they are needed."""

    def __len__(self) -> int: ...

    def __bytes__(self) -> bytes: ...


# --- the steps -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function that may block; its result is sent back."""

    function: Callable[[], Any]
    is_cleanup: bool = False
    """Whether it has to be done even where the request was cancelled."""


@dataclass(frozen=True, slots=True)
class Receive:
    """Call a function that may block with the next piece of the body, and send back True.

    The piece is what has arrived: as a rule no less than `READ_SIZE` while a fast client sends. At
    the end of the body the function is not called, and False is sent back.
    """

    function: Callable[[Piece], None]


@dataclass(frozen=True, slots=True)
class Hook:
    """Call a function of the app, which may be a coroutine function, and send back its result."""

    function: Callable[[Upload], Any]
    upload: Upload


@dataclass(frozen=True, slots=True)
class MakeAnswer:
    """Send back what a view that returned `value` would answer, as an `Answer`."""

    value: Any


@dataclass(frozen=True, slots=True)
class Inspect:
    """Have the inspectors of the app look at new content."""

    opens: Callable[[], BinaryIO]
    address: HashAddress


@dataclass(frozen=True, slots=True)
class Tell:
    """Send the signal that content was stored."""

    address: HashAddress


@dataclass(frozen=True, slots=True)
class Inform:
    """Send an interim response (104) with these headers, where the server can."""

    headers: http.HeaderList


@dataclass(frozen=True, slots=True)
class AddHeaders:
    """Add headers to the response, also where it is that of an error."""

    headers: http.HeaderList


@dataclass(frozen=True, slots=True)
class Watch:
    """Make whoever reads the body raise `StaleUploadError` once `taken` is no longer owned."""

    taken: Taken


@dataclass(frozen=True, slots=True)
class Pause:
    """Let some time pass."""

    seconds: float


Step: TypeAlias = (
    Call | Receive | Hook | MakeAnswer | Inspect | Tell | Inform | AddHeaders | Watch | Pause
)
Steps: TypeAlias = Generator[Step, Any, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an app answers at the end of an upload."""

    status: int
    headers: http.HeaderList
    body: bytes


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request, as far as both frameworks know it.

    Attributes:
        method: Its method.
        headers: Its headers.
        content_length: Bytes of its body; None where only the end of the body tells.
        id: The upload it is sent to, or None.
        location: The URL path, with the mount, at which uploads are created.
        hides_breaks: Whether the server passes off a chunked body that broke off as whole.
        hides_end: Whether the server does not tell where the body ends, so that nobody can read it.
    """

    method: str
    headers: Headers
    content_length: int | None
    id: str | None
    location: str
    hides_breaks: bool = False
    hides_end: bool = False


def add_headers(g: Globals, headers: http.HeaderList) -> None:
    """Add headers to whatever the response to the request of `g` is, as `AddHeaders` asks."""
    setattr(g, _ADDED, headers)


def added_headers(g: Globals) -> http.HeaderList:
    """Return the headers that the flow of the request of `g` has added to its response."""
    headers: http.HeaderList = g.get(_ADDED, ())
    return headers


class _RefusedError(Exception):
    """The request is refused after all."""

    def __init__(self, problem: Problem, detail: str | None = None) -> None:
        self.problem = problem
        self.detail = detail


# --- the flow ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UploadFlow:
    """Carries out requests to the uploads of one store.

    Attributes:
        client: The store.
        before: Called before each request, in this order.
        after: Called when content is stored; the last answer that is not None is the app's.
        describe: Returns the URL of stored content and its digest, where they may be told.
        receiving: What a request is within while it sends content.
    """

    client: HashFS
    before: Sequence[Callable[[Upload], Any]]
    after: Sequence[Callable[[Upload], Any]]
    describe: Callable[[HashAddress], tuple[str | None, str | None]]
    receiving: AbstractContextManager[object] = field(default_factory=nullcontext)

    @property
    def pending(self) -> PendingUploads:
        """The uploads of the store."""
        return self.client.backend.pending

    def run(self, incoming: Incoming) -> Generator[Step, Any, Reply]:
        """Yield what has to be done for a request, and return its reply."""
        method = http.overridden(incoming.method, incoming.headers)
        is_upload = incoming.id is not None
        if method == "OPTIONS":
            expire = self.pending.limits.expire
            return http.options(self.client.max_size, expire, is_upload=is_upload)
        request = http.read(
            method,
            incoming.headers,
            incoming.content_length,
            is_upload=is_upload,
            algorithm=self.client.algorithm,
        )
        if isinstance(request, Reply):
            return request
        try:
            if incoming.id is None:
                reply = yield from self._create(request, incoming)
            else:
                reply = yield from self._go_on(request, incoming, incoming.id)
        except UnknownUploadError:
            reply = http.refuse(request, http.UNKNOWN)
        except ExpiredUploadError:
            reply = http.refuse(request, http.EXPIRED)
        except TooManyUploadsError:
            reply = http.refuse(request, http.TOO_MANY)
        except StaleUploadError:
            reply = http.refuse(request, http.STALE)
        except _RefusedError as refused:
            reply = http.refuse(request, refused.problem, refused.detail)
        except (NoRoomError, OSError) as error:
            if not _is_full(error):
                tell_full(error)  # that the process is out of descriptors
                raise
            reply = http.refuse(request, http.FULL)
        return reply

    # -- creating ------------------------------------------------------------------------------

    def _create(self, request: Request, incoming: Incoming) -> Generator[Step, Any, Reply]:
        new = New(self.client.max_size, self.pending.limits.expire)
        decision = http.decide(request, new)
        if isinstance(decision, Reply):
            return decision
        upload = Upload(
            new_id(),
            "create",
            length=decision.append.length if isinstance(decision, Create) else None,
            metadata=dict(request.metadata),
            expected=request.expected,
        )
        yield from self._ask(upload)
        # An error of the app is told now; and a detector of types may have to be loaded.
        yield Call(partial(self._put, upload.extension, upload))
        new = replace(new, max_size=checks.smaller(new.max_size, upload.max_size))
        decision = http.decide(request, new)  # against the limit that the hook has set
        if isinstance(decision, Reply):
            return decision
        assert isinstance(decision, Create)
        self._check_end_is_seen(request, incoming, decision.append)
        if request.expected not in (None, (upload.expected or "").lower()):
            raise _RefusedError(http.OTHER_CONTENT)
        parts = []
        if request.parts:
            find = partial(self._find_parts, request.parts, incoming.location, upload.owner)
            parts = yield Call(find)
            if new.max_size is not None and sum(part.offset for part in parts) > new.max_size:
                return http.refuse(request, http.TOO_LARGE, state=new)
        record = _record(request, upload, decision.append)
        create = partial(self.pending.create, upload.id, record)
        taken: Taken = yield Call(create)
        location = f"{incoming.location}/{upload.id}"
        try:
            interim = http.interim(request, location, new)
            if interim is not None:
                yield Inform(interim)
            if parts:
                yield from self._concatenate(taken, parts)
            reply = yield from self._receive(request, taken, decision.append, upload, location)
        finally:
            if not taken.is_closed:
                yield Call(taken.close, is_cleanup=True)
        return reply

    def _check_end_is_seen(self, request: Request, incoming: Incoming, append: Append) -> None:
        is_unseen = append.completes and append.length is None and request.content_length is None
        if incoming.hides_end or (is_unseen and incoming.hides_breaks):
            raise _RefusedError(http.LENGTH_REQUIRED)

    def _find_parts(self, urls: Sequence[str], location: str, owner: str | None) -> list[Listed]:
        """Find the parts that a concatenation names: whole ones, of this path and this owner."""
        found = []
        for url in urls:
            path, _, id = unquote(_path_of(url)).rpartition("/")
            if path != unquote(location):
                raise UnknownUploadError
            part = self.pending.find(id)
            if part.record.owner != owner:
                raise UnknownUploadError
            if not part.record.is_partial or part.offset != part.record.length:
                raise _RefusedError(http.BAD_REQUEST, f"{url} is not a finished partial upload.")
            found.append(part)
        return found

    def _concatenate(self, taken: Taken, parts: Sequence[Listed]) -> Steps:
        length = sum(part.offset for part in parts)
        try:
            yield Call(partial(taken.begin, length, True, marked=False, brings=length))
            for part in parts:
                take = partial(self.pending.take, part.id)
                source: Taken = yield Call(take)
                try:
                    for start in range(0, part.offset, _COPY):
                        yield Call(partial(_copy, source, start, part.offset, taken))
                finally:
                    yield Call(source.close, is_cleanup=True)
        except BaseException as error:
            yield Call(taken.delete, is_cleanup=True)
            if _is_full(error):
                raise _RefusedError(http.FULL) from error
            raise

    # -- going on ------------------------------------------------------------------------------

    def _go_on(self, request: Request, incoming: Incoming, id: str) -> Generator[Step, Any, Reply]:
        upload = None
        if self.before:  # nothing is taken over until they have agreed
            found: Listed = yield Call(partial(self.pending.find, id))
            upload = _upload(found, request.action)
            yield from self._ask(upload)
        taken: Taken = yield Call(partial(self.pending.take, id))
        try:
            upload = upload or _upload(taken, request.action)
            reply = yield from self._carry_out(request, incoming, taken, upload)
        except StaleUploadError:  # and only a fresh look tells how far the newer request is
            found = yield Call(partial(self.pending.find, id))
            return http.refuse(request, http.STALE, state=self._state(found))
        finally:
            if not taken.is_closed:
                yield Call(taken.close, is_cleanup=True)
        return reply

    def _carry_out(
        self, request: Request, incoming: Incoming, taken: Taken, upload: Upload
    ) -> Generator[Step, Any, Reply]:
        state = self._state(taken)
        if request.action != "delete" and state.is_due(request):
            yield from self._end(request, taken, upload)
            state = self._state(taken)
        decision = http.decide(request, state)
        if isinstance(decision, Delete):
            yield from self._patiently(taken.delete)
            return http.deleted(request)
        if isinstance(decision, Append):
            self._check_end_is_seen(request, incoming, decision)
            reply = yield from self._receive(request, taken, decision, upload, None)
            return reply
        assert isinstance(decision, Reply)
        if decision.ends:
            yield from self._patiently(taken.delete)
        else:
            yield Call(partial(_leave, taken))
        return decision

    # -- receiving -----------------------------------------------------------------------------

    def _receive(
        self,
        request: Request,
        taken: Taken,
        append: Append,
        upload: Upload,
        location: str | None,
    ) -> Generator[Step, Any, Reply]:
        """Take the content of a request, and bring about the end if it is the last."""
        is_new = location is not None
        try:
            if not request.parts:
                yield from self._take_content(request, taken, append)
        except _RefusedError as refused:
            problem, detail = refused.problem, refused.detail
        except StaleUploadError:
            problem, detail = http.STALE, None
        except UnknownUploadError:
            problem, detail = http.UNKNOWN, None
        except UnsupportedTypeError:  # as its beginning tells
            yield from self._give_up(request, taken)
            raise
        else:
            state = self._state(taken)
            if state.is_due(request):
                yield from self._end(request, taken, upload)
                state = self._state(taken)
            else:
                yield Call(partial(_leave, taken))
            return http.progress(request, state, location)
        if request.protocol in problem.ends or (is_new and problem in _FAILS_CREATION):
            yield from self._patiently(taken.delete)
            return http.refuse(request, problem, detail, state=self._state(taken))
        offset = yield Call(partial(_leave, taken))
        state = replace(self._state(taken), offset=offset)
        reply = http.refuse(request, problem, detail, state=state)
        if is_new and problem is http.FULL:  # the client can go on, once it knows where
            reply = replace(reply, headers=(*reply.headers, ("Location", location or "")))
        return reply

    def _take_content(self, request: Request, taken: Taken, append: Append) -> Steps:
        promised = _Checks(append.checksums)
        brings = request.content_length
        marked = bool(append.checksums)
        begin = partial(taken.begin, append.length, append.declared, marked=marked, brings=brings)
        accepted: checks.Accepted = yield Call(partial(self._begin, begin, taken))
        try:
            if request.has_content:
                yield Watch(taken)
                try:
                    with self.receiving:
                        yield from self._take_pieces(taken, append, promised, _Head(accepted))
                finally:
                    taken.on_stale = None
            if not promised.hold():
                raise _RefusedError(http.OTHER_DIGEST)
        except BaseException as error:
            yield Call(taken.cut, is_cleanup=True)
            if _is_full(error):
                raise _RefusedError(http.FULL) from error
            raise
        yield Call(taken.keep)  # a bucket is sent what has waited, while its errors can be told
        if append.completes and append.length is None:
            # Its length is told by its end only: from now on it is known, and all is there.
            length = taken.offset
            yield Call(partial(taken.begin, length, True, marked=False, brings=0))
        elif append.completes and taken.offset != append.length:
            raise _RefusedError(http.INCONSISTENT_LENGTH)

    def _begin(self, begin: Callable[[], None], taken: Taken) -> checks.Accepted:
        begin()
        return self._accepted(taken.record)

    def _take_pieces(self, taken: Taken, append: Append, promised: _Checks, head: _Head) -> Steps:
        write = Receive(partial(_write, taken, append, promised, head))
        try:
            while (yield write):
                pass
        except RequestTimeout:
            raise _RefusedError(http.SILENT) from None
        except IncompleteUploadError as error:
            if taken.is_stale:  # and was made to end
                raise StaleUploadError from None
            if isinstance(error.__cause__, TimeoutError):
                raise _RefusedError(http.SILENT) from None
            raise _RefusedError(http.INCOMPLETE, error.description) from None

    # -- ending --------------------------------------------------------------------------------

    def _end(self, request: Request, taken: Taken, upload: Upload) -> Steps:
        """Store the content, let the app know, and record both."""
        writer: Writer | None = yield from self._patiently(taken.end)
        if writer is None:  # another request was first
            return
        try:
            with writer:
                yield from self._store(taken, writer, upload)
        except DigestMismatchError as error:
            yield from self._patiently(taken.delete)
            raise _RefusedError(http.OTHER_CONTENT, error.description) from None
        except HTTPException as error:
            if (error.code or 500) < 500:  # the last word: nothing is to be tried again
                yield from self._give_up(request, taken)
            raise

    def _give_up(self, request: Request, taken: Taken) -> Steps:
        """Delete an upload that is refused for good, and say so in the words of the draft."""
        yield from self._patiently(taken.delete)
        if not request.is_tus:
            yield AddHeaders((("Upload-Complete", "?1"),))

    def _store(self, taken: Taken, writer: Writer, upload: Upload) -> Steps:
        record = taken.record
        step, is_inspected = yield Call(partial(self._check, record, writer))
        if is_inspected:
            yield Inspect(step.open, step.address)
        name, kind = clean_filename(upload.metadata.get("filename")), ""
        if self.after:  # nobody else sees the type
            kind = yield Call(partial(_type_of, step, name))
        address: HashAddress = yield Call(step.publish)
        upload.length = upload.offset = writer.size
        upload.address = address
        upload.stored = StoredFile(address.id, address.relpath, name, kind, writer.size)
        if file_stored.receivers:  # else a driver would leave its thread for nothing
            yield Tell(address)
        value = None
        for hook in self.after:
            answered = yield Hook(hook, upload)
            value = value if answered is None else answered
        answer = Answer(200, (), b"")
        if value is not None:
            answer = yield MakeAnswer(value)
        url, digest = self.describe(address)
        final = Final(answer.status, _lasting(answer.headers), answer.body, url, digest)
        yield Call(partial(taken.finish, _dump(final)))

    def _accepted(self, record: Record) -> checks.Accepted:
        """Return the types that an upload may have; a part is not judged."""
        if record.is_partial:
            return checks.EVERYTHING
        return checks.accepted(self.client.accept, checks.accept_list(record.accept))

    def _check(self, record: Record, writer: Writer) -> tuple[Put, bool]:
        """Return the put that an upload ends as, and whether the inspectors have to look at it."""
        step = self._put(_extension(record.extension), record)
        step.check(writer)
        return step, step.must_be_inspected()

    def _put(self, extension: Extension, of: Record | Upload) -> Put:
        """Return the put that an upload ends as."""
        return Put(self.client, extension, of.expected, of.max_size, of.accept)

    def _patiently(self, function: Callable[..., Any]) -> Steps:
        """Call what has to wait for another request's end, without keeping a thread for it."""
        while True:
            try:
                return (yield Call(partial(function, wait=False)))
            except BusyUploadError:
                yield Pause(_POLL)

    # -- values --------------------------------------------------------------------------------

    def _ask(self, upload: Upload) -> Steps:
        for hook in self.before:
            yield Hook(hook, upload)

    def _state(self, found: Listed | Taken) -> State:
        record = found.record
        return State(
            offset=found.offset,
            length=record.length,
            declared=record.declared,
            max_size=checks.smaller(self.client.max_size, record.max_size),
            metadata_field=record.metadata_field,
            concatenation_field=record.concatenation,
            expires=found.expires,
            max_age=max(0, int(found.expires - time.time())),
            final=None if record.final is None else _load(record.final),
        )


_FAILS_CREATION = (http.BEYOND_LENGTH, http.TOO_LARGE, http.OTHER_DIGEST, http.INCONSISTENT_LENGTH)


class _Checks:
    """The digests that a request promises for its content."""

    def __init__(self, checksums: Sequence[fields.Checksum]) -> None:
        self._checksums = checksums
        self._hashes = [_new_hash(each.algorithm) for each in checksums]

    def update(self, data: bytes) -> None:
        """Take content that has been written."""
        for each in self._hashes:
            each.update(data)

    def hold(self) -> bool:
        """Tell whether all digests are those of what was taken."""
        found = zip(self._checksums, self._hashes, strict=True)
        return all(each.digest == hash.digest() for each, hash in found)


class _Crc32:
    """CRC-32 with the manners of hashlib; its digest is in network order."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _Head:
    """The beginning of a content, which may tell that its type is not accepted."""

    def __init__(self, accepted: checks.Accepted) -> None:
        self._accepted = accepted

    def check(self, taken: Taken, before: int) -> None:
        """Judge the beginning when the piece written last has completed it."""
        if self._accepted and before < HEAD_SIZE <= taken.offset:
            self._accepted.check_head(types.type_of_head(taken.read(HEAD_SIZE, 0)))


def _new_hash(algorithm: str) -> hashlib._Hash | _Crc32:
    return _Crc32() if algorithm == "crc32" else hashlib.new(algorithm, usedforsecurity=False)


def _write(taken: Taken, append: Append, promised: _Checks, head: _Head, piece: Piece) -> None:
    before = taken.offset
    if append.most is not None and before + len(piece) > append.offset + append.most:
        raise _RefusedError(append.over)
    data = bytes(piece)
    taken.write(data)
    promised.update(data)
    head.check(taken, before)


def _copy(source: Taken, start: int, end: int, taken: Taken) -> None:
    data = source.read(min(_COPY, end - start), start)
    if len(data) != min(_COPY, end - start):
        raise UnknownUploadError  # it was deleted meanwhile
    taken.write(data)


def _leave(taken: Taken) -> int:
    """Let go of an upload that goes on, once all its bytes are on the disk; return how many."""
    offset = taken.sync()
    taken.close()
    return offset


def _path_of(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        raise _RefusedError(http.BAD_REQUEST, f"{url} is not a URL.") from None


def _is_full(error: BaseException) -> bool:
    return isinstance(error, NoRoomError) or (isinstance(error, OSError) and is_full(error))


def _record(request: Request, upload: Upload, append: Append) -> Record:
    return Record(
        owner=upload.owner,
        extension=_AUTO if isinstance(upload.extension, Auto) else upload.extension,
        max_size=upload.max_size,
        expected=upload.expected,
        accept=None if upload.accept is None else list(checks.accept_list(upload.accept) or ()),
        length=append.length,
        declared=append.declared,
        metadata=dict(request.metadata),
        metadata_field=request.metadata_field,
        concatenation=request.concatenation_field,
    )


def _type_of(step: Put, filename: str | None) -> str:
    with step.open() as file:
        return saving.type_of_put(file, filename, step.address)


def _upload(found: Listed | Taken, action: str) -> Upload:
    record = found.record
    return Upload(
        found.id,
        action,
        length=record.length,
        offset=found.offset,
        metadata=dict(record.metadata),
        owner=record.owner,
        extension=_extension(record.extension),
        max_size=record.max_size,
        expected=record.expected,
        accept=record.accept,
    )


def _extension(kept: Any) -> Extension:
    return AUTO if kept == _AUTO else kept


def _lasting(headers: http.HeaderList) -> http.HeaderList:
    """Return the headers of an answer that are right whenever it is given."""
    return tuple(header for header in headers if header[0].lower() not in _DROPPED)


def _dump(final: Final) -> dict[str, Any]:
    return {
        "status": final.status,
        "headers": [list(header) for header in final.headers],
        "body": base64.b64encode(final.body).decode(),
        "location": final.location,
        "digest": final.digest,
    }


def _load(values: dict[str, Any]) -> Final:
    return Final(
        status=values["status"],
        headers=tuple((name, value) for name, value in values["headers"]),
        body=base64.b64decode(values["body"]),
        location=values["location"],
        digest=values["digest"],
    )
