"""What an operator sees of the fleet's gates.

gates:{fleet} ──names──▶ gate_look of each ──▶ GateLine
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from techrevati.store.calls import Call
from techrevati.store.gates import GateSpec, Picture
from techrevati.store.gates.calls import look
from techrevati.store.gates.keys import GateKeys
from techrevati.store.gates.view import FORCED


@dataclass(frozen=True, slots=True)
class GateLine:
    """One gate at one moment.

    `levels` are tokens, below zero where they are promised already; `wait` (s) is what an open breaker still has.
    """

    name: str
    state: str
    forced: str
    wait: float
    failures: int
    openings: int
    slots_used: int
    slots: float | None
    in_line: int
    levels: Mapping[str, float]
    capacities: Mapping[str, float]
    declared_by: str


def gates_key(fleet: str) -> str:
    """Set: the gates that workers of the fleet have declared."""
    return f"gates:{{{fleet}}}"


def look_calls(fleet: str, names: Iterable[str]) -> list[tuple[str, Call[Picture]]]:
    """Build the looks at gates, by name."""
    return [(name, look(GateKeys(fleet, name), GateSpec(name=name))) for name in sorted(names)]


def line_of(name: str, picture: Picture) -> GateLine:
    """Give a gate as an operator sees it."""
    stands = GateSpec(name=name).adopt(picture.stands.text, picture.stands.revision)
    return GateLine(
        name=name,
        state=picture.state.value,
        forced=FORCED[picture.seen.forced],
        wait=picture.seen.left_us / 1e6,
        failures=picture.failures,
        openings=picture.openings,
        slots_used=picture.slots_used,
        slots=None if stands.slots is None else (picture.slot_limit or float(stands.slots.most)),
        in_line=picture.in_line,
        levels=picture.levels,
        capacities={bucket.name: bucket.capacity for bucket in stands.buckets},
        declared_by=picture.stands.by,
    )


def unasked(name: str) -> GateLine:
    """Give a gate that is declared, and that nobody has asked yet."""
    return GateLine(name, "closed", "", 0.0, 0, 0, 0, None, 0, {}, {}, "")
