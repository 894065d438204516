"""Budgets around `turn.model`, on a real Redis."""

import asyncio
from typing import Any

import pytest

from techrevati.fleet import Fleet, ModelReply, ModelRequest, Outcome, Retry, Turn
from techrevati.fleet.model_failures import ModelFailed
from techrevati.fleet.routed import RoutedModel
from techrevati.runtime.usage_tracking import PRICING_TABLE, ModelPricing, register_pricing
from techrevati.store import calls
from techrevati.store.budgets import Account, Budget, Limit, Unit
from techrevati.store.sync import SyncStore
from tests.integration.fleet.desk import desk

ONCE = Retry(tries=1)


@pytest.fixture(autouse=True)
def prices() -> Any:
    """Each token of the model "dear" costs a thousandth of a dollar: 1000 micro-dollars."""
    before = dict(PRICING_TABLE)
    register_pricing("dear", ModelPricing(1000.0, 1000.0))
    yield
    PRICING_TABLE.clear()
    PRICING_TABLE.update(before)


class Dear:
    """A model that uses what it is told to, when it is let."""

    def __init__(self, output: int = 10, error: Exception | None = None) -> None:
        self.output, self.error, self.calls = output, error, 0
        self.go = asyncio.Event()
        self.go.set()

    async def complete(self, request: ModelRequest) -> ModelReply:
        self.calls += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return ModelReply("so", 5, self.output, 1000 * (5 + self.output), "dear")


def newsroom(name: str, model: Dear, **budget: Any) -> Fleet:
    fleet = Fleet(name)
    fleet.model("dear", model)
    fleet.budget(**budget)

    @fleet.agent("writer", retry=ONCE)
    async def write(turn: Turn) -> Outcome:
        for _ in range((turn.input or {}).get("calls", 1)):
            await turn.model("dear", "hello", max_tokens=50)
        return turn.complete("written")

    return fleet


def books(url: str, fleet: str, level: str = "tenant") -> Account:
    with SyncStore(url) as store:
        return Budget(store, fleet).look("default", level).levels[level].account(Unit.USD)


async def test_what_a_call_did_cost_replaces_what_was_reserved(redis_url: str, fleet_name: str) -> None:
    model = Dear()
    model.go.clear()
    async with desk(newsroom(fleet_name, model, tenant=1), redis_url) as at:
        run = await at.start()
        serving = asyncio.create_task(at.ticket(run))
        async with asyncio.timeout(10):
            while not model.calls:
                await asyncio.sleep(0.005)
        held = books(redis_url, fleet_name)
        assert held.spent == 0 and 50_000 < held.reserved < 100_000
        model.go.set()
        await serving
        assert (await at.record(run)).status == "completed"
    settled = books(redis_url, fleet_name)
    assert (settled.spent, settled.reserved) == (15_000, 0)
    assert books(redis_url, fleet_name, f"run:{run.id}").spent == 15_000


async def test_a_run_that_would_overspend_dies_with_the_limit_named(redis_url: str, fleet_name: str) -> None:
    model = Dear()
    async with desk(newsroom(fleet_name, model, run=Limit(80_000), tenant={"day": 5}), redis_url) as at:
        run = await at.start({"calls": 3})
        record = await at.served(run)
    assert record.status == "dead" and record.error["failure"] == "limit_exceeded"
    assert "usd budget of run:" in record.error["message"] and model.calls == 2


async def test_what_a_sub_agent_spends_is_its_parents_money(redis_url: str, fleet_name: str) -> None:
    model = Dear()
    fleet = newsroom(fleet_name, model, run=Limit(80_000))

    @fleet.agent("writer", name="boss", retry=ONCE)
    async def lead(turn: Turn) -> Outcome:
        if turn.number > 1:
            return turn.complete([child.error["message"] for child in turn.children.values()])
        await turn.model("dear", "hello", max_tokens=50)
        await turn.start_child("writer", {"calls": 2})
        return turn.wait_children()

    async with desk(fleet, redis_url) as at:
        run = await asyncio.to_thread(at.client.start, "boss")
        for _ in range(3):
            await at.ticket(run)
        (told,) = (await at.record(run)).output
    assert f"usd budget of run:{run.id}" in told and model.calls == 2
    account = books(redis_url, fleet_name, f"run:{run.id}")
    assert (account.spent, account.reserved) == (30_000, 0), "one of its own, one of its child's"


async def test_turns_in_parallel_never_overspend_together(redis_url: str, fleet_name: str) -> None:
    model = Dear(output=50)
    async with desk(newsroom(fleet_name, model, tenant=Limit(300_000)), redis_url) as at:
        runs = [await at.start() for _ in range(20)]
        await asyncio.gather(*(at.ticket(run) for run in runs))
        statuses = [(await at.record(run)).status for run in runs]
    account = books(redis_url, fleet_name)
    assert account.reserved == 0 and account.spent == 55_000 * model.calls <= 300_000
    assert statuses.count("completed") == model.calls >= 4  # type: ignore[arg-type]
    assert statuses.count("dead") == 20 - model.calls  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "charged"),
    [
        (ModelFailed("dear", "prompt_rejection", "no", 400), False),
        (ModelFailed("dear", "dependency_failed", "its stream was cut"), True),
        (TimeoutError("late"), True),
    ],
)
async def test_a_call_that_may_have_been_made_is_charged_and_one_that_was_refused_is_not(
    redis_url: str, fleet_name: str, error: Exception, charged: bool
) -> None:
    async with desk(newsroom(fleet_name, Dear(error=error), tenant=1), redis_url) as at:
        assert (await at.served(await at.start())).status == "dead"
    account = books(redis_url, fleet_name)
    assert account.reserved == 0 and (account.spent > 50_000) == charged


async def test_a_journaled_answer_is_free(redis_url: str, fleet_name: str) -> None:
    model, fleet = Dear(), Fleet(fleet_name)
    fleet.model("dear", model)
    fleet.budget(run=1)

    @fleet.agent("writer", retry=Retry(tries=3, base=0.0, cap=0.0))
    async def write(turn: Turn) -> Outcome:
        await turn.model("dear", "hello", max_tokens=50)
        if turn.failures < 1:
            raise RuntimeError("after the model")
        return turn.complete()

    async with desk(fleet, redis_url) as at:
        run = await at.start()
        await at.ticket(run)
        async with asyncio.timeout(10):
            while (await at.record(run)).status != "completed":  # its backoff of zero is over at the next sweep
                await asyncio.to_thread(sweep, at.client, run.id)
                await at.ticket(run)
    assert model.calls == 1 and books(redis_url, fleet_name).spent == 15_000


def sweep(client: Any, run_id: str) -> None:
    client.store.run(calls.sweep(client.keys(run_id)))


async def test_a_route_skips_whom_the_budget_does_not_pay_and_tells_what_was_tried(
    redis_url: str, fleet_name: str
) -> None:
    fleet = newsroom(fleet_name, Dear(), tenant=Limit(30_000))
    cheap = Dear(output=1)
    fleet.model("cheap", cheap)
    fleet.model("either", RoutedModel(["dear", "cheap"]))

    @fleet.agent("writer", name="router", retry=ONCE)
    async def route(turn: Turn) -> Outcome:
        return turn.complete((await turn.model("either", "hello", max_tokens=50)).tried)

    async with desk(fleet, redis_url) as at:
        run = await asyncio.to_thread(at.client.start, "router")
        record = await at.served(run)
    assert record.status == "completed" and cheap.calls == 1
    assert [(one["model"], one["outcome"]) for one in record.output] == [("dear", "refused")]


async def test_a_run_is_told_of_the_thresholds_its_levels_pass(redis_url: str, fleet_name: str) -> None:
    async with desk(newsroom(fleet_name, Dear(), tenant=Limit(1_000_000), run=Limit(200_000)), redis_url) as at:
        run = await at.start({"calls": 7})
        assert (await at.served(run)).status == "completed"
        told = [data for kind, data in await at.events(run) if kind == "budget.threshold"]
        lines = await asyncio.to_thread(at.client.budgets, "default", f"run:{run.id}")
    assert told == [
        {
            "level": f"run:{run.id}",
            "account": "usd.total",
            "percent": 50,
            "limit": 200_000,
            "spent": 105_000,
            "reserved": 0,
        }
    ]
    shown = {(line.level, line.account): (line.limit, line.spent, line.reserved) for line in lines}
    assert shown["tenant", "usd.total"] == (1_000_000, 105_000, 0)
    assert shown["tenant", "tokens.total"] == (None, 105, 0)
    assert shown[f"run:{run.id}", "usd.total"] == (200_000, 105_000, 0)
