"""The pools Celery has, and the ways a worker leaves."""

import os
import signal
import time

import pytest

from techrevati.store.keys import partition_of
from tests.acceptance.support import Cluster, eventually


@pytest.mark.parametrize(
    ("role", "flags"),
    [("forked", ("-P", "prefork", "-c", "2")), ("threaded", ("-P", "threads", "-c", "4"))],
)
def test_other_pools_run_turns(cluster: Cluster, role: str, flags: tuple[str, ...]) -> None:
    client = cluster.client(role)
    cluster.worker(role, *flags)
    runs = [client.start(f"count.{role}", {"turns": 3}) for _ in range(6)]
    plain = client.start(f"plain.{role}", {"turns": 2})
    assert all(run.result(timeout=20) == [1, 2, 3] for run in runs)
    assert plain.result(timeout=10)["turn"] == 2


def test_killed_prefork_child_costs_a_lease_not_a_run(cluster: Cluster) -> None:
    client = cluster.client("forks")
    cluster.worker("forks", "-P", "prefork", "-c", "2")
    run = client.start("steps.forks", {"gate": "never"})
    line = cluster.wait_told(f"second {run.id}")[0]
    os.kill(int(line.split()[3]), signal.SIGKILL)
    assert run.result(timeout=20) == {"first": "done", "second": 2}


def test_warm_shutdown_lets_running_turns_finish(cluster: Cluster) -> None:
    client = cluster.client("warm")
    worker = cluster.worker("warm")
    run = client.start("hold.warm", {"gate": "warm"})
    queued = client.start("count.warm", {"turns": 2}, delay=1.0)
    cluster.wait_told(f"hold {run.id}")
    worker.signal(signal.SIGTERM)
    worker.wait_log("Warm shutdown")
    cluster.open("warm")
    assert worker.wait_exit() == 0
    assert run.result(timeout=1)["attempt"] == 1
    eventually(lambda: queued.status().home == "ready", "its delay ends with nobody there")
    cluster.healthy()
    cluster.worker("warm")
    assert queued.result(timeout=10) == [1, 2]


@pytest.mark.parametrize(("name", "signals"), [("cold", ["QUIT"]), ("soft", ["TERM", "QUIT"])])
def test_turn_that_outlasts_a_shutdown_resumes_elsewhere_at_once(
    cluster: Cluster, name: str, signals: list[str]
) -> None:
    """Released, not left to its lease: the lease here is a minute."""
    client = cluster.client(name)
    slow = {"TECHREVATI_LEASE_TTL": "60", "TECHREVATI_LEASE_RENEWAL": "20", "TECHREVATI_DRAIN_GRACE": "0.3"}
    worker = cluster.worker(name, env=slow)
    run = client.start(f"hold.{name}", {"gate": name})
    cluster.wait_told(f"hold {run.id}")
    cluster.worker(name)
    for one in signals:
        worker.signal(signal.Signals[f"SIG{one}"])
        if one == "TERM":
            worker.wait_log("Warm shutdown")
    asked = time.monotonic()
    cluster.wait_told(f"hold {run.id}", count=2, timeout=20)
    print(f"\n{name} shutdown: the turn runs elsewhere after {time.monotonic() - asked:.2f} s")
    cluster.open(name)
    assert run.result(timeout=10)["attempt"] == 1, "a release counts no attempt"
    worker.wait_exit()
    assert "turn.released" in [event.type for event in run.events()]


def test_stopping_worker_is_gone_from_the_pool_at_once(cluster: Cluster) -> None:
    worker = cluster.worker("leaver")
    worker.signal(signal.SIGTERM)
    assert worker.wait_exit() == 0
    with cluster.raw() as redis:
        assert [redis.hlen(f"pool:{{accept:{number}}}:leaver") for number in range(4)] == [0] * 4


def test_a_ticket_may_carry_many_turns_and_stops_at_a_drain(cluster: Cluster) -> None:
    client = cluster.client("many")
    worker = cluster.worker("many", "-c", "1", env={"TECHREVATI_TURNS_PER_TICKET": "50"})
    run = client.start("count.many", {"turns": 100})
    assert run.result(timeout=20) == list(range(1, 101))
    assert worker.log().count("received") < 20, "about one ticket for fifty turns"
    long = client.start("count.many", {"turns": 1000, "seconds": 0.05})
    cluster.wait_told(f"count {long.id} 3 ")
    worker.signal(signal.SIGTERM)
    assert worker.wait_exit(5) == 0
    done = len(cluster.told(f"count {long.id}"))
    assert done < 60
    record = long.status()
    assert (record.status, record.home, record.turn, record.attempt) == ("queued", "ready", done + 1, 0)
    assert long.cancel() == "cancelled"


def test_one_worker_holds_as_many_turns_as_it_has_places(cluster: Cluster) -> None:
    client = cluster.client("places")
    cluster.worker("places", "-c", "5")
    threads = [name for name in map(str, range(200)) if partition_of("default", name, cluster.partitions) == 0]
    runs = [client.start("hold.places", {"gate": "places"}, thread_id=threads.pop()) for _ in range(12)]
    eventually(lambda: cluster.statuses(client, [run.id for run in runs]).count("running") == 5, "five run")  # type: ignore[arg-type]
    cluster.open("places")
    assert all(run.result(timeout=10)["attempt"] == 1 for run in runs)
