"""Whole runs on each store: a thread in a file is the thread in memory, and a suspended run outlives its process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from techrevati.agent.loop.outcome import Finished, Suspended
from techrevati.agent.suspension import PendingToolCall, ResumeMode, SuspendTicket, Suspension
from techrevati.agent.threads import InMemoryThreadStore, SqliteThreadStore, Thread
from techrevati.agent.tools import ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.scripted import Clock, Script, World, agent, calls, counted_ids, resume, tool_results


@tool
def look(place: str) -> str:
    """Look."""
    return f"{place} is fine"


@tool
def ask() -> ToolResult:
    """Ask a human."""
    ticket = SuspendTicket(
        Suspension("s1", "confirm", "may I?"), PendingToolCall("p1", "Confirm", {}), ResumeMode.AS_RESULT
    )
    return ToolResult.suspended("ask", "may I?", ticket)


TOOLS = (look, ask)


async def conversation(open_store: Callable[[], Any]) -> tuple[Thread, Any]:
    """Three runs, each in a process of its own: a round of two tools, a suspension, its decision."""
    ids = counted_ids()  # one for all: a message id that comes again is taken for known
    first = World(
        Script(calls(("c1", "look", {"place": "north"}), ("c2", "look", {"place": "south"})), "both fine"),
        agent(tools=TOOLS),
        store=open_store(),
        new_id=ids,
    )
    outcome, _ = await first.run("look around", run_id="r1")
    assert isinstance(outcome, Finished)
    second = World(Script(calls(("c3", "ask", {})), "never said"), agent(tools=TOOLS), store=open_store(), new_id=ids)
    outcome, _ = await second.run("then ask", run_id="r2")
    assert isinstance(outcome, Suspended)
    third = World(Script("thank you"), agent(tools=TOOLS), store=open_store(), new_id=ids)
    outcome, _ = await third.run(None, run_id="r3", initial_decisions=(resume("c3", {"yes": True}),))
    assert isinstance(outcome, Finished)
    thread = await third.thread()
    assert tool_results(thread.messages)["c3"]["data"] == {"yes": True}
    thread = replace(thread, messages=tuple(replace(message, id="") for message in thread.messages))  # made anew
    return thread, [await third.store.load_run(run) for run in ("r1", "r2", "r3")]


async def test_a_suspended_run_goes_on_from_the_file_in_another_process(tmp_path: Path) -> None:
    opened: list[SqliteThreadStore] = []

    def reopened() -> SqliteThreadStore:
        if opened:
            opened[-1].close()
        opened.append(SqliteThreadStore(tmp_path / "threads.db", clock=Clock()))
        return opened[-1]

    memory = InMemoryThreadStore(clock=Clock())
    in_file, in_memory = await conversation(reopened), await conversation(lambda: memory)
    opened[-1].close()
    assert msgspec.json.encode(in_file) == msgspec.json.encode(in_memory)
