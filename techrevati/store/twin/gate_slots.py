"""Slots: who waits for one, in what order, and who is let out when one is free.

    "s told costs here rank lease ear call"  waits: it listens at `ear` until `here`, or comes at `told`
    "g until costs rank"                     was told to come now: one is kept for it
    "w since costs rank"                     was not there when it was its turn; it keeps its rank for a while

A free slot goes to the head of the line: to a process that listens, by a message, and its call is under way from then.

Twin: ``lua/_slots.lua``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from techrevati.store.twin.gate_bookings import book, drop, was_not_there
from techrevati.store.twin.gate_state import (
    CLOSED,
    DISABLED,
    GRACE,
    HOLD,
    LATENCY_MIN,
    LOOKED,
    STEP,
    Gate,
    Part,
    S,
    costs_of,
    ends_at,
    spend,
    start_of,
)


@dataclass(slots=True)
class Waiter:
    """A place in the line for slots."""

    told: int  # us: when it comes by itself; 0: it only listens
    costs: str
    here: int  # us: until when it listens
    rank: int
    lease: int  # us
    ear: str
    call_id: str

    @classmethod
    def of(cls, record: str) -> "Waiter":
        _, told, costs, here, rank, lease, ear, call_id = record.split(" ", 7)
        return cls(int(told), costs, int(here), int(rank), int(lease), ear, call_id)

    def __str__(self) -> str:
        return f"s {self.told} {self.costs} {self.here} {self.rank} {self.lease} {self.ear} {self.call_id}"


def top_of(g: Gate, slots: int) -> int:
    return math.floor(min(g.limit if g.limit > 0 else slots, slots))


def is_serving(g: Gate) -> bool:
    return g.forced == DISABLED or (g.state == CLOSED and g.forced == 0)


def is_paced(g: Gate, now: int, ramp: int) -> bool:
    """Whether calls are let out one by one: behind a Retry-After, or while the ramp lasts."""
    return g.pace_at > now or (ramp > 0 and g.ramp_from > 0 and now < g.ramp_from + ramp)


def whisper(g: Gate, ear: str, text: str) -> bool:
    """Tell one process; give whether it listens."""
    g.whispered.append((ear, text))
    return g.ears is None or ear in g.ears


def hand_over(g: Gate, now: int, parts: Sequence[Part], top: int, me: str, paced: bool) -> tuple[int | None, bool]:
    """Let those at the head of the line out while slots are free, up to `me`, who asks now.

    Returns:
        The time `me` may start, None if it is not its turn; whether the one at the head still waits for tokens.
    """
    if g.used >= top or not is_serving(g):
        return None, False
    zero = (now - g.epoch) * 1000
    for key, _ in sorted(g.slots.items(), key=lambda entry: (entry[1], entry[0].encode()))[:LOOKED]:
        if g.used >= top:
            return None, False
        one = Waiter.of(g.bookings[key])
        costs = costs_of(g.bookings[key], parts)
        start = max(g.pace_at if paced else now, now + math.ceil((start_of(g, costs, zero) - zero) / 1000))
        if key == me:
            return start, False
        listens = one.here > now
        if not listens and not (one.told > 0 and now - GRACE <= one.told <= now + HOLD):
            continue
        if start > now or paced:  # it has to ask for its tokens, or its turn in the ramp
            if listens and (one.told == 0 or one.told > start or one.told < now - HOLD):
                one.told = start
                g.bookings[key] = str(one)
                whisper(g, one.ear, f"t {now} {start - now} {one.call_id}")
            return None, True
        del g.slots[key]
        if not listens:  # it was told to come now: one is kept for it
            g.used += 1
            spend(g, costs, zero)
            until = max(one.told, now) + HOLD
            book(g, key, f"g {until} {one.costs} {one.rank}", until)
        elif whisper(g, one.ear, f"o {now} {g.generation} {one.call_id}"):
            g.used += 1
            spend(g, costs, zero)
            drop(g, key)
            g.calls[one.call_id] = f"0:1:{now}:{g.generation}:{now + one.lease}"
            ends_at(g, f"c:{one.call_id}", now + one.lease)
        else:
            was_not_there(g, now, key, one.costs, one.rank)
    return None, False


@dataclass(frozen=True, slots=True)
class Asks:
    """Who asks for a slot, and how."""

    booking: str
    place: Waiter
    priority: int
    reach: int
    top: int
    paced: bool
    start: int  # us: when its tokens are there, and its turn in the ramp
    why: str


def stand_for_slot(
    g: Gate, now: int, parts: Sequence[Part], asks: Asks, was_in: bool, fresh: bool
) -> tuple[int, int, str]:
    """Take a place in the line, or keep it, and serve those before it; the code is 1 if it is its turn."""
    booking, place, top = asks.booking, asks.place, asks.top
    latency = max(g.latency, LATENCY_MIN) if g.latency > 0 else S
    each = latency / max(top, 1)
    if not is_serving(g) or booking == "":  # half-open: it comes again, with its turn behind the breaker
        _, others = hand_over(g, now, parts, top, "", asks.paced)
        wait = math.ceil(each * (len(g.slots) + 1))
        if booking == "" and g.used < top and not others and is_serving(g):
            return (1, 0, "") if asks.start <= now else (0, asks.start - now, asks.why)
        if booking == "" or wait > asks.reach:
            return 0, wait, "slots"
        book(g, booking, f"o {now + wait}", now + wait + GRACE)
        return 2, wait, "slots"
    at = max(now, g.arrived + 1)
    if fresh:
        place.rank = at - asks.priority * STEP
    wait = math.ceil(each * (sum(rank < place.rank for rank in g.slots.values()) + 1))
    if not was_in:
        if fresh and g.latency > 0 and wait > asks.reach:
            return 0, wait, "slots"
        if fresh:
            g.arrived = at
    g.slots[booking] = place.rank
    g.bookings[booking] = str(place)
    mine, _ = hand_over(g, now, parts, top, booking, asks.paced)
    if mine is not None and mine <= now:
        del g.slots[booking]
        drop(g, booking)
        return 1, 0, ""
    told = now + wait if mine is None else mine
    if mine is None and booking != place.call_id:
        told = max(told, place.here)
    if mine is not None or booking != place.call_id or place.here == 0:
        place.told = told
    book(g, booking, str(place), max(told, place.here) + GRACE)
    return 2, told - now, "slots" if mine is None else asks.why
