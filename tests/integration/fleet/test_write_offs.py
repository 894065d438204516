"""Whoever holds money dies, and nobody of its tenant calls again: the coordinator charges what it held."""

import asyncio
import contextlib
import subprocess
import sys
import time
from pathlib import Path

from techrevati.fleet.coordinator import Coordinator
from techrevati.fleet.settings import Settings
from techrevati.store.aio import AsyncStore
from techrevati.store.budgets import AsyncBudget, BudgetKeys, Limit

HOLDER = """
import sys, time
from techrevati.store.budgets import Budget, Cost, Limit, Limits, Scope, budget
from techrevati.store.sync import SyncStore

budget.MARGIN = 0.5  # what a reservation outlives its call by
till = Budget(SyncStore(sys.argv[1]), sys.argv[2], limits=Limits(tenant=(Limit.usd(1),)))
made = till.reserve(Scope("acme", run="r1"), "c1", Cost(850_000), timeout=0.5)
print(made.expires, flush=True)
time.sleep(60)
"""


async def test_the_coordinator_charges_what_a_dead_process_held(redis_url: str, fleet_name: str) -> None:
    coordinator = Coordinator(fleet_name, Settings(redis_url=redis_url, partition_lease=1.0))
    running = asyncio.create_task(coordinator.run())
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, redis_url, fleet_name],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    store = AsyncStore(redis_url)
    try:
        assert holder.stdout is not None
        expires = int(await asyncio.to_thread(holder.stdout.readline)) / 1e6
        holder.kill()
        keys = BudgetKeys(fleet_name, "acme")
        deadline = time.monotonic() + 10
        while await store.command("HGET", keys.call("c1"), "st") != "off":  # a look that no script hears of
            assert time.monotonic() < deadline, "nobody wrote it off"
            await asyncio.sleep(0.02)
        assert expires <= time.time() <= expires + 3
        while not coordinator.done.written_off:
            await asyncio.sleep(0.01)
        budget = AsyncBudget(store, fleet_name)
        events = await budget.events("acme")
        assert [event.type for event in events] == ["budget_threshold"] * 2 + ["budget_written_off"]
        assert [event.fields["percent"] for event in events[:2]] == ["50", "80"]
        account = (await budget.look("acme")).levels["tenant"].account()
        assert (account.limit, account.spent, account.reserved) == (Limit.usd(1).amount, 850_000, 0)
        assert await budget.write_off() == 0, "another round finds nothing"
        assert len(await budget.events("acme")) == 3
    finally:
        holder.kill()
        holder.communicate()
        coordinator.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await store.close()
