"""Gates and budgets as OpenTelemetry metrics, from calls through a real Redis; and nothing where exports are off."""

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from techrevati.fleet import Fleet, ModelReply, Outcome, Retry, Turn
from techrevati.fleet.coordinator import Coordinator
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.settings import Settings
from techrevati.store.budgets import Limit
from techrevati.store.gates import BreakerSpec, BucketSpec
from techrevati.telemetry.metrics import GateGauges, LimitMetrics
from tests.integration.fleet.desk import desk, until
from tests.integration.fleet.test_model_gates import Model

Points = dict[tuple[str, ...], float]


class Reader:
    """What is measured, by name: attribute values in the order of their names -> value, or count of a histogram."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])
        self.meter: Meter = self.provider.get_meter("test")

    def __getitem__(self, name: str) -> Points:
        data, found = self._reader.get_metrics_data(), Points()
        for resource in [] if data is None else data.resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == f"techrevati.{name}":
                    for point in metric.data.data_points:
                        said: Any = point
                        values = tuple(str(value) for _, value in sorted(dict(point.attributes or {}).items()))
                        found[values] = said.value if hasattr(said, "value") else said.count
        return found


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    reader = Reader()
    monkeypatch.setattr("techrevati.fleet.worker.LimitMetrics", partial(LimitMetrics, reader.meter))
    yield reader
    reader.provider.shutdown()


def newsroom(name: str, model: Model) -> Fleet:
    fleet = Fleet(name)
    fleet.model("m", model)

    @fleet.agent("writer", retry=Retry(tries=1))
    async def write(turn: Turn) -> Outcome:
        return turn.complete((await turn.model("m", "hello", max_tokens=20)).text)

    return fleet


async def test_calls_are_counted_by_what_gate_and_budget_said(
    measured: Reader, redis_url: str, fleet_name: str
) -> None:
    model = Model(reply=ModelReply("so", 5, 10, cost_micros=600))
    fleet = newsroom(fleet_name, model)
    fleet.gate("m", buckets={"rpm": BucketSpec("rpm", 2, 0.01)}, concurrency=5)
    fleet.budget(tenant=1.0)
    async with desk(fleet, redis_url, otel=True) as at:
        for _ in range(2):
            assert (await at.served(await at.start())).status == "completed"
        assert (await at.served(await at.start())).home == "due", "it waits for its place"
    assert measured["gate.calls"] == {("m", "admitted", "fleet"): 2, ("m", "waited", "rate"): 1}
    assert measured["gate.wait"] == {("m", "rate"): 1}
    assert measured["gate.in_flight"] == {("m",): 0}
    scopes = {("run",), ("thread",), ("tenant",)}
    assert measured["budget.spent"] == dict.fromkeys(scopes, 1200)
    assert measured["budget.tokens"] == dict.fromkeys(scopes, 30)
    assert measured["budget.reserved"] == dict.fromkeys(scopes, 0)
    assert measured["gate.breaker.changes"] == {}


async def test_a_call_under_way_shows_what_it_holds(measured: Reader, redis_url: str, fleet_name: str) -> None:
    model = Model()
    model.go.clear()
    fleet = newsroom(fleet_name, model)
    fleet.gate("m", concurrency=5)
    async with desk(fleet, redis_url, otel=True) as at:
        serving = asyncio.create_task(at.ticket(await at.start()))
        await until(lambda: model.calls)
        assert measured["gate.in_flight"] == {("m",): 1}
        model.go.set()
        await serving
    assert measured["gate.in_flight"] == {("m",): 0}


async def test_a_breaker_that_opens_and_a_budget_that_refuses_are_counted(
    measured: Reader, redis_url: str, fleet_name: str
) -> None:
    broken = Model(*(ModelFailed("m", "llm_error", "broken", 500) for _ in range(2)))
    fleet = newsroom(fleet_name, broken)
    fleet.gate("m", breaker=BreakerSpec(failure_threshold=2, cooldown=60))
    async with desk(fleet, redis_url, otel=True) as at:
        for _ in range(3):
            await at.served(await at.start())
    assert measured["gate.breaker.changes"] == {("", "closed", "m", "open"): 1}
    assert measured["gate.calls"][("m", "waited", "breaker")] == 1
    dear = newsroom(f"{fleet_name}b", Model())
    dear.budget(run=Limit.tokens(10))

    async with desk(dear, redis_url, otel=True) as at:
        assert (await at.served(await at.start())).status == "dead"
    assert measured["budget.refused"] == {("tokens.total", "run"): 1}


async def test_nothing_is_measured_where_exports_are_off(redis_url: str, fleet_name: str) -> None:
    fleet = newsroom(fleet_name, Model())
    fleet.gate("m", rpm=10)
    async with desk(fleet, redis_url) as at:
        assert at.runtime._house is not None and at.runtime._house.metrics is None
        assert (await at.served(await at.start())).status == "completed"
    assert Coordinator(fleet_name, Settings(redis_url=redis_url)).gauges is None


async def test_one_coordinator_shows_the_gates_of_the_whole_fleet(redis_url: str, fleet_name: str) -> None:
    model, reader = Model(), Reader()
    model.go.clear()
    fleet = newsroom(fleet_name, model)
    fleet.gate("m", rpm=100, concurrency=5)
    fleet.gate("idle", rpm=1)
    coordinator = Coordinator(fleet_name, Settings(redis_url=redis_url), gauges=GateGauges(reader.meter))
    async with desk(fleet, redis_url) as at:
        serving = asyncio.create_task(at.ticket(await at.start()))
        await until(lambda: model.calls)
        running = asyncio.create_task(coordinator.run())
        try:
            await until(lambda: reader["gate.slots.used"])
            assert reader["gate.slots.used"] == {("m",): 1}
            assert reader["gate.slots.limit"] == {("m",): 5}
            assert reader["gate.breaker.state"][("m",)] == 0
            assert reader["gate.line"][("m",)] == 0
            assert reader["gate.level"][("rpm", "m")] == pytest.approx(99, abs=1)
        finally:
            model.go.set()
            await serving
            coordinator.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    reader.provider.shutdown()
