"""What a run keeps of itself in its thread's state, and how that is read and written.

| path | record | written |
| __run | RunState | at start, when it waits, at its end |
| __kernel.run | RunPlan | once, when the run is prepared |
| __kernel.loop | LoopState | every step |
| __kernel.decisions | list of decisions that found no call yet | when one comes early |
| __tool_call_scope.<id>.tool_call_state | ToolCallState | every transition |
| __tool_call_scope.<id>.suspended_call | SuspendedCall | while the call is parked |

Readers take a document, writers give a patch: nothing here holds anything.
"""

from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from techrevati.agent.context import RunIdentity
from techrevati.agent.lifecycle import CallStatus, held_to_call, held_to_run
from techrevati.agent.policy import RunPolicy
from techrevati.agent.state.document import Document, find
from techrevati.agent.state.notation import Path
from techrevati.agent.state.patch import Delete, Patch, Set
from techrevati.agent.state.paths import RUN, SUSPENDED_CALL, TOOL_CALL_SCOPE, TOOL_CALL_STATE, call_path
from techrevati.agent.suspension import SuspendedCall, ToolCallDecision, ToolCallResume
from techrevati.agent.threads.runs import RunStatus

R = TypeVar("R")
PLAN: Path = ("__kernel", "run")
LOOP: Path = ("__kernel", "loop")
DECISIONS: Path = ("__kernel", "decisions")


class OnSuspend(StrEnum):
    """What a run does when nothing is left but calls that wait for an answer from outside."""

    FINISH = "finish"
    """End as ``suspended``; the answer starts a new run on the thread."""
    PARK = "park"
    """Wait, without an end: the answer continues this run."""


class RunState(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    status: RunStatus
    done_reason: str | None = None
    updated_at: int = 0


class RunPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was settled when the run was prepared.

    Attributes:
        above: What binds the run from above, as `ReadOnlyContext.above`.
    """

    identity: RunIdentity
    policy: RunPolicy = RunPolicy()
    initial_message_count: int = 0
    started_at_ms: int = 0
    on_suspend: OnSuspend = OnSuspend.FINISH
    depth: int = 0
    indexed: bool = True
    above: tuple[Document | None, ...] = ()


class LoopState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the loop stands between two steps.

    Attributes:
        started: `run_start` has run and was committed.
        steps: Index of the next step.
        continuations: How often a cut-off answer was continued.
        stream_retries: How often a broken stream was taken up again.
        stream_failures: Broken streams in a row on the current model.
        model_offset: Models given up on because their streams broke.
        corrections: How often an end without the declared output was turned back.
        prefix: Text of the answer so far, when it comes in several pieces.
        stop: A stop that was asked for and lets the round finish, as a termination's wire form.
        waited_ms: How long the run waited for answers from outside; a deadline does not count it.
        parked_at_ms: Since when it does now.
        open_step: A step whose answer is stored and whose round is not; None otherwise.
        told: The calls of that round were told as ready: it waits for some that are at work elsewhere.
    """

    started: bool = False
    steps: int = 0
    continuations: int = 0
    stream_retries: int = 0
    stream_failures: int = 0
    model_offset: int = 0
    corrections: int = 0
    prefix: str = ""
    stop: dict[str, Any] | None = None
    open_step: int | None = None
    told: bool = False
    waited_ms: int = 0
    parked_at_ms: int | None = None


class ToolCallState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where one call stands; kept for audit after its end."""

    call_id: str
    tool_name: str
    arguments: Any
    status: CallStatus = CallStatus.NEW
    resume_token: str | None = None
    resume: ToolCallResume | None = None
    scratch: Any = None
    updated_at: int = 0

    def to(self, status: CallStatus, *, now_ms: int, resume_token: str | None = None) -> "ToolCallState":
        """Give the call in its next status.

        A fresh ``running`` and ``suspended`` forget the resume payload; ``running`` after ``resuming`` keeps it.

        Raises:
            IllegalTransition: naming both.
        """
        held_to_call(self.call_id, self.status, status)
        fresh = status is CallStatus.RUNNING and self.status is not CallStatus.RESUMING
        forgets = status is CallStatus.SUSPENDED or (fresh and self.status is not CallStatus.RUNNING)
        return msgspec.structs.replace(
            self,
            status=status,
            resume=None if forgets else self.resume,
            resume_token=resume_token if status is CallStatus.SUSPENDED else None,
            updated_at=now_ms,
        )


def _read(document: Document, path: Path, kind: type[R]) -> R | None:
    found = find(document, path)
    return None if found is None else msgspec.convert(found, kind)


def _write(path: Path, record: Any) -> Patch:
    return Patch((Set(path, msgspec.to_builtins(record)),))


def run_state(document: Document) -> RunState | None:
    return _read(document, RUN, RunState)


def set_run(
    document: Document, run_id: str, status: RunStatus, *, now_ms: int, done_reason: str | None = None
) -> Patch:
    """Write the run's status.

    Raises:
        IllegalTransition: the run of that id cannot go there.
    """
    before = run_state(document)
    if before is not None and before.id == run_id:
        held_to_run(run_id, before.status, status)
    return _write(RUN, RunState(run_id, status, done_reason, now_ms))


def run_plan(document: Document) -> RunPlan | None:
    return _read(document, PLAN, RunPlan)


def set_plan(plan: RunPlan) -> Patch:
    return _write(PLAN, plan)


def loop_state(document: Document) -> LoopState:
    return _read(document, LOOP, LoopState) or LoopState()


def set_loop(document: Document, **changes: Any) -> Patch:
    return _write(LOOP, msgspec.structs.replace(loop_state(document), **changes))


def early_decisions(document: Document) -> tuple[ToolCallDecision, ...]:
    """Give the decisions that came before the call they are for."""
    return _read(document, DECISIONS, tuple[ToolCallDecision, ...]) or ()


def set_early_decisions(decisions: tuple[ToolCallDecision, ...]) -> Patch:
    return _write(DECISIONS, decisions) if decisions else Patch((Delete(DECISIONS),))


def call_ids(document: Document) -> list[str]:
    """Give the ids of every call the state knows, sorted."""
    scopes = find(document, TOOL_CALL_SCOPE)
    return sorted(scopes) if isinstance(scopes, dict) else []


def call_state(document: Document, call_id: str) -> ToolCallState | None:
    return _read(document, call_path(call_id, TOOL_CALL_STATE), ToolCallState)


def set_call(state: ToolCallState) -> Patch:
    return _write(call_path(state.call_id, TOOL_CALL_STATE), state)


def suspended_call(document: Document, call_id: str) -> SuspendedCall | None:
    return _read(document, call_path(call_id, SUSPENDED_CALL), SuspendedCall)


def suspended_calls(document: Document) -> tuple[SuspendedCall, ...]:
    """Give every parked call, those being resumed included, by call id."""
    scopes = find(document, TOOL_CALL_SCOPE)
    if not isinstance(scopes, dict):
        return ()
    (key,) = SUSPENDED_CALL
    parked = sorted(call_id for call_id, scope in scopes.items() if key in scope)
    return tuple(msgspec.convert(scopes[call_id][key], SuspendedCall) for call_id in parked)


def set_suspended(call: SuspendedCall) -> Patch:
    return _write(call_path(call.call_id, SUSPENDED_CALL), call)
