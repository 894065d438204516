"""What a declared agent's run may be started with beside messages.

start("desk", {"messages": […], "state": {…}, "policy": {…}, "decisions": […]}) ──▶ Opening ──▶ RunRequest
"""

from typing import Any

import msgspec

from techrevati.agent.policy import RunPolicy
from techrevati.agent.suspension import ToolCallDecision
from techrevati.runtime.errors import TechrevatiError


class BadOpening(TechrevatiError):
    """A run's input is an object with messages, and what stands beside them cannot be read."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        return f"the run's input is refused: {self.cause}; fix: state (an object), policy (lists of names), decisions"


class Opening(msgspec.Struct, frozen=True):
    """Beside the messages of a run's input.

    Attributes:
        state: Begins a new thread, and replaces that of an old one; the runtime's own keys stay as they are.
        policy: The request's own lists; the agent's fill only what it leaves open.
        decisions: Answers to calls that wait in the thread, or will.
        parent_run_id: The run that this one continues.
    """

    state: dict[str, Any] | None = None
    policy: RunPolicy | None = None
    decisions: tuple[ToolCallDecision, ...] = ()
    parent_run_id: str | None = None


def opening_of(input: Any) -> Opening:
    """Read a run's input.

    Raises:
        BadOpening: what stands beside its messages is none of this.
    """
    if not isinstance(input, dict) or not isinstance(input.get("messages"), list):
        return Opening()
    try:
        return msgspec.convert(input, Opening)
    except msgspec.ValidationError as error:
        raise BadOpening(str(error)) from error
