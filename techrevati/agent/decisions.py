"""Which parked call a decision is for, and what it does to it.

    (document, decisions) ──absorb──▶ patch, and for each decision: taken, kept for later, or refused and why

Pure.  A decision may come before its call is parked, twice, or too late; only one ever counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from techrevati.agent.lifecycle import CallStatus
from techrevati.agent.loop import records
from techrevati.agent.state.document import Document, apply
from techrevati.agent.state.patch import Patch
from techrevati.agent.suspension import SuspendedCall, ToolCallDecision

MOST_EARLY = 256
"""Decisions kept for calls that are not there yet; beyond it the oldest are refused."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A decision that changes nothing."""

    decision: ToolCallDecision
    reason: str


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What decisions did.

    Attributes:
        taken: Calls that go to ``resuming``, by id.
        refused: Told to whoever follows.
    """

    document: Document
    patch: Patch
    taken: tuple[str, ...]
    refused: tuple[Refused, ...]


def absorb(document: Document, decisions: Iterable[ToolCallDecision], *, now_ms: int) -> Absorbed:
    """Apply decisions to the state, the ones kept from before first."""
    early = records.early_decisions(document)
    patch, taken, refused = Patch.EMPTY, list[str](), list[Refused]()
    kept: dict[str, ToolCallDecision] = {}
    for decision in (*early, *decisions):
        call = next((c for c in records.suspended_calls(document) if c.answers_to(decision.target_id)), None)
        if call is None:
            if (why := _ended(document, decision)) is not None:
                refused.append(Refused(decision, why))
            else:
                kept[decision.decision_id] = decision
            continue
        state = records.call_state(document, call.call_id) or _state_of(call)
        if state.status is not CallStatus.SUSPENDED:
            if state.resume is None or state.resume.decision_id != decision.decision_id:
                refused.append(Refused(decision, f"call {call.call_id} is decided already"))
            continue
        resuming = msgspec.structs.replace(
            state, status=CallStatus.RESUMING, resume=decision.resume, resume_token=None, updated_at=now_ms
        )
        step = records.set_call(resuming)
        document, patch = apply(document, step), patch + step
        taken.append(call.call_id)
    while len(kept) > MOST_EARLY:
        refused.append(Refused(kept.pop(next(iter(kept))), "no call of that id was parked"))
    if tuple(kept.values()) != early:
        step = records.set_early_decisions(tuple(kept.values()))
        document, patch = apply(document, step), patch + step
    return Absorbed(document, patch, tuple(taken), tuple(refused))


def _state_of(call: SuspendedCall) -> records.ToolCallState:
    """Give the state of a parked call that was written without one."""
    return records.ToolCallState(call.call_id, call.tool_name, call.arguments, CallStatus.SUSPENDED)


def _ended(document: Document, decision: ToolCallDecision) -> str | None:
    state = records.call_state(document, decision.target_id)
    if state is None or not state.status.is_terminal:
        return None
    return f"call {state.call_id} has {state.status.value} already"


def ready_to_resume(document: Document, *, batch: bool) -> tuple[SuspendedCall, ...]:
    """Give the decided calls to go on with now, by call id.

    In batch mode nothing that was suspended for approval goes on before all of it is decided; calls that
    hold the run go on at once.
    """
    calls = records.suspended_calls(document)
    decided = {c.call_id for c in calls if _is(document, c.call_id, CallStatus.RESUMING)}
    waits = batch and any(c.call_id not in decided and not c.hold for c in calls)
    return tuple(c for c in calls if c.call_id in decided and (c.hold or not waits))


def waiting(document: Document) -> tuple[SuspendedCall, ...]:
    """Give the calls that nobody has decided yet."""
    return tuple(c for c in records.suspended_calls(document) if not _is(document, c.call_id, CallStatus.RESUMING))


def _is(document: Document, call_id: str, status: CallStatus) -> bool:
    state = records.call_state(document, call_id)
    return state is not None and state.status is status


def expired(document: Document, now_ms: int) -> tuple[ToolCallDecision, ...]:
    """Give the default decisions of calls whose time is over."""
    return tuple(
        ToolCallDecision(
            call.call_id,
            f"expired:{call.call_id}:{call.expires_at}",
            call.default.action,
            call.default.result,
            call.default.reason or f"nobody answered in time ({call.suspension.action})",
            now_ms,
        )
        for call in waiting(document)
        if call.expires_at is not None and call.expires_at <= now_ms
    )


def next_expiry(document: Document) -> int | None:
    """Give the Unix ms at which the next waiting call expires."""
    times = [call.expires_at for call in waiting(document) if call.expires_at is not None]
    return min(times, default=None)


def orphans(document: Document) -> tuple[records.ToolCallState, ...]:
    """Give the calls that are being resumed although nothing is parked under their id."""
    states = (records.call_state(document, call_id) for call_id in records.call_ids(document))
    return tuple(
        state
        for state in states
        if state is not None
        and state.status is CallStatus.RESUMING
        and records.suspended_call(document, state.call_id) is None
    )
