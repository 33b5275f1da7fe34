"""Measure this package and its peers side by side: ``python benchmarks [--quick] [section …]``."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from harness import Report, Scale, Workspace, about, goals, number

HERE = Path(__file__).parent
SECTIONS = (
    "store",
    "uploads",
    "crowd",
    "downloads",
    "access",
    "memory",
    "metrics",
    "resumable",
    "object_store",
    "cache",
)


NEEDED = """benchmarks: the module {name!r} is not installed. They need what tox installs for them:

    tox run -e bench -- --quick

or, without tox: pip install --editable . --group bench"""
GOALS = """
Each goal is one that this project has set itself, for a full run on a machine that does nothing
else. A ratio of one round (--quick) can be off by half and more: by a neighbour's load, or a disk
that still writes. NOT REACHED there calls for a full run and is no fault by itself;
docs/benchmarks.md says which goals are not reached, and why."""


def main() -> int:
    """Measure, or publish what was measured; return the exit code."""
    options = parse()
    if options.publish_from:
        first, *others = map(Report.load, options.publish_from)
        for report in others:
            first.merge(report)
        publish(first)
        return 0
    name = "tiny" if options.tiny else "quick" if options.quick else "full"
    rounds = options.rounds or {"full": 5, "quick": 1, "tiny": 1}[name]
    scale = Scale(name, rounds, options.million)
    sections = options.sections or SECTIONS
    try:
        for section in sections:
            importlib.import_module(section)
    except ModuleNotFoundError as error:
        print(NEEDED.format(name=str(error.name).partition(".")[0]), file=sys.stderr)
        return 2
    report, failed = measure(scale, sections, options.root, options.json)
    print_goals(report)
    print(f"\nWritten: {options.json}")
    if failed:
        print(f"benchmarks: not measured to the end: {', '.join(failed)}", file=sys.stderr)
        return 1
    if options.publish:
        publish(report)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], metavar="section")
    parser.add_argument("--quick", action="store_true", help="two or three minutes; only trends")
    parser.add_argument("--tiny", action="store_true", help="seconds; shows only that it runs")
    parser.add_argument("--million", action="store_true", help="trees of up to 1,000,000 files")
    parser.add_argument("--rounds", type=int, help="that count, after one that primes")
    parser.add_argument("--root", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--json", type=Path, default=HERE / "latest.json")
    parser.add_argument("--publish", action="store_true", help="renew the documentation's figures")
    parser.add_argument(
        "--publish-from",
        type=Path,
        metavar="JSON",
        nargs="+",
        help="the same, measured before; tables of a later file replace those of an earlier one",
    )
    return parser.parse_args()


def measure(
    scale: Scale, sections: Sequence[str], root: Path | None, path: Path
) -> tuple[Report, list[str]]:
    """Run the sections; what is done is written down even if a later one fails.

    Returns:
        What was measured, and the sections that failed.
    """
    workspace, failed = Workspace(root), []
    report = Report(about(scale, workspace.path))
    try:
        for section in sections:
            begin = time.monotonic()
            print(f"\n# {section}", flush=True)
            try:
                with workspace.cleaned():
                    importlib.import_module(section).run(report, workspace, scale)
            except Exception as error:
                traceback.print_exc()
                failed.append(section)
                report.leave_out(f"the rest of {section} ({type(error).__name__}: {error})")
            print(f"({section}: {time.monotonic() - begin:.0f} s)", flush=True)
            report.save(path)
    finally:
        workspace.close()
    return report, failed


def print_goals(report: Report) -> None:
    print("\n# Goals")
    print(GOALS.lstrip(), end="\n\n")
    for table, goal, figure, reached in goals(report):
        got = "not measured" if figure is None else number(figure)
        mark = "reached" if reached else "NOT REACHED" if figure is not None else "left out"
        print(f"{mark:12} {got:>8}  {table.title}: {goal.row}: {goal.text}")


def publish(report: Report) -> None:
    import charts

    for path in charts.publish(report, HERE.parent / "docs"):
        print(f"Written: {path}")


if __name__ == "__main__":
    sys.exit(main())
