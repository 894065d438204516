"""§14.5–14.6 of the agent semantics: requests, preparing a run, and what an agent is declared as."""

from typing import Any

import pytest

from techrevati.agent.agent import RESERVED
from techrevati.agent.building import build
from techrevati.agent.definition import AgentDefinition, OutputSpec, SubAgentSpec, ToolExecutionMode
from techrevati.agent.errors import UnknownAgent, WiringError
from techrevati.agent.loop.outcome import Finished
from techrevati.agent.output import output_of
from techrevati.agent.policy import RunPolicy
from techrevati.agent.retries import LlmRetryPolicy
from techrevati.agent.threads.errors import LineageConflict, RunElsewhere
from techrevati.agent.threads.message import Message
from techrevati.agent.threads.prepare import RunMode
from techrevati.agent.threads.runs import RunRequest
from techrevati.agent.typed_tool import tool
from tests.unit.agent.loop.states import OfRun
from tests.unit.agent.scripted import Script, World, agent, calls, tool_results, types


@tool
def plus(a: int) -> int:
    """Add."""
    return a


# -- 14.5 ------------------------------------------------------------------------------------------


async def test_14_5_missing_ids_are_made_and_inbound_messages_get_the_run_id() -> None:
    world = World(Script("hi"), agent())
    stream = await world.driver.start(RunRequest(agent_id="a", messages=(Message.user("hello"),)))
    await stream.result()
    thread = await world.thread(stream.thread_id)
    assert thread.messages[0].run_id == stream.run_id


async def test_14_5_state_starts_a_new_thread_and_replaces_that_of_an_old_one() -> None:
    world = World(Script("a", "b"), agent())
    await world.run(state={"x": 1})
    assert (await world.state())["x"] == 1
    await world.run(state={"y": 2})
    state = await world.state()
    assert state["y"] == 2 and "x" not in state
    assert (await world.store.load_deltas("t", 0))[-4].snapshot["y"] == 2


async def test_14_5_known_messages_and_answered_calls_are_dropped() -> None:
    world = World(Script(calls(("c1", "plus", {"a": 1})), "a", "b"), agent(tools=(plus,)))
    await world.run()
    known = (await world.thread()).messages[0]
    stream = await world.driver.start(
        RunRequest(agent_id="a", thread_id="t", messages=(known, Message.tool("x", "c1"), Message.user("new")))
    )
    await stream.result()
    assert [m.content for m in (await world.thread()).messages][-2:] == ["new", "b"]


async def test_14_5_a_threads_parent_is_set_once() -> None:
    world = World(Script("a", "b"), agent())
    await world.run(parent_thread_id="p")
    with pytest.raises(LineageConflict):
        await world.start(parent_thread_id="q")


async def test_14_5_preparing_is_one_append_with_messages_cleanup_and_running() -> None:
    from techrevati.agent.behavior import AgentBehavior
    from techrevati.agent.state.spec import AnyStateAction

    class Counts(AgentBehavior):
        id = "counts"
        states = (OfRun,)

        async def step_start(self, ctx: Any) -> Any:
            return AnyStateAction.new(OfRun, 1)

    world = World(Script("a", "b"), agent(behaviors=(Counts(),)))
    await world.run()
    assert (await world.state())["of_run"] == {"value": 1}, "readable until the next run is prepared"
    await world.run()
    assert (await world.state())["of_run"] == {"value": 1}, "and gone for it"


async def test_14_5_dialog_runs_have_ids_of_ours_and_are_not_in_the_index() -> None:
    world = World(Script("hi"), agent())
    stream = await world.start(mode=RunMode.DIALOG, run_id="theirs", parent_run_id="p")
    await stream.result()
    assert stream.run_id != "theirs" and await world.store.load_run(stream.run_id) is None


async def test_14_5_an_indexed_run_ends_in_the_index() -> None:
    world = World(Script("hi"), agent())
    stream = await world.start(run_id="r1")
    await stream.result()
    record = await world.store.load_run("r1")
    assert (record.status, record.termination_code, record.agent_id) == ("done", "natural", "a")
    assert await world.store.active_run_for_thread("t") is None


async def test_14_5_a_run_that_cannot_be_prepared_starts_nothing() -> None:
    world = World(Script(), agent())
    with pytest.raises(UnknownAgent, match="agent 'b' is unknown; known: a; fix: pass it to the driver"):
        await world.start(agent="b")
    world.model._replies.append("hi")
    await world.run(run_id="r1")
    with pytest.raises(RunElsewhere):
        await world.start(thread="other", run_id="r1")
    assert world.driver._live == {}


# -- 14.6 ------------------------------------------------------------------------------------------


def test_14_6_the_definition_has_its_defaults() -> None:
    made = AgentDefinition(id="a", model="m")
    assert (made.max_rounds, made.tool_execution_mode) == (10, ToolExecutionMode.PARALLEL_STREAMING)
    assert (made.fallback_models, made.retry, made.policy) == ((), LlmRetryPolicy(), RunPolicy())
    assert build(made).offered(made.policy) == ()


class Policy:
    def __init__(self, id: str) -> None:
        self.id = id

    def check(self, run: Any) -> None:
        return None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"id": " "}, "its id is blank"),
        ({"model": ""}, "it has no model"),
        ({"max_rounds": -1}, "max_rounds is -1"),
        ({"deadline": 0}, "deadline is 0 s"),
        ({"tools": (plus, plus)}, "tool id 'plus' is used twice"),
        ({"sub_agents": (SubAgentSpec("a"),)}, "it is its own sub-agent"),
        ({"sub_agents": (SubAgentSpec("b"), SubAgentSpec("b"))}, "sub-agent 'b' is named twice"),
        ({"stop_policies": (Policy("x"), Policy("x"))}, "stop policy id 'x' is used twice"),
        (
            {"tools": (tool(id="agent_run")(lambda: None),), "sub_agents": (SubAgentSpec("b"),)},
            "'agent_run' is used twice",
        ),
    ],
)
def test_14_6_what_does_not_fit_is_found_when_the_agent_is_built(options: Any, text: str) -> None:
    with pytest.raises(WiringError, match=text) as refused:
        build(agent(**options))
    assert "fix:" in str(refused.value)


def test_14_6_an_unknown_model_is_found_when_it_can_be() -> None:
    made = agent(model="m", fallback_models=("nowhere:x",))
    assert build(made)
    with pytest.raises(WiringError, match="model 'nowhere:x' is unknown"):
        build(made, knows_model={"m"}.__contains__)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_14_6_reserved_behavior_ids_are_refused(name: str) -> None:
    from techrevati.agent.behavior import AgentBehavior

    taken = AgentBehavior()
    taken.id = name
    with pytest.raises(WiringError, match="the runtime's own"):
        build(agent(behaviors=(taken,)))


# -- output ----------------------------------------------------------------------------------------

SHAPE = OutputSpec({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


async def test_an_output_is_held_to_its_schema_and_ends_the_run() -> None:
    world = World(
        Script(calls(("c1", "final_answer", {"n": "x"})), calls(("c2", "final_answer", {"n": 3}))), agent(output=SHAPE)
    )
    outcome, events = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason.type == "natural_end"
    assert output_of(outcome.checkpoint.document) == {"n": 3}
    results = tool_results((await world.thread()).messages)
    assert results["c1"]["status"] == "error" and "'x' is not of type 'integer'" in results["c1"]["message"]
    assert types(events)[-1] == "run_finish" and len(world.model.requests) == 2


async def test_an_end_without_the_output_is_turned_back_and_then_an_error() -> None:
    world = World(Script("here", "you", "go"), agent(output=SHAPE))
    outcome, _ = await world.run()
    assert isinstance(outcome, Finished) and outcome.reason.type == "error"
    assert outcome.reason.value == "the model ended without calling 'final_answer'"
    world = World(Script("here", calls(("c1", "final_answer", {"n": 1}))), agent(output=SHAPE))
    outcome, _ = await world.run()
    assert output_of(outcome.checkpoint.document) == {"n": 1}
