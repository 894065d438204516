"""Names of MCP tools as the model knows them: ``mcp__<server>__<tool>``.

Providers allow letters, digits, ``_`` and ``-``, up to 64 of them; servers name their tools as they like.
"""

import hashlib
import re
from collections.abc import Iterable

from techrevati.agent.errors import AgentError

MAX_NAME = 64
PREFIX = "mcp"


class DuplicateTool(AgentError):
    """Two MCP tools that would have one id."""

    def __init__(self, tool_id: str, server: str, tools: tuple[str, str]) -> None:
        super().__init__(tool_id, server, tools)
        self.tool_id, self.server, self.tools = tool_id, server, tools

    def __str__(self) -> str:
        one, other = self.tools
        return (
            f"MCP server {self.server!r}: tools {one!r} and {other!r} would both be {self.tool_id!r}; "
            "fix: rename one on the server, or exclude one with `tools=`"
        )


def sanitised(name: str) -> str:
    """Replace what a tool name may not have; never empty, and without the ``__`` that separates the parts."""
    return re.sub(r"_{2,}", "_", re.sub(r"[^A-Za-z0-9_-]", "_", name)).strip("_") or "_"


def tool_id(server: str, tool: str) -> str:
    """Give the id of a server's tool; one over 64 characters is cut and ends in a digest, so it stays its own."""
    full = f"{PREFIX}__{sanitised(server)}__{sanitised(tool)}"
    if len(full) <= MAX_NAME:
        return full
    digest = hashlib.sha256(f"{server}\0{tool}".encode()).hexdigest()[:8]
    return f"{full[: MAX_NAME - 9]}_{digest}"


def tool_ids(server: str, tools: Iterable[str]) -> dict[str, str]:
    """Map ids to a server's tool names.

    Raises:
        DuplicateTool: two names become one id.
    """
    found: dict[str, str] = {}
    for tool in tools:
        name = tool_id(server, tool)
        if name in found:
            raise DuplicateTool(name, server, (found[name], tool))
        found[name] = tool
    return found
