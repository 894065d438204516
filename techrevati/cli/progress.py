"""What a watched run looks like so far, folded from its events.

    begin(roles) ──event──▶ fold ──event──▶ fold ──▶ a state that `view` draws

Events come from other processes, perhaps of a newer version: what is unknown or malformed changes
nothing and never raises.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from techrevati.cli.events import EventData, EventDict
from techrevati.cli.watched import Handoff, Progress, ProgressState, RoleState, RoleView, begin

__all__ = ["Handoff", "Progress", "ProgressState", "RoleState", "RoleView", "begin", "fold"]

TEXT_KEPT = 2_000  # characters of streamed text


def fold(state: ProgressState, event: EventDict, now: float) -> ProgressState:
    """Apply one event.  An event seen before, of another run or of an unknown type changes nothing.

    `now` is epoch seconds; it stands in for an event's own time where that is missing or ahead.
    """
    kind, head, data = event.get("type"), EventData(event), EventData(event.get("data"))
    if kind == "gate.state":
        return _gate_state(state, data)
    run_id, seq, event_id = head.text("run_id"), head.whole("seq"), head.text("id")
    if run_id and state.run_id and run_id != state.run_id:
        return state
    if seq and (seq < state.seq or (event_id and event_id == state.last_id)):
        return state
    state = replace(
        state,
        run_id=state.run_id or run_id,
        seq=max(seq, state.seq),
        last_id=event_id or state.last_id,
    )
    handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
    return handler(state, data, min(head.number("at") or now, now)) if handler else state


# -- one function per type of event


def _run_queued(state: ProgressState, data: EventData, at: float) -> ProgressState:
    role = data.text("role")
    state = replace(
        state, status="queued", role=role, trail=state.trail or _one(role), started_at=state.started_at or at
    )
    return _with(state, role, state=RoleState.QUEUED)


def _run_started(state: ProgressState, data: EventData, at: float) -> ProgressState:
    role = data.text("role") or state.role
    return replace(
        state,
        status="running",
        role=role,
        trail=state.trail or _one(role),
        started_at=state.started_at or at,
    )


def _turn_started(state: ProgressState, data: EventData, at: float) -> ProgressState:
    role = data.text("role") or state.role
    view, turn = state.view_of(role), data.whole("turn")
    faults = view.faults if turn == view.turn else 0
    state = replace(
        state,
        status="running",
        role=role,
        trail=state.trail or _one(role),
        text="",
        started_at=state.started_at or at,
    )
    return _with(
        state,
        role,
        state=RoleState.WORKING,
        why="",
        until=None,
        turn=turn,
        # Stores may count lost workers and failures apart; a person counts attempts.
        attempt=max(data.whole("attempt"), faults + 1),
        faults=faults,
        worker=data.text("worker"),
        since=at,
    )


def _model_called(state: ProgressState, data: EventData, at: float) -> ProgressState:
    view = state.view_of(data.text("role") or state.role)
    return _with(
        state,
        view.role,
        model=data.text("model") or view.model,
        input_tokens=view.input_tokens + data.whole("input_tokens"),
        output_tokens=view.output_tokens + data.whole("output_tokens"),
        cost_micros=view.cost_micros + data.whole("cost_micros"),
    )


def _turn_committed(state: ProgressState, data: EventData, at: float) -> ProgressState:
    view = state.view_of(data.text("role") or state.role)
    measured = at - view.since if view.since is not None else 0.0
    return _with(
        state,
        view.role,
        state=RoleState.QUEUED if data.text("move") == "continue" else RoleState.IDLE,
        why="",
        until=None,
        since=None,
        turn=data.whole("turn") or view.turn,
        turns=view.turns + 1,
        seconds=view.seconds + (data.number("seconds") or max(0.0, measured)),
    )


def _turn_retry(state: ProgressState, data: EventData, at: float) -> ProgressState:
    view = state.view_of(data.text("role") or state.role)
    failure, error = data.text("failure"), data.text("error")
    return _with(
        state,
        view.role,
        state=RoleState.WAITING,
        why=": ".join(part for part in (failure, error) if part) or "retry",
        until=data.number("until") or at + data.number("delay"),
        since=None,
        faults=view.faults + 1,
        retries=view.retries + 1,
    )


def _turn_expired(state: ProgressState, data: EventData, at: float) -> ProgressState:
    view = state.view_of(data.text("role") or state.role)
    return _with(
        state,
        view.role,
        state=RoleState.QUEUED,
        why=f"worker {data.text('worker') or view.worker} died".replace("  ", " ") + "; the turn runs again",
        until=None,
        since=None,
        faults=view.faults + 1,
        retries=view.retries + 1,
        lost=view.lost + 1,
    )


def _turn_released(state: ProgressState, data: EventData, at: float) -> ProgressState:
    """Put the turn back: its worker shuts down and lets it go before it is done."""
    role = data.text("role") or state.role
    return _with(state, role, state=RoleState.QUEUED, why="its worker drains", until=None, since=None)


def _handoff_requested(state: ProgressState, data: EventData, at: float) -> ProgressState:
    source = data.text("source") or state.role
    moving = Handoff(source, data.text("target"), data.text("reason"))
    return replace(state, moving=moving)


def _handoff_placed(state: ProgressState, data: EventData, at: float) -> ProgressState:
    asked = state.moving or Handoff(state.role, "")
    target = data.text("role") or data.text("target") or asked.target
    if not target:
        return state
    source = data.text("source") or asked.source
    if all(view.role != source for view in state.roles):
        source = state.role or source  # an agent that is not called as its role
    moved = Handoff(source, target, asked.reason)
    state = _with(state, source, state=RoleState.IDLE, handoffs=state.view_of(source).handoffs + 1)
    trail = (*(state.trail or _one(source)), target)
    state = replace(state, role=target, trail=trail, moving=None, moved=moved, status="running")
    return _with(state, target, state=RoleState.QUEUED, why="", until=None)


def _run_waiting(state: ProgressState, data: EventData, at: float) -> ProgressState:
    state = replace(state, status="waiting")
    until = data.number("until") or None
    role = data.text("role") or state.role
    return _with(state, role, state=RoleState.WAITING, why=data.text("why"), until=until, since=None)


def _ended(status: str, reason: str) -> "Handler":
    """Make the handler of a terminal event; `reason` names the field that says why."""

    def end(state: ProgressState, data: EventData, at: float) -> ProgressState:
        failed = status in ("failed", "dead")
        roles = tuple(
            replace(
                view,
                state=RoleState.FAILED if failed and view.role == state.role else RoleState.IDLE,
                why="",
                until=None,
                since=None,
            )
            for view in state.roles
        )
        error = data.text(reason) if reason else ""
        return replace(state, status=status, roles=roles, moving=None, ended_at=at, error=error)

    return end


def _text_delta(state: ProgressState, data: EventData, at: float) -> ProgressState:
    return replace(state, text=(state.text + data.text("text"))[-TEXT_KEPT:])


def _progress(state: ProgressState, data: EventData, at: float) -> ProgressState:
    total = data.number("total")
    if total <= 0.0:
        return state
    done = min(max(data.number("done"), 0.0), total)
    return replace(state, progress=Progress(done, total, data.text("label")))


def _gate_state(state: ProgressState, data: EventData) -> ProgressState:
    gate = data.text("gate")
    return replace(state, gates={**state.gates, gate: data.text("state").lower()}) if gate else state


Handler = Callable[[ProgressState, EventData, float], ProgressState]

_HANDLERS: Mapping[str, Handler] = {
    "run.queued": _run_queued,
    "run.started": _run_started,
    "run.waiting": _run_waiting,
    "run.completed": _ended("completed", ""),
    "run.failed": _ended("failed", "error"),
    "run.dead": _ended("dead", "error"),
    "run.cancelled": _ended("cancelled", "reason"),
    "run.superseded": _ended("superseded", ""),
    "turn.started": _turn_started,
    "turn.committed": _turn_committed,
    "turn.retry": _turn_retry,
    "turn.expired": _turn_expired,
    "turn.released": _turn_released,
    "turn.parked": _run_waiting,
    "model.called": _model_called,
    "handoff.requested": _handoff_requested,
    "handoff.placed": _handoff_placed,
    "text.delta": _text_delta,
    "progress": _progress,
}


def _with(state: ProgressState, role: str, /, **changes: Any) -> ProgressState:
    """Change one role's row; a role seen for the first time gets one."""
    if not role:
        return state
    if all(view.role != role for view in state.roles):
        state = replace(state, roles=(*state.roles, RoleView(role)))
    rows = (replace(view, **changes) if view.role == role else view for view in state.roles)
    return replace(state, roles=tuple(rows))


def _one(role: str) -> tuple[str, ...]:
    return (role,) if role else ()
