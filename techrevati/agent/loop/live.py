"""A step at work: its draft and its ports, with what both of its halves do to them.

Live ──phase──▶ state rolls forward      ──take_in──▶ decided calls go on      ──finish, hold──▶ outcome
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from techrevati.agent import decisions as deciding
from techrevati.agent import wording
from techrevati.agent.actions import Phase
from techrevati.agent.agent import Agent
from techrevati.agent.definition import ToolExecutionMode
from techrevati.agent.endings import TerminationReason
from techrevati.agent.loop import applying, finishing, records, resuming
from techrevati.agent.loop.calls import CallReport
from techrevati.agent.loop.draft import Draft
from techrevati.agent.loop.outcome import Continue, StepOutcome, Suspended
from techrevati.agent.loop.phases import NOTHING, Asked, has_hooks, run_phase
from techrevati.agent.loop.ports import Ports
from techrevati.agent.loop.racing import DEADLINE, CutShort, cut_short_by, let_go
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.threads.changeset import CheckpointReason
from techrevati.agent.threads.runs import RunMeta, RunStatus

T = TypeVar("T")


class Live:
    """What a step holds while it is taken; it dies with the step.

    Attributes:
        using_tools: Whether a cancellation now would interrupt tools.
        steering: What the user said to the live run and no model has seen.
        outside: Calls that were decided go on elsewhere.
    """

    def __init__(self, agent: Agent, draft: Draft) -> None:
        self.agent, self.draft = agent, draft
        self.ports: Ports = draft.ports
        self.using_tools = False
        self.steering: list[str] = []
        self.outside = False

    @property
    def mode(self) -> ToolExecutionMode:
        return self.agent.definition.tool_execution_mode

    @property
    def deadline_ms(self) -> int | None:
        """When the run is cut off, Unix ms; the time it waited for answers from outside does not count."""
        limit, loop = self.agent.definition.deadline, self.draft.loop
        if limit is None:
            return None
        waits = 0 if loop.parked_at_ms is None else max(0, self.draft.now_ms() - loop.parked_at_ms)
        return self.draft.plan.started_at_ms + loop.waited_ms + waits + round(limit * 1000)

    @property
    def is_waiting(self) -> bool:
        run = records.run_state(self.draft.document)
        return run is not None and run.status is RunStatus.WAITING

    def run_on(self) -> None:
        """A run that waited runs again: somebody answered, or steered it."""
        if not self.is_waiting:
            return
        draft, loop = self.draft, self.draft.loop
        if loop.parked_at_ms is not None:
            waited = max(0, draft.now_ms() - loop.parked_at_ms)
            draft.set_loop(parked_at_ms=None, waited_ms=loop.waited_ms + waited)
        of = draft.identity
        draft.apply(records.set_run(draft.document, of.run_id, RunStatus.RUNNING, now_ms=draft.now_ms()))
        if draft.plan.indexed:
            draft.run_meta = RunMeta(of.agent_id, of.origin, RunStatus.RUNNING, of.parent_thread_id)

    async def phase(self, phase: Phase, **seen: Any) -> Asked:
        """Run a phase and take its state actions in, so that the next phase sees them.

        Raises:
            CutShort: the run was cancelled, or its deadline came, while a hook was at work.
        """
        if not has_hooks(self.agent.behaviors, phase):
            return NOTHING
        ctx = self.draft.context(phase, **seen)
        asked = await cut_short_by(
            self.ports, lambda: run_phase(self.agent.behaviors, phase, ctx), deadline_ms=self.deadline_ms
        )
        for behavior_id, action in asked.entries:
            if isinstance(action, AnyStateAction):
                self.draft.reduce((action,), source=f"behavior:{behavior_id}", actor=behavior_id)
        return asked

    async def take_in(self) -> list[CallReport]:
        """Take what came for the run, and go on with the calls that were decided."""
        inbound = self.ports.inbox.take()
        self.steering.extend(inbound.steering)
        resuming.absorb(self.draft, await resuming.hand_down(self.draft, inbound.decisions))
        self.using_tools = True
        resumed = await resuming.resume_decided(self.agent, self.draft, self.deadline_ms)
        self.using_tools, self.outside = False, resumed.outside
        return resumed.reports

    async def while_live(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`; where decisions count at once, go on with decided calls meanwhile."""
        if self.mode is not ToolExecutionMode.PARALLEL_STREAMING:
            return await work
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                mail = asyncio.ensure_future(self.ports.inbox.wait())
                try:
                    await asyncio.wait((task, mail), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    mail.cancel()
                if not task.done():
                    await self._between()
            return task.result()
        finally:
            await let_go(task, self.ports.cancel_grace)

    async def _between(self) -> None:
        """Go on with decided calls outside of the bracket of the step that is at work."""
        step_id, using_tools = self.draft.step_id, self.using_tools
        self.draft.step_id = None
        await self.take_in()
        self.draft.step_id, self.using_tools = step_id, using_tools

    def steer(self) -> None:
        """Store what the user said to the live run, for the next inference."""
        for text in self.steering:
            applying.add_message(self.draft, wording.steering(self.ports.new_id(), text), self.draft.loop.steps)
        self.steering.clear()

    def is_called_on(self) -> bool:
        """Say whether something came that the model has not seen: a message, or an answer to go on with."""
        inbound = self.ports.inbox.take()
        self.steering.extend(inbound.steering)
        if inbound.decisions:
            resuming.absorb(self.draft, inbound.decisions)
        batch = self.mode is ToolExecutionMode.PARALLEL_BATCH_APPROVAL
        return bool(self.steering) or bool(deciding.ready_to_resume(self.draft.document, batch=batch))

    async def go_on(self) -> StepOutcome:
        """Ask for another step."""
        self.steer()
        await self.draft.commit(CheckpointReason.USER_MESSAGE)
        return Continue(self.draft.committed)

    async def finish(self, reason: TerminationReason, response: str | None = None) -> StepOutcome:
        self.steer()
        return await finishing.finish(self.agent, self.draft, reason, response)

    async def hold(self) -> StepOutcome:
        """Wait for what is part of the work, a child: the deadline runs on."""
        self._held_to_deadline()
        self.steer()
        return await finishing.park(self.draft, wake_at=self.deadline_ms)

    async def wait_outside(self) -> StepOutcome:
        """Wait for calls that are at work elsewhere: the run is running, and so is its deadline."""
        self._held_to_deadline()
        self.run_on()
        self.steer()
        draft = self.draft
        draft.set_loop(told=draft.loop.open_step is not None)
        await draft.commit(CheckpointReason.TOOL_RESULTS_COMMITTED)
        due = [time for time in (deciding.next_expiry(draft.document), self.deadline_ms) if time is not None]
        waiting = deciding.waiting(draft.document)
        return Suspended(draft.committed, waiting, True, min(due, default=None), outside=True)

    def _held_to_deadline(self) -> None:
        if self.deadline_ms is not None and self.deadline_ms <= self.draft.now_ms():
            raise CutShort(DEADLINE)
