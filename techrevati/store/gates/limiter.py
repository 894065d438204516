"""`TokenBucket`, `RateLimiter` and their async twins whose levels a fleet shares.

    RedisRateLimiter.of("openai:m", {"rpm": 500, "input_tpm": 200_000}, store=store) ── one gate, one round trip

Who waits is told its start once, by the server's clock, and sleeps until then: in order, and nobody polls.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from techrevati.runtime.rate_limit import AsyncRateLimiter, AsyncTokenBucket, RateLimiter, TokenBucket
from techrevati.store.aio import AsyncStore
from techrevati.store.gates.gate import AsyncGate, Gate
from techrevati.store.gates.spec import BucketSpec, GateSpec, OnStoreError
from techrevati.store.gates.taking import Taking, pay
from techrevati.store.sync import SyncStore

TOKENS = "tokens"


def _spec(name: str, buckets: tuple[BucketSpec, ...], on_store_error: OnStoreError) -> GateSpec:
    # Every start is promised at once: there are neither priorities nor tenants here to wait behind.
    return GateSpec(name=name, buckets=buckets, horizon=None, margin=0.0, staleness=0.0, on_store_error=on_store_error)


def _one(bucket: TokenBucket | AsyncTokenBucket, on_store_error: OnStoreError) -> GateSpec:
    return _spec(bucket.name, (BucketSpec(TOKENS, bucket.capacity, bucket.refill_per_second),), on_store_error)


def _several(name: str, per_minute: Mapping[str, float], on_store_error: OnStoreError) -> GateSpec:
    buckets = tuple(BucketSpec.per_minute(bucket, limit) for bucket, limit in per_minute.items())
    return _spec(name, buckets, on_store_error)


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
        bucket = TOKENS if self.gate is None else self.name
        self._gate = self.gate = self.gate or Gate(self.store, self.fleet, _one(self, self.on_store_error))
        self._taking = Taking(self._gate.core, bucket, self.name)

    @property
    def available(self) -> float:
        """Tokens now; below zero what is promised or owed."""
        return self._gate.drive(self._taking.level())

    def try_acquire(self, tokens: float = 1.0) -> bool:
        """Spend `tokens` if they are there.  Never waits; zero or less costs nothing."""
        return tokens <= 0 or self._gate.drive(self._taking.try_take(tokens))

    def acquire(self, tokens: float = 1.0, *, timeout: float | None = None) -> None:
        """Spend `tokens`, blocking this thread until the start that was promised.

        Raises:
            RateLimitExceededError: more than the bucket holds, or not to be had within `timeout` seconds;
                known at once, nothing is waited for in vain.
        """
        if tokens > 0:
            self._gate.attend(timeout)
            self._gate.drive(self._taking.take(tokens, timeout))

    def charge(self, tokens: float) -> None:
        """Spend `tokens` that are used already; what is missing is owed, and later callers wait."""
        if tokens > 0:
            self._gate.drive(self._taking.charge(tokens))

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
        bucket = TOKENS if self.gate is None else self.name
        self._gate = self.gate = self.gate or AsyncGate(self.store, self.fleet, _one(self, self.on_store_error))
        self._taking = Taking(self._gate.core, bucket, self.name)
        self._charging: set[asyncio.Task[None]] = set()

    async def available(self) -> float:
        """Tokens now; below zero what is promised or owed."""
        return await self._gate.drive(self._taking.level())

    async def try_acquire(self, tokens: float = 1.0) -> bool:
        """Spend `tokens` if they are there.  Never waits; zero or less costs nothing."""
        return tokens <= 0 or await self._gate.drive(self._taking.try_take(tokens))

    async def acquire(self, tokens: float = 1.0, *, timeout: float | None = None) -> None:
        """`RedisTokenBucket.acquire`, letting other tasks run meanwhile."""
        if tokens > 0:
            self._gate.attend(timeout)
            await self._gate.drive(self._taking.take(tokens, timeout))

    def charge(self, tokens: float) -> None:
        """`acharge`, as soon as the loop gets to it."""
        task = asyncio.get_running_loop().create_task(self.acharge(tokens))
        self._charging.add(task)
        task.add_done_callback(self._charging.discard)

    async def acharge(self, tokens: float) -> None:
        """Spend `tokens` that are used already; what is missing is owed, and later callers wait."""
        if tokens > 0:
            await self._gate.drive(self._taking.charge(tokens))


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
        gate = Gate(store, fleet, _several(name, per_minute, on_store_error))
        buckets: dict[str, TokenBucket] = {
            bucket.name: RedisTokenBucket(bucket.name, bucket.capacity, bucket.per_second, store=store, gate=gate)
            for bucket in gate.spec.buckets
        }
        return cls(buckets, gate=gate)

    def acquire_usage(self, *, input_tokens: int, output_tokens: int, timeout: float | None = None) -> None:
        """Pay for the tokens of a call that was made, waiting if the buckets are low."""
        if self.gate is None:
            super().acquire_usage(input_tokens=input_tokens, output_tokens=output_tokens, timeout=timeout)
        else:
            used = {"input_tpm": input_tokens, "output_tpm": output_tokens}
            self.gate.drive(pay(self.gate.core, used, timeout))

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
        gate = AsyncGate(store, fleet, _several(name, per_minute, on_store_error))
        buckets: dict[str, AsyncTokenBucket] = {
            bucket.name: AsyncRedisTokenBucket(bucket.name, bucket.capacity, bucket.per_second, store=store, gate=gate)
            for bucket in gate.spec.buckets
        }
        return cls(buckets, gate=gate)

    async def acquire_usage(self, *, input_tokens: int, output_tokens: int, timeout: float | None = None) -> None:
        """Pay for the tokens of a call that was made, waiting if the buckets are low."""
        if self.gate is None:
            await super().acquire_usage(input_tokens=input_tokens, output_tokens=output_tokens, timeout=timeout)
        else:
            used = {"input_tpm": input_tokens, "output_tpm": output_tokens}
            await self.gate.drive(pay(self.gate.core, used, timeout))

    async def close(self) -> None:
        """Stop listening; the store is its owner's to close."""
        if self.gate is not None:
            await self.gate.close()
