"""Sessions: the factory, and the names that belong to running agents.

    AgentSession ──session(), asession()──▶ one worker's scope ──run_turn, run_tool──▶ results

The factory holds what sessions share (registry, breaker, limiter, saver, sinks); each session
has its own tracker, recovery books, events and turn count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from techrevati.runtime._async_session import AsyncOrchestrationSession
from techrevati.runtime._checkpoints import CheckpointSaver
from techrevati.runtime._errors import MaxIterationsExceededError, PermissionDeniedError, TurnTimeoutError
from techrevati.runtime._session import STATE_VERSION, SessionCore
from techrevati.runtime._stream import TurnStream
from techrevati.runtime._sync_session import OrchestrationSession
from techrevati.runtime._usage import CarriedUsage, UsageSnapshot
from techrevati.runtime.agent_lifecycle import AgentRegistry
from techrevati.runtime.circuit_breaker import AsyncCircuitBreaker, CircuitBreaker
from techrevati.runtime.extras import PLAIN, SessionExtras
from techrevati.runtime.guardrails import Guardrail
from techrevati.runtime.permissions import PermissionEnforcer
from techrevati.runtime.policy_engine import PolicyEngine
from techrevati.runtime.quality_gate import QualityGate
from techrevati.runtime.rate_limit import AsyncRateLimiter, RateLimiter
from techrevati.runtime.retry_policy import RecoveryContext, restore_recovery
from techrevati.runtime.routing import ProviderRouter
from techrevati.runtime.sinks import EventSink, NoopEventSink, NoopUsageSink, UsageSink
from techrevati.runtime.usage_tracking import UsageLimits, UsageTracker

__all__ = [
    "AgentSession",
    "AsyncOrchestrationSession",
    "MaxIterationsExceededError",
    "OrchestrationSession",
    "Orchestrator",
    "PermissionDeniedError",
    "SessionExtras",
    "TurnStream",
    "TurnTimeoutError",
]


@dataclass
class AgentSession:
    """How sessions of one role and phase are opened, as many as wanted."""

    role: str
    phase: str
    project_id: int | None = None
    registry: AgentRegistry = field(default_factory=AgentRegistry)
    permissions: PermissionEnforcer | None = None
    circuit_breaker: CircuitBreaker | None = None
    async_circuit_breaker: AsyncCircuitBreaker | None = None
    policy_engine: PolicyEngine | None = None
    quality_gate: QualityGate | None = None
    budget_usd: float | None = None
    enforce_budget: bool = False
    max_iterations: int = 25
    guardrails: list[Guardrail] = field(default_factory=list)
    event_sink: EventSink = field(default_factory=NoopEventSink)
    usage_sink: UsageSink = field(default_factory=NoopUsageSink)
    saver: CheckpointSaver | None = None
    rate_limiter: RateLimiter | None = None
    async_rate_limiter: AsyncRateLimiter | None = None
    provider_router: ProviderRouter | None = None
    usage_limits: UsageLimits | None = None

    def session(
        self,
        *,
        thread_id: str | None = None,
        state: Mapping[str, Any] | None = None,
        extras: SessionExtras = PLAIN,
    ) -> _SyncScope:
        """A context manager around a session that blocks.

        `thread_id` with a saver makes turns durable; `state` (from `export_state`) goes on where
        a session in another process was.

        Raises:
            ValueError: `state` is of a version this runtime does not know.
            TypeError: `extras` holds async guardrails.
        """
        if extras.async_guardrails:
            raise TypeError("async_guardrails need an async session: open it with asession()")
        return _SyncScope(self, thread_id, _checked(state), extras)

    def asession(
        self,
        *,
        thread_id: str | None = None,
        state: Mapping[str, Any] | None = None,
        extras: SessionExtras = PLAIN,
    ) -> _AsyncScope:
        """`session`, for a session that awaits."""
        return _AsyncScope(self, thread_id, _checked(state), extras)


Orchestrator = AgentSession


def _checked(state: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if state is not None and state.get("version") != STATE_VERSION:
        raise ValueError(
            f"session state has version {state.get('version')!r}, this runtime reads {STATE_VERSION}:"
            " export it again with a matching release"
        )
    return state


class _Opening:
    """What both scopes do to open and to leave a session."""

    def __init__(
        self,
        factory: AgentSession,
        thread_id: str | None,
        state: Mapping[str, Any] | None,
        extras: SessionExtras,
    ) -> None:
        self._factory, self._thread_id, self._state, self._extras = factory, thread_id, state, extras

    def _shared(self) -> dict[str, Any]:
        factory, state = self._factory, self._state
        return {
            "worker": factory.registry.create(factory.role, factory.phase, factory.project_id),
            "tracker": UsageTracker(),
            "recovery": RecoveryContext() if state is None else restore_recovery(state["recovery"]),
            "registry": factory.registry,
            "phase": factory.phase,
            "role": factory.role,
            "project_id": factory.project_id,
            "permissions": factory.permissions,
            "policy_engine": factory.policy_engine,
            "quality_gate": factory.quality_gate,
            "budget_usd": factory.budget_usd,
            "enforce_budget": factory.enforce_budget,
            "max_iterations": factory.max_iterations,
            "guardrails": list(factory.guardrails),
            "event_sink": factory.event_sink,
            "usage_sink": factory.usage_sink,
            "thread_id": self._thread_id,
            "saver": factory.saver,
            "provider_router": factory.provider_router,
            "usage_limits": factory.usage_limits,
        }

    def _enter(self, session: SessionCore) -> None:
        state = self._state
        if state is None:
            session.resume(self._extras, 0, 0.0)
        else:
            session.resume(self._extras, state["iterations"], state["elapsed_seconds"])
            session.tracker.carry(
                CarriedUsage(entry["model"], entry["turns"], UsageSnapshot.from_dict(entry["usage"]))
                for entry in state["usage"]
            )
        session._enter()


class _SyncScope(_Opening):
    """``with`` gives the session; leaving settles its worker."""

    def __enter__(self) -> OrchestrationSession:
        factory = self._factory
        self._session = OrchestrationSession(
            **self._shared(), circuit_breaker=factory.circuit_breaker, rate_limiter=factory.rate_limiter
        )
        self._enter(self._session)
        return self._session

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session._leave(error)


class _AsyncScope(_Opening):
    """``async with`` gives the session; leaving settles its worker."""

    def open(self) -> AsyncOrchestrationSession:
        """Enter without a ``with``: for a caller that opens on first use and settles with `close`."""
        factory = self._factory
        self._session = AsyncOrchestrationSession(
            **self._shared(),
            circuit_breaker=factory.async_circuit_breaker,
            async_rate_limiter=factory.async_rate_limiter,
        )
        self._enter(self._session)
        return self._session

    def close(self, error: BaseException | None = None) -> None:
        """Settle the session that `open` gave."""
        self._session._leave(error)

    async def __aenter__(self) -> AsyncOrchestrationSession:
        return self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)
