"""Read what a client answered as a decision.

    {"approved": false, "reason": "too dear"} ──▶ cancel, reason "too dear"

| raw answer | action |
| true / false | resume / cancel |
| string | cancel if it is a word of denial, else resume |
| object | cancel if it says so (below), else resume |
| null, number, array | cancel: the safe side |

The payload stays the raw answer, falsy ones too.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from techrevati.agent.suspension import ResumeAction, ToolCallDecision

DENIALS = frozenset(
    ("false", "no", "denied", "deny", "reject", "rejected", "cancel", "canceled", "cancelled", "abort", "aborted")
)
_FLAGS = tuple(sorted(DENIALS - {"false", "no"}))
_VERDICTS = ("status", "decision", "action")
_REASONS = ("reason", "message", "error")


def _is_denial(text: str) -> bool:
    return text.strip().lower() in DENIALS


def action_of(answer: Any) -> ResumeAction:
    """Say what an answer means."""
    if isinstance(answer, bool):
        granted = answer
    elif isinstance(answer, str):
        granted = not _is_denial(answer)
    elif isinstance(answer, Mapping):
        verdicts = (answer.get(key) for key in _VERDICTS)
        granted = not (
            answer.get("approved") is False
            or any(answer.get(flag) is True for flag in _FLAGS)
            or any(isinstance(verdict, str) and _is_denial(verdict) for verdict in verdicts)
        )
    else:
        granted = False
    return ResumeAction.RESUME if granted else ResumeAction.CANCEL


def reason_of(answer: Any) -> str | None:
    """Give why it was denied, if the answer says: the text itself, or `reason`, `message` or `error` of an object."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, Mapping):
        return next((text for key in _REASONS if isinstance(text := answer.get(key), str) and text), None)
    return None


def read_answer(target_id: str, answer: Any, *, decision_id: str | None = None, now_ms: int = 0) -> ToolCallDecision:
    """Give the decision; its id is ``decision_<target_id>`` when the protocol has none.

    Raises:
        ValueError: `target_id` is blank.
    """
    if not target_id.strip():
        raise ValueError(f"target id {target_id!r} is blank; fix: name the call, suspension or pending id it answers")
    action = action_of(answer)
    reason = reason_of(answer) if action is ResumeAction.CANCEL else None
    return ToolCallDecision(target_id, decision_id or f"decision_{target_id}", action, answer, reason, now_ms)


def read_answers(answers: Iterable[tuple[str, Any]], *, now_ms: int = 0) -> tuple[ToolCallDecision, ...]:
    """Read the answers of one request; of several for one id the last wins, in its later place."""
    last: dict[str, Any] = {}
    for target_id, answer in answers:
        last.pop(target_id, None)
        last[target_id] = answer
    return tuple(read_answer(target_id, answer, now_ms=now_ms) for target_id, answer in last.items())
