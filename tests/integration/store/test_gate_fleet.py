"""Several processes on one gate, for a moment; ``python -m tests.chaos.gates`` is the long form."""

import threading
import time
from collections.abc import Iterator

import pytest

from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import Admission, Gate
from techrevati.store.sync import SyncStore
from tests.chaos import gate_waiters, gates


def test_processes_together_never_get_more_than_is_allowed(private_redis: EmbeddedRedis) -> None:
    verdict = gates.run_hammer(private_redis, 4, 2.0, restart=False)
    assert verdict.holds, verdict
    assert verdict.fleet > 0.5 * verdict.allowed, "it was hammered"
    assert verdict.refused > 0
    assert 1 <= verdict.most_held <= gates.SLOTS


def test_over_a_killed_redis_each_process_goes_on_by_its_own_twin(private_redis: EmbeddedRedis) -> None:
    verdict = gates.run_hammer(private_redis, 3, 4.0, restart=True)
    assert verdict.holds, verdict
    assert verdict.fleet > 0
    assert verdict.local > 0


@pytest.fixture(scope="module")
def replicas() -> Iterator[gates.Replicas]:
    with EmbeddedRedis() as server:
        made = gates.Replicas(server.url, 5)
        yield made
        made.close()


def test_processes_agree_on_a_breaker(replicas: gates.Replicas) -> None:
    ours, bare = gates.agreement(replicas, 4)
    assert len(ours) == len(bare) == 16
    assert max(ours) < 0.25, "the staleness bound"


def test_a_killed_prober_frees_its_own_permit_and_no_other(replicas: gates.Replicas) -> None:
    probed = gates.half_open(replicas)
    assert probed.first == gates.BREAKER.probes, "exactly so many, fleet-wide"
    assert probed.while_held == 0, "its permit is held until its call would have ended"
    assert probed.after == 1, "then one more goes, though two others still probe"
    assert probed.freed_after >= gates.ITS_CALL


def test_a_slot_whose_waiter_dies_when_it_is_let_out_goes_to_the_next(private_redis: EmbeddedRedis) -> None:
    """The message reached it, and it was killed: its slot is free when its call would have ended."""
    spec = gate_waiters.spec(1)
    with SyncStore(private_redis.url) as store:
        gate = Gate(store, gate_waiters.FLEET, spec)
        first = gate.admit()
        victim = gate_waiters.Victim(private_redis.url, timeout=0.5)
        victim.wait_in_line()
        got: list[Admission] = []
        waiter = threading.Thread(target=lambda: got.append(gate.admit(wait=20.0, timeout=2.0)))
        waiter.start()
        gates.wait_for(lambda: gate.look().in_line == 2)
        gate.settle(first)
        victim.kill_once_it_is_out()
        killed = time.monotonic()
        waiter.join(10)
        assert got, "it waits for ever"
        assert time.monotonic() - killed < 0.5 + 2.5, "the lease, and a look"
        gate.settle(got[0])
        gate.close()
