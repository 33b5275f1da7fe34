"""Where content lies: from an id to a path and back, on disks and in buckets."""

from __future__ import annotations

import hashlib
from typing import Any

import hashfs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_hashfs._storage.layout import Layout, is_any_id

ID = hashlib.sha256(b"content").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
A, B, C, D, REST = *ID[:4], ID[4:]
FLAT = f"{A}/{B}/{C}/{D}/{REST}"

algorithms = st.sampled_from(["md5", "sha1", "sha256", "sha512", "blake2b", "sha3_256"])
layouts = st.builds(
    Layout,
    st.integers(0, 70),
    st.integers(0, 9),
    algorithms,
    st.sampled_from(["/", "\\"]),
)
extensions = st.from_regex(r"\.(?!\.*\Z)[A-Za-z0-9._+-]{1,64}", fullmatch=True)
suffixes = st.one_of(st.just(""), extensions)


@st.composite
def contents(draw: Any) -> tuple[Layout, str]:
    """A layout, and an id of its algorithm."""
    layout = draw(layouts)
    return layout, hashlib.new(layout.algorithm, draw(st.binary(max_size=8))).hexdigest()


@pytest.mark.parametrize(
    ("depth", "width", "path"),
    [
        (4, 1, FLAT),
        (0, 1, ID),
        (1, 2, f"{ID[:2]}/{ID[2:]}"),
        (3, 3, f"{ID[:3]}/{ID[3:6]}/{ID[6:9]}/{ID[9:]}"),
        (1, 64, ID),
        (2, 40, f"{ID[:40]}/{ID[40:]}"),
        (64, 1, "/".join(ID)),
    ],
)
def test_an_id_is_cut_into_folders_and_a_name(depth: int, width: int, path: str) -> None:
    layout = Layout(depth, width, "sha256")
    assert layout.path_of(ID) == path
    assert layout.path_of(ID, ".tar.gz") == path + ".tar.gz"
    assert layout.id_of(path) == layout.id_of(path + ".tar.gz") == ID


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        ID,  # no folders
        f"{A}/{B}/{C}{D}/{REST}",  # folders of another layout
        f"{A}/{B}/{C}/{D}/{REST[:-1]}",
        f"{A}/{B}/{C}/{D}/{REST}0",
        f"{A}/{B}/{C}/{D}/{REST.upper()}",
        f"{A}/{B}/{C}/{D}/{REST}-txt",
        f"{A}/{B}/{C}/{D}/{REST}/x.txt",
        f"{A}/{B}/{C}/{D}/{REST}.unpacked/x.txt",
        f"/{FLAT}",
        f"{FLAT}/",
        FLAT.replace("/", "\\"),
        "stray.txt",
    ],
)
def test_another_path_is_not_that_of_a_content(path: str) -> None:
    assert Layout(4, 1, "sha256").id_of(path) is None


@pytest.mark.parametrize(
    ("path", "suffix"),
    [
        (FLAT, ""),
        (FLAT + ".tar.gz", ".tar.gz"),
        (ID + ".tar.gz", ".tar.gz"),  # in another layout
        (OTHER + ".tar.gz", ".tar.gz"),  # under another content's id
        ("some/where/photo.tar.gz", ".gz"),
        ("some.where/photo", ""),
        (FLAT + ".unpacked/x.txt", ".txt"),
        (".profile", ""),
    ],
)
def test_the_extension_begins_where_the_id_ends(path: str, suffix: str) -> None:
    assert Layout(4, 1, "sha256").suffix_of(path, ID) == suffix


@pytest.mark.parametrize(
    ("path", "id"),
    [
        (FLAT + ".tar.gz", ID),
        ("d4/1d8cd98f00b204e9800998ecf8427e.txt", "d41d8cd98f00b204e9800998ecf8427e"),
        ("some/where/photo.tar.gz", "somewherephoto.tar"),  # what hashfs makes of it
    ],
)
def test_any_path_can_be_joined_to_an_id(path: str, id: str) -> None:
    assert Layout(4, 1, "sha256").unshard(path) == id


@pytest.mark.parametrize("algorithm", ["none", "shake_128"])
def test_an_algorithm_without_digests_of_one_length_is_refused(algorithm: str) -> None:
    with pytest.raises(ValueError, match=algorithm):
        Layout(4, 1, algorithm)


@pytest.mark.slow
@given(contents(), suffixes)
def test_every_path_leads_back_to_its_id_and_extension(
    content: tuple[Layout, str], suffix: str
) -> None:
    layout, id = content
    path = layout.path_of(id, suffix)
    assert layout.is_id(id)
    assert is_any_id(id)
    assert layout.id_of(path) == layout.unshard(path) == id
    assert layout.suffix_of(path, id) == suffix


@pytest.mark.slow
@given(contents(), suffixes)
def test_a_bucket_has_the_paths_of_a_disk_but_for_the_separator(
    content: tuple[Layout, str], suffix: str
) -> None:
    layout, id = content
    other = Layout(layout.depth, layout.width, layout.algorithm, "\\")
    unix = Layout(layout.depth, layout.width, layout.algorithm, "/")
    assert other.path_of(id, suffix).replace("\\", "/") == unix.path_of(id, suffix)


@given(layouts, st.text("0123456789abcdef./\\x", max_size=140))
def test_no_other_text_is_taken_for_the_path_of_a_content(layout: Layout, text: str) -> None:
    id = layout.id_of(text)
    if id is not None:
        assert text == layout.path_of(id, layout.suffix_of(text, id))


@given(st.integers(0, 40), st.integers(1, 9), st.binary(max_size=8))
def test_content_lies_where_hashfs_puts_it(depth: int, width: int, data: bytes) -> None:
    id = hashlib.sha256(data).hexdigest()
    old = hashfs.HashFS("/root", depth=depth, width=width)
    assert Layout(depth, width, "sha256").path_of(id, ".txt") == old.relpath(old.idpath(id, ".txt"))
