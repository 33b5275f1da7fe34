"""StoredFile: a value that a row can keep, that JSON can hold, and that every look-up takes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from flask_hashfs import HashFS, StoredFile

FIELDS = {
    "id": "ab" * 32,
    "relpath": "a/b/a/b/" + "ab" * 30 + ".png",
    "filename": "Träume.png",
    "content_type": "image/png",
    "size": 12,
}
FILE = StoredFile(**FIELDS)  # type: ignore[arg-type]


def test_it_survives_json() -> None:
    assert StoredFile.from_dict(json.loads(json.dumps(FILE.as_dict()))) == FILE
    assert FILE.as_dict() == FIELDS


def test_it_is_a_value() -> None:
    same = StoredFile.from_dict({**FIELDS, "added_later": 1})
    assert same == FILE
    assert len({same, FILE}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        FILE.size = 13  # type: ignore[misc]


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_named(name: str) -> None:
    fields = {key: value for key, value in FIELDS.items() if key != name}
    with pytest.raises(ValueError, match=f"{name} is missing"):
        StoredFile.from_dict(fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [("id", None), ("relpath", 5), ("filename", 5), ("content_type", None)]
    + [("size", value) for value in ("12", 1.5, None, True, -1)],
)
def test_a_field_of_another_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        StoredFile.from_dict({**FIELDS, name: value})


@pytest.mark.parametrize("fields", [None, "text", 5, ["a"]])
def test_what_is_not_a_mapping_is_a_value_error(fields: Any) -> None:
    with pytest.raises(ValueError, match="mapping"):
        StoredFile.from_dict(fields)


def test_every_look_up_takes_it(tmp_path: Path) -> None:
    store = HashFS(tmp_path, fsync=False)
    address = store.put(b"hello", "txt")
    file = StoredFile(address.id, address.relpath, "x.txt", "text/plain", 5)
    found = store.get(file)
    assert found is not None
    assert found[:3] == address[:3]
    assert store.exists(file)
    with store.open(file) as reader:
        assert reader.read() == b"hello"
