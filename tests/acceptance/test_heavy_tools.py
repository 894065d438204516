"""Tools with a role: each call a queue task in another pool, joined durably, with real workers."""

import json
import time
from typing import Any

import pytest

from techrevati.cli.why import explain
from techrevati.fleet.client import Client, Run
from tests.acceptance.support import Cluster, eventually


def listed(client: Client, *commands: Any, agent: str = "smith.alpha", **options: Any) -> Run:
    return client.start(agent, json.dumps(commands), **options)


def results(run: Run, timeout: float = 20) -> list[Any]:
    return list(json.loads(run.result(timeout=timeout))["results"])


def tool_messages(client: Client, run: Run) -> list[dict[str, Any]]:
    said = client.thread(run.status().thread_id).messages(limit=1000).messages
    return [json.loads(one["content"]) for one in said if one["role"] == "tool"]


def calls_of(client: Client, run: Run) -> list[Any]:
    found = client.list_runs(calls=True, thread_id=None, limit=1000)
    return [one for one in found if one.parent == run.id and one.is_call]


ADD = ["add", {"a": 2, "b": 3}]


def crunching(name: str, wait: str = "") -> list[Any]:
    return ["crunch", {"name": name, "wait": wait}]


def test_calls_of_a_round_run_side_by_side_in_their_pool_and_come_back_in_their_order(
    cluster: Cluster, client: Client
) -> None:
    batch = [crunching("a", "side"), ADD, crunching("b", "side"), crunching("c")]
    run = listed(client, batch, ADD)
    cluster.wait_told(f"crunch {run.id}", count=3)
    eventually(lambda: run.status().why == "child", "it waits")
    record = run.status()
    assert (record.status, record.worker != "") == ("waiting", True)
    assert sorted(one["tool"] for one in record.waits_for) == ["crunch"] * 3
    assert run.children() == [], "a call is no sub-agent"
    pids = {line.split()[-1] for line in cluster.told(f"crunch {run.id}")}
    assert pids and not pids & {line.split()[-1] for line in cluster.told(f"add {run.id}")}
    before = record.turn
    cluster.open("side")
    assert results(run) == ["a", 5, "b", "c", 5]
    assert run.status().turn == before + 2, "it joins in one turn; then a step with a light tool, and the answer"
    assert len(cluster.told(f"add {run.id}")) == 2, "the light call of the batch ran once"
    assert len(cluster.told(f"mark {run.id}")) == 3


def test_the_stream_tells_of_pooled_calls_what_it_tells_of_others(cluster: Cluster, client: Client) -> None:
    run = listed(client, [crunching("a", "tell"), ADD])
    seen: list[Any] = []
    for event in run.events():
        seen.append(event)
        if event.type == "activity_snapshot" and event.data["content"]["tool_name"] == "crunch":
            cluster.open("tell")
    assert "activity_snapshot" in [event.type for event in seen], "progress reaches the run that made the call"
    shown = next(event.data["content"] for event in seen if event.type == "activity_snapshot")
    assert (shown["message"], shown["run_id"]) == ("half of a", run.id)
    durable = [event for event in seen if event.n == 0]
    for kind in ("tool_call_ready", "tool_call_done"):
        assert [event.data["id"].split("-")[-1] for event in durable if event.type == kind] == ["crunch", "add"]
    told = [event.type for event in durable]
    assert told.count("call.started") == told.count("call.ended") == 1
    assert not [kind for kind in told if kind.startswith("child.")]
    assert told.index("tool_call_ready") < told.index("call.ended") < told.index("tool_call_done")


def test_sequential_calls_go_to_the_pool_one_by_one_each_on_what_the_one_before_left(
    cluster: Cluster, client: Client
) -> None:
    run = listed(client, [["enter", {"n": 1}], crunching("a", "one"), ADD, ["enter", {"n": 2}]], agent="liner.alpha")
    cluster.wait_told(f"crunch {run.id}")
    assert len(cluster.told(f"enter {run.id}")) == 1 and not cluster.told(f"add {run.id}")
    cluster.open("one")
    first, *between, last = results(run)
    assert (first, between, last) == ({"before": 0, "attempt": 1}, ["a", 5], {"before": 1, "attempt": 1})
    assert len(cluster.told(f"enter {run.id}")) == 2, "each once"
    assert len(cluster.told(f"add {run.id}")) == 1
    state = client.thread(run.status().thread_id).state()
    assert state["sum"]["value"] == 3
    assert not [key for key in state if key.startswith("__call:")], "nothing is kept of a round that is over"


def test_a_call_whose_patch_meets_anothers_runs_again_alone_in_its_pool(cluster: Cluster, client: Client) -> None:
    run = listed(client, [["enter", {"n": 1}], ["enter", {"n": 2}], ["enter", {"n": 4}], ADD])
    done = results(run)
    assert done[:3] == [{"before": before, "attempt": min(2, 1 + before)} for before in (0, 1, 3)]
    told = [line.split() for line in cluster.told(f"enter {run.id}")]
    assert len(told) == 5 and len({key for *_, key, _, _ in told}) == 3, "the key of a call stays its own"
    assert len(cluster.told(f"add {run.id}")) == 1
    assert client.thread(run.status().thread_id).state()["sum"]["value"] == 7
    said = client.thread(run.status().thread_id).messages().messages
    reminders = [one["content"] for one in said if "<system-reminder>" in one["content"]]
    assert [text.split(">")[1].split("<")[0].strip() for text in reminders] == ["entered 1", "entered 2", "entered 4"]


def test_a_call_that_must_not_repeat_loses_to_a_parallel_one(cluster: Cluster, client: Client) -> None:
    run = listed(client, [["enter", {"n": 1}], ["enter_once", {"n": 2}]])
    first, second = (results(run), tool_messages(client, run))[1]
    assert first["status"] == "success" and second["data"]["error"]["code"] == "state_conflict"
    assert len(cluster.told(f"enter_once {run.id}")) == 1
    assert client.thread(run.status().thread_id).state()["sum"]["value"] == 1


def test_joins_of_pooled_calls_do_not_conflict(cluster: Cluster, client: Client) -> None:
    run = listed(client, [["ballot", {"n": 1}], ["ballot", {"n": 2}]])
    assert results(run) == [1, 2]
    assert sum(client.thread(run.status().thread_id).state()["ballots"]["total"].values()) == 3
    said = [one["content"] for one in client.thread(run.status().thread_id).messages().messages]
    assert [text for text in said if text.startswith("noted")] == ["noted 1", "noted 2"]


def test_gates_and_schemas_are_asked_before_a_call_goes_to_its_pool(cluster: Cluster, client: Client) -> None:
    run = listed(client, [["double", {"n": 2}], ["crunch", {"nome": "b"}]], crunching("a"), agent="careful.alpha")
    eventually(lambda: run.status().why == "decision", "it asks")
    assert not cluster.told(f"crunch {run.id}") and not calls_of(client, run)
    blocked, unfit = client.thread(run.status().thread_id).messages().messages[2:4]
    assert '"status":"error"' in blocked["content"] and "deny double" in blocked["content"]
    assert "invalid arguments" in unfit["content"]
    (asked,) = run.status().waits_for
    run.decide(asked["call_id"], payload=True)
    run.result(timeout=20)
    assert tool_messages_of_success(client, run) == ["a"]
    assert len(cluster.told(f"crunch {run.id}")) == 1


def tool_messages_of_success(client: Client, run: Run) -> list[Any]:
    said = client.thread(run.status().thread_id).messages().messages
    contents = [one["content"] for one in said if one["role"] == "tool" and one["content"].startswith("{")]
    return [one["data"] for one in map(json.loads, contents) if one["status"] == "success"]


@pytest.mark.parametrize("agent", ["smith.alpha", "batcher.alpha"])
def test_a_pooled_tool_may_ask_itself_and_is_resumed_in_its_pool(cluster: Cluster, client: Client, agent: str) -> None:
    run = listed(client, [["asks"], ["asks"]], ADD, agent=agent)
    eventually(lambda: run.status().why == "decision", "it asks")
    asked = run.status().waits_for
    assert len(asked) == 2
    for one in asked:
        run.decide(one["call_id"], payload="ann")
    run.result(timeout=20)
    came, answers = tool_messages_of_success(client, run), [{"by": "ann", "scratch": {"seen": 1}}] * 2
    if agent.startswith("batcher"):  # the other goes on with the first answer, and may add before the second comes
        assert came == [*answers, 5]
    assert sorted(came, key=str) == sorted([*answers, 5], key=str)
    assert len(cluster.told(f"asks {run.id}")) == 4, "each asked once and was carried out once"


def test_whatever_becomes_of_a_pooled_call_is_its_result(cluster: Cluster, client: Client) -> None:
    run = listed(
        client,
        [["fails", {"how": "raise"}], ["fails", {"how": "error"}], ["slow"], ["fails", {"how": str(2 << 20)}], ADD],
        [["recall", {"pad": "x" * 600_000}], ["long_text", {"size": 2 << 20}], ["fails", {"how": "12"}]],
    )
    run.result(timeout=20)
    broke, refused, late, large, fine, unsent, too_long, last = tool_messages(client, run)
    assert broke["message"] == "RuntimeError: it broke"
    assert refused["data"]["error"]["code"] == "no"
    assert late["message"] == "TimeoutError: no result within 0.2 s" and len(cluster.told(f"slow {run.id}")) == 2
    assert large["data"]["error"]["code"] == too_long["data"]["error"]["code"] == "result_too_large"
    assert unsent["data"]["error"]["code"] == "not_sent" and "over the limit" in unsent["message"]
    assert (fine["data"], last["data"]) == (5, "x" * 12)


def test_a_pooled_tool_that_asks_for_what_no_tool_may_ends_the_run(client: Client) -> None:
    run = listed(client, ["fails", {"how": "phase"}])
    eventually(lambda: run.status().status.is_terminal, "it ends")
    assert run.status().status == "failed" and "after_tool_execute" in run.status().error["message"]


def test_only_what_a_tool_sees_goes_along_to_its_pool(cluster: Cluster, client: Client) -> None:
    run = listed(client, ADD, [["recall"], ["peek"], ["double", {"n": 4}]])
    run.result(timeout=20)
    _, recalled, peeked, doubled = tool_messages(client, run)
    assert recalled["data"] == ["user", "assistant", "tool", "assistant"]
    assert "sees='thread'" in peeked["message"] and doubled["data"] == 8


@pytest.mark.parametrize("tool", ["crunch", "grind"])
def test_cancelling_the_run_stops_its_calls_within_a_second(cluster: Cluster, client: Client, tool: str) -> None:
    words = {"name": "a", "wait": "never"} if tool == "crunch" else {"wait": "never"}
    run = listed(client, [[tool, words], [tool, words]])
    cluster.wait_told(f"{tool} {run.id}", count=2)
    eventually(lambda: run.status().why == "child", "it waits")
    asked = time.time()
    run.cancel("enough")
    stopped = cluster.wait_told(f"stopped {run.id}", 3, count=2)
    assert all(float(line.split()[-1]) - asked < 1.0 for line in stopped)
    eventually(lambda: all(one.status == "cancelled" for one in calls_of(client, run)), "they are cancelled")
    assert run.status().status == "cancelled"


def test_a_run_that_takes_the_thread_over_stops_the_calls_of_the_one_before(cluster: Cluster, client: Client) -> None:
    run = listed(client, crunching("a", "never"), thread_id="taken")
    cluster.wait_told(f"crunch {run.id}")
    after = listed(client, ADD, thread_id="taken", on_busy="interrupt")
    cluster.wait_told(f"stopped {run.id}", 3)
    assert results(after) == [5] and run.status().status == "superseded"


def test_the_agents_deadline_runs_on_and_ends_the_run_with_its_calls(cluster: Cluster, client: Client) -> None:
    run = listed(client, [crunching("a", "never"), ADD], agent="hurried.alpha")
    assert run.result(timeout=10)["termination"]["value"]["code"] == "timeout_reached"
    cluster.wait_told(f"stopped {run.id}", 3)


def test_a_runs_deadline_is_its_calls(cluster: Cluster, client: Client) -> None:
    run = listed(client, crunching("a", "never"), deadline=1.0, tenant="acme", project_id="p1", priority=3)
    cluster.wait_told(f"crunch {run.id}")
    (call,) = calls_of(client, run)
    assert (call.deadline, call.tenant, call.project_id) == (run.status().deadline, "acme", "p1")
    eventually(lambda: run.status().status == "failed", "it ends", 10)
    cluster.wait_told(f"stopped {run.id}", 3)
    assert run.status().error["type"] == "DeadlineExceeded"


def test_a_run_whose_pool_has_no_worker_waits_visibly_and_holds_nothing(cluster: Cluster, client: Client) -> None:
    run = listed(client, ["lost"])
    eventually(lambda: run.status().why == "child", "it waits")
    (call,) = calls_of(client, run)
    assert (call.role, call.status, call.agent) == ("nowhere", "queued", "tool:lost")
    assert run.status().waits_for == [{"child": call.run_id, "tool": "lost", "role": "nowhere"}]
    assert f"tool 'lost' in pool 'nowhere' ({call.run_id})" in explain(run.status(), [None] * 3, 0.0)
    run.steer("are you there?")
    eventually(lambda: run.status().turn >= 3 and run.status().why == "child", "it looked, and waits on")
    assert [one.run_id for one in calls_of(client, run)] == [call.run_id], "it was sent once"
    run.cancel()
    eventually(lambda: client.record(call.run_id).status == "cancelled", "the call is cancelled, too")


def test_what_is_said_to_a_run_that_waits_is_heard_behind_the_results(cluster: Cluster, client: Client) -> None:
    run = listed(client, [crunching("a", "hear"), ADD])
    cluster.wait_told(f"crunch {run.id}")
    eventually(lambda: run.status().why == "child", "it waits")
    run.steer("mind the gap")
    eventually(lambda: run.status().turn == 3 and run.status().why == "child", "it took that in")
    cluster.open("hear")
    assert json.loads(run.result(timeout=20)) == {"results": ["a", 5], "heard": ["mind the gap"]}
    assert len(cluster.told(f"crunch {run.id}")) == len(cluster.told(f"add {run.id}")) == 1


def test_a_sub_agent_and_a_pooled_call_of_one_round_come_back_together(cluster: Cluster, client: Client) -> None:
    batch = [["agent_run", {"agent_id": "clerk.beta", "prompt": json.dumps([ADD])}], crunching("a")]
    run = listed(client, batch, agent="sender.alpha")
    kid, mine = results(run)
    assert json.loads(kid["output"])["results"] == [5] and mine == "a"
    assert [one.agent for one in run.children()] == ["clerk.beta"]


def test_calls_are_hidden_while_they_last_and_gone_once_they_are_joined(cluster: Cluster, client: Client) -> None:
    run = listed(client, [crunching("a", "gone"), crunching("b")], ADD, thread_id="goes")
    cluster.wait_told(f"crunch {run.id}", count=2)
    eventually(lambda: run.status().why == "child", "it waits")
    names = [one.run_id for one in calls_of(client, run)]
    assert len(names) == 2
    assert not {one.run_id for one in client.list_runs(limit=1000)} & set(names)
    cluster.open("gone")
    run.result(timeout=20)
    eventually(lambda: not calls_of(client, run), "they are gone")
    with cluster.raw() as redis:
        assert not redis.smembers(client.keys(run.id).kids(run.id))
        assert not [key for name in names for key in redis.scan_iter(f"*{name}*") if redis.pttl(key) < 0]


def test_deleting_the_thread_deletes_the_calls_that_are_at_work(cluster: Cluster, client: Client) -> None:
    run = listed(client, crunching("a", "never"), thread_id="erased")
    cluster.wait_told(f"crunch {run.id}")
    eventually(lambda: run.status().why == "child", "it waits")
    (call,) = calls_of(client, run)
    client.thread("erased").delete(force=True)
    cluster.wait_told(f"stopped {run.id}", 5)
    eventually(lambda: not calls_of(client, run), "its record is gone")
    with cluster.raw() as redis:
        eventually(
            lambda: not [key for key in redis.scan_iter(f"*{call.run_id}*") if redis.pttl(key) < 0], "nothing is left"
        )


def test_a_fork_of_a_waiting_run_has_its_own_calls_and_keeps_what_was_done(cluster: Cluster, client: Client) -> None:
    run = listed(client, [crunching("a", "fork"), ADD])
    cluster.wait_told(f"crunch {run.id}")
    eventually(lambda: run.status().why == "child", "it waits")
    fork = run.fork()
    cluster.wait_told(f"crunch {fork.id}")
    cluster.open("fork")
    assert results(run) == results(fork) == ["a", 5]
    assert not cluster.told(f"add {fork.id}"), "what the round had was copied"


def test_a_run_may_make_any_number_of_pooled_calls_if_not_all_at_once(client: Client) -> None:
    batch = [["double", {"n": n}] for n in range(70)]
    run = listed(client, batch, batch)
    assert results(run, 40) == [2 * n for n in range(70)] * 2


def test_calls_beyond_what_one_run_may_have_at_once_are_told_so(client: Client) -> None:
    run = listed(client, [["double", {"n": n}] for n in range(130)])
    run.result(timeout=40)
    said = tool_messages(client, run)
    assert [one["data"] for one in said[:128]] == [2 * n for n in range(128)]
    assert [one["data"]["error"]["code"] for one in said[128:]] == ["not_sent"] * 2
