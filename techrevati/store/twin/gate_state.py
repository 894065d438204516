"""One gate in memory: what its hash and its four other keys hold, and the arithmetic of its buckets.

A bucket is one number: the time (ns since the gate's epoch) at which it was, or will be, empty.  So refill needs no
bookkeeping, a level below zero is a time ahead, and a start that is promised in the future is spent there.

Twin: ``lua/_gate.lua``.  Source of the arithmetic: ITU-T I.371, the generic cell rate algorithm.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Reply = list[Any]

S = 1_000_000
KEEP = 10 * S
"""A call that is settled is remembered at least so long: what is sent twice counts once."""
GRACE = 5 * S
"""A booking of no bucket is honoured while late by less."""
SWEPT, PROMOTED, REPORTERS, LOOKED = 128, 64, 128, 128
SWEEP_EVERY, LATENCY_MIN = 20_000, 10_000
PRIORITY = 30_000 * S
"""A step of priority is worth so long a wait (ns, as the line counts)."""
HOLD = 1 * S
"""A free slot is kept for so long for who was told to come."""
STEP = 30 * S
"""The same in the line for slots (us)."""
CLOSED, OPEN, HALF_OPEN = 0, 1, 2
FORCED_OPEN, DISABLED = 1, 2


class Refused(Exception):
    """The script answers this, and has changed nothing."""

    def __init__(self, code: int, *more: Any) -> None:
        super().__init__(code, *more)
        self.reply: Reply = [code, "", *more]


@dataclass(slots=True)
class Window:
    """Calls, failures and slow calls of this stretch of time, and of the one before."""

    epoch: int = 0
    calls: int = 0
    failed: int = 0
    slow: int = 0
    calls_before: int = 0
    failed_before: int = 0
    slow_before: int = 0


@dataclass(slots=True)
class Gate:
    """All that is known of one gate."""

    version: str = ""
    epoch: int = 0
    clock: int = 0
    minimum: int | None = None
    declared: dict[str, str] = field(default_factory=dict)
    rates: dict[str, tuple[float, int]] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)

    state: int = CLOSED
    generation: int = 0
    until: int = 0
    forced: int = 0
    opens: int = 0
    failures: int = 0
    run: int = 0
    probes: int = 0
    good: int = 0
    ramp_from: int = 0
    pace_at: int = 0
    window: Window = field(default_factory=Window)
    evidence: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    sick: int = 0

    used: int = 0
    limit: float = 0.0
    halved: int = 0
    latency: int = 0
    arrived: int = 0
    """When (us) the last one came to the line for slots; no two at once."""
    slots: dict[str, int] = field(default_factory=dict)
    """Who waits for a slot: booking -> rank."""

    calls: dict[str, str] = field(default_factory=dict)
    bookings: dict[str, str] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    lanes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each caller that takes one thing at a time: the number of its last, and until when that is remembered."""
    ends: dict[str, int] = field(default_factory=dict)
    due: int = 0
    line: dict[str, float] = field(default_factory=dict)
    virtual: float = 0.0
    tags: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)

    said: list[str] = field(default_factory=list)
    """What was published."""
    whispered: list[tuple[str, str]] = field(default_factory=list)
    """What was published to one process: its ear, and the words."""
    ears: frozenset[str] | None = None
    """Processes that listen; None: whoever asks does."""


@dataclass(slots=True)
class Part:
    """What a call wants of one bucket."""

    name: str
    each: float  # ns per token
    span: int  # ns to fill it
    amount: float

    @property
    def charge(self) -> int:
        """What it takes, in ns; rounded up, so many small ones never get more than one large one."""
        return math.ceil(self.amount * self.each)


def parts_of(flat: Sequence[str]) -> list[Part]:
    return [Part(flat[i], float(flat[i + 1]), int(flat[i + 2]), float(flat[i + 3])) for i in range(0, len(flat), 5)]


@dataclass(slots=True)
class Unit:
    """One script's view: the gate, what the caller speaks, the server's clock (us)."""

    gate: Gate
    protocol: int
    clock: int


def enter(u: Unit, version: str | None) -> tuple[Gate, int]:
    """Refuse an old caller and one that knows another declaration; read a clock that never falls."""
    g = u.gate
    if g.minimum is not None and u.protocol < g.minimum:
        raise Refused(-10, str(g.minimum))
    if version is not None and version != g.version:
        raise Refused(-12, g.version)
    return g, max(u.clock, g.clock)


# Buckets.


def empty_at(g: Gate, part: Part, at: int) -> int:
    """When the bucket was empty, as seen at `at` (ns): never longer ago than it takes to fill."""
    return max(g.levels[part.name], at - part.span)


def start_of(g: Gate, parts: Sequence[Part], at: int) -> int:
    """The first time (ns), not before `at`, at which every bucket holds what is wanted."""
    start = at
    for part in parts:
        if part.amount > 0:
            start = max(start, empty_at(g, part, at) + part.charge)
    return start


def spend(g: Gate, parts: Sequence[Part], at: int) -> None:
    for part in parts:
        if part.amount > 0:
            g.levels[part.name] = empty_at(g, part, at) + part.charge


def shift(g: Gate, part: Part, at: int, amount: float) -> None:
    """Give tokens back (no more than the bucket can hold), or take them, into debt if need be."""
    g.levels[part.name] = empty_at(g, part, at) - math.floor(amount * part.each)


# What ends by itself.


def ends_at(g: Gate, name: str, at: int) -> None:
    g.ends[name] = at
    if g.due == 0 or at < g.due:
        g.due = at


def sweep(g: Gate, now: int, give: Callable[[str, str], None]) -> bool:
    """Drop what is over: leases of calls and probes, bookings nobody came for, quarantines; a few at a time."""
    if g.due == 0 or now < g.due:
        return False
    over = sorted((at, name) for name, at in g.ends.items() if at <= now)[:SWEPT]
    for _, name in over:
        del g.ends[name]
        kind, key = name[0], name[2:]
        if kind == "c":
            record = g.calls.pop(key, "-")
            if record != "-":
                release(g, record)
        elif kind == "b":
            record = g.bookings.pop(key, "")
            if record:
                give(key, record)
        elif kind == "n":
            g.lanes.pop(key, None)
        else:
            g.quarantined.pop(key, None)
    if len(over) == SWEPT:
        g.due = now
    else:
        g.due = max(min(g.ends.values()), now + SWEEP_EVERY) if g.ends else 0
    return True


def release(g: Gate, record: str) -> int:
    """Free the slot and the probe permit of a call; give the time it was let out."""
    probe, slot, at, generation, _ = record.split(":")
    if slot == "1":
        g.used = max(0, g.used - 1)
    if probe == "1" and int(generation) == g.generation:
        g.probes = max(0, g.probes - 1)
    return int(at)


# Costs of bookings.


def costs_text(parts: Sequence[Part]) -> str:
    return ",".join(f"{part.name}={part.amount:.17g}" for part in parts if part.amount > 0)


def costs_of(record: str, parts: Sequence[Part]) -> list[Part]:
    """What a booking was made for, at today's rates."""
    made = dict(pair.split("=") for pair in record.split(" ")[2].split(",") if pair)
    return [Part(part.name, part.each, part.span, float(made.get(part.name, 0))) for part in parts]


def grace_of(parts: Sequence[Part]) -> int:
    """How late a booking may be: what was kept for it could have been kept no longer."""
    spans = [part.span for part in parts if part.amount > 0]
    return math.ceil(min(spans) / 1000) if spans else GRACE
