"""Rules whose tests look into one process, asked of a fleet by what a client sees.  Collected by `test_on_a_fleet`."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from techrevati.agent import events, wording
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.behaviours.mcp.connection import McpConnection
from techrevati.agent.behaviours.mcp.servers import Patience
from techrevati.agent.behaviours.mcp.tool import tool_set
from techrevati.agent.endings import CANCELLED, stopped
from techrevati.agent.events import RunFinish, ToolCallDone
from techrevati.agent.loop.outcome import Finished, Suspended
from techrevati.agent.loop.records import run_plan
from techrevati.agent.model import EncryptedReasoning, ErrorClass, InferenceError, ReasoningPiece, TextPiece, TokenUsage
from techrevati.agent.retries import LlmRetryPolicy
from techrevati.agent.stopping import Timeout
from techrevati.agent.suspension import DefaultDecision, ResumeAction
from techrevati.agent.threads.ids import unix_ms
from techrevati.agent.threads.message import Role
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolExecutionEffect, ToolProgress, ToolResult
from techrevati.agent.typed_tool import tool
from techrevati.fleet.models import ModelReply, ModelRequest
from techrevati.fleet.openai_model import OpenAIModel
from techrevati.store.errors import AlreadyDecided, RunEnded, ThreadNotFound
from tests.integration.mcp.conftest import WebServer
from tests.model_server import ModelServer, model_server
from tests.unit.agent.loop.states import Count, OfRun, add
from tests.unit.agent.loop.test_08_suspension import PAY, PAY_TWICE, Approval, Bank
from tests.unit.agent.scripted import Script, agent, calls, cancel, of_type, resume, said, tool_results, types, until

World: Any = None
"""The fleet's; `on_the_fleet` puts it here."""


@tool
def plus(a: int, b: int = 0) -> int:
    """Add."""
    return a + b


@tool
def ask() -> ToolResult:
    """Wait for somebody."""
    return ToolResult.suspended("ask", "please")


async def hang(request: Any, on_event: Any) -> Any:
    on_event(TextPiece("par"))
    await asyncio.Event().wait()


def bank_world(*replies: Any, ticket: Any = None, **options: Any) -> Any:
    bank = Bank()
    return bank, World(Script(*replies), agent(tools=(bank.tool,), behaviors=(Approval(**(ticket or {})),), **options))


# -- 2 ---------------------------------------------------------------------------------------------


async def test_2_2_run_end_of_a_run_that_waited_comes_with_its_end() -> None:
    seen: list[str] = []

    class End(AgentBehavior):
        id = "end"
        states = (Count,)

        async def run_end(self, ctx: Any) -> Any:
            seen.append(ctx.document["__run"]["status"])
            return add(1)

    world = World(Script(calls(("c1", "ask", {})), "well"), agent(tools=(ask,), behaviors=(End(),)))
    first, told = await world.run()
    assert isinstance(first, Suspended) and seen == [] and of_type(told, RunFinish) == []
    outcome, more = await world.run(None, initial_decisions=(cancel("c1"),))
    assert isinstance(outcome, Finished) and outcome.response == "well" and seen == ["done"]
    assert world.streams[0].run_id == world.streams[1].run_id
    assert len(of_type(more, RunFinish)) == 1 and (await world.state())["count"] == {"value": 1}


# -- 5, 7 ------------------------------------------------------------------------------------------


async def test_5_4_run_state_can_be_read_after_its_run_and_goes_with_the_next() -> None:
    class Owner(AgentBehavior):
        id = "owner"
        states = (OfRun, Count)

    @tool
    def note() -> ToolExecutionEffect:
        """Note."""
        from techrevati.agent.state.spec import AnyStateAction

        return ToolExecutionEffect(ToolResult.success("note"), (AnyStateAction.new(OfRun, 2), add(1)))

    world = World(Script(calls(("c1", "note", {})), "ok", "again"), agent(tools=(note,), behaviors=(Owner(),)))
    await world.run()
    assert (await world.state())["of_run"] == {"value": 2}
    await world.run("more")
    state = await world.state()
    assert "of_run" not in state and state["count"] == {"value": 1}


async def test_7_1_a_mixed_round_goes_on_and_the_run_waits() -> None:
    both = calls(("c1", "plus", {"a": 1}), ("c2", "ask", {}))
    world = World(Script(both, "that is all for now"), agent(tools=(plus, ask)))
    outcome, told = await world.run()
    assert isinstance(outcome, Suspended) and [c.call_id for c in outcome.calls] == ["c2"]
    assert of_type(told, RunFinish) == [] and (await world.state())["__run"]["status"] == "waiting"
    shown = world.model.requests[1].messages[-1]
    assert shown.tool_call_id == "c2" and "'ask'" in shown.content, "the model sees a placeholder"


async def test_7_3_each_step_is_one_version() -> None:
    world = World(Script(calls(("c1", "plus", {"a": 1})), calls(("c2", "plus", {"a": 2})), "3"), agent(tools=(plus,)))
    await world.run()
    kept = await world.client.thread("t", tenant=world.tenant).checkpoints()
    assert [one.version for one in kept] == [3, 2, 1]
    at_two = await world.client.thread("t", tenant=world.tenant).messages(at=2)
    assert [one["role"] for one in at_two.messages] == ["user", "assistant", "tool", "assistant", "tool"]


async def test_7_4_a_fleet_s_call_without_a_result_is_said_to_be_interrupted() -> None:
    begun = asyncio.Event()

    @tool
    async def hangs() -> None:
        """Hang."""
        begun.set()
        await asyncio.Event().wait()

    world = World(Script(calls(("c1", "hangs", {})), "so it was"), agent(tools=(hangs,)))
    stream = await world.start()
    await begun.wait()
    stream.cancel()
    await stream.result()
    await world.run("what happened?")
    view = world.model.requests[1].messages
    (answer,) = [m for m in view if m.role is Role.TOOL]
    assert answer.tool_call_id == "c1" and "interrupted" in answer.content


# -- 8 ---------------------------------------------------------------------------------------------


async def test_8_3_a_second_decision_is_refused_where_it_is_made() -> None:
    bank, world = bank_world(PAY, "paid")
    await world.run()
    (stream,) = world.streams
    await stream.decide(resume("c1", id="d1"))
    with pytest.raises((AlreadyDecided, RunEnded)):
        await stream.decide(cancel("s_c1"))
    await stream.result()
    assert len(bank.paid) == 1


async def test_8_3_a_suspension_of_a_fleet_expires_with_its_default_decision() -> None:
    ticket = {"expires_at": unix_ms() + 2000, "default": DefaultDecision(ResumeAction.RESUME, "by default")}
    bank, world = bank_world(PAY, "paid", ticket=ticket)
    outcome, _ = await world.run()
    assert isinstance(outcome, Suspended) and bank.paid == []
    await until(lambda: bank.paid)
    assert bank.paid == [("c1", 5, "by default")]


async def test_8_3_nobody_answers_in_time() -> None:
    bank, world = bank_world(PAY, "nobody came", suspension_timeout=0.3)
    outcome, _ = await world.run()
    assert isinstance(outcome, Suspended)
    await until(lambda: len(world.model.requests) == 2)
    outcome = await world.streams[0].result()
    assert isinstance(outcome, Finished) and outcome.response == "nobody came" and bank.paid == []
    assert tool_results((await world.thread()).messages)["c1"]["message"] == "nobody answered in time (confirm)"


async def test_8_4_a_run_that_is_over_refuses_decisions_and_messages() -> None:
    _, world = bank_world(PAY, "paid")
    await world.run()
    await world.run(None, initial_decisions=(resume("c1"),))
    (run,) = {stream.run.id: stream.run for stream in world.streams}.values()
    with pytest.raises(RunEnded, match="completed"):
        await run.decide("c1", payload=True)
    with pytest.raises(RunEnded, match="completed"):
        await run.steer("one more thing")


async def test_8_4_a_continuation_of_a_fleet_brings_messages_and_decisions() -> None:
    bank, world = bank_world(PAY_TWICE, "done")
    await world.run()
    old = world.streams[0].run_id
    outcome, _ = await world.run("and be quick", parent_run_id=old, initial_decisions=(resume("fc_c1"),))
    assert isinstance(outcome, Finished) and outcome.response == "done"
    assert [p[0] for p in bank.paid] == ["c1"], "the one that was decided went on, the other was abandoned"
    assert (await world.streams[0].run.status()).status == "superseded"
    plan = run_plan(outcome.checkpoint.document)
    assert plan is not None and plan.identity.parent_run_id == old


async def test_8_6_a_pending_projection_is_kept_with_the_commit_and_no_done_follows() -> None:
    _, world = bank_world(PAY)
    _, told = await world.run()
    kept = [e async for e in world.streams[0].run.events(follow=False) if e.n == 0]
    ready = [e for e in kept if e.type == "tool_call_ready"]
    assert [e.data["id"] for e in ready] == ["c1", "fc_c1"] and ready[1].data["name"] == "PermissionConfirm"
    assert of_type(told, ToolCallDone) == []
    assert [e.type for e in kept][-2:] == ["run.suspended", "run.waiting"] or kept[-1].type.startswith(
        ("run.", "turn.")
    )
    assert "suspended_call" in (await world.state())["__tool_call_scope"]["c1"]


# -- 10, 11 ----------------------------------------------------------------------------------------


async def test_10_timeout_of_a_fleet_counts_from_the_start_of_the_run() -> None:
    async def slow(request: Any, on_event: Any) -> Any:
        await asyncio.sleep(0.9)
        return calls((f"c{len(world.model.requests)}", "plus", {"a": 1}))

    world = World(Script(slow, slow, slow, slow), agent(tools=(plus,), stop_conditions=(Timeout(1.5),)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason == stopped("timeout_reached")
    assert len(world.model.requests) == 2


class HangsIn(AgentBehavior):
    id = "hangs"

    async def before_inference(self, ctx: Any) -> None:
        await asyncio.Event().wait()


@tool
async def hangs() -> None:
    """Hang."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("what", ["model", "tool", "hook"])
async def test_10_a_hard_deadline_of_a_fleet_cuts_off_whatever_hangs(what: str) -> None:
    replies: Any = hang if what == "model" else calls(("c1", "hangs", {}))
    behaviors = (HangsIn(),) if what == "hook" else ()
    world = World(Script(replies), agent(tools=(hangs,), behaviors=behaviors, deadline=0.4))
    outcome, told = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason == stopped("timeout_reached", "deadline")
    shown = types(told)
    assert shown[0] == "run_start" and shown[-1] == "run_finish"
    assert shown.count("step_start") == shown.count("step_end")


async def test_11_3_cancel_is_seen_during_a_backoff_of_a_fleet() -> None:
    policy = LlmRetryPolicy(initial_backoff_ms=8000, max_backoff_ms=8000)
    refused = InferenceError("no", "llm_exec_error", ErrorClass.TIMEOUT)
    world = World(Script(refused), agent(retry=policy))
    stream = await world.start()
    await until(lambda: world.model.requests)
    began = time.monotonic()
    stream.cancel()
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.reason == CANCELLED
    assert time.monotonic() - began < 2


async def test_11_3_new_input_on_a_busy_thread_fences_the_run_before_it() -> None:
    world = World(Script(hang, "second"), agent())
    first = await world.start("one")
    await until(lambda: world.model.requests)
    second, _ = await world.run("two")
    assert isinstance(second, Finished) and second.response == "second"
    assert (await first.run.status()).status == "superseded"
    assert (await world.state())["__run"]["done_reason"] == "natural"


async def test_11_3_cancel_reaches_a_running_tool_within_a_second(capsys: Any) -> None:
    heard: list[float] = []
    began = asyncio.Event()

    @tool
    async def works(ctx: ToolCallContext) -> None:
        """Work."""
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            heard.append(time.monotonic())
            assert ctx.is_cancelled

    took = []
    for _ in range(5):
        world = World(Script(calls(("c1", "works", {}))), agent(tools=(works,)))
        stream = await world.start()
        await began.wait()
        began.clear()
        asked = time.monotonic()
        stream.cancel()
        outcome = await stream.result()
        assert isinstance(outcome, Finished) and outcome.reason == CANCELLED
        took.append(heard[-1] - asked)
    with capsys.disabled():
        print(f"\ncancel to tool: {', '.join(f'{one * 1000:.0f} ms' for one in took)}")
    assert max(took) < 1.0


async def test_11_3_a_tool_in_a_thread_sees_that_it_is_cancelled() -> None:
    seen: list[bool] = []

    @tool
    def works(ctx: ToolCallContext) -> None:
        """Work in a thread."""
        seen.append(False)
        while not ctx.is_cancelled:
            time.sleep(0.005)
        seen.append(True)

    world = World(Script(calls(("c1", "works", {}))), agent(tools=(works,)))
    stream = await world.start()
    await until(lambda: seen)
    stream.cancel()
    await stream.result()
    await until(lambda: len(seen) == 2)


class Provider:
    """Every model of a server that speaks OpenAI's API, through the SDK."""

    def __init__(self, sdk: Any) -> None:
        self._sdk = sdk

    async def complete(self, request: ModelRequest) -> ModelReply:
        return await OpenAIModel(request.model, self._sdk).complete(request)


@asynccontextmanager
async def provider() -> AsyncIterator[tuple[ModelServer, Provider]]:
    with model_server() as server:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as sdk:
            yield server, Provider(sdk)


async def test_11_2_a_provider_s_broken_stream_is_continued_by_the_next_model_and_nothing_is_said_twice() -> None:
    async with provider() as (server, model):
        retry = LlmRetryPolicy(stream_error_fallback_threshold=1, initial_backoff_ms=1)
        world = World(model, agent(model="cut after", fallback_models=("tides",), retry=retry))
        outcome, told = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "The tide The tide turns."
    assert "".join(e.delta for e in of_type(told, events.TextDelta)) == outcome.response, (
        "what was shown is what stands"
    )
    assert [e.delta for e in of_type(told, events.ReasoningDelta)] == ["moon", "moon"]
    spoken = [m.content for m in (await world.thread()).messages if m.role is Role.ASSISTANT]
    assert spoken == ["The tide ", "The tide turns."]
    assert [body["model"] for body in server.seen] == ["cut after", "tides"]
    asked = [message["content"] for message in server.seen[1]["messages"]]
    assert (asked[-2] == "The tide " and "go on" in asked[-1].lower()) or "continue" in asked[-1].lower()


async def test_11_2_a_provider_s_refusals_are_tried_again_and_then_elsewhere() -> None:
    async with provider() as (server, model):
        retry = LlmRetryPolicy(initial_backoff_ms=1, max_backoff_ms=2)
        world = World(model, agent(model="500", fallback_models=("401", "tides"), retry=retry))
        outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "The tide turns."
    assert [body["model"] for body in server.seen] == ["500", "500", "401", "tides"]


async def test_13_deltas_travel_in_batches() -> None:
    words = [f"{n} " for n in range(40)]

    async def talks(request: Any, on_event: Any) -> Any:
        for word in words:
            on_event(TextPiece(word))
            await asyncio.sleep(0.005)
        return said("".join(words))

    world = World(Script(talks), agent())
    await world.run()
    live = [e async for e in world.streams[0].run.events(follow=False) if e.type == "text.delta"]
    assert [e.data["text"] for e in live] == words
    moments = sorted({e.at for e in live})
    assert len(moments) <= 8, "forty pieces in 0.2 s, sent every 50 ms"
    assert world.service.fleet.settings.delta_interval == 0.05


# -- 12 --------------------------------------------------------------------------------------------


@pytest.mark.chaos
async def test_12_6_a_server_that_restarts_between_two_turns_is_called_again(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.touch()
    web = WebServer(notes)
    await asyncio.to_thread(web.start)
    try:
        async with McpConnection(web.place, patience=Patience(connect=30.0, call=5.0, backoff=0.05)) as connection:
            tools = tuple(tool_set(connection).values())
            world = World(
                Script(
                    calls(("c1", "mcp__desk__who", {})),
                    "here",
                    calls(("c2", "mcp__desk__who", {}), ("c3", "mcp__desk__add", {"a": 2, "b": 3})),
                    "again",
                ),
                agent(tools=tools),
            )
            await world.run()
            web.kill()
            stream = await world.start("and now?")
            await asyncio.to_thread(web.start)
            outcome = await stream.result()
        assert isinstance(outcome, Finished) and outcome.response == "again"
        results = tool_results((await world.thread()).messages)
        assert [results[c]["status"] for c in ("c1", "c2", "c3")] == ["success"] * 3
        assert results["c1"]["data"] != results["c2"]["data"], "another process answered"
        assert notes.read_text("utf-8").splitlines() == ["who", "who"]
    finally:
        web.kill()


# -- 13 --------------------------------------------------------------------------------------------


async def eventful() -> Any:
    @tool
    async def slow(ctx: ToolCallContext) -> int:
        """Show how far it is."""
        for part in (0.25, 0.5, 0.75):
            ctx.report_progress(ToolProgress(progress=part, message=f"{part}"))
        ctx.activity("stream", "chart", {"points": 3})
        return 1

    def think(request: Any, on_event: Any) -> Any:
        on_event(ReasoningPiece("hm"))
        on_event(TextPiece("do"))
        on_event(TextPiece("ne"))
        return said("done", usage=TokenUsage(prompt_tokens=7, completion_tokens=2, total_tokens=9))

    asked = calls(("c1", "slow", {}), ("c2", "plus", {"a": 2}), ("c3", "plus", {"a": "x"}), text="let me see")
    world = World(Script(asked, think), agent(tools=(plus, slow)))
    _, told = await world.run()
    return world, told


KEPT = [
    *("run_start", "step_start", "inference_complete", "step_end"),
    *["tool_call_ready"] * 3,
    *["activity_snapshot"] * 2,
    *["tool_call_done"] * 3,
    "state_snapshot",
    *("step_start", "inference_complete", "step_end", "run_finish"),
]


async def test_13_3_what_is_kept_stands_in_the_order_of_the_rules() -> None:
    world, _ = await eventful()
    kept = [e async for e in world.streams[0].run.events(follow=False) if e.n == 0]
    assert [e.type for e in kept if e.type in KEPT] == KEPT
    assert [e.seq for e in kept] == list(range(1, len(kept) + 1)), "without gaps"


async def test_13_3_live_each_delta_comes_behind_the_step_it_belongs_to() -> None:
    _, told = await eventful()
    shown = types(told)
    assert shown[:3] == ["run_start", "step_start", "text_delta"]
    assert shown.index("tool_call_start") < shown.index("tool_call_delta") < shown.index("tool_call_ready")
    last = len(shown) - 1 - shown[::-1].index("step_start")
    assert shown[last + 1 : last + 4] == ["reasoning_delta", "text_delta", "text_delta"]
    assert [e.event.delta for e in told[last + 1 : last + 4]] == ["hm", "do", "ne"]


async def test_13_3_nothing_is_told_before_it_is_stored() -> None:
    gate = asyncio.Event()

    @tool
    async def waits() -> int:
        """Wait."""
        await gate.wait()
        return 1

    world = World(Script(calls(("c1", "waits", {})), "ok"), agent(tools=(waits,)))
    stream = await world.start()
    async with asyncio.timeout(10):
        while "tool_call_delta" not in types(await stream.told()):
            await asyncio.sleep(0.01)
    free = {str(kind.__struct_config__.tag) for kind in events.STREAMED} | {"run_start", "step_start"}
    assert set(types(await stream.told())) <= free
    gate.set()
    await stream.result()
    stored = {m.id for m in (await world.thread()).messages}
    for event in await stream.told():
        if (message := getattr(event.event, "message_id", None)) and event.event.type in (
            "step_start",
            "tool_call_done",
        ):
            assert message in stored


async def test_13_4_progress_has_its_lineage_and_its_last_state_is_kept() -> None:
    world, told = await eventful()
    run_id = world.streams[0].run_id
    progress = [e for e in of_type(told, events.ActivitySnapshot) if e.activity_type == "tool-call-progress"]
    assert [e.content["progress"] for e in progress] == [0.25, 0.5, 0.75]
    content = dict(progress[-1].content)
    assert abs(content.pop("updated_at_ms") - unix_ms()) < 60_000
    assert content == {
        "type": "tool-call-progress",
        "schema": "tool-call-progress.v1",
        "node_id": "tool_call:c1",
        "call_id": "c1",
        "tool_name": "slow",
        "status": "running",
        "progress": 0.75,
        "message": "0.75",
        "run_id": run_id,
        "thread_id": "t",
    }
    kept = [e async for e in world.streams[0].run.events(follow=False) if e.n == 0 and e.type == "activity_snapshot"]
    assert [e.data["content"].get("progress") for e in kept] == [0.75, None], "of an activity, its last state"


async def test_13_5_deltas_may_be_dropped_and_everything_else_is_kept() -> None:
    world, told = await eventful()
    run = world.streams[0].run
    keys = world.service.keys(run.id)
    await world.client.store.command("DEL", keys.live(run.id))  # as their retention does
    left = await world.streams[0].told()
    gone = {"text_delta", "reasoning_delta", "tool_call_start", "tool_call_delta"}
    assert gone & set(types(told)) == gone and not gone & set(types(left))
    once = [e.event for e in told if e.event.type not in (*gone, "activity_snapshot")]
    assert [e.event for e in left if e.event.type != "activity_snapshot"] == once
    assert len(of_type(left, events.ActivitySnapshot)) == 2


async def test_13_5_a_follower_may_go_on_behind_any_event() -> None:
    world, _ = await eventful()
    run = world.streams[0].run
    every = [e async for e in run.events(follow=False)]
    for place, event in enumerate(every):
        rest = [e.id async for e in run.events(after=event.id, follow=False)]
        assert rest == [e.id for e in every[place + 1 :]]


async def test_13_2_encrypted_reasoning_is_kept() -> None:
    def think(request: Any, on_event: Any) -> Any:
        on_event(ReasoningPiece("hm"))
        on_event(EncryptedReasoning("0x"))
        return said("done")

    world = World(Script(think), agent())
    _, told = await world.run()
    assert [e.delta for e in of_type(told, events.ReasoningDelta)] == ["hm"]
    assert [e.encrypted_value for e in of_type(told, events.ReasoningEncryptedValue)] == ["0x"]


# -- 14 --------------------------------------------------------------------------------------------


async def test_14_4_messages_come_page_by_page_without_gap_or_repeat() -> None:
    steps = [calls((f"c{n}", "plus", {"a": n})) for n in range(4)]
    world = World(Script(*steps, "done"), agent(tools=(plus,)))
    await world.run()
    whole = [m.id for m in (await world.thread()).messages]
    thread, cursor, seen = world.client.thread("t", tenant=world.tenant), None, list[str]()
    while True:
        page = await thread.messages(after=cursor, limit=3)
        assert len(page.messages) <= 3
        seen += [one["id"] for one in page.messages]
        if (cursor := page.cursor) is None:
            break
    assert seen == whole and len(whole) == 10


async def test_14_4_runs_of_a_fleet_by_what_is_asked() -> None:
    world = World(Script("one", InferenceError("no", "llm_exec_error", ErrorClass.AUTH), "three"), agent())
    for text in ("a", "b", "c"):
        await world.run(text)
    runs = await world.client.list_runs(tenant=world.tenant)
    assert [one.status.value for one in runs] == ["completed", "failed", "completed"], "the newest first"
    (broken,) = await world.client.list_runs(tenant=world.tenant, status="failed")
    assert "auth" in broken.error["message"]
    first = await world.client.runs(tenant=world.tenant, limit=2)
    rest = await world.client.runs(tenant=world.tenant, limit=2, after=first.cursor)
    assert [one.run_id for one in (*first.runs, *rest.runs)] == [one.run_id for one in runs]


async def test_14_5_messages_belong_to_their_run() -> None:
    world = World(Script("one", "two"), agent())
    await world.run("a")
    await world.run("b")
    owners = [m.run_id for m in (await world.thread()).messages]
    first, second = (stream.run_id for stream in world.streams)
    assert owners == [first, first, second, second]
    assert len({m.id for m in (await world.thread()).messages}) == 4


async def test_14_5_known_messages_are_dropped() -> None:
    world = World(Script("one", "two"), agent())
    await world.run("a")
    known = [{"id": m.id, "role": m.role.value, "content": m.content} for m in (await world.thread()).messages]
    fresh = {"role": "user", "content": "b"}
    run = await world.client.start("a", {"messages": [*known, fresh]}, thread_id="t", tenant=world.tenant)
    await run.result(timeout=10)
    assert [m.content for m in (await world.thread()).messages] == ["a", "one", "b", "two"]


async def test_14_5_state_of_a_fleet_s_run_begins_a_thread_and_replaces_that_of_an_old_one() -> None:
    world = World(Script("x", "y"), agent())
    await world.run(state={"theme": "dark", "__run": {"id": "forged"}})
    state = await world.state()
    assert state["theme"] == "dark" and state["__run"]["id"] == world.streams[0].run_id
    await world.run("again", state={"size": 3})
    state = await world.state()
    assert state["size"] == 3 and "theme" not in state and state["__run"]["status"] == "done"


async def test_14_2_a_thread_of_a_fleet_can_be_forked_read_as_it_was_and_deleted() -> None:
    class Owner(AgentBehavior):
        id = "owner"
        states = (Count,)

    @tool
    def count() -> ToolExecutionEffect:
        """Count."""
        return ToolExecutionEffect(ToolResult.success("count"), (add(1),))

    once = [calls((f"c{n}", "count", {})) for n in (1, 2)]
    world = World(
        Script(*once, "two", calls(("c9", "count", {})), "again"), agent(tools=(count,), behaviors=(Owner(),))
    )
    await world.run()
    thread = world.client.thread("t", tenant=world.tenant)
    assert [(await thread.state(at=n))["count"]["value"] for n in (1, 2, 3)] == [1, 2, 2]
    fork = await thread.fork(at=1)
    assert await fork.result(timeout=10) == "again"
    copy = world.client.thread((await fork.status()).thread_id, tenant=world.tenant)
    assert (await copy.state())["count"]["value"] == 2 and (await copy.state())["__run"]["id"] == fork.id
    assert (await thread.state())["count"]["value"] == 2, "the source stays as it is"
    assert await thread.delete()
    with pytest.raises(ThreadNotFound):
        await thread.state()
    assert (await copy.state())["count"]["value"] == 2


# -- steering --------------------------------------------------------------------------------------


async def test_11_steering_during_a_tool_is_seen_by_the_next_inference() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    @tool
    async def waits() -> int:
        """Wait."""
        begun.set()
        await gate.wait()
        return 1

    world = World(Script(calls(("c1", "waits", {})), "with the moon"), agent(tools=(waits,)))
    stream = await world.start("tides")
    await begun.wait()
    stream.steer("mention the moon")
    await asyncio.gather(*stream._asked)
    gate.set()
    outcome = await stream.result()
    assert isinstance(outcome, Finished) and outcome.response == "with the moon"
    assert [m.content for m in world.model.requests[1].messages][-1] == "mention the moon"
    assert not any(wording.has_mark(m, wording.INTERRUPTED) for m in (await world.thread()).messages)


async def test_11_what_is_said_during_the_last_answer_is_answered_too() -> None:
    async def first(request: Any, on_event: Any) -> Any:
        await world.streams[0].run.steer("and in French")
        return said("done")

    world = World(Script(first, "fini"), agent())
    outcome, told = await world.run("translate")
    assert isinstance(outcome, Finished) and outcome.response == "fini"
    assert [m.content for m in (await world.thread()).messages] == ["translate", "done", "and in French", "fini"]
    assert len(of_type(told, RunFinish)) == 1
