"""A directory of Markdown files, as passages that can be searched.

corpus/*.md ──▶ one passage per paragraph, with its file and heading ──Index──▶ the best for a query
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.extract import sections
from examples.ranking import Index
from techrevati.runtime.errors import TechrevatiError

HERE = Path(__file__).parent / "corpus"


class EmptyLibrary(TechrevatiError):
    """There is nothing to search."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.directory = directory

    def __str__(self) -> str:
        return f"{self.directory} holds no *.md file with a sentence in it; fix: give a directory that does"


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph, and where it stands."""

    source: str  # file name
    heading: str
    text: str


class Library:
    """What the research agent may look into; read when it is made."""

    def __init__(self, directory: Path = HERE) -> None:
        """Read the files.

        Raises:
            EmptyLibrary.
        """
        files = sorted(directory.glob("*.md"))
        self.passages = [passage for file in files for passage in passages(file.name, file.read_text("utf-8"))]
        if not self.passages:
            raise EmptyLibrary(str(directory))
        self._index = Index([f"{passage.heading}. {passage.text}" for passage in self.passages])

    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        """Give the best passages with their scores, as JSON."""
        found = self._index.rank(query, limit=limit)
        return [{**asdict(self.passages[place]), "score": round(score, 3)} for place, score in found]


def passages(source: str, markdown: str) -> list[Passage]:
    """Cut a document at its blank lines; every paragraph keeps the heading above it."""
    found: list[Passage] = []
    heading = ""
    for block in markdown.split("\n\n"):
        for section in sections(block):
            heading = section.heading or heading
            if section.sentences:
                found.append(Passage(source, heading, " ".join(section.sentences)))
    return found
