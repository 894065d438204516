"""The names, signatures and constants a program may rely on."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pickle
import subprocess
import sys
from enum import Enum, IntEnum
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

import techrevati.runtime as runtime
from techrevati.runtime import (
    AgentEventName,
    AgentFailureClass,
    AgentStatus,
    BudgetExceededError,
    CircuitOpenError,
    GuardrailOutcome,
    GuardrailViolatedError,
    InvalidTransitionError,
    MaxIterationsExceededError,
    ModelPricing,
    PermissionDeniedError,
    PermissionOutcome,
    RateLimitExceededError,
    TurnTimeoutError,
    UsageLimitExceededError,
    _version,
)
from techrevati.runtime.audit import AuditBrokenError
from techrevati.runtime.checkpoint import StaleClaimError
from techrevati.runtime.errors import TechrevatiError
from techrevati.runtime.outputs import OutputRejectedError
from techrevati.runtime.usage_tracking import PricingConflictError

MODULES = {
    "agent_events": "AgentEvent AgentEventName AgentEventStatus AgentFailureClass",
    "agent_lifecycle": "AgentRegistry AgentStatus AgentWorker AgentWorkerEvent InvalidTransitionError",
    "checkpoint": "Checkpoint CheckpointSaver InMemorySaver SqliteSaver",
    "circuit_breaker": "AsyncCircuitBreaker CircuitBreaker CircuitOpenError CircuitState",
    "guardrails": "AllowAllGuardrail Guardrail GuardrailOutcome GuardrailStage GuardrailViolatedError",
    "handoffs": "Handoff",
    "orchestrator": "AgentSession AsyncOrchestrationSession MaxIterationsExceededError"
    " OrchestrationSession Orchestrator PermissionDeniedError TurnTimeoutError",
    "permissions": "PermissionEnforcer PermissionMode PermissionOutcome PermissionPolicy RolePermissionConfig",
    "persistence": "SqliteEventSink SqliteUsageSink",
    "policy_engine": "PhaseContext PolicyAction PolicyActionData PolicyCondition PolicyEngine PolicyRule",
    "quality_gate": "QualityGate QualityGateOutcome QualityLevel",
    "rate_limit": "AsyncRateLimiter AsyncTokenBucket RateLimitExceededError RateLimiter TokenBucket",
    "retry_policy": "EscalationPolicy FailureScenario RecoveryContext RecoveryEvent RecoveryRecipe"
    " RecoveryResult RecoveryStep aattempt_recovery attempt_recovery backoff_delay classify_exception"
    " next_provider recipe_for smaller_context_budget",
    "routing": "ProviderRouter RoundRobinProviderRouter StaticProviderRouter WeightedProviderRouter",
    "scheduler": "Clock ManualClock SystemClock",
    "sinks": "DEFAULT_RING_CAPACITY EventSink NoopEventSink NoopUsageSink RingBufferEventSink"
    " RingBufferUsageSink UsageSink",
    "usage_tracking": "PRICING_TABLE BudgetExceededError ModelPricing UsageBoundExceededError"
    " UsageLimitExceededError UsageLimits UsageSnapshot UsageTracker has_pricing load_pricing_from_file"
    " register_pricing",
}
SUBMODULE_ONLY = {
    "policy_engine": "And Or QualityAt PhaseCompleted AgentFailed GateBelow RetryExhausted TimedOut"
    " AllAgentsComplete CostExceeded",
    "guardrails": "run_pre_checks run_post_checks",
    "retry_policy": "JitterMode _RECIPES",
    "otel": "DEFAULT_PROVIDER_NAME OpenTelemetrySink OpenTelemetryUsageSink _OTEL_AVAILABLE _OTEL_IMPORT_ERROR",
    "usage_tracking": "_resolve_pricing _warned_unpriced_models PRICING_TABLE",
    "checkpoint": "_new_id",
}
SIGNATURES = {
    "AgentSession": "role phase project_id=None registry=* permissions=None circuit_breaker=None"
    " async_circuit_breaker=None policy_engine=None quality_gate=None budget_usd=None enforce_budget=False"
    " max_iterations=25 guardrails=* event_sink=* usage_sink=* saver=None rate_limiter=None"
    " async_rate_limiter=None provider_router=None usage_limits=None",
    "AgentSession.session": "self | thread_id=None state=None extras=*",
    "AgentSession.asession": "self | thread_id=None state=None extras=*",
    "OrchestrationSession.run_turn": "self fn model='' usage=None estimate_usage=None timeout=None"
    " idempotency_key=None",
    "AsyncOrchestrationSession.arun_turn": "self coro_factory model='' usage=None estimate_usage=None"
    " timeout=None idempotency_key=None",
    "AsyncOrchestrationSession.arun_parallel_tools": "self coro_factories | timeout=None",
    "OrchestrationSession.run_tool": "self tool_name fn",
    "OrchestrationSession.evaluate_policy": "self gate_score=0.0 gate_threshold=0.0 completed_roles=None"
    " failed_roles=None all_roles=None elapsed_seconds=None phase_completed=False quality_level=None",
    "OrchestrationSession.phase_context": "self elapsed_seconds=None",
    "OrchestrationSession.handoff_to": "self target_role reason context=None",
    "OrchestrationSession.fail": "self detail failure_class=*",
    "CircuitBreaker": "name failure_threshold=5 recovery_timeout_seconds=60.0 half_open_max_probes=1 clock=*",
    "AsyncCircuitBreaker": "name failure_threshold=5 recovery_timeout_seconds=60.0 half_open_max_probes=1 clock=*",
    "TokenBucket": "name capacity refill_per_second clock=*",
    "TokenBucket.acquire": "self tokens=1.0 | timeout=None",
    "TokenBucket.try_acquire": "self tokens=1.0",
    "RateLimiter": "buckets=*",
    "RateLimiter.acquire_pre_call": "self | request_cost=1.0 timeout=None",
    "RateLimiter.acquire_usage": "self | input_tokens output_tokens timeout=None",
    "AgentRegistry": "",
    "AgentRegistry.create": "self role phase project_id=None",
    "AgentWorker": "worker_id role phase project_id=None status=* events=* retry_count=0 last_error=None"
    " provider_used=None created_at=* updated_at=*",
    "AgentEvent": "event status emitted_at=* role=None phase=None project_id=None failure_class=None"
    " detail=None data=None",
    "Checkpoint": "id thread_id created_at state parent_id=None metadata=*",
    "InMemorySaver": "",
    "InMemorySaver.put": "self thread_id state | parent_id=None metadata=None",
    "SqliteSaver": "path",
    "SqliteSaver.list": "self thread_id | before=None limit=10",
    "ModelPricing": "input_per_million output_per_million cache_write_per_million=0.0"
    " cache_read_per_million=0.0 cache_write_5min_per_million=0.0 cache_write_1h_per_million=0.0",
    "UsageSnapshot": "input_tokens=0 output_tokens=0 cache_write_tokens=0 cache_read_tokens=0 cache_ttl=None"
    " tool_calls=0",
    "UsageLimits": "request_tokens_max=None response_tokens_max=None total_tokens_max=None"
    " tool_calls_max=None cost_usd_max=None",
    "UsageTracker": "turns=*",
    "register_pricing": "model pricing | on_conflict='replace'",
    "backoff_delay": "attempt base=2.0 jitter='decorrelated' cap=60.0 prev_delay=0.0",
    "aattempt_recovery": "scenario ctx | sleeper=None",
    "smaller_context_budget": "current_chars reduction=0.75",
    "PermissionPolicy": "role_configs=None tool_requirements=None",
    "RolePermissionConfig": "role mode allowed_tools=None denied_tools=*",
    "PolicyRule": "name condition actions priority=50",
    "Handoff": "source_role target_role phase reason context=* project_id=None target_worker_id='' created_at=*",
    "GuardrailViolatedError": "outcome | guardrail role tool stage",
    "ManualClock": "start=1000.0 wall_start=None",
    "RecoveryRecipe": "scenario steps max_attempts escalation_policy step_retries=*",
    "RecoveryResult": "outcome steps_taken=0 recovered_steps=* remaining_steps=* reason=''",
    "RingBufferEventSink": "capacity=1000",
    "SqliteEventSink.replay": "self | limit=None",
}

SESSION_FIELDS = (
    *("worker", "tracker", "recovery", "registry", "phase", "role", "project_id", "permissions"),
    *("policy_engine", "quality_gate", "budget_usd", "enforce_budget", "max_iterations", "guardrails"),
    *("event_sink", "usage_sink", "events", "thread_id", "saver", "provider_router", "usage_limits"),
)


def described(target: Any) -> str:
    words = []
    keyword_only = False
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            words.append("|")
        default = parameter.default
        if default is parameter.empty:
            words.append(parameter.name)
        elif default is None or type(default) in (bool, int, float, str):
            words.append(f"{parameter.name}={default!r}")
        else:
            words.append(f"{parameter.name}=*")
    return " ".join(words)


def test_all_lists_exactly_the_ninety_one_names() -> None:
    expected = {name for names in MODULES.values() for name in names.split()} | {"__version__"}
    assert len(expected) == 91
    assert set(runtime.__all__) == expected
    assert len(runtime.__all__) == 91
    assert any(char.isdigit() for char in runtime.__version__)


@pytest.mark.parametrize("module", MODULES)
def test_each_name_is_the_same_object_in_its_module(module: str) -> None:
    loaded = importlib.import_module(f"techrevati.runtime.{module}")
    for name in MODULES[module].split():
        assert getattr(loaded, name) is getattr(runtime, name)


@pytest.mark.parametrize("module", SUBMODULE_ONLY)
def test_names_of_submodules_exist(module: str) -> None:
    loaded = importlib.import_module(f"techrevati.runtime.{module}")
    for name in SUBMODULE_ONLY[module].split():
        assert hasattr(loaded, name), name


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures_hold(path: str) -> None:
    target: Any = runtime
    for part in path.split("."):
        target = getattr(target, part)
    assert described(target) == SIGNATURES[path]


def test_enums_are_strings_or_ordered() -> None:
    for name in runtime.__all__:
        value = getattr(runtime, name)
        if isinstance(value, type) and issubclass(value, Enum):
            assert issubclass(value, IntEnum) or (issubclass(value, str) and str in value.__mro__), name
    assert AgentEventName("agent.recovery.attempted") is AgentEventName.RECOVERY_ATTEMPTED
    assert str(AgentStatus.IDLE) == "AgentStatus.IDLE"
    assert len(AgentFailureClass) == 10
    assert len(AgentEventName) == 19
    assert all(member.value == member.name.lower() for member in AgentFailureClass)


def test_orchestrator_is_the_factory_itself() -> None:
    assert runtime.Orchestrator is runtime.AgentSession


def test_session_fields_stand_in_their_order() -> None:
    shared = list(SESSION_FIELDS)
    sync = [field.name for field in dataclasses.fields(runtime.OrchestrationSession) if field.init]
    asynchronous = [field.name for field in dataclasses.fields(runtime.AsyncOrchestrationSession) if field.init]
    assert sync == [*shared, "circuit_breaker", "rate_limiter"]
    assert asynchronous == [*shared, "circuit_breaker", "async_rate_limiter"]


def test_import_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import techrevati.runtime;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(name for name in new if name not in sys.stdlib_module_names and name != 'techrevati'))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


ERRORS = [
    (InvalidTransitionError(AgentStatus.IDLE, AgentStatus.RUNNING), "Invalid transition: idle → running"),
    (CircuitOpenError("llm"), "Circuit breaker 'llm' is OPEN"),
    (RateLimitExceededError("rpm", 2.0), "rate limit exceeded on 'rpm': requested 2 tokens"),
    (BudgetExceededError(0.5, 0.75), "budget exceeded: $0.7500 > $0.5000"),
    (
        UsageLimitExceededError("tool_calls", 4, 3),
        "usage limit exceeded on 'tool_calls': observed 4 > ceiling 3",
    ),
    (TurnTimeoutError(1.5), "turn exceeded timeout of 1.500s"),
    (PermissionDeniedError(PermissionOutcome(False)), "permission denied"),
    (PermissionDeniedError(PermissionOutcome(False, "no")), "no"),
    (
        GuardrailViolatedError(GuardrailOutcome(False), guardrail="g", role="r", tool="t", stage="pre"),
        "pre guardrail 'g' blocked tool 't' for role 'r': no reason provided",
    ),
    (OutputRejectedError("bad", "$.a"), "output rejected at $.a: bad"),
    (AuditBrokenError(3, "gone"), "audit chain broken at line 3: gone"),
    (StaleClaimError("t", "k", 1, 2), "key 'k' of thread 't': token 1 is not the current one (2)"),
]


@pytest.mark.parametrize(("error", "message"), ERRORS, ids=lambda value: type(value).__name__)
def test_errors_carry_their_message_and_survive_pickling(error: Exception, message: str) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) == message
    assert vars(again) == vars(error)


def test_without_a_distribution_the_version_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_version, "version", missing)
    assert _version._installed() == "0.0.0+local"


def test_errors_whose_message_starts_as_documented() -> None:
    capped = pickle.loads(pickle.dumps(MaxIterationsExceededError(3)))
    assert str(capped).startswith("session reached max_iterations=3")
    assert capped.max_iterations == 3
    for own in (OutputRejectedError, AuditBrokenError, StaleClaimError, PricingConflictError):
        assert issubclass(own, TechrevatiError)
    conflict = PricingConflictError("m", ModelPricing(1, 2), ModelPricing(3, 4))
    assert pickle.loads(pickle.dumps(conflict)).offered == ModelPricing(3, 4)
    for kind in (TurnTimeoutError, MaxIterationsExceededError, PermissionDeniedError, CircuitOpenError):
        assert kind.__bases__ == (Exception,)
