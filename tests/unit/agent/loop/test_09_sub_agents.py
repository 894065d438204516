"""§9 of the agent semantics: agents that an agent sends out."""

import asyncio
from typing import Any

import pytest

from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.definition import AgentDefinition, SubAgentSpec
from techrevati.agent.endings import CANCELLED
from techrevati.agent.events import ActivitySnapshot, RunFinish, ToolCallReady
from techrevati.agent.loop.outcome import Finished, Suspended
from techrevati.agent.model import ErrorClass, InferenceError, ModelRequest
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import apply
from techrevati.agent.state.reduction import reduce_actions
from techrevati.agent.subagents.forking import forked
from techrevati.agent.subagents.port import SubAgentStatus
from techrevati.agent.subagents.state import ChildEnded, ChildStarted, StopRequested, about, children_of
from techrevati.agent.threads.message import Message, Role, ToolCall, Visibility
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolProgress, ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.scripted import (
    START,
    Script,
    World,
    agent,
    calls,
    of_type,
    resume,
    said,
    tool_results,
    types,
    until,
)

WRITER = SubAgentSpec("writer", "writes")


class Cast:
    """One model that plays several agents: each has a script of its own, told apart by its instructions."""

    def __init__(self, **scripts: Script) -> None:
        self.scripts = scripts

    async def infer(self, request: ModelRequest, on_event: Any) -> Any:
        return await self.scripts[request.messages[0].content.split("\n")[0]].infer(request, on_event)


def boss(**options: Any) -> AgentDefinition:
    return agent(**{"id": "boss", "instructions": "boss", "sub_agents": (WRITER,), **options})


def writer(**options: Any) -> AgentDefinition:
    return agent(**{"id": "writer", "instructions": "writer", **options})


def send(call_id: str = "c1", **arguments: Any) -> Any:
    return calls((call_id, "agent_run", {"agent_id": "writer", "prompt": "write", **arguments}))


async def children(world: World) -> dict[str, Any]:
    return children_of(await world.state("t"))


# -- 9.1 -------------------------------------------------------------------------------------------


async def test_9_1_a_child_has_its_own_thread_and_run_and_the_parent_keeps_metadata_only() -> None:
    world = World(Cast(boss=Script(send(), "thanks"), writer=Script("a tale")), boss(), writer())
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "thanks"
    ((run_id, child),) = (await children(world)).items()
    assert child.thread_id == f"sub-agent-{run_id}" and child.status is SubAgentStatus.COMPLETED
    thread = await world.thread(child.thread_id)
    assert thread.parent_thread_id == "t"
    assert [m.content for m in thread.messages] == ["write", "a tale"]
    record = await world.store.load_run(run_id)
    assert (record.origin, record.agent_id, record.parent_thread_id) == ("subagent", "writer", "t")
    assert record.parent_run_id == outcome.checkpoint.document["__run"]["id"] == child.parent_run_id


# -- 9.2 -------------------------------------------------------------------------------------------


async def test_9_2_the_foreground_result_has_the_childs_answer() -> None:
    world = World(Cast(boss=Script(send(), "thanks"), writer=Script("a tale")), boss(), writer())
    await world.run()
    data = tool_results((await world.thread()).messages)["c1"]["data"]
    assert data.pop("run_id") in await children(world)
    assert data == {"agent_id": "writer", "status": "completed", "error": None, "output": "a tale"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"agent_id": "nobody"}, "unknown_agent"),
        ({"agent_id": "boss"}, "unknown_agent"),
        ({"agent_id": None}, "invalid_arguments"),
        ({"prompt": None}, "invalid_arguments"),
        ({"run_id": "ghost"}, "unknown_run"),
    ],
)
async def test_9_2_errors_have_their_codes(arguments: Any, code: str) -> None:
    world = World(Cast(boss=Script(send(**arguments), "so be it"), writer=Script()), boss(), writer())
    await world.run()
    assert tool_results((await world.thread()).messages)["c1"]["data"]["error"]["code"] == code


# -- 9.3 -------------------------------------------------------------------------------------------


async def test_9_3_a_foreign_run_looks_unknown() -> None:
    world = World(Cast(boss=Script(send(background=True), "ok"), writer=Script("a tale")), boss(), writer())
    await world.run()
    (run_id,) = await children(world)
    for name in ("agent_run", "agent_stop", "agent_output", "task_status"):
        world.model.scripts["boss"] = Script(calls(("c1", name, {"run_id": run_id})), "hm")
        await world.run(thread="another")
        error = tool_results((await world.thread("another")).messages)["c1"]["data"]["error"]
        assert error["code"] == "unknown_run"


@pytest.mark.parametrize(
    "policy", [RunPolicy(excluded_agents=("writer",)), RunPolicy(allowed_agents=()), RunPolicy(allowed_agents=("x",))]
)
async def test_9_3_a_forbidden_agent_is_neither_advertised_nor_run(policy: RunPolicy) -> None:
    world = World(Cast(boss=Script(send(), "ok"), writer=Script()), boss(), writer())
    await world.run(policy=policy)
    assert tool_results((await world.thread()).messages)["c1"]["data"]["error"]["code"] == "unknown_agent"
    assert "writer" not in world.model.scripts["boss"].requests[0].messages[0].content


async def test_9_3_a_foreground_parent_waits_without_a_step_and_its_events_have_one_end() -> None:
    release = asyncio.Event()

    async def slow(request: Any, on_event: Any) -> Any:
        await release.wait()
        return said("a tale")

    world = World(Cast(boss=Script(send(), "thanks"), writer=Script(slow)), boss(), writer())
    stream = await world.start()
    await until(lambda: stream.waiting)
    assert (await world.state())["__run"]["status"] == "waiting"
    assert len(world.model.scripts["boss"].requests) == 1
    release.set()
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.response == "thanks"
    events = [e async for e in stream.events]
    assert types(events).count("run_finish") == 1 and types(events)[-1] == "run_finish"
    shown = world.model.scripts["boss"].requests[1].messages
    assert not any(m.metadata.get("mark") == "awaiting" for m in shown), "the model never sees a placeholder for it"


async def test_9_3_parallel_children_in_the_foreground_all_end_before_the_next_inference() -> None:
    both = calls(*((c, "agent_run", {"agent_id": "writer", "prompt": c}) for c in ("c1", "c2")))
    world = World(Cast(boss=Script(both, "thanks"), writer=Script("one", "two")), boss(), writer())
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "thanks"
    results = tool_results((await world.thread()).messages)
    assert {results[c]["data"]["output"] for c in ("c1", "c2")} == {"one", "two"}
    assert len(await children(world)) == 2, "no call was run twice"


async def test_9_3_only_the_childs_own_progress_is_forwarded() -> None:
    @tool
    def dig(ctx: ToolCallContext) -> int:
        """Dig."""
        ctx.report_progress(ToolProgress(progress=0.5, message=ctx.identity.agent_id))
        return 1

    nested = agent(id="writer", instructions="writer", tools=(dig,), sub_agents=(SubAgentSpec("digger"),))
    digger = agent(id="digger", instructions="digger", tools=(dig,))
    down = calls(("d1", "dig", {}), ("g1", "agent_run", {"agent_id": "digger", "prompt": "dig"}))
    world = World(
        Cast(
            boss=Script(send(), "thanks"),
            writer=Script(down, "dug"),
            digger=Script(calls(("e1", "dig", {})), "deep"),
        ),
        boss(),
        nested,
        digger,
    )
    _, events = await world.run()
    shown = of_type(events, ActivitySnapshot)
    assert [(e.message_id, e.content["message"], e.content["parent_call_id"]) for e in shown] == [
        ("tool_call:c1", "writer", "c1")
    ]


async def test_9_3_a_background_child_goes_on_after_the_parents_run_and_its_end_is_told_once() -> None:
    release = asyncio.Event()

    async def slow(request: Any, on_event: Any) -> Any:
        await release.wait()
        return said("a tale")

    boss_script = Script(send(run_in_background=True), "started", "I see", "nothing new")
    world = World(Cast(boss=boss_script, writer=Script(slow)), boss(), writer())
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "started"
    ((run_id, child),) = (await children(world)).items()
    started = tool_results((await world.thread()).messages)["c1"]["data"]
    assert (started["task_id"], started["status"]) == (run_id, "running_in_background")
    assert child.status is SubAgentStatus.RUNNING
    assert f"- {run_id}: writer" in boss_script.requests[1].messages[0].content
    release.set()
    view = world.driver.children._handles[run_id]
    await until(lambda: view.end)
    await world.run("and?")
    await world.run("and now?")
    told = [m for m in (await world.thread()).messages if "Background agent writer" in m.content]
    assert len(told) == 1 and told[0].visibility is Visibility.INTERNAL and "is completed" in told[0].content
    assert (await children(world))[run_id].status is SubAgentStatus.COMPLETED


@pytest.mark.parametrize(("reply", "status"), [("fine", "completed"), ("error", "failed"), ("stop", "stopped")])
async def test_9_3_the_end_of_a_child_is_mapped(reply: str, status: str) -> None:
    async def stop(request: Any, on_event: Any) -> Any:
        (handle,) = world.driver.children._handles.values()
        handle.stream.cancel()
        await asyncio.Event().wait()

    replies: dict[str, Any] = {
        "fine": "fine",
        "error": InferenceError("bad", "llm_exec_error", ErrorClass.AUTH),
        "stop": stop,
    }
    world = World(Cast(boss=Script(send(), "ok"), writer=Script(replies[reply])), boss(), writer())
    await world.run()
    data = tool_results((await world.thread()).messages)["c1"]["data"]
    assert data["status"] == status and (await children(world)).popitem()[1].status == status
    assert (data["error"] or "").startswith("auth: " if reply == "error" else "")


def reduced(*actions: Any) -> Any:
    document = reduce_actions({}, [about("r", action) for action in actions]).document
    return children_of(apply(document, reduce_actions(document, []).patch))["r"]


BEGUN = ChildStarted("writer", "sub-agent-r", "p", True, START)


def test_9_3_an_end_of_an_older_epoch_is_ignored() -> None:
    stale = ChildEnded(1, SubAgentStatus.FAILED, "late")
    child = reduced(BEGUN, BEGUN, stale)
    assert (child.epoch, child.status, child.error) == (2, SubAgentStatus.RUNNING, None)
    assert reduced(BEGUN, BEGUN, stale, ChildEnded(2, SubAgentStatus.COMPLETED)).status is SubAgentStatus.COMPLETED


def test_9_3_an_end_after_a_requested_stop_is_a_stop() -> None:
    child = reduced(BEGUN, StopRequested(), ChildEnded(1, SubAgentStatus.FAILED, "boom"))
    assert (child.status, child.error) == (SubAgentStatus.STOPPED, None)
    assert reduced(BEGUN, StopRequested(), BEGUN).status is SubAgentStatus.RUNNING


async def test_9_3_agent_run_with_a_run_id_tells_a_status_and_resumes_what_was_stopped_on_the_same_thread() -> None:
    async def hang(request: Any, on_event: Any) -> Any:
        await asyncio.Event().wait()

    world = World(Cast(boss=Script(send(background=True), "ok"), writer=Script(hang, "the rest")), boss(), writer())
    await world.run()
    ((run_id, child),) = (await children(world)).items()

    def look(name: str, **more: Any) -> Any:
        world.model.scripts["boss"] = Script(calls(("x1", name, {"run_id": run_id, **more})), "hm")
        return world.run("go on")

    async def result() -> Any:
        return tool_results((await world.thread()).messages)["x1"]["data"]

    await look("agent_run")
    assert (await result())["status"] == "running"
    await look("agent_stop")
    assert (await result())["status"] == "stopped"
    await until(lambda: world.driver.children._handles[run_id].end)
    await look("agent_run", prompt="finish it")
    assert (await result()) == {
        "run_id": run_id,
        "agent_id": "writer",
        "status": "completed",
        "error": None,
        "output": "the rest",
    }
    said_to_child = [m.content for m in (await world.thread(child.thread_id)).messages]
    assert said_to_child[0] == "write" and said_to_child[-2:] == ["finish it", "the rest"]
    await look("agent_output")
    assert (await result())["output"] == "the rest"
    await look("agent_run")
    assert (await result())["status"] == "completed", "a finished one is not run again"
    await look("task_status")
    assert (await result())["tasks"][0]["status"] == "completed"
    assert (await children(world))[run_id].epoch == 2


async def test_9_2_stop_reaches_all_descendants() -> None:
    async def hang(request: Any, on_event: Any) -> Any:
        await asyncio.Event().wait()

    nested = agent(id="writer", instructions="writer", sub_agents=(SubAgentSpec("digger"),))
    down = calls(("g1", "agent_run", {"agent_id": "digger", "prompt": "dig"}))
    world = World(
        Cast(boss=Script(send(background=True), "ok"), writer=Script(down), digger=Script(hang)),
        boss(),
        nested,
        agent(id="digger", instructions="digger"),
    )
    await world.run()
    await until(lambda: world.model.scripts["digger"].requests)
    (run_id,) = await children(world)
    world.model.scripts["boss"] = Script(calls(("x1", "task_cancel", {"run_id": run_id})), "stopped")
    await world.run("stop it")
    handles = world.driver.children._handles
    await until(lambda: all(handle.end for handle in handles.values()))
    assert {handle.end.status.value for handle in handles.values() if handle.end} == {"stopped"} and len(handles) == 2


async def test_11_3_cancelling_the_parent_stops_the_child_it_waits_for() -> None:
    async def hang(request: Any, on_event: Any) -> Any:
        await asyncio.Event().wait()

    world = World(Cast(boss=Script(send()), writer=Script(hang)), boss(), writer())
    stream = await world.start()
    await until(lambda: stream.waiting)
    stream.cancel()
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.reason == CANCELLED
    (handle,) = world.driver.children._handles.values()
    await until(lambda: handle.end)
    assert handle.end and handle.end.status is SubAgentStatus.STOPPED


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_9_3_a_parent_that_fails_stops_its_children_those_in_the_background_too(how: str) -> None:
    begun = asyncio.Event()

    async def hang(request: Any, on_event: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    async def hang_later(request: Any, on_event: Any) -> Any:
        await begun.wait()
        stream.cancel()
        await asyncio.Event().wait()

    both = calls(
        ("c1", "agent_run", {"agent_id": "writer", "prompt": "write", "background": True}),
        ("c2", "tick", {}),
    )

    @tool
    async def tick() -> str:
        """Let time pass."""
        return "tock"

    broken = InferenceError("no such model", "llm_exec_error", ErrorClass.CLIENT_REQUEST)
    then = broken if how == "fails" else hang_later
    world = World(Cast(boss=Script(both, then), writer=Script(hang)), boss(tools=(tick,)), writer())
    stream = await world.start()
    async with asyncio.timeout(5):
        outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.reason.type == ("error" if how == "fails" else "cancelled")
    ((run_id, _),) = (await children(world)).items()

    async def stopped() -> bool:
        view = await world.driver.children.status(run_id)
        return view is not None and view.end is not None and view.end.status is SubAgentStatus.STOPPED

    async with asyncio.timeout(5):
        while not await stopped():
            await asyncio.sleep(0.01)
    assert await world.driver.children.message(run_id, "hello?") == f"sub-agent {run_id} has ended"


def test_9_3_fork_context_copies_what_was_said_aloud_and_complete() -> None:
    messages = [
        Message.system("secret"),
        Message.user("hi"),
        Message.user("hidden", visibility=Visibility.INTERNAL),
        Message.assistant("look", (ToolCall("a", "x", {}), ToolCall("b", "x", {}))),
        Message.tool("ra", "a"),
        Message.assistant("", (ToolCall("c", "x", {}),)),
        Message.tool("ghost", "z"),
    ]
    copies = forked(messages, iter("12345").__next__)
    assert [(m.role.value, m.content, [c.id for c in m.tool_calls]) for m in copies] == [
        ("user", "hi", []),
        ("assistant", "look", ["a"]),
        ("tool", "ra", []),
    ]
    assert [m.id for m in copies] == ["1", "2", "3"]


async def test_9_3_fork_context_comes_before_the_prompt() -> None:
    world = World(Cast(boss=Script(send(fork_context=True), "ok"), writer=Script("a tale")), boss(), writer())
    await world.run("the story so far")
    sent = world.model.scripts["writer"].requests[0].messages
    assert [m.content for m in sent if m.role is Role.USER] == ["the story so far", "write"]


async def test_9_3_the_advertisement_is_limited() -> None:
    many = tuple(SubAgentSpec(f"agent{n:03}", "d" * 300) for n in range(100))
    world = World(Cast(boss=Script("ok")), boss(sub_agents=many), *(agent(id=spec.id) for spec in many))
    await world.run()
    prompt = world.model.scripts["boss"].requests[0].messages[0].content
    assert prompt.count("- agent") == 52 and len(prompt.encode()) < 17 * 1024
    assert "(48 more are not listed)" in prompt


async def test_9_3_depth_is_limited() -> None:
    loop = agent(id="writer", instructions="writer", sub_agents=(SubAgentSpec("boss"),), max_depth=1)
    back = calls(("b1", "agent_run", {"agent_id": "boss", "prompt": "again"}))
    world = World(Cast(boss=Script(send(), "ok"), writer=Script(back, "fine")), boss(), loop)
    await world.run()
    (run_id,) = await children(world)
    errors = tool_results((await world.thread(f"sub-agent-{run_id}")).messages)["b1"]
    assert errors["data"]["error"]["code"] == "too_deep"


async def test_9_3_approvals_reach_a_suspended_sub_agent_through_its_parent() -> None:
    @tool
    def pay(ctx: ToolCallContext) -> ToolResult:
        """Pay."""
        if ctx.resume_input is None:
            return ToolResult.suspended("pay", "May I?")
        return ToolResult.success("pay", "paid")

    nested = agent(id="writer", instructions="writer", sub_agents=(SubAgentSpec("digger"),))
    down = calls(("g1", "agent_run", {"agent_id": "digger", "prompt": "dig"}))
    world = World(
        Cast(
            boss=Script(send(), "thanks"),
            writer=Script(down, "dug"),
            digger=Script(calls(("p1", "pay", {})), "deep"),
        ),
        boss(),
        nested,
        agent(id="digger", instructions="digger", tools=(pay,)),
    )
    stream = await world.start()
    shown: list[Any] = []
    async with asyncio.timeout(5):
        async for envelope in stream.events:
            if isinstance(envelope.event, ActivitySnapshot) and envelope.event.activity_type == "child.asked":
                shown.append(envelope.event.content)
            if isinstance(envelope.event, ToolCallReady) and envelope.event.id == "p1":
                break
    ((middle, _),) = (await children(world)).items()
    (told,) = shown
    assert (told["agent"], told["path"]) == ("digger", [middle, told["child"]])
    assert [call["call_id"] for call in told["calls"]] == ["p1"]
    stream.submit_decision(resume("p1"))
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.response == "thanks"
    assert tool_results((await world.thread()).messages)["c1"]["data"]["output"] == "dug"


# -- 9.4 -------------------------------------------------------------------------------------------


async def orphaned(*behaviors: AgentBehavior) -> tuple[World, str]:
    """Leave a child behind whose process is gone."""

    async def hang(request: Any, on_event: Any) -> Any:
        await asyncio.Event().wait()

    world = World(Cast(boss=Script(send(background=True), "ok"), writer=Script(hang)), boss(), writer())
    await world.run()
    (run_id,) = await children(world)
    for live in list(world.driver._live.values()):
        assert live._task is not None
        live._task.cancel()
    handle = world.driver.children._handles[run_id]
    assert handle.watcher is not None
    handle.watcher.cancel()
    await asyncio.sleep(0)
    from techrevati.agent.threads.ids import new_id

    model = Cast(boss=Script("noted", "thanks"), writer=Script("the rest"))
    return World(model, boss(behaviors=behaviors), writer(), store=world.store, new_id=new_id), run_id


async def test_9_4_an_orphan_is_stopped_and_asked_about() -> None:
    world, run_id = await orphaned()
    outcome, events = await world.run("hello again")
    assert isinstance(outcome, Suspended) and world.model.scripts["boss"].requests == []
    (call,) = outcome.calls
    assert call.call_id == f"agent_recovery_{run_id}" and call.tool_name == "agent_run"
    assert call.suspension.action == "recover_agent_run" and call.suspension.response_schema == {"type": "boolean"}
    assert call.suspension.parameters == {"run_id": run_id, "agent_id": "writer", "background": False}
    child = (await children(world))[run_id]
    assert child.status is SubAgentStatus.STOPPED and child.error == "its worker is gone and nobody took over"
    assert [e.event.id for e in events if e.event.type == "tool_call_ready"] == [call.call_id]
    assert of_type(events, RunFinish)[0].termination.type == "suspended"


async def test_9_4_a_granted_recovery_resumes_the_child_on_its_thread() -> None:
    world, run_id = await orphaned()
    await world.run("hello again")
    outcome, _ = await world.run(None, run_id="r9", initial_decisions=(resume(f"agent_recovery_{run_id}"),))
    assert isinstance(outcome, Finished) and outcome.response == "noted"
    assert (await children(world))[run_id].status is SubAgentStatus.COMPLETED
    assert (await world.thread(f"sub-agent-{run_id}")).messages[-1].content == "the rest"


@pytest.mark.parametrize(("verdict", "status"), [("allow", "completed"), ("deny", "stopped")])
async def test_9_4_permission_decides_about_the_question(verdict: Any, status: str) -> None:
    from techrevati.agent.behaviours.permissions.gate import Permissions

    world, run_id = await orphaned(Permissions([f"{verdict} recover_agent_run", "allow agent_run"]))
    outcome, _ = await world.run("hello again")
    assert isinstance(outcome, Finished) and outcome.response == "noted"
    assert (await children(world))[run_id].status == status


async def test_9_4_liveness_is_asked_of_the_port() -> None:
    world, run_id = await orphaned()

    class Elsewhere:
        """Another worker's children, as a shared store would show them."""

        async def status(self, asked: str) -> Any:
            from techrevati.agent.subagents.port import ChildView

            return ChildView(run_id=asked, epoch=1, alive=True)

    from dataclasses import replace

    world.driver._ports = replace(world.driver._ports, children=Elsewhere())  # type: ignore[arg-type]
    outcome, _ = await world.run("hello again")
    assert isinstance(outcome, Finished) and outcome.response == "noted"
    assert (await children(world))[run_id].status is SubAgentStatus.RUNNING
