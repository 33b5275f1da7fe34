"""``flask hashfs`` and ``quart hashfs``: what they print, how they end, and that both agree."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click.testing
import pytest
from flask import Flask
from flask.cli import ScriptInfo
from permissions import permissions_hold
from quart import Quart
from quart.cli import ScriptInfo as QuartScriptInfo
from runners import make_runner

from flask_hashfs import FlaskHashFS, HashFS, QuartHashFS
from flask_hashfs._app.cli import hashfs as command
from flask_hashfs._storage import posix
from flask_hashfs._storage.pending import Record, new_id
from flask_hashfs.testing.store_contract import id_of

pytestmark = pytest.mark.decided_once

APP = """
from {framework} import {App}
from flask_hashfs import {App}HashFS

app = {App}(__name__)
app.config.update(HASHFS_ROOT_FOLDER="root", HASHFS_AVATARS_ROOT_FOLDER="avatars")
fs, avatars = {App}HashFS(app), {App}HashFS(app, name="avatars")

@avatars.references
{define} in_use():
    return ["{live}"]
"""

Run = Callable[..., click.testing.Result]


@pytest.fixture(params=["flask", "quart"])
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app(framework: str, tmp_path: Path) -> Any:
    app: Any = Flask("example") if framework == "flask" else Quart("example")
    app.config.update(HASHFS_ROOT_FOLDER=tmp_path / "root", HASHFS_FSYNC=False)
    return app


@pytest.fixture
def fs(app: Any) -> Any:
    return FlaskHashFS(app) if isinstance(app, Flask) else QuartHashFS(app)


@pytest.fixture
def store(app: Any, fs: Any) -> HashFS:
    store: HashFS = app.extensions["hashfs"]["client"]
    return store


@pytest.fixture
def run(app: Any, framework: str, fs: Any) -> Run:
    kind: Any = ScriptInfo if framework == "flask" else QuartScriptInfo

    def run(*arguments: object, **options: Any) -> click.testing.Result:
        info = kind(create_app=lambda *_: app)
        words = [str(each) for each in arguments]
        return make_runner().invoke(command, words, obj=info, catch_exceptions=False, **options)

    return run


def make_old(path: str) -> None:
    then = time.time() - 2 * 24 * 3600
    os.utime(path, (then, then))


def lines(result: click.testing.Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# -- the real commands -------------------------------------------------------------------------


@pytest.fixture
def shell(framework: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    App = framework.capitalize()
    define = "def" if framework == "flask" else "async def"
    source = APP.format(framework=framework, App=App, define=define, live=id_of(b"live"))
    (tmp_path / "example.py").write_text(source)

    def shell(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", framework, "--app", "example", "hashfs", *arguments]
        options = {"capture_output": True, "text": True, "cwd": tmp_path, **options}
        return subprocess.run(words, **options)

    return shell


@pytest.mark.slow
def test_the_real_commands(shell: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "photo.JPG").write_bytes(b"photo")
    done = shell("put", "photo.JPG", "-", input="from a pipe")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{id_of(b'photo')}  {relpath_of(b'photo', '.JPG')}  photo.JPG",
        f"{id_of(b'from a pipe')}  {relpath_of(b'from a pipe')}  -",
    ]
    store = HashFS(tmp_path / "root")
    address = store.get(id_of(b"photo"))
    assert address is not None
    assert address.relpath.endswith(".JPG")
    Path(address.abspath).write_bytes(b"other")
    done = shell("verify")
    assert (done.returncode, done.stdout) == (1, f"{address.id}  {address.relpath}\n")

    avatars = HashFS(tmp_path / "avatars")
    make_old(avatars.put(b"live").abspath)
    make_old(avatars.put(b"dead").abspath)
    done = shell("--store", "avatars", "prune")
    assert (done.returncode, done.stdout) == (0, id_of(b"dead") + "\n")
    assert avatars.exists(id_of(b"live"))


# -- put ---------------------------------------------------------------------------------------


def relpath_of(data: bytes, suffix: str = "") -> str:
    return HashFS("unused").backend.layout.path_of(id_of(data), suffix)


def test_put_tells_where_each_file_lies_and_what_was_there(
    run: Run, store: HashFS, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    address = store.put(b"old", "txt")
    result = run("put", str(old), str(new), str(tmp_path / "old.txt"))
    assert result.stdout.splitlines()[0] == f"{address.id}  {address.relpath}  {old}"
    assert "1 stored, 2 already there" in result.stderr


def test_verify_says_what_to_do_and_what_it_moved(run: Run, store: HashFS) -> None:
    address = store.put(b"content")
    Path(address.abspath).write_bytes(b"damaged")
    result = run("verify")
    assert "Nothing was moved. Run it with --quarantine" in result.stderr
    result = run("verify", "--quarantine")
    assert f"1 file moved to {store.root}/.hashfs/quarantine" in result.stderr
    assert os.listdir(os.path.join(store.root, ".hashfs", "quarantine"))


def test_the_help_has_all_exit_codes(run: Run) -> None:
    told = " ".join(run("--help").stdout.split())
    for words in ("0 all went well", "1 verify or sync", "2 the command line", "3 it could not"):
        assert words in told


def test_put_stores_folders_and_keeps_extensions(run: Run, store: HashFS, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.tar.gz").write_text("b")
    (folder / "deep" / "no extension. of ours").write_text("c")
    (folder / "link.txt").symlink_to(folder / "a.txt")
    os.mkfifo(folder / "pipe")
    result = run("put", folder, "--json")
    assert result.exit_code == 0
    found = {Path(each["path"]).name: each for each in lines(result)}
    assert set(found) == {"a.txt", "b.tar.gz", "no extension. of ours"}
    assert found["a.txt"]["relpath"].endswith(".txt")
    assert found["b.tar.gz"]["relpath"].endswith(".gz")
    assert found["no extension. of ours"]["relpath"].endswith(id_of(b"c")[-8:])
    assert not any(each["is_duplicate"] for each in found.values())
    assert run("put", folder, "--json").exit_code == 0
    assert store.count() == 3


def test_put_passes_over_the_store_itself(run: Run, store: HashFS, tmp_path: Path) -> None:
    store.put(b"stored")
    (tmp_path / "new").write_text("new")
    assert run("put", tmp_path).exit_code == 0
    assert {address.id for address in map(store.get, store.files()) if address} == {
        id_of(b"stored"),
        id_of(b"new"),
    }


def test_put_reads_the_standard_input(run: Run, store: HashFS) -> None:
    data = b"\0\xff"
    result = run("put", "-", "--extension", "bin", input=data)
    assert result.stdout == f"{id_of(data)}  {relpath_of(data, '.bin')}  -\n"
    assert store.get(id_of(b"\0\xff")).relpath.endswith(".bin")  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", [0, 0o444], ids=oct)
def test_put_reports_a_folder_that_may_not_be_read_and_goes_on(
    run: Run, store: HashFS, tmp_path: Path, mode: int
) -> None:
    for name in ("a", "lost", "z"):
        (tmp_path / "files" / name).mkdir(parents=True)
        (tmp_path / "files" / name / "file").write_text(name)
    lost = tmp_path / "files" / "lost"
    try:
        lost.chmod(mode)
        with permissions_hold():
            result = run("put", tmp_path / "files")
    finally:
        lost.chmod(0o755)
    assert result.exit_code == 1
    assert "lost" in result.stderr
    assert "Permission denied" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stdout.splitlines()) == store.count() == 2


def test_put_reports_what_vanishes_and_goes_on(
    run: Run, store: HashFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "files"
    for name in ("a/one", "a/two", "m/inner/file", "z/file"):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(name)
    put_files = store.put_files

    def put_while_they_vanish(sources: Any) -> Any:
        def vanishing() -> Any:
            for source in sources:
                (files / "a" / "two").unlink(missing_ok=True)
                shutil.rmtree(files / "m", ignore_errors=True)
                yield source

        return put_files(vanishing())

    monkeypatch.setattr(store, "put_files", put_while_they_vanish)
    result = run("put", files)
    assert result.exit_code == 1
    *told, total = result.stderr.splitlines()
    assert {line.partition(": ")[0] for line in told} == {str(files / "a/two"), str(files / "m")}
    assert {each.split("  ")[0] for each in result.stdout.splitlines()} == {
        id_of(b"a/one"),
        id_of(b"z/file"),
    }
    assert total == "2 stored, 0 already there, 2 failed"


@pytest.mark.slow
def test_put_takes_folders_as_deep_as_paths_are_long(
    run: Run, store: HashFS, tmp_path: Path
) -> None:
    deep = Path(tmp_path, *"x" * 1100)
    posix.make_folders(str(deep), 0o755)
    (deep / "file").write_text("deep")
    try:
        assert run("put", tmp_path / "x").exit_code == 0
        assert store.exists(id_of(b"deep"))
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "x"], check=True)


def test_put_goes_on_after_a_file_that_fails(
    app: Any, run: Run, store: HashFS, tmp_path: Path
) -> None:
    store.max_size = 3
    (tmp_path / "large").write_text("large")
    (tmp_path / "ok").write_text("ok")
    result = run("put", tmp_path / "large", tmp_path / "ok")
    assert result.exit_code == 1
    assert "larger than the 3 bytes" in result.stderr
    assert result.stdout.startswith(id_of(b"ok"))
    assert store.count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("fsync", [False, True])
def test_put_of_many_files_is_whole(run: Run, store: HashFS, tmp_path: Path, fsync: bool) -> None:
    store.fsync = fsync
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.bin").write_bytes(b"%d" % (number // 2) * 100)
    (folder / "large.bin").write_bytes(bytes(300_000))
    result = run("put", folder)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 301
    assert store.count() == 151
    assert list(store.corrupted()) == []
    assert not Path(store.root, ".hashfs").exists()
    assert store.fsync == fsync


@pytest.mark.parametrize(
    "arguments",
    [
        ["put"],
        ["put", "no such file"],
        ["put", "-", "--extension", "a/b"],
        ["prune", "--older-than", "soon"],
        ["prune", "--older-than", "-1"],
        ["prune", "--older-than", "1w"],
        ["prune", "--older-than", "9" * 400],
        ["prune", "--keep-from", "no such file"],
        ["--store", "nope", "ls"],
        ["no-such-command"],
    ],
)
def test_a_wrong_command_line_ends_with_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Error" in result.stderr


# -- ls, stats, verify, repair -----------------------------------------------------------------


def test_ls_lists_every_name(run: Run, store: HashFS) -> None:
    one, two = store.put(b"one", "txt"), store.put(b"two")
    Path(store.root, "stranger").write_text("x")
    found = {each["relpath"]: each for each in lines(run("ls", "--json"))}
    assert {path: each["id"] for path, each in found.items()} == {
        one.relpath: one.id,
        two.relpath: two.id,
        "stranger": None,
    }
    assert found[one.relpath]["size"] == 3
    plain = run("ls").stdout.splitlines()
    assert sorted(line.split()[-1] for line in plain) == sorted(found)


def test_uploads_lists_the_resumable_ones_and_sweeps(run: Run, store: HashFS) -> None:
    uploads = store.backend.pending
    ids = [new_id() for _ in range(2)]
    for id in ids:
        with contextlib.closing(uploads.create(id, Record(owner="ada", length=9))) as taken:
            taken.begin(9, True, marked=False, brings=4)
            taken.write(b"four")
    found = {each["id"]: each for each in lines(run("uploads", "--json"))}
    assert found.keys() == set(ids)
    one = found[ids[0]]
    assert (one["offset"], one["length"], one["owner"], one["ended"]) == (4, 9, "ada", False)
    assert ids[0] in run("uploads").stdout
    make_old(os.path.join(store.root, ".hashfs", "uploads", ids[0], "data"))
    result = run("uploads", "--prune")
    assert result.stdout.split()[0] == ids[1]
    assert "1 expired" in result.stderr
    assert not os.path.exists(os.path.join(store.root, ".hashfs", "uploads", ids[0]))


def test_stats_counts(run: Run, store: HashFS) -> None:
    store.put(b"four", "txt")
    store.put(b"four", "bin")
    large = store.put(b"larger")
    make_old(large.abspath)
    Path(store.root, "stranger").write_text("x")
    [numbers] = lines(run("stats", "--json"))
    assert numbers["largest"]["id"] == numbers["oldest"]["id"] == large.id
    counted = {key: value for key, value in numbers.items() if isinstance(value, int)}
    assert counted == {
        "files": 3,
        "contents": 2,
        "bytes": 10,
        "bytes_saved": 4,
        "strangers": 1,
        "left_overs": 0,
        "quarantined": 0,
    }
    assert numbers["root"] == store.root
    assert f"root:         {store.root}" in run("stats").stdout
    assert "files:        3" in run("stats").stdout
    assert "stray files:  1" in run("stats").stdout


def test_verify_ends_with_1_when_it_finds_damage(run: Run, store: HashFS) -> None:
    address = store.put(b"content")
    result = run("verify")
    assert (result.exit_code, result.stdout) == (0, "")
    Path(address.abspath).write_bytes(b"damaged")
    result = run("verify", "--quarantine", "--json")
    assert result.exit_code == 1
    assert lines(result) == [{"id": address.id, "relpath": address.relpath}]
    assert run("verify").exit_code == 0
    assert lines(run("stats", "--json"))[0]["quarantined"] == 1


def test_verify_stops_where_no_file_at_all_is_whole(run: Run, store: HashFS) -> None:
    for number in range(30):
        Path(store.put(b"%d" % number).abspath).write_bytes(b"damaged")
    result = run("verify", "--quarantine")
    assert result.exit_code == 2
    assert "HASHFS_ALGORITHM" in result.stderr
    assert result.stdout == ""
    assert store.count() == 30
    assert run("verify").exit_code == 1
    assert run("verify", "--quarantine", "--force").exit_code == 1
    assert store.count() == 0


def test_repair_moves_files_after_a_change_of_layout(app: Any, run: Run, store: HashFS) -> None:
    flat = HashFS(store.root, depth=1, width=2, fsync=False)
    old = flat.put(b"content", "txt")
    assert store.count() == 1
    [moved] = lines(run("repair", "--json"))
    assert moved["old"] == old.relpath
    address = store.get(id_of(b"content"))
    assert address is not None
    assert moved["new"] == address.relpath
    assert run("repair").stdout == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_verify_that_may_not_read_a_file_ends_with_3(run: Run, store: HashFS) -> None:
    os.chmod(store.put(b"x").abspath, 0)
    result = run("verify")
    assert result.exit_code == 3
    assert "Permission denied" in result.stderr


def test_an_error_of_the_disk_is_a_message(app: Any, run: Run, store: HashFS) -> None:
    Path(store.root).write_text("no folder")
    result = run("put", "-", input="x")
    assert result.exit_code == 3
    assert "Error" in result.stderr


# -- prune -------------------------------------------------------------------------------------


def test_prune_refuses_when_nobody_tells_what_is_in_use(run: Run, store: HashFS) -> None:
    make_old(store.put(b"x").abspath)
    result = run("prune")
    assert result.exit_code == 2
    assert "@fs.references" in result.stderr
    assert store.count() == 1


@pytest.mark.parametrize("kind", ["sync", "async", "stream"])
def test_prune_asks_the_reference_functions(run: Run, fs: Any, store: HashFS, kind: str) -> None:
    live, dead = store.put(b"live"), store.put(b"dead")
    make_old(live.abspath)
    make_old(dead.abspath)

    def sync() -> list[str]:
        return [live.id]

    async def coroutine() -> list[str]:
        return [live.id]

    async def stream() -> Any:
        yield live.id

    if isinstance(fs, FlaskHashFS) and kind != "sync":
        pytest.skip("Flask's are not asynchronous")
    fs.references({"sync": sync, "async": coroutine, "stream": stream}[kind])
    result = run("prune", "--dry-run", "--json")
    assert lines(result) == [{"id": dead.id}]
    assert "would be" in result.stderr
    assert store.count() == 2
    assert run("prune").stdout == dead.id + "\n"
    assert store.count() == 1


@pytest.mark.parametrize("told", [["a" * 64, "typo"], [42], [("a" * 64,)], None, "a" * 64], ids=str)
@pytest.mark.parametrize("kind", ["sync", "async", "stream"])
def test_prune_names_the_reference_function_that_tells_no_address(
    run: Run, fs: Any, store: HashFS, kind: str, told: Any
) -> None:
    address = store.put(b"x")

    def sync() -> Any:
        return told

    async def coroutine() -> Any:
        return told

    async def stream() -> Any:
        for item in told:
            yield item

    if isinstance(fs, FlaskHashFS) and kind != "sync":
        pytest.skip("Flask's are not asynchronous")
    if kind == "stream" and not isinstance(told, list):
        pytest.skip("a generator always is an iterable")
    function = fs.references({"sync": sync, "async": coroutine, "stream": stream}[kind])
    result = run("prune", "--older-than", "0", "--allow-empty")
    assert result.exit_code == 2
    assert f"{function.__module__}.{function.__qualname__}" in result.stderr.replace("\n", "")
    assert repr(told[-1] if isinstance(told, list) else told) in result.stderr
    assert store.exists(address)


def test_prune_passes_over_the_nulls_of_a_database(run: Run, fs: Any, store: HashFS) -> None:
    live, dead = store.put(b"live"), store.put(b"dead")
    fs.references(lambda: [None, live.id, None])
    assert run("prune", "--older-than", "0").stdout == dead.id + "\n"
    assert store.exists(live)


def test_prune_keeps_what_a_file_lists(run: Run, store: HashFS, tmp_path: Path) -> None:
    one, two, dead = store.put(b"one"), store.put(b"two", "txt"), store.put(b"dead")
    (tmp_path / "keep").write_text(f"{one.id}\n\n  {two.relpath}\r\n")
    assert run("prune", "--keep-from", tmp_path / "keep").stdout == ""
    result = run("prune", "--keep-from", tmp_path / "keep", "--older-than", "0")
    assert result.stdout == dead.id + "\n"
    assert store.count() == 2


def test_prune_deletes_nothing_if_a_line_is_no_address(run: Run, store: HashFS) -> None:
    address = store.put(b"x")
    result = run("prune", "--keep-from", "-", "--older-than", "0", input="a" * 64 + "\ntypo\n")
    assert result.exit_code == 2
    assert "typo" in result.stderr
    assert store.exists(address)


def test_prune_refuses_an_empty_list(run: Run, store: HashFS) -> None:
    store.put(b"x")
    arguments = ("prune", "--keep-from", "-", "--older-than", "0")
    result = run(*arguments, input="\n")
    assert result.exit_code == 2
    assert "--allow-empty" in result.stderr
    assert store.count() == 1
    assert run(*arguments, "--allow-empty", input="").exit_code == 0
    assert store.count() == 0


@pytest.mark.parametrize(
    ("words", "kept"),
    [("90s", 0), ("90", 0), ("1m", 0), ("119m", 0), ("121m", 1), ("1.5h", 0), ("3h", 1), ("1d", 1)],
)
def test_durations(run: Run, store: HashFS, words: str, kept: int) -> None:
    address = store.put(b"two hours old")
    then = time.time() - 2 * 3600
    os.utime(address.abspath, (then, then))
    run("prune", "--keep-from", "-", "--allow-empty", "--older-than", words, input="")
    assert store.count() == kept


# -- apps and terminals ------------------------------------------------------------------------


def test_an_app_without_a_default_store_names_those_it_has(framework: str, tmp_path: Path) -> None:
    app: Any = Flask("example") if framework == "flask" else Quart("example")
    app.config["HASHFS_AVATARS_ROOT_FOLDER"] = tmp_path
    kind: Any = FlaskHashFS if framework == "flask" else QuartHashFS
    kind(app, name="avatars")
    result = app.test_cli_runner().invoke(args=["hashfs", "ls"])
    assert result.exit_code == 2
    assert "no default store, but 'avatars'" in result.output
    assert app.test_cli_runner().invoke(args=["hashfs", "--store", "avatars", "ls"]).exit_code == 0


def test_a_command_line_of_its_own_is_told_what_is_missing() -> None:
    result = click.testing.CliRunner().invoke(command, ["ls"])
    assert result.exit_code == 2
    assert "run under flask or quart" in result.output


def test_a_command_of_the_app_of_the_same_name_stays(app: Any) -> None:
    @app.cli.command("hashfs")
    def own() -> None:
        pass

    FlaskHashFS(app) if isinstance(app, Flask) else QuartHashFS(app)
    assert app.cli.commands["hashfs"] is own


def test_an_app_lists_the_commands_and_adds_some_of_its_own(app: Any, tmp_path: Path) -> None:
    extension: Any = FlaskHashFS if isinstance(app, Flask) else QuartHashFS
    other: Any = type(app)("other")
    for each in (app, other):
        each.config["HASHFS_ROOT_FOLDER"] = str(tmp_path)
        extension(each)
    group: Any = app.cli.commands["hashfs"]
    assert sorted(group.commands) == sorted(command.commands)

    @group.command("shrink")
    @click.argument("what")
    def shrink(what: str) -> None:
        """Shrink it."""
        click.echo(f"shrinks {what}")

    @group.commands["cache"].command("shrink")
    def shrink_cache() -> None:
        """Shrink the cache."""

    context = click.Context(group)
    assert group.get_command(context, "shrink") is shrink
    assert {"shrink", "stats"} <= set(group.list_commands(context))
    runner = app.test_cli_runner()
    assert runner.invoke(args=["hashfs", "shrink", "this"]).output == "shrinks this\n"
    assert "Shrink it." in runner.invoke(args=["hashfs", "--help"]).output
    assert runner.invoke(args=["hashfs", "stats"]).exit_code == 0
    for group in (other.cli.commands["hashfs"], command):
        assert "shrink" not in group.commands
        assert "shrink" not in group.commands["cache"].commands


def on_terminal(words: list[str], folder: Path) -> tuple[int, str]:
    """Run a command on a terminal of its own."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execv(words[0], words)
    output = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # closed at the other end
            break
        if not piece:
            break
        output += piece
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), output.decode()


@pytest.mark.slow
def test_a_terminal_shows_progress_and_a_pipe_does_not(
    shell: Callable[..., Any], framework: str, tmp_path: Path
) -> None:
    (tmp_path / "file.txt").write_text("text")
    words = [sys.executable, "-m", framework, "--app", "example", "hashfs", "put", "file.txt"]
    code, output = on_terminal(words, tmp_path)
    assert code == 0, output
    assert "Storing" in output
    assert "100%" in output
    assert id_of(b"text") in output
    assert shell("verify").stdout == ""


@pytest.mark.slow
def test_an_interrupt_leaves_the_store_whole(
    shell: Callable[..., Any], framework: str, tmp_path: Path
) -> None:
    shell("stats")
    words = [sys.executable, "-m", framework, "--app", "example", "hashfs", "put", "-"]
    pipe: Any = subprocess.PIPE
    with subprocess.Popen(words, cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin
        process.stdin.write(bytes(1_000_000))
        process.stdin.flush()
        while not any(Path(tmp_path, "root").glob("*")) and not _has_unnamed(process.pid):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 1
    assert b"Aborted" in errors
    assert list(Path(tmp_path, "root").iterdir()) == []


def _has_unnamed(pid: int) -> bool:
    """Tell whether a process has a file open that has no name."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "(deleted)" in os.readlink(entry):
                return True
        except OSError:
            continue
    return False


# -- what is printed ---------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="needs file names of any bytes")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.txt", "plain name.txt"),
        ("\x1b[31mred", r"$'\e[31mred'"),
        ("two\nlines", r"$'two\nlines'"),
        ("tab\tand'quote\\", r"$'tab\tand\'quote\\'"),
        ("\udcff\u202e", r"$'\xff\u202e'"),
        ("\U0001f600", "\U0001f600"),
    ],
)
def test_names_are_printed_in_one_line_without_escape_sequences(
    run: Run, tmp_path: Path, name: str, shown: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_text("a")
    result = run("put", folder)
    path = shown.replace("$'", f"$'{folder}/") if shown.startswith("$") else f"{folder}/{shown}"
    start = f"{id_of(b'a')}  {id_of(b'a')[0]}/"
    assert result.stdout.startswith(start)
    assert result.stdout.endswith(f"  {path}\n")
    assert result.stdout.removesuffix("\n").isprintable()


@pytest.mark.slow
def test_a_name_that_the_charset_of_the_output_lacks_is_escaped(
    shell: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "\u00fc.txt").write_text("a")
    done = shell("put", "\u00fc.txt", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (
        0,
        f"{id_of(b'a')}  {relpath_of(b'a', '.txt')}  $'\\xfc.txt'\n",
    )


def test_a_message_does_not_repeat_a_line_of_megabytes(run: Run, store: HashFS) -> None:
    result = run("prune", "--keep-from", "-", input="\x1b" * 5_000_000)
    assert result.exit_code == 2
    assert len(result.stderr) < 10_000
    assert "\x1b" not in result.stderr


def test_counts_are_in_words_that_fit(run: Run, store: HashFS) -> None:
    make_old(store.put(b"a").abspath)
    assert run("prune", "--keep-from", "-", "--allow-empty", input="").stderr.endswith(
        "1 content deleted\n"
    )


# -- the page ----------------------------------------------------------------------------------


def options_of(group: click.Group, above: str = "") -> Iterator[str]:
    """The entry of each option in the list of docs/cli.md; ``--json`` has one for all."""
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from options_of(each, f"{above}{name} ")
        for option in each.params:
            if isinstance(option, click.Option) and option.opts != ["--json"]:
                shown = f"{above}{name} {option.opts[0]}"
                if not option.is_flag:
                    shown += f" {option.metavar}"
                anchor = f"{above}{name}{option.opts[0]}".replace(" ", "-")
                yield f"[`{shown}`](#{anchor}){{#{anchor}}}\n: {option.help}\n"


def test_the_documentation_lists_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    entries = re.findall(r"^\[`\w.* --.*\n: .*\n", page, re.MULTILINE)
    assert entries == list(options_of(command))
    assert all(": None" not in entry for entry in entries)
