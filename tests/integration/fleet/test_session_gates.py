"""`turn.session` with what the fleet shares in it, on a real Redis."""

import asyncio
import contextlib
from typing import Any

import pytest

from techrevati.fleet import Fleet, Outcome, Retry, Turn
from techrevati.runtime import AgentSession, InMemorySaver, UsageSnapshot
from techrevati.runtime.circuit_breaker import AsyncCircuitBreaker
from techrevati.runtime.usage_tracking import PRICING_TABLE, ModelPricing, register_pricing
from techrevati.store.budgets import Limit
from techrevati.store.gates import BreakerSpec, BucketSpec
from tests.integration.fleet.desk import desk
from tests.integration.fleet.test_model_budgets import books, sweep


@pytest.fixture(autouse=True)
def prices() -> Any:
    before = dict(PRICING_TABLE)
    register_pricing("dear", ModelPricing(1000.0, 1000.0))
    yield
    PRICING_TABLE.clear()
    PRICING_TABLE.update(before)


class Work:
    """The author's own model call."""

    def __init__(self, *errors: Exception) -> None:
        self.calls, self.errors = 0, list(errors)

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "so"


def newsroom(name: str, work: Work, *, times: int = 1, model: str = "dear", **options: Any) -> Fleet:
    fleet = Fleet(name)

    @fleet.agent("writer", retry=Retry(tries=1), **options)
    async def write(turn: Turn) -> Outcome:
        for _ in range(times):
            await turn.session.arun_turn(work, model=model, usage=UsageSnapshot(input_tokens=10, output_tokens=20))
        return turn.complete(turn.session.summary()["usage"]["turns"])

    return fleet


async def test_a_session_goes_through_the_fleets_only_gate(redis_url: str, fleet_name: str) -> None:
    work = Work()
    fleet = newsroom(fleet_name, work, times=2)
    fleet.gate("m", buckets={"rpm": BucketSpec("rpm", 1, 0.1)}, concurrency=3)
    async with desk(fleet, redis_url) as at:
        record = await at.served(await at.start())
        [gate] = await asyncio.to_thread(at.client.gates)
    assert (record.why, record.home, work.calls, gate.slots_used) == ("gate:m", "due", 1, 0)


async def test_the_tokens_of_a_session_are_owed_at_the_gate(redis_url: str, fleet_name: str) -> None:
    fleet = newsroom(fleet_name, Work(), gate="b")
    fleet.gate("a", rpm=1)
    fleet.gate("b", input_tpm=600, output_tpm=600)
    async with desk(fleet, redis_url) as at:
        assert (await at.served(await at.start())).output == 1
        gates = {gate.name: gate for gate in await asyncio.to_thread(at.client.gates)}
    assert 588 < gates["b"].levels["input_tpm"] < 595 and 578 < gates["b"].levels["output_tpm"] < 585
    assert gates["a"].declared_by == "", "the other was not asked"


async def test_failures_of_sessions_open_the_fleets_breaker(redis_url: str, fleet_name: str) -> None:
    work = Work(ConnectionError("no"), ConnectionError("no"))
    fleet = newsroom(fleet_name, work)
    fleet.gate("m", breaker=BreakerSpec(failure_threshold=2, cooldown=30.0))
    async with desk(fleet, redis_url) as at:
        for _ in range(2):
            assert (await at.served(await at.start())).status == "dead"
        assert (await at.served(await at.start())).why == "gate:m" and work.calls == 2


async def test_what_a_session_spends_counts_and_stops_it_where_nothing_is_left(redis_url: str, fleet_name: str) -> None:
    work = Work()
    fleet = newsroom(fleet_name, work, times=5)
    fleet.budget(run=Limit(70_000))
    async with desk(fleet, redis_url) as at:
        run = await at.start()
        record = await at.served(run)
    assert record.status == "dead" and record.error["failure"] == "limit_exceeded" and work.calls == 3
    account = books(redis_url, fleet_name, f"run:{run.id}")
    assert (account.spent, account.reserved) == (90_000, 0), "by what the last call cost beyond what was known"


async def test_a_call_whose_cost_nobody_told_holds_nothing(redis_url: str, fleet_name: str) -> None:
    fleet = newsroom(fleet_name, Work(), model="")
    fleet.budget(run=1)
    async with desk(fleet, redis_url) as at:
        run = await at.start()
        assert (await at.served(run)).status == "completed"
    account = books(redis_url, fleet_name, f"run:{run.id}")
    assert (account.spent, account.reserved) == (0, 0)


async def test_what_the_author_gave_stays_his(redis_url: str, fleet_name: str) -> None:
    own, saver = AsyncCircuitBreaker("own", failure_threshold=1), InMemorySaver()
    session = AgentSession("writer", "draft", async_circuit_breaker=own, saver=saver)
    fleet = newsroom(fleet_name, Work(), times=2, session=session)
    fleet.gate("m", buckets={"rpm": BucketSpec("rpm", 1, 0.1)})
    async with desk(fleet, redis_url) as at:
        run = await at.start()
        record = await at.served(run)
    assert record.status == "completed", "his breaker, so not the gate"
    assert len(saver.list(record.thread_id)) == 2, "his saver, under the thread's id"


async def test_a_keyed_turn_of_a_session_is_replayed_by_whoever_tries_again(redis_url: str, fleet_name: str) -> None:
    work, fleet = Work(), Fleet(fleet_name)
    fleet.checkpoints(keep=10)

    @fleet.agent("writer", retry=Retry(tries=3, base=0.0, cap=0.0))
    async def write(turn: Turn) -> Outcome:
        text, usage = await turn.session.arun_turn(work, usage=UsageSnapshot(input_tokens=7), idempotency_key="draft")
        if turn.failures < 1:
            raise RuntimeError("after the call")
        return turn.complete([text, usage.input_tokens])

    async with desk(fleet, redis_url) as at:
        run = await at.start()
        await at.ticket(run)
        assert work.calls == 1
    async with desk(fleet, redis_url) as at, asyncio.timeout(10):  # another worker
        while (record := await at.record(run)).status != "completed":
            await asyncio.to_thread(sweep, at.client, run.id)
            await at.ticket(run)
    assert record.output == ["so", 7] and work.calls == 1


@pytest.mark.parametrize("how", ["ends", "cut", "left"])
async def test_a_stream_of_a_session_holds_slot_and_money_until_it_is_over(
    how: str, redis_url: str, fleet_name: str
) -> None:
    """It ends, is cut, or its reader leaves it: the slot is free, and what it did cost is all that is counted."""
    fleet, first, go = Fleet(fleet_name), asyncio.Event(), asyncio.Event()
    fleet.gate("dear", concurrency=1)
    fleet.budget(run=1.0)

    async def words() -> Any:
        yield "so"
        first.set()
        await go.wait()
        if how == "cut":
            raise ConnectionResetError("cut")
        yield "it is"

    def used(chunks: list[Any]) -> UsageSnapshot:
        return UsageSnapshot(input_tokens=10, output_tokens=10 * len(chunks))

    @fleet.agent("writer", retry=Retry(tries=1))
    async def write(turn: Turn) -> Outcome:
        with contextlib.suppress(ConnectionResetError):
            async with turn.session.arun_turn_stream(words, model="dear", estimate_usage=used) as stream:
                async for _ in stream:
                    if how == "left" and first.is_set():
                        break
        return turn.complete()

    async with desk(fleet, redis_url) as at:
        run = await at.start()
        serving = asyncio.create_task(at.ticket(run))
        if how == "left":
            first.set()
        async with asyncio.timeout(5):
            await first.wait()
        if how != "left":
            [gate] = await asyncio.to_thread(at.client.gates)
            assert gate.slots_used == 1
            assert books(redis_url, fleet_name, f"run:{run.id}").reserved > 0
        go.set()
        await serving
        [gate] = await asyncio.to_thread(at.client.gates)
    account = books(redis_url, fleet_name, f"run:{run.id}")
    assert gate.slots_used == 0
    assert (account.spent, account.reserved) == ({"ends": 30_000, "cut": 0, "left": 20_000}[how], 0)
