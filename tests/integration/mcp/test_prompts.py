"""Prompts of a real MCP server as skills."""

import pytest

from techrevati.agent.behaviours.mcp.connection import McpConnection
from techrevati.agent.behaviours.mcp.prompts import McpPrompts, prompt_skill_name
from techrevati.agent.behaviours.mcp.servers import Patience, StdioServer
from techrevati.agent.behaviours.skills import Skills
from tests.integration.mcp.conftest import WebServer
from tests.integration.mcp.test_connection import until
from tests.unit.agent.scripted import Script, World, agent, calls, said

QUICK = Patience(connect=30.0, call=10.0, backoff=0.05)


async def test_12_3_a_server_s_prompt_is_taken_up_like_any_skill(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        skills = Skills(McpPrompts(connection))
        model = Script(calls(("s", "skill", {"name": "desk-daily-report"})), said("ok"))
        await World(model, agent(tools=skills.tools, behaviors=(skills,))).run()
        listed = model.requests[0].messages[0].content
        assert "<name>desk-daily-report</name><description>How the daily report is written.</description>" in listed
        assert "letter" not in listed, "it needs an argument"
        assert any("Write the report in three lines." in m.content for m in model.requests[1].messages)


async def test_12_3_prompts_of_a_server_that_is_away_stay_and_nobody_waits(web: WebServer) -> None:
    now = [0.0]
    async with McpConnection(web.place, patience=QUICK) as connection:
        source = McpPrompts(connection, keep=60, clock=lambda: now[0])
        before = await source.look()
        assert list(before.skills) == ["desk-daily-report"]
        web.kill()
        await until(lambda: not connection.is_connected, "the loss was not noticed")
        now[0] = 1000
        assert await source.look() is before


@pytest.mark.parametrize(
    ("server", "prompt", "name"),
    [
        ("my desk", "Daily_Report!", "my-desk-daily-report"),
        ("a", "x" * 90, "a-" + "x" * 62),
        ("a", "b" * 61 + " c", "a-" + "b" * 61),
    ],
)
def test_12_3_a_prompt_s_name_becomes_a_skill_s(server: str, prompt: str, name: str) -> None:
    assert prompt_skill_name(server, prompt) == name
