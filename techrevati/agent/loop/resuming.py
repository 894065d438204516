"""Go on with parked calls that were decided.

decisions ──absorb──▶ resuming ──replay | take as result | cancel──▶ result, message, commit, events
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import msgspec

from techrevati.agent import decisions as deciding
from techrevati.agent import events, wording
from techrevati.agent.agent import Agent
from techrevati.agent.definition import ToolExecutionMode
from techrevati.agent.lifecycle import CallStatus
from techrevati.agent.loop import applying, records
from techrevati.agent.loop.calls import CallReport, CallRun, carry_out, taken_as_result
from techrevati.agent.loop.draft import Draft
from techrevati.agent.loop.ports import Elsewhere
from techrevati.agent.loop.racing import cut_short_by
from techrevati.agent.state.scope import cleanup_after_call
from techrevati.agent.subagents.port import ChildEnd, SubAgentStatus, end_decision
from techrevati.agent.subagents.state import children_of
from techrevati.agent.suspension import ResumeAction, ResumeMode, SuspendedCall, ToolCallDecision, ToolCallResume
from techrevati.agent.threads.changeset import CheckpointReason
from techrevati.agent.threads.message import ToolCall
from techrevati.agent.tools import ToolResult


async def hand_down(draft: Draft, given: Iterable[ToolCallDecision]) -> tuple[ToolCallDecision, ...]:
    """Pass decisions that are for a child's calls to the child; give the rest, with the ends that are waited for."""
    children = draft.ports.children
    left = list(given)
    held = {call.suspension.id: call for call in deciding.waiting(draft.document) if call.hold}
    if children is None or not (held or left):
        return tuple(left)
    running = [run_id for run_id, c in children_of(draft.document).items() if c.status is SubAgentStatus.RUNNING]
    for run_id in dict.fromkeys((*held, *running)):
        view = await children.status(run_id)
        if view is None:
            continue
        ids = {pending.id for pending in view.pending}
        for decision in [d for d in left if d.target_id in ids]:
            if (why := await children.decide(run_id, decision)) is not None:
                draft.tell(events.DecisionRefused(decision.target_id, decision.decision_id, why))
            left.remove(decision)
        if (call := held.get(run_id)) is None:
            continue
        if view.end is not None and view.end.epoch >= _epoch(call):
            left.append(_end_of(draft, call, view.end))
        elif view.end is None and not view.alive:
            left.append(_lost(draft, call))
    return tuple(left)


async def close_held(draft: Draft, why: str) -> None:
    """End the calls that hold the run, and stop its children, those in the background too: it does not complete."""
    await _stop_children(draft)
    for call in deciding.waiting(draft.document):
        if not call.hold:
            continue
        state = records.call_state(draft.document, call.call_id)
        if state is not None:
            draft.apply(records.set_call(state.to(CallStatus.CANCELLED, now_ms=draft.now_ms())))
        draft.apply(cleanup_after_call(draft.document, call.call_id))
        result = ToolResult.error(call.tool_name, why)
        message = wording.tool_message(draft.ports.new_id(), call.call_id, result)
        applying.add_message(draft, message, draft.loop.steps)


async def _stop_children(draft: Draft) -> None:
    if draft.ports.children is None:
        return
    for run_id, child in children_of(draft.document).items():
        if child.status is SubAgentStatus.RUNNING:
            await draft.ports.children.stop(run_id)


def _epoch(call: SuspendedCall) -> int:
    parameters = call.suspension.parameters
    return int(parameters.get("epoch", 0)) if isinstance(parameters, dict) else 0


def _end_of(draft: Draft, call: SuspendedCall, end: ChildEnd) -> ToolCallDecision:
    parameters = call.suspension.parameters
    agent_id = str(parameters.get("agent_id", "")) if isinstance(parameters, dict) else ""
    return end_decision(end, agent_id, draft.now_ms())


def _lost(draft: Draft, call: SuspendedCall) -> ToolCallDecision:
    """Decide for a child that nobody runs any more: its end is a stop that can be resumed."""
    end = ChildEnd(
        run_id=call.suspension.id,
        epoch=0,
        status=SubAgentStatus.STOPPED,
        error="its worker is gone and nobody took over",
    )
    decision = end_decision(end, "", draft.now_ms())
    return msgspec.structs.replace(decision, decision_id=f"lost:{call.suspension.id}")


def absorb(draft: Draft, given: Iterable[ToolCallDecision]) -> None:
    """Take decisions into the draft's state; refused ones are told with their reason."""
    now = draft.now_ms()
    absorbed = deciding.absorb(draft.document, (*given, *deciding.expired(draft.document, now)), now_ms=now)
    draft.apply(absorbed.patch)
    for refused in absorbed.refused:
        draft.tell(events.DecisionRefused(refused.decision.target_id, refused.decision.decision_id, refused.reason))


def close_orphans(draft: Draft) -> None:
    """End calls that are being resumed with nothing parked: nothing of them is executed."""
    for state in deciding.orphans(draft.document):
        cancelled = state.resume is not None and state.resume.action is ResumeAction.CANCEL
        status = CallStatus.CANCELLED if cancelled else CallStatus.FAILED
        draft.apply(records.set_call(state.to(status, now_ms=draft.now_ms())))


@dataclass(frozen=True, slots=True)
class Resumed:
    """What the decided calls came to; `outside`: bodies of some are at work elsewhere, so that those wait."""

    reports: list[CallReport]
    outside: bool = False


async def resume_decided(agent: Agent, draft: Draft, deadline_ms: int | None) -> Resumed:
    """Go on with every decided call, one after the other, each committed before the next.

    Raises:
        CutShort: the run ends; the call that was being replayed is discarded.
    """
    reports, outside = list[CallReport](), False
    batch = agent.definition.tool_execution_mode is ToolExecutionMode.PARALLEL_BATCH_APPROVAL
    for call in deciding.ready_to_resume(draft.document, batch=batch):
        state = records.call_state(draft.document, call.call_id)
        assert state is not None and state.resume is not None, "a call that is resuming has its decision"
        resume = state.resume
        if resume.action is ResumeAction.CANCEL:
            report = _cancelled(draft, call, state, resume)
            draft.apply(records.set_call(report.state))
            draft.apply(cleanup_after_call(draft.document, call.call_id))
        else:
            run = CallRun(agent, draft, draft.view(), deadline_ms)
            go_on = partial(_resumed, run, call, resume)
            try:
                report = await cut_short_by(draft.ports, go_on, deadline_ms=deadline_ms)
            except Elsewhere:
                outside = True
                continue
            applying.take_state(draft, report, replay=True)
        _store_and_tell(draft, report, resume)
        await draft.commit(CheckpointReason.TOOL_RESULTS_COMMITTED)
        reports.append(report)
    return Resumed(reports, outside)


async def _resumed(run: CallRun, call: SuspendedCall, resume: ToolCallResume) -> CallReport:
    arguments = call.arguments
    if call.resume_mode is ResumeMode.AS_RESULT:
        return await taken_as_result(run, ToolCall(call.call_id, call.tool_name, arguments), run.draft.document, resume)
    if call.resume_mode is ResumeMode.AS_ARGUMENTS and not isinstance(resume.result, bool):
        arguments = resume.result
    return await carry_out(run, ToolCall(call.call_id, call.tool_name, arguments), run.draft.document, resume=resume)


def _cancelled(draft: Draft, call: SuspendedCall, state: records.ToolCallState, resume: ToolCallResume) -> CallReport:
    result = ToolResult.error(call.tool_name, resume.reason or wording.DENIED)
    ended = state.to(CallStatus.CANCELLED, now_ms=draft.now_ms())
    return CallReport(ToolCall(call.call_id, call.tool_name, call.arguments), result, CallStatus.CANCELLED, ended)


def _store_and_tell(draft: Draft, report: CallReport, resume: ToolCallResume) -> None:
    step = draft.loop.steps
    message_id = applying.take_messages(draft, report, step, replay=True)
    applying.take_followups(draft, report.followups, step)
    granted = resume.action is ResumeAction.RESUME
    draft.tell(events.ToolCallResumed(report.call.id, granted if resume.result is None else resume.result))
    if message_id is None:
        applying.tell_pending(draft, report)
    else:
        applying.tell_done(draft, report, message_id)
    applying.tell_state(draft)
