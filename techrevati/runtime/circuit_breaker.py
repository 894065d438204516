"""Circuit breaker: stop calling what keeps failing, probe it now and then.

    CLOSED ──threshold failures──▶ OPEN ──timeout──▶ HALF_OPEN ──success──▶ CLOSED
                                     ▲──────────────────┘ failure

Pure transitions on a `Breaker` record first, two shells of a few lines below: the sync and
the async class differ by one `await`.  The closed path of `call` skips the record, for speed.

Source: M. Nygard, "Release It!", 2007, ch. 5.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class CircuitState(str, Enum):  # noqa: UP042 - callers rely on plain-Enum str()
    """Let everything through, nothing, or a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


_CLOSED, _OPEN, _HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class CircuitOpenError(Exception):
    """The breaker did not let the call through; nothing was called."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Circuit breaker '{name}' is OPEN")
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name,)


@dataclass(frozen=True, slots=True)
class Rule:
    """When to open, when to probe, how many probes at once."""

    failure_threshold: int
    recovery_timeout: float  # s
    max_probes: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """What one breaker knows.  `generation` grows at each change of state."""

    state: CircuitState = CircuitState.CLOSED
    failures: int = 0
    failed_at: float | None = None  # s, same clock as `now`
    probes: int = 0  # in flight
    generation: int = 0


def seen_state(breaker: Breaker, rule: Rule, now: float) -> CircuitState:
    """The state a caller meets: an open breaker whose time has come is half-open."""
    if breaker.state is _OPEN and _elapsed(breaker, rule, now):
        return _HALF_OPEN
    return breaker.state


def admit(breaker: Breaker, rule: Rule, now: float) -> tuple[Breaker, bool]:
    """Let a call in, as a probe if need be, or refuse it."""
    if breaker.state is _CLOSED:
        return breaker, True
    if breaker.state is _OPEN:
        if not _elapsed(breaker, rule, now):
            return breaker, False
        return Breaker(_HALF_OPEN, breaker.failures, breaker.failed_at, 1, breaker.generation + 1), True
    if breaker.probes >= rule.max_probes:
        return breaker, False
    return _with_probes(breaker, breaker.probes + 1), True


def succeed(breaker: Breaker) -> Breaker:
    """A good result: forget failures; it closes a half-open breaker, never an open one."""
    if breaker.state is _HALF_OPEN:
        return Breaker(_CLOSED, 0, breaker.failed_at, 0, breaker.generation + 1)
    return Breaker(breaker.state, 0, breaker.failed_at, breaker.probes, breaker.generation)


def fail(breaker: Breaker, rule: Rule, now: float) -> Breaker:
    """A bad result: count it, restart the window, open if that was one too many."""
    failures = breaker.failures + 1
    if breaker.state is _HALF_OPEN:
        return Breaker(_OPEN, failures, now, 0, breaker.generation + 1)
    if breaker.state is _CLOSED and failures >= rule.failure_threshold:
        return Breaker(_OPEN, failures, now, breaker.probes, breaker.generation + 1)
    return Breaker(breaker.state, failures, now, breaker.probes, breaker.generation)


def give_back(breaker: Breaker) -> Breaker:
    """A probe ended without a verdict: its permit is free again, nothing is counted."""
    if breaker.state is _HALF_OPEN and breaker.probes > 0:
        return _with_probes(breaker, breaker.probes - 1)
    return breaker


def _with_probes(breaker: Breaker, probes: int) -> Breaker:
    return Breaker(breaker.state, breaker.failures, breaker.failed_at, probes, breaker.generation)


def _elapsed(breaker: Breaker, rule: Rule, now: float) -> bool:
    return breaker.failed_at is not None and now - breaker.failed_at >= rule.recovery_timeout


class _StateLock:
    """The breaker's lock: re-entrant, for `with` and for `async with`; held for microseconds."""

    __slots__ = ("_lock", "acquire", "release")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()

    async def __aenter__(self) -> None:
        self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@dataclass
class _Core:
    """Fields and bookkeeping that both shells share; `_lock` guards the rest of the state."""

    name: str
    failure_threshold: int = 5
    recovery_timeout_seconds: float = 60.0
    half_open_max_probes: int = 1
    clock: Callable[[], float] = time.monotonic
    _state: CircuitState = field(default=_CLOSED, init=False, repr=False, compare=False)
    _failure_count: int = field(default=0, init=False, repr=False, compare=False)
    _last_failure_time: float | None = field(default=None, init=False, repr=False, compare=False)
    _probe_in_flight: int = field(default=0, init=False, repr=False, compare=False)
    _generation: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._lock: Any = self._new_lock()

    def _new_lock(self) -> Any:
        return threading.RLock()

    def _rule(self) -> Rule:
        return Rule(self.failure_threshold, self.recovery_timeout_seconds, self.half_open_max_probes)

    def _load(self) -> Breaker:
        return Breaker(
            self._state, self._failure_count, self._last_failure_time, self._probe_in_flight, self._generation
        )

    def _store(self, breaker: Breaker) -> None:
        self._state, self._failure_count = breaker.state, breaker.failures
        self._last_failure_time, self._probe_in_flight = breaker.failed_at, breaker.probes
        self._generation = breaker.generation

    def _admit(self) -> int:
        """Permit for one call: the generation it was admitted in, to be settled exactly once."""
        with self._lock:
            breaker, admitted = admit(self._load(), self._rule(), self.clock())
            if not admitted:
                raise CircuitOpenError(self.name)
            self._store(breaker)
            return breaker.generation

    def _give_back(self, permit: int) -> None:
        with self._lock:
            if permit == self._generation:
                self._store(give_back(self._load()))

    def _succeed(self) -> None:
        with self._lock:
            if self._state is _CLOSED:
                self._failure_count = 0
            else:
                self._store(succeed(self._load()))

    def _fail(self) -> None:
        with self._lock:
            self._store(fail(self._load(), self._rule(), self.clock()))

    def _seen(self) -> CircuitState:
        with self._lock:
            return seen_state(self._load(), self._rule(), self.clock())

    def _reset(self) -> None:
        with self._lock:
            self._store(Breaker(generation=self._generation + 1))

    def _settle(self, permit: int, error: BaseException | None) -> None:
        """Report how an admitted call ended; one of an older generation says nothing."""
        with self._lock:
            if permit != self._generation:
                return
            if error is None:
                self._succeed()
            elif isinstance(error, Exception):
                self._fail()
            else:
                self._store(give_back(self._load()))


@dataclass
class CircuitBreaker(_Core):
    """A breaker for plain calls, safe to share between threads."""

    def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` if the breaker admits it, and learn from how it ends.

        A call cut short by a `BaseException` (interrupt, cancellation) counts neither way, and a
        result from before the last change of state is ignored.

        Raises:
            CircuitOpenError: not admitted; `fn` was not called.
        """
        permit = self._generation  # before the state: a stale permit is harmless, a fresh one is not
        if self._state is not _CLOSED:
            permit = self._admit()
        try:
            result = fn(*args, **kwargs)
        except Exception:
            with self._lock:
                if permit == self._generation:
                    self.record_failure()
            raise
        except BaseException:
            self._give_back(permit)
            raise
        with self._lock:
            if permit == self._generation:
                self.record_success()
        return result

    def record_success(self) -> None:
        """Count a good result by hand."""
        self._succeed()

    def record_failure(self) -> None:
        """Count a bad result by hand."""
        self._fail()

    def state(self) -> CircuitState:
        """The state a caller would meet now.  Never changes it."""
        return self._seen()

    def is_open(self) -> bool:
        """Whether a call would be refused for being too early."""
        return self._seen() is _OPEN

    def reset(self) -> None:
        """Close it and forget everything."""
        self._reset()


@dataclass
class AsyncCircuitBreaker(_Core):
    """A breaker for coroutines, safe to share between tasks; it knows nothing of a sync one."""

    def _new_lock(self) -> Any:
        return _StateLock()

    async def call(self, coro_factory: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """`CircuitBreaker.call`, awaiting ``coro_factory(*args, **kwargs)``."""
        permit = self._generation  # before the state: a stale permit is harmless, a fresh one is not
        if self._state is not _CLOSED:
            permit = self._admit()
        try:
            result = await coro_factory(*args, **kwargs)
        except Exception:
            if permit == self._generation:
                await self.record_failure()
            raise
        except BaseException:
            self._give_back(permit)
            raise
        if permit == self._generation:
            await self.record_success()
        return result

    async def record_success(self) -> None:
        """Count a good result by hand."""
        self._succeed()

    async def record_failure(self) -> None:
        """Count a bad result by hand."""
        self._fail()

    async def state(self) -> CircuitState:
        """The state a caller would meet now.  Never changes it."""
        return self._seen()

    async def is_open(self) -> bool:
        """Whether a call would be refused for being too early."""
        return self._seen() is _OPEN

    async def reset(self) -> None:
        """Close it and forget everything."""
        self._reset()
