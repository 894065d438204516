"""`turn.session`: one in-process session spread over many queue tasks, on a real Redis."""

import asyncio
from typing import Any

import pytest

from techrevati.fleet import Client, Fleet, Outcome, Settings, Turn
from techrevati.fleet.client import Run
from techrevati.fleet.worker import WorkerRuntime
from techrevati.runtime import AgentSession, UsageSnapshot
from techrevati.store.records import RunRecord


def newsroom(name: str) -> Fleet:
    fleet = Fleet(name)

    async def answer() -> str:
        return "the tide turns"

    @fleet.agent("writer", handoffs=("editor",), session=AgentSession(role="writer", phase="draft", max_iterations=3))
    async def write(turn: Turn) -> Outcome:
        await turn.session.arun_turn(answer, model="m", usage=UsageSnapshot(input_tokens=10, output_tokens=5))
        if turn.number < turn.input["turns"]:
            return turn.continue_()
        if turn.input.get("handoff"):
            handoff: Any = turn.session.handoff_to("editor", "review", {"draft": "tides"})
            return handoff  # type: ignore[no-any-return]  # the session's own handoff is an outcome too
        return turn.complete(turn.session.summary()["usage"]["turns"])

    @fleet.agent("editor")
    async def edit(turn: Turn) -> Any:
        return turn.handed.context if turn.handed else None

    return fleet


async def served(fleet: Fleet, url: str, input: dict[str, Any]) -> tuple[RunRecord, list[str]]:
    """Start a run and serve its writer's tickets here, each turn by a process of its own as far as it can tell."""
    settings = Settings(redis_url=url)
    runtime = WorkerRuntime(
        fleet.name, "writer", fleet.agents, fleet.models, settings, template=lambda role, partition: ""
    )
    await runtime.start(asyncio.get_running_loop(), None)
    try:
        with Client(fleet=fleet.name, settings=settings) as client:
            run: Run = await asyncio.to_thread(client.start, "writer", input)
            partition = client.keys(run.id).partition
            for _ in range(12):
                assert runtime.engine is not None
                runtime.engine._threads._views.clear()  # as another process would: nothing is remembered
                await runtime.serve("writer", partition, lambda: False)
            record = await asyncio.to_thread(run.status)
            events = await asyncio.to_thread(lambda: [event.type for event in run.events(follow=False)])
            return record, events
    finally:
        await runtime.stop()


async def test_a_session_spans_turns_and_starts_and_ends_once(redis_url: str, fleet_name: str) -> None:
    record, events = await served(newsroom(fleet_name), redis_url, {"turns": 3})
    assert record.status == "completed" and record.output == 3
    assert (record.input_tokens, record.output_tokens) == (30, 15)
    assert events.count("agent.started") == 1 and events.count("agent.completed") == 1


async def test_a_session_limit_counts_over_all_turns_and_is_not_retried(
    redis_url: str, fleet_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    record, _ = await served(newsroom(fleet_name), redis_url, {"turns": 9})
    assert record.status == "dead" and record.turn == 4
    assert record.error["type"] == "MaxIterationsExceededError" and record.error["failure"] == "limit_exceeded"


async def test_handoff_to_of_a_session_hands_the_run_off(redis_url: str, fleet_name: str) -> None:
    record, events = await served(newsroom(fleet_name), redis_url, {"turns": 1, "handoff": True})
    assert record.home == "routes" and record.why == "handoff"
    assert "handoff.requested" in events
