"""The end of a call, and of a booking.

Twin: ``lua/gate_settle.lua``, ``lua/gate_cancel.lua``.
"""

import math

from techrevati.store.twin.gate_bookings import drop, give_back, over
from techrevati.store.twin.gate_breaker import Rule, judge, left
from techrevati.store.twin.gate_slots import hand_over, is_paced, top_of
from techrevati.store.twin.gate_state import KEEP, Gate, Reply, Unit, ends_at, enter, parts_of, release, shift, sweep


def gate_settle(
    u: Unit,
    version: str,
    epoch_: str,
    call_id: str,
    holder: str,
    generation: str,
    outcome: str,
    slow_: str,
    overload: str,
    latency_: str,
    slots_: str,
    least_: str,
    step_: str,
    mode: str,
    threshold: str,
    window: str,
    min_calls: str,
    slow_rate: str,
    reporters: str,
    sick: str,
    cooldown: str,
    factor: str,
    cooldown_max: str,
    enough: str,
    ramp_: str,
    *buckets: str,
) -> Reply:
    """Take a call's end: refund or debt, the slot, the evidence.  Once per call."""
    g, now = enter(u, version)
    parts, zero = parts_of(buckets), (now - int(epoch_)) * 1000
    ramp, slots, step = int(ramp_), int(slots_), float(step_)

    def answer(code: int) -> Reply:
        paced = g.pace_at > now or (ramp > 0 and g.ramp_from > 0 and now < g.ramp_from + ramp)
        hand_over(g, now, parts, top_of(g, slots), "", paced)
        g.clock = now
        out = max(0, g.quarantined.get(holder, 0) - now)
        return [code, "", now, g.state, g.generation, left(g, now, ramp), g.forced, out]

    sweep(g, now, lambda key, record: over(g, now, parts, key, record))
    record = g.calls.get(call_id)
    if record == "-":
        return answer(0)
    for part in parts:
        # Of a call that is not known any more, nothing flows back; what it owes is owed.
        if part.amount < 0 or (part.amount > 0 and record is not None):
            shift(g, part, zero, part.amount)
    if record is not None:
        busy = g.used
        let_out = release(g, record)
        if slots > 0 and step > 0:
            _adapt(g, now, slots, float(least_), step, let_out, busy, outcome, slow_ == "1", overload == "1")
    latency = int(latency_)
    if latency > 0:
        g.latency = latency if g.latency == 0 else g.latency + math.floor(0.2 * (latency - g.latency))
    g.calls[call_id] = "-"
    if g.ends.get(f"c:{call_id}", 0) < now + KEEP:  # remembered until its lease would have ended, or longer
        ends_at(g, f"c:{call_id}", now + KEEP)
    by_hand = generation == ""
    if int(mode) > 0 and outcome != "none" and g.forced == 0 and (by_hand or int(generation) == g.generation):
        rule = Rule(
            int(mode),
            float(threshold),
            int(window),
            int(min_calls),
            float(slow_rate),
            int(reporters),
            int(sick),
            float(cooldown),
            float(factor),
            float(cooldown_max),
            int(enough),
            ramp,
        )
        judge(g, now, rule, holder, outcome == "fail", slow_ == "1", by_hand)
    return answer(1)


def _adapt(
    g: Gate,
    now: int,
    slots: int,
    least: float,
    step: float,
    let_out: int,
    busy: int,
    outcome: str,
    slow: bool,
    overload: bool,
) -> None:
    """One more per round of good calls; half of it on overload, once per round trip."""
    limit = min(g.limit, float(slots)) if g.limit > 0 else float(slots)
    if overload or slow:
        if let_out >= g.halved:
            g.limit, g.halved = max(least, limit / 2), now
    elif outcome == "ok" and busy * 2 >= limit:
        g.limit = min(float(slots), limit + step / limit)


def gate_cancel(u: Unit, version: str, epoch_: str, booking: str, slots: str, ramp: str, *buckets: str) -> Reply:
    """Give a booking back."""
    g, now = enter(u, version)
    record = g.bookings.get(booking)
    if record is None:
        return [0, "", now]
    parts = parts_of(buckets)
    give_back(g, now, parts, booking, record)
    drop(g, booking)
    hand_over(g, now, parts, top_of(g, int(slots)), "", is_paced(g, now, int(ramp)))
    g.clock = now
    return [1, "", now]
