"""The modes of a tool round on the fleet: conflicts, answers one by one or all together, and the order of events."""

import json
from typing import Any

import pytest

from techrevati.fleet.client import Client, Run
from tests.acceptance.support import Cluster, eventually

PAY: list[Any] = [["pay", {"amount": 1}], ["pay", {"amount": 2}]]


def listed(client: Client, *commands: Any, agent: str = "smith.alpha") -> Run:
    return client.start(agent, json.dumps(commands))


def results(run: Run) -> list[Any]:
    return list(json.loads(run.result(timeout=20))["results"])


def asked_by(run: Run) -> dict[int, str]:
    """Give the calls that wait, by the amount they are about."""
    waiting = run.status().waits_for or () if run.status().why == "decision" else ()
    return {one["payload"]["pending"]["arguments"]["amount"]: one["call_id"] for one in waiting}


def told(run: Run) -> list[Any]:
    return [event for event in run.events() if event.n == 0]


def test_a_parallel_call_whose_patch_meets_anothers_runs_again_alone(cluster: Cluster, client: Client) -> None:
    run = listed(client, [["enter_here", {"n": n}] for n in (1, 2)])
    assert results(run) == [{"before": 0, "attempt": 1}, {"before": 1, "attempt": 2}]
    assert client.thread(run.status().thread_id).state()["sum"]["value"] == 3
    assert len(cluster.told(f"enter_here {run.id}")) == 3


def test_light_and_pooled_calls_of_a_round_conflict_like_any_two(cluster: Cluster, client: Client) -> None:
    run = listed(client, [["enter", {"n": 1}], ["enter_here", {"n": 2}], ["ballot", {"n": 3}]])
    assert results(run) == [{"before": 0, "attempt": 1}, {"before": 1, "attempt": 2}, 3]
    assert client.thread(run.status().thread_id).state()["sum"]["value"] == 3
    assert len(cluster.told(f"enter {run.id}")) == 1 and len(cluster.told(f"enter_here {run.id}")) == 2


def test_streaming_goes_on_with_each_call_as_soon_as_it_is_answered(cluster: Cluster, client: Client) -> None:
    run = listed(client, PAY)
    calls = eventually(lambda: asked_by(run), "it asks")
    run.decide(calls[2], payload="bob")
    cluster.wait_told(f"payed {run.id} 2")
    eventually(lambda: list(asked_by(run)) == [1], "it waits for the other")
    assert not cluster.told(f"payed {run.id} 1")
    run.decide(calls[1], payload="ann")
    assert results(run) == [{"paid": 1, "by": "ann"}, {"paid": 2, "by": "bob"}]
    resumed = [(event.type, event.data.get("target_id") or event.data.get("id")) for event in told(run)]
    order = [one for one in resumed if one[0] in ("tool_call_resumed", "tool_call_done")]
    assert order == [(kind, calls[n]) for n in (2, 1) for kind in ("tool_call_resumed", "tool_call_done")]


def test_batch_approval_goes_on_with_none_before_all_are_answered(cluster: Cluster, client: Client) -> None:
    run = listed(client, PAY, agent="batcher.alpha")
    calls = eventually(lambda: asked_by(run), "it asks")
    run.decide(calls[2], payload="bob")
    eventually(lambda: list(asked_by(run)) == [1], "it waits for the other")
    assert not cluster.told(f"payed {run.id}")
    run.decide(calls[1], payload="ann")
    assert results(run) == [{"paid": 1, "by": "ann"}, {"paid": 2, "by": "bob"}]


def test_a_sequential_round_stops_at_the_first_call_that_waits(cluster: Cluster, client: Client) -> None:
    run = listed(client, [["add", {"a": 1, "b": 1}], PAY[0], ["add", {"a": 2, "b": 2}]], agent="liner.alpha")
    calls = eventually(lambda: asked_by(run), "it asks")
    assert len(cluster.told(f"add {run.id}")) == 1
    run.decide(calls[1], payload="ann")
    run.result(timeout=20)
    assert len(cluster.told(f"add {run.id}")) == 1, "what comes behind it was never started"


@pytest.mark.parametrize("agent", ["smith.alpha", "liner.alpha"])
def test_events_of_a_round_stand_in_the_order_that_clients_rely_on(
    cluster: Cluster, client: Client, agent: str
) -> None:
    run = listed(client, [["add", {"a": 1, "b": 1}], ["enter", {"n": 1}]], agent=agent)
    run.result(timeout=20)
    events = [event for event in told(run) if "." not in event.type]
    kinds = [event.type for event in events]
    assert kinds[0] == "run_start" and kinds[-1] == "run_finish" and kinds.count("run_finish") == 1
    first = kinds[kinds.index("step_start") : kinds.index("step_start", kinds.index("step_end"))]
    assert first == [
        *("step_start", "inference_complete", "step_end"),
        *("tool_call_ready", "tool_call_ready", "tool_call_done", "tool_call_done", "state_snapshot"),
    ]
    said = client.thread(run.status().thread_id).messages().messages
    assert events[kinds.index("step_start")].data["message_id"] == said[1]["id"]
    done = [event.data for event in events if event.type == "tool_call_done"]
    assert [one["message_id"] for one in done] == [one["id"] for one in said if one["role"] == "tool"]
    assert [one["outcome"] for one in done] == ["succeeded", "succeeded"]
    assert done[1]["patch"], "a pooled call's patch is told with its result"
