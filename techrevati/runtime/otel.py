"""Events and usage as OpenTelemetry spans and metrics (extra ``otel``).

    started ──▶ parent span ─┬─ other events: child spans ─┬─ completed, failed ──▶ parent ends

Parents are told apart by session, role and phase: parallel sessions of one role do not close
each other's.  Events emitted by hand have no session and pair up by role and phase.  A parent
that nobody closes ends with its sink, at the latest when the interpreter exits.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from techrevati.runtime._scope import emitting
from techrevati.runtime.agent_events import AgentEvent, AgentEventName
from techrevati.runtime.usage_tracking import UsageSnapshot

_OTEL_AVAILABLE = True
_OTEL_IMPORT_ERROR: ImportError | None = None
try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import Status, StatusCode
except ImportError as error:  # pragma: no cover - the tests have the extra
    _OTEL_AVAILABLE, _OTEL_IMPORT_ERROR = False, error

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Span, Tracer

DEFAULT_PROVIDER_NAME = "techrevati"

_SCOPE_NAME, _SCOPE_VERSION = "techrevati.runtime", "0.2.0"  # dashboards select by these
_OPERATIONS = {
    AgentEventName.AGENT_STARTED: "create_agent",
    AgentEventName.AGENT_READY: "create_agent",
    AgentEventName.AGENT_TOOL_CALLED: "execute_tool",
    AgentEventName.AGENT_TOOL_COMPLETED: "execute_tool",
    AgentEventName.PHASE_STARTED: "invoke_workflow",
    AgentEventName.PHASE_COMPLETED: "invoke_workflow",
}
_OPENING = frozenset({AgentEventName.AGENT_STARTED, AgentEventName.PHASE_STARTED})
_CLOSING = frozenset({AgentEventName.AGENT_COMPLETED, AgentEventName.AGENT_FAILED, AgentEventName.PHASE_COMPLETED})


def _require_otel() -> None:
    if not _OTEL_AVAILABLE:
        raise ImportError(
            "OpenTelemetry is not installed: pip install 'techrevati-workers[otel]'"
            " (once named techrevati-runtime[otel])"
        ) from _OTEL_IMPORT_ERROR


@dataclass(slots=True)
class _Parent:
    """An open span; `announced` once somebody has emitted its start by hand."""

    span: Span
    announced: bool


_Key = tuple[str | None, str, str]  # session, role, phase


def _end_all(parents: dict[_Key, _Parent]) -> None:
    while parents:
        _, parent = parents.popitem()
        parent.span.end()


@dataclass
class OpenTelemetrySink:
    """Turns events into spans.  Safe for threads."""

    tracer: Tracer | None = None
    provider_name: str = DEFAULT_PROVIDER_NAME
    agent_id: str | None = None

    def __post_init__(self) -> None:
        _require_otel()
        self._tracer = self.tracer or trace.get_tracer(_SCOPE_NAME, _SCOPE_VERSION)
        self._lock = threading.RLock()
        self._parents: dict[_Key, _Parent] = {}
        self._finalizer = weakref.finalize(self, _end_all, self._parents)

    def emit(self, event: AgentEvent) -> None:
        """Open a parent, close one, or record a span of its own."""
        operation = _OPERATIONS.get(event.event, "invoke_agent")
        attributes = self._attributes(event, operation)
        name = f"{operation} {event.role}" if event.role else operation
        scope = emitting.get()
        own = (None if scope is None else scope.session_id, event.role or "", event.phase or "")
        # Spans end outside the lock: an exporter may take its time.
        if event.event in _OPENING:
            with self._lock:
                replaced = self._open(own, name, attributes)
            if replaced is not None:
                replaced.end()
            return
        closes = event.event in _CLOSING and (scope is None or scope.ends)
        with self._lock:
            key = self._find(own)
            parent = None if key is None else self._parents[key]
            if key is not None and closes:
                del self._parents[key]
        if parent is not None and closes:
            _close(parent.span, event, attributes)
            return
        context = None if parent is None else trace.set_span_in_context(parent.span)
        self._tracer.start_span(name, context=context, attributes=attributes).end()

    def close(self) -> None:
        """End every span still open."""
        with self._lock:
            _end_all(self._parents)

    def _find(self, own: _Key) -> _Key | None:
        """Where the open parent stands: the session's own, one opened by hand, or, for an event
        emitted by hand, that of the only session there is."""
        if own in self._parents:
            return own
        session_id, role, phase = own
        if session_id is not None:
            by_hand = (None, role, phase)
            return by_hand if by_hand in self._parents else None
        same = [key for key in self._parents if key[1:] == (role, phase)]
        return same[0] if len(same) == 1 else None

    def _open(self, own: _Key, name: str, attributes: dict[str, Any]) -> Span | None:
        """Remember an open parent; returns the one it takes the place of, to be ended."""
        by_hand = own[0] is None
        found = self._find(own)
        place = found if by_hand and found is not None else own
        replaced: Span | None = None
        if found is not None:
            parent = self._parents.pop(found)
            # A session's start and one emitted by hand for the same agent are one start.
            if found != own and (not by_hand or not parent.announced):
                parent.announced = parent.announced or by_hand
                self._parents[place] = parent
                return None
            replaced = parent.span
        span = self._tracer.start_span(name, attributes=attributes)
        self._parents[place] = _Parent(span, announced=by_hand)
        return replaced

    def _attributes(self, event: AgentEvent, operation: str) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": self.provider_name,
        }
        optional = {
            "gen_ai.agent.name": event.role,
            "gen_ai.agent.id": self.agent_id,
            "techrevati.phase": event.phase,
            "techrevati.detail": event.detail or None,
            "error.type": None if event.failure_class is None else event.failure_class.value,
        }
        attributes.update((key, value) for key, value in optional.items() if value is not None)
        for key, value in (event.data or {}).items():
            if isinstance(value, str | int | float | bool):
                attributes[f"techrevati.data.{key}"] = value
        return attributes


def _close(span: Span, event: AgentEvent, attributes: dict[str, Any]) -> None:
    span.set_attributes(attributes)
    if event.failure_class is not None:
        span.set_status(Status(StatusCode.ERROR, event.detail or "failed"))
    span.end()


@dataclass
class OpenTelemetryUsageSink:
    """Turns usage into a token histogram and a cost counter."""

    meter: Meter | None = None
    provider_name: str = DEFAULT_PROVIDER_NAME

    def __post_init__(self) -> None:
        _require_otel()
        meter = self.meter or metrics.get_meter(_SCOPE_NAME, _SCOPE_VERSION)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", unit="{token}", description="Tokens per turn"
        )
        self._cost = meter.create_counter("techrevati.cost.usd", unit="USD", description="Cost of turns")

    def record(self, model: str, usage: UsageSnapshot, cost_usd: float) -> None:
        """Record what is not zero."""
        attributes = {"gen_ai.provider.name": self.provider_name, "gen_ai.request.model": model}
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens:
                self._tokens.record(tokens, {**attributes, "gen_ai.token.type": kind})
        if cost_usd:
            self._cost.add(cost_usd, attributes)
