"""The form in which notes travel from the researcher to the others: plain Markdown.

## Heading
* what must be in the article
- what may be in it
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """One thing the researcher found; a key note must be in the article."""

    heading: str
    text: str
    key: bool


def read_notes(markdown: str) -> list[Note]:
    """Read ``## heading``, ``* key note`` and ``- note`` lines.

    A heading whose notes carry no star has its first one for a key.
    """
    notes: list[Note] = []
    for block in re.split(r"^(?=#)", markdown, flags=re.MULTILINE):
        heading = next((line.lstrip("# ").strip() for line in block.splitlines() if line.startswith("#")), "")
        found = [m.groups() for m in re.finditer(r"^([*-])\s+(\S.*)$", block, re.MULTILINE)]
        starred = any(mark == "*" for mark, _ in found)
        notes += [
            Note(heading, text.strip(), mark == "*" if starred else index == 0)
            for index, (mark, text) in enumerate(found)
        ]
    return notes
