"""Budgets of a fleet: reserve before the call, settle after it.

    reserve(scope, call id, estimate) ──▶ the call ──▶ settle(reservation, cost)
                  └── BudgetRefused                └── release(reservation): it was not made

Both shells say the same calls; they differ by an await.
"""

import asyncio
from collections.abc import Sequence

from techrevati.store.aio import AsyncStore
from techrevati.store.budgets import calls
from techrevati.store.budgets.names import BudgetKeys, tenants_key
from techrevati.store.budgets.records import Book, BudgetEvent, Reservation, State
from techrevati.store.budgets.spec import Cost, Limit, Limits, Scope, Unit, Window, check_thresholds, percents
from techrevati.store.budgets.trouble import AWAY, MARGIN, Fallback, OnStoreError, Report, accepted, log_report
from techrevati.store.budgets.write_offs import Announcements, WriteOffs
from techrevati.store.calls import Call
from techrevati.store.keys import check_role
from techrevati.store.sync import SyncStore

PAGE = 100
PATIENCE = 0.5


class _Office:
    """What both shells know: names, limits, and what to do without the store."""

    def __init__(self, fleet: str, limits: Limits, on_store_error: str, report: Report) -> None:
        self.fleet, self.limits = check_role(fleet, "fleet"), limits
        self.fallback = Fallback(limits, OnStoreError(on_store_error), report=report)
        # Who may do without the store does not wait long for it; who may not, as long as the store does.
        self.patience = None if self.fallback.policy is OnStoreError.FAIL_CLOSED else PATIENCE
        self.announcements = Announcements(fleet)
        self.write_offs = WriteOffs(fleet)

    def keys(self, tenant: str) -> BudgetKeys:
        return BudgetKeys(self.fleet, tenant)

    def reserve(self, keys: BudgetKeys, scope: Scope, call_id: str, cost: Cost, ttl_us: int) -> Call[Reservation]:
        return calls.reserve(keys, scope, self.limits, call_id, cost, ttl_us)


def _ttl_us(timeout: float) -> int:
    if not 0 <= timeout <= 86_400:
        raise ValueError(f"timeout {timeout} s: a call takes between 0 and 86,400 s")
    return round((timeout + MARGIN) * 1e6)


def _limit_call(keys: BudgetKeys, level: str, limit: Limit) -> Call[bool]:
    return calls.set_limit(keys, level, limit.account, str(limit.amount))


def _range(keys: BudgetKeys, after: str, count: int) -> tuple[str, str, str, str, str, int]:
    return "XRANGE", keys.log, f"({after}" if after else "-", "+", "COUNT", count


class Budget:
    """The budgets of a fleet, for code that may block.  Safe for threads.

    `on_store_error` says what a reservation does when Redis is away: ``fail_closed`` raises, ``fail_open`` admits
    unchecked and uncounted, ``local`` counts in this process alone (N processes then admit up to N times).
    """

    def __init__(
        self,
        store: SyncStore,
        fleet: str,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        on_store_error: str = "fail_closed",
        report: Report = log_report,
    ) -> None:
        self._store, self._office = store, _Office(fleet, limits, on_store_error, report)

    def reserve(self, scope: Scope, call_id: str, estimate: Cost, *, timeout: float) -> Reservation:
        """Set `estimate` aside at every level of `scope` for a call of at most `timeout` seconds.

        Raises:
            BudgetRefused: it does not fit; it names the level, the limit, what is spent and reserved.
            ReservationClosed: the call id belongs to a call that has ended.
            StoreUnreachable: Redis is away and the policy is to fail closed.
        """
        office, keys, ttl_us = self._office, self._office.keys(scope.tenant), _ttl_us(timeout)
        call = office.reserve(keys, scope, call_id, estimate, ttl_us)
        if office.fallback.skips_store():
            return office.fallback.reserve(keys, scope, call_id, estimate, ttl_us, None)
        try:
            made = self._store.run(call, patience=office.patience)
        except AWAY as error:
            return office.fallback.reserve(keys, scope, call_id, estimate, ttl_us, error)
        self._catch_up(made, ttl_us)
        return accepted(made)

    def settle(self, reservation: Reservation, cost: Cost) -> State:
        """Put what the call did cost in the place of its estimate; the first settlement counts.

        With Redis away the answer is OWED: it is said again with a later call.
        """
        return self._close(reservation, cost)

    def release(self, reservation: Reservation) -> State:
        """Give back what was reserved for a call that was not made."""
        return self._close(reservation, None)

    def look(self, tenant: str, *levels: str) -> Book:
        """Read levels ("tenant", "project:…", "thread:…", "run:…"); also writes off what expired."""
        return self._store.run(calls.look(self._office.keys(tenant), levels or ("tenant",)))

    def set(self, tenant: str, level: str, limit: Limit) -> bool:
        """Set an operator's limit; it wins over what the code declares.  False if it was so."""
        return self._store.run(_limit_call(self._office.keys(tenant), level, limit))

    def lift(self, tenant: str, level: str, unit: Unit, window: Window) -> bool:
        """Say that there is no limit, whatever the code declares."""
        return self._store.run(calls.set_limit(self._office.keys(tenant), level, f"{unit}.{window}", "-"))

    def unset(self, tenant: str, level: str, unit: Unit, window: Window) -> bool:
        """Take back `set` or `lift`: what the code declares holds again."""
        return self._store.run(calls.set_limit(self._office.keys(tenant), level, f"{unit}.{window}", ""))

    def set_thresholds(self, tenant: str, level: str, thresholds: Sequence[int]) -> bool:
        """Say at which percents spent an event is written, once in each window."""
        value = percents(check_thresholds(thresholds))
        return self._store.run(calls.set_limit(self._office.keys(tenant), level, "at", value))

    def events(self, tenant: str, *, after: str = "", limit: int = PAGE) -> list[BudgetEvent]:
        """Read thresholds, refusals, write-offs, corrections and settings, oldest first."""
        return list(map(BudgetEvent.parse, self._store.command(*_range(self._office.keys(tenant), after, limit))))

    def projects(self, tenant: str, *, limit: int = PAGE) -> list[str]:
        """Give the level ids of projects, the latest used first."""
        return list(self._store.command("ZREVRANGE", self._office.keys(tenant).projects, 0, limit - 1))

    def write_off(self, *, now_us: int | None = None) -> int:
        """Charge what expired of tenants that do not call, a bounded number of them; give how many reservations.

        Coordinators do so once a second.  Repeat it while the answer is above 0.
        """
        steps = self._office.write_offs.round(now_us)
        try:
            asked = next(steps)
            while True:
                replies = self._store.run_many(asked.calls) if asked.calls else self._store.commands(asked.commands)
                asked = steps.send(replies)
        except StopIteration as end:
            return int(end.value)

    def tenants(self) -> list[str]:
        return sorted(self._store.command("SMEMBERS", tenants_key(self._office.fleet)))

    def _close(self, reservation: Reservation, cost: Cost | None) -> State:
        fallback, keys = self._office.fallback, self._office.keys(reservation.tenant)
        if (state := fallback.settle_own(keys, reservation, cost)) is not None:
            return state
        try:
            return self._store.run(calls.settle(keys, reservation.call_id, cost))
        except AWAY as error:
            return fallback.owe(keys, reservation.call_id, cost, error)

    def _catch_up(self, made: Reservation, ttl_us: int) -> None:
        fallback, announcements = self._office.fallback, self._office.announcements
        try:
            if commands := announcements.due(made, ttl_us):
                self._store.commands(commands)
                announcements.said(made)
            for owed in fallback.to_repay():
                try:
                    self._store.run(owed.call())
                except AWAY:
                    fallback.put_back(owed)
                    raise
        except AWAY as error:
            fallback.report("budget_catch_up_failed", {"tenant": made.tenant, "error": str(error)})


class AsyncBudget:
    """The budgets of a fleet, for an event loop; see `Budget`."""

    def __init__(
        self,
        store: AsyncStore,
        fleet: str,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        on_store_error: str = "fail_closed",
        report: Report = log_report,
    ) -> None:
        self._store, self._office = store, _Office(fleet, limits, on_store_error, report)

    async def reserve(self, scope: Scope, call_id: str, estimate: Cost, *, timeout: float) -> Reservation:
        """Set `estimate` aside at every level of `scope`; see `Budget.reserve`."""
        office, keys, ttl_us = self._office, self._office.keys(scope.tenant), _ttl_us(timeout)
        call = office.reserve(keys, scope, call_id, estimate, ttl_us)
        if office.fallback.skips_store():
            return office.fallback.reserve(keys, scope, call_id, estimate, ttl_us, None)
        try:
            made = await self._store.run(call, patience=office.patience)
        except AWAY as error:
            return office.fallback.reserve(keys, scope, call_id, estimate, ttl_us, error)
        await self._catch_up(made, ttl_us)
        return accepted(made)

    async def settle(self, reservation: Reservation, cost: Cost) -> State:
        """Put what the call did cost in the place of its estimate; the first settlement counts."""
        return await self._close(reservation, cost)

    async def release(self, reservation: Reservation) -> State:
        """Give back what was reserved for a call that was not made."""
        return await self._close(reservation, None)

    async def look(self, tenant: str, *levels: str) -> Book:
        """Read levels; also writes off what expired."""
        return await self._store.run(calls.look(self._office.keys(tenant), levels or ("tenant",)))

    async def set(self, tenant: str, level: str, limit: Limit) -> bool:
        """Set an operator's limit; it wins over what the code declares.  False if it was so."""
        return await self._store.run(_limit_call(self._office.keys(tenant), level, limit))

    async def lift(self, tenant: str, level: str, unit: Unit, window: Window) -> bool:
        """Say that there is no limit, whatever the code declares."""
        return await self._store.run(calls.set_limit(self._office.keys(tenant), level, f"{unit}.{window}", "-"))

    async def unset(self, tenant: str, level: str, unit: Unit, window: Window) -> bool:
        """Take back `set` or `lift`: what the code declares holds again."""
        return await self._store.run(calls.set_limit(self._office.keys(tenant), level, f"{unit}.{window}", ""))

    async def set_thresholds(self, tenant: str, level: str, thresholds: Sequence[int]) -> bool:
        """Say at which percents spent an event is written, once in each window."""
        value = percents(check_thresholds(thresholds))
        return await self._store.run(calls.set_limit(self._office.keys(tenant), level, "at", value))

    async def events(self, tenant: str, *, after: str = "", limit: int = PAGE) -> list[BudgetEvent]:
        """Read thresholds, refusals, write-offs, corrections and settings, oldest first."""
        found = await self._store.command(*_range(self._office.keys(tenant), after, limit))
        return list(map(BudgetEvent.parse, found))

    async def projects(self, tenant: str, *, limit: int = PAGE) -> list[str]:
        """Give the level ids of projects, the latest used first."""
        return list(await self._store.command("ZREVRANGE", self._office.keys(tenant).projects, 0, limit - 1))

    async def write_off(self, *, now_us: int | None = None) -> int:
        """Charge what expired of tenants that do not call; see `Budget.write_off`."""
        steps = self._office.write_offs.round(now_us)
        try:
            asked = next(steps)
            while True:
                replies = (
                    await asyncio.gather(*map(self._store.run, asked.calls))
                    if asked.calls
                    else await self._store.commands(asked.commands)
                )
                asked = steps.send(replies)
        except StopIteration as end:
            return int(end.value)

    async def tenants(self) -> list[str]:
        return sorted(await self._store.command("SMEMBERS", tenants_key(self._office.fleet)))

    async def _close(self, reservation: Reservation, cost: Cost | None) -> State:
        fallback, keys = self._office.fallback, self._office.keys(reservation.tenant)
        if (state := fallback.settle_own(keys, reservation, cost)) is not None:
            return state
        try:
            return await self._store.run(calls.settle(keys, reservation.call_id, cost))
        except AWAY as error:
            return fallback.owe(keys, reservation.call_id, cost, error)

    async def _catch_up(self, made: Reservation, ttl_us: int) -> None:
        fallback, announcements = self._office.fallback, self._office.announcements
        try:
            if commands := announcements.due(made, ttl_us):
                await self._store.commands(commands)
                announcements.said(made)
            for owed in fallback.to_repay():
                try:
                    await self._store.run(owed.call())
                except AWAY:
                    fallback.put_back(owed)
                    raise
        except AWAY as error:
            fallback.report("budget_catch_up_failed", {"tenant": made.tenant, "error": str(error)})
