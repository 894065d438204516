"""Workers and their registry."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from techrevati.runtime import (
    AgentRegistry,
    AgentStatus,
    AgentWorker,
    InvalidTransitionError,
)
from techrevati.runtime.agent_lifecycle import BoundedAgentRegistry

S = AgentStatus
ALLOWED = {
    S.IDLE: {S.INITIALIZING, S.FAILED, S.CANCELLED},
    S.INITIALIZING: {S.WAITING_FOR_INPUT, S.RUNNING, S.FAILED, S.CANCELLED},
    S.WAITING_FOR_INPUT: {S.RUNNING, S.FAILED, S.CANCELLED},
    S.RUNNING: {S.WAITING_FOR_INPUT, S.COMPLETED, S.FAILED, S.CANCELLED},
}


@pytest.mark.parametrize(("current", "target"), list(itertools.product(S, S)))
def test_only_the_table_is_walked(current: S, target: S) -> None:
    worker = AgentWorker("w", "r", "p", status=current)
    if target in ALLOWED.get(current, set()):
        assert worker.transition(target).status == target.value
        assert worker.status is target
    else:
        with pytest.raises(InvalidTransitionError) as caught:
            worker.transition(target)
        assert (caught.value.current, caught.value.target) == (current, target)
        assert worker.events == []


def test_a_worker_logs_its_life() -> None:
    worker = AgentWorker("w", "r", "p")
    worker.transition(S.INITIALIZING)
    event = worker.transition(S.FAILED, "broke")
    assert (event.seq, event.kind, event.status, event.detail) == (2, "failed", "failed", "broke")
    assert worker.updated_at == event.timestamp
    assert worker.last_error == {"message": "broke", "timestamp": event.timestamp}
    record = worker.to_dict()
    assert list(record) == [
        "worker_id", "role", "phase", "project_id", "status", "retry_count", "last_error",
        "provider_used", "created_at", "updated_at", "events",
    ]  # fmt: skip
    assert "detail" not in record["events"][0]
    assert record["events"][1]["detail"] == "broke"


def test_failing_without_detail_leaves_no_error() -> None:
    worker = AgentWorker("w", "r", "p")
    worker.transition(S.FAILED)
    assert worker.last_error is None
    assert worker.is_terminal


def test_registry_finds_workers() -> None:
    registry = AgentRegistry()
    first, second = registry.create("r", "p", 1), registry.create("r", "p", 1)
    assert first.worker_id.startswith("r-p-")
    assert len(first.worker_id) == len("r-p-") + 8
    assert registry.get(first.worker_id) is first
    assert registry.get("nobody") is None
    assert registry.get_by_role_phase("r", "p") is first
    registry.transition(first.worker_id, S.CANCELLED)
    assert registry.get_by_role_phase("r", "p") is second
    assert registry.list_active() == [second]
    assert registry.get_by_project(1) == [first, second]
    assert registry.get_by_role_phase("r", "other") is None
    registry.clear()
    assert registry.get_by_project(1) == []


def test_registry_names_the_worker_it_does_not_know() -> None:
    with pytest.raises(KeyError, match="Worker not found: x"):
        AgentRegistry().transition("x", S.RUNNING)


def test_a_busy_id_is_not_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["a" * 32, "a" * 32, "b" * 32])
    monkeypatch.setattr("techrevati.runtime.agent_lifecycle.uuid.uuid4", lambda: SimpleNamespace(hex=next(ids)))
    registry = AgentRegistry()
    assert registry.create("r", "p").worker_id == "r-p-aaaaaaaa"
    assert registry.create("r", "p").worker_id == "r-p-bbbbbbbb"


def test_bounded_registry_forgets_the_oldest_finished_only() -> None:
    registry = BoundedAgentRegistry(keep_finished=2)
    workers = [registry.create("r", "p") for _ in range(4)]
    for worker in workers[:3]:
        registry.transition(worker.worker_id, S.CANCELLED)
    known = [registry.get(worker.worker_id) for worker in workers]
    assert known == [None, *workers[1:]]
    registry.clear()
    assert registry.get(workers[3].worker_id) is None
    with pytest.raises(ValueError, match="keep_finished must be >= 0, got -1"):
        BoundedAgentRegistry(-1)


def test_plain_registry_keeps_finished_workers() -> None:
    registry = AgentRegistry()
    workers = [registry.create("r", "p") for _ in range(2000)]
    for worker in workers:
        registry.transition(worker.worker_id, S.CANCELLED)
    assert registry.get(workers[0].worker_id) is workers[0]


def test_threads_share_a_registry() -> None:
    registry = BoundedAgentRegistry(keep_finished=10)
    barrier = threading.Barrier(8)

    def work(n: int) -> int:
        barrier.wait()
        done = 0
        for _ in range(50):
            worker = registry.create(f"r{n}", "p", n)
            registry.transition(worker.worker_id, S.INITIALIZING)
            registry.list_active()
            registry.transition(worker.worker_id, S.CANCELLED)
            done += 1
        return done

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 400
    assert registry.list_active() == []
    assert sum(len(registry.get_by_project(n)) for n in range(8)) == 10
