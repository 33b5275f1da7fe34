"""The code in the documentation and the README runs, top to bottom, page by page."""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser

import flask_hashfs

PROJECT = Path(__file__).parents[1]
PAGES = sorted(
    [PROJECT / "README.md", PROJECT / "DESCRIPTION.md", *(PROJECT / "docs").glob("*.md")]
)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = Sybil([PythonCodeBlockParser()], path=str(page.parent)).parse(page)
    document.namespace["__name__"] = __name__  # which Flask(__name__) looks up
    try:
        for example in document.examples():
            example.evaluate()
    finally:
        logging.getLogger("flask_hashfs").handlers.clear()
        for each in document.namespace.values():
            if isinstance(each, Engine):  # Python 3.13 warns of connections left open
                each.dispose()


@pytest.mark.slow
def test_the_table_of_rooms_is_that_of_the_modules() -> None:
    """`python docs/rooms.py` renews it."""
    spec = importlib.util.spec_from_file_location("rooms", PROJECT / "docs" / "rooms.py")
    assert spec is not None
    assert spec.loader is not None
    rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rooms)
    page = rooms.PAGE.read_text(encoding="utf-8")
    assert rooms.renewed(page) == page


def test_the_modules_that_the_design_names_are_there() -> None:
    page = (PROJECT / "docs" / "design.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+/\w+\.py)`", page))
    package = Path(flask_hashfs.__file__).parent
    assert "_store/checks.py" in named
    assert [name for name in sorted(named) if not (package / name).is_file()] == []


def test_the_api_page_has_every_public_name() -> None:
    page = (PROJECT / "docs" / "api.md").read_text(encoding="utf-8")
    whole = {*flask_hashfs.exceptions.__all__, *flask_hashfs.signals.__all__}  # as modules
    assert "automodule:: flask_hashfs.exceptions" in page
    assert "automodule:: flask_hashfs.signals" in page
    missing = {
        name for name in flask_hashfs.__all__ if not re.search(rf"::.*\b{name}\b", page)
    } - whole
    assert missing == set()
