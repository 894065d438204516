"""Names of MCP tools."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.agent.behaviours.mcp.names import DuplicateTool, tool_id, tool_ids


@pytest.mark.parametrize(
    ("server", "tool", "name"),
    [
        ("github", "create_issue", "mcp__github__create_issue"),
        ("my server", "files/read.text", "mcp__my_server__files_read_text"),
        ("a__b", "__c__", "mcp__a_b__c"),
        ("…", "…", "mcp_____" + "_"),
    ],
)
def test_12_6_a_tool_is_named_after_its_server(server: str, tool: str, name: str) -> None:
    assert tool_id(server, tool) == name


@settings(max_examples=200)
@given(st.text(max_size=80), st.text(max_size=80))
def test_12_6_every_name_is_one_that_providers_take(server: str, tool: str) -> None:
    assert re.fullmatch(r"mcp__[A-Za-z0-9_-]{1,59}", tool_id(server, tool))
    assert tool_id(server, tool) == tool_id(server, tool)


def test_12_6_long_names_stay_apart() -> None:
    one, other = tool_id("s", "x" * 90 + "1"), tool_id("s", "x" * 90 + "2")
    assert one != other
    assert len(one) == len(other) == 64


def test_12_6_two_tools_of_one_id_are_refused() -> None:
    with pytest.raises(DuplicateTool, match=r"'a\.b' and 'a/b' would both be 'mcp__s__a_b'"):
        tool_ids("s", ["a.b", "c", "a/b"])
