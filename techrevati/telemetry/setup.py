"""Switching exports on, where a process is composed: spans and metrics, by the OTEL_* variables."""

import os
from pathlib import Path
from typing import Any

from opentelemetry import metrics, trace

from techrevati.runtime.errors import TechrevatiError


class NoOpenTelemetry(TechrevatiError):
    """Exports were asked for, and the SDK is not installed."""

    def __str__(self) -> str:
        return "TECHREVATI_OTEL=true needs the OpenTelemetry SDK; fix: pip install 'techrevati-workers[otel]'"


def provide(service: str) -> Any:
    """Set this process's tracer provider, unless the application has set one; gives it.

    Spans go by OTLP/HTTP to ``OTEL_EXPORTER_OTLP_ENDPOINT``, or as JSON lines to the file that
    ``TECHREVATI_OTEL_FILE`` names.

    Raises:
        NoOpenTelemetry: the ``otel`` extra is missing.
    """
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
    except ImportError:
        raise NoOpenTelemetry from None
    current = trace.get_tracer_provider()
    if isinstance(current, TracerProvider):
        return current
    provider = TracerProvider(resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", service)}))
    if path := os.environ.get("TECHREVATI_OTEL_FILE"):
        out = Path(path).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 - lives as long as the process
        exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def provide_metrics(service: str) -> Any:
    """Set this process's meter provider, unless the application has set one; gives it.

    Metrics go where spans go: by OTLP/HTTP, or as JSON lines to ``TECHREVATI_OTEL_FILE`` with ``.metrics`` behind.

    Raises:
        NoOpenTelemetry: the ``otel`` extra is missing.
    """
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import (
            ConsoleMetricExporter,
            MetricExporter,
            PeriodicExportingMetricReader,
        )
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        raise NoOpenTelemetry from None
    current = metrics.get_meter_provider()
    if isinstance(current, MeterProvider):
        return current
    exporter: MetricExporter
    if path := os.environ.get("TECHREVATI_OTEL_FILE"):
        out = Path(f"{path}.metrics").open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 - as the process
        exporter = ConsoleMetricExporter(out=out, formatter=lambda data: data.to_json(indent=None) + "\n")
    else:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        exporter = OTLPMetricExporter()
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", service)})
    provider = MeterProvider([PeriodicExportingMetricReader(exporter)], resource=resource)
    metrics.set_meter_provider(provider)
    return provider


def instrument_worker(fleet: str) -> None:
    """Instrument Celery in this worker process; threads and exporters start with the worker, not before a fork."""
    from celery.signals import worker_init, worker_process_init, worker_shutdown
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    def begin(**_: Any) -> None:
        provide(f"{fleet}-worker")
        provide_metrics(f"{fleet}-worker")
        instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]  # it ships no types
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument()

    def end(**_: Any) -> None:
        for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
            if shutdown := getattr(provider, "shutdown", None):
                shutdown()

    for signal in (worker_init, worker_process_init):
        signal.connect(begin, weak=False)
    worker_shutdown.connect(end, weak=False)
