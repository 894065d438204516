"""`TokenBucket`, `RateLimiter` and their async twins whose levels a fleet shares.

    RedisRateLimiter.of("openai:m", {"rpm": 500, "input_tpm": 200_000}, store=store) ── one gate, one round trip

Who waits is told its start once, by the server's clock, and sleeps until then: in order, and nobody polls.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from techrevati.runtime.rate_limit import (
    AsyncRateLimiter,
    AsyncTokenBucket,
    RateLimiter,
    RateLimitExceededError,
    TokenBucket,
)
from techrevati.store.aio import AsyncStore
from techrevati.store.errors import StoreUnreachable
from techrevati.store.gates.calls import NONE
from techrevati.store.gates.errors import CostTooLarge, GateRefused
from techrevati.store.gates.gate import AsyncGate, Gate
from techrevati.store.gates.spec import BucketSpec, GateSpec, OnStoreError
from techrevati.store.gates.taking import Taker
from techrevati.store.sync import SyncStore

TOKENS = "tokens"
LEASE = 10.0
"""Seconds: nothing is held after a bucket gave its tokens; so long a call that is sent twice counts once."""


def _spec(name: str, buckets: tuple[BucketSpec, ...], on_store_error: OnStoreError) -> GateSpec:
    # Every start is promised at once: there are neither priorities nor tenants here to wait behind.
    return GateSpec(name=name, buckets=buckets, horizon=None, margin=0.0, staleness=0.0, on_store_error=on_store_error)


class _Take:
    """One bucket of a gate, taken from without a word about what became of the call."""

    def __init__(self, gate: Gate, bucket: str) -> None:
        self.gate, self.bucket, self._taker = gate, bucket, Taker(gate.core, bucket)

    def try_take(self, name: str, tokens: float) -> bool:
        asked = self._taker.ask(tokens)
        if asked is not None:
            try:
                took = self._taker.took(asked, self.gate._run(asked.call))
            except StoreUnreachable as error:
                self.gate.core.away.trouble(error)
            else:
                if took is not None:
                    return took
        try:
            self.take(name, tokens, 0.0)
        except RateLimitExceededError:
            return False
        return True

    def take(self, name: str, tokens: float, wait: float | None) -> None:
        try:
            self.gate.admit({self.bucket: tokens}, timeout=LEASE, wait=wait)
        except (GateRefused, CostTooLarge) as refused:
            raise RateLimitExceededError(name, tokens) from refused

    def charge(self, tokens: float) -> None:
        core = self.gate.core
        self.gate._drive(
            core.report(core.new_id(), core.worker, generation=0, outcome=NONE, back={self.bucket: -tokens})
        )

    def level(self) -> float:
        return self.gate.look().levels[self.bucket]


class _AsyncTake:
    """`_Take`, awaiting."""

    def __init__(self, gate: AsyncGate, bucket: str) -> None:
        self.gate, self.bucket, self._taker = gate, bucket, Taker(gate.core, bucket)

    async def try_take(self, name: str, tokens: float) -> bool:
        asked = self._taker.ask(tokens)
        if asked is not None:
            try:
                took = self._taker.took(asked, await self.gate._run(asked.call))
            except StoreUnreachable as error:
                self.gate.core.away.trouble(error)
            else:
                if took is not None:
                    return took
        try:
            await self.take(name, tokens, 0.0)
        except RateLimitExceededError:
            return False
        return True

    async def take(self, name: str, tokens: float, wait: float | None) -> None:
        try:
            await self.gate.admit({self.bucket: tokens}, timeout=LEASE, wait=wait)
        except (GateRefused, CostTooLarge) as refused:
            raise RateLimitExceededError(name, tokens) from refused

    async def charge(self, tokens: float) -> None:
        core = self.gate.core
        await self.gate._drive(
            core.report(core.new_id(), core.worker, generation=0, outcome=NONE, back={self.bucket: -tokens})
        )

    async def level(self) -> float:
        return (await self.gate.look()).levels[self.bucket]


@dataclass
class RedisTokenBucket(TokenBucket):
    """A `TokenBucket` that a fleet shares; ``clock`` is not used, the fleet has the server's."""

    store: SyncStore = field(kw_only=True, repr=False)
    fleet: str = field(default="shared", kw_only=True)
    on_store_error: OnStoreError = field(default="local", kw_only=True)
    gate: Gate | None = field(default=None, kw_only=True, repr=False)
    """Where the bucket is one of several of a gate: that gate; its own otherwise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        own = self.gate is None
        if self.gate is None:
            bucket = BucketSpec(TOKENS, self.capacity, self.refill_per_second)
            self.gate = Gate(self.store, self.fleet, _spec(self.name, (bucket,), self.on_store_error))
        self._shared = _Take(self.gate, TOKENS if own else self.name)

    @property
    def available(self) -> float:
        """Tokens now; below zero what is promised or owed."""
        return self._shared.level()

    def try_acquire(self, tokens: float = 1.0) -> bool:
        """Spend `tokens` if they are there.  Never waits; zero or less costs nothing."""
        return tokens <= 0 or self._shared.try_take(self.name, tokens)

    def acquire(self, tokens: float = 1.0, *, timeout: float | None = None) -> None:
        """Spend `tokens`, blocking this thread until the start that was promised.

        Raises:
            RateLimitExceededError: more than the bucket holds, or not to be had within `timeout` seconds;
                known at once, nothing is waited for in vain.
        """
        if tokens > 0:
            self._shared.take(self.name, tokens, timeout)

    def charge(self, tokens: float) -> None:
        """Spend `tokens` that are used already; what is missing is owed, and later callers wait."""
        if tokens > 0:
            self._shared.charge(tokens)

    def _charge(self, tokens: float) -> None:
        self.charge(tokens)


@dataclass
class AsyncRedisTokenBucket(AsyncTokenBucket):
    """`RedisTokenBucket` for the tasks of an event loop."""

    store: AsyncStore = field(kw_only=True, repr=False)
    fleet: str = field(default="shared", kw_only=True)
    on_store_error: OnStoreError = field(default="local", kw_only=True)
    gate: AsyncGate | None = field(default=None, kw_only=True, repr=False)
    """Where the bucket is one of several of a gate: that gate; its own otherwise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        own = self.gate is None
        if self.gate is None:
            bucket = BucketSpec(TOKENS, self.capacity, self.refill_per_second)
            self.gate = AsyncGate(self.store, self.fleet, _spec(self.name, (bucket,), self.on_store_error))
        self._charging: set[asyncio.Task[None]] = set()
        self._shared = _AsyncTake(self.gate, TOKENS if own else self.name)

    async def available(self) -> float:
        """Tokens now; below zero what is promised or owed."""
        return await self._shared.level()

    async def try_acquire(self, tokens: float = 1.0) -> bool:
        """Spend `tokens` if they are there.  Never waits; zero or less costs nothing."""
        return tokens <= 0 or await self._shared.try_take(self.name, tokens)

    async def acquire(self, tokens: float = 1.0, *, timeout: float | None = None) -> None:
        """`RedisTokenBucket.acquire`, letting other tasks run meanwhile."""
        if tokens > 0:
            await self._shared.take(self.name, tokens, timeout)

    def charge(self, tokens: float) -> None:
        """`acharge`, as soon as the loop gets to it."""
        task = asyncio.get_running_loop().create_task(self.acharge(tokens))
        self._charging.add(task)
        task.add_done_callback(self._charging.discard)

    async def acharge(self, tokens: float) -> None:
        """Spend `tokens` that are used already; what is missing is owed, and later callers wait."""
        if tokens > 0:
            await self._shared.charge(tokens)


def _charges(
    buckets: Mapping[str, Any], input_tokens: int, output_tokens: int
) -> tuple[dict[str, float], dict[str, float]]:
    """What a made call used: what can be waited for, and what no waiting could satisfy, to be owed."""
    wait: dict[str, float] = {}
    owe: dict[str, float] = {}
    for name, tokens in (("input_tpm", input_tokens), ("output_tpm", output_tokens)):
        bucket = buckets.get(name)
        if bucket is not None and tokens > 0:
            (owe if tokens > bucket.capacity else wait)[name] = float(tokens)
    return wait, owe


def _limits(per_minute: Mapping[str, float]) -> tuple[BucketSpec, ...]:
    return tuple(BucketSpec.per_minute(name, limit) for name, limit in per_minute.items())


@dataclass
class RedisRateLimiter(RateLimiter):
    """A `RateLimiter` that a fleet shares: its buckets are one gate, taken from in one round trip, all or none."""

    gate: Gate | None = field(default=None, kw_only=True, repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        per_minute: Mapping[str, float],
        *,
        store: SyncStore,
        fleet: str = "shared",
        on_store_error: OnStoreError = "local",
    ) -> "RedisRateLimiter":
        """Share so many of each a minute: ``rpm``, ``input_tpm``, ``output_tpm``."""
        gate = Gate(store, fleet, _spec(name, _limits(per_minute), on_store_error))
        buckets: dict[str, TokenBucket] = {
            bucket.name: RedisTokenBucket(bucket.name, bucket.capacity, bucket.per_second, store=store, gate=gate)
            for bucket in gate.spec.buckets
        }
        return cls(buckets, gate=gate)

    def acquire_usage(self, *, input_tokens: int, output_tokens: int, timeout: float | None = None) -> None:
        """Pay for the tokens of a call that was made, waiting if the buckets are low."""
        if self.gate is None:
            super().acquire_usage(input_tokens=input_tokens, output_tokens=output_tokens, timeout=timeout)
            return
        wait, owe = _charges(self.buckets, input_tokens, output_tokens)
        for name, tokens in owe.items():
            self.buckets[name].charge(tokens)
        if wait:
            try:
                self.gate.admit(wait, timeout=LEASE, wait=timeout)
            except GateRefused as refused:
                name, tokens = next(iter(wait.items()))
                raise RateLimitExceededError(name, tokens) from refused

    def close(self) -> None:
        """Stop listening; the store is its owner's to close."""
        if self.gate is not None:
            self.gate.close()


@dataclass
class AsyncRedisRateLimiter(AsyncRateLimiter):
    """`RedisRateLimiter` over async buckets."""

    gate: AsyncGate | None = field(default=None, kw_only=True, repr=False)

    @classmethod
    def of(
        cls,
        name: str,
        per_minute: Mapping[str, float],
        *,
        store: AsyncStore,
        fleet: str = "shared",
        on_store_error: OnStoreError = "local",
    ) -> "AsyncRedisRateLimiter":
        """Share so many of each a minute: ``rpm``, ``input_tpm``, ``output_tpm``."""
        gate = AsyncGate(store, fleet, _spec(name, _limits(per_minute), on_store_error))
        buckets: dict[str, AsyncTokenBucket] = {
            bucket.name: AsyncRedisTokenBucket(bucket.name, bucket.capacity, bucket.per_second, store=store, gate=gate)
            for bucket in gate.spec.buckets
        }
        return cls(buckets, gate=gate)

    async def acquire_usage(self, *, input_tokens: int, output_tokens: int, timeout: float | None = None) -> None:
        """Pay for the tokens of a call that was made, waiting if the buckets are low."""
        if self.gate is None:
            await super().acquire_usage(input_tokens=input_tokens, output_tokens=output_tokens, timeout=timeout)
            return
        wait, owe = _charges(self.buckets, input_tokens, output_tokens)
        for name, tokens in owe.items():
            bucket = self.buckets[name]
            assert isinstance(bucket, AsyncRedisTokenBucket)
            await bucket.acharge(tokens)
        if wait:
            try:
                await self.gate.admit(wait, timeout=LEASE, wait=timeout)
            except GateRefused as refused:
                name, tokens = next(iter(wait.items()))
                raise RateLimitExceededError(name, tokens) from refused

    async def close(self) -> None:
        """Stop listening; the store is its owner's to close."""
        if self.gate is not None:
            await self.gate.close()
