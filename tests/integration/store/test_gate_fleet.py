"""Several processes on one gate, for a moment; ``python -m tests.chaos.gates`` is the long form."""

from techrevati.store.embedded import EmbeddedRedis
from tests.chaos import gates


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


def test_processes_agree_on_a_breaker_and_on_its_probes(private_redis: EmbeddedRedis) -> None:
    replicas = gates.Replicas(private_redis.url, 4)
    try:
        ours, bare = gates.agreement(replicas, 4)
        assert len(ours) == len(bare) == 12
        assert max(ours) < 0.25, "the staleness bound"
        assert gates.half_open(replicas) == (gates.BREAKER.probes, gates.BREAKER.probes)
    finally:
        replicas.close()
