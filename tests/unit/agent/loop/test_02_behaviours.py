"""§2 of the agent semantics: phases, actions, composition, the gate."""

from typing import Any

import pytest

from techrevati.agent.actions import (
    ActionSet,
    AddContextMessage,
    AddRequestTransform,
    AddSessionContext,
    AddSystemContext,
    AddSystemReminder,
    AddUserMessage,
    Block,
    ContextMessage,
    ExcludeTool,
    IncludeOnlyTools,
    OverrideInference,
    OverrideModel,
    Phase,
    Proceed,
    RequestView,
    SetToolResult,
    Suspend,
    Target,
    Terminate,
    WrongPhase,
    checked,
)
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.building import build
from techrevati.agent.context import ReadOnlyContext
from techrevati.agent.endings import NATURAL_END, stopped
from techrevati.agent.errors import WiringError
from techrevati.agent.gate import Answered, Blocked, Open, Parking, standing
from techrevati.agent.loop.outcome import Finished, Suspended
from techrevati.agent.model import ErrorClass, InferenceError
from techrevati.agent.suspension import default_ticket
from techrevati.agent.threads.message import Role, Visibility
from techrevati.agent.tools import ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.loop.states import Count, Note, OfRun, add
from tests.unit.agent.scripted import Recorder, Script, World, agent, calls, tool_results, types

ran: list[Any] = []


@tool
def plus(a: int, b: int = 0) -> int:
    """Add two numbers."""
    ran.append((a, b))
    return a + b


@tool
def other() -> str:
    """Do something else."""
    return "other"


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()


def hook(phase: str, *effects: Any, id: str = "b", states: Any = (Count,)) -> AgentBehavior:
    """Make a behaviour that gives `effects` one after the other, each time `phase` comes."""

    class Hooked(AgentBehavior):
        pass

    left = list(effects)

    async def act(self: Hooked, ctx: ReadOnlyContext) -> Any:
        effect = left.pop(0) if len(left) > 1 else left[0]
        return effect(ctx) if callable(effect) else effect

    setattr(Hooked, phase, act)
    made = Hooked()
    made.id, made.states = id, states  # type: ignore[misc]
    return made


ONE_CALL = calls(("c1", "plus", {"a": 1, "b": 2}))

# -- 2.1, 2.2 --------------------------------------------------------------------------------------


async def test_2_1_a_behavior_that_overrides_nothing_has_no_effect() -> None:
    class Silent(AgentBehavior):
        id = "silent"

    outcome, _ = await World(Script("hi"), agent(behaviors=(Silent(),))).run()
    assert isinstance(outcome, Finished) and outcome.response == "hi"


async def test_2_1_the_states_a_behavior_names_are_registered_with_scope_lattice_and_decoder() -> None:
    world = World(Script("hi"), agent(behaviors=(hook("run_start", None, states=(Count, Note, OfRun)),)))
    states = world.agents["a"].states
    assert ("of_run",) in states.scopes.run_paths and ("count",) not in states.scopes.run_paths
    assert states.actions.read(add(2).entry()) == add(2)


async def test_2_2_eight_phases_come_in_their_order() -> None:
    log: list[str] = []
    await World(Script(ONE_CALL, "done"), agent(tools=(plus,), behaviors=(Recorder(log),))).run()
    step = ["step_start", "before_inference", "after_inference", "step_end"]
    assert log == ["run_start", *step, "before_tool_execute:c1", "after_tool_execute:c1", *step, "run_end"]


async def test_2_2_run_start_comes_before_the_run_start_event() -> None:
    world = World(Script("hi"), agent(behaviors=(hook("run_start", add(1)),)))
    _, events = await world.run()
    assert types(events)[0] == "run_start"
    assert (await world.state())["count"] == {"value": 1}


async def test_2_2_step_end_precedes_the_tool_round() -> None:
    log: list[str] = []

    class Watch(AgentBehavior):
        id = "watch"

        async def step_end(self, ctx: ReadOnlyContext) -> None:
            log.append(f"step_end {ctx.messages[-1].role} {len(ran)}")

    world = World(Script(ONE_CALL, "done"), agent(tools=(plus,), behaviors=(Watch(),)))
    _, events = await world.run()
    assert log == ["step_end assistant 0", "step_end assistant 1"]
    seen = types(events)
    assert seen.index("step_end") < seen.index("tool_call_ready")
    ready = next(e for e in events if e.event.type == "tool_call_ready")
    assert ready.step_id is None, "tools are outside the bracket of their step"


async def test_2_2_a_failed_model_still_has_after_inference_and_step_end_then_run_end() -> None:
    log: list[str] = []
    errors: list[Any] = []

    class Watch(Recorder):
        async def after_inference(self, ctx: ReadOnlyContext) -> None:
            errors.append((ctx.response, ctx.inference_error))
            self.log.append("after_inference")

    refused = InferenceError("no key", "llm_exec_error", ErrorClass.AUTH)
    world = World(Script(refused), agent(behaviors=(Watch(log),)))
    outcome, events = await world.run()
    assert log == ["run_start", "step_start", "before_inference", "after_inference", "step_end", "run_end"]
    ((response, error),) = errors
    assert response is None and "no key" in error.message and error.error_class is ErrorClass.AUTH
    assert isinstance(outcome, Finished) and outcome.reason.type == "error"
    assert types(events)[-2:] == ["error", "run_finish"]


@pytest.mark.parametrize("path", ["natural", "error", "cancel", "suspend", "terminate", "hook"])
async def test_2_2_run_end_comes_on_every_terminal_path_after_the_status_was_set(path: str) -> None:
    seen: list[str] = []

    class End(AgentBehavior):
        id = "end"

        async def run_end(self, ctx: ReadOnlyContext) -> Any:
            seen.append(ctx.document["__run"]["status"])
            return add(1)

        async def before_inference(self, ctx: ReadOnlyContext) -> Any:
            if path == "hook":
                raise RuntimeError("boom")
            return Terminate() if path == "terminate" else None

        async def before_tool_execute(self, ctx: ReadOnlyContext) -> Any:
            return Suspend(default_ticket(str(ctx.tool_call_id), "plus", {}))

    async def hang(*_: Any) -> Any:
        world.driver.stream(stream.run_id).cancel()  # type: ignore[union-attr]
        import asyncio

        await asyncio.Event().wait()

    replies: dict[str, Any] = {
        "natural": "hi",
        "error": InferenceError("bad", "llm_exec_error", ErrorClass.CLIENT_REQUEST),
        "cancel": hang,
        "suspend": ONE_CALL,
    }
    behavior = End()
    behavior.states = (Count,)  # type: ignore[misc]
    world = World(Script(replies.get(path, "hi")), agent(tools=(plus,), behaviors=(behavior,)))
    stream = await world.start()
    await stream.result()
    assert seen == ["waiting" if path == "suspend" else "done"]
    assert (await world.state())["count"] == {"value": 1}, "its effects are part of the final checkpoint"


# -- 2.3 -------------------------------------------------------------------------------------------


async def test_2_3_the_context_shows_what_its_phase_has() -> None:
    seen: dict[str, Any] = {}

    class Watch(AgentBehavior):
        id = "watch"
        states = (Count, Note)

        async def run_start(self, ctx: ReadOnlyContext) -> Any:
            seen["start"] = (ctx.phase, ctx.thread_id, ctx.initial_message_count, len(ctx.run_messages))
            return add(4)

        async def after_inference(self, ctx: ReadOnlyContext) -> None:
            seen.setdefault("after", []).append((ctx.response and ctx.response.text, ctx.inference_error))

        async def before_tool_execute(self, ctx: ReadOnlyContext) -> None:
            seen["before"] = (ctx.tool_name, ctx.tool_call_id, ctx.tool_args, ctx.tool_result, ctx.resume_input)
            seen["state"] = (ctx.snapshot_of(Count), ctx.scoped_state_of(Note), ctx.snapshot()["count"])

        async def after_tool_execute(self, ctx: ReadOnlyContext) -> None:
            seen["result"] = ctx.tool_result

    world = World(Script("first", ONE_CALL, "done"), agent(tools=(plus,), behaviors=(Watch(),)))
    await world.run("one")
    await world.run("two")
    assert seen["start"] == (Phase.RUN_START, "t", 2, 1)
    assert seen["after"] == [("first", None), ("", None), ("done", None)]
    assert seen["before"] == ("plus", "c1", {"a": 1, "b": 2}, None, None)
    assert seen["state"][0] == Count(value=8) and seen["state"][1] == Note() and seen["state"][2] == {"value": 8}
    assert seen["result"] == ToolResult.success("plus", 3)


# -- 2.4 -------------------------------------------------------------------------------------------


def test_2_4_an_action_set_keeps_order_and_a_bare_action_is_one() -> None:
    both: ActionSet[Any] = ActionSet.single(ExcludeTool("x")).and_(ExcludeTool("y")).and_(ActionSet.single(Terminate()))
    assert [type(a).__name__ for a in both] == ["ExcludeTool", "ExcludeTool", "Terminate"]
    assert len(both) == 3 and both and not ActionSet.empty()
    assert checked(add(1), Phase.RUN_START, "x") == (add(1),)
    assert checked(None, Phase.RUN_START, "x") == ()


@pytest.mark.parametrize("phase", list(Phase))
def test_2_4_an_action_is_refused_outside_its_phase(phase: Phase) -> None:
    for action, home in (
        (Block("no"), Phase.BEFORE_TOOL_EXECUTE),
        (AddSystemContext("x"), Phase.BEFORE_INFERENCE),
        (AddSystemReminder("x"), Phase.AFTER_TOOL_EXECUTE),
    ):
        if phase is home:
            assert checked(action, phase, "b") == (action,)
        else:
            with pytest.raises(WrongPhase, match=f"b gave {type(action).__name__} in {phase.value}"):
                checked(action, phase, "b")


def test_2_4_a_custom_action_checks_its_phase_and_stands_for_built_in_ones() -> None:
    class Hush:
        label = "hush"

        def validate(self, phase: Phase) -> str | None:
            return None if phase is Phase.BEFORE_INFERENCE else "only before inference"

        def expand(self, phase: Phase) -> list[Any]:
            return [ExcludeTool("a"), ExcludeTool("b")]

    assert checked(Hush(), Phase.BEFORE_INFERENCE, "b") == (ExcludeTool("a"), ExcludeTool("b"))
    with pytest.raises(WrongPhase, match="only before inference"):
        checked(Hush(), Phase.RUN_END, "b")


async def test_2_4_a_wrong_action_of_a_tool_ends_the_run() -> None:
    from techrevati.agent.tools import ToolExecutionEffect

    @tool
    def bad() -> ToolExecutionEffect:
        """Gate where no gate is."""
        return ToolExecutionEffect(ToolResult.success("bad"), (Block("no"),))  # type: ignore[arg-type]

    world = World(Script(calls(("c1", "bad", {}))), agent(tools=(bad,)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason.type == "error"
    assert "tool 'bad' gave Block in after_tool_execute" in str(outcome.reason.value)


async def test_2_4_before_inference_ends_the_run_before_the_model_is_called() -> None:
    world = World(Script(), agent(behaviors=(hook("before_inference", Terminate(stopped("quota"))),)))
    outcome, events = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason == stopped("quota")
    assert "step_start" not in types(events)


async def test_2_4_model_and_options_of_one_inference_can_be_overridden() -> None:
    behavior = hook(
        "before_inference", ActionSet.of((OverrideModel("m2"), OverrideInference({"temperature": 0}))), None
    )
    world = World(Script(ONE_CALL, "x"), agent(tools=(plus,), behaviors=(behavior,), options={"temperature": 1}))
    await world.run()
    assert [(r.model, r.options) for r in world.model.requests] == [
        ("m2", {"temperature": 0}),
        ("m", {"temperature": 1}),
    ]


async def test_2_4_reminders_follow_their_call_and_user_messages_follow_the_round() -> None:
    def effect(ctx: ReadOnlyContext) -> Any:
        return ActionSet.of((AddUserMessage(f"user {ctx.tool_call_id}"), AddSystemReminder(f"mind {ctx.tool_call_id}")))

    blank = hook("after_tool_execute", AddUserMessage("  "), id="blank")
    two = calls(("c1", "plus", {"a": 1}), ("c2", "plus", {"a": 2}))
    world = World(Script(two, "x"), agent(tools=(plus,), behaviors=(hook("after_tool_execute", effect), blank)))
    await world.run()
    told = [(m.role, m.content, m.visibility) for m in (await world.thread()).messages[2:-1]]
    assert [(r, c) for r, c, _ in told if r is not Role.TOOL] == [
        (Role.SYSTEM, "<system-reminder>mind c1</system-reminder>"),
        (Role.SYSTEM, "<system-reminder>mind c2</system-reminder>"),
        (Role.USER, "user c1"),
        (Role.USER, "user c2"),
    ]
    assert [r for r, _, _ in told[:4]] == [Role.TOOL, Role.SYSTEM, Role.TOOL, Role.SYSTEM]
    assert told[1][2] is Visibility.INTERNAL


# -- 2.5 -------------------------------------------------------------------------------------------


async def test_2_5_a_request_is_system_then_session_then_history_then_suffix() -> None:
    effect = ActionSet.of(
        (
            AddContextMessage(ContextMessage("s", "suffix", target=Target.SUFFIX_SYSTEM)),
            AddSessionContext("session"),
            AddSystemContext("more"),
            AddContextMessage(ContextMessage("k", "still more")),
        )
    )
    world = World(Script("x"), agent(behaviors=(hook("before_inference", effect),)))
    await world.run("hello")
    sent = [(m.role.value, m.content) for m in world.model.requests[0].messages]
    assert sent == [
        ("system", "Be good.\nmore\nstill more"),
        ("system", "session"),
        ("user", "hello"),
        ("system", "suffix"),
    ]
    assert [m.content for m in (await world.thread()).messages] == ["hello", "x"], "context is not stored"


async def test_2_5_a_conversation_message_is_stored() -> None:
    note = AddContextMessage(ContextMessage("n", "by the way", target=Target.CONVERSATION, role="user"))
    world = World(Script("x"), agent(behaviors=(hook("before_inference", note),)))
    await world.run("hello")
    assert [m.content for m in (await world.thread()).messages] == ["hello", "by the way", "x"]
    assert world.model.requests[0].messages[-1].content == "by the way"


async def test_2_5_a_cooldown_skips_that_many_inferences_across_runs() -> None:
    note = AddContextMessage(ContextMessage("n", "mind the gap", cooldown_turns=2))
    world = World(Script(*["x"] * 5), agent(behaviors=(hook("before_inference", note),)))
    for _ in range(5):
        await world.run()
    shown = ["mind the gap" in r.messages[0].content for r in world.model.requests]
    assert shown == [True, False, False, True, False]


async def test_2_5_one_key_is_shown_once() -> None:
    twice = ActionSet.of(AddContextMessage(ContextMessage("n", text)) for text in ("old", "new"))
    world = World(Script("x"), agent(behaviors=(hook("before_inference", twice),)))
    await world.run()
    assert world.model.requests[0].messages[0].content == "Be good.\nnew"


# -- 2.6 -------------------------------------------------------------------------------------------


async def test_2_6_behaviors_of_one_phase_see_the_same_snapshot() -> None:
    seen: list[Any] = []

    def effect(ctx: ReadOnlyContext) -> Any:
        seen.append(ctx.document.get("count"))
        return add(1)

    pair = (hook("run_start", effect, id="one"), hook("run_start", effect, id="two"))
    world = World(Script("x"), agent(behaviors=pair))
    await world.run()
    assert seen == [None, None]
    assert (await world.state())["count"] == {"value": 2}, "their actions are reduced one after the other"


async def test_2_6_results_are_joined_in_the_order_of_registration() -> None:
    import asyncio

    class Slow(AgentBehavior):
        id = "slow"

        async def before_inference(self, ctx: ReadOnlyContext) -> Any:
            await asyncio.sleep(0.01)
            return AddSystemContext("slow")

    world = World(Script("x"), agent(behaviors=(Slow(), hook("before_inference", AddSystemContext("fast"), id="fast"))))
    await world.run()
    assert world.model.requests[0].messages[0].content == "Be good.\nslow\nfast"


async def test_2_6_state_rolls_forward_from_step_start_to_before_inference() -> None:
    seen: list[Any] = []

    def look(ctx: ReadOnlyContext) -> Any:
        seen.append(ctx.document["count"])
        return add(1)

    pair = (
        hook("step_start", add(1), id="one"),
        hook("before_inference", look, id="two"),
    )
    world = World(Script("x"), agent(behaviors=pair))
    await world.run()
    assert seen == [{"value": 1}]
    assert (await world.state())["count"] == {"value": 2}


async def test_2_6_tool_filters_apply_one_after_the_other() -> None:
    pair = (
        hook("before_inference", IncludeOnlyTools(("plus", "other")), id="one"),
        hook("before_inference", ExcludeTool("other"), id="two"),
        hook("before_inference", IncludeOnlyTools(("other", "plus")), id="three"),
    )
    world = World(Script("x"), agent(tools=(plus, other), behaviors=pair))
    await world.run()
    assert [t.id for t in world.model.requests[0].tools] == ["plus"]


async def test_2_6_transforms_chain_and_the_cache_flag_is_ored() -> None:
    def first(view: RequestView) -> RequestView:
        return RequestView(view.messages[:1], (), True)

    def second(view: RequestView) -> RequestView:
        assert len(view.messages) == 1 and [t.id for t in view.tools] == ["plus"]
        return RequestView((*view.messages, view.messages[0]), view.tools)

    both = ActionSet.of((AddRequestTransform(first), AddRequestTransform(second)))
    world = World(Script("x"), agent(tools=(plus,), behaviors=(hook("before_inference", both),)))
    await world.run()
    request = world.model.requests[0]
    assert len(request.messages) == 2 and request.prompt_cache


async def test_2_6_the_last_terminate_of_a_phase_wins() -> None:
    pair = (
        hook("before_inference", Terminate(stopped("one")), id="one"),
        hook("before_inference", Terminate(NATURAL_END), id="two"),
    )
    outcome, _ = await World(Script(), agent(behaviors=pair)).run()
    assert isinstance(outcome, Finished) and outcome.reason == NATURAL_END


TICKET = default_ticket("c1", "plus", {})
RESULT = ToolResult.success("plus", "given")


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ((), Open()),
        ((Suspend(TICKET),), Parking(TICKET)),
        ((Block("no"), Suspend(TICKET)), Blocked("no")),
        ((Suspend(TICKET), Block("no")), Blocked("no")),
        ((Block("no"), SetToolResult(RESULT)), Blocked("no")),
        ((SetToolResult(RESULT), Suspend(TICKET)), Answered(RESULT)),
        (
            (SetToolResult(RESULT), SetToolResult(ToolResult.success("plus", 2))),
            Answered(ToolResult.success("plus", 2)),
        ),
        ((Block("no"), Suspend(TICKET, override=True)), Parking(TICKET)),
        ((Block("no"), Proceed()), Open()),
    ],
)
def test_2_6_the_gate_is_a_lattice_that_only_an_override_leaves(actions: Any, expected: Any) -> None:
    assert standing(actions) == expected


def test_2_6_ids_are_unique_and_reserved_ones_refused() -> None:
    with pytest.raises(WiringError, match="behavior id 'b' is used twice"):
        World(Script(), agent(behaviors=(hook("run_start", None), hook("run_start", None))))
    with pytest.raises(WiringError, match="'stop_policy' is the runtime's own"):
        World(Script(), agent(behaviors=(hook("run_start", None, id="stop_policy"),)))


def test_2_6_system_behaviors_come_first_and_the_stop_policy_last() -> None:
    from techrevati.agent.definition import SubAgentSpec

    made = build(agent(behaviors=(hook("run_start", None, id="mine"),), sub_agents=(SubAgentSpec("s"),)))
    assert [b.id for b in made.behaviors] == ["agent_tools", "agent_recovery", "mine", "stop_policy"]


def test_2_1_behaviors_may_ask_for_an_order() -> None:
    first, second = hook("run_start", None, id="first"), hook("run_start", None, id="second")
    second.before = ("first",)  # type: ignore[misc]
    world = World(Script(), agent(behaviors=(first, second)))
    assert [b.id for b in world.agents["a"].behaviors][:2] == ["second", "first"]
    first.before = ("second",)  # type: ignore[misc]
    with pytest.raises(WiringError, match="want to come after each other"):
        World(Script(), agent(behaviors=(first, second)))


# -- 2.7 -------------------------------------------------------------------------------------------


async def gated(effect: Any, arguments: Any = None, name: str = "plus") -> tuple[Any, dict[str, Any]]:
    asked = calls(("c1", name, {"a": 1} if arguments is None else arguments))
    behavior = hook("before_tool_execute", effect)
    world = World(Script(asked, "done"), agent(tools=(plus,), behaviors=(behavior,)))
    outcome, _ = await world.run()
    return outcome, tool_results((await world.thread()).messages)


async def test_2_7_a_blocked_call_gives_an_error_and_does_not_run() -> None:
    _, results = await gated(Block("not today"))
    assert results["c1"]["status"] == "error" and results["c1"]["message"] == "not today" and ran == []


async def test_2_7_a_given_result_is_used_and_its_status_is_the_outcome() -> None:
    _, results = await gated(SetToolResult(RESULT))
    assert results["c1"]["data"] == "given" and ran == []
    outcome, results = await gated(SetToolResult(ToolResult.suspended("plus", "wait")))
    assert isinstance(outcome, Suspended) and outcome.calls[0].call_id == "c1" and ran == []


async def test_2_7_an_unknown_tool_is_named_in_an_error() -> None:
    _, results = await gated(Suspend(TICKET), name="nothing")
    assert results["c1"]["message"] == "tool 'nothing' is not available"


async def test_2_7_an_invalid_call_is_never_parked() -> None:
    outcome, results = await gated(Suspend(TICKET), {"a": "many"})
    assert isinstance(outcome, Finished)
    assert results["c1"]["status"] == "error" and "a: Input should be a valid integer" in results["c1"]["message"]


async def test_2_7_a_suspended_call_waits() -> None:
    outcome, results = await gated(Suspend(TICKET))
    assert isinstance(outcome, Suspended) and results == {} and ran == []


async def test_2_7_an_exception_is_an_error_result_and_the_run_goes_on() -> None:
    @tool
    def fails() -> None:
        """Fail."""
        raise ValueError("no such thing")

    world = World(Script(calls(("c1", "fails", {})), "ok"), agent(tools=(fails,)))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.response == "ok"
    assert tool_results((await world.thread()).messages)["c1"]["message"] == "ValueError: no such thing"


async def test_2_7_after_tool_execute_comes_for_blocked_failed_and_suspended_calls_before_the_status() -> None:
    seen: list[Any] = []

    class Watch(AgentBehavior):
        id = "watch"

        async def before_tool_execute(self, ctx: ReadOnlyContext) -> Any:
            return {"c1": Block("no"), "c3": Suspend(default_ticket("c3", "plus", {}))}.get(str(ctx.tool_call_id))

        async def after_tool_execute(self, ctx: ReadOnlyContext) -> None:
            scope = ctx.document.get("__tool_call_scope", {}).get(ctx.tool_call_id)
            seen.append((ctx.tool_call_id, ctx.tool_result and ctx.tool_result.status.value, scope))

    three = calls(("c1", "plus", {"a": 1}), ("c2", "plus", {"a": "x"}), ("c3", "plus", {"a": 3}))
    world = World(Script(three, "done"), agent(tools=(plus,), behaviors=(Watch(),)))
    await world.run()
    assert sorted(seen) == [("c1", "error", None), ("c2", "error", None), ("c3", "pending", None)]
    scope = (await world.state())["__tool_call_scope"]
    assert [scope[c]["tool_call_state"]["status"] for c in ("c1", "c2", "c3")] == ["failed", "failed", "suspended"]


async def test_a_failing_hook_ends_the_run_with_its_name() -> None:
    def boom(ctx: ReadOnlyContext) -> Any:
        raise RuntimeError("boom")

    outcome, events = await World(Script(), agent(behaviors=(hook("step_start", boom),))).run()
    assert isinstance(outcome, Finished)
    assert outcome.reason.value == "behavior 'b' failed in step_start: RuntimeError: boom"
    assert types(events) == ["run_start", "error", "run_finish"]
