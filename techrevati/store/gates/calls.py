"""What is said to a gate's scripts, as values: builders of calls, and what their answers mean.

    Terms(spec, version, epoch).admit(Ask(...)) ──▶ Call ──▶ Verdict
                               .settle(...)     ──▶ Call ──▶ Seen

`Terms` are a declaration in the scripts' units, made once: a call adds what is its own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from techrevati.runtime.circuit_breaker import CircuitState
from techrevati.store.calls import Arg, Call
from techrevati.store.errors import ScriptFault, UpgradeRequired
from techrevati.store.gates.errors import BadCost, CostTooLarge, UnknownBucket
from techrevati.store.gates.keys import GateKeys
from techrevati.store.gates.spec import GateSpec
from techrevati.store.scripts import PROTOCOL

STATES = (CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN)
FOR_EVER = 10**15
"""Microseconds: 31 years."""
OK, FAIL, NONE = "ok", "fail", "none"


class Outdated(Exception):
    """The gate has another declaration than the call was made of; "" if it has none."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.version = version


@dataclass(slots=True)
class Seen:
    """The breaker as a script saw it."""

    now_us: int
    state: int
    generation: int
    left_us: int
    forced: int
    out_us: int = 0
    fresh: bool = True


@dataclass(slots=True)
class Verdict:
    """What a gate answers who asks to be let out; `wait_us` < 0: nobody knows."""

    admitted: bool
    booked: bool
    wait_us: int
    why: str
    probe: bool
    seen: Seen


@dataclass(slots=True, kw_only=True)
class Ask:
    """Who wants out, and for how long; microseconds."""

    call_id: str
    holder: str
    lease_us: int
    tenant: str = ""
    priority: int = 0
    max_wait_us: int = 0
    reach_us: int = 0
    booking: str = ""
    ear: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """A declaration: what it says, who made it, when."""

    text: str
    by: str
    at_us: int
    revision: int


@dataclass(frozen=True, slots=True)
class Declared:
    """The declaration that stands, and the one that stood when it was made."""

    taken: bool
    version: str
    epoch: int
    stands: Standing
    before: Standing | None
    seen: Seen


@dataclass(frozen=True, slots=True)
class Picture:
    """A gate at one moment, for whoever looks: levels are tokens, below zero promised already."""

    version: str
    epoch: int
    stands: Standing
    seen: Seen
    failures: int
    probes: int
    slots_used: int
    slot_limit: float
    openings: int
    in_line: int
    levels: Mapping[str, float]

    @property
    def state(self) -> CircuitState:
        return STATES[self.seen.state]


def _check(reply: Sequence[Any], script: str) -> int:
    code = int(reply[0])
    if code == -10:
        raise UpgradeRequired(PROTOCOL, int(reply[2]))
    if code == -12:
        raise Outdated(str(reply[2]))
    if code == -13:
        raise Outdated("")
    if code < 0:
        raise ScriptFault(script, repr(reply))
    return code


def _verdict(reply: Sequence[Any]) -> Verdict:
    code = reply[0]
    if code < 0:
        _check(reply, "gate_admit")
    return Verdict(code == 1, code == 2, reply[2], reply[3], reply[4] == 1, Seen(*reply[5:10]))


def _taken(reply: Sequence[Any]) -> int:
    wait: int = reply[0]
    return wait


def _settled(reply: Sequence[Any]) -> Seen:
    code = reply[0]
    if code < 0:
        _check(reply, "gate_settle")
    return Seen(reply[2], reply[3], reply[4], reply[5], reply[6], reply[7], code == 1)


def _standing(at: Sequence[Any]) -> Standing:
    return Standing(str(at[0]), str(at[1]), int(at[2] or 0), int(at[3]))


def _declared(reply: Sequence[Any]) -> Declared:
    code = _check(reply, "gate_set")
    before = _standing(reply[8:12]) if reply[8] else None
    return Declared(code == 1, reply[2], int(reply[3]), _standing(reply[4:8]), before, Seen(*reply[12:17]))


def _us(seconds: float) -> int:
    return min(FOR_EVER, math.ceil(seconds * 1e6))


def _rate(number: float) -> str:
    return f"{number:.17g}"


class Terms:
    """One declaration of a gate, ready to build calls from."""

    __slots__ = (
        "_admit",
        "_buckets",
        "_feed",
        "_head",
        "_known",
        "_settle",
        "_sizes",
        "epoch",
        "keys",
        "pace",
        "plain",
        "spec",
        "version",
    )

    def __init__(self, keys: GateKeys, spec: GateSpec, version: str, epoch: int) -> None:
        self.keys, self.spec, self.version, self.epoch = keys, spec, version, epoch
        buckets = sorted(spec.buckets, key=lambda bucket: bucket.name)
        self._known = {bucket.name: bucket.capacity for bucket in buckets}
        self._sizes = {bucket.name: (bucket.each_ns, bucket.span_ns) for bucket in buckets}
        self.pace = 0.0 if spec.breaker is None else spec.breaker.ramp[0] if spec.breaker.ramp else spec.breaker.pace
        """Calls per second behind a breaker that was open; 0: there is none."""
        self.plain = spec.breaker is None and spec.slots is None
        """Whether there is nothing to look at but buckets."""
        self._buckets = [(bucket.name, bucket.each_ns, _rate(bucket.each_ns), bucket.span_ns) for bucket in buckets]
        head = (version, str(epoch))
        rule, slots = spec.breaker, spec.slots
        stages = " ".join(str(_us(1 / pace)) for pace in rule.ramp) if rule else ""
        stage = _us(rule.ramp_stage) if rule else 0
        most = slots.most if slots else 0
        pace = _us(1 / rule.pace) if rule else 100_000
        horizon = FOR_EVER if spec.horizon is None else _us(spec.horizon)
        permits = str(rule.probes if rule else 0)
        self._admit = (*head, str(horizon), str(most), permits, str(pace), str(stage), stages)
        # Buckets space out who waits for a Retry-After; without any, the breaker's pace does.
        ramp = stage * len(rule.ramp) if rule else 0
        self._feed = ("0" if buckets else str(pace), str(ramp))
        adaptive = slots is not None and slots.adaptive
        limits = (str(most), str(slots.least if slots else 0), _rate(slots.increase) if slots and adaptive else "0")
        if rule is None:
            judged: tuple[str, ...] = ("0",) * 12
        else:
            consecutive = rule.mode == "consecutive"
            sick = rule.failure_threshold if consecutive else max(1, math.ceil(rule.min_calls * rule.failure_rate))
            judged = (
                "1" if consecutive else "2",
                str(rule.failure_threshold) if consecutive else _rate(rule.failure_rate),
                str(_us(rule.window)),
                str(rule.min_calls),
                _rate(rule.slow_rate) if rule.slow_call is not None else "0",
                str(rule.min_reporters),
                str(sick),
                str(_us(rule.cooldown)),
                _rate(rule.cooldown_factor),
                str(max(_us(rule.cooldown_max), _us(rule.cooldown))),
                str(rule.probes_to_close),
                str(ramp),
            )
        self._settle = (*limits, *judged)
        self._head = head

    def could_hold(self, bucket: str, tokens: float) -> bool:
        return tokens <= self._known.get(bucket, 0.0)

    def check(self, costs: Mapping[str, float]) -> None:
        """Refuse costs that the gate does not know or could never give.

        Raises:
            UnknownBucket, BadCost, CostTooLarge: naming the bucket.
        """
        for name, cost in costs.items():
            capacity = self._known.get(name)
            if capacity is None:
                raise UnknownBucket(self.keys.gate, name, tuple(self._known))
            if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < math.inf:
                raise BadCost(self.keys.gate, name, cost)
            if cost > capacity:
                raise CostTooLarge(self.keys.gate, name, cost, capacity)

    def amounts(self, costs: Mapping[str, float], rounded: Callable[[float], int] = math.ceil) -> list[Arg]:
        """Per bucket: name, ns per token, ns to fill, tokens, and the same in whole ns, never to the caller's good."""
        flat: list[Arg] = []
        for name, ns, each, span in self._buckets:
            cost = costs.get(name)
            if not cost:
                flat += (name, each, span, 0, 0)
            else:
                flat += (name, each, span, cost if type(cost) is int else f"{cost:.17g}", rounded(cost * ns))
        return flat

    def admit(self, ask: Ask, costs: Mapping[str, float]) -> Call[Verdict]:
        self.check(costs)
        version, epoch, horizon, slots, permits, pace, stage, stages = self._admit
        args: tuple[Arg, ...] = (
            version,
            epoch,
            ask.call_id,
            ask.holder,
            ask.tenant,
            ask.priority,
            self.weight(ask.tenant),
            ask.lease_us,
            ask.max_wait_us,
            ask.reach_us,
            ask.booking,
            horizon,
            slots,
            permits,
            pace,
            stage,
            stages,
            ask.ear,
            *self.amounts(costs),
        )
        return Call("gate_admit", self.keys, args, _verdict)

    def take(self, bucket: str, tokens: float, lane: str, number: int) -> Call[int]:
        """Take of one bucket: 0 taken, else us until it is there, below zero where `admit` has to look."""
        each, span = self._sizes[bucket]
        args = (*self._head, bucket, span, math.ceil(tokens * each), lane, number)
        return Call("gate_take", self.keys, args, _taken)

    def weight(self, tenant: str) -> str:
        return _rate(self.spec.shares.get(tenant, 1.0)) if self.spec.shares else "1"

    def settle(
        self,
        call_id: str,
        holder: str,
        *,
        generation: int | None,
        outcome: str,
        slow: bool = False,
        overload: bool = False,
        latency_us: int = 0,
        back: Mapping[str, float] | None = None,
    ) -> Call[Seen]:
        """`back`: tokens to give back per bucket, below zero what is owed."""
        args: tuple[Arg, ...] = (
            *self._head,
            call_id,
            holder,
            "" if generation is None else generation,
            outcome,
            "1" if slow else "0",
            "1" if overload else "0",
            latency_us,
            *self._settle,
            *self.amounts(back or {}, math.floor),
        )
        return Call("gate_settle", self.keys, args, _settled)

    def cancel(self, booking: str) -> Call[bool]:
        def parse(reply: Sequence[Any]) -> bool:
            return _check(reply, "gate_cancel") == 1

        return Call("gate_cancel", self.keys, (*self._head, booking, *self.amounts({})), parse)

    def feed(self, hold_us: int, told: Mapping[str, tuple[float | None, int | None]]) -> Call[Seen]:
        """`told`: per bucket what remains (tokens) and when it is full again (us from now)."""

        def parse(reply: Sequence[Any]) -> Seen:
            _check(reply, "gate_feed")
            return Seen(*reply[2:7])

        args: list[Arg] = [*self._head, hold_us, *self._feed]
        for name, _, each, span in self._buckets:
            remaining, reset = told.get(name, (None, None))
            args += (
                name,
                each,
                span,
                "" if remaining is None else f"{remaining:.17g}",
                "" if reset is None else reset,
            )
        return Call("gate_feed", self.keys, args, parse)


def declare(keys: GateKeys, spec: GateSpec, by: str, *, lost: bool = False, open_us: int = 0) -> Call[Declared]:
    """Say what the gate is; `lost`: it was there before, so its buckets begin empty."""
    args: list[Arg] = ["declare", spec.revision, spec.digest, spec.text, by, "empty" if lost else "full", open_us]
    for bucket in sorted(spec.buckets, key=lambda bucket: bucket.name):
        args += (bucket.name, _rate(bucket.each_ns), bucket.span_ns)
    return Call("gate_set", keys, args, _declared)


def force(keys: GateKeys, what: str, by: str) -> Call[Seen]:
    """Force it ``open``, ``close`` it now, ``disable`` it, or ``enable`` it again."""

    def parse(reply: Sequence[Any]) -> Seen:
        _check(reply, "gate_set")
        return Seen(*reply[2:7])

    return Call("gate_set", keys, (what, 0, "", "", by, "full", 0), parse)


def look(keys: GateKeys, spec: GateSpec | None = None) -> Call[Picture]:
    """Ask what the gate is; `spec` gives levels in tokens."""

    def parse(reply: Sequence[Any]) -> Picture:
        _check(reply, "gate_look")
        epoch, now = int(reply[3]), int(reply[8])
        stands = _standing(reply[4:8])
        buckets = {} if spec is None else spec.adopt(stands.text, stands.revision).buckets
        known = {bucket.name: bucket for bucket in buckets}
        flat, levels = reply[19], {}
        for name, empty in zip(flat[::2], flat[1::2], strict=True):
            if name in known:
                bucket = known[name]
                levels[name] = min(bucket.capacity, ((now - epoch) * 1000 - float(empty)) / bucket.each_ns)
        return Picture(
            version=reply[2],
            epoch=epoch,
            stands=stands,
            seen=Seen(now, reply[9], reply[10], reply[11], reply[12]),
            failures=reply[13],
            probes=reply[14],
            slots_used=reply[15],
            slot_limit=float(reply[16]),
            openings=reply[17],
            in_line=reply[18],
            levels=levels,
        )

    return Call("gate_look", keys, (), parse)
