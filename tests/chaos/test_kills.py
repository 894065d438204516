"""kill -9 of workers: at any moment, at the crash points, and while they only seem dead."""

import signal
import time
from functools import partial

import pytest

from techrevati.fleet.celery.tickets import send_ticket
from techrevati.fleet.client import Run
from tests.acceptance.agents import SEAMS, make_fleet
from tests.acceptance.support import Cluster, Process, eventually
from tests.chaos.kills import Tally, busy, kill_workers, start, table, verify


def rounds(cluster: Cluster, sessions: int, kills: int) -> None:
    cluster.coordinator()
    tally = kill_workers(cluster, sessions, kills)
    limit = cluster.settings.lease_ttl + 1
    print("\n" + table([("kill -9 of a worker mid-turn", tally)], limit))
    assert len(tally.recoveries) >= kills * 2 // 3, "the kills missed"
    assert tally.slowest <= limit


def test_killed_workers_lose_nothing_and_double_nothing(cluster: Cluster) -> None:
    rounds(cluster, sessions=30, kills=3)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_twenty_killed_workers_lose_nothing_and_double_nothing(cluster: Cluster) -> None:
    rounds(cluster, sessions=100, kills=20)


def one_is_dead(workers: list[Process]) -> bool:
    return not all(worker.alive for worker in workers)


def test_death_at_a_crash_point_neither_loses_nor_doubles_a_turn(cluster: Cluster) -> None:
    cluster.coordinator(wait=False)
    client = cluster.client("alpha")
    workers = [cluster.worker("alpha", wait=False)]
    for seam in SEAMS:
        workers.append(cluster.worker("alpha", wait=False))
        for worker in workers:
            cluster.wait_worker(worker)
        cluster.arm(seam)
        runs = start(client, "alpha", 5)
        eventually(partial(one_is_dead, workers), f"one of two dies at {seam}")
        assert cluster.told(f"crash {seam}")
        cluster.healthy()
        verify(cluster, client, runs, Tally())
        workers = [worker for worker in workers if worker.alive]
        assert len(workers) == 1, "the other went on"
    again = [line for line in cluster.told("count") if line.split()[3] != "1"]
    assert again, "a turn was run again by its second attempt"


def taken_over(run: Run) -> bool:
    """Say if a turn was begun again after its lease had run out."""
    kinds = [event.type for event in run.events(follow=False)]
    return "turn.expired" in kinds and "turn.started" in kinds[kinds.index("turn.expired") :]


def test_worker_that_only_seemed_dead_is_refused(cluster: Cluster) -> None:
    """Stopped for longer than its lease, it comes back to turns that others have had."""
    cluster.coordinator(wait=False)
    client = cluster.client("alpha")
    sleeper = cluster.worker("alpha")
    runs = start(client, "alpha", 20)
    busy(cluster, client, runs, 10)
    sleeper.signal(signal.SIGSTOP)
    cluster.worker("alpha")
    eventually(lambda: any(taken_over(run) for run in runs), "another is at work on what it holds")
    sleeper.signal(signal.SIGCONT)
    tally = Tally()
    verify(cluster, client, runs, tally)
    print(f"\n{tally.expired} leases expired, {tally.fenced} stale turns refused or stopped")
    assert tally.fenced > 0


def test_tickets_that_come_twice_claim_nothing_twice(cluster: Cluster) -> None:
    cluster.coordinator(wait=False)
    client = cluster.client("alpha")
    cluster.worker("alpha", wait=False)
    runs = start(client, "alpha", 10)
    app = make_fleet("alpha", settings=cluster.settings).celery_for("alpha")
    for number in range(100):
        send_ticket(app, "alpha", number % cluster.partitions, ticket_id="twin")
    app.close()
    verify(cluster, client, runs, Tally())


def test_lost_tickets_are_sent_again(cluster: Cluster) -> None:
    cluster.coordinator(wait=False)
    client = cluster.client("alpha")
    worker = cluster.worker("alpha")
    runs = start(client, "alpha", 10)
    busy(cluster, client, runs, 5)
    for _ in range(20):
        with cluster.raw() as redis:
            redis.delete("accept.role.alpha")
        time.sleep(0.02)
    verify(cluster, client, runs, Tally())
    assert worker.alive
