"""Buckets of a gate on a real Redis: all or none, to the microsecond, in order (DESIGN 5, PROTOCOL 10)."""

import asyncio
import threading
import time

import pytest

from techrevati.store.aio import AsyncStore
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import (
    BadCost,
    BucketSpec,
    CostTooLarge,
    Gate,
    GateRefused,
    GateSpec,
    UnknownBucket,
)
from techrevati.store.gates.gate import AsyncGate
from techrevati.store.sync import SyncStore
from tests.integration.store.hall import Hall, rate


def test_all_dimensions_are_taken_or_none(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 10, 1), BucketSpec("input_tpm", 100, 10)))
    gate.admit({"rpm": 1, "input_tpm": 90})
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 1, "input_tpm": 30})
    assert (refused.value.why, refused.value.wait) == ("rate", 2.0)
    assert gate.look().levels == {"rpm": 9.0, "input_tpm": 10.0}


def test_refill_is_exact_to_the_microsecond(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 1, 3)))
    gate.admit({"rpm": 1})
    hall.now += 0.333333
    with pytest.raises(GateRefused):
        gate.admit({"rpm": 1})
    hall.now += 0.000001
    gate.admit({"rpm": 1})


def test_a_cost_no_bucket_could_hold_names_it(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 10, 1), BucketSpec("input_tpm", 100, 10)))
    with pytest.raises(CostTooLarge, match="input_tpm"):
        gate.admit({"rpm": 1, "input_tpm": 101})
    with pytest.raises(UnknownBucket, match=r"output_tpm.*it has: input_tpm, rpm"):
        gate.admit({"output_tpm": 1})
    for bad in (-1.0, float("nan"), float("inf"), True):
        with pytest.raises(BadCost):
            gate.admit({"rpm": bad})
    assert gate.look().levels["rpm"] == 10


def test_what_was_not_used_flows_back_and_more_is_owed(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("input_tpm", 100, 10)))
    less, more = gate.admit({"input_tpm": 60}), gate.admit({"input_tpm": 40})
    gate.settle(less, costs={"input_tpm": 10})
    assert gate.look().levels["input_tpm"] == pytest.approx(50)
    gate.settle(less, costs={"input_tpm": 0})  # a second time changes nothing
    assert gate.look().levels["input_tpm"] == pytest.approx(50)
    more.actual["input_tpm"] = 240
    gate.settle(more)
    assert gate.look().levels["input_tpm"] == pytest.approx(-150)
    with pytest.raises(GateRefused) as refused:
        gate.admit({"input_tpm": 50})
    assert refused.value.wait == pytest.approx(20)


def test_a_waiter_is_told_its_start_once_and_starts_in_order(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 1, 2), horizon=None))
    gate.admit({"rpm": 1})
    trips = gate.core.trips
    for _ in range(4):
        gate.admit({"rpm": 1}, wait=None)
    assert hall.slept == pytest.approx([0.5] * 4)
    assert gate.core.trips - trips == 4


def test_a_wait_that_cannot_be_met_is_refused_at_once_and_books_nothing(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 1, 0.1)))
    gate.admit({"rpm": 1})
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 1}, wait=9.9)
    assert refused.value.wait == 10
    assert hall.slept == []
    assert gate.look().levels["rpm"] == 0


def test_a_booking_belongs_to_its_name_and_is_honoured_when_it_is_time(hall: Hall) -> None:
    gate, other = (hall.gate(rate(BucketSpec("rpm", 2, 1), horizon=60.0), worker) for worker in ("w1", "w2"))
    gate.admit({"rpm": 2})
    waits = []
    for name in ("run-a/1", "run-b/1", "run-a/1"):
        with pytest.raises(GateRefused) as refused:
            gate.admit({"rpm": 1}, booking=name)
        assert refused.value.booked
        waits.append(refused.value.wait)
    assert waits == [1, 2, 1]
    hall.now += 1
    other.admit({"rpm": 1}, booking="run-a/1")  # from another worker, in another attempt
    with pytest.raises(GateRefused):
        other.admit({"rpm": 1})  # what is left belongs to run-b
    hall.now += 1
    other.admit({"rpm": 1}, booking="run-b/1")


def test_a_booking_that_comes_too_late_books_anew(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 2, 1), horizon=60.0))
    gate.admit({"rpm": 2})
    for name in ("late", "timely"):
        with pytest.raises(GateRefused):
            gate.admit({"rpm": 1}, booking=name)
    hall.now += 2 + 1.999
    gate.admit({"rpm": 1}, booking="timely")  # late by less than capacity / refill
    hall.now += 0.002
    gate.admit({"rpm": 2}, call_id="x")
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 1}, booking="late")
    assert refused.value.booked


def test_a_cancelled_booking_flows_back(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 2, 1), horizon=60.0))
    gate.admit({"rpm": 2})
    with pytest.raises(GateRefused):
        gate.admit({"rpm": 2}, booking="r/1")
    assert gate.look().levels["rpm"] == pytest.approx(-2)
    assert gate.cancel("r/1")
    assert not gate.cancel("r/1")
    assert gate.look().levels["rpm"] == pytest.approx(0)


def test_tenants_share_what_they_wait_for_by_weight_and_unused_share_flows_on(hall: Hall) -> None:
    spec = rate(BucketSpec("rpm", 1, 10), shares={"acme": 3.0, "zeta": 1.0}, horizon=0.05)
    gate = hall.gate(spec)
    gate.admit({"rpm": 1})
    due: dict[str, float] = {}

    def ask(name: str) -> bool:
        try:
            gate.admit({"rpm": 1}, booking=name, tenant=name.split("/")[0])
        except GateRefused as refused:
            assert refused.booked and refused.wait is not None
            due[name] = hall.now + refused.wait
            return False
        return True

    for n in range(40):  # zeta comes first, with all it has
        ask(f"zeta/{n}")
    for n in range(40):
        ask(f"acme/{n}")
    order: list[str] = []
    while due:
        name = min(due, key=lambda waiting: due[waiting])
        hall.now = max(hall.now, due.pop(name))
        if ask(name):
            order.append(name.split("/")[0])
    assert len(order) == 80
    assert 26 <= order[:40].count("acme") <= 32
    assert set(order[-20:]) == {"zeta"}


def test_a_higher_priority_starts_before_those_who_came_first(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 1, 1), horizon=0.5))
    gate.admit({"rpm": 1})
    waits = {}
    for n in range(6):
        with pytest.raises(GateRefused) as refused:
            gate.admit({"rpm": 1}, booking=f"low/{n}")
        waits[f"low/{n}"] = refused.value.wait
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 1}, booking="high", priority=1)
    assert refused.value.wait is not None
    assert refused.value.wait < 2 < 5 <= (waits["low/5"] or 0)


def test_threads_share_a_gate(server: EmbeddedRedis, fleet_name: str) -> None:
    with SyncStore(server.url) as store:
        gate = Gate(store, fleet_name, GateSpec(name="api", buckets=(BucketSpec("rpm", 50, 0.001),)))
        let_out = []

        def work() -> None:
            for _ in range(20):
                try:
                    let_out.append(gate.admit({"rpm": 1}))
                except GateRefused:
                    return

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(let_out) == 50
        gate.close()


async def test_waiters_start_in_order_with_one_call_each(server: EmbeddedRedis, fleet_name: str) -> None:
    store = AsyncStore(server.url)
    spec = GateSpec(name="api", buckets=(BucketSpec("rpm", 1, 200),), horizon=None)
    gate = AsyncGate(store, fleet_name, spec)
    await gate.admit({"rpm": 1})
    calls, order = store.calls, list[int]()

    async def one(n: int) -> None:
        await gate.admit({"rpm": 1}, wait=None)
        order.append(n)

    begun = time.monotonic()
    await asyncio.gather(*(one(n) for n in range(100)))
    took = time.monotonic() - begun
    assert order == sorted(order)
    assert store.calls - calls <= 120
    assert took >= 99 / 200
    await gate.close()
    await store.close()


async def test_a_waiter_that_is_cancelled_gives_its_start_back(server: EmbeddedRedis, fleet_name: str) -> None:
    store = AsyncStore(server.url)
    gate = AsyncGate(store, fleet_name, GateSpec(name="api", buckets=(BucketSpec("rpm", 10, 0.1),), horizon=None))
    await gate.admit({"rpm": 10})
    waiting = asyncio.ensure_future(gate.admit({"rpm": 5}, wait=None))
    for _ in range(1000):
        if (await gate.look()).levels["rpm"] < -4:
            break
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await gate.look()).levels["rpm"] > -0.001
    await gate.close()
    await store.close()


async def test_a_caller_cancelled_while_it_asks_leaves_nothing_behind(server: EmbeddedRedis, fleet_name: str) -> None:
    store = AsyncStore(server.url)
    gate = AsyncGate(store, fleet_name, GateSpec.make("api", rpm=10, concurrency=2))
    await gate.settle(await gate.admit({"rpm": 1}))
    asking = asyncio.ensure_future(gate.admit({"rpm": 5}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    picture = await gate.look()
    assert picture.slots_used == 0
    assert picture.levels["rpm"] > 8.9
    await gate.close()
    await store.close()
