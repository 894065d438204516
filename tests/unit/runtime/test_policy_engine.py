"""Policy: conditions, order, and the asynchronous ones."""

from __future__ import annotations

from typing import Any

import pytest

from techrevati.runtime import (
    PhaseContext,
    PolicyAction,
    PolicyActionData,
    PolicyCondition,
    PolicyEngine,
    PolicyRule,
    QualityLevel,
)
from techrevati.runtime.policy_engine import (
    AgentFailed,
    AllAgentsComplete,
    And,
    CostExceeded,
    GateBelow,
    Or,
    PhaseCompleted,
    QualityAt,
    RetryExhausted,
    TimedOut,
)

NOTIFY = PolicyActionData(PolicyAction.NOTIFY)


class Later(PolicyCondition):
    """An asynchronous condition with a fixed answer."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.asked = 0

    async def matches(self, ctx: PhaseContext) -> bool:
        self.asked += 1
        return self.answer


@pytest.mark.parametrize(
    ("condition", "ctx", "expected"),
    [
        (And([]), {}, True),
        (Or([]), {}, False),
        (And([PhaseCompleted(), TimedOut(1)]), {"phase_completed": True}, False),
        (Or([PhaseCompleted(), TimedOut(1)]), {"phase_completed": True}, True),
        (QualityAt(QualityLevel.STRICT), {"quality_level": QualityLevel.RELEASE}, True),
        (QualityAt(QualityLevel.STRICT), {"quality_level": QualityLevel.STANDARD}, False),
        (QualityAt(QualityLevel.MINIMAL), {}, False),
        (AgentFailed("a"), {"failed_roles": {"b"}}, False),
        (AgentFailed("a"), {"failed_roles": {"a"}}, True),
        (AgentFailed(""), {"failed_roles": {"b"}}, True),
        (AgentFailed(), {}, False),
        (GateBelow(82.0), {"gate_score": 81.9}, True),
        (GateBelow(82.0), {"gate_score": 82.0}, False),
        (RetryExhausted("x"), {"retry_exhausted_scenarios": {"x"}}, True),
        (RetryExhausted("x"), {"retry_exhausted_scenarios": {"y"}}, False),
        (RetryExhausted(), {"retry_exhausted_scenarios": {"y"}}, True),
        (TimedOut(30), {"elapsed_seconds": 30}, False),
        (TimedOut(30), {"elapsed_seconds": 30.1}, True),
        (AllAgentsComplete(), {}, True),
        (
            AllAgentsComplete(),
            {"all_roles": set("ab"), "completed_roles": {"a"}, "failed_roles": {"b"}},
            True,
        ),
        (AllAgentsComplete(), {"all_roles": {"a"}}, False),
        (CostExceeded(5.0), {"total_cost_usd": 5.0}, False),
        (CostExceeded(5.0), {"total_cost_usd": 5.1}, True),
    ],
)
async def test_conditions(condition: PolicyCondition, ctx: dict[str, Any], expected: bool) -> None:
    context = PhaseContext(**ctx)
    assert condition.matches(context) is expected
    engine = PolicyEngine([PolicyRule("r", condition, [NOTIFY])])
    assert bool(engine.evaluate(context)) is expected
    assert bool(await engine.evaluate_async(context)) is expected


def test_reprs() -> None:
    combined = And([QualityAt(QualityLevel.STANDARD), Or([TimedOut(30)])])
    assert repr(combined) == "And([QualityAt(STANDARD), Or([TimedOut(30s)])])"
    assert [repr(c) for c in (PhaseCompleted(), AgentFailed("x"), GateBelow(82.0))] == [
        "PhaseCompleted()",
        "AgentFailed(role='x')",
        "GateBelow(82.0)",
    ]
    assert [repr(c) for c in (RetryExhausted("x"), AllAgentsComplete(), CostExceeded(5.0))] == [
        "RetryExhausted(scenario='x')",
        "AllAgentsComplete()",
        "CostExceeded($5.0)",
    ]


def test_every_matching_rule_speaks_in_order() -> None:
    def rule(name: str, priority: int, condition: Any) -> PolicyRule:
        return PolicyRule(name, condition, [PolicyActionData(PolicyAction.NOTIFY, {"by": name})], priority)

    yes, no = And([]), Or([])
    engine = PolicyEngine([rule("c", 60, yes), rule("a", 10, yes), rule("x", 5, no), rule("b", 10, yes)])
    actions = engine.evaluate(PhaseContext())
    assert [action.to_dict()["params"]["by"] for action in actions] == ["a", "b", "c"]
    assert [r.name for r in engine.rules] == ["x", "a", "b", "c"]
    engine.rules.clear()
    assert len(engine.rules) == 4
    assert PolicyRule("d", And([]), []).priority == 50
    assert NOTIFY.to_dict() == {"action": "notify"}
    assert PolicyEngine([]).evaluate(PhaseContext()) == []


def test_anything_with_matches_is_a_condition() -> None:
    class Duck:
        def matches(self, ctx: PhaseContext) -> bool:
            return True

    assert PolicyEngine([PolicyRule("r", Duck(), [NOTIFY])]).evaluate(PhaseContext()) == [NOTIFY]
    with pytest.raises(NotImplementedError, match="PolicyCondition does not implement"):
        PolicyCondition().matches(PhaseContext())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (And([Later(True), Later(True)]), True),
        (And([PhaseCompleted(), Later(False)]), False),
        (And([Later(True), PhaseCompleted()]), True),
        (And([Later(False), Later(True)]), False),
        (Or([Later(False), Later(False)]), False),
        (Or([TimedOut(1), Later(True)]), True),
        (Or([And([Later(True)]), TimedOut(1)]), True),
        (Later(False), False),
        (Later(True), True),
    ],
)
async def test_async_conditions_are_awaited_inside_combinators(condition: Any, expected: bool) -> None:
    engine = PolicyEngine([PolicyRule("r", condition, [NOTIFY])])
    assert bool(await engine.evaluate_async(PhaseContext(phase_completed=True))) is expected


async def test_combinators_stop_at_the_deciding_answer() -> None:
    unasked = Later(True)
    ctx = PhaseContext(phase_completed=True)
    every: Any = And([Later(True), Later(False), unasked]).matches(ctx)
    either: Any = Or([Later(False), PhaseCompleted(), unasked]).matches(ctx)
    assert (await every, await either) == (False, True)
    assert unasked.asked == 0


@pytest.mark.parametrize("condition", [Later(False), And([Later(False)]), Or([TimedOut(1), Later(True)])])
def test_sync_evaluation_refuses_what_it_cannot_await(condition: PolicyCondition) -> None:
    engine = PolicyEngine([PolicyRule("late", condition, [NOTIFY])])
    with pytest.raises(TypeError, match=r"rule 'late'.*asynchronous, use evaluate_async"):
        engine.evaluate(PhaseContext())


def test_sync_evaluation_refuses_other_awaitables() -> None:
    class Ready:
        def __await__(self) -> Any:
            yield from ()
            return True

    class Odd(PolicyCondition):
        def matches(self, ctx: PhaseContext) -> Any:
            return Ready()

    with pytest.raises(TypeError, match="asynchronous"):
        PolicyEngine([PolicyRule("r", Odd(), [NOTIFY])]).evaluate(PhaseContext())
