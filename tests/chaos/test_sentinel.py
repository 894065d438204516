"""The master is killed under a fleet whose store and broker stand behind Sentinel: sessions finish at the replica."""

import time
from pathlib import Path

import pytest

from techrevati.store.wire import safe_url
from tests.acceptance.support import Cluster, eventually
from tests.chaos.kills import TURNS, Tally, start, verify
from tests.sentinels import Watched, until


class WatchedCluster(Cluster):
    """A cluster whose Redis is two servers under Sentinel."""

    def __init__(self, home: Path, *, sentinels: int = 1) -> None:
        super().__init__(home)
        self.redis.close()  # the one of its own, which nobody starts
        self.watched = Watched(sentinels=sentinels)
        self.redis = self.watched  # type: ignore[assignment] # what it wants of a server: url, start, close


def failovers(cluster: WatchedCluster, sessions: int, *, times: int, turns: int = TURNS) -> None:
    """Kill master after master under load, then hold every session to its turns."""
    watched = cluster.watched
    cluster.coordinator(wait=False)
    client = cluster.client("alpha")
    workers = [cluster.worker("alpha", wait=False) for _ in range(2)]
    for worker in workers:
        cluster.wait_worker(worker)
    runs = []
    for _ in range(times):
        done = len(cluster.told("count"))
        runs += start(client, "alpha", sessions, turns)
        cluster.wait_told("count", count=done + sessions // 2)
        assert client.store.command("WAIT", 1, 2000) == 1
        dead = watched.kill_master()
        went, done = time.monotonic(), len(cluster.told("count"))
        took = watched.wait_promoted(dead)
        eventually(lambda done=done: len(cluster.told("count")) > done + sessions, "turns begin again", 20)  # type: ignore[misc]
        print(f"\npromoted after {took:.2f} s, turns began again {time.monotonic() - went:.2f} s after the kill")
        if times > 1:
            watched.server(dead).start()
            until(watched.is_whole, "the old master follows the new one", 60)
    verify(cluster, client, runs, tally := Tally(), turns)
    assert all(worker.alive for worker in workers), "the same workers went on"
    print(f"{tally.expired} leases expired, {tally.fenced} stale turns refused or stopped")


def test_a_fleet_finishes_its_sessions_at_the_replica(tmp_path: Path) -> None:
    with WatchedCluster(tmp_path) as cluster:
        try:
            failovers(cluster, 6, times=1, turns=4)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{safe_url(cluster.watched.url)}\n{cluster.logs()}") from error


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_three_masters_are_killed_one_after_another(tmp_path: Path) -> None:
    with WatchedCluster(tmp_path, sentinels=3) as cluster:
        try:
            failovers(cluster, 40, times=3)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{safe_url(cluster.watched.url)}\n{cluster.logs()}") from error
