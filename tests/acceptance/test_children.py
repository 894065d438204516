"""Sub-agents with real workers: other pools, waiting without a place, crashes, stopping a tree."""

import asyncio
import os
import signal
import time
from typing import Any

import pytest

from techrevati.fleet.aclient import AsyncClient
from techrevati.fleet.client import Client, Run
from techrevati.store.errors import RunNotFound, ThreadNotFound
from tests.acceptance.agents import FLEET
from tests.acceptance.support import Cluster, eventually


def send(client: Client, *children: tuple[str, Any], **more: Any) -> Run:
    return client.start("lead.alpha", {"send": children, **more}, tenant="family", project_id="p1")


def test_parent_waits_for_children_of_another_pool_and_is_woken_once(cluster: Cluster, client: Client) -> None:
    run = send(client, *(("count.beta", {"turns": n, "seconds": 0.1}) for n in (1, 2, 3)), read=True)
    eventually(lambda: run.status().why == "child", "it waits for them")
    assert [set(one) for one in run.status().waits_for] == [{"child"}] * 3
    result = run.result(timeout=15)
    kids = run.children()
    assert result["turn"] == 2
    assert result["ended"] == {kid.run_id: ["completed", list(range(1, n + 1)), None] for n, kid in enumerate(kids, 1)}
    assert result["states"] == ["completed"] * 3
    for kid in kids:
        assert (kid.role, kid.tenant, kid.project_id, kid.parent) == ("beta", "family", "p1", run.id)
        assert kid.thread_id == f"sub-agent-{kid.run_id}"
        assert client.thread(kid.thread_id, tenant="family").messages().messages == result["said"][kid.run_id]
    told = [event.type for event in run.events() if event.type.startswith("child.") and not event.n]
    assert sorted(told) == ["child.ended"] * 3 + ["child.started"] * 3


def test_parent_holds_no_place_while_it_waits(private: Cluster) -> None:
    private.coordinator(wait=False)
    private.worker("alpha", "-c", "1")  # one place: parents and children take turns on it
    client = private.client("alpha")
    runs = [send(client, ("lead.alpha", {"send": [("count.alpha", {"turns": 2})]})) for _ in range(3)]
    for run in runs:
        ((status, output, _),) = run.result(timeout=20)["ended"].values()
        assert (status, next(iter(output["ended"].values()))[:2]) == ("completed", ["completed", [1, 2]])
    private.healthy(keys=True)


@pytest.mark.parametrize("keyed", [True, False])
def test_parent_killed_between_starts_and_commit_doubles_and_loses_none(private: Cluster, keyed: bool) -> None:
    private.coordinator(wait=False)
    doomed = private.worker("alpha")
    client = private.client("alpha")
    private.client("beta")
    private.worker("beta")
    run = send(client, *(("count.beta", {"turns": 2}) for _ in range(4)), gate="never", keyed=keyed)
    first = [line.split()[3] for line in private.wait_told(f"sent {run.id} 1", count=4)]
    doomed.kill()
    private.worker("alpha")
    result = run.result(timeout=20)
    again = [line.split()[3] for line in private.told(f"sent {run.id} 2")]
    assert again == first
    assert sorted(kid.run_id for kid in run.children()) == sorted(first) == sorted(result["ended"])
    assert len(client.list_runs(role="beta")) == 4
    private.healthy(keys=True)


@pytest.mark.chaos
def test_parent_killed_in_the_middle_of_its_starts(private: Cluster) -> None:
    private.coordinator(wait=False)
    private.worker("beta")
    client, pids = private.client("alpha"), set[int]()
    run = send(client, *(("count.beta", {"turns": 1}) for _ in range(100)))
    for kill_after in (10, 40, 100):
        private.worker("alpha", wait=False)
        lines = private.wait_told(f"sent {run.id}", count=kill_after, timeout=30)
        pids.add(pid := int(lines[-1].split()[4]))
        if kill_after < 100 and run.status().turn == 1:
            os.kill(pid, signal.SIGKILL)
    result = run.result(timeout=30)
    assert len(result["ended"]) == 100
    assert result["states"] == ["completed"] * 100
    assert len(run.children()) == len(client.list_runs(role="beta", limit=1000)) == 100
    private.healthy(keys=True)


@pytest.mark.chaos
def test_a_killed_childs_worker_delays_its_parent_and_no_more(private: Cluster) -> None:
    private.coordinator(wait=False)
    private.worker("alpha")
    doomed = private.worker("beta")
    client = private.client("alpha")
    run = send(client, ("count.beta", {"turns": 3, "seconds": 0.3}))
    private.wait_told("count ", count=2)
    doomed.kill()
    private.worker("beta")
    assert list(run.result(timeout=20)["ended"].values()) == [["completed", [1, 2, 3], None]]
    private.healthy(keys=True)


def test_first_end_wakes_whoever_waits_for_any(cluster: Cluster, client: Client) -> None:
    run = send(client, ("hold.beta", {"gate": "any"}), ("count.beta", {}), until="any")
    result = run.result(timeout=10)
    assert [status for status, _, _ in result["ended"].values()] == ["completed"]
    assert sorted(result["states"]) == ["completed", "running"]
    cluster.open("any")
    for kid in run.children():
        client.run(kid.run_id).result(timeout=10)


def test_a_wait_expires(cluster: Cluster, client: Client) -> None:
    begun = time.time()
    run = send(client, ("hold.beta", {"gate": "late"}), expires=0.5)
    result = run.result(timeout=10)
    assert (result["ended"], result["states"]) == ({}, ["running"])
    assert time.time() - begun >= 0.5
    cluster.open("late")
    client.run(run.children()[0].run_id).result(timeout=10)


def test_parent_is_told_why_a_child_failed(client: Client) -> None:
    run = send(client, ("spoil.beta", {"what": "outcome"}), ("flaky.beta", {"times": 9, "class": "prompt_rejection"}))
    ended = {status: error for status, _, error in run.result(timeout=15)["ended"].values()}
    assert ended["failed"]["message"] == "cannot be done"
    assert ended["dead"]["message"] == "no such prompt"


def test_stopping_a_run_stops_its_whole_tree(cluster: Cluster, client: Client) -> None:
    below = ("lead.alpha", {"send": [("hold.beta", {"gate": "never"}), ("ask.beta", {})]})
    run = send(client, below, ("hold.beta", {"gate": "never"}))
    tree = eventually(lambda: family(client, run) if len(family(client, run)) == 5 else [], "five runs")
    held = [one for one in tree if one.status().agent == "hold.beta"]
    for one in held:
        cluster.wait_told(f"hold {one.id}")
    root = f"{run.id} {run.status().thread_id}"  # whose budget pays for the whole tree
    paid_by = {client.store.command("HGET", cluster.keys(one.id).run(one.id), "root") for one in tree[1:]}
    assert paid_by == {root}
    run.cancel("enough")
    for one in held:
        cluster.wait_told(f"stopped {one.id}", timeout=5)
    eventually(lambda: {one.status().status for one in tree} == {"cancelled"}, "all are cancelled", 10)


def family(client: Client, run: Run) -> list[Run]:
    return [run, *(one for kid in run.children() for one in family(client, client.run(kid.run_id)))]


def test_child_has_its_parents_deadline(client: Client) -> None:
    run = client.start("lead.alpha", {"send": [("hold.beta", {"gate": "never"})]}, deadline=3.0)
    kid = eventually(run.children, "a child")[0]
    assert kid.deadline == run.status().deadline
    eventually(lambda: run.status().status == "failed", "its deadline passes", 10)
    eventually(lambda: client.record(kid.run_id).status == "failed", "and the child's", 5)


def test_an_unknown_agent_is_refused_by_name(client: Client) -> None:
    run = send(client, ("nobody", {}))
    eventually(lambda: run.status().status == "dead", "it dies")
    assert "role 'nobody' is unknown in fleet 'accept'; it has: " in run.status().error["message"]


def test_threads_of_children_are_deleted_with_their_parents(cluster: Cluster, client: Client) -> None:
    run = send(client, ("lead.alpha", {"send": [("count.beta", {"turns": 2})]}))
    run.result(timeout=15)
    tree = family(client, run)
    threads = [one.status().thread_id for one in tree]
    assert client.thread(threads[0], tenant="family").delete()
    for one, thread in zip(tree, threads, strict=True):
        with pytest.raises(RunNotFound):
            one.status()
        with pytest.raises(ThreadNotFound):
            client.thread(thread, tenant="family").status()
    cluster.healthy(keys=True)


def test_children_in_the_background_outlive_their_parent(cluster: Cluster, client: Client) -> None:
    run = send(client, ("count.beta", {"turns": 3, "seconds": 0.2}), quit=True)
    (kid,) = run.result(timeout=10)
    assert client.run(kid).result(timeout=10) == [1, 2, 3]

    async def look() -> list[str]:
        async with AsyncClient(fleet=FLEET, settings=cluster.settings) as other:
            return [one.run_id for one in await (await other.run(run.id)).children()]

    assert asyncio.run(look()) == [kid]
