"""The commands of ``flask hashfs`` and ``quart hashfs``."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import click
from werkzeug.exceptions import HTTPException

from .._storage.backend import Backend
from .._storage.names import AUTO, Extension, dotted
from .._storage.parallel import in_threads
from .._storage.predecessor import HashAddress
from .._storage.records import Damaged, Entry, NoAddressError, NothingInUseError
from .._storage.stored_file import StoredFile
from .._store.checks import before
from .._store.opening import is_url, open_like
from .._store.store import HashFS
from .._units import about, counted
from ..exceptions import ConfigError, HashFSError, InvalidExtensionError
from . import transfer
from .config import root_folder
from .inspection import inspect_stored
from .refs import Refs, database_errors, in_words
from .state import StoreState, states
from .transfer import Outcome

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "": "seconds"}
_FAILED = (Outcome.DAMAGED, Outcome.REFUSED)


class _Failure(click.ClickException):
    """What was asked for could not be done."""

    exit_code = 3


class _Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value).strip(), re.ASCII)
        try:
            if match is None:
                raise ValueError(value)
            return timedelta(**{_UNITS[match[2]]: float(match[1])})
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a duration such as 90s, 30m, 24h or 7d", param, ctx)


@dataclasses.dataclass
class _Target:
    """The store that a command works on."""

    app: Any
    state: StoreState

    @classmethod
    def load(cls, context: click.Context) -> _Target:
        info, name = context.obj, context.params["store"] or None
        if not hasattr(info, "load_app"):
            raise click.UsageError("hashfs commands run under flask or quart")
        app = info.load_app()
        stores = states(app)
        if not stores:
            raise click.UsageError(f"The app {app.name!r} has no store: call init_app(app) first.")
        if name not in stores:
            wanted = f"store named {name!r}" if name else "default store"
            known = ", ".join(sorted(repr(each) if each else "a default store" for each in stores))
            raise click.UsageError(f"The app {app.name!r} has no {wanted}, but {known}.")
        return cls(app, stores[name])

    @property
    def client(self) -> HashFS:
        """The store itself."""
        return self.state["client"]

    @property
    def extension(self) -> Any:
        """The extension object of the store."""
        return self.state["extension"]

    def named(self, name: str) -> HashFS:
        """Return one of the app's stores, or the one in a folder or at a URL."""
        state = states(self.app).get(None if name == "default" else name)
        if state is not None:
            return state["client"]
        if not is_url(name) and os.sep not in name and not os.path.isdir(name):
            raise click.UsageError(
                f"{name!r} is neither a store of the app, nor a folder, nor a URL; "
                f"for a new folder say {os.path.join(os.curdir, name)!r}"
            )
        root = root_folder("SOURCE or TARGET", name)
        return open_like(self.client, root, self.state["config"].store_options)

    @property
    def is_asynchronous(self) -> bool:
        """Whether the app is one of Quart."""
        return hasattr(self.app.app_context(), "__aenter__")

    def run(self, call: Callable[[], Any]) -> Any:
        """Return what `call` does in the app's context, awaited where the app is asynchronous."""
        context = self.app.app_context()
        if not self.is_asynchronous:
            with context:
                return call()

        async def run() -> Any:
            async with context:
                return await call()

        return asyncio.run(run())


class _Group(click.Group):
    """Gives every command its store, and turns errors of the store into messages."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (HashFSError, HTTPException, OSError) as error:
            raise _Failure(_message(error)) from error
        except database_errors() as error:
            words = in_words(error)
            raise _Failure(_message(words[0].upper() + words[1:])) from error


pass_target = click.make_pass_decorator(_Target)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")


@click.group("hashfs", cls=_Group)
@click.option(
    "--store", metavar="NAME", help="The named store to work on. Default: the app's default store."
)
@click.pass_context
def hashfs(context: click.Context, store: str | None) -> None:
    """Look after the content-addressed file store of this app.

    \b
    Exit codes:
      0  all went well
      1  verify or sync found damage, inspect a refused file, doctor an error,
         refs a row without its file; put or sync could not store some of
         the files; or it was interrupted
      2  the command line is wrong, or it was refused: no such store, nothing
         in use, a reference that is no address
      3  it could not be done: no permission, disk full, no object store,
         no database
    """
    context.obj = _Target.load(context)


# -- looking -----------------------------------------------------------------------------------


@hashfs.command()
@as_json
@pass_target
def stats(target: _Target, as_json: bool) -> None:
    """Count files and bytes."""
    numbers = target.client.stats()
    root = target.client.root
    if as_json:
        _print_json({"root": root, **dataclasses.asdict(numbers)})
        return
    click.echo(f"{'root:':<13} {_text(root)}")
    for field in dataclasses.fields(numbers):
        value = getattr(numbers, field.name)
        if value is None:
            continue
        if isinstance(value, Entry):
            value = f"{_date(value.mtime)}  {value.size} bytes  {_text(value.relpath)}"
        elif field.name.startswith("bytes"):
            value = f"{value} ({about(value)})"
        label = _LABELS.get(field.name, field.name.replace("_", " "))
        click.echo(f"{label + ':':<13} {value}")


_LABELS = {"strangers": "stray files", "left_overs": "left-overs"}


@hashfs.command()
@as_json
@pass_target
def ls(target: _Target, as_json: bool) -> None:
    """List the files: id, bytes, date of the last put, path. Stray files have no id."""
    for entry in target.client.entries():
        if as_json:
            _print_json(dataclasses.asdict(entry))
        else:
            date = _date(entry.mtime)
            click.echo(f"{entry.id or '-'}  {entry.size:>12}  {date}  {_text(entry.relpath)}")


@hashfs.command()
@click.option("--prune", is_flag=True, help="Also delete the uploads that have expired.")
@as_json
@pass_target
def uploads(target: _Target, prune: bool, as_json: bool) -> None:
    """List resumable uploads: id, bytes, length, when it expires, owner. Ended ones are marked."""
    pending = getattr(target.client.backend, "pending", None)
    if pending is None:
        raise click.UsageError("This store keeps no unfinished uploads.")
    swept = pending.sweep() if prune else 0
    for listed in pending.listed():
        record = listed.record
        ended = record.final is not None
        if as_json:
            values = {"id": listed.id, "offset": listed.offset, "length": record.length}
            values |= {"owner": record.owner, "expires": listed.expires, "ended": ended}
            _print_json(values)
            continue
        length = "?" if record.length is None else record.length
        numbers = f"{listed.offset:>12}  {length:>12}  {_date(listed.expires)}"
        click.echo(f"{listed.id}  {numbers}  {_text(record.owner or '-')}{'  ended' * ended}")
    if prune:
        click.echo(f"{swept} expired and deleted.", err=True)


@hashfs.command()
@as_json
@pass_target
def doctor(target: _Target, as_json: bool) -> None:
    """Tell what works, what does not, and what to do; end with 1 if there is an error.

    It changes nothing but a probe that it writes and takes away again.
    """
    findings = target.run(lambda: target.extension.diagnose())
    for finding in findings:
        if as_json:
            _print_json(dataclasses.asdict(finding))
            continue
        click.echo(f"{finding.level:<8} {finding.check}: {_message(finding.message)}")
        if finding.remedy:
            click.echo(f"{'':<8} -> {_message(finding.remedy)}")
    levels = Counter(finding.level for finding in findings)
    click.echo(
        f"{counted(levels['error'], 'error')}, {counted(levels['warning'], 'warning')}, "
        f"{counted(levels['note'], 'note')}",
        err=True,
    )
    if levels["error"]:
        raise click.exceptions.Exit(1)


@hashfs.group()
@pass_target
def cache(target: _Target) -> None:
    """Look after the cache that this machine has before the store."""
    if not target.client.backend.is_cached:
        raise click.UsageError("This store has no cache: set HASHFS_CACHE_FOLDER.")


@cache.command("stats")
@as_json
@pass_target
def cache_stats(target: _Target, as_json: bool) -> None:
    """Count what is kept. What was hit and missed is known only to the processes of the app."""
    numbers = target.client.cache_stats()
    if as_json:
        _print_json(dataclasses.asdict(numbers))
        return
    click.echo(f"files: {numbers.files}")
    click.echo(f"bytes: {numbers.bytes} ({about(numbers.bytes)})")


@cache.command()
@pass_target
def clear(target: _Target) -> None:
    """Drop all that is kept; the store is left alone."""
    click.echo(f"{counted(target.client.backend.clear_cache(), 'file')} dropped.", err=True)


@cache.command()
@click.option(
    "--from",
    "source",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="File with the ids or paths to fetch, one a line; - for the standard input. Default: all.",
)
@pass_target
def warm(target: _Target, source: Any) -> None:
    """Fetch files before anybody asks for them; end with 1 if some could not be."""
    backend = target.client.backend
    if source is None:
        names: Iterable[str] = (entry.relpath for entry in target.client.entries() if entry.id)
    else:
        names = (line.strip() for line in source if line.strip())
    kept = failed = 0
    for name, problem in in_threads(partial(_warm, backend), names):
        if problem is None:
            kept += 1
            continue
        failed += 1
        click.echo(f"{_text(name)}: {problem}", err=True)
    click.echo(f"{kept} kept" + (f", {failed} failed" if failed else ""), err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _warm(backend: Backend, name: str) -> str | None:
    """Keep one file; return what is wrong, if anything is."""
    try:
        return None if backend.warm_cache(name) else "not stored"
    except (HashFSError, OSError) as error:
        return _message(error)


# -- putting -----------------------------------------------------------------------------------


@hashfs.command()
@click.argument(
    "sources",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, allow_dash=True),
)
@click.option(
    "--extension",
    metavar="EXT",
    help="Store all files under this extension, not under those of their names.",
)
@click.option(
    "--auto-extension",
    is_flag=True,
    help="Store each file under the extension of its type, which its bytes tell.",
)
@as_json
@pass_target
def put(
    target: _Target,
    sources: tuple[str, ...],
    extension: str | None,
    auto_extension: bool,
    as_json: bool,
) -> None:
    """Store files, folders with all files in them, or - for the standard input.

    A line is printed for each file once it would survive a power cut: its id, its path in
    the store, and its path here.
    """
    client = target.client
    try:
        dotted(extension)
    except InvalidExtensionError as error:
        raise click.BadParameter(str(error), param_hint="--extension") from error

    if auto_extension and extension is not None:
        raise click.UsageError("--extension and --auto-extension exclude each other")
    before(AUTO if auto_extension else None, None)

    stored = there = failed = 0

    def report(path: str, error: Exception) -> None:
        nonlocal failed
        failed += 1
        click.echo(f"{_text(path)}: {_message(error)}", err=True)

    def files() -> Iterator[tuple[Any, Extension]]:
        for path in _expand(sources, client.root, report):
            source = sys.stdin.buffer if path == "-" else path
            if auto_extension:
                yield source, AUTO
            elif path == "-":
                yield source, extension
            else:
                yield source, extension or _extension(client, path)

    length = None
    if _is_terminal():
        length = sum(1 for _ in _expand(sources, client.root, lambda *_: None))
    with _bar(length, "Storing") as (advance, echo):
        for source, result in client.put_files(files()):
            path = source if isinstance(source, str) else "-"
            if isinstance(result, HashAddress):
                stored += not result.is_duplicate
                there += result.is_duplicate
                echo(_put_line(path, result, as_json))
            else:
                report(path, result)
            advance(1)
    click.echo(
        f"{stored} stored, {there} already there" + (f", {failed} failed" if failed else ""),
        err=True,
    )
    if failed:
        raise click.exceptions.Exit(1)


def _put_line(path: str, address: HashAddress, as_json: bool) -> str:
    if not as_json:
        return f"{address.id}  {_text(address.relpath)}  {_text(path)}"
    names = {"id": address.id, "relpath": address.relpath, "is_duplicate": address.is_duplicate}
    return json.dumps({"path": path, **names})


def _expand(
    sources: Iterable[str], root: str, report: Callable[[str, OSError], object]
) -> Iterator[str]:
    """Yield the files in `sources`, which may be folders; links below them are not followed.

    Args:
        sources: From the command line.
        root: The store's, which is passed over.
        report: Called with each folder that cannot be read.
    """
    root = os.path.realpath(root)
    for source in sources:
        if source == "-" or not os.path.isdir(source):
            yield source
            continue
        waiting = [source]
        while waiting:
            folder = waiting.pop()
            if os.path.realpath(folder) == root:
                continue
            try:
                with os.scandir(folder) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
                inner = [each.path for each in entries if each.is_dir(follow_symlinks=False)]
                files = [each.path for each in entries if each.is_file(follow_symlinks=False)]
            except OSError as error:
                report(folder, error)
                continue
            waiting.extend(reversed(inner))
            yield from files


def _extension(client: HashFS, path: str) -> str | None:
    """Return the extension in a file's name, if a stored file can have it."""
    extension = os.path.splitext(path)[1]
    try:
        dotted(extension)
    except InvalidExtensionError:
        return None
    return extension


# -- keeping -----------------------------------------------------------------------------------


@hashfs.command()
@click.option("--quarantine", is_flag=True, help="Move damaged files to .hashfs/quarantine.")
@click.option("--force", is_flag=True, help="Move damaged files even if not one file is whole.")
@as_json
@pass_target
def verify(target: _Target, quarantine: bool, force: bool, as_json: bool) -> None:
    """Hash every content again; end with 1 if there is damage."""
    looked_at = damaged = 0
    length = target.client.count() if _is_terminal() else None
    try:
        with _bar(length, "Verifying") as (advance, echo):
            for step in target.client.backend.verify(quarantine, force):
                if isinstance(step, Damaged):
                    damaged += 1
                    id, relpath = step.address.id, step.address.relpath
                    line = f"{id}  {_text(relpath)}"
                    echo(json.dumps({"id": id, "relpath": relpath}) if as_json else line)
                else:
                    looked_at += step.looked_at
                    advance(step.looked_at)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{counted(looked_at, 'file')} looked at, {damaged} damaged", err=True)
    if damaged:
        click.echo(_next_step(target.client, damaged if quarantine else 0), err=True)
        raise click.exceptions.Exit(1)


def _next_step(client: HashFS, moved: int) -> str:
    """Return what to do about damaged files, of which so many were moved."""
    if not moved:
        return (
            "Nothing was moved. Run it with --quarantine to move them aside, then put the "
            "originals again."
        )
    folder = _text(f"{client.root}/.hashfs/quarantine")
    return (
        f"{counted(moved, 'file')} moved to {folder}: put the originals again, which heals them, "
        "then delete that folder."
    )


@hashfs.command()
@click.option("--quarantine", is_flag=True, help="Move refused files to .hashfs/quarantine.")
@as_json
@pass_target
def inspect(target: _Target, quarantine: bool, as_json: bool) -> None:
    """Have the functions registered with @fs.inspector look at all that is stored.

    Ends with 1 if something is refused.
    """
    if not target.extension.has_inspectors:
        raise click.UsageError("Nobody looks: register a function with @fs.inspector.")
    looked_at = refused = 0
    length = target.client.count() if _is_terminal() else None
    with _bar(length, "Inspecting") as (advance, echo):
        for step in inspect_stored(target.client, quarantine):
            looked_at += 1
            if step.error is not None:
                refused += 1
                reason = step.error.description or step.error.name
                names = {"id": step.entry.id, "relpath": step.entry.relpath, "reason": reason}
                line = f"{step.entry.id}  {_text(step.entry.relpath)}  {_text(reason)}"
                echo(json.dumps(names) if as_json else line)
            advance(1)
    click.echo(f"{counted(looked_at, 'file')} looked at, {refused} refused", err=True)
    if refused:
        raise click.exceptions.Exit(1)


@hashfs.command()
@as_json
@pass_target
def repair(target: _Target, as_json: bool) -> None:
    """Move every file to where its bytes belong, as after a change of depth or width."""
    moved = target.client.repair()
    for path, address in moved:
        old, new = target.client.relpath(path), address.relpath
        if as_json:
            _print_json({"id": address.id, "old": old, "new": new})
        else:
            click.echo(f"{_text(old)} -> {_text(new)}")
    click.echo(f"{counted(len(moved), 'file')} moved", err=True)


@hashfs.command()
@click.option(
    "--older-than",
    type=_Duration(),
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="Time since the last put: 90s, 30m, 24h, 7d; a bare number is seconds.",
)
@click.option(
    "--keep-from",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="File with the ids or paths in use, one a line; - for the standard input.",
)
@click.option("--dry-run", is_flag=True, help="Delete nothing, but list what would be deleted.")
@click.option("--allow-empty", is_flag=True, help="Delete even if nothing at all is in use.")
@as_json
@pass_target
def prune(
    target: _Target,
    older_than: timedelta,
    keep_from: Any,
    dry_run: bool,
    allow_empty: bool,
    as_json: bool,
) -> None:
    """Delete the contents that are neither in use nor young, and print their ids.

    In use is what the functions registered with @fs.references tell, and what FILE lists.
    """
    if keep_from is None and not target.extension.has_references:
        raise click.UsageError(
            "Nobody tells what is in use: register a function with @fs.references, "
            "or list it with --keep-from."
        )
    keep = target.client.backend.in_use()
    try:
        keep.update(line.strip() for line in keep_from or () if line.strip())
    except ValueError as error:
        raise click.BadParameter(_message(error), param_hint="--keep-from") from error
    wishes = {"older_than": older_than, "dry_run": dry_run, "allow_empty": allow_empty}
    try:
        deleted = target.run(lambda: target.extension.prune(keep, **wishes))
    except NothingInUseError as error:
        raise click.UsageError(
            "Nothing at all is in use, so everything would be deleted: "
            "add --allow-empty if that is what you want."
        ) from error
    except NoAddressError as error:
        raise click.UsageError(f"Nothing is deleted: {_message(error)}") from error
    except database_errors() as error:
        raise _Failure(f"Nothing is deleted: {_message(in_words(error))}") from error
    for id in deleted:
        if as_json:
            _print_json({"id": id})
        else:
            click.echo(id)
    number = counted(len(deleted), "content")
    click.echo(f"{number} {'would be ' if dry_run else ''}deleted", err=True)


@hashfs.command()
@click.option("--missing", is_flag=True, help="List the rows whose file is not stored.")
@as_json
@pass_target
def refs(target: _Target, missing: bool, as_json: bool) -> None:
    """Count what is in use by each column that @fs.track has, or list the rows without a file.

    The rows are listed with table, column, primary key and what they have; end with 1 if
    there are any.
    """
    if not target.extension.tracked:
        raise click.UsageError("No columns are tracked: register them with fs.track.")
    found = Refs(target.client, target.extension.tracked)
    lost = 0

    def look(row: Any) -> None:
        nonlocal lost
        if missing and not target.client.exists(row.value):
            lost += 1
            _print_missing(row, as_json)

    read = found.read_async if target.is_asynchronous else found.read
    try:
        target.run(lambda: read(look))
    except ValueError as error:
        raise click.UsageError(_message(error)) from error
    if not missing:
        _print_columns(found, as_json)
        return
    number = sum(column.rows for column in found.columns.values())
    click.echo(f"{counted(number, 'row')} looked at, {lost} without a file", err=True)
    if lost:
        raise click.exceptions.Exit(1)


def _print_missing(row: Any, as_json: bool) -> None:
    value = row.value
    if as_json:
        value = value.as_dict() if isinstance(value, StoredFile) else value
        _print_json({**row._asdict(), "value": value})
        return
    name = value.relpath if isinstance(value, StoredFile) else value
    place = f"{row.table}.{row.column}"
    click.echo(f"{_text(place)}  {_text(row.key or '-')}  {_text(name)}")


def _print_columns(found: Refs, as_json: bool) -> None:
    for column in found.columns.values():
        rows, contents = column.rows, len(column.contents)
        if as_json:
            names = {"table": column.table, "column": column.name}
            _print_json({**names, "rows": rows, "contents": contents})
        else:
            place = _text(f"{column.table}.{column.name}")
            click.echo(f"{place}  {counted(rows, 'row')}, {counted(contents, 'content')}")


# -- moving ------------------------------------------------------------------------------------


@hashfs.command()
@click.argument("source")
@click.argument("target")
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    metavar="N",
    help="The number of files copied at the same time.",
)
@as_json
@pass_target
def sync(app_store: _Target, source: str, target: str, threads: int, as_json: bool) -> None:
    """Copy what TARGET lacks of SOURCE, hashed on its way; end with 1 if some is damaged.

    SOURCE and TARGET are named stores of the app, "default" for the store without a name,
    folders, or URLs such as s3://bucket/prefix. Folders and URLs have the layout of the
    app's own store. Run it again to go on where it stopped, or to copy what is new.
    """
    origin, goal = app_store.named(source), app_store.named(target)
    length = origin.count() if _is_terminal() else None
    outcomes: Counter[Outcome] = Counter()
    with _bar(length, "Copying") as (advance, echo):
        for step in transfer.sync(origin, goal, threads):
            outcomes[step.outcome] += 1
            if as_json:
                names = {"id": step.entry.id, "relpath": step.entry.relpath}
                echo(json.dumps({**names, "outcome": step.outcome.name.lower()}))
            elif step.outcome in _FAILED:
                text = f"{_text(step.entry.relpath)}: {step.outcome.value} {_message(step.reason)}"
                click.echo(text.rstrip(), err=True)
            advance(1)
    counts = [f"{outcomes[each]} {each.value}" for each in Outcome if outcomes[each]]
    click.echo(", ".join(counts) or "nothing to copy", err=True)
    if any(outcomes[each] for each in _FAILED):
        raise click.exceptions.Exit(1)


# -- showing -----------------------------------------------------------------------------------


def _is_terminal() -> bool:
    return sys.stderr.isatty()


@contextmanager
def _bar(
    length: int | None, label: str
) -> Iterator[tuple[Callable[[int], object], Callable[[str], object]]]:
    """Show a progress bar if `length` is known; yield what moves it, and what prints a line."""
    if length is None:
        yield lambda _: None, click.echo
        return
    lines: list[str] = []  # of the bar's own terminal, which they would tear apart
    echo = lines.append if sys.stdout.isatty() else click.echo
    try:
        with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
            yield bar.update, echo
    finally:
        for line in lines:
            click.echo(line)


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value))


def _text(text: str) -> str:
    """Return a name or path as one line that can be printed, without escape sequences.

    One that has to be changed for that is quoted as bash reads it: ``$'a\\nb'``.
    """
    if _is_printable(text):
        return text
    escaped = (
        each if _is_printable(each) else _escape(each) for each in _QUOTED.sub(r"\\\g<0>", text)
    )
    return f"$'{''.join(escaped)}'"


_QUOTED = re.compile(r"[\\']")
_LETTERS = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"}


def _is_printable(text: str) -> bool:
    """Tell whether a terminal shows `text` as it is, in the charset of the output."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.isprintable() and text.encode(encoding, "ignore").decode(encoding) == text


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that the file system's charset lacks
        code -= 0xDC00
    if code < 0x100:
        return _LETTERS.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _message(error: object) -> str:
    """Return what an error says, in one line of a length that can be read."""
    text = str(error)
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]}..."
    return "".join(each if _is_printable(each) else _escape(each) for each in text)


_LONGEST_MESSAGE = 1000  # characters: a path may have 4096, but a line of a file millions


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
