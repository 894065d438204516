"""How a turn ends: values that the engine turns into one commit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Complete:
    """The run is done; `output` (JSON) is its result."""

    output: Any = None


@dataclass(frozen=True, slots=True)
class Continue:
    """The same agent has another turn, as soon as a place is free."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """The same agent has another turn after `seconds`; nothing is held meanwhile."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Handoff:
    """Another agent has the next turn."""

    role: str
    reason: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ask:
    """One call that waits for a decision.

    `default` is decided when `expires` seconds have passed without an answer.
    """

    call_id: str
    payload: Any = None
    aliases: tuple[str, ...] = ()
    expires: float | None = None
    default_action: Literal["resume", "cancel"] = "cancel"
    default_payload: Any = None


@dataclass(frozen=True, slots=True)
class Suspend:
    """The run waits for decisions, holding no worker; the next turn sees them."""

    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """The run waits for sub-agents, holding no worker; the next turn sees how they ended.

    `run_ids` () is all there are.  Counted when the turn commits: `open`, how many ends it takes to wake the run, and
    `kept`, the inbox entries of ends that the next turn is to see again.  `tools` says of
    those that are calls of tools which ``tool``, and which ``role`` has it.
    """

    run_ids: tuple[str, ...] = ()
    until: Literal["all", "any"] = "all"
    expires: float | None = None
    open: int = 0
    kept: tuple[str, ...] = ()
    tools: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fail:
    """The run has failed for a reason that trying again does not mend."""

    error: str
    details: Any = None


Outcome: TypeAlias = Complete | Continue | Sleep | Handoff | Suspend | Join | Fail


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a suspended call."""

    decision_id: str
    call_id: str
    action: Literal["resume", "cancel"]
    payload: Any = None
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Handed:
    """The handoff that brought a run to this agent."""

    role: str
    reason: str
    context: Mapping[str, Any]


class Parked(BaseException):
    """The turn gives its place back and runs again, from its journal, when the wait is over.

    A `BaseException`, so that an author's ``except Exception`` does not swallow it.
    """

    def __init__(self, seconds: float, why: str) -> None:
        super().__init__(seconds, why)
        self.seconds, self.why = seconds, why


def parked_in(error: BaseException) -> Parked | None:
    """Give the park that an agent's end means: its own, or of those in a group of tasks the one that is over first.

    A group that holds another error besides is that error.
    """
    if isinstance(error, Parked):
        return error
    if not isinstance(error, BaseExceptionGroup) or error.split(Parked)[1] is not None:
        return None
    found = [one for nested in error.exceptions if (one := parked_in(nested)) is not None]
    return min(found, key=lambda one: one.seconds)


def alone(error: BaseException) -> BaseException:
    """Give the only error of a group of tasks, parks beside it left out; else the group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.split(Parked)[1] or error
        if len(error.exceptions) != 1:
            break
        error = error.exceptions[0]
    return error
