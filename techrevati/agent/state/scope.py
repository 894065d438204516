"""How long a typed state lives, and what is cleaned away before the next run.

    thread      across runs, for good
    run         until the next run is prepared, so that an ended run can still be read
    tool_call   under the id of its call, until the user says something new, or `cleanup_of_old_calls` lets it go

Both cleanups are computed from the state as it is rebuilt, never from an older snapshot: what a crashed
run left in its patches is found.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from techrevati.agent.state.document import MISSING, Document, find
from techrevati.agent.state.notation import Path
from techrevati.agent.state.patch import Delete, Patch
from techrevati.agent.state.paths import (
    RUN,
    STOP_POLICY,
    SUSPENDED_CALL,
    TOOL_CALL_SCOPE,
    TOOL_CALL_STATE,
    as_path,
    call_path,
)

TERMINAL_CALLS = frozenset(("succeeded", "failed", "cancelled"))


class StateScope(StrEnum):
    """How long a typed state lives."""

    THREAD = "thread"
    RUN = "run"
    TOOL_CALL = "tool_call"


class ScopeRegistry:
    """Where run-scoped states stand.  Filled when an agent is wired."""

    __slots__ = ("_run",)

    def __init__(self, run_paths: Iterable[Path] = ()) -> None:
        self._run = dict.fromkeys(as_path(path) for path in (RUN, STOP_POLICY, *run_paths))

    def register(self, path: Path, scope: StateScope) -> None:
        """Note a state's place; only run-scoped ones need cleaning."""
        if scope is StateScope.RUN:
            self._run[as_path(path)] = None

    @property
    def run_paths(self) -> tuple[Path, ...]:
        return tuple(self._run)


def cleanup_for_next_run(document: Document, scopes: ScopeRegistry, *, new_user_input: bool) -> Patch:
    """Give what to delete before a run is marked as running.

    Args:
        document: The thread's state as it is now, rebuilt with every patch.
        new_user_input: The run brings a message of the user: calls that wait are abandoned.  A run of
            decisions only keeps them.
    """
    paths = list(scopes.run_paths)
    if new_user_input:
        paths.append(TOOL_CALL_SCOPE)
    return _delete(document, paths)


def cleanup_for_new_call(document: Document, call_id: str) -> Patch:
    """Give what to delete before a call of the model starts: an ended call of the same id, from an earlier run."""
    status = find(document, call_path(call_id, (*TOOL_CALL_STATE, "status")))
    return _delete(document, [call_path(call_id)] if status in TERMINAL_CALLS else [])


def cleanup_after_call(document: Document, call_id: str) -> Patch:
    """Give what to delete when a call has ended: its suspension; what the call did stays for audit."""
    return _delete(document, [call_path(call_id, SUSPENDED_CALL)])


def cleanup_of_old_calls(document: Document, keep: int) -> Patch:
    """Give what to delete so that a long run's state stays small: the ended calls but the newest `keep`.

    While any call is under way or parked nothing is: its round may still look at the others.
    """
    scopes = find(document, TOOL_CALL_SCOPE, {})
    states = {call_id: find(document, call_path(call_id, TOOL_CALL_STATE), {}) for call_id in scopes}
    if len(states) <= keep or any(state.get("status") not in TERMINAL_CALLS for state in states.values()):
        return Patch()
    oldest = sorted(states, key=lambda call_id: states[call_id].get("updated_at", 0))  # stable: equals stay in order
    return _delete(document, [call_path(call_id) for call_id in oldest[: len(oldest) - keep]])


def _delete(document: Document, paths: Iterable[Path]) -> Patch:
    return Patch(tuple(_deletions(document, paths)))


def _deletions(document: Document, paths: Iterable[Path]) -> Iterator[Delete]:
    for path in paths:
        if find(document, path, MISSING) is not MISSING:
            yield Delete(path)
