"""Docs point at what exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_every_page_of_the_docs_is_in_their_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = {p for p in (ROOT / "docs").rglob("*.md") if p.parent.name != "decisions" and p.name != "README.md"}
    unlisted = [str(p.relative_to(ROOT / "docs")) for p in pages if f"({p.relative_to(ROOT / 'docs')})" not in index]
    assert not unlisted


def test_the_first_commands_of_the_readme_are_make_demo_and_make_test() -> None:
    commands = re.findall(r"^\$ (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]
