"""From MCP's records to ours."""

import logging
from types import MappingProxyType
from typing import Any

import pytest
from mcp.types import (
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)

from techrevati.agent.behaviours.mcp.connection import McpConnection
from techrevati.agent.behaviours.mcp.results import descriptor, is_repeatable, origin, result, ui_uri
from techrevati.agent.behaviours.mcp.servers import StdioServer
from techrevati.agent.behaviours.mcp.tool import tool_set
from techrevati.agent.tools import ToolResult

ORIGIN = origin("desk", "t", "stdio")
TEXT = TextContent(type="text", text="one")
IMAGE = ImageContent(type="image", data="AAAA", mime_type="image/png")


def read(*content: Any, **fields: Any) -> ToolResult:
    return result("mcp__desk__t", CallToolResult(content=list(content), **fields), ORIGIN)


def test_12_6_text_is_the_data_and_several_texts_are_lines() -> None:
    assert read(TEXT, TextContent(type="text", text="two")).data == "one\ntwo"
    assert read().data == ""
    assert read(TEXT).metadata == ORIGIN


def test_12_6_structured_content_is_the_data_and_pictures_are_kept_beside_it() -> None:
    given = read(TEXT, IMAGE, structured_content={"n": 1})
    assert given.data == {"n": 1}
    assert [block["type"] for block in given.metadata["mcp.content"]] == ["text", "image"]
    assert "mcp.content" not in read(TEXT, structured_content={"n": 1}).metadata, "text says the same again"


def test_12_6_content_that_is_not_all_text_is_given_as_it_is() -> None:
    assert read(TEXT, IMAGE).data == [
        {"type": "text", "text": "one"},
        {"type": "image", "data": "AAAA", "mimeType": "image/png"},
    ]


def test_12_6_an_error_has_the_server_s_text_as_its_message() -> None:
    given = read(TEXT, is_error=True)
    assert (given.is_error, given.message, given.metadata) == (True, "one", ORIGIN)
    assert read(is_error=True).message == "the MCP server reports an error"


def test_12_6_ui_resources_go_to_the_metadata_and_not_to_the_model() -> None:
    page = TextResourceContents(uri="ui://a", mime_type="text/html", text="<b>")
    given = read(TEXT, EmbeddedResource(type="resource", resource=page))
    assert given.data == "one"
    assert {name: given.metadata[f"mcp.ui.{name}"] for name in ("resourceUri", "content", "mimeType")} == {
        "resourceUri": "ui://a",
        "content": "<b>",
        "mimeType": "text/html",
    }
    blob = BlobResourceContents(uri="ui://b", blob="AAAA")
    assert read(EmbeddedResource(type="resource", resource=blob)).metadata["mcp.ui.content"] == "AAAA"
    other = TextResourceContents(uri="file:///a", text="x")
    assert read(EmbeddedResource(type="resource", resource=other)).data[0]["type"] == "resource"


def tool(name: str = "t", **fields: Any) -> Tool:
    return Tool(name=name, **{"input_schema": {"type": "object"}, **fields})


@pytest.mark.parametrize(
    ("meta", "uri"),
    [
        ({"ui": {"resourceUri": "ui://a"}}, "ui://a"),
        ({"ui/resourceUri": "ui://a"}, "ui://a"),
        ({"ui": {"resourceUri": "https://evil.example"}}, None),
        ({"ui": "ui://a"}, None),
        (None, None),
    ],
)
def test_12_6_a_tool_may_declare_its_looks(meta: Any, uri: str | None) -> None:
    found = tool(_meta=meta)
    assert ui_uri(found) == uri
    assert descriptor("id", found, ORIGIN).metadata.get("mcp.ui.resourceUri") == uri


def test_12_6_a_tool_is_shown_by_its_title_and_has_an_object_schema() -> None:
    assert descriptor("id", tool(title="T"), ORIGIN).name == "T"
    assert descriptor("id", tool(annotations=ToolAnnotations(title="A")), ORIGIN).name == "A"
    assert descriptor("id", tool(), ORIGIN).name == "t"
    assert descriptor("id", tool(input_schema={}), ORIGIN).parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("hints", "repeatable"),
    [
        (None, False),
        (ToolAnnotations(), False),
        (ToolAnnotations(read_only_hint=True), True),
        (ToolAnnotations(idempotent_hint=True, destructive_hint=True), True),
    ],
)
def test_12_6_only_what_the_server_says_so_of_is_repeatable(hints: Any, repeatable: bool) -> None:
    assert is_repeatable(tool(annotations=hints)) is repeatable


def test_12_6_a_tool_with_a_schema_that_is_none_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    connection = McpConnection(StdioServer(name="desk", command="none"))
    good, bad = tool("good"), tool("bad", input_schema={"type": "object", "properties": {"a": {"type": 5}}})
    connection.tools = MappingProxyType({"mcp__desk__good": good, "mcp__desk__bad": bad})
    with caplog.at_level(logging.WARNING):
        assert list(tool_set(connection)) == ["mcp__desk__good"]
    assert "mcp__desk__bad" in caplog.text
