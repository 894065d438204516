"""Drive runs in this process: step after step, with the sub-agents beside them.

For trying things, tests, and apps of one process.  A fleet drives the same steps as tasks of its own.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from techrevati.agent.agent import Agent
from techrevati.agent.errors import UnknownAgent
from techrevati.agent.events import Envelope
from techrevati.agent.loop import records
from techrevati.agent.loop.outcome import Continue, StepOutcome, Suspended
from techrevati.agent.loop.ports import Ports
from techrevati.agent.loop.records import OnSuspend
from techrevati.agent.loop.starting import ReadyRun, checkpoint_of, prepare_run, store_run
from techrevati.agent.loop.step import RunNotPrepared, step
from techrevati.agent.model import ModelPort
from techrevati.agent.policy import RunPolicy
from techrevati.agent.running import RunStream, StoreCommitter
from techrevati.agent.subagents.local import LocalSubAgents
from techrevati.agent.subagents.port import ChildStart
from techrevati.agent.suspension import SuspendedCall
from techrevati.agent.threads.message import Role
from techrevati.agent.threads.prepare import RunMode
from techrevati.agent.threads.runs import RunOrigin, RunRequest
from techrevati.agent.threads.store import ThreadStore

OnPark = Callable[[tuple[SuspendedCall, ...]], None]


class Driver:
    """Runs agents over a store of threads.

    Args:
        agents: Every agent that may be started here, sub-agents included.
        ports: Further ports (`tools`, `new_id`, `now_ms`, `sleep`, …), the same for every run.
    """

    def __init__(self, store: ThreadStore, model: ModelPort, agents: Iterable[Agent], **ports: Any) -> None:
        self.store = store
        self._agents = {agent.id: agent for agent in agents}
        self._live: dict[str, RunStream] = {}
        self.children = LocalSubAgents(self)
        self._ports = Ports(model=model, committer=StoreCommitter(store), children=self.children, **ports)

    def agent(self, agent_id: str) -> Agent:
        """Give an agent of this driver.

        Raises:
            UnknownAgent: naming those there are.
        """
        if agent_id not in self._agents:
            raise UnknownAgent(agent_id, tuple(sorted(self._agents)))
        return self._agents[agent_id]

    def stream(self, run_id: str) -> RunStream | None:
        """Give a live run."""
        return self._live.get(run_id)

    async def start(
        self,
        request: RunRequest,
        *,
        policy: RunPolicy | None = None,
        mode: RunMode = RunMode.TASK,
        on_suspend: OnSuspend = OnSuspend.FINISH,
    ) -> RunStream:
        """Prepare a run, store it, and let it go on in the background.

        A live run of the same thread is cancelled first, and its end is waited for; a request that brings
        decisions only goes to that run instead.

        Raises:
            UnknownAgent, InvalidId, LineageConflict, BadValue, VersionConflict: it is not started.
        """
        agent = self.agent(request.agent_id)
        busy = next((s for s in self._live.values() if s.thread_id == request.thread_id and s.is_live), None)
        if busy is not None and request.initial_decisions and not request.messages:
            for decision in request.initial_decisions:
                busy.submit_decision(decision)
            return busy
        if busy is not None:
            await busy.aclose()
        ready = await self._ready(agent, request, policy=policy, mode=mode, on_suspend=on_suspend)
        return await self.drive(agent, ready)

    async def _ready(self, agent: Agent, request: RunRequest, **options: Any) -> ReadyRun:
        loaded = None if request.thread_id is None else await self.store.load(request.thread_id)
        ports = self._ports
        return prepare_run(agent, request, loaded, now_ms=ports.now_ms(), make_id=ports.new_id, **options)

    async def drive(
        self,
        agent: Agent,
        ready: ReadyRun,
        *,
        listeners: tuple[Callable[[Envelope], None], ...] = (),
        on_park: OnPark | None = None,
    ) -> RunStream:
        """Store a prepared run, and let it go on in the background.

        Raises:
            ThreadExists, VersionConflict: somebody else wrote to the thread since; it is not started.
        """
        await store_run(self.store, ready)
        stream = RunStream(ready.thread_id, ready.run_id, now_ms=self._ports.now_ms, listeners=listeners)
        return self._begin(agent, stream, on_park)

    async def resume(self, thread_id: str) -> RunStream:
        """Go on with a thread's run that another process began and left, from what it stored.

        Raises:
            RunNotPrepared: the thread has no run.
            UnknownAgent: its agent is not among this driver's.
        """
        loaded = await self.store.load(thread_id)
        plan = records.run_plan(loaded.thread.rebuild_state()) if loaded is not None else None
        if plan is None:
            raise RunNotPrepared(thread_id)
        live = self._live.get(plan.identity.run_id)
        if live is not None:
            return live
        stream = RunStream(thread_id, plan.identity.run_id, now_ms=self._ports.now_ms)
        return self._begin(self.agent(plan.identity.agent_id), stream, None)

    def _begin(self, agent: Agent, stream: RunStream, on_park: OnPark | None) -> RunStream:
        self._live[stream.run_id] = stream
        stream.begin(self._steps(agent, stream, on_park))
        return stream

    async def _steps(self, agent: Agent, stream: RunStream, on_park: OnPark | None) -> StepOutcome:
        ports = replace(self._ports, sink=stream.sink, inbox=stream.inbox, cancellation=stream.cancellation)
        try:
            loaded = await self.store.load(stream.thread_id)
            assert loaded is not None, "a run is stored before it is driven"
            checkpoint = checkpoint_of(agent, loaded)
            while True:
                outcome = await step(agent, checkpoint, ports)
                checkpoint = outcome.checkpoint
                if isinstance(outcome, Suspended) and outcome.parked:
                    stream.waiting = outcome.calls
                    if on_park is not None:
                        on_park(outcome.calls)
                    await self._until_something(outcome, stream)
                    stream.waiting = ()
                elif not isinstance(outcome, Continue):
                    return outcome
        finally:
            self._live.pop(stream.run_id, None)

    async def _until_something(self, outcome: Suspended, stream: RunStream) -> None:
        """Wait for mail, a cancellation, the end of a child, or an expiry."""
        waits: list[asyncio.Task[Any]] = [
            asyncio.ensure_future(stream.inbox.wait()),
            asyncio.ensure_future(stream.cancellation.wait()),
        ]
        due = outcome.expires_at
        if due is not None:
            waits.append(asyncio.ensure_future(self._sleep(max(0, due - self._ports.now_ms()) / 1000)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _sleep(self, seconds: float) -> None:
        await self._ports.sleep(seconds)

    # -- for sub-agents ----------------------------------------------------------------------------

    async def start_child(self, child: ChildStart, on_event: Callable[[Envelope], None], on_park: OnPark) -> RunStream:
        agent = self.agent(child.agent_id)
        request = RunRequest(
            agent_id=child.agent_id,
            thread_id=child.thread_id,
            run_id=child.run_id if child.epoch == 1 else None,
            parent_run_id=child.parent_run_id,
            parent_thread_id=child.owner_thread_id,
            origin=RunOrigin.SUBAGENT,
            messages=child.messages,
        )
        ready = await self._ready(
            agent,
            request,
            policy=child.policy,
            on_suspend=OnSuspend.PARK,
            parent_tool_call_id=child.call_id,
            depth=child.depth,
            above=child.above,
        )
        return await self.drive(agent, ready, listeners=(on_event,), on_park=on_park)

    async def last_answer(self, thread_id: str) -> str | None:
        """Give the text of the latest answer in a thread."""
        thread = await self.store.load_thread(thread_id)
        answers = (m for m in reversed(thread.messages if thread else ()) if m.role is Role.ASSISTANT and m.content)
        return next((message.content for message in answers), None)

    async def aclose(self) -> None:
        """Cancel what still runs, and wait for the ends."""
        for stream in list(self._live.values()):
            await stream.aclose()
        await self.children.aclose()
