"""End a run, or let it wait: once, durably, and told only after that."""

import logging

from techrevati.agent import decisions, events
from techrevati.agent.actions import Phase
from techrevati.agent.agent import Agent
from techrevati.agent.endings import SUSPENDED, TerminationReason
from techrevati.agent.errors import CommitFailed
from techrevati.agent.loop import records
from techrevati.agent.loop.draft import Draft
from techrevati.agent.loop.outcome import Finished, StepOutcome, Suspended
from techrevati.agent.loop.phases import run_phase
from techrevati.agent.threads.changeset import CheckpointReason
from techrevati.agent.threads.runs import RunMeta, RunStatus
from techrevati.runtime.errors import TechrevatiError

_log = logging.getLogger(__name__)


def normalised(reason: TerminationReason, *, has_suspended: bool) -> TerminationReason:
    """A run with calls still parked is suspended, whatever it was about to end with; errors and cancels stand."""
    return SUSPENDED if has_suspended and reason.type not in ("error", "cancelled") else reason


async def finish(agent: Agent, draft: Draft, asked: TerminationReason, response: str | None = None) -> StepOutcome:
    """End the run: status, `run_end`, final commit, event.

    Raises:
        CommitFailed: the end could not be stored.  It is told as an error, never as an end.
    """
    reason = normalised(asked, has_suspended=bool(records.suspended_calls(draft.document)))
    if reason.type == "suspended" and (draft.plan.on_suspend is records.OnSuspend.PARK or _holds(draft)):
        return await park(draft)
    response = response or None if reason.type == "natural_end" else None
    draft.step_id, draft.is_ended = None, True
    status = RunStatus(reason.status)
    draft.apply(
        records.set_run(
            draft.document, draft.identity.run_id, status, now_ms=draft.now_ms(), done_reason=reason.done_reason
        )
    )
    await _run_end(agent, draft)
    try:
        await draft.commit(CheckpointReason.RUN_FINISHED, run_meta=run_meta(draft, reason), final=True)
    except CommitFailed as error:
        draft.roll_back()
        draft.tell_now(events.ErrorEvent(str(error), "COMMIT_ERROR"))
        raise
    draft.tell_now(events.RunFinish(reason, {"response": response} if response else None))
    if reason.type == "suspended":
        return Suspended(
            draft.committed, decisions.waiting(draft.document), False, decisions.next_expiry(draft.document)
        )
    return Finished(draft.committed, reason, response)


async def park(draft: Draft, *, wake_at: int | None = None) -> Suspended:
    """Let the run wait: durable, without an end, holding nothing.

    Args:
        wake_at: Unix ms at which it is to be looked at again, whatever its calls say.
    """
    before = records.run_state(draft.document)
    if before is None or before.status is not RunStatus.WAITING:
        run_id = draft.identity.run_id
        if not _holds(draft):
            draft.set_loop(parked_at_ms=draft.now_ms())
        draft.apply(records.set_run(draft.document, run_id, RunStatus.WAITING, now_ms=draft.now_ms()))
        await draft.commit(CheckpointReason.TOOL_RESULTS_COMMITTED, run_meta=run_meta(draft, SUSPENDED))
    else:
        await draft.commit(CheckpointReason.TOOL_RESULTS_COMMITTED)
    due = [time for time in (decisions.next_expiry(draft.document), wake_at) if time is not None]
    return Suspended(draft.committed, decisions.waiting(draft.document), True, min(due, default=None))


def run_meta(draft: Draft, reason: TerminationReason) -> RunMeta | None:
    """Give what the index is told of an end or a wait, if the run is in it."""
    if not draft.plan.indexed:
        return None
    of, status = draft.identity, RunStatus(reason.status)
    return RunMeta(of.agent_id, of.origin, status, of.parent_thread_id, reason.code, reason.detail)


def _holds(draft: Draft) -> bool:
    return any(call.hold for call in records.suspended_calls(draft.document))


async def _run_end(agent: Agent, draft: Draft) -> None:
    """Let the behaviours see the end; the run is over, so that none of them can fail it any more."""
    try:
        asked = await run_phase(agent.behaviors, Phase.RUN_END, draft.context(Phase.RUN_END))
        for behavior_id, action in asked.entries:
            draft.reduce((action,), source=f"behavior:{behavior_id}", actor=behavior_id)
    except TechrevatiError as error:
        _log.warning("run %s: %s", draft.identity.run_id, error)
        draft.tell_now(events.ErrorEvent(str(error), "STATE_ERROR"))
