"""Bookings: places that a gate keeps for callers who come back, and the line of those too far ahead for a promise.

    "f T costs" promised for T ── "l tag costs" in line ── "o T" behind a breaker ── "s", "g", "w" for a slot

Twin: ``lua/_gate.lua``, ``lua/_line.lua``.
"""

import math
from collections.abc import Sequence
from typing import Any

from techrevati.store.twin.gate_state import (
    GRACE,
    PRIORITY,
    PROMOTED,
    Gate,
    Part,
    Reply,
    costs_of,
    costs_text,
    empty_at,
    ends_at,
    grace_of,
    shift,
    spend,
    start_of,
)


def give_back(g: Gate, now: int, parts: Sequence[Part], key: str, record: str) -> None:
    """Take a booking away: what it kept flows back, up to what the bucket could still hold."""
    if record[0] == "s":
        del g.slots[key]
    if record[0] == "g":
        g.used = max(0, g.used - 1)
    if record[0] in "fg":
        for part in costs_of(record, parts):
            if part.amount > 0:
                shift(g, part, (now - g.epoch) * 1000, part.amount)
    elif record[0] == "l" and key in g.line:
        leave_line(g, key, costs_of(record, parts))


def leave_line(g: Gate, key: str, costs: Sequence[Part]) -> None:
    del g.line[key]
    for part in costs:
        if part.amount > 0:
            g.sums[part.name] = g.sums.get(part.name, 0.0) - part.amount
    if not g.line:
        g.virtual = 0.0
        g.tags.clear()
        g.sums.clear()


def drop(g: Gate, key: str) -> None:
    g.bookings.pop(key, None)
    g.ends.pop(f"b:{key}", None)


def book(g: Gate, key: str, record: str, until: int) -> None:
    g.bookings[key] = record
    ends_at(g, f"b:{key}", until)


def was_not_there(g: Gate, now: int, key: str, costs: str, rank: int) -> None:
    """Who is not there when it is its turn keeps its rank for a while, and holds up nobody."""
    book(g, key, f"w {now} {costs} {rank}", now + GRACE)


def over(g: Gate, now: int, parts: Sequence[Part], key: str, record: str) -> None:
    """A booking's time is over: nobody came."""
    give_back(g, now, parts, key, record)
    if record[0] == "g":
        _, _, costs, rank = record.split(" ")
        was_not_there(g, now, key, costs, int(rank))


def promote(g: Gate, now: int, parts: Sequence[Part], horizon: float) -> None:
    """Promise a time to those at the head of the line whose start is near."""
    for key, _ in sorted(g.line.items(), key=lambda entry: (entry[1], entry[0].encode()))[:PROMOTED]:
        record = g.bookings[key]
        costs = costs_of(record, parts)
        at = math.ceil(start_of(g, costs, (now - g.epoch) * 1000) / 1000)
        if at - (now - g.epoch) > horizon:
            return
        spend(g, costs, at * 1000)
        g.virtual = max(g.virtual, float(record.split(" ")[1]))
        leave_line(g, key, costs)
        book(g, key, f"f {g.epoch + at} {costs_text(costs)}", g.epoch + at + grace_of(costs))


def estimate(g: Gate, now: int, parts: Sequence[Part], ahead: int) -> int:
    """How long (us) the line ahead may take, by what those in it cost on average."""
    zero, start = (now - g.epoch) * 1000, 0.0
    for part in parts:
        if part.amount > 0:
            mean = g.sums.get(part.name, 0.0) / len(g.line) if g.line else 0.0
            start = max(start, empty_at(g, part, zero) + (ahead * mean + part.amount) * part.each - zero)
    return max(1, math.ceil(start / 1000))


def stand(
    g: Gate,
    now: int,
    parts: Sequence[Part],
    booking: str,
    tenant: str,
    weight: float,
    priority: int,
    reach: int,
    record: str,
    answer: Any,
) -> Reply:
    """Stand in line: by share of the tenant, then priority, then who came first.

    Source: P. Goyal, H. Vin, H. Cheng, "Start-time fair queuing", 1996.
    """
    if record[:1] == "l":
        ahead = sum(rank <= g.line[booking] for rank in g.line.values()) - 1
        wait = estimate(g, now, parts, ahead)
        ends_at(g, f"b:{booking}", now + wait + grace_of(parts))
        return answer(2, wait, "rate")  # type: ignore[no-any-return]
    tag = max(g.virtual, g.tags.get(tenant, 0.0))
    rank = tag - priority * PRIORITY
    wait = estimate(g, now, parts, sum(other <= rank for other in g.line.values()))
    if booking == "" or wait > reach:
        return answer(0, wait, "rate")  # type: ignore[no-any-return]
    g.tags[tenant] = tag + max(part.amount * part.each for part in parts) / weight
    g.line[booking] = rank
    for part in parts:
        if part.amount > 0:
            g.sums[part.name] = g.sums.get(part.name, 0.0) + part.amount
    book(g, booking, f"l {tag:.17g} {costs_text(parts)}", now + wait + grace_of(parts))
    return answer(2, wait, "rate")  # type: ignore[no-any-return]
