"""Where a handoff goes: a pure decision, acted on by the coordinator.

run at its hop + agents declared + pools alive ──decide──▶ Place | Wait | Refuse
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from techrevati.fleet.cards import Card


@dataclass(frozen=True, slots=True)
class Standing:
    """A handoff as the coordinator finds it; `trail` are the agents that had the run, the source last."""

    run_id: str
    source: str
    target: str
    hops: int
    trail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HopLimits:
    hops: int = 50
    ping_pong: int = 20
    look_again: float = 1.0
    """Seconds between two looks at a pool that has no worker."""


@dataclass(frozen=True, slots=True)
class Place:
    agent: str
    role: str


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    type: str
    message: str


Decision: TypeAlias = Place | Wait | Refuse


def returns_in_a_row(trail: Sequence[str], target: str) -> int:
    """Count how often the run has gone straight back and forth between its last two agents."""
    way = [*trail, target]
    count = 0
    while len(way) - count >= 3 and way[-1 - count] == way[-3 - count]:
        count += 1
    return count


def decide(
    standing: Standing, cards: Mapping[str, Card], places: Mapping[str, int], limits: HopLimits = HopLimits()
) -> Decision:
    """Decide what becomes of a handoff.

    `places` holds the live places of each role's pool.
    """
    source, target = cards.get(standing.source), cards.get(standing.target)
    if target is None and source is not None and standing.target in source.handoffs:
        # Its declaration says that there will be one: in a roll-out the pools come up in any order.
        return Wait(limits.look_again, f"no worker has declared agent {standing.target!r} yet")
    if target is None:
        return Refuse(
            "UnknownRole",
            f"{standing.source} handed off to {standing.target!r}, which the fleet has not declared; "
            f"it has: {', '.join(sorted(cards))}",
        )
    if source is not None and standing.target not in source.handoffs:
        allowed = ", ".join(source.handoffs) or "nobody"
        return Refuse(
            "HandoffRefused",
            f"{standing.source} may hand off to {allowed}, not to {standing.target!r}; "
            f"fix: fleet.agent({standing.source!r}, handoffs=({standing.target!r}, …))",
        )
    if standing.hops > limits.hops:
        return Refuse("HopLimit", f"the run was handed off {standing.hops} times; the limit is {limits.hops}")
    if returns_in_a_row(standing.trail, standing.target) > limits.ping_pong:
        return Refuse(
            "PingPong",
            f"{standing.source} and {standing.target} handed the run back and forth more than "
            f"{limits.ping_pong} times in a row",
        )
    if places.get(target.role, 0) > 0:
        return Place(target.name, target.role)
    fallback = cards.get(target.fallback) if target.fallback else None
    if fallback is not None and places.get(fallback.role, 0) > 0:
        return Place(fallback.name, fallback.role)
    return Wait(limits.look_again, f"no live worker in pool {target.role!r}")
