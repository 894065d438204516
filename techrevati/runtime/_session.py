"""A session: one worker's open scope, and everything about it that waits for nothing.

The sync and the async session inherit this and add the methods that call out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from techrevati.runtime._checkpoints import CheckpointSaver, _new_id
from techrevati.runtime._journal import Journal
from techrevati.runtime._log import logger
from techrevati.runtime._scope import Scope, emitting
from techrevati.runtime.agent_events import AgentEvent, AgentEventName, AgentEventStatus, AgentFailureClass
from techrevati.runtime.agent_lifecycle import AgentRegistry, AgentStatus, AgentWorker
from techrevati.runtime.endings import ending_of
from techrevati.runtime.extras import PLAIN, SessionExtras
from techrevati.runtime.guardrails import Guardrail
from techrevati.runtime.handoffs import Handoff
from techrevati.runtime.hooks import HandoffCall, enter_handoff
from techrevati.runtime.permissions import PermissionEnforcer, PermissionOutcome
from techrevati.runtime.policy_engine import PhaseContext, PolicyActionData, PolicyEngine
from techrevati.runtime.quality_gate import QualityGate, QualityGateOutcome, QualityLevel
from techrevati.runtime.retry_policy import RecoveryContext, export_recovery
from techrevati.runtime.routing import ProviderRouter
from techrevati.runtime.sinks import EventSink, NoopEventSink, NoopUsageSink, UsageSink
from techrevati.runtime.usage_tracking import UsageLimits, UsageTracker

STATE_VERSION = 1


@dataclass
class SessionCore:
    """What both kinds of session share.  One thread or one task drives a session."""

    worker: AgentWorker
    tracker: UsageTracker
    recovery: RecoveryContext
    registry: AgentRegistry
    phase: str
    role: str
    project_id: int | None
    permissions: PermissionEnforcer | None = None
    policy_engine: PolicyEngine | None = None
    quality_gate: QualityGate | None = None
    budget_usd: float | None = None
    enforce_budget: bool = False
    max_iterations: int = 25
    guardrails: list[Guardrail] = field(default_factory=list)
    event_sink: EventSink = field(default_factory=NoopEventSink)
    usage_sink: UsageSink = field(default_factory=NoopUsageSink)
    events: list[AgentEvent] = field(default_factory=list)
    thread_id: str | None = None
    saver: CheckpointSaver | None = None
    provider_router: ProviderRouter | None = None
    usage_limits: UsageLimits | None = None
    extras: SessionExtras = field(default=PLAIN, init=False, repr=False, compare=False)
    _iteration_count: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._session_id = _new_id()
        self._journal: Journal | None = None
        self._started_at = self.extras.clock()

    def resume(self, extras: SessionExtras, iterations: int, elapsed_seconds: float) -> None:
        """Go on with these extras from where another process was."""
        self.extras, self._iteration_count = extras, iterations
        self._started_at = extras.clock() - elapsed_seconds

    # What a caller asks.

    def authorize(self, tool_name: str) -> PermissionOutcome:
        """May this role use the tool?  Without an enforcer, yes."""
        if self.permissions is None:
            return PermissionOutcome(True, "no enforcer configured")
        return self.permissions.check(self.role, tool_name)

    def evaluate_policy(
        self,
        gate_score: float = 0.0,
        gate_threshold: float = 0.0,
        completed_roles: set[str] | None = None,
        failed_roles: set[str] | None = None,
        all_roles: set[str] | None = None,
        elapsed_seconds: float | None = None,
        phase_completed: bool = False,
        quality_level: QualityLevel | None = None,
    ) -> list[PolicyActionData]:
        """Actions the policy asks for now; time, cost and recoveries are the session's own."""
        if self.policy_engine is None:
            return []
        ctx = self.phase_context(elapsed_seconds)
        ctx.quality_level, ctx.phase_completed = quality_level, phase_completed
        ctx.gate_score, ctx.gate_threshold = gate_score, gate_threshold
        ctx.completed_roles = set(completed_roles or ())
        ctx.failed_roles = set(failed_roles or ())
        ctx.all_roles = set(all_roles or ())
        return self.policy_engine.evaluate(ctx)

    def phase_context(self, elapsed_seconds: float | None = None) -> PhaseContext:
        """What the session knows of its phase, for a policy to be asked (`evaluate_async` too)."""
        return PhaseContext(
            phase=self.phase,
            elapsed_seconds=self._elapsed() if elapsed_seconds is None else elapsed_seconds,
            retry_exhausted_scenarios={
                event.scenario for event in self.recovery.events if event.event_type == "escalated"
            },
            total_cost_usd=self.tracker.total_cost(),
        )

    def evaluate_gate(self, observed: QualityLevel | None) -> QualityGateOutcome | None:
        """Ask the quality gate, and tell the sink; `None` without a gate."""
        if self.quality_gate is None:
            return None
        outcome = self.quality_gate.evaluate(observed)
        name = "NONE" if observed is None else observed.name
        if outcome.satisfied:
            self._emit(AgentEvent.gate_passed(self.phase, f"observed={name}"))
        else:
            self._emit(AgentEvent.gate_failed(self.phase, f"observed={name}"))
            self._log(logging.INFO, "quality_gate_failed", observed=name)
        return outcome

    def summary(self) -> dict[str, Any]:
        """Everything about the session so far, JSON-ready if event data is."""
        return {
            "worker": self.worker.to_dict(),
            "usage": self.tracker.summary(),
            "per_model_cost": self.tracker.per_model_summary(),
            "recovery_events": [event.to_dict() for event in self.recovery.events],
            "agent_events": [event.to_dict() for event in self.events],
        }

    def export_state(self) -> dict[str, Any]:
        """What another process needs to go on, as JSON data; see ``session(state=...)``.

        Its size depends on the number of models and scenarios, not on the number of turns.
        """
        return {
            "version": STATE_VERSION,
            "iterations": self._iteration_count,
            "elapsed_seconds": self._elapsed(),
            "usage": [
                {"model": entry.model, "turns": entry.turns, "usage": entry.usage.to_dict()}
                for entry in self.tracker.carried_forward()
            ],
            "recovery": export_recovery(self.recovery),
        }

    # How it ends.

    def complete(self, detail: str | None = None) -> None:
        """The work is done."""
        self._finish(AgentStatus.COMPLETED, detail)
        self._emit(AgentEvent.completed(self.role, self.phase, detail))

    def fail(self, detail: str, failure_class: AgentFailureClass = AgentFailureClass.UNKNOWN) -> None:
        """The work is given up."""
        self._finish(AgentStatus.FAILED, detail)
        self._emit(AgentEvent.failed(self.role, self.phase, failure_class, detail))

    def cancel(self, detail: str | None = None) -> None:
        """The work is no longer wanted."""
        self._finish(AgentStatus.CANCELLED, detail)
        event = AgentEvent.failed(self.role, self.phase, AgentFailureClass.UNKNOWN, detail or "cancelled")
        self._emit(event)

    def handoff_to(self, target_role: str, reason: str, context: Mapping[str, Any] | None = None) -> Handoff:
        """Complete this worker and register its successor.  Nothing is run."""
        call = HandoffCall(self.role, target_role, self.phase, reason, dict(context or {}))
        call = enter_handoff(self.extras.hooks, call)
        target = self.registry.create(call.target_role, self.phase, self.project_id)
        self.registry.transition(target.worker_id, AgentStatus.INITIALIZING, f"handoff from {self.role}: {call.reason}")
        self._finish(AgentStatus.COMPLETED, f"handoff to {call.target_role}")
        handoff = Handoff(
            source_role=self.role,
            target_role=call.target_role,
            phase=self.phase,
            reason=call.reason,
            context=call.context,
            project_id=self.project_id,
            target_worker_id=target.worker_id,
        )
        detail = f"handoff → {call.target_role}: {call.reason}"
        event = AgentEvent.completed(self.role, self.phase, detail).with_data({"handoff": handoff.to_dict()})
        self._emit(event)
        self._log(
            logging.INFO,
            "handoff_issued",
            target_role=call.target_role,
            reason=call.reason,
            target_worker_id=target.worker_id,
        )
        for hook in reversed(self.extras.hooks):
            hook.after_handoff(handoff)
        return handoff

    def _enter(self) -> None:
        for status in (AgentStatus.INITIALIZING, AgentStatus.RUNNING):
            self.registry.transition(self.worker.worker_id, status)
        self._emit(AgentEvent.started(self.role, self.phase))

    def _leave(self, error: BaseException | None) -> None:
        if error is None:
            if self.worker.status is AgentStatus.WAITING_FOR_INPUT:
                self.cancel("session left while waiting for input")
            elif not self.worker.is_terminal:
                self.complete()
            return
        ending = ending_of(error)
        detail = ending.detail if self.extras.redact is None else self.extras.redact(ending.detail)
        self._finish(ending.status, detail)
        self._emit(AgentEvent.failed(self.role, self.phase, ending.failure_class, detail))
        if ending.status is AgentStatus.FAILED:
            self._log(logging.INFO, "session_failed", failure_class=ending.failure_class.value, detail=detail)

    # What the parts of a session use among themselves.

    def _finish(self, status: AgentStatus, detail: str | None) -> None:
        if self.worker.is_terminal:
            return
        try:
            self.registry.transition(self.worker.worker_id, status, detail)
        except KeyError:  # the registry was cleared under us; the worker still has to end
            self.worker.transition(status, detail)

    def _emit(self, event: AgentEvent, *, ends: bool = True) -> None:
        """Keep the event and pass it on; `ends` is false for a failure the session survives."""
        self.events.append(event)
        token = emitting.set(Scope(self._session_id, ends))
        try:
            self.event_sink.emit(event)
        except Exception:  # noqa: BLE001 - sinks observe, they must not harm the turn
            logger.exception("event_sink.emit raised; the event is dropped: %s", event.event.value)
        finally:
            emitting.reset(token)

    def _log(self, level: int, message: str, **fields: Any) -> None:
        if logger.isEnabledFor(level):
            who = {"role": self.role, "phase": self.phase, "project_id": self.project_id}
            logger.log(level, message, extra={**who, **fields})

    def _over_budget(self, budget_usd: float, cost: float) -> None:
        self._log(
            logging.WARNING,
            "budget_exceeded",
            budget_usd=budget_usd,
            current_cost_usd=cost,
            enforced=self.enforce_budget,
        )
        event = AgentEvent(
            AgentEventName.AGENT_FAILED,
            AgentEventStatus.FAILED,
            role=self.role,
            phase=self.phase,
            failure_class=AgentFailureClass.UNKNOWN,
            detail=f"budget exceeded: {self.tracker.format_cost()}",
            data={"budget_usd": budget_usd},
        )
        self._emit(event, ends=False)

    def _journal_of_thread(self) -> Journal | None:
        """The thread's recorded results, if the session has a thread and a saver."""
        saver, thread_id = self.saver, self.thread_id
        if saver is None or not thread_id:
            return None
        journal = self._journal
        if journal is None or journal.saver is not saver or journal.thread_id != thread_id:
            journal = self._journal = Journal(saver, thread_id, self._session_id, self.extras.claim_ttl)
        return journal

    def _elapsed(self) -> float:
        return self.extras.clock() - self._started_at
