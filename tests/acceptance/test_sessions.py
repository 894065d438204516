"""A session from start to result, on real workers."""

from typing import Any

import pytest

from techrevati.fleet.client import Client
from techrevati.fleet.results import NotFinished, RunFailed
from techrevati.store.errors import RunNotFound
from techrevati.store.keys import new_id
from tests.acceptance.support import Cluster


def test_turns_state_messages_and_events_come_out_in_order(cluster: Cluster, client: Client) -> None:
    run = client.start("count.alpha", {"turns": 5}, metadata={"ticket": 7}, project_id="p1")
    assert run.result(timeout=15) == [1, 2, 3, 4, 5]
    record = run.status()
    assert (record.status, record.role, record.metadata, record.project_id) == (
        "completed",
        "alpha",
        {"ticket": 7},
        "p1",
    )
    assert record.ended is not None and record.created is not None and record.ended >= record.created
    durable = [event for event in run.events() if event.n == 0]
    assert [event.seq for event in durable] == list(range(1, len(durable) + 1))
    assert [event.data["turn"] for event in durable if event.type == "counted"] == [1, 2, 3, 4, 5]
    assert (durable[0].type, durable[-1].type) == ("run.queued", "run.completed")
    with cluster.raw() as redis:
        said = redis.lrange(cluster.keys(run.id).messages("default", record.thread_id), 0, -1)
    assert len(said) == 6, said


def test_thread_keeps_its_state_from_run_to_run(client: Client) -> None:
    first = client.start("count.alpha", {"turns": 2}, thread_id="kept")
    second = client.start("count.alpha", {"turns": 2}, thread_id="kept")
    assert second.result(timeout=15) == [1, 2, 1, 2]
    assert first.result(timeout=1) == [1, 2]


def test_tenants_with_one_thread_id_have_two_threads(client: Client) -> None:
    runs = [client.start("count.alpha", {"turns": 2}, thread_id="same", tenant=name) for name in ("ann", "bob")]
    assert [run.result(timeout=15) for run in runs] == [[1, 2], [1, 2]]


def test_many_sessions_share_the_pools(client: Client) -> None:
    runs = client.start_many([{"agent": "count.alpha", "input": {"turns": 3}} for _ in range(100)])
    assert all(run.result(timeout=30) == [1, 2, 3] for run in runs)


def test_listing_filters_by_status_tenant_role_and_thread(client: Client) -> None:
    done = client.start("count.alpha", {}, tenant="lister", thread_id="l1")
    failed = client.start("spoil.beta", {"what": "outcome"}, tenant="lister", thread_id="l2")
    done.result(timeout=10)
    with pytest.raises(RunFailed, match="cannot be done"):
        failed.result(timeout=10)

    def ids(**wanted: Any) -> list[str]:
        return [record.run_id for record in client.list_runs(tenant="lister", **wanted)]

    assert set(ids()) == {done.id, failed.id}
    assert ids(status="completed") == [done.id] and ids(status="failed") == [failed.id]
    assert ids(role="beta") == [failed.id] and ids(thread_id="l1") == [done.id]
    assert ids(role="gamma") == [] and len(client.list_runs(limit=1)) == 1
    with pytest.raises(ValueError, match=r"status 'complete' is unknown; use queued, .*completed"):
        client.list_runs(status="complete")


def test_handle_works_in_another_process_by_id_alone(cluster: Cluster, client: Client) -> None:
    run = client.start("count.alpha", {"turns": 2})
    assert cluster.client().run(run.id).result(timeout=10) == [1, 2]


def test_result_that_takes_longer_than_patience_says_so_and_goes_on(cluster: Cluster, client: Client) -> None:
    run = client.start("hold.alpha", {"gate": "patience"})
    cluster.wait_told(f"hold {run.id}")
    with pytest.raises(NotFinished, match="still running; it goes on"):
        run.result(timeout=0.1)
    cluster.open("patience")
    assert run.result(timeout=10)["attempt"] == 1


def test_unknown_run_is_named(client: Client) -> None:
    missing = new_id(0)
    with pytest.raises(RunNotFound, match=missing):
        client.run(missing).result(timeout=1)
    with pytest.raises(RunNotFound, match=missing):
        list(client.run(missing).events())


def test_plain_function_agents_have_steps_models_and_turns(cluster: Cluster, client: Client) -> None:
    run = client.start("plain.alpha", {"turns": 3})
    output = run.result(timeout=15)
    assert (output["noted"], output["turn"]) == ("noted", 3)
    assert len(cluster.told(f"paid plain {run.id}")) == 3
    assert run.status().input_tokens == 30
