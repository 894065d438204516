"""MCP tools as an agent's tools, against a real server."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from techrevati.agent.behaviours.mcp.connection import McpConnection
from techrevati.agent.behaviours.mcp.names import DuplicateTool
from techrevati.agent.behaviours.mcp.sampling import answer_with
from techrevati.agent.behaviours.mcp.servers import Patience, StdioServer
from techrevati.agent.behaviours.mcp.tool import tool_set
from techrevati.agent.behaviours.permissions import Permissions
from techrevati.agent.context import RunIdentity
from techrevati.agent.model import InferenceError, ModelRequest, OnEvent, StopReason, StreamResult
from techrevati.agent.policy import RunPolicy
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolError, ToolProgress, ToolResult, ToolSet, ToolStatus
from tests.integration.mcp.conftest import WebServer
from tests.unit.agent.scripted import Script, World, agent, calls, said, tool_results, types

QUICK = Patience(connect=30.0, call=3.0, backoff=0.05)


async def call(tools: ToolSet, name: str, arguments: object, told: list[ToolProgress] | None = None) -> ToolResult:
    ctx = ToolCallContext(
        "c1", name, RunIdentity("t", "r", "a"), RunPolicy(), {}, on_progress=(told if told is not None else []).append
    )
    tools[name].validate(arguments)
    return (await tools[name].run(arguments, ctx)).result


async def test_12_6_descriptor_and_result_carry_where_they_come_from(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        tools = tool_set(connection)
        described = tools["mcp__desk__add"].descriptor
        assert (described.name, described.description, described.category) == ("Add up", "Add two numbers.", "mcp")
        origin = {"mcp.server": "desk", "mcp.tool": "add", "mcp.transport": "stdio"}
        assert described.metadata == origin
        given = await call(tools, "mcp__desk__add", {"a": 2, "b": 3})
        assert (given.status, given.data, given.metadata) == (ToolStatus.SUCCESS, {"result": 5}, origin)
        assert given.tool_name == "mcp__desk__add"
        assert not tools["mcp__desk__add"].repeatable
        assert tools["mcp__desk__die_once"].repeatable


async def test_12_6_arguments_are_held_to_the_server_s_schema_before_it_is_asked(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        with pytest.raises(ToolError, match="'b' is a required property"):
            await call(tool_set(connection), "mcp__desk__add", {"a": 2})


async def test_12_6_an_error_of_the_server_s_tool_is_an_error_result(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        given = await call(tool_set(connection), "mcp__desk__fail", {"why": "no ink"})
        assert given.is_error
        assert "no ink" in str(given.message)
        assert given.metadata["mcp.tool"] == "fail"


async def test_12_6_server_progress_becomes_tool_progress(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        told: list[ToolProgress] = []
        await call(tool_set(connection), "mcp__desk__count", {"to": 2}, told)
        assert [(p.progress, p.loaded, p.total, p.message) for p in told] == [
            (0.5, 1, 2, "1 of 2"),
            (1.0, 2, 2, "2 of 2"),
        ]


async def test_12_6_pictures_stay_content_and_ui_goes_to_the_client(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        given = await call(tool_set(connection), "mcp__desk__picture", {})
        assert [block["type"] for block in given.data] == ["text", "image"]
        assert given.metadata["mcp.ui.resourceUri"] == "ui://desk/card"
        assert given.metadata["mcp.ui.content"] == "<b>card</b>"
        assert given.metadata["mcp.ui.mimeType"] == "text/html"


async def test_12_6_a_declared_ui_resource_is_fetched_with_the_result(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        tools = tool_set(connection)
        assert tools["mcp__desk__panel"].descriptor.metadata["mcp.ui.resourceUri"] == "ui://desk/panel"
        given = await call(tools, "mcp__desk__panel", {})
        assert given.metadata["mcp.ui.content"] == "<p>panel</p>"


async def test_12_6_a_dead_server_a_slow_one_and_a_closed_one_are_error_results(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        tools = tool_set(connection)
        assert "[mcp_connection_lost]" in str((await call(tools, "mcp__desk__die", {})).message)
        assert "[mcp_timeout]" in str((await call(tools, "mcp__desk__slow", {"seconds": 30})).message)
    assert "[mcp_unavailable]" in str((await call(tools, "mcp__desk__add", {"a": 1, "b": 1})).message)


async def test_12_6_a_run_keeps_the_tools_it_began_with(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        tools = tool_set(connection)
        await connection.call("learn", {"name": "later"})
        await connection.refresh()
        assert "mcp__desk__later" not in tools
        assert "mcp__desk__later" in tool_set(connection)
        with pytest.raises(TypeError):
            tools["x"] = tools["mcp__desk__add"]  # type: ignore[index]  # frozen, which is what is tested


async def test_12_6_tools_are_chosen_by_glob_and_servers_may_not_share_an_id(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as one, McpConnection(stdio, patience=QUICK) as other:
        assert sorted(tool_set(one, tools=["mcp__desk__a*"])) == ["mcp__desk__add", "mcp__desk__ask"]
        with pytest.raises(DuplicateTool):
            tool_set(one, other)


class Scripted:
    """A model that answers from a list."""

    def __init__(self, *answers: StreamResult | InferenceError) -> None:
        self.answers, self.asked = list(answers), list[ModelRequest]()

    async def infer(self, request: ModelRequest, on_event: OnEvent) -> StreamResult:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, InferenceError):
            raise answer
        return answer


def texts(request: ModelRequest) -> Sequence[tuple[str, str]]:
    return [(message.role.value, message.content) for message in request.messages]


@pytest.mark.parametrize("protocol", ["auto", "legacy"])
async def test_12_6_a_server_may_ask_our_model_only_when_it_is_given_one(stdio: StdioServer, protocol: str) -> None:
    model = Scripted(StreamResult("42", stop_reason=StopReason.END_TURN))
    ours = answer_with(model, "m1", most_tokens=20)
    async with McpConnection(stdio, patience=QUICK, sampling=ours, protocol=protocol) as connection:
        given = await call(tool_set(connection), "mcp__desk__ask", {"question": "why?"})
        assert given.data == {"result": "m1 says 42"}
        assert texts(model.asked[0]) == [("system", "Be short."), ("user", "why?")]
        assert model.asked[0].options["max_tokens"] == 20, "the server asked for 50"
    async with McpConnection(stdio, patience=QUICK, protocol=protocol) as connection:
        assert (await call(tool_set(connection), "mcp__desk__ask", {"question": "why?"})).is_error


async def test_12_6_a_run_goes_on_when_a_server_dies_under_one_of_its_calls(stdio: StdioServer, notes: Path) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        model = Script(
            calls(("c1", "mcp__desk__add", {"a": 2, "b": 3}), ("c2", "mcp__desk__die", {})),
            calls(("c3", "mcp__desk__who", {})),
            said("done"),
        )
        world = World(model, agent(tools=tuple(tool_set(connection).values())))
        stream = await world.start()
        async with asyncio.timeout(40):
            events = [envelope async for envelope in stream.events]
        results = tool_results((await world.thread()).messages)
        assert results["c2"]["data"]["error"]["code"] == "mcp_connection_lost"
        assert results["c3"]["data"]["result"] > 0, "the program was started again"
        assert notes.read_text("utf-8").splitlines() == ["die", "who"]
        assert types(events)[-1] == "run_finish"
        assert connection.connects == 2


async def test_12_6_tools_of_servers_are_held_to_permissions_like_any_other(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        gate = Permissions(["deny mcp__desk__die*", "allow mcp__desk__*"])
        model = Script(calls(("c1", "mcp__desk__die", {})), said("done"))
        world = World(model, agent(tools=tuple(tool_set(connection).values()), behaviors=(gate,)))
        await world.run()
        assert "mcp__desk__die" not in {each.id for each in model.requests[0].tools}
        assert "mcp__desk__add" in {each.id for each in model.requests[0].tools}
        assert connection.connects == 1, "the call was never made"


@pytest.mark.parametrize("protocol", ["auto", "legacy"])
async def test_12_6_every_call_carries_its_idempotency_key_and_our_headers(web: WebServer, protocol: str) -> None:
    place = replace(web.place, headers={"authorization": "Bearer x"})
    async with McpConnection(place, patience=QUICK, protocol=protocol) as connection:
        given = await call(tool_set(connection), "mcp__desk__seen", {})
        assert given.data == {"key": "c1", "authorization": "Bearer x"}
        assert given.metadata["mcp.transport"] == "streamable_http"
