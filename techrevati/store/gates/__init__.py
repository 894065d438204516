"""What the whole fleet agrees on about one dependency: its breaker, its buckets, its slots.  Needs no Celery.

GateSpec ──▶ AsyncGate(store, fleet, spec) ──admit──▶ Admission | GateRefused ──settle──▶ Redis
"""

from techrevati.store.gates.breaker import AsyncRedisCircuitBreaker, RedisCircuitBreaker
from techrevati.store.gates.entry import Admission
from techrevati.store.gates.errors import BadCost, BadGate, CostTooLarge, GateRefused, UnknownBucket
from techrevati.store.gates.events import (
    BreakerChanged,
    DeclarationsDiffer,
    Event,
    GateLost,
    StoreBack,
    StoreRestarted,
    StoreTrouble,
    WorkerQuarantined,
)
from techrevati.store.gates.gate import AsyncGate, Gate
from techrevati.store.gates.limiter import (
    AsyncRedisRateLimiter,
    AsyncRedisTokenBucket,
    RedisRateLimiter,
    RedisTokenBucket,
)
from techrevati.store.gates.listening import NewsListener
from techrevati.store.gates.records import FAIL, NONE, OK, Picture
from techrevati.store.gates.spec import BreakerSpec, BucketSpec, GateSpec, SlotSpec

__all__ = [
    "FAIL",
    "NONE",
    "OK",
    "Admission",
    "AsyncGate",
    "AsyncRedisCircuitBreaker",
    "AsyncRedisRateLimiter",
    "AsyncRedisTokenBucket",
    "BadCost",
    "BadGate",
    "BreakerChanged",
    "BreakerSpec",
    "BucketSpec",
    "CostTooLarge",
    "DeclarationsDiffer",
    "Event",
    "Gate",
    "GateLost",
    "GateRefused",
    "GateSpec",
    "NewsListener",
    "Picture",
    "RedisCircuitBreaker",
    "RedisRateLimiter",
    "RedisTokenBucket",
    "SlotSpec",
    "StoreBack",
    "StoreRestarted",
    "StoreTrouble",
    "UnknownBucket",
    "WorkerQuarantined",
]
