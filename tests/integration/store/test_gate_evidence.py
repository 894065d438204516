"""What counts against a dependency, who is told, and what outlives a restart or a step of the clock."""

import pytest

from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import (
    BreakerChanged,
    BreakerSpec,
    BucketSpec,
    Event,
    Gate,
    GateRefused,
    GateSpec,
    SlotSpec,
    WorkerQuarantined,
)
from techrevati.store.gates.events import Listeners
from techrevati.store.gates.records import Seen
from techrevati.store.gates.view import View
from techrevati.store.sync import SyncStore
from tests.integration.store.hall import Hall, breaker, fail, rate

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def latencies(gate: Gate, *seconds: float) -> None:
    for latency in seconds:
        gate.settle(gate.admit(), latency=latency)


# Evidence.


def test_slow_calls_open_it_by_their_share_of_enough_calls(hall: Hall) -> None:
    gate = hall.gate(breaker(mode="rate", failure_rate=1.0, slow_call=2.0, slow_rate=0.5, min_calls=6))
    latencies(gate, 2.5, 2.5, 2.5)
    assert gate.state() is CLOSED, "too few calls to tell"
    latencies(gate, 0.1, 0.1, 0.1, 0.1)
    assert gate.state() is CLOSED, "3 of 7"
    latencies(gate, 2.0)
    assert gate.state() is OPEN, "4 of 8; as slow as the limit is slow"


def test_a_failure_and_a_slow_call_are_counted_apart(hall: Hall) -> None:
    gate = hall.gate(breaker(mode="rate", failure_rate=0.5, slow_call=2.0, slow_rate=0.5, min_calls=4))
    gate.settle(gate.admit(), outcome="fail", latency=0.1)
    latencies(gate, 3.0, 0.1, 0.1)
    assert gate.state() is CLOSED, "a quarter failed, a quarter was slow"


@pytest.mark.parametrize(
    ("rule", "counts", "does_not"),
    [
        ({}, ("llm_timeout", None), ("rate_limit", "prompt_rejection")),
        ({"excluded": (AgentFailureClass.LLM_TIMEOUT,)}, ("rate_limit", "tool_error"), ("llm_timeout",)),
        ({"recorded": (AgentFailureClass.TOOL_ERROR,)}, ("tool_error",), ("llm_timeout", None)),
    ],
)
def test_failure_classes_are_recorded_or_excluded(
    rule: dict[str, object], counts: tuple[str | None, ...], does_not: tuple[str | None, ...], hall: Hall
) -> None:
    for number, failure in enumerate((*does_not, *counts)):
        spec = GateSpec(name=f"g{number}", breaker=BreakerSpec(failure_threshold=1, **rule), staleness=0)  # type: ignore[arg-type]
        gate = hall.gate(spec)
        fail(gate, failure_class=failure)
        assert gate.state() is (OPEN if failure in counts else CLOSED), failure


def test_a_worker_that_alone_fails_at_a_rate_is_quarantined_and_evidence_of_two_opens_it(hall: Hall) -> None:
    spec = breaker(mode="rate", failure_rate=0.5, min_calls=4, min_reporters=2, cooldown=10)
    sick, well, third = (hall.gate(spec, worker) for worker in ("sick", "well", "third"))
    well.settle(well.admit())
    fail(sick, 2)  # as many as would open it, had it made all the calls
    with pytest.raises(GateRefused) as refused:
        sick.admit()
    assert refused.value.why == "quarantined"
    assert hall.saw(WorkerQuarantined) == [WorkerQuarantined("api", "sick", 10.0)]
    well.settle(well.admit())
    assert well.state() is CLOSED
    fail(third)
    assert well.state() is OPEN, "another one has failed, too"


# Who is told.


def test_every_change_is_told_with_its_generation_and_a_listener_that_fails_harms_nobody(hall: Hall) -> None:
    gate = hall.gate(breaker(failure_threshold=1, cooldown=10))
    late: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("a listener's own fault")

    gate.on_event(broken)
    gate.on_event(late.append)
    fail(gate)
    hall.now += 10
    probe = gate.admit()
    gate.settle(probe)
    gate.force_open()
    gate.enable()
    gate.disable()
    changes = [event for event in hall.events if isinstance(event, BreakerChanged)]
    assert [(change.before, change.after, change.forced) for change in changes] == [
        (CLOSED, OPEN, ""),
        (OPEN, HALF_OPEN, ""),
        (HALF_OPEN, CLOSED, ""),
        (CLOSED, CLOSED, "open"),
        (CLOSED, CLOSED, ""),
        (CLOSED, CLOSED, "disabled"),
    ]
    assert changes[0].wait == 10
    generations = [change.generation for change in changes]
    assert generations == sorted(generations) and len(set(generations[:3])) == 3
    assert late == hall.events


# What outlives trouble.


def test_an_open_breaker_is_open_after_a_restart_and_its_probes_are_few(
    private_redis: EmbeddedRedis, fleet_name: str
) -> None:
    now = [1_700_000_000.0]
    spec = GateSpec(
        name="api",
        breaker=BreakerSpec(failure_threshold=2, cooldown=10),
        slots=SlotSpec(most=2),
        staleness=0,
        on_store_error="fail_closed",
    )
    with SyncStore(private_redis.url, now_us=lambda: round(now[0] * 1e6)) as store:
        one, other = (
            Gate(store, fleet_name, spec, worker=worker, monotonic=lambda: now[0], wall=lambda: now[0])
            for worker in ("w1", "w2")
        )
        fail(one, 2)
        before = one.look()
        private_redis.restart()
        assert (other.state(), other.look().seen.generation) == (OPEN, before.seen.generation)
        with pytest.raises(GateRefused) as refused:
            other.admit()
        assert refused.value.why == "breaker"
        now[0] += 10
        probe = one.admit()
        private_redis.restart()
        with pytest.raises(GateRefused):
            other.admit()
        one.settle(probe)
        assert other.state() is CLOSED
        one.close()
        other.close()


def test_a_clock_that_steps_on_admits_no_more_than_the_buckets_hold(hall: Hall) -> None:
    gate = hall.gate(rate(BucketSpec("rpm", 5, 1)))
    gate.admit({"rpm": 5})
    hall.now += 3600
    gate.admit({"rpm": 5})
    with pytest.raises(GateRefused):
        gate.admit({"rpm": 1})


def test_a_view_believes_a_new_server_whose_clock_is_behind() -> None:
    """After a failover its time may be less than what the old one said last."""
    now, heard = [0.0], list[Event]()
    view = View("api", "w1", "news", 0.25, Listeners(heard.append), lambda: now[0])
    view.follow(0.0)
    view.take(Seen(2_000_000, 0, 7, 0, 0), 0.0)
    view.hear("s 1 8 5000000 0 1000000")
    assert view.circuit(0.1) is CLOSED, "older news of the same server"
    view.restarted("old", "new")
    assert not view.is_fresh(0.1), "what it knew has to be asked again"
    view.hear("s 1 8 5000000 0 1000000")
    assert view.circuit(0.1) is OPEN
