"""The second half of a step: the calls of an answer carried out, stored, told."""

from techrevati.agent import decisions as deciding
from techrevati.agent import events
from techrevati.agent.definition import ToolExecutionMode
from techrevati.agent.endings import CANCELLED, SUSPENDED, read_termination
from techrevati.agent.loop import applying
from techrevati.agent.loop import round as rounds
from techrevati.agent.loop.calls import CallReport, CallRun
from techrevati.agent.loop.live import Live
from techrevati.agent.loop.outcome import StepOutcome
from techrevati.agent.loop.ports import Elsewhere
from techrevati.agent.loop.racing import CutShort, cut_short_by
from techrevati.agent.threads.changeset import CheckpointReason
from techrevati.agent.threads.message import Role, ToolCall


def open_calls(live: Live) -> tuple[ToolCall, ...]:
    """Give the calls of a step whose answer is stored and whose round is not."""
    asking = (m for m in reversed(live.draft.messages) if m.role is Role.ASSISTANT and m.tool_calls)
    return next((message.tool_calls for message in asking), ())


async def carry_out_round(live: Live, calls: tuple[ToolCall, ...], index: int) -> StepOutcome:
    """Carry out the calls of step `index`, whose answer is stored, and go on from what they came to.

    Raises:
        CutShort: the run was cancelled, or its deadline came; nothing of the round is kept.
    """
    draft = live.draft
    await draft.commit(CheckpointReason.USER_MESSAGE)  # what was decided stays, also if the round has to wait
    for call in calls if not draft.loop.told else ():
        draft.tell_now(events.ToolCallReady(call.id, call.name, call.arguments))
    live.using_tools = True
    run = CallRun(live.agent, draft, draft.view(), live.deadline_ms)
    try:
        reports = await cut_short_by(live.ports, lambda: _reports(live, run, calls), deadline_ms=live.deadline_ms)
    except Elsewhere:
        live.using_tools = False
        draft.roll_back()
        return await live.wait_outside()
    live.using_tools = False
    stored = [applying.take_messages(draft, report, index, replay=False) for report in reports]
    for report in reports:
        applying.take_followups(draft, report.followups, index)
        applying.tell_pending(draft, report)
    for report, message_id in zip(reports, stored, strict=True):
        if message_id is not None:
            applying.tell_done(draft, report, message_id)
    applying.tell_state(draft)
    draft.set_loop(open_step=None, told=False)
    await draft.commit(CheckpointReason.TOOL_RESULTS_COMMITTED)
    await live.take_in()
    if live.ports.cancellation.is_cancelled:
        raise CutShort(CANCELLED)
    return await _after_round(live, {report.call.id for report in reports})


async def _reports(live: Live, run: CallRun, calls: tuple[ToolCall, ...]) -> list[CallReport]:
    if live.mode is ToolExecutionMode.SEQUENTIAL:
        return await rounds.sequential(run, calls)
    mark = live.draft.mark
    reports = await live.while_live(rounds.parallel(run, calls))
    await live.draft.commit(CheckpointReason.USER_MESSAGE)
    return await rounds.settle(run, reports, mark)


async def _after_round(live: Live, asked: set[str]) -> StepOutcome:
    waiting, stop = deciding.waiting(live.draft.document), live.draft.loop.stop
    if live.outside:
        return await live.wait_outside()
    if any(call.hold for call in waiting):
        return await live.hold()
    if waiting and asked <= {call.call_id for call in waiting}:
        return await live.finish(SUSPENDED)
    if stop is not None:
        return await live.finish(read_termination(stop))
    return await live.go_on()
