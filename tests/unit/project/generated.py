"""The parts of the documents that are written from the code; ``make docs`` writes them.

Settings.model_fields ──▶ docs/guides/operating.md
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from techrevati.fleet.settings import Settings
from tests.unit.project.documents import ROOT

OPERATING = ROOT / "docs" / "guides" / "operating.md"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a document between two markers, and who writes it."""

    path: Path
    name: str
    make: Callable[[], str]

    def into(self, text: str) -> str:
        """Put what is true today into a document."""
        begin, end = f"<!-- {self.name}: begin -->\n", f"<!-- {self.name}: end -->\n"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        return f"{head}{begin}{self.make()}{end}{tail}"


def settings_table() -> str:
    """Give the table of all settings."""
    rows = ["| variable | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, bool):
            shown = f"`{str(default).lower()}`"
        elif isinstance(default, float):
            shown = f"`{default:g}` s"
        else:
            shown = f"`{default}`" if default != "" else "empty"
        rows.append(f"| `TECHREVATI_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"


PARTS = [Part(OPERATING, "settings", settings_table)]


def write() -> None:
    for part in PARTS:
        part.path.write_text(part.into(part.path.read_text("utf-8")), "utf-8")


if __name__ == "__main__" and "--write" in sys.argv:
    write()
