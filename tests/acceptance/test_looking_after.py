"""Looking after sub-agents on the fleet: status, messages, stops, restarts, and what they may spend."""

import json
from typing import Any

from techrevati.fleet.client import Client, Run
from tests.acceptance.support import Cluster, eventually


def listed(client: Client, *commands: Any, agent: str = "clerk.alpha", **options: Any) -> Run:
    return client.start(agent, json.dumps(commands), **options)


def results(run: Run) -> list[Any]:
    found: list[Any] = json.loads(run.result(timeout=20))["results"]
    return found


def sent(*commands: Any, **more: Any) -> list[Any]:
    return ["agent_run", {"agent_id": "clerk.beta", "prompt": json.dumps(commands), **more}]


def test_a_stopped_child_is_taken_up_on_its_own_thread_and_an_ended_one_is_not(
    cluster: Cluster, client: Client
) -> None:
    prompt = json.dumps([["add", {"a": 20, "b": 22}]])
    run = listed(
        client,
        sent(["hold", {"name": "never"}], background=True),
        ["agent_stop", {"run_id": "$child"}],
        ["task_status", {}],
        ["agent_run", {"run_id": "$child", "prompt": prompt}],
        ["agent_run", {"run_id": "$child", "prompt": "once more"}],
        ["agent_stop", {"run_id": "$child"}],
        ["agent_run", {"run_id": "nobody"}],
    )
    begun, stopped, listing, taken_up, looked_at, stopped_late, unknown = results(run)
    assert begun["status"] == "running_in_background"
    assert stopped["status"] == "stopped"
    assert [task["status"] for task in listing["tasks"]] == ["stopped"]
    assert json.loads(taken_up["output"])["results"] == [42]
    assert (looked_at["status"], stopped_late["status"]) == ("completed", "completed")
    assert "not said to it: it has completed already" in looked_at["message"]
    assert unknown["error"]["code"] == "unknown_run"
    first, second = run.children()
    assert first.thread_id == second.thread_id == f"sub-agent-{first.run_id}"
    assert (first.status, second.status) == ("cancelled", "completed")
    said = client.thread(first.thread_id).messages().messages
    assert [one["content"] for one in said if one["role"] == "user"][-1] == prompt, "one conversation"


def test_a_child_at_work_hears_what_its_parent_says_once(cluster: Cluster, client: Client) -> None:
    run = listed(
        client,
        sent(["hold", {"name": "chat"}], background=True),
        ["hold", {"name": "before"}],
        ["agent_run", {"run_id": "$child", "prompt": "mind the gap"}],
        ["hold", {"name": "after"}],
        ["agent_output", {"run_id": "$child"}],
    )
    (kid,) = eventually(run.children, "a child")
    cluster.wait_told(f"held {kid.run_id} chat")
    cluster.open("before")
    cluster.wait_told(f"held {run.id} after")
    cluster.open("chat")
    assert json.loads(client.run(kid.run_id).result(timeout=10)) == {"results": ["chat"], "heard": ["mind the gap"]}
    cluster.open("after")
    _, _, told, _, output = results(run)
    assert (told["status"], told["message"]) == ("running", "it will hear the prompt before its next answer")
    assert output["status"] == "completed" and "mind the gap" in output["output"]


def test_children_spend_their_parents_money_and_time(cluster: Cluster, client: Client) -> None:
    """The level `run` of a budget is the run at the top of the tree, and no child's deadline is after its parent's."""
    run = client.start(
        "lead.alpha",
        {"send": [("lead.alpha", {"send": [("count.beta", {}), ("count.beta", {})]}), ("count.beta", {})]},
        deadline=30.0,
        tenant="spenders",
    )
    run.result(timeout=20)

    def below(one: Run) -> list[Run]:
        kids = [client.run(kid.run_id) for kid in one.children()]
        return [*kids, *(deeper for kid in kids for deeper in below(kid))]

    tree = below(run)
    assert len(tree) == 4
    top = run.status()
    assert {one.status().deadline for one in tree} == {top.deadline}
    roots = {client.store.command("HGET", cluster.keys(one.id).run(one.id), "root") for one in tree}
    assert roots == {f"{run.id} {top.thread_id}"}
