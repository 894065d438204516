"""What sub-agents ask, seen and answered by whoever follows the run at the top: two pools, at any depth."""

import asyncio
import json
from typing import Any

import pytest

from techrevati.fleet.aclient import AsyncClient
from techrevati.fleet.client import Client, Run
from techrevati.store.errors import AlreadyDecided, AmbiguousCall, RunEnded, UnknownCall
from tests.acceptance.agents import FLEET
from tests.acceptance.support import Cluster, eventually

PAY = ["pay", {"amount": 7}]


def sent(*commands: Any, to: str = "clerk.beta") -> list[Any]:
    """Give the command that sends an agent out with commands of its own."""
    return ["agent_run", {"agent_id": to, "prompt": json.dumps(commands)}]


def listed(client: Client, *commands: Any, agent: str = "clerk.alpha", **options: Any) -> Run:
    return client.start(agent, json.dumps(commands), **options)


def told(run: Run, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in run.events(follow=False) if event.type == kind]


def test_a_question_two_levels_down_is_seen_and_answered_at_the_top(cluster: Cluster, client: Client) -> None:
    run = listed(client, sent(sent(PAY), to="clerk.alpha"), agent="chief.alpha")
    (asked,) = eventually(run.questions, "the question comes up")
    assert (asked.agent, len(asked.path), asked.run_id) == ("clerk.beta", 2, asked.path[-1])
    assert asked.payload["pending"]["arguments"] == {"amount": 7}
    middle = client.run(asked.path[0])
    assert client.record(asked.run_id).role == "beta" and client.record(asked.path[0]).role == "alpha"
    for above, path in ((run, asked.path), (middle, asked.path[1:])):
        (event,) = told(above, "child.asked")
        assert (event["child"], event["path"]) == (asked.run_id, " ".join(path))
        assert [call["call_id"] for call in event["calls"]] == [asked.call_id]
        eventually(lambda above=above: above.status().why == "child", "it waits on")  # type: ignore[misc]
    assert [one.call_id for one in middle.questions()] == [asked.call_id]
    with pytest.raises(UnknownCall, match="'nothing'"):
        run.decide("nothing")

    assert run.decide(asked.call_id, payload="ann", decision_id="d1")
    assert not run.decide(asked.call_id, payload="ann", decision_id="d1")
    with pytest.raises(AlreadyDecided):
        run.decide(asked.call_id, payload="bob", decision_id="d2")
    result = run.result(timeout=20)
    assert '"by\\' in result and "ann" in result and "bob" not in result
    assert len(cluster.told(f"payed {asked.run_id}")) == 1
    assert told(run, "child.decided") == [{"child": asked.run_id, "call_id": asked.call_id}]
    assert run.questions() == []
    with pytest.raises(RunEnded):
        run.decide(asked.call_id)


def test_of_two_children_that_ask_alike_one_is_named(client: Client) -> None:
    run = listed(client, [sent(PAY), sent(["pay", {"amount": 8}])])
    first, second = eventually(lambda: asked if len(asked := run.questions()) == 2 else [], "both ask")
    assert first.call_id == second.call_id and first.id != second.id
    with pytest.raises(AmbiguousCall):
        run.decide(first.call_id, payload="ann")
    assert run.decide(second.id, "cancel")
    assert [one.id for one in run.questions()] == [first.id]
    with pytest.raises(AlreadyDecided):
        run.decide(second.id)

    async def answer() -> None:
        async with AsyncClient(fleet=FLEET, settings=client.settings) as other:
            same = await other.run(run.id)
            assert [one.id for one in await same.questions()] == [first.id]
            assert await same.decide(first.call_id, payload="ann"), "only one asks it still"

    asyncio.run(answer())
    outputs = {one["data"]["output"] for one in json_results(run)}
    assert any('"by": "ann"' in text for text in outputs) and any("[null]" in text for text in outputs)


def json_results(run: Run) -> list[Any]:
    run.result(timeout=20)
    thread = run._client.thread(run.status().thread_id)
    return [json.loads(one["content"]) for one in thread.messages().messages if _is_result(one)]


def _is_result(message: dict[str, Any]) -> bool:
    return bool(message["role"] == "tool" and message["content"].startswith("{"))


@pytest.mark.chaos
def test_answers_and_defaults_of_a_time_without_workers_count_when_one_is_back(cluster: Cluster) -> None:
    client, worker = cluster.client("absent"), cluster.worker("absent")
    top = listed(client, sent(PAY, to="clerk.absent"), agent="chief.absent")
    late = listed(client, PAY, agent="short.absent")
    default = client.start("ask.absent", {"expires": 1.0})
    (asked,) = eventually(top.questions, "the question comes up")
    eventually(lambda: late.status().why == "decision" and default.status().why == "decision", "they ask")
    worker.kill()
    assert [one.id for one in top.questions()] == [asked.id]
    assert top.decide(asked.id, payload=0)
    eventually(lambda: default.status().status == "queued", "its default is decided")
    eventually(lambda: late.status().status == "queued", "and the other's")
    assert default.questions() == []
    with pytest.raises(AlreadyDecided):
        default.decide("ok")
    cluster.worker("absent", wait=False)
    assert '\\"by\\": 0' in json.loads(top.result(timeout=20))["results"][0]["output"].replace('"', '\\"')
    assert default.result(timeout=10) == {"action": "resume", "payload": "so", "expired": True, "turn": 2}
    assert json.loads(late.result(timeout=10))["results"] == [None]
    assert len(cluster.told(f"payed {asked.run_id}")) == 1


def test_a_childs_turns_are_live_news_of_its_parent_and_kept_nowhere(client: Client) -> None:
    run = listed(client, sent(*[["wait_a_little", {"seconds": 0.05}]] * 4))
    run.result(timeout=20)
    events = list(run.events(follow=False))
    kid = run.children()[0].run_id
    steps = [event for event in events if event.type == "child.turn"]
    assert steps and all(event.n > 0 and event.data["child"] == kid for event in steps)
    durable = [event.type for event in events if event.n == 0 and event.type.startswith("child.")]
    assert durable == ["child.started", "child.ended"]


@pytest.mark.parametrize("children", [4])
def test_a_parent_is_woken_once_by_the_children_of_one_step(client: Client, children: int) -> None:
    batch = [sent(["wait_a_little", {"seconds": 0.2 * n}]) for n in range(children)]
    run = listed(client, batch)
    results = json.loads(run.result(timeout=20))["results"]
    assert [json.loads(one["output"])["results"] for one in results] == [[0.2 * n] for n in range(children)]
    started = [event for event in run.events(follow=False) if event.type == "turn.started"]
    print(f"\n{children} children of one step: {len(started)} turns of their parent")
    assert len(started) == 2


FALSY: tuple[Any, ...] = (0, "", False, [], {}, None)


def test_falsy_answers_are_answers(client: Client) -> None:
    runs = [client.start("ask.alpha", {}) for _ in FALSY]
    for run, payload in zip(runs, FALSY, strict=True):
        eventually(run.questions, "it asks")
        run.decide("ok", payload=payload)
    assert [run.result(timeout=10)["payload"] for run in runs] == list(FALSY)
    assert [type(run.result()["payload"]) for run in runs] == [type(payload) for payload in FALSY]


def test_falsy_answers_are_a_calls_result_where_its_ticket_says_so(cluster: Cluster, client: Client) -> None:
    run = listed(client, [["choose", {"of": str(place)}] for place in range(len(FALSY))], agent="batch.alpha")
    asked = eventually(run.questions, "it asks")
    for place, (question, payload) in enumerate(zip(asked, FALSY, strict=True)):
        run.decide(question.payload["suspension"]["id"], payload=payload)
        if place == 0:
            eventually(lambda: run.status().turn == 3 and run.status().why == "decision", "it has looked, and waits")
            scope = client.thread(run.status().thread_id).state()["__tool_call_scope"]
            status = {one["tool_call_state"]["status"] for one in scope.values()}
            assert status == {"resuming", "suspended"}, "in a batch nothing goes on before all is decided"
    assert json.loads(run.result(timeout=10))["results"] == list(FALSY)
    assert len(cluster.told(f"choose {run.id}")) == len(FALSY), "a tool whose result was given runs no second time"


def test_an_answer_is_the_calls_arguments_where_its_ticket_says_so(cluster: Cluster, client: Client) -> None:
    for payload, said in (({"text": "better"}, "better"), (True, "good")):
        run = listed(client, ["amend", {"text": "good"}])
        (asked,) = eventually(run.questions, "it asks")
        run.decide(asked.payload["pending"]["id"], payload=payload)
        assert json.loads(run.result(timeout=10))["results"] == [{"text": said}]
        assert cluster.told(f"amended {run.id}") == [f"amended {run.id} {said}"]


def test_one_of_two_answers_goes_on_with_its_call_and_the_other_still_waits(cluster: Cluster, client: Client) -> None:
    run = listed(client, [PAY, ["pay", {"amount": 8}]])
    first, second = eventually(lambda: asked if len(asked := run.questions()) == 2 else [], "it asks both")
    run.decide(first.call_id, payload="ann")
    cluster.wait_told(f"payed {run.id} 7")
    eventually(lambda: run.status().why == "decision", "it waits for the other")
    assert [one.call_id for one in run.questions()] == [second.call_id]
    with pytest.raises(AlreadyDecided):
        run.decide(first.call_id, payload="bob")
    run.decide(second.call_id, payload="bob")
    said = json_results(run)
    assert [one["data"] for one in said if one["status"] == "success"] == [
        {"paid": 7, "by": "ann"},
        {"paid": 8, "by": "bob"},
    ]
    assert len(cluster.told(f"payed {run.id}")) == 2
