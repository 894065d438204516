"""One tool round: every call of an answer, carried out in the agent's mode and taken in as one.

sequential   each on what the one before left, up to the first that suspends
parallel     all on one frozen snapshot ▶ taken in by call order; a patch that meets another's is not
             applied: its call runs again, alone, on what stands now, or, if it must not, fails

A call whose body is at work elsewhere (`Elsewhere`) lets the round wait: the others of a parallel one come to their
end, and nothing is taken in before all are there.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from techrevati.agent.lifecycle import CallStatus
from techrevati.agent.loop import applying
from techrevati.agent.loop.calls import CallReport, CallRun, carry_out
from techrevati.agent.loop.ports import Elsewhere
from techrevati.agent.loop.racing import let_go
from techrevati.agent.state.conflicts import Conflict, conflicts
from techrevati.agent.state.notation import show
from techrevati.agent.state.patch import Patch
from techrevati.agent.threads.message import ToolCall
from techrevati.agent.tools import ToolResult

T = TypeVar("T")


async def sequential(run: CallRun, calls: Sequence[ToolCall]) -> list[CallReport]:
    """Carry out calls one by one and take in their state at once; stop behind the first that suspends.

    Raises:
        Elsewhere: the round waits for one.
    """
    reports = []
    for call in calls:
        report = await carry_out(run, call, run.draft.document)
        applying.take_state(run.draft, report, replay=False)
        reports.append(report)
        if report.suspended is not None:
            break
    return reports


async def parallel(run: CallRun, calls: Sequence[ToolCall]) -> list[CallReport]:
    """Carry out calls at once; nothing is taken in yet.

    Raises:
        Elsewhere: the round waits for one, and the others have come to their end.
    """
    frozen = run.draft.document
    ends = await all_of([_ended(carry_out(run, call, frozen)) for call in calls], run.draft.ports.cancel_grace)
    for end in ends:
        if isinstance(end, Elsewhere):
            raise end
    return [end for end in ends if isinstance(end, CallReport)]


async def _ended(call: Coroutine[Any, Any, CallReport]) -> CallReport | Elsewhere:
    try:
        return await call
    except Elsewhere as elsewhere:
        return elsewhere


async def settle(run: CallRun, reports: Sequence[CallReport], mark: int) -> list[CallReport]:
    """Take in the state of parallel reports by call order.

    Args:
        mark: Patches the draft had gathered when the round began; what came since, a call's patch may not meet.

    Raises:
        Elsewhere: a call that runs again does so elsewhere.
    """
    settled = []
    for report in reports:
        if (met := _met(run, report, mark)) is not None:
            report = await _rerun(run, report, met)
        applying.take_state(run.draft, report, replay=False)
        settled.append(report)
    return settled


def _met(run: CallRun, report: CallReport, mark: int) -> Conflict | None:
    if not report.patch:
        return None
    since = Patch(tuple(op for patch in run.draft.patches_since(mark) for op in patch.ops))
    found = conflicts((since, report.patch), run.draft.states.lattices)
    return found[0] if found else None


async def _rerun(run: CallRun, report: CallReport, met: Conflict) -> CallReport:
    tool = run.agent.tools.get(report.call.name)
    if tool is not None and tool.repeatable:
        return await carry_out(run, report.call, run.draft.document, again=report)
    lost = ToolResult.error(
        report.call.name,
        f"the call ran, but its change at {show(met.path)} met that of a parallel call and was not applied",
        code="state_conflict",
    )
    state = msgspec.structs.replace(report.state, status=CallStatus.FAILED, resume_token=None)
    return CallReport(report.call, lost, CallStatus.FAILED, state, None, report.gate, report.after)


async def all_of(work: Sequence[Coroutine[Any, Any, T]], grace: float) -> list[T]:
    """Run coroutines at once; when one raises, or this is cancelled, the others are let go."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            await let_go(task, grace)
