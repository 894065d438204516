"""Redis goes away under load and comes back: nobody has to restart anything."""

import signal
import time
from pathlib import Path

import pytest

from tests.acceptance.support import Cluster, eventually
from tests.chaos.kills import TURNS, Tally, start, verify


@pytest.mark.parametrize(
    ("sig", "fsync"),
    [
        pytest.param(signal.SIGTERM, "everysec", marks=pytest.mark.chaos),
        pytest.param(signal.SIGTERM, "always"),
        pytest.param(signal.SIGKILL, "everysec"),
        pytest.param(signal.SIGKILL, "always", marks=pytest.mark.chaos),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_restart_under_load_loses_no_session(tmp_path: Path, sig: signal.Signals, fsync: str) -> None:
    with Cluster(tmp_path, redis_options={"appendfsync": fsync}) as cluster:
        try:
            restart_under_load(cluster, sig)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{cluster.logs()}") from error


def written(cluster: Cluster) -> bool:
    """Say if nothing that Redis has accepted is still on its way to the append-only file."""
    with cluster.raw() as redis:
        found = redis.info("persistence")
    return bool(found["aof_buffer_length"] == 0 and found["aof_pending_bio_fsync"] == 0)


def restart_under_load(cluster: Cluster, sig: signal.Signals, *, restarts: int = 1) -> None:
    cluster.coordinator(wait=False)
    client = cluster.client("alpha")
    workers = [cluster.worker("alpha", wait=False) for _ in range(2)]
    for worker in workers:
        cluster.wait_worker(worker)
    turns = TURNS * (1 + 2 * restarts)  # enough for every restart to hit some
    runs = start(client, "alpha", 40, turns)
    eventually(lambda: written(cluster), "what was accepted is in the file")
    for _ in range(restarts):
        done = len(cluster.told("count"))
        went = time.monotonic()
        cluster.redis.restart(sig=sig)
        back = time.monotonic()
        eventually(lambda done=done: len(cluster.told("count")) > done + 4, "turns begin again", 20)  # type: ignore[misc]
        print(f"\nRedis was away for {back - went:.2f} s; turns began again {time.monotonic() - back:.2f} s later")
        cluster.healthy()
    tally = Tally()
    verify(cluster, client, runs, tally, turns)
    assert all(worker.alive for worker in workers), "the same workers went on"
    assert not any("EMERGENCY DUMP" in worker.log() for worker in workers), "kombu left a file behind"
    print(f"{tally.expired} leases expired, {tally.fenced} stale turns refused or stopped")


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_five_restarts_in_a_row(cluster: Cluster) -> None:
    restart_under_load(cluster, signal.SIGTERM, restarts=5)
