"""The gates, budgets, savers and sinks of one process: made with the worker, asked by every call that goes out."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from techrevati.fleet.budgets import BudgetSpec
from techrevati.fleet.checkpoints import Savers
from techrevati.fleet.models import Costs, Models
from techrevati.fleet.sinks import Sinks
from techrevati.store.aio import AsyncStore
from techrevati.store.budgets import AsyncBudget, BudgetKeys
from techrevati.store.errors import StoreError
from techrevati.store.gates import AsyncGate, BreakerChanged, Event, GateSpec, NewsListener
from techrevati.store.gates.events import StoreTrouble, WorkerQuarantined
from techrevati.telemetry.metrics import LimitMetrics

log = logging.getLogger(__name__)

T = TypeVar("T")

WIND_UP = 5.0
"""Seconds that calls under way have to be settled when the process leaves."""


class Gatehouse:
    """What a process has of what its fleet shares."""

    def __init__(
        self,
        fleet: str,
        models: Models,
        store: AsyncStore,
        *,
        worker: str,
        gates: Mapping[str, GateSpec],
        budget: BudgetSpec | None = None,
        savers: Savers | None = None,
        costs: Mapping[str, Costs] | None = None,
        sinks: Sinks | None = None,
        metrics: LimitMetrics | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fleet, self.models, self.monotonic, self._store = fleet, models, monotonic, store
        self.savers, self.sinks, self.costs, self.metrics = savers, sinks, costs or {}, metrics
        self._news = NewsListener(store.url)
        self.gates = {
            name: AsyncGate(store, fleet, spec, worker=worker, news=self._news, on_event=self._heard)
            for name, spec in gates.items()
        }
        self.budget = (
            None
            if budget is None
            else AsyncBudget(store, fleet, limits=budget.limits, on_store_error=budget.on_store_error)
        )
        self._under_way: set[asyncio.Task[Any]] = set()

    def minds(self, name: str) -> bool:
        """Whether calls of this model are counted at all."""
        return self.budget is not None or name in self.gates

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin something that goes on to its end, whoever stops waiting for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def last_news(self, tenant: str) -> str:
        """Give the id of the latest entry in a tenant's log of money: what comes behind it is news; "" if unknown."""
        try:
            found = await self._store.command("XREVRANGE", BudgetKeys(self.fleet, tenant).log, "+", "-", "COUNT", 1)
        except StoreError:
            return ""
        return str(found[0][0]) if found else "0-0"

    def _heard(self, event: Event) -> None:
        log.info("%s", event)
        if self.metrics is None:
            return
        match event:
            case BreakerChanged():
                self.metrics.changed(event.gate, event.before.value, event.after.value, event.forced)
            case WorkerQuarantined():
                self.metrics.quarantined(event.gate)
            case StoreTrouble():
                self.metrics.troubled(event.gate, event.mode)

    async def close(self) -> None:
        """Let what is being settled come to its end, then stop listening."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=WIND_UP)
        await asyncio.to_thread(self._news.close)
        for told in (self.savers, self.sinks):
            if told is not None:
                await asyncio.to_thread(told.close)
