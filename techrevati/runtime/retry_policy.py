"""What failed, what to do about it, and how often that was tried.

    error ──classify_exception──▶ scenario ──recipe_for──▶ steps ──attempt_recovery──▶ result

Nothing here sleeps, retries or switches anything: the caller applies the steps it is given.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from techrevati.runtime._failures import FailureScenario, classify_exception
from techrevati.runtime._timestamp import iso_now

logger = logging.getLogger("techrevati.runtime.retry")
logger.addHandler(logging.NullHandler())

__all__ = [
    "EscalationPolicy",
    "FailureScenario",
    "JitterMode",
    "RecoveryContext",
    "RecoveryEvent",
    "RecoveryRecipe",
    "RecoveryResult",
    "RecoveryStep",
    "aattempt_recovery",
    "attempt_recovery",
    "backoff_delay",
    "classify_exception",
    "next_provider",
    "recipe_for",
    "smaller_context_budget",
]

JitterMode = Literal["none", "full", "equal", "decorrelated"]


class RecoveryStep(str, Enum):  # noqa: UP042 - callers rely on plain-Enum str()
    """One thing a caller can do to recover."""

    RETRY_WITH_BACKOFF = "retry_with_backoff"
    RETRY_WITH_SMALLER_CONTEXT = "retry_with_smaller_context"
    SWITCH_PROVIDER = "switch_provider"
    RESTART_AGENT = "restart_agent"
    CLEAR_MEMORY_CACHE = "clear_memory_cache"
    REDUCE_TOOL_SET = "reduce_tool_set"
    ESCALATE_TO_HUMAN = "escalate_to_human"


class EscalationPolicy(str, Enum):  # noqa: UP042 - callers rely on plain-Enum str()
    """What to do once the attempts are used up."""

    ALERT_HUMAN = "alert_human"
    LOG_AND_CONTINUE = "log_and_continue"
    ABORT = "abort"


@dataclass(frozen=True)
class RecoveryRecipe:
    """Steps for one scenario, how often they may be tried, and what comes after.

    `step_retries` is a budget per step that is kept for the caller; nothing here acts on it.
    """

    scenario: FailureScenario
    steps: tuple[RecoveryStep, ...]
    max_attempts: int
    escalation_policy: EscalationPolicy
    step_retries: dict[RecoveryStep, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))


def _built_in() -> Iterator[RecoveryRecipe]:
    f, s, e = FailureScenario, RecoveryStep, EscalationPolicy
    backoff, switch = s.RETRY_WITH_BACKOFF, s.SWITCH_PROVIDER
    yield RecoveryRecipe(f.LLM_TIMEOUT, (backoff,), 2, e.ALERT_HUMAN)
    yield RecoveryRecipe(f.LLM_ERROR, (backoff, switch), 2, e.ALERT_HUMAN)
    yield RecoveryRecipe(f.TOOL_EXECUTION_ERROR, (s.RESTART_AGENT,), 1, e.LOG_AND_CONTINUE)
    yield RecoveryRecipe(f.CONTEXT_OVERFLOW, (s.RETRY_WITH_SMALLER_CONTEXT, s.REDUCE_TOOL_SET), 1, e.ALERT_HUMAN)
    yield RecoveryRecipe(f.DEPENDENCY_TIMEOUT, (backoff,), 1, e.ALERT_HUMAN)
    yield RecoveryRecipe(f.MEMORY_CORRUPTION, (s.CLEAR_MEMORY_CACHE, s.RESTART_AGENT), 1, e.ABORT)
    yield RecoveryRecipe(f.PROVIDER_FAILURE, (switch, backoff), 2, e.ABORT)


# Meant to be edited at start-up: this is how an application changes a recipe.
_RECIPES: dict[FailureScenario, RecoveryRecipe] = {recipe.scenario: recipe for recipe in _built_in()}


def recipe_for(scenario: FailureScenario) -> RecoveryRecipe:
    """The recipe as it is registered now."""
    return _RECIPES[scenario]


@dataclass
class RecoveryResult:
    """What to apply now; `outcome` is recovered, partial_recovery or escalation_required."""

    outcome: str
    steps_taken: int = 0
    recovered_steps: list[str] = field(default_factory=list)
    remaining_steps: list[str] = field(default_factory=list)
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping of the five fields."""
        return {
            "outcome": self.outcome,
            "steps_taken": self.steps_taken,
            "recovered_steps": list(self.recovered_steps),
            "remaining_steps": list(self.remaining_steps),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class RecoveryEvent:
    """One entry of the books; `event_type` is attempted, succeeded, failed or escalated."""

    event_type: str
    scenario: str
    recipe_steps: list[str]
    result: dict[str, Any]
    timestamp: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping of the five fields."""
        return {
            "event_type": self.event_type,
            "scenario": self.scenario,
            "recipe_steps": list(self.recipe_steps),
            "result": dict(self.result),
            "timestamp": self.timestamp,
        }


class RecoveryContext:
    """The books of one logical task: attempts per scenario, and what came of them."""

    def __init__(self) -> None:
        self._attempts: dict[FailureScenario, int] = {}
        self._events: list[RecoveryEvent] = []

    def attempt_count(self, scenario: FailureScenario) -> int:
        """How often recovery was tried for `scenario`."""
        return self._attempts.get(scenario, 0)

    @property
    def events(self) -> list[RecoveryEvent]:
        """Everything so far, oldest first."""
        return list(self._events)

    def _fail_at_step(self) -> int | None:
        """Index of the first step that fails; override it to simulate a partial recovery."""
        return None


def decide_recovery(recipe: RecoveryRecipe, attempts: int, fail_at: int | None) -> tuple[str, RecoveryResult]:
    """Choose the outcome of one attempt, `attempts` having been made before.

    Returns:
        The event type (escalated, failed or succeeded), and the result to hand out.
    """
    steps = [step.value for step in recipe.steps]
    if attempts >= recipe.max_attempts:
        reason = f"max attempts ({recipe.max_attempts}) exhausted for {recipe.scenario.value}"
        return "escalated", RecoveryResult("escalation_required", reason=reason)
    if fail_at is not None and 0 <= fail_at < len(steps):
        done, left = steps[:fail_at], steps[fail_at:]
        return "failed", RecoveryResult("partial_recovery", len(done), done, left)
    return "succeeded", RecoveryResult("recovered", len(steps), steps)


def attempt_recovery(scenario: FailureScenario, ctx: RecoveryContext) -> RecoveryResult:
    """Take one attempt from the scenario's budget and say what to do.

    "recovered" means: apply these steps now.  Appends exactly one event to `ctx`.
    """
    recipe = recipe_for(scenario)
    attempts = ctx.attempt_count(scenario)
    exhausted = attempts >= recipe.max_attempts
    event_type, result = decide_recovery(recipe, attempts, None if exhausted else ctx._fail_at_step())
    if not exhausted:
        ctx._attempts[scenario] = attempts + 1
    ctx._events.append(
        RecoveryEvent(
            event_type=event_type,
            scenario=scenario.value,
            recipe_steps=[step.value for step in recipe.steps],
            result=result.to_dict(),
            timestamp=iso_now(),
        )
    )
    return result


def export_recovery(ctx: RecoveryContext) -> dict[str, Any]:
    """The books as JSON data: attempts, and the latest event of each kind and scenario."""
    latest = {(event.event_type, event.scenario): event.to_dict() for event in ctx._events}
    return {
        "attempts": {scenario.value: count for scenario, count in ctx._attempts.items()},
        "events": list(latest.values()),
    }


def restore_recovery(books: Mapping[str, Any]) -> RecoveryContext:
    """A context that goes on from `export_recovery`."""
    ctx = RecoveryContext()
    ctx._attempts.update((FailureScenario(name), count) for name, count in books["attempts"].items())
    ctx._events.extend(RecoveryEvent(**event) for event in books["events"])
    return ctx


async def aattempt_recovery(
    scenario: FailureScenario,
    ctx: RecoveryContext,
    *,
    sleeper: Callable[[float], Awaitable[None]] | None = None,
) -> RecoveryResult:
    """`attempt_recovery` for async callers.  No step sleeps, so `sleeper` is never called."""
    return attempt_recovery(scenario, ctx)


def backoff_delay(
    attempt: int,
    base: float = 2.0,
    jitter: JitterMode | bool = "decorrelated",
    cap: float = 60.0,
    prev_delay: float = 0.0,
) -> float:
    """Seconds to wait before the next try; never negative, never above `cap`.

    Raises:
        ValueError: `jitter` is no known mode.

    Source: M. Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015.
    """
    if jitter == "decorrelated":
        anchor = prev_delay if prev_delay > 0 else base
        # A small previous delay must not pull the range below `base`, nor a huge one overflow it.
        upper = min(max(base, 3 * anchor), sys.float_info.max)
        return min(cap, random.uniform(base, upper))
    try:
        ceiling = min(cap, float(base) ** attempt)
    except (OverflowError, ZeroDivisionError):
        ceiling = cap
    if jitter is False or jitter == "none":
        return ceiling
    if jitter is True or jitter == "full":
        return random.uniform(0.0, ceiling)
    if jitter == "equal":
        return ceiling / 2 + random.uniform(0.0, ceiling / 2)
    raise ValueError(f"unknown jitter mode {jitter!r}: use none, full, equal or decorrelated")


def next_provider(available_providers: list[str], current_provider: str) -> str | None:
    """The first provider that is not the current one."""
    return next((name for name in available_providers if name != current_provider), None)


def smaller_context_budget(current_chars: int, reduction: float = 0.75) -> int:
    """Characters to keep when the context was too long."""
    return int(current_chars * reduction)
