"""An MCP server's tools as tools of an agent."""

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp.types import REQUEST_TIMEOUT, Tool
from pydantic import ValidationError

from techrevati.agent.behaviours.mcp.connection import McpConnection
from techrevati.agent.behaviours.mcp.faults import CallInDoubt, McpUnavailable
from techrevati.agent.behaviours.mcp.names import DuplicateTool
from techrevati.agent.behaviours.mcp.results import descriptor, is_repeatable, origin, result, ui_metadata, ui_uri
from techrevati.agent.errors import BadToolSchema
from techrevati.agent.schemas import check_arguments, check_schema
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolDescriptor, ToolExecutionEffect, ToolProgress, ToolResult, ToolSet

log = logging.getLogger(__name__)


class McpTool:
    """One tool of one server.  Errors of the server and of the way to it become error results."""

    def __init__(self, connection: McpConnection, tool_id: str, tool: Tool) -> None:
        self._connection, self._tool = connection, tool
        self._origin = origin(connection.server.name, tool.name, connection.server.kind)
        self._descriptor = descriptor(tool_id, tool, self._origin)

    @property
    def descriptor(self) -> ToolDescriptor:
        return self._descriptor

    @property
    def origin(self) -> str:
        """Say which tool of which server this is."""
        return f"{self._connection.server.name}: {self._tool.name}"

    @property
    def repeatable(self) -> bool:
        return is_repeatable(self._tool)

    def validate(self, arguments: Any) -> None:
        check_arguments(self._descriptor, arguments)

    async def run(self, arguments: Any, ctx: ToolCallContext) -> ToolExecutionEffect:
        def progress(done: float, total: float | None, message: str | None) -> None:
            share = done / total if total else None
            ctx.report_progress(ToolProgress("running", share, done, total, message))

        name = self._descriptor.id
        try:
            answer = await self._connection.call(
                self._tool.name,
                arguments or {},
                on_progress=progress,
                repeatable=self.repeatable,
                idempotency_key=ctx.idempotency_key,
            )
        except McpUnavailable as error:
            return self._failed(str(error), "mcp_unavailable")
        except CallInDoubt as error:
            return self._failed(str(error), "mcp_connection_lost")
        except MCPError as error:
            return self._failed(error.message, "mcp_timeout" if error.code == REQUEST_TIMEOUT else "mcp_error")
        except (ValidationError, RuntimeError) as error:  # RuntimeError: structured content against its own schema
            return self._failed(f"the server's answer does not follow the protocol: {error}", "mcp_error")
        given = result(name, answer, self._origin)
        uri = ui_uri(self._tool)
        if uri is not None and not answer.is_error and "mcp.ui.content" not in given.metadata:
            given.metadata.update(await self._ui(uri))
        return ToolExecutionEffect(given)

    async def _ui(self, uri: str) -> dict[str, Any]:
        try:
            found = await self._connection.read_resource(uri)
        except (MCPError, McpUnavailable, ValidationError):
            return {"mcp.ui.resourceUri": uri}  # the result stands without its looks
        return ui_metadata(uri, found.contents[0]) if found.contents else {"mcp.ui.resourceUri": uri}

    def _failed(self, message: str, code: str) -> ToolExecutionEffect:
        failure = ToolResult.error(self._descriptor.id, message, code=code)
        failure.metadata.update(self._origin)
        return ToolExecutionEffect(failure)


def tool_set(*connections: McpConnection, tools: Sequence[str] = ("*",)) -> ToolSet:
    """Give the tools that the servers have now: a frozen snapshot, to be taken once per run.

    A tool whose schema is none is left out, with a warning.

    Args:
        tools: Globs of ids (``mcp__github__*``); a tool must match one.

    Raises:
        DuplicateTool: two servers have tools of one id.
    """
    found: dict[str, McpTool] = {}
    for connection in connections:
        known: Mapping[str, Tool] = connection.tools
        for name, tool in known.items():
            if name in found:
                raise DuplicateTool(name, connection.server.name, (found[name].origin, tool.name))
            if not any(fnmatchcase(name, glob) for glob in tools):
                continue
            made = McpTool(connection, name, tool)
            try:
                check_schema(made.descriptor)
            except BadToolSchema as error:  # one bad tool of a server must not cost the others
                log.warning("MCP server %s: %s", connection.server.name, error)
            else:
                found[name] = made
    return MappingProxyType(found)
