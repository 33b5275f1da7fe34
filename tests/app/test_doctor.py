"""The doctor: each check is broken for real, and changes nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from both_apps import FRAMEWORKS, Site
from file_systems import exfat, small_disk, sshfs
from odd_s3 import CREDENTIALS, OddS3, odd_endpoint, odd_store, page
from permissions import permissions_hold
from runners import make_runner

from flask_hashfs import Finding, HashFS
from flask_hashfs._bucket import diagnosis
from flask_hashfs._local import diagnosis as local

needs_obstore = pytest.mark.skipif(
    importlib.util.find_spec("obstore") is None,
    reason="obstore is not installed: no object store has a cache",
)
ROOM = {"HASHFS_MAX_FILE_SIZE": 1000, "MAX_CONTENT_LENGTH": 5000}


def found(root: object, framework: str = "flask", **config: Any) -> dict[str, Finding]:
    site = Site(framework, {"HASHFS_ROOT_FOLDER": str(root), **ROOM, **config})
    return {finding.check: finding for finding in site.call(site.fs.diagnose)}


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, "size=1m,nr_inodes=20"):
        yield folder


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_store_in_order_has_no_error_and_is_left_as_it_was(
    framework: str, tmp_path: Path
) -> None:
    HashFS(tmp_path).put(b"content", "txt")
    before = tree(tmp_path)
    findings = found(tmp_path, framework)
    assert not [each for each in findings.values() if each.level == "error"]
    assert all(each.remedy for each in findings.values() if each.level != "ok")
    assert tree(tmp_path) == before
    assert {"root", "write", "hard links", "rename", "fsync", "free space"} <= set(findings)


def test_a_finding_that_is_not_ok_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="says nothing of what to do"):
        Finding("root", "error", "is missing")


# -- the folder --------------------------------------------------------------------------------


def test_a_root_that_is_missing_is_not_made(tmp_path: Path) -> None:
    assert found(tmp_path / "none")["root"].level == "note"
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    assert found(tmp_path / "file" / "root")["root"].level == "error"
    assert found(tmp_path / "file")["root"].level == "error"


def test_a_root_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with permissions_hold():
            assert found(tmp_path)["write"].level == "error"
    finally:
        tmp_path.chmod(0o700)


def test_a_disk_that_is_full_or_read_only(disk: Path) -> None:
    assert found(disk)["file system"].message.startswith("tmpfs")
    filler = disk / "filler"
    filler.write_bytes(bytes(1024 * 1024 - 100 * 1024))
    assert found(disk)["free space"].level == "ok"
    filler.write_bytes(bytes(1024 * 1024 - 20 * 1024))
    assert found(disk)["free space"].level == "error"
    filler.unlink()
    for number in range(30):
        try:
            (disk / str(number)).touch()
        except OSError:
            break
    findings = found(disk)
    assert findings["free inodes"].level == "error"
    assert findings["write"].level == "error"
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert "read-only" in found(disk)["write"].remedy


def test_little_room_is_a_warning(disk: Path) -> None:
    filler = disk / "filler"
    filler.write_bytes(bytes(1024 * 1024 - 68 * 1024))  # a twentieth is 52 KiB
    subprocess.run(["mount", "-o", "remount,size=2m,nr_inodes=400", disk], check=True)
    filler.write_bytes(bytes(2 * 1024 * 1024 - 80 * 1024))
    for number in range(380):
        (disk / str(number)).touch()
    findings = found(disk)
    assert findings["free space"].level == "warning"
    assert findings["free inodes"].level == "warning"
    assert findings["write"].level == "ok"


def test_a_root_that_belongs_to_somebody_else(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    address = HashFS(tmp_path).put(b"content")
    os.chmod(address.abspath, 0o600)
    tmp_path.chmod(0o700)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534)
    with permissions_hold():
        findings = found(tmp_path)
    assert findings["root"].level == "error"
    assert "the user 0" in findings["root"].remedy
    tmp_path.chmod(0o755)
    with permissions_hold():
        findings = found(tmp_path)
    assert findings["write"].level == "error"
    assert "the user 0" in findings["write"].remedy
    assert findings["stored files"].level == "error"
    assert "chown" in findings["stored files"].remedy


def refusing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, name, refuse)


@pytest.mark.parametrize(
    ("call", "check", "level"),
    [
        ("link", "hard links", "note"),
        ("rename", "rename", "error"),
        ("fchmod", "new files", "warning"),
    ],
)
def test_a_file_system_that_refuses(  # rename is refused by none that could be mounted here
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, check: str, level: str
) -> None:
    refusing(call, monkeypatch)
    assert found(tmp_path)[check].level == level
    assert tree(tmp_path) == []


def test_a_file_system_without_unnamed_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_hashfs._storage.spool._UNNAMED", 0)
    assert found(tmp_path)["unnamed files"].level == "note"
    assert tree(tmp_path) == []


@pytest.mark.slow
def test_a_slow_disk_and_no_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(tmp_path, HASHFS_FSYNC=False)["fsync"].level == "note"
    # A real disk is as slow as that only when it is about to fail.
    monkeypatch.setattr("flask_hashfs._storage.posix.sync_file", lambda _: time.sleep(0.3))
    assert found(tmp_path)["fsync"].level == "warning"


def test_names_that_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "lexists", lambda _: True)
    assert local._case(str(tmp_path / "abc")).level == "note"


def test_reads_that_wait(disk: Path) -> None:
    assert found(disk)["reads without waiting"].level == "note"  # tmpfs does not tell


def test_stored_files_of_another_mode_or_that_cannot_be_read(tmp_path: Path) -> None:
    address = HashFS(tmp_path).put(b"content")
    assert found(tmp_path)["stored files"].level == "ok"
    assert found(tmp_path, HASHFS_FILE_MODE=0o640)["stored files"].level == "warning"
    os.chmod(address.abspath, 0o200)
    with permissions_hold():
        findings = found(tmp_path)
    assert findings["stored files"].level == "error"


@pytest.mark.parametrize(
    ("folder", "check"),
    [
        ("tmp", "temporary files"),
        ("quarantine", "quarantine"),
        ("uploads/0123", "unfinished uploads"),
    ],
)
def test_left_overs_are_told_with_age_and_size(tmp_path: Path, folder: str, check: str) -> None:
    inside = tmp_path / ".hashfs" / folder
    inside.mkdir(parents=True)
    (inside / "file").write_bytes(b"12345")
    then = time.time() - 3 * 86400
    os.utime(inside / "file", (then, then))
    finding = found(tmp_path)[check]
    assert finding.level == "note"
    assert finding.message == "1, 5 bytes, the oldest of 3 days"
    assert "hashfs" in finding.remedy
    assert (inside / "file").exists()


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("root", ["root", pytest.param("memory://", marks=needs_obstore)])
def test_uploads_are_counted_that_have_not_ended_and_not_their_files(
    framework: str, root: str, tmp_path: Path
) -> None:
    root = root if ":" in root else str(tmp_path / root)
    site = Site(framework, {"HASHFS_ROOT_FOLDER": root, "HASHFS_UPLOADS_PATH": "/uploads", **ROOM})
    for is_complete in ("?0", "?1", "?0"):
        headers = {"Upload-Complete": is_complete}
        reply = site.ask("/uploads", method="POST", headers=headers, data=b"content")
        assert reply.status < 300
    findings = {each.check: each for each in site.call(site.fs.diagnose)}
    assert findings["unfinished uploads"].message.startswith("2, ")


def test_limits_are_told_in_words(tmp_path: Path) -> None:
    config: dict[str, Any] = {"HASHFS_MAX_FILE_SIZE": 50 * 1024**2, "MAX_CONTENT_LENGTH": None}
    message = found(tmp_path, **config)["upload limit"].message
    assert message == "a file: 50 MiB at most; a request: no limit"


def test_files_set_aside_are_told(tmp_path: Path) -> None:
    from flask_hashfs._local.set_aside import SetAside

    store = HashFS(tmp_path)
    address = store.put(b"content")
    SetAside.make(store.backend, address.id).move_in(address.abspath)
    assert found(tmp_path)["files set aside"].message.startswith("1, 7 bytes")
    assert not os.path.exists(address.abspath)


# -- the cache ---------------------------------------------------------------------------------


def cache_of(folder: object, size: int = 1000) -> dict[str, Any]:
    return {"HASHFS_CACHE_FOLDER": str(folder), "HASHFS_CACHE_SIZE": size}


def cached(folder: object, root: object = "memory://", size: int = 1000) -> dict[str, Finding]:
    return found(root, **cache_of(folder, size))


@needs_obstore
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_cache_in_order_is_left_as_it_was(framework: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    config = cache_of(folder)
    checks = ("cache folder", "cache space", "cache owner")
    before = found("memory://", framework, **config)
    assert all(before[check].level == "ok" for check in checks[:2])
    assert not folder.exists()  # the first file kept makes it
    site = Site(framework, {"HASHFS_ROOT_FOLDER": "memory://", **ROOM, **config})
    site.put(b"content")
    kept = tree(folder)
    findings = {each.check: each for each in site.call(site.fs.diagnose)}
    assert all(findings[check].level == "ok" for check in checks)
    assert findings["cache space"].message.startswith("7 bytes of 1,000 bytes are kept")
    assert tree(folder) == kept
    assert "cache folder" not in found("memory://", framework)


@needs_obstore
def test_a_cache_whose_folder_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir(mode=0o500)
    with permissions_hold():
        for place in ("file", "file/cache", "closed", "closed/cache"):
            findings = cached(tmp_path / place)
            assert findings["cache folder"].level == "warning", place
            assert "the store answers" in findings["cache folder"].remedy
            assert "cache space" not in findings
    assert tree(tmp_path) == ["closed", "file"]


@needs_obstore
def test_a_cache_on_a_disk_that_is_in_memory_too_small_or_read_only(disk: Path) -> None:
    findings = cached(disk / "cache")
    assert findings["cache file system"].level == "note"
    assert findings["cache file system"].message.startswith("tmpfs")
    assert findings["cache space"].level == "ok"
    findings = cached(disk / "cache", size=10 * 1024**2)
    assert findings["cache space"].level == "warning"
    assert f"less than {1024**2}" in findings["cache space"].remedy
    (disk / "cache").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    findings = cached(disk / "cache")
    assert findings["cache folder"].level == "warning"
    assert "Read-only" in findings["cache folder"].message


def test_a_cache_that_gains_nothing(tmp_path: Path) -> None:
    HashFS(tmp_path / "root").put(b"content")
    finding = cached(tmp_path / "cache", tmp_path / "root")["cache file system"]
    assert finding.level == "warning"
    assert "the same file system" in finding.message


@needs_obstore
def test_a_cache_that_is_read_over_the_network(network: Path) -> None:
    finding = cached(network / "cache")["cache file system"]
    assert finding.level == "warning"
    assert finding.message.startswith("fuse.sshfs")


@needs_obstore
def test_a_cache_that_others_may_write_or_own(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    finding = cached(tmp_path)["cache owner"]
    assert (finding.level, "0o777" in finding.message) == ("warning", True)
    tmp_path.chmod(0o755)
    assert cached(tmp_path)["cache owner"].level == "ok"
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away: whether another owner is told is not tested")
    os.chown(tmp_path, 65534, 65534)
    assert cached(tmp_path)["cache owner"].level == "warning"


# -- file systems that lack something ----------------------------------------------------------


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Path]:
    """A folder that SFTP serves, without hard links."""
    (tmp_path / "served").mkdir()
    (tmp_path / "network").mkdir()
    with sshfs(tmp_path / "served", tmp_path / "network") as folder:
        yield folder


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Path]:
    """An exFAT file system, which has neither hard links nor modes, and folds names."""
    (tmp_path / "card").mkdir()
    with exfat(tmp_path / "image", tmp_path / "card") as folder:
        yield folder


def test_a_root_on_a_network_without_hard_links(network: Path) -> None:
    findings = found(network)
    assert findings["file system"].message == "fuse.sshfs"
    assert findings["hard links"].level == "note"
    assert findings["unnamed files"].level == "note"
    assert findings["reads without waiting"].level == "note"
    assert findings["rename"].level == findings["write"].level == "ok"
    assert tree(network) == []


def test_a_root_on_a_card(card: Path) -> None:
    findings = found(card)
    assert findings["hard links"].level == "note"
    assert findings["case"].level == "note"
    assert findings["new files"].level == "warning"
    assert findings["rename"].level == findings["write"].level == "ok"
    HashFS(card).put(b"content", "txt")
    assert found(card)["stored files"].level in ("ok", "warning")


# -- the settings ------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_request_smaller_than_a_file(framework: str, tmp_path: Path) -> None:
    config = {"HASHFS_MAX_FILE_SIZE": 1024**3}
    if framework == "flask":
        config["MAX_CONTENT_LENGTH"] = 1000
        finding = found(tmp_path, framework, **config)["upload limit"]
    else:  # of Quart's own default
        site = Site("quart", {"HASHFS_ROOT_FOLDER": str(tmp_path), **config})
        [finding] = [x for x in site.call(site.fs.diagnose) if x.check == "upload limit"]
    assert finding.level == "warning"


@pytest.mark.parametrize(
    ("check", "level", "config"),
    [
        ("upload limit", "warning", {"HASHFS_MAX_FILE_SIZE": None, "MAX_CONTENT_LENGTH": None}),
        (
            "signed URLs",
            "error",
            {"HASHFS_SERVE_FILES": "signed", "HASHFS_PATH_PREFIX": "/files"},
        ),
        ("resumable uploads", "warning", {"HASHFS_UPLOADS_PATH": "/uploads"}),
        ("algorithm", "warning", {"HASHFS_ALGORITHM": "md5"}),
        ("algorithm", "warning", {"HASHFS_ALGORITHM": "sha1"}),
        ("references", "note", {}),
    ],
)
def test_settings_that_bite(tmp_path: Path, check: str, level: str, config: dict[str, Any]) -> None:
    assert found(tmp_path, **config)[check].level == level


def test_settings_in_order(tmp_path: Path) -> None:
    config = {
        "HASHFS_ROOT_FOLDER": str(tmp_path),
        "HASHFS_SERVE_FILES": "signed",
        "HASHFS_PATH_PREFIX": "/files",
        "HASHFS_UPLOADS_PATH": "/uploads",
        "SECRET_KEY": "secret",
        **ROOM,
    }
    site = Site("flask", config)
    site.fs.references(list)
    site.fs.before_upload(print)
    levels = {each.check: each.level for each in site.call(site.fs.diagnose)}
    for check in ("upload limit", "signed URLs", "resumable uploads", "algorithm", "references"):
        assert levels[check] == "ok"


def test_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert found("files")["root setting"].level == "warning"
    assert found(tmp_path)["root setting"].level == "ok"


def test_a_limit_of_open_files(tmp_path: Path) -> None:
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, old[1]))
    try:
        assert found(tmp_path)["open files"].level == "warning"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)


@pytest.mark.parametrize(
    ("check", "config"),
    [
        ("layout", {"HASHFS_DEPTH": 2}),
        ("layout", {"HASHFS_WIDTH": 2}),
        ("stored ids", {"HASHFS_ALGORITHM": "sha512"}),
        ("stored ids", {"HASHFS_ALGORITHM": "sha3_256"}),
    ],
)
def test_a_layout_that_does_not_fit_what_is_stored(
    tmp_path: Path, check: str, config: dict[str, Any]
) -> None:
    HashFS(tmp_path).put(b"content", "tar.gz")
    assert found(tmp_path)[check].level == "ok"
    assert found(tmp_path, **config)[check].level == "error"


# -- the object store --------------------------------------------------------------------------


def bucket(handler: type[OddS3]) -> dict[str, Finding]:
    with odd_store(handler) as store:
        return {each.check: each for each in store.backend.diagnose()}


def test_a_bucket_in_memory_is_in_order() -> None:
    findings = found("memory://")
    assert {each.level for each in findings.values()} <= {"ok", "note"}
    for check in ("endpoint", "list", "put", "conditional puts", "delete", "clock"):
        assert findings[check].level == "ok"


def test_a_bucket_whose_uploads_have_nowhere_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found("memory://")["temporary folder"].level == "ok"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    finding = found("memory://")["temporary folder"]
    assert (finding.level, "cannot be used" in finding.message) == ("error", True)


def test_an_app_begins_and_is_diagnosed_where_no_folder_is_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "missing")])
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    finding = found("memory://")["temporary folder"]
    assert (finding.level, "cannot be used" in finding.message) == ("error", True)


def test_an_endpoint_that_is_dead() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        options: dict[str, Any] = {"endpoint": endpoint, **CREDENTIALS}
        options["retry_config"] = {"max_retries": 0}
        findings = found("s3://bucket", HASHFS_STORE_OPTIONS=options)
    assert findings["endpoint"].level == "error"
    assert "put" not in findings


@pytest.fixture
def without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("without_credentials")
def test_credentials_that_are_missing() -> None:
    options: dict[str, Any] = {"endpoint": "http://127.0.0.1:9", "retry_config": {"max_retries": 0}}
    options["metadata_endpoint"] = options["endpoint"]  # where the machine would tell its role
    findings = found("s3://bucket", HASHFS_STORE_OPTIONS=options)
    assert findings["credentials"].level == "error"
    assert not {"endpoint", "put"} & set(findings)


@pytest.mark.slow
@pytest.mark.usefixtures("without_credentials")
def test_where_the_credentials_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(**options: Any) -> str:
        with odd_endpoint(OddS3) as endpoint:
            own = {"endpoint": endpoint, "region": "us-east-1", **options}
            return found("s3://bucket", HASHFS_STORE_OPTIONS=own)["credentials"].message

    assert told(**CREDENTIALS) == "found in HASHFS_STORE_OPTIONS"
    upper = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert told(**upper) == "found in HASHFS_STORE_OPTIONS"
    for yes in (True, "true", "Yes", "on", "y", "1"):
        assert told(skip_signature=yes) == "not used, since skip_signature is set"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert told() == "found in the environment, or by the machine's role"
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert told(**CREDENTIALS) == "not used, since skip_signature is set"
    assert found("memory://")["credentials"].message == "not needed"


@pytest.mark.slow
def test_an_endpoint_that_no_network_leads_to(tmp_path: Path) -> None:
    alone = ["unshare", "--net", "--map-root-user"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, "true"], capture_output=True).returncode
    ):
        pytest.skip("a process cannot be given a network of its own here")
    code = """
from flask import Flask
from flask_hashfs import FlaskHashFS
app = Flask("x")
app.config["HASHFS_ROOT_FOLDER"] = "s3://bucket"
keys = {"access_key_id": "key", "secret_access_key": "secret", "region": "x"}
app.config["HASHFS_STORE_OPTIONS"] = {"endpoint": "http://192.0.2.1:9000", **keys}
fs = FlaskHashFS(app)
with app.app_context():
    for each in fs.diagnose():
        print(each.check, each.level, sep=": ")
"""
    done = subprocess.run(
        [*alone, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert "endpoint: error" in lines
    assert not {"put: ok", "list: ok", "layout: error"} & set(lines)


@pytest.mark.slow
def test_a_bucket_that_is_too_slow_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "WITHIN", 1.0)
    monkeypatch.setattr(diagnosis, "REQUEST_WITHIN", 1.0)
    ended = threading.Event()

    class Hanging(OddS3):
        def do_PUT(self) -> None:
            ended.wait(60)

        def listing(self, query: dict[str, list[str]]) -> bytes:
            ended.wait(60)
            return page([])

    with odd_store(Hanging) as store:
        try:
            findings = {each.check: each for each in store.backend.diagnose()}
        finally:
            ended.set()
    assert findings["endpoint"].level == "ok"
    assert findings["list"].level == "error"
    assert findings["time limit"].level == "error"
    assert not {"quarantine", "put"} & set(findings)


@pytest.mark.slow
def test_a_bucket_without_tls_that_replaces_and_keeps_what_is_deleted() -> None:
    findings = bucket(OddS3)  # takes any put, dates all of it in January, deletes nothing
    assert findings["TLS"].level == "warning"
    assert findings["conditional puts"].level == "warning"
    assert findings["clock"].level == "error"
    assert findings["delete"].level == "error"


@pytest.mark.slow
def test_a_bucket_that_refuses() -> None:
    class Refusing(OddS3):
        written = (403, b"")

        def listing(self, query: dict[str, list[str]]) -> bytes:
            return b"no listing"

    findings = bucket(Refusing)
    assert findings["put"].level == "error"
    assert findings["list"].level == "error"

    class Closed(OddS3):
        def do_HEAD(self) -> None:
            self._send(403, b"")

    assert bucket(Closed)["endpoint"].level == "error"


@pytest.mark.slow
def test_what_is_left_over_in_a_bucket() -> None:
    class LeftOver(OddS3):
        def listing(self, query: dict[str, list[str]]) -> bytes:
            folder = query.get("prefix", [""])[0]
            return page([f"{folder}x"])

    findings = bucket(LeftOver)
    for check in ("renewals", "interrupted prunes", "unfinished uploads", "quarantine"):
        assert findings[check].message.startswith("1, 5 bytes, the oldest of ")


# -- the command -------------------------------------------------------------------------------


class Info:
    """What click's commands of both frameworks are given."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def load_app(self) -> Any:
        """Return the app."""
        return self.app


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("root", "code"), [("root", 0), ("file", 1)])
def test_the_command_ends_with_1_where_something_does_not_work(
    framework: str, tmp_path: Path, root: str, code: int
) -> None:
    (tmp_path / "file").touch()
    app = Site(framework, {"HASHFS_ROOT_FOLDER": str(tmp_path / root), **ROOM}).app
    command = app.cli.commands["hashfs"]
    run = make_runner().invoke(command, ["doctor"], obj=Info(app))
    assert run.exit_code == code
    assert " root: " in run.stdout
    run = make_runner().invoke(command, ["doctor", "--json"], obj=Info(app))
    assert run.exit_code == code
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert all(line.keys() == {"check", "level", "message", "remedy"} for line in lines)
    assert {line["level"] for line in lines} <= {"ok", "note", "warning", "error"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_command_tells_the_same_as_json(framework: str, tmp_path: Path) -> None:
    site = Site(framework, {"HASHFS_ROOT_FOLDER": str(tmp_path / "root")})
    command = site.app.cli.commands["hashfs"]
    run = make_runner().invoke(command, ["doctor", "--json"], obj=Info(site.app))
    told = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["check"] for each in told] == [each.check for each in site.call(site.fs.diagnose)]
    for each in told:
        assert set(each) == {"check", "level", "message", "remedy"}
        assert each["level"] in ("ok", "note", "warning", "error")
