"""Token buckets: smooth a rate, allow a burst.

    caller ──tokens──▶ take ──▶ spent │ how long to wait
                         ▲ refill, continuous and lazy

Pure functions first; the sync and the async bucket are shells that differ by one `await`.
Whoever waits stands in line, so a large request is not starved by small ones behind it.
`try_acquire` does not wait, and so does not stand in line either.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

_NAP = 0.05  # s; longest sleep between two looks at the bucket


class RateLimitExceededError(Exception):
    """A bucket cannot give that many tokens, or not in time."""

    def __init__(self, bucket_name: str, tokens: float) -> None:
        super().__init__(f"rate limit exceeded on '{bucket_name}': requested {tokens:g} tokens")
        self.bucket_name, self.tokens = bucket_name, tokens

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.bucket_name, self.tokens)


@dataclass(frozen=True, slots=True)
class Rate:
    """How much a bucket holds, and how fast it fills (tokens / s)."""

    capacity: float
    refill: float


@dataclass(frozen=True, slots=True)
class Level:
    """What is in a bucket, and when it was last looked at."""

    tokens: float
    seen_at: float  # s, same clock as `now`


def refilled(level: Level, rate: Rate, now: float) -> Level:
    """What is in it now.  A clock that went back adds nothing."""
    elapsed = max(0.0, now - level.seen_at)
    return Level(min(rate.capacity, level.tokens + elapsed * rate.refill), now)


def take(level: Level, rate: Rate, tokens: float, now: float) -> tuple[Level, float]:
    """Spend `tokens`, or say how many seconds are missing (0.0 = spent)."""
    level = refilled(level, rate, now)
    if level.tokens < tokens:
        return level, (tokens - level.tokens) / rate.refill
    return Level(level.tokens - tokens, now), 0.0


def charge(level: Level, rate: Rate, tokens: float, now: float) -> Level:
    """Spend `tokens` that are already used, into debt if need be."""
    level = refilled(level, rate, now)
    return Level(level.tokens - tokens, now)


@dataclass
class _Bucket:
    """Fields and bookkeeping that both shells share.  Starts full."""

    name: str
    capacity: float
    refill_per_second: float
    clock: Callable[[], float] = time.monotonic
    _tokens: float = field(default=0.0, init=False, repr=False, compare=False)
    _seen_at: float = field(default=0.0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.capacity <= 0:
            raise ValueError(f"capacity must be > 0, got {self.capacity} for bucket '{self.name}'")
        if self.refill_per_second <= 0:
            raise ValueError(f"refill_per_second must be > 0, got {self.refill_per_second} for bucket '{self.name}'")
        self._lock = threading.Lock()
        self._line: deque[_Waiter] = deque()
        self._line_in = self._line_out = 0.0  # tokens that ever stood in line, and that left its head
        self._tokens, self._seen_at = self.capacity, self.clock()

    def _rate(self) -> Rate:
        return Rate(self.capacity, self.refill_per_second)

    def _look(self) -> float:
        """The balance after refill; below zero is debt."""
        with self._lock:
            self._store(refilled(self._load(), self._rate(), self.clock()))
            return self._tokens

    def _charge(self, tokens: float) -> None:
        with self._lock:
            self._store(charge(self._load(), self._rate(), tokens, self.clock()))

    def _try(self, tokens: float) -> bool:
        # `take`, inlined: this is the hot path, and the record would cost more than the sum.
        if tokens <= 0:
            return True
        with self._lock:
            now = self.clock()
            elapsed = now - self._seen_at
            self._seen_at = now
            balance = self._tokens
            if elapsed > 0:
                balance += elapsed * self.refill_per_second
                if balance > self.capacity:
                    balance = self.capacity
            if balance < tokens:
                self._tokens = balance
                return False
            self._tokens = balance - tokens
            return True

    def _load(self) -> Level:
        return Level(self._tokens, self._seen_at)

    def _store(self, level: Level) -> None:
        self._tokens, self._seen_at = level.tokens, level.seen_at

    @contextmanager
    def _queued(self, tokens: float, timeout: float | None) -> Iterator[_Waiter]:
        """A place in line, given up on every way out.

        Raises:
            RateLimitExceededError: the bucket can never hold that many.
        """
        if tokens > self.capacity:
            raise RateLimitExceededError(self.name, tokens)
        waiter = _Waiter(tokens, None if timeout is None else self.clock() + timeout)
        with self._lock:
            waiter.before = self._line_in
            self._line_in += tokens
            self._line.append(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                self._leave(waiter)

    def _leave(self, waiter: _Waiter) -> None:
        if self._line[0] is waiter:
            self._line.popleft()
            self._line_out += waiter.tokens
        else:
            place = self._line.index(waiter)
            for behind in islice(self._line, place + 1, None):
                behind.before -= waiter.tokens
            del self._line[place]
            self._line_in -= waiter.tokens
        if not self._line:
            self._line_in = self._line_out = 0.0

    def _advance(self, waiter: _Waiter) -> float:
        """Spend if it is this waiter's turn; return how long to nap (0.0 = spent).

        Raises:
            RateLimitExceededError: what is needed, with all who stand before, cannot come in time.
        """
        with self._lock:
            now = self.clock()
            first = self._line[0] is waiter
            ahead = 0.0 if first else waiter.before - self._line_out
            level, wait = take(self._load(), self._rate(), ahead + waiter.tokens, now)
            if first and wait == 0.0:
                self._store(level)
                return 0.0
        if waiter.deadline is not None and wait > waiter.deadline - now:
            raise RateLimitExceededError(self.name, waiter.tokens)
        return min(_NAP, wait) or 0.001  # those before us are about to spend: look again at once


@dataclass(eq=False, slots=True)
class _Waiter:
    """Someone in line, until when, and for how many tokens the line asked before."""

    tokens: float
    deadline: float | None  # s, the bucket's clock
    before: float = 0.0


@dataclass
class TokenBucket(_Bucket):
    """One process's bucket for threads."""

    @property
    def available(self) -> float:
        """Tokens now; below zero after a charge into debt."""
        return self._look()

    def try_acquire(self, tokens: float = 1.0) -> bool:
        """Spend `tokens` if they are there.  Never waits; zero or less costs nothing."""
        return self._try(tokens)

    def acquire(self, tokens: float = 1.0, *, timeout: float | None = None) -> None:
        """Spend `tokens`, blocking this thread until they are there.

        Raises:
            RateLimitExceededError: more than the bucket holds, or not to be had within `timeout`
                seconds; known at once, nothing is waited for in vain.
        """
        if tokens <= 0 or (not self._line and self._try(tokens)):
            return
        with self._queued(tokens, timeout) as waiter:
            while nap := self._advance(waiter):
                time.sleep(nap)

    def charge(self, tokens: float) -> None:
        """Spend `tokens` that are used already; what is missing is owed, and later callers wait."""
        self._charge(tokens)


@dataclass
class AsyncTokenBucket(_Bucket):
    """One process's bucket for the tasks of an event loop; successive loops may share it."""

    async def available(self) -> float:
        """Tokens now; below zero after a charge into debt."""
        return self._look()

    async def try_acquire(self, tokens: float = 1.0) -> bool:
        """Spend `tokens` if they are there.  Never waits; zero or less costs nothing."""
        return self._try(tokens)

    async def acquire(self, tokens: float = 1.0, *, timeout: float | None = None) -> None:
        """`TokenBucket.acquire`, letting other tasks run meanwhile."""
        if tokens <= 0 or (not self._line and self._try(tokens)):
            return
        with self._queued(tokens, timeout) as waiter:
            while nap := self._advance(waiter):  # noqa: ASYNC110 - refill is lazy, nobody could set an event
                await asyncio.sleep(nap)

    def charge(self, tokens: float) -> None:
        """Spend `tokens` that are used already; what is missing is owed, and later callers wait."""
        self._charge(tokens)


def _charges(buckets: dict[str, Any], input_tokens: int, output_tokens: int) -> Iterator[tuple[Any, float]]:
    """The buckets to wait for, and for how much.

    The call behind these tokens has been made.  Counts that no waiting could ever satisfy go
    into debt on the spot instead of failing a turn that is paid for.
    """
    for key, tokens in (("input_tpm", input_tokens), ("output_tpm", output_tokens)):
        bucket = buckets.get(key)
        if bucket is None or tokens <= 0:
            continue
        if isinstance(bucket, _Bucket) and tokens > bucket.capacity:
            bucket._charge(tokens)
        else:
            yield bucket, float(tokens)


@dataclass
class RateLimiter:
    """Buckets by name: ``rpm``, ``input_tpm``, ``output_tpm``.  Absent ones never limit."""

    buckets: dict[str, TokenBucket] = field(default_factory=dict)

    def get(self, name: str) -> TokenBucket | None:
        """The bucket of that name."""
        return self.buckets.get(name)

    def acquire_pre_call(self, *, request_cost: float = 1.0, timeout: float | None = None) -> None:
        """Wait for a request to be allowed (``rpm``)."""
        bucket = self.buckets.get("rpm")
        if bucket is not None:
            bucket.acquire(request_cost, timeout=timeout)

    def acquire_usage(self, *, input_tokens: int, output_tokens: int, timeout: float | None = None) -> None:
        """Pay for the tokens of a call that was made, waiting if the buckets are low."""
        for bucket, tokens in _charges(self.buckets, input_tokens, output_tokens):
            bucket.acquire(tokens, timeout=timeout)


@dataclass
class AsyncRateLimiter:
    """`RateLimiter` over async buckets."""

    buckets: dict[str, AsyncTokenBucket] = field(default_factory=dict)

    def get(self, name: str) -> AsyncTokenBucket | None:
        """The bucket of that name."""
        return self.buckets.get(name)

    async def acquire_pre_call(self, *, request_cost: float = 1.0, timeout: float | None = None) -> None:
        """Wait for a request to be allowed (``rpm``)."""
        bucket = self.buckets.get("rpm")
        if bucket is not None:
            await bucket.acquire(request_cost, timeout=timeout)

    async def acquire_usage(self, *, input_tokens: int, output_tokens: int, timeout: float | None = None) -> None:
        """Pay for the tokens of a call that was made, waiting if the buckets are low."""
        for bucket, tokens in _charges(self.buckets, input_tokens, output_tokens):
            await bucket.acquire(tokens, timeout=timeout)
