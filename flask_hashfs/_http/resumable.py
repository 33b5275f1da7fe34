"""Both resumable protocols, tus 1.0.0 and the IETF draft, as pure decisions.

A request is read (`read`), the upload it names is looked up by somebody else, and `decide` says
what has to be done: reply, create, append or delete. What becomes of an append is told by
`progress` and `refuse`. Nothing here reads a byte of content, and no clock.

::

    read(method, headers, …) ──> Reply                          no protocol, no version, bad fields
             │
             └──────────────> Request ──> decide(request, state) ──> Reply
                                                    ├──> Create ─┐
                                                    ├──> Append ─┼──> progress(…), refuse(…)
                                                    └──> Delete ─┘

The offset of an upload may equal its length and the upload still be open: in the draft it ends
only when the client says so (``Upload-Complete: ?1``), which is `State.declared`. tus has no such
word, so there the length alone decides.

Sources: tus.io/protocols/resumable-upload (1.0.0), draft-ietf-httpbis-resumable-upload-12, RFC
9457 (problem details), RFC 9530 (digests).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate

from werkzeug.datastructures import Headers

from . import resumable_fields as fields
from .resumable_fields import FAR, Checksum, Concatenation, FieldError

VERSION = "1.0.0"
TUS_TYPE = "application/offset+octet-stream"
DRAFT_TYPE = "application/partial-upload"
INTEROP = (6, 8)
"""Interop versions of the draft that are answered with 104."""

EXTENSIONS = (
    "creation,creation-with-upload,creation-defer-length,termination,expiration,checksum,"
    "concatenation"
)
RETRY_AFTER = 60
"""Seconds after which a client may try again to create an upload."""

_PROBLEM_TYPES = "https://iana.org/assignments/http-problem-types#"
_ACTIONS = {"POST": "create", "HEAD": "read", "GET": "read", "PATCH": "append", "DELETE": "delete"}

HeaderList = tuple[tuple[str, str], ...]


class Protocol(enum.Enum):
    """Which of the two protocols a request speaks."""

    TUS = "tus"
    DRAFT = "draft"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response."""

    status: int
    headers: HeaderList = ()
    body: bytes = b""
    ends: bool = False
    """Whether the upload, if there is one, is gone with it."""

    def get(self, name: str) -> str | None:
        """Return the value of a header, or None."""
        return dict(self.headers).get(name)


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason to refuse a request: one of the values below."""

    name: str
    tus: int
    """The status that a tus client gets."""
    draft: int
    """The status that a client of the draft gets."""
    title: str
    type: str | None = None
    """The problem type of the draft."""
    ends: tuple[Protocol, ...] = ()
    """The protocols in which it ends the upload."""


def _problem(
    name: str, tus: int, title: str, *, draft: int | None = None, **more: object
) -> Problem:
    return Problem(name, tus, draft or tus, title, **more)  # type: ignore[arg-type]


BAD_REQUEST = _problem("bad request", 400, "A field is bad or missing.")
INCONSISTENT_LENGTH = _problem(
    "inconsistent length",
    400,
    "The lengths that were sent do not agree.",
    type=_PROBLEM_TYPES + "inconsistent-upload-length",
)
MISMATCHING_OFFSET = _problem(
    "mismatching offset",
    409,
    "The upload is at another offset.",
    type=_PROBLEM_TYPES + "mismatching-upload-offset",
)
STALE = _problem("stale", 409, "A newer request has taken this upload over.")
BEYOND_LENGTH = _problem(
    "beyond the length",
    413,
    "More was sent than the length of the upload.",
    draft=400,
    type=_PROBLEM_TYPES + "inconsistent-upload-length",
    ends=(Protocol.DRAFT,),
)
TOO_LARGE = _problem("too large", 413, "The upload is larger than allowed.")
OTHER_DIGEST = _problem("other digest", 460, "The content has another digest.", draft=400)
OTHER_CONTENT = _problem(
    "other content",
    400,
    "The upload has another digest than it was created with.",
    ends=(Protocol.TUS, Protocol.DRAFT),
)
UNKNOWN = _problem("unknown", 404, "There is no such upload.")
EXPIRED = _problem("expired", 410, "This upload has expired.")
IS_FINAL = _problem("final", 403, "A concatenated upload takes no content.")
NO_PROTOCOL = _problem("no protocol", 412, "The request speaks no protocol known here.")
OTHER_VERSION = _problem("other version", 412, "This version of tus is not spoken here.")
OTHER_TYPE = _problem("other type", 415, "The content has the wrong type.")
NOT_ALLOWED = _problem("not allowed", 405, "This method is not allowed here.")
SILENT = _problem("silent", 408, "No bytes came for too long.")
INCOMPLETE = _problem("incomplete", 400, "The request's body broke off before its end.")
LENGTH_REQUIRED = _problem(
    "length required", 411, "This server hides where a chunked body ends: send a length."
)
TOO_MANY = _problem("too many", 503, "There are too many unfinished uploads.")
FULL = _problem("full", 507, "There is no room for more.")


@dataclass(frozen=True, slots=True)
class Request:
    """A request that speaks one of the protocols, its fields read."""

    protocol: Protocol
    action: str
    """``create``, ``read``, ``append`` or ``delete``."""
    content_length: int | None = 0
    """Bytes of the content; None where that is known at its end only."""
    offset: int | None = None
    length: int | None = None
    is_deferred: bool = False
    complete: bool | None = None
    """Whether the content is the last of the upload; None in tus."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_field: str = ""
    concatenation: Concatenation | None = None
    concatenation_field: str = ""
    checksums: tuple[Checksum, ...] = ()
    """Digests of the request's content."""
    expected: str | None = None
    """The id that the whole content must have."""
    interop: int | None = None
    """The interop version of the draft, if it is known here."""

    @property
    def is_tus(self) -> bool:
        """Whether it speaks tus."""
        return self.protocol is Protocol.TUS

    @property
    def has_content(self) -> bool:
        """Whether content may follow."""
        return self.content_length != 0

    @property
    def is_partial(self) -> bool:
        """Whether it creates a part of a later concatenation."""
        return self.concatenation is not None and self.concatenation.parts is None

    @property
    def parts(self) -> tuple[str, ...]:
        """The URLs of the parts that are to be concatenated."""
        return (self.concatenation and self.concatenation.parts) or ()


@dataclass(frozen=True, slots=True)
class Final:
    """How an upload ended: the answer of the app, and where the content is."""

    status: int = 200
    headers: HeaderList = ()
    body: bytes = b""
    location: str | None = None
    """The URL of the content, where it may be told."""
    digest: str | None = None
    """Its Repr-Digest, together with `location`."""


@dataclass(frozen=True, slots=True)
class New:
    """The state of an upload that is yet to be created."""

    max_size: int | None = None
    max_age: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """The state of an upload."""

    offset: int
    length: int | None = None
    declared: bool = True
    """Whether the upload ends when its offset reaches its length."""
    max_size: int | None = None
    metadata_field: str = ""
    concatenation_field: str = ""
    expires: float = 0.0
    """Seconds since the epoch."""
    max_age: int = 0
    """Seconds until then."""
    final: Final | None = None

    @property
    def is_partial(self) -> bool:
        """Whether it is a part of a later concatenation, which never ends by itself."""
        return self.concatenation_field == "partial"

    @property
    def is_concatenated(self) -> bool:
        """Whether it was made of parts."""
        return self.concatenation_field.startswith("final")

    def is_due(self, request: Request) -> bool:
        """Tell whether all bytes are there, so that `request` has to bring about the end first."""
        if self.final is not None or self.is_partial or self.offset != self.length:
            return False
        return self.declared or request.is_tus


@dataclass(frozen=True, slots=True)
class Append:
    """Take content, from the offset on.

    Attributes:
        offset: Where it goes.
        length: The length of the upload, as far as it is known then.
        declared: Whether the upload ends when it has that length.
        most: Bytes that the request may bring, or None.
        over: Why it may not bring more.
        checksums: What its content must hash to; otherwise none of it counts.
        completes: Whether the end of the content is the end of the upload, even where no length
            was told.
    """

    offset: int
    length: int | None
    declared: bool
    most: int | None
    over: Problem
    checksums: tuple[Checksum, ...]
    completes: bool


@dataclass(frozen=True, slots=True)
class Create:
    """Make a new upload, and take its first content."""

    append: Append


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the upload."""


# --- reading a request ---------------------------------------------------------------------------


def read(
    method: str,
    headers: Headers,
    content_length: int | None,
    *,
    is_upload: bool,
    algorithm: str = "sha256",
) -> Request | Reply:
    """Read a request's fields, and refuse what no state of an upload could make right.

    Args:
        method: The method, after any override; see `overridden`.
        headers: The request's.
        content_length: Bytes of its content; None where only the end of the content tells.
        is_upload: Whether it is sent to an upload, rather than to where they are created.
        algorithm: The store's hash algorithm.
    """
    protocol = _protocol(method, headers)
    action = _ACTIONS.get(method)
    if action is None or (action == "create") == is_upload:
        reply = refuse(protocol or Protocol.DRAFT, NOT_ALLOWED)
        return replace(reply, headers=(*reply.headers, ("Allow", _allowed(is_upload))))
    if protocol is None:
        return refuse(Protocol.TUS, NO_PROTOCOL)
    if protocol is Protocol.TUS and fields.text_of(headers, "Tus-Resumable") != VERSION:
        return refuse(protocol, OTHER_VERSION)
    if _has_other_type(protocol, action, headers, content_length):
        return refuse(protocol, OTHER_TYPE)
    request = Request(protocol, action, content_length)
    reads = {
        (Protocol.TUS, "create"): _read_tus_creation,
        (Protocol.TUS, "append"): _read_tus_append,
        (Protocol.DRAFT, "create"): _read_draft_creation,
        (Protocol.DRAFT, "append"): _read_draft_append,
    }
    try:
        if (read_fields := reads.get((protocol, action))) is not None:
            request = read_fields(request, headers, algorithm)
    except FieldError as error:
        return refuse(protocol, BAD_REQUEST, str(error))
    return request


def overridden(method: str, headers: Headers) -> str:
    """Return the method that X-HTTP-Method-Override names, or else that of the request."""
    return (fields.text_of(headers, "X-HTTP-Method-Override") or method).upper()


def _protocol(method: str, headers: Headers) -> Protocol | None:
    if "Tus-Resumable" in headers:
        return Protocol.TUS
    if method == "POST":
        return Protocol.DRAFT if "Upload-Complete" in headers else None
    if method == "PATCH" and fields.media_type(headers) == TUS_TYPE:
        return None
    return Protocol.DRAFT


def _has_other_type(
    protocol: Protocol, action: str, headers: Headers, content_length: int | None
) -> bool:
    kind = fields.media_type(headers)
    if action == "append":
        return kind != (TUS_TYPE if protocol is Protocol.TUS else DRAFT_TYPE)
    has_content = action == "create" and content_length != 0
    return protocol is Protocol.TUS and has_content and kind != TUS_TYPE


def _read_tus_creation(request: Request, headers: Headers, algorithm: str) -> Request:
    length = fields.natural(headers, "Upload-Length")
    is_deferred = fields.is_deferred(headers)
    metadata_field, metadata = fields.metadata(headers)
    concatenation_field, concatenation = fields.concatenation(headers) or ("", None)
    is_final = concatenation is not None and concatenation.parts is not None
    if is_final and (length is not None or is_deferred or request.has_content):
        raise FieldError("Upload-Concat", "sent without a length and without content")
    if not is_final and (length is None) != is_deferred:
        raise FieldError("Upload-Length", "there, or else Upload-Defer-Length, and not both")
    return replace(
        request,
        length=length,
        is_deferred=is_deferred,
        metadata=metadata,
        metadata_field=metadata_field,
        concatenation=concatenation,
        concatenation_field=concatenation_field,
        checksums=_tus_checksums(headers),
        expected=_expected(headers, algorithm),
    )


def _read_tus_append(request: Request, headers: Headers, algorithm: str) -> Request:
    offset = fields.natural(headers, "Upload-Offset")
    if offset is None:
        raise FieldError("Upload-Offset", "there")
    length = fields.natural(headers, "Upload-Length")
    return replace(request, offset=offset, length=length, checksums=_tus_checksums(headers))


def _read_draft_creation(request: Request, headers: Headers, algorithm: str) -> Request:
    metadata = fields.described(headers)
    return replace(
        _with_draft_fields(request, headers, algorithm),
        metadata=metadata,
        metadata_field=fields.write_metadata(metadata),
        expected=_expected(headers, algorithm),
    )


def _read_draft_append(request: Request, headers: Headers, algorithm: str) -> Request:
    offset = fields.integer(headers, "Upload-Offset")
    if offset is None:
        raise FieldError("Upload-Offset", "there")
    return replace(_with_draft_fields(request, headers, algorithm), offset=offset)


def _with_draft_fields(request: Request, headers: Headers, algorithm: str) -> Request:
    complete = fields.boolean(headers, "Upload-Complete")
    if complete is None:
        raise FieldError("Upload-Complete", "there")
    return replace(
        request,
        complete=complete,
        length=fields.integer(headers, "Upload-Length"),
        checksums=tuple(fields.digests(headers, "Content-Digest", algorithm)),
        interop=_interop(headers),
    )


def _tus_checksums(headers: Headers) -> tuple[Checksum, ...]:
    checksum = fields.checksum(headers)
    return () if checksum is None else (checksum,)


def _expected(headers: Headers, algorithm: str) -> str | None:
    name = algorithm.lower().replace("-", "")
    digests = fields.digests(headers, "Repr-Digest", algorithm)
    return next((each.digest.hex() for each in digests if each.algorithm == name), None)


def _interop(headers: Headers) -> int | None:
    try:
        version = fields.integer(headers, "Upload-Draft-Interop-Version")
    except FieldError:
        return None
    return version if version in INTEROP else None


# --- deciding ------------------------------------------------------------------------------------


def decide(request: Request, state: New | State) -> Reply | Append | Create | Delete:
    """Decide what a request has to do with an upload.

    Args:
        request: From `read`.
        state: `New` where it creates one. Else that of the upload, which this request has taken
            over, and brought to its end where it was due (`State.is_due`).
    """
    if isinstance(state, New):
        return _create(request, state)
    if request.action == "read":
        return _describe(request, state)
    if request.action == "delete":
        return Delete()
    return _append(request, state)


def _create(request: Request, state: New) -> Reply | Create:
    known = State(0, max_size=state.max_size, max_age=state.max_age)
    plan = _plan_append(request, known)
    if isinstance(plan, Reply):
        return plan
    return Create(plan)


def _append(request: Request, state: State) -> Reply | Append:
    if state.is_concatenated:
        return refuse(request, IS_FINAL, state=state)
    if request.offset != state.offset:
        return mismatch(request, state)
    if state.final is not None:
        if not request.has_content:
            return progress(request, state)
        problem = BEYOND_LENGTH if request.is_tus else INCONSISTENT_LENGTH
        return refuse(request, problem, "The upload has ended already.", state=state)
    return _plan_append(request, state)


def _plan_append(request: Request, state: State) -> Reply | Append:
    """Hold the lengths against each other: the limit first, then what was told before."""
    offset, limit = state.offset, state.max_size
    announced = None if request.content_length is None else offset + request.content_length
    told = [request.length, announced if request.complete else None]
    lengths = {each for each in (state.length, *told) if each is not None}
    if limit is not None and max((announced or 0, *lengths)) > limit:
        return refuse(request, TOO_LARGE, f"At most {limit} bytes are allowed.", state=state)
    if FAR in lengths:
        return refuse(request, BAD_REQUEST, "No file is as long as Upload-Length.", state=state)
    if any(each < offset for each in lengths):
        return refuse(request, INCONSISTENT_LENGTH, state=state)
    known = state.length if state.length is not None else request.length
    if known is not None and announced is not None and announced > known:
        problem = BEYOND_LENGTH if request.action == "append" else _beyond_at_creation(request)
        return refuse(request, problem, state=state)
    if len(lengths) > 1:
        return refuse(request, INCONSISTENT_LENGTH, state=state)
    length = next(iter(lengths), None)
    bound = length if length is not None else limit
    return Append(
        offset=offset,
        length=length,
        declared=request.complete is not False,
        most=None if bound is None else bound - offset,
        over=TOO_LARGE if length is None else BEYOND_LENGTH,
        checksums=request.checksums,
        completes=bool(request.complete),
    )


def _beyond_at_creation(request: Request) -> Problem:
    return BEYOND_LENGTH if request.is_tus else INCONSISTENT_LENGTH


# --- replies -------------------------------------------------------------------------------------


def refuse(
    request: Request | Protocol,
    problem: Problem,
    detail: str | None = None,
    *,
    state: New | State | None = None,
    members: Mapping[str, int] | None = None,
) -> Reply:
    """Return the reply that refuses a request.

    Args:
        request: What is refused, or the protocol that it speaks.
        problem: Why.
        detail: The same in more words.
        state: That of the upload, if there is one.
        members: Further members of the problem's details.
    """
    protocol = request.protocol if isinstance(request, Request) else request
    headers: dict[str, str] = {"Cache-Control": "no-store"}
    if isinstance(state, State) and problem in (MISMATCHING_OFFSET, STALE):
        headers["Upload-Offset"] = str(state.offset)
    if problem is TOO_MANY:
        headers["Retry-After"] = str(RETRY_AFTER)
    if problem in (NO_PROTOCOL, OTHER_VERSION):
        headers["Tus-Version"] = VERSION
    if protocol is Protocol.TUS:
        status, body = problem.tus, (detail or problem.title).encode()
        headers["Content-Type"] = "text/plain; charset=utf-8"
    else:
        status, body = problem.draft, _details(problem, detail, members or {})
        headers["Content-Type"] = "application/problem+json"
        headers["Upload-Complete"] = "?0"
        if problem is TOO_LARGE and state is not None:
            headers["Upload-Limit"] = fields.write_limits(state.max_size, state.max_age)
    found = (*_common(protocol), *headers.items())
    return Reply(status, found, body, protocol in problem.ends)


def mismatch(request: Request, state: State) -> Reply:
    """Return the reply to a request for another offset than the upload has."""
    offsets = {"expected-offset": state.offset, "provided-offset": request.offset or 0}
    return refuse(request, MISMATCHING_OFFSET, state=state, members=offsets)


def _details(problem: Problem, detail: str | None, members: Mapping[str, int]) -> bytes:
    details: dict[str, object] = {"type": problem.type} if problem.type else {}
    details |= {"title": problem.title, "status": problem.draft, **members}
    if detail is not None:
        details["detail"] = detail
    return json.dumps(details).encode()


def progress(request: Request, state: State, location: str | None = None) -> Reply:
    """Return the reply to a creation or an append that has been carried out.

    Args:
        request: What was carried out.
        state: That of the upload now.
        location: Where the upload is, if it was created by this request.
    """
    if not request.is_tus and state.final is not None:
        return _final(state.final, state, location)
    headers: list[tuple[str, str]] = []
    if location is not None:
        headers.append(("Location", location))
    if location is None or request.has_content or not request.is_tus:
        headers.append(("Upload-Offset", str(state.offset)))
    if request.is_tus:
        headers += _expiration(state)
        headers += _content(state.final)
    else:
        limits = fields.write_limits(state.max_size, state.max_age)
        headers += [("Upload-Complete", "?0"), ("Upload-Limit", limits)]
    headers.append(("Cache-Control", "no-store"))
    return Reply(204 if location is None else 201, (*_common(request.protocol), *headers))


def deleted(request: Request) -> Reply:
    """Return the reply to a deletion."""
    return Reply(204, (*_common(request.protocol),))


def _final(final: Final, state: State, location: str | None) -> Reply:
    headers = [("Upload-Complete", "?1"), ("Upload-Offset", str(state.offset))]
    if location is not None and "location" not in {name.lower() for name, _ in final.headers}:
        headers.append(("Location", location))
    if not final.body:
        headers += _content(final)
    return Reply(final.status, (*final.headers, *headers), final.body)


def _content(final: Final | None) -> list[tuple[str, str]]:
    if final is None or final.location is None:
        return []
    digest = [] if final.digest is None else [("Repr-Digest", final.digest)]
    return [("Content-Location", final.location), *digest]


def _describe(request: Request, state: State) -> Reply:
    headers = [("Upload-Offset", str(state.offset)), ("Cache-Control", "no-store")]
    if state.length is not None:
        headers.append(("Upload-Length", str(state.length)))
    if request.is_tus:
        if state.length is None:
            headers.append(("Upload-Defer-Length", "1"))
        if state.metadata_field:
            headers.append(("Upload-Metadata", state.metadata_field))
        if state.concatenation_field:
            headers.append(("Upload-Concat", state.concatenation_field))
        headers += _expiration(state)
    else:
        headers.append(("Upload-Complete", "?0" if state.final is None else "?1"))
        limits = fields.write_limits(state.max_size, state.max_age)
        headers.append(("Upload-Limit", limits))
    headers += _content(state.final)  # for the client that has missed the last reply
    return Reply(200 if request.is_tus else 204, (*_common(request.protocol), *headers))


def _expiration(state: State) -> list[tuple[str, str]]:
    return [("Upload-Expires", formatdate(state.expires, usegmt=True))]


def _common(protocol: Protocol) -> HeaderList:
    return (("Tus-Resumable", VERSION),) if protocol is Protocol.TUS else ()


def options(max_size: int | None, max_age: int, *, is_upload: bool) -> Reply:
    """Return the reply to OPTIONS: what both protocols have to tell before anything is sent."""
    headers = [
        ("Allow", _allowed(is_upload)),
        ("Tus-Resumable", VERSION),
        ("Tus-Version", VERSION),
        ("Tus-Extension", EXTENSIONS),
        ("Tus-Checksum-Algorithm", ",".join(fields.CHECKSUMS)),
        ("Accept-Patch", f"{DRAFT_TYPE}, {TUS_TYPE}"),
        ("Upload-Limit", fields.write_limits(max_size, max_age)),
        ("Cache-Control", "no-store"),
    ]
    if max_size is not None:
        headers.append(("Tus-Max-Size", str(max_size)))
    return Reply(204, tuple(headers))


def _allowed(is_upload: bool) -> str:
    return "OPTIONS, HEAD, GET, PATCH, DELETE, POST" if is_upload else "OPTIONS, POST"


def interim(request: Request, location: str, state: New | State) -> HeaderList | None:
    """Return the headers of the 104 that tells where a new upload is, or None if none is due."""
    if request.interop is None or request.action != "create" or not request.has_content:
        return None
    limits = fields.write_limits(state.max_size, state.max_age)
    return (
        ("Location", location),
        ("Upload-Limit", limits),
        ("Upload-Draft-Interop-Version", str(request.interop)),
    )
