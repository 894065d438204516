"""Slots are given in order of arrival, by a message: one call per waiter, whoever dies meanwhile."""

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from techrevati.store.aio import AsyncStore
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import (
    AsyncGate,
    BreakerSpec,
    BucketSpec,
    Gate,
    GateRefused,
    GateSpec,
    SlotSpec,
)
from techrevati.store.sync import SyncStore
from tests.chaos import gate_waiters


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


def spec(most: int = 1, **more: object) -> GateSpec:
    return GateSpec(name="api", slots=SlotSpec(most=most), margin=0.0, **more)  # type: ignore[arg-type]


@pytest.fixture
def store(server: EmbeddedRedis) -> Iterator[SyncStore]:
    with SyncStore(server.url) as one:
        yield one


class Line:
    """Threads that wait for one slot, one behind the other."""

    def __init__(self, gate: Gate) -> None:
        self.gate, self.order, self.refused = gate, list[str](), list[tuple[str, str]]()
        self.threads: list[threading.Thread] = []

    def join(self, name: str, wait: float | None = 20.0, **how: object) -> None:
        """Have one more wait, and come back when it stands in line."""
        ahead = self.gate.look().in_line

        def work() -> None:
            try:
                admission = self.gate.admit(wait=wait, **how)  # type: ignore[arg-type]
            except GateRefused as refused:
                self.refused.append((name, refused.why))
                return
            self.order.append(name)
            self.gate.settle(admission)

        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()
        until(lambda: self.gate.look().in_line > ahead)

    def end(self) -> None:
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive(), "it waits for ever"


def test_a_slot_goes_to_who_came_first_and_to_the_higher_priority_before(store: SyncStore, fleet_name: str) -> None:
    gate = Gate(store, fleet_name, spec())
    first = gate.admit()
    line = Line(gate)
    for name in ("a", "b", "c"):
        line.join(name)
    line.join("urgent", priority=1)
    line.join("d")
    with pytest.raises(GateRefused) as refused:
        gate.admit()  # who does not wait goes before nobody
    assert refused.value.why == "slots"
    trips = gate.core.trips
    gate.settle(first)
    line.end()
    assert line.order == ["urgent", "a", "b", "c", "d"]
    assert gate.core.trips - trips <= 7, "each settled; the first of a process may have to ask twice"
    gate.close()


def test_who_gives_up_leaves_the_line(store: SyncStore, fleet_name: str) -> None:
    gate = Gate(store, fleet_name, spec())
    first = gate.admit()
    line = Line(gate)
    line.join("patient")
    line.join("hasty", wait=0.3)
    until(lambda: line.refused == [("hasty", "slots")])
    assert gate.look().in_line == 1
    gate.settle(first)
    line.end()
    assert line.order == ["patient"]
    gate.close()


def test_a_waiter_takes_its_tokens_when_it_starts(store: SyncStore, fleet_name: str) -> None:
    gate = Gate(store, fleet_name, spec(buckets=(BucketSpec("rpm", 2, 4.0),)))
    first = gate.admit({"rpm": 2})
    line = Line(gate)
    line.join("a", costs={"rpm": 1})
    line.join("b", costs={"rpm": 2})
    assert gate.look().levels["rpm"] > -0.1, "who waits for a slot holds no tokens"
    begun = time.monotonic()
    gate.settle(first)
    line.end()
    assert line.order == ["a", "b"]
    assert time.monotonic() - begun > 0.4, "and goes no sooner than they are there"
    gate.close()


def test_an_open_breaker_sends_home_who_waits(store: SyncStore, fleet_name: str) -> None:
    gate = Gate(store, fleet_name, spec(breaker=BreakerSpec(failure_threshold=1, cooldown=5.0)))
    first = gate.admit()
    line = Line(gate)
    for name in "abc":
        line.join(name)
    gate.settle(first, outcome="fail")
    line.end()
    assert sorted(line.refused) == [("a", "breaker"), ("b", "breaker"), ("c", "breaker")]
    assert (gate.look().in_line, gate.look().slots_used) == (0, 0)
    gate.close()


def test_a_parked_run_comes_back_to_a_slot_that_is_kept_for_it(store: SyncStore, fleet_name: str) -> None:
    gate, later = (Gate(store, fleet_name, spec(), worker=f"w{n}") for n in range(2))
    first = gate.admit()
    gate.settle(first, latency=0.2)
    first = gate.admit()
    with pytest.raises(GateRefused) as refused:
        gate.admit(booking="run/1")
    assert refused.value.booked and refused.value.wait is not None and refused.value.wait < 1
    line = Line(later)
    line.join("behind")
    gate.settle(first)
    time.sleep(refused.value.wait)
    assert line.order == [], "it is kept for the run"
    mine = gate.admit(booking="run/1")
    gate.settle(mine)
    line.end()
    gate.close()
    later.close()


def test_a_parked_run_that_does_not_come_keeps_its_rank_and_holds_up_nobody(store: SyncStore, fleet_name: str) -> None:
    gate = Gate(store, fleet_name, spec())
    gate.settle(gate.admit(), latency=0.02)
    first = gate.admit()
    with pytest.raises(GateRefused):
        gate.admit(booking="late/1")
    line = Line(gate)
    line.join("present")
    gate.settle(first)
    line.end()
    assert line.order == ["present"]
    second = gate.admit()
    line.join("newcomer")
    with pytest.raises(GateRefused):
        gate.admit(booking="late/1")
    gate.settle(second)
    gate.settle(gate.admit(booking="late/1"))
    line.end()
    assert line.order == ["present", "newcomer"]
    gate.close()


def test_a_named_place_is_waited_for_here_and_kept_for_who_goes_away(store: SyncStore, fleet_name: str) -> None:
    gate, other = (Gate(store, fleet_name, spec(), worker=f"w{n}") for n in range(2))
    gate.settle(gate.admit(), latency=0.4)
    first = gate.admit()
    with pytest.raises(GateRefused) as refused:
        gate.admit(booking="run/1", wait=0.2)
    assert refused.value.booked and refused.value.wait is not None and 0 < refused.value.wait < 0.3
    line = Line(other)
    line.join("behind")
    threading.Timer(0.1, gate.settle, (first,)).start()
    mine = gate.admit(booking="run/1", wait=5.0)
    assert line.order == []
    gate.settle(mine)
    line.end()
    gate.close()
    other.close()


def test_a_slot_that_was_kept_goes_on_when_its_booking_is_cancelled(store: SyncStore, fleet_name: str) -> None:
    gate = Gate(store, fleet_name, spec())
    gate.settle(gate.admit(), latency=0.5)
    first = gate.admit()
    with pytest.raises(GateRefused):
        gate.admit(booking="run/1")
    line = Line(gate)
    line.join("behind")
    gate.settle(first)
    assert gate.look().slots_used == 1 and line.order == [], "kept for the run"
    trips = gate.core.trips
    assert gate.cancel("run/1")
    line.end()
    assert line.order == ["behind"]
    assert gate.core.trips - trips <= 3, "one cancels, one settles; the first of a process may have to ask twice"
    gate.close()


async def test_tasks_wait_in_line_with_one_call_each(server: EmbeddedRedis, fleet_name: str) -> None:
    stores = [AsyncStore(server.url) for _ in range(2)]
    gates = [AsyncGate(store, fleet_name, spec(4), worker=f"w{n}") for n, store in enumerate(stores)]
    order: list[int] = []
    held = [await gates[0].admit() for _ in range(4)]

    async def one(n: int) -> None:
        admission = await gates[n % 2].admit(wait=None)
        order.append(n)
        await asyncio.sleep(0.002)
        await gates[n % 2].settle(admission)

    waiting = []
    for n in range(100):
        waiting.append(asyncio.ensure_future(one(n)))
        await asyncio.sleep(0.001)
    while (await gates[0].look()).in_line < 100:
        await asyncio.sleep(0.01)
    before = sum(store.calls for store in stores)
    for admission in held:
        await gates[0].settle(admission)
    await asyncio.gather(*waiting)
    calls = sum(store.calls for store in stores) - before - len(held)
    assert calls <= 120, "100 settle, and hardly anybody asks again"
    late = [n for place, n in enumerate(order) if abs(place - n) > 4]
    assert late == [], "four start at once, and their loops may tell them in any order"
    for gate, store in zip(gates, stores, strict=True):
        await gate.close()
        await store.close()


async def test_a_waiter_that_is_cancelled_leaves_no_slot_taken(server: EmbeddedRedis, fleet_name: str) -> None:
    store = AsyncStore(server.url)
    gate = AsyncGate(store, fleet_name, spec())
    first = await gate.admit()
    waiting = [asyncio.ensure_future(gate.admit(wait=None)) for _ in range(2)]
    while (await gate.look()).in_line < 2:
        await asyncio.sleep(0.01)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    await gate.settle(first)
    await gate.settle(await asyncio.wait_for(waiting[1], 5))
    picture = await gate.look()
    assert (picture.slots_used, picture.in_line) == (0, 0)
    await gate.close()
    await store.close()


def test_without_redis_those_of_one_process_wait_in_line_too(private_redis: EmbeddedRedis, fleet_name: str) -> None:
    with SyncStore(private_redis.url, patience=0.05) as store:
        gate = Gate(store, fleet_name, spec(store_patience=0.05))
        gate.settle(gate.admit())
        private_redis.stop()
        first = gate.admit()
        assert first.by == "local"
        order: list[int] = []

        def work(n: int) -> None:
            admission = gate.admit(wait=10.0)
            order.append(n)
            gate.settle(admission)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        gate.settle(first)
        for thread in threads:
            thread.join(10)
        assert order == [0, 1, 2]
        gate.close()


def test_nobody_is_lost_when_the_news_are(server: EmbeddedRedis, store: SyncStore, fleet_name: str) -> None:
    gate = Gate(store, fleet_name, spec())
    first = gate.admit()
    line = Line(gate)
    for name in "abc":
        line.join(name)
    store.command("CLIENT", "KILL", "TYPE", "pubsub")
    gate.settle(first)
    line.end()
    assert sorted(line.order) == ["a", "b", "c"]
    gate.close()


def test_a_gate_that_redis_lost_forgets_its_line_and_those_in_it_join_anew(store: SyncStore, fleet_name: str) -> None:
    gate = Gate(store, fleet_name, spec())
    gate.admit()
    line = Line(gate)
    for name in "ab":
        line.join(name)
    store.command("DEL", gate.core.keys.clock)
    fresh = Gate(store, fleet_name, spec(), worker="w2")
    first = fresh.admit()
    assert fresh.look().in_line == 0
    gate.core.ear.all_ask_again()
    until(lambda: fresh.look().in_line == 2)
    fresh.settle(first)
    line.end()
    assert sorted(line.order) == ["a", "b"]
    gate.close()
    fresh.close()


def test_a_forked_process_hears_on_a_channel_of_its_own(store: SyncStore, fleet_name: str) -> None:
    gate = Gate(store, fleet_name, spec())
    first = gate.admit(wait=1.0)
    child = multiprocessing.get_context("fork").Process(target=_wait_and_exit, args=(gate,))
    child.start()
    until(lambda: gate.look().in_line == 1)
    line = Line(gate)
    line.join("parent")
    gate.settle(first)
    child.join(10)
    assert child.exitcode == 7
    line.end()
    assert line.order == ["parent"]
    gate.close()


def _wait_and_exit(gate: Gate) -> None:
    gate.settle(gate.admit(wait=10.0))
    os._exit(7)


def test_processes_start_in_order_with_hardly_more_than_a_call_each_though_one_is_killed(
    private_redis: EmbeddedRedis,
) -> None:
    verdict = gate_waiters.run(private_redis, processes=3, waiters=16, slots=2, hold=0.005, kill=1)
    assert verdict.holds, verdict
    assert verdict.calls_per_waiter <= 1.2, verdict
