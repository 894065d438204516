"""Backoff, classification and recovery for any input."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.runtime import (
    FailureScenario,
    RecoveryContext,
    attempt_recovery,
    backoff_delay,
    classify_exception,
    recipe_for,
    smaller_context_budget,
)
from techrevati.runtime.retry_policy import JitterMode

modes = st.sampled_from([*get_args(JitterMode), True, False])


@settings(deadline=None)
@given(
    st.integers(-50, 10**7),
    st.floats(0, 1e6),
    modes,
    st.floats(0, 1e6),
    st.floats(-10, 1e308) | st.just(float("inf")),
)
def test_delays_stay_between_zero_and_the_cap(attempt: int, base: float, mode: Any, cap: float, prev: float) -> None:
    assert 0 <= backoff_delay(attempt, base, mode, cap, prev) <= cap


@settings(deadline=None)
@given(st.integers(0, 2000), st.floats(1, 100), st.floats(0, 1e6))
def test_without_jitter_delays_never_shrink(attempt: int, base: float, cap: float) -> None:
    one = backoff_delay(attempt, base, "none", cap)
    assert one == backoff_delay(attempt, base, False, cap)
    assert backoff_delay(attempt + 1, base, "none", cap) >= one


@settings(deadline=None)
@given(st.floats(0.1, 50), st.floats(0, 1000), st.floats(0.1, 1e6))
def test_decorrelated_delays_start_at_the_base(base: float, prev: float, cap: float) -> None:
    delay = backoff_delay(3, base, "decorrelated", cap, prev)
    assert delay >= min(base, cap)
    assert delay <= max(base, 3 * (prev or base)) * 1.0000001


@settings(deadline=None)
@given(
    st.text(),
    st.lists(st.sampled_from([RuntimeError, TimeoutError, ConnectionError, ValueError]), max_size=5),
)
def test_every_failure_has_a_scenario(text: str, causes: list[type[Exception]]) -> None:
    error: BaseException = RuntimeError(text)
    outer = error
    for kind in causes:
        error.__cause__ = kind(text)
        error = error.__cause__
    error.__context__ = outer
    scenario = classify_exception(outer)
    assert scenario in FailureScenario
    typed = [kind for kind in causes if kind in (TimeoutError, ConnectionError)]
    if typed:
        expected = {
            TimeoutError: FailureScenario.LLM_TIMEOUT,
            ConnectionError: FailureScenario.PROVIDER_FAILURE,
        }
        assert scenario is expected[typed[0]]


@settings(deadline=None)
@given(st.lists(st.sampled_from(FailureScenario), max_size=40))
def test_budgets_are_kept_per_scenario(script: list[FailureScenario]) -> None:
    ctx = RecoveryContext()
    for n, scenario in enumerate(script):
        before = script[:n].count(scenario)
        result = attempt_recovery(scenario, ctx)
        exhausted = before >= recipe_for(scenario).max_attempts
        assert (result.outcome == "escalation_required") == exhausted
        assert ctx.attempt_count(scenario) == min(before + 1, recipe_for(scenario).max_attempts)
        assert len(ctx.events) == n + 1


@settings(deadline=None)
@given(st.integers(0, 10**9), st.floats(0, 1))
def test_smaller_budgets_are_smaller(chars: int, reduction: float) -> None:
    assert 0 <= smaller_context_budget(chars, reduction) <= chars
