"""Resumable uploads in both frameworks: every rule of the wire, and what an app sees of it."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pure_magic_rs
import pytest
from resumable_faces import (
    DRAFT_CONTENT,
    FACES,
    TUS,
    TUS_CONTENT,
    Face,
    FlaskFace,
    QuartFace,
    encoded,
)
from resumable_rules import BAD_APPENDS, BAD_CREATIONS, UNKNOWN_IDS
from werkzeug.exceptions import ServiceUnavailable, abort

from flask_hashfs import AUTO, ConfigError, RejectedError, StoredFile, Upload, file_stored
from flask_hashfs._store import types

pytestmark = pytest.mark.decided_once

CONTENT = b"the content of an upload" * 40
ID = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)
DIGEST = f"sha-256=:{encoded(hashlib.sha256(CONTENT).digest())}:"
OTHER = f"sha-256=:{encoded(bytes(32))}:"
PROBLEMS = "https://iana.org/assignments/http-problem-types#"


@pytest.fixture(params=FACES, ids=lambda face: face.__name__)
def kind(request: pytest.FixtureRequest) -> type[Face]:
    face: type[Face] = request.param
    return face


@pytest.fixture
def face(kind: type[Face], tmp_path: Path) -> Face:
    return kind(tmp_path / "root")


# --- tus -----------------------------------------------------------------------------------------


def test_an_upload_by_tus(face: Face) -> None:
    metadata = f"filename {encoded(b'a.txt')},empty"
    location = face.create(SIZE, Upload_Metadata=metadata)
    assert location.startswith("/uploads/")
    answer = face.send("HEAD", location, TUS)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.get("Upload-Offset") == "0"
    assert answer.get("Upload-Length") == str(SIZE)
    assert answer.get("Upload-Metadata") == metadata
    assert answer.get("Cache-Control") == "no-store"
    assert answer.get("Tus-Resumable") == "1.0.0"
    answer = face.tus(location, 0, CONTENT[:100])
    assert (answer.status, answer.get("Upload-Offset")) == (204, "100")
    assert answer.get("Upload-Expires") is not None
    assert answer.get("Content-Location") is None
    answer = face.tus(location, 100, CONTENT[100:])
    assert (answer.status, answer.get("Upload-Offset")) == (204, str(SIZE))
    assert answer.get("Repr-Digest") == DIGEST
    url = answer.get("Content-Location")
    assert url is not None
    assert face.send("GET", url).body == CONTENT
    assert face.offset(location) == SIZE
    assert face.tus(location, SIZE, b"").status == 204
    assert face.tus(location, SIZE, b"x").status == 413
    assert face.tus(location, 3, b"x").status == 409
    assert face.contents() == [CONTENT]


def test_a_creation_with_content(face: Face) -> None:
    headers = {**TUS_CONTENT, "Upload-Length": str(SIZE)}
    answer = face.send("POST", "/uploads", headers, CONTENT[:9])
    assert (answer.status, answer.get("Upload-Offset")) == (201, "9")
    assert face.offset(answer.headers["location"]) == 9
    answer = face.send("POST", "/uploads", headers, CONTENT)
    assert (answer.status, answer.get("Upload-Offset")) == (201, str(SIZE))
    assert answer.get("Repr-Digest") == DIGEST


def test_a_deferred_length(face: Face) -> None:
    location = face.create()
    answer = face.send("HEAD", location, TUS)
    assert (answer.get("Upload-Defer-Length"), answer.get("Upload-Length")) == ("1", None)
    assert face.tus(location, 0, CONTENT).status == 204
    assert face.stored() == []
    assert face.tus(location, SIZE, b"", Upload_Length=str(SIZE + 1)).status == 204
    assert face.tus(location, SIZE, b"", Upload_Length=str(SIZE)).status == 400
    assert face.send("HEAD", location, TUS).get("Upload-Length") == str(SIZE + 1)
    other = face.create()
    assert face.tus(other, 0, CONTENT, Upload_Length=str(SIZE)).get("Repr-Digest") == DIGEST


def test_an_empty_upload_ends_with_its_creation(face: Face) -> None:
    location = face.create(0)
    assert face.offset(location) == 0
    assert face.contents() == [b""]


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "md5", "crc32"])
def test_a_checksum_covers_a_request(face: Face, algorithm: str) -> None:
    def checksum(data: bytes) -> str:
        if algorithm == "crc32":
            digest = zlib.crc32(data).to_bytes(4, "big")
        else:
            digest = hashlib.new(algorithm, data).digest()
        return f"{algorithm} {encoded(digest)}"

    location = face.create(SIZE)
    assert face.tus(location, 0, CONTENT[:50]).status == 204
    answer = face.tus(location, 50, CONTENT[50:90], Upload_Checksum=checksum(b"other"))
    assert answer.status == 460
    assert face.offset(location) == 50
    answer = face.tus(location, 50, CONTENT[50:], Upload_Checksum=checksum(CONTENT[50:]))
    assert answer.status == 204
    assert answer.get("Repr-Digest") == DIGEST
    assert face.tus(location, SIZE, b"", Upload_Checksum="sha3 YQ==").status == 400
    headers = {**TUS_CONTENT, "Upload-Length": "5", "Upload-Checksum": checksum(b"other")}
    answer = face.send("POST", "/uploads", headers, b"wrong")
    assert answer.status == 460
    assert len(face.left()) == 1, "a creation that failed leaves nothing"


def test_parts_are_concatenated(face: Face) -> None:
    told: list[Upload] = []
    face.fs.after_upload(told.append)
    parts = [face.create(4, Upload_Concat="partial") for _ in range(2)]
    for part, data in zip(parts, (b"one ", b"two."), strict=True):
        assert face.tus(part, 0, data).status == 204
    assert told == []
    assert face.stored() == []
    assert face.send("HEAD", parts[0], TUS).get("Upload-Concat") == "partial"
    concat = f"final;{parts[0]} http://localhost{parts[1]} {parts[0]}"
    answer = face.send("POST", "/uploads", {**TUS, "Upload-Concat": concat})
    assert answer.status == 201
    whole = answer.headers["location"]
    assert face.contents() == [b"one two.one "]
    assert [upload.length for upload in told] == [12]
    answer = face.send("HEAD", whole, TUS)
    assert (answer.get("Upload-Concat"), answer.get("Upload-Length")) == (concat, "12")
    assert face.tus(whole, 12, b"x").status == 403
    assert face.tus(whole, 0, b"x").status == 403
    assert face.tus(parts[0], 4, b"x").status == 413


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/uploads/" + "0" * 32, 404),
        ("/uploads/x", 404),
        ("/elsewhere/{part}", 404),
        ("{part}/x", 404),
        ("{unfinished}", 400),
        ("{whole}", 400),
        ("http://[x/uploads/{part}", 400),
    ],
)
def test_only_finished_parts_are_concatenated(face: Face, url: str, status: int) -> None:
    names = {
        "unfinished": face.create(4, Upload_Concat="partial"),
        "whole": face.create(0),
        "part": "0" * 32,
    }
    before = face.left()
    concat = f"final;{url.format(**names)}"
    assert face.send("POST", "/uploads", {**TUS, "Upload-Concat": concat}).status == status
    assert face.left() == before


def test_a_deletion(face: Face) -> None:
    location = face.create(SIZE)
    face.tus(location, 0, CONTENT[:9])
    assert face.send("DELETE", location, TUS).status == 204
    assert face.send("HEAD", location, TUS).status == 404
    assert face.left() == []
    location = face.create(SIZE)
    face.tus(location, 0, CONTENT)
    assert face.send("DELETE", location).status == 204
    assert face.send("HEAD", location).status == 404
    assert face.contents() == [CONTENT], "the content of a finished one stays"


# --- the draft -----------------------------------------------------------------------------------


def test_an_upload_by_the_draft(face: Face) -> None:
    headers = {"Upload-Complete": "?0", "Upload-Length": str(SIZE)}
    answer = face.send("POST", "/uploads", headers, CONTENT[:100])
    assert answer.status == 201
    assert (answer.get("Upload-Complete"), answer.get("Upload-Offset")) == ("?0", "100")
    assert (
        answer.get("Upload-Limit") == "min-size=0, max-age=86400"
        or answer.get("Upload-Limit") == "min-size=0, max-age=86399"
    )
    location = answer.headers["location"]
    for method in ("HEAD", "GET"):
        answer = face.send(method, location)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.get("Upload-Offset") == "100"
        assert answer.get("Upload-Length") == str(SIZE)
        assert answer.get("Upload-Complete") == "?0"
        assert answer.get("Cache-Control") == "no-store"
    answer = face.draft(location, 100, CONTENT[100:200])
    assert (answer.status, answer.get("Upload-Complete")) == (204, "?0")
    assert answer.get("Upload-Offset") == "200"
    answer = face.draft(location, 200, CONTENT[200:], "?1")
    assert (answer.status, answer.get("Upload-Complete")) == (200, "?1")
    assert answer.get("Upload-Offset") == str(SIZE)
    assert answer.get("Repr-Digest") == DIGEST
    assert answer.get("Content-Location") is not None
    assert face.send("HEAD", location).get("Upload-Complete") == "?1"
    again = face.draft(location, SIZE, b"", "?1")
    assert (again.status, again.get("Upload-Complete")) == (200, "?1")
    answer = face.draft(location, SIZE, b"x", "?1")
    assert answer.status == 400
    assert json.loads(answer.body)["type"] == PROBLEMS + "inconsistent-upload-length"
    assert face.contents() == [CONTENT]


@pytest.mark.parametrize("chunked", [False, True])
def test_everything_in_one_request(face: Face, chunked: bool) -> None:
    body: Any = [CONTENT[:9], CONTENT[9:]] if chunked else CONTENT
    answer = face.send("POST", "/uploads", {"Upload-Complete": "?1"}, body)
    assert (answer.status, answer.get("Upload-Complete")) == (200, "?1")
    assert answer.get("Repr-Digest") == DIGEST
    head = face.send("HEAD", answer.headers["location"])
    assert head.get("Upload-Length") == str(SIZE)


def test_the_length_may_be_told_by_the_end(face: Face) -> None:
    answer = face.send("POST", "/uploads", {"Upload-Complete": "?0"}, CONTENT[:9])
    location = answer.headers["location"]
    assert face.send("HEAD", location).get("Upload-Length") is None
    answer = face.draft(location, 9, CONTENT[9:], "?1")
    assert answer.get("Repr-Digest") == DIGEST
    assert face.send("HEAD", location).get("Upload-Length") == str(SIZE)


def test_a_draft_ends_only_when_it_says_so(face: Face) -> None:
    headers = {"Upload-Complete": "?0", "Upload-Length": str(SIZE)}
    location = face.send("POST", "/uploads", headers, CONTENT).headers["location"]
    assert face.stored() == []
    assert face.send("HEAD", location).get("Upload-Complete") == "?0"
    assert face.draft(location, SIZE, b"", "?1").get("Repr-Digest") == DIGEST


def test_another_offset_in_the_draft(face: Face) -> None:
    location = face.send("POST", "/uploads", {"Upload-Complete": "?0"}).headers["location"]
    answer = face.draft(location, 99, b"x")
    assert answer.status == 409
    assert (answer.get("Upload-Offset"), answer.get("Upload-Complete")) == ("0", "?0")
    problem = json.loads(answer.body)
    assert problem["type"] == PROBLEMS + "mismatching-upload-offset"
    assert (problem["expected-offset"], problem["provided-offset"]) == (0, 99)


@pytest.mark.parametrize("chunked", [False, True])
def test_beyond_the_length_the_draft_ends_the_upload(face: Face, chunked: bool) -> None:
    headers = {"Upload-Complete": "?0", "Upload-Length": "50"}
    location = face.send("POST", "/uploads", headers).headers["location"]
    body: Any = [b"x" * 60, b"x" * 40] if chunked else b"x" * 100
    answer = face.draft(location, 0, body)
    assert (answer.status, answer.get("Upload-Complete")) == (400, "?0")
    assert face.send("HEAD", location).status == 404
    assert face.left() == []


def test_beyond_the_length_tus_keeps_the_upload(face: Face) -> None:
    location = face.create(50)
    assert face.tus(location, 0, b"x" * 51).status == 413
    assert face.offset(location) == 0
    assert face.tus(location, 0, [b"x" * 51]).status == 413
    assert face.offset(location) is not None


def test_lengths_that_do_not_agree(face: Face) -> None:
    headers = {"Upload-Complete": "?0", "Upload-Length": "50"}
    location = face.send("POST", "/uploads", headers).headers["location"]
    for answer in (
        face.draft(location, 0, b"x", "?1"),
        face.draft(location, 0, b"x", Upload_Length="49"),
        face.draft(location, 0, [b"x"], "?1"),
    ):
        assert (answer.status, answer.get("Upload-Complete")) == (400, "?0")
        assert json.loads(answer.body)["type"] == PROBLEMS + "inconsistent-upload-length"
    assert face.send("HEAD", location).status == 204


def test_a_digest_covers_a_request_of_the_draft(face: Face) -> None:
    location = face.send("POST", "/uploads", {"Upload-Complete": "?0"}, CONTENT[:9]).headers[
        "location"
    ]
    assert face.draft(location, 9, CONTENT[9:], "?1", Content_Digest=OTHER).status == 400
    assert face.offset(location) == 9
    assert face.draft(location, 9, CONTENT[9:], "?1", Content_Digest="md5=:YQ==:").status == 200


@pytest.mark.parametrize("protocol", ["tus", "draft"])
def test_a_promise_at_creation_holds_at_the_end(face: Face, protocol: str) -> None:
    start = {**TUS, "Upload-Length": str(SIZE)} if protocol == "tus" else {"Upload-Complete": "?0"}
    for digest, good in ((OTHER, False), (DIGEST, True)):
        answer = face.send("POST", "/uploads", {**start, "Repr-Digest": digest})
        location = answer.headers["location"]
        if protocol == "tus":
            answer = face.tus(location, 0, CONTENT)
        else:
            answer = face.draft(location, 0, CONTENT, "?1")
        assert (answer.status < 300) is good
        if not good:
            assert answer.status == 400
            assert face.offset(location) is None
            assert face.stored() == []
            assert face.left() == []
    assert face.contents() == [CONTENT]


def test_either_protocol_goes_on_with_any_upload(face: Face) -> None:
    location = face.create(SIZE)
    assert face.draft(location, 0, CONTENT[:9]).get("Upload-Offset") == "9"
    assert face.tus(location, 9, CONTENT[9:99]).get("Upload-Offset") == "99"
    assert face.draft(location, 99, CONTENT[99:], "?1").get("Repr-Digest") == DIGEST
    headers = {
        "Upload-Complete": "?0",
        "Upload-Length": str(SIZE),
        "Content-Type": "text/plain",
        "Content-Disposition": 'inline; filename="a.txt"',
    }
    location = face.send("POST", "/uploads", headers, CONTENT[:9]).headers["location"]
    metadata = face.send("HEAD", location, TUS).get("Upload-Metadata")
    assert metadata == f"filename {encoded(b'a.txt')},filetype {encoded(b'text/plain')}"
    assert face.tus(location, 9, CONTENT[9:]).get("Repr-Digest") == DIGEST


# --- hostile input -------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "headers", "status"), BAD_CREATIONS)
def test_a_bad_creation_leaves_nothing(
    face: Face, method: str, headers: dict[str, str], status: int
) -> None:
    assert face.send(method, "/uploads", headers, b"body").status == status
    assert face.left() == []
    assert face.stored() == []


@pytest.mark.parametrize("id", UNKNOWN_IDS)
@pytest.mark.parametrize("method", ["HEAD", "GET", "PATCH", "DELETE"])
def test_an_unknown_upload_is_404(face: Face, method: str, id: str) -> None:
    headers = {**TUS_CONTENT, "Upload-Offset": "0"}
    assert face.send(method, f"/uploads/{id}", headers).status == 404
    assert face.left() == []


@pytest.mark.slow
@pytest.mark.parametrize(("headers", "status"), BAD_APPENDS)
def test_a_bad_append_changes_nothing(face: Face, headers: dict[str, str], status: int) -> None:
    location = face.create(SIZE)
    assert face.send("PATCH", location, headers, CONTENT[:9]).status == status
    assert face.offset(location) == 0


@pytest.mark.parametrize("length", ["9" * 5000, "1" + "0" * 19, "nine", "-1", "1,1"])
def test_a_length_of_content_that_no_file_has_is_refused(face: Face, length: str) -> None:
    location = face.create(SIZE)
    headers = {**TUS_CONTENT, "Upload-Offset": "0", "Content-Length": length}
    assert face.send("PATCH", location, headers).status == 400
    headers = {"Upload-Complete": "?1", "Content-Length": length}
    assert face.send("POST", "/uploads", headers).status == 400
    assert face.offset(location) == 0
    assert len(face.left()) == 1


@pytest.mark.parametrize("field", ["Upload-Offset", "Upload-Length"])
@pytest.mark.parametrize("digits", ["9" * 5000, "0" * 5000 + "7"])
def test_a_number_may_have_any_number_of_digits(face: Face, field: str, digits: str) -> None:
    location = face.create(SIZE)
    answer = face.send("PATCH", location, {**TUS_CONTENT, "Upload-Offset": "0", field: digits})
    assert answer.status in (400, 409)
    headers = {**DRAFT_CONTENT, "Upload-Complete": "?0", "Upload-Offset": "0", field: digits}
    assert face.send("PATCH", location, headers).status in (400, 409)
    assert face.offset(location) == 0


@pytest.mark.parametrize("coding", ["gzip", "chunked, gzip", "Chunked", "gzip, chunked"])
def test_whatever_codes_a_body_hides_its_length(face: Face, coding: str) -> None:
    location = face.create(SIZE)
    headers = {**TUS_CONTENT, "Upload-Offset": "0", "Transfer-Encoding": coding}
    assert face.send("PATCH", location, headers, [CONTENT]).status == 204
    assert face.contents() == [CONTENT]


def test_another_method_may_be_named_in_a_field(face: Face) -> None:
    location = face.create(SIZE)
    headers = {**TUS_CONTENT, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert face.send("POST", location, headers, CONTENT).status == 204
    assert face.send("POST", location, {**TUS, "X-HTTP-Method-Override": "DELETE"}).status == 204
    assert face.offset(location) is None
    answer = face.send("POST", face.create(SIZE), TUS)
    assert answer.status == 405
    assert "PATCH" in (answer.get("Allow") or "")


def test_an_answer_to_options(face: Face) -> None:
    face.fs.before_upload(lambda upload: abort(403))  # is not called
    for path in ("/uploads", "/uploads/" + "0" * 32):
        answer = face.send("OPTIONS", path, {"Upload-Complete": "?1"})
        assert answer.status == 204
        assert answer.get("Tus-Version") == "1.0.0"
        assert "concatenation" in (answer.get("Tus-Extension") or "")
        assert "application/partial-upload" in (answer.get("Accept-Patch") or "")
        assert answer.get("Upload-Limit") == "min-size=0, max-age=86400"


# --- limits --------------------------------------------------------------------------------------


def test_the_limit_of_a_file_holds(kind: type[Face], tmp_path: Path) -> None:
    face = kind(tmp_path / "root", HASHFS_MAX_FILE_SIZE=100, MAX_CONTENT_LENGTH=10)
    assert face.send("OPTIONS", "/uploads").get("Tus-Max-Size") == "100"
    assert face.send("POST", "/uploads", {**TUS, "Upload-Length": "101"}).status == 413
    for body in (CONTENT[:101], [CONTENT[:60], CONTENT[60:101]]):
        answer = face.send("POST", "/uploads", {"Upload-Complete": "?1"}, body)
        assert answer.status == 413
        assert (answer.get("Upload-Limit") or "").startswith("max-size=100")
    assert face.left() == []
    location = face.create()
    assert face.tus(location, 0, CONTENT[:60]).status == 204, "MAX_CONTENT_LENGTH does not hold"
    assert face.tus(location, 60, CONTENT[60:101]).status == 413
    assert face.tus(location, 60, CONTENT[60:100], Upload_Length="100").status == 204
    assert face.contents() == [CONTENT[:100]]


def test_only_so_many_uploads_may_be_unfinished(kind: type[Face], tmp_path: Path) -> None:
    face = kind(tmp_path / "root", HASHFS_UPLOADS_MAX=2)
    locations = [face.create(SIZE) for _ in range(2)]
    for headers in ({**TUS, "Upload-Length": "1"}, {"Upload-Complete": "?1"}):
        answer = face.send("POST", "/uploads", headers)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
    face.tus(locations[0], 0, CONTENT)
    face.create(SIZE)


def test_all_of_them_may_hold_only_so_many_bytes(kind: type[Face], tmp_path: Path) -> None:
    face = kind(tmp_path / "root", HASHFS_UPLOADS_BYTES=100)
    location = face.create(SIZE)
    assert face.tus(location, 0, CONTENT).status == 507
    assert face.offset(location) == 100, "what is written is kept"
    headers = {**TUS_CONTENT, "Upload-Length": str(SIZE)}
    answer = face.send("POST", "/uploads", headers, CONTENT)
    assert answer.status == 507
    assert face.offset(answer.headers["location"]) == 0
    face.send("DELETE", location)


def test_an_old_upload_is_gone(face: Face) -> None:
    location = face.create(SIZE)
    face.age(location)
    for method in ("HEAD", "GET", "DELETE"):
        assert face.send(method, location, TUS).status == 410
        assert face.send(method, location).status == 410
    assert face.tus(location, 0, CONTENT).status == 410
    face.fs_call("verify")
    assert face.send("HEAD", location, TUS).status == 404
    assert face.left() == []


# --- the app -------------------------------------------------------------------------------------


def hook(face: Face, function: Callable[[Upload], Any], *, asynchronous: bool) -> Any:
    if not (asynchronous and isinstance(face, QuartFace)):
        return function

    async def call(upload: Upload) -> Any:
        return function(upload)

    return call


@pytest.fixture(params=[False, True], ids=["plain", "coroutine"])
def asynchronous(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_what_an_app_is_told_and_may_set(face: Face, asynchronous: bool) -> None:
    seen: list[tuple[Any, ...]] = []
    metadata: list[dict[str, str]] = []

    def before(upload: Upload) -> None:
        seen.append((upload.action, upload.offset, upload.length, upload.owner))
        if upload.action == "create":
            metadata.append(dict(upload.metadata))
            upload.owner, upload.extension, upload.max_size = "me", "txt", SIZE

    def after(upload: Upload) -> None:
        assert upload.address is not None
        assert upload.stored == StoredFile(ID, upload.address.relpath, "ab.txt", "text/plain", SIZE)
        seen.append(("after", upload.id, upload.address.id, upload.owner))

    face.fs.before_upload(hook(face, before, asynchronous=asynchronous))
    face.fs.after_upload(hook(face, after, asynchronous=asynchronous))
    location = face.create(
        SIZE, Upload_Metadata=f"filename {encoded(b'../a' + bytes(1) + b'b.txt')}"
    )
    face.tus(location, 0, CONTENT[:9])
    face.send("HEAD", location, TUS)
    face.draft(location, 9, CONTENT[9:], "?1")
    face.send("DELETE", location)
    assert seen == [
        ("create", 0, SIZE, None),
        ("append", 0, SIZE, "me"),
        ("read", 9, SIZE, "me"),
        ("append", 9, SIZE, "me"),
        ("after", location.rpartition("/")[2], ID, "me"),
        ("delete", SIZE, SIZE, "me"),
    ]
    assert face.stored()[0].endswith(".txt")
    assert face.send("POST", "/uploads", {**TUS, "Upload-Length": "5"}).status == 201
    assert metadata == [{"filename": "../a\x00b.txt"}, {}]


def test_the_type_that_an_app_is_told_is_that_of_the_bytes(face: Face) -> None:
    told: list[str] = []
    face.fs.after_upload(lambda upload: told.append(upload.stored.content_type))
    location = face.create(len(PNG), Upload_Metadata=f"filename {encoded(b'a.html')}")
    assert face.tus(location, 0, PNG).status == 204
    assert told == ["image/png"]


@pytest.mark.parametrize("name", ["before_upload", "after_upload"])
def test_quart_calls_a_plain_hook_in_a_thread(tmp_path: Path, name: str) -> None:
    face = QuartFace(tmp_path / "root")
    threads: list[threading.Thread] = []
    getattr(face.fs, name)(lambda upload: threads.append(threading.current_thread()))
    face.send("POST", "/uploads", {"Upload-Complete": "?1"}, CONTENT)
    assert len(threads) == 1
    assert threading.current_thread() not in threads, "the event loop runs in this one"


def test_an_app_may_refuse_each_request(face: Face, asynchronous: bool) -> None:
    refused: set[str] = {"create"}

    def before(upload: Upload) -> None:
        if upload.action in refused:
            abort(403)

    face.fs.before_upload(hook(face, before, asynchronous=asynchronous))
    assert face.send("POST", "/uploads", {**TUS, "Upload-Length": "5"}).status == 403
    assert face.left() == []
    refused.clear()
    location = face.create(SIZE)
    face.tus(location, 0, CONTENT[:5])
    refused |= {"append", "read", "delete"}
    assert face.tus(location, 0, CONTENT).status == 403, "also where the offset is wrong"
    assert face.send("HEAD", location, TUS).status == 403
    assert face.send("DELETE", location, TUS).status == 403
    refused.clear()
    assert face.offset(location) == 5


def test_an_app_may_set_a_lower_limit(face: Face) -> None:
    @face.fs.before_upload  # type: ignore[untyped-decorator,unused-ignore]
    def limit(upload: Upload) -> None:
        if upload.action == "create":
            upload.max_size = 10

    assert face.send("POST", "/uploads", {**TUS, "Upload-Length": "11"}).status == 413
    answer = face.send("POST", "/uploads", {"Upload-Complete": "?1"}, b"x" * 11)
    assert (answer.status, answer.get("Upload-Complete")) == (413, "?0")
    assert (answer.get("Upload-Limit") or "").startswith("max-size=10,")
    answer = face.send("POST", "/uploads", {"Upload-Complete": "?0"})
    assert (answer.get("Upload-Limit") or "").startswith("max-size=10,")
    assert face.draft(answer.headers["location"], 0, b"x" * 11).status == 413


def test_an_app_may_know_what_must_come(face: Face) -> None:
    @face.fs.before_upload  # type: ignore[untyped-decorator,unused-ignore]
    def promise(upload: Upload) -> None:
        if upload.action == "create":
            upload.expected = ID.upper()

    location = face.create(SIZE)
    assert face.tus(location, 0, CONTENT).status == 204
    location = face.create(4)
    assert face.tus(location, 0, b"else").status == 400
    assert face.offset(location) is None
    headers = {**TUS, "Upload-Length": "1", "Repr-Digest": OTHER}
    assert face.send("POST", "/uploads", headers).status == 400


def test_the_answer_of_an_app_is_given_again(face: Face, asynchronous: bool) -> None:
    calls: list[str] = []

    def after(upload: Upload) -> Any:
        calls.append(upload.id)
        assert upload.address is not None
        return {"id": upload.address.id}, 202, {"X-Mine": "yes"}

    face.fs.after_upload(hook(face, after, asynchronous=asynchronous))
    answer = face.send("POST", "/uploads", {"Upload-Complete": "?1"}, CONTENT)
    location = answer.headers["location"]
    again = face.draft(location, SIZE, b"", "?1")
    for each in (answer, again):
        assert (each.status, json.loads(each.body)) == (202, {"id": ID})
        assert each.get("X-Mine") == "yes"
        assert (each.get("Content-Type") or "").startswith("application/json")
        assert each.get("Upload-Complete") == "?1"
        assert each.get("Content-Location") is None, "it has content of its own"
        assert each.get("Repr-Digest") is None
    assert len(calls) == 1
    answer = face.send("POST", "/uploads", {**TUS_CONTENT, "Upload-Length": str(SIZE)}, CONTENT)
    assert (answer.status, answer.body) == (201, b"")


def test_an_abort_at_the_end_is_final(face: Face, asynchronous: bool) -> None:
    def after(upload: Upload) -> None:
        abort(422, "not this one")

    face.fs.after_upload(hook(face, after, asynchronous=asynchronous))
    location = face.create(SIZE)
    answer = face.tus(location, 0, CONTENT)
    assert (answer.status, answer.get("Tus-Resumable")) == (422, "1.0.0")
    assert face.offset(location) is None
    assert face.left() == []
    answer = face.send("POST", "/uploads", {"Upload-Complete": "?1"}, CONTENT)
    assert (answer.status, answer.get("Upload-Complete")) == (422, "?1")
    assert face.left() == []


def test_an_error_at_the_end_keeps_the_bytes(face: Face, asynchronous: bool) -> None:
    calls: list[str] = []

    def after(upload: Upload) -> Any:
        calls.append(upload.id)
        if len(calls) < 3:
            if len(calls) == 1:
                raise RuntimeError("the database is down")
            abort(503)
        return {"calls": len(calls)}

    face.fs.after_upload(hook(face, after, asynchronous=asynchronous))
    location = face.create(SIZE)
    face.app.config["PROPAGATE_EXCEPTIONS"] = False
    assert face.tus(location, 0, CONTENT).status == 500
    assert face.send("HEAD", location, TUS).status == 503, "HEAD brings it about, and fails too"
    assert face.offset(location) == SIZE
    assert calls == [location.rpartition("/")[2]] * 3
    assert json.loads(face.draft(location, SIZE, b"", "?1").body) == {"calls": 3}
    assert face.contents() == [CONTENT]


class _Refusal:
    """A callable whose calls are coroutines."""

    async def __call__(self, upload: Upload) -> None:
        abort(403)


async def refuse(upload: Upload) -> None:
    abort(403)


@pytest.mark.parametrize("function", [_Refusal(), lambda upload: refuse(upload)])
@pytest.mark.parametrize("name", ["before_upload", "after_upload"])
def test_a_hook_that_has_to_be_awaited_is_never_passed_over(
    face: Face, name: str, function: Any, caplog: pytest.LogCaptureFixture
) -> None:
    getattr(face.fs, name)(function)
    answer = face.send("POST", "/uploads", {"Upload-Complete": "?1"}, CONTENT)
    if isinstance(face, QuartFace):
        assert answer.status == 403
    else:
        assert answer.status == 500
        assert "has to be awaited" in caplog.text
    if name == "before_upload":
        assert face.left() == []
        assert face.stored() == []


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(200_000)


@pytest.mark.parametrize(("name", "value"), [("extension", AUTO), ("accept", "image/*")])
def test_quart_loads_the_detector_of_types_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    face = QuartFace(tmp_path / "root")
    threads: list[threading.Thread] = []
    load = pure_magic_rs.MagicDb

    def note_and_load() -> Any:
        threads.append(threading.current_thread())
        return load()

    def choose(upload: Upload) -> None:
        if upload.action == "create":
            setattr(upload, name, value)

    face.fs.before_upload(choose)
    monkeypatch.setattr(pure_magic_rs, "MagicDb", note_and_load)
    types.detector.cache_clear()
    location = face.create(len(PNG))
    types.detector.cache_clear()  # as in another process
    assert face.tus(location, 0, PNG).status == 204
    assert len(threads) == 2
    assert threading.current_thread() not in threads, "the event loop runs in this one"


def test_types_are_told_by_the_beginning(kind: type[Face], tmp_path: Path) -> None:
    face = kind(tmp_path / "root", HASHFS_ACCEPT="image/*")
    for body in (b"<html><body>" + bytes(200_000), b"plain text"):
        location = face.create(len(body) + 1)
        first = face.tus(location, 0, body)
        assert first.status == (415 if len(body) > 5000 else 204)
        if first.status == 204:
            assert face.tus(location, len(body), b"!").status == 415
        assert face.offset(location) is None
    assert face.left() == []
    assert face.stored() == []
    location = face.create(len(PNG))
    assert face.tus(location, 0, PNG[:100]).status == 204
    assert face.tus(location, 100, PNG[100:]).status == 204
    assert len(face.stored()) == 1


def test_an_app_may_accept_less_and_take_the_extension_of_the_type(face: Face) -> None:
    @face.fs.before_upload  # type: ignore[untyped-decorator,unused-ignore]
    def narrow(upload: Upload) -> None:
        if upload.action == "create":
            upload.accept, upload.extension = ["image/png"], AUTO
        assert upload.extension is AUTO

    answer = face.send("POST", "/uploads", {"Upload-Complete": "?1"}, b"GIF89a" + bytes(9000))
    assert (answer.status, answer.get("Upload-Complete")) == (415, "?1")
    assert face.left() == []
    location = face.create(len(PNG))
    assert face.tus(location, 0, PNG).status == 204
    assert face.stored()[0].endswith(".png")


def test_inspectors_look_before_the_end(face: Face) -> None:
    answers: list[Exception | None] = [ServiceUnavailable(), None]

    def look(file: Any, address: Any) -> None:
        assert file.read() == CONTENT
        if (error := answers.pop(0)) is not None:
            raise error

    face.fs.inspector(look)
    location = face.create(SIZE)
    assert face.tus(location, 0, CONTENT).status == 503
    assert face.stored() == []
    assert face.offset(location) == SIZE, "the next request tries again"
    assert face.contents() == [CONTENT]
    answers[:] = [RejectedError("a virus")]
    for path in face.stored():
        face.app.extensions["hashfs"]["client"].delete(path)
    location = face.create(SIZE)
    assert face.tus(location, 0, CONTENT).status == 422
    assert face.offset(location) is None
    assert face.stored() == []


def test_parts_of_another_owner_are_unknown(face: Face) -> None:
    owner = ["ada"]

    @face.fs.before_upload  # type: ignore[untyped-decorator,unused-ignore]
    def own(upload: Upload) -> None:
        if upload.action == "create":
            upload.owner = owner[0]

    part = face.create(4, Upload_Concat="partial")
    face.tus(part, 0, b"part")
    owner[0] = "bob"
    assert face.send("POST", "/uploads", {**TUS, "Upload-Concat": f"final;{part}"}).status == 404
    owner[0] = "ada"
    assert face.send("POST", "/uploads", {**TUS, "Upload-Concat": f"final;{part}"}).status == 201


def test_the_signal_of_a_put_is_sent(face: Face) -> None:
    told: list[Any] = []

    def tell(sender: Any, **what: Any) -> None:
        told.append((sender, what["extension"], what["address"].id))

    with file_stored.connected_to(tell):
        face.tus(face.create(SIZE), 0, CONTENT)
    assert told == [(face.app, face.fs, ID)]


@pytest.mark.parametrize("name", ["before_upload", "after_upload"])
def test_a_hook_is_a_callable(face: Face, name: str) -> None:
    def function(upload: Upload) -> None: ...

    assert getattr(face.fs, name)(function) is function
    with pytest.raises(TypeError, match=name):
        getattr(face.fs, name)("nothing")


# --- where it is served --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "start"),
    [
        ({}, "/files/"),
        ({"HASHFS_HOST": "https://cdn.example"}, "https://cdn.example/files/"),
        (
            {"HASHFS_SERVE_FILES": False, "HASHFS_HOST": "https://cdn.example"},
            "https://cdn.example/",
        ),
        ({"HASHFS_SERVE_FILES": False}, None),
        ({"HASHFS_SERVE_FILES": "signed", "SECRET_KEY": "a secret of some length"}, None),
    ],
)
def test_the_content_is_told_where_it_is_served(
    kind: type[Face], tmp_path: Path, config: dict[str, Any], start: str | None
) -> None:
    face = kind(tmp_path / "root", **config)
    answer = face.tus(face.create(SIZE), 0, CONTENT)
    location = answer.get("Content-Location")
    if start is None:
        assert (location, answer.get("Repr-Digest")) == (None, None)
    else:
        assert location is not None
        assert location.startswith(start)
        assert answer.get("Repr-Digest") == DIGEST


def test_endpoints_of_named_stores(kind: type[Face], tmp_path: Path) -> None:
    face = kind(
        tmp_path / "root",
        HASHFS_FILMS_ROOT_FOLDER=str(tmp_path / "films"),
        HASHFS_FILMS_UPLOADS_PATH="/films/",
        HASHFS_FILMS_FSYNC=False,
    )
    type(face.fs)(face.app, name="films")
    rules = {rule.endpoint: rule.rule for rule in face.app.url_map.iter_rules()}
    assert rules["hashfs.uploads"] == "/uploads"
    assert rules["hashfs.upload"] == "/uploads/<id>"
    assert rules["hashfs_films.uploads"] == "/films"
    assert rules["hashfs_films.upload"] == "/films/<id>"
    answer = face.send("POST", "/films", {"Upload-Complete": "?1"}, CONTENT)
    assert answer.headers["location"].startswith("/films/")
    assert face.stored() == []


def test_a_location_is_a_path_below_the_mount(face: Face) -> None:
    face.mount = "/a mount"
    location = face.create(SIZE)
    assert location.startswith("/a%20mount/uploads/")
    location = location.removeprefix("/a%20mount")
    answer = face.tus(location, 0, CONTENT)
    assert (answer.get("Content-Location") or "").startswith("/a%20mount/files/")
    part = face.create(4, Upload_Concat="partial")
    assert face.tus(part.removeprefix("/a%20mount"), 0, b"part").status == 204
    concat = {"Upload-Concat": f"final;{part}"}
    assert face.send("POST", "/uploads", {**TUS, **concat}).status == 201


def test_without_the_key_there_is_no_route(kind: type[Face], tmp_path: Path) -> None:
    face = kind(tmp_path / "root", HASHFS_UPLOADS_PATH=None)
    assert face.send("POST", "/uploads", {**TUS, "Upload-Length": "1"}).status == 404
    assert not any("upload" in rule.endpoint for rule in face.app.url_map.iter_rules())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("HASHFS_UPLOADS_PATH", "uploads"),
        ("HASHFS_UPLOADS_PATH", "/"),
        ("HASHFS_UPLOADS_PATH", "/<id>"),
        ("HASHFS_UPLOADS_PATH", 7),
        ("HASHFS_UPLOADS_EXPIRE", 0),
        ("HASHFS_UPLOADS_MAX", 0),
        ("HASHFS_UPLOADS_MAX", "many"),
        ("HASHFS_UPLOADS_BYTES", -1),
        ("HASHFS_UPLOADS_ORIGINS", "example.com"),
        ("HASHFS_UPLOADS_ORIGINS", ["https://a.example/path"]),
        ("HASHFS_UPLOADS_ORIGINS", 7),
    ],
)
def test_a_bad_value_is_refused_with_its_key(
    kind: type[Face], tmp_path: Path, key: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=key):
        kind(tmp_path / "root", **{key: value})


# --- other origins -------------------------------------------------------------------------------

ORIGIN = {"Origin": "https://a.example"}


def test_pages_of_allowed_origins_may_use_it(kind: type[Face], tmp_path: Path) -> None:
    face = kind(tmp_path / "root", HASHFS_UPLOADS_ORIGINS="https://a.example, https://b.example")
    preflight = {
        **ORIGIN,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "x-mine",
    }
    answer = face.send("OPTIONS", "/uploads/" + "0" * 32, preflight)
    assert answer.status == 204
    assert answer.get("Access-Control-Allow-Origin") == "https://a.example"
    assert "PATCH" in (answer.get("Access-Control-Allow-Methods") or "")
    assert "x-mine" in (answer.get("Access-Control-Allow-Headers") or "")
    location = face.create(SIZE)
    for answer in (
        face.send("HEAD", location, {**TUS, **ORIGIN}),
        face.send("HEAD", "/uploads/x", {**TUS, **ORIGIN}),
        face.send("PUT", "/uploads", {**TUS, **ORIGIN}),
    ):
        assert answer.get("Access-Control-Allow-Origin") == "https://a.example"
        assert "Upload-Offset" in (answer.get("Access-Control-Expose-Headers") or "")
        assert "Origin" in (answer.get("Vary") or "")
    assert (
        face.send("HEAD", location, {**TUS, "Origin": "https://c.example"}).get(
            "Access-Control-Allow-Origin"
        )
        is None
    )
    assert face.send("GET", "/files/x", ORIGIN).get("Access-Control-Allow-Origin") is None


def test_no_other_route_below_the_path_is_opened(kind: type[Face], tmp_path: Path) -> None:
    face = kind(
        tmp_path / "root", HASHFS_UPLOADS_PATH="/api", HASHFS_UPLOADS_ORIGINS="https://a.example"
    )
    id = "0" * 32
    rules = ("/api/x/y", "/api/me", f"/api/{id}/parts")
    for rule in rules:
        face.app.add_url_rule(rule, f"mine-{rule}", lambda: "mine")
    for rule in rules:
        answer = face.send("GET", rule, {**ORIGIN, **TUS})
        assert (answer.status, answer.body) == (200, b"mine")
        assert answer.get("Access-Control-Allow-Origin") is None
        assert answer.get("Tus-Resumable") is None
    for method, path in (("GET", "/api/x/z"), ("PUT", "/api/x/y"), ("PUT", f"/api/{id}/parts")):
        answer = face.send(method, path, {**ORIGIN, **TUS})
        assert answer.status in (404, 405)
        assert answer.get("Access-Control-Allow-Origin") is None
    for method, path in (("PUT", "/api"), ("PUT", f"/api/{id}"), ("HEAD", f"/api/{id}")):
        answer = face.send(method, path, {**ORIGIN, **TUS})
        assert answer.status in (404, 405)
        assert answer.get("Access-Control-Allow-Origin") == "https://a.example"


def test_each_of_two_stores_has_its_own_origins(kind: type[Face], tmp_path: Path) -> None:
    face = kind(
        tmp_path / "root",
        HASHFS_UPLOADS_ORIGINS="https://a.example",
        HASHFS_AVATARS_ROOT_FOLDER=str(tmp_path / "avatars"),
        HASHFS_AVATARS_UPLOADS_PATH="/uploads/avatars",
        HASHFS_AVATARS_UPLOADS_ORIGINS="https://b.example",
        HASHFS_AVATARS_FSYNC=False,
    )
    type(face.fs)(face.app, name="avatars")
    id = "0" * 32
    for path, allowed in (
        ("/uploads", "https://a.example"),
        (f"/uploads/{id}", "https://a.example"),
        ("/uploads/avatars", "https://b.example"),
        (f"/uploads/avatars/{id}", "https://b.example"),
    ):
        for method in ("OPTIONS", "HEAD" if id in path else "POST", "PUT"):
            for origin in ("https://a.example", "https://b.example"):
                answer = face.send(method, path, {**TUS, "Origin": origin})
                expected = allowed if origin == allowed else None
                assert answer.get("Access-Control-Allow-Origin") == expected, (method, path)


def test_by_default_no_other_origin_may(face: Face) -> None:
    answer = face.send("OPTIONS", "/uploads", {**ORIGIN, "Access-Control-Request-Method": "POST"})
    assert answer.status == 204
    assert answer.get("Access-Control-Allow-Origin") is None


# --- uploads that another process takes over -----------------------------------------------------


@pytest.mark.parametrize("rest", [CONTENT[200:], None], ids=["more", "a break"])
@pytest.mark.parametrize("covered", [False, True])
@pytest.mark.parametrize("protocol", ["tus", "draft"])
def test_a_request_whose_upload_another_process_took_over_is_told_how_far_it_is(
    face: Face, protocol: str, covered: bool, rest: bytes | None
) -> None:
    location = face.create(SIZE)
    body = CONTENT[:200] + (rest or b"")
    headers = {"tus": TUS_CONTENT, "draft": {**DRAFT_CONTENT, "Upload-Complete": "?0"}}[protocol]
    headers = {**headers, "Upload-Offset": "0", "Content-Length": str(SIZE)}
    if covered:
        headers |= checksum_of(body, protocol)
    later = CONTENT[:300]

    def take_over() -> None:
        taken = face.elsewhere().take(location.rpartition("/")[2])
        taken.begin(SIZE, True, marked=False, brings=None)
        taken.write(later[taken.offset :])
        taken.keep()
        taken.close()

    answer = face.send_with_break(location, headers, (CONTENT[:200], rest), take_over)
    if rest is not None or answer.status != 400:  # that it broke off may be seen first
        assert (answer.status, answer.get("Upload-Offset")) == (409, "300")
    if protocol == "draft":
        assert answer.get("Upload-Complete") == "?0"
    assert face.offset(location) == 300
    assert face.tus(location, 300, CONTENT[300:]).status == 204
    assert face.contents() == [CONTENT]


def checksum_of(body: bytes, protocol: str) -> dict[str, str]:
    digest = encoded(hashlib.sha256(body).digest())
    if protocol == "tus":
        return {"Upload-Checksum": f"sha256 {digest}"}
    return {"Content-Digest": f"sha-256=:{digest}:"}


# --- bodies that break off -----------------------------------------------------------------------


class _Breaking(io.BytesIO):
    """A server's stream that gives some bytes, and then breaks."""

    def __init__(self, data: bytes, error: Exception | None) -> None:
        super().__init__(data)
        self._error = error

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if not piece and self._error is not None:
            raise self._error
        return piece


def broken(error: Exception | None) -> dict[str, Any]:
    """Return what a server hands on of a body that breaks off after 500 bytes."""
    return {"wsgi.input": _Breaking(CONTENT[:500], error), "CONTENT_LENGTH": str(SIZE)}


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
@pytest.mark.parametrize("complete", ["?0", "?1"])
def test_flask_keeps_what_came_of_a_body_that_breaks_off(
    tmp_path: Path, complete: str, error: Exception | None
) -> None:
    face = FlaskFace(tmp_path / "root")
    location = face.create(SIZE)
    headers = {**DRAFT_CONTENT, "Upload-Offset": "0", "Upload-Complete": complete}
    response = face.app.test_client().patch(
        location,
        headers=headers,
        environ_overrides=broken(error),
    )
    assert response.status_code == 400
    assert face.offset(location) == 500
    assert face.tus(location, 500, CONTENT[500:]).get("Repr-Digest") == DIGEST


def test_flask_takes_nothing_of_a_covered_body_that_breaks_off(tmp_path: Path) -> None:
    face = FlaskFace(tmp_path / "root")
    location = face.create(SIZE)
    headers = {**TUS_CONTENT, "Upload-Offset": "0", "Upload-Checksum": f"md5 {encoded(bytes(16))}"}
    face.app.test_client().patch(location, headers=headers, environ_overrides=broken(None))
    assert face.offset(location) == 0
    assert face.tus(location, 0, CONTENT).get("Repr-Digest") == DIGEST


@pytest.mark.parametrize(
    "headers",
    [{"Upload-Complete": "?0"}, {"Upload-Complete": "?1"}, {**TUS_CONTENT, "Upload-Length": "9"}],
)
def test_flask_creates_nothing_where_the_server_hides_the_end_of_a_body(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    face = FlaskFace(tmp_path / "root")
    chunked = {"wsgi.input": io.BytesIO(CONTENT), "HTTP_TRANSFER_ENCODING": "chunked"}
    client = face.app.test_client()
    response = client.post("/uploads", headers=headers, environ_overrides=chunked)
    assert response.status_code == 411
    assert face.left() == []
    location = face.create(SIZE)
    more = {**TUS_CONTENT, "Upload-Offset": "0"}
    response = client.patch(location, headers=more, environ_overrides=chunked)
    assert response.status_code == 411
    assert face.offset(location) == 0, "what was there before stays"
