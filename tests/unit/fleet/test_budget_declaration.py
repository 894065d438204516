"""What an author says of money and gates, and what is refused."""

from decimal import Decimal
from typing import Any

import pytest

from techrevati.fleet import Fleet
from techrevati.fleet.budgets import limits_of, news_for
from techrevati.fleet.fleet import AlreadyDeclared
from techrevati.store.budgets import BadBudget, BudgetEvent, Limit, Unit, Window
from techrevati.store.gates import BadGate, BucketSpec


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        (None, ()),
        (2, (Limit(2_000_000),)),
        ("0.50", (Limit(500_000),)),
        (Decimal("0.0000015"), (Limit(2),)),
        ({"day": 5, "month": 100}, (Limit(5_000_000, window=Window.DAY), Limit(100_000_000, window=Window.MONTH))),
        (Limit(7), (Limit(7),)),
        ([Limit(7), Limit.tokens(1000, per="day")], (Limit(7), Limit(1000, Unit.TOKENS, Window.DAY))),
    ],
)
def test_limits_are_dollars_windows_or_limits(said: Any, limits: tuple[Limit, ...]) -> None:
    assert limits_of(said) == limits


@pytest.mark.parametrize("said", [0, -1, "much", {"week": 1}, [1, 2], float("nan")])
def test_a_limit_that_means_nothing_is_refused_before_anything_is_registered(said: Any) -> None:
    fleet = Fleet("desk")
    with pytest.raises(BadBudget):
        fleet.budget(tenant=said)
    assert fleet.spending is None


def test_a_budget_is_declared_once() -> None:
    fleet = Fleet("desk")
    fleet.budget(run=1)
    with pytest.raises(AlreadyDeclared, match="all of it at once"):
        fleet.budget(tenant=5)


def test_a_gate_has_the_buckets_that_are_named() -> None:
    fleet = Fleet("desk")
    fleet.gate("m", rpm=60, buckets={"tpm": 6000, "images": BucketSpec("images", 2, 0.1)}, concurrency=3)
    spec = fleet.gates["m"]
    assert {(bucket.name, bucket.capacity, bucket.per_second) for bucket in spec.buckets} == {
        ("rpm", 60, 1.0),
        ("tpm", 6000, 100.0),
        ("images", 2, 0.1),
    }
    assert spec.slots is not None and spec.slots.most == 3
    with pytest.raises(AlreadyDeclared, match="gate 'm' is declared twice"):
        fleet.gate("m", rpm=1)


@pytest.mark.parametrize("bad", [{"rpm": 0}, {"concurrency": 0}, {"failure_threshold": 0}, {"on_store_error": "hope"}])
def test_a_gate_that_cannot_be_is_refused(bad: Any) -> None:
    fleet = Fleet("desk")
    with pytest.raises(BadGate):
        fleet.gate("m", **bad)
    assert fleet.gates == {}


def test_a_run_hears_of_its_levels_and_of_its_own_calls_only() -> None:
    passed = {"account": "usd.day", "percent": "80", "limit": "100", "spent": "81", "reserved": "3", "window": "1"}
    off = {"level": "run:r1", "usd": "5", "tokens": "7", "estimate": "5 7"}
    log = [
        BudgetEvent("1-0", "budget_threshold", 1, {"level": "tenant", **passed}),
        BudgetEvent("2-0", "budget_threshold", 1, {"level": "run:other", **passed}),
        BudgetEvent("3-0", "budget_written_off", 1, {"call": "r1:2:9:1", **off}),
        BudgetEvent("4-0", "budget_corrected", 1, {"call": "r11:2:9:1", **off}),
        BudgetEvent("5-0", "budget_set", 1, {"level": "tenant", "account": "usd.day", "value": "5"}),
    ]
    amounts = {"percent": 80, "limit": 100, "spent": 81, "reserved": 3}
    assert news_for(["run:r1", "tenant"], "r1", log) == [
        ("budget.threshold", {"level": "tenant", "account": "usd.day", **amounts}),
        ("budget.written_off", {"level": "run:r1", "cost_micros": 5, "tokens": 7}),
    ]
