"""§4 of the agent semantics: tools, what they may use, and how a round carries them out."""

import asyncio
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from techrevati.agent.actions import AddSystemReminder, ContextMessage, Target
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.definition import ToolExecutionMode
from techrevati.agent.errors import BadToolFunction, BadToolSchema
from techrevati.agent.loop.outcome import Finished, Suspended
from techrevati.agent.schemas import check_arguments, check_schema
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolDescriptor, ToolError, ToolExecutionEffect, ToolProgress, ToolResult
from techrevati.agent.typed_tool import FunctionTool, ToolRetry, tool
from tests.unit.agent.loop.states import Count, Note, Votes, add, vote
from tests.unit.agent.scripted import Script, World, agent, calls, tool_results, until

SEQUENTIAL = ToolExecutionMode.SEQUENTIAL
STREAMING = ToolExecutionMode.PARALLEL_STREAMING
BATCH = ToolExecutionMode.PARALLEL_BATCH_APPROVAL


class Owner(AgentBehavior):
    id = "owner"
    states = (Count, Votes, Note)


def ctx_of(**fields: Any) -> ToolCallContext:
    from techrevati.agent.context import RunIdentity
    from techrevati.agent.policy import RunPolicy

    return ToolCallContext(
        **{
            "call_id": "c1",
            "tool_name": "x",
            "identity": RunIdentity("t", "r", "a"),
            "policy": RunPolicy(),
            "document": {},
            **fields,
        }
    )


# -- 4.1 -------------------------------------------------------------------------------------------


def test_4_1_a_typed_tool_derives_its_schema() -> None:
    class Place(BaseModel):
        city: str

    @tool
    def weather(
        place: Place, days: Annotated[int, Field(ge=1, le=7, description="how many")] = 1, schema: str = "x"
    ) -> str:
        """Tell the weather."""
        return ""

    described = weather.descriptor
    assert (described.id, described.description) == ("weather", "Tell the weather.")
    check_schema(described)
    assert described.parameters["required"] == ["place"]
    assert described.parameters["properties"]["days"]["maximum"] == 7
    assert set(described.parameters["properties"]) == {"place", "days", "schema"}


@pytest.mark.parametrize("arguments", [{}, {"a": "x"}, {"a": 1, "z": 2}, [], "text"])
def test_4_1_arguments_that_do_not_fit_are_refused(arguments: Any) -> None:
    @tool
    def plus(a: int) -> int:
        """Add."""
        return a

    with pytest.raises(ToolError) as refused:
        plus.validate(arguments)
    assert refused.value.kind == "invalid_arguments"


def test_4_1_what_cannot_be_a_tool_is_refused_when_it_is_declared() -> None:
    def bare(a) -> int:  # type: ignore[no-untyped-def]
        return 1

    def spread(*a: int) -> int:
        return 1

    with pytest.raises(BadToolFunction, match="'a' has no annotation; fix: annotate it"):
        tool(bare)
    with pytest.raises(BadToolFunction, match="cannot be passed by name"):
        tool(spread)
    with pytest.raises(BadToolFunction, match="timeout is 0 s"):
        tool(timeout=0)(lambda: None)


def test_4_1_a_schema_of_another_kind_is_refused() -> None:
    with pytest.raises(BadToolSchema, match="'array'"):
        check_schema(ToolDescriptor("x", parameters={"type": "array"}))
    with pytest.raises(ToolError, match="a: 'x' is not of type 'integer'"):
        check_arguments(
            ToolDescriptor("x", parameters={"type": "object", "properties": {"a": {"type": "integer"}}}), {"a": "x"}
        )


def test_4_1_results_have_their_shapes() -> None:
    assert ToolResult.error("t", "gone", code="missing").to_json() == {
        "tool_name": "t",
        "status": "error",
        "data": {"error": {"code": "missing", "message": "gone"}},
        "message": "[missing] gone",
    }
    assert ToolResult.success("t").to_json() == {"tool_name": "t", "status": "success", "data": None}
    assert not ToolResult.warning("t", 1, "careful").is_error


async def test_4_1_values_become_json() -> None:
    class Out(BaseModel):
        n: int

    @tool
    async def give(kind: str) -> Any:
        """Give."""
        return {"model": Out(n=1), "set": {1}, "raw": ToolResult.warning("give", 1, "w"), "bad": object()}[kind]

    async def data(kind: str) -> Any:
        return (await give.run({"kind": kind}, ctx_of())).result

    assert (await data("model")).data == {"n": 1}
    assert (await data("set")).data == [1]
    assert (await data("raw")).status == "warning"
    with pytest.raises(ToolError, match="not JSON"):
        await data("bad")


async def test_4_1_a_timeout_and_retries_are_the_tools_own() -> None:
    tries: list[str] = []
    slept: list[float] = []

    async def flaky(ctx: ToolCallContext) -> str:
        tries.append(ctx.idempotency_key)
        if len(tries) < 3:
            raise ConnectionError("down")
        return "up"

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    made = FunctionTool(flaky, retry=ToolRetry(attempts=3, wait=0.5), sleep=sleep)
    assert (await made.run({}, ctx_of())).result.data == "up"
    assert tries == ["c1"] * 3 and slept == [0.5, 1.0]

    @tool(timeout=0.01)
    async def hangs() -> None:
        """Hang."""
        await asyncio.Event().wait()

    world = World(Script(calls(("c1", "hangs", {})), "ok"), agent(tools=(hangs,)))
    await world.run()
    assert tool_results((await world.thread()).messages)["c1"]["message"] == "TimeoutError: no result within 0.01 s"


@pytest.mark.parametrize("kind", ["invalid_arguments", "execution_failed", "denied", "not_found", "internal"])
async def test_4_1_every_tool_error_is_a_result_never_a_failure_of_the_run(kind: Any) -> None:
    @tool
    def fails() -> None:
        """Fail."""
        raise ToolError("no", kind, "code")

    world = World(Script(calls(("c1", "fails", {})), "ok"), agent(tools=(fails,)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "ok"
    assert tool_results((await world.thread()).messages)["c1"]["data"]["error"]["code"] == "code"


async def test_4_1_the_model_sees_the_whole_result_as_json() -> None:
    @tool
    def one() -> int:
        """One."""
        return 1

    world = World(Script(calls(("c1", "one", {})), "ok"), agent(tools=(one,)))
    await world.run()
    assert world.model.requests[1].messages[-1].content == '{"data":1,"tool_name":"one","status":"success"}'


async def test_4_1_a_tools_actions_apply_before_the_behaviors_of_after_tool_execute() -> None:
    seen: list[Any] = []

    class After(Owner):
        async def after_tool_execute(self, ctx: Any) -> Any:
            seen.append(ctx.document["count"])
            return AddSystemReminder("behavior")

    @tool
    def act() -> ToolExecutionEffect:
        """Act."""
        return ToolExecutionEffect(ToolResult.success("act"), (add(3), AddSystemReminder("tool")))

    world = World(Script(calls(("c1", "act", {})), "ok"), agent(tools=(act,), behaviors=(After(),)))
    await world.run()
    thread = await world.thread()
    assert seen == [{"value": 3}]
    assert [m.content for m in thread.messages if "reminder" in m.content] == [
        "<system-reminder>tool</system-reminder>",
        "<system-reminder>behavior</system-reminder>",
    ]


async def test_4_2_patches_and_the_intent_log_name_the_tool() -> None:
    @tool
    def act() -> ToolExecutionEffect:
        """Act."""
        return ToolExecutionEffect(ToolResult.success("act"), (add(3),))

    world = World(Script(calls(("c1", "act", {})), "ok"), agent(tools=(act,), behaviors=(Owner(),)))
    await world.run()
    changes = await world.store.load_deltas("t", 0)
    assert [a["payload"] for c in changes for a in c.actions if a["state_type_name"] == "Count"] == [3]


async def test_4_1_a_tool_may_own_states_and_a_state_nobody_owns_is_refused() -> None:
    def act() -> ToolExecutionEffect:
        """Act."""
        return ToolExecutionEffect(ToolResult.success("act"), (vote(3),))

    owning, bare = tool(states=(Votes,))(act), tool(act)
    for made, status in ((owning, "success"), (bare, "error")):
        world = World(Script(calls(("c1", "act", {})), "ok"), agent(tools=(made,)))
        await world.run()
        result = tool_results((await world.thread()).messages)["c1"]
        assert result["status"] == status
        assert (await world.state()).get("votes") == ({"total": {"c1": 3}} if made is owning else None)
    assert "Votes" in result["message"]


# -- 4.2 -------------------------------------------------------------------------------------------


async def test_4_2_the_call_id_is_the_idempotency_key_and_the_context_reads() -> None:
    seen: dict[str, Any] = {}

    @tool
    async def look(ctx: ToolCallContext) -> ToolExecutionEffect:
        """Look."""
        seen.update(
            key=ctx.idempotency_key,
            source=ctx.source,
            said=[m.content for m in ctx.messages][:1],
            count=ctx.snapshot_of(Count),
            at=ctx.snapshot_at(("count", "value")),
            note=ctx.scoped_state_of(Note),
            run=ctx.identity.agent_id,
            cancelled=ctx.is_cancelled,
            resume=ctx.resume_input,
        )
        ctx.add_message(ContextMessage("k", "by the way", target=Target.CONVERSATION))
        note = AnyStateAction.new_for_call(Note, "kept", ctx.call_id)
        ctx.keep({"n": 1})
        return ToolExecutionEffect(ToolResult.success("look"), (note,))

    class Start(Owner):
        async def run_start(self, ctx: Any) -> Any:
            return add(5)

    world = World(Script(calls(("c.1", "look", {})), "ok"), agent(tools=(look,), behaviors=(Start(),)))
    await world.run("hello")
    assert seen["key"] == "c.1" and seen["source"] == "tool:look" and seen["said"] == ["hello"]
    assert (seen["count"], seen["at"], seen["note"]) == (Count(value=5), 5, Note())
    assert (seen["run"], seen["cancelled"], seen["resume"]) == ("a", False, None)
    scope = (await world.state())["__tool_call_scope"]["c.1"]
    assert scope["note"] == {"text": "kept"} and scope["tool_call_state"]["scratch"] == {"n": 1}
    assert [m.content for m in (await world.thread()).messages][-2] == "by the way"


# -- 4.3 -------------------------------------------------------------------------------------------


def counting(log: list[Any]) -> Any:
    @tool
    async def count(n: int, ctx: ToolCallContext) -> ToolExecutionEffect:
        """Count."""
        log.append((ctx.call_id, ctx.attempt, ctx.snapshot_at(("count", "value"))))
        return ToolExecutionEffect(ToolResult.success("count", n), (add(n),))

    return count


TWO = calls(("c1", "count", {"n": 1}), ("c2", "count", {"n": 10}))


async def test_4_3_sequential_calls_see_what_earlier_ones_did() -> None:
    log: list[Any] = []
    world = World(
        Script(TWO, "ok"), agent(tools=(counting(log),), behaviors=(Owner(),), tool_execution_mode=SEQUENTIAL)
    )
    await world.run()
    assert log == [("c1", 1, None), ("c2", 1, 1)]
    assert (await world.state())["count"] == {"value": 11}


async def test_4_3_sequential_stops_the_round_at_the_first_suspended_call() -> None:
    ran: list[str] = []

    @tool
    def work(name: str) -> ToolResult:
        """Work."""
        ran.append(name)
        return ToolResult.suspended("work", "wait") if name == "b" else ToolResult.success("work", name)

    three = calls(*((f"c{n}", "work", {"name": n}) for n in "abc"))
    world = World(Script(three, "so far"), agent(tools=(work,), tool_execution_mode=SEQUENTIAL))
    outcome, _ = await world.run()
    assert ran == ["a", "b"] and isinstance(outcome, Suspended)


@pytest.mark.parametrize("mode", [STREAMING, BATCH])
async def test_4_3_parallel_calls_run_at_once_on_one_frozen_snapshot(mode: ToolExecutionMode) -> None:
    together = asyncio.Barrier(2)
    seen: list[Any] = []

    @tool
    async def meet(ctx: ToolCallContext) -> ToolExecutionEffect:
        """Meet."""
        await asyncio.wait_for(together.wait(), 5)
        seen.append(ctx.snapshot_at(("votes", "total")))
        return ToolExecutionEffect(ToolResult.success("meet"), (vote(1),))

    world = World(
        Script(calls(("c1", "meet", {}), ("c2", "meet", {})), "ok"),
        agent(tools=(meet,), behaviors=(Owner(),), tool_execution_mode=mode),
    )
    await world.run()
    assert seen == [None, None]
    assert (await world.state())["votes"] == {"total": {"c1": 1, "c2": 1}}, "joined, not in conflict"


@pytest.mark.parametrize("mode", [STREAMING, BATCH])
async def test_4_3_a_call_whose_patch_meets_another_runs_again_alone(mode: ToolExecutionMode) -> None:
    log: list[Any] = []
    world = World(Script(TWO, "ok"), agent(tools=(counting(log),), behaviors=(Owner(),), tool_execution_mode=mode))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason.type == "natural_end"
    assert log == [("c1", 1, None), ("c2", 1, None), ("c2", 2, 1)]
    assert (await world.state())["count"] == {"value": 11}


async def test_4_3_a_call_that_must_not_repeat_fails_and_nothing_of_its_patch_is_applied() -> None:
    log: list[Any] = []
    once = counting(log)
    once.repeatable = False

    @tool(repeatable=False)
    async def both(ctx: ToolCallContext) -> ToolExecutionEffect:
        """Write twice."""
        return ToolExecutionEffect(ToolResult.success("both"), (vote(5), add(100)))

    asked = calls(("c1", "count", {"n": 1}), ("c2", "both", {}))
    world = World(Script(asked, "ok"), agent(tools=(once, both), behaviors=(Owner(),)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "ok"
    results, state = tool_results((await world.thread()).messages), await world.state()
    assert results["c1"]["status"] == "success" and results["c2"]["data"]["error"]["code"] == "state_conflict"
    assert "$.count" in results["c2"]["message"]
    assert state["count"] == {"value": 1} and "votes" not in state, "never partly applied"
    assert state["__tool_call_scope"]["c2"]["tool_call_state"]["status"] == "failed"


async def test_4_3_state_actions_of_behaviors_in_a_round_do_not_conflict() -> None:
    class Counts(Owner):
        async def before_tool_execute(self, ctx: Any) -> Any:
            return add(1)

    @tool
    def noop() -> None:
        """Do nothing."""

    three = calls(("c1", "noop", {}), ("c2", "noop", {}), ("c3", "noop", {}))
    world = World(Script(three, "ok"), agent(tools=(noop,), behaviors=(Counts(),)))
    await world.run()
    assert (await world.state())["count"] == {"value": 3}


async def test_4_3_results_are_stored_in_call_order_with_the_steps_metadata() -> None:
    first_done = asyncio.Event()

    @tool
    async def work(n: int) -> int:
        """Work."""
        if n == 1:
            await asyncio.wait_for(first_done.wait(), 5)
        first_done.set()
        return n

    world = World(Script(calls(("c1", "work", {"n": 1}), ("c2", "work", {"n": 2})), "ok"), agent(tools=(work,)))
    outcome, _ = await world.run()
    results = [m for m in (await world.thread()).messages if m.tool_call_id]
    assert [m.tool_call_id for m in results] == ["c1", "c2"]
    assert {(m.step_index, m.run_id) for m in results} == {(0, outcome.checkpoint.document["__run"]["id"])}


async def test_4_3_a_running_tool_is_reached_by_cancellation_and_its_result_discarded() -> None:
    seen: list[str] = []
    begun = asyncio.Event()

    @tool
    async def hangs(ctx: ToolCallContext) -> str:
        """Hang."""
        begun.set()
        try:
            await ctx.cancellation.wait()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(f"cancelled {ctx.is_cancelled}")
            raise
        return "late"

    world = World(Script(calls(("c1", "hangs", {}))), agent(tools=(hangs,)))
    stream = await world.start()
    await begun.wait()
    stream.cancel()
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.reason.type == "cancelled"
    await until(lambda: seen)
    assert seen == ["cancelled True"]
    assert tool_results((await world.thread()).messages) == {}


async def test_4_2_progress_updates_do_not_need_a_run() -> None:
    ctx_of().report_progress(ToolProgress(progress=0.5))
