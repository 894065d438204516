"""Prices, totals, limits: right, current, and linear."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from techrevati.runtime import (
    PRICING_TABLE,
    BudgetExceededError,
    ModelPricing,
    UsageBoundExceededError,
    UsageLimitExceededError,
    UsageLimits,
    UsageSnapshot,
    UsageTracker,
    _ledger,
    has_pricing,
    load_pricing_from_file,
    register_pricing,
    usage_tracking,
)
from techrevati.runtime._ledger import price_turn
from techrevati.runtime._pricing import PriceIndex
from techrevati.runtime.usage_tracking import PricingConflictError, _resolve_pricing

MILLION = UsageSnapshot(input_tokens=1_000_000)


def test_the_table_ships_empty_and_is_a_dict() -> None:
    assert isinstance(PRICING_TABLE, dict)
    assert PRICING_TABLE == {}


def test_write_rates_fall_back_by_tier() -> None:
    tiers = ModelPricing(1, 2, 3, 4, 5, 0)
    assert [tiers.write_rate_for_ttl(ttl) for ttl in ("5m", "1h", None, "2d")] == [5, 3, 3, 3]
    assert ModelPricing(1, 2, 3, cache_write_1h_per_million=9).write_rate_for_ttl("1h") == 9


def test_snapshots_round_trip() -> None:
    snapshot = UsageSnapshot(1, 2, 3, 4, "5m", 5)
    assert UsageSnapshot.from_json(snapshot.to_json()) == snapshot
    assert UsageSnapshot.from_dict({}) == UsageSnapshot()
    assert "cache_ttl" not in UsageSnapshot().to_dict()
    assert len(UsageSnapshot().to_dict()) == 5


def test_lookup_is_exact_then_longest_prefix_then_free() -> None:
    register_pricing("GPT", ModelPricing(1, 1))
    register_pricing("gpt-5", ModelPricing(5, 5))
    assert _resolve_pricing("gpt-5-MINI").input_per_million == 5
    assert _resolve_pricing("GPT-4").input_per_million == 1
    assert _resolve_pricing("claude") == ModelPricing(0, 0)
    assert (has_pricing("gpt-4"), has_pricing("claude")) == (True, False)
    PRICING_TABLE[""] = ModelPricing(9, 9)
    assert has_pricing("claude")


def edits() -> list[tuple[str, Any]]:
    price = ModelPricing(2, 2)

    def ior() -> None:
        table = PRICING_TABLE
        table |= {"m": price}

    return [
        ("set", lambda: PRICING_TABLE.__setitem__("m", price)),
        ("update", lambda: PRICING_TABLE.update(m=price)),
        ("ior", ior),
        ("del", lambda: PRICING_TABLE.__delitem__("m")),
        ("pop", lambda: PRICING_TABLE.pop("m")),
        ("popitem", lambda: PRICING_TABLE.popitem()),
        ("clear", lambda: PRICING_TABLE.clear()),
        ("register", lambda: register_pricing("m", price)),
    ]


@pytest.mark.parametrize(("name", "edit"), edits(), ids=lambda value: value if isinstance(value, str) else "")
def test_totals_follow_every_edit_of_the_table(name: str, edit: Any) -> None:
    register_pricing("m", ModelPricing(1, 1))
    tracker = UsageTracker()
    tracker.record_turn("m", MILLION)
    assert tracker.total_cost() == 1.0
    edit()
    expected = 2.0 if "m" in PRICING_TABLE else 0.0
    assert tracker.total_cost() == expected
    assert tracker.cost_for_turn("m", MILLION) == expected
    PRICING_TABLE.setdefault("m", ModelPricing(3, 3))
    assert tracker.total_cost() == (expected or 3.0)


TURN_EDITS = [
    lambda turns: turns.append(("m", MILLION)),
    lambda turns: turns.extend([("m", MILLION)] * 3),
    lambda turns: turns.insert(0, ("m", MILLION)),
    lambda turns: turns.pop(),
    lambda turns: turns.pop(0),
    lambda turns: turns.remove(turns[0]),
    lambda turns: turns.clear(),
    lambda turns: turns.reverse(),
    lambda turns: turns.sort(key=lambda turn: turn[1].input_tokens),
    lambda turns: turns.__setitem__(0, ("m", UsageSnapshot(5, 6, tool_calls=7))),
    lambda turns: turns.__setitem__(slice(0, 1), []),
    lambda turns: turns.__delitem__(0),
    lambda turns: turns.__iadd__([("m", MILLION)]),
    lambda turns: turns.__imul__(2),
]


@pytest.mark.parametrize("edit", TURN_EDITS)
def test_totals_follow_every_edit_of_the_turns(edit: Any) -> None:
    register_pricing("m", ModelPricing(1, 2))
    register_pricing("n", ModelPricing(10, 20))
    tracker = UsageTracker()
    for model, usage in [
        ("m", UsageSnapshot(1, 2, tool_calls=1)),
        ("n", UsageSnapshot(30, 4)),
        ("m", MILLION),
    ]:
        tracker.record_turn(model, usage)
    tracker.total_cost()
    edit(tracker.turns)
    fresh = UsageTracker(list(tracker.turns))
    assert tracker.summary() == fresh.summary()
    assert tracker.per_model_summary() == fresh.per_model_summary()
    assert tracker.total_cost() == sum(tracker.cost_for_turn(*turn) for turn in tracker.turns)
    assert tracker.total_tool_calls == fresh.total_tool_calls


def test_a_list_of_the_caller_is_followed_too() -> None:
    own: list[tuple[str, UsageSnapshot]] = [("m", UsageSnapshot(1))]
    tracker = UsageTracker(own)
    assert tracker.total_input_tokens == 1
    own[0] = ("m", UsageSnapshot(7))
    assert tracker.total_input_tokens == 7
    tracker.turns = [("m", UsageSnapshot(9))]
    assert tracker.total_input_tokens == 9


def test_another_table_in_its_place_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = UsageTracker()
    tracker.record_turn("m", MILLION)
    assert tracker.total_cost() == 0
    monkeypatch.setattr(usage_tracking, "PRICING_TABLE", {"m": ModelPricing(4, 4)})
    assert tracker.total_cost() == 4
    usage_tracking.PRICING_TABLE["m"] = ModelPricing(5, 5)
    assert tracker.total_cost() == 5


def test_costs_add_up_all_kinds_of_tokens() -> None:
    register_pricing("m", ModelPricing(1, 2, 3, 4, 5, 6))
    usage = UsageSnapshot(1_000_000, 1_000_000, 1_000_000, 1_000_000, "1h")
    assert UsageTracker().cost_for_turn("m", usage) == 1 + 2 + 6 + 4


def test_summary_and_formats() -> None:
    register_pricing("m", ModelPricing(1, 0))
    tracker = UsageTracker()
    assert (tracker.format_cost(), tracker.per_model_summary()) == ("$0.0000", {})
    tracker.record_turn("m", UsageSnapshot(5_000, 7))
    assert tracker.format_cost() == "$0.0050"
    tracker.record_turn("m", MILLION)
    assert tracker.summary() == {
        "turns": 2,
        "total_input_tokens": 1_005_000,
        "total_output_tokens": 7,
        "total_cost_usd": 1.005,
        "formatted_cost": "$1.00",
    }
    assert (tracker.total_input_tokens, tracker.total_output_tokens) == (1_005_000, 7)
    assert tracker.budget_remaining(1) == pytest.approx(-0.005)
    assert (tracker.is_over_budget(1), tracker.is_over_budget(2)) == (True, False)


def test_an_unpriced_model_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    tracker = UsageTracker()
    with caplog.at_level(logging.WARNING, "techrevati.runtime.usage_tracking"):
        for model in ("Mystery", "mystery", ""):
            tracker.record_turn(model, UsageSnapshot())
        UsageTracker().record_turn("MYSTERY", UsageSnapshot())
    assert len(caplog.records) == 1
    assert "no pricing registered" in caplog.text
    assert "Mystery" in caplog.text
    assert usage_tracking._warned_unpriced_models == {"mystery"}


@pytest.mark.parametrize(
    ("limits", "name", "observed", "ceiling"),
    [
        (UsageLimits(request_tokens_max=9), "request_tokens", 10, 9),
        (UsageLimits(response_tokens_max=0), "response_tokens", 5, 0),
        (UsageLimits(total_tokens_max=14), "total_tokens", 15, 14),
        (UsageLimits(tool_calls_max=1), "tool_calls", 2, 1),
        (UsageLimits(cost_usd_max=0.000009), "cost_usd", 10, 9),
        (UsageLimits(9, 0, 0, 0, 0), "request_tokens", 10, 9),
    ],
)
def test_limits_are_checked_in_order(limits: UsageLimits, name: str, observed: int, ceiling: int) -> None:
    register_pricing("m", ModelPricing(1, 0))
    tracker = UsageTracker()
    tracker.record_turn("m", UsageSnapshot(10, 5, tool_calls=2))
    with pytest.raises(UsageLimitExceededError) as caught:
        tracker.check_limits(limits)
    assert (caught.value.limit_name, caught.value.observed, caught.value.ceiling) == (name, observed, ceiling)
    tracker.check_limits(UsageLimits(10, 5, 15, 2, 0.00001))
    tracker.check_limits(UsageLimits())


def test_bounds_share_a_base() -> None:
    assert issubclass(BudgetExceededError, UsageBoundExceededError)
    assert issubclass(UsageLimitExceededError, UsageBoundExceededError)


def test_conflicts_are_settled_as_asked() -> None:
    old, new = ModelPricing(1, 1), ModelPricing(2, 2)
    register_pricing("M", old)
    register_pricing("m", new, on_conflict="keep")
    assert PRICING_TABLE["m"] == old
    register_pricing("m", old, on_conflict="error")
    with pytest.raises(PricingConflictError, match="model 'm' is already priced"):
        register_pricing("m", new, on_conflict="error")
    register_pricing("m", new)
    assert PRICING_TABLE["m"] == new
    register_pricing("n", new, on_conflict="error")
    with pytest.raises(ValueError, match="unknown on_conflict 'maybe'"):
        register_pricing("m", new, on_conflict="maybe")  # type: ignore[arg-type]


def test_prices_load_from_a_file_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(
        json.dumps({"models": {"M": {"input_per_million": 1, "output_per_million": 2, "cache_read_per_million": 3}}})
    )
    register_pricing("m", ModelPricing(9, 9))
    load_pricing_from_file(path)
    assert PRICING_TABLE["m"] == ModelPricing(1, 2, cache_read_per_million=3)
    path.write_text(json.dumps({"models": {"a": {"input_per_million": 1, "output_per_million": 1}, "b": {}}}))
    with pytest.raises(KeyError):
        load_pricing_from_file(str(path))
    assert "a" not in PRICING_TABLE
    path.write_text("{}")
    with pytest.raises(KeyError):
        load_pricing_from_file(path)


def test_invented_model_names_do_not_pile_up() -> None:
    index = PriceIndex(PRICING_TABLE)
    for n in range(10_000):
        index.price_of(f"m{n}")
    assert len(index._found) <= 4096


def test_trackers_copy_compare_and_pickle() -> None:
    tracker = UsageTracker()
    tracker.record_turn("", UsageSnapshot(3))
    tracker.total_cost()
    for again in (copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))):
        assert again == tracker
        again.record_turn("", UsageSnapshot(4))
        assert (again.total_input_tokens, tracker.total_input_tokens) == (7, 3)
    assert dataclasses.asdict(tracker)["turns"][0][1]["input_tokens"] == 3


def test_what_was_used_elsewhere_is_carried_on() -> None:
    register_pricing("m", ModelPricing(1, 1))
    tracker = UsageTracker()
    for _ in range(5):
        tracker.record_turn("m", MILLION)
    carried = tracker.carried_forward()
    assert [(entry.model, entry.turns) for entry in carried] == [("m", 5)]
    again = UsageTracker()
    again.carry(carried)
    again.record_turn("m", MILLION)
    assert again.summary()["turns"] == 6
    assert again.total_cost() == 6
    register_pricing("m", ModelPricing(2, 2))
    assert again.total_cost() == 12
    assert [(entry.turns, entry.usage.input_tokens) for entry in again.carried_forward()] == [(6, 6_000_000)]


def test_thousands_of_turns_are_each_added_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    register_pricing("m", ModelPricing(1, 1))
    priced: list[int] = []

    def counting(price: ModelPricing, usage: UsageSnapshot) -> float:
        priced.append(1)
        return price_turn(price, usage)

    monkeypatch.setattr(_ledger, "price_turn", counting)
    tracker = UsageTracker()
    for turn in range(2000):
        tracker.record_turn("m", MILLION)
        assert tracker.total_cost() == turn + 1
        tracker.check_limits(UsageLimits(total_tokens_max=10**12, cost_usd_max=1e9))
    assert len(priced) == 2000
    register_pricing("m", ModelPricing(2, 1))
    assert tracker.total_cost() == 4000
    assert len(priced) == 4000


def test_threads_register_and_ask_at_once() -> None:
    barrier = threading.Barrier(8)

    def work(seed: int) -> int:
        barrier.wait()
        for n in range(300):
            if seed % 2:
                register_pricing(f"model-{seed}-{n}", ModelPricing(1, 1))
            else:
                has_pricing(f"other-{n}")
                _resolve_pricing(f"model-1-{n}-suffix")
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 8
    assert len(PRICING_TABLE) == 4 * 300
    assert _resolve_pricing("model-1-299-suffix") == ModelPricing(1, 1)


def test_threads_record_and_sum_at_once() -> None:
    register_pricing("m", ModelPricing(1, 1))
    tracker = UsageTracker()
    barrier = threading.Barrier(8)

    def work(_: int) -> float:
        barrier.wait()
        for _ in range(300):
            tracker.record_turn("m", MILLION)
            last = tracker.total_cost()
        return last

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(8))) == 2400.0
    assert tracker.summary()["turns"] == 2400
