"""How a session ends: from the exception that left it to a status, a failure class and a text."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from techrevati.runtime._errors import MaxIterationsExceededError, PermissionDeniedError, TurnTimeoutError
from techrevati.runtime._usage import UsageBoundExceededError
from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.runtime.agent_lifecycle import AgentStatus
from techrevati.runtime.circuit_breaker import CircuitOpenError
from techrevati.runtime.guardrails import GuardrailViolatedError
from techrevati.runtime.outputs import OutputRejectedError
from techrevati.runtime.rate_limit import RateLimitExceededError
from techrevati.runtime.retry_policy import FailureScenario, classify_exception

# The runtime's own stops are told by type: their messages carry names and amounts of the
# caller's, and "$0.5030" is not a 503.
_OWN: tuple[tuple[type[Exception], AgentFailureClass], ...] = (
    (TurnTimeoutError, AgentFailureClass.LLM_TIMEOUT),
    (RateLimitExceededError, AgentFailureClass.RATE_LIMIT),
    (CircuitOpenError, AgentFailureClass.DEPENDENCY_FAILED),
    (PermissionDeniedError, AgentFailureClass.TOOL_ERROR),
    (GuardrailViolatedError, AgentFailureClass.VALIDATION_ERROR),
    (OutputRejectedError, AgentFailureClass.VALIDATION_ERROR),
    (UsageBoundExceededError, AgentFailureClass.UNKNOWN),
    (MaxIterationsExceededError, AgentFailureClass.UNKNOWN),
)

_BY_SCENARIO = {
    FailureScenario.LLM_TIMEOUT: AgentFailureClass.LLM_TIMEOUT,
    FailureScenario.LLM_ERROR: AgentFailureClass.LLM_ERROR,
    FailureScenario.TOOL_EXECUTION_ERROR: AgentFailureClass.TOOL_ERROR,
    FailureScenario.CONTEXT_OVERFLOW: AgentFailureClass.CONTEXT_OVERFLOW,
    FailureScenario.DEPENDENCY_TIMEOUT: AgentFailureClass.DEPENDENCY_FAILED,
    FailureScenario.MEMORY_CORRUPTION: AgentFailureClass.MEMORY_CORRUPTION,
    FailureScenario.PROVIDER_FAILURE: AgentFailureClass.DEPENDENCY_FAILED,
}


def failure_class_of(error: BaseException) -> AgentFailureClass:
    """The class of a failure: the runtime's own by type, foreign ones by scenario."""
    for kind, failure_class in _OWN:
        if isinstance(error, kind):
            return failure_class
    return _BY_SCENARIO[classify_exception(error)]


@dataclass(frozen=True, slots=True)
class Ending:
    """What becomes of the worker, and what the last event says."""

    status: AgentStatus
    failure_class: AgentFailureClass
    detail: str


def ending_of(error: BaseException) -> Ending:
    """An `Exception` fails the session; an interrupt, exit or cancellation cancels it."""
    if isinstance(error, Exception):
        return Ending(AgentStatus.FAILED, failure_class_of(error), str(error))
    if isinstance(error, asyncio.CancelledError):
        detail = "async session cancelled"
    else:
        detail = f"session interrupted by {type(error).__name__}"
    return Ending(AgentStatus.CANCELLED, AgentFailureClass.UNKNOWN, detail)
