"""A fleet's breaker, bucket and limiter are to a session what those of one process are."""

import asyncio
import gc
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from techrevati.runtime import (
    AgentSession,
    AsyncCircuitBreaker,
    AsyncRateLimiter,
    AsyncTokenBucket,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    RateLimiter,
    RateLimitExceededError,
    TokenBucket,
    TurnTimeoutError,
)
from techrevati.store.aio import AsyncStore
from techrevati.store.embedded import EmbeddedRedis
from techrevati.store.gates import (
    AsyncRedisCircuitBreaker,
    AsyncRedisRateLimiter,
    AsyncRedisTokenBucket,
    RedisCircuitBreaker,
    RedisRateLimiter,
    RedisTokenBucket,
)
from techrevati.store.sync import SyncStore


class Time:
    """One clock for Redis and for this process."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def store(server: EmbeddedRedis, clock: Time) -> Iterator[SyncStore]:
    with SyncStore(server.url, now_us=lambda: round(clock.now * 1e6)) as one:
        yield one


@pytest.fixture(params=["process", "fleet"])
def breaker(request: pytest.FixtureRequest, store: SyncStore, fleet_name: str, clock: Time) -> Iterator[CircuitBreaker]:
    if request.param == "process":
        yield CircuitBreaker("api", 2, 10.0, 1, clock)
        return
    shared = RedisCircuitBreaker("api", 2, 10.0, 1, clock, store=store, fleet=fleet_name, staleness=0)
    yield shared
    shared.close()


def boom() -> None:
    raise ConnectionError("boom")


def trip(breaker: CircuitBreaker, times: int = 2) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError):
            breaker.call(boom)


def test_it_opens_probes_and_closes(breaker: CircuitBreaker, clock: Time) -> None:
    assert breaker.call(max, 1, 3) == 3
    trip(breaker)
    assert (breaker.state(), breaker.is_open()) == (CircuitState.OPEN, True)
    called: list[int] = []
    with pytest.raises(CircuitOpenError, match="Circuit breaker 'api' is OPEN"):
        breaker.call(lambda: called.append(1))
    assert called == []
    clock.now += 9.999
    assert breaker.is_open()
    clock.now += 0.001
    assert (breaker.state(), breaker.is_open()) == (CircuitState.HALF_OPEN, False)
    trip(breaker, 1)
    assert breaker.is_open()
    clock.now += 10
    assert breaker.call(lambda: "ok") == "ok"
    assert breaker.state() is CircuitState.CLOSED
    trip(breaker, 1)
    assert breaker.state() is CircuitState.CLOSED


def test_a_probe_in_flight_keeps_all_others_out(breaker: CircuitBreaker, clock: Time) -> None:
    trip(breaker)
    clock.now += 10

    def probe() -> str:
        with pytest.raises(CircuitOpenError):
            breaker.call(lambda: None)
        return "probed"

    assert breaker.call(probe) == "probed"


def test_an_interrupted_probe_gives_its_permit_back(breaker: CircuitBreaker, clock: Time) -> None:
    trip(breaker)
    clock.now += 10

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaker.call(interrupt)
    assert breaker.call(lambda: 1) == 1


def test_results_by_hand_count_in_every_state(breaker: CircuitBreaker, clock: Time) -> None:
    breaker.record_failure()
    breaker.record_success()
    breaker.record_failure()
    assert breaker.state() is CircuitState.CLOSED
    breaker.record_failure()
    assert breaker.is_open()
    clock.now += 6
    breaker.record_failure()  # the window begins again
    breaker.record_success()  # and a good one does not close it
    clock.now += 6
    assert breaker.is_open()
    clock.now += 4
    assert breaker.state() is CircuitState.HALF_OPEN
    breaker.reset()
    assert breaker.state() is CircuitState.CLOSED


def test_replicas_of_a_session_stop_together(store: SyncStore, fleet_name: str, clock: Time) -> None:
    breakers = [
        RedisCircuitBreaker("api", 2, 10.0, 1, clock, store=store, fleet=fleet_name, staleness=0, worker=f"w{n}")
        for n in range(2)
    ]
    one, other = (AgentSession(role="writer", phase="draft", circuit_breaker=breaker) for breaker in breakers)
    for _ in range(2):
        with pytest.raises(ConnectionError), one.session() as session:
            session.run_turn(boom)
    with pytest.raises(CircuitOpenError), other.session() as session:
        session.run_turn(lambda: None)
    for breaker in breakers:
        breaker.close()


@pytest.mark.parametrize("shared", [False, True])
async def test_the_async_breaker_does_the_same(
    shared: bool, server: EmbeddedRedis, fleet_name: str, clock: Time
) -> None:
    store = AsyncStore(server.url, now_us=lambda: round(clock.now * 1e6))
    breaker: AsyncCircuitBreaker = AsyncCircuitBreaker("api", 2, 10.0, 1, clock)
    if shared:
        breaker = AsyncRedisCircuitBreaker("api", 2, 10.0, 1, clock, store=store, fleet=fleet_name, staleness=0)

    async def boom() -> None:
        raise ConnectionError

    async def good(value: int) -> int:
        return value

    async def chunks() -> Any:
        yield 1
        yield 2

    for _ in range(2):
        with pytest.raises(ConnectionError):
            await breaker.call(boom)
    assert await breaker.is_open()
    with pytest.raises(CircuitOpenError):
        await breaker.call(good, 1)
    session = AgentSession(role="writer", phase="draft", async_circuit_breaker=breaker)
    async with session.asession() as scope:
        with pytest.raises(CircuitOpenError):
            async with scope.arun_turn_stream(chunks) as stream:
                async for _ in stream:
                    pass
    clock.now += 10
    probing = asyncio.Event()

    async def probe() -> None:
        probing.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(breaker.call(probe))
    async with asyncio.timeout(10):
        await probing.wait()
    with pytest.raises(CircuitOpenError):
        await breaker.call(good, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await breaker.call(good, 7) == 7
    assert await breaker.state() is CircuitState.CLOSED
    await breaker.record_failure()
    await breaker.record_success()
    await breaker.reset()
    if isinstance(breaker, AsyncRedisCircuitBreaker):
        await breaker.close()
    await store.close()


# Buckets.


@pytest.fixture(params=["process", "fleet"])
def bucket(
    request: pytest.FixtureRequest, server: EmbeddedRedis, fleet_name: str
) -> Iterator[Callable[..., TokenBucket]]:
    with SyncStore(server.url) as store:
        if request.param == "process":
            yield TokenBucket
        else:
            yield lambda *args: RedisTokenBucket(*args, store=store, fleet=fleet_name)


def test_a_bucket_gives_what_it_has_and_waits_for_more(bucket: Callable[..., TokenBucket]) -> None:
    one = bucket("b", 10.0, 10.0)
    begun = time.monotonic()
    assert one.try_acquire(10)
    assert not one.try_acquire(9)
    assert one.try_acquire(0) and one.try_acquire(-1)
    one.acquire(5, timeout=5)
    assert 0.5 - 0.01 <= time.monotonic() - begun <= 3.0
    assert one.available < 10
    with pytest.raises(RateLimitExceededError, match="rate limit exceeded on 'b': requested 11 tokens"):
        one.acquire(11)
    one.charge(500)
    begun = time.monotonic()
    with pytest.raises(RateLimitExceededError):
        one.acquire(5, timeout=1.0)
    assert time.monotonic() - begun < 0.9, "known at once"
    assert one.available < -400


def test_a_forked_bucket_takes_on_lanes_of_its_own(server: EmbeddedRedis, fleet_name: str) -> None:
    with SyncStore(server.url) as store:
        bucket = RedisTokenBucket("b", 10.0, 0.001, store=store, fleet=fleet_name)
        assert bucket.try_acquire() and bucket.try_acquire()
        children = [multiprocessing.get_context("fork").Process(target=_take_four, args=(bucket,)) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(10)
            assert child.exitcode == 4, "all four it asked for"
        assert bucket.available == pytest.approx(0, abs=0.1), "each of the ten was taken from the bucket"
        assert not bucket.try_acquire()


def _take_four(bucket: RedisTokenBucket) -> None:
    os._exit(sum(bucket.try_acquire() for _ in range(4)))


def test_a_take_whose_answer_is_lost_is_given_once(
    server: EmbeddedRedis, fleet_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SyncStore(server.url) as store:
        bucket = RedisTokenBucket("b", 10.0, 0.001, store=store, fleet=fleet_name)
        assert bucket.try_acquire() and bucket.try_acquire()
        said, reads = store._lines.exchange, list[int]()

        def lose(*what: Any) -> list[Any]:
            replies = said(*what)
            reads.append(1)
            if len(reads) == 1:
                raise RedisConnectionError("the reply is lost")
            return replies

        monkeypatch.setattr(store._lines, "exchange", lose)
        assert bucket.try_acquire()
        assert len(reads) == 2
        assert bucket.available == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize("numbers", [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_a_bucket_of_nothing_is_refused(bucket: Callable[..., TokenBucket], numbers: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        bucket("b", *numbers)


@pytest.mark.parametrize("shared", [False, True])
async def test_an_async_bucket_lets_others_run_and_starts_who_waits_in_order(
    shared: bool, server: EmbeddedRedis, fleet_name: str
) -> None:
    store = AsyncStore(server.url)
    bucket: AsyncTokenBucket = (
        AsyncRedisTokenBucket("b", 2.0, 100.0, store=store, fleet=fleet_name)
        if shared
        else AsyncTokenBucket("b", 2.0, 100.0)
    )
    await bucket.acquire(2)
    order: list[int] = []

    async def one(n: int) -> None:
        await bucket.acquire(2)
        order.append(n)

    await asyncio.gather(*(one(n) for n in range(10)))
    assert order == list(range(10))
    bucket.charge(100_000)
    async with asyncio.timeout(10):
        while await bucket.available() >= -90_000:
            await asyncio.sleep(0.005)
    assert not await bucket.try_acquire(2)
    await store.close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_limiter_pays_before_and_after_a_call(shared: bool, server: EmbeddedRedis, fleet_name: str) -> None:
    with SyncStore(server.url) as store:
        limits = {"rpm": 2.0, "input_tpm": 1000.0, "output_tpm": 100.0}
        limiter: RateLimiter
        if shared:
            limiter = RedisRateLimiter.of("m", limits, store=store, fleet=fleet_name)
        else:
            limiter = RateLimiter({name: TokenBucket(name, limit, limit / 60) for name, limit in limits.items()})
        limiter.acquire_pre_call()
        limiter.acquire_pre_call()
        with pytest.raises(RateLimitExceededError, match="'rpm'"):
            limiter.acquire_pre_call(timeout=0.1)
        limiter.acquire_usage(input_tokens=600, output_tokens=50)
        with pytest.raises(RateLimitExceededError, match="'input_tpm'"):
            limiter.acquire_usage(input_tokens=600, output_tokens=10, timeout=0.1)
        limiter.acquire_usage(input_tokens=100, output_tokens=0)
        limiter.acquire_usage(input_tokens=5000, output_tokens=0)  # made already: owed
        bucket = limiter.get("input_tpm")
        assert bucket is not None and bucket.available < -4000
        assert limiter.get("nothing") is None


@pytest.mark.parametrize("shared", [False, True])
async def test_an_async_limiter_does_the_same(shared: bool, server: EmbeddedRedis, fleet_name: str) -> None:
    store = AsyncStore(server.url)
    limits = {"rpm": 2.0, "input_tpm": 1000.0}
    limiter: AsyncRateLimiter
    if shared:
        limiter = AsyncRedisRateLimiter.of("m", limits, store=store, fleet=fleet_name)
    else:
        limiter = AsyncRateLimiter({name: AsyncTokenBucket(name, limit, limit / 60) for name, limit in limits.items()})
    session = AgentSession(role="writer", phase="draft", async_rate_limiter=limiter)
    async with session.asession() as scope:
        for _ in range(2):
            assert (await scope.arun_turn(lambda: asyncio.sleep(0, "said")))[0] == "said"
    with pytest.raises(RateLimitExceededError, match="'rpm'"):
        await limiter.acquire_pre_call(timeout=0.1)
    await limiter.acquire_usage(input_tokens=900, output_tokens=7)
    with pytest.raises(RateLimitExceededError, match="'input_tpm'"):
        await limiter.acquire_usage(input_tokens=900, output_tokens=7, timeout=0.1)
    await limiter.acquire_usage(input_tokens=9000, output_tokens=7)
    if isinstance(limiter, AsyncRedisRateLimiter):
        await limiter.close()
    await store.close()


def test_a_usage_is_one_round_trip_and_all_or_nothing(server: EmbeddedRedis, fleet_name: str) -> None:
    with SyncStore(server.url) as store:
        limiter = RedisRateLimiter.of("m", {"input_tpm": 100, "output_tpm": 10}, store=store, fleet=fleet_name)
        limiter.acquire_usage(input_tokens=1, output_tokens=9)
        assert limiter.gate is not None
        trips = limiter.gate.core.trips
        with pytest.raises(RateLimitExceededError):
            limiter.acquire_usage(input_tokens=50, output_tokens=9, timeout=0)
        limiter.acquire_usage(input_tokens=50, output_tokens=1, timeout=0)
        assert limiter.gate.core.trips - trips == 2
        assert limiter.gate.look().levels["input_tpm"] == pytest.approx(49, abs=1)


# Streams.


class Words:
    """A stream that gives words for as long as it is let, and breaks if it is told to."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.breaks, self.go, self.opened = breaks, asyncio.Event(), 0

    async def __call__(self) -> AsyncIterator[str]:
        self.opened += 1
        yield "so"
        await self.go.wait()
        if self.breaks:
            raise ConnectionResetError("cut")
        yield "it is"


async def test_a_stream_holds_its_permit_until_it_ends_is_cut_or_is_left(
    server: EmbeddedRedis, fleet_name: str, clock: Time
) -> None:
    store = AsyncStore(server.url, now_us=lambda: round(clock.now * 1e6))
    breaker = AsyncRedisCircuitBreaker("api", 1, 10.0, 1, clock, store=store, fleet=fleet_name, staleness=0)
    agent = AgentSession(role="writer", phase="draft", async_circuit_breaker=breaker)

    async def under_way() -> int:
        return (await breaker.gate.look()).probes

    async def half_open() -> None:
        await breaker.record_failure()
        clock.now += 10
        assert await breaker.state() is CircuitState.HALF_OPEN

    async with agent.asession() as session:
        # It ends: what is probed is well again.
        await half_open()
        words = Words()
        async with session.arun_turn_stream(words) as stream:
            assert await anext(aiter(stream)) == "so"
            assert await under_way() == 1
            with pytest.raises(CircuitOpenError):  # the only permit is out
                async with session.arun_turn_stream(words) as other:
                    await anext(aiter(other))
            words.go.set()
            assert [word async for word in stream] == ["it is"]
        assert (words.opened, await under_way(), await breaker.state()) == (1, 0, CircuitState.CLOSED)
        # It is cut: that is a failure.
        await half_open()
        cut = Words(breaks=True)
        async with session.arun_turn_stream(cut) as stream:
            await anext(aiter(stream))
            cut.go.set()
            with pytest.raises(ConnectionResetError):
                await anext(aiter(stream))
        assert (await under_way(), await breaker.state()) == (0, CircuitState.OPEN)
        # It is left, cancelled, or too late: that says nothing, and another may probe at once.
        clock.now += 10
        async with session.arun_turn_stream(Words()) as stream:
            await anext(aiter(stream))
        assert (await under_way(), await breaker.state()) == (0, CircuitState.HALF_OPEN)

        async def read() -> None:
            async with session.arun_turn_stream(Words()) as stream:
                async for _ in stream:
                    reading.set()

        reading = asyncio.Event()
        task = asyncio.ensure_future(read())
        await reading.wait()
        assert await under_way() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await under_way(), await breaker.state()) == (0, CircuitState.HALF_OPEN)
        with pytest.raises(TurnTimeoutError):
            async with session.arun_turn_stream(Words(), timeout=0.05) as stream:
                async for _ in stream:
                    pass
        assert (await under_way(), await breaker.state()) == (0, CircuitState.HALF_OPEN)
        # Nobody closes it: it goes with its last reference.
        stream = session.arun_turn_stream(Words())
        await anext(aiter(stream))
        assert await under_way() == 1
        del stream
        gc.collect()
        async with asyncio.timeout(5):
            while await under_way():
                await asyncio.sleep(0.005)
    await breaker.close()
    await store.close()


def test_a_permit_of_threads_is_held_for_a_block(store: SyncStore, fleet_name: str, clock: Time) -> None:
    breaker = RedisCircuitBreaker("api", 1, 10.0, 1, clock, store=store, fleet=fleet_name, staleness=0)
    with breaker.permit():
        pass
    with pytest.raises(ConnectionResetError), breaker.permit():
        raise ConnectionResetError
    with pytest.raises(CircuitOpenError), breaker.permit():
        raise AssertionError("not admitted")
    clock.now += 10
    with breaker.permit():
        assert breaker.gate.look().probes == 1
    assert (breaker.gate.look().probes, breaker.state()) == (0, CircuitState.CLOSED)
    breaker.close()
