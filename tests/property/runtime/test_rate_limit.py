"""Buckets under any sequence of requests."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from techrevati.runtime import ManualClock, RateLimitExceededError, TokenBucket
from techrevati.runtime.rate_limit import Level, Rate, charge, refilled, take

rates = st.builds(Rate, st.floats(0.5, 1000), st.floats(0.01, 1000))
amounts = st.floats(0.001, 1000)


@settings(deadline=None)
@given(rates, st.lists(st.tuples(amounts, st.floats(-5, 5)), max_size=50))
def test_never_more_than_capacity_plus_refill_is_spent(rate: Rate, script: list[tuple[float, float]]) -> None:
    level, now, spent, latest = Level(rate.capacity, 0.0), 0.0, 0.0, 0.0
    advanced = 0.0
    for tokens, passed in script:
        now += passed
        advanced += max(0.0, passed)
        level, wait = take(level, rate, tokens, now)
        assert level.tokens <= rate.capacity
        assert level.tokens >= 0
        if wait == 0.0:
            spent += tokens
        else:
            assert wait > 0
        latest = max(latest, now)
    assert spent <= rate.capacity + advanced * rate.refill + 1e-6 * (1 + spent)


@settings(deadline=None)
@given(rates, amounts, st.floats(0, 100))
def test_the_wait_it_names_is_enough(rate: Rate, tokens: float, start: float) -> None:
    tokens = min(tokens, rate.capacity)
    level, _ = take(Level(rate.capacity, start), rate, rate.capacity, start)
    level, wait = take(level, rate, tokens, start)
    after, still = take(level, rate, tokens, start + wait * 1.0001 + 1e-9)
    assert still == 0.0
    assert after.tokens >= 0


@settings(deadline=None)
@given(rates, st.floats(0, 5000))
def test_debt_is_paid_by_refill(rate: Rate, tokens: float) -> None:
    level = charge(Level(rate.capacity, 0.0), rate, tokens, 0.0)
    assert level.tokens == rate.capacity - tokens
    assert refilled(level, rate, tokens / rate.refill + 1.0).tokens == pytest.approx(rate.capacity)


@settings(deadline=None)
@given(rates, st.lists(st.tuples(st.floats(-1, 50), st.floats(-2, 2), st.booleans()), max_size=50))
def test_the_fast_path_is_the_pure_function(rate: Rate, script: list[tuple[float, float, bool]]) -> None:
    clock = ManualClock(start=0.0)
    bucket = TokenBucket("b", rate.capacity, rate.refill, clock)
    level = Level(rate.capacity, 0.0)
    for tokens, passed, look in script:
        clock.advance(passed)
        if look:
            level = refilled(level, rate, clock())
            assert bucket.available == pytest.approx(level.tokens)
        elif tokens <= 0:
            assert bucket.try_acquire(tokens)
        else:
            level, wait = take(level, rate, tokens, clock())
            assert bucket.try_acquire(tokens) == (wait == 0.0)


@settings(deadline=None)
@given(rates, amounts, st.floats(0, 10))
def test_a_timeout_fails_exactly_when_refill_cannot_come(rate: Rate, tokens: float, timeout: float) -> None:
    tokens = min(tokens, rate.capacity)
    clock = ManualClock(start=0.0)
    bucket = TokenBucket("b", rate.capacity, rate.refill, clock)
    bucket.try_acquire(rate.capacity)
    if tokens / rate.refill > timeout:
        with pytest.raises(RateLimitExceededError):
            bucket.acquire(tokens, timeout=timeout)
        assert not bucket._line
    else:
        clock.advance(timeout + 1e-6)
        bucket.acquire(tokens, timeout=0)
