"""From MCP's records to ours: tools to descriptors, results to results.

structured content, or the text, or the raw content  ──▶ data
ui:// resources                                      ──▶ metadata ``mcp.ui.*``, for clients
"""

from collections.abc import Mapping
from typing import Any

from mcp.types import CallToolResult, EmbeddedResource, TextContent, TextResourceContents, Tool

from techrevati.agent.tools import ToolDescriptor, ToolResult, ToolStatus

UI_SCHEME = "ui://"


def origin(server: str, tool: str, transport: str) -> dict[str, Any]:
    """Give the metadata that descriptor and results carry."""
    return {"mcp.server": server, "mcp.tool": tool, "mcp.transport": transport}


def ui_uri(tool: Tool) -> str | None:
    """Give the UI resource that a tool declares for its results, if it does."""
    meta = tool.meta or {}
    nested = meta.get("ui")
    found = nested.get("resourceUri") if isinstance(nested, Mapping) else None
    found = found or meta.get("ui/resourceUri")
    return found if isinstance(found, str) and found.startswith(UI_SCHEME) else None


def descriptor(tool_id: str, tool: Tool, metadata: Mapping[str, Any]) -> ToolDescriptor:
    """Describe a server's tool as one of ours."""
    schema = {"type": "object", "properties": {}, **tool.input_schema}
    uri = ui_uri(tool)
    return ToolDescriptor(
        tool_id,
        tool.title or (tool.annotations.title if tool.annotations else None) or tool.name,
        tool.description or "",
        schema,
        "mcp",
        {**metadata, **({"mcp.ui.resourceUri": uri} if uri else {})},
    )


def is_repeatable(tool: Tool) -> bool:
    """Tell whether the server says that a call may be made twice."""
    hints = tool.annotations
    return hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)


def result(tool_id: str, answer: CallToolResult, metadata: Mapping[str, Any]) -> ToolResult:
    """Give the tool result of an MCP answer.

    `data` is the structured content, else the text, else the list of content blocks; what of the content
    `data` does not show is in the metadata as ``mcp.content``.
    """
    shown = [block for block in answer.content if not _is_ui(block)]
    text = "\n".join(block.text for block in shown if isinstance(block, TextContent))
    only_text = all(isinstance(block, TextContent) for block in shown)
    blocks = [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in shown]
    notes = dict(metadata)
    data: Any
    if answer.structured_content is not None:
        data = answer.structured_content
        if not only_text:
            notes["mcp.content"] = blocks
    else:
        data = text if only_text else blocks
    for block in answer.content:
        if isinstance(block, EmbeddedResource) and _is_ui(block):
            notes.update(ui_metadata(block.resource.uri, block.resource))
    if not answer.is_error:
        return ToolResult(tool_id, ToolStatus.SUCCESS, data, metadata=notes)
    return ToolResult(tool_id, ToolStatus.ERROR, data, text or "the MCP server reports an error", notes)


def _is_ui(block: Any) -> bool:
    return isinstance(block, EmbeddedResource) and str(block.resource.uri).startswith(UI_SCHEME)


def ui_metadata(uri: str, resource: Any) -> dict[str, Any]:
    """Give the ``mcp.ui.*`` entries of a UI resource; binary content stays base64."""
    content = resource.text if isinstance(resource, TextResourceContents) else resource.blob
    found = {"mcp.ui.resourceUri": str(uri), "mcp.ui.content": content}
    return found | ({"mcp.ui.mimeType": resource.mime_type} if resource.mime_type else {})
