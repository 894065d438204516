"""The breaker of a gate on a real Redis: the fleet's evidence, its probes, its way back (DESIGN 5)."""

import pytest

from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.store.gates import (
    BreakerChanged,
    BreakerSpec,
    GateRefused,
    GateSpec,
    WorkerQuarantined,
)
from tests.integration.store.hall import Hall, breaker, fail


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
