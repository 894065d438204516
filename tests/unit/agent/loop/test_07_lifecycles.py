"""§7 of the agent semantics: runs, tool calls, the loop's order, the model's view of history."""

from typing import Any

import msgspec
import pytest

from techrevati.agent import wording
from techrevati.agent.actions import Terminate
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.endings import (
    BEHAVIOR_REQUESTED,
    CANCELLED,
    NATURAL_END,
    SUSPENDED,
    TerminationReason,
    failed,
    read_termination,
    stopped,
)
from techrevati.agent.errors import CommitFailed
from techrevati.agent.events import ErrorEvent, RunFinish, ToolCallDone
from techrevati.agent.history import model_view
from techrevati.agent.lifecycle import CallStatus, IllegalTransition, call_may_go, held_to_run, run_may_go
from techrevati.agent.loop.finishing import normalised
from techrevati.agent.loop.outcome import Finished, Suspended
from techrevati.agent.loop.records import ToolCallState
from techrevati.agent.suspension import PendingToolCall, SuspendedCall, Suspension, ToolCallResume
from techrevati.agent.threads.memory import InMemoryThreadStore
from techrevati.agent.threads.message import Message, Role, ToolCall
from techrevati.agent.threads.runs import RunStatus
from techrevati.agent.tools import ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.scripted import Script, World, agent, calls, of_type, tool_results, types


@tool
def plus(a: int, b: int = 0) -> int:
    """Add."""
    return a + b


@tool
def ask() -> ToolResult:
    """Wait for somebody."""
    return ToolResult.suspended("ask", "please")


# -- 7.1 -------------------------------------------------------------------------------------------


def test_7_1_a_run_goes_only_where_it_may() -> None:
    legal = {("running", "waiting"), ("running", "done"), ("waiting", "running"), ("waiting", "done")}
    for source in RunStatus:
        for target in RunStatus:
            assert run_may_go(source, target) is (source is target or (source.value, target.value) in legal)
    with pytest.raises(IllegalTransition, match="run r cannot go from done to running"):
        held_to_run("r", RunStatus.DONE, RunStatus.RUNNING)


@pytest.mark.parametrize(
    ("reason", "wire", "status", "done", "code", "detail"),
    [
        (NATURAL_END, {"type": "natural_end"}, "done", "natural", "natural", None),
        (BEHAVIOR_REQUESTED, {"type": "behavior_requested"}, "done", "behavior_requested", "behavior_requested", None),
        (
            stopped("Max_Rounds", "3"),
            {"type": "stopped", "value": {"code": "Max_Rounds", "detail": "3"}},
            "done",
            "stopped:Max_Rounds",
            "max_rounds",
            "3",
        ),
        (CANCELLED, {"type": "cancelled"}, "done", "cancelled", "cancelled", None),
        (SUSPENDED, {"type": "suspended"}, "waiting", None, "input_required", None),
        (failed("boom"), {"type": "error", "value": "boom"}, "done", "error", "error", "boom"),
    ],
)
def test_7_1_each_reason_has_its_wire_form_status_and_codes(
    reason: TerminationReason, wire: Any, status: str, done: str | None, code: str, detail: str | None
) -> None:
    assert msgspec.to_builtins(reason) == wire and read_termination(wire) == reason
    assert (reason.status, reason.done_reason, reason.code, reason.detail) == (status, done, code, detail)


def test_7_1_the_older_name_is_accepted_on_read() -> None:
    assert read_termination({"type": "plugin_requested"}) == BEHAVIOR_REQUESTED


def test_7_1_what_still_waits_makes_an_end_suspended_except_errors_and_cancels() -> None:
    for reason in (NATURAL_END, BEHAVIOR_REQUESTED, stopped("x")):
        assert normalised(reason, has_suspended=True) == SUSPENDED and normalised(reason, has_suspended=False) == reason
    for reason in (CANCELLED, failed("x")):
        assert normalised(reason, has_suspended=True) == reason


async def test_7_1_a_mixed_round_goes_on_and_the_run_ends_suspended_without_a_response() -> None:
    both = calls(("c1", "plus", {"a": 1}), ("c2", "ask", {}))
    world = World(Script(both, "that is all for now"), agent(tools=(plus, ask)))
    outcome, events = await world.run()
    assert isinstance(outcome, Suspended) and not outcome.parked
    assert [c.call_id for c in outcome.calls] == ["c2"]
    finish = of_type(events, RunFinish)[-1]
    assert finish.termination == SUSPENDED and finish.result is None
    state = await world.state()
    assert state["__run"]["status"] == "waiting" and "done_reason" not in state["__run"]
    record = await world.store.load_run(events[0].run_id)
    assert record.status == "waiting" and record.termination_code == "input_required"
    shown = world.model.requests[1].messages[-1]
    assert wording.has_mark(shown, wording.PLACEHOLDER) and "'ask'" in shown.content


async def test_7_1_a_response_comes_with_a_natural_end_with_text_only() -> None:
    _, events = await World(Script("hi"), agent()).run()
    assert of_type(events, RunFinish)[-1].result == {"response": "hi"}

    class Ends(AgentBehavior):
        id = "ends"

        async def after_inference(self, ctx: Any) -> Any:
            return Terminate()

    _, events = await World(Script("hi"), agent(behaviors=(Ends(),))).run()
    assert of_type(events, RunFinish)[-1].result is None


# -- 7.2 -------------------------------------------------------------------------------------------


def test_7_2_a_call_goes_only_where_it_may() -> None:
    ends = {"succeeded", "failed", "cancelled"}
    legal = {
        "new": {status.value for status in CallStatus},
        "running": {"suspended", *ends},
        "suspended": {"resuming", "cancelled"},
        "resuming": {"running", "suspended", *ends},
    }
    for source in CallStatus:
        for target in CallStatus:
            expected = source is target or target.value in legal.get(source.value, set())
            assert call_may_go(source, target) is expected, (source, target)


def test_7_2_resume_payload_and_token_follow_the_status() -> None:
    answer = ToolCallResume("d", "resume", 1)  # type: ignore[arg-type]
    resuming = ToolCallState("c", "x", {}, CallStatus.RESUMING, None, answer)
    assert resuming.to(CallStatus.RUNNING, now_ms=1).resume == answer, "kept when running again"
    again = resuming.to(CallStatus.SUSPENDED, now_ms=1, resume_token="p")
    assert again.resume is None and again.resume_token == "p"
    fresh = ToolCallState("c", "x", {}, CallStatus.NEW, None, answer).to(CallStatus.RUNNING, now_ms=1)
    assert fresh.resume is None, "cleared by a fresh start"
    with pytest.raises(IllegalTransition, match="tool call c cannot go from resuming to new"):
        resuming.to(CallStatus.NEW, now_ms=1)


async def test_7_2_a_call_id_of_an_ended_call_may_come_again() -> None:
    again = calls(("c1", "plus", {"a": 1}))
    world = World(Script(again, again, "done"), agent(tools=(plus,)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "done"
    world.model._replies += [again, "more"]
    outcome, _ = await world.run(None, run_id="second")
    assert isinstance(outcome, Finished) and outcome.response == "more", "also in a later run without new input"


# -- 7.3 -------------------------------------------------------------------------------------------


class Stops(AgentBehavior):
    id = "stops"

    def __init__(self, reason: TerminationReason) -> None:
        self.reason = reason

    async def after_inference(self, ctx: Any) -> Any:
        return Terminate(self.reason)


async def test_7_3_a_stop_lets_the_round_finish() -> None:
    world = World(Script(calls(("c1", "plus", {"a": 1}))), agent(tools=(plus,), behaviors=(Stops(stopped("x")),)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason == stopped("x")
    assert tool_results((await world.thread()).messages)["c1"]["data"] == 1


async def test_7_3_any_other_reason_ends_before_tools_run_and_keeps_the_answer() -> None:
    world = World(Script(calls(("c1", "plus", {"a": 1}))), agent(tools=(plus,), behaviors=(Stops(BEHAVIOR_REQUESTED),)))
    outcome, events = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason == BEHAVIOR_REQUESTED
    messages = (await world.thread()).messages
    assert tool_results(messages) == {} and messages[-1].tool_calls[0].id == "c1"
    assert "tool_call_ready" not in types(events)


async def test_7_3_all_calls_of_a_round_suspended_end_the_run() -> None:
    world = World(Script(calls(("c1", "ask", {}), ("c2", "ask", {}))), agent(tools=(ask,)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Suspended) and len(world.model.requests) == 1


async def test_7_3_changesets_come_with_their_reasons_and_the_last_is_forced_with_snapshot_and_meta() -> None:
    world = World(Script(calls(("c1", "plus", {"a": 1})), "ok"), agent(tools=(plus,)))
    await world.run()
    changes = await world.store.load_deltas("t", 0)
    assert [c.reason.value for c in changes] == [
        "UserMessage",
        "UserMessage",
        "AssistantTurnCommitted",
        "ToolResultsCommitted",
        "AssistantTurnCommitted",
        "RunFinished",
    ]
    assert changes[-1].snapshot["__run"]["status"] == "done" and changes[-1].run_meta.termination_code == "natural"
    assert [len(c.messages) for c in changes] == [1, 0, 1, 1, 1, 0]


class Refusing(InMemoryThreadStore):
    """Refuses chosen changesets."""

    def __init__(self, *reasons: str, times: int = 100) -> None:
        super().__init__()
        self.reasons, self.times = reasons, times

    async def append(self, thread_id: str, change: Any, precondition: Any) -> int:
        if change.reason.value in self.reasons and self.times > 0:
            self.times -= 1
            raise OSError("disk full")
        return await super().append(thread_id, change, precondition)


async def test_7_3_a_round_whose_commit_failed_is_not_announced_and_ends_the_run() -> None:
    store = Refusing("ToolResultsCommitted")
    world = World(Script(calls(("c1", "plus", {"a": 1}))), agent(tools=(plus,)), store=store)
    outcome, events = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason.type == "error"
    assert "disk full" in str(outcome.reason.value)
    assert of_type(events, ToolCallDone) == [] and types(events)[-2:] == ["error", "run_finish"]
    assert tool_results((await world.thread()).messages) == {}


async def test_7_3_an_end_that_was_not_stored_is_an_error_and_never_a_finish() -> None:
    world = World(Script("hi"), agent(), store=Refusing("RunFinished"))
    stream = await world.start()
    events = [envelope async for envelope in stream.events]
    with pytest.raises(CommitFailed, match="disk full"):
        await stream.result()
    assert of_type(events, RunFinish) == []
    assert of_type(events, ErrorEvent)[-1].code == "COMMIT_ERROR"


async def test_7_3_a_fault_after_the_start_rolls_back_what_was_not_committed() -> None:
    from tests.unit.agent.loop.states import Count, add

    class Bad(AgentBehavior):
        id = "bad"
        states = (Count,)

        async def step_start(self, ctx: Any) -> Any:
            return add(1)

        async def before_inference(self, ctx: Any) -> Any:
            raise RuntimeError("boom")

    world = World(Script(), agent(behaviors=(Bad(),)))
    await world.run()
    assert "count" not in await world.state()


# -- 7.4 -------------------------------------------------------------------------------------------

ASKED = Message.assistant("", (ToolCall("c1", "x", {}), ToolCall("c2", "x", {})), id="a1")


def result(call_id: str, text: str = "r") -> Message:
    return Message.tool(text, call_id)


def waits(call_id: str) -> Message:
    asked = Suspension(call_id, "confirm")
    return wording.placeholder("p", SuspendedCall(call_id, "x", {}, asked, PendingToolCall(call_id, "x")))


def test_7_4_results_of_calls_never_issued_are_dropped() -> None:
    user = Message.user("hi")
    assert model_view([user, result("ghost")]) == (user,)


def test_7_4_a_real_result_hides_the_placeholder() -> None:
    placeholder, real, other = waits("c1"), result("c1"), result("c2")
    assert model_view([ASKED, placeholder, other, Message.user("and?"), real])[:3] == (ASKED, real, other)
    assert model_view([ASKED, placeholder, other])[1] is placeholder


def test_7_4_a_call_without_a_result_is_said_to_be_interrupted() -> None:
    view = model_view([ASKED, result("c2")])
    assert view[1].tool_call_id == "c1" and view[1].role is Role.TOOL and "interrupted" in view[1].content


def test_7_4_the_placeholder_is_marked_in_its_metadata() -> None:
    assert waits("c1").metadata == {"mark": "awaiting"}


def test_7_4_a_text_that_looks_like_a_placeholder_is_none() -> None:
    lookalike = result("c1", waits("c1").content)
    assert model_view([ASKED, lookalike, waits("c1")])[1] is lookalike


def test_7_4_results_stand_behind_their_call_and_a_reused_id_has_its_own() -> None:
    again = Message.assistant("", (ToolCall("c1", "x", {}),), id="a2")
    first, second, other = result("c1", "1"), result("c1", "2"), result("c2")
    view = model_view([ASKED, Message.user("wait"), first, other, again, second])
    assert [m.content for m in view] == ["", "1", "r", "wait", "", "2"]
