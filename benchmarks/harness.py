"""Alternating rounds, their ratios, and how a run is written down: what every section shares."""

from __future__ import annotations

import gc
import json
import math
import mmap
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MIB = 1024 * 1024
MANY = 20  # from so many rounds on, a few bad ones say nothing of the others
PACKAGES = (
    "aiohttp",
    "boto3",
    "filedepot",
    "flask",
    "granian",
    "gunicorn",
    "hashfs",
    "httptools",
    "hypercorn",
    "obstore",
    "python-multipart",
    "quart",
    "starlette",
    "uvicorn",
    "uvloop",
    "werkzeug",
    "whitenoise",
)
PROGRAMS = {"cp": "--version", "nginx": "-v", "strace": "--version"}

Sample = dict[str, float]  # a metric's key -> what one round of one contender measured


@dataclass(frozen=True)
class Metric:
    """Something measured in every round.

    A metric with a `unit` is shown as it is, every other as the ratio to the table's baseline.
    """

    key: str
    title: str
    unit: str = ""
    worst: bool = False  # the worst round counts, not the median


@dataclass
class Goal:
    """What a metric of one row must reach: as a ratio to the row `against`, or as it is."""

    text: str
    metric: str
    row: str
    against: str
    limit: float
    at_most: bool


@dataclass
class Table:
    """Contenders measured side by side: rows of rounds."""

    key: str
    title: str
    baseline: str
    metrics: list[Metric]
    rows: dict[str, list[Sample]] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def figures(self, row: str, metric: Metric, against: str | None = None) -> list[float]:
        """Return the metric's figure of each round of a row, a ratio where it is one."""
        own = [sample[metric.key] for sample in self.rows.get(row, ()) if metric.key in sample]
        base = self.baseline if against is None else against
        if (against is None and metric.unit) or not base:
            return own
        rounds = zip(self.rows.get(row, ()), self.rows.get(base, ()), strict=False)
        return [
            mine[metric.key] / theirs[metric.key]
            for mine, theirs in rounds
            if theirs.get(metric.key) and metric.key in mine
        ]

    def measured(self, goal: Goal) -> tuple[Metric, list[float]]:
        """Return the metric of a goal, and its figure of each round."""
        metric = next(metric for metric in self.metrics if metric.key == goal.metric)
        return metric, self.figures(goal.row, metric, goal.against)

    def reached(self, goal: Goal) -> tuple[float | None, bool]:
        """Return what was measured for a goal, None for nothing, and whether it is enough."""
        metric, figures = self.measured(goal)
        if not figures:
            return None, False
        figure = max(figures) if metric.worst else statistics.median(figures)
        return figure, figure <= goal.limit if goal.at_most else figure >= goal.limit


@dataclass
class Series:
    """A line of the memory section's picture: (seconds, MiB) after (seconds, MiB)."""

    key: str
    title: str
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


@dataclass
class Report:
    """Everything that one run has found."""

    about: dict[str, object]
    tables: list[Table] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, table: Table) -> None:
        self.tables.append(table)
        print(render_table(table), flush=True)

    def leave_out(self, line: str) -> None:
        self.left_out.append(line)
        print(f"  left out: {line}", flush=True)

    def merge(self, other: Report) -> None:
        """Take over what another run has found, in the place of what has the same key here."""
        self.tables = list({each.key: each for each in [*self.tables, *other.tables]}.values())
        self.series = list({each.key: each for each in [*self.series, *other.series]}.values())
        self.left_out = list(dict.fromkeys([*self.left_out, *other.left_out]))
        self.about["versions"] = {**_versions(other), **_versions(self)}

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> Report:
        raw = json.loads(path.read_text())
        for table in raw["tables"]:
            table["metrics"] = [Metric(**metric) for metric in table["metrics"]]
            table["goals"] = [Goal(**goal) for goal in table["goals"]]
        raw["tables"] = [Table(**table) for table in raw["tables"]]
        raw["series"] = [Series(**series) for series in raw["series"]]
        return cls(**raw)


def _versions(report: Report) -> dict[str, str]:
    versions: dict[str, str] = report.about["versions"]  # type: ignore[assignment]
    return versions


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    name: str  # "full", "quick" or "tiny"
    rounds: int
    million: bool = False

    def pick(self, full: int, quick: int, tiny: int) -> int:
        return {"full": full, "quick": quick, "tiny": tiny}[self.name]

    @property
    def full(self) -> bool:
        return self.name == "full"


Contender = Callable[[], Sample]


def run_rounds(
    report: Report,
    table: Table,
    contenders: Mapping[str, Contender],
    rounds: int,
    *,
    prime: bool = True,
    idle: Callable[[], None] = lambda: None,
) -> Table:
    """Measure the contenders in turn, and add the table to the report."""
    print(f"* {table.title}", flush=True)
    play_rounds(report, table, contenders, rounds, prime=prime, idle=idle)
    report.add(table)
    return table


def play_rounds(
    report: Report,
    table: Table,
    contenders: Mapping[str, Contender],
    rounds: int,
    *,
    prime: bool = True,
    idle: Callable[[], None] = lambda: None,
) -> None:
    """Measure the contenders in turn, after one round that primes and does not count.

    Every other round runs backwards, so that nobody always comes after the same neighbour. A
    contender that fails is left out, with a line that says why.
    """
    running = dict(contenders)
    for number in range(0 if prime else 1, rounds + 1):
        order = list(running)
        for name in order if number % 2 else reversed(order):
            idle()
            gc.collect()
            try:
                sample = running[name]()
            except Exception as error:
                report.leave_out(f"{table.title}: {name} ({type(error).__name__}: {error})")
                del running[name]
                table.rows.pop(name, None)
                continue
            if number:
                table.rows.setdefault(name, []).append(sample)
    table.rows = {name: table.rows[name] for name in contenders if name in table.rows}


def run_sessions(
    report: Report,
    table: Table,
    begin: Callable[[], AbstractContextManager[Mapping[str, Contender]]],
    sessions: int,
    rounds: int,
) -> None:
    """Measure the contenders in many short rounds, made anew several times.

    A process keeps for its life what chance gave it, such as where its memory lies. So that the
    figures do not depend on that, each session begins with new contenders.

    Args:
        begin: Makes the contenders of one session.
        sessions: How often they are made.
        rounds: That each session counts.
    """
    print(f"* {table.title}", flush=True)
    for _ in range(sessions):
        one = Table(table.key, table.title, table.baseline, table.metrics)
        with begin() as contenders:
            play_rounds(report, one, contenders, rounds)
        if all(len(samples) == rounds for samples in one.rows.values()) and len(one.rows) > 1:
            for name, samples in one.rows.items():
                table.rows.setdefault(name, []).extend(samples)
    table.notes.append(
        f"All were started {sessions} times, for {rounds} short rounds in turns each time, on "
        f"{report.about['file system']}. The brackets hold the middle half of the rounds. Beside a "
        "goal stands where the median lies with a probability of 95 %."
    )
    report.add(table)


# --- where things are written --------------------------------------------------------------------


class Workspace:
    """A folder of the run: hands out fresh folders and removes them all at the end.

    Files deleted between rounds make the next creations much slower (ext4), so that files are
    emptied when their table is done, and deleted at the very end. `tempfile` goes to the same file
    system: hashfs would copy across otherwise, and we measure it where it does not have to.
    """

    def __init__(self, parent: Path | None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="hashfs-bench-", dir=parent))
        self._count = 0
        tempfile.tempdir = str(self.fresh("tmp"))
        os.environ["TMPDIR"] = tempfile.tempdir

    def fresh(self, name: str = "round") -> Path:
        self._count += 1
        folder = self.path / f"{name}-{self._count}"
        folder.mkdir()
        return folder

    @contextmanager
    def cleaned(self) -> Iterator[None]:
        """Empty, at the end, the files in the folders that were handed out within."""
        before = set(self.path.iterdir())
        try:
            yield
        finally:
            for folder in set(self.path.iterdir()) - before:
                empty_files(folder)

    def prime(self, size: int) -> None:
        """Touch `size` bytes of free disk, which costs more than the work the first time."""
        path, block = self.path / "prime", os.urandom(MIB)
        try:
            with path.open("wb", buffering=0) as file:
                for _ in range(size // MIB):
                    file.write(block)
                os.fsync(file.fileno())
        finally:
            path.unlink(missing_ok=True)

    def warm(self, size: int) -> None:
        """Touch `size` bytes of free memory, which are given back at once.

        A virtual machine's host may take away what has been free for a while, and to get it back
        costs several times as much as all the work that is measured.
        """
        with mmap.mmap(-1, max(size, mmap.PAGESIZE)) as memory:
            for start in range(0, len(memory), mmap.PAGESIZE):
                memory[start] = 1

    def room(self) -> int:
        """Return the bytes free, less a reserve of 4 GiB."""
        return max(0, shutil.disk_usage(self.path).free - 4096 * MIB)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def empty_files(folder: Path) -> None:
    """Cut all files below a folder to nothing, so that they take no disk or memory any more."""
    for path, _, names in os.walk(folder):
        for name in names:
            file = os.path.join(path, name)
            if not os.path.islink(file) and os.path.getsize(file):
                os.truncate(file, 0)


@contextmanager
def stopwatch(sample: Sample, key: str = "time") -> Iterator[None]:
    """Add the seconds that the block takes to a sample."""
    begin = time.perf_counter()
    yield
    sample[key] = sample.get(key, 0.0) + time.perf_counter() - begin


# --- the machine ---------------------------------------------------------------------------------


def about(scale: Scale, folder: Path) -> dict[str, object]:
    """Name what was measured, and on what."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    for program, option in PROGRAMS.items():
        versions[program] = _program(program, option)
    return {
        "mode": scale.name,
        "date": time.strftime("%Y-%m-%d"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": _cores(),
        "memory GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3),
        "file system": _file_system(folder),
        "load at the start": round(os.getloadavg()[0], 1),
        "versions": versions,
    }


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _program(name: str, option: str) -> str:
    if (path := shutil.which(name, path=_PATH)) is None:
        return "absent"
    done = subprocess.run([path, option], capture_output=True, text=True, check=False)
    words = (done.stdout or done.stderr).splitlines()[0].replace("/", " ").split()
    return next((word for word in reversed(words) if word[0].isdigit()), "present")


_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def which(program: str) -> str | None:
    """Find a program, where servers lie too."""
    return shutil.which(program, path=_PATH)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")


def _file_system(folder: Path) -> str:
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    inside = [mount for mount in mounts if folder.resolve().is_relative_to(mount[1])]
    return max(inside, key=lambda mount: len(mount[1]))[2] if inside else ""


# --- tables --------------------------------------------------------------------------------------


def render_table(table: Table) -> str:
    """Return a table, its notes and its goals as Markdown."""
    heads = [f"{metric.title}, {metric.unit}".removesuffix(", ") for metric in table.metrics]
    lines = [["", *heads], ["---"] + ["---:"] * len(heads)]
    for row in table.rows:
        lines.append([row, *(_cell(table, row, metric) for metric in table.metrics)])
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    base = f"Without a unit: a ratio, {table.baseline} = 1.\n\n" if table.baseline else ""
    goals = "".join(f"\n- {_goal(table, goal)}" for goal in table.goals)
    notes = "".join(f"\n{note}\n" for note in table.notes)
    return f"{base}{text}\n{notes}{goals}\n"


def _cell(table: Table, row: str, metric: Metric) -> str:
    figures = table.figures(row, metric)
    if not figures:
        return ""
    middle = number(max(figures) if metric.worst else statistics.median(figures))
    if len(figures) == 1 or metric.worst:
        return middle
    low, high = _range(figures)
    return f"{middle} ({number(low)}–{number(high)})"  # noqa: RUF001


def _range(figures: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest figure, or of many the bounds of the middle half."""
    if len(figures) < MANY:
        return min(figures), max(figures)
    low, _, high = statistics.quantiles(figures, n=4)
    return low, high


def _median_range(figures: Sequence[float]) -> tuple[float, float]:
    """Return between which two of many figures the median lies, with a probability of 95 %."""
    middle, margin = len(figures) / 2, 0.98 * math.sqrt(len(figures))
    inner = sorted(figures)[math.floor(middle - margin) : math.ceil(middle + margin)]
    return inner[0], inner[-1]


def _goal(table: Table, goal: Goal) -> str:
    figure, reached = table.reached(goal)
    if figure is None:
        return f"goal: {goal.text}: not measured"
    told = number(figure)
    if len(figures := table.measured(goal)[1]) >= MANY:
        low, high = _median_range(figures)
        told = f"{figure:.3f} ({low:.3f} to {high:.3f})"
    return f"goal: {goal.text}: {told}, {'reached' if reached else '**not reached**'}"


def number(value: float) -> str:
    """Return a figure with as many digits as mean something."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def goals(report: Report) -> Sequence[tuple[Table, Goal, float | None, bool]]:
    """Return every goal of a report with what was measured for it."""
    return [(table, goal, *table.reached(goal)) for table in report.tables for goal in table.goals]
