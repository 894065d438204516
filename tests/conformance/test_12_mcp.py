"""§12.6 of the agent semantics on a fleet: tools of MCP servers in a worker, over both transports."""

from tests.conformance.rules import on_the_fleet
from tests.integration.mcp import test_prompts, test_tools
from tests.integration.mcp.conftest import notes, stdio, web

__all__ = ["notes", "stdio", "web"]

globals().update(on_the_fleet(test_tools) | on_the_fleet(test_prompts))
