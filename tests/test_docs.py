"""The code in the documentation and the README runs, top to bottom, page by page."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser

PROJECT = Path(__file__).parents[1]
PAGES = sorted([PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = Sybil([PythonCodeBlockParser()], path=str(page.parent)).parse(page)
    document.namespace["__name__"] = __name__  # which Flask(__name__) looks up
    try:
        for example in document.examples():
            example.evaluate()
    finally:
        for each in document.namespace.values():
            if isinstance(each, Engine):  # Python 3.13 warns of connections left open
                each.dispose()
