"""How a cancelled run ends, with its hooks, and whom an end takes with it."""

import json
from typing import Any

import pytest

from techrevati.fleet.client import Client, Run
from techrevati.fleet.results import RunFailed
from tests.acceptance.support import Cluster, eventually


def listed(client: Client, *commands: Any, agent: str = "polite.alpha", **options: Any) -> Run:
    return client.start(agent, json.dumps(commands), **options)


def ended(client: Client, run: Run) -> dict[str, Any]:
    """Wait for the end; give the run's own state of itself."""
    with pytest.raises(RunFailed, match="is cancelled: enough"):
        run.result(timeout=10)
    own: dict[str, Any] = client.thread(run.status().thread_id).state()["__run"]
    return own


def test_a_cancelled_run_ends_in_its_own_words_with_its_hooks(cluster: Cluster, client: Client) -> None:
    run = listed(client, ["hold", {"name": "never"}])
    cluster.wait_told(f"held {run.id}")
    run.cancel("enough")
    own = ended(client, run)
    assert (own["status"], own["done_reason"]) == ("done", "cancelled")
    assert cluster.told(f"farewell {run.id}") == [f"farewell {run.id} cancelled"]
    finish = [event.data for event in run.events() if event.type == "run_finish"]
    assert finish == [{"termination": {"type": "cancelled"}}]
    assert "interrupted while it was using tools" in str(client.thread(run.status().thread_id).messages().messages[-1])


@pytest.mark.parametrize("waits", ["decision", "child"])
def test_a_run_that_is_cancelled_while_it_waits_has_a_turn_for_its_hooks(
    cluster: Cluster, client: Client, waits: str
) -> None:
    asked = ["pay", {"amount": 7}]
    prompt = json.dumps([["hold", {"name": "never"}]])
    sent = ["agent_run", {"agent_id": "clerk.alpha", "prompt": prompt}]
    run = listed(client, asked if waits == "decision" else sent)
    eventually(lambda: run.status().why == waits, "it waits")
    kids = [one.run_id for one in run.children()]
    run.cancel("enough")
    own = ended(client, run)
    assert (own["status"], own["done_reason"]) == ("done", "cancelled")
    assert cluster.told(f"farewell {run.id}") == [f"farewell {run.id} cancelled"]
    eventually(lambda: all(client.record(kid).status == "cancelled" for kid in kids), "its child is stopped")
    assert run.cancel() == "cancelled"


@pytest.mark.chaos
def test_where_no_worker_lives_a_waiting_run_ends_at_once_without_its_hooks(cluster: Cluster) -> None:
    client = cluster.client("gone")
    worker = cluster.worker("gone")
    run = listed(client, ["pay", {"amount": 7}], agent="polite.gone")
    eventually(lambda: run.status().why == "decision", "it waits")
    worker.kill()
    cancelled = [run.cancel("enough"), run.cancel("enough")]
    assert cancelled[-1] == "cancelled", "at the latest when it is said twice"
    assert not cluster.told(f"farewell {run.id}")


@pytest.mark.chaos
@pytest.mark.parametrize("waits", [True, False])
def test_a_worker_that_dies_at_the_hooks_of_a_cancelled_run_leaves_them_to_the_next(
    private: Cluster, waits: bool
) -> None:
    private.coordinator(wait=False)
    client, doomed = private.client("alpha"), private.worker("alpha")
    run = listed(client, ["pay", {"amount": 7}] if waits else ["hold", {"name": "never"}])
    if waits:
        eventually(lambda: run.status().why == "decision", "it waits")
    else:
        private.wait_told(f"held {run.id}")
    private.arm("in_run_end")
    run.cancel("enough")
    eventually(lambda: not doomed.alive, "its worker dies at the hook")
    private.worker("alpha")
    own = ended(client, run)
    assert (own["status"], own["done_reason"]) == ("done", "cancelled")
    assert len(private.told(f"farewell {run.id}")) == 2
    assert [event.type for event in run.events()].count("run.cancelled") == 1
    private.healthy(keys=True)


def test_a_run_that_fails_stops_its_children_but_not_detached_ones(cluster: Cluster, client: Client) -> None:
    holds = [("hold.beta", {"gate": "never"}), ("lead.alpha", {"send": [("hold.beta", {"gate": "never"})]})]
    kept = ("hold.beta", {"gate": "detached"})
    run = client.start("lead.alpha", {"send": [*holds, kept], "detached": [2], "gate": "failing", "fail": True})
    first, second, detached = (line.split()[3] for line in cluster.wait_told(f"sent {run.id}", count=3))
    (below,) = (line.split()[3] for line in cluster.wait_told(f"sent {second}"))
    for held in (first, below, detached):
        cluster.wait_told(f"hold {held}")
    cluster.open("failing")
    with pytest.raises(RunFailed, match="cannot go on"):
        run.result(timeout=10)
    eventually(lambda: {client.record(kid).status for kid in (first, second, below)} == {"cancelled"}, "they stop")
    assert client.record(first).cancelling == "its parent was failed"
    assert client.record(detached).status == "running"
    cluster.open("detached")
    client.run(detached).result(timeout=10)


def test_a_declared_run_that_fails_stops_what_it_waits_for_and_what_it_does_not(
    cluster: Cluster, client: Client
) -> None:
    prompt = json.dumps([["hold", {"name": "never"}]])
    sent = ["agent_run", {"agent_id": "clerk.alpha", "prompt": prompt}]
    aside = ["agent_run", {"agent_id": "clerk.alpha", "prompt": prompt, "background": True}]
    run = listed(client, [sent, aside], deadline=2.0)
    kids = eventually(lambda: kids if len(kids := run.children()) == 2 else [], "two children")
    assert {kid.deadline for kid in kids} == {run.status().deadline}
    with pytest.raises(RunFailed, match="deadline"):
        run.result(timeout=10)
    eventually(lambda: all(client.record(kid.run_id).status.is_terminal for kid in kids), "nobody goes on", 5)
