"""Buckets and limiters: never over-spend, never wait in vain, serve in line."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from techrevati.runtime import (
    AsyncRateLimiter,
    AsyncTokenBucket,
    ManualClock,
    RateLimiter,
    RateLimitExceededError,
    TokenBucket,
)


class Running(ManualClock):
    """A clock that moves on a little each time it is read: waiting needs no real time."""

    def __call__(self) -> float:
        self.advance(0.01)
        return super().__call__()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr("techrevati.runtime.rate_limit.time.sleep", slept.append)
    return slept


def test_construction_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="capacity must be > 0"):
        TokenBucket("b", 0, 1)
    with pytest.raises(ValueError, match="refill_per_second must be > 0"):
        AsyncTokenBucket("b", 1, -1)


def test_a_bucket_starts_full_refills_lazily_and_overflows() -> None:
    clock = ManualClock()
    bucket = TokenBucket("b", 10, 2, clock)
    assert bucket.try_acquire(10)
    assert not bucket.try_acquire()
    clock.advance(1)
    assert bucket.available == 2
    assert bucket.try_acquire(2)
    clock.advance(100)
    assert bucket.available == 10


def test_a_clock_that_goes_back_adds_nothing() -> None:
    now = [100.0]
    bucket = TokenBucket("b", 10, 1, lambda: now[0])
    bucket.try_acquire(10)
    now[0] = 50.0
    assert bucket.available == 0
    assert not bucket.try_acquire()
    now[0] = 51.0
    assert bucket.try_acquire()


def test_nothing_costs_nothing_even_when_empty() -> None:
    bucket = TokenBucket("b", 1, 1, ManualClock())
    bucket.try_acquire()
    assert bucket.try_acquire(0)
    assert bucket.try_acquire(-5)
    bucket.acquire(0)
    bucket.acquire(-1)
    assert bucket.available == 0


def test_acquire_waits_in_short_naps_until_there_is_enough(naps: list[float]) -> None:
    bucket = TokenBucket("b", 10, 10, Running())
    bucket.acquire(10)
    bucket.acquire(5)
    assert naps
    assert max(naps) <= 0.05
    bucket.acquire(1, timeout=5)


def test_impossible_requests_fail_at_once(naps: list[float]) -> None:
    clock = ManualClock()
    bucket = TokenBucket("b", 10, 1, clock)
    with pytest.raises(RateLimitExceededError) as caught:
        bucket.acquire(11)
    assert (caught.value.bucket_name, caught.value.tokens) == ("b", 11)
    bucket.acquire(10, timeout=0)
    with pytest.raises(RateLimitExceededError):
        bucket.acquire(1, timeout=0)
    with pytest.raises(RateLimitExceededError):
        bucket.acquire(5, timeout=4.9)
    assert naps == []


async def test_the_async_bucket_lets_others_run() -> None:
    bucket = AsyncTokenBucket("b", 100, 1000)
    assert await bucket.try_acquire(100)
    turns = 0
    waiting = asyncio.create_task(bucket.acquire(20))
    while not waiting.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 1
    assert await bucket.available() < 100
    with pytest.raises(RateLimitExceededError):
        await bucket.acquire(101)
    with pytest.raises(RateLimitExceededError):
        await bucket.acquire(100, timeout=0.0001)
    await bucket.acquire(0)


async def test_waiters_are_served_in_line() -> None:
    clock = ManualClock()
    bucket = AsyncTokenBucket("b", 10, 10, clock)
    await bucket.acquire(10)
    served: list[str] = []

    async def want(name: str, tokens: float) -> None:
        await bucket.acquire(tokens)
        served.append(name)

    tasks = [asyncio.create_task(want("large", 9))]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(want(f"small{n}", 1)) for n in range(3)]
    await asyncio.sleep(0)
    while len(served) < 4:
        clock.advance(0.05)
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    assert served[0] == "large"


async def test_a_waiter_that_leaves_makes_room() -> None:
    clock = ManualClock()
    bucket = AsyncTokenBucket("b", 10, 1, clock)
    await bucket.acquire(10)
    first = asyncio.create_task(bucket.acquire(10))
    await asyncio.sleep(0)
    with pytest.raises(RateLimitExceededError):  # ten seconds are spoken for
        await bucket.acquire(1, timeout=5)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    clock.advance(1)
    await bucket.acquire(1, timeout=0)


async def test_a_thousand_waiters_stand_in_one_line() -> None:
    clock = ManualClock()
    bucket = AsyncTokenBucket("b", 10, 10, clock)
    await bucket.acquire(10)
    served: list[int] = []

    async def want(n: int) -> None:
        await bucket.acquire(0.1)
        served.append(n)

    tasks = [asyncio.create_task(want(n)) for n in range(1000)]
    await asyncio.sleep(0)
    for gone in range(100, 1000, 7):
        tasks[gone].cancel()
    while not all(task.done() for task in tasks):
        clock.advance(1)
        await asyncio.sleep(0.005)
    left = [n for n in range(1000) if not tasks[n].cancelled()]
    assert sorted(served) == left
    assert served[:5] == left[:5]
    assert (bucket._line_in, bucket._line_out) == (0.0, 0.0)


def test_limiter_pays_known_buckets_only() -> None:
    clock = ManualClock()
    rpm, tokens = TokenBucket("rpm", 2, 1, clock), TokenBucket("in", 100, 1, clock)
    limiter = RateLimiter({"rpm": rpm, "input_tpm": tokens, "other": TokenBucket("o", 1, 1, clock)})
    limiter.acquire_pre_call()
    limiter.acquire_usage(input_tokens=60, output_tokens=500)
    limiter.acquire_usage(input_tokens=0, output_tokens=-3)
    assert (rpm.available, tokens.available) == (1, 40)
    assert limiter.get("rpm") is rpm
    assert limiter.get("absent") is None
    with pytest.raises(RateLimitExceededError):
        limiter.acquire_pre_call(request_cost=2, timeout=0)
    with pytest.raises(RateLimitExceededError):
        limiter.acquire_usage(input_tokens=50, output_tokens=0, timeout=1)
    RateLimiter().acquire_pre_call()


def test_a_charge_beyond_capacity_goes_into_debt() -> None:
    clock = ManualClock()
    bucket = TokenBucket("in", 100, 10, clock)
    RateLimiter({"input_tpm": bucket}).acquire_usage(input_tokens=150, output_tokens=0)
    assert bucket.available == -50
    clock.advance(5)
    assert not bucket.try_acquire()
    clock.advance(1)
    assert bucket.try_acquire(10)
    bucket.charge(5)
    assert bucket.available == -5
    with pytest.raises(RateLimitExceededError):
        bucket.acquire(101)


async def test_the_async_limiter_does_the_same() -> None:
    clock = ManualClock()
    rpm, out = AsyncTokenBucket("rpm", 2, 1, clock), AsyncTokenBucket("out", 100, 1, clock)
    limiter = AsyncRateLimiter({"rpm": rpm, "output_tpm": out})
    await limiter.acquire_pre_call()
    await limiter.acquire_usage(input_tokens=9, output_tokens=60)
    assert (await rpm.available(), await out.available()) == (1, 40)
    await limiter.acquire_usage(input_tokens=0, output_tokens=140)
    assert await out.available() == -100
    assert limiter.get("rpm") is rpm
    out.charge(1)
    assert await out.available() == -101
    await AsyncRateLimiter().acquire_pre_call()


def test_threads_never_overspend() -> None:
    bucket = TokenBucket("b", 500, 1e-9)
    barrier = threading.Barrier(8)

    def work(_: int) -> int:
        barrier.wait()
        return sum(bucket.try_acquire() for _ in range(200))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 500


def test_threads_that_wait_are_all_served() -> None:
    bucket = TokenBucket("b", 10, 5000)
    barrier = threading.Barrier(8)

    def work(_: int) -> int:
        barrier.wait()
        for _ in range(20):
            bucket.acquire(3)
        return 20

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 160
    assert not bucket._line


async def test_tasks_never_overspend() -> None:
    bucket = AsyncTokenBucket("b", 50, 1e-9)
    results = await asyncio.gather(*(bucket.try_acquire() for _ in range(80)))
    assert sum(results) == 50
