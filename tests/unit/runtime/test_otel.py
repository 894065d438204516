"""Spans and metrics."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from techrevati.runtime import (
    AgentEvent,
    AgentEventName,
    AgentEventStatus,
    AgentFailureClass,
    AgentSession,
    EventSink,
    ModelPricing,
    UsageSink,
    UsageSnapshot,
    otel,
    register_pricing,
)
from techrevati.runtime.fanout import FanOutEventSink
from techrevati.runtime.otel import OpenTelemetrySink, OpenTelemetryUsageSink

Finished = Callable[[], list[ReadableSpan]]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def sink(exporter: InMemorySpanExporter) -> OpenTelemetrySink:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OpenTelemetrySink(provider.get_tracer("test"), agent_id="a1")


@pytest.fixture
def finished(exporter: InMemorySpanExporter) -> Finished:
    return lambda: list(exporter.get_finished_spans())


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def event(name: AgentEventName, role: str | None = "r") -> AgentEvent:
    return AgentEvent(name, AgentEventStatus.RUNNING, role=role, phase="p")


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        (AgentEventName.AGENT_READY, "create_agent"),
        (AgentEventName.AGENT_TOOL_CALLED, "execute_tool"),
        (AgentEventName.AGENT_TOOL_COMPLETED, "execute_tool"),
        (AgentEventName.PHASE_COMPLETED, "invoke_workflow"),
        (AgentEventName.AGENT_COMPLETED, "invoke_agent"),
        (AgentEventName.HOOK_PRE_TOOL, "invoke_agent"),
    ],
)
def test_events_become_spans(sink: OpenTelemetrySink, finished: Finished, name: AgentEventName, operation: str) -> None:
    sink.emit(event(name))
    (span,) = finished()
    assert span.name == f"{operation} r"
    assert attributes(span) == {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "techrevati",
        "gen_ai.agent.name": "r",
        "gen_ai.agent.id": "a1",
        "techrevati.phase": "p",
    }
    assert span.parent is None


def test_attributes_hold_what_is_set(exporter: InMemorySpanExporter, finished: Finished) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    sink = OpenTelemetrySink(provider.get_tracer("t"), provider_name="acme")
    failed = AgentEvent.failed("r", "p", AgentFailureClass.RATE_LIMIT, "slow")
    sink.emit(failed.with_data({"s": "x", "i": 1, "f": 0.5, "b": True, "no": [1], "none": None}))
    sink.emit(AgentEvent.gate_passed("p", ""))
    one, two = map(attributes, finished())
    assert one["error.type"] == "rate_limit"
    assert one["techrevati.detail"] == "slow"
    assert {key: value for key, value in one.items() if "data" in key} == {
        "techrevati.data.s": "x",
        "techrevati.data.i": 1,
        "techrevati.data.f": 0.5,
        "techrevati.data.b": True,
    }
    assert two == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "acme",
        "techrevati.phase": "p",
    }
    assert finished()[1].name == "invoke_agent"


def test_parents_open_close_and_take_the_closing_attributes(sink: OpenTelemetrySink, finished: Finished) -> None:
    sink.emit(AgentEvent.started("r", "p"))
    sink.emit(AgentEvent.recovery_attempted("r", "p", "x"))
    sink.emit(AgentEvent.failed("r", "p", AgentFailureClass.TOOL_ERROR))
    child, parent = finished()
    assert child.parent is not None
    assert child.parent.span_id == parent.context.span_id
    assert parent.name == "create_agent r"
    assert attributes(parent)["gen_ai.operation.name"] == "invoke_agent"
    assert parent.status.status_code is StatusCode.ERROR
    assert parent.status.description == "failed"


def test_started_twice_gives_two_roots(sink: OpenTelemetrySink, finished: Finished) -> None:
    for emitted in (
        AgentEvent.started("r", "p"),
        AgentEvent.started("r", "p"),
        AgentEvent.completed("r", "p"),
    ):
        sink.emit(emitted)
    assert [span.parent for span in finished()] == [None, None]
    assert finished()[1].status.status_code is StatusCode.UNSET


def test_phases_have_their_own_parent(sink: OpenTelemetrySink, finished: Finished) -> None:
    sink.emit(AgentEvent.phase_started("p"))
    sink.emit(AgentEvent.started("r", "p"))
    sink.emit(AgentEvent.gate_passed("p"))
    sink.emit(event(AgentEventName.PHASE_COMPLETED, None))
    gate, phase = finished()
    assert gate.parent is not None
    assert gate.parent.span_id == phase.context.span_id
    sink.emit(AgentEvent.completed("r", "p"))
    assert len(finished()) == 3


def test_a_session_is_one_span_with_its_recoveries_below(sink: OpenTelemetrySink, finished: Finished) -> None:
    def fail() -> None:
        raise RuntimeError("x")

    with AgentSession("r", "p", event_sink=sink).session() as session, pytest.raises(RuntimeError):
        session.run_turn(fail)
    recovery, agent = finished()
    assert recovery.parent is not None
    assert recovery.parent.span_id == agent.context.span_id
    assert attributes(agent)["gen_ai.operation.name"] == "invoke_agent"


def test_parallel_sessions_of_one_role_do_not_close_each_other(sink: OpenTelemetrySink, finished: Finished) -> None:
    def fail() -> None:
        raise RuntimeError("x")

    factory = AgentSession("r", "p", event_sink=FanOutEventSink(sink))
    with factory.session() as one:
        with factory.session():
            pass
        assert len(finished()) == 1
        with pytest.raises(RuntimeError):
            one.run_turn(fail)
    inner, recovery, outer = finished()
    assert recovery.parent is not None
    assert recovery.parent.span_id == outer.context.span_id
    assert inner.parent is outer.parent is None


def test_a_survived_budget_does_not_end_the_span(sink: OpenTelemetrySink, finished: Finished) -> None:
    register_pricing("m", ModelPricing(1, 1))
    with AgentSession("r", "p", event_sink=sink, budget_usd=0).session() as session:
        session.run_turn(int, "m", UsageSnapshot(1_000_000))
        (budget,) = finished()
    _, agent = finished()
    assert budget.parent is not None
    assert budget.parent.span_id == agent.context.span_id
    assert attributes(budget)["techrevati.data.budget_usd"] == 0
    assert agent.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_start_emitted_by_hand_is_the_sessions_start(sink: OpenTelemetrySink, finished: Finished, when: str) -> None:
    if when == "before":
        sink.emit(AgentEvent.started("r", "p"))
    with AgentSession("r", "p", event_sink=sink).session():
        if when == "inside":
            sink.emit(AgentEvent.started("r", "p"))
        sink.emit(event(AgentEventName.AGENT_TOOL_CALLED))
    tool, agent = finished()
    assert tool.parent is not None
    assert tool.parent.span_id == agent.context.span_id


def test_a_second_start_by_hand_opens_anew(sink: OpenTelemetrySink, finished: Finished) -> None:
    with AgentSession("r", "p", event_sink=sink).session():
        sink.emit(AgentEvent.started("r", "p"))
        sink.emit(AgentEvent.started("r", "p"))
        assert len(finished()) == 1
    assert len(finished()) == 2


def test_events_of_a_session_fall_back_to_a_phase_opened_by_hand(sink: OpenTelemetrySink, finished: Finished) -> None:
    from techrevati.runtime import QualityGate, QualityLevel

    sink.emit(AgentEvent.phase_started("p"))
    with AgentSession("r", "p", event_sink=sink, quality_gate=QualityGate(QualityLevel.STRICT)).session() as s:
        s.evaluate_gate(QualityLevel.RELEASE)
    sink.emit(event(AgentEventName.PHASE_COMPLETED, None))
    gate, _, phase = finished()
    assert gate.parent is not None
    assert gate.parent.span_id == phase.context.span_id


def test_orphans_end_with_their_sink(sink: OpenTelemetrySink, exporter: InMemorySpanExporter) -> None:
    sink.emit(AgentEvent.started("r", "p"))
    sink.close()
    assert len(exporter.get_finished_spans()) == 1
    sink.close()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    other = OpenTelemetrySink(provider.get_tracer("t"))
    other.emit(AgentEvent.started("r", "p"))
    assert other._finalizer.atexit
    del other
    gc.collect()
    assert len(exporter.get_finished_spans()) == 2


def test_threads_share_a_sink(sink: OpenTelemetrySink, finished: Finished) -> None:
    factory = AgentSession("r", "p", event_sink=sink)
    barrier = threading.Barrier(6)

    def work(_: int) -> None:
        barrier.wait()
        for _ in range(10):
            with factory.session() as session, pytest.raises(ZeroDivisionError):
                session.run_turn(lambda: 1 / 0)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    roots = [span for span in finished() if span.parent is None]
    children = [span for span in finished() if span.parent is not None]
    assert (len(roots), len(children)) == (60, 60)
    parents = {span.parent.span_id for span in children if span.parent}
    assert parents == {span.context.span_id for span in roots}
    assert sink._parents == {}


def test_usage_becomes_metrics() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("test")
    sink = OpenTelemetryUsageSink(meter, provider_name="acme")
    sink.record("m", UsageSnapshot(10, 5), 0.5)
    sink.record("m", UsageSnapshot(10, 0), 0.25)
    sink.record("m", UsageSnapshot(), 0.0)
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    tokens, cost = metrics["gen_ai.client.token.usage"], metrics["techrevati.cost.usd"]
    assert (tokens.unit, cost.unit) == ("{token}", "USD")
    base = {"gen_ai.provider.name": "acme", "gen_ai.request.model": "m"}
    points: dict[Any, Any] = {
        dict(point.attributes or {})["gen_ai.token.type"]: point for point in tokens.data.data_points
    }
    assert (points["input"].sum, points["input"].count, points["output"].sum) == (20, 2, 5)
    (spent,) = cost.data.data_points
    assert dict(spent.attributes or {}) == base
    assert spent.value == 0.75  # type: ignore[union-attr]  # a counter's point has a value


def test_defaults_use_the_global_providers() -> None:
    assert isinstance(OpenTelemetrySink(), EventSink)
    assert isinstance(OpenTelemetryUsageSink(), UsageSink)
    OpenTelemetrySink().emit(AgentEvent.phase_started("p"))
    OpenTelemetryUsageSink().record("m", UsageSnapshot(1), 0.1)


def test_without_the_extra_the_sinks_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ImportError("no module named opentelemetry")
    monkeypatch.setattr(otel, "_OTEL_AVAILABLE", False)
    monkeypatch.setattr(otel, "_OTEL_IMPORT_ERROR", missing)
    for kind in (OpenTelemetrySink, OpenTelemetryUsageSink):
        with pytest.raises(ImportError, match=r"techrevati-runtime\[otel\]") as caught:
            kind()
        assert caught.value.__cause__ is missing
