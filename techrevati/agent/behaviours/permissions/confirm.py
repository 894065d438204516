"""The question that is put to a person, and what of the answer is remembered.

{"approved": true, "remember": "thread"}                          this call, with these arguments, from now on
{"approved": true, "remember": "session", "any_arguments": true}  every call of the tool, for this run
{"approved": true, "remember": "thread", "rule": "shell(command=git *)"}
{"approved": false, "remember": "thread"}                         a denial that lasts
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from techrevati.agent.behaviours.permissions.rules import BadRule, Effect, Rule, exactly, matches, parse_rule
from techrevati.agent.suspension import PendingToolCall, ResumeMode, SuspendTicket, Suspension

PENDING_NAME = "PermissionConfirm"
ACTION = f"tool:{PENDING_NAME}"


class Remember(StrEnum):
    """How long an answer holds."""

    ONCE = "once"
    SESSION = "session"
    """This run."""
    THREAD = "thread"
    """This conversation, until it is revoked."""


RESPONSE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "reason": {"type": "string"},
        "remember": {"type": "string", "enum": [each.value for each in Remember]},
        "any_arguments": {"type": "boolean"},
        "rule": {"type": "string"},
    },
    "required": ["approved"],
}


def pending_id(call_id: str) -> str:
    return f"fc_{call_id}"


def ticket(call_id: str, tool: str, arguments: Any, *, rule: Rule | None, expires_at: int | None) -> SuspendTicket:
    """Park a call until somebody answers; nobody in time is a denial."""
    shown = {"tool_name": tool, "tool_args": arguments}
    why = f" ({rule})" if rule is not None else ""
    return SuspendTicket(
        Suspension(pending_id(call_id), ACTION, f"Allow a call of {tool!r}?{why}", shown, RESPONSE_SCHEMA),
        PendingToolCall(pending_id(call_id), PENDING_NAME, shown),
        ResumeMode.REPLAY,
        expires_at,
    )


def remembered(effect: Effect, tool: str, arguments: Mapping[str, Any], answer: Any) -> tuple[Remember, Rule] | None:
    """Read what an answer wants remembered; None is nothing.

    A rule it names counts only if it is one, has the answer's effect and covers the call that was asked about;
    else the narrowest holds: this tool with these arguments.
    """
    if not isinstance(answer, Mapping) or answer.get("remember") not in (Remember.SESSION, Remember.THREAD):
        return None
    scope = Remember(answer["remember"])
    named = answer.get("rule")
    if isinstance(named, str):
        try:
            rule = parse_rule(named if named.lstrip().startswith(tuple(Effect)) else f"{effect} {named}")
        except BadRule:
            rule = None
        if rule is not None and rule.effect is effect and matches(rule, tool, arguments):
            return scope, rule
    narrow = exactly(effect, tool, arguments)
    return scope, Rule(effect, narrow.tool) if answer.get("any_arguments") is True else narrow
