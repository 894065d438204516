"""Which states a run and a tool call may pass through.

run    running ⇄ waiting, both ▶ done
call   new ▶ running ▶ suspended ▶ resuming ▶ running …, ▶ succeeded | failed | cancelled
"""

from collections.abc import Mapping
from enum import StrEnum

from techrevati.agent.threads.runs import RunStatus
from techrevati.agent.tools import ToolResult, ToolStatus
from techrevati.runtime.errors import TechrevatiError


class CallStatus(StrEnum):
    NEW = "new"
    RUNNING = "running"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (CallStatus.SUCCEEDED, CallStatus.FAILED, CallStatus.CANCELLED)


_RUN: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.RUNNING: frozenset((RunStatus.WAITING, RunStatus.DONE)),
    RunStatus.WAITING: frozenset((RunStatus.RUNNING, RunStatus.DONE)),
    RunStatus.DONE: frozenset(),
}
_ENDS = frozenset((CallStatus.SUCCEEDED, CallStatus.FAILED, CallStatus.CANCELLED))
_CALL: Mapping[CallStatus, frozenset[CallStatus]] = {
    CallStatus.NEW: frozenset(CallStatus),
    CallStatus.RUNNING: _ENDS | {CallStatus.SUSPENDED},
    CallStatus.SUSPENDED: frozenset((CallStatus.RESUMING, CallStatus.CANCELLED)),
    CallStatus.RESUMING: _ENDS | {CallStatus.RUNNING, CallStatus.SUSPENDED},
    CallStatus.SUCCEEDED: frozenset(),
    CallStatus.FAILED: frozenset(),
    CallStatus.CANCELLED: frozenset(),
}


class IllegalTransition(TechrevatiError):
    """A run or a call was asked to go where it cannot."""

    def __init__(self, what: str, source: str, target: str) -> None:
        super().__init__(what, source, target)
        self.what, self.source, self.target = what, source, target

    def __str__(self) -> str:
        return f"{self.what} cannot go from {self.source} to {self.target}"


def run_may_go(source: RunStatus, target: RunStatus) -> bool:
    return source is target or target in _RUN[source]


def call_may_go(source: CallStatus, target: CallStatus) -> bool:
    return source is target or target in _CALL[source]


def held_to_run(run_id: str, source: RunStatus, target: RunStatus) -> RunStatus:
    """Give `target`.

    Raises:
        IllegalTransition: naming both.
    """
    if not run_may_go(source, target):
        raise IllegalTransition(f"run {run_id}", source, target)
    return target


def held_to_call(call_id: str, source: CallStatus, target: CallStatus) -> CallStatus:
    """Give `target`.

    Raises:
        IllegalTransition: naming both.
    """
    if not call_may_go(source, target):
        raise IllegalTransition(f"tool call {call_id}", source, target)
    return target


def outcome_of(result: ToolResult) -> CallStatus:
    """Give the outcome of one execution."""
    if result.status is ToolStatus.PENDING:
        return CallStatus.SUSPENDED
    return CallStatus.FAILED if result.status is ToolStatus.ERROR else CallStatus.SUCCEEDED
