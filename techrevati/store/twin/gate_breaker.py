"""The breaker of a gate: evidence in, state out.

    CLOSED ──evidence of enough workers──▶ OPEN ──cool-down, longer each time──▶ HALF_OPEN ──probes──▶ ramp, CLOSED
       └── one worker alone fails ──▶ that worker is quarantined

Twin: ``lua/_breaker.lua``.
"""

import math
from dataclasses import dataclass

from techrevati.store.twin.gate_state import (
    CLOSED,
    DISABLED,
    FORCED_OPEN,
    HALF_OPEN,
    OPEN,
    REPORTERS,
    Gate,
    Window,
    ends_at,
)

CONSECUTIVE, RATE = 1, 2


@dataclass(slots=True)
class Rule:
    """The breaker's declaration, in a script's units."""

    mode: int
    threshold: float
    window: int
    min_calls: int
    slow_rate: float
    reporters: int
    sick: int
    cooldown: float
    factor: float
    cooldown_max: float
    enough: int
    ramp: int


def say(g: Gate, now: int, ramp: int) -> None:
    """Tell all who listen what the breaker is now."""
    g.said.append(f"s {g.state} {g.generation} {left(g, now, ramp)} {g.forced} {now}")


def left(g: Gate, now: int, ramp: int) -> int:
    """How long (us) a view may rely on less than this: until it reopens, or until the ramp is over."""
    if g.state == OPEN:
        return max(0, g.until - now)
    ramp_end = g.ramp_from + ramp if g.state == CLOSED and g.ramp_from > 0 and ramp > 0 else 0
    return max(0, g.pace_at - now, ramp_end - now)


def turn(g: Gate, state: int, now: int) -> None:
    """Begin a generation, one that no server that lost its tail can give again."""
    g.state, g.generation = state, max(g.generation + 1, now // 1000)
    g.probes = g.good = 0


def trip(g: Gate, now: int, rule: Rule) -> None:
    if g.state == CLOSED and now - g.ramp_from >= rule.ramp + rule.cooldown:
        g.opens = 0
    g.until = now + math.floor(min(rule.cooldown * rule.factor**g.opens, rule.cooldown_max) + 0.5)
    g.opens += 1
    turn(g, OPEN, now)
    g.pace_at = g.until
    forget(g)
    say(g, now, rule.ramp)


def close(g: Gate, now: int, ramp: int) -> None:
    turn(g, CLOSED, now)
    g.failures, g.ramp_from, g.window = 0, now, Window()
    g.run += 1
    forget(g)
    say(g, now, ramp)


def forget(g: Gate) -> None:
    if g.sick > 0:
        g.evidence.clear()
        g.sick = 0


def half_open(g: Gate, now: int, ramp: int) -> None:
    turn(g, HALF_OPEN, now)
    say(g, now, ramp)


def force(g: Gate, what: str, now: int) -> None:
    """An operator's word: refuse all, close now, let all through unwatched, or back to the rule."""
    match what:
        case "open":
            g.forced = FORCED_OPEN
        case "disable":
            g.forced = DISABLED
        case _:
            g.forced = g.opens = g.pace_at = 0
            close(g, now, 0)
            g.said.pop()
            g.ramp_from = 0
    say(g, now, 0)


def judge(g: Gate, now: int, rule: Rule, worker: str, failed: bool, slow: bool, by_hand: bool) -> None:
    """Take one result of the current generation, or one recorded by hand."""
    bad = failed or (slow and (rule.mode == CONSECUTIVE or g.state == HALF_OPEN))
    if g.state == OPEN:
        if not by_hand:
            return
        g.failures = g.failures + 1 if bad else 0
        if bad:
            g.until = now + math.floor(rule.cooldown + 0.5)
            g.pace_at = max(g.pace_at, g.until)
            say(g, now, rule.ramp)
        return
    if g.state == HALF_OPEN:
        if bad:
            g.failures += 1
            trip(g, now, rule)
        else:
            g.good += 1
            if by_hand or g.good >= rule.enough:
                close(g, now, rule.ramp)
        return
    if bad:
        g.failures += 1
    elif g.failures > 0:
        g.failures = 0
        g.run += 1
    tripped = count(g, now, rule, failed, slow) if rule.mode == RATE else g.failures >= rule.threshold
    if rule.reporters > 1:
        if bad or slow:
            tripped = testify(g, now, rule, worker) >= rule.reporters and tripped
        elif g.sick > 0:
            absolve(g, worker)
    if tripped and (bad or slow):
        trip(g, now, rule)
    elif rule.reporters > 1 and (bad or slow) and g.evidence[worker][0] >= rule.sick:
        quarantine(g, now, rule, worker)


def count(g: Gate, now: int, rule: Rule, failed: bool, slow: bool) -> bool:
    """Add to the sliding window; whether its rates are too high.

    The stretch before counts as far as it reaches into the window, as if its calls were spread evenly.
    """
    epoch, w = now // rule.window, g.window
    if epoch == w.epoch + 1:
        g.window = w = Window(epoch, 0, 0, 0, w.calls, w.failed, w.slow)
    elif epoch != w.epoch:
        g.window = w = Window(epoch)
    w.calls += 1
    w.failed += failed
    w.slow += slow
    before = 1 - (now - epoch * rule.window) / rule.window
    calls = w.calls + w.calls_before * before
    if calls < rule.min_calls:
        return False
    failures, slows = w.failed + w.failed_before * before, w.slow + w.slow_before * before
    return failures >= rule.threshold * calls or (rule.slow_rate > 0 and slows >= rule.slow_rate * calls)


def testify(g: Gate, now: int, rule: Rule, worker: str) -> int:
    """Note a worker's failure; give how many workers there is evidence of."""
    if worker not in g.evidence and len(g.evidence) >= REPORTERS:
        g.evidence.clear()
    failures = g.evidence.get(worker, (0, 0, 0))[0] + 1
    g.evidence[worker] = failures, g.run, now
    g.sick = len(g.evidence)
    if rule.mode == CONSECUTIVE:
        return sum(run == g.run for _, run, _ in g.evidence.values())
    return sum(last > now - rule.window for _, _, last in g.evidence.values())


def absolve(g: Gate, worker: str) -> None:
    """A good result ends a worker's run of failures."""
    if worker in g.evidence:
        _, run, last = g.evidence[worker]
        g.evidence[worker] = 0, run, last


def quarantine(g: Gate, now: int, rule: Rule, worker: str) -> None:
    """It alone fails: it loses its own access for a while, the fleet keeps its."""
    _, run, last = g.evidence[worker]
    g.evidence[worker] = rule.sick - 1, run, last
    g.quarantined[worker] = now + math.floor(rule.cooldown + 0.5)
    ends_at(g, f"x:{worker}", g.quarantined[worker])
