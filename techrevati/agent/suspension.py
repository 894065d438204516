"""A parked tool call, and the answer it waits for.

    gate or tool ──SuspendTicket──▶ SuspendedCall in the state ◀──ToolCallDecision── anyone, any time

These are wire records: snake_case, absent fields left out.  How a decision is applied is `decisions`.
"""

from enum import StrEnum
from typing import Any

import msgspec

JsonObject = dict[str, Any]


class ResumeMode(StrEnum):
    """What a resume does with the payload of its decision."""

    REPLAY = "replay_tool_call"
    """Run the tool again, gates and all, with the arguments the model gave."""
    AS_RESULT = "use_decision_as_tool_result"
    """The payload is the result; the tool never runs."""
    AS_ARGUMENTS = "pass_decision_to_tool"
    """Run the tool with the payload as its arguments; a bare boolean keeps the original ones."""


class ResumeAction(StrEnum):
    RESUME = "resume"
    CANCEL = "cancel"


class Suspension(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked, for whoever answers.  `action` is free text: ``confirm``, ``tool:PermissionConfirm``."""

    id: str
    action: str
    message: str | None = None
    parameters: Any = None
    response_schema: JsonObject | None = None


class PendingToolCall(msgspec.Struct, frozen=True):
    """The call as clients see it; it may differ from the model's own."""

    id: str
    name: str
    arguments: Any = msgspec.field(default_factory=dict)


class DefaultDecision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is decided when nobody answers in time."""

    action: ResumeAction = ResumeAction.CANCEL
    result: Any = None
    reason: str | None = None


class SuspendTicket(msgspec.Struct, frozen=True, omit_defaults=True):
    """Park this call.

    Attributes:
        expires_at: Unix ms after which `default` is decided; None waits for ever.
        hold: The run takes no further step before this call is resolved, so the model never sees a placeholder
            for it.  For waits that are part of the work (a foreground sub-agent), not for approvals.
    """

    suspension: Suspension
    pending: PendingToolCall
    resume_mode: ResumeMode = ResumeMode.REPLAY
    expires_at: int | None = None
    default: DefaultDecision = DefaultDecision()
    hold: bool = False


class SuspendedCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A parked call with its ticket, flat: ``__tool_call_scope.<call_id>.suspended_call``."""

    call_id: str
    tool_name: str
    arguments: Any
    suspension: Suspension
    pending: PendingToolCall
    resume_mode: ResumeMode = ResumeMode.REPLAY
    expires_at: int | None = None
    default: DefaultDecision = DefaultDecision()
    hold: bool = False

    def answers_to(self, target_id: str) -> bool:
        """Say whether a decision for `target_id` is for this call: by call, suspension or pending id."""
        return target_id in (self.call_id, self.suspension.id, self.pending.id)


class ToolCallResume(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one call.  `decision_id` makes it idempotent; `result` may be any JSON, falsy ones too."""

    decision_id: str
    action: ResumeAction
    result: Any = None
    reason: str | None = None
    updated_at: int = 0


class ToolCallDecision(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer and the id it is aimed at, flat."""

    target_id: str
    decision_id: str
    action: ResumeAction
    result: Any = None
    reason: str | None = None
    updated_at: int = 0

    @property
    def resume(self) -> ToolCallResume:
        return ToolCallResume(self.decision_id, self.action, self.result, self.reason, self.updated_at)


def default_ticket(call_id: str, tool_name: str, arguments: Any, message: str | None = None) -> SuspendTicket:
    """Give the ticket of a call that parked itself without one: the call stands for itself, replayed on resume."""
    return SuspendTicket(
        Suspension(call_id, f"tool:{tool_name}", message, arguments), PendingToolCall(call_id, tool_name, arguments)
    )


def filled_ticket(
    ticket: SuspendTicket | None, call_id: str, tool_name: str, arguments: Any, message: str | None = None
) -> SuspendTicket:
    """Complete a ticket whose pending id or name is blank, or that is missing altogether."""
    plain = default_ticket(call_id, tool_name, arguments, message)
    if ticket is None:
        return plain
    asked, shown = ticket.suspension, ticket.pending
    if not asked.id.strip() or not asked.action.strip():
        asked = msgspec.structs.replace(
            asked, id=asked.id.strip() or call_id, action=asked.action.strip() or f"tool:{tool_name}"
        )
    if not shown.id.strip() or not shown.name.strip():
        shown = plain.pending
    return msgspec.structs.replace(ticket, suspension=asked, pending=shown)


def parked(ticket: SuspendTicket, call_id: str, tool_name: str, arguments: Any) -> SuspendedCall:
    """Join a call with its ticket."""
    return SuspendedCall(
        call_id,
        tool_name,
        arguments,
        ticket.suspension,
        ticket.pending,
        ticket.resume_mode,
        ticket.expires_at,
        ticket.default,
        ticket.hold,
    )
