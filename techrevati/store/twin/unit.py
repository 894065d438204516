"""A script's unit of work: the partition, the time, and what is said when it is over.

Twin: ``lua/_unit.lua``.  There records are loaded and written back; here they are simply at hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from techrevati.store.twin.records import Event, Partition, Role, Run, Thread

S = 1_000_000
CLOCK_STEP = 10_000
"""The clock is written when it moved by this much: it may be behind by it after a failover."""

Reply = list[Any]


class Refused(Exception):
    """The script answers this, and has changed nothing."""

    def __init__(self, code: int, *more: Any) -> None:
        super().__init__(code, *more)
        self.reply: Reply = [code, [], *more]


class Malformed(Exception):
    """The script raises an error, before it has written anything."""


@dataclass(slots=True)
class Unit:
    """One script's view of a partition."""

    p: Partition
    now: int
    wanted: list[str] = field(default_factory=list)
    stops: int = 0

    def known(self, run_id: str) -> Run:
        """Give a run that was asked for by name."""
        run = self.p.runs.get(run_id)
        if run is None:
            raise Refused(-4)
        return run

    def held(self, run_id: str, token: str) -> Run:
        """Give a run whose lease the caller holds; an expired one is held until another claims it."""
        run = self.known(run_id)
        if token == "" or run.token != token:
            raise Refused(-1, run.token)
        return run

    def thread(self, run: Run) -> Thread:
        return self.p.threads[run.owner]

    def role(self, name: str) -> Role:
        return self.p.roles.setdefault(name, Role(name, known=True))

    def weight(self, tenant: str) -> float:
        return self.p.weights.get(tenant, 1.0)

    def event(self, run: Run, by: str, kind: str, **fields: str | int) -> None:
        """Append one durable event: numbers are dense, and only a script that moves the run appends."""
        run.seq += 1
        said = {name.rstrip("_"): str(value) for name, value in fields.items()}
        run.events.append(Event(run.seq, kind, by, {"at": str(self.now), **said}))

    def reply(self, code: int, *more: Any) -> Reply:
        return [code, self.wanted, *more]


def enter(p: Partition, protocol: int, now: int) -> Unit:
    """Refuse an old caller; read a clock that never falls."""
    if p.minimum is not None and protocol < p.minimum:
        raise Refused(-10, str(p.minimum))
    unit = Unit(p, max(now, p.clock))
    if unit.now >= p.clock + CLOCK_STEP:
        p.clock = unit.now
    return unit


def when(text: str, now: int) -> int | None:
    """Read "+us" from now, "=us" absolute, "" none."""
    if text.startswith("+"):
        return now + int(text[1:])
    return int(text[1:]) if text.startswith("=") else None


def by_of(token: str) -> str:
    """Give the end of a claim's id: enough to tell who wrote an event."""
    return token[-8:]


def pairs(flat: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
