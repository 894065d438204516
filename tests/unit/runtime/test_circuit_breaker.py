"""The breaker, in both worlds, and its state under threads and tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from techrevati.runtime import (
    AsyncCircuitBreaker,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    ManualClock,
)


class Boom(Exception):
    pass


def boom() -> None:
    raise Boom


async def aboom() -> None:
    raise Boom


def ok() -> int:
    return 7


def add(a: int, *, b: int) -> int:
    return a + b


async def aok() -> int:
    return 7


def opened(clock: ManualClock, **options: Any) -> CircuitBreaker:
    breaker = CircuitBreaker("b", failure_threshold=1, recovery_timeout_seconds=10, clock=clock, **options)
    breaker.record_failure()
    return breaker


def test_it_opens_at_the_threshold_and_closes_after_a_good_probe() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker("b", failure_threshold=2, recovery_timeout_seconds=10, clock=clock)
    for _ in range(2):
        assert breaker.state() is CircuitState.CLOSED
        with pytest.raises(Boom):
            breaker.call(boom)
    assert breaker.is_open()
    with pytest.raises(CircuitOpenError, match="Circuit breaker 'b' is OPEN") as caught:
        breaker.call(ok)
    assert caught.value.name == "b"
    clock.advance(10)
    assert breaker.state() is CircuitState.HALF_OPEN
    assert breaker._state is CircuitState.OPEN
    assert breaker.call(add, 3, b=4) == 7
    assert breaker.state() is CircuitState.CLOSED
    assert (breaker._failure_count, breaker._probe_in_flight) == (0, 0)


def test_a_bad_probe_opens_it_again_for_the_whole_window() -> None:
    clock = ManualClock()
    breaker = opened(clock)
    clock.advance(10)
    with pytest.raises(Boom):
        breaker.call(boom)
    clock.advance(9.9)
    assert breaker.is_open()
    assert breaker._probe_in_flight == 0


def test_a_good_result_forgets_failures_while_closed() -> None:
    breaker = CircuitBreaker("b", failure_threshold=2)
    for _ in range(5):
        with pytest.raises(Boom):
            breaker.call(boom)
        breaker.call(ok)
    assert breaker._state is CircuitState.CLOSED


def test_manual_records_follow_the_table() -> None:
    clock = ManualClock()
    breaker = opened(clock)
    clock.advance(5)
    breaker.record_failure()
    assert (breaker._failure_count, breaker._last_failure_time) == (2, clock())
    breaker.record_success()
    assert (breaker._state, breaker._failure_count) == (CircuitState.OPEN, 0)
    breaker.reset()
    assert (breaker._state, breaker._last_failure_time) == (CircuitState.CLOSED, None)


def test_exactly_n_probes_run_at_once() -> None:
    clock = ManualClock()
    breaker = opened(clock, half_open_max_probes=2)
    clock.advance(10)
    seen: list[int] = []

    def probe(depth: int) -> None:
        seen.append(breaker._probe_in_flight)
        if depth < 2:
            breaker.call(probe, depth + 1)
        else:
            with pytest.raises(CircuitOpenError):
                breaker.call(ok)

    breaker.call(probe, 1)
    assert seen == [1, 2]
    assert breaker._state is CircuitState.CLOSED


def test_no_probes_allowed_still_lets_the_first_call_through() -> None:
    clock = ManualClock()
    breaker = opened(clock, half_open_max_probes=0)
    clock.advance(10)

    def probe() -> int:
        with pytest.raises(CircuitOpenError):
            breaker.call(ok)
        return 1

    assert breaker.call(probe) == 1


def test_an_interrupted_probe_gives_its_permit_back() -> None:
    clock = ManualClock()
    breaker = opened(clock)
    clock.advance(10)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaker.call(interrupted)
    assert (breaker._state, breaker._probe_in_flight) == (CircuitState.HALF_OPEN, 0)
    assert breaker._failure_count == 1
    assert breaker.call(ok) == 7
    with pytest.raises(KeyboardInterrupt):
        breaker.call(interrupted)
    assert breaker._state is CircuitState.CLOSED


@pytest.mark.parametrize("late", [ok, boom])
def test_a_result_from_before_the_last_change_is_ignored(late: Callable[[], Any]) -> None:
    clock = ManualClock()
    breaker = CircuitBreaker("b", failure_threshold=1, recovery_timeout_seconds=10, clock=clock)
    inside: dict[str, Any] = {}

    def slow() -> Any:
        breaker.record_failure()  # opens meanwhile
        clock.advance(10)

        def probe() -> None:
            inside["state"] = breaker._state

        breaker._admit()  # somebody else's probe is running
        probe()
        return late()

    with suppress(Boom):
        breaker.call(slow)
    assert inside["state"] is CircuitState.HALF_OPEN
    assert (breaker._state, breaker._probe_in_flight) == (CircuitState.HALF_OPEN, 1)


def test_a_subclass_sees_its_results() -> None:
    class Counting(CircuitBreaker):
        good = bad = 0

        def record_success(self) -> None:
            self.good += 1
            super().record_success()

        def record_failure(self) -> None:
            self.bad += 1
            super().record_failure()

    breaker = Counting("b")
    breaker.call(ok)
    with pytest.raises(Boom):
        breaker.call(boom)
    assert (breaker.good, breaker.bad) == (1, 1)


def test_repr_shows_the_fields_only() -> None:
    assert repr(CircuitBreaker("b")).startswith("CircuitBreaker(name='b', failure_threshold=5,")
    assert "_state" not in repr(CircuitBreaker("b"))


async def test_the_async_breaker_follows_the_same_table() -> None:
    clock = ManualClock()
    breaker = AsyncCircuitBreaker("b", failure_threshold=1, recovery_timeout_seconds=10, clock=clock)
    assert await breaker.call(aok) == 7
    with pytest.raises(Boom):
        await breaker.call(aboom)
    assert await breaker.is_open()
    with pytest.raises(CircuitOpenError):
        await breaker.call(aok)
    clock.advance(10)
    assert await breaker.state() is CircuitState.HALF_OPEN
    assert await breaker.call(aok) == 7
    await breaker.record_failure()
    await breaker.record_success()
    assert await breaker.state() is CircuitState.OPEN
    await breaker.reset()
    async with breaker._lock:
        assert breaker._state is CircuitState.CLOSED
    with breaker._lock:
        assert breaker._failure_count == 0


async def test_a_cancelled_probe_gives_its_permit_back() -> None:
    clock = ManualClock()
    breaker = AsyncCircuitBreaker("b", failure_threshold=1, recovery_timeout_seconds=10, clock=clock)
    await breaker.record_failure()
    clock.advance(10)
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    probe = asyncio.create_task(breaker.call(hang))
    await started.wait()
    with pytest.raises(CircuitOpenError):
        await breaker.call(aok)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert await breaker.call(aok) == 7


@pytest.mark.parametrize("late", [aok, aboom])
async def test_async_results_of_an_older_generation_are_ignored(late: Callable[[], Any]) -> None:
    breaker = AsyncCircuitBreaker("b", failure_threshold=1)

    async def slow() -> Any:
        await breaker.record_failure()
        return await late()

    with suppress(Boom):
        await breaker.call(slow)
    assert (breaker._state, breaker._failure_count) == (CircuitState.OPEN, 1)


def test_one_breaker_serves_successive_loops() -> None:
    breaker = AsyncCircuitBreaker("b")
    assert [asyncio.run(breaker.call(aok)) for _ in range(2)] == [7, 7]


def test_threads_never_break_the_invariants() -> None:
    breaker = CircuitBreaker("b", failure_threshold=3, recovery_timeout_seconds=0.0, half_open_max_probes=2)
    barrier = threading.Barrier(8)
    running = 0
    peak = 0
    counting = threading.Lock()

    def work(seed: int) -> int:
        nonlocal running, peak
        barrier.wait()
        wrong = 0
        for n in range(300):
            with suppress(Boom, CircuitOpenError):
                breaker.call(boom if (n * 7 + seed) % 3 else ok)
            with breaker._lock:
                if breaker._failure_count >= 3 and breaker._state is CircuitState.CLOSED:
                    wrong += 1
                if not 0 <= breaker._probe_in_flight <= 2:
                    wrong += 1
                if breaker._state is CircuitState.OPEN and breaker._last_failure_time is None:
                    wrong += 1
        with counting:
            running += 1
            peak = max(peak, running)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 0
    assert peak == 8


async def test_tasks_share_a_breaker() -> None:
    clock = ManualClock()
    breaker = AsyncCircuitBreaker(
        "b", failure_threshold=1, recovery_timeout_seconds=1, half_open_max_probes=3, clock=clock
    )
    await breaker.record_failure()
    clock.advance(1)
    release = asyncio.Event()

    async def probe() -> None:
        await release.wait()

    tasks = [asyncio.create_task(breaker.call(probe)) for _ in range(20)]
    await asyncio.sleep(0)
    assert breaker._probe_in_flight == 3
    release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, CircuitOpenError) for result in results) == 17
    assert await breaker.state() is CircuitState.CLOSED
