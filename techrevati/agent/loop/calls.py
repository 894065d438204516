"""Carry out one tool call, from its gate to what the behaviours say after it.

    before_tool_execute ▶ gate ▶ tool body ▶ its actions ▶ after_tool_execute ──▶ CallReport

Works on a document that it is given and changes nothing: what is to be done stands in the report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from techrevati.agent.actions import (
    AddMessage,
    AddSystemReminder,
    AddUserMessage,
    Phase,
)
from techrevati.agent.agent import Agent
from techrevati.agent.gate import Answered, Blocked, Parking, Standing, standing, verdict
from techrevati.agent.ids import DerivedIds
from techrevati.agent.lifecycle import CallStatus, outcome_of
from techrevati.agent.loop import records
from techrevati.agent.loop.draft import Draft
from techrevati.agent.loop.phases import NOTHING, Asked, run_phase
from techrevati.agent.loop.progress import Caller, listeners
from techrevati.agent.loop.tool_runs import ToolRun
from techrevati.agent.state.document import Document, apply
from techrevati.agent.state.errors import StateError
from techrevati.agent.state.patch import Patch
from techrevati.agent.state.reduction import reduce_actions
from techrevati.agent.state.scope import cleanup_for_new_call
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.suspension import SuspendedCall, SuspendTicket, ToolCallResume, filled_ticket, parked
from techrevati.agent.threads.message import Message, ToolCall
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import Tool, ToolResult

Followup = AddUserMessage | AddMessage


@dataclass(frozen=True, slots=True)
class CallReport:
    """What one call came to.

    Attributes:
        gate, after: What the behaviours asked for; their state actions are reduced when the report is applied.
        actions, patch: The tool's own state actions, and what they make of the document it was given.
        reminders, followups: Text behind the call's message, and messages behind the round's.
        state, suspended: What is written about the call.
    """

    call: ToolCall
    result: ToolResult
    outcome: CallStatus
    state: records.ToolCallState
    suspended: SuspendedCall | None = None
    gate: Asked = NOTHING
    after: Asked = NOTHING
    actions: tuple[AnyStateAction, ...] = ()
    patch: Patch = Patch.EMPTY
    reminders: tuple[str, ...] = ()
    followups: tuple[Followup, ...] = ()


@dataclass(frozen=True, slots=True)
class CallRun:
    """What every call of a round is carried out with; none of it changes meanwhile."""

    agent: Agent
    draft: Draft
    messages: tuple[Message, ...]
    deadline_ms: int | None = None

    def seen(self, phase: Phase, call: ToolCall, document: Document, **more: Any) -> Any:
        return self.draft.context(
            phase,
            messages=self.messages,
            document=document,
            tool_name=call.name,
            tool_call_id=call.id,
            tool_args=call.arguments,
            **more,
        )


async def carry_out(
    run: CallRun,
    call: ToolCall,
    document: Document,
    *,
    resume: ToolCallResume | None = None,
    again: CallReport | None = None,
) -> CallReport:
    """Carry out `call` on `document`.

    Args:
        resume: The decision, when the call is replayed because of one.
        again: An earlier report of this call whose patch met another's: the gate is not asked a second time.

    Raises:
        HookFailed, WrongPhase, StateError, IllegalTransition: the run cannot go on.
    """
    state, document = _begun(run, call, document, resume)
    if again is None:
        gate = await run_phase(
            run.agent.behaviors,
            Phase.BEFORE_TOOL_EXECUTE,
            run.seen(Phase.BEFORE_TOOL_EXECUTE, call, document, resume_input=resume),
        )
    else:
        gate = again.gate
    document = _reduced(run, document, gate.state_actions, call.id)[0]
    now = verdict(_policed(run, call, gate), call.name, run.agent.tools.get(call.name), call.arguments)
    if isinstance(now, Answered):
        done = ToolRun(now.result)
    elif isinstance(now, Parking):
        asked = now.ticket.suspension.message or "waits for a decision"
        done = ToolRun(ToolResult.suspended(call.name, asked, now.ticket))
    else:
        state = state.to(CallStatus.RUNNING, now_ms=run.draft.now_ms())
        tool = run.agent.tools[call.name]
        done = await _executed(run, tool, call, document, state, resume, 1 if again is None else 2)
    return await _reported(run, call, document, state, gate, done, resume)


async def taken_as_result(run: CallRun, call: ToolCall, document: Document, resume: ToolCallResume) -> CallReport:
    """Make the decision's payload the result: neither the gate nor the tool is asked."""
    state, document = _begun(run, call, document, resume)
    done = ToolRun(ToolResult.success(call.name, resume.result))
    return await _reported(run, call, document, state, NOTHING, done, resume)


def _begun(
    run: CallRun, call: ToolCall, document: Document, resume: ToolCallResume | None
) -> tuple[records.ToolCallState, Document]:
    if resume is not None:
        known = records.call_state(document, call.id)
        if known is not None:
            return known, document
    document = apply(document, cleanup_for_new_call(document, call.id), run.draft.states.lattices)
    return records.ToolCallState(call.id, call.name, call.arguments), document


def _policed(run: CallRun, call: ToolCall, gate: Asked) -> Standing:
    """The run's policy comes first, and no behaviour overrides it."""
    if not run.draft.policy.allows_tool(call.name) and run.agent.knows_tool(call.name):
        return Blocked(f"tool {call.name!r} is not allowed by the run policy")
    return standing(gate.actions)


def _reduced(run: CallRun, document: Document, actions: Sequence[AnyStateAction], actor: str) -> tuple[Document, Patch]:
    if not actions:
        return document, Patch.EMPTY
    for action in actions:
        run.draft.states.actions.read(action.entry())
    return reduce_actions(document, actions, actor=actor, registry=run.draft.states.lattices)


async def _executed(
    run: CallRun,
    tool: Tool,
    call: ToolCall,
    document: Document,
    state: records.ToolCallState,
    resume: ToolCallResume | None,
    attempt: int,
) -> ToolRun:
    draft = run.draft
    ctx = ToolCallContext(
        call_id=call.id,
        tool_name=call.name,
        identity=draft.identity,
        policy=draft.policy,
        document=document,
        messages=run.messages,
        resume_input=resume,
        scratch=state.scratch,
        attempt=attempt,
        started_at_ms=draft.plan.started_at_ms,
        deadline_ms=run.deadline_ms,
        depth=draft.plan.depth,
        binds=(*draft.plan.above, draft.states.binding(document)),
        children=draft.ports.children,
        new_id=DerivedIds(f"{draft.identity.run_id}:{call.id}", draft.plan.started_at_ms),
        cancellation=draft.ports.cancellation,
        **listeners(Caller(draft.identity, call.id, call.name), draft.tell_now, draft.now_ms),
    )
    try:
        return await draft.ports.tools.run(tool, call.arguments, ctx)
    except StateError as error:  # a journal could not read back what the tool asked for: the tool's fault, too
        return ToolRun(ToolResult.error(call.name, str(error)))


async def _reported(
    run: CallRun,
    call: ToolCall,
    document: Document,
    state: records.ToolCallState,
    gate: Asked,
    done: ToolRun,
    resume: ToolCallResume | None,
) -> CallReport:
    result, wanted, queued = done.result, done.actions, done.messages
    actions = tuple(action for action in wanted if isinstance(action, AnyStateAction))
    if done.kept:
        state = msgspec.structs.replace(state, scratch=done.scratch)
    try:
        document, patch = _reduced(run, document, actions, call.id)
    except StateError as error:  # the tool asked for what a state refuses: its own fault, told to the model
        result, wanted, queued = ToolResult.error(call.name, str(error)), (), ()
        actions, patch = (), Patch.EMPTY
    outcome = outcome_of(result)
    suspended = None
    if outcome is CallStatus.SUSPENDED:
        ticket = _timed(run, filled_ticket(result.suspension, call.id, call.name, call.arguments, result.message))
        result = msgspec.structs.replace(result, suspension=ticket)
        suspended = parked(ticket, call.id, call.name, call.arguments)
    after = await run_phase(
        run.agent.behaviors,
        Phase.AFTER_TOOL_EXECUTE,
        run.seen(Phase.AFTER_TOOL_EXECUTE, call, document, tool_result=result, resume_input=resume),
    )
    ordered = (*wanted, *after.actions)
    token = suspended.pending.id if suspended is not None else None
    return CallReport(
        call,
        result,
        outcome,
        state.to(outcome, now_ms=run.draft.now_ms(), resume_token=token),
        suspended,
        gate,
        after,
        actions,
        patch,
        tuple(action.text for action in ordered if isinstance(action, AddSystemReminder)),
        (*(AddMessage(message) for message in queued), *_followups(ordered)),
    )


def _followups(actions: Sequence[Any]) -> list[Followup]:
    return [
        action
        for action in actions
        if isinstance(action, AddMessage) or (isinstance(action, AddUserMessage) and action.text.strip())
    ]


def _timed(run: CallRun, ticket: SuspendTicket) -> SuspendTicket:
    """Give a ticket without an expiry the agent's own, if it has one.  Held calls end with what they wait for."""
    patience = run.agent.definition.suspension_timeout
    if ticket.expires_at is not None or ticket.hold or patience is None:
        return ticket
    return msgspec.structs.replace(ticket, expires_at=run.draft.now_ms() + round(patience * 1000))
