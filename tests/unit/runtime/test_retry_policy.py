"""Classification, recipes, recovery books, backoff."""

from __future__ import annotations

import json

import pytest

from techrevati.runtime import (
    CircuitOpenError,
    EscalationPolicy,
    FailureScenario,
    RateLimitExceededError,
    RecoveryContext,
    RecoveryRecipe,
    RecoveryStep,
    TurnTimeoutError,
    aattempt_recovery,
    attempt_recovery,
    backoff_delay,
    classify_exception,
    next_provider,
    recipe_for,
    retry_policy,
    smaller_context_budget,
)
from techrevati.runtime.retry_policy import export_recovery, restore_recovery

F, R, E = FailureScenario, RecoveryStep, EscalationPolicy
RECIPES = {
    F.LLM_TIMEOUT: ([R.RETRY_WITH_BACKOFF], 2, E.ALERT_HUMAN),
    F.LLM_ERROR: ([R.RETRY_WITH_BACKOFF, R.SWITCH_PROVIDER], 2, E.ALERT_HUMAN),
    F.TOOL_EXECUTION_ERROR: ([R.RESTART_AGENT], 1, E.LOG_AND_CONTINUE),
    F.CONTEXT_OVERFLOW: ([R.RETRY_WITH_SMALLER_CONTEXT, R.REDUCE_TOOL_SET], 1, E.ALERT_HUMAN),
    F.DEPENDENCY_TIMEOUT: ([R.RETRY_WITH_BACKOFF], 1, E.ALERT_HUMAN),
    F.MEMORY_CORRUPTION: ([R.CLEAR_MEMORY_CACHE, R.RESTART_AGENT], 1, E.ABORT),
    F.PROVIDER_FAILURE: ([R.SWITCH_PROVIDER, R.RETRY_WITH_BACKOFF], 2, E.ABORT),
}


@pytest.mark.parametrize("scenario", F)
def test_built_in_recipes(scenario: FailureScenario) -> None:
    recipe = recipe_for(scenario)
    assert (list(recipe.steps), recipe.max_attempts, recipe.escalation_policy) == RECIPES[scenario]
    assert recipe.step_retries == {}


def test_recipes_may_be_replaced_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    own = RecoveryRecipe(F.LLM_ERROR, [R.ESCALATE_TO_HUMAN], 9, E.ABORT)  # type: ignore[arg-type]
    monkeypatch.setitem(retry_policy._RECIPES, F.LLM_ERROR, own)
    assert recipe_for(F.LLM_ERROR).steps == (R.ESCALATE_TO_HUMAN,)


def test_attempts_are_counted_per_scenario_until_escalation() -> None:
    ctx = RecoveryContext()
    assert attempt_recovery(F.LLM_ERROR, ctx).to_dict() == {
        "outcome": "recovered",
        "steps_taken": 2,
        "recovered_steps": ["retry_with_backoff", "switch_provider"],
        "remaining_steps": [],
        "reason": "",
    }
    attempt_recovery(F.LLM_ERROR, ctx)
    last = attempt_recovery(F.LLM_ERROR, ctx)
    assert (last.outcome, last.steps_taken) == ("escalation_required", 0)
    assert last.reason == "max attempts (2) exhausted for llm_error"
    assert (ctx.attempt_count(F.LLM_ERROR), ctx.attempt_count(F.LLM_TIMEOUT)) == (2, 0)
    assert [event.event_type for event in ctx.events] == ["succeeded", "succeeded", "escalated"]
    assert set(ctx.events[0].to_dict()) == {"event_type", "scenario", "recipe_steps", "result", "timestamp"}
    ctx.events.clear()
    assert len(ctx.events) == 3


@pytest.mark.parametrize(
    ("index", "outcome", "done", "left"),
    [
        (0, "partial_recovery", [], ["retry_with_backoff", "switch_provider"]),
        (1, "partial_recovery", ["retry_with_backoff"], ["switch_provider"]),
        (2, "recovered", ["retry_with_backoff", "switch_provider"], []),
    ],
)
def test_a_failing_step_leaves_the_rest(index: int, outcome: str, done: list[str], left: list[str]) -> None:
    class Failing(RecoveryContext):
        def __init__(self) -> None:
            super().__init__()
            self.index = index

        def _fail_at_step(self) -> int | None:
            return self.index

    ctx = Failing()
    result = attempt_recovery(F.LLM_ERROR, ctx)
    assert (result.outcome, result.recovered_steps, result.remaining_steps) == (outcome, done, left)
    assert result.steps_taken == len(done)
    assert ctx.events[0].event_type == ("failed" if left else "succeeded")


async def test_async_recovery_never_sleeps() -> None:
    async def sleeper(_: float) -> None:
        raise AssertionError("no step sleeps")

    ctx = RecoveryContext()
    assert (await aattempt_recovery(F.LLM_TIMEOUT, ctx, sleeper=sleeper)).outcome == "recovered"
    assert ctx.attempt_count(F.LLM_TIMEOUT) == 1


def test_books_travel_to_another_process_without_growing() -> None:
    ctx = RecoveryContext()
    for _ in range(50):
        attempt_recovery(F.LLM_TIMEOUT, ctx)
    books = json.loads(json.dumps(export_recovery(ctx)))
    assert len(books["events"]) == 2
    again = restore_recovery(books)
    assert again.attempt_count(F.LLM_TIMEOUT) == 2
    assert attempt_recovery(F.LLM_TIMEOUT, again).outcome == "escalation_required"


def test_backoff_without_jitter_is_exact_and_capped() -> None:
    assert [backoff_delay(n, jitter="none") for n in range(7)] == [1, 2, 4, 8, 16, 32, 60]
    assert backoff_delay(-1, jitter=False) == 0.5


def test_backoff_stays_in_bounds_where_it_once_overflowed() -> None:
    assert backoff_delay(10**6, jitter="none") == 60.0
    assert backoff_delay(10**9, base=2, jitter="none") == 60.0
    assert backoff_delay(-1, base=0.0, jitter="none") == 60.0
    for _ in range(50):
        assert 2.0 <= backoff_delay(1, prev_delay=0.01) <= 60.0
        assert backoff_delay(1, prev_delay=1e308) <= 60.0


def test_backoff_refuses_unknown_modes() -> None:
    with pytest.raises(ValueError, match="unknown jitter mode 'wild'"):
        backoff_delay(1, jitter="wild")  # type: ignore[arg-type]


def test_small_helpers() -> None:
    assert next_provider(["a", "b"], "a") == "b"
    assert next_provider(["a"], "a") is None
    assert smaller_context_budget(10_000) == 7500


@pytest.mark.parametrize(
    ("error", "scenario"),
    [
        (TimeoutError(), F.LLM_TIMEOUT),
        (ConnectionRefusedError(), F.PROVIDER_FAILURE),
        (json.JSONDecodeError("x", "", 0), F.MEMORY_CORRUPTION),
        (RuntimeError("request timed out"), F.LLM_TIMEOUT),
        (RuntimeError("HTTP 429"), F.LLM_ERROR),
        (RuntimeError("Token limit reached"), F.CONTEXT_OVERFLOW),
        (RuntimeError("malformed"), F.MEMORY_CORRUPTION),
        (RuntimeError("x503y"), F.PROVIDER_FAILURE),
        (RuntimeError("401"), F.PROVIDER_FAILURE),
        (RuntimeError("tool failed"), F.TOOL_EXECUTION_ERROR),
        (RuntimeError("tool"), F.LLM_ERROR),
        (RuntimeError("upstream is sad"), F.DEPENDENCY_TIMEOUT),
        (RuntimeError(""), F.LLM_ERROR),
        (TurnTimeoutError(1), F.LLM_TIMEOUT),
        (RateLimitExceededError("b", 1), F.LLM_ERROR),
        (CircuitOpenError("b"), F.LLM_ERROR),
        (KeyboardInterrupt(), F.LLM_ERROR),
    ],
)
def test_classification(error: BaseException, scenario: FailureScenario) -> None:
    assert classify_exception(error) is scenario


def chained(outer: Exception, inner: Exception, *, cause: bool, hide: bool = False) -> Exception:
    try:
        try:
            raise inner
        except Exception as error:
            if hide:
                raise outer from None
            if cause:
                raise outer from error
            raise outer  # noqa: B904 - the implicit context is the point
    except Exception as error:  # noqa: BLE001 - handed back
        return error


def test_types_are_looked_for_along_the_chain() -> None:
    assert classify_exception(chained(RuntimeError("x"), ConnectionResetError(), cause=True)) is F.PROVIDER_FAILURE
    assert classify_exception(chained(RuntimeError("x"), TimeoutError(), cause=False)) is F.LLM_TIMEOUT
    hidden = chained(RuntimeError("x"), TimeoutError(), cause=False, hide=True)
    assert classify_exception(hidden) is F.LLM_ERROR


def test_a_ring_of_causes_ends() -> None:
    one, two = RuntimeError("a"), RuntimeError("b")
    one.__cause__, two.__cause__ = two, one
    assert classify_exception(one) is F.LLM_ERROR


def test_a_broken_message_is_survived() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert classify_exception(Mute()) is F.LLM_ERROR
