"""What the documents of this project say, as values that tests can hold them to.

README.md, docs/*.md, docs/guides/*.md ──▶ code blocks, links, headings
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]\n]+)\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a document; `line` is that of its first line of code."""

    document: str
    language: str
    line: int
    code: str


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a document; `target` as it is written there."""

    document: str
    text: str
    target: str


def documents() -> list[Path]:
    """Give every document for readers."""
    return sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(language: str, *paths: Path) -> Iterator[Block]:
    """Give the fenced blocks of a language, in order."""
    for path in paths or documents():
        text = path.read_text("utf-8")
        for match in FENCE.finditer(text):
            if match[1] == language:
                yield Block(name_of(path), match[1], text[: match.start(2)].count("\n") + 1, match[2])


def links(*paths: Path) -> Iterator[Link]:
    """Give the links outside code."""
    for path in paths or documents():
        for match in LINK.finditer(FENCE.sub("", path.read_text("utf-8"))):
            yield Link(name_of(path), match[1], match[2])


def anchors(path: Path) -> set[str]:
    """Give the anchors of a document's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text("utf-8")), re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found
