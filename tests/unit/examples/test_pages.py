"""The pages of the examples keep to what exists: commands parse, links lead somewhere."""

from pathlib import Path

import pytest

from tests.unit.project.commands import check, commands
from tests.unit.project.documents import ROOT, blocks, links, name_of

PAGES = sorted((ROOT / "examples").glob("*/README.md"))


def test_each_example_has_a_page() -> None:
    assert [page.parent for page in PAGES] == sorted(app.parent for app in (ROOT / "examples").glob("*/app.py"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_line_parses_with_the_real_program(page: Path) -> None:
    lines = [words for block in blocks("sh", page) for words in commands(block.code)]
    assert len(lines) >= 3
    for words in lines:
        check(words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        assert (page.parent / link.target).exists(), f"{link.document} links to {link.target}"
