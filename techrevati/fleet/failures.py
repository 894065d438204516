"""What a failed turn deserves: another try, later, or the dead letter.

exception ──classify──▶ failure class ──Retry.after──▶ delay in seconds, or None: no more tries
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from techrevati.fleet.calling import Refused
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.models import RetryLater, UnknownModel
from techrevati.fleet.sdks import NoProvider
from techrevati.runtime.endings import failure_class_of
from techrevati.runtime.errors import TechrevatiError
from techrevati.runtime.guardrails import GuardrailViolatedError
from techrevati.runtime.orchestrator import MaxIterationsExceededError, PermissionDeniedError
from techrevati.runtime.outputs import OutputRejectedError
from techrevati.runtime.usage_tracking import UsageBoundExceededError
from techrevati.store.errors import NotJson, PayloadTooLarge, StepInDoubt
from techrevati.store.gates import BadCost, CostTooLarge, GateRefused, UnknownBucket

PERMANENT = frozenset(
    {"validation_error", "prompt_rejection", "context_overflow", "step_in_doubt", "limit_exceeded", "refused"}
)
"""Classes that trying again does not mend."""


class TurnTimedOut(TechrevatiError):
    """The turn ran longer than its agent allows."""

    def __init__(self, role: str, seconds: float) -> None:
        super().__init__(role, seconds)
        self.role, self.seconds = role, seconds

    def __str__(self) -> str:
        return f"a turn of {self.role} ran longer than {self.seconds:g} s; fix: fleet.agent({self.role!r}, timeout=…)"


class UnknownAgent(TechrevatiError):
    """A run names an agent that this worker's fleet does not have."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return (
            f"agent {self.name!r} is not in this worker's fleet (it has: {', '.join(self.known) or 'none'}); "
            "fix: deploy the release that declares it, then `techrevati retry` the run"
        )


def classify(error: BaseException) -> str:
    """Name the failure class of an exception: by type, by HTTP status where it carries one, else by its words."""
    match error:
        case StepInDoubt():
            return "step_in_doubt"
        case NotJson() | PayloadTooLarge() | UnknownModel() | UnknownAgent() | NoProvider():
            return "validation_error"
        case ModelFailed():
            return error.failure
        case RetryLater() | Refused():
            return "rate_limit"
        case GateRefused():
            return "dependency_failed"
        case CostTooLarge() | BadCost() | UnknownBucket():
            return "validation_error"
        case UsageBoundExceededError() | MaxIterationsExceededError():
            return "limit_exceeded"
        case PermissionDeniedError() | GuardrailViolatedError():
            return "refused"
        case OutputRejectedError():
            return "llm_error"  # the model may do better next time
        case TurnTimedOut() | TimeoutError():
            return "llm_timeout"
        case ConnectionError():
            return "dependency_failed"
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        if status == 429:
            return "rate_limit"
        if status in (408, 504):
            return "llm_timeout"
        if status >= 500:
            return "llm_error"
        if status in (400, 401, 403, 404, 422):
            return "prompt_rejection" if status == 400 else "validation_error"
    return failure_class_of(error).value


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a failing turn is tried, and how long it waits between.

    `tries` counts the first one.  The wait doubles from `base` to `cap` seconds and is drawn from the upper
    half of that range, so that many turns that failed together do not come back together.

    Source: "equal jitter" of Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015.
    """

    tries: int = 4
    base: float = 0.5
    cap: float = 60.0
    per_class: Mapping[str, int] = field(default_factory=dict)
    """Failure class -> tries; 1 = never again."""

    def after(
        self, failure: str, failed: int, *, asked: float | None = None, draw: float | None = None
    ) -> float | None:
        """Give the wait after the `failed`-th failure in a row, or None when the tries are spent.

        `asked` is what a provider said (Retry-After); it is a lower bound.
        """
        tries = self.per_class.get(failure, 1 if failure in PERMANENT else self.tries)
        if failed >= tries:
            return None
        ceiling = min(self.cap, self.base * 2 ** min(failed - 1, 60))
        wait: float = ceiling * (0.5 + 0.5 * (random.random() if draw is None else draw))
        return max(wait, asked or 0.0)


def describe(error: BaseException, failure: str) -> dict[str, Any]:
    """Give an error as the JSON that is kept with the run."""
    return {"type": type(error).__name__, "message": str(error)[:4000], "failure": failure}
