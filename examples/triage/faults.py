"""What the technical desk knows: faults and their remedies, found by what a customer says of them."""

from pathlib import Path

from examples.extract import sections
from examples.ranking import Index

FAULTS = Path(__file__).parent / "records" / "faults.md"


class Faults:
    """The second-level sections of a Markdown file: a fault each, with its remedy below."""

    def __init__(self, path: Path = FAULTS) -> None:
        self._faults = [part for part in sections(path.read_text("utf-8")) if part.level == 2]
        self._index = Index(
            [f"{fault.heading}. {fault.heading}. {' '.join(fault.sentences)}" for fault in self._faults]
        )

    def known(self, symptom: str, limit: int) -> list[dict[str, str]]:
        """Give the faults that a symptom resembles, the likest first."""
        found = [self._faults[place] for place, _ in self._index.rank(symptom, limit=limit)]
        return [{"fault": fault.heading, "remedy": " ".join(fault.sentences)} for fault in found]
