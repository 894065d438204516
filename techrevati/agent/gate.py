"""What becomes of one tool call before it runs.

    (standing, action) ──join──▶ standing        blocked > answered > suspended > open

The four form a chain and a later action can only climb it, so a permissive behaviour that comes late
does not undo a block.  An action with ``override=True``, or `Proceed`, sets the standing outright.

The order of §2.7, after the behaviours spoke: blocked, answered, unknown tool, unfit arguments, suspended, run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from techrevati.agent.actions import Block, Proceed, SetToolResult, Suspend
from techrevati.agent.suspension import SuspendTicket
from techrevati.agent.tools import Tool, ToolError, ToolResult


@dataclass(frozen=True, slots=True)
class Open:
    """Nothing stands in the way."""


@dataclass(frozen=True, slots=True)
class Parking:
    ticket: SuspendTicket


@dataclass(frozen=True, slots=True)
class Answered:
    result: ToolResult


@dataclass(frozen=True, slots=True)
class Blocked:
    reason: str


Standing = Open | Parking | Answered | Blocked
_RANK: dict[type, int] = {Open: 0, Parking: 1, Answered: 2, Blocked: 3}


def standing_of(action: Block | Suspend | SetToolResult | Proceed) -> Standing:
    if isinstance(action, Block):
        return Blocked(action.reason)
    if isinstance(action, SetToolResult):
        return Answered(action.result)
    return Parking(action.ticket) if isinstance(action, Suspend) else Open()


def join(standing: Standing, action: Block | Suspend | SetToolResult | Proceed) -> Standing:
    """Take one action; of two of the same rank the later one stands."""
    asked = standing_of(action)
    if isinstance(action, Proceed) or action.override or _RANK[type(asked)] >= _RANK[type(standing)]:
        return asked
    return standing


def standing(actions: Iterable[Any]) -> Standing:
    """Fold the gate actions among `actions`, in their order."""
    now: Standing = Open()
    for action in actions:
        if isinstance(action, (Block, Suspend, SetToolResult, Proceed)):
            now = join(now, action)
    return now


def verdict(now: Standing, name: str, tool: Tool | None, arguments: Any) -> Standing:
    """Finish the order: an unknown tool or unfit arguments beat a suspension, so an invalid call is never parked."""
    if isinstance(now, Blocked):
        return Answered(ToolResult.error(name, now.reason))
    if isinstance(now, Answered):
        return now
    if tool is None:
        return Answered(ToolResult.error(name, f"tool {name!r} is not available"))
    try:
        tool.validate(arguments)
    except ToolError as error:
        return Answered(ToolResult.error(name, str(error), code=error.code))
    except Exception as error:  # noqa: BLE001  a tool's own validation must not end the run
        return Answered(ToolResult.error(name, f"invalid arguments: {error}"))
    return now
