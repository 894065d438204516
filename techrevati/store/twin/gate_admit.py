"""Who is let out of a gate now, who is promised a time, who is refused.

Twin: ``lua/gate_admit.lua``.
"""

import math

from techrevati.store.twin.gate_bookings import book, drop, give_back, over, promote, stand
from techrevati.store.twin.gate_breaker import half_open, left
from techrevati.store.twin.gate_slots import Asks, Waiter, hand_over, is_serving, stand_for_slot, top_of
from techrevati.store.twin.gate_state import (
    CLOSED,
    FORCED_OPEN,
    HALF_OPEN,
    OPEN,
    Reply,
    Unit,
    costs_of,
    costs_text,
    ends_at,
    enter,
    grace_of,
    parts_of,
    shift,
    spend,
    start_of,
    sweep,
)


def gate_admit(
    u: Unit,
    version: str,
    epoch_: str,
    call_id: str,
    holder: str,
    tenant: str,
    priority_: str,
    weight_: str,
    lease_: str,
    max_wait_: str,
    reach_: str,
    booking: str,
    horizon_: str,
    slots_: str,
    permits_: str,
    pace_: str,
    stage_: str,
    stages_: str,
    ear: str,
    *buckets: str,
) -> Reply:
    """Let a call out now, promise it a time, or refuse it; all parts together."""
    g, now = enter(u, version)
    lease, max_wait, reach, horizon = int(lease_), int(max_wait_), int(reach_), float(horizon_)
    slots, permits, pace, stage = int(slots_), int(permits_), int(pace_), int(stage_)
    stages = [int(one) for one in stages_.split()]
    ramp = stage * len(stages)
    parts, epoch = parts_of(buckets), int(epoch_)
    zero = (now - epoch) * 1000

    def answer(code: int, wait: int, why: str, probe: int = 0) -> Reply:
        g.clock = now
        return [code, "", wait, why, probe, now, g.state, g.generation, left(g, now, ramp), g.forced]

    def pace_of(at: int, origin: int) -> int:
        """The ramp's pace (us per call) at a time, 0 where there is none."""
        n = (at - origin) // stage if stages and origin > 0 else -1
        return stages[n] if 0 <= n < len(stages) else 0

    top = top_of(g, slots)
    step = pace_of(now, g.ramp_from) if g.state == CLOSED else 0
    if sweep(g, now, lambda key, record: over(g, now, parts, key, record)):
        hand_over(g, now, parts, top, booking, step > 0 or g.pace_at > now)
    known = g.calls.get(call_id)
    if known is not None:
        flag, _, let_out, *_ = ("0", "0", str(now)) if known == "-" else known.split(":")
        return answer(1, max(0, int(let_out) - now), "", int(flag))
    if g.quarantined.get(holder, 0) > now:
        return answer(0, g.quarantined[holder] - now, "quarantined")
    if g.forced == FORCED_OPEN:
        return answer(0, -1, "forced")

    # A booking: is it due, late, or still ahead?
    paid, start = "", now
    wants = any(part.amount > 0 for part in parts)
    record = g.bookings.get(booking, "")
    if record[:1] == "l":
        promote(g, now, parts, horizon)
        record = g.bookings[booking]
    if record[:1] == "l" and not wants:
        give_back(g, now, parts, booking, record)
        drop(g, booking)
        record = ""
    told, rank = 0, None
    if record and record[0] != "l":
        kind, told = record[0], int(record.split(" ")[1])
        costs = costs_of(record, parts) if kind == "f" else []
        if kind in "sgw":
            paid = kind
            rank = Waiter.of(record).rank if kind == "s" else int(record.split(" ")[3])
        elif now < told:
            if kind == "f" and slots == 0 and told - now <= max_wait and (permits == 0 or g.state == CLOSED):
                paid, start = kind, told
            else:
                return answer(2, told - now, "rate" if kind == "f" else "breaker")
        elif now - told > grace_of(costs):
            give_back(g, now, parts, booking, record)
            drop(g, booking)
            record = ""
        else:
            paid = kind

    probe = 0
    if permits > 0 and g.forced == 0 and g.state != CLOSED:
        if g.state == OPEN and now >= g.until:
            half_open(g, now, ramp)
        behind = g.until if g.state == OPEN else 0
        if g.state == HALF_OPEN:
            if g.probes < permits:
                probe = 1
            else:
                behind = now + pace
        if behind:
            if record:
                give_back(g, now, parts, booking, record)
                drop(g, booking)
            at = max(g.pace_at, behind)
            # Who waits in the process books under its call's own id, and does not wait for a breaker.
            if booking not in ("", call_id) and at - now <= reach:
                g.pace_at = at + (pace_of(at, behind) or pace)
                book(g, booking, f"o {at}", at + grace_of([]))
                return answer(2, at - now, "breaker")
            return answer(0, at - now, "breaker")

    why = "rate"
    step = pace_of(now, g.ramp_from) if g.state == CLOSED else 0
    paced = paid in ("", "s", "w") and probe == 0 and (step > 0 or g.pace_at > now)
    if paced and g.pace_at > start:
        start, why = g.pace_at, "ramp"
    # Who has a place behind others waits for its tokens there, too.
    stands = slots > 0 and probe == 0 and paid != "g" and (len(g.slots) > 0 or rank is not None) and is_serving(g)
    if paid == "s" and not stands:
        give_back(g, now, parts, booking, record)
        drop(g, booking)
        record = paid = ""
    if paid not in ("f", "g"):
        if g.line and record[:1] != "l":
            promote(g, now, parts, horizon)
        start = max(start, now + math.ceil((start_of(g, parts, zero) - zero) / 1000))
    if paid not in ("f", "g") and not stands:
        if wants and (g.line or start - now > horizon):
            return stand(g, now, parts, booking, tenant, float(weight_), int(priority_), reach, record, answer)
        wait = start - now
        if wait > 0 and (slots > 0 or wait > max_wait):
            if booking == "" or wait > reach:
                return answer(0, wait, why)
            spend(g, parts, (start - epoch) * 1000)
            if paced:
                g.pace_at = start + (step or pace)
            book(g, booking, f"f {start} {costs_text(parts)}", start + grace_of(parts))
            return answer(2, wait, why)

    if slots > 0 and paid != "g":
        if stands or g.used >= top:
            if record and paid != "s":
                if paid == "f":
                    rank = told
                give_back(g, now, parts, booking, record)
                drop(g, booking)
                record = ""
            here = now + max_wait if max_wait > 0 else 0
            place = Waiter(0, costs_text(parts), here, rank or 0, lease, ear, call_id)
            asks = Asks(booking, place, int(priority_), reach, top, paced, start, why)
            code, wait, why = stand_for_slot(g, now, parts, asks, paid == "s", rank is None)
            if code != 1:
                return answer(code, wait, why)
            record, paid, start = "", "", now
        g.used += 1

    if paid in ("f", "g"):
        for part, made in zip(parts, costs_of(record, parts), strict=True):
            if part.amount != made.amount:
                shift(g, part, zero, made.amount - part.amount)
    else:
        spend(g, parts, (start - epoch) * 1000)
    if paid == "g" and slots == 0:
        g.used = max(0, g.used - 1)
    if paced:
        g.pace_at = start + (step or pace)
    if record:
        drop(g, booking)
    g.probes += probe
    g.calls[call_id] = f"{probe}:{int(slots > 0)}:{start}:{g.generation}:{start + lease}"
    ends_at(g, f"c:{call_id}", start + lease)
    hand_over(g, now, parts, top, "", step > 0 or g.pace_at > now)
    return answer(1, start - now, "", probe)
