"""Both resumable protocols as pure decisions: every rule, as a table, and hostile fields."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from flask_hashfs._http import cors, resumable
from flask_hashfs._http import resumable_fields as fields
from flask_hashfs._http.resumable import (
    DRAFT_TYPE,
    TUS_TYPE,
    Append,
    Create,
    Delete,
    Final,
    New,
    Protocol,
    Reply,
    Request,
    State,
)

TUS = {"Tus-Resumable": "1.0.0"}
TUS_CONTENT = {**TUS, "Content-Type": TUS_TYPE}
DRAFT_CONTENT = {"Content-Type": DRAFT_TYPE}
PROBLEMS = "https://iana.org/assignments/http-problem-types#"
SHA256 = hashlib.sha256(b"content").digest()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(
    method: str,
    headers: dict[str, str] | Headers,
    content: int | None = 0,
    algorithm: str = "sha256",
) -> Request | Reply:
    return resumable.read(
        method, Headers(headers), content, is_upload=method != "POST", algorithm=algorithm
    )


def decide(
    method: str,
    headers: dict[str, str],
    content: int | None = 0,
    state: New | State | None = None,
) -> Reply | Append | Create | Delete:
    request = read(method, headers, content)
    if isinstance(request, Reply):
        return request
    return resumable.decide(request, state or (New() if method == "POST" else State(0)))


def request(method: str, headers: dict[str, str], content: int | None = 0) -> Request:
    found = read(method, headers, content)
    assert isinstance(found, Request), found
    return found


def status(found: object) -> int:
    assert isinstance(found, Reply), found
    return found.status


def append(found: object) -> Append:
    assert isinstance(found, (Append, Create)), found
    return found.append if isinstance(found, Create) else found


def members(reply: object) -> dict[str, Any]:
    assert isinstance(reply, Reply)
    assert reply.get("Content-Type") == "application/problem+json"
    details: dict[str, Any] = json.loads(reply.body)
    assert details["status"] == reply.status
    return details


# --- which protocol ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "headers", "protocol"),
    [
        ("POST", {**TUS, "Upload-Length": "1"}, Protocol.TUS),
        ("POST", {**TUS, "Upload-Length": "1", "Upload-Complete": "?1"}, Protocol.TUS),
        ("POST", {"Upload-Complete": "?1"}, Protocol.DRAFT),
        ("HEAD", TUS, Protocol.TUS),
        ("HEAD", {}, Protocol.DRAFT),
        ("GET", {}, Protocol.DRAFT),
        ("DELETE", {}, Protocol.DRAFT),
        ("DELETE", TUS, Protocol.TUS),
        ("PATCH", {**TUS_CONTENT, "Upload-Offset": "0"}, Protocol.TUS),
        ("PATCH", {**DRAFT_CONTENT, "Upload-Offset": "0", "Upload-Complete": "?0"}, Protocol.DRAFT),
    ],
)
def test_the_fields_choose_the_protocol(
    method: str, headers: dict[str, str], protocol: Protocol
) -> None:
    assert request(method, headers).protocol is protocol


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {}),
        ("POST", {"Content-Type": "text/plain"}),
        ("PATCH", {"Content-Type": TUS_TYPE, "Upload-Offset": "0"}),
        ("HEAD", {"Tus-Resumable": ""}),
        ("HEAD", {"Tus-Resumable": "0.2.2"}),
        ("HEAD", {"Tus-Resumable": "1.0.0,1.0.0"}),
        ("POST", {"Tus-Resumable": "2.0.0", "Upload-Complete": "?1"}),
    ],
)
def test_no_protocol_and_no_known_version_are_412_with_the_known_one(
    method: str, headers: dict[str, str]
) -> None:
    reply = read(method, headers)
    assert status(reply) == 412
    assert isinstance(reply, Reply)
    assert reply.get("Tus-Version") == "1.0.0"


@pytest.mark.parametrize(
    ("method", "headers", "content"),
    [
        ("POST", {**TUS, "Upload-Length": "1"}, 1),
        ("POST", {**TUS, "Upload-Length": "1"}, None),
        ("POST", {**TUS, "Upload-Length": "1", "Content-Type": "text/plain"}, 1),
        ("PATCH", {**TUS, "Upload-Offset": "0"}, 1),
        ("PATCH", {**TUS, "Upload-Offset": "0", "Content-Type": DRAFT_TYPE}, 1),
        ("PATCH", {"Upload-Offset": "0", "Upload-Complete": "?1"}, 1),
        ("PATCH", {"Content-Type": "text/plain", "Upload-Offset": "0", "Upload-Complete": "?1"}, 1),
    ],
)
def test_another_type_is_415(method: str, headers: dict[str, str], content: int | None) -> None:
    assert status(read(method, headers, content)) == 415


def test_parameters_and_case_of_the_type_do_not_matter() -> None:
    kind = "Application/Partial-Upload; x=1"
    headers = {"Content-Type": kind, "Upload-Offset": "0", "Upload-Complete": "?0"}
    assert request("PATCH", headers, 1).action == "append"


@pytest.mark.parametrize(("method", "is_upload"), [("POST", True), ("PUT", True), ("PATCH", False)])
def test_methods_that_nothing_answers_are_405_with_those_that_something_does(
    method: str, is_upload: bool
) -> None:
    reply = resumable.read(method, Headers(TUS), 0, is_upload=is_upload)
    assert status(reply) == 405
    assert isinstance(reply, Reply)
    assert "OPTIONS" in (reply.get("Allow") or "")


def test_another_method_may_be_named_in_a_field() -> None:
    assert resumable.overridden("POST", Headers({"X-HTTP-Method-Override": "patch"})) == "PATCH"
    assert resumable.overridden("POST", Headers()) == "POST"


# --- bad fields ----------------------------------------------------------------------------------

NUMBERS = ["", "-1", "+1", "1.0", "0x1", "1e3", "abc", "1,1", "1 2", "\u0661", "\xb2", "1;", "?1"]


@pytest.mark.parametrize("text", NUMBERS)
@pytest.mark.parametrize(
    ("method", "headers", "field"),
    [
        ("POST", TUS, "Upload-Length"),
        ("POST", {"Upload-Complete": "?0"}, "Upload-Length"),
        ("PATCH", TUS_CONTENT, "Upload-Offset"),
        ("PATCH", {**TUS_CONTENT, "Upload-Offset": "0"}, "Upload-Length"),
        ("PATCH", {**DRAFT_CONTENT, "Upload-Complete": "?0"}, "Upload-Offset"),
        (
            "PATCH",
            {**DRAFT_CONTENT, "Upload-Complete": "?0", "Upload-Offset": "0"},
            "Upload-Length",
        ),
    ],
)
def test_a_malformed_number_is_400_and_named(
    method: str, headers: dict[str, str], field: str, text: str
) -> None:
    reply = read(method, {**headers, field: text})
    assert status(reply) == 400
    assert isinstance(reply, Reply)
    assert field.encode() in reply.body


@pytest.mark.parametrize("text", ["", "1", "true", "?2", "?", "?1 ?1", "?1,?1", "?1;="])
@pytest.mark.parametrize(("method", "more"), [("POST", {}), ("PATCH", {"Upload-Offset": "0"})])
def test_a_malformed_completeness_is_400(method: str, more: dict[str, str], text: str) -> None:
    assert status(read(method, {**DRAFT_CONTENT, **more, "Upload-Complete": text})) == 400


def test_parameters_of_structured_fields_are_ignored() -> None:
    headers = {**DRAFT_CONTENT, "Upload-Complete": "?1;a=2", "Upload-Offset": "7;b"}
    found = request("PATCH", headers)
    assert (found.complete, found.offset) == (True, 7)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", TUS),
        ("POST", {**TUS, "Upload-Length": "1", "Upload-Defer-Length": "1"}),
        ("POST", {**TUS, "Upload-Defer-Length": "0"}),
        ("POST", {**TUS, "Upload-Defer-Length": "true"}),
        ("POST", {**TUS, "Upload-Length": "1" * 400}),
        ("POST", {**TUS, "Upload-Length": "1", "Upload-Concat": "final;/u/a"}),
        ("POST", {**TUS, "Upload-Defer-Length": "1", "Upload-Concat": "final;/u/a"}),
        ("POST", {**TUS, "Upload-Concat": "final;"}),
        ("POST", {**TUS, "Upload-Concat": "final"}),
        ("POST", {**TUS, "Upload-Length": "1", "Upload-Concat": "whole"}),
        ("POST", {**TUS, "Upload-Concat": "partial"}),
        ("PATCH", TUS_CONTENT),
        ("PATCH", {**DRAFT_CONTENT, "Upload-Complete": "?0"}),
        ("PATCH", {**DRAFT_CONTENT, "Upload-Offset": "0"}),
    ],
)
def test_missing_and_clashing_fields_are_400(method: str, headers: dict[str, str]) -> None:
    assert status(decide(method, headers)) == 400


@pytest.mark.parametrize(
    "text",
    [
        "name",  # fine: a key alone; see below
        "name YQ==,name YQ==",
        "name YQ",
        "name Y!==",
        "name YQ== YQ==",
        " ,",
        "na\xefme YQ==",
        "name " + encoded(b"\xff\xfe"),
        "name " + encoded(b"a" * 4096),
        "a YQ==,,b YQ==",
    ],
)
def test_malformed_metadata_are_400(text: str) -> None:
    reply = read("POST", {**TUS, "Upload-Length": "1", "Upload-Metadata": text})
    if text == "name":
        assert isinstance(reply, Request)
        assert reply.metadata == {"name": ""}
    else:
        assert status(reply) == 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256 ",
        "sha256 YQ==",
        "sha3 " + encoded(SHA256),
        "SHA256 " + encoded(SHA256),
        "sha256 " + encoded(SHA256)[:-2],
        "md5 " + encoded(SHA256),
        "sha256  " + encoded(SHA256),
    ],
)
def test_a_checksum_that_is_unknown_or_malformed_is_400(text: str) -> None:
    assert (
        status(read("PATCH", {**TUS_CONTENT, "Upload-Offset": "0", "Upload-Checksum": text})) == 400
    )


@pytest.mark.parametrize("field", ["Content-Digest", "Repr-Digest"])
@pytest.mark.parametrize(
    "text", ["sha-256=:YQ==:", "sha-256", "sha-256=1", "sha-256=:", "=", "\xff"]
)
def test_a_malformed_digest_of_the_stores_algorithm_is_400(field: str, text: str) -> None:
    assert status(read("POST", {"Upload-Complete": "?1", field: text})) == 400


@pytest.mark.parametrize("text", ["sha-512=:YQ==:", "sha-512", "md5=:YQ==:", "unixsum=1", ""])
def test_any_other_bad_or_unknown_digest_is_absent(text: str) -> None:
    found = request("POST", {"Upload-Complete": "?1", "Repr-Digest": text, "Content-Digest": text})
    assert found.expected is None
    assert found.checksums == ()


@pytest.mark.parametrize("headers", [{"Upload-Complete": "?0"}, {**TUS, "Upload-Length": "7"}])
def test_a_creation_may_promise_the_digest_of_the_whole(headers: dict[str, str]) -> None:
    digest = f"sha-256=:{encoded(SHA256)}:"
    assert request("POST", {**headers, "Repr-Digest": digest}).expected == SHA256.hex()


@pytest.mark.parametrize(("text", "version"), [("6", 6), ("8", 8), ("5", None), ("x", None)])
def test_other_interop_versions_are_those_of_a_client_without_one(
    text: str, version: int | None
) -> None:
    headers = {"Upload-Complete": "?0", "Upload-Draft-Interop-Version": text}
    assert request("POST", headers).interop == version


FIELDS = [
    *("Tus-Resumable", "Upload-Length", "Upload-Offset", "Upload-Complete", "Upload-Defer-Length"),
    *("Upload-Metadata", "Upload-Concat", "Upload-Checksum", "Content-Type", "Content-Digest"),
    *("Repr-Digest", "Content-Disposition", "Upload-Draft-Interop-Version"),
]
VALUES = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40),
    st.sampled_from(["1.0.0", "0", "1", "?0", "?1", TUS_TYPE, DRAFT_TYPE, "partial", "final;/a"]),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["POST", "PATCH", "HEAD", "DELETE", "GET"]),
    st.dictionaries(st.sampled_from(FIELDS), VALUES),
    st.one_of(st.none(), st.integers(0, 10**20)),
    st.builds(
        State,
        st.integers(0, 50),
        st.one_of(st.none(), st.integers(50, 100)),
        st.booleans(),
        st.one_of(st.none(), st.integers(100, 200)),
        final=st.one_of(st.none(), st.just(Final())),
    ),
)
def test_whatever_is_sent_is_answered(
    method: str, headers: dict[str, str], content: int | None, state: State
) -> None:
    found = decide(method, headers, content, New() if method == "POST" else state)
    if isinstance(found, Reply):
        assert 200 <= found.status < 500
    elif isinstance(found, Append):
        assert found.offset == state.offset
        assert found.most is None or found.most >= 0
        bound = found.length if found.length is not None else state.max_size
        assert found.most is None or found.offset + found.most == bound


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.text(max_size=20), max_size=5)
)
def test_metadata_are_read_as_they_are_written(pairs: dict[str, str]) -> None:
    pairs = {key: value.encode("utf-8", "replace").decode() for key, value in pairs.items()}
    text = fields.write_metadata(pairs)
    assert fields.metadata(Headers({"Upload-Metadata": text})) == (text, pairs)


# --- creation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "content", "length", "declared", "completes"),
    [
        ({**TUS, "Upload-Length": "9"}, 0, 9, True, False),
        ({**TUS, "Upload-Length": "0"}, 0, 0, True, False),
        ({**TUS, "Upload-Defer-Length": "1"}, 0, None, True, False),
        ({**TUS_CONTENT, "Upload-Length": "9"}, 4, 9, True, False),
        ({"Upload-Complete": "?0"}, 4, None, False, False),
        ({"Upload-Complete": "?0", "Upload-Length": "9"}, 4, 9, False, False),
        ({"Upload-Complete": "?1"}, 4, 4, True, True),
        ({"Upload-Complete": "?1"}, None, None, True, True),
        ({"Upload-Complete": "?1", "Upload-Length": "9"}, None, 9, True, True),
        ({"Upload-Complete": "?1"}, 0, 0, True, True),
    ],
)
def test_a_creation_tells_the_length_and_whether_it_is_all(
    headers: dict[str, str],
    content: int | None,
    length: int | None,
    declared: bool,
    completes: bool,
) -> None:
    found = append(decide("POST", headers, content))
    assert (found.length, found.declared, found.completes) == (length, declared, completes)
    assert found.most == length


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({**TUS, "Upload-Length": "11"}, 0),
        ({**TUS, "Upload-Length": "9" * 30}, 0),
        ({**TUS_CONTENT, "Upload-Length": "5"}, 11),
        ({**TUS_CONTENT, "Upload-Defer-Length": "1"}, 11),
        ({"Upload-Complete": "?0", "Upload-Length": "11"}, 0),
        ({"Upload-Complete": "?1", "Upload-Length": "11"}, 1),
        ({"Upload-Complete": "?1"}, 11),
    ],
)
def test_a_creation_over_the_limit_is_413_before_anything_else(
    headers: dict[str, str], content: int
) -> None:
    found = decide("POST", headers, content, New(10, 60))
    assert status(found) == 413
    assert isinstance(found, Reply)
    limit = None if "Tus-Resumable" in headers else "max-size=10, max-age=60"
    assert found.get("Upload-Limit") == limit


def test_lengths_of_a_creation_that_do_not_agree_are_told() -> None:
    found = decide("POST", {"Upload-Complete": "?1", "Upload-Length": "100"}, 5)
    assert members(found)["type"] == PROBLEMS + "inconsistent-upload-length"
    assert status(found) == 400
    assert isinstance(found, Reply)
    assert found.get("Upload-Complete") == "?0"
    assert status(decide("POST", {"Upload-Complete": "?0", "Upload-Length": "4"}, 5)) == 400
    assert status(decide("POST", {**TUS_CONTENT, "Upload-Length": "4"}, 5)) == 413


def test_a_part_and_a_whole_of_parts() -> None:
    part = request("POST", {**TUS, "Upload-Length": "5", "Upload-Concat": "partial"})
    assert part.is_partial
    whole = request("POST", {**TUS, "Upload-Concat": "final;/u/a  http://h/u/b"})
    assert whole.parts == ("/u/a", "http://h/u/b")
    assert not whole.is_partial


def test_the_draft_says_by_other_fields_what_is_uploaded() -> None:
    headers = {
        "Upload-Complete": "?0",
        "Content-Disposition": "inline; filename=\"a.txt\"; filename*=UTF-8''%c3%a4.txt",
        "Content-Type": "text/plain",
    }
    assert request("POST", headers).metadata == {"filename": "\xe4.txt", "filetype": "text/plain"}
    assert request("POST", {**headers, "Content-Disposition": "x" * 9000}).metadata == {
        "filetype": "text/plain"
    }


# --- appending -----------------------------------------------------------------------------------


def tus_append(content: int | None, state: State, **more: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in more.items()}
    return decide("PATCH", {**TUS_CONTENT, "Upload-Offset": "4", **given}, content, state)


def draft_append(content: int | None, state: State, complete: str = "?0", **more: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in more.items()}
    headers = {**DRAFT_CONTENT, "Upload-Complete": complete, "Upload-Offset": "4", **given}
    return decide("PATCH", headers, content, state)


def test_an_append_goes_on_where_the_upload_is() -> None:
    state = State(4, 9)
    assert tus_append(5, state) == Append(4, 9, True, 5, resumable.BEYOND_LENGTH, (), False)
    assert draft_append(5, state) == Append(4, 9, False, 5, resumable.BEYOND_LENGTH, (), False)
    assert draft_append(5, state, "?1") == Append(4, 9, True, 5, resumable.BEYOND_LENGTH, (), True)
    assert draft_append(None, State(4, None, max_size=10), "?1") == Append(
        4, None, True, 6, resumable.TOO_LARGE, (), True
    )


def test_another_offset_is_409_with_the_right_one() -> None:
    reply = tus_append(5, State(3, 9))
    assert status(reply) == 409
    assert reply.get("Upload-Offset") == "3"
    reply = draft_append(5, State(3, 9))
    assert status(reply) == 409
    assert (reply.get("Upload-Offset"), reply.get("Upload-Complete")) == ("3", "?0")
    found = members(reply)
    assert found["type"] == PROBLEMS + "mismatching-upload-offset"
    assert (found["expected-offset"], found["provided-offset"]) == (3, 4)


def test_a_stale_request_is_409_with_the_offset_of_now() -> None:
    stale = request("PATCH", {**TUS_CONTENT, "Upload-Offset": "0"}, 5)
    reply = resumable.refuse(stale, resumable.STALE, state=State(7))
    assert (reply.status, reply.get("Upload-Offset")) == (409, "7")


@pytest.mark.parametrize("ended", [None, Final()])
def test_beyond_the_length_is_413_in_tus_and_400_and_the_end_in_the_draft(
    ended: Final | None,
) -> None:
    state = State(4, 4, final=ended)
    reply = tus_append(1, state)
    assert (reply.status, reply.ends) == (413, False)
    reply = draft_append(1, state)
    assert (reply.status, reply.ends) == (400, ended is None)
    assert members(reply)["type"] == PROBLEMS + "inconsistent-upload-length"


def test_over_the_limit_is_413_before_beyond_the_length() -> None:
    state = State(4, 9, max_size=9, max_age=5)
    assert status(tus_append(6, state)) == 413
    reply = draft_append(6, state)
    assert (reply.status, reply.ends) == (413, False)
    assert reply.get("Upload-Limit") == "max-size=9, max-age=5"
    assert status(draft_append(1, State(4, max_size=9), Upload_Length="10")) == 413


@pytest.mark.parametrize(
    ("content", "complete", "length"),
    [(1, "?0", "8"), (1, "?0", "10"), (4, "?1", "9"), (0, "?1", "9"), (None, "?0", "3")],
)
def test_lengths_that_do_not_agree_are_400_and_change_nothing(
    content: int | None, complete: str, length: str
) -> None:
    reply = draft_append(content, State(4, 9), complete, Upload_Length=length)
    assert (reply.status, reply.ends) == (400, False)
    assert members(reply)["type"] == PROBLEMS + "inconsistent-upload-length"
    assert reply.get("Upload-Complete") == "?0"


def test_a_deferred_length_is_told_once() -> None:
    assert append(tus_append(1, State(4), Upload_Length="9")).length == 9
    assert append(tus_append(1, State(4, 9), Upload_Length="9")).length == 9
    assert status(tus_append(1, State(4, 9), Upload_Length="8")) == 400
    assert status(tus_append(0, State(4), Upload_Length="3")) == 400


def test_nothing_more_after_the_end_gets_the_answer_of_the_end() -> None:
    final = Final(202, (("Content-Type", "text/plain"),), b"mine", "/files/a", "sha-256=:YQ==:")
    state = State(4, 4, final=final)
    assert status(tus_append(0, state)) == 204
    reply = draft_append(0, state)
    assert (reply.status, reply.body) == (202, b"mine")
    assert (reply.get("Upload-Complete"), reply.get("Upload-Offset")) == ("?1", "4")
    assert reply.get("Content-Location") is None, "it has content of its own"


def test_a_concatenated_upload_takes_no_content() -> None:
    state = State(4, 4, concatenation_field="final;/a /b", final=Final())
    assert status(tus_append(0, state)) == 403
    assert status(draft_append(0, state, "?1")) == 403


def test_digests_of_the_content_are_handed_on() -> None:
    checksum = fields.Checksum("sha1", bytes(20))
    found = append(tus_append(5, State(4, 9), Upload_Checksum="sha1 " + encoded(bytes(20))))
    assert found.checksums == (checksum,)
    digest = f"sha-256=:{encoded(SHA256)}:, md5=:YQ==:"
    found = append(draft_append(5, State(4, 9), Content_Digest=digest))
    assert found.checksums == (fields.Checksum("sha256", SHA256),)


@pytest.mark.parametrize(
    ("state", "tus", "draft"),
    [
        (State(4, 4), True, True),
        (State(4, 4, declared=False), True, False),
        (State(3, 4), False, False),
        (State(4), False, False),
        (State(4, 4, final=Final()), False, False),
        (State(4, 4, concatenation_field="partial"), False, False),
    ],
)
def test_who_finds_all_bytes_and_no_end_has_to_bring_it_about(
    state: State, tus: bool, draft: bool
) -> None:
    assert state.is_due(request("HEAD", TUS)) is tus
    assert state.is_due(request("HEAD", {})) is draft


# --- reading and deleting ------------------------------------------------------------------------


def test_head_in_tus() -> None:
    state = State(4, 9, metadata_field="a YQ==", concatenation_field="partial", expires=0.0)
    for method in ("HEAD", "GET"):
        reply = decide(method, TUS, state=state)
        assert isinstance(reply, Reply)
        assert dict(reply.headers) == {
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": "4",
            "Upload-Length": "9",
            "Upload-Metadata": "a YQ==",
            "Upload-Concat": "partial",
            "Upload-Expires": "Thu, 01 Jan 1970 00:00:00 GMT",
            "Cache-Control": "no-store",
        }
        assert (reply.status, reply.body) == (200, b"")
    reply = decide("HEAD", TUS, state=State(4))
    assert isinstance(reply, Reply)
    assert (reply.get("Upload-Defer-Length"), reply.get("Upload-Length")) == ("1", None)


def test_head_in_the_draft() -> None:
    for final, complete in ((None, "?0"), (Final(), "?1")):
        reply = decide("HEAD", {}, state=State(4, 9, max_size=20, max_age=7, final=final))
        assert isinstance(reply, Reply)
        assert reply.status == 204
        assert dict(reply.headers) == {
            "Upload-Offset": "4",
            "Upload-Length": "9",
            "Upload-Complete": complete,
            "Upload-Limit": "max-size=20, max-age=7",
            "Cache-Control": "no-store",
        }


def test_where_any_size_is_allowed_the_limit_says_so() -> None:
    assert fields.write_limits(None, 7) == "min-size=0, max-age=7"
    assert fields.write_limits(10**18, -7) == f"max-size={10**15 - 1}, max-age=0"


@pytest.mark.parametrize("headers", [TUS, {}])
def test_a_deletion_is_204(headers: dict[str, str]) -> None:
    assert isinstance(decide("DELETE", headers, state=State(4, 9)), Delete)
    assert resumable.deleted(request("DELETE", headers)).status == 204


# --- what became of it ---------------------------------------------------------------------------


def test_what_a_creation_is_answered() -> None:
    tus = request("POST", {**TUS, "Upload-Length": "9"})
    reply = resumable.progress(tus, State(0, 9), "/uploads/a")
    assert (reply.status, reply.get("Location")) == (201, "/uploads/a")
    assert reply.get("Upload-Expires") is not None
    assert reply.get("Upload-Offset") is None
    reply = resumable.progress(replace(tus, content_length=4), State(4, 9), "/uploads/a")
    assert reply.get("Upload-Offset") == "4"
    draft = request("POST", {"Upload-Complete": "?0"}, 4)
    reply = resumable.progress(draft, State(4, max_size=9), "/uploads/a")
    assert (reply.status, reply.get("Location")) == (201, "/uploads/a")
    assert reply.get("Upload-Limit") == "max-size=9, max-age=0"
    assert (reply.get("Upload-Complete"), reply.get("Upload-Offset")) == ("?0", "4")


def test_what_an_append_is_answered() -> None:
    tus = request("PATCH", {**TUS_CONTENT, "Upload-Offset": "0"}, 4)
    reply = resumable.progress(tus, State(4, 9))
    assert (reply.status, reply.get("Upload-Offset")) == (204, "4")
    assert reply.get("Upload-Expires") is not None
    draft = request("PATCH", {**DRAFT_CONTENT, "Upload-Offset": "0", "Upload-Complete": "?0"}, 4)
    reply = resumable.progress(draft, State(4, 9))
    assert (reply.status, reply.get("Upload-Complete")) == (204, "?0")
    assert reply.get("Upload-Offset") == "4"


@pytest.mark.parametrize("location", [None, "/uploads/a"])
def test_what_the_end_is_answered(location: str | None) -> None:
    final = Final(location="/files/a", digest="sha-256=:YQ==:")
    method = "POST" if location else "PATCH"
    more = {} if location else {"Upload-Offset": "0"}
    for headers in (
        {**TUS_CONTENT, "Upload-Length": "4", **more},
        {**DRAFT_CONTENT, "Upload-Complete": "?1", **more},
    ):
        found = request(method, headers, 4)
        reply = resumable.progress(found, State(4, 4, final=final), location)
        if found.is_tus:
            assert reply.status == (201 if location else 204)
        else:
            assert (reply.status, reply.get("Upload-Complete")) == (200, "?1")
        assert reply.get("Upload-Offset") == "4"
        assert reply.get("Content-Location") == "/files/a"
        assert reply.get("Repr-Digest") == "sha-256=:YQ==:"
        assert reply.get("Location") == location


def test_options_tell_of_both_protocols() -> None:
    reply = resumable.options(9, 60, is_upload=False)
    assert reply.status == 204
    assert reply.get("Tus-Version") == "1.0.0"
    assert reply.get("Tus-Max-Size") == "9"
    assert set((reply.get("Tus-Extension") or "").split(",")) == {
        *("creation", "creation-with-upload", "creation-defer-length", "termination"),
        *("expiration", "checksum", "concatenation"),
    }
    assert reply.get("Tus-Checksum-Algorithm") == "sha1,sha256,sha512,md5,crc32"
    assert DRAFT_TYPE in (reply.get("Accept-Patch") or "")
    assert reply.get("Upload-Limit") == "max-size=9, max-age=60"
    assert resumable.options(None, 60, is_upload=True).get("Tus-Max-Size") is None


def test_104_is_for_clients_that_know_it_and_have_content_to_send() -> None:
    headers = {"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "8"}
    found = resumable.interim(request("POST", headers, 9), "/uploads/a", New(10, 60))
    assert dict(found or ()) == {
        "Location": "/uploads/a",
        "Upload-Limit": "max-size=10, max-age=60",
        "Upload-Draft-Interop-Version": "8",
    }
    assert resumable.interim(request("POST", headers, 0), "/uploads/a", New()) is None
    assert resumable.interim(request("POST", {"Upload-Complete": "?1"}, 9), "/a", New()) is None


@pytest.mark.parametrize(
    ("problem", "tus", "draft"),
    [
        (resumable.UNKNOWN, 404, 404),
        (resumable.EXPIRED, 410, 410),
        (resumable.OTHER_DIGEST, 460, 400),
        (resumable.OTHER_CONTENT, 400, 400),
        (resumable.TOO_MANY, 503, 503),
        (resumable.FULL, 507, 507),
        (resumable.SILENT, 408, 408),
    ],
)
def test_every_problem_has_its_status(problem: resumable.Problem, tus: int, draft: int) -> None:
    reply = resumable.refuse(Protocol.TUS, problem)
    assert (reply.status, reply.get("Tus-Resumable")) == (tus, "1.0.0")
    reply = resumable.refuse(Protocol.DRAFT, problem)
    assert (reply.status, members(reply)["title"]) == (draft, problem.title)
    assert (reply.get("Retry-After") is not None) is (problem is resumable.TOO_MANY)


# --- other origins -------------------------------------------------------------------------------

ORIGIN = {"Origin": "https://a.example"}
PREFLIGHT = {
    **ORIGIN,
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "x-mine, upload-offset",
}


def test_a_page_of_an_allowed_origin_may_send_and_read_all_fields() -> None:
    found = dict(cors.cors("OPTIONS", Headers(PREFLIGHT), ("https://a.example",)))
    assert found["Access-Control-Allow-Origin"] == "https://a.example"
    assert found["Access-Control-Allow-Credentials"] == "true"
    assert {"PATCH", "DELETE", "HEAD"} <= set(found["Access-Control-Allow-Methods"].split(", "))
    allowed = found["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"x-mine", "upload-offset", "upload-complete", "tus-resumable"} <= set(allowed)
    assert len(allowed) == len(set(allowed))
    found = dict(cors.cors("PATCH", Headers(ORIGIN), ("https://a.example",)))
    exposed = found["Access-Control-Expose-Headers"].split(", ")
    assert {"Location", "Upload-Offset", "Upload-Complete", "Upload-Limit"} <= set(exposed)
    assert found["Vary"] == "Origin"


def test_all_origins_may_without_credentials() -> None:
    found = dict(cors.cors("PATCH", Headers(ORIGIN), "*"))
    assert found["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in found


def test_another_origin_is_told_nothing() -> None:
    assert cors.cors("PATCH", Headers(ORIGIN), ()) == []
    assert cors.cors("PATCH", Headers(ORIGIN), ("https://b.example",)) == [("Vary", "Origin")]
    assert cors.cors("PATCH", Headers(), ("https://b.example",)) == [("Vary", "Origin")]
