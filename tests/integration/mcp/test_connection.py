"""Connections to real MCP servers, some of which die."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, TextContent

from techrevati.agent.behaviours.mcp.connection import McpConnection
from techrevati.agent.behaviours.mcp.faults import CallInDoubt, McpUnavailable
from techrevati.agent.behaviours.mcp.servers import HttpServer, McpServer, Patience, StdioServer
from tests.integration.mcp.conftest import WebServer

QUICK = Patience(connect=30.0, call=20.0, backoff=0.05)


def text(result: CallToolResult) -> str:
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


async def until(claim: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


@pytest.fixture(params=["stdio", "http"])
def server(request: pytest.FixtureRequest) -> McpServer:
    if request.param == "stdio":
        found: StdioServer = request.getfixturevalue("stdio")
        return found
    web: WebServer = request.getfixturevalue("web")
    return web.place


async def test_12_6_tools_are_listed_and_called(server: McpServer) -> None:
    async with McpConnection(server, patience=QUICK) as connection:
        assert "mcp__desk__add" in connection.tools
        assert connection.tools["mcp__desk__files_read_all"].name == "files/read.all"
        assert text(await connection.call("add", {"a": 2, "b": 3})) == "5"
        told: list[tuple[float, float | None, str | None]] = []
        await connection.call("count", {"to": 3}, on_progress=lambda *each: told.append(each))
        assert told == [(1, 3, "1 of 3"), (2, 3, "2 of 3"), (3, 3, "3 of 3")]
    assert not connection.is_connected


async def test_12_6_a_call_that_takes_too_long_is_given_up_and_the_next_one_works(server: McpServer) -> None:
    async with McpConnection(server, patience=QUICK) as connection:
        with pytest.raises(MCPError, match="timed out"):
            await connection.call("slow", {"seconds": 30}, timeout=0.2)
        assert text(await connection.call("add", {"a": 1, "b": 1})) == "2"
        assert connection.connects == 1


async def test_12_6_a_cancelled_caller_leaves_the_connection_as_it_was(server: McpServer, notes: Path) -> None:
    async with McpConnection(server, patience=QUICK) as connection:
        call = asyncio.create_task(connection.call("slow", {"seconds": 30}))
        await until(lambda: "slow" in notes.read_text("utf-8"), "the call never began")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert text(await connection.call("add", {"a": 1, "b": 1})) == "2"
        assert connection.connects == 1


async def test_12_6_calls_of_one_connection_run_side_by_side(server: McpServer) -> None:
    async with McpConnection(server, patience=QUICK) as connection:
        began = time.monotonic()
        await asyncio.gather(*(connection.call("slow", {"seconds": 2}) for _ in range(5)))
        assert time.monotonic() - began < 8, "one after the other they take ten"


async def test_12_6_a_changed_list_of_tools_is_seen_and_old_snapshots_stay(server: McpServer) -> None:
    async with McpConnection(server, patience=QUICK) as connection:
        before = connection.tools
        await connection.call("learn", {"name": "new_one"})
        await until(lambda: "mcp__desk__new_one" in connection.tools, "the change was not seen")
        assert "mcp__desk__new_one" not in before
        assert text(await connection.call("new_one", {})) == "new_one"


async def test_12_6_refresh_looks_at_once(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        await connection.call("learn", {"name": "other"})
        assert "mcp__desk__other" in await connection.refresh()


async def test_12_6_a_list_may_be_looked_at_now_and_then(stdio: StdioServer) -> None:
    patience = Patience(connect=15.0, call=10.0, refresh=0.1)
    async with McpConnection(stdio, patience=patience, protocol="legacy") as connection:
        await connection.call("learn", {"name": "quietly"})  # says so only to subscribers, which this protocol lacks
        await until(lambda: "mcp__desk__quietly" in connection.tools, "the list was not looked at again")


async def test_12_6_two_tools_that_would_have_one_id_are_refused_and_the_good_list_stays(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        await connection.call("learn", {"name": "files.read_all"})
        with pytest.raises(Exception, match="would both be 'mcp__desk__files_read_all'"):
            await connection.refresh()
        assert connection.tools["mcp__desk__files_read_all"].name == "files/read.all"


async def test_12_6_a_program_that_is_killed_is_started_again(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        first = int(text(await connection.call("who", {})))
        os.kill(first, signal.SIGKILL)
        await until(lambda: connection.connects == 2, "the program was not started again")
        second = int(text(await connection.call("who", {})))
        assert second != first


async def test_12_6_a_call_that_was_under_way_is_not_made_again(server: McpServer, notes: Path) -> None:
    async with McpConnection(server, patience=Patience(connect=15, call=10, backoff=0.05)) as connection:
        with pytest.raises(CallInDoubt, match="may or may not have taken effect"):
            await connection.call("die", {})
        assert notes.read_text("utf-8").splitlines() == ["die"]


async def test_12_6_a_call_under_way_is_made_again_if_the_server_calls_it_repeatable(
    stdio: StdioServer, notes: Path, tmp_path: Path
) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        answer = await connection.call("die_once", {"flag": str(tmp_path / "flag")}, repeatable=True)
        assert text(answer).startswith("survived")
        assert notes.read_text("utf-8").splitlines() == ["die_once", "die_once"]


async def test_12_6_calls_wait_for_an_http_server_that_restarts(web: WebServer, notes: Path) -> None:
    async with McpConnection(web.place, patience=QUICK) as connection:
        assert text(await connection.call("add", {"a": 1, "b": 1})) == "2"
        web.kill()
        await until(lambda: not connection.is_connected, "the loss was not noticed")
        call = asyncio.create_task(connection.call("who", {}))
        await asyncio.sleep(0.3)
        assert not call.done()
        await asyncio.to_thread(web.start)
        assert int(text(await call)) > 0
        assert notes.read_text("utf-8").splitlines() == ["who"], "made once"


@pytest.mark.parametrize("protocol", ["auto", "legacy"])
async def test_12_6_an_http_server_that_forgot_our_session_is_greeted_again(web: WebServer, protocol: str) -> None:
    async with McpConnection(web.place, patience=QUICK, protocol=protocol) as connection:
        web.kill()
        await asyncio.to_thread(web.start)
        await until(lambda: connection.is_connected, "it was not reached again")
        for _ in range(3):
            assert text(await connection.call("add", {"a": 1, "b": 1})) == "2"


async def test_12_6_a_server_that_does_not_come_back_is_said_to_be_unavailable(web: WebServer) -> None:
    async with McpConnection(web.place, patience=QUICK) as connection:
        web.kill()
        connection.patience = replace(QUICK, connect=1.0)  # to come up, a server has longer
        began = time.monotonic()
        with pytest.raises(McpUnavailable, match="'desk' cannot be reached"):
            await connection.call("add", {"a": 1, "b": 1})
        assert time.monotonic() - began < 10
        assert "mcp__desk__add" in connection.tools, "what was known stays known"


@pytest.mark.parametrize(
    "place",
    [
        StdioServer(name="none", command="/no/such/program"),
        StdioServer(name="none", command="/bin/true"),
        HttpServer(name="none", url="http://127.0.0.1:9/mcp"),
    ],
    ids=["no program", "a program that ends", "a closed port"],
)
async def test_12_6_a_server_that_cannot_be_reached_is_named_at_once(place: McpServer) -> None:
    began = time.monotonic()
    with pytest.raises(McpUnavailable, match="'none' cannot be reached"):
        async with McpConnection(place, patience=Patience(connect=60.0)):
            pass
    assert time.monotonic() - began < 30


async def test_12_6_a_closed_connection_refuses_calls_and_leaves_no_process(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        pid = int(text(await connection.call("who", {})))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(McpUnavailable, match="closed"):
        await connection.call("who", {})


async def test_12_6_a_program_that_hangs_is_started_again(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        first = int(text(await connection.call("who", {})))
        os.kill(first, signal.SIGSTOP)
        connection.patience = replace(QUICK, connect=0.5)  # to look at what runs, not to start it anew
        with pytest.raises(MCPError, match="timed out"):
            await connection.call("who", {}, timeout=0.5)
        await until(lambda: not connection.is_connected, "it was not found to hang")
        connection.patience = QUICK
        await until(lambda: connection.connects == 2, "it was not started again", 90)
        assert int(text(await connection.call("who", {}))) != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


async def test_12_6_a_slow_tool_is_not_taken_for_a_hung_server(stdio: StdioServer) -> None:
    async with McpConnection(stdio, patience=QUICK) as connection:
        other = asyncio.create_task(connection.call("slow", {"seconds": 1.5}))
        for _ in range(3):
            with pytest.raises(MCPError, match="timed out"):
                await connection.call("slow", {"seconds": 30}, timeout=0.1)
        assert text(await other) == "at last"
        assert connection.connects == 1


async def test_12_6_closing_does_not_wait_for_a_server_that_hangs(stdio: StdioServer) -> None:
    began = 0.0
    async with McpConnection(stdio, patience=Patience(connect=60.0)) as connection:
        pid = int(text(await connection.call("who", {})))
        os.kill(pid, signal.SIGSTOP)
        looking = asyncio.create_task(connection.refresh())
        await asyncio.sleep(0)
        began = time.monotonic()
    assert time.monotonic() - began < 40
    with pytest.raises(McpUnavailable):
        await looking
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
