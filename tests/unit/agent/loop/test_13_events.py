"""§13 of the agent semantics: the envelope, the variants, and their order."""

from typing import Any

import pytest

from techrevati.agent import events
from techrevati.agent.endings import NATURAL_END, stopped
from techrevati.agent.events import Envelope, Envelopes
from techrevati.agent.model import EncryptedReasoning, ReasoningPiece, TokenUsage
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolProgress, ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.loop.states import Count, add
from tests.unit.agent.scripted import START, Script, World, agent, calls, of_type, said, types


@tool
def plus(a: int) -> int:
    """Add."""
    return a


@tool
def ask() -> ToolResult:
    """Ask."""
    return ToolResult.suspended("ask", "?")


def wire(event: Any, step_id: str | None = None) -> dict[str, Any]:
    return Envelope("r", "t", 12, 5, event, step_id).to_wire()


def test_13_1_the_envelope_has_its_fields_and_leaves_out_what_is_empty() -> None:
    assert wire(events.TextDelta("x"), "step:0") == {
        "type": "text_delta",
        "run_id": "r",
        "thread_id": "t",
        "seq": 12,
        "timestamp_ms": 5,
        "step_id": "step:0",
        "data": {"delta": "x"},
    }
    assert set(wire(events.StepEnd())) == {"type", "run_id", "thread_id", "seq", "timestamp_ms"}


EVERY: list[tuple[Any, str, dict[str, Any]]] = [
    (events.RunStart(), "run_start", {}),
    (events.RunStart("p"), "run_start", {"parent_run_id": "p"}),
    (
        events.RunFinish(NATURAL_END, {"response": "x"}),
        "run_finish",
        {"termination": {"type": "natural_end"}, "result": {"response": "x"}},
    ),
    (events.RunFinish(stopped("c")), "run_finish", {"termination": {"type": "stopped", "value": {"code": "c"}}}),
    (events.StepStart("m"), "step_start", {"message_id": "m"}),
    (events.ReasoningDelta("x"), "reasoning_delta", {"delta": "x"}),
    (events.ReasoningEncryptedValue("x"), "reasoning_encrypted_value", {"encrypted_value": "x"}),
    (events.ToolCallStart("c", "n"), "tool_call_start", {"id": "c", "name": "n"}),
    (events.ToolCallDelta("c", "{"), "tool_call_delta", {"id": "c", "args_delta": "{"}),
    (events.ToolCallReady("c", "n", {}), "tool_call_ready", {"id": "c", "name": "n", "arguments": {}}),
    (
        events.ToolCallDone("c", {"a": 1}, "m", "failed"),
        "tool_call_done",
        {"id": "c", "result": {"a": 1}, "message_id": "m", "outcome": "failed"},
    ),
    (events.ToolCallResumed("c", False), "tool_call_resumed", {"target_id": "c", "result": False}),
    (
        events.InferenceComplete("m", 3, TokenUsage(prompt_tokens=1)),
        "inference_complete",
        {"model": "m", "duration_ms": 3, "usage": {"prompt_tokens": 1}},
    ),
    (events.StateSnapshot({"a": 1}), "state_snapshot", {"snapshot": {"a": 1}}),
    (events.StateDelta([{"op": "add"}]), "state_delta", {"delta": [{"op": "add"}]}),
    (events.MessagesSnapshot([]), "messages_snapshot", {"messages": []}),
    (
        events.ActivitySnapshot("m", "t", {}, True),
        "activity_snapshot",
        {"message_id": "m", "activity_type": "t", "content": {}, "replace": True},
    ),
    (events.ActivityDelta("m", "t", []), "activity_delta", {"message_id": "m", "activity_type": "t", "patch": []}),
    (events.ErrorEvent("x", "LLM_ERROR"), "error", {"message": "x", "code": "LLM_ERROR"}),
    (events.ToolCallCancelled("c"), "tool_call_cancel", {"id": "c"}),
    (events.StreamReset("m", "cut"), "stream_reset", {"message_id": "m", "reason": "cut"}),
]  # fmt: skip


@pytest.mark.parametrize(("event", "kind", "data"), EVERY)
def test_13_2_each_variant_has_its_type_and_data_and_comes_back(event: Any, kind: str, data: dict[str, Any]) -> None:
    sent = wire(event)
    assert sent["type"] == kind == event.type and sent.get("data", {}) == data
    unknown = {**sent, "new": 1, "data": {**data, "newer": 2}}
    assert Envelope.from_wire(unknown).event == event, "unknown fields are ignored"


def test_13_1_seq_starts_at_zero_and_grows_by_one() -> None:
    got: list[Envelope] = []
    numbered = Envelopes("r", "t", got.append, now_ms=lambda: START)
    for _ in range(3):
        numbered.emit(events.StepEnd(), None)
    assert [e.seq for e in got] == [0, 1, 2]


async def run_all() -> tuple[World, list[Envelope]]:
    @tool
    async def slow(ctx: ToolCallContext) -> int:
        """Show how far it is."""
        ctx.report_progress(ToolProgress(progress=0.5, message="half"))
        ctx.activity("stream", "chart", {"points": 3})
        return 1

    def think(request: Any, on_event: Any) -> Any:
        on_event(ReasoningPiece("hm"))
        on_event(EncryptedReasoning("0x"))
        return said("done", usage=TokenUsage(total_tokens=9))

    asked = calls(("c1", "slow", {}), ("c2", "ask", {}), ("c3", "plus", {"a": "x"}), text="let me see")
    world = World(Script(asked, think), agent(tools=(plus, ask, slow)))
    _, got = await world.run()
    return world, got


async def test_13_3_a_run_tells_its_events_in_order() -> None:
    _, got = await run_all()
    assert types(got) == [
        "run_start",
        "step_start",
        "text_delta",
        *["tool_call_start", "tool_call_delta"] * 3,
        "inference_complete",
        "step_end",
        "tool_call_ready",
        "tool_call_ready",
        "tool_call_ready",
        "activity_snapshot",
        "activity_snapshot",
        "tool_call_done",
        "tool_call_done",
        "state_snapshot",
        "step_start",
        "reasoning_delta",
        "reasoning_encrypted_value",
        "inference_complete",
        "step_end",
        "run_finish",
    ]
    assert [e.seq for e in got] == list(range(len(got)))
    bracket = [e.step_id for e in got]
    assert bracket == [None, *["step:0"] * 10, *[None] * 8, *["step:1"] * 5, None]


async def test_13_3_one_call_starts_then_is_ready_then_done() -> None:
    _, got = await run_all()
    of_call = [e.event.type for e in got if getattr(e.event, "id", None) == "c1"]
    assert of_call == ["tool_call_start", "tool_call_delta", "tool_call_ready", "tool_call_done"]
    assert [(e.id, e.outcome) for e in of_type(got, events.ToolCallDone)] == [("c1", "succeeded"), ("c3", "failed")]


async def test_13_3_message_ids_are_those_of_the_stored_messages() -> None:
    world, got = await run_all()
    stored = {m.id: m for m in (await world.thread()).messages}
    for event in of_type(got, events.StepStart):
        assert stored[event.message_id].role == "assistant"
    for event in of_type(got, events.ToolCallDone):
        assert stored[event.message_id].tool_call_id == event.id


async def test_13_3_nothing_but_deltas_and_activity_is_told_before_it_is_stored() -> None:
    told: list[str] = []
    known: list[set[str]] = []
    world = World(Script(calls(("c1", "plus", {"a": 1})), "ok"), agent(tools=(plus,)))
    original = world.store.append

    async def append(thread_id: str, change: Any, precondition: Any) -> int:
        known.append(set(told))
        version: int = await original(thread_id, change, precondition)
        return version

    world.store.append = append
    stream = await world.start()
    stream._listeners = (lambda envelope: told.append(envelope.event.type),)
    await stream.result()
    free = {str(kind.__struct_config__.tag) for kind in events.STREAMED}
    assert known[2] - known[1] <= free | {"run_start", "step_start"}
    before_assistant, before_results, before_end = known[2], known[3], known[5]
    assert "inference_complete" not in before_assistant and "step_end" not in before_assistant
    assert "tool_call_done" not in before_results and "state_snapshot" not in before_results
    assert "run_finish" not in before_end


async def test_13_2_the_call_that_changed_state_tells_its_patch_and_the_snapshot_hides_the_kernel() -> None:
    from techrevati.agent.behavior import AgentBehavior
    from techrevati.agent.tools import ToolExecutionEffect

    class Owner(AgentBehavior):
        id = "owner"
        states = (Count,)

    @tool
    def count() -> ToolExecutionEffect:
        """Count."""
        return ToolExecutionEffect(ToolResult.success("count"), (add(1),))

    world = World(Script(calls(("c1", "count", {})), "ok"), agent(tools=(count,), behaviors=(Owner(),)))
    _, got = await world.run()
    assert of_type(got, events.ToolCallDone)[0].patch == [{"op": "set", "path": ["count"], "value": {"value": 1}}]
    (snapshot,) = of_type(got, events.StateSnapshot)
    assert snapshot.snapshot["count"] == {"value": 1} and "__kernel" not in snapshot.snapshot


async def test_13_4_one_progress_update_is_one_full_snapshot_with_its_lineage() -> None:
    _, got = await run_all()
    progress, chart = of_type(got, events.ActivitySnapshot)
    run_id = got[0].run_id
    assert progress == events.ActivitySnapshot(
        "tool_call:c1",
        "tool-call-progress",
        {
            "type": "tool-call-progress",
            "schema": "tool-call-progress.v1",
            "node_id": "tool_call:c1",
            "call_id": "c1",
            "tool_name": "slow",
            "status": "running",
            "progress": 0.5,
            "message": "half",
            "run_id": run_id,
            "thread_id": "t",
            "updated_at_ms": START,
        },
        True,
    )
    assert (chart.message_id, chart.activity_type, chart.content) == ("stream", "chart", {"points": 3})


async def test_13_4_a_sync_tool_tells_its_progress_from_its_thread_and_before_it_is_done() -> None:
    import threading

    threads: list[int] = []

    @tool
    def count(ctx: ToolCallContext) -> int:
        """Count in a thread."""
        threads.append(threading.get_ident())
        for n in range(5):
            ctx.report_progress(ToolProgress(loaded=n))
        return 5

    world = World(Script(calls(("c1", "count", {})), "ok"), agent(tools=(count,)))
    stream = await world.start()
    told: list[int] = []
    stream._listeners = (lambda envelope: told.append(threading.get_ident()),)
    await stream.result()
    got = [envelope async for envelope in stream.events]
    assert [e.content["loaded"] for e in of_type(got, events.ActivitySnapshot)] == [0, 1, 2, 3, 4]
    order = types(got)
    assert order.index("tool_call_done") > max(n for n, kind in enumerate(order) if kind == "activity_snapshot")
    assert threads[0] not in told, "nobody is told from the tool's thread"


async def test_a_sink_that_fails_does_not_harm_the_run() -> None:
    world = World(Script("hi"), agent())
    stream = await world.start()

    def refuse(envelope: Envelope) -> None:
        raise OSError("closed")

    stream._listeners = (refuse,)
    outcome = await stream.result()
    assert outcome.checkpoint.document["__run"]["status"] == "done"
