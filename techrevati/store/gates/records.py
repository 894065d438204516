"""What is said of a gate and answered, as records; microseconds, as in the scripts.

Ask ──Terms──▶ Call ──▶ Verdict │ Seen │ Declared │ Picture
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.store.errors import ScriptFault, UpgradeRequired
from techrevati.store.scripts import PROTOCOL

STATES = (CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN)
FOR_EVER = 10**15
"""Microseconds: 31 years."""
OK, FAIL, NONE = "ok", "fail", "none"


class Outdated(Exception):
    """The gate has another declaration than the call was made of; "" if it has none."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.version = version


@dataclass(slots=True)
class Seen:
    """The breaker as a script saw it."""

    now_us: int
    state: int
    generation: int
    left_us: int
    forced: int
    out_us: int = 0
    fresh: bool = True


@dataclass(slots=True)
class Verdict:
    """What a gate answers who asks to be let out; `wait_us` < 0: nobody knows."""

    admitted: bool
    booked: bool
    wait_us: int
    why: str
    probe: bool
    seen: Seen


@dataclass(slots=True, kw_only=True)
class Ask:
    """Who wants out, and for how long; microseconds."""

    call_id: str
    holder: str
    lease_us: int
    tenant: str = ""
    priority: int = 0
    max_wait_us: int = 0
    reach_us: int = 0
    booking: str = ""
    ear: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """A declaration: what it says, who made it, when."""

    text: str
    by: str
    at_us: int
    revision: int


@dataclass(frozen=True, slots=True)
class Declared:
    """The declaration that stands, and the one that stood when it was made."""

    taken: bool
    version: str
    epoch: int
    stands: Standing
    before: Standing | None
    seen: Seen


@dataclass(frozen=True, slots=True)
class Picture:
    """A gate at one moment, for whoever looks: levels are tokens, below zero promised already."""

    version: str
    epoch: int
    stands: Standing
    seen: Seen
    failures: int
    probes: int
    slots_used: int
    slot_limit: float
    openings: int
    in_line: int
    levels: Mapping[str, float]

    @property
    def state(self) -> CircuitState:
        return STATES[self.seen.state]


def code_of(reply: Sequence[Any], script: str) -> int:
    """Give a reply's code, or raise what a negative one means."""
    code = int(reply[0])
    if code == -10:
        raise UpgradeRequired(PROTOCOL, int(reply[2]))
    if code == -12:
        raise Outdated(str(reply[2]))
    if code == -13:
        raise Outdated("")
    if code < 0:
        raise ScriptFault(script, repr(reply))
    return code
