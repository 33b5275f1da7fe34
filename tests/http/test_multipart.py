"""The multipart decoder alone: what it makes of bodies, however they are formed and arrive."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import python_multipart.multipart  # noqa: F401  (imported late, it would count as work)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multipart_cases import (
    BOUNDARY,
    FILE,
    FILENAMES,
    MALFORMED,
    NAMED,
    NAMELESS,
    SMALL,
    WELL_FORMED,
    body_of,
)
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser

from flask_hashfs import FileTooLargeError, HashFS, IncompleteUploadError
from flask_hashfs._http.multipart import (
    MAX_BOUNDARY_LENGTH,
    MAX_PART_HEADER_BYTES,
    Limits,
    MultipartDecoder,
    checked_headers,
    disposition,
    plain_headers,
    with_boundary,
)
from flask_hashfs._http.parameters import parse_parameters
from flask_hashfs._storage.writer import Writer


class Form(NamedTuple):
    fields: list[tuple[str, str]]
    files: list[tuple[str, str, list[tuple[str, str]], bytes]]


class Writers:
    """Makes a store's writers, and remembers them."""

    def __init__(self, root: Path) -> None:
        self.store = HashFS(root, fsync=False)
        self.made: list[Writer] = []

    def __call__(self) -> Writer:
        self.made.append(self.store.writer())
        return self.made[-1]

    def all_closed(self) -> bool:
        return all(writer.closed for writer in self.made)


@pytest.fixture
def writers(tmp_path: Path) -> Writers:
    return Writers(tmp_path)


@pytest.fixture(scope="module")
def shared_writers(tmp_path_factory: pytest.TempPathFactory) -> Writers:
    return Writers(tmp_path_factory.mktemp("store"))


def decode(
    pieces: Iterable[bytes],
    writers: Writers,
    limits: Limits | None = None,
    boundary: str | bytes = BOUNDARY,
) -> Form:
    decoder = MultipartDecoder(boundary, writers, limits)
    try:
        for piece in pieces:
            decoder.feed(piece)
        fields, parts = decoder.finish()
        files = []
        for part in parts:
            with part.writer as writer, writer.reader() as reader:
                content = reader.read()
                assert writer.id == hashlib.sha256(content).hexdigest()
                files.append((part.name, part.filename, list(part.headers), content))
        return Form(fields, files)
    finally:
        decoder.close()
        assert writers.all_closed()


def stock(body: bytes, boundary: str = BOUNDARY) -> Form:
    """What Werkzeug makes of a body that arrives in one piece."""
    in_order: Any = list
    new_stream: Any = lambda **_: BytesIO()  # noqa: E731
    parser = MultiPartParser(new_stream, cls=in_order, buffer_size=len(body) + 1)
    form: Any = parser.parse(BytesIO(body), boundary.encode(), None)
    fields, files = form
    return Form(
        list(fields),
        [(name, file.filename, list(file.headers), file.read()) for name, file in files],
    )


def in_two(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    for at in range(len(body) + 1):
        yield body[:at], body[at:]


def one_by_one(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


@pytest.mark.parametrize("body", WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_well_formed_bodies_mean_what_they_mean_to_werkzeug(body: bytes, writers: Writers) -> None:
    expected = stock(body)
    assert decode([body], writers) == expected
    assert decode(one_by_one(body), writers) == expected


@pytest.mark.parametrize("parameter", FILENAMES.values(), ids=FILENAMES.keys())
def test_filenames_are_those_of_werkzeug(parameter: bytes, writers: Writers) -> None:
    body = body_of(b'Content-Disposition: form-data; name="f"; ' + parameter + b"\r\n\r\nx")
    assert decode([body], writers) == stock(body)
    assert decode(one_by_one(body), writers) == stock(body)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["nothing", "long padding behind delimiters", "content like a delimiter"]
)
def test_a_body_may_be_split_anywhere_in_two(name: str, writers: Writers) -> None:
    body = WELL_FORMED[name]
    assert all(decode(pieces, writers) == stock(body) for pieces in in_two(body))


@pytest.mark.slow
def test_a_small_body_may_be_split_anywhere_in_three(writers: Writers) -> None:
    body = b"--bound\r\n" + FILE + b"\r\n--bound\r\n" + FILE + b"\r\nx\r\n--bound--"
    start = len(b"--bound\r\n" + FILE) - 2
    expected = stock(body)
    for first, second in itertools.combinations(range(start, len(body)), 2):
        assert decode([body[:first], body[first:second], body[second:]], writers) == expected


def test_a_split_within_the_closing_boundary_adds_no_byte(writers: Writers) -> None:
    content = os.urandom(100_000) + b"\r"
    body = body_of(FILE + b"\r\n" + content)
    for at in range(len(body) - len(b"\r\n--bound--\r\n"), len(body)):
        assert decode([body[:at], body[at:]], writers).files[0][3] == content


DELIMITER = re.compile(rb"(^|[\r\n])--bound(--|[ \t]|[\r\n])")
FRAGMENTS = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"-", b"--", b"bound", b"--boun", b"\r\n--bound"]
FRAGMENTS += [b"x" * 20, b" " * 20]
contents = (
    st.lists(
        st.one_of(
            st.sampled_from(FRAGMENTS),
            st.binary(max_size=10),
        ),
        max_size=12,
    )
    .map(b"".join)
    .filter(lambda content: not DELIMITER.search(content + b"\r"))
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        headers = draw(st.sampled_from([NAMED, FILE, FILE + b"Content-Type: text/html\r\n"]))
        bodyless = draw(st.booleans())
        parts.append(headers if bodyless else headers + b"\r\n" + draw(contents))
    preamble = draw(st.sampled_from([b"", b"\r\n", b"--boun\r\n", b"x\r\n\r\n"]))
    epilogue = draw(st.sampled_from([b"", b"--bound\r\n", b"\r\n\r\n--bound"]))
    return preamble + body_of(*parts) + epilogue


def cut(body: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(edge % (len(body) + 1) for edge in at), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies(), at=st.lists(st.integers(0, 10_000), max_size=20))
def test_any_chunking_gives_what_werkzeug_gives(
    body: bytes, at: list[int], shared_writers: Writers
) -> None:
    assert decode(cut(body, at), shared_writers) == stock(body)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies())
def test_a_cut_at_any_byte_changes_nothing(body: bytes, shared_writers: Writers) -> None:
    whole = stock(body)
    for edge in range(1, len(body)):
        assert decode([body[:edge], body[edge:]], shared_writers) == whole


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies(), junk=st.binary(max_size=8), at=st.lists(st.integers(0, 10_000), max_size=8))
def test_damage_is_a_client_error_or_a_form_and_never_depends_on_the_chunking(
    body: bytes, junk: bytes, at: list[int], shared_writers: Writers
) -> None:
    edge = at[0] % (len(body) + 1) if at else 0
    damaged = body[:edge] + junk + body[edge + len(junk) :]

    def outcome(pieces: list[bytes]) -> Form | int | None:
        try:
            return decode(pieces, shared_writers)
        except HTTPException as error:
            return error.code

    whole = outcome([damaged])
    assert whole == outcome(cut(damaged, at)) == outcome(one_by_one(damaged))
    assert whole == 400 or isinstance(whole, Form)


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bodies_are_refused_with_words(body: bytes, writers: Writers) -> None:
    for size in (len(body) or 1, 100_000, 7):
        if size == 7 and len(body) > 1_000_000:
            continue
        with pytest.raises(BadRequest) as caught:
            decode((body[at : at + size] for at in range(0, len(body), size)), writers)
        assert caught.value.description not in (None, BadRequest.description)
    assert not list(writers.store.files())


def test_a_body_cut_at_any_byte_is_incomplete(writers: Writers) -> None:
    body = SMALL.removesuffix(b"\r\n")
    for at in range(len(body)):
        with pytest.raises(IncompleteUploadError):
            decode([body[:at]], writers)


@pytest.mark.parametrize(
    "boundary",
    ["", b"", "x" * (MAX_BOUNDARY_LENGTH + 1), "ż", b"\xff", "a\r\nb", "a\x00b", "a\x7f"],
)
def test_an_impossible_boundary_is_refused_with_words(
    boundary: str | bytes, writers: Writers
) -> None:
    with pytest.raises(BadRequest, match="boundary"):
        MultipartDecoder(boundary, writers)


@pytest.mark.parametrize("boundary", ["x", "-", "--", "a b", "'()+_,-./:=?", "x" * 256])
def test_unusual_boundaries_work(boundary: str, writers: Writers) -> None:
    body = SMALL.replace(b"bound", boundary.encode())
    expected = stock(body, boundary)
    assert decode([body], writers, boundary=boundary) == expected
    assert decode(one_by_one(body), writers, boundary=boundary.encode()) == expected


def test_a_field_has_a_limit_of_its_own(writers: Writers) -> None:
    limits = Limits(max_form_memory_size=5)
    body = body_of(NAMED + b"\r\n12345", NAMED + b"\r\n12345", FILE + b"\r\n1234567890")
    assert decode([body], writers, limits) == stock(body)
    for pieces in (lambda body: [body], one_by_one):
        with pytest.raises(RequestEntityTooLarge, match="5 bytes"):
            decode(pieces(body_of(FILE + b"\r\nx", NAMED + b"\r\n123456")), writers, limits)


def test_parts_are_counted(writers: Writers) -> None:
    limits = Limits(max_form_parts=1000)
    assert len(decode([body_of(*[NAMED] * 1000)], writers, limits).fields) == 1000
    with pytest.raises(RequestEntityTooLarge, match="1000 parts"):
        decode([body_of(*[FILE + b"\r\nx"] * 10_000)], writers, limits)
    assert len(writers.made) == 1000


def test_a_file_is_stopped_at_its_limit_while_it_arrives(writers: Writers) -> None:
    limits = Limits(max_file_size=1000)
    body = body_of(FILE + b"\r\n" + b"x" * 1000, FILE + b"\r\n" + b"y" * 1000)
    assert decode(one_by_one(body), writers, limits) == stock(body)
    decoder = MultipartDecoder(BOUNDARY, writers, limits)
    decoder.feed(b"--bound\r\n" + FILE + b"\r\n" + b"x" * 1000)
    with pytest.raises(FileTooLargeError) as caught:
        decoder.feed(b"y\r\n-")  # could not be part of a delimiter
    assert caught.value.max_size == 1000
    assert writers.all_closed()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_disk_closes_everything(
    error: BaseException, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Writer:
        raise error

    decoder = MultipartDecoder(BOUNDARY, writers)
    decoder.feed(b"--bound\r\n" + FILE + b"\r\n" + b"x" * 300_000 + b"\r\n--bound\r\n")
    decoder.feed(FILE + b"\r\n" + b"x" * 300_000)
    assert len(writers.made) == 2
    monkeypatch.setattr(decoder, "_new_writer", fail)
    with pytest.raises(type(error)):
        decoder.feed(b"\r\n--bound\r\n" + FILE + b"\r\nx")
    assert writers.all_closed()
    with pytest.raises(ValueError, match="closed"):
        decoder.feed(b"x")


def test_closing_drops_what_has_arrived(writers: Writers) -> None:
    decoder = MultipartDecoder(BOUNDARY, writers)
    decoder.feed(b"--bound\r\n" + FILE + b"\r\nx\r\n--bound\r\n" + FILE + b"\r\nx")
    assert len(writers.made) == 2
    decoder.close()
    decoder.close()
    assert writers.all_closed()


def test_finished_parts_belong_to_the_caller(writers: Writers) -> None:
    decoder = MultipartDecoder(BOUNDARY, writers)
    decoder.feed(body_of(FILE + b"\r\nx"))
    _, (part,) = decoder.finish()
    decoder.close()
    assert not part.writer.closed
    address = writers.store.commit(part.writer, "bin")
    part.writer.close()
    assert Path(address.abspath).read_bytes() == b"x"


@pytest.mark.parametrize("size", [16, 4096, 65_536, 262_144])
@pytest.mark.parametrize(
    "content",
    [
        os.urandom(600_000),
        b"\r\n" * 300_000,
        b"\r\n--bounb" * 60_000,
        b"\r\n\r\n--boundx" * 50_000,
    ],
    ids=["random", "line breaks", "nearly boundaries", "longer boundaries"],
)
def test_large_content_arrives_in_large_writes(
    content: bytes, size: int, writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    write: Callable[..., None] = Writer.write

    def counting(self: Writer, data: bytes, *others: Any) -> None:
        sizes.append(len(data))
        write(self, data, *others)

    monkeypatch.setattr(Writer, "write", counting)
    body = body_of(FILE + b"\r\n" + content)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert decode(pieces, writers).files[0][3] == content
    assert len(sizes) <= 3 * (len(content) // min(max(size, 16 * 1024), 64 * 1024) + 1)


def test_parts_without_a_name_are_passed_over(writers: Writers) -> None:
    for pieces in ([NAMELESS], one_by_one(NAMELESS)):
        assert decode(pieces, writers) == Form([("a", "shown")], [])
    assert writers.made == []


LINES = [
    b"Content-Type: text/plain",
    b"X:  two spaces  ",
    b"X: a: b",
    "X: \u00e9".encode(),
    b"X: \xff",
    b"X: a\tb",
    b"X: \x01",
    b"X:none",
    b"X: ",
    b"X:",
    b"X-\xe9: a",
    b"X_Y: a",
    b"X: a\r\n folded",
    b": a",
    b"no colon",
    b"X: a\nb",
    b"X: a\rb",
]


@pytest.mark.parametrize("others", [0, 1, 7, 8])
@pytest.mark.parametrize("line", LINES)
def test_plain_headers_are_what_python_multipart_finds(line: bytes, others: int) -> None:
    block = line + b"\r\n" + b"Name: value\r\n" * others + b"\r\n"
    plain = plain_headers(block)
    assert plain is None or plain == checked_headers(block)


def test_what_browsers_send_is_plain() -> None:
    block = 'Content-Disposition: form-data; name="f"; filename="\u00e9.jpg"\r\n'.encode()
    assert plain_headers(block + b"Content-Type: image/jpeg\r\n\r\n")


@pytest.mark.parametrize(
    "parameters",
    [
        'name="a"',
        'name=""',
        'name="a"; filename=""',
        'name="a"; filename="b;c=d.txt"',
        'name="a"; filename="\u00e9 b"',
        'name="a"; filename="b%22c"',
        r'name="a"; filename="b\"c"',
        'name="a"; filename="b" ',
        "name=\"a\"; filename*=UTF-8''b%20c",
        'name="a"; filename="b"; filename*=UTF-8\'\'c',
        'filename="b"; name="a"',
        "name=a",
        'name="a',
        "",
    ],
)
@pytest.mark.parametrize("start", ["form-data; ", "form-data;", "Form-Data; "])
def test_a_disposition_is_what_its_parameters_are(start: str, parameters: str) -> None:
    found = parse_parameters(start + parameters)
    assert disposition(start + parameters) == (found.get("name"), found.get("filename"))


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=a/b:c=d", "a/b:c=d"),
        ("multipart/form-data; Boundary==; charset=utf-8", "="),
        ("multipart/form-data;charset=utf-8;boundary=x", "x"),
        ('multipart/form-data; boundary="a b"', None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data", None),
    ],
)
def test_an_unquoted_boundary_ends_with_its_parameter(
    content_type: str, boundary: str | None
) -> None:
    assert with_boundary({}, content_type).get("boundary") == boundary


# -- work ------------------------------------------------------------------------------------------

MEGABYTE = 1_000_000


def work(pieces: list[bytes], writers: Writers) -> int:
    """Return how many lines of Python a body takes to decode, whether it is taken or refused."""
    lines = 0

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    decoder = MultipartDecoder(BOUNDARY, writers, Limits(max_form_parts=1000))
    before = sys.gettrace()
    sys.settrace(count)
    try:
        for piece in pieces:
            decoder.feed(piece)
        _, parts = decoder.finish()
        for part in parts:
            part.writer.close()
    except HTTPException:
        pass
    finally:
        sys.settrace(before)
        decoder.close()
    return lines


CHECKED_FILE = FILE.replace(b": ", b":  ", 1)
"""As right as `FILE`, but not as plain: it is read as any other headers are."""


def benign(size: int, parts: int, pieces: int, headers: bytes = FILE) -> list[bytes]:
    """Return a body of this size, with so many files, in so many pieces."""
    body = body_of(*[headers + b"\r\n" + b"x" * (size // parts)] * parts)
    step = -(-len(body) // pieces)
    return [body[at : at + step] for at in range(0, len(body), step)]


def filled(head: bytes, filling: bytes, tail: bytes) -> bytes:
    """Return a file whose one header ends in so many fillings as one part may have."""
    room = MAX_PART_HEADER_BYTES - len(FILE) - len(head) - len(tail) - 10
    header = FILE[:-2] + head + filling * (room // len(filling)) + tail
    return header + b"\r\n\r\nx"


HEADERS = {
    "parameters": filled(b"", b"; a=b", b""),
    "quoted parameters": filled(b"", b'; a="b"', b""),
    "a long file name": filled(b'; filename="', b"x", b'"'),
    "an escaped file name": filled(b'; filename="', b'\\"', b'"'),
    "no closing quote": filled(b'; filename="', b"x", b""),
    "no closing quotes": filled(b"", b'; filename="', b""),
    "semicolons": filled(b"", b";", b""),
    "semicolons and spaces": filled(b"", b"; ", b""),
    "percent signs": filled(b"; filename*=utf-8''", b"%41", b""),
    "malformed percent signs": filled(b"; filename*=utf-8''", b"%4x", b""),
    "only percent signs": filled(b"; filename*=utf-8''", b"%", b""),
    "quotes for the browser": filled(b'; filename="', b"%22", b'"'),
    "continuations": filled(b"", b"; filename*1=b", b""),
    "encoded continuations": filled(b"", b"; filename*1*=%41", b""),
    "folds": filled(b"", b"\r\n ", b""),
    "a charset": filled(b"\r\nContent-Type: text/plain", b"; charset=x", b""),
    "spaces": filled(b";", b" ", b"a=b"),
    "equal signs": filled(b";", b"=", b""),
}
CONTENTS = {
    "delimiters that go on": b"\r\n--boundx",
    "delimiters that go on, behind blank lines": b"\r\n\r\n--boundx",
    "delimiters that nearly end": b"\r\n--bound-x",
    "delimiters that nearly are lines": b"\r\n--bound\rx",
    "beginnings of delimiters": b"\r\n--boun",
    "carriage returns": b"\r",
    "line breaks": b"\r\n",
    "hyphens": b"-",
}
PREAMBLES = {
    **CONTENTS,
    "delimiters and tabs": b"--bound\tx",
    "delimiters and many spaces": b"--bound" + b" " * 250 + b"x",
    "delimiters alone": b"--bound",
}


@pytest.mark.parametrize("pieces", [1, 50])
@pytest.mark.parametrize("filling", CONTENTS.values(), ids=CONTENTS.keys())
def test_no_content_takes_more_work_than_another(
    filling: bytes, pieces: int, writers: Writers
) -> None:
    body = body_of(FILE + b"\r\n" + filling * (MEGABYTE // len(filling)))
    step = -(-len(body) // pieces)
    parts = [body[at : at + step] for at in range(0, len(body), step)]
    assert work(parts, writers) <= 5 * work(benign(MEGABYTE, 1, pieces), writers)


@pytest.mark.parametrize("filling", PREAMBLES.values(), ids=PREAMBLES.keys())
def test_no_preamble_takes_more_work_than_a_file(filling: bytes, writers: Writers) -> None:
    body = filling * (MEGABYTE // len(filling)) + b"\r\n" + SMALL
    assert work([body], writers) <= 5 * work(benign(MEGABYTE, 4, 1), writers)


@pytest.mark.parametrize("part", HEADERS.values(), ids=HEADERS.keys())
def test_no_headers_take_more_work_than_a_few_parts(part: bytes, writers: Writers) -> None:
    count = MEGABYTE // len(part)
    assert len(part) > MAX_PART_HEADER_BYTES - 100
    assert work([body_of(*[part] * count)], writers) <= 5 * work(
        benign(MEGABYTE, count, 1, CHECKED_FILE), writers
    )


FRAGMENTS = [
    *(b"\r", b"\n", b"\r\n", b"--", b"-", b"--bound", b"bound", b" ", b"\t", b"x", b";", b'"'),
    *(b"\\", b"%", b"=", b"*", b"a=b", b"filename*=utf-8''", b": ", b"%41", b"\r\n ", b"*1"),
]


@pytest.mark.slow
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    fragments=st.lists(
        st.sampled_from(FRAGMENTS),
        min_size=1,
        max_size=12,
    ),
    place=st.sampled_from(["preamble", "headers", "content"]),
    pieces=st.integers(1, 5),
)
def test_no_shape_is_found_that_takes_more_work(
    fragments: list[bytes], place: str, pieces: int, shared_writers: Writers
) -> None:
    filling = b"".join(fragments)
    size = 60_000
    many = filling * (size // len(filling))
    if place == "preamble":
        body = many + b"\r\n" + SMALL
    elif place == "content":
        body = body_of(FILE + b"\r\n" + many)
    else:
        body = body_of(*[filled(b"", filling, b"")] * 4)
    parts = min(1000, max(1, body.count(b"--bound\r\n") + body.count(b"--bound \r\n")))
    step = -(-len(body) // pieces)
    arriving = [body[at : at + step] for at in range(0, len(body), step)]
    usual = benign(size, parts, pieces, CHECKED_FILE)
    assert work(arriving, shared_writers) <= 5 * work(usual, shared_writers)


def test_the_headers_of_most_clients_take_less_work_than_checked_ones(writers: Writers) -> None:
    checked = work(benign(MEGABYTE, 4, 1, CHECKED_FILE), writers)
    assert 2 * work(benign(MEGABYTE, 4, 1), writers) < checked
