"""One step of a run: what came in, one inference, its tool round.

    checkpoint ▶ start, once ▶ decisions ▶ step_start ▶ before_inference ▶ model ▶ after_inference ▶ step_end
               ▶ commit ▶ tools ▶ commit ▶ decisions ▶ Continue | Suspended | Finished

Between two steps nothing is left in Python: a queue may run each as a task of its own, anywhere.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from techrevati.agent import decisions as deciding
from techrevati.agent import events, output, wording
from techrevati.agent.actions import Phase, Target, Terminate
from techrevati.agent.agent import Agent
from techrevati.agent.definition import OutputSpec, ToolExecutionMode
from techrevati.agent.endings import CANCELLED, NATURAL_END, SUSPENDED, TerminationReason, failed, read_termination
from techrevati.agent.errors import AgentError, CommitFailed
from techrevati.agent.loop import applying, finishing, records, resuming
from techrevati.agent.loop import round as rounds
from techrevati.agent.loop.calls import CallReport, CallRun
from techrevati.agent.loop.checkpoint import Checkpoint
from techrevati.agent.loop.draft import Draft
from techrevati.agent.loop.inference import Answer, Broken, Failed, infer
from techrevati.agent.loop.outcome import Continue, Finished, StepOutcome, Suspended
from techrevati.agent.loop.phases import Asked, run_phase
from techrevati.agent.loop.ports import Ports
from techrevati.agent.loop.racing import DEADLINE, CutShort, cut_short_by, let_go
from techrevati.agent.loop.request import assemble, gather, throttled
from techrevati.agent.model import ModelRequest, StopReason, settled_stop_reason
from techrevati.agent.retries import candidates
from techrevati.agent.state.errors import StateError
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.suspension import SuspendedCall
from techrevati.agent.threads.changeset import CheckpointReason
from techrevati.agent.threads.message import Role, ToolCall
from techrevati.agent.threads.runs import RunStatus

T = TypeVar("T")

MOST_CONTINUATIONS = 3


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
        return Finished(start, _ended_with(run))
    return await _Step(agent, Draft(start, plan, agent.states, ports), ports).take()


def _ended_with(run: records.RunState) -> TerminationReason:
    reason = run.done_reason or "natural"
    if reason.startswith("stopped:"):
        return TerminationReason("stopped", {"code": reason.removeprefix("stopped:")})
    return NATURAL_END if reason == "natural" else TerminationReason(reason)


class _Step:
    """The order of one step; what it decides with is in the modules beside it."""

    def __init__(self, agent: Agent, draft: Draft, ports: Ports) -> None:
        self.agent, self.draft, self.ports = agent, draft, ports
        self.using_tools = False
        self.steering: list[str] = []

    @property
    def deadline_ms(self) -> int | None:
        limit = self.agent.definition.deadline
        if limit is None:
            return None
        return self.draft.plan.started_at_ms + self.draft.loop.waited_ms + round(limit * 1000)

    async def take(self) -> StepOutcome:
        try:
            return await self._advance()
        except CutShort as cut:
            self.draft.roll_back()
            if self.draft.step_id is not None:
                self.draft.tell(events.StepEnd())
            await resuming.close_held(self.draft, f"the run that waited for it has ended: {cut.reason.code}")
            if cut.reason.type == "cancelled":
                note = wording.interrupted(self.ports.new_id(), using_tools=self.using_tools)
                applying.add_message(self.draft, note, self.draft.loop.steps)
            return await self._finish(cut.reason)
        except CommitFailed as error:
            return await self._fail(error, "COMMIT_ERROR")
        except StateError as error:
            return await self._fail(error, "STATE_ERROR")
        except Exception as error:  # noqa: BLE001  a fault of a part ends its run, with a record of it
            return await self._fail(error, None)

    async def _fail(self, error: Exception, code: str | None) -> StepOutcome:
        if self.draft.is_ended:
            raise error
        self.draft.roll_back()
        text = str(error) if isinstance(error, AgentError | StateError) else f"{type(error).__name__}: {error}"
        self.draft.tell(events.ErrorEvent(text, code))
        return await self._finish(failed(text))

    async def _finish(self, reason: TerminationReason, response: str | None = None) -> StepOutcome:
        return await finishing.finish(self.agent, self.draft, reason, response)

    # -- before the model --------------------------------------------------------------------------

    async def _advance(self) -> StepOutcome:
        draft = self.draft
        opening = not draft.loop.started
        known = {call.call_id for call in deciding.waiting(draft.document)}
        if opening:
            await self._start()
        resumed = await self._take_in()
        if self.ports.cancellation.is_cancelled:
            raise CutShort(CANCELLED)
        if draft.loop.open_step is not None and not self._is_waiting():
            return await self._round(self._open_calls(), draft.loop.open_step)
        waiting = deciding.waiting(draft.document)
        if any(call.hold for call in waiting):
            return await self._hold()
        if draft.loop.stop is not None:
            return await self._finish(read_termination(draft.loop.stop))
        idle = self._is_waiting() or (opening and len(draft.messages) == draft.plan.initial_message_count)
        progressed = any(report.suspended is None for report in resumed)
        if waiting and idle and not progressed and not self.steering:
            return await self._wait()
        if opening and (fresh := [call for call in waiting if call.call_id not in known]):
            return await self._ask(fresh, resumed)
        self._run_on()
        self._steer()
        return await self._infer()

    async def _ask(self, fresh: list[SuspendedCall], resumed: list[CallReport]) -> StepOutcome:
        """Wait for what came up while the run began; what a replay asks was told with it."""
        told = {report.call.id for report in resumed}
        for call in fresh:
            if call.call_id not in told:
                self.draft.tell(events.ToolCallStart(call.pending.id, call.pending.name))
                self.draft.tell(events.ToolCallReady(call.pending.id, call.pending.name, call.pending.arguments))
        return await self._finish(SUSPENDED)

    async def _start(self) -> None:
        draft = self.draft
        await self._phase(Phase.RUN_START)
        draft.set_loop(started=True)
        resuming.close_orphans(draft)
        draft.tell(events.RunStart(draft.identity.parent_run_id))
        await draft.commit(CheckpointReason.USER_MESSAGE)

    def _is_waiting(self) -> bool:
        run = records.run_state(self.draft.document)
        return run is not None and run.status is RunStatus.WAITING

    def _run_on(self) -> None:
        """A run that waited runs again: somebody answered, or steered it.  Its deadline did not run meanwhile."""
        if self._is_waiting():
            run_id, loop = self.draft.identity.run_id, self.draft.loop
            if loop.parked_at_ms is not None:
                waited = max(0, self.draft.now_ms() - loop.parked_at_ms)
                self.draft.set_loop(parked_at_ms=None, waited_ms=loop.waited_ms + waited)
            self.draft.apply(
                records.set_run(self.draft.document, run_id, RunStatus.RUNNING, now_ms=self.draft.now_ms())
            )

    async def _wait(self) -> StepOutcome:
        if self._is_waiting():
            await self.draft.commit(CheckpointReason.TOOL_RESULTS_COMMITTED)
            document = self.draft.document
            parked = self.draft.plan.on_suspend is records.OnSuspend.PARK
            return Suspended(self.draft.committed, deciding.waiting(document), parked, deciding.next_expiry(document))
        return await self._finish(SUSPENDED)

    async def _take_in(self) -> list[CallReport]:
        """Take what came for the run, and go on with the calls that were decided."""
        inbound = self.ports.inbox.take()
        self.steering.extend(inbound.steering)
        given = await resuming.hand_down(self.draft, inbound.decisions)
        resuming.absorb(self.draft, given)
        self.using_tools = True
        reports = await resuming.resume_decided(self.agent, self.draft, self.deadline_ms)
        self.using_tools = False
        return reports

    def _steer(self) -> None:
        for text in self.steering:
            applying.add_message(self.draft, wording.steering(self.ports.new_id(), text), self.draft.loop.steps)
        self.steering.clear()

    async def _phase(self, phase: Phase, **seen: Any) -> Asked:
        """Run a phase and take its state actions in, so that the next phase sees them."""
        asked = await run_phase(self.agent.behaviors, phase, self.draft.context(phase, **seen))
        for behavior_id, action in asked.entries:
            if isinstance(action, AnyStateAction):
                self.draft.reduce((action,), source=f"behavior:{behavior_id}", actor=behavior_id)
        return asked

    # -- the model ---------------------------------------------------------------------------------

    async def _infer(self) -> StepOutcome:
        draft, definition = self.draft, self.agent.definition
        index = draft.loop.steps
        offered = self.agent.offered(draft.policy)
        await self._phase(Phase.STEP_START, tools=offered)
        asked = await self._phase(Phase.BEFORE_INFERENCE, tools=offered)
        if terminations := asked.of(Terminate):
            return await self._finish(terminations[-1].reason)
        request = self._request(asked, offered, index)
        message_id = self.ports.new_id()
        draft.step_id = f"step:{index}"
        draft.tell_now(events.StepStart(message_id))
        models = candidates(request.model, (definition.model, *definition.fallback_models))
        work = infer(
            self.ports,
            request,
            models[min(draft.loop.model_offset, len(models) - 1) :],
            definition.retry,
            message_id=message_id,
            tell=draft.tell_now,
            may_take_up=draft.loop.stream_retries < definition.retry.max_stream_event_retries,
        )
        outcome = await cut_short_by(self.ports, self._while_live(work), deadline_ms=self.deadline_ms)
        match outcome:
            case Answer():
                return await self._answered(outcome, message_id, index, request)
            case Broken():
                return await self._taken_up(outcome, message_id, index)
            case Failed():
                return await self._failed(outcome)

    def _request(self, asked: Asked, offered: tuple[Any, ...], index: int) -> ModelRequest:
        draft, definition = self.draft, self.agent.definition
        wishes = gather(asked.actions, offered)
        shown, patch = throttled(draft.document, wishes.context)
        draft.apply(patch)
        for message in shown:
            if message.target is Target.CONVERSATION:
                applying.add_message(draft, applying.context_note(draft, message), index)
        return assemble(
            definition.instructions,
            shown,
            draft.view(),
            wishes,
            model=wishes.model or definition.model,
            options=definition.options,
        )

    async def _while_live(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`; where decisions count at once, go on with decided calls meanwhile."""
        if self.agent.definition.tool_execution_mode is not ToolExecutionMode.PARALLEL_STREAMING:
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
                    step_id, self.draft.step_id = self.draft.step_id, None
                    using_tools = self.using_tools
                    await self._take_in()
                    self.draft.step_id, self.using_tools = step_id, using_tools
            return task.result()
        finally:
            await let_go(task, self.ports.cancel_grace)

    async def _failed(self, outcome: Failed) -> StepOutcome:
        await self._phase(Phase.AFTER_INFERENCE, inference_error=outcome.error)
        await self._phase(Phase.STEP_END)
        self.draft.tell(events.StepEnd())
        self.draft.step_id = None
        self.draft.tell(events.ErrorEvent(str(outcome.error), "LLM_ERROR"))
        return await self._finish(failed(str(outcome.error)))

    async def _taken_up(self, broken: Broken, message_id: str, index: int) -> StepOutcome:
        """Close the step whose stream broke, so that the next one goes on where it ended, or begins again."""
        draft, received = self.draft, broken.received
        loop, limit = draft.loop, self.agent.definition.retry.stream_error_fallback_threshold
        failures = loop.stream_failures + 1
        draft.set_loop(
            stream_retries=loop.stream_retries + 1,
            stream_failures=0 if failures >= limit else failures,
            model_offset=loop.model_offset + (failures >= limit),
        )
        if received.text and not received.call_started:
            partial = wording.assistant(message_id, received.text, (), mark=wording.PARTIAL)
            applying.add_message(draft, partial, index)
            applying.add_message(draft, wording.go_on(self.ports.new_id(), wording.CONTINUE_BROKEN), index)
            draft.set_loop(prefix=loop.prefix + received.text)
        await self._phase(Phase.STEP_END)
        draft.tell(events.StepEnd())
        draft.step_id = None
        self._steer()
        await draft.commit(CheckpointReason.ASSISTANT_TURN_COMMITTED)
        return Continue(draft.committed)

    async def _answered(self, answer: Answer, message_id: str, index: int, request: ModelRequest) -> StepOutcome:
        draft, result = self.draft, answer.result
        result = msgspec.structs.replace(result, stop_reason=settled_stop_reason(result, request.max_output_tokens))
        draft.tell(events.InferenceComplete(answer.model, answer.duration_ms, result.usage))
        asked = await self._phase(Phase.AFTER_INFERENCE, response=result)
        calls = result.tool_calls
        applying.add_message(draft, wording.assistant(message_id, result.text, calls), index)
        await self._phase(Phase.STEP_END, response=result)
        terminations = asked.of(Terminate)
        reason = terminations[-1].reason if terminations else None
        loop, text = draft.loop, draft.loop.prefix + result.text
        cut_off = result.stop_reason is StopReason.MAX_TOKENS and not calls and reason is None
        goes_on = cut_off and loop.continuations < MOST_CONTINUATIONS
        to_do = bool(calls) and (reason is None or reason.type == "stopped")
        draft.set_loop(
            steps=index + 1,
            stream_failures=0,
            continuations=loop.continuations + goes_on,
            prefix=text if goes_on else "",
            stop=msgspec.to_builtins(reason) if reason is not None and to_do else None,
            open_step=index if to_do else None,
        )
        if goes_on:
            applying.add_message(draft, wording.go_on(self.ports.new_id(), wording.CONTINUE_TRUNCATED), index)
        draft.tell(events.StepEnd())
        await draft.commit(CheckpointReason.ASSISTANT_TURN_COMMITTED)
        draft.step_id = None
        if to_do:
            return await self._round(calls, index)
        if reason is None and not goes_on and (spec := self._missing_output()) is not None:
            return await self._corrected(spec, index)
        if reason is None and (goes_on or self._steered()):
            return await self._continue()
        return await self._finish(reason or NATURAL_END, text)

    def _missing_output(self) -> OutputSpec | None:
        spec = self.agent.definition.output
        return None if spec is None or output.is_given(self.draft.document) else spec

    async def _corrected(self, spec: OutputSpec, index: int) -> StepOutcome:
        """Ask again for the output the answer ended without."""
        corrections = self.draft.loop.corrections
        if corrections >= spec.corrections:
            return await self._finish(failed(f"the model ended without calling {spec.tool_name!r}"))
        self.draft.set_loop(corrections=corrections + 1)
        applying.add_message(self.draft, wording.go_on(self.ports.new_id(), output.correction(spec)), index)
        return await self._continue()

    def _steered(self) -> bool:
        """Say whether the user said something that the model has not seen."""
        inbound = self.ports.inbox.take()
        self.steering.extend(inbound.steering)
        if inbound.decisions:
            resuming.absorb(self.draft, inbound.decisions)
        return bool(self.steering) or bool(deciding.ready_to_resume(self.draft.document, batch=self._is_batch()))

    def _is_batch(self) -> bool:
        return self.agent.definition.tool_execution_mode is ToolExecutionMode.PARALLEL_BATCH_APPROVAL

    async def _continue(self) -> StepOutcome:
        self._steer()
        await self.draft.commit(CheckpointReason.USER_MESSAGE)
        return Continue(self.draft.committed)

    # -- the tools ---------------------------------------------------------------------------------

    def _open_calls(self) -> tuple[ToolCall, ...]:
        """Give the calls of a step whose answer is stored and whose round is not."""
        asking = (m for m in reversed(self.draft.messages) if m.role is Role.ASSISTANT and m.tool_calls)
        return next((message.tool_calls for message in asking), ())

    async def _round(self, calls: tuple[ToolCall, ...], index: int) -> StepOutcome:
        draft = self.draft
        for call in calls:
            draft.tell_now(events.ToolCallReady(call.id, call.name, call.arguments))
        self.using_tools = True
        work = self._reports(CallRun(self.agent, draft, draft.view(), self.deadline_ms), calls)
        reports = await cut_short_by(self.ports, work, deadline_ms=self.deadline_ms)
        self.using_tools = False
        stored = [applying.take_messages(draft, report, index, replay=False) for report in reports]
        for report in reports:
            applying.take_followups(draft, report.followups, index)
            applying.tell_pending(draft, report)
        for report, message_id in zip(reports, stored, strict=True):
            if message_id is not None:
                applying.tell_done(draft, report, message_id)
        applying.tell_state(draft)
        draft.set_loop(open_step=None)
        await draft.commit(CheckpointReason.TOOL_RESULTS_COMMITTED)
        await self._take_in()
        if self.ports.cancellation.is_cancelled:
            raise CutShort(CANCELLED)
        return await self._after_round({report.call.id for report in reports})

    async def _reports(self, run: CallRun, calls: tuple[ToolCall, ...]) -> list[CallReport]:
        if self.agent.definition.tool_execution_mode is ToolExecutionMode.SEQUENTIAL:
            return await rounds.sequential(run, calls)
        mark = self.draft.mark
        reports = await self._while_live(rounds.parallel(run, calls))
        return await rounds.settle(run, reports, mark)

    async def _after_round(self, asked: set[str]) -> StepOutcome:
        waiting, stop = deciding.waiting(self.draft.document), self.draft.loop.stop
        if any(call.hold for call in waiting):
            return await self._hold()
        if waiting and asked <= {call.call_id for call in waiting}:
            return await self._finish(SUSPENDED)
        if stop is not None:
            return await self._finish(read_termination(stop))
        return await self._continue()

    async def _hold(self) -> StepOutcome:
        """Wait for what is part of the work, a child: the deadline runs on."""
        if self.deadline_ms is not None and self.deadline_ms <= self.draft.now_ms():
            raise CutShort(DEADLINE)
        return await finishing.park(self.draft, wake_at=self.deadline_ms)
