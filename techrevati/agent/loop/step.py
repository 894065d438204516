"""One step of a run: what came in, one inference, its tool round.

    checkpoint ▶ start, once ▶ decisions ▶ step_start ▶ before_inference ▶ model ▶ after_inference ▶ step_end
               ▶ commit ▶ tools ▶ commit ▶ decisions ▶ Continue | Suspended | Finished

Between two steps nothing is left in Python: a queue may run each as a task of its own, anywhere.
"""

from techrevati.agent import decisions as deciding
from techrevati.agent import events, wording
from techrevati.agent.actions import Phase
from techrevati.agent.agent import Agent
from techrevati.agent.endings import CANCELLED, NATURAL_END, SUSPENDED, TerminationReason, failed, read_termination
from techrevati.agent.errors import AgentError, CommitFailed
from techrevati.agent.history import answer_of
from techrevati.agent.loop import applying, records, resuming
from techrevati.agent.loop.answering import ToolsAsked, answer
from techrevati.agent.loop.calls import CallReport
from techrevati.agent.loop.checkpoint import Checkpoint
from techrevati.agent.loop.draft import Draft
from techrevati.agent.loop.live import Live
from techrevati.agent.loop.outcome import Finished, StepOutcome, Suspended
from techrevati.agent.loop.ports import Ports
from techrevati.agent.loop.racing import CutShort
from techrevati.agent.loop.tooling import carry_out_round, open_calls
from techrevati.agent.state.errors import StateError
from techrevati.agent.suspension import SuspendedCall
from techrevati.agent.threads.changeset import CheckpointReason
from techrevati.agent.threads.message import Role
from techrevati.agent.threads.runs import RunStatus
from techrevati.runtime.errors import TechrevatiError


class RunNotPrepared(AgentError):
    """A thread has no run to take a step of."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(thread_id)
        self.thread_id = thread_id

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} has no prepared run; fix: store what `prepare_run` gives, then step"


async def step(agent: Agent, start: Checkpoint, ports: Ports) -> StepOutcome:
    """Take one step of the run that `start` carries.

    A step that was cut off before its first commit may be taken again from the same checkpoint; one whose
    answer is stored goes on with its tool round.

    Raises:
        RunNotPrepared: there is no run.
        CommitFailed: not even the end could be stored.
    """
    plan, run = records.run_plan(start.document), records.run_state(start.document)
    if plan is None or run is None:
        raise RunNotPrepared(start.thread_id)
    if run.status is RunStatus.DONE:
        reason = _ended_with(run)
        text = answer_of(start.messages, run.id) if reason == NATURAL_END else None
        return Finished(start, reason, text or None)
    return await _Step(Live(agent, Draft(start, plan, agent.states, ports))).take()


def _ended_with(run: records.RunState) -> TerminationReason:
    reason = run.done_reason or "natural"
    if reason.startswith("stopped:"):
        return TerminationReason("stopped", {"code": reason.removeprefix("stopped:")})
    return NATURAL_END if reason == "natural" else TerminationReason(reason)


class _Step:
    """The order of one step."""

    def __init__(self, live: Live) -> None:
        self.live, self.draft = live, live.draft

    async def take(self) -> StepOutcome:
        try:
            return await self._advance()
        except CutShort as cut:
            return await self._cut_short(cut.reason)
        except CommitFailed as error:
            return await self._fail(error, "COMMIT_ERROR")
        except StateError as error:
            return await self._fail(error, "STATE_ERROR")
        except Exception as error:  # noqa: BLE001  a fault of a part ends its run, with a record of it
            return await self._fail(error, None)

    async def _cut_short(self, reason: TerminationReason) -> StepOutcome:
        self._abandon()
        await resuming.close_held(self.draft, f"the run that waited for it has ended: {reason.code}")
        if reason.type == "cancelled":
            note = wording.interrupted(self.draft.ports.new_id(), using_tools=self.live.using_tools)
            applying.add_message(self.draft, note, self.draft.loop.steps)
        return await self.live.finish(reason)

    async def _fail(self, error: Exception, code: str | None) -> StepOutcome:
        if self.draft.is_ended:
            raise error
        self._abandon()
        text = str(error) if isinstance(error, TechrevatiError) else f"{type(error).__name__}: {error}"
        self.draft.tell(events.ErrorEvent(text, code))
        await resuming.close_held(self.draft, f"the run that waited for it has failed: {text}")
        return await self.live.finish(failed(text))

    def _abandon(self) -> None:
        """Go back to the last commit, and close what was told to have begun."""
        draft = self.draft
        draft.roll_back()
        if not draft.loop.started:
            self._begin()
        if draft.step_id is not None:
            draft.tell(events.StepEnd())
            draft.step_id = None

    async def _advance(self) -> StepOutcome:
        live, draft = self.live, self.draft
        opening = not draft.loop.started
        known = {call.call_id for call in deciding.waiting(draft.document)}
        if opening:
            await live.phase(Phase.RUN_START)
            self._begin()
            resuming.close_orphans(draft)
            await draft.commit(CheckpointReason.USER_MESSAGE)
        resumed = await live.take_in()
        if draft.ports.cancellation.is_cancelled:
            raise CutShort(CANCELLED)
        if draft.loop.open_step is not None and not live.is_waiting:
            return await carry_out_round(live, open_calls(live), draft.loop.open_step)
        if live.outside:
            return await live.wait_outside()
        waiting = deciding.waiting(draft.document)
        if any(call.hold for call in waiting):
            return await live.hold()
        if (ending := self._ending(resumed)) is not None:
            return await live.finish(ending, answer_of(draft.messages, draft.identity.run_id))
        if waiting and self._is_idle(opening, resumed):
            return await self._wait()
        if opening and (fresh := [call for call in waiting if call.call_id not in known]):
            return await self._ask(fresh, resumed)
        live.run_on()
        live.steer()
        answered = await answer(live)
        if isinstance(answered, ToolsAsked):
            return await carry_out_round(live, answered.calls, answered.index)
        return answered

    def _ending(self, resumed: list[CallReport]) -> TerminationReason | None:
        """Give the end that was settled before a worker died or a child was waited for; a natural one only if
        nothing came meanwhile."""
        stop = self.draft.loop.stop
        if stop is None:
            return None
        reason = read_termination(stop)
        if reason == NATURAL_END and (self.live.steering or resumed):
            self.draft.set_loop(stop=None)
            return None
        return reason

    def _begin(self) -> None:
        self.draft.set_loop(started=True)
        self.draft.tell(events.RunStart(self.draft.identity.parent_run_id))

    def _is_idle(self, opening: bool, resumed: list[CallReport]) -> bool:
        """Say whether the model has nothing new to see, so that the run only waits."""
        brought_nothing = opening and len(self.draft.messages) == self.draft.plan.initial_message_count
        progressed = any(report.suspended is None for report in resumed)
        waits = self.live.is_waiting or brought_nothing or self._is_last_round_parked()
        return waits and not progressed and not self.live.steering

    def _is_last_round_parked(self) -> bool:
        """Say whether every call of the last answer waits: its worker died before the run could."""
        last = next((m for m in reversed(self.draft.messages) if m.role is Role.ASSISTANT), None)
        waiting = {call.call_id for call in deciding.waiting(self.draft.document)}
        return last is not None and bool(last.tool_calls) and {call.id for call in last.tool_calls} <= waiting

    async def _wait(self) -> StepOutcome:
        draft = self.draft
        if not self.live.is_waiting:
            return await self.live.finish(SUSPENDED)
        await draft.commit(CheckpointReason.TOOL_RESULTS_COMMITTED)
        parked = draft.plan.on_suspend is records.OnSuspend.PARK
        return Suspended(
            draft.committed, deciding.waiting(draft.document), parked, deciding.next_expiry(draft.document)
        )

    async def _ask(self, fresh: list[SuspendedCall], resumed: list[CallReport]) -> StepOutcome:
        """Wait for what came up while the run began; what a replay asks was told with it."""
        told = {report.call.id for report in resumed}
        for shown in (call.pending for call in fresh if call.call_id not in told):
            self.draft.tell(events.ToolCallStart(shown.id, shown.name))
            self.draft.tell(events.ToolCallReady(shown.id, shown.name, shown.arguments))
        return await self.live.finish(SUSPENDED)
