"""What `turn.session` tells the fleet's sinks: once for each turn, however often it runs, and each tenant its own."""

import asyncio
from collections import Counter

import pytest

from techrevati.fleet import Fleet, Outcome, Retry, Turn
from techrevati.fleet import sinks as sinks_of
from techrevati.fleet.fleet import AlreadyDeclared
from techrevati.runtime import UsageSnapshot
from techrevati.store.sinks import RedisEventSink, RedisUsageSink
from tests.integration.fleet.desk import Desk, desk, until
from tests.integration.fleet.test_model_budgets import sweep

USAGE = UsageSnapshot(input_tokens=10, output_tokens=20)


def newsroom(name: str, *, fails: int = 0) -> Fleet:
    """A fleet whose agent pays for two calls in each of two turns; the second fails `fails` times behind them."""
    fleet = Fleet(name)

    @fleet.agent("writer", retry=Retry(tries=5, base=0.0, cap=0.0))
    async def write(turn: Turn) -> Outcome:
        for model in ("m", "m"):
            await turn.session.arun_turn(lambda: asyncio.sleep(0, "so"), model=model, usage=USAGE)
        if turn.number == 1:
            return turn.continue_()
        if turn.failures < fails:
            raise RuntimeError("after the calls")
        return turn.complete()

    return fleet


async def finish(at: Desk, **options: str) -> None:
    run = await at.start(**options)
    async with asyncio.timeout(10):
        while (await at.record(run)).status != "completed":
            await asyncio.to_thread(sweep, at.client, run.id)
            await at.ticket(run)


async def test_what_a_turn_tells_again_counts_once(redis_url: str, fleet_name: str) -> None:
    fleet = newsroom(fleet_name, fails=3)
    fleet.sinks()
    async with desk(fleet, redis_url) as at:
        await finish(at)
        await finish(at)
    with RedisUsageSink(redis_url, fleet_name) as usage, RedisEventSink(redis_url, fleet_name) as events:
        assert usage.totals() == {"turns": 8, "total_cost_usd": 0.0, "input_tokens": 80, "output_tokens": 160}
        assert len(usage.records()) == 8
        kinds = Counter(event.event.value for event in events.replay())
    assert (kinds["agent.started"], kinds["agent.completed"]) == (2, 2), kinds


async def test_each_tenant_has_sinks_of_its_own_and_quiet_ones_make_room(
    redis_url: str, fleet_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks_of, "REMEMBERED", 2)
    fleet = newsroom(fleet_name)
    fleet.sinks(events=False)
    async with desk(fleet, redis_url) as at:
        for _ in range(2):
            for tenant in ("ann", "bob", "cid", "dan"):
                await finish(at, tenant=tenant)
    for tenant in ("ann", "bob", "cid", "dan"):
        with (
            RedisUsageSink(redis_url, fleet_name, tenant=tenant) as usage,
            RedisEventSink(redis_url, fleet_name, tenant=tenant) as events,
        ):
            await until(lambda usage=usage: usage.totals()["turns"] >= 8)  # type: ignore[misc]
            assert usage.totals()["turns"] == 8
            assert list(events.replay()) == [], "not asked for"


def test_sinks_are_declared_once_and_with_sense(fleet_name: str) -> None:
    fleet = Fleet(fleet_name)
    with pytest.raises(ValueError, match="most 0"):
        fleet.sinks(most=0)
    with pytest.raises(ValueError, match="window"):
        fleet.sinks(window=-1)
    fleet.sinks()
    with pytest.raises(AlreadyDeclared):
        fleet.sinks()
