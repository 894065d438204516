"""`turn.session`: the in-process session of `techrevati.runtime`, carried from turn to turn.

    state of the last turn ─▶ AgentSession.asession(state=…) ─▶ arun_turn, arun_tool ─▶ export_state ─▶ commit

It is opened when a turn first asks for it.  Its events join the run's, its usage the run's totals.  What the fleet
shares is in it (breaker, limiter, budget, saver) where the author did not put his own, and its sinks beside his; with
a saver its turns have checkpoints under the thread's id.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from techrevati.runtime.agent_events import AgentEvent, AgentEventName
from techrevati.runtime.checkpoint import CheckpointSaver
from techrevati.runtime.circuit_breaker import AsyncCircuitBreaker
from techrevati.runtime.fanout import FanOutEventSink, FanOutUsageSink
from techrevati.runtime.orchestrator import AgentSession, AsyncOrchestrationSession
from techrevati.runtime.rate_limit import AsyncRateLimiter
from techrevati.runtime.sinks import EventSink, NoopEventSink, NoopUsageSink, UsageSink
from techrevati.runtime.usage_tracking import UsageSnapshot

KEY = "__session"
"""Where a thread's state keeps the sessions of its run: {"run_id": …, "agents": {agent: exported}}."""


class _Events:
    """Session events as events of the run, and for the fleet."""

    def __init__(self, emit: Any, fleet: EventSink, *, resumed: bool) -> None:
        self._emit, self._fleet, self._resumed = emit, fleet, resumed

    def emit(self, event: AgentEvent) -> None:
        if event.event is AgentEventName.AGENT_STARTED and self._resumed:
            return  # it goes on; it started in an earlier turn
        self._emit(event.event.value, event.to_dict())
        self._fleet.emit(event)


class _Usage:
    """Session usage as usage of the turn."""

    def __init__(self, usage: Any) -> None:
        self._usage = usage

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        self._usage.input_tokens += usage.input_tokens
        self._usage.output_tokens += usage.output_tokens
        self._usage.cost_micros += round(cost_usd * 1e6)


@dataclass(frozen=True, slots=True)
class Shared:
    """What a session shares with the fleet; None where nothing is declared."""

    breaker: AsyncCircuitBreaker | None = None
    limiter: AsyncRateLimiter | None = None
    saver: CheckpointSaver | None = None
    usage: UsageSink = field(default_factory=NoopUsageSink)
    events: EventSink = field(default_factory=NoopEventSink)
    ended: Callable[[], None] = lambda: None
    """Called when the turn is over, however."""


class TurnSession:
    """One turn's hold on the session of its agent."""

    def __init__(
        self,
        factory: AgentSession | None,
        *,
        run_id: str,
        agent: str,
        role: str,
        state: MutableMapping[str, Any],
        emit: Any,
        usage: Any,
        shared: Shared,
        thread_id: str,
    ) -> None:
        self._shared = shared
        self._run_id, self._agent, self._state = run_id, agent, state
        kept = state.get(KEY)
        mine = kept["agents"].get(agent) if kept and kept["run_id"] == run_id else None
        base = factory or AgentSession(role=role, phase=agent)
        saver = base.saver or shared.saver
        made = replace(
            base,
            saver=saver,
            event_sink=FanOutEventSink(_Events(emit, shared.events, resumed=mine is not None), base.event_sink),
            usage_sink=FanOutUsageSink(_Usage(usage), shared.usage, base.usage_sink),
            async_circuit_breaker=base.async_circuit_breaker or shared.breaker,
            async_rate_limiter=base.async_rate_limiter or shared.limiter,
        )
        self._scope = made.asession(thread_id=thread_id if saver is not None else None, state=mine)
        self.session: AsyncOrchestrationSession = self._scope.open()

    def settle(self, *, ended: bool) -> None:
        """Keep the session for the next turn, or end it; before the commit is built."""
        self._shared.ended()
        if ended:
            self._scope.close()
            return
        kept = self._state.get(KEY)
        agents = dict(kept["agents"]) if kept and kept["run_id"] == self._run_id else {}
        agents[self._agent] = self.session.export_state()
        self._state[KEY] = {"run_id": self._run_id, "agents": agents}

    def abandon(self, error: BaseException) -> None:
        """The turn did not succeed: let the session settle what it holds."""
        self._shared.ended()
        self._scope.close(error)
