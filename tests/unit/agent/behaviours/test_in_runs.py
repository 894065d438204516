"""The behaviours together with the real loop: a scripted model, real tools, a real store of threads."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from techrevati.agent.answers import read_answer
from techrevati.agent.behaviours.compaction import Compaction, CompactionPolicy
from techrevati.agent.behaviours.context_window import ContextWindow, WindowPolicy
from techrevati.agent.behaviours.deferred_tools import DeferralPolicy, DeferredTools
from techrevati.agent.behaviours.handoff import HandOff, Persona
from techrevati.agent.behaviours.observability import InferenceSpan, Observability, RunMetrics, ToolSpan
from techrevati.agent.behaviours.offload import ArtefactOffload, OffloadPolicy
from techrevati.agent.behaviours.permissions import AddRule, PermissionPolicy, Permissions
from techrevati.agent.behaviours.reminders import AddReminder, ReminderContext, ReminderRule, Reminders
from techrevati.agent.behaviours.skills import DirectorySkills, Skills
from techrevati.agent.definition import AgentDefinition, SubAgentSpec
from techrevati.agent.events import ToolCallReady, ToolCallStart
from techrevati.agent.loop.outcome import Suspended
from techrevati.agent.loop.records import OnSuspend
from techrevati.agent.model import ErrorClass, InferenceError, ModelRequest, TokenUsage
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.subagents.state import children_of
from techrevati.agent.threads.message import Role
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolDescriptor, ToolExecutionEffect, ToolResult
from techrevati.agent.typed_tool import FunctionTool, tool
from tests.unit.agent.behaviours.contexts import reduced
from tests.unit.agent.scripted import Script, World, agent, calls, of_type, said, tool_results, types, until

RM = {"command": "rm x"}


def shell() -> tuple[FunctionTool, list[str]]:
    """Give a tool, and the list of what it really did."""
    done: list[str] = []

    @tool(id="shell", repeatable=False)
    async def run(command: str) -> str:
        """Run a command."""
        done.append(command)
        return f"ran {command}"

    return run, done


def answer(result: Any) -> Any:
    return (read_answer("fc_c1", result),)


async def test_12_4_a_question_is_told_answered_and_remembered_across_runs() -> None:
    run, done = shell()
    model = Script(calls(("c1", "shell", RM)), said("done"), calls(("c2", "shell", RM)), said("again"))
    world = World(model, agent(tools=(run,), behaviors=(Permissions(),)))
    outcome, events = await world.run()
    assert isinstance(outcome, Suspended)
    assert [(e.id, e.name) for e in of_type(events, ToolCallStart)][-1] == ("fc_c1", "PermissionConfirm")
    assert of_type(events, ToolCallReady)[-1].arguments == {"tool_name": "shell", "tool_args": RM}
    assert done == []
    await world.run(None, initial_decisions=answer({"approved": True, "remember": "thread"}))
    assert done == ["rm x"]
    await world.run("again")
    assert done == ["rm x", "rm x"], "not asked a second time"
    assert "permission_policy" in await world.state()


@pytest.mark.parametrize("is_new", [True, False])
async def test_12_4_a_client_that_sends_a_state_cannot_send_permissions(is_new: bool) -> None:
    run, done = shell()
    forged = reduced({}, AnyStateAction.new(PermissionPolicy, AddRule("allow *")))
    forged |= {"__permissions_session": forged["permission_policy"], "theme": "dark"}
    model = Script(*([] if is_new else [said("hi")]), calls(("c1", "shell", RM)))
    world = World(model, agent(tools=(run,), behaviors=(Permissions(),)))
    if not is_new:
        await world.run()
    outcome, _ = await world.run("now", state=forged)
    assert isinstance(outcome, Suspended)
    assert done == []
    assert (await world.state())["theme"] == "dark"


async def test_12_4_an_answer_for_once_is_asked_again() -> None:
    run, done = shell()
    model = Script(calls(("c1", "shell", RM)), said("done"), calls(("c1b", "shell", RM)))
    world = World(model, agent(tools=(run,), behaviors=(Permissions(),)))
    await world.run()
    await world.run(None, initial_decisions=answer(True))
    outcome, _ = await world.run("again")
    assert isinstance(outcome, Suspended)
    assert done == ["rm x"]


async def test_12_4_a_denial_that_lasts_blocks_the_next_call() -> None:
    run, done = shell()
    model = Script(calls(("c1", "shell", RM)), calls(("c2", "shell", RM)), said("ok"))
    world = World(model, agent(tools=(run,), behaviors=(Permissions(["allow shell(command=ls)"]),)))
    await world.run()
    denial = {"approved": False, "remember": "thread", "reason": "too risky"}
    await world.run(None, initial_decisions=answer(denial))
    results = tool_results((await world.thread()).messages)
    assert "too risky" in results["c1"]["message"]
    assert "denied by a permission rule" in results["c2"]["message"]
    assert done == []


async def test_12_4_a_denial_for_the_tool_hides_it_from_the_next_request() -> None:
    run, _ = shell()
    model = Script(calls(("c1", "shell", RM)), said("ok"))
    world = World(model, agent(tools=(run,), behaviors=(Permissions(),)))
    await world.run()
    denial = {"approved": False, "remember": "session", "any_arguments": True}
    await world.run(None, initial_decisions=answer(denial))
    assert [[each.id for each in request.tools] for request in model.requests] == [["shell"], []]


class Cast:
    """A model that plays several agents, told apart by their instructions, each with its replies."""

    def __init__(self, **replies: list[Any]) -> None:
        self.replies = replies
        self.heard: dict[str, dict[str, Any]] = {}

    async def infer(self, request: ModelRequest, on_event: Any) -> Any:
        name = request.messages[0].content.split("\n")[0]
        self.heard[name] = tool_results(request.messages)
        return self.replies[name].pop(0)


def sends(call_id: str, agent_id: str, **more: Any) -> Any:
    return calls((call_id, "agent_run", {"agent_id": agent_id, "prompt": "clean up", **more}))


def chief(*rules: str, **more: Any) -> AgentDefinition:
    behaviors = (Permissions(rules),) if rules else ()
    return agent(**{"instructions": "big", "sub_agents": (SubAgentSpec("helper", ""),), "behaviors": behaviors, **more})


def clerk(run: FunctionTool, **more: Any) -> AgentDefinition:
    behaviors = (Permissions(["allow *"]),)
    return agent(**{"id": "helper", "instructions": "small", "tools": (run,), "behaviors": behaviors, **more})


BOTH = calls(("k1", "shell", RM), ("k2", "shell", {"command": "ls"}))


async def test_12_4_a_sub_agent_is_held_to_its_parent_s_rules() -> None:
    run, done = shell()
    model = Cast(big=[sends("p1", "helper"), said("all done")], small=[BOTH, said("I tried")])
    world = World(model, chief("allow *", "deny shell(command=rm *)"), clerk(run))
    await world.run(on_suspend=OnSuspend.PARK)
    assert done == ["ls"]
    assert "denied by a permission rule: deny shell(command=rm *)" in model.heard["small"]["k1"]["message"]


@pytest.mark.parametrize("between", [(), (Permissions(["allow *"]),)], ids=["without permissions", "with permissions"])
async def test_12_4_a_sub_agent_s_sub_agent_is_held_to_the_root_s_rules(between: tuple[Permissions, ...]) -> None:
    run, done = shell()
    model = Cast(
        big=[sends("p1", "middle"), said("all done")],
        mid=[sends("m1", "helper"), said("passed on")],
        small=[BOTH, said("I tried")],
    )
    world = World(
        model,
        chief("allow *", "deny shell(command=rm *)", sub_agents=(SubAgentSpec("middle", ""),)),
        chief(id="middle", instructions="mid", behaviors=between),
        clerk(run),
    )
    await world.run(on_suspend=OnSuspend.PARK)
    assert done == ["ls"]
    assert "deny shell(command=rm *)" in model.heard["small"]["k1"]["message"]


async def test_12_4_a_parent_without_permissions_restricts_nothing() -> None:
    run, done = shell()
    world = World(Cast(big=[sends("p1", "helper"), said("all done")], small=[BOTH, said("done")]), chief(), clerk(run))
    await world.run(on_suspend=OnSuspend.PARK)
    assert sorted(done) == ["ls", "rm x"]


async def test_12_4_a_sub_agent_that_goes_on_is_held_to_its_parent_s_rules_of_then() -> None:
    run, done = shell()

    @tool(id="forbid", states=(PermissionPolicy,))
    async def forbid() -> ToolExecutionEffect:
        """Deny rm from now on."""
        rule = AnyStateAction.new(PermissionPolicy, AddRule("deny shell(command=rm *)"))
        return ToolExecutionEffect(ToolResult.success("forbid", None), (rule,))

    async def hangs() -> None:
        await asyncio.Event().wait()

    class Hanging(Cast):
        async def infer(self, request: ModelRequest, on_event: Any) -> Any:
            reply = await super().infer(request, on_event)
            return await reply() if callable(reply) else reply

    model = Hanging(big=[sends("p1", "helper", background=True), said("sent")], small=[hangs, BOTH, said("I tried")])
    world = World(model, chief("allow *", tools=(forbid,)), clerk(run))
    await world.run(on_suspend=OnSuspend.PARK)
    (run_id,) = children_of(await world.state())
    model.replies["big"] += [calls(("p2", "agent_stop", {"run_id": run_id}), ("p3", "forbid", {})), said("stopped")]
    await world.run("stop it", on_suspend=OnSuspend.PARK)
    await until(lambda: world.driver.children._handles[run_id].end)
    model.replies["big"] += [calls(("p4", "agent_run", {"run_id": run_id})), said("all done")]
    await world.run("go on", on_suspend=OnSuspend.PARK)
    assert children_of(await world.state())[run_id].epoch == 2
    assert done == ["ls"]


async def test_12_4_a_tool_with_a_question_of_its_own_is_allowed_once() -> None:
    paid: list[int] = []

    @tool(id="pay")
    async def pay(amount: int, ctx: ToolCallContext) -> ToolResult:
        """Pay."""
        if ctx.scratch is None:
            ctx.keep("asked")
            return ToolResult.suspended("pay", "which account?")
        paid.append(amount)
        return ToolResult.success("pay", amount)

    model = Script(calls(("c1", "pay", {"amount": 5})), said("paid"))
    world = World(model, agent(tools=(pay,), behaviors=(Permissions(),)))
    await world.run()
    outcome, _ = await world.run(None, initial_decisions=(read_answer("fc_c1", True, decision_id="d1"),))
    assert isinstance(outcome, Suspended)
    assert [call.suspension.action for call in outcome.calls] == ["tool:pay"]
    await world.run(None, initial_decisions=(read_answer("c1", {"account": 7}, decision_id="d2"),))
    assert paid == [5]


@pytest.fixture
def skills(tmp_path: Path) -> Skills:
    path = tmp_path / "report"
    (path / "scripts").mkdir(parents=True)
    (path / "SKILL.md").write_text(
        "---\nname: report\ndescription: Writes reports.\nallowed-tools: shell\n---\nCount first.", "utf-8"
    )
    (path / "scripts" / "count.sh").write_text("echo 42", "utf-8")
    return Skills(DirectorySkills(tmp_path))


async def test_12_3_a_skill_is_listed_taken_up_and_its_tools_are_allowed(skills: Skills) -> None:
    run, done = shell()
    model = Script(
        calls(("s1", "skill", {"name": "report"})),
        calls(("s2", "skill_script", {"skill": "report", "path": "scripts/count.sh"}), ("c1", "shell", RM)),
        said("reported"),
    )
    gate = Permissions(["allow skill*"])
    await World(model, agent(tools=(run, *skills.tools), behaviors=(skills, gate))).run()
    assert "<name>report</name>" in model.requests[0].messages[0].content
    taken = model.requests[1].messages
    assert 'active="true"' in taken[0].content
    assert any(m.role is Role.USER and "Count first." in m.content for m in taken)
    assert tool_results(model.requests[2].messages)["s2"]["data"]["stdout"] == "42\n"
    assert done == ["rm x"], "allowed by the skill, without a question"


async def test_12_5_a_tool_that_was_searched_for_is_offered_from_the_next_answer_on() -> None:
    run, done = shell()
    deferred = DeferredTools([run], DeferralPolicy(enabled=True))
    model = Script(
        calls(("q", "tool_search", {"query": "command"})), calls(("c1", "shell", RM)), said("done"), said("new run")
    )
    world = World(model, agent(tools=(run, *deferred.tools), behaviors=(deferred,)))
    await world.run()
    await world.run("more")
    offered = [sorted(each.id for each in request.tools) for request in model.requests]
    assert offered == [["tool_search"], ["shell", "tool_search"], ["shell", "tool_search"], ["tool_search"]]
    assert "shell" in model.requests[0].messages[0].content
    assert done == ["rm x"]


async def test_12_1_a_long_run_is_compacted_and_its_thread_keeps_everything() -> None:
    @tool(id="read")
    async def read(page: int) -> str:
        """Read a page."""
        return "word " * 300

    steps = [calls((f"c{n}", "read", {"page": n})) for n in range(12)]
    model, writer = Script(*steps, said("done")), Script(*["a summary"] * 9)
    compaction = Compaction(writer, "small", CompactionPolicy(threshold=2500, min_gain=500, keep_recent=4))
    window = ContextWindow(WindowPolicy(max_context_tokens=8000, max_output_tokens=500, min_recent_messages=2))
    world = World(model, agent(tools=(read,), behaviors=(window, compaction), max_rounds=20))
    await world.run("read it all")
    last = model.requests[-1].messages
    assert [m.content for m in last if m.role is Role.USER and SUMMARY not in m.content] == ["read it all"]
    assert any(SUMMARY in m.content for m in last)
    assert len(last) < 16
    assert 1 <= 9 - writer.left <= 4
    assert len((await world.thread()).messages) == 1 + 12 * 2 + 1
    for request in model.requests:
        asked = {call.id for m in request.messages for call in m.tool_calls}
        assert asked == {m.tool_call_id for m in request.messages if m.role is Role.TOOL}


async def test_12_1_a_large_result_is_read_back_page_by_page() -> None:
    @tool(id="fetch")
    async def fetch() -> str:
        """Fetch a lot."""
        return "begin " + "x" * 20_000 + " the end"

    offload = ArtefactOffload(OffloadPolicy())
    model = Script(
        calls(("c1", "fetch", {})), calls(("r1", "read_artefact", {"id": "c1", "offset": 15_000})), said("done")
    )
    world = World(model, agent(tools=(fetch, *offload.tools), behaviors=(offload,)))
    await world.run()
    shown = tool_results(model.requests[1].messages)["c1"]
    assert shown["artefact"]["characters"] > 20_000
    assert len(str(shown)) < 3000
    read = tool_results(model.requests[2].messages)["r1"]["data"]
    assert read["text"].startswith("xxx")
    assert read["next_offset"] == 21_000 if "next_offset" in read else read["text"].endswith('"}')


async def test_12_2_a_tool_s_reminder_and_a_rule_s_are_read_before_the_next_answer() -> None:
    @tool(id="work")
    async def work(ctx: ToolCallContext) -> ToolExecutionEffect:
        """Work."""
        remind = AnyStateAction.new(Reminders, AddReminder("save"))
        return ToolExecutionEffect(ToolResult.success("work", "1 failed"), (remind,))

    rule = ReminderRule(id="red", tool="work", output="failed", text="fix it", cooldown_turns=2)
    model = Script(*[calls((f"c{n}", "work", {})) for n in range(3)], said("done"))
    world = World(model, agent(tools=(work,), behaviors=(ReminderContext([rule]),)))
    await world.run()
    told = [[m.content for m in request.messages if "Reminder" in m.content] for request in model.requests]
    assert told == [
        [],
        ["Reminder: save", "Reminder: fix it"],
        ["Reminder: save"],
        ["Reminder: save"],
    ], "the rule stays silent for two turns"
    assert (await world.state())["reminders"]["items"] == []


async def test_12_9_a_persona_takes_over_for_the_rest_of_the_run() -> None:
    run, done = shell()
    handoff = HandOff([Persona(name="clerk", description="files", model="m2", allowed_tools=())])
    model = Script(
        calls(("h", "hand_off", {"to": "clerk"})), calls(("c1", "shell", RM)), said("as clerk"), said("as myself")
    )
    world = World(model, agent(tools=(run, *handoff.tools), behaviors=(handoff,)))
    await world.run()
    await world.run("next")
    assert [request.model for request in model.requests] == ["m", "m2", "m2", "m"]
    assert done == []
    assert "not one of clerk's" in tool_results(model.requests[2].messages)["c1"]["message"]


class Sink:
    """Keeps what it is told, and fails if asked to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.inferences: list[InferenceSpan] = []
        self.tools: list[ToolSpan] = []
        self.runs: list[RunMetrics] = []
        self.fails = fails

    def on_inference(self, span: InferenceSpan) -> None:
        self.inferences.append(span)
        self._fail()

    def on_tool(self, span: ToolSpan) -> None:
        self.tools.append(span)
        self._fail()

    def on_run_end(self, metrics: RunMetrics) -> None:
        self.runs.append(metrics)
        self._fail()

    def _fail(self) -> None:
        if self.fails:
            raise RuntimeError("sink")


SUMMARY = "<summary-of-earlier-conversation>"
USAGE = TokenUsage(prompt_tokens=10, completion_tokens=5, cache_read_tokens=3)


def observed(*behaviors: Any) -> World:
    run, _ = shell()
    model = Script(calls(("c1", "shell", RM), ("c2", "shell", {}), usage=USAGE), said("done", usage=USAGE))
    return World(model, agent(tools=(run,), behaviors=behaviors))


async def test_12_8_every_inference_and_tool_call_is_told_and_the_run_summed_up() -> None:
    sink, ticks = Sink(), iter(range(100))
    options = {"temperature": 0.5, "max_tokens": 9, "stop": "END"}
    watch = Observability(sink, model="openai:gpt", options=options, clock=lambda: float(next(ticks)))
    world = observed(watch)
    await world.run()
    first = sink.inferences[0].attributes()
    assert first["gen_ai.provider.name"] == "openai"
    assert first["gen_ai.request.model"] == "openai:gpt"
    assert first["gen_ai.operation.name"] == "chat"
    assert first["gen_ai.usage.input_tokens"] == 10
    assert first["gen_ai.usage.cache_read.input_tokens"] == 3
    assert first["gen_ai.response.finish_reasons"] == ["ToolUse"]
    assert first["gen_ai.request.stop_sequences"] == ["END"]
    assert "error.type" not in first
    assert all(span.duration > 0 for span in sink.inferences)
    assert all(span.duration > 0 for span in sink.tools)
    assert sorted((span.call_id, span.status.value, span.error_type or "") for span in sink.tools) == [
        ("c1", "success", ""),
        ("c2", "error", "tool_error"),
    ]
    assert {span.attributes()["gen_ai.tool.call.id"] for span in sink.tools} == {"c1", "c2"}
    (metrics,) = sink.runs
    assert (metrics.status, metrics.done_reason) == ("done", "natural")
    assert (metrics.total.count, metrics.total.input_tokens, metrics.total.output_tokens) == (2, 20, 10)
    assert (metrics.tools["shell"].count, metrics.tools["shell"].failures) == (2, 1)


async def test_12_8_a_failed_inference_is_told_with_its_class() -> None:
    sink = Sink()
    model = Script(InferenceError("no key", error_class=ErrorClass.AUTH))
    await World(model, agent(behaviors=(Observability(sink, model="m"),))).run()
    (span,) = sink.inferences
    assert (span.error_class, span.attributes()["error.type"]) == ("auth", "auth")
    assert sink.runs[0].models["m"].failures == 1


def sent(request: ModelRequest) -> Any:
    texts = [(message.role, message.content, message.tool_calls) for message in request.messages]
    return request.model, texts, request.tools, request.options, request.prompt_cache


@pytest.mark.parametrize("fails", [False, True])
async def test_12_8_a_run_goes_the_same_way_with_and_without_it(fails: bool) -> None:
    plain, watched = observed(), observed(Observability(Sink(fails=fails), model="m"))
    (one, events), (other, more) = await plain.run(), await watched.run()
    assert type(one) is type(other)
    assert types(events) == types(more)
    assert [(m.role, m.content) for m in (await plain.thread()).messages] == [
        (m.role, m.content) for m in (await watched.thread()).messages
    ]
    assert [sent(request) for request in plain.model.requests] == [sent(each) for each in watched.model.requests]
    left = {name for name in await watched.state() if not name.startswith("__")}
    assert left == {name for name in await plain.state() if not name.startswith("__")}


async def test_12_4_rules_that_the_app_sets_hold_at_once_and_can_be_taken_back() -> None:
    @tool(id="forbid")
    async def forbid(ctx: ToolCallContext) -> ToolExecutionEffect:
        """Forbid the shell."""
        rule = AnyStateAction.new(PermissionPolicy, AddRule("deny shell"))
        return ToolExecutionEffect(ToolResult.success("forbid"), (rule,))

    run, done = shell()
    model = Script(calls(("f", "forbid", {})), calls(("c1", "shell", RM)), said("done"))
    world = World(model, agent(tools=(run, forbid), behaviors=(Permissions(default="allow"),)))
    await world.run()
    assert done == []
    assert [each.id for each in model.requests[1].tools] == ["forbid"]


async def test_12_4_parked_runs_go_on_when_the_answer_comes() -> None:
    run, done = shell()
    model = Script(calls(("c1", "shell", RM)), said("done"))
    world = World(model, agent(tools=(run,), behaviors=(Permissions(),)))
    stream = await world.start(on_suspend=OnSuspend.PARK)
    await until(lambda: stream.waiting)
    stream.submit_decision(read_answer("c1", True))
    async for _ in stream.events:
        pass
    assert done == ["rm x"]


def test_descriptors_of_what_behaviours_bring_are_usable(skills: Skills) -> None:
    found: list[ToolDescriptor] = [
        each.descriptor
        for behaviour in (skills, ArtefactOffload(), HandOff([]), DeferredTools([]))
        for each in behaviour.tools
    ]
    assert all(each.description and each.parameters["type"] == "object" for each in found)
    assert len({each.id for each in found}) == len(found)


async def test_12_3_the_skill_tools_work_without_the_behaviour(skills: Skills) -> None:
    model = Script(calls(("s1", "skill", {"name": "report"})), said("done"))
    world = World(model, agent(tools=skills.tools))
    await world.run()
    assert tool_results(model.requests[1].messages)["s1"]["status"] == "success"
    assert (await world.state())["skills"] == {"active": ["report"]}
