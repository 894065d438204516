"""A Redis that accepts and never answers: a gate waits for it no longer than it was told to, then does as declared."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from techrevati.store.aio import AsyncStore
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import AsyncGate, BucketSpec, Event, Gate, GateRefused, GateSpec, StoreBack, StoreTrouble
from techrevati.store.sync import SyncStore

PATIENCE = 0.3
BOUND = PATIENCE + 0.5
ANSWERS = {
    "local": ["local", "local", "rate"],
    "fail_open": ["open", "open", "open"],
    "fail_closed": ["store", "store", "store"],
}


def spec(mode: str) -> GateSpec:
    bucket = BucketSpec("rpm", 2, 0.001)
    return GateSpec(name="api", buckets=(bucket,), on_store_error=mode, store_patience=PATIENCE)  # type: ignore[arg-type]


@contextmanager
def stopped(server: EmbeddedRedis) -> Iterator[None]:
    """It holds its connections, takes new ones, and says nothing."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_thread_is_not_held_up_by_a_server_that_hangs(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    events: list[Event] = []
    with SyncStore(private_redis.url) as store:
        gates = {mode: Gate(store, f"{fleet_name}-{mode}", spec(mode), on_event=events.append) for mode in ANSWERS}
        new = Gate(store, f"{fleet_name}-new", spec("local"))
        for gate in gates.values():
            gate.settle(gate.admit())
        with stopped(private_redis):
            for mode, gate in {**gates, "new": new}.items():
                answers, took = [], []
                for _ in range(3):
                    begun = time.monotonic()
                    try:
                        answers.append(gate.admit({"rpm": 1}).by)
                    except GateRefused as refused:
                        answers.append(refused.why)
                    took.append(time.monotonic() - begun)
                assert answers == ANSWERS["local" if mode == "new" else mode]
                assert PATIENCE * 0.9 < max(took) < BOUND, took
                assert max(took[1:]) < PATIENCE * 0.9, "once it is known to hang, nobody asks it"
        assert [event.mode for event in events if isinstance(event, StoreTrouble)] == list(ANSWERS)
        deadline = time.monotonic() + 5
        while sum(isinstance(event, StoreBack) for event in events) < len(gates):
            assert time.monotonic() < deadline, "it comes back"
            for gate in gates.values():
                with suppress(GateRefused):
                    gate.admit()
            time.sleep(0.02)
        for gate in (*gates.values(), new):
            gate.close()


async def test_a_loop_is_not_held_up_by_a_server_that_hangs(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    events: list[Event] = []
    store = AsyncStore(private_redis.url)
    gates = {mode: AsyncGate(store, f"{fleet_name}-{mode}", spec(mode), on_event=events.append) for mode in ANSWERS}
    for gate in gates.values():
        await gate.settle(await gate.admit())
    with stopped(private_redis):
        for mode, gate in gates.items():
            answers, took = [], []
            for _ in range(3):
                begun = time.monotonic()
                try:
                    answers.append((await gate.admit({"rpm": 1})).by)
                except GateRefused as refused:
                    answers.append(refused.why)
                took.append(time.monotonic() - begun)
            assert answers == ANSWERS[mode]
            assert PATIENCE * 0.9 < max(took) < BOUND, took
    deadline = time.monotonic() + 5
    while sum(isinstance(event, StoreBack) for event in events) < len(gates):
        assert time.monotonic() < deadline, "it comes back"
        for gate in gates.values():
            with suppress(GateRefused):
                await gate.admit()
        await asyncio.sleep(0.02)
    for gate in gates.values():
        await gate.close()
    await store.close()
