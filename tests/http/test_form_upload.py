"""The way of a form, whoever reads its body: what is fed, what is asked for, what it held."""

from __future__ import annotations

import io
from concurrent.futures import Executor
from typing import NamedTuple

import pytest
from multipart_cases import FILE, NAMED, SMALL, WELL_FORMED, body_of
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from flask_hashfs import IncompleteUploadError, UnsupportedTypeError
from flask_hashfs._http.form_upload import FormUpload
from flask_hashfs._http.multipart import Limits, MultipartDecoder

HEAD = 4  # bytes that a judged `Kept` waits for


class Kept:
    """A sink that keeps its content in memory, and may refuse what begins with b"bad"."""

    max_size = None

    def __init__(self, judges: bool = False) -> None:
        self.data = b""
        self.awaits_head = judges
        self.finished = self.closed = False

    def write(self, data: memoryview | bytes | bytearray, beside: Executor | None = None) -> None:
        self.data += data
        if len(self.data) >= HEAD:
            self.end_head()

    def end_head(self) -> None:
        if self.awaits_head and self.data.startswith(b"bad"):
            raise UnsupportedTypeError("text/bad", ["text/good"])
        self.awaits_head = False

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None:
        self.closed = True


def form_of(
    writers: list[Kept],
    *,
    boundary: str = "bound",
    limits: Limits | None = None,
    content_length: int | None = 1,
    judges: bool = False,
) -> FormUpload[Kept]:
    return FormUpload(
        boundary,
        lambda: Kept(judges),
        writers,
        limits or Limits(),
        content_length=content_length,
        judges=judges,
    )


def feed_and_finish(form: FormUpload[Kept], body: io.BytesIO) -> None:
    while data := body.read(20_000 if form.awaits_head else 200_000):
        form.feed(data)
    form.finish()


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("body", WELL_FORMED.values(), ids=list(WELL_FORMED))
def test_a_form_holds_what_its_decoder_finds(body: bytes, size: int) -> None:
    decoder = MultipartDecoder("bound", Kept)
    decoder.feed(body)
    fields, files = decoder.finish()
    writers: list[Kept] = []
    form = form_of(writers)
    for start in range(0, len(body), size):
        form.feed(body[start : start + size])
    found_fields, found_files = form.finish()
    assert found_fields == fields
    assert [(file.name, file.filename) for file in found_files] == [
        (file.name, file.filename) for file in files
    ]
    assert [file.writer.data for file in found_files] == [file.writer.data for file in files]
    assert writers == [file.writer for file in found_files]
    form.close()
    assert all(writer.finished and not writer.closed for writer in writers)


class Nothing(NamedTuple):
    """What a form without any byte is, by its announced length and its boundary."""

    content_length: int | None
    boundary: str
    error: type[Exception] | None


@pytest.mark.parametrize(
    "case",
    [
        Nothing(None, "bound", None),
        Nothing(None, "", None),
        Nothing(0, "bound", IncompleteUploadError),
        Nothing(0, "", BadRequest),
        Nothing(100, "bound", IncompleteUploadError),
    ],
)
def test_without_any_byte_the_announced_length_decides(case: Nothing) -> None:
    form = form_of([], boundary=case.boundary, content_length=case.content_length)
    if case.error is None:
        assert form.finish() == ([], [])
    else:
        with pytest.raises(case.error) as caught:
            form.finish()
        assert type(caught.value) is case.error
    form.close()


@pytest.mark.parametrize("boundary", ["", "x" * 1000, "bäd\n"])
def test_a_boundary_that_cannot_be_one_is_refused_when_there_is_a_body(boundary: str) -> None:
    form = form_of([], boundary=boundary)
    with pytest.raises(BadRequest):
        form.feed(SMALL)
    form.close()


@pytest.mark.parametrize(
    ("limits", "body", "error"),
    [
        (Limits(max_form_memory_size=2), SMALL, RequestEntityTooLarge),
        (Limits(max_form_parts=3), SMALL, RequestEntityTooLarge),
        (Limits(), SMALL[:-20], IncompleteUploadError),
        (Limits(), b"no form at all", IncompleteUploadError),
        (Limits(), body_of(b"no headers"), BadRequest),
    ],
)
def test_what_is_refused_leaves_no_writer_open(
    limits: Limits, body: bytes, error: type[Exception]
) -> None:
    writers: list[Kept] = []
    form = form_of(writers, limits=limits)
    with pytest.raises(error):
        feed_and_finish(form, io.BytesIO(body))
    form.close()
    assert all(writer.closed for writer in writers)


def test_a_form_given_up_half_way_leaves_no_writer_open() -> None:
    writers: list[Kept] = []
    form = form_of(writers)
    form.feed(SMALL[:-20])
    form.close()
    assert writers
    assert all(writer.closed for writer in writers)


# The bytes fed one after the other, and whether little is to be read before each and after all.
LITTLE = [
    ("before anything", [], [True]),
    ("in headers", [b"--bound\r\n", FILE], [True, True, True]),
    ("until the head is there", [b"--bound\r\n" + FILE + b"\r\ngood"], [True, False]),
    ("for the next part", [b"--bound\r\n" + FILE + b"\r\ngood\r\n--bound\r\n"], [True, True]),
    ("in a field", [b"--bound\r\n" + NAMED + b"\r\nlong"], [True, True]),
]


@pytest.mark.parametrize(("when", "pieces", "wanted"), LITTLE, ids=[case[0] for case in LITTLE])
def test_little_is_read_at_a_time_while_a_head_may_decide(
    when: str, pieces: list[bytes], wanted: list[bool]
) -> None:
    judging, other = form_of([], judges=True), form_of([])
    asked = [judging.awaits_head]
    for piece in pieces:
        judging.feed(piece + b"x" * 20_000 if piece.endswith(b"good") else piece)
        other.feed(piece)
        asked.append(judging.awaits_head)
        assert not other.awaits_head
    assert asked == wanted
    judging.close()
    other.close()


def test_a_file_is_refused_by_its_head_before_more_is_asked_for() -> None:
    writers: list[Kept] = []
    form = form_of(writers, judges=True)
    body = io.BytesIO(b"--bound\r\n" + FILE + b"\r\nbad" + b"x" * 100_000)
    with pytest.raises(UnsupportedTypeError):
        feed_and_finish(form, body)
    assert body.tell() == 20_000
    form.close()
    assert writers[0].closed
