"""A declaration in the scripts' units, made once: a call adds what is its own.

Terms(spec, version, epoch).admit(Ask(...)) ──▶ Call ──▶ Verdict
                           .settle(...)     ──▶ Call ──▶ Seen
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from techrevati.store.calls import Arg, Call
from techrevati.store.gates.errors import BadCost, CostTooLarge, UnknownBucket
from techrevati.store.gates.keys import GateKeys
from techrevati.store.gates.records import FOR_EVER, Ask, Seen, Verdict, code_of
from techrevati.store.gates.spec import GateSpec


def _us(seconds: float) -> int:
    return min(FOR_EVER, math.ceil(seconds * 1e6))


def rate_text(number: float) -> str:
    return f"{number:.17g}"


class Terms:
    """One declaration of a gate, ready to build calls from."""

    __slots__ = (
        "_admit",
        "_buckets",
        "_cancel",
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
        self._buckets = [(bucket.name, bucket.each_ns, rate_text(bucket.each_ns), bucket.span_ns) for bucket in buckets]
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
        self._cancel = (str(most), str(ramp))
        limits = (str(most), str(slots.least if slots else 0), rate_text(slots.increase) if slots and adaptive else "0")
        if rule is None:
            judged: tuple[str, ...] = ("0",) * 12
        else:
            consecutive = rule.mode == "consecutive"
            sick = rule.failure_threshold if consecutive else max(1, math.ceil(rule.min_calls * rule.failure_rate))
            judged = (
                "1" if consecutive else "2",
                str(rule.failure_threshold) if consecutive else rate_text(rule.failure_rate),
                str(_us(rule.window)),
                str(rule.min_calls),
                rate_text(rule.slow_rate) if rule.slow_call is not None else "0",
                str(rule.min_reporters),
                str(sick),
                str(_us(rule.cooldown)),
                rate_text(rule.cooldown_factor),
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
        return rate_text(self.spec.shares.get(tenant, 1.0)) if self.spec.shares else "1"

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
            return code_of(reply, "gate_cancel") == 1

        return Call("gate_cancel", self.keys, (*self._head, booking, *self._cancel, *self.amounts({})), parse)

    def feed(self, hold_us: int, told: Mapping[str, tuple[float | None, int | None]]) -> Call[Seen]:
        """`told`: per bucket what remains (tokens) and when it is full again (us from now)."""

        def parse(reply: Sequence[Any]) -> Seen:
            code_of(reply, "gate_feed")
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


def _verdict(reply: Sequence[Any]) -> Verdict:
    code = reply[0]
    if code < 0:
        code_of(reply, "gate_admit")
    return Verdict(code == 1, code == 2, reply[2], reply[3], reply[4] == 1, Seen(*reply[5:10]))


def _taken(reply: Sequence[Any]) -> int:
    wait: int = reply[0]
    return wait


def _settled(reply: Sequence[Any]) -> Seen:
    code = reply[0]
    if code < 0:
        code_of(reply, "gate_settle")
    return Seen(reply[2], reply[3], reply[4], reply[5], reply[6], reply[7], code == 1)
