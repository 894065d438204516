"""Tools in a pool of their own under faults: either worker dies at every crash point, and the pool is away for long."""

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from techrevati.fleet.client import Client, Run
from tests.acceptance.support import Cluster, Process, eventually
from tests.chaos.scripts import noting
from tests.chaos.seams import Trace, kept, left_by, marks, renamed

ERRAND: list[Any] = [
    ["crunch", {"name": "a"}],
    [["crunch", {"name": "b"}], ["mark", {"name": "c"}], ["crunch", {"name": "d"}]],
]
"""A call that goes to its pool alone, and two that go there beside one that does not."""
CROSSINGS = {
    "after_claim": 8,
    "before_commit": 8,
    "after_commit": 8,
    "before_step": 4,
    "after_step": 4,
    "before_child": 3,
    "after_child": 3,
    "in_tool": 1,
    "in_pool": 3,
}
"""How often an undisturbed errand comes by each crash point: five turns of the agent, three calls in the pool."""
SMOKE = {("after_child", 2)}


class Scene:
    """One cluster for all crash points: a worker of the agent and one of the pool; who dies is replaced."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.coordinator(wait=False)
        self.workers: dict[str, Process] = {role: cluster.worker(role, wait=False) for role in ("alpha", "beta")}
        for worker in self.workers.values():
            cluster.wait_worker(worker)
        self.client: Client = cluster.client("alpha")
        self.undisturbed = self.errand()

    def replace_the_dead(self) -> list[str]:
        dead = [role for role, worker in self.workers.items() if not worker.alive]
        for role in dead:
            self.workers[role] = self.cluster.worker(role)
        return dead

    def kept(self, run: Run) -> set[str]:
        """Give the calls whose results are safe: with the run, or with a call's own run that is over."""
        over = [
            f"{run.id} {one.input['call_id']}"
            for one in self.client.list_runs(calls=True, status="completed", limit=1000)
            if one.parent == run.id and one.is_call
        ]
        return {*kept(self.cluster, self.client, run), *over}

    def errand(self, *, dies: bool = False, timeout: float = 30.0) -> Trace:
        self.replace_the_dead()  # a crash point before this one may have failed
        cluster, client = self.cluster, self.client
        asked = len(cluster.told("asked "))
        run = client.start("smith.alpha", json.dumps(ERRAND))
        trace, deadline = Trace(run, None, Counter()), time.monotonic() + timeout
        while True:
            over = run.status().status.is_terminal
            if dies and over and not trace.died:  # the last commit is seen a moment before the death that follows it
                eventually(lambda: not all(one.alive for one in self.workers.values()), "somebody dies", 10)
            if dies and not trace.died and not all(one.alive for one in self.workers.values()):
                trace.died, trace.before, trace.kept = True, marks(cluster, run), self.kept(run)
                self.replace_the_dead()
            if over:
                break
            assert time.monotonic() < deadline, run.status()
            time.sleep(0.02)
        trace.marks, trace.thread = marks(cluster, run), renamed(left_by(client, run))
        trace.asked = len(cluster.told("asked ")) - asked
        return trace


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("heavy"), lease_ttl=1.0, lease_renewal=0.25) as cluster:
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
    assert trace.run.children() == []
    assert len(trace.marks) == 4 and max(trace.marks.values()) <= 2
    again = {call for call, often in trace.marks.items() if often > trace.before[call] > 0}
    assert not again & trace.kept, "a result that was kept is not made again"
    keys = dict(line.split()[2:4] for line in cluster.told(f"crunch {trace.run.id}"))
    assert all(call == key for call, key in keys.items()) and len(keys) == 3, "a call keeps its key"
    assert trace.asked - scene.undisturbed.asked in ((0, 1) if seam == "before_step" else (0,))
    cluster.healthy(keys=True)


@pytest.mark.chaos
def test_errand_comes_by_every_crash_point_as_often_as_the_matrix_says(cluster: Cluster, scene: Scene) -> None:
    for seam in CROSSINGS:
        cluster.arm(seam, 1000)
    scene.errand()
    left = {seam: 1000 - int((cluster.home / f"seam-{seam}").read_text()) for seam in CROSSINGS}
    for seam in CROSSINGS:
        (cluster.home / f"seam-{seam}").unlink()
    assert left == CROSSINGS


def holding(client: Client, name: str, *commands: Any) -> Run:
    return client.start("smith.alpha", json.dumps([[["crunch", {"name": "a", "wait": name}], *commands]]))


def test_call_whose_worker_is_killed_runs_again_within_the_lease_and_a_second(cluster: Cluster, scene: Scene) -> None:
    run = holding(scene.client, "killed", ["add", {"a": 1, "b": 2}])
    cluster.wait_told(f"crunch {run.id}")
    fresh = cluster.worker("beta")
    doomed, scene.workers["beta"] = scene.workers["beta"], fresh
    doomed.kill()
    cluster.wait_told(f"crunch {run.id}", count=2)
    (call,) = [one for one in scene.client.list_runs(calls=True) if one.parent == run.id]
    events = scene.client.handle(call.run_id, created=True).events(follow=False)
    _, again = [event.at for event in events if event.type == "turn.started"]
    assert again - doomed.killed_at < 1.0 + 1.0 + 0.5, "the lease, a second, and what a busy machine takes"
    cluster.open("killed")
    assert json.loads(run.result(timeout=20))["results"] == ["a", 3]
    assert len(cluster.told(f"add {run.id}")) == 1
    first, second = (line.split() for line in cluster.told(f"crunch {run.id}"))
    assert first[3] == second[3] and first[-1] != second[-1], "the same key, another process"


@pytest.mark.chaos
def test_call_that_must_not_run_twice_is_in_doubt_when_its_worker_died(cluster: Cluster, scene: Scene) -> None:
    cluster.arm("in_launch")
    run = scene.client.start("smith.alpha", json.dumps([["launch"]]))
    eventually(lambda: not scene.workers["beta"].alive, "it dies", 10)
    scene.replace_the_dead()
    (result,) = json.loads(run.result(timeout=20))["results"]
    assert result["error"]["code"] == "in_doubt" and len(cluster.told(f"launch {run.id}")) == 1


@pytest.mark.chaos
def test_poison_call_is_a_dead_letter_and_its_run_goes_on(cluster: Cluster, scene: Scene) -> None:
    run = scene.client.start("smith.alpha", json.dumps([["crunch", {"name": "a"}], ["add", {"a": 1, "b": 1}]]))
    for _ in range(3):
        cluster.arm("in_pool")
        eventually(lambda: not scene.workers["beta"].alive, "it dies", 10)
        scene.replace_the_dead()
    dead, after = json.loads(run.result(timeout=20))["results"]
    assert dead["error"]["code"] == "dead" and "3 times" in dead["error"]["message"] and after == 2
    (letter,) = [one for one in scene.client.list_runs(calls=True, status="dead") if one.parent == run.id]
    assert letter.agent == "tool:crunch"


@pytest.mark.chaos
def test_pool_that_is_away_for_long_costs_nobody_a_place(cluster: Cluster, scene: Scene) -> None:
    scene.workers["beta"].kill()
    runs = [holding(scene.client, "away") for _ in range(150)]  # more than the agent's worker has places
    eventually(lambda: all(run.status().why == "child" for run in runs), "they wait", 20)
    busy = scene.client.start("smith.alpha", json.dumps([["add", {"a": 1, "b": 1}]]))
    assert json.loads(busy.result(timeout=10))["results"] == [2]
    time.sleep(2.5)  # leases, tickets and their patience run out, if there are any
    assert all(run.status().why == "child" and run.status().turn == 2 for run in runs)
    cluster.healthy(keys=True)
    cluster.open("away")
    scene.replace_the_dead()
    assert [json.loads(run.result(timeout=30))["results"] for run in runs] == [["a"]] * 150
    assert all(len(cluster.told(f"crunch {run.id}")) == 1 for run in runs)


@pytest.mark.chaos
def test_tickets_that_come_twice_carry_out_nothing_twice(cluster: Cluster, scene: Scene) -> None:
    with cluster.raw() as redis:
        scene.workers["beta"].kill()
        runs = [holding(scene.client, "twice") for _ in range(10)]
        eventually(lambda: all(run.status().why == "child" for run in runs), "they wait", 20)
        scene.workers["beta"] = cluster.worker("beta")
        cluster.wait_told(f"crunch {runs[-1].id}")
        template = redis.hget(next(redis.scan_iter("tickets:*beta")), "template")
        queue = "accept.role.beta"
        for n in range(20):
            redis.lpush(queue, str(template).replace("@TICKET@", f"again-{n}"))
        eventually(lambda: redis.llen(queue) == 0, "they were taken", 10)
        cluster.open("twice")
    assert [json.loads(run.result(timeout=20))["results"] for run in runs] == [["a"]] * 10
    assert all(len(cluster.told(f"crunch {run.id}")) == 1 for run in runs)


@pytest.mark.chaos
def test_run_and_call_outlive_the_death_of_everybody_but_redis(cluster: Cluster, scene: Scene) -> None:
    run = holding(scene.client, "both", ["mark", {"name": "m"}])
    cluster.wait_told(f"crunch {run.id}")
    eventually(lambda: run.status().why == "child", "it waits")
    for worker in scene.workers.values():
        worker.kill()
    cluster.open("both")
    scene.replace_the_dead()
    assert json.loads(run.result(timeout=20))["results"] == ["a", "m"]
    assert len([line for line in cluster.told(f"mark {run.id}") if "mark" in line.split()[-1]]) == 1


@pytest.mark.chaos
def test_pool_that_shuts_down_hands_its_calls_on_without_waiting_for_a_lease(cluster: Cluster, scene: Scene) -> None:
    with cluster.raw() as redis:
        run = holding(scene.client, "drained")
        cluster.wait_told(f"crunch {run.id}")
        fresh, leaving = cluster.worker("beta"), scene.workers["beta"]
        scene.workers["beta"] = fresh
        leaving.signal(signal.SIGQUIT)
        cluster.wait_told(f"crunch {run.id}", count=2)
        (call,) = [one for one in scene.client.list_runs(calls=True) if one.parent == run.id]
        assert call.attempt == 0, "nothing of it counts as a death"
        log: Any = redis.xrange(cluster.keys(call.run_id).events(call.run_id))
        kinds = [entry["type"] for _, entry in log]
        assert "turn.released" in kinds and "turn.expired" not in kinds
    cluster.open("drained")
    assert json.loads(run.result(timeout=20))["results"] == ["a"]
    leaving.wait_exit()


@pytest.mark.chaos
def test_calls_of_sub_agents_stop_with_the_run_at_the_top(cluster: Cluster, scene: Scene) -> None:
    errand = json.dumps([[["crunch", {"name": "deep", "wait": "never"}]]])
    run = scene.client.start("sender.alpha", json.dumps([["agent_run", {"agent_id": "smith.alpha", "prompt": errand}]]))
    (kid,) = eventually(run.children, "a sub-agent", 10)
    cluster.wait_told(f"crunch {kid.run_id}")
    run.cancel("enough")
    cluster.wait_told(f"stopped {kid.run_id}", 3)
    eventually(lambda: scene.client.record(kid.run_id).status == "cancelled", "it is cancelled, too")
    eventually(lambda: not cluster.findings(keys=True), "nothing is left over", 5)


@pytest.mark.chaos
def test_a_pool_with_one_place_serves_an_agent_and_its_own_calls(tmp_path: Path) -> None:
    with Cluster(tmp_path, concurrency=1) as cluster:
        cluster.coordinator(wait=False)
        cluster.worker("beta")
        client = cluster.client("beta")
        batch = [["double", {"n": n}] for n in range(5)]
        runs = [client.start("smith.beta", json.dumps([batch])) for _ in range(4)]
        assert [json.loads(run.result(timeout=20))["results"] for run in runs] == [[0, 2, 4, 6, 8]] * 4


@pytest.mark.chaos
def test_a_pooled_call_costs_the_same_late_in_a_conversation(cluster: Cluster, scene: Scene) -> None:
    """Sixty messages on one thread, each answered with one call in the pool: scripts by name, and their bytes."""
    with noting(cluster) as costs:
        for _ in range(60):
            costs.next_run()
            run = scene.client.start("smith.alpha", json.dumps([["double", {"n": 1}]]), thread_id="talk")
            assert json.loads(run.result(timeout=20))["results"] == [2]
    early, late = costs.runs[5:15], costs.runs[-10:]
    print(f"\nscripts of a run with one pooled call: {dict(late[-1].scripts)}, {late[-1].sent:,} bytes")
    for cost in (*early, *late):
        once = [cost.scripts[name] for name in ("run_start", "run_claim", "turn_commit", "thread_delete")]
        assert once == [2, 4, 4, 1], "the run, its three turns, and the call: start, claim, commit, delete"
        assert sum(cost.scripts.values()) <= 11 + 2 + 4, "two answers of the model in the journal, and deltas"
    assert fmean(cost.sent for cost in late) <= 1.2 * fmean(cost.sent for cost in early)
