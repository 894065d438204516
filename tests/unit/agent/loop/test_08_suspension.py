"""§8 of the agent semantics: parked calls, and the decisions that resolve them."""

import asyncio
from typing import Any

import msgspec
import pytest

from techrevati.agent.actions import Suspend
from techrevati.agent.answers import action_of, read_answer, read_answers, reason_of
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.decisions import absorb
from techrevati.agent.definition import ToolExecutionMode
from techrevati.agent.errors import RunNotActive
from techrevati.agent.events import DecisionRefused, ToolCallDone, ToolCallResumed
from techrevati.agent.loop.outcome import Finished, Suspended
from techrevati.agent.loop.records import OnSuspend
from techrevati.agent.loop.step import RunNotPrepared
from techrevati.agent.suspension import (
    DefaultDecision,
    PendingToolCall,
    ResumeAction,
    ResumeMode,
    SuspendedCall,
    SuspendTicket,
    Suspension,
    ToolCallDecision,
    filled_ticket,
)
from techrevati.agent.threads.ids import new_id
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolExecutionEffect, ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.loop.states import Count, add
from tests.unit.agent.scripted import (
    START,
    Script,
    World,
    agent,
    calls,
    cancel,
    of_type,
    resume,
    said,
    tool_results,
    types,
    until,
)

BATCH = ToolExecutionMode.PARALLEL_BATCH_APPROVAL


class Approval(AgentBehavior):
    """Parks every call of `pay` that nobody approved."""

    id = "approval"
    states = (Count,)

    def __init__(self, mode: ResumeMode = ResumeMode.REPLAY, **ticket: Any) -> None:
        self.mode, self.ticket = mode, ticket

    async def before_tool_execute(self, ctx: Any) -> Any:
        if ctx.tool_name != "pay" or ctx.resume_input is not None:
            return None
        call_id = str(ctx.tool_call_id)
        asked = Suspension(f"s_{call_id}", "confirm", "May I?", ctx.tool_args)
        shown = PendingToolCall(f"fc_{call_id}", "PermissionConfirm", {"tool_name": "pay"})
        return Suspend(SuspendTicket(asked, shown, self.mode, **self.ticket))


class Bank:
    """Pays, and remembers."""

    def __init__(self) -> None:
        self.paid: list[Any] = []

        @tool
        async def pay(ctx: ToolCallContext, amount: int = 0) -> ToolExecutionEffect:
            """Pay."""
            self.paid.append((ctx.call_id, amount, ctx.resume_input and ctx.resume_input.result))
            return ToolExecutionEffect(ToolResult.success("pay", amount), (add(amount),))

        self.tool = pay


PAY = calls(("c1", "pay", {"amount": 5}))
PAY_TWICE = calls(("c1", "pay", {"amount": 5}), ("c2", "pay", {"amount": 7}))


def bank_world(*replies: Any, mode: ResumeMode = ResumeMode.REPLAY, ticket: Any = None, **options: Any) -> Any:
    bank = Bank()
    options.setdefault("behaviors", (Approval(mode, **(ticket or {})),))
    return bank, World(Script(*replies), agent(tools=(bank.tool,), **options))


# -- 8.1 -------------------------------------------------------------------------------------------


def test_8_1_records_have_their_wire_shape_with_ticket_and_resume_flat() -> None:
    call = SuspendedCall("c", "pay", {"a": 1}, Suspension("s", "confirm"), PendingToolCall("p", "x", {}))
    assert msgspec.to_builtins(call) == {
        "call_id": "c",
        "tool_name": "pay",
        "arguments": {"a": 1},
        "suspension": {"id": "s", "action": "confirm"},
        "pending": {"id": "p", "name": "x", "arguments": {}},
    }
    decision = ToolCallDecision("c", "d", ResumeAction.RESUME, {"ok": 1}, updated_at=3)
    assert msgspec.to_builtins(decision) == {
        "target_id": "c",
        "decision_id": "d",
        "action": "resume",
        "result": {"ok": 1},
        "updated_at": 3,
    }


def test_8_1_a_ticket_that_is_missing_or_blank_is_filled_with_the_call_itself() -> None:
    filled = filled_ticket(None, "c", "pay", {"a": 1})
    assert filled.suspension == Suspension("c", "tool:pay", None, {"a": 1})
    assert filled.pending == PendingToolCall("c", "pay", {"a": 1}) and filled.resume_mode is ResumeMode.REPLAY
    blank = filled_ticket(SuspendTicket(Suspension("s", "ask"), PendingToolCall(" ", "x")), "c", "pay", {})
    assert blank.pending == PendingToolCall("c", "pay", {}) and blank.suspension.id == "s"


async def test_8_1_a_pending_result_without_a_ticket_stands_for_its_call() -> None:
    @tool
    def ask(q: str) -> ToolResult:
        """Ask."""
        return ToolResult.suspended("ask", "please")

    world = World(Script(calls(("c1", "ask", {"q": "?"}))), agent(tools=(ask,)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Suspended)
    stored = (await world.state())["__tool_call_scope"]["c1"]
    assert stored["suspended_call"]["suspension"] == {
        "id": "c1",
        "action": "tool:ask",
        "message": "please",
        "parameters": {"q": "?"},
    }
    assert stored["tool_call_state"]["resume_token"] == "c1"


# -- 8.2 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [True, {"amount": 9}])
async def test_8_2_replay_runs_the_tool_again_with_its_own_arguments_and_sees_the_decision(payload: Any) -> None:
    bank, world = bank_world(PAY, "paid")
    await world.run()
    assert bank.paid == []
    outcome, _ = await world.run(None, run_id="r2", initial_decisions=(resume("c1", payload),))
    assert bank.paid == [("c1", 5, payload)]
    assert isinstance(outcome, Finished) and outcome.response == "paid"


@pytest.mark.parametrize("payload", [{"amount": 9}, True, 0, "", [], None, False])
async def test_8_2_use_decision_as_result_never_calls_the_tool_falsy_payloads_too(payload: Any) -> None:
    bank, world = bank_world(PAY, "noted", mode=ResumeMode.AS_RESULT)
    await world.run()
    await world.run(None, run_id="r2", initial_decisions=(resume("c1", payload),))
    assert bank.paid == []
    assert tool_results((await world.thread()).messages)["c1"] == {
        "tool_name": "pay",
        "status": "success",
        "data": payload,
    }


@pytest.mark.parametrize(("payload", "amount"), [({"amount": 9}, 9), (True, 5), (False, 5)])
async def test_8_2_pass_decision_to_tool_makes_the_payload_its_arguments_but_for_a_boolean(
    payload: Any, amount: int
) -> None:
    bank, world = bank_world(PAY, "paid", mode=ResumeMode.AS_ARGUMENTS)
    await world.run()
    await world.run(None, run_id="r2", initial_decisions=(resume("c1", payload),))
    assert bank.paid == [("c1", amount, payload)]


# -- 8.3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["c1", "s_c1", "fc_c1"])
async def test_8_3_a_decision_may_name_the_call_the_suspension_or_the_pending_id(target: str) -> None:
    bank, world = bank_world(PAY, "paid")
    await world.run()
    _, events = await world.run(None, run_id="r2", initial_decisions=(resume(target),))
    assert len(bank.paid) == 1
    assert of_type(events, ToolCallResumed)[0].target_id == "c1"


async def test_8_3_an_unknown_target_is_kept_and_takes_effect_when_its_call_is_parked() -> None:
    bank, world = bank_world(PAY, "paid")
    outcome, _ = await world.run("please", initial_decisions=(resume("c1"),))
    assert bank.paid == [("c1", 5, True)]
    assert isinstance(outcome, Finished) and outcome.response == "paid"


async def test_8_3_in_batch_mode_nothing_is_replayed_before_all_is_decided() -> None:
    bank, world = bank_world(PAY_TWICE, "paid", tool_execution_mode=BATCH)
    await world.run()
    outcome, _ = await world.run(None, run_id="r2", initial_decisions=(resume("c2"),))
    assert bank.paid == [] and isinstance(outcome, Suspended)
    assert [c.call_id for c in outcome.calls] == ["c1"]
    outcome, _ = await world.run(None, run_id="r3", initial_decisions=(resume("c1"),))
    assert [p[0] for p in bank.paid] == ["c1", "c2"], "in sorted call-id order"
    assert isinstance(outcome, Finished) and outcome.response == "paid"


async def test_8_3_in_streaming_mode_each_decision_counts_at_once() -> None:
    bank, world = bank_world(PAY_TWICE, "one is paid", "both")
    await world.run()
    outcome, _ = await world.run(None, run_id="r2", initial_decisions=(resume("c2"),))
    assert [p[0] for p in bank.paid] == ["c2"] and isinstance(outcome, Suspended)
    outcome, _ = await world.run(None, run_id="r3", initial_decisions=(resume("c1"),))
    assert [p[0] for p in bank.paid] == ["c2", "c1"] and isinstance(outcome, Finished)


async def test_8_3_cancel_gives_one_error_message_and_keeps_the_calls_state() -> None:
    bank, world = bank_world(PAY_TWICE, "well then")
    await world.run()
    _, events = await world.run(None, run_id="r2", initial_decisions=(cancel("c1"), cancel("c2", "too dear")))
    assert bank.paid == []
    messages = (await world.thread()).messages
    results = tool_results(messages)
    assert results["c1"]["message"] == "The user denied this call." and results["c2"]["message"] == "too dear"
    scope = (await world.state())["__tool_call_scope"]
    assert scope["c1"]["tool_call_state"]["status"] == "cancelled" and "suspended_call" not in scope["c1"]
    assert [(e.target_id, e.result) for e in of_type(events, ToolCallResumed)] == [("c1", False), ("c2", False)]
    assert [(e.id, e.outcome) for e in of_type(events, ToolCallDone)] == [("c1", "cancelled"), ("c2", "cancelled")]


@pytest.mark.parametrize(("payload", "told"), [(None, True), (False, False), (0, 0), ({"x": 1}, {"x": 1})])
async def test_8_3_the_resumed_event_says_true_for_a_null_payload(payload: Any, told: Any) -> None:
    _, world = bank_world(PAY, "paid")
    await world.run()
    _, events = await world.run(None, run_id="r2", initial_decisions=(resume("c1", payload),))
    assert [e.result for e in of_type(events, ToolCallResumed)] == [told]
    seen = types(events)
    assert seen.index("tool_call_resumed") < seen.index("tool_call_done") < seen.index("state_snapshot")


async def test_8_3_a_replay_that_suspends_again_gets_a_new_ticket_and_tells_it() -> None:
    asked: list[Any] = []

    @tool
    def twice(ctx: ToolCallContext) -> ToolResult:
        """Ask twice."""
        asked.append(ctx.resume_input and ctx.resume_input.result)
        if len(asked) > 2:
            return ToolResult.success("twice", "finally")
        n = len(asked)
        ticket = SuspendTicket(Suspension(f"s{n}", "confirm"), PendingToolCall(f"p{n}", "Confirm"))
        return ToolResult.suspended("twice", "again", ticket)

    world = World(Script(calls(("c1", "twice", {})), "ok"), agent(tools=(twice,)))
    _, first = await world.run()
    outcome, second = await world.run(None, run_id="r2", initial_decisions=(resume("p1", 1),))
    assert isinstance(outcome, Suspended) and outcome.calls[0].pending.id == "p2"
    assert [e.event.id for e in first if e.event.type == "tool_call_ready"] == ["c1", "p1"]
    assert [e.event.id for e in second if e.event.type == "tool_call_ready"] == ["p2"]
    assert of_type(second, ToolCallDone) == []
    outcome, _ = await world.run(None, run_id="r3", initial_decisions=(resume("s2", 2),))
    assert asked == [None, 1, 2] and isinstance(outcome, Finished)


async def test_8_3_a_second_decision_is_refused_with_its_reason_and_the_tool_runs_once() -> None:
    bank, world = bank_world(PAY, "paid", "still paid")
    await world.run()
    twice = (resume("c1", id="d1"), cancel("s_c1"))
    _, events = await world.run(None, run_id="r2", initial_decisions=twice)
    assert len(bank.paid) == 1
    assert [(e.decision_id, e.reason) for e in of_type(events, DecisionRefused)] == [
        ("d:s_c1", "call c1 is decided already")
    ]
    _, events = await world.run(None, run_id="r3", initial_decisions=(resume("c1", id="d3"),))
    assert len(bank.paid) == 1
    assert [e.reason for e in of_type(events, DecisionRefused)] == ["call c1 has succeeded already"]


def test_8_3_the_same_decision_twice_is_one() -> None:
    from techrevati.agent.loop import records
    from techrevati.agent.state.document import apply

    call = SuspendedCall("c", "pay", {}, Suspension("s", "confirm"), PendingToolCall("p", "x"))
    document = apply({}, records.set_suspended(call))
    first = absorb(document, [resume("c", id="d")], now_ms=1)
    again = absorb(first.document, [resume("c", id="d")], now_ms=2)
    assert first.taken == ("c",) and again.taken == () and again.refused == () and not again.patch


async def test_8_3_an_orphan_that_is_resuming_is_closed_without_running_anything() -> None:
    from techrevati.agent.lifecycle import CallStatus
    from techrevati.agent.loop import records
    from techrevati.agent.state.patch import TrackedPatch
    from techrevati.agent.threads.changeset import CheckpointReason, ThreadChangeSet
    from techrevati.agent.threads.store import ANY_VERSION

    bank, world = bank_world("hi", "done")
    await world.run()
    states = [
        records.ToolCallState("c1", "pay", {}, CallStatus.RESUMING, None, resume("c1").resume),
        records.ToolCallState("c2", "pay", {}, CallStatus.RESUMING, None, cancel("c2").resume),
    ]
    patches = tuple(TrackedPatch(records.set_call(state)) for state in states)
    change = ThreadChangeSet(run_id="x", reason=CheckpointReason.USER_MESSAGE, patches=patches)
    await world.store.append("t", change, ANY_VERSION)
    await world.run(None, run_id="r2")
    scope = (await world.state())["__tool_call_scope"]
    assert [scope[c]["tool_call_state"]["status"] for c in ("c1", "c2")] == ["failed", "cancelled"]
    assert bank.paid == []


async def test_8_3_a_suspension_expires_with_its_default_decision() -> None:
    ticket = {"expires_at": START + 1000, "default": DefaultDecision(ResumeAction.RESUME, "by default")}
    bank, world = bank_world(PAY, "paid", ticket=ticket)
    outcome, _ = await world.run()
    assert isinstance(outcome, Suspended) and outcome.expires_at == START + 1000
    outcome, _ = await world.run(None, run_id="r2")
    assert isinstance(outcome, Suspended) and bank.paid == [], "not yet"
    world.clock.ms += 1000
    outcome, _ = await world.run(None, run_id="r3")
    assert isinstance(outcome, Finished) and bank.paid == [("c1", 5, "by default")]


async def test_8_3_a_parked_run_wakes_when_its_suspension_expires() -> None:
    bank, world = bank_world(PAY, "nobody came", suspension_timeout=60)
    outcome, events = await world.run(on_suspend=OnSuspend.PARK)
    assert isinstance(outcome, Finished) and outcome.response == "nobody came" and bank.paid == []
    assert tool_results((await world.thread()).messages)["c1"]["message"] == "nobody answered in time (confirm)"
    assert types(events).count("run_finish") == types(events).count("run_start") == 1


# -- 8.4 -------------------------------------------------------------------------------------------


async def test_8_4_a_live_run_takes_decisions_while_the_model_streams() -> None:
    bank, world = bank_world()

    async def slow(request: Any, on_event: Any) -> Any:
        stream.submit_decision(resume("c1"))
        await until(lambda: bank.paid)
        return said("while it was paid")

    @tool
    def look() -> int:
        """Look."""
        return 1

    mixed = calls(("c1", "pay", {"amount": 5}), ("c2", "look", {}))
    world = World(Script(mixed, slow), agent(tools=(bank.tool, look), behaviors=(Approval(),)))
    stream = await world.start()
    events = [envelope async for envelope in stream.events]
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.response == "while it was paid"
    assert types(events).count("tool_call_resumed") == 1


async def test_8_4_a_live_run_takes_decisions_while_tools_run() -> None:
    bank = Bank()
    paid = asyncio.Event()

    @tool
    async def wait_for_payment() -> str:
        """Wait."""
        stream.submit_decision(resume("fc_c1"))
        await until(lambda: bank.paid)
        paid.set()
        return "seen"

    @tool
    def look() -> int:
        """Look."""
        return 1

    first = calls(("c1", "pay", {"amount": 5}), ("c2", "look", {}))
    second = calls(("c3", "wait_for_payment", {}))
    world = World(
        Script(first, second, "done"),
        agent(tools=(bank.tool, look, wait_for_payment), behaviors=(Approval(),)),
    )
    stream = await world.start()
    outcome = await stream.result()
    assert paid.is_set() and isinstance(outcome, Finished) and outcome.response == "done"
    assert (await world.state())["count"] == {"value": 5}


async def test_8_4_a_decision_works_with_no_messages_in_a_new_run_at_any_later_time() -> None:
    bank, world = bank_world(PAY)
    await world.run()
    later = World(Script("paid"), agent(tools=(bank.tool,), behaviors=(Approval(),)), store=world.store, new_id=new_id)
    outcome, _ = await later.run(None, run_id="r2", initial_decisions=(resume("c1"),))
    assert isinstance(outcome, Finished) and outcome.response == "paid" and len(bank.paid) == 1


async def test_8_4_new_user_input_abandons_what_waited() -> None:
    bank, world = bank_world(PAY, "never mind", "no")
    await world.run()
    outcome, _ = await world.run("forget it")
    assert isinstance(outcome, Finished) and outcome.response == "never mind"
    shown = [m.content for m in world.model.requests[1].messages if m.tool_call_id]
    assert len(shown) == 1 and "the user went on without this call" in shown[0], "the model knows"
    _, events = await world.run(None, run_id="r3", initial_decisions=(resume("c1"),))
    assert bank.paid == [] and of_type(events, ToolCallResumed) == []


async def test_8_4_a_continuation_brings_messages_and_decisions_and_both_count() -> None:
    bank, world = bank_world(PAY_TWICE, "done")
    first, _ = await world.run()
    old = first.checkpoint.document["__run"]["id"]
    outcome, _ = await world.run("and be quick", parent_run_id=old, initial_decisions=(resume("fc_c1"),))
    assert isinstance(outcome, Finished) and outcome.response == "done"
    assert [p[0] for p in bank.paid] == ["c1"], "the one that was decided went on, the other was abandoned"
    record = await world.store.load_run(outcome.checkpoint.document["__run"]["id"])
    assert record.parent_run_id == old
    view = world.model.requests[-1].messages
    assert [(m.tool_call_id, "went on without" in m.content) for m in view if m.tool_call_id] == [
        ("c1", False),
        ("c2", True),
    ]


async def test_8_4_decisions_alone_go_to_the_live_run_of_the_thread() -> None:
    bank, world = bank_world(PAY, "paid")
    stream = await world.start(on_suspend=OnSuspend.PARK)
    await until(lambda: stream.waiting)
    same = await world.start(None, initial_decisions=(resume("c1"),))
    assert same is stream
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.response == "paid" and len(bank.paid) == 1


async def test_8_4_a_parked_run_is_taken_up_by_another_process() -> None:
    bank, world = bank_world(PAY)
    stream = await world.start(on_suspend=OnSuspend.PARK)
    await until(lambda: stream.waiting)
    assert stream._task is not None
    stream._task.cancel()
    later = World(Script("paid"), agent(tools=(bank.tool,), behaviors=(Approval(),)), store=world.store, new_id=new_id)
    taken_up = await later.driver.resume("t")
    taken_up.submit_decision(resume("c1"))
    outcome = await taken_up.result()
    assert isinstance(outcome, Finished) and outcome.response == "paid" and len(bank.paid) == 1
    assert taken_up.run_id == stream.run_id
    with pytest.raises(RunNotPrepared, match="'nowhere' has no prepared run"):
        await later.driver.resume("nowhere")


async def test_8_4_a_run_that_is_over_refuses_decisions() -> None:
    _, world = bank_world("hi")
    stream = await world.start()
    await stream.result()
    with pytest.raises(RunNotActive, match="is over: a decision refused; fix: start another run"):
        stream.submit_decision(resume("c1"))


async def test_8_4_a_parked_run_goes_on_under_its_own_id() -> None:
    bank, world = bank_world(PAY, "paid")
    stream = await world.start(on_suspend=OnSuspend.PARK)
    await until(lambda: stream.waiting)
    assert (await world.state())["__run"]["status"] == "waiting" and stream.is_live
    stream.submit_decision(resume("nobody"))
    stream.submit_decision(resume("c1"))
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.response == "paid" and len(bank.paid) == 1
    events = [envelope async for envelope in stream.events]
    assert types(events).count("run_start") == types(events).count("run_finish") == 1
    assert [e.seq for e in events] == list(range(len(events)))


# -- 8.5 -------------------------------------------------------------------------------------------

CANCEL, RESUME = ResumeAction.CANCEL, ResumeAction.RESUME


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        (True, RESUME),
        (False, CANCEL),
        ("yes", RESUME),
        ("", RESUME),
        (" No ", CANCEL),
        *(
            (word, CANCEL)
            for word in [
                "false",
                "denied",
                "deny",
                "reject",
                "rejected",
                "cancel",
                "canceled",
                "cancelled",
                "abort",
                "aborted",
            ]
        ),
        ("not now", RESUME),
        ({"approved": True}, RESUME),
        ({"approved": False}, CANCEL),
        ({"approved": "no"}, RESUME),
        ({"denied": True}, CANCEL),
        ({"aborted": True}, CANCEL),
        ({"denied": False}, RESUME),
        ({"status": "Rejected"}, CANCEL),
        ({"decision": "deny"}, CANCEL),
        ({"action": " CANCEL "}, CANCEL),
        ({"action": "go"}, RESUME),
        ({}, RESUME),
        (None, CANCEL),
        (1, CANCEL),
        (0.0, CANCEL),
        ([True], CANCEL),
    ],
)
def test_8_5_a_raw_answer_means_resume_or_cancel(answer: Any, action: ResumeAction) -> None:
    assert action_of(answer) is action
    assert read_answer("c", answer).result == answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("no", "no"),
        ({"approved": False, "reason": "too dear", "message": "x"}, "too dear"),
        ({"approved": False, "message": "later"}, "later"),
        ({"approved": False, "error": "broken"}, "broken"),
        ({"approved": False}, None),
        (False, None),
    ],
)
def test_8_5_a_cancel_has_the_answers_reason(answer: Any, reason: str | None) -> None:
    assert reason_of(answer) == reason == read_answer("c", answer).reason


def test_8_5_ids_are_given_and_of_two_answers_the_last_wins_in_its_place() -> None:
    read = read_answers([("a", True), ("b", True), ("a", False)])
    assert [(d.target_id, d.decision_id, d.action) for d in read] == [
        ("b", "decision_b", RESUME),
        ("a", "decision_a", CANCEL),
    ]
    with pytest.raises(ValueError, match="is blank"):
        read_answer(" ", True)


# -- 8.6 -------------------------------------------------------------------------------------------


async def test_8_6_a_pending_projection_is_told_after_the_commit_and_no_done_follows() -> None:
    stored: list[bool] = []
    _, world = bank_world(PAY)
    original = world.store.append

    async def append(thread_id: str, change: Any, precondition: Any) -> int:
        stored.append(any("suspended_call" in str(p) for p in change.patches))
        version: int = await original(thread_id, change, precondition)
        return version

    world.store.append = append
    stream = await world.start()
    async for envelope in stream.events:
        if envelope.event.type == "tool_call_start" and envelope.event.id == "fc_c1":
            break
    assert any(stored), "it was stored before it was told"
    rest = [e async for e in stream.events]
    assert rest[0].event.type == "tool_call_ready" and rest[0].event.name == "PermissionConfirm"
    assert of_type(rest, ToolCallDone) == []


async def test_8_6_a_pending_id_that_is_the_models_own_is_never_told_twice() -> None:
    @tool
    def ask() -> ToolResult:
        """Ask."""
        return ToolResult.suspended("ask", "please")

    _, events = await World(Script(calls(("c1", "ask", {}))), agent(tools=(ask,))).run()
    assert types(events).count("tool_call_start") == types(events).count("tool_call_ready") == 1
