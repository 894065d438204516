"""When a model call is tried again, and on which model.

    (policy, attempt, error, elapsed) ──▶ Again(wait) | NextModel | GiveUp

Pure: the loop sleeps and calls.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from techrevati.agent.model import InferenceError


class LlmRetryPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How patient a run is with its models.

    Attributes:
        max_attempts_per_model: Calls per model, the first one included.
        max_retry_window_ms: Waiting never goes past this, counted from the step's first call; None = unlimited.
        retry_stream_start: Whether a stream that never began is tried again.
        max_stream_event_retries: How often in one run a stream that broke is taken up again.
        stream_error_fallback_threshold: Broken streams in a row on one model before the next one is used.
    """

    max_attempts_per_model: int = 2
    initial_backoff_ms: int = 250
    max_backoff_ms: int = 2000
    backoff_jitter_percent: int = 20
    max_retry_window_ms: int | None = 10_000
    retry_stream_start: bool = True
    max_stream_event_retries: int = 2
    stream_error_fallback_threshold: int = 2

    def __post_init__(self) -> None:
        if self.max_attempts_per_model < 1:
            raise ValueError(f"max_attempts_per_model {self.max_attempts_per_model} is refused: use 1 or more")
        for name in ("initial_backoff_ms", "max_backoff_ms", "max_stream_event_retries"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is refused: use 0 or more")
        if not 0 <= self.backoff_jitter_percent <= 100:
            raise ValueError(f"backoff_jitter_percent {self.backoff_jitter_percent} is refused: use 0 to 100")
        if self.stream_error_fallback_threshold < 1:
            raise ValueError(
                f"stream_error_fallback_threshold {self.stream_error_fallback_threshold} is refused: use 1 or more"
            )


@dataclass(frozen=True, slots=True)
class Again:
    """Call the same model after `wait_ms`."""

    wait_ms: int


@dataclass(frozen=True, slots=True)
class NextModel:
    pass


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Call nothing more: waiting would pass the retry window."""

    why: str


def candidates(model: str, fallbacks: Iterable[str]) -> tuple[str, ...]:
    """Give the models to try in order, without blanks and repeats."""
    return tuple(dict.fromkeys(name.strip() for name in (model, *fallbacks) if name.strip()))


def backoff_ms(policy: LlmRetryPolicy, attempt: int, chance: float) -> int:
    """Give the wait after failed attempt `attempt` (from 1); `chance` in [0, 1) places it inside the jitter."""
    plain = min(policy.initial_backoff_ms << min(attempt - 1, 32), policy.max_backoff_ms)
    jitter = plain * policy.backoff_jitter_percent / 100
    return max(0, min(round(plain + jitter * (2 * chance - 1)), policy.max_backoff_ms))


def after_failure(
    policy: LlmRetryPolicy, attempt: int, error: InferenceError, *, elapsed_ms: int, chance: float
) -> Again | NextModel | GiveUp:
    """Decide after failed attempt `attempt` (from 1) on one model, `elapsed_ms` into the step's calls."""
    begun = error.type == "llm_stream_start_error" and not policy.retry_stream_start
    if not error.is_retryable or begun or attempt >= policy.max_attempts_per_model:
        return NextModel()
    wait = max(backoff_ms(policy, attempt, chance), error.retry_after_ms or 0)
    if policy.max_retry_window_ms is not None and elapsed_ms + wait > policy.max_retry_window_ms:
        return GiveUp(f"retry budget exhausted: {elapsed_ms + wait} ms is past {policy.max_retry_window_ms} ms")
    return Again(wait)
