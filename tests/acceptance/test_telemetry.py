"""One session is one trace and one thread through the logs, across workers and handoffs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.acceptance.support import Cluster, eventually


def spans(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def lines(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def traced(shared: Cluster) -> Iterator[dict[str, Path]]:
    """Two roles whose workers write spans to files and logs as JSON."""
    files = {role: shared.home / f"spans-{role}" for role in ("here", "there")}
    workers = [
        shared.worker(
            role,
            peer=peer,
            wait=False,
            env={
                "TECHREVATI_OTEL": "true",
                "TECHREVATI_OTEL_FILE": str(files[role]),
                "TECHREVATI_LOG_JSON": "true",
                "OTEL_METRIC_EXPORT_INTERVAL": "200",
                "ACCEPTANCE_LIMITS": "1",
            },
        )
        for role, peer in (("here", "there"), ("there", "here"))
    ]
    for worker in workers:
        shared.wait_worker(worker)
    yield files
    for worker in workers:
        worker.kill()


def test_spans_of_two_workers_hang_under_the_span_that_started_the_run(
    cluster: Cluster, traced: dict[str, Path]
) -> None:
    client = cluster.client("here", peer="there")
    tracer = TracerProvider().get_tracer("app")
    with tracer.start_as_current_span("request") as span:
        context = span.get_span_context()
        run = client.start("relay.here", {"hops": 2})
    assert run.result(timeout=15) == ["relay.here", "relay.there", "relay.here"]
    trace_id = f"0x{context.trace_id:032x}"

    def turns() -> list[dict[str, Any]]:
        every = [one for path in traced.values() for one in spans(path)]
        found = [one for one in every if one["attributes"].get("techrevati.run_id") == run.id]
        return found if len(found) == 3 else []

    found = eventually(turns, "three spans of turns")
    assert {one["context"]["trace_id"] for one in found} == {trace_id}
    assert {one["parent_id"] for one in found} == {f"0x{context.span_id:016x}"}
    assert {one["name"] for one in found} == {"turn here", "turn there"}
    assert sorted(one["attributes"]["techrevati.move"] for one in found) == ["complete", "handoff", "handoff"]
    assert all(len(one["links"]) == 1 for one in found)
    wanted = {one["links"][0]["context"]["span_id"] for one in found}

    def tickets() -> list[dict[str, Any]]:
        every = [one for path in traced.values() for one in spans(path)]
        linked = [one for one in every if one["context"]["span_id"] in wanted]
        return linked if len(linked) == len(wanted) else []

    # A ticket's span ends, and is written, a moment after the span of its turn.
    linked = eventually(tickets, "the spans of their tickets")
    assert {one["attributes"]["celery.task_name"] for one in linked} == {"techrevati.turn"}


def test_a_worker_exports_what_its_gates_and_budgets_did(cluster: Cluster, traced: dict[str, Path]) -> None:
    client = cluster.client("here", peer="there")
    assert client.start("dial.here", {"model": "rationed"}).result(timeout=15)["text"] == "so"
    path = Path(f"{traced['here']}.metrics")

    def measured() -> dict[str, Any]:
        for data in reversed(spans(path)):
            scopes = [scope for resource in data["resource_metrics"] for scope in resource["scope_metrics"]]
            found = {metric["name"]: metric["data"]["data_points"] for scope in scopes for metric in scope["metrics"]}
            if "techrevati.gate.calls" in found and "techrevati.budget.tokens" in found:
                return found
        return {}

    found = eventually(measured, "metrics in the file")
    [calls] = found["techrevati.gate.calls"]
    assert (calls["attributes"], calls["value"]) == (
        {"gate": "rationed", "outcome": "admitted", "reason": "fleet"},
        1,
    )
    assert {point["attributes"]["scope"] for point in found["techrevati.budget.tokens"]} == {"run", "thread", "tenant"}


def test_logs_carry_run_turn_and_trace_ids(cluster: Cluster, traced: dict[str, Path]) -> None:
    client = cluster.client("here", peer="there")
    run = client.start("count.here", {"turns": 2})
    run.result(timeout=15)
    worker = next(one for one in cluster.processes if one.name == "worker-here" and one.alive)
    mine = eventually(
        lambda: [line for line in lines(worker.log()) if line.get("run_id") == run.id], "lines of the run in the log"
    )
    assert [(line["turn"], line["message"]) for line in mine] == [(1, "turn 1 counts"), (2, "turn 2 counts")]
    assert {line["trace_id"] for line in mine} == {run.id[:32]}
    assert {line["role"] for line in mine} == {"here"}


def test_plain_logs_carry_them_too(cluster: Cluster) -> None:
    client = cluster.client("alpha")
    run = client.start("count.alpha", {})
    run.result(timeout=15)
    worker = next(one for one in cluster.processes if one.name == "worker-alpha" and one.alive)
    eventually(
        lambda: [line for line in worker.log().splitlines() if f"run_id={run.id} turn=1 trace_id=" in line],
        "a line with the run's ids",
    )
