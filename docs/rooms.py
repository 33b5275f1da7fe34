"""Renew the table of rooms in design.md, from the first docstring line of each module.

Run it after adding, moving or renaming a module: ``python docs/rooms.py``. A test compares.
"""

from __future__ import annotations

import ast
from pathlib import Path

DOCS = Path(__file__).parent
PAGE = DOCS / "design.md"
PACKAGE = DOCS.parent / "flask_hashfs"
BEGIN, END = "<!-- rooms: begin -->\n", "<!-- rooms: end -->\n"
GROUND_FIRST = ["", "_http", "_storage", "_local", "_bucket", "_cache", "_store"]
GROUND_FIRST += ["testing", "_app", "_flask", "_quart"]


def summary(path: Path) -> str:
    """Return the first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def table() -> str:
    """Return the rooms and their modules, from the ground floor up, as a Markdown table."""
    lines = ["| module | holds |", "|---|---|"]
    for room in GROUND_FIRST:
        folder = PACKAGE / room
        if room:
            lines.append(f"| **`{room}`** | **{summary(folder / '__init__.py')}** |")
        for path in sorted(folder.glob("*.py")):
            if path.stem != "__init__":
                name = f"{room}.{path.stem}" if room else path.stem
                lines.append(f"| `{name}` | {summary(path)} |")
    return "\n".join(lines) + "\n"


def renewed(page: str) -> str:
    """Return the page with the table as the modules have it now."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
