"""§10 of the agent semantics: seven stop conditions, each at its boundary."""

import asyncio
from typing import Any

import msgspec
import pytest

from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.endings import TerminationReason, stopped
from techrevati.agent.loop.outcome import Finished, Suspended
from techrevati.agent.loop.records import OnSuspend
from techrevati.agent.model import TokenUsage
from techrevati.agent.stopping import (
    HISTORY,
    ConsecutiveErrors,
    ContentMatch,
    LoopDetection,
    MaxRounds,
    RunStatistics,
    StopOnTool,
    StopSpec,
    Timeout,
    TokenBudget,
    first_match,
    with_max_rounds,
)
from techrevati.agent.tools import ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.scripted import Script, World, agent, calls, cancel, said, tool_results, until


@pytest.mark.parametrize(
    ("spec", "run", "fires"),
    [
        (MaxRounds(3), RunStatistics(steps=2), None),
        (MaxRounds(3), RunStatistics(steps=3), ("max_rounds_reached", None)),
        (MaxRounds(0), RunStatistics(steps=99), None),
        (Timeout(1.5), RunStatistics(elapsed_ms=1499), None),
        (Timeout(1.5), RunStatistics(elapsed_ms=1500), ("timeout_reached", None)),
        (TokenBudget(100), RunStatistics(total_tokens=99), None),
        (TokenBudget(100), RunStatistics(total_tokens=100), ("token_budget_exceeded", None)),
        (TokenBudget(0), RunStatistics(total_tokens=10**9), None),
        (ConsecutiveErrors(2), RunStatistics(consecutive_errors=1), None),
        (ConsecutiveErrors(2), RunStatistics(consecutive_errors=2), ("consecutive_errors_exceeded", None)),
        (ConsecutiveErrors(0), RunStatistics(consecutive_errors=9), None),
        (StopOnTool("done"), RunStatistics(called=("other",)), None),
        (StopOnTool("done"), RunStatistics(called=("other", "done")), ("tool_called", "done")),
        (ContentMatch("STOP"), RunStatistics(text="stop"), None),
        (ContentMatch("ST.P"), RunStatistics(text="STOP"), None),
        (ContentMatch("STOP"), RunStatistics(text="now STOP it"), ("content_matched", "STOP")),
        (ContentMatch(""), RunStatistics(text="anything"), None),
        (LoopDetection(2), RunStatistics(rounds=(("a",), ("b",))), None),
        (LoopDetection(2), RunStatistics(rounds=(("a",), ("b",), ("b",))), ("loop_detected", None)),
        (LoopDetection(2), RunStatistics(rounds=(("a",), ("a",), ("b",))), None),
        (LoopDetection(3), RunStatistics(rounds=(("a",), ("a",), ("b",))), ("loop_detected", None)),
        (LoopDetection(1), RunStatistics(rounds=(("a",), ("a",))), ("loop_detected", None)),
        (LoopDetection(0), RunStatistics(rounds=(("a",),)), None),
    ],
)
def test_10_each_condition_fires_at_its_boundary(spec: StopSpec, run: RunStatistics, fires: Any) -> None:
    assert spec.check(run) == (None if fires is None else stopped(*fires))


def test_10_conditions_are_asked_in_order_and_the_first_match_decides() -> None:
    run = RunStatistics(steps=5, text="STOP")
    assert first_match([ContentMatch("STOP"), MaxRounds(1)], run) == stopped("content_matched", "STOP")
    assert first_match([MaxRounds(1), ContentMatch("STOP")], run) == stopped("max_rounds_reached")
    assert first_match([MaxRounds(9)], run) is None


def test_10_specs_are_tagged_by_type() -> None:
    wire = [{"type": "stop_on_tool", "tool_name": "x"}, {"type": "loop_detection", "window": 4}]
    assert msgspec.convert(wire, list[StopSpec]) == [StopOnTool("x"), LoopDetection(4)]


def test_10_max_rounds_of_the_agent_is_a_spec_unless_one_is_explicit() -> None:
    assert with_max_rounds([], 10) == (MaxRounds(10),)
    assert with_max_rounds([MaxRounds(3)], 10) == (MaxRounds(3),)
    assert with_max_rounds([], 0) == ()


@tool
def work(n: int = 0) -> int:
    """Work."""
    return n


@tool
def fails() -> None:
    """Fail."""
    raise ValueError("no")


def rounds(*names: str) -> list[Any]:
    return [calls((f"c{n}", name, {})) for n, name in enumerate(names)]


async def stop_of(*replies: Any, **options: Any) -> tuple[TerminationReason, World]:
    world = World(Script(*replies), agent(tools=(work, fails), **options))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished)
    return outcome.reason, world


async def test_10_max_rounds_ends_after_its_round_finished() -> None:
    reason, world = await stop_of(*rounds("work", "work", "work"), max_rounds=2)
    assert reason == stopped("max_rounds_reached")
    assert len(world.model.requests) == 2 and set(tool_results((await world.thread()).messages)) == {"c0", "c1"}


async def test_10_the_default_is_ten_rounds() -> None:
    _, world = await stop_of(*(calls((f"c{n}", "work", {"n": n})) for n in range(11)))
    assert len(world.model.requests) == 10


async def test_10_earlier_runs_never_count() -> None:
    world = World(Script(*["x"] * 3, *rounds("work"), "y"), agent(tools=(work,), max_rounds=2))
    for _ in range(3):
        await world.run()
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason == stopped("max_rounds_reached")
    assert len(world.model.requests) == 5


async def test_10_consecutive_errors_counts_finished_rounds_only() -> None:
    reason, world = await stop_of(*rounds("fails", "fails", "fails", "fails"), stop_conditions=(ConsecutiveErrors(2),))
    assert reason == stopped("consecutive_errors_exceeded")
    assert len(world.model.requests) == 3, "the round the third answer asked for is not counted, and is not lost"


async def test_10_one_success_resets_the_errors_and_a_partly_failed_round_is_none() -> None:
    half = calls(("h1", "fails", {}), ("h2", "work", {}))
    replies = [calls(("a", "fails", {})), half, calls(("b", "fails", {})), calls(("c", "work", {})), "end"]
    reason, _ = await stop_of(*replies, stop_conditions=(ConsecutiveErrors(2),))
    assert reason.type == "natural_end"


async def test_10_a_round_that_waits_neither_adds_nor_resets() -> None:
    @tool
    def ask() -> ToolResult:
        """Ask."""
        return ToolResult.suspended("ask", "?")

    mixed = calls(("m1", "fails", {}), ("m2", "ask", {}))
    world = World(
        Script(calls(("a", "fails", {})), mixed, calls(("b", "fails", {})), calls(("c", "work", {})), "never"),
        agent(tools=(work, fails, ask), stop_conditions=(ConsecutiveErrors(2),)),
    )
    outcome, _ = await world.run()
    assert len(world.model.requests) == 4 and isinstance(outcome, Suspended)


async def test_10_tokens_are_counted_over_the_run_in_grow_counters() -> None:
    usage = TokenUsage(prompt_tokens=30, completion_tokens=20)
    asked = [calls((f"c{n}", "work", {"n": n}), usage=usage) for n in range(3)]
    reason, world = await stop_of(*asked, stop_conditions=(TokenBudget(100),))
    assert reason == stopped("token_budget_exceeded") and len(world.model.requests) == 2
    counted = (await world.state())["__kernel"]["stop_policy_runtime"]
    assert counted["total_input_tokens"] == {"stop_policy": 60}
    assert counted["total_output_tokens"] == {"stop_policy": 40}


async def test_10_tokens_of_an_earlier_run_are_not_counted() -> None:
    usage = TokenUsage(prompt_tokens=60)
    world = World(Script(*[said("x", usage=usage)] * 2), agent(stop_conditions=(TokenBudget(100),)))
    for _ in range(2):
        outcome, _ = await world.run()
        assert isinstance(outcome, Finished) and outcome.reason.type == "natural_end"


async def test_10_timeout_counts_from_the_start_of_the_run() -> None:
    def slow(request: Any, on_event: Any) -> Any:
        world.clock.ms += 6000
        return calls((f"c{len(world.model.requests)}", "work", {}))

    world = World(Script(slow, slow, slow), agent(tools=(work,), stop_conditions=(Timeout(10),)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason == stopped("timeout_reached")
    assert len(world.model.requests) == 2
    assert (await world.state())["__kernel"]["stop_policy_runtime"]["started_at_ms"] == world.clock.ms - 12000


async def test_10_stop_on_tool_still_carries_the_call_out() -> None:
    reason, world = await stop_of(*rounds("work"), stop_conditions=(StopOnTool("work"),))
    assert reason == stopped("tool_called", "work")
    assert tool_results((await world.thread()).messages)["c0"]["status"] == "success"


async def test_10_content_match_ends_a_run() -> None:
    reason, _ = await stop_of("I am DONE now", stop_conditions=(ContentMatch("DONE"),))
    assert reason == stopped("content_matched", "DONE")


async def test_10_loop_detection_compares_sorted_names() -> None:
    first = calls(("a", "work", {}), ("b", "fails", {}))
    second = calls(("c", "fails", {}), ("d", "work", {}))
    reason, world = await stop_of(first, second, stop_conditions=(LoopDetection(2),))
    assert reason == stopped("loop_detected") and len(world.model.requests) == 2


async def test_10_the_history_of_names_keeps_twenty_rounds() -> None:
    seen: list[RunStatistics] = []

    class Watch:
        id = "watch"

        def check(self, run: RunStatistics) -> None:
            seen.append(run)

    replies = [calls((f"c{n}", "work", {})) for n in range(25)]
    await stop_of(*replies, "end", max_rounds=0, stop_policies=(Watch(),))
    assert len(seen[-1].rounds) == HISTORY == 20 and seen[-1].steps == 26


async def test_10_counts_survive_a_wait_within_the_run() -> None:
    @tool
    def ask() -> ToolResult:
        """Ask."""
        return ToolResult.suspended("ask", "?")

    world = World(Script(calls(("c1", "ask", {})), *rounds("work", "work")), agent(tools=(work, ask), max_rounds=2))
    stream = await world.start(on_suspend=OnSuspend.PARK)
    await until(lambda: stream.waiting)
    stream.submit_decision(cancel("c1"))
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.reason == stopped("max_rounds_reached")
    assert len(world.model.requests) == 2


async def hang(*_: Any) -> Any:
    await asyncio.Event().wait()


@tool
async def hangs() -> None:
    """Hang."""
    await asyncio.Event().wait()


class HangsIn(AgentBehavior):
    id = "hangs"

    async def before_inference(self, ctx: Any) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("what", ["model", "tool", "hook"])
async def test_10_a_hard_deadline_cuts_off_whatever_hangs(what: str) -> None:
    replies: Any = hang if what == "model" else calls(("c1", "hangs", {}))
    behaviors = (HangsIn(),) if what == "hook" else ()
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)
        await asyncio.sleep(0.02)
        world.clock.ms += round(seconds * 1000)

    world = World(Script(replies), agent(tools=(hangs,), behaviors=behaviors, deadline=5), sleep=sleep)
    outcome, events = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason == stopped("timeout_reached", "deadline")
    assert set(asked) == {5.0}
    told = [e.event.type for e in events]
    assert told[0] == "run_start" and told[-1] == "run_finish"
    assert told.count("step_start") == told.count("step_end")
