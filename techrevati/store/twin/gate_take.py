"""One bucket, and nothing else to look at: what most callers of a shared rate limit need.

Twin: ``lua/gate_take.lua``.
"""

import math

from techrevati.store.twin.gate_state import KEEP, Gate, Part, Reply, Unit, empty_at, ends_at


def gate_take(u: Unit, version: str, epoch: str, bucket: str, span: str, cost: str, lane: str, number_: str) -> Reply:
    """Spend tokens where nothing else is to be looked at, or say how long (us) they take to come.

    Who waits, a Retry-After, an operator's hand, another declaration, something to sweep: `gate_admit` looks at that.
    """
    g, now, number = u.gate, max(u.clock, u.gate.clock), int(number_)
    before, over = g.lanes.get(lane, (0, 0))
    if before >= number:
        return [0, ""]
    if version != g.version or u.protocol < (g.minimum or 0) or _asks_for_more(g, now):
        return [-1, ""]
    zero = (now - int(epoch)) * 1000
    empty = empty_at(g, Part(bucket, 0.0, int(span), 0.0), zero) + int(cost)
    if empty > zero:
        return [math.ceil((empty - zero) / 1000), ""]
    if over < now + KEEP:
        over = now + 2 * KEEP
        ends_at(g, f"n:{lane}", over)
    g.clock, g.levels[bucket], g.lanes[lane] = now, empty, (number, over)
    return [0, ""]


def _asks_for_more(g: Gate, now: int) -> bool:
    return 0 < g.due <= now or g.pace_at > now or g.forced != 0 or bool(g.line)
