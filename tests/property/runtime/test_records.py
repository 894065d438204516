"""Round trips, totals, memory, outputs and audit chains for any data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.runtime import (
    AgentEvent,
    AgentEventName,
    AgentEventStatus,
    AgentFailureClass,
    Checkpoint,
    InMemorySaver,
    ModelPricing,
    SqliteSaver,
    UsageSnapshot,
    UsageTracker,
    usage_tracking,
)
from techrevati.runtime.audit import Anchor, AuditBrokenError, link, verify
from techrevati.runtime.memory import ConversationMemory, Message, TokenBudget, Window
from techrevati.runtime.outputs import JsonOutput

texts = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | texts,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(texts, part, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(texts, values, max_size=4)
counts = st.integers(-5, 10**7)
usages = st.builds(UsageSnapshot, counts, counts, counts, counts, st.sampled_from([None, "5m", "1h"]), counts)


@settings(deadline=None)
@given(
    st.builds(
        AgentEvent,
        st.sampled_from(AgentEventName),
        st.sampled_from(AgentEventStatus),
        role=st.none() | texts,
        phase=st.none() | texts,
        project_id=st.none() | counts,
        failure_class=st.none() | st.sampled_from(AgentFailureClass),
        detail=st.none() | texts,
        data=st.none() | objects,
    )
)
def test_events_round_trip(event: AgentEvent) -> None:
    assert AgentEvent.from_json(event.to_json()) == event


@settings(deadline=None)
@given(usages)
def test_snapshots_round_trip(usage: UsageSnapshot) -> None:
    assert UsageSnapshot.from_json(usage.to_json()) == usage


@settings(deadline=None)
@given(objects, objects)
def test_checkpoints_round_trip(state: dict[str, Any], metadata: dict[str, Any]) -> None:
    with SqliteSaver(":memory:") as sqlite:
        for saver in (InMemorySaver(), sqlite):
            put = saver.put("t", state, metadata=metadata)
            assert put == saver.get("t") == Checkpoint.from_dict(json.loads(json.dumps(put.to_dict())))
            assert put.state == state


prices = st.builds(ModelPricing, *[st.floats(0, 100)] * 6)
steps = st.one_of(
    st.tuples(st.just("turn"), st.sampled_from(["a", "ab", "b", ""]), usages),
    st.tuples(st.just("price"), st.sampled_from(["a", "b", ""]), prices),
    st.tuples(st.just("drop"), st.integers(0, 5), st.none()),
    st.tuples(st.just("set"), st.integers(0, 5), usages),
    st.tuples(st.just("forget"), st.sampled_from(["a", "b"]), st.none()),
)


@settings(deadline=None)
@given(st.lists(steps, max_size=30))
def test_running_totals_are_the_sum_of_the_turns(script: list[tuple[str, Any, Any]]) -> None:
    before = dict(usage_tracking.PRICING_TABLE)
    usage_tracking.PRICING_TABLE.clear()
    try:
        tracker = UsageTracker()
        for what, which, value in script:
            if what == "turn":
                tracker.record_turn(which, value)
            elif what == "price":
                usage_tracking.PRICING_TABLE[which] = value
            elif what == "forget":
                usage_tracking.PRICING_TABLE.pop(which, None)
            elif which < len(tracker.turns):
                if what == "drop":
                    del tracker.turns[which]
                else:
                    tracker.turns[which] = ("a", value)
            total = 0.0
            for model, usage in tracker.turns:
                price = usage_tracking._resolve_pricing(model)
                total += (
                    usage.input_tokens * price.input_per_million
                    + usage.output_tokens * price.output_per_million
                    + usage.cache_write_tokens * price.write_rate_for_ttl(usage.cache_ttl)
                    + usage.cache_read_tokens * price.cache_read_per_million
                ) / 1e6
            assert tracker.total_cost() == pytest.approx(total)
            assert tracker.total_input_tokens == sum(usage.input_tokens for _, usage in tracker.turns)
            again = UsageTracker()
            again.carry(tracker.carried_forward())
            assert again.total_cost() == pytest.approx(total, abs=1e-6)
            assert again.total_tool_calls == tracker.total_tool_calls
    finally:
        usage_tracking.PRICING_TABLE.clear()
        usage_tracking.PRICING_TABLE.update(before)


messages = st.lists(
    st.builds(Message, st.sampled_from(["user", "assistant", "tool"]), st.text(max_size=9)),
    min_size=1,
    max_size=15,
)


@settings(deadline=None)
@given(messages, st.integers(1, 6), st.integers(1, 40))
def test_memory_keeps_an_end_within_bounds(history: list[Message], size: int, tokens: int) -> None:
    for policy, cost, room in (
        (Window(size), lambda _: 1, size),
        (
            TokenBudget(tokens, lambda message: len(message.content)),
            lambda message: len(message.content),
            tokens,
        ),
    ):
        kept = ConversationMemory(policy, history).messages
        assert kept == history[len(history) - len(kept) :]
        assert kept
        assert sum(map(cost, kept)) <= room or len(kept) == 1
        assert kept[0].role != "tool" or len(kept) in (1, len(history))


@settings(deadline=None)
@given(values)
def test_the_empty_schema_accepts_all_json(value: Any) -> None:
    assert JsonOutput({}).parse(json.dumps(value)) == value
    assert JsonOutput({"const": value}).parse(json.dumps(value)) == value


@settings(deadline=None)
@given(st.lists(objects, min_size=1, max_size=6), st.data())
def test_every_change_to_a_chain_shows(bodies: list[dict[str, Any]], data: st.DataObject) -> None:
    anchor, lines = Anchor(), []
    for body in bodies:
        record = link(anchor, "event", body, "now")
        anchor = Anchor(record["seq"], record["hash"])
        lines.append(json.dumps(record))
    assert verify(lines, anchor=anchor) == anchor
    index = data.draw(st.integers(0, len(lines) - 1))
    name = data.draw(st.sampled_from(["at", "kind", "prev"]))
    changed = json.dumps({**json.loads(lines[index]), name: "changed"})
    for broken in ([*lines[:index], changed, *lines[index + 1 :]], lines[:index], lines[index + 1 :]):
        with pytest.raises(AuditBrokenError):
            verify(broken, anchor=anchor)
