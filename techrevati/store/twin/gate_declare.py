"""A gate's declaration, an operator's hand on it, what a provider says of it, and a look at it.

Twin: ``lua/gate_set.lua``, ``lua/gate_feed.lua``, ``lua/gate_look.lua``.
"""

import math

from techrevati.store.twin.gate_breaker import force, left, say
from techrevati.store.twin.gate_state import OPEN, Part, Reply, Unit, empty_at, enter


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


def gate_look(u: Unit) -> Reply:
    """What the gate is now; nothing changes."""
    g, now = enter(u, None)
    if g.version == "":
        return [-13, ""]
    said = [g.declared["text"], g.declared["by"], g.declared["at"], g.declared["revision"]]
    state = [now, g.state, g.generation, left(g, now, 0), g.forced, g.failures, g.probes, g.used]
    levels = [item for name in sorted(g.levels) for item in (name, str(g.levels[name]))]
    return [
        1,
        "",
        g.version,
        str(g.epoch),
        *said,
        *state,
        f"{g.limit:.17g}",
        g.opens,
        len(g.line) + len(g.slots),
        levels,
    ]
