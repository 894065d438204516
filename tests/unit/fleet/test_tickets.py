"""Ticket messages, and what coroutine tasks refuse."""

import asyncio
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from techrevati.fleet.celery.app import FleetCelery, make_celery
from techrevati.fleet.celery.async_task import CanvasRefused, refused
from techrevati.fleet.celery.tickets import PLACEHOLDER, TASK, BadTemplate, NothingServes, capture_template


@pytest.fixture
def app() -> Iterator[FleetCelery]:
    app = make_celery("newsroom", broker_url="redis://127.0.0.1:1/0")
    yield app
    app.close()


def test_template_differs_from_ticket_to_ticket_by_the_id_alone(app: FleetCelery) -> None:
    template = capture_template(app, "writer", 3)
    assert template.queue == "newsroom.role.writer"
    message = json.loads(template.fill("3-17"))
    assert message["headers"]["id"] == message["properties"]["delivery_tag"] == "3-17"
    assert message["headers"]["task"] == TASK
    assert json.loads(message["body"]) == [["writer", 3], {}, {}]
    assert PLACEHOLDER not in template.fill("3-17").decode()
    assert template.message == capture_template(app, "writer", 3).message


def test_ticket_stays_small(app: FleetCelery) -> None:
    assert len(capture_template(app, "writer", 3).fill("3-17")) < 400


def test_template_names_no_machine_and_no_process(app: FleetCelery) -> None:
    assert set(json.loads(capture_template(app, "writer", 3).message)["headers"]) == {"lang", "task", "id"}


def test_template_carries_no_trace_and_starts_none(app: FleetCelery) -> None:
    plain = capture_template(app, "writer", 3)
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]  # it says it is typed
    instrumentor.instrument(tracer_provider=provider)
    try:
        traced = capture_template(app, "writer", 3)
    finally:
        instrumentor.uninstrument()
    assert traced == plain
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    "options", [{"countdown": 5}, {"eta": "2030-01-01T00:00:00Z"}, {"link": "x"}, {"chain": ["x"]}]
)
def test_canvas_and_delays_are_refused_by_name(app: FleetCelery, options: dict[str, Any]) -> None:
    with pytest.raises(CanvasRefused, match=rf"task techrevati.turn takes no {next(iter(options))}; "):
        app.tasks[TASK].apply_async(("writer", 1), **options)


def test_workflows_of_canvas_are_refused(app: FleetCelery) -> None:
    turn = app.tasks[TASK].si("writer", 1)
    for workflow in (chain(turn, turn), group(turn, turn), chord([turn, turn], turn)):
        with pytest.raises((CanvasRefused, NotImplementedError)):  # chords fail first without a backend
            workflow.apply_async()


def test_retry_is_refused(app: FleetCelery) -> None:
    with pytest.raises(CanvasRefused, match="takes no retry; delays and retries live in the store"):
        app.tasks[TASK].retry()


def test_stock_headers_without_a_workflow_are_fine() -> None:
    assert refused({"eta": None, "group": None, "chord": None}) is None
    assert refused({"group": "g1"}) == "group"


def test_app_without_an_engine_says_so(app: FleetCelery) -> None:
    task = app.tasks[TASK]
    with pytest.raises(NothingServes, match="'newsroom' has no techrevati_serve_sync"):
        task.run("writer", 1)
    with pytest.raises(NothingServes, match="'newsroom' has no techrevati_serve:"):
        asyncio.run(task.arun(None, "writer", 1))


@pytest.mark.parametrize("error", [CanvasRefused("t", "link"), NothingServes("a", "serve"), BadTemplate("because")])
def test_errors_survive_pickling(error: Exception) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
