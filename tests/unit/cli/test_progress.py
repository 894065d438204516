"""The fold from a run's events to what its view shows."""

from io import StringIO
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from techrevati.cli.progress import ProgressState, RoleState, begin, fold
from techrevati.cli.view import plain_line, render, summary

NOW = 1_000_100.0


def event(kind: str, seq: int, **data: Any) -> dict[str, Any]:
    return {
        "id": f"{seq}-ab12",
        "seq": seq,
        "type": kind,
        "at": 1_000_000.0 + seq,
        "run_id": "run-1",
        "data": data,
    }


def folded(*events: dict[str, Any], roles: tuple[str, ...] = ("researcher", "writer")) -> ProgressState:
    state = begin(roles)
    for each in events:
        state = fold(state, each, NOW)
    return state


def test_roles_named_at_the_start_have_rows() -> None:
    assert [view.role for view in begin(("a", "b")).roles] == ["a", "b"]


def test_a_turn_is_counted_when_it_commits() -> None:
    started = folded(
        event("run.queued", 1, role="researcher"),
        event("turn.started", 2, role="researcher", turn=1, attempt=1, worker="w1"),
    )
    assert started.view_of("researcher").state is RoleState.WORKING
    assert started.view_of("researcher").turns == 0
    assert started.trail == ("researcher",)
    done = fold(started, event("turn.committed", 3, role="researcher", turn=1, move="continue", seconds=0.4), NOW)
    view = done.view_of("researcher")
    assert (view.turns, view.seconds, view.state) == (1, 0.4, RoleState.QUEUED)


def test_a_turn_without_seconds_is_measured_by_its_events() -> None:
    state = folded(
        event("turn.started", 2, role="writer", turn=1, attempt=1),
        event("turn.committed", 5, role="writer", turn=1, move="complete"),
    )
    assert state.view_of("writer").seconds == 3.0


def test_tokens_and_cost_add_up_on_the_role_whose_turn_it_is() -> None:
    call = {"model": "offline", "input_tokens": 10, "output_tokens": 3, "cost_micros": 7}
    state = folded(
        event("turn.started", 1, role="writer", turn=1, attempt=1),
        event("model.called", 2, **call),
        event("model.called", 3, **call),
    )
    view = state.view_of("writer")
    assert (view.input_tokens, view.output_tokens, view.cost_micros, view.model) == (20, 6, 14, "offline")
    assert state.view_of("researcher").input_tokens == 0


def test_a_handoff_is_pending_until_it_is_placed() -> None:
    asked = folded(
        event("run.queued", 1, role="researcher"),
        event("handoff.requested", 2, source="researcher", target="writer", reason="read"),
    )
    assert asked.moving is not None and asked.moving.target == "writer"
    assert asked.view_of("researcher").handoffs == 0
    placed = fold(asked, event("handoff.placed", 3, source="researcher", target="writer"), NOW)
    assert placed.moving is None
    assert placed.moved is not None and placed.moved.reason == "read"
    assert placed.trail == ("researcher", "writer")
    assert placed.view_of("researcher").handoffs == 1
    assert (placed.role, placed.view_of("writer").state) == ("writer", RoleState.QUEUED)


def test_a_retry_waits_and_a_dead_worker_is_a_retry_too() -> None:
    state = folded(
        event("turn.started", 1, role="writer", turn=1, attempt=1, worker="w1"),
        event("turn.retry", 2, role="writer", turn=1, attempt=1, failure="transient", error="slow", delay=5.0),
    )
    view = state.view_of("writer")
    assert (view.state, view.why, view.until) == (RoleState.WAITING, "transient: slow", 1_000_007.0)
    state = fold(state, event("turn.started", 3, role="writer", turn=1, attempt=2, worker="w1"), NOW)
    state = fold(state, event("turn.expired", 4, role="writer", turn=1, attempt=2), NOW)
    view = state.view_of("writer")
    assert (view.state, view.retries, view.lost) == (RoleState.QUEUED, 2, 1)
    assert "w1 died" in view.why


def test_attempts_count_failures_and_lost_workers_of_this_turn_only() -> None:
    state = folded(
        event("turn.started", 1, role="writer", turn=1, attempt=1),
        event("turn.retry", 2, role="writer", turn=1, failure="transient", until=1_000_005.0),
        event("turn.started", 3, role="writer", turn=1, attempt=1),
    )
    assert state.view_of("writer").attempt == 2
    state = fold(state, event("turn.expired", 4, role="writer", turn=1, attempt=1, worker="w9"), NOW)
    assert "w9 died" in state.view_of("writer").why
    state = fold(state, event("turn.started", 5, role="writer", turn=1, attempt=2), NOW)
    assert state.view_of("writer").attempt == 3
    state = fold(state, event("turn.started", 6, role="writer", turn=2, attempt=1), NOW)
    assert (state.view_of("writer").attempt, state.view_of("writer").retries) == (1, 2)


def test_a_drained_turn_is_queued_again_and_no_retry() -> None:
    state = folded(
        event("turn.started", 1, role="writer", turn=1, attempt=1),
        event("turn.released", 2, role="writer", turn=1),
    )
    view = state.view_of("writer")
    assert (view.state, view.why, view.retries) == (RoleState.QUEUED, "its worker drains", 0)


def test_a_parked_turn_waits_until_its_time() -> None:
    state = folded(
        event("turn.started", 1, role="writer", turn=1, attempt=1),
        event("turn.parked", 2, role="writer", turn=1, why="booked", until=1_000_050.0),
    )
    view = state.view_of("writer")
    assert (view.state, view.why, view.until) == (RoleState.WAITING, "booked", 1_000_050.0)


def test_a_waiting_run_says_why_and_until() -> None:
    state = folded(event("run.queued", 1, role="writer"), event("run.waiting", 2, why="decision", until=2e6))
    assert (state.status, state.view_of("writer").why, state.view_of("writer").until) == ("waiting", "decision", 2e6)


def test_an_end_stops_the_clock_and_names_the_error() -> None:
    state = folded(
        event("run.queued", 1, role="writer"),
        event("turn.started", 2, role="writer", turn=1, attempt=1),
        event("run.failed", 9, error={"type": "ValueError", "message": "no topic"}),
    )
    assert state.is_over and state.status == "failed" and state.ended_at == 1_000_009.0
    assert state.error == "ValueError: no topic"
    assert state.view_of("writer").state is RoleState.FAILED


def test_an_event_that_comes_twice_counts_once() -> None:
    call = event("model.called", 2, model="m", input_tokens=5)
    start = event("turn.started", 1, role="writer", turn=1, attempt=1)
    once = folded(start, call)
    assert fold(once, call, NOW) == once
    assert fold(once, start, NOW) == once


def test_deltas_share_the_number_of_the_event_before_them() -> None:
    state = folded(event("turn.started", 1, role="writer", turn=1, attempt=1))
    for n, text in enumerate(("The ", "tide."), start=1):
        delta = event("text.delta", 1, text=text) | {"id": f"1.{n}~ab12"}
        state = fold(state, delta, NOW)
    assert state.text == "The tide."
    restarted = fold(state, event("turn.started", 2, role="writer", turn=1, attempt=2), NOW)
    assert restarted.text == ""


def test_streamed_text_is_bounded() -> None:
    state = begin()
    for n in range(50):
        state = fold(state, {"type": "text.delta", "id": str(n), "data": {"text": "x" * 100}}, NOW)
    assert len(state.text) == 2_000


def test_events_of_another_run_change_nothing() -> None:
    state = folded(event("run.queued", 1, role="writer"))
    assert fold(state, event("run.failed", 2, error="x") | {"run_id": "run-2"}, NOW) == state


def test_a_gate_speaks_to_every_run() -> None:
    state = folded(event("run.queued", 9, role="writer"))
    gate = event("gate.state", 1, gate="offline", state="OPEN") | {"run_id": ""}
    assert fold(state, gate, NOW).gates == {"offline": "open"}


def test_an_unknown_type_changes_nothing_but_the_cursor() -> None:
    state = folded(event("run.queued", 1, role="writer"))
    after = fold(state, event("invented.later", 2, anything=1), NOW)
    assert (after.seq, after.roles, after.status) == (2, state.roles, state.status)


ODD: list[Any] = [None, True, -1, 3, 10**400, 1.5, float("nan"), float("inf"), "", "[/]\x1b[", [], [1], {}]
junk = st.sampled_from([*ODD, {"type": 1, "message": ODD}])
TYPES = """
    run.queued run.started run.waiting run.completed run.failed run.dead run.cancelled turn.started
    turn.committed turn.retry turn.expired model.called handoff.requested handoff.placed text.delta
    progress gate.state invented
"""
FIELDS = """
    role turn attempt worker model input_tokens output_tokens cost_micros seconds move failure error
    delay source target reason why until text gate state done total label
"""


@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(TYPES.split()) | junk},
            optional={
                "id": junk,
                "seq": junk,
                "at": junk,
                "run_id": junk,
                "data": junk | st.dictionaries(st.sampled_from(FIELDS.split()), junk, max_size=6),
            },
        ),
        max_size=6,
    )
)
def test_no_event_makes_the_fold_or_the_view_raise(events: list[dict[str, Any]]) -> None:
    console = Console(width=80, file=StringIO())
    state = begin(("writer",))
    for each in events:
        state = fold(state, each, NOW)
        plain_line(each)
    console.print(render(state, NOW))
    console.print(summary(state))
