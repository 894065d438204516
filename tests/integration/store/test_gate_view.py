"""What a process knows of a breaker without asking, and when it has to ask."""

import asyncio
import time
from functools import partial

import pytest

from techrevati.store.aio import AsyncStore
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import (
    BreakerSpec,
    GateRefused,
    GateSpec,
)
from techrevati.store.gates.gate import AsyncGate
from tests.integration.store.hall import until


async def followed(gate: AsyncGate) -> None:
    """Use a gate until all news of it are heard, and then once more."""
    await gate.settle(await gate.admit())
    assert await asyncio.to_thread(until, lambda: gate.core.view.is_followed)
    await gate.settle(await gate.admit())


async def test_a_change_that_was_said_while_the_news_were_lost_is_asked_for(
    server: EmbeddedRedis, fleet_name: str
) -> None:
    spec = GateSpec(name="api", breaker=BreakerSpec(failure_threshold=2))
    stores = [AsyncStore(server.url) for _ in range(2)]
    one, other = gates = [AsyncGate(store, fleet_name, spec, worker=f"w{n}") for n, store in enumerate(stores)]
    for gate in gates:
        await followed(gate)
    await stores[0].command("CLIENT", "KILL", "TYPE", "pubsub")
    assert await asyncio.to_thread(until, lambda: not other.core.view.is_followed)
    for _ in range(2):  # it opens before the other hears again
        await one.settle(await one.admit(), outcome="fail")
    assert not other.core.view.is_followed, "the news of that were lost"
    assert await asyncio.to_thread(until, lambda: other.core.view.is_followed)

    async def refused() -> bool:
        try:
            await other.give_back(await other.admit())
        except GateRefused:
            return True
        return False

    bound = time.monotonic() + spec.staleness
    while not await refused():
        assert time.monotonic() < bound + 1.0, "it relies on what it cannot know"
    assert all([await refused() for _ in range(20)])
    for gate, store in zip(gates, stores, strict=True):
        await gate.close()
        await store.close()


async def test_an_open_breaker_is_known_everywhere_without_asking(server: EmbeddedRedis, fleet_name: str) -> None:
    spec = GateSpec(name="api", breaker=BreakerSpec(failure_threshold=2))
    stores = [AsyncStore(server.url) for _ in range(3)]
    gates = [AsyncGate(store, fleet_name, spec, worker=f"w{n}") for n, store in enumerate(stores)]
    for gate in gates:
        await followed(gate)
    for _ in range(2):
        await gates[0].settle(await gates[0].admit(), outcome="fail")

    def opened(gate: AsyncGate) -> bool:
        try:
            gate.check()
        except GateRefused:
            return True
        return False

    for gate in gates:
        assert await asyncio.to_thread(until, partial(opened, gate))
        trips = gate.core.trips
        for _ in range(10):
            with pytest.raises(GateRefused):
                await gate.admit()
        assert gate.core.trips == trips
    for gate, store in zip(gates, stores, strict=True):
        await gate.close()
        await store.close()


async def test_while_closed_only_the_outcome_travels(server: EmbeddedRedis, fleet_name: str) -> None:
    store = AsyncStore(server.url)
    gate = AsyncGate(store, fleet_name, GateSpec(name="api", breaker=BreakerSpec()), monotonic=lambda: 100.0)
    await gate.settle(await gate.admit())
    trips, calls = gate.core.trips, store.calls
    for _ in range(20):
        admission = await gate.admit()
        assert admission.by == "view"
        await gate.settle(admission)
    assert (gate.core.trips - trips, store.calls - calls) == (20, 20)
    await gate.close()
    await store.close()


async def test_a_view_that_is_not_confirmed_asks(server: EmbeddedRedis, fleet_name: str) -> None:
    now = [100.0]
    store = AsyncStore(server.url)
    gate = AsyncGate(store, fleet_name, GateSpec(name="api", breaker=BreakerSpec()), monotonic=lambda: now[0])
    gate._watching = True  # nobody listens: neither news nor pings come
    await gate.settle(await gate.admit())
    assert (await gate.admit()).by == "view"
    now[0] += 0.2501
    assert (await gate.admit()).by == "fleet"
    assert (await gate.admit()).by == "view"
    strict = AsyncGate(store, fleet_name, GateSpec(name="api", breaker=BreakerSpec(), staleness=0))
    await strict.settle(await strict.admit())
    assert [(await strict.admit()).by for _ in range(3)] == ["fleet"] * 3
    await strict.close()
    await store.close()


async def test_pings_keep_a_quiet_view_fresh(server: EmbeddedRedis, fleet_name: str) -> None:
    store = AsyncStore(server.url)
    gate = AsyncGate(store, fleet_name, GateSpec(name="api", breaker=BreakerSpec()))
    await followed(gate)
    trips, seen, begun = gate.core.trips, {gate.core.view.confirmed}, time.monotonic()
    while time.monotonic() < begun + 1.0 or len(seen) < 4 or not gate.core.view.is_fresh(time.monotonic()):
        assert time.monotonic() < begun + 10, f"confirmed {len(seen)} times"
        gate.check()
        seen.add(gate.core.view.confirmed)
        await asyncio.sleep(0.01)
    assert (await gate.admit()).by == "view"
    assert gate.core.trips == trips
    await gate.close()
    await store.close()
