"""A worker may die at any call of a port; the run ends as if it had not.

every k: the k-th call of a model, a tool or the committer dies after it took effect ─▶ the step is taken again
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from techrevati.agent.actions import AddSystemReminder
from techrevati.agent.agent import Agent
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.building import build
from techrevati.agent.definition import ToolExecutionMode
from techrevati.agent.ids import DerivedIds
from techrevati.agent.journal import JournaledModel, JournaledTools
from techrevati.agent.loop.checkpoint import Checkpoint
from techrevati.agent.loop.outcome import Continue, Finished, StepOutcome, Suspended
from techrevati.agent.loop.ports import GivenInbox, InlineTools, Ports
from techrevati.agent.loop.records import OnSuspend
from techrevati.agent.loop.starting import checkpoint_of, prepare_run, store_run
from techrevati.agent.loop.step import step
from techrevati.agent.model import ErrorClass, InferenceError, ModelRequest
from techrevati.agent.running import StoreCommitter
from techrevati.agent.threads.memory import InMemoryThreadStore
from techrevati.agent.threads.message import Message, Role
from techrevati.agent.threads.runs import RunRequest
from techrevati.agent.threads.store import Exact
from techrevati.agent.threads.thread import Thread
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolExecutionEffect, ToolResult
from techrevati.agent.typed_tool import tool
from tests.unit.agent.loop.states import Count, Votes, add, vote
from tests.unit.agent.scripted import START, agent, broken, calls, resume

CUT = InferenceError("cut", "llm_stream_event_error", ErrorClass.CONNECTION)
DOWN = InferenceError("down", "llm_exec_error", ErrorClass.TIMEOUT)
MODES = list(ToolExecutionMode)


class Crash(BaseException):
    """The worker dies."""


class Bomb:
    """Dies at the k-th call it is told of, once."""

    def __init__(self, at: int | None) -> None:
        self.at, self.seen = at, 0

    def tick(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            raise Crash


class Counts(AgentBehavior):
    """Writes in as many phases as it can."""

    id = "counts"
    states = (Count, Votes)

    async def step_start(self, ctx: Any) -> Any:
        return vote(1)

    async def after_tool_execute(self, ctx: Any) -> Any:
        return [vote(10), AddSystemReminder(f"after {ctx.tool_call_id}")]


class Outside:
    """What the tools did to the world, by idempotency key."""

    def __init__(self) -> None:
        self.calls: list[str] = []

        @tool
        async def work(n: int, ctx: ToolCallContext) -> ToolExecutionEffect:
            """Work."""
            self.calls.append(ctx.idempotency_key)
            return ToolExecutionEffect(ToolResult.success("work", n), (add(n),))

        @tool
        async def pay(ctx: ToolCallContext) -> ToolResult:
            """Pay."""
            if ctx.resume_input is None:
                return ToolResult.suspended("pay", "May I?")
            self.calls.append(ctx.idempotency_key)
            return ToolResult.success("pay", "paid")

        self.tools = (work, pay)


SCRIPT: tuple[Any, ...] = (
    calls(("a1", "work", {"n": 1}), ("a2", "work", {"n": 10}), ("a3", "nothing", {})),
    DOWN,
    broken("So far ", then=CUT),
    calls(("b2", "work", {"n": 100}), ("b1", "pay", {})),
    "and on.",
    "Paid, done.",
)


class InOrder:
    """Answers in order; a question whose answer was lost gets the same answer again."""

    def __init__(self, bomb: Bomb) -> None:
        self.answered, self._bomb = 0, bomb

    async def infer(self, request: ModelRequest, on_event: Any) -> Any:
        reply = SCRIPT[self.answered]
        self._bomb.tick()
        self.answered += 1
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, str):
            return _said(reply)
        return reply(request, on_event) if callable(reply) else reply


def _said(text: str) -> Any:
    from tests.unit.agent.scripted import said

    return said(text)


class Journal:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def once(self, key: str, work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        if key not in self.kept:
            self.kept[key] = msgspec.json.encode(await work())
        found: dict[str, Any] = msgspec.json.decode(self.kept[key])
        return found


class Ticking:
    def __init__(self, inner: Any, bomb: Bomb) -> None:
        self._inner, self._bomb = inner, bomb

    async def run(self, *given: Any) -> Any:
        done = await self._inner.run(*given)
        self._bomb.tick()
        return done


class Atomic:
    """Gathers a step's changes, which are stored with its outcome or not at all."""

    def __init__(self, bomb: Bomb) -> None:
        self.changes: list[Any] = []
        self._bomb = bomb

    async def commit(self, thread_id: str, changeset: Any, expected: int) -> int:
        self.changes.append(changeset)
        self._bomb.tick()
        return expected


async def drive(mode: ToolExecutionMode, at: int | None) -> tuple[Thread, Outside, int]:
    """Take steps as a fleet does: journal per step, one atomic commit, ids from the step.  The script's waits get
    an answer."""
    bomb, outside, store = Bomb(at), Outside(), InMemoryThreadStore(clock=lambda: START)

    def made() -> Agent:
        return build(agent(tools=outside.tools, behaviors=(Counts(),), tool_execution_mode=mode))

    request = RunRequest(agent_id="a", thread_id="t", run_id="r", messages=(Message.user("go", id="u"),))
    await store_run(store, prepare_run(made(), request, None, now_ms=START, on_suspend=OnSuspend.PARK))
    model, taken = InOrder(bomb), 0
    journal: Journal = Journal()
    decisions: tuple[Any, ...] = ()
    while taken < 20:
        one = made()
        loaded = await store.load("t")
        assert loaded is not None
        committer = Atomic(bomb)
        ports = Ports(
            model=JournaledModel(model, journal),
            tools=JournaledTools(Ticking(InlineTools(), bomb), journal, one.states.actions),
            committer=committer,
            inbox=GivenInbox(decisions),
            new_id=DerivedIds(f"r:{taken}", START),
            now_ms=lambda: START,
            sleep=_no_wait,
            chance=lambda: 0.5,
        )
        start = checkpoint_of(one, loaded)
        try:
            outcome: StepOutcome = await step(one, start, ports)
        except Crash:
            continue  # another worker takes the step again, from the same checkpoint and journal
        for change in committer.changes:
            version = (await store.load("t") or loaded).version
            await store.append("t", change, Exact(version))
        journal, taken, decisions = Journal(), taken + 1, ()
        if isinstance(outcome, Suspended):
            decisions = (resume("b1"),)
        elif not isinstance(outcome, Continue):
            assert isinstance(outcome, Finished) and outcome.reason.type == "natural_end"
            break
    final = await store.load_thread("t")
    assert final is not None
    return final, outside, bomb.seen


async def _no_wait(seconds: float) -> None:
    return None


@pytest.mark.parametrize("mode", MODES)
async def test_a_run_that_dies_anywhere_ends_as_if_it_had_not(mode: ToolExecutionMode) -> None:
    expected, calm, ticks = await drive(mode, None)
    state = expected.rebuild_state(build(agent(behaviors=(Counts(),))).states.lattices)
    assert state["count"] == {"value": 111} and ticks > 15
    for at in range(1, ticks + 1):
        ended, outside, _ = await drive(mode, at)
        assert ended.messages == expected.messages, f"died at call {at}"
        assert ended.rebuild_state() == expected.rebuild_state(), f"died at call {at}"
        assert set(outside.calls) == set(calm.calls), f"died at call {at}"
        assert len(outside.calls) <= len(calm.calls) + 1, "only the call that died before it was recorded ran again"


@pytest.mark.parametrize("mode", MODES)
async def test_without_a_journal_every_step_still_ends_once(mode: ToolExecutionMode) -> None:
    """Each commit is stored at once; a step that died is taken again from what stands."""
    for at in range(1, 12):
        bomb, outside, store = Bomb(at), Outside(), InMemoryThreadStore()
        model = ByLast()
        one = build(agent(tools=outside.tools, behaviors=(Counts(),), tool_execution_mode=mode))
        request = RunRequest(agent_id="a", thread_id="t", run_id="r", messages=(Message.user("go"),))
        checkpoint: Checkpoint = await store_run(store, prepare_run(one, request, None, now_ms=START))
        while True:
            ports = Ports(model=model, tools=Ticking(InlineTools(), bomb), committer=Exploding(store, bomb))
            try:
                outcome = await step(one, checkpoint, ports)
            except Crash:
                loaded = await store.load("t")
                assert loaded is not None
                checkpoint = checkpoint_of(one, loaded)
                continue
            checkpoint = outcome.checkpoint
            if not isinstance(outcome, Continue):
                break
        assert isinstance(outcome, Finished) and outcome.response == "done"
        results = [m.tool_call_id for m in checkpoint.messages if m.tool_call_id]
        assert results == ["a1", "a2"], f"died at call {at}: each call has one result"
        answers = [m.content for m in checkpoint.messages if m.role is Role.ASSISTANT]
        assert answers == ["", "done"], f"died at call {at}: nothing was said twice"
        assert checkpoint.document["count"] == {"value": 11}, f"died at call {at}"
        record = await store.load_run("r")
        assert record is not None and record.status == "done"


class ByLast:
    """Calls tools until it sees their results."""

    async def infer(self, request: ModelRequest, on_event: Any) -> Any:
        if any(message.tool_call_id == "a2" for message in request.messages):
            return _said("done")
        return calls(("a1", "work", {"n": 1}), ("a2", "work", {"n": 10}))


class Exploding(StoreCommitter):
    """Stores, then dies."""

    def __init__(self, store: Any, bomb: Bomb) -> None:
        super().__init__(store)
        object.__setattr__(self, "bomb", bomb)

    async def commit(self, thread_id: str, changeset: Any, expected: int) -> int:
        version = await super().commit(thread_id, changeset, expected)
        self.bomb.tick()  # type: ignore[attr-defined]
        return version
