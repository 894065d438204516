"""What a fleet knows of itself in Redis: its numbers, its agents, its live pools.

meta:{fleet}   partitions, protocol          pinned by whoever comes first
roles:{fleet}  agent -> card                 written by every process that declares agents
pool:{t}:role  worker -> places, expiry      written with each heartbeat
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from techrevati.fleet.cards import Card
from techrevati.runtime.errors import TechrevatiError
from techrevati.store.calls import Arg
from techrevati.store.errors import FleetMismatch, UpgradeRequired
from techrevati.store.keys import PartitionKeys, meta_key, roles_key
from techrevati.store.scripts import PROTOCOL

Command = tuple[Arg, ...]


class UnknownRole(TechrevatiError):
    """No process of the fleet has declared the agent."""

    def __init__(self, name: str, fleet: str, known: Sequence[str]) -> None:
        super().__init__(name, fleet, list(known))
        self.name, self.fleet, self.known = name, fleet, list(known)

    def __str__(self) -> str:
        if not self.known:
            return (
                f"role {self.name!r} is unknown: fleet {self.fleet!r} has declared none yet; "
                "fix: start its workers, or check the fleet's name"
            )
        return f"role {self.name!r} is unknown in fleet {self.fleet!r}; it has: {', '.join(sorted(self.known))}"


def opening(fleet: str, partitions: int) -> list[Command]:
    """Build the commands that pin or read a fleet's numbers."""
    meta = meta_key(fleet)
    return [
        ("HSETNX", meta, "partitions", partitions),
        ("HSETNX", meta, "protocol", PROTOCOL),
        ("HMGET", meta, "partitions", "protocol"),
    ]


def opened(fleet: str, replies: Sequence[Any], given: int, *, pinned: bool) -> int:
    """Read the answer to `opening`: the number of partitions.

    `pinned` says that `given` was set on purpose, not the default.

    Raises:
        FleetMismatch: the fleet was made with another number of partitions.
        UpgradeRequired: the fleet's minimal protocol is above ours.
    """
    stored, minimum = int(replies[2][0]), int(replies[2][1])
    if pinned and stored != given:
        raise FleetMismatch(fleet, "partitions", stored, given)
    if minimum > PROTOCOL:
        raise UpgradeRequired(PROTOCOL, minimum)
    return stored


def declare(fleet: str, cards: Iterable[Card]) -> list[Command]:
    """Build the command that tells the fleet about agents."""
    fields: list[Arg] = []
    for card in cards:
        fields += (card.name, card.to_json())
    return [("HSET", roles_key(fleet), *fields)] if fields else []


def cards_of(reply: Sequence[str] | Mapping[str, str]) -> dict[str, Card]:
    """Read ``HGETALL roles:{fleet}``."""
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    return {name: Card.from_json(name, text) for name, text in pairs}


def workers_key(fleet: str) -> str:
    """Hash: worker -> JSON of its role, places, protocol, and until when its word holds."""
    return f"workers:{{{fleet}}}"


def live_places(entries: Mapping[str, str], now_us: int) -> dict[str, int]:
    """Read a pool's hash: live worker -> places."""
    found = {}
    for worker, text in entries.items():
        places, _, expires = text.partition(":")
        if int(expires) > now_us:
            found[worker] = int(places)
    return found


def partitions_of(fleet: str, count: int) -> list[PartitionKeys]:
    return [PartitionKeys(fleet, number) for number in range(count)]
