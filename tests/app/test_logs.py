"""Logs: what an operator must know is told once a minute, with its fields, and as the page says."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Site
from object_stores import objects_of
from odd_s3 import OddS3, odd_store

from flask_hashfs import HashFS
from flask_hashfs._storage import messages
from flask_hashfs._storage.messages import MESSAGES, Message
from flask_hashfs.exceptions import RejectedError, StoreUnavailableError

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "operating.md"
PACKAGE = Path(messages.__file__).parents[1]


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The kind and the level of each record so far."""
    return [(record.hashfs_kind, record.levelname) for record in caplog.records]  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def everything_is_captured(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flask_hashfs")


# -- the table ---------------------------------------------------------------------------------


def row(message: Message) -> str:
    text = re.sub(r"%\((\w+)\)[sd]", r"*\1*", message.text)
    return f"| `{message.kind}` | {logging.getLevelName(message.level)} | {text} | "


def test_the_page_lists_every_message_as_it_is_logged_and_no_other() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("(logs)=")[2]
    told = [line for line in page.splitlines() if line.startswith("| `")]
    assert [line[: len(row(message))] for line, message in zip(told, MESSAGES, strict=True)] == [
        row(message) for message in MESSAGES
    ]


def test_every_message_is_used_and_nothing_else_is_logged() -> None:
    code = {
        path: path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob("*.py")
        if path.name != "messages.py"
    }
    names = {name for name, value in vars(messages).items() if isinstance(value, Message)}
    used = {
        name for text in code.values() for name in re.findall(r"messages\.([A-Z_]+)\.log", text)
    }
    assert used == names
    assert [path for path, text in code.items() if re.search(r"\bgetLogger\b", text)] == []


# -- once a minute -----------------------------------------------------------------------------


SAMPLE = Message("sample", logging.WARNING, "%(path)s is odd")


def test_a_second_message_of_a_minute_is_left_to_debug_and_counted_in_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cause = object()
    for name in ("first", "second", "third"):
        SAMPLE.log(cause, path=name)
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG", "DEBUG"]
    monkeypatch.setattr(messages, "INTERVAL", 0.0)  # as if a minute had passed
    SAMPLE.log(cause, path="fourth")
    last = caplog.records[-1]
    assert last.levelname == "WARNING"
    assert last.getMessage() == "fourth is odd (2 more were left out)"
    assert last.hashfs_left_out == 2  # type: ignore[attr-defined]
    SAMPLE.log(cause, path="fifth")
    assert caplog.records[-1].getMessage() == "fifth is odd"


def test_another_cause_or_another_kind_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    first, second = object(), object()
    SAMPLE.log(first, path="x")
    SAMPLE.log(second, path="x")
    Message("other", logging.ERROR, "%(path)s").log(first, path="x")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]


def test_of_many_threads_one_tells(caplog: pytest.LogCaptureFixture) -> None:
    cause, ready = object(), threading.Barrier(16)

    def tell() -> None:
        ready.wait()
        SAMPLE.log(cause, path="x")

    threads = [threading.Thread(target=tell) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    levels = [record.levelname for record in caplog.records]
    assert sorted(levels) == ["DEBUG"] * 15 + ["WARNING"]


def test_causes_are_not_kept_for_ever() -> None:
    for _ in range(3 * messages._KEPT):
        SAMPLE.log(object(), path="x")
    assert len(messages._told) <= messages._KEPT


def test_the_fields_are_kept_for_loggers_that_write_json(caplog: pytest.LogCaptureFixture) -> None:
    messages.HEALED.log(object(), path="a/b", stored=3, size=5)
    messages.UNREADABLE.log(object(), path="a/b", error=OSError(5, "Input/output error"))
    told = [
        json.loads(json.dumps({key: value for key, value in vars(record).items() if "hash" in key}))
        for record in caplog.records
    ]
    assert told[0]["hashfs_kind"] == "healed"
    assert (told[0]["hashfs_path"], told[0]["hashfs_stored"], told[0]["hashfs_size"]) == (
        "a/b",
        3,
        5,
    )
    assert told[1]["hashfs_error"] == "[Errno 5] Input/output error"


# -- what really happens -----------------------------------------------------------------------


def test_damage_that_a_verify_finds_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = HashFS(tmp_path)
    for number in range(5):
        address = store.put(b"content %d" % number)
        if number:
            os.unlink(address.abspath)
            Path(address.abspath).write_bytes(b"c0ntent %d" % number)
    assert len(list(store.verify())) == 4
    assert lines(caplog) == [("damaged", "ERROR")] + [("damaged", "DEBUG")] * 3
    assert "is damaged" in caplog.text


def test_damage_in_a_bucket_is_told(caplog: pytest.LogCaptureFixture) -> None:
    site = Site("flask", {"HASHFS_ROOT_FOLDER": "memory://"})
    address = site.put(b"content")
    objects_of(site.client).put(address.relpath, b"c0ntent", {}, create=False)
    assert len(list(site.client.verify())) == 1
    assert lines(caplog) == [("damaged", "ERROR")]


@pytest.mark.parametrize("root", ["root", "memory://"])
def test_what_a_put_heals_is_told(
    tmp_path: Path, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = root if "://" in root else str(tmp_path)
    site = Site("flask", {"HASHFS_ROOT_FOLDER": root})
    address = site.put(b"content")
    if "://" in root:
        objects_of(site.client).put(address.relpath, b"cut", {}, create=False)
    else:
        os.unlink(address.abspath)
        Path(address.abspath).write_bytes(b"cut")
    assert site.put(b"content").is_duplicate
    [record] = caplog.records
    assert (record.hashfs_kind, record.hashfs_stored, record.hashfs_size) == ("healed", 3, 7)  # type: ignore[attr-defined]
    assert record.hashfs_path == address.abspath  # type: ignore[attr-defined]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_an_inspector_refuses_is_told_in_its_words_without_an_id(
    framework: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(framework, {"HASHFS_ROOT_FOLDER": str(tmp_path)})

    @site.fs.inspector
    def refuse(file: Any, address: Any) -> None:
        raise RejectedError("a virus: Eicar")

    for data in (b"one", b"two"):
        with pytest.raises(RejectedError):
            site.put(data)
    assert lines(caplog) == [("rejected", "WARNING"), ("rejected", "DEBUG")]
    message = "An inspector of the store hashfs refused content: a virus: Eicar"
    assert caplog.records[0].getMessage() == message


@pytest.mark.slow
def test_a_bucket_that_fails_and_comes_back_is_told_once_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = [True]

    class Breaking(OddS3):
        def do_HEAD(self) -> None:
            if broken:
                self._send(403, b"")
            else:
                super().do_HEAD()

    with odd_store(Breaking) as store:
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                store.get("0" * 64)
        broken.clear()
        for _ in range(3):
            assert store.exists("0" * 64) in (True, False)
    assert [line for line in lines(caplog) if line[1] != "DEBUG"] == [
        ("unavailable", "ERROR"),
        ("available", "INFO"),
    ]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_prune_tells_how_much_it_deleted_and_what_it_cleared(
    framework: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(framework, {"HASHFS_ROOT_FOLDER": str(tmp_path)})
    old = time.time() - 100_000
    for number in range(3):
        os.utime(site.put(b"content %d" % number).abspath, (old, old))
    left_over = tmp_path / ".hashfs" / "tmp" / "left"
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    os.utime(left_over, (old, old))
    deleted = site.call(site.fs.prune, allow_empty=True, dry_run=True)
    assert lines(caplog) == []
    assert sorted(site.call(site.fs.prune, allow_empty=True)) == sorted(deleted)
    assert lines(caplog) == [("swept", "INFO"), ("pruned", "INFO")]
    root = str(tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        f"1 left-overs in {root} were cleared",
        f"A prune of {root} deleted 3 contents",
    ]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_files_with_which_nothing_is_wrong_are_not_told(
    framework: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"HASHFS_ROOT_FOLDER": str(tmp_path), "HASHFS_SERVE_FILES": True}
    site = Site(framework, {**config, "HASHFS_PATH_PREFIX": "/files"})
    address = site.put(b"content")
    site.put(b"content", "txt")
    assert site.ask(f"/files/{address.id}").status == 200
    assert list(site.client.verify()) == []
    site.call(site.fs.delete, address.id)
    assert site.ask(f"/files/{address.id}").status == 404
    assert [record for record in caplog.records if record.name == "flask_hashfs"] == []
