"""Delays, deadlines, priorities, and a thread that is busy."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from techrevati.fleet.client import Client, Run
from techrevati.fleet.results import RunFailed
from techrevati.store.errors import ThreadBusy
from techrevati.store.keys import partition_of
from tests.acceptance.support import Cluster, eventually

LATE = 0.5
"""Seconds a timer may be late on two busy cores."""


def on_time(lateness: Callable[[], float], tries: int = 3) -> None:
    """Hold a timer to being never early, and late by little; a busy machine adds to a delay, and takes nothing off."""
    seen: list[float] = []
    while not seen or (seen[-1] >= LATE and len(seen) < tries):
        seen.append(lateness())
        assert seen[-1] >= 0, seen
    assert seen[-1] < LATE, seen


def begun(cluster: Cluster, run: Run) -> float:
    return float(cluster.wait_told(f"count {run.id} 1 ")[0].split()[5])


def test_sleep_holds_no_worker_and_ends_on_time(cluster: Cluster, client: Client) -> None:
    long = client.start("nap.alpha", {"seconds": 60})
    eventually(lambda: long.status().why == "timer", "it naps")
    assert (long.status().status, long.status().home) == ("waiting", "due")
    assert long.cancel() == "cancelled"

    def lateness() -> float:
        run = client.start("nap.alpha", {"seconds": 0.7})
        run.result(timeout=10)
        first, second = [float(line.split()[3]) for line in cluster.told(f"nap {run.id}")]
        return second - first - 0.7

    on_time(lateness)


def test_delay_and_eta_begin_no_earlier_and_not_much_later(cluster: Cluster, client: Client) -> None:
    def lateness() -> float:
        now = time.time()
        runs = [
            client.start("count.alpha", {}, delay=0.6),
            client.start("count.alpha", {}, delay=timedelta(seconds=0.6)),
            client.start("count.alpha", {}, eta=datetime.fromtimestamp(now + 0.6, UTC)),
        ]
        for run in runs:
            assert run.result(timeout=10) == [1]
        began = [begun(cluster, run) - now - 0.6 for run in runs]
        assert min(began) >= -0.001, "an eta is whole milliseconds"
        return max(*began, 0.0)

    on_time(lateness)


def test_deadline_ends_what_runs_and_what_waits(cluster: Cluster, client: Client) -> None:
    def lateness() -> float:
        asked = time.monotonic()
        held = client.start("hold.alpha", {"gate": "never"}, deadline=0.6)
        waiting = client.start("ask.alpha", {}, deadline=timedelta(seconds=0.6))
        for run in (held, waiting):
            with pytest.raises(RunFailed, match="the deadline passed"):
                run.result(timeout=10)
        took = time.monotonic() - asked
        if cluster.told(f"hold {held.id}"):  # it had begun
            cluster.wait_told(f"stopped {held.id}", 5)
        return took - 0.6

    on_time(lateness)


def test_pause_gives_its_place_to_others(cluster: Cluster) -> None:
    client = cluster.client("single")
    cluster.worker("single", "-c", "1")
    paused = client.start("pause.single", {"seconds": 2})
    eventually(lambda: paused.status().why == "timer", "it is parked")
    assert client.start("count.single", {"turns": 3}).result(timeout=10) == [1, 2, 3]
    assert paused.status().why == "timer"
    assert paused.result(timeout=10) == 1


def test_priority_goes_first_within_a_tenant(cluster: Cluster) -> None:
    client = cluster.client("ranked")
    threads = [name for name in map(str, range(100)) if partition_of("default", name, cluster.partitions) == 0]
    low, normal, high = [
        client.start("count.ranked", {"turns": 2}, priority=priority, thread_id=threads.pop())
        for priority in (-1, 0, 1)
    ]
    cluster.worker("ranked", "-c", "1")
    for run in (low, normal, high):
        run.result(timeout=10)
    order = [line.split()[1] for line in cluster.told("count") if line.split()[1] in (low.id, normal.id, high.id)]
    assert order == [high.id] * 2 + [normal.id] * 2 + [low.id] * 2


def test_busy_thread_refuses_or_lets_wait(cluster: Cluster, client: Client) -> None:
    first = client.start("hold.alpha", {"gate": "busy"}, thread_id="busy")
    cluster.wait_told(f"hold {first.id}")
    with pytest.raises(
        ThreadBusy, match=f"thread 'busy' has the active run {first.id}; fix: wait for it, or start with"
    ):
        client.start("count.alpha", {}, thread_id="busy", on_busy="reject")
    second = client.start("count.alpha", {}, thread_id="busy", on_busy="enqueue")
    third = client.start("count.alpha", {}, thread_id="busy")
    assert {second.status().home, third.status().home} == {"line"}
    cluster.healthy()
    cluster.open("busy")
    assert third.result(timeout=10) == [1, 1]
    assert second.result(timeout=1) == [1] and first.result(timeout=1)["attempt"] == 1


def test_interrupt_stops_the_active_run_and_keeps_what_it_committed(cluster: Cluster, client: Client) -> None:
    first = client.start("count.alpha", {"turns": 99, "seconds": 0.1}, thread_id="cut")
    cluster.wait_told(f"count {first.id} 3 ")
    second = client.start("count.alpha", {"turns": 1}, thread_id="cut", on_busy="interrupt")
    output = second.result(timeout=10)
    assert len(output) < 20, "it was not left to go on"
    with pytest.raises(RunFailed, match="superseded"):
        first.result(timeout=1)
    assert output[:2] == [1, 2] and output[-1] == 1


def test_rollback_also_forgets_what_the_active_run_did(cluster: Cluster, client: Client) -> None:
    client.start("count.alpha", {"turns": 2}, thread_id="undone").result(timeout=10)
    first = client.start("count.alpha", {"turns": 99, "seconds": 0.1}, thread_id="undone")
    cluster.wait_told(f"count {first.id} 3 ")
    second = client.start("count.alpha", {"turns": 1}, thread_id="undone", on_busy="rollback")
    assert second.result(timeout=10) == [1, 2, 1]
    with pytest.raises(RunFailed, match="superseded"):
        first.result(timeout=1)


def test_start_with_a_message_ends_a_suspended_run(client: Client) -> None:
    first = client.start("ask.alpha", {}, thread_id="asked")
    eventually(lambda: first.status().why == "decision", "it waits")
    assert client.start("count.alpha", {}, thread_id="asked").result(timeout=10) == [1]
    with pytest.raises(RunFailed, match="superseded"):
        first.result(timeout=1)
