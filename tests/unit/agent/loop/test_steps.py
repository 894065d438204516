"""One step is one task: everything durable between steps, and a step that is taken again is the same step."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from techrevati.agent.building import build
from techrevati.agent.definition import AgentDefinition, SubAgentSpec, ToolExecutionMode
from techrevati.agent.events import AnyEvent
from techrevati.agent.ids import DerivedIds
from techrevati.agent.journal import JournaledModel, JournaledTools
from techrevati.agent.loop.checkpoint import Checkpoint
from techrevati.agent.loop.outcome import Continue, Finished, StepOutcome, Suspended
from techrevati.agent.loop.ports import GivenInbox, InlineTools, Ports, ToolRunner
from techrevati.agent.loop.records import OnSuspend
from techrevati.agent.loop.starting import checkpoint_of, prepare_run, store_run
from techrevati.agent.loop.step import RunNotPrepared, step
from techrevati.agent.loop.tool_runs import ToolRun
from techrevati.agent.model import ErrorClass, InferenceError
from techrevati.agent.running import StoreCommitter
from techrevati.agent.subagents.port import ChildEnd, ChildStart, ChildView, SubAgentStatus
from techrevati.agent.suspension import ToolCallDecision
from techrevati.agent.threads.memory import InMemoryThreadStore
from techrevati.agent.threads.message import Message
from techrevati.agent.threads.runs import RunRequest
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import Tool, ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.scripted import START, Script, agent, calls, cancel, resume, tool_results, until


class Crash(BaseException):
    """The worker dies."""


class Memory:
    """The journal of one step; what it keeps has been through JSON."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def once(self, key: str, work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        if key not in self.kept:
            self.kept[key] = msgspec.json.encode(await work())
        found: dict[str, Any] = msgspec.json.decode(self.kept[key])
        return found


class Dying:
    """Calls tools, and dies when it is told to."""

    def __init__(self, inner: ToolRunner, after: Callable[[], None]) -> None:
        self._inner, self._after = inner, after

    async def run(self, used: Tool, arguments: Any, ctx: ToolCallContext) -> ToolRun:
        done = await self._inner.run(used, arguments, ctx)
        self._after()
        return done


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
        journal: Memory | None = None,
        decisions: tuple[ToolCallDecision, ...] = (),
        steering: tuple[str, ...] = (),
        after_tool: Callable[[], None] = lambda: None,
        **ports: Any,
    ) -> tuple[StepOutcome, Told]:
        made = build(self.definition())
        loaded = await self.store.load("t")
        assert loaded is not None
        journal, told = journal or Memory(), Told()
        given = Ports(
            **{
                "model": JournaledModel(self.model, journal),
                "tools": Dying(JournaledTools(InlineTools(), journal, made.states.actions), after_tool),
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
    journal, died, first = Memory(), [0], Buffered()

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


async def test_what_a_tool_asked_for_kept_and_queued_is_in_its_record() -> None:
    from techrevati.agent.actions import AddSystemReminder, AddUserMessage, ContextMessage, Target
    from techrevati.agent.behavior import AgentBehavior
    from techrevati.agent.tools import ToolExecutionEffect
    from tests.unit.agent.loop.states import Count, add

    class Owner(AgentBehavior):
        id = "owner"
        states = (Count,)

    @tool
    async def busy(ctx: ToolCallContext) -> ToolExecutionEffect:
        """Do everything."""
        ran.append("busy")
        ctx.keep({"page": 2})
        ctx.add_message(ContextMessage("k", "queued", target=Target.CONVERSATION))
        return ToolExecutionEffect(
            ToolResult.success("busy"), (add(2), AddSystemReminder("mind"), AddUserMessage("go"))
        )

    fleet = Fleet(Script(calls(("c1", "busy", {}))), lambda: agent(tools=(busy,), behaviors=(Owner(),)))
    await fleet.prepare()
    journal, first, second = Memory(), Buffered(), Buffered()
    await fleet.take(journal=journal, committer=first)
    fleet.taken = 0
    await fleet.take(journal=journal, committer=second)
    assert ran == ["busy"] and first.changes == second.changes
    assert [m.content for c in first.changes for m in c.messages][-3:] == [
        "<system-reminder>mind</system-reminder>",
        "queued",
        "go",
    ]


async def test_a_broken_stream_is_replayed_with_what_had_arrived() -> None:
    from tests.unit.agent.scripted import broken

    cut = InferenceError("cut", "llm_stream_event_error", ErrorClass.CONNECTION)
    fleet = Fleet(Script(broken("Once ", then=cut)), lambda: agent())
    await fleet.prepare()
    journal, first, second = Memory(), Buffered(), Buffered()
    await fleet.take(journal=journal, committer=first)
    fleet.taken = 0
    await fleet.take(journal=journal, committer=second)
    assert len(fleet.model.requests) == 1 and first.changes == second.changes
    assert "Once " in [m.content for c in second.changes for m in c.messages]


async def test_a_call_that_is_resumed_in_the_step_that_parked_it_runs_again() -> None:
    @tool
    def pay(ctx: ToolCallContext) -> ToolResult:
        """Pay."""
        ran.append(str(ctx.resume_input and ctx.resume_input.decision_id))
        return ToolResult.success("pay") if ctx.resume_input else ToolResult.suspended("pay", "?")

    fleet = Fleet(Script(calls(("c1", "pay", {})), "done"), lambda: agent(tools=(pay,)))
    await fleet.prepare()
    outcome, _ = await fleet.take(decisions=(resume("c1"),))
    assert isinstance(outcome, Continue) and ran == ["None", "d:c1"]


async def test_a_replay_that_suspends_again_waits_without_an_inference() -> None:
    @tool
    def stubborn() -> ToolResult:
        """Never enough."""
        return ToolResult.suspended("stubborn", "again")

    fleet = Fleet(Script(calls(("c1", "stubborn", {}))), lambda: agent(tools=(stubborn,)))
    await fleet.prepare(on_suspend=OnSuspend.PARK)
    for n in range(3):
        outcome, _ = await fleet.take(decisions=(resume("c1", id=f"d{n}"),) if n else ())
        assert isinstance(outcome, Suspended) and len(fleet.model.requests) == 1


async def test_waiting_for_an_answer_does_not_use_up_the_deadline() -> None:
    now = [START]
    fleet = Fleet(Script(calls(("c1", "ask", {})), "done"), lambda: agent(tools=(ask,), deadline=60))
    await fleet.prepare(on_suspend=OnSuspend.PARK)
    await fleet.take(now_ms=lambda: now[0])
    now[0] += 3_600_000
    outcome, _ = await fleet.take(now_ms=lambda: now[0], decisions=(cancel("c1"),))
    assert isinstance(outcome, Finished) and outcome.response == "done"


async def test_a_tool_resumed_after_a_long_wait_is_not_cut_off_by_the_deadline() -> None:
    @tool
    async def pay(ctx: ToolCallContext) -> ToolResult:
        """Pay."""
        return ToolResult.success("pay", "paid") if ctx.resume_input else ToolResult.suspended("pay", "?")

    now = [START]
    fleet = Fleet(Script(calls(("c1", "pay", {})), "done"), lambda: agent(tools=(pay,), deadline=60))
    await fleet.prepare(on_suspend=OnSuspend.PARK)
    await fleet.take(now_ms=lambda: now[0])
    now[0] += 3_600_000
    outcome, _ = await fleet.take(now_ms=lambda: now[0], decisions=(resume("c1"),))
    assert isinstance(outcome, Finished) and outcome.response == "done"


async def test_steering_that_comes_while_a_child_works_is_kept_for_the_next_inference() -> None:
    fleet, port = Fleet(Script(SEND, "thanks"), sender), Elsewhere()
    await fleet.prepare()
    await fleet.take(children=port)
    await fleet.take(children=port, steering=("in French",))
    port.end = ChildEnd(run_id=port.started[0].run_id, epoch=1, status=SubAgentStatus.COMPLETED, output="x")
    await fleet.take(children=port)
    assert "in French" in [m.content for m in fleet.model.requests[-1].messages]


@pytest.mark.parametrize("how", ["cancelled", "hook"])
async def test_a_run_that_ends_before_it_began_has_a_start_and_an_end(how: str) -> None:
    from techrevati.agent.behavior import AgentBehavior
    from techrevati.agent.cancellation import Cancellation

    class Bad(AgentBehavior):
        id = "bad"

        async def run_start(self, ctx: Any) -> None:
            raise RuntimeError("boom")

    fleet = Fleet(Script(), lambda: agent(behaviors=(Bad(),) if how == "hook" else ()))
    await fleet.prepare()
    cancelled = Cancellation()
    if how == "cancelled":
        cancelled.cancel()
    outcome, told = await fleet.take(cancellation=cancelled)
    assert isinstance(outcome, Finished)
    seen = [e.type for e, _ in told.events]
    assert seen[0] == "run_start" and seen[-1] == "run_finish" and seen.count("run_start") == 1


async def test_a_sequential_round_whose_first_call_waits_ends_there() -> None:
    fleet = Fleet(
        Script(calls(("c1", "ask", {}), ("c2", "work", {"name": "later"}))),
        lambda: agent(tools=(ask, work), tool_execution_mode=ToolExecutionMode.SEQUENTIAL),
    )
    await fleet.prepare()
    outcome, _ = await fleet.take()
    assert isinstance(outcome, Suspended) and ran == []


class Elsewhere:
    """A child on another worker: it answers when it is told to."""

    def __init__(self) -> None:
        self.started: list[ChildStart] = []
        self.stopped: list[str] = []
        self.end: ChildEnd | None = None
        self.alive = True

    async def start(self, child: ChildStart) -> None:
        self.started.append(child)

    async def status(self, run_id: str) -> ChildView | None:
        known = next((c for c in reversed(self.started) if c.run_id == run_id), None)
        if known is None:
            return None
        return ChildView(run_id=run_id, epoch=known.epoch, alive=self.alive, end=self.end)

    async def output(self, run_id: str) -> str | None:
        return None

    async def stop(self, run_id: str) -> None:
        self.stopped.append(run_id)

    async def message(self, run_id: str, text: str, *, message_id: str = "") -> str | None: ...

    async def decide(self, run_id: str, decision: ToolCallDecision) -> str | None: ...


SEND = calls(("c1", "agent_run", {"agent_id": "w", "prompt": "write"}))


def sender(**options: Any) -> AgentDefinition:
    return agent(sub_agents=(SubAgentSpec("w"),), **options)


async def test_a_parent_holds_no_worker_while_its_child_runs_elsewhere() -> None:
    fleet, port = Fleet(Script(SEND, "thanks"), sender), Elsewhere()
    await fleet.prepare()
    outcome, _ = await fleet.take(children=port)
    assert isinstance(outcome, Suspended) and outcome.parked
    (child,) = port.started
    assert (child.agent_id, child.call_id, child.owner_thread_id, child.epoch) == ("w", "c1", "t", 1)
    outcome, told = await fleet.take(children=port)
    assert isinstance(outcome, Suspended) and told.events == [], "still at work: nothing happens"
    port.end = ChildEnd(run_id=child.run_id, epoch=1, status=SubAgentStatus.COMPLETED, output="a tale")
    outcome, _ = await fleet.take(children=port)
    assert isinstance(outcome, Finished) and outcome.response == "thanks"
    loaded = await fleet.store.load("t")
    assert loaded is not None and tool_results(loaded.thread.messages)["c1"]["data"]["output"] == "a tale"


async def test_a_child_whose_worker_is_gone_does_not_hold_its_parent_for_ever() -> None:
    fleet, port = Fleet(Script(SEND, "pity"), sender), Elsewhere()
    await fleet.prepare()
    await fleet.take(children=port)
    port.alive = False
    outcome, _ = await fleet.take(children=port)
    assert isinstance(outcome, Finished) and outcome.response == "pity"
    loaded = await fleet.store.load("t")
    assert loaded is not None and tool_results(loaded.thread.messages)["c1"]["data"]["status"] == "stopped"


async def test_an_end_of_an_older_start_does_not_resolve_the_wait() -> None:
    fleet, port = Fleet(Script(SEND), sender), Elsewhere()
    await fleet.prepare()
    await fleet.take(children=port)
    port.end = ChildEnd(run_id=port.started[0].run_id, epoch=0, status=SubAgentStatus.FAILED)
    outcome, _ = await fleet.take(children=port)
    assert isinstance(outcome, Suspended)


async def test_a_stop_waits_for_the_child_that_its_round_sent_out() -> None:
    fleet, port = Fleet(Script(SEND), lambda: sender(max_rounds=1)), Elsewhere()
    await fleet.prepare()
    outcome, _ = await fleet.take(children=port)
    assert isinstance(outcome, Suspended)
    port.end = ChildEnd(run_id=port.started[0].run_id, epoch=1, status=SubAgentStatus.COMPLETED, output="x")
    outcome, _ = await fleet.take(children=port)
    assert isinstance(outcome, Finished) and outcome.reason.code == "max_rounds_reached"


async def test_a_deadline_reaches_a_run_that_waits_for_a_child_and_stops_it() -> None:
    now = [START]
    fleet, port = Fleet(Script(SEND), lambda: sender(deadline=60)), Elsewhere()
    await fleet.prepare()
    outcome, _ = await fleet.take(children=port, now_ms=lambda: now[0])
    assert isinstance(outcome, Suspended) and outcome.expires_at == START + 60_000
    now[0] += 60_000
    outcome, _ = await fleet.take(children=port, now_ms=lambda: now[0])
    assert port.stopped == [port.started[0].run_id]
    assert isinstance(outcome, Finished) and outcome.reason.code == "timeout_reached"
    loaded = await fleet.store.load("t")
    assert loaded is not None
    assert "has ended: timeout_reached" in tool_results(loaded.thread.messages)["c1"]["message"]


async def test_a_step_of_its_own_task_that_is_cancelled_leaves_nothing_running() -> None:
    ended: list[str] = []

    @tool
    async def hangs() -> None:
        """Hang."""
        ran.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    fleet = Fleet(Script(calls(("c1", "hangs", {}))), lambda: agent(tools=(hangs,)))
    await fleet.prepare()
    task = asyncio.ensure_future(fleet.take())
    await until(lambda: ran)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["ended"]


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


async def test_the_index_follows_a_run_that_waits_and_runs_again() -> None:
    asked = Script(calls(("c1", "ask", {})), calls(("c2", "work", {"name": "a"})), "done")
    fleet = Fleet(asked, lambda: agent(tools=(ask, work)))
    await fleet.prepare(on_suspend=OnSuspend.PARK)
    seen = []
    for decisions in ((), (cancel("c1"),), ()):
        await fleet.take(decisions=decisions)
        record = await fleet.store.load_run("r")
        assert record is not None
        seen.append((record.status.value, record.termination_code))
    assert seen == [("waiting", "input_required"), ("running", None), ("done", "natural")]


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
