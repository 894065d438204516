"""One step is one task: everything durable between steps, and a step that is taken again is the same step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from techrevati.agent.building import build
from techrevati.agent.definition import AgentDefinition, ToolExecutionMode
from techrevati.agent.events import AnyEvent
from techrevati.agent.ids import DerivedIds
from techrevati.agent.loop.checkpoint import Checkpoint
from techrevati.agent.loop.outcome import Continue, Finished, StepOutcome, Suspended
from techrevati.agent.loop.ports import GivenInbox, InlineTools, Ports
from techrevati.agent.loop.records import OnSuspend
from techrevati.agent.loop.starting import checkpoint_of, prepare_run, store_run
from techrevati.agent.loop.step import RunNotPrepared, step
from techrevati.agent.model import InferenceError, ModelRequest, StreamResult
from techrevati.agent.running import StoreCommitter
from techrevati.agent.suspension import ToolCallDecision
from techrevati.agent.threads.memory import InMemoryThreadStore
from techrevati.agent.threads.message import Message
from techrevati.agent.threads.runs import RunRequest
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolExecutionEffect, ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.scripted import START, Script, agent, calls, cancel, resume, tool_results


class Crash(BaseException):
    """The worker dies."""


@dataclass
class Journal:
    """What a driver keeps of one step: the answers of models and tools, in the order they were asked."""

    models: list[Any] = field(default_factory=list)
    tools: dict[tuple[str, int], Any] = field(default_factory=dict)


class JournaledModel:
    def __init__(self, inner: Any, journal: Journal) -> None:
        self._inner, self._journal, self._at = inner, journal, 0

    async def infer(self, request: ModelRequest, on_event: Any) -> StreamResult:
        self._at += 1
        if self._at > len(self._journal.models):
            try:
                answer: Any = await self._inner.infer(request, on_event)
            except InferenceError as error:
                answer = error
            self._journal.models.append(answer)
        known = self._journal.models[self._at - 1]
        if isinstance(known, InferenceError):
            raise known
        assert isinstance(known, StreamResult)
        return known


class JournaledTools:
    def __init__(self, journal: Journal, after: Callable[[], None]) -> None:
        self._journal, self._after = journal, after

    async def run(self, used: Any, arguments: Any, ctx: ToolCallContext) -> ToolExecutionEffect:
        key = (ctx.call_id, ctx.attempt)
        if key not in self._journal.tools:
            self._journal.tools[key] = await InlineTools().run(used, arguments, ctx)
        self._after()
        found: ToolExecutionEffect = self._journal.tools[key]
        return found


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[AnyEvent, str | None]] = []

    def emit(self, event: AnyEvent, step_id: str | None) -> None:
        self.events.append((event, step_id))


class Buffered:
    """Commits everything of a step at once, as a fleet does with its turn."""

    def __init__(self) -> None:
        self.changes: list[Any] = []

    async def commit(self, thread_id: str, changeset: Any, expected: int) -> int:
        self.changes.append(changeset)
        return expected


class Fleet:
    """Takes every step in a fresh world: the agent is built anew, the checkpoint is loaded from the store."""

    def __init__(self, model: Any, definition: Callable[[], AgentDefinition]) -> None:
        self.model, self.definition = model, definition
        self.store = InMemoryThreadStore(clock=lambda: START)
        self.taken = 0

    async def prepare(self, text: str = "hello", **options: Any) -> None:
        made = build(self.definition())
        request = RunRequest(agent_id="a", thread_id="t", run_id="r", messages=(Message.user(text, id="u"),))
        loaded = await self.store.load("t")
        await store_run(self.store, prepare_run(made, request, loaded, now_ms=START, **options))

    async def take(
        self,
        *,
        journal: Journal | None = None,
        decisions: tuple[ToolCallDecision, ...] = (),
        steering: tuple[str, ...] = (),
        after_tool: Callable[[], None] = lambda: None,
        **ports: Any,
    ) -> tuple[StepOutcome, Told]:
        made = build(self.definition())
        loaded = await self.store.load("t")
        assert loaded is not None
        journal, told = journal or Journal(), Told()
        given = Ports(
            **{
                "model": JournaledModel(self.model, journal),
                "tools": JournaledTools(journal, after_tool),
                "committer": StoreCommitter(self.store),
                "sink": told,
                "inbox": GivenInbox(decisions, steering),
                "new_id": DerivedIds(f"r:{self.taken}", START),
                "now_ms": lambda: START,
                **ports,
            }
        )
        outcome = await step(made, checkpoint_of(made, loaded), given)
        self.taken += 1
        return outcome, told


ran: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()


@tool
def work(name: str) -> str:
    """Work."""
    ran.append(name)
    return name


@tool
def ask() -> ToolResult:
    """Ask."""
    return ToolResult.suspended("ask", "?")


async def test_a_run_goes_through_fresh_processes_step_by_step() -> None:
    asked = [calls((f"c{n}", "work", {"name": f"w{n}"})) for n in range(3)]
    fleet = Fleet(Script(*asked, "done"), lambda: agent(tools=(work,)))
    await fleet.prepare()
    outcomes = [(await fleet.take())[0] for _ in range(4)]
    assert [type(o) for o in outcomes] == [Continue, Continue, Continue, Finished]
    assert ran == ["w0", "w1", "w2"]
    again, told = await fleet.take()
    assert isinstance(again, Finished) and again.reason.type == "natural_end" and told.events == []


async def test_a_step_is_one_inference_with_its_tool_round() -> None:
    fleet = Fleet(
        Script(calls(("c1", "work", {"name": "a"}), ("c2", "work", {"name": "b"}))), lambda: agent(tools=(work,))
    )
    await fleet.prepare()
    outcome, told = await fleet.take()
    assert isinstance(outcome, Continue) and sorted(ran) == ["a", "b"]
    assert [e.type for e, _ in told.events if e.type.startswith("step")] == ["step_start", "step_end"]


async def test_the_checkpoint_of_an_outcome_is_what_the_store_has() -> None:
    fleet = Fleet(Script(calls(("c1", "work", {"name": "a"})), "done"), lambda: agent(tools=(work,)))
    await fleet.prepare()
    for _ in range(2):
        outcome, _ = await fleet.take()
        loaded = await fleet.store.load("t")
        assert loaded is not None
        assert outcome.checkpoint == checkpoint_of(build(fleet.definition()), loaded)


@pytest.mark.parametrize("mode", list(ToolExecutionMode))
async def test_a_step_that_is_taken_again_after_a_crash_is_the_same_step(mode: ToolExecutionMode) -> None:
    asked = calls(("c1", "work", {"name": "a"}), ("c2", "work", {"name": "b"}))
    fleet = Fleet(Script(asked), lambda: agent(tools=(work,), tool_execution_mode=mode))
    await fleet.prepare()
    journal, died, first = Journal(), [0], Buffered()

    def dies() -> None:
        died[0] += 1
        if died[0] == 2:
            raise Crash

    with pytest.raises(Crash):
        await fleet.take(journal=journal, committer=first, after_tool=dies)
    assert fleet.taken == 0 and sorted(ran) == ["a", "b"]

    second, third = Buffered(), Buffered()
    one, told = await fleet.take(journal=journal, committer=second)
    fleet.taken = 0
    other, told_again = await fleet.take(journal=journal, committer=third)
    assert sorted(ran) == ["a", "b"], "no tool ran a second time"
    assert len(fleet.model.requests) == 1, "no model was called a second time"
    assert msgspec.json.encode(second.changes) == msgspec.json.encode(third.changes)
    assert first.changes == second.changes[: len(first.changes)], "the same message ids as before the crash"
    assert [e for e, _ in told.events] == [e for e, _ in told_again.events]
    assert one == other


async def test_a_step_whose_answer_is_stored_goes_on_with_its_tools() -> None:
    fleet = Fleet(Script(calls(("c1", "work", {"name": "a"})), "done"), lambda: agent(tools=(work,)))
    await fleet.prepare()

    def dies() -> None:
        raise Crash

    with pytest.raises(Crash):
        await fleet.take(after_tool=dies)
    fleet.taken += 1
    outcome, told = await fleet.take()
    assert isinstance(outcome, Continue) and len(fleet.model.requests) == 1
    assert ran == ["a", "a"], "without a journal the body runs again, under the same idempotency key"
    loaded = await fleet.store.load("t")
    assert loaded is not None and tool_results(loaded.thread.messages)["c1"]["data"] == "a"
    assert [e.type for e, _ in told.events][:2] == ["tool_call_ready", "tool_call_done"]


async def test_a_stop_that_was_asked_for_survives_a_crash_before_the_tools_ran() -> None:
    fleet = Fleet(Script(calls(("c1", "work", {"name": "a"}))), lambda: agent(tools=(work,), max_rounds=1))
    await fleet.prepare()

    def dies() -> None:
        raise Crash

    with pytest.raises(Crash):
        await fleet.take(after_tool=dies)
    fleet.taken += 1
    outcome, _ = await fleet.take()
    assert isinstance(outcome, Finished) and outcome.reason.code == "max_rounds_reached"


async def test_a_parked_run_wakes_in_another_process_with_a_decision() -> None:
    fleet = Fleet(Script(calls(("c1", "ask", {})), "done"), lambda: agent(tools=(ask,)))
    await fleet.prepare(on_suspend=OnSuspend.PARK)
    outcome, told = await fleet.take()
    assert isinstance(outcome, Suspended) and outcome.parked
    assert "run_finish" not in [e.type for e, _ in told.events]
    idle, told = await fleet.take(decisions=(resume("unknown"),))
    assert isinstance(idle, Suspended) and told.events == []
    outcome, told = await fleet.take(decisions=(cancel("c1"),))
    assert isinstance(outcome, Finished) and outcome.response == "done"
    assert [e.type for e, _ in told.events].count("run_start") == 0


async def test_steering_given_to_a_step_is_seen_by_its_model() -> None:
    fleet = Fleet(Script("bonjour"), lambda: agent())
    await fleet.prepare()
    await fleet.take(steering=("in French",))
    assert [m.content for m in fleet.model.requests[0].messages] == ["Be good.", "hello", "in French"]


async def test_a_stale_worker_is_refused_and_tells_no_end() -> None:
    from techrevati.agent.errors import CommitFailed

    fleet = Fleet(Script("one", "two"), lambda: agent())
    await fleet.prepare()
    made = build(fleet.definition())
    loaded = await fleet.store.load("t")
    assert loaded is not None
    stale, told = checkpoint_of(made, loaded), Told()
    await fleet.take()
    ports = Ports(model=fleet.model, committer=StoreCommitter(fleet.store), sink=told)
    with pytest.raises(CommitFailed, match="version"):
        await step(made, stale, ports)
    assert [e.type for e, _ in told.events] == ["error"]


async def test_a_thread_without_a_run_cannot_step() -> None:
    ports = Ports(model=Script(), committer=Buffered())
    with pytest.raises(RunNotPrepared, match="thread 't' has no prepared run"):
        await step(build(agent()), Checkpoint("t", (), {}, 0), ports)


async def test_call_ids_may_hold_dots_and_the_plan_is_in_the_state() -> None:
    fleet = Fleet(Script(calls(("functions.work:0", "work", {"name": "a"})), "done"), lambda: agent(tools=(work,)))
    await fleet.prepare()
    await fleet.take()
    loaded = await fleet.store.load("t")
    assert loaded is not None
    state = loaded.thread.rebuild_state()
    assert state["__tool_call_scope"]["functions.work:0"]["tool_call_state"]["status"] == "succeeded"
    assert state["__kernel"]["run"]["identity"]["run_id"] == "r"
