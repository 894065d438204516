"""What is known of a watched run at one moment: a row per role, and how the run moves between them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class RoleState(StrEnum):
    """What a role is doing for this run."""

    IDLE = "idle"
    QUEUED = "queued"  # its turn waits for a worker
    WORKING = "working"
    WAITING = "waiting"  # backoff, timer, booking or a decision
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RoleView:
    """One role's row; the counts are sums over the run."""

    role: str
    state: RoleState = RoleState.IDLE
    why: str = ""  # of QUEUED after a fault, WAITING and FAILED
    until: float | None = None  # epoch s; when the wait ends, if that is known
    worker: str = ""
    turn: int = 0
    attempt: int = 0  # at this turn, 1 = the first
    faults: int = 0  # of this turn: failed attempts and lost workers
    since: float | None = None  # epoch s; start of the turn that is under way
    model: str = ""  # the gate it last went through
    turns: int = 0
    handoffs: int = 0  # away from it
    retries: int = 0  # failed attempts and lost workers
    lost: int = 0  # of these, lost workers
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    seconds: float = 0.0  # of committed turns


@dataclass(frozen=True, slots=True)
class Handoff:
    """A run on its way from one role to another."""

    source: str
    target: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """What the run itself reports through ``turn.emit("progress", …)``."""

    done: float
    total: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class ProgressState:
    """Everything the view of one run shows."""

    run_id: str = ""
    status: str = "starting"
    role: str = ""  # whose turn it is
    roles: tuple[RoleView, ...] = ()
    gates: Mapping[str, str] = field(default_factory=dict)  # model or service -> breaker state
    trail: tuple[str, ...] = ()  # roles, in the order in which they held the run
    moving: Handoff | None = None  # requested, not yet placed
    moved: Handoff | None = None  # the last one placed
    progress: Progress | None = None
    text: str = ""  # streamed in the current turn, its end
    error: str = ""
    started_at: float | None = None  # epoch s
    ended_at: float | None = None
    seq: int = 0
    last_id: str = ""

    @property
    def is_over(self) -> bool:
        return self.ended_at is not None

    def view_of(self, role: str) -> RoleView:
        return next((view for view in self.roles if view.role == role), RoleView(role))


def begin(roles: Iterable[str] = ()) -> ProgressState:
    """Give the state before the first event; the roles named here have a row from the start."""
    return ProgressState(roles=tuple(RoleView(role) for role in roles))
