"""Declared agents under faults: death at every crash point, a restart of everything, a long conversation."""

import json
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

from techrevati.fleet.client import Client
from techrevati.fleet.define import KEPT_CALLS
from tests.acceptance.support import Cluster, Process, eventually
from tests.chaos.commits import listening
from tests.chaos.seams import Trace, drive

CROSSINGS = {
    "after_claim": 7,
    "before_commit": 7,
    "after_commit": 7,
    "before_step": 14,
    "after_step": 14,
    "in_tool": 3,
    "between_tools": 1,
    "before_child": 1,
    "after_child": 1,
}
"""How often an undisturbed errand comes by each crash point: five turns of its own, two of its sub-agent."""
SMOKE = {("after_step", 4), ("between_tools", 1), ("after_child", 1)}


class Scene:
    """One cluster for all crash points: its only worker dies in each, and the next one takes its place."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.coordinator(wait=False)
        self.worker: Process = cluster.worker("alpha")
        self.client: Client = cluster.client("alpha")
        self.undisturbed = self.errand()

    def _next(self) -> Process:
        self.worker = self.cluster.worker("alpha")
        return self.worker

    def errand(self, *, dies: bool = False) -> Trace:
        if not self.worker.alive:  # a crash point before this one has failed
            self._next()
        return drive(self.cluster, self.client, self.worker, self._next, dies=dies)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("seams"), lease_ttl=1.0, lease_renewal=0.25) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def scene(cluster: Cluster) -> Scene:
    return Scene(cluster)


@pytest.mark.parametrize(
    ("seam", "nth"),
    [
        pytest.param(seam, nth, marks=() if (seam, nth) in SMOKE else pytest.mark.chaos)
        for seam, often in CROSSINGS.items()
        for nth in range(1, often + 1)
    ],
)
def test_death_at_a_crash_point_leaves_what_an_undisturbed_run_leaves(
    cluster: Cluster, scene: Scene, seam: str, nth: int
) -> None:
    crashes = len(cluster.told(f"crash {seam} "))
    cluster.arm(seam, nth)
    trace = scene.errand(dies=True)
    assert trace.died and len(cluster.told(f"crash {seam} ")) == crashes + 1
    assert trace.thread == scene.undisturbed.thread
    assert len(trace.run.children()) == 1
    assert len(trace.marks) == 4 and max(trace.marks.values()) <= 2
    again = {call for call, often in trace.marks.items() if often > trace.before[call] > 0}
    assert not again & trace.kept, "a result that was kept is not made again"
    if seam in ("after_claim", "before_commit", "after_commit", "before_child", "after_child"):
        assert not again, "everything was kept by then"
    assert trace.asked - scene.undisturbed.asked in ((0, 1) if seam == "before_step" else (0,))
    cluster.healthy(keys=True)


@pytest.mark.chaos
def test_errand_comes_by_every_crash_point_as_often_as_the_matrix_says(cluster: Cluster, scene: Scene) -> None:
    steps = {seam for seam in CROSSINGS if seam != "between_tools"}  # armed, it would wait for a death
    for seam in steps:
        cluster.arm(seam, 1000)
    scene.errand()
    left = {seam: 1000 - int((cluster.home / f"seam-{seam}").read_text()) for seam in steps}
    for seam in steps:
        (cluster.home / f"seam-{seam}").unlink()
    assert left == {seam: often for seam, often in CROSSINGS.items() if seam in steps}


def test_suspended_run_outlives_a_restart_of_everything(tmp_path: Path) -> None:
    with Cluster(tmp_path, redis_options={"appendfsync": "always"}) as cluster:
        before = [cluster.coordinator(wait=False), cluster.worker("alpha")]
        client = cluster.client("alpha")
        commands = [["add", {"a": 1, "b": 1}], ["pay", {"amount": 7}], ["add", {"a": 2, "b": 2}]]
        run_id = client.start("clerk.alpha", json.dumps(commands), thread_id="long-wait").id
        eventually(lambda: client.record(run_id).why == "decision", "it asks")
        said, state = client.thread("long-wait").messages().messages, client.thread("long-wait").state()
        for process in before:
            process.kill()
        client.close()
        cluster.redis.stop(sig=signal.SIGKILL)
        cluster.redis.start()
        cluster.coordinator(wait=False)
        cluster.worker("alpha")
        client = cluster.client("alpha")
        assert client.thread("long-wait").messages().messages == said
        assert client.thread("long-wait").state() == state
        run = client.run(run_id)
        assert run.status().why == "decision"
        assert not cluster.told(f"payed {run_id}")
        run.decide(run.status().waits_for[0]["call_id"], payload="ann")
        assert json.loads(run.result(timeout=20))["results"] == [2, {"paid": 7, "by": "ann"}, 4]
        assert len(cluster.told(f"payed {run_id}")) == 1
        assert len(cluster.told(f"add {run_id}")) == 2, "each of the two once"
        cluster.healthy(keys=True)


def cheap(took: list[int]) -> float:
    """Give the lower quartile: other processes of the machine only ever add to a time."""
    return statistics.quantiles(took, n=4)[0]


def within(early: float, late: float, what: str) -> None:
    """Hold the later cost to 20 % over the earlier."""
    print(f"\n{what}: {early:.0f} early, {late:.0f} at turn ~190")
    assert late <= 1.2 * early, f"{what} grow"


def test_commits_of_a_long_conversation_stay_as_small_as_its_first(tmp_path: Path) -> None:
    """100 messages of the user, each a run of two turns, on one thread."""
    with Cluster(tmp_path) as cluster:
        cluster.coordinator(wait=False)
        cluster.worker("alpha")
        client = cluster.client("alpha")
        with listening(cluster) as seen:
            for number in range(100):
                commands = [["add", {"a": 1000 + number, "b": 1000}]]
                client.start("clerk.alpha", json.dumps(commands), thread_id="talk").result(timeout=20)
        assert len(seen.sent) == len(seen.took) == 200
        within(fmean(seen.sent[:20]), fmean(seen.sent[180:]), "bytes sent for a commit of a conversation")
        print(f"µs in Redis to go on: {cheap(seen.took[0:20:2]):.0f}, then {cheap(seen.took[180::2]):.0f}")
        print(f"µs in Redis to end a run: {cheap(seen.took[1:20:2]):.0f}, then {cheap(seen.took[181::2]):.0f}")


@pytest.mark.chaos
def test_commits_of_a_run_of_two_hundred_turns_stay_small(tmp_path: Path) -> None:
    """One run, a tool in each turn; its state keeps the last calls for audit, so what is compared comes after those."""
    with Cluster(tmp_path) as cluster:
        cluster.coordinator(wait=False)
        cluster.worker("alpha")
        client = cluster.client("alpha")
        commands = [["add", {"a": 1000 + number, "b": 1000}] for number in range(199)]
        with listening(cluster) as seen:
            run = client.start("tireless.alpha", json.dumps(commands))
            assert len(json.loads(run.result(timeout=60))["results"]) == 199
        assert len(seen.sent) == len(seen.took) == 200
        early, late = slice(KEPT_CALLS + 1, KEPT_CALLS + 21), slice(179, 199)
        within(fmean(seen.sent[early]), fmean(seen.sent[late]), "bytes sent for a commit of a run")
        print(f"µs in Redis for a commit: {cheap(seen.took[early]):.0f}, then {cheap(seen.took[late]):.0f}")
        assert len(client.thread(run.status().thread_id).state()["__tool_call_scope"]) == KEPT_CALLS
