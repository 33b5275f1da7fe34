"""The digests that requests promise and answers carry (RFC 9530)."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.exceptions import BadRequest

from flask_hashfs._http.digests import expected, key_of, write

SHA256 = hashlib.sha256(b"content").digest()
SHA512 = hashlib.sha512(b"content").digest()
S256 = f":{base64.b64encode(SHA256).decode()}:"
S512 = f":{base64.b64encode(SHA512).decode()}:"


@pytest.mark.parametrize("name", ["Repr-Digest", "Content-Digest", "repr-digest"])
@pytest.mark.parametrize(
    "lines",
    [
        [f"sha-256={S256}"],
        [f"  sha-256={S256} "],
        [f"sha-512={S512}, sha-256={S256}"],
        [f"sha-256={S256},sha-512={S512}"],
        [f"sha-256={S256} \t,\t sha-512={S512}"],
        [f"sha-512={S512}", f"sha-256={S256}"],
        [f"sha-256={S256}", "md5=:AAAA:"],
        [f"sha-256={S256};a;b=1;c=:AA==:; d=tok"],
        [f'unixsum=1, crc32c=:AAAA:, x, y=?0, z=tok, s="a,b", sha-256={S256}'],
        [f"sha-256=:AAAA:, sha-256={S256}"],
        [f"sha-256={S256.replace('=', '')}"],
    ],
)
def test_the_digest_by_the_stores_algorithm_is_found(name: str, lines: list[str]) -> None:
    headers = Headers([(name, line) for line in lines])
    assert expected(headers, "sha256") == SHA256.hex()


@pytest.mark.parametrize(
    "value",
    [
        ",",
        "sha-256",
        "sha-256=",
        "sha-256=::",
        "sha-256=:",
        "sha-256=:AAAA:",
        f"SHA-256={S256}",
        f"sha-256 ={S256}",
        f"sha-256= {S256}",
        f"sha-256={S256[1:-1]}",
        f"sha-256={S256[:-1]}",
        f'sha-256="{S256[1:-1]}"',
        f"sha-256={SHA256.hex()}",
        f"sha-256=:{SHA256.hex()}:",
        f"sha-256=:{S256[2:]}",
        f"sha-256=:A{S256[1:]}",
        f"sha-256=:={S256[1:]}",
        f"sha-256={S256},",
        f",sha-256={S256}",
        f"sha-256={S256} md5=:AAAA:",
        f"sha-256={S256}, ((",
        f"sha-256={S256}, X=1",
        f"sha-256={S256};",
        f"sha-256={S256}, sha-256=1",
        f"sha-256=({S256})",
        f"sha-256={S256.replace('=', '!')}",
        "\u00ff",
    ],
)
@pytest.mark.parametrize("required", [False, True])
def test_a_malformed_promise_is_refused(value: str, required: bool) -> None:
    for headers in (
        Headers([("Repr-Digest", value)]),
        EnvironHeaders({"HTTP_CONTENT_DIGEST": value}),
        Headers([("Repr-Digest", f"sha-256={S256}"), ("Content-Digest", value)]),
    ):
        with pytest.raises(BadRequest, match="-Digest field"):
            expected(headers, "sha256", required=required)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Repr-Digest": ""},
        {"Repr-Digest": " "},
        {"Repr-Digest": f"sha-512={S512}"},
        {"Content-Digest": f"sha256={S256}"},
        {"Repr-Digest": "sha-512=1, md5=:AAAA:"},
        {"Digest": f"SHA-256={S256[1:-1]}"},
        {"Want-Repr-Digest": "((("},
    ],
)
def test_no_promise_is_one_only_where_it_is_required(headers: dict[str, str]) -> None:
    assert expected(Headers(headers), "sha256") is None
    with pytest.raises(BadRequest, match="A Repr-Digest or Content-Digest field with sha-256"):
        expected(Headers(headers), "sha256", required=True)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha3_256", "blake2b", "sha384", "256"])
def test_no_digest_can_be_required_by_an_algorithm_that_rfc_9530_does_not_name(
    algorithm: str,
) -> None:
    headers = Headers({"Repr-Digest": f"sha-256={S256}, md5=:AAAA:"})
    assert expected(headers, algorithm) is None
    assert key_of(algorithm) is write("00", algorithm) is None
    with pytest.raises(ValueError, match="must be sha256 or sha512"):
        expected(headers, algorithm, required=True)


def test_the_store_chooses_the_algorithm() -> None:
    headers = Headers([("Repr-Digest", f"sha-256={S256}, sha-512={S512}")])
    assert expected(headers, "sha512") == SHA512.hex()
    assert expected(headers, "SHA-256") == SHA256.hex()
    assert expected(headers, "md5") is None
    assert expected(Headers(), "sha256") is None


def test_repr_digest_goes_before_content_digest() -> None:
    other = base64.b64encode(bytes(32)).decode()
    headers = Headers(
        [("Content-Digest", f"sha-256=:{other}:"), ("Repr-Digest", f"sha-256={S256}")]
    )
    assert expected(headers, "sha256") == SHA256.hex()
    headers["Repr-Digest"] = "sha-512=?0"
    assert expected(headers, "sha256") == "00" * 32


@given(st.lists(st.text(st.characters(max_codepoint=255)) | st.text(':=,;sha-256"( AB')))
def test_any_other_text_is_refused(lines: list[str]) -> None:
    headers = Headers([("Repr-Digest", " ".join(line.splitlines())) for line in lines])
    try:
        digest = expected(headers, "sha256")
    except BadRequest:
        return
    assert digest is None or len(bytes.fromhex(digest)) == 32


@given(st.binary(min_size=32, max_size=32))
def test_what_is_written_is_read(digest: bytes) -> None:
    for algorithm in ("sha256", "SHA-256"):
        value = write(digest.hex(), algorithm)
        assert value == f"sha-256=:{base64.b64encode(digest).decode()}:"
        assert expected(Headers({"Repr-Digest": value}), algorithm) == digest.hex()


@pytest.mark.parametrize("name", ["stray", "f" * 63, "f" * 62, "", "zz" * 32])
def test_the_name_of_a_stray_file_has_no_digest(name: str) -> None:
    assert write(name, "sha256") is None
