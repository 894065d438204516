"""Calls that are at work elsewhere: the round waits, keeps what it has, and is taken in as one."""

from collections import Counter
from typing import Any

import pytest

from techrevati.agent.building import build
from techrevati.agent.cancellation import Cancellation
from techrevati.agent.definition import AgentDefinition, ToolExecutionMode
from techrevati.agent.events import AnyEvent
from techrevati.agent.journal import call_key
from techrevati.agent.loop.outcome import Continue, Finished, StepOutcome, Suspended
from techrevati.agent.loop.ports import Elsewhere, GivenInbox, Ports
from techrevati.agent.loop.records import OnSuspend
from techrevati.agent.loop.starting import checkpoint_of, prepare_run, store_run
from techrevati.agent.loop.step import step
from techrevati.agent.loop.tool_runs import ToolRun, run_tool
from techrevati.agent.running import StoreCommitter
from techrevati.agent.suspension import ToolCallDecision
from techrevati.agent.threads.memory import InMemoryThreadStore
from techrevati.agent.threads.message import Message
from techrevati.agent.threads.runs import RunRequest
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import Tool, ToolExecutionEffect, ToolResult, role_of
from techrevati.agent.typed_tool import tool
from tests.unit.agent.loop.states import Count, add
from tests.unit.agent.scripted import START, Script, agent, calls, counted_ids, resume, tool_results

SEQUENTIAL, BATCH = ToolExecutionMode.SEQUENTIAL, ToolExecutionMode.PARALLEL_BATCH_APPROVAL


@tool
def near(n: int) -> int:
    """Here."""
    return n


@tool(role="away")
def far(n: int) -> int:
    """There."""
    return n


@tool(states=(Count,))
def enter(n: int, ctx: ToolCallContext) -> ToolExecutionEffect:
    """Add here."""
    return ToolExecutionEffect(ToolResult.success("enter", ctx.scoped_state_of(Count).value), (add(n),))


@tool(role="away", states=(Count,))
def enter_far(n: int, ctx: ToolCallContext) -> ToolExecutionEffect:
    """Add there."""
    return ToolExecutionEffect(ToolResult.success("enter_far", ctx.scoped_state_of(Count).value), (add(n),))


@tool(role="away")
def asks(ctx: ToolCallContext) -> ToolResult:
    """Ask there."""
    return ToolResult.suspended("asks", "may I?") if ctx.resume_input is None else ToolResult.success("asks", "done")


class Away:
    """Sends calls of tools with a role away, where they rest until they are let in; remembers what all gave."""

    def __init__(self) -> None:
        self.sent: dict[str, tuple[Tool, Any, ToolCallContext]] = {}
        self.done: dict[str, ToolRun] = {}
        self.ran: Counter[str] = Counter()

    async def run(self, tool: Tool, arguments: Any, ctx: ToolCallContext) -> ToolRun:
        key = call_key(ctx)
        if key not in self.done:
            if role_of(tool) is not None:
                self.sent.setdefault(key, (tool, arguments, ctx))
                raise Elsewhere(ctx.call_id)
            await self._carry_out(key, tool, arguments, ctx)
        return self.done[key]

    async def _carry_out(self, key: str, tool: Tool, arguments: Any, ctx: ToolCallContext) -> None:
        self.ran[key] += 1
        self.done[key] = await run_tool(tool, arguments, ctx)

    async def arrive(self, *keys: str) -> None:
        """Carry out calls that were sent: all of them, if none is named."""
        for key in keys or tuple(self.sent):
            await self._carry_out(key, *self.sent.pop(key))


class Scene:
    """A run taken step by step, with nothing in memory but what was sent away."""

    def __init__(self, definition: AgentDefinition, *replies: Any) -> None:
        self.agent, self.model = build(definition), Script(*replies)
        self.store, self.away, self.told = InMemoryThreadStore(clock=lambda: START), Away(), list[AnyEvent]()
        self.now, self.cancellation, self.ids = START, Cancellation(), counted_ids()

    def emit(self, event: AnyEvent, step_id: str | None) -> None:
        self.told.append(event)

    async def begin(self) -> None:
        request = RunRequest(agent_id="a", thread_id="t", messages=(Message.user("go"),))
        ready = prepare_run(self.agent, request, None, now_ms=START, on_suspend=OnSuspend.PARK, make_id=self.ids)
        await store_run(self.store, ready)

    async def step(self, *decisions: ToolCallDecision, steering: tuple[str, ...] = ()) -> StepOutcome:
        loaded = await self.store.load("t")
        assert loaded is not None
        ports = Ports(
            model=self.model,
            committer=StoreCommitter(self.store),
            sink=self,
            tools=self.away,
            inbox=GivenInbox(decisions, steering),
            cancellation=self.cancellation,
            new_id=self.ids,
            now_ms=lambda: self.now,
        )
        return await step(self.agent, checkpoint_of(self.agent, loaded), ports)

    async def results(self) -> list[Any]:
        thread = await self.store.load_thread("t")
        assert thread is not None
        return [one["data"] for one in tool_results(thread.messages).values()]

    async def state(self) -> dict[str, Any]:
        thread = await self.store.load_thread("t")
        assert thread is not None
        return thread.rebuild_state(self.agent.states.lattices)


async def begun(definition: AgentDefinition, *replies: Any) -> Scene:
    scene = Scene(definition, *replies)
    await scene.begin()
    return scene


def waits(outcome: StepOutcome) -> bool:
    return isinstance(outcome, Suspended) and outcome.outside and outcome.parked


@pytest.mark.parametrize("mode", [ToolExecutionMode.PARALLEL_STREAMING, BATCH])
async def test_a_parallel_round_waits_for_all_of_its_calls_and_is_taken_in_in_their_order(
    mode: ToolExecutionMode,
) -> None:
    asked = calls(("c1", "far", {"n": 1}), ("c2", "near", {"n": 2}), ("c3", "far", {"n": 3}))
    scene = await begun(agent(tools=(near, far), tool_execution_mode=mode), asked, "done")
    assert waits(await scene.step())
    assert set(scene.away.sent) == {"c1:1:", "c3:1:"} and scene.away.ran == {"c2:1:": 1}
    assert await scene.results() == []
    assert (await scene.state())["__run"]["status"] == "running", "a run whose tools are at work is no waiting one"
    await scene.away.arrive("c3:1:")
    assert waits(await scene.step())
    assert await scene.results() == [], "nothing is taken in before all are there"
    await scene.away.arrive()
    assert isinstance(await scene.step(), Continue)
    assert await scene.results() == [1, 2, 3]
    assert isinstance(await scene.step(), Finished)
    assert set(scene.away.ran.values()) == {1} and len(scene.model.requests) == 2
    told = [event.type for event in scene.told]
    assert told.count("tool_call_ready") == told.count("tool_call_done") == 3, "each told once"


async def test_a_sequential_round_sends_one_call_at_a_time_and_takes_in_no_state_twice() -> None:
    asked = calls(("c1", "enter", {"n": 1}), ("c2", "enter_far", {"n": 2}), ("c3", "enter_far", {"n": 4}))
    scene = await begun(agent(tools=(enter, enter_far), tool_execution_mode=SEQUENTIAL), asked, "done")
    assert waits(await scene.step())
    assert set(scene.away.sent) == {"c2:1:"} and "count" not in await scene.state()
    await scene.away.arrive()
    assert waits(await scene.step())
    assert set(scene.away.sent) == {"c3:1:"}
    await scene.away.arrive()
    assert isinstance(await scene.step(), Continue)
    assert await scene.results() == [0, 1, 3] and (await scene.state())["count"]["value"] == 7
    assert set(scene.away.ran.values()) == {1}


async def test_a_call_that_lost_a_conflict_goes_away_again_alone() -> None:
    asked = calls(("c1", "enter_far", {"n": 1}), ("c2", "enter_far", {"n": 2}), ("c3", "enter", {"n": 4}))
    scene = await begun(agent(tools=(enter, enter_far)), asked, "done")
    assert waits(await scene.step())
    await scene.away.arrive()
    assert waits(await scene.step())
    assert set(scene.away.sent) == {"c2:2:"}
    await scene.away.arrive()
    assert isinstance(await scene.step(), Continue)
    assert await scene.results() == [0, 1, 3] and (await scene.state())["count"]["value"] == 7
    assert scene.away.ran == {"c1:1:": 1, "c2:1:": 1, "c2:2:": 1, "c3:1:": 1, "c3:2:": 1}


async def test_a_decided_call_goes_on_elsewhere_before_the_model_is_asked_again() -> None:
    scene = await begun(agent(tools=(asks,)), calls(("c1", "asks", {}), ("c2", "asks", {})), "done")
    assert waits(await scene.step())
    await scene.away.arrive()
    outcome = await scene.step()
    assert isinstance(outcome, Suspended) and not outcome.outside and len(outcome.calls) == 2
    assert waits(await scene.step(resume("c1", id="d1"), resume("c2", id="d2")))
    assert set(scene.away.sent) == {"c1:1:d1", "c2:1:d2"}, "side by side"
    assert waits(await scene.step()), "the decisions stay, although they came once"
    await scene.away.arrive()
    assert isinstance(await scene.step(), Finished)
    assert await scene.results() == ["done", "done"] and len(scene.model.requests) == 2


async def test_what_comes_while_a_round_waits_is_kept() -> None:
    scene = await begun(agent(tools=(far, asks)), calls(("c1", "far", {"n": 1})), calls(("c2", "asks", {})), "done")
    assert waits(await scene.step())
    assert waits(await scene.step(resume("c2", id="early"), steering=("mind the gap",)))
    assert (await scene.state())["__kernel"]["decisions"][0]["decision_id"] == "early"
    await scene.away.arrive()
    assert isinstance(await scene.step(), Continue)
    assert waits(await scene.step())
    assert [m.content for m in scene.model.requests[1].messages if m.role == "user"] == ["go", "mind the gap"]
    assert [m.role for m in scene.model.requests[1].messages][-2:] == ["tool", "user"], "behind the results"
    await scene.away.arrive()
    await scene.step()
    assert set(scene.away.sent) == {"c2:1:early"}, "the early decision met its call"


async def test_a_deadline_and_a_cancellation_end_a_round_that_waits() -> None:
    asked = calls(("c1", "far", {"n": 1}))
    late = await begun(agent(tools=(far,), deadline=60), asked)
    outcome = await late.step()
    assert isinstance(outcome, Suspended) and outcome.expires_at == START + 60_000
    late.now += 60_000
    ended = await late.step()
    assert isinstance(ended, Finished) and ended.reason.code == "timeout_reached"
    stopped = await begun(agent(tools=(far,)), asked)
    assert waits(await stopped.step())
    stopped.cancellation.cancel()
    ended = await stopped.step()
    assert isinstance(ended, Finished) and ended.reason.type == "cancelled"


def test_a_role_is_a_tools_own_or_none() -> None:
    assert (role_of(near), role_of(far)) == (None, "away")
