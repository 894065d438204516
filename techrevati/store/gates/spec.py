"""What a gate is declared to be: breaker, buckets, slots of one external dependency.

    GateSpec(name, breaker, buckets, slots, shares) ──text, digest──▶ gate_set ──▶ the fleet's one declaration

Seconds at this edge, microseconds in the scripts.
"""

import hashlib
import math
import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import msgspec

from techrevati.runtime.agent_events import AgentFailureClass
from techrevati.store.errors import BadName
from techrevati.store.gates.errors import BadGate

Mode = Literal["consecutive", "rate"]
OnStoreError = Literal["local", "fail_open", "fail_closed"]
ProviderLimits = Literal["lower", "follow", "ignore"]

_NAME = re.compile(r"[^{}\x00-\x1f\x7f]{1,200}")
_BUCKET = re.compile(r"[A-Za-z0-9_.-]{1,64}")

NOT_ITS_FAULT = (
    AgentFailureClass.CONTEXT_OVERFLOW,
    AgentFailureClass.MEMORY_CORRUPTION,
    AgentFailureClass.VALIDATION_ERROR,
    AgentFailureClass.PROMPT_REJECTION,
    AgentFailureClass.RATE_LIMIT,
)
"""Failures that say nothing against the dependency; a 429 moves buckets and slots instead."""


def check_gate(name: str) -> str:
    """Refuse a gate name that could not be part of a hash tag."""
    if not _NAME.fullmatch(name) or len(name.encode()) > 200:
        raise BadName("gate", name, "1-200 bytes without braces or control characters")
    return name


def _positive(what: str, value: float) -> None:
    if isinstance(value, bool) or not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise BadGate(what, value, "a number above 0")


def _whole(what: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadGate(what, value, f"a whole number, {least} or more")


def _share(what: str, value: float) -> None:
    if not 0 < value <= 1:
        raise BadGate(what, value, "a share above 0, up to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSpec:
    """When to stop calling, and how to begin again.

    `consecutive` counts failures in a row, `rate` the share of failed (or slow) calls in a sliding window.
    `ramp` are calls per second, one stage after another, after it has closed.
    """

    mode: Mode = "consecutive"
    failure_threshold: int = 5
    failure_rate: float = 0.5
    window: float = 60.0
    min_calls: int = 10
    slow_call: float | None = None
    slow_rate: float = 1.0
    min_reporters: int = 1
    cooldown: float = 30.0
    cooldown_factor: float = 2.0
    cooldown_max: float = 600.0
    probes: int = 1
    probes_to_close: int = 1
    pace: float = 10.0
    ramp: tuple[float, ...] = ()
    ramp_stage: float = 5.0
    recorded: tuple[AgentFailureClass, ...] | None = None
    excluded: tuple[AgentFailureClass, ...] = NOT_ITS_FAULT

    def __post_init__(self) -> None:
        if self.mode not in ("consecutive", "rate"):
            raise BadGate("breaker mode", self.mode, "'consecutive' or 'rate'")
        for what in ("failure_threshold", "min_calls", "min_reporters", "probes", "probes_to_close"):
            _whole(what, getattr(self, what), 1)
        for what in ("window", "cooldown", "cooldown_max", "pace", "ramp_stage"):
            _positive(what, getattr(self, what))
        _share("failure_rate", self.failure_rate)
        _share("slow_rate", self.slow_rate)
        if self.slow_call is not None:
            _positive("slow_call", self.slow_call)
        if self.cooldown_factor < 1:
            raise BadGate("cooldown_factor", self.cooldown_factor, "1 or more")
        if len(self.ramp) > 16:
            raise BadGate("ramp", len(self.ramp), "at most 16 stages")
        for pace in self.ramp:
            _positive("ramp", pace)

    def records(self, failure: AgentFailureClass | str | None) -> bool:
        """Whether a failure of this class is evidence against the dependency."""
        kind = AgentFailureClass.UNKNOWN if failure is None else AgentFailureClass(failure)
        if self.recorded is not None:
            return kind in self.recorded
        return kind not in self.excluded


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """One dimension of a rate: what it holds at most, and how fast it fills (1 / s)."""

    name: str
    capacity: float
    per_second: float

    def __post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.name):
            raise BadName("bucket", self.name, "1-64 of A-Z a-z 0-9 _ . -")
        _positive(f"capacity of bucket {self.name!r}", self.capacity)
        _positive(f"per_second of bucket {self.name!r}", self.per_second)

    @classmethod
    def per_minute(cls, name: str, limit: float) -> Self:
        """So many a minute; all of them may come at once."""
        _positive(f"limit of bucket {name!r}", limit)
        return cls(name, limit, limit / 60)

    @property
    def each_ns(self) -> float:
        """Nanoseconds that refill one token."""
        return 1e9 / self.per_second

    @property
    def span_ns(self) -> int:
        """Nanoseconds that refill it all."""
        return math.ceil(self.capacity * self.each_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSpec:
    """How many calls at once: at most `most`; adaptive, it moves between `least` and `most`.

    Source of the adaptive limit: D. Chiu, R. Jain, "Analysis of the increase and decrease algorithms for
    congestion avoidance", 1989 (additive increase, multiplicative decrease).
    """

    most: int
    least: int = 1
    adaptive: bool = False
    increase: float = 1.0

    def __post_init__(self) -> None:
        _whole("slots", self.most, 1)
        _whole("least slots", self.least, 1)
        if self.least > self.most:
            raise BadGate("least slots", self.least, f"at most {self.most}, the most slots")
        _positive("increase", self.increase)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """One external dependency, as the fleet shares it.

    `shares` are weights of tenants (1 if absent); what one does not use flows to the others.  They and priorities
    order who waits for longer than `horizon` seconds; nearer starts are promised and kept.  Higher `revision` wins
    over lower; of equals that differ, the newest declaration.
    `staleness` (s) bounds how old the local view of the breaker may be; 0 asks Redis each time.
    `margin` (s) is what a slot's lease lasts longer than its call's timeout.
    `provider_limits`: the limits a provider tells of are taken where they are lower than these, always, or never.
    """

    name: str
    breaker: BreakerSpec | None = None
    buckets: tuple[BucketSpec, ...] = ()
    slots: SlotSpec | None = None
    shares: dict[str, float] = field(default_factory=dict)
    horizon: float | None = 1.0
    revision: int = 0
    staleness: float = 0.25
    margin: float = 5.0
    on_store_error: OnStoreError = "local"
    store_patience: float = 1.0
    provider_limits: ProviderLimits = "lower"

    def __post_init__(self) -> None:
        check_gate(self.name)
        names = [bucket.name for bucket in self.buckets]
        if len(set(names)) < len(names):
            raise BadGate("buckets", names, "one bucket of each name")
        if len(names) > 16:
            raise BadGate("buckets", len(names), "at most 16")
        for tenant, weight in self.shares.items():
            _positive(f"share of tenant {tenant!r}", weight)
        if self.horizon is not None:
            _positive("horizon", self.horizon)
        _positive("store_patience", self.store_patience)
        if self.staleness < 0 or self.margin < 0:
            raise BadGate("staleness, margin", (self.staleness, self.margin), "0 or more")
        if self.on_store_error not in ("local", "fail_open", "fail_closed"):
            raise BadGate("on_store_error", self.on_store_error, "'local', 'fail_open' or 'fail_closed'")
        if self.provider_limits not in ("lower", "follow", "ignore"):
            raise BadGate("provider_limits", self.provider_limits, "'lower', 'follow' or 'ignore'")
        _whole("revision", self.revision, 0)

    @classmethod
    def make(
        cls,
        name: str,
        *,
        concurrency: int | None = None,
        adaptive: bool = False,
        failure_threshold: int | None = None,
        breaker: BreakerSpec | None = None,
        shares: dict[str, float] | None = None,
        revision: int = 0,
        on_store_error: OnStoreError = "local",
        provider_limits: ProviderLimits = "lower",
        **per_minute: float,
    ) -> Self:
        """Declare a gate in one line: ``GateSpec.make("openai:m", rpm=500, input_tpm=200_000, concurrency=64)``."""
        if failure_threshold is not None:
            breaker = replace(breaker or BreakerSpec(), failure_threshold=failure_threshold)
        return cls(
            name=name,
            breaker=breaker or BreakerSpec(),
            buckets=tuple(BucketSpec.per_minute(bucket, limit) for bucket, limit in per_minute.items()),
            slots=None if concurrency is None else SlotSpec(most=concurrency, adaptive=adaptive),
            shares=shares or {},
            revision=revision,
            on_store_error=on_store_error,
            provider_limits=provider_limits,
        )

    def bucket(self, name: str) -> BucketSpec | None:
        return next((bucket for bucket in self.buckets if bucket.name == name), None)

    @property
    def text(self) -> str:
        """What the fleet shares of it, as JSON: the same for equal gates."""
        plain = msgspec.json.decode(_encode(self.shared()), type=_Shared)  # 500 and 500.0 are one limit
        return _encode(plain).decode()

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def shared(self) -> dict[str, Any]:
        """What all processes must agree on; the rest is each one's own."""
        return {
            "breaker": self.breaker,
            "buckets": sorted(self.buckets, key=lambda bucket: bucket.name),
            "slots": self.slots,
            "shares": self.shares,
            "horizon": self.horizon,
        }

    def adopt(self, text: str, revision: int) -> Self:
        """The fleet's declaration, with this process's own view and patience."""
        told = msgspec.json.decode(text, type=_Shared)
        return replace(
            self,
            breaker=told.breaker,
            buckets=told.buckets,
            slots=told.slots,
            shares=told.shares,
            horizon=told.horizon,
            revision=revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    breaker: BreakerSpec | None
    buckets: tuple[BucketSpec, ...]
    slots: SlotSpec | None
    shares: dict[str, float]
    horizon: float | None


_encode = msgspec.json.Encoder(order="deterministic").encode
