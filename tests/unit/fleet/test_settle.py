"""From what a turn made to the one commit that keeps it."""

import json

import pytest

from techrevati.fleet.history import EMPTY, View
from techrevati.fleet.outcome import Ask, Complete, Continue, Fail, Handoff, Parked, Sleep, Suspend
from techrevati.fleet.settle import (
    Limits,
    as_outcome,
    cancelled_of,
    commit_of,
    dead_of,
    park_of,
    retry_of,
    state_write,
)
from techrevati.store.errors import NotJson, PayloadTooLarge
from tests.unit.fleet.turns import make_turn

LIMITS = Limits(payload=10_000, full_every=4, keep_checkpoints=10)


def test_a_plain_value_is_the_output() -> None:
    assert as_outcome({"a": 1}) == Complete({"a": 1}) and as_outcome(None) == Complete(None)
    assert as_outcome(Sleep(1)) == Sleep(1)


@pytest.mark.parametrize(
    ("outcome", "move", "when", "target", "body"),
    [
        (Complete([1]), "complete", "", "", [1]),
        (Continue(), "continue", "", "", None),
        (Sleep(1.5), "sleep", "+1500000", "", None),
        (Fail("no", {"d": 1}), "fail", "", "", {"type": "Failed", "message": "no", "details": {"d": 1}}),
        (
            Handoff("edit", "why", {"c": 1}),
            "handoff",
            "",
            "edit",
            {"source": "write", "reason": "why", "context": {"c": 1}, "trail": ["write"]},
        ),
        (
            Suspend((Ask("ok", {"q": 1}, expires=2.0),)),
            "suspend",
            "",
            "",
            [{"call_id": "ok", "payload": {"q": 1}, "expires_in": 2.0}],
        ),
    ],
)
def test_each_outcome_is_one_move(outcome: object, move: str, when: str, target: str, body: object) -> None:
    turn, _ = make_turn()
    spec, _ = commit_of(turn, outcome, EMPTY, "w", LIMITS, "")  # type: ignore[arg-type]
    assert (spec.move, spec.when, spec.target) == (move, when, target)
    assert (json.loads(spec.body) if spec.body else None) == body


def test_an_expiring_call_carries_its_default() -> None:
    turn, _ = make_turn()
    ask = Ask("ok", None, ("also",), 2.0, "resume", "so")
    spec, _ = commit_of(turn, Suspend((ask,)), EMPTY, "w", LIMITS, "")
    (call,) = spec.calls
    assert (call.call_id, call.aliases, call.expires) == ("ok", ("also", ""), "+2000000")
    assert json.loads(call.default) == {"call_id": "ok", "action": "resume", "payload": "so", "expired": True}
    with pytest.raises(ValueError, match="has 3 aliases; at most 2"):
        commit_of(turn, Suspend((Ask("ok", None, ("a", "b", "c")),)), EMPTY, "w", LIMITS, "")


def test_messages_state_and_events_travel_together_and_the_view_follows() -> None:
    turn, _ = make_turn(state={"a": "1"})
    turn.state["b"] = 2
    turn.messages.append({"role": "assistant", "content": "hi"})
    turn.emit("mine")
    view = View(3, "c", "0:", 5, {"a": "1"}, ("m",) * 5, 1000, 1)
    spec, after = commit_of(turn, Continue(), view, "w", LIMITS, "")
    assert (spec.state_kind, spec.state, len(spec.messages), spec.events[0][0]) == ("d", '{"s":{"b":2}}', 1, "mine")
    assert after.state == {"a": "1", "b": "2"} and after.stored == 6 and len(after.messages) == 6


def test_what_cannot_be_kept_is_refused_by_name() -> None:
    turn, _ = make_turn()
    with pytest.raises(NotJson, match="output is not JSON"):
        commit_of(turn, Complete({1}), EMPTY, "w", LIMITS, "")
    with pytest.raises(PayloadTooLarge, match="output is"):
        commit_of(turn, Complete("x" * 20_000), EMPTY, "w", LIMITS, "")
    turn.state["bad"] = object()
    with pytest.raises(NotJson, match="bad"):
        commit_of(turn, Continue(), EMPTY, "w", LIMITS, "")


def test_a_full_state_is_written_first_now_and_then_and_when_a_delta_saves_nothing() -> None:
    big = View(5, "c", "0:", 0, {"a": '"' + "x" * 500 + '"'}, (), 510, 0)
    assert state_write(EMPTY, {"a": "1"}, [], LIMITS).kind == "f"
    small = state_write(big, {"b": "1"}, [], LIMITS)
    assert (small.kind, small.text, small.since) == ("d", '{"s":{"b":1}}', 1)
    assert state_write(big, {"b": '"' + "y" * 400 + '"'}, [], LIMITS).kind == "f"
    assert state_write(big, {}, [], LIMITS).kind == ""
    old = View(9, "c", "0:", 0, big.state, (), 510, 3)
    written = state_write(old, {}, ["a"], LIMITS)
    assert (written.kind, written.text, written.since) == ("f", "{}", 0)


async def test_a_turn_that_did_not_end_keeps_only_what_it_paid_for() -> None:
    turn, _ = make_turn()
    await turn.model("echo", "hello")
    turn.state["half"] = 1
    turn.messages.append({"role": "assistant", "content": "half"})
    retry, park = retry_of(turn, "w", "llm_error", 1.0, "{}"), park_of(turn, "w", Parked(2.0, "timer"))
    for spec in (retry, park):
        assert len(spec.journal) == 1 and not spec.messages and not spec.state
    assert (retry.move, retry.target, retry.when) == ("retry", "llm_error", "+1000000")
    assert (park.move, park.target, park.when) == ("park", "timer", "+2000000")
    assert dead_of(turn, "w", "{}").move == "dead"


def test_a_cancelled_turn_keeps_its_messages_and_not_its_state() -> None:
    turn, _ = make_turn()
    turn.state["half"] = 1
    turn.messages.append({"role": "assistant", "content": "so far"})
    spec = cancelled_of(turn, "w", LIMITS)
    assert (spec.move, len(spec.messages), spec.state) == ("continue", 1, "")
