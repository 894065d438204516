"""kill -9 of a coordinator: another takes its partitions within its lease."""

import time

from techrevati.fleet.client import Client
from tests.acceptance.support import START, Cluster, eventually
from tests.chaos.kills import Tally, has_work, held_by, recovery, start, verify


def sweepers(client: Client) -> set[str]:
    keys = [client.keys(f"{'0' * 32}.{number}") for number in range(client.partitions)]
    names = client.store.commands([("HGET", one.sweeper, "holder") for one in keys])
    return {str(name) for name in names}


def test_second_coordinator_takes_over_within_the_lease(cluster: Cluster) -> None:
    first = cluster.coordinator()
    client = cluster.client("alpha", peer="beta")
    for role, peer in (("alpha", "beta"), ("beta", "alpha")):
        cluster.worker(role, peer=peer)
    second = cluster.coordinator()
    eventually(lambda: {str(first.pid), str(second.pid)} <= pids(client), "both sweep", 10)
    naps = [client.start("nap.alpha", {"seconds": 0.2}) for _ in range(20)]
    relays = [client.start("relay.alpha", {"hops": 4}) for _ in range(20)]
    first.kill()
    cluster.healthy()
    eventually(lambda: pids(client) == {str(second.pid)}, "the second sweeps everything", 10)
    took = time.time() - first.killed_at
    print(f"\npartitions taken over after {took:.2f} s, their lease is {cluster.settings.partition_lease:g} s")
    assert took <= cluster.settings.partition_lease + 1
    for run in (*naps, *relays):
        run.result(timeout=10)
    cluster.healthy()


def pids(client: Client) -> set[str]:
    """Give the process ids of those who sweep; a coordinator's name is host:pid:random."""
    return {name.split(":")[1] for name in sweepers(client) if ":" in name}


def test_worker_and_coordinator_that_die_together_cost_both_leases_at_most(cluster: Cluster) -> None:
    coordinator = cluster.coordinator(wait=False)
    client = cluster.client("alpha")
    victim, other = (cluster.worker("alpha", wait=False) for _ in range(2))
    for worker in (victim, other):  # what is measured is the leases, not how fast a process comes up
        cluster.wait_worker(worker)
    coordinator.wait_log("sweeps partitions", START)
    cluster.coordinator()
    runs = start(client, "alpha", 20)
    has_work(client, runs, victim, 20, "alpha")
    victim.kill()
    coordinator.kill()
    held = held_by(client, runs, victim)
    measured = recovery(victim, held)
    assert measured is not None
    settings = cluster.settings
    print(f"\n{measured.turns} turns claimed again after {measured.first:.2f} to {measured.last:.2f} s")
    assert measured.last <= settings.lease_ttl + 1 + settings.partition_lease
    verify(cluster, client, runs, Tally())
