"""One cluster for all tests that break nothing; their roles, threads and tenants keep them apart."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from techrevati.fleet.client import Client
from tests.acceptance.support import Cluster


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two roles, alpha and beta, that hand off to each other, and a coordinator."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        started = [
            cluster.coordinator(wait=False),
            cluster.worker("alpha", peer="beta", wait=False),
            cluster.worker("beta", peer="alpha", wait=False),
        ]
        for worker in started[1:]:
            cluster.wait_worker(worker)
        yield cluster
        cluster.healthy(keys=True)


@pytest.fixture
def cluster(shared: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The shared cluster, whole again after each test."""
    before = len(shared.processes)
    yield shared
    for process in shared.processes[before:]:
        process.kill()
    shared.healthy()


@pytest.fixture
def client(cluster: Cluster) -> Client:
    """An application's client that knows both roles."""
    return cluster.client("alpha", peer="beta")


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that a test may break as it likes."""
    with Cluster(tmp_path) as cluster:
        yield cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Cluster):
                report.sections.append(("cluster logs", value.logs()))
                break
    return report
