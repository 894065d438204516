"""The scripts of a gate, one function each: the same arguments, the same reply, on a `Gate` in memory.

    speak(gate, call, now) ──▶ gate_admit(...) · gate_settle(...) · ... ──▶ reply

This is the specification; the property tests send Redis and this the same calls.  It also is the gate of a process
that has lost its store (``on_store_error="local"``).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from techrevati.store.calls import Call
from techrevati.store.scripts import PROTOCOL
from techrevati.store.twin.gate_breaker import Rule, force, half_open, judge, left, say
from techrevati.store.twin.gate_state import (
    CLOSED,
    FORCED_OPEN,
    HALF_OPEN,
    KEEP,
    LATENCY_MIN,
    OPEN,
    PRIORITY,
    PROMOTED,
    Gate,
    Part,
    Refused,
    Reply,
    S,
    Unit,
    costs_of,
    costs_text,
    empty_at,
    ends_at,
    enter,
    grace_of,
    parts_of,
    release,
    shift,
    spend,
    start_of,
    sweep,
)
from techrevati.store.twin.gate_take import gate_take


def speak(g: Gate, call: Call[Any], now: int) -> Reply:
    """Say to the twin what a client says to Redis."""
    try:
        reply: Reply = SCRIPTS[call.script](Unit(g, PROTOCOL, now), *map(str, call.args))
        return reply
    except Refused as refused:
        return refused.reply


# Bookings.


def give_back(g: Gate, now: int, parts: Sequence[Part], key: str, record: str) -> None:
    """Take a booking away: what it kept flows back, up to what the bucket could still hold."""
    if record[0] == "f":
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

    sweep(g, now, lambda key, record: give_back(g, now, parts, key, record))
    known = g.calls.get(call_id)
    if known is not None:
        flag, _, let_out, *_ = ("0", "0", str(now)) if known == "-" else known.split(":")
        return answer(1, max(0, int(let_out) - now), "", int(flag))
    if g.quarantined.get(holder, 0) > now:
        return answer(0, g.quarantined[holder] - now, "quarantined")
    if g.forced == FORCED_OPEN:
        return answer(0, -1, "forced")

    def pace_of(at: int, origin: int) -> int:
        """The ramp's pace (us per call) at a time, 0 where there is none."""
        n = (at - origin) // stage if stages and origin > 0 else -1
        return stages[n] if 0 <= n < len(stages) else 0

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
    if record and record[0] != "l":
        kind, told = record[0], int(record.split(" ")[1])
        costs = costs_of(record, parts) if kind == "f" else []
        if now < told:
            if kind == "f" and slots == 0 and told - now <= max_wait and (permits == 0 or g.state == CLOSED):
                paid, start = kind, told
            else:
                return answer(2, told - now, {"f": "rate", "o": "breaker", "s": "slots"}[kind])
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
    paced = paid == "" and probe == 0 and (step > 0 or g.pace_at > now)
    if paced:
        step = step or pace
        if g.pace_at > start:
            start, why = g.pace_at, "ramp"
    if paid != "f":
        if g.line and record[:1] != "l":
            promote(g, now, parts, horizon)
        start = max(start, now + math.ceil((start_of(g, parts, zero) - zero) / 1000))
        if wants and (g.line or start - now > horizon):
            return _queue(g, now, parts, booking, tenant, float(weight_), int(priority_), reach, record, answer)
        wait = start - now
        if wait > 0 and (slots > 0 or wait > max_wait):
            if booking == "" or wait > reach:
                return answer(0, wait, why)
            spend(g, parts, (start - epoch) * 1000)
            if paced:
                g.pace_at = start + step
            book(g, booking, f"f {start} {costs_text(parts)}", start + grace_of(parts))
            return answer(2, wait, why)

    if slots > 0:
        top = g.limit if g.limit > 0 else float(slots)
        if g.used >= math.floor(min(top, slots)):
            if paid == "f":
                give_back(g, now, parts, booking, record)
                drop(g, booking)
            latency = max(g.latency, LATENCY_MIN) if g.latency > 0 else float(S)
            at = math.ceil(max(now, g.slot_at) + latency / top)
            if booking != "" and at - now <= reach:
                g.slot_at = at
                book(g, booking, f"s {at}", at + grace_of([]))
                return answer(2, at - now, "slots")
            if paid in ("o", "s"):
                drop(g, booking)
            return answer(0, at - now, "slots")
        g.used += 1

    if paid == "f":
        for part, made in zip(parts, costs_of(record, parts), strict=True):
            if part.amount != made.amount:
                shift(g, part, zero, made.amount - part.amount)
    else:
        spend(g, parts, (start - epoch) * 1000)
    if paced:
        g.pace_at = start + step
    if record:
        drop(g, booking)
    g.probes += probe
    g.calls[call_id] = f"{probe}:{int(slots > 0)}:{start}:{g.generation}:{start + lease}"
    ends_at(g, f"c:{call_id}", start + lease)
    return answer(1, start - now, "", probe)


def _queue(
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
        g.clock = now
        out = max(0, g.quarantined.get(holder, 0) - now)
        return [code, "", now, g.state, g.generation, left(g, now, ramp), g.forced, out]

    sweep(g, now, lambda key, record: give_back(g, now, parts, key, record))
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


def gate_cancel(u: Unit, version: str, epoch_: str, booking: str, *buckets: str) -> Reply:
    """Give a booking back."""
    g, now = enter(u, version)
    record = g.bookings.get(booking)
    if record is None:
        return [0, "", now]
    give_back(g, now, parts_of(buckets), booking, record)
    drop(g, booking)
    g.clock = now
    return [1, "", now]


def gate_feed(u: Unit, version: str, epoch_: str, hold_: str, pace_: str, ramp_: str, *told: str) -> Reply:
    """Move the gate to what the provider says: not before a time, no more than remains, full again when."""
    g, now = enter(u, version)
    zero, hold, ramp = (now - int(epoch_)) * 1000, int(hold_), int(ramp_)
    for i in range(0, len(told), 5):
        name, each, span, remaining, reset = told[i], float(told[i + 1]), int(told[i + 2]), told[i + 3], told[i + 4]
        empty = empty_at(g, Part(name, each, span, 0), zero)
        if remaining != "":
            empty = max(empty, zero - math.floor(float(remaining) * each))
        if reset != "":
            empty = max(empty, zero + int(reset) * 1000 - span)
        if hold > 0:
            empty = max(empty, zero + hold * 1000)
        g.levels[name] = empty
    if hold > 0:
        g.pace_at = max(g.pace_at, now + hold)
        if g.state == OPEN and g.until < now + hold:
            g.until = now + hold
        say(g, now, ramp)
    g.clock = now
    return [1, "", now, g.state, g.generation, left(g, now, ramp), g.forced]


def gate_set(
    u: Unit,
    what: str,
    revision: str,
    digest: str,
    text: str,
    by: str,
    seed: str,
    open_for_: str,
    *buckets: str,
) -> Reply:
    """Declare the gate, or put an operator's hand on its breaker."""
    g, now = enter(u, None)
    if what != "declare":
        if g.version == "":
            return [-13, ""]
        force(g, what, now)
        g.clock = now
        return [1, "", now, g.state, g.generation, left(g, now, 0), g.forced]
    told = g.declared
    before = [told.get("text", ""), told.get("by", ""), told.get("at", ""), told.get("revision", "0")]

    def answer(code: int) -> Reply:
        g.clock = now
        mine = [g.declared["text"], g.declared["by"], g.declared["at"], g.declared["revision"]]
        state = [now, g.state, g.generation, left(g, now, 0), g.forced]
        return [code, "", g.version, str(g.epoch), *mine, *before, *state]

    if told and told["digest"] == digest and int(revision) <= int(told["revision"]):
        return answer(2)
    if told and int(revision) < int(told["revision"]):
        return answer(0)
    fresh = g.version == ""
    if fresh:
        g.epoch = now
    zero = (now - g.epoch) * 1000
    rates, levels = {}, {}
    for i in range(0, len(buckets), 3):
        name, each, span = buckets[i], float(buckets[i + 1]), int(buckets[i + 2])
        if name in g.rates:
            # Its level stays what it was, in tokens.
            was, whole = g.rates[name]
            level = (zero - max(g.levels[name], zero - whole)) / was
            levels[name] = math.ceil(zero - min(level, span / each) * each)
        else:
            levels[name] = zero if seed == "empty" else zero - span
        rates[name] = each, span
    g.rates, g.levels = rates, levels
    g.declared = {"digest": digest, "text": text, "by": by, "at": str(now), "revision": revision}
    g.version = f"{revision}:{digest}:{g.epoch}"
    open_for = int(open_for_)
    if fresh and open_for > 0:
        g.state, g.generation, g.until, g.opens = OPEN, now // 1000, now + open_for, 1
        g.pace_at = g.until
    g.said.append(f"v {g.version}")
    return answer(1)


def gate_look(u: Unit) -> Reply:
    """What the gate is now; nothing changes."""
    g, now = enter(u, None)
    if g.version == "":
        return [-13, ""]
    said = [g.declared["text"], g.declared["by"], g.declared["at"], g.declared["revision"]]
    state = [now, g.state, g.generation, left(g, now, 0), g.forced, g.failures, g.probes, g.used]
    levels = [item for name in sorted(g.levels) for item in (name, str(g.levels[name]))]
    return [1, "", g.version, str(g.epoch), *said, *state, f"{g.limit:.17g}", g.opens, len(g.line), levels]


SCRIPTS: dict[str, Callable[..., Reply]] = {
    "gate_admit": gate_admit,
    "gate_take": gate_take,
    "gate_settle": gate_settle,
    "gate_cancel": gate_cancel,
    "gate_feed": gate_feed,
    "gate_set": gate_set,
    "gate_look": gate_look,
}
