"""How a step ends, and what the driver does next."""

from dataclasses import dataclass
from typing import TypeAlias

from techrevati.agent.endings import TerminationReason
from techrevati.agent.loop.checkpoint import Checkpoint
from techrevati.agent.suspension import SuspendedCall


@dataclass(frozen=True, slots=True)
class Continue:
    """Take another step from `checkpoint`."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Suspended:
    """Wait for an answer to one of `calls`, or for what is at work outside.

    Attributes:
        calls: The calls nobody has decided.
        parked: The run goes on under its own id once one is decided; False: it has ended as ``suspended``,
            and a decision starts another run on the thread.
        expires_at: Unix ms at which the next default decision is due; None = never.
        outside: Bodies of calls are at work outside (`Elsewhere`); the next step asks for them again.
    """

    checkpoint: Checkpoint
    calls: tuple[SuspendedCall, ...]
    parked: bool
    expires_at: int | None = None
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is over.  `response` is the text of a natural end, None if there is none."""

    checkpoint: Checkpoint
    reason: TerminationReason
    response: str | None = None


StepOutcome: TypeAlias = Continue | Suspended | Finished
