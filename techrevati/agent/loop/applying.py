"""Take a call's report into the draft: state, messages, and what is told of it."""

from collections.abc import Iterable, Mapping

import msgspec

from techrevati.agent import events, wording
from techrevati.agent.actions import AddUserMessage, ContextMessage
from techrevati.agent.lifecycle import CallStatus
from techrevati.agent.loop import records
from techrevati.agent.loop.calls import CallReport, Followup
from techrevati.agent.loop.draft import Draft
from techrevati.agent.loop.phases import Asked
from techrevati.agent.state.scope import cleanup_after_call, cleanup_for_new_call
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.threads.message import Message

_OUTCOMES: Mapping[CallStatus, events.CallOutcome] = {
    CallStatus.SUCCEEDED: "succeeded",
    CallStatus.FAILED: "failed",
    CallStatus.CANCELLED: "cancelled",
}


def take_state(draft: Draft, report: CallReport, *, replay: bool) -> None:
    """Apply what a call did to the state: its gate's actions, its own patch, what came after, its status."""
    if not replay:
        draft.apply(cleanup_for_new_call(draft.document, report.call.id))
    _reduce(draft, report.gate, report.call.id)
    draft.log(action.by(report.call.id) for action in report.actions)
    draft.apply(report.patch, f"tool:{report.call.name}")
    _reduce(draft, report.after, report.call.id)
    draft.apply(records.set_call(report.state))
    if report.suspended is not None:
        draft.apply(records.set_suspended(report.suspended))
    else:
        draft.apply(cleanup_after_call(draft.document, report.call.id))


def _reduce(draft: Draft, asked: Asked, call_id: str) -> None:
    for behavior_id, action in asked.entries:
        if isinstance(action, AnyStateAction):
            draft.reduce((action,), source=f"behavior:{behavior_id}", actor=f"{behavior_id}:{call_id}")


def add_message(draft: Draft, message: Message, step: int) -> None:
    draft.append(message.within(draft.identity.run_id, step))


def take_messages(draft: Draft, report: CallReport, step: int, *, replay: bool) -> str | None:
    """Store the call's message and its reminders; give the message's id, None for a call that waits.

    A waiting call gets a placeholder, once, unless the run waits with it.
    """
    message_id: str | None = None
    if report.suspended is None:
        message_id = draft.ports.new_id()
        add_message(draft, wording.tool_message(message_id, report.call.id, report.result), step)
    elif not report.suspended.hold and not replay:
        add_message(draft, wording.placeholder(draft.ports.new_id(), report.suspended), step)
    for text in report.reminders:
        add_message(draft, wording.reminder(draft.ports.new_id(), text), step)
    return message_id


def take_followups(draft: Draft, followups: Iterable[Followup], step: int) -> None:
    """Store what follows the results of a round."""
    for followup in followups:
        if isinstance(followup, AddUserMessage):
            add_message(draft, wording.note(draft.ports.new_id(), "user", followup.text, followup.visibility), step)
        else:
            add_message(draft, context_note(draft, followup.message), step)


def context_note(draft: Draft, message: ContextMessage) -> Message:
    return wording.note(draft.ports.new_id(), message.role, message.content, message.visibility, key=message.key)


def tell_pending(draft: Draft, report: CallReport) -> None:
    """Tell the call as clients are to see it, unless that is the model's own call, which they have seen."""
    if report.suspended is None or report.suspended.hold:
        return
    shown = report.suspended.pending
    if shown.id != report.call.id:
        draft.tell(events.ToolCallStart(shown.id, shown.name))
        draft.tell(events.ToolCallReady(shown.id, shown.name, shown.arguments))


def tell_done(draft: Draft, report: CallReport, message_id: str) -> None:
    outcome = _OUTCOMES[report.outcome]
    patch = msgspec.json.decode(msgspec.json.encode(report.patch.ops)) or None
    draft.tell(events.ToolCallDone(report.call.id, report.result.to_json(), message_id, outcome, patch))


def tell_state(draft: Draft) -> None:
    """Tell the whole state, if what clients see of it changed."""
    if (snapshot := draft.changed_state()) is not None:
        draft.tell(events.StateSnapshot(snapshot))
