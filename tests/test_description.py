"""The page on PyPI: it is rendered as there, and nothing on it leads nowhere."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

from readme_renderer import markdown

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")


class Links(HTMLParser):
    """Collects what a page leads to, or shows."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a link or a picture."""
        self.targets += [value or "" for name, value in attrs if name in ("href", "src")]


def description() -> str:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return (PROJECT / project["readme"]).read_text(encoding="utf-8")


def test_no_link_or_picture_of_the_page_on_pypi_is_dead() -> None:
    page = markdown.render(description())
    assert page is not None
    assert "<h1" in page
    assert page.count("<table") == 1
    links = Links()
    links.feed(page)
    assert [
        target for target in links.targets if not target.startswith(("https://", "mailto:", "#"))
    ] == []


def test_it_shows_the_code_of_the_readme() -> None:
    blocks = re.compile(r"^```python\n.*?^```$", re.DOTALL | re.MULTILINE)
    assert blocks.findall(description()) == blocks.findall(README)
    assert len(blocks.findall(README)) == 3


def test_it_says_what_the_readme_says() -> None:
    for line in description().partition("## Documentation")[0].splitlines():
        assert line in README or "migration page" in line, line
