"""The session that awaits: what is its own, and that it shares the rest."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import Any

import pytest

from techrevati.runtime import (
    AgentSession,
    AgentStatus,
    AsyncCircuitBreaker,
    AsyncRateLimiter,
    AsyncTokenBucket,
    CircuitOpenError,
    GuardrailOutcome,
    GuardrailViolatedError,
    InMemorySaver,
    ManualClock,
    MaxIterationsExceededError,
    ModelPricing,
    PermissionDeniedError,
    PermissionEnforcer,
    PermissionMode,
    PermissionPolicy,
    RateLimitExceededError,
    RingBufferUsageSink,
    RolePermissionConfig,
    SqliteSaver,
    TurnTimeoutError,
    UsageSnapshot,
    register_pricing,
)
from techrevati.runtime.extras import SessionExtras

MILLION = UsageSnapshot(input_tokens=1_000_000)


async def seven() -> int:
    return 7


async def forever() -> None:
    await asyncio.Event().wait()


def plain(value: Any) -> Any:
    """Forget the type: hooks, replays and other tasks change what mypy thinks it knows."""
    return value


def names(session: Any) -> list[str]:
    return [event.event.value for event in session.events]


async def test_a_turn_goes_through_everything() -> None:
    register_pricing("m", ModelPricing(1, 0))
    clock = ManualClock()
    rpm, tokens = AsyncTokenBucket("rpm", 5, 1, clock), AsyncTokenBucket("in", 2e6, 1, clock)
    ring = RingBufferUsageSink()
    factory = AgentSession(
        "r", "p", async_circuit_breaker=AsyncCircuitBreaker("b"), usage_sink=ring, saver=InMemorySaver(),
        async_rate_limiter=AsyncRateLimiter({"rpm": rpm, "input_tpm": tokens}), max_iterations=3,
    )  # fmt: skip
    async with factory.asession(thread_id="t") as session:
        assert await session.arun_turn(seven, "m", MILLION, idempotency_key="k") == (7, MILLION)
        assert plain(await session.arun_turn(forever, idempotency_key="k")) == (7, MILLION)
        assert await session.arun_turn(seven, estimate_usage=lambda n: UsageSnapshot(n)) == (
            7,
            UsageSnapshot(7),
        )
        with pytest.raises(MaxIterationsExceededError):
            await session.arun_turn(seven)
    assert ring.records == [("m", MILLION, 1.0)]
    assert (await rpm.available(), await tokens.available()) == (3 - 1, 1e6 - 7)
    assert names(session) == ["agent.started", "agent.completed"]


async def test_failures_recover_and_open_the_breaker() -> None:
    async def fail() -> None:
        raise ConnectionResetError("x")

    factory = AgentSession("r", "p", async_circuit_breaker=AsyncCircuitBreaker("b", failure_threshold=1))
    with pytest.raises(CircuitOpenError):
        async with factory.asession() as session:
            with pytest.raises(ConnectionResetError):
                await session.arun_turn(fail)
            await session.arun_turn(seven, timeout=5)
    assert plain(session.worker.status) is AgentStatus.FAILED
    assert names(session) == ["agent.started", "agent.recovery.attempted", "agent.failed"]


async def test_cancellation_cancels_the_worker_and_travels_on() -> None:
    sessions = []

    async def work() -> None:
        async with AgentSession("r", "p").asession() as session:
            sessions.append(session)
            await session.arun_turn(forever, timeout=60)

    task = asyncio.create_task(work())
    while not sessions:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sessions[0].worker.status is AgentStatus.CANCELLED
    assert names(sessions[0]) == ["agent.started", "agent.failed"]
    assert sessions[0].events[-1].detail == "async session cancelled"


async def test_a_deadline_cancels_the_call() -> None:
    cancelled = []

    async def slow() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    breaker = AsyncCircuitBreaker("b", failure_threshold=1)
    async with AgentSession("r", "p", async_circuit_breaker=breaker).asession() as session:
        for timeout in (0.001, 0, -1):
            with pytest.raises(TurnTimeoutError) as caught:
                await session.arun_turn(slow, timeout=timeout)
            assert caught.value.timeout_seconds == timeout
        assert await session.arun_turn(seven, timeout=0) == (7, UsageSnapshot())
    assert cancelled == [1, 1, 1]
    assert breaker._failure_count == 0
    assert names(session) == ["agent.started", "agent.completed"]


async def test_a_timeout_of_the_calls_own_is_its_own() -> None:
    async def own() -> None:
        raise TimeoutError("read timeout")

    async with AgentSession("r", "p").asession() as session:
        with pytest.raises(TimeoutError, match="read timeout"):
            await session.arun_turn(own, timeout=30)
    assert session.events[1].detail == "llm_timeout: recovered"


async def test_tools_with_permissions_and_both_kinds_of_guardrails() -> None:
    class Slow:
        name = "slow"

        async def check_pre(self, *, role: str, tool: str) -> GuardrailOutcome:
            return GuardrailOutcome(tool != "bad")

        async def check_post(self, value: Any, *, role: str, tool: str) -> GuardrailOutcome:
            return GuardrailOutcome(value != "bad")

    roles = {"dev": RolePermissionConfig("dev", PermissionMode.READ_ONLY, denied_tools=["rm"])}
    factory = AgentSession("dev", "p", permissions=PermissionEnforcer(PermissionPolicy(roles)))
    extras = SessionExtras(async_guardrails=(Slow(),))

    async def bad() -> str:
        return "bad"

    async with factory.asession(extras=extras) as session:
        assert await session.arun_tool("read", seven) == 7
        with pytest.raises(PermissionDeniedError):
            await session.arun_tool("rm", seven)
        for tool, call in (("bad", seven), ("read", bad)):
            with pytest.raises(GuardrailViolatedError, match="'slow'"):
                await session.arun_tool(tool, call)
        results = await session.arun_parallel_named_tools([("read", seven), ("list", seven)])
        assert results == [7, 7]
        with pytest.raises(ExceptionGroup) as caught:
            await session.arun_parallel_named_tools([("read", seven), ("bad", seven)])
        assert isinstance(caught.value.exceptions[0], GuardrailViolatedError)
        started: list[int] = []

        async def start() -> None:
            started.append(1)

        with pytest.raises(PermissionDeniedError):
            await session.arun_parallel_named_tools([("read", start), ("rm", start)])
        assert started == []
    with pytest.raises(TypeError, match="async_guardrails need an async session"):
        factory.session(extras=extras)


async def test_parallel_tools_keep_order_and_fall_together() -> None:
    async with AgentSession("r", "p").asession() as session:
        gates = [asyncio.Event() for _ in range(3)]

        async def tool(n: int) -> int:
            if n:
                gates[n - 1].set()
            else:
                await gates[0].wait()
            return n

        assert await session.arun_parallel_tools([lambda n=n: tool(n) for n in range(3)]) == [0, 1, 2]  # type: ignore[misc]
        assert await session.arun_parallel_tools([]) == []
        assert await session.arun_parallel_tools([seven], timeout=5) == [7]
        stopped = []

        async def hang() -> None:
            try:
                await forever()
            finally:
                stopped.append(1)

        async def fail() -> None:
            raise ValueError("x")

        with pytest.raises(ExceptionGroup) as caught:
            await session.arun_parallel_tools([hang, fail, hang])
        assert [type(error) for error in caught.value.exceptions] == [ValueError]
        with pytest.raises(TurnTimeoutError):
            await session.arun_parallel_tools([hang, hang], timeout=0.001)
        assert len(stopped) == 4


async def test_input_is_awaited_and_provided() -> None:
    async with AgentSession("r", "p").asession() as session:
        with pytest.raises(RuntimeError, match="no pause_for_input in flight"):
            session.provide_input("early")
        waiting = asyncio.create_task(session.pause_for_input("name?"))
        await asyncio.sleep(0)
        assert plain(session.worker.status) is AgentStatus.WAITING_FOR_INPUT
        with pytest.raises(RuntimeError, match="still pending"):
            await session.pause_for_input("again?")
        session.provide_input("first")
        session.provide_input("second")
        assert await waiting == "first"
        assert plain(session.worker.status) is AgentStatus.RUNNING
        log = [(event.kind, event.detail) for event in session.worker.events[-2:]]
        assert log == [("waiting_for_input", "name?"), ("running", "input received")]
        session.complete()
        with pytest.raises(RuntimeError, match="cannot pause a terminal session"):
            await session.pause_for_input("late?")


async def test_input_may_come_from_another_thread() -> None:
    async with AgentSession("r", "p").asession() as session:
        waiting = asyncio.create_task(session.pause_for_input("?"))
        await asyncio.sleep(0)
        await asyncio.to_thread(session.provide_input, "from a handler")
        assert await waiting == "from a handler"


async def test_a_pause_that_is_given_up_runs_on() -> None:
    async with AgentSession("r", "p").asession() as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await session.pause_for_input("anyone?")
        assert plain(session.worker.status) is AgentStatus.RUNNING
    assert plain(session.worker.status) is AgentStatus.COMPLETED


async def test_leaving_while_a_pause_waits_cancels_the_worker() -> None:
    async with AgentSession("r", "p").asession() as session:
        waiting = asyncio.create_task(session.pause_for_input("?"))
        await asyncio.sleep(0)
    assert plain(session.worker.status) is AgentStatus.CANCELLED
    session.provide_input("late")
    assert await waiting == "late"
    assert plain(session.worker.status) is AgentStatus.CANCELLED


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_tasks_make_a_keyed_turn_once(kind: str) -> None:
    stack = ExitStack()
    saver = InMemorySaver() if kind == "memory" else stack.enter_context(SqliteSaver(":memory:"))
    factory = AgentSession("r", "p", saver=saver)
    calls: list[int] = []
    release = asyncio.Event()

    async def slow() -> str:
        calls.append(1)
        await release.wait()
        return "once"

    async def run() -> str:
        async with factory.asession(thread_id="t") as session:
            await session.astep("s", seven)
            return (await session.arun_turn(slow, idempotency_key="k"))[0]

    tasks = [asyncio.create_task(run()) for _ in range(5)]
    while not calls:
        await asyncio.sleep(0.001)
    release.set()
    assert await asyncio.gather(*tasks) == ["once"] * 5
    assert calls == [1]
    stack.close()


async def test_steps_are_done_once() -> None:
    saver = InMemorySaver()
    factory = AgentSession("r", "p", saver=saver)
    calls: list[int] = []

    async def charge() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("network")
        return len(calls)

    async with factory.asession(thread_id="t") as session:
        with pytest.raises(RuntimeError):
            await session.astep("charge", charge)
        assert [await session.astep("charge", charge) for _ in range(3)] == [2, 2, 2]
    async with factory.asession() as loose:
        assert await loose.astep("charge", charge) == 3


async def test_a_lost_claim_of_a_step_returns_what_was_recorded() -> None:
    saver = InMemorySaver()
    clock = ManualClock()
    saver._clock = clock
    factory = AgentSession("r", "p", saver=saver)

    async def overtaken() -> str:
        clock.advance(1000)
        async with factory.asession(thread_id="t") as other:
            assert await other.astep("s", lambda: asyncio.sleep(0, "theirs")) == "theirs"
        return "mine"

    async with factory.asession(thread_id="t") as session:
        assert await session.astep("s", overtaken) == "theirs"


async def test_state_goes_to_another_session() -> None:
    factory = AgentSession("r", "p")
    async with factory.asession() as session:
        await session.arun_turn(seven, "m", MILLION)
        session.handoff_to("editor", "done")
        state = json.loads(json.dumps(session.export_state()))
    async with factory.asession(state=state) as again:
        assert (again._iteration_count, again.tracker.total_input_tokens) == (1, 1_000_000)


async def test_a_waiting_limiter_lets_others_run() -> None:
    bucket = AsyncTokenBucket("rpm", 1, 200)
    factory = AgentSession("r", "p", async_rate_limiter=AsyncRateLimiter({"rpm": bucket}))
    async with factory.asession() as session:
        await session.arun_turn(seven)
        ticks = 0
        turn = asyncio.create_task(session.arun_turn(seven))
        while not turn.done():
            ticks += 1
            await asyncio.sleep(0)
        assert ticks > 1
        bucket.capacity = 0.5
        with pytest.raises(RateLimitExceededError):
            await session.arun_turn(seven)


async def test_tasks_share_a_factory() -> None:
    register_pricing("m", ModelPricing(1, 0))
    ring = RingBufferUsageSink(1000)
    factory = AgentSession(
        "r", "p", usage_sink=ring, saver=InMemorySaver(), async_circuit_breaker=AsyncCircuitBreaker("b"),
        async_rate_limiter=AsyncRateLimiter({"rpm": AsyncTokenBucket("rpm", 1e9, 1e9)}),
    )  # fmt: skip

    async def work(n: int) -> float:
        async with factory.asession(thread_id=f"t{n}") as session:
            for turn in range(10):
                await session.arun_turn(lambda: asyncio.sleep(0, 1), "m", MILLION, idempotency_key=str(turn))
            return session.tracker.total_cost()

    assert await asyncio.gather(*(work(n) for n in range(20))) == [10.0] * 20
    assert len(ring.records) == 200
    assert factory.registry.list_active() == []
