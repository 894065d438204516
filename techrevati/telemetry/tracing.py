"""One session, one trace, across workers and handoffs.

    start ──traceparent──▶ run ──every turn──▶ span "turn <role>", child of it, linked to the Celery task's span

A run started outside any span has a trace of its own: its id *is* the trace id (both are 128 bits), so
logs carry a trace id even where nothing exports spans.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags

INSTRUMENTATION = "techrevati.workers"


def current_traceparent() -> str:
    """Give the W3C traceparent of the span we are in, or "" outside any."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def parent_of(run_id: str, traceparent: str) -> SpanContext:
    """Give the span context a run's turns hang under."""
    if traceparent:
        _, trace_id, span_id, flags = traceparent.split("-")
        return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
    digits = run_id[:32]
    return SpanContext(int(digits, 16), int(digits[16:], 16) or 1, True, TraceFlags(TraceFlags.SAMPLED))


def trace_id_of(run_id: str, traceparent: str) -> str:
    return traceparent[3:35] if traceparent else run_id[:32]


class Tracing:
    """Makes the spans of turns; `enabled` is decided once, where the process is composed."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._tracer = trace.get_tracer(INSTRUMENTATION) if enabled else None

    @contextmanager
    def turn(self, run_id: str, fields: Mapping[str, str], attempt: int) -> Iterator[Span | None]:
        """Be inside the span of one turn."""
        if self._tracer is None:
            yield None
            return
        ticket = trace.get_current_span().get_span_context()
        parent = trace.set_span_in_context(NonRecordingSpan(parent_of(run_id, fields.get("trace", ""))))
        attributes: dict[str, Any] = {
            "techrevati.run_id": run_id,
            "techrevati.thread_id": fields["thread"],
            "techrevati.tenant": fields["tenant"],
            "techrevati.role": fields["role"],
            "techrevati.turn": int(fields["turn"]),
            "techrevati.attempt": attempt,
        }
        with self._tracer.start_as_current_span(
            f"turn {fields['role']}",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[Link(ticket)] if ticket.is_valid else [],
        ) as span:
            yield span


def note_outcome(span: Span | None, move: str, error: str = "") -> None:
    """Write onto a turn's span how it ended."""
    if span is not None:
        span.set_attribute("techrevati.move", move)
        if error:
            span.set_status(StatusCode.ERROR, error)
