"""From what a turn made to the one commit that keeps it.  Pure.

Turn + Outcome ──▶ CommitSpec, and the thread as it will be
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from techrevati.fleet.codec import encode
from techrevati.fleet.history import View
from techrevati.fleet.outcome import Ask, Complete, Continue, Fail, Handoff, Join, Outcome, Parked, Sleep, Suspend
from techrevati.fleet.state import RawState, write_delta, write_full
from techrevati.fleet.turn import Turn
from techrevati.runtime.handoffs import Handoff as SessionHandoff
from techrevati.store.calls import CommitSpec, Suspended, after

TRAIL = 64
"""Agents a handoff remembers: enough to see a ping-pong."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large things may be, and how often a state is written in full."""

    payload: int
    full_every: int
    keep_checkpoints: int


def as_outcome(value: Any) -> Outcome:
    """Read what an agent returned: an outcome, or anything else, which is the run's output."""
    if isinstance(value, Complete | Continue | Sleep | Handoff | Suspend | Join | Fail):
        return value
    if isinstance(value, SessionHandoff):  # what `turn.session.handoff_to` gave
        return Handoff(value.target_role, value.reason, value.context)
    return Complete(value)


@dataclass(slots=True)
class StateWrite:
    """How a state is written ("" not at all, "f" full, "d" delta), and what a worker then knows of it."""

    kind: str
    text: str
    state: RawState
    full_bytes: int
    since: int


def state_write(view: View, changed: RawState, gone: Sequence[str], limits: Limits) -> StateWrite:
    """Choose between nothing, a delta and the full state.

    A full state is written when there is none, when the deltas since have become many, or when the delta is
    not much smaller: loading then reads a bounded number of entries, whatever the thread's age.
    """
    state = view.state
    if changed or gone:
        state = {key: text for key, text in {**view.state, **changed}.items() if key not in gone}
    many = view.since + 1 >= limits.full_every
    if not changed and not gone and not many:
        return StateWrite("", "", state, view.full_bytes, view.since + 1)
    delta = write_delta(changed, list(gone))
    if many or view.full_bytes == 0 or len(delta) * 2 >= view.full_bytes:
        full = write_full(state)
        return StateWrite("f", full, state, len(full), 0)
    return StateWrite("d", delta, state, view.full_bytes, view.since + 1)


def usage_of(turn: Turn) -> str:
    """Give what a turn spent as the commit says it; a turn that will run again from its journal says nothing."""
    usage = turn.usage
    spent = usage.input_tokens or usage.output_tokens or usage.cost_micros
    return f"{usage.input_tokens} {usage.output_tokens} {usage.cost_micros}" if spent else ""


def _suspended(asks: Sequence[Ask], limit: int) -> list[Suspended]:
    found = []
    for ask in asks:
        if len(ask.aliases) > 2:
            raise ValueError(f"call {ask.call_id!r} has {len(ask.aliases)} aliases; at most 2 are kept")
        default = {
            "call_id": ask.call_id,
            "action": ask.default_action,
            "payload": ask.default_payload,
            "expired": True,
        }
        aliases = (*ask.aliases, "", "")
        found.append(
            Suspended(
                call_id=ask.call_id,
                aliases=(aliases[0], aliases[1]),
                expires="" if ask.expires is None else after(ask.expires * 1e6),
                default=encode(default, f"default of call {ask.call_id!r}", limit),
            )
        )
    return found


def commit_of(
    turn: Turn, outcome: Outcome, view: View, worker: str, limits: Limits, cost: str
) -> tuple[CommitSpec, View]:
    """Build the commit of a turn that ended with an outcome.

    Raises:
        NotJson, PayloadTooLarge: something it made cannot be kept.  Nothing was written.
    """
    changed, gone = turn.state.changes()
    written = state_write(view, changed, gone, limits)
    added = [encode(message, "message", limits.payload) for message in turn.messages.added]
    move, when, target, body, asks, kept = "continue", "", "", "", list[Suspended](), tuple[str, ...]()
    match outcome:
        case Complete(output):
            move, body = "complete", encode(output, "output", limits.payload)
        case Fail(error, details):
            move = "fail"
            body = encode({"type": "Failed", "message": error, "details": details}, "error", limits.payload)
        case Sleep(wait):
            move, when = "sleep", after(wait * 1e6)
        case Handoff(role, reason, context):
            move, target = "handoff", role
            trail = [*turn.trail, turn.agent][-TRAIL:]
            handed = {"source": turn.agent, "reason": reason, "context": dict(context), "trail": trail}
            body = encode(handed, "handoff context", limits.payload)
        case Suspend(calls):
            move, asks = "suspend", _suspended(calls, limits.payload)
            waits = [{"call_id": ask.call_id, "payload": ask.payload, "expires_in": ask.expires} for ask in calls]
            body = encode(waits, "suspension", limits.payload)
        case Join(run_ids, _, expires, open, kept, tools):
            move, target = "suspend", str(open)
            when = "" if expires is None else after(expires * 1e6)
            waits = [{"child": run_id, **tools.get(run_id, {})} for run_id in run_ids]
            body = encode(waits, "children", limits.payload)
    events = list(turn.events)
    if isinstance(outcome, Handoff):
        events.append(
            (
                "handoff.requested",
                encode({"source": turn.agent, "target": outcome.role, "reason": outcome.reason}, "handoff", 1 << 20),
            )
        )
    if asks:
        events.append(("run.suspended", f'{{"calls":{body}}}'))
    spec = CommitSpec(
        run_id=turn.run_id,
        token=turn.token,
        move=move,
        worker=worker,
        role=turn.role,
        when=when,
        target=target,
        body=body,
        state_kind=written.kind,
        state=written.text,
        cost=cost,
        usage=usage_of(turn),
        keep_from=str(max(0, view.version - limits.keep_checkpoints)) if written.kind == "f" else "",
        bytes=len(written.text) + sum(map(len, added)),
        messages=added,
        events=events,
        inbox=[entry.entry_id for entry in turn.inbox if entry.entry_id not in kept],
        calls=asks,
    )
    return spec, View(
        view.version + 1,
        turn.token,
        view.spans,
        view.stored + len(added),
        written.state,
        (*view.messages, *added) if added else view.messages,
        written.full_bytes,
        written.since,
    )


def retry_of(turn: Turn, worker: str, failure: str, wait: float, error: str) -> CommitSpec:
    """Build the commit that sends the same turn back after a failure; its paid results go to the journal."""
    return CommitSpec(
        run_id=turn.run_id,
        token=turn.token,
        move="retry",
        worker=worker,
        when=after(wait * 1e6),
        target=failure,
        body=error,
        journal=turn.unwritten(),
    )


def park_of(turn: Turn, worker: str, parked: Parked) -> CommitSpec:
    """Build the commit that gives the place back until a wait is over."""
    return CommitSpec(
        run_id=turn.run_id,
        token=turn.token,
        move="park",
        worker=worker,
        when=after(parked.seconds * 1e6),
        target=parked.why,
        journal=turn.unwritten(),
    )


def dead_of(turn: Turn, worker: str, error: str) -> CommitSpec:
    """Build the commit that puts the run into the dead letter."""
    return CommitSpec(
        run_id=turn.run_id, token=turn.token, move="dead", worker=worker, body=error, usage=usage_of(turn)
    )


def cancelled_of(turn: Turn, worker: str, limits: Limits) -> CommitSpec:
    """Build the commit of a turn that was asked to stop: its messages are kept, its half-made state is not."""
    return CommitSpec(
        run_id=turn.run_id,
        token=turn.token,
        move="continue",
        worker=worker,
        usage=usage_of(turn),
        messages=[encode(message, "message", limits.payload) for message in turn.messages.added],
        events=list(turn.events),
    )
