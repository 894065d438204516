"""Gates on a real Redis: what one process is told, all are held to (DESIGN 5, PROTOCOL 10)."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.store.aio import AsyncStore
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.errors import BadName
from techrevati.store.gates import (
    BadCost,
    BadGate,
    BreakerChanged,
    BreakerSpec,
    BucketSpec,
    CostTooLarge,
    DeclarationsDiffer,
    Event,
    Gate,
    GateLost,
    GateRefused,
    GateSpec,
    SlotSpec,
    StoreBack,
    StoreRestarted,
    StoreTrouble,
    UnknownBucket,
    WorkerQuarantined,
)
from techrevati.store.gates.gate import AsyncGate
from techrevati.store.sync import SyncStore

S = 1_000_000


class Hall:
    """Gates of several workers on one server, with a clock of the test's own for Redis and for them."""

    def __init__(self, url: str, fleet: str) -> None:
        self.now = 1_700_000_000.0
        self.url, self.fleet = url, fleet
        self.stores: list[SyncStore] = []
        self.gates: list[Gate] = []
        self.slept: list[float] = []
        self.events: list[Event] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def gate(self, spec: GateSpec, worker: str = "w1") -> Gate:
        store = SyncStore(self.url, patience=0.5, now_us=lambda: round(self.now * S))
        gate = Gate(
            store,
            self.fleet,
            spec,
            worker=worker,
            sleep=self.sleep,
            on_event=self.events.append,
            monotonic=lambda: self.now,
            wall=lambda: self.now,
        )
        self.stores.append(store)
        self.gates.append(gate)
        return gate

    def saw(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def close(self) -> None:
        for gate in self.gates:
            gate.close()
        for store in self.stores:
            store.close()


@pytest.fixture
def hall(server: EmbeddedRedis, fleet_name: str) -> Iterator[Hall]:
    made = Hall(server.url, fleet_name)
    yield made
    made.close()


def until(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def rate(*buckets: BucketSpec, **more: object) -> GateSpec:
    return GateSpec(name="api", buckets=buckets, staleness=0, **more)  # type: ignore[arg-type]


def breaker(**rule: object) -> GateSpec:
    return GateSpec(name="api", breaker=BreakerSpec(**rule), staleness=0)  # type: ignore[arg-type]


def fail(gate: Gate, times: int = 1, **how: object) -> None:
    for _ in range(times):
        gate.settle(gate.admit(), outcome="fail", **how)  # type: ignore[arg-type]


# Buckets.


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


def test_reconfiguring_keeps_levels(hall: Hall) -> None:
    gate, other = (hall.gate(rate(BucketSpec("rpm", 100, 1)), worker) for worker in ("w1", "w2"))
    gate.admit({"rpm": 70})
    other.admit({"rpm": 10})
    gate.reconfigure(rate(BucketSpec("rpm", 50, 5), BucketSpec("input_tpm", 9, 1), revision=1))
    assert gate.look().levels == {"rpm": pytest.approx(20), "input_tpm": pytest.approx(9)}
    other.admit({"rpm": 20, "input_tpm": 1})  # the other takes the new declaration on its way
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 5})
    assert refused.value.wait == pytest.approx(1)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(BadGate):
        BucketSpec("rpm", limit, 1)
    with pytest.raises(BadGate):
        BucketSpec("rpm", 1, limit)
    with pytest.raises(BadGate):
        GateSpec.make("m", rpm=limit)


@pytest.mark.parametrize("name", ["", "a{b", "a}b", "a\nb", "\x00", "x" * 201, "é" * 101])
def test_a_name_that_could_not_be_a_hash_tag_is_refused(name: str) -> None:
    with pytest.raises(BadName):
        GateSpec(name=name)


# The breaker.


def test_failures_in_a_row_from_any_worker_open_it_for_all(hall: Hall) -> None:
    one, other = (hall.gate(breaker(failure_threshold=3, cooldown=10), worker) for worker in ("w1", "w2"))
    fail(one, 2)
    fail(other)
    for gate in (one, other):
        with pytest.raises(GateRefused) as refused:
            gate.admit()
        assert refused.value.why == "breaker"
    assert [type(event) for event in hall.events] == [BreakerChanged] * 2


def test_a_success_ends_the_row(hall: Hall) -> None:
    gate = hall.gate(breaker(failure_threshold=3))
    fail(gate, 2)
    gate.settle(gate.admit())
    fail(gate, 2)
    assert gate.state() is CircuitState.CLOSED
    fail(gate)
    assert gate.state() is CircuitState.OPEN


def test_only_failures_that_are_its_fault_count(hall: Hall) -> None:
    gate = hall.gate(breaker(failure_threshold=1))
    for mine in (AgentFailureClass.CONTEXT_OVERFLOW, AgentFailureClass.RATE_LIMIT, "prompt_rejection"):
        fail(gate, failure_class=mine)
    assert gate.state() is CircuitState.CLOSED
    fail(gate, failure_class=AgentFailureClass.LLM_TIMEOUT)
    assert gate.state() is CircuitState.OPEN
    named = hall.gate(
        GateSpec(
            name="b", breaker=BreakerSpec(failure_threshold=1, recorded=(AgentFailureClass.TOOL_ERROR,)), staleness=0
        )
    )
    fail(named, failure_class="llm_timeout")
    assert named.state() is CircuitState.CLOSED


def test_a_rate_of_failures_opens_it_once_there_were_enough_calls(hall: Hall) -> None:
    gate = hall.gate(breaker(mode="rate", failure_rate=0.5, min_calls=10, window=10.0))
    for _ in range(4):
        fail(gate)
        gate.settle(gate.admit())
    fail(gate)
    assert gate.state() is CircuitState.CLOSED
    fail(gate)
    assert gate.state() is CircuitState.OPEN


def test_old_failures_slide_out_of_the_window(hall: Hall) -> None:
    gate = hall.gate(breaker(mode="rate", failure_rate=0.5, min_calls=4, window=10.0))
    fail(gate, 3)
    hall.now += 25
    for _ in range(3):
        gate.settle(gate.admit())
    fail(gate)
    assert gate.state() is CircuitState.CLOSED


def test_slow_calls_count_too(hall: Hall) -> None:
    gate = hall.gate(breaker(mode="rate", failure_rate=1.0, slow_call=2.0, slow_rate=0.5, min_calls=4))
    for latency in (0.1, 0.1, 2.5, 3.0):
        gate.settle(gate.admit(), latency=latency)
    assert gate.state() is CircuitState.OPEN


def test_one_sick_worker_loses_its_own_access_and_the_fleet_keeps_its(hall: Hall) -> None:
    spec = breaker(failure_threshold=3, min_reporters=2, cooldown=10)
    sick, well = hall.gate(spec, "sick"), hall.gate(spec, "well")
    for _ in range(3):
        fail(sick)
        well.settle(well.admit())
    with pytest.raises(GateRefused) as refused:
        sick.admit()
    assert (refused.value.why, refused.value.wait) == ("quarantined", 10)
    well.settle(well.admit())
    assert hall.saw(WorkerQuarantined) == [WorkerQuarantined("api", "sick", 10.0)]
    hall.now += 10
    fail(sick)  # let in again, and out at its first failure
    with pytest.raises(GateRefused):
        sick.admit()
    assert well.state() is CircuitState.CLOSED


def test_evidence_of_enough_workers_opens_it(hall: Hall) -> None:
    spec = breaker(failure_threshold=4, min_reporters=2)
    one, other = hall.gate(spec, "w1"), hall.gate(spec, "w2")
    fail(one, 3)
    fail(other)
    assert one.state() is CircuitState.OPEN


def test_half_open_lets_out_so_many_probes_and_a_dead_prober_frees_its_permit(hall: Hall) -> None:
    spec = breaker(failure_threshold=1, cooldown=10, probes=2, probes_to_close=2)
    gates = [hall.gate(spec, f"w{n}") for n in range(4)]
    fail(gates[0])
    hall.now += 10
    probes = [gates[0].admit(timeout=20), gates[1].admit(timeout=20)]
    assert all(probe.probe for probe in probes)
    for gate in gates:
        with pytest.raises(GateRefused):
            gate.admit()
    hall.now += 25.1  # neither was heard of again: timeout and margin are over
    again = [gates[2].admit(), gates[3].admit()]
    with pytest.raises(GateRefused):
        gates[0].admit()
    gates[2].settle(again[0])
    assert gates[0].state() is CircuitState.HALF_OPEN
    gates[3].settle(again[1])
    assert gates[0].state() is CircuitState.CLOSED


def test_a_failed_probe_opens_it_for_longer_each_time(hall: Hall) -> None:
    gate = hall.gate(breaker(failure_threshold=1, cooldown=10, cooldown_factor=3, cooldown_max=50))
    fail(gate)
    waits = []
    for _ in range(3):
        with pytest.raises(GateRefused) as refused:
            gate.admit()
        waits.append(refused.value.wait)
        hall.now += (refused.value.wait or 0) + 1
        fail(gate)
    assert waits == [pytest.approx(10, abs=0.2), pytest.approx(30, abs=0.2), pytest.approx(50, abs=0.2)]


def test_the_result_of_an_older_generation_is_ignored(hall: Hall) -> None:
    gate = hall.gate(breaker(failure_threshold=1, cooldown=10))
    old = gate.admit(timeout=1000)
    fail(gate)
    hall.now += 10
    probe = gate.admit()
    gate.settle(old, outcome="fail")
    assert gate.state() is CircuitState.HALF_OPEN
    gate.settle(probe)
    assert gate.state() is CircuitState.CLOSED


def test_a_probe_without_a_verdict_gives_its_permit_back(hall: Hall) -> None:
    gate = hall.gate(breaker(failure_threshold=1, cooldown=10))
    fail(gate)
    hall.now += 10
    gate.settle(gate.admit(), outcome="none")
    assert gate.admit().probe


def test_it_comes_back_by_stages(hall: Hall) -> None:
    gate = hall.gate(breaker(failure_threshold=1, cooldown=10, ramp=(1.0, 5.0), ramp_stage=2.0))
    fail(gate)
    hall.now += 10
    gate.settle(gate.admit())
    let_out = [0, 0, 0]
    begun = hall.now
    while hall.now < begun + 6:
        try:
            gate.settle(gate.admit())
            let_out[int((hall.now - begun) // 2)] += 1
        except GateRefused as refused:
            assert refused.why == "ramp"
        hall.now += 0.05
    assert let_out[0] <= 3
    assert 8 <= let_out[1] <= 11
    assert let_out[2] >= 35


def test_those_booked_behind_an_open_breaker_come_back_one_by_one(hall: Hall) -> None:
    gate = hall.gate(breaker(failure_threshold=1, cooldown=10, ramp=(2.0,), ramp_stage=100.0))
    fail(gate)
    waits = []
    for n in range(5):
        with pytest.raises(GateRefused) as refused:
            gate.admit(booking=f"r{n}/1")
        assert refused.value.booked
        waits.append(refused.value.wait)
    assert waits == [10, 10.5, 11, 11.5, 12]
    hall.now += 10
    gate.settle(gate.admit(booking="r0/1"))  # the probe
    with pytest.raises(GateRefused) as refused:
        gate.admit()  # who has not booked comes behind
    assert (refused.value.why, refused.value.wait) == ("ramp", 2.5)
    hall.now += 0.5
    gate.admit(booking="r1/1")


def test_an_operator_opens_closes_and_disables_it(hall: Hall) -> None:
    one, other = (hall.gate(breaker(failure_threshold=1), worker) for worker in ("w1", "w2"))
    one.force_open()
    with pytest.raises(GateRefused) as refused:
        other.admit()
    assert refused.value.why == "forced"
    one.disable()
    fail(other, 5)
    one.enable()
    fail(other)
    assert one.state() is CircuitState.OPEN
    one.force_close()
    other.admit()


# Slots.


def test_slots_are_leases(hall: Hall) -> None:
    spec = GateSpec(name="api", slots=SlotSpec(most=2), margin=5.0)
    gates = [hall.gate(spec, f"w{n}") for n in range(3)]
    held = [gate.admit(timeout=10) for gate in gates[:2]]
    with pytest.raises(GateRefused) as refused:
        gates[2].admit(timeout=10)
    assert refused.value.why == "slots"
    gates[0].settle(held[0])
    gates[2].admit(timeout=100)
    hall.now += 15.1  # the second died
    gates[0].admit()
    with pytest.raises(GateRefused):
        gates[1].admit()
    gates[1].settle(held[1])  # it was not dead: what it held is another's now
    with pytest.raises(GateRefused):
        gates[1].admit()


def test_an_adaptive_limit_halves_once_per_round_and_grows_back(hall: Hall) -> None:
    gate = hall.gate(GateSpec(name="api", slots=SlotSpec(most=16, least=2, adaptive=True)))
    held = [gate.admit() for _ in range(16)]
    hall.now += 1
    for admission in held[:8]:
        gate.settle(admission, outcome="fail", failure_class=AgentFailureClass.RATE_LIMIT)
    assert gate.look().slot_limit == 8
    for admission in held[8:]:
        gate.settle(admission)
    grown = gate.look().slot_limit
    for _ in range(40):
        held = [gate.admit() for _ in range(int(gate.look().slot_limit))]
        for admission in held:
            gate.settle(admission)
    assert grown < gate.look().slot_limit <= 16


def test_no_slot_is_held_while_tokens_are_waited_for(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 1, 1), slots=SlotSpec(most=1), horizon=60.0))
    gate.settle(gate.admit({"rpm": 1}))
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 1}, booking="r/1")
    assert (refused.value.why, refused.value.booked) == ("rate", True)
    assert gate.look().slots_used == 0
    gate.admit()  # costs nothing but the slot


# What the provider says.


def test_retry_after_holds_the_whole_fleet_and_lets_no_burst_follow(hall: Hall) -> None:
    one, other = (hall.gate(rate(BucketSpec("rpm", 10, 2)), worker) for worker in ("w1", "w2"))
    one.feed(retry_after=20)
    with pytest.raises(GateRefused) as refused:
        other.admit({"rpm": 1})
    assert refused.value.wait == pytest.approx(20.5)
    hall.now += 20.5
    other.admit({"rpm": 1})
    with pytest.raises(GateRefused):
        other.admit({"rpm": 1})


def test_remaining_and_reset_move_a_bucket_down_never_up(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 100, 10), BucketSpec("input_tpm", 1000, 10)))
    gate.feed(remaining={"rpm": 5})
    assert gate.look().levels == {"rpm": pytest.approx(5), "input_tpm": pytest.approx(1000)}
    gate.feed(remaining={"rpm": 80, "nonsense": 1})
    assert gate.look().levels["rpm"] == pytest.approx(5)
    gate.feed(reset={"rpm": 30})  # full again in 30 s, though we would refill in 10
    hall.now += 20
    with pytest.raises(GateRefused) as refused:
        gate.admit({"rpm": 1})
    assert refused.value.wait == pytest.approx(0.1)


def test_a_lower_limit_of_the_provider_holds_for_everyone_and_none_above_what_is_declared(hall: Hall) -> None:
    spec = rate(BucketSpec.per_minute("rpm", 600), BucketSpec("input_tpm", 1000, 10))
    one, other = hall.gate(spec), hall.gate(spec, "w2")
    other.admit({"rpm": 1})
    one.feed(limit={"rpm": 60, "input_tpm": 5000, "nonsense": 1})
    other.admit({"rpm": 20})
    lower = (BucketSpec("input_tpm", 1000, 10), BucketSpec.per_minute("rpm", 60))
    assert one.spec.buckets == other.spec.buckets == lower
    assert one.look().levels["rpm"] == pytest.approx(40), "what it held is no more than it holds now"
    with pytest.raises(GateRefused) as refused:
        other.admit({"rpm": 50})
    assert refused.value.wait == pytest.approx(10), "and it fills as the provider says"
    with pytest.raises(CostTooLarge):
        other.admit({"rpm": 61})
    assert next(event.why for event in hall.events if isinstance(event, DeclarationsDiffer)) == "the provider says so"
    trips = one.core.trips
    one.feed(limit={"rpm": 60})
    assert one.core.trips == trips + 1, "the same again changes nothing"
    other.feed(limit={"rpm": 120})
    one.admit({"rpm": 1})
    assert one.spec.bucket("rpm") == BucketSpec.per_minute("rpm", 120)
    other.feed(limit={"rpm": 10_000})
    one.admit({"rpm": 1})
    assert one.spec.bucket("rpm") == BucketSpec.per_minute("rpm", 600)


@pytest.mark.parametrize(("mode", "holds"), [("follow", 10_000), ("ignore", 600), ("lower", 600)])
def test_a_higher_limit_of_the_provider_holds_where_it_is_declared_to(mode: str, holds: float, hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec.per_minute("rpm", 600), provider_limits=mode))
    gate.feed(limit={"rpm": 10_000})
    gate.admit({"rpm": 1})
    assert gate.spec.bucket("rpm") == BucketSpec.per_minute("rpm", holds)
    gate.feed(limit={"rpm": 60})
    gate.admit({"rpm": 1})
    assert gate.spec.bucket("rpm") == BucketSpec.per_minute("rpm", 600 if mode == "ignore" else 60)


def test_a_process_of_an_older_release_may_lower_a_limit_and_not_raise_it(hall: Hall) -> None:
    new = hall.gate(rate(BucketSpec.per_minute("rpm", 300), revision=2), "new")
    old = hall.gate(rate(BucketSpec.per_minute("rpm", 600), revision=1), "old")
    new.admit()
    old.feed(limit={"rpm": 500})
    new.admit()
    assert new.spec.bucket("rpm") == BucketSpec.per_minute("rpm", 300)
    old.feed(limit={"rpm": 60})
    new.admit({"rpm": 1})
    assert (new.spec.bucket("rpm"), new.spec.revision) == (BucketSpec.per_minute("rpm", 60), 2)


# Declarations.


def test_two_declarations_are_told_apart_and_both_processes_hear_of_it(
    hall: Hall, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = hall.gate(rate(BucketSpec("rpm", 5, 1)), "old"), hall.gate(rate(BucketSpec("rpm", 50, 1)), "new")
    old.admit()
    new.admit({"rpm": 3})
    with pytest.raises(CostTooLarge):
        new.admit({"rpm": 51})
    old.admit({"rpm": 1})
    assert old.spec.buckets == new.spec.buckets == (BucketSpec("rpm", 50, 1),)
    differ = [event for event in hall.events if isinstance(event, DeclarationsDiffer)]
    assert [(event.stands_by, event.other_by) for event in differ] == [("new", "old"), ("new", "old")]
    assert '"capacity":50.0' in caplog.text and '"capacity":5.0' in caplog.text


def test_a_higher_revision_stands_whoever_comes_later(hall: Hall) -> None:
    hall.gate(rate(BucketSpec("rpm", 5, 1), revision=3)).admit()
    late = hall.gate(rate(BucketSpec("rpm", 50, 1), revision=2), "late")
    late.admit()
    assert late.spec.buckets == (BucketSpec("rpm", 5, 1),)
    assert [event.why for event in hall.events if isinstance(event, DeclarationsDiffer)] == ["a higher revision stands"]


# Trouble.


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


# The local view.


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
    gate = AsyncGate(store, fleet_name, GateSpec(name="api", breaker=BreakerSpec()))
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
    begun = time.monotonic()
    while time.monotonic() < begun + 1.0:
        gate.check()
        await asyncio.sleep(0.01)
    trips = gate.core.trips
    assert (await gate.admit()).by == "view"
    assert gate.core.trips == trips
    await gate.close()
    await store.close()


# Waiting on a loop.


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
