"""Failures: retried by class, ending in the dead letter, never silent, never contagious."""

import pytest

from techrevati.fleet.client import Client
from techrevati.fleet.results import RunFailed
from tests.acceptance.support import Cluster, eventually


@pytest.mark.parametrize("failure", ["llm_error", "llm_timeout", "rate_limit", "dependency_failed"])
def test_passing_failure_is_tried_again(client: Client, failure: str) -> None:
    run = client.start("flaky.alpha", {"class": failure, "times": 2})
    assert run.result(timeout=10) == {"failures": 2}
    retries = [event.data for event in run.events() if event.type == "turn.retry"]
    assert [one["failure"] for one in retries] == [failure] * 2


def test_lasting_failure_is_not_tried_again(client: Client) -> None:
    run = client.start("flaky.alpha", {"class": "prompt_rejection", "times": 1})
    with pytest.raises(RunFailed, match="is dead: no such prompt; fix the cause, then `techrevati retry` it"):
        run.result(timeout=10)
    assert run.status().error["failure"] == "prompt_rejection"


def test_spent_tries_are_a_dead_letter_that_retry_brings_back(cluster: Cluster, client: Client) -> None:
    run = client.start("flaky.alpha", {"class": "llm_error", "times": 99, "mended": "mended"})
    with pytest.raises(RunFailed, match="it went wrong"):
        run.result(timeout=10)
    assert run.status().error["tries"] == 3
    assert [record.run_id for record in client.list_runs(status="dead") if record.run_id == run.id]
    cluster.healthy()
    cluster.open("mended")
    run.retry()
    assert run.result(timeout=10)["failures"] >= 0
    assert [event.type for event in run.events()][-1] == "run.completed"


def test_backoff_grows(cluster: Cluster, client: Client) -> None:
    run = client.start("flaky.alpha", {"class": "llm_error", "times": 2})
    run.result(timeout=10)
    first, second, third = [float(line.split()[3]) for line in cluster.told(f"flaky {run.id}")]
    assert second - first >= 0.025 and third - second >= 0.05


def test_turn_that_takes_too_long_is_stopped(cluster: Cluster, client: Client) -> None:
    run = client.start("hasty.alpha", {"gate": "never"})
    with pytest.raises(
        RunFailed, match=r"a turn of alpha ran longer than 0.3 s; fix: fleet.agent\('alpha', timeout=…\)"
    ):
        run.result(timeout=10)
    assert cluster.told(f"stopped {run.id}")


def test_provider_that_says_when_gets_its_wait_without_a_place(cluster: Cluster, client: Client) -> None:
    run = client.start("think.alpha", {"ask": "busy line"})
    eventually(lambda: run.status().why == "model:paid", "it is parked")
    assert run.result(timeout=10)["failures"] == 0
    assert len(cluster.told("paid busy line")) == 2


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("state", r"state\['bad'\] is not JSON .*set.*fix: use dict, list"),
        ("output", "output is 2,097,154 bytes, over the limit of 1,048,576; fix: .*TECHREVATI_MAX_PAYLOAD"),
        ("model", "model 'nobody' is unknown; known: .*paid; fix: fleet.model"),
        ("outcome", "cannot be done"),
    ],
)
def test_what_cannot_be_kept_says_why_and_leaves_nothing_half_written(
    cluster: Cluster, client: Client, what: str, says: str
) -> None:
    run = client.start("spoil.alpha", {"what": what}, thread_id=f"spoilt-{what}")
    with pytest.raises(RunFailed, match=says):
        run.result(timeout=10)
    if what != "outcome":
        keys = cluster.keys(run.id)
        with cluster.raw() as redis:
            assert redis.llen(keys.messages("default", f"spoilt-{what}")) == 0
            assert redis.exists(keys.checkpoints("default", f"spoilt-{what}")) == 0


def test_poison_run_dies_alone(cluster: Cluster) -> None:
    """It takes its worker down three times; its neighbours lose attempts to it, but never their last one."""
    client = cluster.client("ward")
    cluster.worker("ward")
    neighbours = client.start_many([{"agent": "count.ward", "input": {"turns": 6, "seconds": 0.4}} for _ in range(10)])
    run = client.start("poison.ward", {})
    workers = 1
    while run.status().status != "dead":
        dead = [one for one in cluster.processes[-workers:] if not one.alive]
        if len(dead) == workers:
            assert workers < 6, "poison takes more workers than it has attempts"
            cluster.worker("ward")
            workers += 1
    with pytest.raises(RunFailed, match="lost its worker 3 times"):
        run.result(timeout=1)
    assert len(cluster.told(f"poison {run.id}")) == 3
    cluster.worker("ward")
    assert all(one.result(timeout=20) == [1, 2, 3, 4, 5, 6] for one in neighbours)
