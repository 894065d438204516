"""What gates and budgets do, as OpenTelemetry metrics; made only where exports are on.

    each process: calls let out, refused, told to wait; money set aside and spent ──▶ LimitMetrics
    one coordinator: breakers, slots, levels of the whole fleet                    ──▶ GateGauges

No attribute has a tenant's, a run's or a thread's name: their number has no bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from techrevati.telemetry.tracing import INSTRUMENTATION

STATES = ("closed", "open", "half_open")


class LimitMetrics:
    """The counts of one process."""

    def __init__(self, meter: Meter | None = None) -> None:
        meter = meter or metrics.get_meter(INSTRUMENTATION)
        count, both = meter.create_counter, meter.create_up_down_counter
        self._calls = count("techrevati.gate.calls", "{call}", "calls that asked a gate, by what it said")
        self._wait = meter.create_histogram("techrevati.gate.wait", "s", "waits that a gate told")
        self._in_flight = both("techrevati.gate.in_flight", "{call}", "calls let out and not settled")
        self._changes = count("techrevati.gate.breaker.changes", "{change}", "changes of a breaker, as seen here")
        self._quarantines = count("techrevati.gate.quarantines", "{quarantine}", "this worker lost its own access")
        self._trouble = count("techrevati.gate.store_trouble", "{event}", "the store did not answer a gate")
        self._reserved = both("techrevati.budget.reserved", "{microdollar}", "set aside for calls under way")
        self._spent = count("techrevati.budget.spent", "{microdollar}", "what calls did cost, or may have")
        self._tokens = count("techrevati.budget.tokens", "{token}", "tokens of the same calls")
        self._refused = count("techrevati.budget.refused", "{call}", "calls that did not fit under a limit")

    def admitted(self, gate: str, by: str) -> None:
        """Count a call that was let out; `by` the fleet, the local view, this process's twin, or nobody."""
        self._calls.add(1, {"gate": gate, "outcome": "admitted", "reason": by})
        self._in_flight.add(1, {"gate": gate})

    def refused(self, gate: str, why: str, wait: float | None) -> None:
        """Count a call that was not; with a `wait` (s) it was told to come back."""
        self._calls.add(1, {"gate": gate, "outcome": "refused" if wait is None else "waited", "reason": why})
        if wait is not None:
            self._wait.record(wait, {"gate": gate, "reason": why})

    def settled(self, gate: str) -> None:
        self._in_flight.add(-1, {"gate": gate})

    def changed(self, gate: str, before: str, after: str, forced: str) -> None:
        self._changes.add(1, {"gate": gate, "from": before, "to": after, "forced": forced})

    def quarantined(self, gate: str) -> None:
        self._quarantines.add(1, {"gate": gate})

    def troubled(self, gate: str, mode: str) -> None:
        self._trouble.add(1, {"gate": gate, "mode": mode})

    def reserved(self, scopes: Iterable[str], micros: int) -> None:
        """Count money set aside (or, below zero, not any more), once for each kind of scope that pays."""
        for scope in scopes:
            self._reserved.add(micros, {"scope": scope})

    def spent(self, scopes: Iterable[str], micros: int, tokens: int) -> None:
        for scope in scopes:
            self._spent.add(micros, {"scope": scope})
            self._tokens.add(tokens, {"scope": scope})

    def over_budget(self, scope: str, account: str) -> None:
        """Count a refusal; `account` is unit and window, "usd.day"."""
        self._refused.add(1, {"scope": scope, "account": account})


@dataclass(frozen=True, slots=True)
class GateSeen:
    """One gate of the fleet at one moment; `slots` None: it has none."""

    name: str
    state: str
    slots_used: int
    slots: float | None
    in_line: int
    levels: Mapping[str, float]


class GateGauges:
    """The fleet's gates as they were last looked at."""

    def __init__(self, meter: Meter | None = None) -> None:
        meter = meter or metrics.get_meter(INSTRUMENTATION)
        self._seen: Sequence[GateSeen] = ()
        gauge = meter.create_observable_gauge
        gauge("techrevati.gate.breaker.state", [self._states], "{state}", "0 closed, 1 open, 2 half-open")
        gauge("techrevati.gate.slots.used", [self._used], "{slot}", "slots in use, fleet-wide")
        gauge("techrevati.gate.slots.limit", [self._limits], "{slot}", "slots there are, fleet-wide")
        gauge("techrevati.gate.line", [self._lines], "{call}", "calls that stand in line, fleet-wide")
        gauge("techrevati.gate.level", [self._levels], "{token}", "what a bucket holds; below zero it is promised")
        self._off = meter.create_counter("techrevati.budget.written_off", "{call}", "reservations nobody settled")

    def show(self, seen: Sequence[GateSeen]) -> None:
        self._seen = tuple(seen)

    def written_off(self, count: int) -> None:
        self._off.add(count)

    def _states(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(STATES.index(one.state), {"gate": one.name}) for one in self._seen]

    def _used(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(one.slots_used, {"gate": one.name}) for one in self._seen if one.slots is not None]

    def _limits(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(one.slots, {"gate": one.name}) for one in self._seen if one.slots is not None]

    def _lines(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(one.in_line, {"gate": one.name}) for one in self._seen]

    def _levels(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(level, {"gate": one.name, "bucket": bucket})
            for one in self._seen
            for bucket, level in one.levels.items()
        ]
