"""Calls of tools in another pool, two workers in this process and a hand on each ticket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from techrevati.agent.definition import AgentDefinition
from techrevati.agent.typed_tool import tool
from techrevati.fleet import Fleet, ModelReply, ModelRequest
from techrevati.fleet.client import Run
from techrevati.fleet.registry import UnknownRole
from techrevati.store.records import RunRecord
from tests.integration.fleet.desk import Desk, desk


@tool(role="gpu")
def dig(n: int) -> int:
    """Dig there."""
    return 10 * n


@tool
def here(n: int) -> int:
    """Dig here."""
    return n


class Same:
    """A model that gives every call of a round the id of its place, as some providers do."""

    def __init__(self, *rounds: list[tuple[str, int]]) -> None:
        self.rounds = list(rounds)

    async def complete(self, request: ModelRequest) -> ModelReply:
        if not self.rounds:
            said = [str(one["content"]) for one in request.messages if one["role"] == "tool"]
            given = [json.loads(text) if text.startswith("{") else {} for text in said]
            return ModelReply(json.dumps([one.get("data", one) for one in given]), 1, 1, stop_reason="stop")
        asked = [
            {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": json.dumps({"n": n})}}
            for place, (name, n) in enumerate(self.rounds.pop(0))
        ]
        return ModelReply("", 1, 1, tool_calls=asked, stop_reason="tool_calls")


def agency(name: str, *rounds: list[tuple[str, int]]) -> Fleet:
    fleet = Fleet(name)
    fleet.model("m", Same(*rounds))
    fleet.define(AgentDefinition(id="writer", model="m", tools=(dig, here)))
    return fleet


@asynccontextmanager
async def both(fleet: Fleet, url: str, pool: Fleet | None = None) -> AsyncIterator[tuple[Desk, Desk]]:
    async with desk(fleet, url) as agents, desk(pool or fleet, url, "gpu") as diggers:
        yield agents, diggers


async def calls_of(agents: Desk, run: Run) -> list[RunRecord]:
    return [one for one in agents.client.list_runs(calls=True) if one.parent == run.id]


async def test_a_pool_that_does_not_know_the_tool_says_so_to_the_model(redis_url: str, fleet_name: str) -> None:
    older = Fleet(fleet_name)

    @older.agent("gpu")
    async def other(turn: Any) -> None:
        return None

    async with both(agency(fleet_name, [("dig", 1)]), redis_url, older) as (agents, diggers):
        run = await agents.start("go")
        assert (await agents.served(run)).why == "child"
        await diggers.ticket(run)
        (call,) = await calls_of(agents, run)
        assert call.status == "dead" and "'tool:dig' is not in this worker's fleet" in call.error["message"]
        for _ in range(2):
            record = await agents.served(run)
        assert record.status == "completed" and "is not in this worker's fleet" in record.output


async def test_a_worker_of_the_pool_needs_nothing_but_the_tool(redis_url: str, fleet_name: str) -> None:
    pool = Fleet(fleet_name)
    pool.tool(dig)
    async with both(agency(fleet_name, [("dig", 4)]), redis_url, pool) as (agents, diggers):
        run = await agents.start("go")
        await agents.ticket(run)
        await diggers.ticket(run)
        await agents.ticket(run)
        assert json.loads((await agents.served(run)).output) == [40]
        with pytest.raises(UnknownRole):
            await asyncio.to_thread(agents.client.start, "tool:dig", {})


async def test_a_call_id_that_comes_again_is_another_call(redis_url: str, fleet_name: str) -> None:
    async with both(agency(fleet_name, [("dig", 1)], [("dig", 2)]), redis_url) as (agents, diggers):
        run = await agents.start("go")
        for _ in range(2):
            await agents.ticket(run)
            await diggers.ticket(run)
            await agents.ticket(run)
        assert json.loads((await agents.served(run)).output) == [10, 20]


async def test_what_a_cancelled_round_had_is_nothing_to_the_next_run(redis_url: str, fleet_name: str) -> None:
    rounds = [[("here", 1), ("dig", 1)], [("here", 2), ("dig", 2)]]
    async with both(agency(fleet_name, *rounds), redis_url) as (agents, diggers):
        first = await agents.start("go", thread_id="t")
        assert (await agents.served(first)).why == "child"
        first.cancel()
        second = await agents.start("again", thread_id="t")
        assert (await agents.served(second)).why == "child"
        await diggers.ticket(second)
        await agents.ticket(second)
        assert json.loads((await agents.served(second)).output)[-2:] == [2, 20]


async def trips(fleet: Fleet, url: str, calls: int) -> tuple[int, int, int]:
    """Count the round trips of the turn that sends `calls` calls, of one call, and of the turn that joins them."""
    async with both(fleet, url) as (agents, diggers):
        counted = []
        run = await agents.start("go")
        for at in (agents, *[diggers] * calls, agents):
            store = at.runtime._store
            assert store is not None
            before = store.batches
            await at.ticket(run)
            counted.append(store.batches - before)
        assert json.loads((await agents.served(run)).output) == [10 * n for n in range(calls)]
        return counted[0], min(counted[1:-1]), counted[-1]


async def test_round_trips_of_a_round_do_not_grow_with_its_calls(redis_url: str, fleet_name: str) -> None:
    one = await trips(agency(fleet_name, [("dig", 0)]), redis_url, 1)
    many = await trips(agency(f"{fleet_name}m", [("dig", n) for n in range(20)]), redis_url, 20)
    print(f"\nround trips to send, of a call, to join: {one}")
    assert one == many
    assert one[1] <= 2, "a call is claimed and committed"
