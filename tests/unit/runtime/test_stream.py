"""Turns that stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from techrevati.runtime import (
    AgentSession,
    AsyncCircuitBreaker,
    AsyncRateLimiter,
    AsyncTokenBucket,
    BudgetExceededError,
    CircuitOpenError,
    InMemorySaver,
    ManualClock,
    MaxIterationsExceededError,
    ModelPricing,
    RingBufferUsageSink,
    TurnTimeoutError,
    UsageSnapshot,
    register_pricing,
)
from techrevati.runtime.extras import SessionExtras
from techrevati.runtime.hooks import Hook, ModelCall


async def words() -> AsyncIterator[str]:
    for word in ("a", "b", "c"):
        await asyncio.sleep(0)
        yield word


async def breaks() -> AsyncIterator[str]:
    yield "a"
    raise ConnectionResetError("mid-stream")


def count(chunks: list[Any]) -> UsageSnapshot:
    return UsageSnapshot(output_tokens=len(chunks) * 1_000_000)


async def test_chunks_pass_and_the_books_close_at_the_end() -> None:
    register_pricing("m", ModelPricing(0, 1))
    ring = RingBufferUsageSink()
    breaker = AsyncCircuitBreaker("b", failure_threshold=2)
    await breaker.record_failure()
    tokens = AsyncTokenBucket("out", 1e7, 1, ManualClock())
    factory = AgentSession(
        "r", "p", usage_sink=ring, saver=InMemorySaver(), async_circuit_breaker=breaker,
        async_rate_limiter=AsyncRateLimiter({"output_tpm": tokens}),
    )  # fmt: skip
    async with factory.asession(thread_id="t") as session:
        seen = []
        async with session.arun_turn_stream(words, "m", estimate_usage=count, idempotency_key="k") as stream:
            async for chunk in stream:
                seen.append(chunk)
                assert ring.records == []
                assert stream.usage is None
        assert seen == stream.chunks == ["a", "b", "c"]
        assert stream.usage == count(seen)
        assert ring.records == [("m", count(seen), 3.0)]
        assert breaker._failure_count == 0
        assert await tokens.available() == 7e6
        again = session.arun_turn_stream(breaks, "m", idempotency_key="k")
        assert [chunk async for chunk in again] == ["a", "b", "c"]
        assert again.usage == count(seen)
        assert session._iteration_count == 2
    assert len(ring.records) == 1
    record = factory.saver.get("t") if factory.saver else None
    assert record is not None
    assert record.state["result"] == ["a", "b", "c"]


async def test_a_stream_that_breaks_is_a_failure() -> None:
    breaker = AsyncCircuitBreaker("b", failure_threshold=1)
    async with AgentSession("r", "p", async_circuit_breaker=breaker).asession() as session:
        with pytest.raises(ConnectionResetError):
            async for _ in session.arun_turn_stream(breaks, "m"):
                pass
        with pytest.raises(CircuitOpenError):
            async for _ in session.arun_turn_stream(words, "m"):
                pass
        assert session.tracker.turns == []
    details = [event.detail for event in session.events]
    assert details == [None, "provider_failure: recovered", None]


async def test_leaving_early_accounts_for_what_was_seen() -> None:
    clock = ManualClock()
    breaker = AsyncCircuitBreaker("b", failure_threshold=1, recovery_timeout_seconds=1, clock=clock)
    await breaker.record_failure()
    clock.advance(1)
    closed = []

    async def closing() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(1)

    saver = InMemorySaver()
    factory = AgentSession("r", "p", async_circuit_breaker=breaker, saver=saver)
    async with factory.asession(thread_id="t") as session:
        async with session.arun_turn_stream(closing, "m", estimate_usage=count, idempotency_key="k") as stream:
            async for _ in stream:
                assert breaker._probe_in_flight == 1
                break
        assert closed == [1]
        assert breaker._probe_in_flight == 0
        assert session.tracker.turns == [("m", count(["a"]))]
        async with session.arun_turn_stream(closing) as unread:
            pass
        assert unread.chunks == []
        assert session._iteration_count == 1
    assert saver.list("t") == []


async def test_partial_chunks_of_unknown_cost_are_not_recorded() -> None:
    def estimate(_: list[Any]) -> UsageSnapshot:
        raise ValueError("no idea")

    saver = InMemorySaver()
    async with AgentSession("r", "p", saver=saver).asession(thread_id="t") as session:
        stream = session.arun_turn_stream(words, "m", estimate_usage=estimate, idempotency_key="k")
        assert await anext(aiter(stream)) == "a"
        with pytest.raises(ValueError, match="no idea"):
            await stream.aclose()
        fixed = session.arun_turn_stream(words, "m", usage=UsageSnapshot(1), idempotency_key="k")
        async with fixed:
            async for _ in fixed:
                break
        assert session.tracker.turns == [("m", UsageSnapshot(1))]
    assert saver.list("t") == []
    assert len(session.events) == 2


async def test_leaving_early_closes_the_source_without_a_breaker_too() -> None:
    closed = []

    async def closing() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            closed.append(1)

    async with AgentSession("r", "p").asession() as session:
        async with session.arun_turn_stream(closing) as stream:
            async for _ in stream:
                break
        assert closed == [1]


async def test_a_cancelled_consumer_closes_the_stream() -> None:
    closed = []
    reading = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
            reading.set()
            await asyncio.Event().wait()
        finally:
            closed.append(1)

    async def consume(session: Any) -> None:
        async with session.arun_turn_stream(endless, "m", estimate_usage=count) as stream:
            async for _ in stream:
                pass

    async with AgentSession("r", "p").asession() as session:
        task = asyncio.create_task(consume(session))
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed == [1]
        assert session.tracker.turns == [("m", count([1]))]


async def test_the_deadline_is_for_the_whole_stream() -> None:
    async def stalls() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    breaker = AsyncCircuitBreaker("b", failure_threshold=1)
    async with AgentSession("r", "p", async_circuit_breaker=breaker).asession() as session:
        with pytest.raises(TurnTimeoutError) as caught:
            async for _ in session.arun_turn_stream(stalls, timeout=0.01):
                pass
        assert caught.value.timeout_seconds == 0.01
        assert [chunk async for chunk in session.arun_turn_stream(words, timeout=30)] == ["a", "b", "c"]
    assert breaker._failure_count == 0
    assert len(session.events) == 2


async def test_budgets_and_caps_hold_for_streams() -> None:
    register_pricing("m", ModelPricing(0, 1))
    factory = AgentSession("r", "p", budget_usd=1.0, enforce_budget=True, max_iterations=1, saver=InMemorySaver())
    async with factory.asession(thread_id="t") as session:
        seen = []
        with pytest.raises(BudgetExceededError):
            async for chunk in session.arun_turn_stream(words, "m", estimate_usage=count):
                seen.append(chunk)
        assert len(seen) == 3
        with pytest.raises(MaxIterationsExceededError):
            async for _ in session.arun_turn_stream(words):
                pass
        assert factory.saver is not None
        assert factory.saver.get("t") is not None


async def test_any_async_iterable_and_hooks_before() -> None:
    class Countdown:
        def __init__(self) -> None:
            self.n = 3

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            self.n -= 1
            if self.n < 0:
                raise StopAsyncIteration
            return self.n

    class Rename(Hook):
        async def before_model(self, call: ModelCall) -> ModelCall:
            return ModelCall(call.role, call.phase, "renamed", call.timeout, call.call)

    async with AgentSession("r", "p").asession(extras=SessionExtras(hooks=(Rename(),))) as session:
        stream = session.arun_turn_stream(Countdown, "m", usage=UsageSnapshot(1))
        async with aclosing(stream):
            assert [chunk async for chunk in stream] == [2, 1, 0]
        assert session.tracker.turns == [("renamed", UsageSnapshot(1))]


async def test_a_client_that_is_awaited_first() -> None:
    async def connect() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        return words()

    async def hangs() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        return words()

    async with AgentSession("r", "p").asession() as session:
        assert [chunk async for chunk in session.arun_turn_stream(connect)] == ["a", "b", "c"]
        assert [chunk async for chunk in session.arun_turn_stream(connect, timeout=30)] == ["a", "b", "c"]
        with pytest.raises(TurnTimeoutError):
            assert [chunk async for chunk in session.arun_turn_stream(hangs, timeout=0.001)]


class Foreign:
    """A breaker of another make, with the public face only."""

    name = "foreign"

    def __init__(self) -> None:
        self.log: list[str] = []
        self.open = False

    async def is_open(self) -> bool:
        return self.open

    async def record_success(self) -> None:
        self.log.append("good")

    async def record_failure(self) -> None:
        self.log.append("bad")


async def test_a_breaker_of_another_make_is_told_by_its_public_face() -> None:
    breaker: Any = Foreign()
    async with AgentSession("r", "p", async_circuit_breaker=breaker).asession() as session:
        assert [chunk async for chunk in session.arun_turn_stream(words)] == ["a", "b", "c"]
        with pytest.raises(ConnectionResetError):
            assert [chunk async for chunk in session.arun_turn_stream(breaks)]
        async with session.arun_turn_stream(words) as stream:
            async for _ in stream:
                break
        breaker.open = True
        with pytest.raises(CircuitOpenError, match="foreign"):
            assert [chunk async for chunk in session.arun_turn_stream(words)]
    assert breaker.log == ["good", "bad"]
