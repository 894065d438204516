"""A gate whose Redis forgets, restarts, steps back in time, or is away."""

import asyncio
import time

import pytest

from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.store.aio import AsyncStore
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import (
    BreakerSpec,
    BucketSpec,
    Event,
    Gate,
    GateLost,
    GateRefused,
    GateSpec,
    StoreBack,
    StoreRestarted,
    StoreTrouble,
)
from techrevati.store.gates.gate import AsyncGate
from techrevati.store.sync import SyncStore
from tests.integration.store.hall import Hall, rate, until


def test_a_flushed_script_cache_is_refilled(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 5, 1)))
    gate.admit({"rpm": 1})
    hall.stores[0].command("SCRIPT", "FLUSH")
    gate.settle(gate.admit({"rpm": 1}))
    assert gate.look().levels["rpm"] == pytest.approx(3)


def test_a_lost_gate_begins_again_empty_open_if_it_was_and_says_so(hall: Hall) -> None:
    spec = GateSpec(
        name="api", breaker=BreakerSpec(failure_threshold=1, cooldown=50), buckets=(BucketSpec("rpm", 5, 1),)
    )
    gate = hall.gate(spec)
    gate.settle(gate.admit({"rpm": 1}), outcome="fail")
    hall.stores[0].command("DEL", gate.core.keys.clock)
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 1}, booking="r/1")
    assert refused.value.why == "breaker"
    assert hall.saw(GateLost) == [GateLost("api")]
    assert gate.look().levels["rpm"] == pytest.approx(0)
    assert gate.look().state is CircuitState.OPEN


def test_time_never_falls_when_the_servers_clock_steps_back(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 2, 1)))
    gate.admit({"rpm": 2})
    hall.now -= 1000
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 1})
    assert refused.value.wait == 1
    hall.now += 1000 + 1
    gate.admit({"rpm": 1})


@pytest.mark.parametrize("mode", ["local", "fail_open", "fail_closed"])
def test_without_redis_the_gate_does_what_it_was_declared_to(
    mode: str, private_redis: EmbeddedRedis, fleet_name: str
) -> None:
    events: list[Event] = []
    store = SyncStore(private_redis.url, patience=0.05)
    spec = rate(BucketSpec("rpm", 2, 0.001), on_store_error=mode, store_patience=0.05)
    gate = Gate(store, fleet_name, spec, on_event=events.append)
    gate.settle(gate.admit({"rpm": 1}))
    private_redis.stop()
    answers = []
    for _ in range(4):
        try:
            admission = gate.admit({"rpm": 1})
            answers.append(admission.by)
            gate.settle(admission)
        except GateRefused as refused:
            answers.append(refused.why)
    assert (
        answers
        == {
            "local": ["local", "local", "rate", "rate"],
            "fail_open": ["open"] * 4,
            "fail_closed": ["store"] * 4,
        }[mode]
    )
    trouble = [event for event in events if isinstance(event, StoreTrouble)]
    assert [event.mode for event in trouble] == [mode]
    private_redis.start()

    def back() -> bool:
        try:
            return gate.admit({"rpm": 0.01}).by == "fleet"
        except GateRefused:
            return False

    assert until(back)
    assert any(isinstance(event, StoreBack) for event in events)
    assert gate.look().levels["rpm"] == pytest.approx(1, abs=0.1)  # what the AOF kept
    gate.close()
    store.close()


async def test_a_loop_goes_on_without_redis_and_comes_back(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    events: list[Event] = []
    store = AsyncStore(private_redis.url)
    spec = GateSpec.make("api", rpm=1000, concurrency=4)
    gate = AsyncGate(store, fleet_name, spec, on_event=events.append)
    async with gate.call({"rpm": 1}) as admission:
        assert admission.by == "fleet"
    await asyncio.to_thread(private_redis.stop)
    async with gate.call({"rpm": 1}) as admission:
        assert admission.by == "local"
    await asyncio.to_thread(private_redis.start)
    deadline = time.monotonic() + 8
    while admission.by != "fleet":
        assert time.monotonic() < deadline
        async with gate.call({"rpm": 1}) as admission:
            await asyncio.sleep(0.05)
    assert [type(event) for event in events if isinstance(event, StoreTrouble | StoreBack)] == [StoreTrouble, StoreBack]
    assert await asyncio.to_thread(until, lambda: any(isinstance(event, StoreRestarted) for event in events))
    await gate.close()
    await store.close()
