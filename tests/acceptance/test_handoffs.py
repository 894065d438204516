"""Handoffs between pools, placed by a real coordinator."""

import pytest

from techrevati.fleet.client import Client
from techrevati.fleet.results import RunFailed
from tests.acceptance.support import Cluster, eventually


def test_run_goes_back_and_forth_between_two_pools(client: Client) -> None:
    run = client.start("relay.alpha", {"hops": 6})
    assert run.result(timeout=15) == ["relay.alpha", "relay.beta"] * 3 + ["relay.alpha"]
    record = run.status()
    assert (record.hops, record.role, record.agent) == (6, "alpha", "relay.alpha")
    asked = [event.data for event in run.events() if event.type == "handoff.requested"]
    assert [(one["source"], one["target"]) for one in asked[:2]] == [
        ("relay.alpha", "relay.beta"),
        ("relay.beta", "relay.alpha"),
    ]


def test_ping_pong_has_a_limit(client: Client) -> None:
    run = client.start("relay.alpha", {"hops": 60})
    with pytest.raises(RunFailed, match="back and forth more than 20 times"):
        run.result(timeout=20)


def test_hops_have_a_limit(private: Cluster) -> None:
    private.given["hop_limit"] = 3
    private.coordinator(wait=False)
    for role, peer in (("alpha", "beta"), ("beta", "alpha")):
        private.worker(role, peer=peer, wait=False)
    run = private.client("alpha", peer="beta").start("relay.alpha", {"hops": 60})
    with pytest.raises(RunFailed, match="handed off 4 times; the limit is 3"):
        run.result(timeout=20)
    private.healthy()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("count.beta", r"stray.alpha may hand off to nobody, not to 'count.beta'; fix: .*handoffs=\('count.beta'"),
        ("nobody", r"stray.alpha handed off to 'nobody', which the fleet has not declared; it has: .*count.alpha"),
    ],
)
def test_refused_target_fails_with_the_fix(client: Client, target: str, says: str) -> None:
    run = client.start("stray.alpha", {"to": target})
    with pytest.raises(RunFailed, match=says):
        run.result(timeout=10)


def test_handoff_to_an_empty_pool_waits_visibly_until_it_starts(cluster: Cluster) -> None:
    client = cluster.client("late", peer="early")
    cluster.client("early", peer="late")
    cluster.worker("early", peer="late")
    run = client.start("relay.early", {"hops": 1})

    def waits() -> bool:
        record = run.status()
        return record.status == "waiting" and "no live worker in pool 'late'" in f"{record.why} {record.detail}"

    eventually(waits, f"it waits for the pool: {run.status()}")
    cluster.healthy()
    cluster.worker("late", peer="early")
    assert run.result(timeout=10) == ["relay.early", "relay.late"]


def test_handoff_in_a_roll_out_waits_for_an_agent_that_nobody_has_declared_yet(private: Cluster) -> None:
    private.coordinator(wait=False)
    private.worker("alpha", peer="beta")
    run = private.client("alpha", peer="beta").start("relay.alpha", {"hops": 1})

    def waits() -> bool:
        record = run.status()
        said = f"{record.why} {record.detail}"
        return record.status == "waiting" and "no worker has declared agent 'relay.beta' yet" in said

    eventually(waits, f"it waits for the agent: {run.status()}")
    private.healthy()
    private.worker("beta", peer="alpha")
    assert run.result(timeout=10) == ["relay.alpha", "relay.beta"]


def test_start_for_an_empty_pool_waits_until_it_starts(cluster: Cluster) -> None:
    run = cluster.client("empty").start("count.empty", {"turns": 2})
    assert run.status().status == "queued"
    cluster.worker("empty")
    assert run.result(timeout=10) == [1, 2]


def test_fallback_takes_what_its_pool_cannot(cluster: Cluster) -> None:
    cluster.client("fallen")
    client = cluster.client("climber", peer="fallen")
    cluster.worker("climber", peer="fallen")
    run = client.start("relay.climber", {"hops": 1})
    assert run.result(timeout=10) == ["relay.climber", "relay.alpha"]
