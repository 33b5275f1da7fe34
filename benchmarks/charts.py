"""A report as the documentation shows it: charts (SVG, made by hand) and tables (Markdown)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from harness import Metric, Report, Series, Table, number, render_table

WIDTH, LABELS, LINE, MARGIN = 760, 270, 26, 16
# The colours of a bright and of a dark page; ours is told by its name too.
COLOURS = {
    "paper": ("#ffffff", "#1a1c1e"),
    "ink": ("#1f2933", "#e6e8ea"),
    "grid": ("#d9dee3", "#3a3f45"),
    "ours": ("#0b6e4f", "#4cc39a"),
    "other": ("#8d99a6", "#7a8794"),
    "second": ("#b4431f", "#f08a6a"),
    "third": ("#3c5a99", "#8fb0ff"),
    "fourth": ("#7a6a00", "#d6c24a"),
}
OURS, OTHER, INK, GRID = "var(--ours)", "var(--other)", "var(--ink)", "var(--grid)"
LINES = (OURS, "var(--second)", "var(--third)", "var(--fourth)")
CEILING = "the load generator's ceiling"

STORE_CHART = {
    "small-BytesIO": "new files of 4 KiB",
    "small-duplicate": "duplicates of 4 KiB",
    "put-a-new-1-MiB-BytesIO": "new files of 1 MiB",
    "put-a-new-256-MiB-path": "a new file of 256 MiB, by its path",
    "put-a-new-256-MiB-BytesIO": "a new file of 256 MiB, BytesIO",
    "put-a-duplicate-of-256-MiB-path": "a duplicate of 256 MiB, by its path",
}
BAR_CHARTS = {
    "upload-quart-multipart-64-clients-x-1-mib-at-once": "uploads-multipart",
    "upload-quart-raw-64-clients-x-1-mib-at-once": "uploads-raw",
    "upload-flask-multipart-8-x-10-mib,-one-by-one": "uploads-flask",
    "download-10-MiB": "downloads-10-mib",
    "download-1-KiB": "downloads-1-kib",
}
MEMORY_CHARTS = {"crowd-held-1000-uvicorn": "crowd-memory"}


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    low: float
    high: float
    ours: bool


def publish(report: Report, docs: Path) -> list[Path]:
    """Write the charts and the tables of a report, and the report itself."""
    written = []

    def write(path: Path, text: str) -> None:
        path.write_text(text)
        written.append(path)

    for name, svg in draw(report).items():
        write(docs / "_static" / f"benchmark-{name}.svg", svg)
    write(docs / "benchmarks_tables.inc", tables(report))
    write(docs / "benchmarks_summary.inc", summary(report))
    target = docs.parent / "benchmarks" / "published.json"
    report.save(target)
    return [*written, target]


def draw(report: Report) -> dict[str, str]:
    """Return every chart that a report has the figures for, by its name."""
    by_key = {table.key: table for table in report.tables}
    charts = {}
    if bars := _store_bars(by_key):
        title = "Storing: how many times as fast as hashfs (FSYNC off)"
        charts["store"] = bar_chart(title, bars)
    for chosen, wanted in ((BAR_CHARTS, "rate"), (MEMORY_CHARTS, "memory")):
        for key, name in chosen.items():
            if key in by_key:
                table = by_key[key]
                metric = _metric(table, wanted)
                title = f"{table.title[0].upper()}{table.title[1:]}: {metric.title}"
                unit = metric.unit or f"{table.baseline} = 1"
                charts[name] = bar_chart(f"{title}, {unit}", _bars(table, metric))
    for series in report.series:
        if series.lines:
            charts[series.key] = line_chart(series)
    return charts


def _store_bars(tables: dict[str, Table]) -> list[Bar]:
    bars = []
    for key, label in STORE_CHART.items():
        rows = tables[key].rows if key in tables else {}
        pairs = zip(rows.get("hashfs", ()), rows.get("Flask-HashFS", ()), strict=False)
        if ratios := [theirs["time"] / ours["time"] for theirs, ours in pairs]:
            bars.append(_bar(label, ratios, ours=True))
    return bars


def _metric(table: Table, key: str) -> Metric:
    return next(metric for metric in table.metrics if metric.key == key)


def _bars(table: Table, metric: Metric) -> list[Bar]:
    return [
        _bar(row, figures, ours="Flask-HashFS" in row or row.startswith("the same, FSYNC"))
        for row in table.rows
        if row != CEILING and (figures := table.figures(row, metric))
    ]


def _bar(label: str, figures: Sequence[float], *, ours: bool) -> Bar:
    return Bar(label, statistics.median(figures), min(figures), max(figures), ours)


# --- SVG -----------------------------------------------------------------------------------------


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Return horizontal bars from 0, each with its figure and its range."""
    top = 2 * MARGIN + LINE
    room = WIDTH - LABELS - 4 * MARGIN - 40
    scale = room / max(bar.high for bar in bars)
    parts = []
    for index, bar in enumerate(bars):
        y = top + index * LINE
        middle = y + LINE / 2
        length = max(1.0, bar.value * scale)
        low, high = LABELS + MARGIN + bar.low * scale, LABELS + MARGIN + bar.high * scale
        weight = ' font-weight="600"' if bar.ours else ""
        parts += [
            f'<text x="{LABELS}" y="{middle + 4:.1f}" text-anchor="end"{weight}>'
            f"{escape(bar.label)}</text>",
            f'<rect x="{LABELS + MARGIN}" y="{y + 4:.1f}" width="{length:.1f}" '
            f'height="{LINE - 8}" fill="{OURS if bar.ours else OTHER}"/>',
            f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="{INK}"/>',
            f'<text x="{max(high, LABELS + MARGIN + length) + 6:.1f}" y="{middle + 4:.1f}"'
            f"{weight}>{number(bar.value)}</text>",
        ]
    return _svg(title, top + len(bars) * LINE + MARGIN, parts)


def line_chart(series: Series) -> str:
    """Return MiB over seconds, a line for each server."""
    points = [point for line in series.lines.values() for point in line]
    step = _step(max(mib for _, mib in points))
    highest = step * math.ceil(max(1.0, max(mib for _, mib in points)) / step)
    longest = max(second for second, _ in points) or 1.0
    left, right = 70, WIDTH - MARGIN
    top, bottom = 2 * MARGIN + LINE * (1 + len(series.lines)), 400

    def place(second: float, mib: float) -> str:
        x = left + (right - left) * second / longest
        return f"{x:.1f} {bottom - (bottom - top) * mib / highest:.1f}"

    parts = []
    for tick in range(round(highest / step) + 1):
        y = float(place(0, tick * step).split()[1])
        parts.append(f'<path d="M{left} {y}H{right}" stroke="{GRID}"/>')
        label = f"{number(tick * step).removesuffix('.00').removesuffix('.0')} MiB"
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{label}</text>')
    for second in range(0, int(longest) + 1, max(1, round(longest / 6))):
        x = place(second, 0).split()[0]
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{second} s</text>')
    for index, (name, line) in enumerate(series.lines.items()):
        colour, dash = LINES[index % len(LINES)], ("", "7 4", "2 3")[index % 3]
        style = f'fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"'
        y = 2 * MARGIN + LINE * (index + 1)
        parts.append(f'<path d="M{left} {y}h34" {style}/>')
        parts.append(f'<text x="{left + 42}" y="{y + 4}">{escape(name)}</text>')
        parts.append(f'<path d="M{"L".join(place(*point) for point in line)}" {style}/>')
    return _svg(f"Memory growth of the server: {series.title}", bottom + 34, parts)


def _step(highest: float) -> float:
    """Return a round distance of about five grid lines."""
    rough = max(1.0, highest) / 5
    power = 10 ** math.floor(math.log10(rough))
    return float(next(power * part for part in (1, 2, 5, 10) if power * part >= rough))


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    """Return a picture that is bright or dark as the page is that shows it."""
    bright, dark = (
        "".join(f"--{name}:{both[index]};" for name, both in COLOURS.items()) for index in (0, 1)
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" role="img" font-size="13" fill="{INK}" '
            'font-family="system-ui, sans-serif">',
            f"<title>{escape(title)}</title>",
            f"<style>:root{{{bright}}}"
            f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>",
            '<rect width="100%" height="100%" fill="var(--paper)" rx="6"/>',
            f'<text x="{MARGIN}" y="{MARGIN + 14}" font-size="14" font-weight="600">'
            f"{escape(title)}</text>",
            *parts,
            "</svg>",
            "",
        ]
    )


# --- Markdown ------------------------------------------------------------------------------------


SUMMARY = {
    "upload-quart-multipart-64-clients-x-1-mib-at-once": "64 forms of 1 MiB at once into Quart",
    "upload-quart-raw-64-clients-x-1-mib-at-once": "64 raw bodies of 1 MiB at once into Quart",
    "upload-flask-multipart-8-x-10-mib,-one-by-one": "forms of 10 MiB, one by one, into Flask",
    "download-10-MiB": "downloads of 10 MiB",
}


def summary(report: Report) -> str:
    """Return one small table: the throughput of the best of ours beside each baseline."""
    lines = ["|  | Flask-HashFS | compared with |", "| --- | ---: | --- |"]
    for table in report.tables:
        if table.key not in SUMMARY:
            continue
        bars = _bars(table, _metric(table, "rate"))
        ours = [bar for bar in bars if bar.ours and "FSYNC" not in bar.label]
        best = max(ours, key=lambda bar: bar.value)
        lines.append(f"| {SUMMARY[table.key]} | {number(best.value)} | {table.baseline} = 1 |")
    for bar in _store_bars({table.key: table for table in report.tables}):
        lines.append(f"| {bar.label}, without a server | {number(bar.value)} | hashfs = 1 |")
    return "\n".join(lines) + "\n"


def tables(report: Report) -> str:
    """Return all tables, what was left out, and on what it was measured."""
    versions = report.about["versions"]
    assert isinstance(versions, dict)
    lines = [f"- {key}: {value}" for key, value in report.about.items() if key != "versions"]
    lines.append("- " + ", ".join(f"{name} {what}" for name, what in sorted(versions.items())))
    parts = ["## Measured on", "\n".join(lines)]
    busy = float(str(report.about["load at the start"])) > 1
    if busy or report.about["mode"] != "full":
        parts.append("**A quick run, or one on a busy machine: these figures show trends only.**")
    if report.left_out:
        parts += ["Left out:", "\n".join(f"- {line}" for line in report.left_out)]
    parts.append("## Tables")
    for table in report.tables:
        parts += [f"### {table.title[0].upper()}{table.title[1:]}", render_table(table).strip()]
    return "\n\n".join(parts) + "\n"
