"""Verify, prune and the sweep of left-overs: what they find, what they spare, what they survive."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from flask import Flask
from local_stores import backend_of, open_files
from quart import Quart, current_app
from schedules import stage

from flask_hashfs import ConfigError, FlaskHashFS, HashAddress, HashFS, QuartHashFS
from flask_hashfs._local.listing import contents
from flask_hashfs._storage.backend import Backend
from flask_hashfs.testing.store_contract import id_of

DAY = timedelta(hours=24)
NOW = timedelta(0)


@pytest.fixture
def store(tmp_path: Path) -> HashFS:
    return HashFS(tmp_path / "root", fsync=False)


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask(__name__)
    app.config["HASHFS_ROOT_FOLDER"] = tmp_path / "root"
    return app


@pytest.fixture
def fs(app: Flask) -> Iterator[FlaskHashFS]:
    fs = FlaskHashFS(app)
    with app.app_context():
        yield fs


def age(path: str | os.PathLike[str], by: timedelta = 2 * DAY) -> None:
    then = time.time() - by.total_seconds()
    os.utime(path, (then, then))


def put_old(store: HashFS, data: bytes, extension: str | None = None) -> HashAddress:
    address = store.put(data, extension)
    age(address.abspath)
    return address


def read(store: HashFS, file: Any) -> bytes:
    with store.open(file) as stream:
        data: bytes = stream.read()
        return data


def damage(path: str) -> None:
    """Change the bytes of a file, but neither its size nor its date."""
    state = os.stat(path)
    with open(path, "r+b") as file:
        data = file.read()
        file.seek(0)
        file.write(bytes([data[0] ^ 1]) + data[1:])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def everything(store: HashFS) -> list[str]:
    """Every file and folder below the root, hidden ones too."""
    root = Path(store.root)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def hidden(store: HashFS) -> list[str]:
    root = Path(store.root)
    return sorted(path.relative_to(root).as_posix() for path in root.glob(".hashfs/**/*"))


# -- prune -------------------------------------------------------------------------------------


def test_prune_deletes_what_is_neither_live_nor_young(store: HashFS) -> None:
    kept, dead = put_old(store, b"kept"), put_old(store, b"dead", "txt")
    young = store.put(b"young")
    assert store.prune([kept]) == [dead.id]
    assert {address.id for address in map(store.get, store.files()) if address} == {
        kept.id,
        young.id,
    }
    assert not hidden(store)
    assert not Path(dead.abspath).parent.exists()


def test_prune_makes_its_hidden_folder_once(store: HashFS, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    mkdir = os.mkdir
    monkeypatch.setattr(os, "mkdir", lambda path, *mode: (made.append(path), mkdir(path, *mode))[1])
    for number in range(5):
        put_old(store, b"%d" % number)
    made.clear()
    assert len(store.prune(allow_empty=True)) == 5
    assert (
        made.count(os.path.join(store.root, ".hashfs", "aside")) == 2
    )  # in vain, then with its parent
    assert everything(store) == []
    assert store.prune(allow_empty=True) == []
    assert not hidden(store)


def test_prune_deletes_all_names_of_a_content(store: HashFS) -> None:
    put_old(store, b"dead", "txt")
    put_old(store, b"dead", "bin")
    put_old(store, b"dead")
    put_old(store, b"kept")
    assert store.prune([id_of(b"kept")]) == [id_of(b"dead")]
    assert store.count() == 1


def test_one_young_name_keeps_them_all(store: HashFS) -> None:
    """Where links are refused, each name is a file with a date of its own."""
    old = put_old(store, b"dead", "txt")
    copy = Path(store.idpath(old.id) + ".bin")
    copy.write_bytes(b"dead")
    assert store.prune(allow_empty=True) == []
    assert store.count() == 2
    age(copy)
    assert store.prune(allow_empty=True) == [old.id]
    assert everything(store) == []


def test_a_put_of_existing_content_renews_its_age(store: HashFS) -> None:
    old = put_old(store, b"again")
    assert store.put(b"again").is_duplicate
    assert store.prune(allow_empty=True) == []
    assert store.exists(old.id)


def test_looking_and_reading_and_verifying_do_not_renew_the_age(store: HashFS) -> None:
    old = put_old(store, b"old")
    assert read(store, old) == b"old"
    assert list(store.verify()) == []
    assert store.prune(allow_empty=True) == [old.id]


@pytest.mark.parametrize(
    "form",
    [
        lambda address: address,
        lambda address: address.id,
        lambda address: address.relpath,
        lambda address: address.abspath,
        lambda address: Path(address.abspath),
        lambda address: Path(address.relpath),
        lambda address: os.path.join("x", "..", address.relpath),
        lambda address: address.id[:2] + "/" + address.id[2:] + ".txt",  # of another layout
        lambda address: address.relpath.removesuffix(".txt") + ".png",  # of another name
    ],
)
def test_live_is_every_form_of_a_look_up(store: HashFS, form: Callable[..., Any]) -> None:
    kept, dead = put_old(store, b"kept", "txt"), put_old(store, b"dead", "txt")
    assert store.prune(form(address) for address in [kept]) == [dead.id]
    assert store.exists(kept)


def test_live_are_paths_through_a_link_to_the_root(tmp_path: Path, store: HashFS) -> None:
    kept = put_old(store, b"kept")
    (tmp_path / "alias").symlink_to(store.root)
    assert store.prune([tmp_path / "alias" / kept.relpath]) == []


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (3, TypeError),
        (b"a" * 64, TypeError),
        ("", ValueError),
        ("a" * 63, ValueError),
        ("a" * 65, ValueError),
        ("A" * 64, ValueError),
        ("readme.txt", ValueError),
        ("../" + "a" * 64, ValueError),
        ("a\0b", ValueError),
        ("/etc/passwd", ValueError),
    ],
)
def test_an_item_that_is_no_address_is_an_error_before_anything_is_deleted(
    store: HashFS, item: Any, error: type[Exception]
) -> None:
    kept, dead = put_old(store, b"kept"), put_old(store, b"dead")
    Path(store.root, "readme.txt").write_text("no content")
    with pytest.raises(error, match="item"):
        store.prune([kept, item])
    assert store.exists(kept)
    assert store.exists(dead)


def test_none_refers_to_nothing(store: HashFS) -> None:
    kept, dead = put_old(store, b"kept"), put_old(store, b"dead")
    assert store.prune([None, kept, None]) == [dead.id]  # type: ignore[list-item]
    with pytest.raises(ValueError, match="allow_empty"):
        store.prune([None])  # type: ignore[list-item]


def test_an_id_that_is_not_stored_may_be_live(store: HashFS) -> None:
    dead = put_old(store, b"dead")
    assert store.prune(["a" * 64]) == [dead.id]


@pytest.mark.parametrize("keep", ["a" * 64, b"a" * 64, None, 3, HashAddress("a" * 64, "a", "/a")])
def test_keep_is_a_collection(store: HashFS, keep: Any) -> None:
    put_old(store, b"dead")
    with pytest.raises(TypeError, match="iterable of addresses"):
        store.prune(keep)
    assert store.count() == 1


def test_an_empty_live_set_is_refused(store: HashFS) -> None:
    dead = put_old(store, b"dead")
    with pytest.raises(ValueError, match="allow_empty"):
        store.prune()
    with pytest.raises(ValueError, match="allow_empty"):
        store.prune(iter(()), dry_run=True)
    assert store.exists(dead)
    assert store.prune(allow_empty=True) == [dead.id]


@pytest.mark.parametrize(
    ("older_than", "error"), [(3600, TypeError), ("24h", TypeError), (-DAY, ValueError)]
)
def test_older_than_is_a_duration(store: HashFS, older_than: Any, error: type[Exception]) -> None:
    put_old(store, b"dead")
    with pytest.raises(error, match="older_than"):
        store.prune(allow_empty=True, older_than=older_than)
    assert store.count() == 1


def test_older_than_zero_takes_what_has_just_been_put(store: HashFS) -> None:
    for number in range(50):
        address = store.put(b"%d" % number)
        assert store.prune(allow_empty=True, older_than=NOW) == [address.id]


def test_a_dry_run_deletes_nothing(store: HashFS) -> None:
    kept, dead = put_old(store, b"kept"), put_old(store, b"dead")
    before = everything(store)
    assert store.prune([kept], dry_run=True) == [dead.id]
    assert everything(store) == before


def test_what_is_no_content_is_left_alone(store: HashFS) -> None:
    put_old(store, b"dead")
    root = Path(store.root)
    (root / "photos").mkdir()
    (root / "empty").mkdir()
    strangers = [root / "readme.txt", root / "photos" / ("a" * 64), root / ("a" * 64)]
    for path in strangers:
        path.write_text("keep me")
        age(path)
    os.symlink("readme.txt", store.idpath("b" * 64).replace("/b/b/b/b/", "/"))
    os.mkfifo(root / ("c" * 64))
    assert len(store.prune(allow_empty=True)) == 1
    assert all(path.exists() for path in strangers)
    assert (root / "empty").is_dir()


def test_a_tree_without_folders_is_pruned(tmp_path: Path) -> None:
    store = HashFS(tmp_path / "flat", depth=0)
    dead = put_old(store, b"dead", "tar.gz")
    assert store.prune(allow_empty=True) == [dead.id]
    assert everything(store) == []


def test_a_missing_root_holds_nothing(store: HashFS) -> None:
    assert store.prune(allow_empty=True) == []
    assert list(store.verify()) == []
    assert not Path(store.root).exists()


def test_folders_that_a_killed_put_has_left_are_swept(store: HashFS) -> None:
    store.put(b"x")
    Path(store.idpath("a" * 64)).parent.mkdir(parents=True)
    store.prune([id_of(b"x")])
    assert not Path(store.root, "a").exists()


def test_a_long_written_upload_is_young_when_it_is_put(store: HashFS) -> None:
    with store.writer() as writer:
        writer.write(bytes(1024 * 1024))
        writer.finish()
        assert writer.spilled
        os.utime(writer.spilled.fd, (0, 0))
        store.commit(writer)
    assert store.prune(allow_empty=True) == []


# -- references --------------------------------------------------------------------------------


def test_references_tell_what_is_live(app: Flask, fs: FlaskHashFS) -> None:
    kept, first, second = (put_old(fs.client, each) for each in (b"kept", b"first", b"second"))
    dead = put_old(fs.client, b"dead")

    @fs.references
    def in_the_database() -> list[str]:
        return [first.id]

    @fs.references
    def elsewhere() -> Iterator[HashAddress]:
        yield second

    assert in_the_database() == [first.id]
    assert fs.prune([kept.relpath]) == [dead.id]
    assert fs.count() == 3


def test_references_that_yield_nothing_are_an_empty_live_set(fs: FlaskHashFS) -> None:
    dead = put_old(fs.client, b"dead")
    fs.references(list)
    with pytest.raises(ValueError, match="allow_empty"):
        fs.prune()
    assert fs.prune(allow_empty=True) == [dead.id]


def test_a_failing_reference_function_deletes_nothing(fs: FlaskHashFS) -> None:
    put_old(fs.client, b"dead")

    @fs.references
    def broken() -> Iterator[str]:
        yield "a" * 64
        raise ConnectionError("no database")

    with pytest.raises(ConnectionError):
        fs.prune([])
    assert fs.count() == 1


class Rows:
    def __call__(self) -> list[Any]:
        return ["a" * 64, "typo"]


@pytest.mark.parametrize(
    ("function", "name"), [(Rows(), "Rows object"), (partial(list, ["typo"]), "builtins.list")]
)
def test_an_error_names_the_references_whatever_can_be_called(
    fs: FlaskHashFS, function: Any, name: str
) -> None:
    old = put_old(fs.client, b"old")
    fs.references(function)
    with pytest.raises(ValueError, match=f"{name}.*'typo'"):
        fs.prune()
    assert fs.exists(old)


def test_references_takes_callables_only(fs: FlaskHashFS) -> None:
    with pytest.raises(TypeError, match="callable"):
        fs.references(["a" * 64])  # type: ignore[type-var]


def test_a_pickled_extension_has_no_references(fs: FlaskHashFS) -> None:
    fs.references(list)
    assert fs.has_references
    assert not pickle.loads(pickle.dumps(fs)).has_references


def test_files_put_while_the_references_are_asked_are_young(fs: FlaskHashFS) -> None:
    put_old(fs.client, b"dead")

    @fs.references
    def slow() -> Iterator[str]:
        yield "a" * 64
        time.sleep(0.05)
        fs.put(b"new")

    assert fs.prune(older_than=timedelta(milliseconds=20)) == [id_of(b"dead")]


# -- verify ------------------------------------------------------------------------------------


def test_verify_finds_every_damaged_file(store: HashFS) -> None:
    addresses = [store.put(b"%d" % number * 1000, "bin") for number in range(200)]
    big = store.put(random.Random(1).randbytes(5_000_000))
    assert list(store.verify()) == []
    for address in (*addresses[::20], big):
        damage(address.abspath)
    assert set(store.verify()) == {*addresses[::20], big}


def test_verify_names_what_is_truncated_or_empty(store: HashFS) -> None:
    one, two = store.put(b"truncated"), store.put(b"emptied")
    os.truncate(one.abspath, 3)
    os.truncate(two.abspath, 0)
    assert {address.id for address in store.verify()} == {one.id, two.id}


def test_verify_passes_over_what_is_no_content(store: HashFS) -> None:
    store.put(b"x")
    Path(store.root, "readme.txt").write_text("x")
    Path(store.root, "d" * 64).write_text("in the wrong folder")
    assert list(store.verify()) == []


def test_quarantine_makes_room_for_the_next_put(fs: FlaskHashFS) -> None:
    address = fs.put(b"precious", "txt")
    damage(address.abspath)
    [found] = fs.verify(quarantine=True)
    assert found == address
    assert fs.get(address) is None
    kept = Path(fs.root, ".hashfs", "quarantine", address.relpath)
    assert kept.read_bytes() == b"qrecious"
    again = fs.put(b"precious", "txt")
    assert not again.is_duplicate
    assert read(fs.client, again) == b"precious"
    assert list(fs.verify(quarantine=True)) == []
    assert fs.count() == 1
    assert kept.exists()


def test_quarantine_never_overwrites(store: HashFS) -> None:
    for mark in range(3):
        address = store.put(b"precious")
        Path(address.abspath).write_bytes(b"%d" % mark)
        assert len(list(store.verify(quarantine=True))) == 1
    relpath = store.relpath(store.idpath(id_of(b"precious")))
    kept = Path(store.root, ".hashfs", "quarantine", relpath)
    assert [path.read_bytes() for path in sorted(kept.parent.iterdir())] == [b"0", b"1", b"2"]


def test_quarantine_takes_every_name_of_a_damaged_file(store: HashFS) -> None:
    one, two = store.put(b"precious", "a"), store.put(b"precious", "b")
    damage(one.abspath)
    assert {each.relpath for each in store.verify(quarantine=True)} == {one.relpath, two.relpath}
    assert store.count() == 0


def under_another_algorithm(store: HashFS, count: int) -> HashFS:
    """Fill a store, and open it with another algorithm whose ids are as long."""
    for number in range(count):
        store.put(b"%d" % number)
    return HashFS(store.root, algorithm="blake2s", fsync=False)


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, 21, 100])
def test_quarantine_moves_nothing_where_no_file_at_all_is_whole(store: HashFS, count: int) -> None:
    """As after a change of HASHFS_ALGORITHM to another one whose ids are as long."""
    wrong, before = under_another_algorithm(store, count), open_files()
    found = wrong.verify(quarantine=True)
    with pytest.raises(ConfigError, match=r"blake2s.*force"):
        next(found)
    assert open_files() == before
    assert not hidden(store)
    assert store.count() == count
    assert len(list(wrong.verify())) == count
    assert len(list(wrong.verify(quarantine=True, force=True))) == count
    assert store.count() == 0


def test_quarantine_takes_all_of_fewer_than_20_files(store: HashFS) -> None:
    wrong, before = under_another_algorithm(store, 19), open_files()
    found = wrong.verify(quarantine=True)
    next(found)
    found.close()
    assert len(list(wrong.verify(quarantine=True))) == 18
    assert open_files() == before
    assert store.count() == 0


def test_one_whole_file_is_enough_to_trust_the_settings(store: HashFS) -> None:
    for number in range(100):
        damage(store.put(b"%d" % number).abspath)
    first = next(store.files())
    Path(first).write_bytes(
        next(b"%d" % n for n in range(100) if store.idpath(id_of(b"%d" % n)) == first)
    )
    assert len(list(store.verify(quarantine=True))) == 99
    assert list(store.files()) == [first]


def test_a_whole_file_that_takes_long_to_hash_is_waited_for(
    store: HashFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        damage(store.put(b"%d" % number).abspath)
    large = store.put(bytes(16_000_000))

    def large_first(backend: Backend) -> Iterator[tuple[str, str]]:
        return iter(sorted(contents(backend), key=lambda found: found[1] != large.abspath))

    monkeypatch.setattr("flask_hashfs._local.verify.contents", large_first)
    assert len(list(store.verify(quarantine=True))) == 40
    assert list(store.files()) == [large.abspath]


def test_verify_may_be_given_up(store: HashFS) -> None:
    for number in range(100):
        damage(store.put(b"%d" % number).abspath)
    found = store.verify()
    next(found)
    found.close()
    assert len(list(store.verify())) == 100


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs /proc as root")
def test_a_verify_that_cannot_read_says_so(store: HashFS) -> None:
    address = store.put(b"x")
    os.unlink(address.abspath)
    os.symlink("/proc/self/mem", address.abspath)  # a link is no content
    assert list(store.verify()) == []


# -- left-overs --------------------------------------------------------------------------------


@pytest.mark.parametrize("keeper", ["verify", "prune"])
def test_old_temporary_files_are_swept(store: HashFS, keeper: str) -> None:
    store.put(b"x")
    folder = Path(store.root, ".hashfs", "tmp")
    folder.mkdir(parents=True)
    old, young = folder / "old", folder / "young"
    for path, minutes in ((old, 61), (young, 59)):
        path.write_bytes(b"partial")
        age(path, timedelta(minutes=minutes))
    run = {"verify": lambda: list(store.verify()), "prune": lambda: store.prune(["a" * 64])}
    run[keeper]()
    assert not old.exists()
    assert young.exists()
    age(young)
    run[keeper]()
    assert not (folder.parent).exists()


def interrupted(store: HashFS, address: HashAddress) -> None:
    """Leave what a prune leaves that is killed after it has set a content aside."""
    from flask_hashfs._local.set_aside import SetAside

    aside = SetAside.make(store.backend, address.id)
    for path in backend_of(store)._paths_of(address.id):
        assert aside.move_in(path)


@pytest.mark.parametrize(
    "look",
    [
        lambda store, address: store.get(address.id) == address,
        lambda store, address: store.get(address) == address,
        lambda store, address: store.exists(address.relpath),
        lambda store, address: store.exists(Path(address.abspath)),
        lambda store, address: address.id in store,
        lambda store, address: read(store, address.relpath) == b"content",
        lambda store, address: store.put(b"content", "txt").is_duplicate,
        lambda store, address: store.put(b"content").is_duplicate,
    ],
)
def test_an_interrupted_prune_hides_nothing(store: HashFS, look: Callable[..., bool]) -> None:
    address = store.put(b"content", "txt")
    interrupted(store, address)
    assert look(store, address)
    assert Path(address.abspath).read_bytes() == b"content"
    assert not hidden(store)


def test_what_an_interrupted_prune_has_set_aside_is_put_back(store: HashFS) -> None:
    kept, dead = put_old(store, b"kept", "txt"), put_old(store, b"dead")
    interrupted(store, kept)
    interrupted(store, dead)
    assert store.prune([kept]) == [dead.id]
    assert store.exists(kept)
    assert not hidden(store)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_stands_in_the_way_of_putting_back_loses_nothing(
    store: HashFS, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    address = store.put(b"precious", "txt")
    interrupted(store, address)
    make(Path(address.abspath))
    assert store.get(address) is None
    assert store.prune(allow_empty=True) == []
    assert f"no file stands at {address.abspath}" in caplog.text
    path = Path(address.abspath)
    path.unlink() if path.is_symlink() else path.rmdir()
    assert read(store, address) == b"precious"


def test_deleted_content_does_not_come_back_from_an_interrupted_prune(store: HashFS) -> None:
    one, two = store.put(b"content", "txt"), store.put(b"content", "bin")
    interrupted(store, one)
    store.delete(two.relpath)
    assert store.exists(one.relpath)
    assert not store.exists(two.relpath)
    interrupted(store, one)
    store.delete(one.id)
    assert not store.exists(one.id)
    assert everything(store) == []


def test_a_younger_file_is_not_replaced_by_an_older_one(store: HashFS) -> None:
    address = put_old(store, b"content")
    interrupted(store, address)
    os.makedirs(os.path.dirname(address.abspath), exist_ok=True)
    Path(address.abspath).write_bytes(b"content")
    assert store.prune(allow_empty=True) == []
    assert store.exists(address)


def test_a_file_takes_over_the_age_of_a_younger_one(store: HashFS) -> None:
    address = store.put(b"content")
    interrupted(store, address)
    os.makedirs(os.path.dirname(address.abspath), exist_ok=True)
    Path(address.abspath).write_bytes(b"content")
    age(address.abspath)
    assert store.prune(allow_empty=True) == []
    assert store.exists(address)


# -- races -------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["linking", "links refused"])
def racing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> HashFS:
    if request.param:

        def refuse(*args: Any, **kwargs: Any) -> None:
            if os.path.lexists(args[1]):
                raise FileExistsError(17, "File exists", args[1])
            os.lstat(args[0])
            os.lstat(os.path.dirname(args[1]))
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr("flask_hashfs._storage.spool._UNNAMED", 0)
    return HashFS(tmp_path / "root", fsync=False)


SEEDS = range(2000 if os.environ.get("HASHFS_TEST_LONG") else 40)


def clear(store: HashFS) -> None:
    store.delete(id_of(b"content"))
    assert everything(store) == []


@pytest.mark.slow
@pytest.mark.parametrize("before", [[None], ["txt"], [None, "txt"]])
def test_no_order_of_steps_loses_what_a_put_returned(
    racing: HashFS, before: list[str | None]
) -> None:
    store = racing

    def prune() -> None:
        store.prune(allow_empty=True)

    def look() -> None:
        store.get(id_of(b"content"))

    def put(extension: str | None) -> None:
        address = store.put(b"content", extension)
        for name in (address, address.id, address.relpath):
            assert store.exists(name)
        with store.open(address.relpath) as file:
            assert file.read() == b"content"

    with stage() as scene:
        for seed in SEEDS:
            for extension in before:
                put_old(store, b"content", extension)
            scene.play(
                seed,
                lambda: put(None),
                lambda: put("txt"),
                prune,
                prune,
                look,
            )
            assert store.exists(store.idpath(id_of(b"content")))
            assert store.exists(store.idpath(id_of(b"content")) + ".txt")
            assert store.prune(allow_empty=True) == []
            assert not hidden(store)
            clear(store)


@pytest.mark.slow
def test_no_order_of_steps_undoes_a_delete(racing: HashFS) -> None:
    store = racing

    def delete() -> None:
        store.delete(id_of(b"content"))

    def put_and_delete() -> None:
        store.put(b"content", "txt")
        store.delete(id_of(b"content"))

    with stage() as scene:
        for seed in SEEDS:
            put_old(store, b"content")
            scene.play(
                seed,
                put_and_delete,
                lambda: store.prune(allow_empty=True),
                lambda: store.get(id_of(b"content")),
                delete,
            )
            assert everything(store) == []


@pytest.mark.slow
def test_no_order_of_steps_loses_healed_content(store: HashFS) -> None:
    def put() -> None:
        address = store.put(b"content")
        with store.open(address) as file:
            assert file.read() == b"content"

    with stage() as scene:
        for seed in SEEDS:
            Path(put_old(store, b"content").abspath).write_bytes(b"cut")
            scene.play(
                seed,
                put,
                lambda: list(store.verify(quarantine=True)),
                lambda: store.get(id_of(b"content")),
            )
            assert Path(store.idpath(id_of(b"content"))).read_bytes() == b"content"
            shutil.rmtree(Path(store.root, ".hashfs"), ignore_errors=True)
            clear(store)


# -- under Quart -------------------------------------------------------------------------------


@pytest.fixture
def quart_fs(tmp_path: Path) -> QuartHashFS:
    app = Quart(__name__)
    app.config.update(HASHFS_ROOT_FOLDER=tmp_path / "root", HASHFS_FSYNC=False)
    fs = QuartHashFS(app)
    fs.app = app
    return fs


def store_of(fs: QuartHashFS) -> HashFS:
    assert fs.app is not None
    store: HashFS = fs.app.extensions["hashfs"]["client"]
    return store


@pytest.mark.anyio
class TestQuart:
    async def test_prune_asks_every_kind_of_reference_function(self, quart_fs: QuartHashFS) -> None:
        fs, store = quart_fs, store_of(quart_fs)
        put = partial(put_old, store)
        kept = [await to_thread.run_sync(put, b"%d" % number) for number in range(5)]
        dead = await to_thread.run_sync(put, b"dead")

        @fs.references
        def plain() -> list[str]:
            with open(os.devnull):  # may block
                return [kept[1].id]

        @fs.references
        def generator() -> Iterator[HashAddress]:
            assert current_app.name
            yield kept[2]

        @fs.references
        async def coroutine() -> list[str]:
            await asyncio.sleep(0)
            return [kept[3].relpath]

        @fs.references
        async def stream() -> AsyncIterator[str]:
            for _ in range(1000):
                yield kept[4].abspath

        assert fs.app is not None
        async with fs.app.app_context():
            assert await fs.prune([kept[0]], dry_run=True) == [dead.id]
            assert await fs.prune([kept[0]]) == [dead.id]
            assert await fs.count() == 5

    async def test_prune_takes_an_asynchronous_keep(self, quart_fs: QuartHashFS) -> None:
        async def keep() -> AsyncIterator[str]:
            yield "a" * 64

        dead = await to_thread.run_sync(put_old, store_of(quart_fs), b"dead")
        assert quart_fs.app is not None
        async with quart_fs.app.app_context():
            with pytest.raises(ValueError, match="allow_empty"):
                await quart_fs.prune()
            assert await quart_fs.prune(keep()) == [dead.id]  # type: ignore[arg-type]

    @pytest.mark.slow
    async def test_verify_and_quarantine(self, quart_fs: QuartHashFS) -> None:
        store = store_of(quart_fs)
        addresses = [await to_thread.run_sync(store.put, b"%d" % number) for number in range(100)]
        await to_thread.run_sync(damage, addresses[7].abspath)
        assert quart_fs.app is not None
        async with quart_fs.app.app_context():
            assert [each async for each in quart_fs.verify()] == [addresses[7]]
            assert [each async for each in quart_fs.verify(quarantine=True)] == [addresses[7]]
            assert [each async for each in quart_fs.verify()] == []
            assert await quart_fs.count() == 99

    async def test_verify_goes_on_by_force_where_no_file_is_whole(
        self, quart_fs: QuartHashFS
    ) -> None:
        wrong = await to_thread.run_sync(under_another_algorithm, store_of(quart_fs), 20)
        assert quart_fs.app is not None
        quart_fs.app.extensions["hashfs"]["client"] = wrong
        async with quart_fs.app.app_context():
            with pytest.raises(ConfigError, match="force"):
                [each async for each in quart_fs.verify(quarantine=True)]
            assert len([each async for each in quart_fs.verify(quarantine=True, force=True)]) == 20

    async def test_a_cancelled_verify_leaves_no_thread(self, quart_fs: QuartHashFS) -> None:
        store = store_of(quart_fs)
        for number in range(100):
            address = await to_thread.run_sync(store.put, b"%d" % number)
            await to_thread.run_sync(damage, address.abspath)
        found = asyncio.Event()

        async def verify() -> None:
            async with aclosing(quart_fs.verify()) as damaged:
                async for _ in damaged:
                    found.set()
                    await asyncio.Event().wait()

        assert quart_fs.app is not None
        async with quart_fs.app.app_context():
            task = asyncio.create_task(verify())
            await found.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not [each for each in threading.enumerate() if each.name == "hashfs-verify"]
