"""Cancelling: at once where nobody works, within a second where somebody does."""

import statistics
import time

import pytest

from techrevati.fleet.client import Client
from techrevati.fleet.results import RunFailed
from tests.acceptance.support import Cluster, eventually


def test_waiting_run_ends_at_once(client: Client) -> None:
    run = client.start("ask.alpha", {})
    eventually(lambda: run.status().why == "decision", "it waits")
    assert run.cancel("changed my mind") == "cancelled"
    with pytest.raises(RunFailed, match="is cancelled: changed my mind"):
        run.result(timeout=1)
    assert run.cancel() == "cancelled"


def test_queued_run_never_starts(cluster: Cluster) -> None:
    run = cluster.client("nobody").start("count.nobody", {})
    assert run.status().status == "queued"
    assert run.cancel() == "cancelled"
    cluster.healthy()
    cluster.worker("nobody")
    other = cluster.client("nobody").start("count.nobody", {})
    assert other.result(timeout=10) == [1]
    assert not cluster.told(f"count {run.id}")


def test_running_tool_hears_it_within_a_second_and_messages_stay(cluster: Cluster, client: Client) -> None:
    runs = [client.start("hold.alpha", {"gate": "never"}) for _ in range(5)]
    waits = []
    for run in runs:
        cluster.wait_told(f"hold {run.id}")
        asked = time.time()
        assert run.cancel("enough") == "running"
        (line,) = cluster.wait_told(f"stopped {run.id}", 5)
        waits.append(float(line.split()[2]) - asked)
    print(f"\ncancel heard after {min(waits) * 1000:.0f} to {max(waits) * 1000:.0f} ms")
    assert statistics.median(waits) < 1.0, waits
    for run in runs:
        eventually(lambda run=run: run.status().status == "cancelled", "it is cancelled")  # type: ignore[misc]
        with cluster.raw() as redis:
            messages = redis.lrange(cluster.keys(run.id).messages("default", run.status().thread_id), 0, -1)
        assert '"holding"' in str(messages[-1])
        assert [event.type for event in run.events()][-1] == "run.cancelled"


def test_turn_may_wind_up_within_the_grace_and_its_end_stands(cluster: Cluster, client: Client) -> None:
    run = client.start("plough.alpha", {"gate": "never", "wind_up": 0.5})
    cluster.wait_told(f"plough {run.id}")
    run.cancel()
    assert run.result(timeout=10) == "wound up"


def test_turn_that_winds_up_too_long_is_revoked(cluster: Cluster, client: Client) -> None:
    run = client.start("plough.alpha", {"gate": "never", "wind_up": 60})
    cluster.wait_told(f"plough {run.id}")
    asked = time.monotonic()
    run.cancel("too slow")
    with pytest.raises(RunFailed, match="too slow"):
        run.result(timeout=10)
    assert time.monotonic() - asked > cluster.settings.cancel_grace - 0.2


def test_run_that_backs_off_can_be_cancelled(cluster: Cluster, client: Client) -> None:
    run = client.start("nap.alpha", {"seconds": 60})
    eventually(lambda: run.status().why == "timer", "it naps")
    assert run.cancel() == "cancelled"
