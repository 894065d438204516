"""Where approved articles go: one Markdown file each, under the name that its title makes.

title, text ──▶ slug.md.part ──rename──▶ slug.md
"""

import re
from pathlib import Path
from typing import Any

from techrevati.agent.tools import ToolError

TITLE_MOST = 120  # characters


class Shelf:
    """A directory of published articles; it is made with the first of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def publish(self, title: str, text: str) -> dict[str, Any]:
        """Write an article; the same one again changes nothing, so that a repeated call is harmless.

        Raises:
            ToolError: the title makes no name, or another article has it.
        """
        name = slug(title)
        if not name or len(title) > TITLE_MOST:
            raise ToolError(f"the title {title!r} needs letters or digits, and at most {TITLE_MOST} characters")
        place, article = self.directory / f"{name}.md", f"# {title}\n\n{text.strip()}\n"
        if place.exists() and place.read_text("utf-8") != article:
            raise ToolError(f"{place.name} is another article already; choose another title")
        self.directory.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(".md.part")
        part.write_text(article, "utf-8")
        part.replace(place)
        return {"path": str(place), "characters": len(article)}


def slug(title: str) -> str:
    """Give the file name of a title: its letters and digits in lower case, joined by dashes."""
    return "-".join(re.findall(r"[^\W_]+", title.lower()))
