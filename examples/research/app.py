"""A research agent that may look things up by itself, and publishes only what a person has approved.

    question ──▶ search, search ──▶ publish? ── waits, holding no worker ──▶ decide ──▶ published/<title>.md
                 in a pool of their own

    techrevati up examples.research.app:fleet        python -m examples.research.client "How …?"

``TECHREVATI_DEMO_MODEL=openai:NAME`` puts a provider's model in the place of the offline one.
"""

import os
from pathlib import Path
from typing import Any

from examples.research.library import Library
from examples.research.model import ResearchModel
from examples.research.shelf import Shelf
from techrevati.agent.behaviours.permissions import Permissions
from techrevati.agent.definition import AgentDefinition
from techrevati.agent.tools import Tool
from techrevati.agent.typed_tool import tool
from techrevati.fleet import Fleet

LIBRARY = "library"  # the pool that searches: reading is work for a processor, and would hold up who waits for models
PATIENCE = 7 * 86_400  # s a question waits for its answer; then the call is denied

INSTRUCTIONS = """\
You are a researcher with a small library. Search it until you can answer the question, then publish a short
article whose every sentence stands in a passage you found, each paragraph with its source in [brackets]. A person
decides whether it is published. End with where it is, or, if it was denied, with the article itself."""


def tools(library: Library, shelf: Shelf) -> tuple[Tool, ...]:
    """Give the agent's tools over a library and a shelf."""

    @tool(timeout=10, role=LIBRARY)
    def search(query: str, limit: int = 4) -> list[dict[str, Any]]:
        """Find the passages of the library that are about a query, the best first."""
        return library.search(query, max(1, min(limit, 10)))

    @tool(timeout=10)
    def publish(title: str, text: str) -> dict[str, Any]:
        """Publish an article in Markdown, without its headline, under a title."""
        return shelf.publish(title, text)

    return search, publish


def build(model: str = "offline", *, published: Path = Path("published"), latency: float = 0.0) -> Fleet:
    """Make the fleet; articles go to `published`, below the directory in which its worker runs."""
    fleet = Fleet("research")
    fleet.model("offline", ResearchModel(latency=latency))
    fleet.define(
        AgentDefinition(
            id="researcher",
            model=model,
            instructions=INSTRUCTIONS,
            tools=tools(Library(), Shelf(published)),
            behaviors=(Permissions(["allow search", "ask publish"], default="deny", timeout=PATIENCE),),
        )
    )
    return fleet


fleet = build(os.environ.get("TECHREVATI_DEMO_MODEL", "offline"))
