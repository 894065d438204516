"""`CircuitBreaker` and `AsyncCircuitBreaker` whose state a fleet shares.

    AgentSession(circuit_breaker=RedisCircuitBreaker("search-api", store=store)) ── all replicas stop together

The same calls, the same states; while closed only a call's outcome travels, while open nothing does.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from techrevati.runtime.circuit_breaker import AsyncCircuitBreaker, CircuitBreaker, CircuitOpenError, CircuitState
from techrevati.store.aio import AsyncStore
from techrevati.store.gates.errors import GateRefused
from techrevati.store.gates.events import Listener
from techrevati.store.gates.gate import AsyncGate, Gate
from techrevati.store.gates.records import FAIL, NONE, OK
from techrevati.store.gates.spec import BreakerSpec, GateSpec, OnStoreError
from techrevati.store.sync import SyncStore

P = ParamSpec("P")
T = TypeVar("T")


def _rule(breaker: CircuitBreaker | AsyncCircuitBreaker) -> BreakerSpec:
    """A breaker of one process has one cool-down, no ramp, and counts every failure; so has this."""
    return BreakerSpec(
        failure_threshold=breaker.failure_threshold,
        cooldown=breaker.recovery_timeout_seconds,
        cooldown_factor=1.0,
        cooldown_max=breaker.recovery_timeout_seconds,
        probes=breaker.half_open_max_probes,
        excluded=(),
    )


def _outcome(error: BaseException) -> str:
    """What an ending says of the dependency; nothing, where nobody waits for it any more."""
    return FAIL if isinstance(error, Exception) else NONE


@dataclass(kw_only=True)
class _Shared:
    """What the fleet's breakers have beyond those of one process."""

    fleet: str = "shared"
    rule: BreakerSpec | None = None
    """All of a breaker's declaration, instead of the three plain fields."""
    staleness: float = 0.25
    on_store_error: OnStoreError = "local"
    worker: str | None = None
    timeout: float = 60.0
    """Seconds after which a probe that was never heard of again frees its permit."""
    on_event: Listener | None = field(default=None, repr=False)

    def _spec(self, breaker: CircuitBreaker | AsyncCircuitBreaker) -> GateSpec:
        return GateSpec(
            name=breaker.name,
            breaker=self.rule or _rule(breaker),
            staleness=self.staleness,
            on_store_error=self.on_store_error,
        )

    def _how(self, breaker: CircuitBreaker | AsyncCircuitBreaker) -> dict[str, Any]:
        return {"worker": self.worker, "on_event": self.on_event, "monotonic": breaker.clock}


@dataclass
class RedisCircuitBreaker(_Shared, CircuitBreaker):
    """A breaker for plain calls, shared through Redis; safe for threads.

    The fleet's time is the server's; ``clock`` only dates the local view.
    """

    store: SyncStore = field(kw_only=True, repr=False)

    _admit = None  # type: ignore[assignment] # a permit takes a round trip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gate = Gate(self.store, self.fleet, self._spec(self), **self._how(self))

    def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` if the fleet's breaker admits it, and let the fleet learn from how it ends.

        Raises:
            CircuitOpenError: not admitted; `fn` was not called.
        """
        if self.gate.refuses():  # before anything is set up: a storm of callers meets this
            raise CircuitOpenError(self.name)
        with self.permit():
            return fn(*args, **kwargs)

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Hold a permit for what is done inside; the fleet learns from how it ends.

        Raises:
            CircuitOpenError: not admitted; nothing of it was done.
        """
        gate = self.gate
        if gate.refuses():
            raise CircuitOpenError(self.name)
        try:
            admission = gate.admit(timeout=self.timeout)
        except GateRefused as refused:
            raise CircuitOpenError(self.name) from refused
        try:
            yield
        except BaseException as error:
            gate.settle(admission, outcome=_outcome(error))
            raise
        gate.settle(admission)

    def record_success(self) -> None:
        """Count a good result by hand."""
        self.gate.record(OK)

    def record_failure(self) -> None:
        """Count a bad result by hand."""
        self.gate.record(FAIL)

    def state(self) -> CircuitState:
        """The state a caller would meet, no older than the staleness bound."""
        return self.gate.state()

    def is_open(self) -> bool:
        """Whether a call would be refused for being too early."""
        return self.state() is CircuitState.OPEN

    def reset(self) -> None:
        """Close it, for the whole fleet, and forget everything."""
        self.gate.force_close()

    def close(self) -> None:
        """Stop listening; the store is its owner's to close."""
        self.gate.close()


@dataclass
class AsyncRedisCircuitBreaker(_Shared, AsyncCircuitBreaker):
    """`RedisCircuitBreaker` for coroutines."""

    store: AsyncStore = field(kw_only=True, repr=False)

    _admit = None  # type: ignore[assignment] # a permit takes a round trip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gate = AsyncGate(self.store, self.fleet, self._spec(self), **self._how(self))

    async def call(self, coro_factory: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """`RedisCircuitBreaker.call`, awaiting ``coro_factory(*args, **kwargs)``."""
        if self.gate.refuses():
            raise CircuitOpenError(self.name)
        async with self.permit():
            return await coro_factory(*args, **kwargs)

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold a permit for what is done inside, as a stream does until its last chunk; see `RedisCircuitBreaker`.

        Raises:
            CircuitOpenError: not admitted; nothing of it was done.
        """
        gate = self.gate
        if gate.refuses():
            raise CircuitOpenError(self.name)
        try:
            admission = await gate.admit(timeout=self.timeout)
        except GateRefused as refused:
            raise CircuitOpenError(self.name) from refused
        try:
            yield
        except BaseException as error:  # a consumer that went away is one, too
            await asyncio.shield(gate.settle(admission, outcome=_outcome(error)))
            raise
        await gate.settle(admission)

    async def record_success(self) -> None:
        """Count a good result by hand."""
        await self.gate.record(OK)

    async def record_failure(self) -> None:
        """Count a bad result by hand."""
        await self.gate.record(FAIL)

    async def state(self) -> CircuitState:
        """The state a caller would meet, no older than the staleness bound."""
        return await self.gate.state()

    async def is_open(self) -> bool:
        """Whether a call would be refused for being too early."""
        return await self.state() is CircuitState.OPEN

    async def reset(self) -> None:
        """Close it, for the whole fleet, and forget everything."""
        await self.gate.force_close()

    async def close(self) -> None:
        """Stop listening; the store is its owner's to close."""
        await self.gate.close()


__all__: list[Any] = ["AsyncRedisCircuitBreaker", "RedisCircuitBreaker"]
