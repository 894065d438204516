"""RabbitMQ carries the tickets, Redis has the truth: no guarantee changes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.rabbit import PrivateRabbit, find_rabbit
from tests.acceptance.support import Cluster

SERVER = find_rabbit()
pytestmark = pytest.mark.skipif(
    SERVER is None and not os.environ.get("REQUIRE_RABBITMQ"), reason="rabbitmq-server is not installed"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    assert SERVER is not None, "REQUIRE_RABBITMQ is set, and there is no rabbitmq-server"
    home: Path = tmp_path_factory.mktemp("rabbit")
    with PrivateRabbit(home / "broker", SERVER) as rabbit, Cluster(home / "cluster", broker_url=rabbit.url) as cluster:
        cluster.coordinator(wait=False)
        workers = [
            cluster.worker("alpha", peer="beta", wait=False),
            cluster.worker("beta", peer="alpha", wait=False),
        ]
        for worker in workers:
            cluster.wait_worker(worker)
        yield cluster
        cluster.healthy(keys=True)


def test_main_flow_with_handoffs(cluster: Cluster) -> None:
    client = cluster.client("alpha", peer="beta")
    counts = [client.start("count.alpha", {"turns": 5}) for _ in range(20)]
    relay = client.start("relay.alpha", {"hops": 4})
    nap = client.start("nap.beta", {"seconds": 0.3})
    assert all(run.result(timeout=20) == [1, 2, 3, 4, 5] for run in counts)
    assert relay.result(timeout=20) == ["relay.alpha", "relay.beta"] * 2 + ["relay.alpha"]
    nap.result(timeout=10)
    cluster.healthy()


def test_killed_worker_costs_a_lease(cluster: Cluster) -> None:
    client = cluster.client("gamma")
    victim = cluster.worker("gamma")
    run = client.start("steps.gamma", {"gate": "never"})
    cluster.wait_told(f"second {run.id}")
    victim.kill()
    cluster.worker("gamma")
    assert run.result(timeout=20) == {"first": "done", "second": 2}
    cluster.healthy()


def test_warm_shutdown_ends(cluster: Cluster) -> None:
    worker = cluster.worker("delta")
    assert cluster.client("delta").start("count.delta", {"turns": 3}).result(timeout=20) == [1, 2, 3]
    worker.signal(signal.SIGTERM)
    assert worker.wait_exit() == 0
