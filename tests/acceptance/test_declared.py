"""Declared agents on the fleet: one step of the agent loop per turn, with real workers."""

import json
from typing import Any

import pytest

from techrevati.fleet.client import Client, Run
from techrevati.fleet.results import RunFailed
from tests.acceptance.support import Cluster, eventually


def listed(client: Client, *commands: Any, agent: str = "clerk.alpha", **options: Any) -> Run:
    return client.start(agent, json.dumps(commands), **options)


def answer(run: Run, timeout: float = 20) -> Any:
    return json.loads(run.result(timeout=timeout))


ADD = ["add", {"a": 2, "b": 3}]


def test_each_step_of_the_loop_is_a_turn(cluster: Cluster, client: Client) -> None:
    run = listed(client, ADD, ["add", {"a": 5, "b": 5}], thread_id="sums")
    assert answer(run) == {"results": [5, 10], "heard": []}
    assert run.status().turn == 3
    assert (run.status().input_tokens, run.status().output_tokens) == (30, 12)
    said = client.thread("sums").messages().messages
    assert [one["role"] for one in said] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert len({one["id"] for one in said}) == 6
    told = [event.type for event in run.events() if event.n == 0 and event.type != "model.called"]
    for kind in ("run_start", "step_start", "tool_call_ready", "tool_call_done", "inference_complete", "step_end"):
        assert kind in told
    assert told[-2:] == ["turn.committed", "run.completed"]
    assert told.count("step_end") == 3
    assert client.thread("sums").state()["__run"]["status"] == "done"


def test_a_second_run_goes_on_with_the_conversation(client: Client) -> None:
    assert answer(listed(client, ADD, thread_id="twice"))["results"] == [5]
    assert answer(listed(client, ["add", {"a": 1, "b": 1}], thread_id="twice"))["results"] == [2]
    assert len(client.thread("twice").messages().messages) == 8


def test_tools_and_models_that_answered_are_not_asked_again_after_a_kill(private: Cluster) -> None:
    private.coordinator(wait=False)
    doomed = private.worker("alpha")
    client = private.client("alpha")
    run = listed(client, ADD, ["hold", {"name": "gate"}], ADD)
    private.wait_told(f"held {run.id}")
    doomed.kill()
    private.worker("alpha")
    private.wait_told(f"held {run.id}", count=2)
    private.open("gate")
    assert answer(run)["results"] == [5, "gate", 5]
    assert len(private.told(f"add {run.id}")) == 2, "each of the two once"
    assert len(private.told("asked ")) == 4, "no answer was paid twice"
    said = client.thread(run.status().thread_id).messages().messages
    assert len(said) == len({one["id"] for one in said}) == 8
    private.healthy(keys=True)


def test_crashes_around_every_commit_change_nothing(private: Cluster) -> None:
    private.coordinator(wait=False)
    client = private.client("alpha")
    workers = [private.worker("alpha")]
    runs = [listed(client, ADD, ["add", {"a": n, "b": n}], ADD) for n in range(3)]
    for seam in ("before_commit", "after_commit", "after_claim"):
        private.arm(seam)
        eventually(lambda: not workers[-1].alive or all(r.status().status.is_terminal for r in runs), seam, 10)
        workers.append(private.worker("alpha"))
    assert [answer(run)["results"] for run in runs] == [[5, 2 * n, 5] for n in range(3)]
    for run in runs:
        said = client.thread(run.status().thread_id).messages().messages
        assert len(said) == len({one["id"] for one in said}) == 8
    private.healthy(keys=True)


def test_suspended_call_waits_without_a_worker_and_goes_on_with_its_decision(cluster: Cluster, client: Client) -> None:
    run = listed(client, ["pay", {"amount": 7}], ADD)
    eventually(lambda: run.status().why == "decision", "it asks")
    (asked,) = run.status().waits_for
    assert asked["payload"]["pending"]["arguments"] == {"amount": 7}
    run.decide(asked["call_id"], payload="ann")
    assert answer(run)["results"] == [{"paid": 7, "by": "ann"}, 5]
    assert len(cluster.told(f"payed {run.id}")) == 1


def test_denied_call_is_told_to_the_model(client: Client) -> None:
    run = listed(client, ["pay", {"amount": 7}])
    eventually(lambda: run.status().why == "decision", "it asks")
    run.decide(run.status().waits_for[0]["call_id"], action="cancel")
    assert answer(run)["results"] == [None]


def test_nobodys_decision_is_the_default_in_time(client: Client) -> None:
    run = listed(client, ["pay", {"amount": 7}], agent="short.alpha")
    assert answer(run)["results"] == [None]
    assert run.status().turn >= 2


def test_steering_reaches_the_loop(cluster: Cluster, client: Client) -> None:
    run = listed(client, ["hold", {"name": "steer"}], ADD)
    cluster.wait_told(f"held {run.id}")
    run.steer("mind the gap")
    cluster.open("steer")
    assert answer(run) == {"results": ["steer", 5], "heard": ["mind the gap"]}


def test_stop_conditions_and_outputs_are_results(client: Client) -> None:
    run = listed(client, ADD, ADD, ADD, ADD, agent="brief.alpha")
    result = run.result(timeout=20)
    assert result["termination"]["type"] == "stopped"
    run = listed(client, ADD, ["final_answer", {"total": 5}], agent="total.alpha")
    assert run.result(timeout=20) == {"total": 5}


def test_sub_agent_in_another_pool_parks_its_parent(cluster: Cluster, client: Client) -> None:
    errand = json.dumps([["add", {"a": 20, "b": 22}], ["wait_a_little", {"seconds": 0.3}]])
    run = listed(client, ["agent_run", {"agent_id": "clerk.beta", "prompt": errand}], ADD)
    eventually(lambda: run.status().why == "child", "it waits for its child", 10)
    done = answer(run)
    assert json.loads(done["results"][0]["output"])["results"] == [42, 0.3]
    assert done["results"][1] == 5
    (kid,) = run.children()
    assert (kid.role, kid.agent, kid.thread_id) == ("beta", "clerk.beta", f"sub-agent-{kid.run_id}")


def test_an_approval_reaches_a_suspended_sub_agent(cluster: Cluster, client: Client) -> None:
    errand = json.dumps([["pay", {"amount": 7}]])
    run = listed(client, ["agent_run", {"agent_id": "clerk.beta", "prompt": errand}], ADD)
    kid = eventually(run.children, "a child", 10)[0].run_id
    eventually(lambda: client.record(kid).why == "decision", "it asks", 10)
    eventually(lambda: run.status().why == "child", "its parent waits")
    (asked,) = client.record(kid).waits_for
    client.run(kid).decide(asked["call_id"], payload="ann")
    done = answer(run)
    assert json.loads(done["results"][0]["output"])["results"] == [{"paid": 7, "by": "ann"}]
    assert done["results"][1] == 5
    assert len(cluster.told(f"payed {kid}")) == 1


@pytest.mark.chaos
def test_sub_agent_outlives_the_kill_of_its_parents_worker(private: Cluster) -> None:
    private.coordinator(wait=False)
    doomed = private.worker("alpha", peer="beta")
    private.worker("beta", peer="alpha")
    client = private.client("alpha", peer="beta")
    private.client("beta", peer="alpha")
    errand = json.dumps([["hold", {"name": "errand"}]])
    run = listed(client, ["agent_run", {"agent_id": "clerk.beta", "prompt": errand}])
    private.wait_told("held ")
    doomed.kill()
    private.open("errand")
    private.worker("alpha", peer="beta")
    assert json.loads(answer(run)["results"][0]["output"])["results"] == ["errand"]
    assert len(run.children()) == 1
    private.healthy(keys=True)


def test_cancelled_parent_stops_its_sub_agents(cluster: Cluster, client: Client) -> None:
    errand = json.dumps([["hold", {"name": "never"}]])
    run = listed(client, ["agent_run", {"agent_id": "clerk.beta", "prompt": errand}])
    kid = eventually(run.children, "a child", 10)[0]
    cluster.wait_told(f"held {kid.run_id}")
    run.cancel("enough")
    eventually(lambda: client.record(kid.run_id).status == "cancelled", "the child stops", 10)
    with pytest.raises(RunFailed):
        run.result(timeout=5)


def test_cancelled_run_keeps_what_was_said_to_it(cluster: Cluster, client: Client) -> None:
    run = listed(client, ["hold", {"name": "never"}], thread_id="unanswered")
    cluster.wait_told(f"held {run.id}")
    run.cancel("enough")
    eventually(lambda: run.status().status == "cancelled", "it stops", 10)
    said = client.thread("unanswered").messages().messages
    assert [one["role"] for one in said] == ["user", "assistant", "user"]
    assert "interrupted while it was using tools" in said[-1]["content"] and said[-1]["visibility"] == "internal"
    assert answer(listed(client, ADD, thread_id="unanswered"))["results"] == [5]


def test_fork_of_a_declared_run_goes_on_from_its_step(client: Client) -> None:
    run = listed(client, ADD, ["add", {"a": 1, "b": 1}])
    assert answer(run)["results"] == [5, 2]
    fork = run.fork(at=1)
    assert answer(fork)["results"] == [5, 2]
    assert [event.data["turn"] for event in fork.events() if event.type == "turn.started"] == [2, 3]
